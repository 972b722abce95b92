/* From http_respond, on any thread, to MHD's response on the loop's. */
#include "common/http_impl.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/buf.h"

enum { PROBLEM_BYTES_MAX = 16 << 20 }; /* a problem may list every click's error */

static const char TYPE_PROBLEM[] = "application/problem+json";

static struct MHD_Response *
response_make(const struct http_request *request)
{
    const char *type = request->out;
    const char *body = type + request->type_n;
    union {
        const char *in;
        void *out;
    } bytes = {.in = body}; /* MHD copies, but its prototype is not const */
    struct MHD_Response *response = MHD_create_response_from_buffer(
        request->body_out_n, bytes.out, MHD_RESPMEM_MUST_COPY);
    char seconds[16];

    if (response == NULL)
        return NULL;
    if (request->type_n > 1)
        (void)MHD_add_response_header(response, "Content-Type", type);
    if (request->name_n > 1)
        (void)MHD_add_response_header(response, body + request->body_out_n,
                                      body + request->body_out_n + request->name_n);
    if (request->retry_after_s > 0) {
        (void)snprintf(seconds, sizeof(seconds), "%d", request->retry_after_s);
        (void)MHD_add_response_header(response, "Retry-After", seconds);
    }
    if (request->close)
        (void)MHD_add_response_header(response, "Connection", "close");
    return response;
}

static bool
last_fits(const struct http_loop *loop, const struct http_request *request)
{
    return loop->last != NULL && loop->last_status == request->status &&
           loop->last_n == request->body_out_n &&
           strcmp(loop->last_type, request->out) == 0 &&
           memcmp(loop->last_body, request->out + request->type_n, loop->last_n) ==
               0;
}

/* The response object of the last plain small answer, used again if it is the same. */
static struct MHD_Response *
response_of(struct http_loop *loop, const struct http_request *request)
{
    bool plain = !request->close && request->name_n <= 1 &&
                 request->retry_after_s == 0 &&
                 request->body_out_n <= sizeof(loop->last_body) &&
                 request->type_n <= sizeof(loop->last_type);

    if (!plain)
        return response_make(request);
    if (last_fits(loop, request))
        return loop->last;
    if (loop->last != NULL)
        MHD_destroy_response(loop->last);
    loop->last = response_make(request);
    loop->last_status = request->status;
    loop->last_n = request->body_out_n;
    memcpy(loop->last_type, request->out, request->type_n);
    memcpy(loop->last_body, request->out + request->type_n, loop->last_n);
    return loop->last;
}

enum MHD_Result
http_answer_queue(struct http_request *request)
{
    struct http_loop *loop = request->conn->loop;
    struct MHD_Response *response;
    enum MHD_Result result;

    if (atomic_load(&loop->server->stopping))
        request->close = true;
    response = response_of(loop, request);
    if (response == NULL)
        return MHD_NO;
    http_conn_phase(request->conn, HTTP_ANSWERING);
    result = MHD_queue_response(request->mhd, (unsigned)request->status, response);
    if (response != loop->last)
        MHD_destroy_response(response);
    return result;
}

void
http_loop_resume(struct http_loop *loop)
{
    struct http_request *request = atomic_exchange(&loop->done, NULL);

    while (request != NULL) {
        struct http_request *next = request->next;

        request->answered = true;
        MHD_resume_connection(request->mhd);
        request = next;
    }
}

static void
done_push(struct http_loop *loop, struct http_request *request)
{
    struct http_request *head = atomic_load(&loop->done);

    do
        request->next = head;
    while (!atomic_compare_exchange_weak(&loop->done, &head, request));
    if (head == NULL) /* else someone's wake is still under way */
        http_loop_wake(loop);
}

/* type \0 body name \0 value \0 in one piece. */
static bool
answer_pack(struct http_request *request, const struct http_answer *answer)
{
    struct str type = str_of(answer->content_type),
               name = str_of(answer->extra_name),
               value = str_of(answer->extra_value);
    size_t total = (size_t)type.n + 1 + answer->body.n + name.n + 1 + value.n + 1;
    char *p = total <= sizeof(request->small) ? request->small : malloc(total);

    if (p == NULL)
        return false;
    request->out = p;
    request->type_n = type.n + 1;
    request->body_out_n = answer->body.n;
    request->name_n = name.n + 1;
    request->value_n = value.n + 1;
    memset(p, 0, total);
    if (type.n > 0)
        memcpy(p, type.p, type.n);
    p += type.n + 1;
    if (answer->body.n > 0)
        memcpy(p, answer->body.p, answer->body.n);
    p += answer->body.n;
    if (name.n > 0)
        memcpy(p, name.p, name.n);
    if (value.n > 0)
        memcpy(p + name.n + 1, value.p, value.n);
    return true;
}

void
http_respond(struct http_request *request, const struct http_answer *answer)
{
    struct http_loop *loop = request->conn->loop;
    static const struct http_answer no_memory = {.status = 503, .retry_after_s = 1};

    assert(answer->status >= 200 && answer->status < 600);
    assert(request->out == NULL); /* exactly once */
    if (!answer_pack(request, answer)) {
        answer = &no_memory;
        (void)answer_pack(request, answer); /* fits into small */
    }
    request->status = answer->status;
    request->retry_after_s = answer->retry_after_s;
    if (pthread_equal(loop->self, pthread_self()) && loop->handling == request)
        request->answered = true;
    else
        done_push(loop, request);
}

static const char *
title_of(int status)
{
    const char *phrase = MHD_get_reason_phrase_for((unsigned)status);

    return phrase == NULL ? "Error" : phrase;
}

static void
problem(struct http_request *request, int status, const char *code,
        const char *detail, const char *extra_json, int retry_after_s,
        const char *name, const char *value)
{
    struct buf json = BUF_MAX(PROBLEM_BYTES_MAX);

    buf_add_text(&json, "{\"type\":\"about:blank\",\"title\":");
    buf_add_json(&json, str_of(title_of(status)));
    buf_printf(&json, ",\"status\":%d,\"code\":", status);
    buf_add_json(&json, str_of(code));
    buf_add_text(&json, ",\"detail\":");
    buf_add_json(&json, str_of(detail));
    if (extra_json != NULL) {
        buf_add_text(&json, ",");
        buf_add_text(&json, extra_json);
    }
    buf_add_text(&json, "}\n");
    http_respond(request,
                 &(struct http_answer){
                     .status = status,
                     .content_type = TYPE_PROBLEM,
                     .body = json.failed ? STR("")
                                         : (struct str){(const char *)json.p,
                                                        (uint32_t)json.n},
                     .retry_after_s = retry_after_s,
                     .extra_name = name,
                     .extra_value = value,
                 });
    buf_free(&json);
}

void
http_problem(struct http_request *request, int status, const char *code,
             const char *detail, const char *extra_json, int retry_after_s)
{
    bool no_key = status == 401;

    problem(request, status, code, detail, extra_json, retry_after_s,
            no_key ? "WWW-Authenticate" : NULL, no_key ? "Bearer" : NULL);
}

void
http_method_refuse(struct http_request *request, const char *allowed)
{
    char detail[128];

    (void)snprintf(detail, sizeof(detail), "This path takes %s.", allowed);
    problem(request, 405, "method", detail, NULL, 0, "Allow", allowed);
}

#include "common/http_impl.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "common/clock.h"

enum {
    DISCARD_FACTOR =
        4, /* times body_max that we read and drop to get an answer across */
    CHUNKED_FIRST = 16 * 1024,
};

void *
http_request_begin(void *cls, const char *uri, struct MHD_Connection *mhd)
{
    struct http_loop *loop = cls;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct http_conn *conn = info == NULL ? NULL : info->socket_context;
    struct http_request *request;

    (void)uri;
    if (conn == NULL)
        return NULL;
    if (conn->request != NULL)
        http_request_drop(conn->request);
    request = calloc(1, sizeof(*request));
    if (request == NULL)
        return NULL;
    if (conn->phase != HTTP_RECEIVING)
        http_conn_phase(conn, HTTP_RECEIVING);
    request->conn = conn;
    request->mhd = mhd;
    request->began_us = conn->since_us;
    conn->request = request;
    atomic_fetch_add(&loop->server->active, 1);
    return request;
}

static size_t
body_cap_of(size_t n)
{
    const size_t step = n <= 4096 ? 1024 : 16 * 1024;

    return (n + HTTP_BODY_SLACK + step - 1) / step * step;
}

static uint8_t *
body_take(struct http_loop *loop, size_t n, size_t *cap)
{
    for (unsigned i = loop->spare_n; i-- > 0;) {
        struct http_spare spare = loop->spare[i];

        if (spare.cap < n + HTTP_BODY_SLACK)
            continue;
        loop->spare[i] = loop->spare[--loop->spare_n];
        *cap = spare.cap;
        return spare.p;
    }
    *cap = body_cap_of(n);
    return malloc(*cap);
}

static void
body_give(struct http_loop *loop, struct http_request *request)
{
    if (request->body == NULL)
        return;
    if (request->body_cap <= HTTP_SPARE_BYTES_MAX && loop->spare_n < HTTP_SPARE_MAX)
        loop->spare[loop->spare_n++] =
            (struct http_spare){request->body, request->body_cap};
    else
        free(request->body);
    request->body = NULL;
    request->body_n = request->body_cap = 0;
}

static bool
budget_take(struct http_request *request, size_t n)
{
    struct http_server *server = request->conn->loop->server;

    if (atomic_fetch_add(&server->in_flight, n) + n > server->cfg.in_flight_max) {
        atomic_fetch_sub(&server->in_flight, n);
        return false;
    }
    request->reserved += n;
    return true;
}

static void
budget_give(struct http_request *request)
{
    atomic_fetch_sub(&request->conn->loop->server->in_flight, request->reserved);
    request->reserved = 0;
}

void
http_request_drop(struct http_request *request)
{
    struct http_loop *loop = request->conn->loop;

    request->conn->request = NULL;
    if (request->context_drop != NULL)
        request->context_drop(request->context);
    body_give(loop, request);
    budget_give(request);
    if (request->out != request->small)
        free(request->out);
    free(request);
    atomic_fetch_sub(&loop->server->active, 1);
}

void
http_request_end(void *cls, struct MHD_Connection *mhd, void **state,
                 enum MHD_RequestTerminationCode why)
{
    struct http_request *request = *state;

    (void)cls;
    (void)mhd;
    (void)why;
    *state = NULL;
    if (request == NULL)
        return;
    http_conn_phase(request->conn, HTTP_IDLE);
    http_request_drop(request);
}

/* --- headers --- */

struct head {
    unsigned lengths, encodings, connections;
    bool chunked, expects, bad_name, bad_length;
    size_t length;
};

static bool
is(const char *name, size_t n, const char *want)
{
    return n == strlen(want) && strncasecmp(name, want, n) == 0;
}

static void
length_parse(struct head *head, const char *value, size_t n)
{
    head->lengths++;
    if (n == 0 || n > 18)
        head->bad_length = true;
    for (size_t i = 0; i < n && !head->bad_length; i++) {
        if (value[i] < '0' || value[i] > '9')
            head->bad_length = true;
        head->length = head->length * 10 + (size_t)(value[i] - '0');
    }
}

static enum MHD_Result
head_visit(void *cls, enum MHD_ValueKind kind, const char *name, size_t name_n,
           const char *value, size_t value_n)
{
    struct head *head = cls;

    (void)kind;
    if (name_n == 0 || name[name_n - 1] == ' ' || name[name_n - 1] == '\t')
        head->bad_name = true;
    else if (is(name, name_n, "content-length"))
        length_parse(head, value, value_n);
    else if (is(name, name_n, "transfer-encoding")) {
        head->encodings++;
        head->chunked = is(value, value_n, "chunked");
    } else if (is(name, name_n, "expect"))
        head->expects = true;
    return MHD_YES;
}

static bool
method_known(const char *method)
{
    static const char *const known[] = {"GET",    "POST",  "HEAD",   "PUT",
                                        "DELETE", "PATCH", "OPTIONS"};

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(method, known[i]) == 0)
            return true;
    return false;
}

/* Where the body ends must be beyond doubt, else one sender's bytes could be read as
 * another's request by a proxy before us. Answers and returns false if it is not. */
static bool
framing_good(struct http_request *request, const struct head *head,
             const char *version)
{
    const char *detail = NULL;

    if (head->bad_name)
        detail =
            "A header name ends in a blank; remove the blank before the colon.";
    else if (head->encodings > 0 && head->lengths > 0)
        detail = "Send either Content-Length or Transfer-Encoding, not both.";
    else if (head->lengths > 1)
        detail = "Send Content-Length once.";
    else if (head->bad_length)
        detail = "Content-Length is not a number of bytes.";
    else if (head->encodings > 1)
        detail = "Send Transfer-Encoding once.";
    else if (head->encodings > 0 && strcmp(version, MHD_HTTP_VERSION_1_0) == 0)
        detail = "HTTP/1.0 has no Transfer-Encoding; send Content-Length.";
    if (detail != NULL)
        http_problem(request, 400, "bad_framing", detail, NULL, 0);
    else if (head->encodings > 0 && !head->chunked)
        http_problem(request, 501, "transfer_encoding",
                     "Of the transfer encodings only chunked is known.", NULL, 0);
    request->close = request->answered;
    return !request->answered;
}

static void
answer_too_large(struct http_request *request)
{
    char detail[96];

    (void)snprintf(detail, sizeof(detail),
                   "The body is over the limit of %zu bytes.",
                   request->conn->loop->server->cfg.body_max);
    http_problem(request, 413, "body_too_large", detail, NULL, 0);
}

static void
answer_busy(struct http_request *request)
{
    http_problem(request, 503, "busy",
                 "Too many bytes are in flight; send the same again later.", NULL,
                 1);
}

static bool
body_reserve(struct http_request *request, size_t n)
{
    const struct http_config *cfg = &request->conn->loop->server->cfg;

    if (n > cfg->body_max)
        answer_too_large(request);
    else if (!budget_take(request, n))
        answer_busy(request);
    else {
        request->body = body_take(request->conn->loop, n, &request->body_cap);
        if (request->body == NULL)
            answer_busy(request);
    }
    return !request->answered;
}

/* With the headers only: takes the room for the body, or decides that it is refused. A
 * refused body of moderate size is read and dropped, because closing a socket with unread
 * bytes would reset the connection before the client has seen why. */
static enum MHD_Result
headers_done(struct http_request *request, const char *version)
{
    const struct http_config *cfg = &request->conn->loop->server->cfg;
    struct http_loop *loop = request->conn->loop;
    struct head head = {0};

    (void)MHD_get_connection_values_n(request->mhd, MHD_HEADER_KIND, head_visit,
                                      &head);
    loop->handling = request;
    if (!framing_good(request, &head, version)) {
        loop->handling = NULL;
        return http_answer_queue(request);
    }
    if (!method_known(request->method)) {
        http_problem(request, 501, "method", "This method is not known here.", NULL,
                     0);
    } else if (atomic_load(&loop->server->stopping)) {
        http_problem(request, 503, "stopping",
                     "The server is stopping; send the same again later.", NULL, 1);
        request->close = true;
    } else if (head.length > 0) {
        (void)body_reserve(request, head.length);
    }
    loop->handling = NULL;
    if (!request->answered)
        return MHD_YES;
    if (head.expects || head.length > DISCARD_FACTOR * cfg->body_max)
        return http_answer_queue(request);
    request->discard = true;
    return MHD_YES;
}

/* --- the body --- */

/* Chunked: nobody said how long it is. */
static bool
body_grow(struct http_request *request, size_t want)
{
    const struct http_config *cfg = &request->conn->loop->server->cfg;
    size_t n =
        request->reserved < CHUNKED_FIRST ? CHUNKED_FIRST : request->reserved;
    uint8_t *p;

    while (n < want)
        n *= 2;
    if (n > cfg->body_max)
        n = cfg->body_max;
    if (want > cfg->body_max)
        answer_too_large(request);
    else if (!budget_take(request, n - request->reserved))
        answer_busy(request);
    if (request->answered)
        return false;
    if (n + HTTP_BODY_SLACK <= request->body_cap)
        return true;
    p = realloc(request->body, n + HTTP_BODY_SLACK);
    if (p == NULL) {
        answer_busy(request);
        return false;
    }
    request->body = p;
    request->body_cap = n + HTTP_BODY_SLACK;
    return true;
}

static enum MHD_Result
body_add(struct http_request *request, const char *data, size_t n)
{
    struct http_loop *loop = request->conn->loop;
    size_t want = request->body_n + n;
    bool fits = request->discard || want <= request->reserved;

    if (!fits) {
        loop->handling = request;
        fits = body_grow(request, want);
        loop->handling = NULL;
        request->discard = !fits;
        if (!fits) {
            body_give(loop, request);
            budget_give(request);
        }
    }
    if (request->discard) {
        request->dropped += n;
        return request->dropped > DISCARD_FACTOR * loop->server->cfg.body_max
                   ? MHD_NO
                   : MHD_YES;
    }
    memcpy(request->body + request->body_n, data, n);
    request->body_n = want;
    return MHD_YES;
}

static enum MHD_Result
body_done(struct http_request *request)
{
    struct http_loop *loop = request->conn->loop;
    const struct http_config *cfg = &loop->server->cfg;

    if (request->body != NULL)
        memset(request->body + request->body_n, 0, HTTP_BODY_SLACK);
    http_conn_phase(request->conn, HTTP_HANDLING);
    loop->handling = request;
    cfg->handle(cfg->ctx, request);
    loop->handling = NULL;
    if (request->answered)
        return http_answer_queue(request);
    /* Another thread may have answered by now: its answer waits in `done`, which this
     * thread looks at later, so suspending first is never too late. */
    MHD_suspend_connection(request->mhd);
    return MHD_YES;
}

enum MHD_Result
http_request_serve(void *cls, struct MHD_Connection *mhd, const char *url,
                   const char *method, const char *version, const char *data,
                   size_t *data_n, void **state)
{
    struct http_request *request = *state;
    enum MHD_Result result;

    (void)cls;
    (void)mhd;
    if (request == NULL)
        return MHD_NO; /* no memory for it */
    if (!request->whole_headers) {
        request->whole_headers = true;
        request->url = url;
        request->method = method;
        return headers_done(request, version);
    }
    if (*data_n > 0) {
        result = body_add(request, data, *data_n);
        *data_n = 0;
        return result;
    }
    return request->answered ? http_answer_queue(request) : body_done(request);
}

/* --- what the handler reads --- */

struct str
http_method(const struct http_request *request)
{
    return str_of(request->method);
}

struct str
http_path(const struct http_request *request)
{
    return str_of(request->url);
}

struct str
http_body(const struct http_request *request)
{
    return (struct str){(const char *)request->body, (uint32_t)request->body_n};
}

static struct str
value_of(const struct http_request *request, enum MHD_ValueKind kind,
         const char *name)
{
    const char *value = NULL;
    size_t n = 0;

    if (MHD_lookup_connection_value_n(request->mhd, kind, name, strlen(name),
                                      &value, &n) != MHD_YES)
        return (struct str){NULL, 0};
    return value == NULL ? STR("") : (struct str){value, (uint32_t)n};
}

struct str
http_header(const struct http_request *request, const char *name)
{
    return value_of(request, MHD_HEADER_KIND, name);
}

struct last {
    const char *name;
    struct str value;
};

static enum MHD_Result
last_visit(void *cls, enum MHD_ValueKind kind, const char *name, size_t name_n,
           const char *value, size_t value_n)
{
    struct last *last = cls;

    (void)kind;
    if (is(name, name_n, last->name))
        last->value = (struct str){value, (uint32_t)value_n};
    return MHD_YES;
}

struct str
http_header_last(const struct http_request *request, const char *name)
{
    struct last last = {.name = name};

    (void)MHD_get_connection_values_n(request->mhd, MHD_HEADER_KIND, last_visit,
                                      &last);
    return last.value;
}

struct str
http_query(const struct http_request *request, const char *name)
{
    return value_of(request, MHD_GET_ARGUMENT_KIND, name);
}

struct str
http_peer(const struct http_request *request)
{
    return (struct str){(const char *)request->conn->peer, request->conn->peer_n};
}

int64_t
http_began_us(const struct http_request *request)
{
    return request->began_us;
}

void
http_context_set(struct http_request *request, void *data, void (*drop)(void *))
{
    request->context = data;
    request->context_drop = drop;
}

void *
http_context(const struct http_request *request)
{
    return request->context;
}

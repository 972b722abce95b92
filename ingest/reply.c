#include "ingest/reply.h"

#include <stdio.h>

#include "common/clock.h"

static const int STATUSES[] = {
#define X(status) status,
    REPLY_STATUSES(X)
#undef X
};

void
reply_counts_open(struct reply_counts *counts)
{
    char labels[32];

    for (int i = 0; i < REPLY_STATUSES_N; i++) {
        (void)snprintf(labels, sizeof(labels), "status=\"%d\"", STATUSES[i]);
        counts->requests[i] = metric_counter("clickledger_ingest_requests_total",
                                             labels, "Requests answered");
    }
    counts->seconds = metric_histogram("clickledger_ingest_request_seconds", NULL,
                                       "From a request's first line to its answer");
}

static void
count(const struct reply_counts *counts, const struct http_request *request,
      int status)
{
    for (int i = 0; i < REPLY_STATUSES_N; i++)
        if (STATUSES[i] == status)
            metric_add(counts->requests[i], 1);
    metric_observe_us(counts->seconds, clock_mono_us() - http_began_us(request));
}

void
reply_json(const struct reply_counts *counts, struct http_request *request,
           int status, struct str json)
{
    count(counts, request, status);
    http_respond(request, &(struct http_answer){.status = status,
                                                .content_type = "application/json",
                                                .body = json});
}

void
reply_problem(const struct reply_counts *counts, struct http_request *request,
              int status, const char *code, const char *detail,
              const char *extra_json, int retry_after_s)
{
    count(counts, request, status);
    http_problem(request, status, code, detail, extra_json, retry_after_s);
}

void
reply_method(const struct reply_counts *counts, struct http_request *request,
             const char *allowed)
{
    count(counts, request, 405);
    http_method_refuse(request, allowed);
}

void
reply_text(const struct reply_counts *counts, struct http_request *request,
           const char *type, struct str text)
{
    count(counts, request, 200);
    http_respond(request, &(struct http_answer){
                              .status = 200, .content_type = type, .body = text});
}

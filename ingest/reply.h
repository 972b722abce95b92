/* ingest/reply.h - answers, and what is counted of them.
 *
 * Threads  Any.
 */
#ifndef INGEST_REPLY_H
#define INGEST_REPLY_H

#include <stdint.h>

#include "common/http.h"
#include "common/metrics.h"

#define REPLY_STATUSES(X) \
    X(200)                \
    X(202) X(400) X(401) X(403) X(404) X(405) X(413) X(415) X(429) X(500) X(503)

enum {
#define X(status) REPLY_AT_##status,
    REPLY_STATUSES(X)
#undef X
        REPLY_STATUSES_N
};

/* Seconds after which a client should try again. */
enum { REPLY_RETRY_BUSY_S = 1, REPLY_RETRY_KAFKA_S = 5, REPLY_RETRY_FULL_S = 10 };

#define REPLY_KAFKA_AWAY                                                    \
    "Kafka does not acknowledge clicks; nothing was stored. Send the same " \
    "again later."

struct reply_counts {
    struct metric *requests[REPLY_STATUSES_N];
    struct metric *seconds;
};

void reply_counts_open(struct reply_counts *counts);
void reply_json(const struct reply_counts *counts, struct http_request *request,
                int status, struct str json);
void reply_problem(const struct reply_counts *counts, struct http_request *request,
                   int status, const char *code, const char *detail,
                   const char *extra_json, int retry_after_s);
void reply_method(const struct reply_counts *counts, struct http_request *request,
                  const char *allowed);
void reply_text(const struct reply_counts *counts, struct http_request *request,
                const char *type, struct str text);

#endif

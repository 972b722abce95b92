/* ingest/worker.h - what an HTTP thread needs to turn a body into clicks, and the parts
 * of the stage that all threads share.
 *
 * Memory   A worker's buffers grow to the largest body seen, at most
 *          ingest.body_bytes_max decompressed and ingest.clicks_max errors.
 * Threads  A worker belongs to one HTTP thread; struct ingest_shared is read-only after
 *          the start, and what it points to is safe for any thread.
 */
#ifndef INGEST_WORKER_H
#define INGEST_WORKER_H

#include "common/buf.h"
#include "common/config.h"
#include "ingest/auth.h"
#include "ingest/client.h"
#include "ingest/commit.h"
#include "ingest/dlq.h"
#include "ingest/inflate.h"
#include "ingest/rate.h"
#include "ingest/reply.h"
#include "schema/click.h"

/* The codes of struct click_error, for the counters; anything else counts as other. */
#define WORKER_CODES(X) \
    X(json)             \
    X(missing)          \
    X(type)             \
    X(length)           \
    X(characters)       \
    X(range)            \
    X(value)            \
    X(duplicate_key)    \
    X(too_old)          \
    X(too_new)          \
    X(too_large)        \
    X(other)

enum {
#define X(code) WORKER_CODE_##code,
    WORKER_CODES(X)
#undef X
        WORKER_CODES_N
};

struct ingest_shared {
    const struct config *config;
    struct master_source *master;
    struct commit *commit;
    struct ack *ack; /* NULL: ingest.ack is local */
    struct dlq *dlq;
    struct rate *rate;
    uint64_t rate_seed;
    uint32_t partitions;
    struct client_proxies proxies;
    struct reply_counts counts;
    struct metric *accepted, *unknown_fields, *rate_limited;
    struct metric *rejected[WORKER_CODES_N];
};

struct worker_bad {
    unsigned index;
    struct str raw;
    struct click_error error;
};

struct worker {
    struct worker *next; /* of the stage's list */
    struct ingest_shared *shared;
    struct auth *auth;
    struct inflate *inflate;
    struct click_parser *parser;
    struct buf plain;  /* decompressed */
    struct buf bad;    /* of struct worker_bad */
    struct buf errors; /* JSON */
    uint8_t record[CLICK_BODY_MAX];
};

enum err worker_open(struct worker **out, struct ingest_shared *shared,
                     struct why *why);
void worker_close(struct worker **worker);

/* POST /v1/clicks: answers at once, or hands a job to the committer. */
void clicks_post(struct worker *worker, struct http_request *request);

#endif

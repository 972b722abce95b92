/* ingest/commit.h - the committer: requests' clicks -> one log append -> their answers.
 *
 *   HTTP threads: commit_submit --bounded queue--> committer thread: group of whole
 *   requests -> clicklog_append (one sync) -> each request's answer
 *                                          (ack: replicated) -> ingest/ack.h
 *
 * An answer 202 leaves only after the append of its clicks has returned ERR_OK. The
 * committer is the log's only writer, so trimming and heartbeats are its work as well.
 *
 * Units    Microseconds, clicks, bytes.
 * Memory   A job belongs to its request (http_context_set) and lives until the request
 *          has its answer; the queue holds at most clicks_max clicks and bytes_max bytes.
 * Errors   Append refused: 503 with code log_full, disk_full (retry later) or log_failed
 *          (commit_healthy turns false; the log must be opened anew).
 * Threads  commit_submit, commit_trim_request, commit_healthy: any.
 */
#ifndef INGEST_COMMIT_H
#define INGEST_COMMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/clicklog.h"
#include "common/http.h"
#include "ingest/ingest.h"
#include "ingest/reply.h"

enum {
    COMMIT_HEARTBEAT_US = 1000000,
    COMMIT_QUEUE_CLICKS_MAX = 1 << 18,
};

struct commit;
struct ack;

struct commit_job {
    struct commit_job *next;
    struct http_request *request;
    const struct clicklog_entry *entries;
    unsigned entries_n; /* 1..CLICKLOG_GROUP_MAX */
    size_t bytes;       /* of memory */
    struct str answer;  /* JSON of the 202 */
};

struct commit_config {
    struct clicklog *log;
    const struct reply_counts *counts;
    unsigned group_clicks_max;
    int64_t group_wait_us;
    size_t queue_bytes_max;
    struct ack *ack; /* answers instead, once Kafka has the clicks; NULL: local */
};

enum err commit_open(struct commit **out, const struct commit_config *cfg,
                     struct why *why);
/* Takes the job and answers its request later. false: the queue is full and the job is
 * still the caller's. */
bool commit_submit(struct commit *commit, struct commit_job *job);
void commit_trim_request(struct commit *commit, const struct ingest_trim *trim);
/* false: the log refuses every append until it is opened anew. */
bool commit_healthy(const struct commit *commit);
/* Commits what is queued, then ends. */
void commit_close(struct commit **commit);

#endif

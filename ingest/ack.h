/* ingest/ack.h - ingest.ack: replicated: 202 only after Kafka has the clicks.
 *
 *   committer: ack_admit -> append -> ack_put --queue of groups--> acker thread, which
 *   reads the relay's cursor every ms while groups wait, and answers
 *
 * The committer goes on with the next groups meanwhile. A group is answered 202 when the
 * cursor has reached the offsets after its clicks, in all partitions that it touched; it
 * may pass older ones whose partitions are slower (ACK_LOOK_GROUPS are looked at). A group
 * that has waited for ingest.ack_ms_max opens the breaker (ingest/breaker.h): it and all
 * others get 503 kafka_away. Their clicks stay in the spool and may well arrive; a retry
 * with the same event_id is a duplicate, so nothing is billed twice.
 *
 * Units    Microseconds, clicks, bytes, offsets of the spool.
 * Memory   At most ACK_CLICKS_MAX clicks wait, and ingest.in_flight_bytes_max bytes with
 *          those that wait for their append; past it requests get 503 queue_full.
 * Errors   ERR_INVALID names ingest.ack.
 * Threads  ack_admit, ack_failed, ack_put: the committer's; the rest any. Makes one.
 */
#ifndef INGEST_ACK_H
#define INGEST_ACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/clicklog.h"
#include "common/config.h"
#include "ingest/commit.h"
#include "ingest/relay.h"
#include "ingest/reply.h"

enum {
    ACK_CLICKS_MAX = 1 << 20, /* that wait for Kafka */
    ACK_LOOK_GROUPS = 64,
    ACK_POLL_US = 1000,       /* while groups wait */
    ACK_AWAY_POLL_US = 20000, /* while the breaker is open */
};

struct ack;

struct ack_config {
    const struct relay_cursor *cursor; /* outlives the ack */
    struct clicklog *log;              /* whose end is where counting begins */
    const struct reply_counts *counts;
    int64_t us_max;      /* ingest.ack_ms_max */
    uint64_t clicks_max; /* that wait: ACK_CLICKS_MAX */
    size_t bytes_max;    /* theirs and the queue's: ingest.in_flight_bytes_max */
};

/* Whether 202 waits for Kafka: ingest.ack, or what kafka.brokers makes of "". */
enum err ack_replicated(const struct config *config, bool *out, struct why *why);

enum err ack_open(struct ack **out, const struct ack_config *cfg, struct why *why);
/* Every group has its answer by now. */
void ack_close(struct ack **ack);

/* For the HTTP threads: false if a click would be refused now. */
bool ack_takes(const struct ack *ack);
/* BREAKER_*; for readyz. */
int ack_breaker(const struct ack *ack);
/* For the HTTP threads: whether so many more may wait, with those that the queue has. */
bool ack_has_room(const struct ack *ack, uint64_t clicks, size_t bytes);

/* Before an append; false: refuse the group. */
bool ack_admit(struct ack *ack);
/* The group admitted was not appended. */
void ack_failed(struct ack *ack);
/* The group admitted was appended: takes its jobs and answers them. entries are all of
 * theirs. */
void ack_put(struct ack *ack, struct commit_job *jobs,
             const struct clicklog_entry *entries, unsigned n);
/* 503 kafka_away to jobs that were not appended. */
void ack_refuse(const struct reply_counts *counts, struct commit_job *jobs);

#endif

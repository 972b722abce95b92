/* aggregate/part.h - one partition as its owner runs it.
 *
 *      IDLE --the log gives it--> CLAIM --owner_claim--> WARM --tables fed--> RUN
 *      RUN --flush refused, rows failed--> CLAIM
 *      RUN --Redis has a higher epoch----> LOST --30 s of silence--> CLAIM
 *      any --the log takes it: recorded, flushed--> IDLE          (aggregate/tenure.h)
 *
 * Offsets, always flushed <= read_next:
 *   flushed     Redis has everything below it (of the generation we write)
 *   inflight    the highest offset of a flush whose answer is not known; else == flushed
 *   sending     the offset that the flush now under way stores
 *   read_next   counted in memory
 *   judged      [judged_base, judged_base + judged_n): verdicts made and not yet on record,
 *               or not yet counted: what is on record may be elsewhere, and come back late
 *   fed_next    the fraud tables have seen everything below it: nothing is fed twice
 *
 * Nothing is forgotten before its verdict is durable: every way back (reset) records first,
 * so that what is read again gets the verdict that it had.
 *
 * Threads  None: the worker's. part->flushed_shared is read by any.
 */
#ifndef AGGREGATE_PART_H
#define AGGREGATE_PART_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "aggregate/aggregate.h"
#include "aggregate/events.h"
#include "aggregate/gap.h"
#include "aggregate/hotstage.h"
#include "aggregate/owner.h"
#include "aggregate/source.h"
#include "aggregate/window.h"
#include "common/metrics.h"
#include "fraud/fraud.h"

enum {
    PART_BATCH = 512,
    /* Clicks counted and not flushed; then the partition waits for Redis. */
    PART_UNFLUSHED_MAX = 1 << 18,
    /* Clicks of the last hours that warm the fraud tables at start, all partitions. */
    PART_WARM_CLICKS_MAX = 2000000,
    /* Verdicts are followed from so long before the last flush on, and for a while after a
     * partition is let go: often it comes back at once. */
    PART_VERDICTS_BACK_S = 600,
    PART_FOLLOW_S = 30,
    PART_LOST_S =
        30, /* of silence, until a partition taken from us is claimed again */
    PART_GAP_TRIES = 5,            /* re-reads before a gap is an alarm */
    PART_KEEP_S = 9 * 86400 + 600, /* what a rebuild goes back to */
};

/* What all partitions of a process share. */
struct shared {
    const struct config *config;
    struct aggregate_deps deps;
    struct events *events;
    uint64_t spool_id;
    uint32_t partitions;
    struct fraud_addresses *addresses;
    struct fraud_hot *hot;     /* with Kafka: past a limit over all processes */
    struct hotstage *hotstage; /* the same; else NULL */
    struct {
        struct metric *clicks, *unknown, *expired, *rebuilds, *rolled_back, *fenced,
            *gaps;
        struct metric *users_sent, *users_skipped, *flushes, *flush_errors,
            *recorded;
        struct metric *repeats;
        struct metric *flush_seconds, *stalled, *forgotten;
    } metrics;
};

/* What all partitions of a worker share. */
struct bench; /* a batch's arrays */
struct tools {
    struct redis *redis;
    struct clicklog_reader *reader;
    struct fraud_live *live;
    struct agent_cache *agents;
    struct bench *bench;
    const struct master *master;
    const struct ruleset *rules;
    uint32_t lane; /* of hotstage */
    int64_t now_us;
};

enum trouble { TROUBLE_READ, TROUBLE_FLUSH, TROUBLES_N };
enum part_state { PART_IDLE, PART_CLAIM, PART_WARM, PART_RUN, PART_LOST };

struct part {
    struct shared *shared;
    uint32_t partition;
    enum part_state state;
    uint64_t taken;          /* clicklog_owned when it was taken */
    int64_t leave_us;        /* leaving is given up at; 0: not leaving */
    int64_t follow_until_us; /* verdicts, though it is not ours; 0: they are not */
    struct windows *windows;
    struct source *source;
    uint64_t epoch;
    uint32_t generation; /* that we write */
    bool building;
    bool baseline; /* the next record of an unknown incarnation sets its L */
    bool warm;     /* the fraud tables have been fed from the log once */
    bool claimed_before;
    uint64_t build_target;
    uint64_t warm_next, warm_end; /* to be fed before reading begins */
    int64_t began_us; /* receipt of the baseline; 0: counting did not begin there */
    uint64_t flushed, inflight, sending, read_next, fed_next, recorded_next;
    uint64_t flushed_best; /* the furthest that this process has flushed */
    uint64_t *judged;
    uint64_t judged_base;
    uint32_t judged_n;
    uint32_t judged_done; /* of these on record, but not counted yet */
    struct seqs seqs;
    int64_t event_ms, started_us, retry_us, flush_retry_us, last_flush_us,
        last_evict_us;
    int64_t oldest_us; /* receipt of the oldest click not flushed; 0: none */
    struct gap gap;
    int64_t sweep_us;      /* when to go on removing old generations; 0: none */
    uint64_t sweep_cursor; /* of SCAN */
    bool stalled;
    bool damaged; /* Redis is to be told: its mark is what has all built anew */
    char trouble[TROUBLES_N]
                [256]; /* the last one told, so that each is told once */
    struct {
        struct metric *records, *seconds; /* NULL: too many partitions */
        int64_t since_us; /* of a lag of which nothing is read yet; 0: none */
        uint64_t flushed; /* then */
    } lag;
    struct windows_stats told; /* what the metrics have */
    _Atomic uint64_t flushed_shared;
};

enum err part_open(struct part *part, struct shared *shared, uint32_t partition,
                   struct why *why);
void part_close(struct part *part);

/* PART_CLAIM -> PART_WARM or PART_RUN, or sets retry_us. (claim.c) */
void part_claim(struct part *part, struct tools *tools);
/* Feeds the fraud tables with one batch of what others have counted; PART_WARM -> PART_RUN
 * at its end. The number of clicks. (warm.c) */
size_t part_warm(struct part *part, struct tools *tools);
/* What is to be fed before reading begins. log_first: the first offset held. */
enum err part_warm_plan(struct part *part, struct tools *tools, uint64_t log_first,
                        struct why *why);
/* After a flush: lets readers turn to a generation that is whole. */
void part_built(struct part *part, struct tools *tools);
/* A step of removing what older generations left, some seconds after the switch, so that
 * readers in the middle of an answer can end it. (sweep.c) */
void part_sweep(struct part *part, struct tools *tools);
/* Back to PART_CLAIM, with nothing in memory. Only after part_recorded. */
void part_reset(struct part *part);
/* Reads and counts one batch; the number of clicks, 0: nothing new, or it must wait.
 * (part.c) */
size_t part_read(struct part *part, struct tools *tools);
/* Adds what has been counted since the last call to the metrics. */
void part_metrics(struct part *part, const struct windows_stats *stats);
/* None when there are too many partitions for one each. (aggregate.c) */
void part_lag_declare(struct part *part);
/* How late it is, which the metrics get too; 0 at the end of the log. end: the log's.
 * (tenure.c) */
int64_t part_lag_us(struct part *part, uint64_t end, int64_t now_us);
/* Stands still: told once, and a metric. It is over: part_moves. (gap.c) */
void part_stall(struct part *part, const char *what, const struct why *why);
void part_moves(struct part *part);
/* Records are missing before click. */
void part_gap(struct part *part, const struct tools *tools,
              const struct click *click);
/* Redis has a key that is not as we write it: all is built anew, in another generation.
 * Until Redis has the mark, nobody here claims the partition. */
void part_damaged(struct part *part, struct tools *tools, enum trouble slot,
                  const struct why *why);
/* Sets the mark, if that is still to be done; false: not now. */
bool part_mark(struct part *part, struct tools *tools);
/* Tells of trouble, once while it lasts; and that it is over. */
void part_trouble(struct part *part, enum trouble slot, const char *what,
                  const struct why *why);
void part_fine(struct part *part, enum trouble slot);

/* Verdicts not on record yet, as blocks; the number of them. (flush.c) */
size_t part_blocks(const struct part *part, struct verdictlog_block *blocks,
                   size_t max);
void part_recorded(struct part *part);

#endif

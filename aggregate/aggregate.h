/* aggregate/aggregate.h - the fast path: log -> fraud rules -> recorded verdicts ->
 * windows -> Redis.
 *
 * Each worker owns a share of the partitions and for each of them runs:
 *   claim an epoch -> read from Redis's offset -> judge (or take the recorded verdict) ->
 *   count in memory -> record verdict blocks (durable) -> one transaction: compare epoch
 *   and offset, write absolute values and the next offset.
 * Redis empty, dirty, or of another log: a new generation is built from the archive, the log
 * and the recorded verdicts. Redis rolled back: rows are loaded again and the offset rewound.
 *
 * With Kafka's view of the log the partitions are those that the consumer group gives this
 * process, and addresses are counted over all processes (aggregate/hotstage.h).
 *
 * Errors   Redis away: the stage waits and tries again; nothing is lost, the log keeps it.
 * Threads  aggregate_start makes aggregate.threads of its own.
 */
#ifndef AGGREGATE_AGGREGATE_H
#define AGGREGATE_AGGREGATE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/clicklog.h"
#include "common/config.h"
#include "common/err.h"
#include "common/verdictlog.h"
#include "fraud/ruleset.h"
#include "schema/master.h"

struct aggregate;

struct aggregate_deps {
    struct clicklog *log;
    struct verdictlog *verdicts;
    struct master_source *master;
    struct ruleset_source *rules;
    /* Where clicks below the log's first offset are; NULL with Kafka. */
    const char *archive_dir;
};

enum err aggregate_start(struct aggregate **out, const struct config *config,
                         const struct aggregate_deps *deps, struct why *why);
/* Flushes, then stops. */
void aggregate_stop(struct aggregate **aggregate);
/* The offset below which partition needs nothing of the log (flushed to Redis). */
uint64_t aggregate_flushed(const struct aggregate *aggregate, uint32_t partition);

/* What the live path did about trouble, for `clickledger doctor`: one line an event
 * (time, partition, what, why) in DATA/aggregate/events.log, size-capped. */

#endif

/* billing/recount.h - *received* counts that went with a lost ingest log, from the archive.
 *
 *   hours of receipt    ... 11  12  13 | 14  15 ...
 *                                  ^     ^
 *             reported_until of the log  its machine is lost (lost_at)
 *
 * Clicks received by a lost log from reported_until on, and before lost_at, have no count of
 * ingest's. Those that were acknowledged are in the archive (with Kafka), and are counted
 * there: a click is one of them when nobody has told a count of its (incarnation, hour). So
 * clicks of other logs are never counted here; and hours that another log has not told yet
 * wait for it, since its clicks could not be told apart.
 *
 * Whole hours are stored once, in received_recount (ingest_spool.recounted_until says how far);
 * the hour that a forced cut divides is counted when asked for. Of a log that never told anything,
 * 35 days are looked at.
 *
 * Units    Microseconds of receipt.
 * Memory   4,096 rows of counts, and 16 bytes an (incarnation, hour) told by others.
 * Errors   The archive's and PostgreSQL's.
 * Threads  None; two processes that store wait for each other.
 */
#ifndef BILLING_RECOUNT_H
#define BILLING_RECOUNT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/str.h"

struct clicklog;
struct pg;

enum { RECOUNT_SPOOLS_MAX = 16 /* lost and not yet counted to their end */ };

struct recount_input {
    struct pg *pg;
    struct clicklog *log; /* this machine's, for its counts; may be NULL */
    const char *archive_dir;
    int64_t until_us; /* archived and judged before it */
};

/* Clicks of one key; it may come again. */
struct recount_row {
    uint64_t spool, incarnation;
    int64_t hour_us, quarter_ms;
    uint32_t account;
    struct str campaign; /* borrowed until visit returns */
    uint64_t clicks;
};

/* Stores whole hours that ended by until_us, in a transaction of its own. *any: a log was lost
 * once. */
enum err recount_store(const struct recount_input *in, bool *any, struct why *why);
/* What is not stored of the clicks received before until_us. visit returns false to stop. */
enum err recount_rest_each(const struct recount_input *in,
                           bool (*visit)(void *ctx, const struct recount_row *row),
                           void *ctx, struct why *why);

#endif

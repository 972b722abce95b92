/* dashboard/stats.h - a campaign's windows, from wherever they are known.
 *
 * Days that are closed come from PostgreSQL and are final; what Redis still holds is
 * provisional; the rest is unavailable, never 0.
 *
 * A row lists the STATS_GROUPS_MAX values with the most clicks; the rest is `__other__`.
 *
 * Units    Micros; ms.
 * Memory   STATS_ROWS_MAX rows; their groups as text have at most ANSWER_BYTES_MAX
 *          together.
 * Threads  One request.
 */
#ifndef DASHBOARD_STATS_H
#define DASHBOARD_STATS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/money.h"
#include "dashboard/call.h"
#include "fraud/verdict.h"
#include "schema/rediskeys.h"

enum { STATS_ROWS_MAX = 1000, STATS_GROUPS_MAX = 1000, STATS_NO_GROUP = -1 };

enum stats_state { STATS_UNAVAILABLE, STATS_PROVISIONAL, STATS_FINAL };

struct stats_cell {
    uint64_t clicks, flagged, invalid;
    money_wide cost_micros;
};

struct stats_row {
    int64_t start_ms, end_ms;
    enum stats_state state;
    struct stats_cell all;
    uint64_t duplicate, quarantined, over_budget;
    bool has_users;
    uint64_t users;
    uint64_t reasons[REASONS_N];
    struct buf groups; /* JSON objects joined by commas */
    bool wanted;       /* Redis may still have it */
};

struct stats_query {
    enum window window;
    int group_by; /* enum dimension, or STATS_NO_GROUP */
    int64_t from_ms, to_ms;
};

struct stats_group {
    struct str value;
    struct stats_cell cell;
};

struct stats {
    struct call *call;
    struct stats_query query;
    struct stats_row *rows;
    uint32_t n;
    bool redis_used, postgres_used, redis_away, postgres_away, rebuilding;
    int64_t as_of_us;
    struct buf found;        /* struct stats_group of the row that is being read */
    struct stats_cell other; /* of it: what has no place */
    bool has_other;
    size_t groups_bytes; /* of all rows */
};

/* Fills the rows of closed days. PostgreSQL away: noted, not an error. */
void stats_final(struct stats *stats);
/* Fills what is not final from Redis. Redis away: noted, not an error. */
void stats_provisional(struct stats *stats);

/* Back to unavailable, without numbers. */
void stats_row_clear(struct stats_row *row);

/* stats_groups.c: a row's groups are added (value is borrowed), then ended. */
void stats_group_add(struct stats *stats, struct str value,
                     const struct stats_cell *cell);
void stats_groups_end(struct stats *stats, struct stats_row *row);
void stats_cell_format(const struct stats_cell *cell, struct buf *out);

/* The live answer's owner record: the generation that readers use (0: none yet). */
struct stats_owner {
    uint32_t generation;
    bool rebuilding;
    int64_t updated_us;
};
enum err stats_owner_read(struct call *call, uint32_t partition,
                          struct stats_owner *out, struct why *why);

#endif

/* dashboard/stats.h - a campaign's windows, from wherever they are known.
 *
 * Days that are closed come from PostgreSQL and are final; what Redis still holds is
 * provisional; the rest is unavailable, never 0.
 *
 * Units    Micros; ms.
 * Memory   STATS_ROWS_MAX rows of at most STATS_GROUPS_MAX groups, in a request's arena.
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

enum { STATS_ROWS_MAX = 1000, STATS_GROUPS_MAX = 1001, STATS_NO_GROUP = -1 };

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
    uint32_t groups_n;
};

struct stats_query {
    enum window window;
    int group_by; /* enum dimension, or STATS_NO_GROUP */
    int64_t from_ms, to_ms;
};

struct stats {
    struct call *call;
    struct stats_query query;
    struct stats_row *rows;
    uint32_t n;
    bool redis_used, postgres_used, redis_away, postgres_away, rebuilding;
    int64_t as_of_us;
};

/* Fills the rows of closed days. PostgreSQL away: noted, not an error. */
void stats_final(struct stats *stats);
/* Fills what is not final from Redis. Redis away: noted, not an error. */
void stats_provisional(struct stats *stats);
void stats_group_add(struct stats_row *row, struct str value,
                     const struct stats_cell *cell);

/* The live answer's owner record: the generation that readers use (0: none yet). */
struct stats_owner {
    uint32_t generation;
    bool rebuilding;
    int64_t updated_us;
};
enum err stats_owner_read(struct call *call, uint32_t partition,
                          struct stats_owner *out, struct why *why);

#endif

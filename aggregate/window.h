/* aggregate/window.h - one partition's open windows in memory, as Redis must have them.
 *
 *   touch -> load what Redis has (rows seen for the first time) -> count -> derive -> dirty
 *   rows -> (flush) -> clean
 *
 * A row is a campaign's window (5 min, 1 h, 1 d in its zone); a cell is one value of one
 * dimension, or one reason, in a row. A click is counted once, in the finest row that is
 * still alive; before a flush windows_derive adds what has come since to the hour, and what
 * has come to the hour to the day. A row has at most values_max values of a dimension; the
 * first seen have the places, those that Redis has keep theirs, the rest is `__other__`. A
 * value may be other in 5 minutes and have its place in the hour: it is derived as itself.
 * (In the one hour that is 24 h old, live 5 minutes and clicks that come too late for them
 * meet: there "first" is in order of flush.)
 *
 * Units    Micros; ms of event time; seconds for expiry. Counts are absolute.
 * Memory   Rows about 250 bytes, cells 64 + 16. Idle, clean rows are dropped by
 *          windows_evict; they are loaded again at the next touch.
 * Errors   Without memory windows_failed turns true and the partition's rows must be
 *          dropped (windows_clear) and read again from the flushed offset: Redis has the
 *          truth, so nothing is lost.
 * Threads  None: one owner.
 */
#ifndef AGGREGATE_WINDOW_H
#define AGGREGATE_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "aggregate/live.h"
#include "aggregate/users.h"
#include "common/err.h"
#include "fraud/verdict.h"
#include "schema/click.h"
#include "schema/rediskeys.h"

struct windows;

enum {
    WINDOW_TOTALS_N =
        6,             /* clicks, cost, flagged, invalid, duplicate, quarantined */
    WINDOW_CELL_N = 4, /* clicks, cost, flagged, invalid */
    WINDOW_BATCH_MAX = 4096,
};

struct windows_config {
    uint32_t values_max;    /* of a dimension in a row */
    uint64_t seed;          /* random, per process */
    size_t users_bytes_max; /* of HyperLogLog mirrors */
};

struct windows_stats {
    uint64_t rows, cells, campaigns, users_bytes;
    uint64_t expired;       /* clicks of which every window has expired */
    uint64_t users_skipped; /* user ids that needed no PFADD */
    uint64_t users_sent;
};

struct window_click {
    const struct click *click; /* borrowed until windows_count returns */
    struct verdict verdict;
    const struct zone *zone; /* the campaign's */
    int64_t price_micros;
    uint32_t leaf; /* ours: the row, by windows_touch */
};

enum err windows_open(struct windows **out, const struct windows_config *cfg,
                      struct why *why);
void windows_close(struct windows **windows);
/* Forgets all rows, flushed or not. */
void windows_clear(struct windows *windows);
bool windows_failed(const struct windows *windows);
void windows_stats_get(const struct windows *windows, struct windows_stats *out);

/* Finds or makes the rows of n <= WINDOW_BATCH_MAX clicks. Those made are waiting to be
 * loaded: windows_loads of them. */
void windows_touch(struct windows *windows, struct window_click *clicks, size_t n,
                   int64_t now_us);

/* What is to be loaded: a row, or (live) a campaign's ring. */
struct window_load {
    bool live;
    enum window window;
    struct str campaign;
    int64_t start_ms;
};
uint32_t windows_loads(const struct windows *windows);
struct window_load windows_load_get(const struct windows *windows, uint32_t i);
/* One field of it. False if it is no field of ours. */
bool windows_load_field(struct windows *windows, uint32_t i, struct str field,
                        struct str value);
/* The string of its users' HyperLogLog, "" if there is none. False: it is no HyperLogLog. */
bool windows_load_users(struct windows *windows, uint32_t i, struct str text);
/* All are loaded. */
void windows_loads_done(struct windows *windows);

/* Counts clicks that were touched and whose rows are loaded. */
void windows_count(struct windows *windows, const struct window_click *clicks,
                   size_t n, int64_t now_us);
/* Changed fields, roughly: what the next flush will write. 0: nothing has changed. */
uint64_t windows_changed(const struct windows *windows);

/* Derives hours and days, and lays the changes out for windows_dirty_get. */
void windows_derive(struct windows *windows);

struct window_dirty {
    enum window window;
    struct str campaign;
    int64_t start_ms, expiry_s;
    const int64_t *totals; /* WINDOW_TOTALS_N */
    const uint32_t *cells; /* for windows_cell */
    uint32_t cells_n;
    const uint32_t *users; /* for windows_user: ids to add */
    uint32_t users_n;
    const struct users
        *whole; /* all ids of the row, or NULL: only the new ones are known */
};
uint32_t windows_dirty(const struct windows *windows);
void windows_dirty_get(const struct windows *windows, uint32_t i,
                       struct window_dirty *out);
/* The cell's field; numbers gets WINDOW_CELL_N, or 1 for a reason. Returns how many. */
unsigned windows_cell(const struct windows *windows, uint32_t cell,
                      struct str *field, int64_t numbers[WINDOW_CELL_N]);
struct str windows_user(const struct windows *windows, uint32_t user);
/* Rings with changed steps. */
uint32_t windows_lives(const struct windows *windows);
const struct live *windows_live_get(const struct windows *windows, uint32_t i,
                                    struct str *campaign);
/* The flush has landed. */
void windows_clean(struct windows *windows);

/* Drops clean rows idle for idle_us; while there are more than rows_max, whatever their
 * age. Only right after windows_clean. */
void windows_evict(struct windows *windows, int64_t now_us, int64_t idle_us,
                   uint64_t rows_max);

#endif

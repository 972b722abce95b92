/* ingest/rate.h - how many clicks a second may one sender post?
 *
 * A fixed table of GCRA limiters (ITU-T I.371, "virtual scheduling"), one per
 * 64-bit key. GCRA keeps a single time per key: the theoretical arrival time
 * (tat) of its next click. It needs no window of counters and no thread to
 * expire them, because a tat in the past IS an empty slot. A request is charged
 * for all its clicks or for none.
 *
 *   tat ... now ......................... tat + n * interval
 *            |<------ burst * interval ------>|     beyond it: limited
 *
 * Units    Time in microseconds since the epoch, by the server's clock at receipt;
 *          never the client's, which the sender sets. Inside nanoseconds.
 * Memory   16 bytes a slot, all of it taken by rate_open(): 1 Mi keys = 16 MiB.
 * Errors   One-sided (hash collisions aside): no key is limited for another's
 *          clicks, but a full set forgets its stalest key, whose next click then
 *          passes. Watch rate_stats.forgotten; if it grows, raise keys_max.
 * Threads  Any: the table is cut into stripes, each with a lock held for one set.
 */
#ifndef INGEST_RATE_H
#define INGEST_RATE_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

enum {
    RATE_CLICKS_PER_S_MAX =
        1000000, /* so that rounding the interval costs under 0.1 % */
    RATE_BURST_MAX = 10000000,
    RATE_KEYS_MIN = 256,
    RATE_KEYS_MAX = 1 << 28,
};

struct rate_limit {
    uint32_t clicks_per_s; /* 1..RATE_CLICKS_PER_S_MAX, over the long run */
    uint32_t burst; /* 1..RATE_BURST_MAX: how many of them may come at once */
};

struct rate_stats {
    uint64_t passed;    /* clicks */
    uint64_t limited;   /* clicks */
    uint64_t forgotten; /* live keys evicted: each may send too much for a while */
};

enum rate_verdict {
    RATE_PASS,
    RATE_LIMITED,
    RATE_NEVER, /* more clicks than the burst: no wait helps, smaller requests do */
};

struct rate;

/* Allocates a table of keys_max slots, a power of two in RATE_KEYS_MIN..RATE_KEYS_MAX,
 * into *out; the caller owns it until rate_close(). Returns ERR_OK, ERR_INVALID or
 * ERR_NOMEM. On failure *out is NULL, and why, if not NULL, names the field at fault. */
enum err rate_open(struct rate **out, uint32_t keys_max, struct why *why);

/* Judges clicks that come together, and charges them to key if they pass; limited clicks
 * cost their key nothing. key must be a keyed hash of what is limited (API key, address),
 * or an attacker could choose its set. *wait_us gets the time after which the same would
 * pass (0 if it passed now). Touches one cache line. Cannot fail. */
enum rate_verdict rate_check(struct rate *rate, uint64_t key,
                             const struct rate_limit *limit, uint32_t clicks,
                             int64_t now_us, int64_t *wait_us);

void rate_stats_get(struct rate *rate, struct rate_stats *out);

/* Frees *rate and sets it to NULL; a NULL *rate is left alone. */
void rate_close(struct rate **rate);

#endif

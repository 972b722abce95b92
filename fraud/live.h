/* fraud/live.h - what the live tables share among themselves; not for other rooms.
 *
 * Threads  As fraud/fraud.h.
 */
#ifndef FRAUD_LIVE_H
#define FRAUD_LIVE_H

#include "common/clock.h"
#include "fraud/fraud.h"

/* ERR_INVALID unless n is in FRAUD_TABLE_MIN..FRAUD_TABLE_MAX. */
enum err fraud_size_check(const char *name, size_t n, struct why *why);

void fraud_ids_prefetch(const struct fraud_ids *ids, uint64_t id_hash);
void fraud_users_prefetch(const struct fraud_users *users, uint64_t user_key);

/* What the last fed click of the key, dt_ms away, makes of this one. */
static inline uint32_t
fraud_click_reason(const struct ruleset_limits *limits, int64_t dt_ms)
{
    if (dt_ms < 0)
        dt_ms = -dt_ms;
    if (dt_ms < limits->double_click_ms)
        return REASON_BIT(double_click);
    return dt_ms < limits->repeat_click_ms ? REASON_BIT(repeat_click) : 0;
}

/* Keys of an address's buckets: one hash of 64 bits, spread by a round of MurmurHash3's
 * finaliser. unit_ms tells minutes from seconds. */
static inline uint64_t
fraud_bucket_key(uint64_t address_key, int64_t event_ms, int64_t unit_ms)
{
    uint64_t k = (uint64_t)clock_floor(event_ms, unit_ms) * 2 + (unit_ms == 1000);

    k = address_key ^ k * UINT64_C(0x9e3779b97f4a7c15);
    k = (k ^ k >> 33) * UINT64_C(0xff51afd7ed558ccd);
    k = (k ^ k >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
    return k ^ k >> 33;
}

/* Seconds into its UTC minute, 0..59; right for times before 1970 too. */
static inline int64_t
fraud_second(int64_t event_ms)
{
    return (event_ms - clock_floor(event_ms, CLOCK_MINUTE_MS)) / 1000;
}

#endif

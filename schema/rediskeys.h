/* schema/rediskeys.h - every Redis key, written down once. Live data only: all of it can
 * be rebuilt from the log, the archive and the recorded verdicts.
 *
 * P is the campaign's partition; {pP} is the hash tag, so one flush touches one slot.
 * G is the partition's generation: a rebuild writes under the next one and readers
 * switch when it is whole; the old one expires.
 *
 *   {pP}:owner            hash  epoch, offset (next to read; empty while the first or next
 *                               generation is under construction), generation, dirty (0|1),
 *                               building (generation under construction or empty),
 *                               build_offset, updated_us, log (spool id), event_ms (newest),
 *                               seqs (INCARNATION:L,... hex:decimal, the newest 12)
 *   {pP}:G:5m:C:S         hash  one row: campaign C, window start S (UTC ms / 1000)
 *   {pP}:G:1h:C:S               fields: see below; EXPIREAT window end + 24 h (5m), 9 d (1h, 1d)
 *   {pP}:G:1d:C:S               S is the local day's start in the campaign's zone
 *   {pP}:G:hll:5m|1h|1d:C:S     HyperLogLog of user ids of billable clicks (PFADD)
 *   {pP}:G:live:C         hash  field k = (S10 / 10) % 64 -> "S10,clicks,cost": last 5 minutes
 *                               in 10 s steps, a ring; EXPIRE 15 minutes
 *
 * Row fields (absolute values, decimal text joined by commas):
 *   t            clicks,cost_micros,flagged,invalid,duplicate,quarantined     the campaign
 *   r:REASON     clicks                                      not billable, by primary reason
 *   a:VALUE g: c: v: n: d: p:   clicks,cost_micros,flagged,invalid
 *                by ad, ad group, creative, variant, country (n), device, publisher;
 *                past 1,000 values of a dimension: VALUE = __other__
 * clicks counts billable and suspicious; flagged is the suspicious part of it; cost is
 * before daily budgets.
 *
 * Units    UTC milliseconds; expiry in seconds.
 * Memory   Keys are written into the caller's array, without a terminator.
 * Errors   None; a campaign's id has at most 64 bytes (asserted).
 * Threads  Pure.
 */
#ifndef SCHEMA_REDISKEYS_H
#define SCHEMA_REDISKEYS_H

#include <stdint.h>

#include "common/str.h"

enum { REDISKEY_MAX = 192 };

enum window { WINDOW_5M, WINDOW_1H, WINDOW_1D, WINDOWS_N };
enum dimension {
    DIMENSION_AD,
    DIMENSION_AD_GROUP,
    DIMENSION_CREATIVE,
    DIMENSION_VARIANT,
    DIMENSION_COUNTRY,
    DIMENSION_DEVICE,
    DIMENSION_PUBLISHER,
    DIMENSIONS_N
};

#define WINDOW_NAMES     \
    {                    \
        "5m", "1h", "1d" \
    }
#define DIMENSION_LETTERS "agcvndp"
#define DIMENSION_NAMES                                                 \
    {                                                                   \
        "ad_id", "ad_group_id", "creative_id", "variant_id", "country", \
            "device_type", "publisher_id"                               \
    }

/* Each writes a key and returns its length. */
uint32_t rediskey_owner(char out[REDISKEY_MAX], uint32_t partition);
uint32_t rediskey_row(char out[REDISKEY_MAX], uint32_t partition,
                      uint32_t generation, enum window window, struct str campaign,
                      int64_t start_ms);
uint32_t rediskey_users(char out[REDISKEY_MAX], uint32_t partition,
                        uint32_t generation, enum window window,
                        struct str campaign, int64_t start_ms);
uint32_t rediskey_live(char out[REDISKEY_MAX], uint32_t partition,
                       uint32_t generation, struct str campaign);
/* The window's start that holds event_ms; zone matters for 1d only (and 1h in zones with
 * offsets of half or quarter hours: 1h windows start on the zone's full hours, and are cut
 * where the zone moves its clock by less than an hour). zone NULL is UTC. */
struct zone;
int64_t window_start(enum window window, const struct zone *zone, int64_t event_ms);
int64_t window_end(enum window window, const struct zone *zone, int64_t start_ms);
/* When its row expires, seconds since the epoch. */
int64_t window_expiry_s(enum window window, int64_t end_ms);

#endif

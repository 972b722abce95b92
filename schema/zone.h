/* schema/zone.h - local days of a time zone as half-open UTC bounds.
 *
 * A day that a zone skips has from == to. Since 1980 offsets are multiples of 15 minutes
 * and, but for Newfoundland's clocks until 2011, change on the quarter-hour, so a local day
 * is a union of quarter-hours. Days never run backwards:
 * where a clock is set back over midnight, the minutes that repeat stay in the new day.
 *
 *   offsets   |--- +1 h ---|--- +2 h ---|--- +1 h ---|       a sorted array, 1970..2261
 *   index     0   0   0   0   1   1   1   2   2   2   2      one entry each 48.5 days: the
 *                                                            span in force at its start
 *
 * Units    UTC milliseconds; local days since 1970-01-01.
 * Memory   A zone is the process's, cached by name for good; never freed.
 * Threads  zone_find locks; the rest is pure reading.
 * Source   tzdata through GLib's GTimeZone.
 */
#ifndef SCHEMA_ZONE_H
#define SCHEMA_ZONE_H

#include <stdint.h>

#include "common/str.h"

enum { ZONE_NAME_MAX = 63, ZONES_MAX = 1024 };

struct zone;

/* NULL if tzdata has no such name. "UTC" needs no tzdata. */
const struct zone *zone_find(struct str name);
struct str zone_name(const struct zone *zone);
/* The local day that holds the instant: one index look-up, a few ns. */
int32_t zone_day(const struct zone *zone, int64_t ms);
/* [*from_ms, *to_ms) of a local day. */
void zone_day_bounds(const struct zone *zone, int32_t day, int64_t *from_ms,
                     int64_t *to_ms);
/* Local time minus UTC at the instant, and the span [*from_ms, *to_ms) over which it
 * holds. */
int64_t zone_offset_ms(const struct zone *zone, int64_t ms, int64_t *from_ms,
                       int64_t *to_ms);

#endif

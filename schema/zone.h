/* schema/zone.h - local days of a time zone as half-open UTC bounds.
 *
 * A day that a zone skips has from == to. Offsets are multiples of 15 minutes for every
 * time since 1972, so a local day is a union of quarter-hours.
 *
 * Memory   A zone is the process's, cached by name for good; never freed.
 * Threads  zone_find locks; the rest is pure reading.
 * Source   tzdata through GLib's GTimeZone.
 */
#ifndef SCHEMA_ZONE_H
#define SCHEMA_ZONE_H

#include <stdint.h>

#include "common/str.h"

struct zone;

/* NULL if tzdata has no such name. */
const struct zone *zone_find(struct str name);
struct str zone_name(const struct zone *zone);
/* The local day (days since 1970-01-01) that holds the instant. Cached by transition:
 * a few ns when times cluster. */
int32_t zone_day(const struct zone *zone, int64_t ms);
/* [*from_ms, *to_ms) of a local day. */
void zone_day_bounds(const struct zone *zone, int32_t day, int64_t *from_ms,
                     int64_t *to_ms);

#endif

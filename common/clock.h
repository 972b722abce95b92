/* common/clock.h - the only place that asks the system for the time.
 *
 * Units    Microseconds (_us) since 1970-01-01T00:00:00Z, or milliseconds (_ms)
 *          where the click record has them; clock_mono_us has no epoch.
 * Threads  Any.
 */
#ifndef COMMON_CLOCK_H
#define COMMON_CLOCK_H

#include <stdint.h>

#define CLOCK_SECOND_US  INT64_C(1000000)
#define CLOCK_MINUTE_MS  INT64_C(60000)
#define CLOCK_QUARTER_MS (15 * CLOCK_MINUTE_MS)
#define CLOCK_HOUR_MS    (60 * CLOCK_MINUTE_MS)
#define CLOCK_DAY_MS     (24 * CLOCK_HOUR_MS)
#define CLOCK_HOUR_US    (3600 * CLOCK_SECOND_US)
#define CLOCK_DAY_US     (24 * CLOCK_HOUR_US)

enum { CLOCK_TEXT_SIZE = 32 };

int64_t clock_now_us(void);
int64_t clock_mono_us(void);
void clock_sleep_us(int64_t us);

/* "2026-11-21T09:08:07.123Z" of a UTC time; text has CLOCK_TEXT_SIZE bytes.
 * Returns text. */
char *clock_format_ms(int64_t ms, char *text);

/* The largest multiple of step at or below t; right for t < 0 too. */
static inline int64_t
clock_floor(int64_t t, int64_t step)
{
    int64_t rest = t % step;

    return t - (rest < 0 ? rest + step : rest);
}

#endif

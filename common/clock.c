#include "common/clock.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

static int64_t
read_us(clockid_t id)
{
    struct timespec t;
    int rc = clock_gettime(id, &t);

    assert(rc == 0);
    (void)rc;
    return (int64_t)t.tv_sec * CLOCK_SECOND_US + t.tv_nsec / 1000;
}

int64_t
clock_now_us(void)
{
    return read_us(CLOCK_REALTIME);
}

int64_t
clock_mono_us(void)
{
    return read_us(CLOCK_MONOTONIC);
}

void
clock_sleep_us(int64_t us)
{
    struct timespec t = {.tv_sec = us / CLOCK_SECOND_US,
                         .tv_nsec = us % CLOCK_SECOND_US * 1000};

    if (us <= 0)
        return;
    while (nanosleep(&t, &t) != 0 && errno == EINTR)
        ;
}

struct date {
    int64_t year;
    unsigned month, day;
};

/* Days since 1970-01-01 to a proleptic Gregorian date. Counts in eras of 400 years
 * that begin on a 1 March, so that the leap day is an era's last. */
static struct date
date_of(int64_t days)
{
    const int64_t era_days = 146097, march_0000 = 719468;
    int64_t since = days + march_0000;
    int64_t era = clock_floor(since, era_days) / era_days;
    unsigned doe = (unsigned)(since - era * era_days);
    unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    unsigned mp = (5 * doy + 2) / 153; /* months since March */
    unsigned month = mp < 10 ? mp + 3 : mp - 9;

    return (struct date){.year = era * 400 + yoe + (month <= 2),
                         .month = month,
                         .day = doy - (153 * mp + 2) / 5 + 1};
}

char *
clock_format_ms(int64_t ms, char *text)
{
    int64_t rest = ms % CLOCK_DAY_MS;
    int64_t days = ms / CLOCK_DAY_MS - (rest < 0);
    unsigned of_day = (unsigned)(rest < 0 ? rest + CLOCK_DAY_MS : rest);
    struct date date = date_of(days);
    int n = snprintf(text, CLOCK_TEXT_SIZE,
                     "%04" PRId64 "-%02u-%02uT%02u:%02u:%02u.%03uZ", date.year,
                     date.month, date.day, of_day / 3600000, of_day / 60000 % 60,
                     of_day / 1000 % 60, of_day % 1000);

    assert(n > 0);
    assert(n < CLOCK_TEXT_SIZE);
    (void)n;
    return text;
}

/* Formatting against the C library's gmtime_r; flooring on both sides of 1970. */
#include "common/clock.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

static void
known_times_have_their_text(void **state)
{
    static const struct {
        int64_t ms;
        const char *want;
    } cases[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {-1, "1969-12-31T23:59:59.999Z"},
        {INT64_C(951782399999), "2000-02-28T23:59:59.999Z"},
        {INT64_C(951782400000), "2000-02-29T00:00:00.000Z"},
        {INT64_C(4107542400000), "2100-03-01T00:00:00.000Z"},
        {INT64_C(253402300799999), "9999-12-31T23:59:59.999Z"},
        {INT64_C(-62167219200000), "0000-01-01T00:00:00.000Z"},
    };
    char text[CLOCK_TEXT_SIZE];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_string_equal(clock_format_ms(cases[i].ms, text), cases[i].want);
    (void)clock_format_ms(INT64_MAX, text); /* fits */
    (void)clock_format_ms(INT64_MIN, text);
}

static void
every_day_of_a_thousand_years_agrees_with_gmtime(void **state)
{
    (void)state;
    srand(2);
    for (int64_t day = -200000; day < 200000; day++) {
        int64_t ms = day * CLOCK_DAY_MS + rand() % CLOCK_DAY_MS;
        time_t seconds = (time_t)(clock_floor(ms, 1000) / 1000);
        char got[CLOCK_TEXT_SIZE], want[64], date[40];
        struct tm tm;

        assert_non_null(gmtime_r(&seconds, &tm));
        (void)strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
        (void)snprintf(want, sizeof(want), "%s.%03" PRId64 "Z", date,
                       ms - clock_floor(ms, 1000));
        assert_string_equal(clock_format_ms(ms, got), want);
    }
}

static void
floor_is_the_multiple_at_or_below(void **state)
{
    (void)state;
    for (int64_t t = -100; t <= 100; t++) {
        int64_t floor = clock_floor(t, 7);

        assert_true(floor % 7 == 0);
        assert_true(floor <= t);
        assert_true(t - floor < 7);
    }
}

static void
time_passes(void **state)
{
    int64_t began_us = clock_mono_us(), now_us = clock_now_us();

    (void)state;
    clock_sleep_us(2000);
    clock_sleep_us(0);
    clock_sleep_us(-5);
    assert_true(clock_mono_us() - began_us >= 2000);
    assert_true(now_us > INT64_C(1700000000) * CLOCK_SECOND_US);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_times_have_their_text),
        cmocka_unit_test(every_day_of_a_thousand_years_agrees_with_gmtime),
        cmocka_unit_test(floor_is_the_multiple_at_or_below),
        cmocka_unit_test(time_passes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

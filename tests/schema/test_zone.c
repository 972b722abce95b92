/* Local days: known odd ones by hand, then random times against GLib asked directly. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "schema/zone.h"

#include <glib.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "schema/text.h"

static const char *const zone_names[] = {
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Pacific/Apia",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "America/St_Johns",
    "America/Sao_Paulo",
    "Africa/Cairo",
    "Pacific/Kiritimati",
    "Pacific/Marquesas",
    "Africa/Casablanca",
    "America/Havana",
    "Asia/Tehran",
    "Antarctica/Troll",
};

enum { ZONES_N = sizeof(zone_names) / sizeof(*zone_names) };

static const struct zone *
zone_must(const char *name)
{
    const struct zone *zone = zone_find(str_of(name));

    if (zone == NULL)
        fprintf(stderr, "no zone %s\n", name);
    assert_non_null(zone);
    return zone;
}

static int32_t
day_must(const char *date)
{
    int32_t day = 0;

    assert_true(date_parse(str_of(date), &day));
    return day;
}

static void
days_have_the_hours_that_the_clock_gives_them(void **state)
{
    static const struct {
        const char *zone, *day;
        int64_t minutes;
    } table[] = {
        {"Europe/Berlin", "2026-03-29", 23 * 60},
        {"Europe/Berlin", "2026-10-25", 25 * 60},
        {"Europe/Berlin", "2026-11-21", 24 * 60},
        {"Europe/Berlin", "2050-03-27", 23 * 60},
        {"Europe/Berlin", "2099-10-25", 25 * 60},
        {"America/New_York", "2026-03-08", 23 * 60},
        {"America/New_York", "2026-11-01", 25 * 60},
        {"Asia/Kolkata", "2026-03-29", 24 * 60},
        {"Australia/Lord_Howe", "2026-04-05", 24 * 60 + 30},
        {"Australia/Lord_Howe", "2026-10-04", 24 * 60 - 30},
        {"Pacific/Apia", "2011-12-29", 24 * 60},
        {"Pacific/Apia", "2011-12-30", 0},
        {"Pacific/Apia", "2011-12-31", 24 * 60},
        {"America/Sao_Paulo", "2018-11-04", 23 * 60},
        {"America/Sao_Paulo", "2018-02-17", 25 * 60},
        {"UTC", "2026-06-30", 24 * 60},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
        int64_t from_ms, to_ms;

        zone_day_bounds(zone_must(table[i].zone), day_must(table[i].day), &from_ms,
                        &to_ms);
        if (to_ms - from_ms != table[i].minutes * CLOCK_MINUTE_MS)
            fprintf(stderr, "%s %s\n", table[i].zone, table[i].day);
        assert_int_equal((to_ms - from_ms) / CLOCK_MINUTE_MS, table[i].minutes);
    }
}

static void
bounds_are_the_utc_times_that_people_know(void **state)
{
    static const struct {
        const char *zone, *day, *from;
    } table[] = {
        {"Europe/Berlin", "2026-03-29", "2026-03-28T23:00:00Z"},
        {"Europe/Berlin", "2026-03-30", "2026-03-29T22:00:00Z"},
        {"Asia/Kolkata", "2026-11-21", "2026-11-20T18:30:00Z"},
        {"Asia/Kathmandu", "2026-11-21", "2026-11-20T18:15:00Z"},
        {"Pacific/Apia", "2011-12-31", "2011-12-30T10:00:00Z"},
        {"Pacific/Apia", "2011-12-30", "2011-12-30T10:00:00Z"},
        {"America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00:00Z"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
        int64_t from_ms, to_ms, want_ms;

        assert_true(rfc3339_parse(str_of(table[i].from), &want_ms));
        zone_day_bounds(zone_must(table[i].zone), day_must(table[i].day), &from_ms,
                        &to_ms);
        if (from_ms != want_ms)
            fprintf(stderr, "%s %s\n", table[i].zone, table[i].day);
        assert_int_equal(from_ms, want_ms);
    }
}

static void
a_name_that_is_no_file_of_tzdata_is_no_zone(void **state)
{
    static const char *const names[] = {
        "",
        "Europe/Nowhere",
        "+02:00",
        "CET-1CEST",
        "../etc/passwd",
        "Mars",
        "europe/berlin ",
        "localtime",
        "right/UTC",
        "posix/Europe/Berlin",
        "/etc/localtime",
        "Europe",
        "Europe/",
        "posixrules",
        "Europe//../Berlin",
        "zone.tab",
        "ABC3",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        if (zone_find(str_of(names[i])) != NULL)
            fprintf(stderr, "accepted: %s\n", names[i]);
        assert_null(zone_find(str_of(names[i])));
    }
    assert_null(zone_find((struct str){NULL, 0}));
}

static void
a_zone_is_found_again_as_the_same(void **state)
{
    (void)state;
    assert_ptr_equal(zone_must("Europe/Berlin"), zone_must("Europe/Berlin"));
    assert_true(
        str_equal(zone_name(zone_must("Asia/Kolkata")), STR("Asia/Kolkata")));
}

/* GLib's answer, asked for one instant. */
static int64_t
model_offset_ms(GTimeZone *tz, int64_t ms)
{
    int id = g_time_zone_find_interval(tz, G_TIME_TYPE_UNIVERSAL,
                                       clock_floor(ms, 1000) / 1000);

    return (int64_t)g_time_zone_get_offset(tz, id) * 1000;
}

static uint64_t
next_random(uint64_t *state)
{
    *state += UINT64_C(0x9E3779B97F4A7C15);
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static void
check_instant(const struct zone *zone, GTimeZone *tz, int64_t ms)
{
    int64_t span_from_ms, span_to_ms, from_ms, to_ms;
    int64_t offset_ms = zone_offset_ms(zone, ms, &span_from_ms, &span_to_ms);
    int32_t day = zone_day(zone, ms);

    assert_int_equal(offset_ms, model_offset_ms(tz, ms));
    assert_true(span_from_ms <= ms && ms < span_to_ms);
    zone_day_bounds(zone, day, &from_ms, &to_ms);
    assert_true(from_ms <= ms && ms < to_ms);
    assert_int_equal(zone_day(zone, from_ms), day);
    assert_int_equal(zone_day(zone, to_ms - 1), day);
    assert_true(zone_day(zone, to_ms) > day);
    /* A clock set back over midnight keeps the new day; else it is plain arithmetic. */
    int32_t plain =
        (int32_t)(clock_floor(ms + offset_ms, CLOCK_DAY_MS) / CLOCK_DAY_MS);
    assert_true(plain == day || plain == day - 1);
    if (plain != day)
        assert_true(ms - span_from_ms < CLOCK_DAY_MS);
}

static void
random_times_agree_with_glib(void **state)
{
    uint64_t seed = 20261121;

    (void)state;
    for (int z = 0; z < ZONES_N; z++) {
        const struct zone *zone = zone_must(zone_names[z]);
        GTimeZone *tz = g_time_zone_new_identifier(zone_names[z]);

        assert_non_null(tz);
        for (int i = 0; i < 3000; i++)
            check_instant(zone, tz,
                          (int64_t)(next_random(&seed) % UINT64_C(9214646400000)));
        for (int i = 0; i < 3000; i++) /* near now, where clicks are */
            check_instant(
                zone, tz,
                INT64_C(1700000000000) +
                    (int64_t)(next_random(&seed) % UINT64_C(200000000000)));
        g_time_zone_unref(tz);
    }
}

static void
each_change_of_offset_is_where_glib_has_it(void **state)
{
    (void)state;
    for (int z = 0; z < ZONES_N; z++) {
        const struct zone *zone = zone_must(zone_names[z]);
        GTimeZone *tz = g_time_zone_new_identifier(zone_names[z]);
        int64_t ms = 0, from_ms, to_ms;

        for (;;) {
            (void)zone_offset_ms(zone, ms, &from_ms, &to_ms);
            if (to_ms == INT64_MAX)
                break;
            check_instant(zone, tz, to_ms - 1);
            check_instant(zone, tz, to_ms);
            assert_int_not_equal(model_offset_ms(tz, to_ms - 1),
                                 model_offset_ms(tz, to_ms));
            ms = to_ms;
        }
        g_time_zone_unref(tz);
    }
}

static void
days_follow_each_other_without_gap_or_overlap(void **state)
{
    (void)state;
    for (int z = 0; z < ZONES_N; z++) {
        const struct zone *zone = zone_must(zone_names[z]);
        int64_t before_ms = INT64_MIN;

        for (int32_t day = -2; day < 60000; day++) {
            int64_t from_ms, to_ms;

            zone_day_bounds(zone, day, &from_ms, &to_ms);
            assert_true(before_ms == INT64_MIN || from_ms == before_ms);
            assert_true(to_ms >= from_ms);
            if (day > 4000) /* 1980: whole quarter-hours */
                assert_true(from_ms % CLOCK_QUARTER_MS == 0 ||
                            strcmp(zone_names[z], "America/St_Johns") == 0);
            before_ms = to_ms;
        }
    }
}

static void *
find_and_ask(void *arg)
{
    for (int i = 0; i < 2000; i++) {
        const struct zone *zone = zone_find(str_of(zone_names[i % ZONES_N]));

        if (zone == NULL || zone_day(zone, INT64_C(1763719687000)) < 20000)
            return arg;
    }
    return NULL;
}

static void
threads_share_zones(void **state)
{
    pthread_t threads[4];
    int wrong = 1; /* what a thread returns when it is */

    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, find_and_ask, &wrong),
                         0);
    for (int i = 0; i < 4; i++) {
        void *answer = NULL;

        (void)pthread_join(threads[i], &answer);
        assert_null(answer);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_share_zones),
        cmocka_unit_test(days_have_the_hours_that_the_clock_gives_them),
        cmocka_unit_test(bounds_are_the_utc_times_that_people_know),
        cmocka_unit_test(a_name_that_is_no_file_of_tzdata_is_no_zone),
        cmocka_unit_test(a_zone_is_found_again_as_the_same),
        cmocka_unit_test(random_times_agree_with_glib),
        cmocka_unit_test(each_change_of_offset_is_where_glib_has_it),
        cmocka_unit_test(days_follow_each_other_without_gap_or_overlap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

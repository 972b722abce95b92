/* Keys as they are written down in the header; windows against a walk over every minute. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "schema/rediskeys.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "schema/text.h"
#include "schema/zone.h"

static void
is(const char *key, uint32_t n, const char *want)
{
    char text[REDISKEY_MAX + 1];

    memcpy(text, key, n);
    text[n] = '\0';
    assert_string_equal(text, want);
}

static int64_t
at(const char *text)
{
    int64_t ms = 0;

    assert_true(rfc3339_parse(str_of(text), &ms));
    return ms;
}

static void
keys_are_as_the_header_says(void **state)
{
    char key[REDISKEY_MAX];
    struct str c = STR("c-1");

    (void)state;
    is(key, rediskey_owner(key, 7), "{p7}:owner");
    is(key, rediskey_row(key, 7, 2, WINDOW_5M, c, 1763719500000),
       "{p7}:2:5m:c-1:1763719500");
    is(key, rediskey_row(key, 15, 10, WINDOW_1H, c, 0), "{p15}:10:1h:c-1:0");
    is(key, rediskey_row(key, 0, 0, WINDOW_1D, c, -1800000), "{p0}:0:1d:c-1:-1800");
    is(key, rediskey_users(key, 7, 2, WINDOW_1D, c, 1763679600000),
       "{p7}:2:hll:1d:c-1:1763679600");
    is(key, rediskey_live(key, 7, 2, c), "{p7}:2:live:c-1");
}

static void
the_longest_key_fits(void **state)
{
    char key[REDISKEY_MAX], id[64];

    (void)state;
    memset(id, 'x', sizeof(id));
    assert_true(rediskey_users(key, UINT32_MAX, UINT32_MAX, WINDOW_1D,
                               (struct str){id, sizeof(id)},
                               INT64_MIN + 2000) < REDISKEY_MAX);
}

static void
windows_start_where_people_expect(void **state)
{
    static const struct {
        const char *zone, *event, *start, *end;
        enum window window;
    } table[] = {
        {"Europe/Berlin", "2026-11-21T09:08:07Z", "2026-11-21T09:05:00Z",
         "2026-11-21T09:10:00Z", WINDOW_5M},
        {"Europe/Berlin", "2026-11-21T09:08:07Z", "2026-11-21T09:00:00Z",
         "2026-11-21T10:00:00Z", WINDOW_1H},
        {"Europe/Berlin", "2026-11-21T09:08:07Z", "2026-11-20T23:00:00Z",
         "2026-11-21T23:00:00Z", WINDOW_1D},
        {"Asia/Kolkata", "2026-11-21T09:08:07Z", "2026-11-21T08:30:00Z",
         "2026-11-21T09:30:00Z", WINDOW_1H},
        {"Asia/Kathmandu", "2026-11-21T09:08:07Z", "2026-11-21T08:15:00Z",
         "2026-11-21T09:15:00Z", WINDOW_1H},
        /* 25 hours, the repeated one is two windows */
        {"Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z",
         "2026-10-25T23:00:00Z", WINDOW_1D},
        {"Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T00:00:00Z",
         "2026-10-25T01:00:00Z", WINDOW_1H},
        {"Europe/Berlin", "2026-10-25T01:30:00Z", "2026-10-25T01:00:00Z",
         "2026-10-25T02:00:00Z", WINDOW_1H},
        {"Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z",
         "2026-03-29T22:00:00Z", WINDOW_1D},
        /* Half an hour back at 15:00 UTC: 01:30 to 02:00 comes twice. */
        {"Australia/Lord_Howe", "2026-04-04T14:50:00Z", "2026-04-04T14:00:00Z",
         "2026-04-04T15:00:00Z", WINDOW_1H},
        {"Australia/Lord_Howe", "2026-04-04T15:10:00Z", "2026-04-04T15:00:00Z",
         "2026-04-04T15:30:00Z", WINDOW_1H},
        {"Australia/Lord_Howe", "2026-04-04T15:40:00Z", "2026-04-04T15:30:00Z",
         "2026-04-04T16:30:00Z", WINDOW_1H},
        {NULL, "2026-11-21T09:08:07Z", "2026-11-21T00:00:00Z",
         "2026-11-22T00:00:00Z", WINDOW_1D},
        {NULL, "2026-11-21T09:08:07Z", "2026-11-21T09:00:00Z",
         "2026-11-21T10:00:00Z", WINDOW_1H},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
        const struct zone *zone =
            table[i].zone == NULL ? NULL : zone_find(str_of(table[i].zone));
        int64_t start = window_start(table[i].window, zone, at(table[i].event));

        if (start != at(table[i].start) ||
            window_end(table[i].window, zone, start) != at(table[i].end))
            fprintf(stderr, "row %zu\n", i);
        assert_int_equal(start, at(table[i].start));
        assert_int_equal(window_end(table[i].window, zone, start),
                         at(table[i].end));
    }
}

/* Two years of quarter-hours: windows are disjoint, without gaps, and 5m is in 1h is in 1d. */
static void
windows_tile_time_and_nest(void **state)
{
    static const char *const zones[] = {"Europe/Berlin",    "Asia/Kolkata",
                                        "Asia/Kathmandu",   "Australia/Lord_Howe",
                                        "America/New_York", "Pacific/Apia",
                                        "America/Sao_Paulo"};

    (void)state;
    for (size_t z = 0; z < sizeof(zones) / sizeof(*zones); z++) {
        const struct zone *zone = zone_find(str_of(zones[z]));
        int64_t from = at("2025-01-01T00:00:00Z"), end[WINDOWS_N] = {0},
                start[WINDOWS_N];

        for (int64_t ms = from; ms < from + 730 * CLOCK_DAY_MS;
             ms += 5 * CLOCK_MINUTE_MS) {
            for (enum window w = WINDOW_5M; w < WINDOWS_N; w++) {
                start[w] = window_start(w, zone, ms);
                assert_true(start[w] <= ms && ms < window_end(w, zone, start[w]));
                assert_int_equal(window_start(w, zone, start[w]), start[w]);
                if (end[w] != 0 && ms >= end[w])
                    assert_int_equal(start[w], end[w]);
                end[w] = window_end(w, zone, start[w]);
            }
            assert_true(start[WINDOW_1H] <= start[WINDOW_5M] &&
                        end[WINDOW_5M] <= end[WINDOW_1H]);
            assert_true(start[WINDOW_1D] <= start[WINDOW_1H] &&
                        end[WINDOW_1H] <= end[WINDOW_1D]);
        }
    }
}

static void
rows_expire_a_day_or_nine_after_their_end(void **state)
{
    (void)state;
    assert_int_equal(window_expiry_s(WINDOW_5M, 1000000000), 1000000 + 86400);
    assert_int_equal(window_expiry_s(WINDOW_1H, 1000000000), 1000000 + 9 * 86400);
    assert_int_equal(window_expiry_s(WINDOW_1D, 1000000001), 1000001 + 9 * 86400);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_as_the_header_says),
        cmocka_unit_test(the_longest_key_fits),
        cmocka_unit_test(windows_start_where_people_expect),
        cmocka_unit_test(windows_tile_time_and_nest),
        cmocka_unit_test(rows_expire_a_day_or_nine_after_their_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The small parsers: tables first, then inet_pton and timegm as plainer models. */
#define _GNU_SOURCE /* timegm */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/clock.h"
#include "schema/text.h"

#define ROWS(table) (sizeof(table) / sizeof((table)[0]))

static uint64_t
draw(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

static void
a_uuid_is_36_characters_in_either_case(void **state)
{
    static const char *const good[] = {"0d9e3f6a-52c1-4b7e-9a40-6c1f2e8b7d55",
                                       "0D9E3F6A-52C1-4B7E-9A40-6C1F2E8B7D55",
                                       "ffffffff-ffff-ffff-ffff-ffffffffffff",
                                       "00000000-0000-0000-0000-000000000001"};
    static const char *const bad[] = {"",
                                      "00000000-0000-0000-0000-000000000000",
                                      "0d9e3f6a52c14b7e9a406c1f2e8b7d55",
                                      "0d9e3f6a-52c1-4b7e-9a40-6c1f2e8b7d5",
                                      "0d9e3f6a-52c1-4b7e-9a40-6c1f2e8b7d555",
                                      "0d9e3f6g-52c1-4b7e-9a40-6c1f2e8b7d55",
                                      "0d9e3f6a-52c1-4b7e-9a40-6c1f2e8b7d5 ",
                                      "0d9e3f6a-52c1-4b7e-9a40_6c1f2e8b7d55",
                                      "{d9e3f6a-52c1-4b7e-9a40-6c1f2e8b7d55}",
                                      "0d9e3f6a-52c1-4b7e-9a4-06c1f2e8b7d55"};
    uint8_t id[16], same[16];
    char text[UUID_TEXT_SIZE];

    (void)state;
    for (size_t i = 0; i < ROWS(good); i++) {
        assert_true(uuid_parse(str_of(good[i]), id));
        assert_true(uuid_parse(str_of(uuid_format(id, text)), same));
        assert_memory_equal(id, same, 16);
    }
    assert_true(uuid_parse(str_of(good[1]), id));
    assert_string_equal(uuid_format(id, text), good[0]);
    memset(id, 7, sizeof(id));
    for (size_t i = 0; i < ROWS(bad); i++)
        assert_false(uuid_parse(str_of(bad[i]), id));
    assert_int_equal(id[0], 7);
}

static void
addresses_are_read_and_written_as_rfc_5952_says(void **state)
{
    static const struct {
        const char *text, *want;
        uint32_t size;
    } rows[] = {
        {"0.0.0.0", "0.0.0.0", 4},
        {"255.255.255.255", "255.255.255.255", 4},
        {"203.0.113.77", "203.0.113.77", 4},
        {"::", "::", 16},
        {"::1", "::1", 16},
        {"1::", "1::", 16},
        {"2001:DB8::A", "2001:db8::a", 16},
        {"2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1", 16},
        {"2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1", 16},
        {"2001:0:0:1:0:0:0:1", "2001:0:0:1::1", 16},
        {"1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8", 16},
        {"1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0", 16},
        {"::ffff:1.2.3.4", "1.2.3.4", 4},
        {"::FFFF:0102:0304", "1.2.3.4", 4},
        {"64:ff9b::192.0.2.33", "64:ff9b::c000:221", 16},
    };
    uint8_t ip[IP_SIZE_MAX];
    char text[IP_TEXT_SIZE];

    (void)state;
    for (size_t i = 0; i < ROWS(rows); i++) {
        uint32_t size = 0;

        assert_true(ip_parse(str_of(rows[i].text), ip, &size));
        assert_int_equal(size, rows[i].size);
        assert_string_equal(ip_format((struct str){(char *)ip, size}, text),
                            rows[i].want);
    }
    assert_string_equal(ip_format(STR("abc"), text), "");
}

static void
what_is_not_an_address_is_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "1",
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.256",
        "01.2.3.4",
        "1.2.3.04",
        "1.2.3.4 ",
        " 1.2.3.4",
        "1.2.3.-4",
        "1..3.4",
        "0x1.2.3.4",
        "1.2.3.4:80",
        "fe80::1%lo",
        ":",
        ":::",
        "1::2::3",
        "1:2:3:4:5:6:7",
        "12345::",
        "::1:",
        ":1::",
        "[::1]",
        "::g",
        "1:2:3:4:5:6:7:8:9",
        "1:2:3:4:5:6:7:8::",
        "1:2:3:4::5:6:7:8",
        "::1.2.3",
        "::1.2.3.4:5",
        "1:2:3:4:5:6:7:1.2.3.4",
        "::1.2.3.04",
        "1.2.3.4::",
    };
    uint8_t ip[IP_SIZE_MAX];
    uint32_t size = 99;

    (void)state;
    for (size_t i = 0; i < ROWS(bad); i++)
        assert_false(ip_parse(str_of(bad[i]), ip, &size));
    assert_int_equal(size, 99);
}

/* inet_pton does not know our mapping of v4-mapped addresses to v4. */
static void
compare_with_inet_pton(const char *text)
{
    uint8_t ours[16], theirs[16] = {0};
    uint32_t size = 0;
    bool good = ip_parse(str_of(text), ours, &size);
    int family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET;

    if (good != (inet_pton(family, text, theirs) == 1))
        fail_msg("\"%s\": %d", text, good);
    if (!good)
        return;
    if (family == AF_INET6 && size == 4)
        assert_memory_equal(theirs + 12, ours, 4);
    else
        assert_int_equal(memcmp(theirs, ours, size), 0);
}

static void
addresses_agree_with_inet_pton_on_random_text(void **state)
{
    static const char *const pieces[] = {
        "1",  "0",    "25",   "255", "256",     "::",      ":",     ".", "f",
        "ff", "ffff", "abcd", "00",  "::ffff:", "1.2.3.4", "12345", "%"};
    uint64_t seed = 1;

    (void)state;
    for (int round = 0; round < 300000; round++) {
        char text[IP_TEXT_SIZE] = "";
        size_t n = 0;

        for (uint64_t i = 1 + draw(&seed) % 15; i > 0; i--) {
            const char *piece = pieces[draw(&seed) % ROWS(pieces)];
            size_t m = strlen(piece);

            if (n + m >= sizeof(text))
                break;
            memcpy(text + n, piece, m + 1);
            n += m;
        }
        compare_with_inet_pton(text);
    }
}

static void
ipv6_text_is_what_inet_ntop_writes(void **state)
{
    uint64_t seed = 2;

    (void)state;
    for (int round = 0; round < 100000; round++) {
        char ours[IP_TEXT_SIZE], theirs[IP_TEXT_SIZE];
        uint8_t ip[16];

        for (int i = 0; i < 16; i++)
            ip[i] = (uint8_t)(draw(&seed) % 3 == 0 ? draw(&seed) : 0);
        if (ip[10] == 0 && ip[11] == 0) /* glibc writes ::1.2.3.4 there */
            ip[0] |= 1;
        assert_non_null(inet_ntop(AF_INET6, ip, theirs, sizeof(theirs)));
        assert_string_equal(ip_format((struct str){(char *)ip, 16}, ours), theirs);
    }
}

static void
times_are_rfc_3339_with_a_zone(void **state)
{
    static const struct {
        const char *text;
        int64_t want_ms;
    } rows[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"1970-01-01T00:00:00.001Z", 1},
        {"1970-01-01T00:00:00.0019999Z", 1},
        {"1970-01-01T00:00:00.12Z", 120},
        {"2026-11-21T09:08:07.123Z", INT64_C(1795252087123)},
        {"2026-11-21t09:08:07.123z", INT64_C(1795252087123)},
        {"2026-11-21T10:08:07.123+01:00", INT64_C(1795252087123)},
        {"2026-11-20T23:38:07.123-09:30", INT64_C(1795252087123)},
        {"2026-11-21T09:08:07.123-00:00", INT64_C(1795252087123)},
        {"2000-02-29T00:00:00Z", INT64_C(951782400000)},
        {"2016-12-31T23:59:60Z", INT64_C(1483228800000)},
        {"2017-01-01T00:59:60.5+01:00", INT64_C(1483228800500)},
        {"1970-01-01T01:00:00+01:00", 0},
        {"2261-12-31T23:59:59.999Z", INT64_C(9214646399999)},
    };

    (void)state;
    for (size_t i = 0; i < ROWS(rows); i++) {
        int64_t ms = -1;

        if (!rfc3339_parse(str_of(rows[i].text), &ms) || ms != rows[i].want_ms)
            fail_msg("%s: %lld", rows[i].text, (long long)ms);
    }
}

static void
what_is_not_such_a_time_is_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "2026-11-21",
        "2026-11-21T09:08:07",
        "2026-11-21 09:08:07Z",
        "2026-11-21T09:08Z",
        "2026-11-21T09:08:07.Z",
        "2026-11-21T09:08:07,1Z",
        "2026-11-21T24:00:00Z",
        "2026-11-21T09:60:00Z",
        "2026-11-21T09:08:61Z",
        "2026-11-21T09:08:60Z",
        "2026-12-31T23:59:60+01:00",
        "2026-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-1-1T00:00:00.000Z",
        "26-11-21T09:08:07.123Z",
        "2026-11-21T09:08:07.123+1:00",
        "2026-11-21T09:08:07.123+0100",
        "2026-11-21T09:08:07.123+24:00",
        "2026-11-21T09:08:07.123+01:60",
        "2026-11-21T09:08:07.123ZZ",
        "2026-11-21T09:08:07.123Z ",
        "1969-12-31T23:59:59.999Z",
        "1970-01-01T00:00:00+00:01",
        "2262-01-01T00:00:00Z",
        "20x6-11-21T09:08:07.123Z",
        "2026-11-21T09:08:0:.123Z",
    };
    int64_t ms = 42;

    (void)state;
    for (size_t i = 0; i < ROWS(bad); i++)
        if (rfc3339_parse(str_of(bad[i]), &ms))
            fail_msg("\"%s\" was read", bad[i]);
    assert_int_equal(ms, 42);
}

static void
every_day_of_four_centuries_agrees_with_timegm(void **state)
{
    char text[12];

    (void)state;
    for (int32_t day = -36525; day < 110000; day++) {
        struct tm tm = {0};
        int32_t back;

        assert_true(date_parse(str_of(date_format(day, text)), &back));
        assert_int_equal(back, day);
        assert_int_equal(
            sscanf(text, "%d-%d-%d", &tm.tm_year, &tm.tm_mon, &tm.tm_mday), 3);
        tm.tm_year -= 1900;
        tm.tm_mon -= 1;
        assert_int_equal(timegm(&tm), (int64_t)day * 86400);
    }
    assert_string_equal(date_format(-719528, text), "0000-01-01");
    assert_string_equal(date_format(2932896, text), "9999-12-31");
}

static void
a_time_that_the_clock_wrote_is_read_back(void **state)
{
    uint64_t seed = 3;

    (void)state;
    for (int i = 0; i < 100000; i++) {
        int64_t ms =
            (int64_t)((draw(&seed) << 20 ^ draw(&seed)) % UINT64_C(9214646400000));
        int64_t back = -1;
        char text[CLOCK_TEXT_SIZE];

        assert_true(rfc3339_parse(str_of(clock_format_ms(ms, text)), &back));
        assert_int_equal(back, ms);
    }
}

static void
dates_have_ten_characters(void **state)
{
    static const char *const bad[] = {"",           "2026-11-2",  "2026-11-211",
                                      "2026-11-31", "2026/11/21", "2026-02-29",
                                      "-026-11-21", "2026-1 -21"};
    int32_t day = 5;

    (void)state;
    for (size_t i = 0; i < ROWS(bad); i++)
        assert_false(date_parse(str_of(bad[i]), &day));
    assert_int_equal(day, 5);
    assert_true(date_parse(STR("2024-02-29"), &day));
    assert_int_equal(day, 19782);
}

static void
there_are_249_countries(void **state)
{
    int known = 0;

    (void)state;
    for (char a = 1; a < 127; a++)
        for (char b = 1; b < 127; b++)
            known += country_known((struct str){(char[]){a, b}, 2});
    assert_int_equal(known, 249);
    assert_true(country_known(STR("DE")));
    assert_true(country_known(STR("ZW")));
    assert_false(country_known(STR("UK")));
    assert_false(country_known(STR("de")));
    assert_false(country_known(STR("D")));
    assert_false(country_known(STR("DEU")));
    assert_false(country_known((struct str){"D\0", 2}));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_uuid_is_36_characters_in_either_case),
        cmocka_unit_test(addresses_are_read_and_written_as_rfc_5952_says),
        cmocka_unit_test(what_is_not_an_address_is_refused),
        cmocka_unit_test(addresses_agree_with_inet_pton_on_random_text),
        cmocka_unit_test(ipv6_text_is_what_inet_ntop_writes),
        cmocka_unit_test(times_are_rfc_3339_with_a_zone),
        cmocka_unit_test(what_is_not_such_a_time_is_refused),
        cmocka_unit_test(every_day_of_four_centuries_agrees_with_timegm),
        cmocka_unit_test(a_time_that_the_clock_wrote_is_read_back),
        cmocka_unit_test(dates_have_ten_characters),
        cmocka_unit_test(there_are_249_countries),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

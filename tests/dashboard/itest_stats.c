/* What the rows say: numbers, bounds, states, and where they came from. */
#include "tests/dashboard/dashboard_fixture.h"

#include <pthread.h>
#include <stdatomic.h>

static struct rig rig;
static int64_t hour_ms; /* the open hour when the test began */

static int
start(void **state)
{
    (void)state;
    rig_open(&rig);
    hour_ms = clock_floor(clock_now_us() / 1000, CLOCK_HOUR_MS);
    return 0;
}

static int
stop(void **state)
{
    static const char *const used[] = {"shoes", "sarees", "tea", "race"};

    (void)state;
    for (size_t i = 0; i < sizeof(used) / sizeof(used[0]); i++)
        owner_drop(&rig, used[i]);
    rig_close(&rig);
    return 0;
}

static int64_t
now_ms(void)
{
    return clock_now_us() / 1000;
}

/* from and to as the query has them. */
static cJSON *
stats_of(const char *campaign, int64_t from_ms, int64_t to_ms, const char *more,
         int status)
{
    char path[PATH_TEXT], from[CLOCK_TEXT_SIZE], to[CLOCK_TEXT_SIZE];

    (void)snprintf(path, sizeof(path), "/v1/campaigns/%s/stats?from=%s&to=%s&%s",
                   campaign, clock_format_ms(from_ms, from),
                   clock_format_ms(to_ms, to), more);
    return ask_json(rig.port, KEY_ACCOUNT, path, status);
}

static const cJSON *
row_at(const cJSON *json, int i)
{
    const cJSON *row = cJSON_GetArrayItem(member(json, "rows"), i);

    assert_non_null(row);
    return row;
}

static void
count_is(const cJSON *json, const char *name, int64_t want)
{
    if (number_at(json, name) != want)
        fail_msg("%s is not %lld: %s", name, (long long)want,
                 cJSON_PrintUnformatted(json));
}

/* --- Redis --- */

static void
redis_rows_say_provisional_and_have_every_number(void **state)
{
    int64_t start_ms = hour_ms;
    char text[CLOCK_TEXT_SIZE];

    (void)state;
    owner_put(&rig, "tea", rig.generation, "0");
    row_put(&rig, "tea", WINDOW_1H, start_ms, "t", "12,3456789,2,5,7,1");
    row_put(&rig, "tea", WINDOW_1H, start_ms, "r:double_click", "3");
    row_put(&rig, "tea", WINDOW_1H, start_ms, "r:known_bot_agent", "2");
    row_put(&rig, "tea", WINDOW_1H, start_ms, "n:DE", "4,1000000,1,0");
    row_put(&rig, "tea", WINDOW_1H, start_ms, "n:FR", "8,2456789,1,5");
    row_put(&rig, "tea", WINDOW_1H, start_ms, "n:__other__", "100,1,0,0");
    row_put(&rig, "tea", WINDOW_1H, start_ms, "a:ad \"1\"", "12,3456789,2,5");
    user_put(&rig, "tea", WINDOW_1H, start_ms, "u1");
    user_put(&rig, "tea", WINDOW_1H, start_ms, "u2");

    cJSON *json = stats_of("tea", start_ms, start_ms + 1, "", 200);
    text_is(json, "source", "redis");
    text_is(json, "granularity", "1h");
    text_is(json, "currency", "BHD");
    text_is(json, "redis", "ok");
    assert_true(cJSON_IsFalse(member(json, "rebuilding")));
    assert_int_equal(cJSON_GetArraySize(member(json, "rows")), 1);
    const cJSON *row = row_at(json, 0);
    text_is(row, "state", "provisional");
    text_is(row, "start", clock_format_ms(start_ms, text));
    text_is(row, "end", clock_format_ms(start_ms + CLOCK_HOUR_MS, text));
    text_is(row, "cost", "3.456789");
    count_is(row, "clicks", 12);
    count_is(row, "flagged", 2);
    count_is(row, "invalid", 5);
    count_is(row, "duplicate", 7);
    count_is(row, "quarantined", 1);
    count_is(row, "unique_users", 2);
    count_is(member(row, "reasons"), "double_click", 3);
    count_is(member(row, "reasons"), "known_bot_agent", 2);
    assert_int_equal(cJSON_GetArraySize(member(row, "reasons")), 2);
    assert_false(has(row, "groups"));
    assert_false(has(row, "over_budget"));
    cJSON_Delete(json);
}

static void
groups_come_with_most_clicks_first_and_other_last(void **state)
{
    int64_t start_ms = hour_ms;
    cJSON *json = stats_of("tea", start_ms, start_ms + 1, "group_by=country", 200);
    const cJSON *groups = member(row_at(json, 0), "groups");

    (void)state;
    text_is(json, "group_by", "country");
    assert_int_equal(cJSON_GetArraySize(groups), 3);
    text_is(cJSON_GetArrayItem(groups, 0), "value", "FR");
    text_is(cJSON_GetArrayItem(groups, 0), "cost", "2.456789");
    count_is(cJSON_GetArrayItem(groups, 0), "invalid", 5);
    text_is(cJSON_GetArrayItem(groups, 1), "value", "DE");
    text_is(cJSON_GetArrayItem(groups, 2), "value", "__other__");
    cJSON_Delete(json);
    json = stats_of("tea", start_ms, start_ms + 1, "group_by=ad_id", 200);
    groups = member(row_at(json, 0), "groups");
    text_is(cJSON_GetArrayItem(groups, 0), "value", "ad \"1\"");
    cJSON_Delete(json);
    json = stats_of("tea", start_ms, start_ms + 1, "group_by=variant_id", 200);
    assert_int_equal(cJSON_GetArraySize(member(row_at(json, 0), "groups")), 0);
    cJSON_Delete(json);
}

/* Large hashes are read in another way than small ones: the answers are the same. */
static void
rows_with_thousands_of_values_are_read_the_same(void **state)
{
    int64_t start_ms = hour_ms - 3 * CLOCK_HOUR_MS;
    static const char *const queries[] = {"", "group_by=country",
                                          "group_by=device_type", "group_by=ad_id"};
    char *small[4];

    (void)state;
    row_put(&rig, "tea", WINDOW_1H, start_ms, "t", "12,3456789,2,5,7,1");
    row_put(&rig, "tea", WINDOW_1H, start_ms, "r:honeypot", "5");
    row_put(&rig, "tea", WINDOW_1H, start_ms, "n:DE", "4,1000000,1,0");
    row_put(&rig, "tea", WINDOW_1H, start_ms, "n:__other__", "8,2456789,1,5");
    row_put(&rig, "tea", WINDOW_1H, start_ms, "d:mobile", "12,3456789,2,5");
    row_put(&rig, "tea", WINDOW_1H, start_ms, "a:ad1", "12,3456789,2,5");
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < 4; i++) {
            cJSON *json = stats_of("tea", start_ms, start_ms + 1, queries[i], 200);
            char *row = cJSON_PrintUnformatted(row_at(json, 0));
            if (pass == 0)
                small[i] = row;
            else
                assert_string_equal(row, small[i]);
            if (pass == 1) {
                cJSON_free(row);
                cJSON_free(small[i]);
            }
            cJSON_Delete(json);
        }
        for (int i = 0; pass == 0 && i < 2000; i++) {
            char field[32];
            (void)snprintf(field, sizeof(field), "p:pub%d", i);
            row_put(&rig, "tea", WINDOW_1H, start_ms, field, "1,1,0,0");
        }
    }
}

static void
each_granularity_reads_its_own_rows(void **state)
{
    static const char *const names[] = WINDOW_NAMES;
    int64_t now = now_ms();

    (void)state;
    for (int w = 0; w < WINDOWS_N; w++) {
        char value[32], more[32];
        int64_t start_ms = window_start((enum window)w, NULL, now);
        (void)snprintf(value, sizeof(value), "%d,1,0,0,0,0", 100 + w);
        (void)snprintf(more, sizeof(more), "granularity=%s", names[w]);
        row_put(&rig, "tea", (enum window)w, start_ms, "t", value);
        cJSON *json = stats_of("tea", start_ms, start_ms + 1, more, 200);
        count_is(row_at(json, 0), "clicks", 100 + w);
        cJSON_Delete(json);
    }
}

static void
an_open_window_without_clicks_is_zero_and_one_that_expired_is_unavailable(
    void **state)
{
    int64_t now = now_ms();

    (void)state;
    cJSON *json = stats_of("tea", now - 2 * CLOCK_DAY_MS,
                           now - 2 * CLOCK_DAY_MS + 1, "granularity=1h", 200);
    text_is(row_at(json, 0), "state", "provisional");
    count_is(row_at(json, 0), "clicks", 0);
    cJSON_Delete(json);
    json = stats_of("tea", now - 2 * CLOCK_DAY_MS, now - 2 * CLOCK_DAY_MS + 1,
                    "granularity=5m", 200);
    text_is(json, "source", "none");
    text_is(row_at(json, 0), "state", "unavailable");
    assert_false(has(row_at(json, 0), "clicks"));
    cJSON_Delete(json);
    /* Half and half: 5-minute rows from 24 h and some minutes ago until now. */
    json = stats_of("tea", now - CLOCK_DAY_MS - CLOCK_HOUR_MS, now,
                    "granularity=5m", 200);
    const cJSON *rows = member(json, "rows");
    text_is(cJSON_GetArrayItem(rows, 0), "state", "unavailable");
    text_is(cJSON_GetArrayItem(rows, cJSON_GetArraySize(rows) - 1), "state",
            "provisional");
    cJSON_Delete(json);
}

/* The HyperLogLog is gone, the counter is not: then nobody knows, it is not 0. */
static void
users_that_are_gone_are_left_out(void **state)
{
    int64_t start_ms = hour_ms - CLOCK_HOUR_MS;

    (void)state;
    row_put(&rig, "tea", WINDOW_1H, start_ms, "t", "5,1,0,0,0,0");
    cJSON *json = stats_of("tea", start_ms, start_ms + 1, "", 200);
    assert_false(has(row_at(json, 0), "unique_users"));
    cJSON_Delete(json);
}

static void
a_partition_that_is_rebuilt_or_unknown_says_so(void **state)
{
    int64_t start_ms = hour_ms;

    (void)state;
    owner_put(&rig, "tea", rig.generation, "1");
    cJSON *json = stats_of("tea", start_ms, start_ms + 1, "", 200);
    assert_true(cJSON_IsTrue(member(json, "rebuilding")));
    cJSON_Delete(json);
    owner_drop(&rig, "tea");
    json = stats_of("tea", start_ms, start_ms + 1, "", 200);
    assert_true(cJSON_IsTrue(member(json, "rebuilding")));
    text_is(json, "source", "none");
    text_is(row_at(json, 0), "state", "unavailable");
    assert_false(has(row_at(json, 0), "clicks"));
    cJSON_Delete(json);
    json = ask_json(rig.port, KEY_A1, "/v1/campaigns/tea/live", 503);
    text_is(json, "code", "unavailable");
    cJSON_Delete(json);
    owner_put(&rig, "tea", rig.generation, "0");
}

static void
damaged_rows_do_no_harm(void **state)
{
    static const char *const values[] = {"",
                                         ",",
                                         ",,,,,,,,,",
                                         "x",
                                         "-",
                                         "-5",
                                         "1e9",
                                         "99999999999999999999999999",
                                         "1,2,3,4,5,6,7,8,9",
                                         "1,-99999999999999999999,3"};
    int64_t start_ms = hour_ms - 5 * CLOCK_HOUR_MS;

    (void)state;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        char key[REDISKEY_MAX];
        const struct str live[] = {
            STR("HSET"),
            {key, rediskey_live(key, partition_of_campaign("tea"), rig.generation,
                                STR("tea"))},
            STR("3"),
            str_of(values[i])};
        redis_do(&rig, live, 4);
        row_put(&rig, "tea", WINDOW_1H, start_ms, "t", values[i]);
        row_put(&rig, "tea", WINDOW_1H, start_ms, "n:\xff\xfe\x01", values[i]);
        cJSON_Delete(
            stats_of("tea", start_ms, start_ms + 1, "group_by=country", 200));
        cJSON_Delete(ask_json(rig.port, KEY_A1, "/v1/campaigns/tea/live", 200));
    }
}

static void
live_has_thirty_steps_of_ten_seconds(void **state)
{
    int64_t step_s = clock_floor(now_ms() / 1000, 10) - 20;
    char key[REDISKEY_MAX], field[8], value[64];
    struct str words[] = {STR("HSET"),
                          {key, rediskey_live(key, partition_of_campaign("tea"),
                                              rig.generation, STR("tea"))},
                          {field, 0},
                          {value, 0}};

    (void)state;
    words[2].n =
        (uint32_t)snprintf(field, sizeof(field), "%d", (int)(step_s / 10 % 64));
    words[3].n = (uint32_t)snprintf(value, sizeof(value), "%lld,9,1500000",
                                    (long long)step_s);
    redis_do(&rig, words, 4);
    cJSON *json = ask_json(rig.port, KEY_A1, "/v1/campaigns/tea/live", 200);
    const cJSON *steps = member(json, "steps"), *step;
    int64_t clicks = 0;
    assert_int_equal(cJSON_GetArraySize(steps), 30);
    cJSON_ArrayForEach(step, steps) clicks += number_at(step, "clicks");
    assert_int_equal(clicks, 9);
    count_is(json, "step_s", 10);
    cJSON_Delete(json);
}

/* --- bounds --- */

static void
hours_and_days_are_the_campaigns_own(void **state)
{
    static const struct {
        const char *campaign, *granularity, *from, *to;
        int rows;
        const char *first, *last_end;
        int hours[3]; /* of the first rows, in quarter-hours */
    } cases[] = {
        {"sarees",
         "1d",
         "2026-06-01T12:00:00Z",
         "2026-06-03T12:00:00Z",
         3,
         "2026-05-31T18:30:00.000Z",
         "2026-06-03T18:30:00.000Z",
         {96, 96, 96}},
        {"sarees",
         "1h",
         "2026-06-01T12:00:00Z",
         "2026-06-01T13:00:00Z",
         2,
         "2026-06-01T11:30:00.000Z",
         "2026-06-01T13:30:00.000Z",
         {4, 4, 0}},
        {"sarees",
         "5m",
         "2026-06-01T12:01:00Z",
         "2026-06-01T12:11:00Z",
         3,
         "2026-06-01T12:00:00.000Z",
         "2026-06-01T12:15:00.000Z",
         {0, 0, 0}},
        /* Clocks go forward, and back. */
        {"shoes",
         "1d",
         "2026-03-28T12:00:00Z",
         "2026-03-30T12:00:00Z",
         3,
         "2026-03-27T23:00:00.000Z",
         "2026-03-30T22:00:00.000Z",
         {96, 92, 96}},
        {"shoes",
         "1d",
         "2026-10-24T12:00:00Z",
         "2026-10-26T12:00:00Z",
         3,
         "2026-10-23T22:00:00.000Z",
         "2026-10-26T23:00:00.000Z",
         {96, 100, 96}},
        {"shoes",
         "1d",
         "2026-10-24T22:00:00Z",
         "2026-10-25T23:00:00Z",
         1,
         "2026-10-24T22:00:00.000Z",
         "2026-10-25T23:00:00.000Z",
         {100, 0, 0}},
        {"shoes",
         "1d",
         "2026-10-24T21:59:59.999Z",
         "2026-10-25T23:00:00.001Z",
         3,
         "2026-10-23T22:00:00.000Z",
         "2026-10-26T23:00:00.000Z",
         {96, 100, 96}},
        {"shoes",
         "1h",
         "2026-03-29T00:00:00Z",
         "2026-03-29T03:00:00Z",
         3,
         "2026-03-29T00:00:00.000Z",
         "2026-03-29T03:00:00.000Z",
         {4, 4, 4}},
        /* By half an hour. */
        {"lord",
         "1d",
         "2026-04-04T12:00:00Z",
         "2026-04-06T12:00:00Z",
         3,
         "2026-04-03T13:00:00.000Z",
         "2026-04-06T13:30:00.000Z",
         {96, 98, 96}},
        {"lord",
         "1d",
         "2026-10-03T12:00:00Z",
         "2026-10-03T14:00:00Z",
         2,
         "2026-10-02T13:30:00.000Z",
         "2026-10-04T13:00:00.000Z",
         {96, 94, 0}},
        /* Offsets in from and to. */
        {"tea",
         "1d",
         "2026-06-01T00:30:00%2B05:30",
         "2026-06-01T05:30:00%2B05:30",
         1,
         "2026-05-31T00:00:00.000Z",
         "2026-06-01T00:00:00.000Z",
         {96, 0, 0}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char path[PATH_TEXT];
        (void)snprintf(path, sizeof(path),
                       "/v1/campaigns/%s/stats?granularity=%s&from=%s&to=%s",
                       cases[i].campaign, cases[i].granularity, cases[i].from,
                       cases[i].to);
        cJSON *json = ask_json(rig.port, KEY_A1, path, 200);
        const cJSON *rows = member(json, "rows");
        if (cJSON_GetArraySize(rows) != cases[i].rows)
            fail_msg("%s: %s", path, cJSON_PrintUnformatted(rows));
        text_is(row_at(json, 0), "start", cases[i].first);
        text_is(row_at(json, cases[i].rows - 1), "end", cases[i].last_end);
        for (int r = 0; r < cases[i].rows; r++) {
            int64_t from_ms, to_ms;
            assert_true(rfc3339_parse(
                str_of(member(row_at(json, r), "start")->valuestring), &from_ms));
            assert_true(rfc3339_parse(
                str_of(member(row_at(json, r), "end")->valuestring), &to_ms));
            if (r < 3 && cases[i].hours[r] > 0 &&
                to_ms - from_ms != cases[i].hours[r] * CLOCK_QUARTER_MS)
                fail_msg("%s: row %d: %s", path, r, cJSON_PrintUnformatted(rows));
            if (r > 0)
                text_is(row_at(json, r), "start",
                        member(row_at(json, r - 1), "end")->valuestring);
        }
        cJSON_Delete(json);
    }
}

static void
bad_parameters_are_refused_by_name(void **state)
{
    static const struct {
        const char *query, *field;
    } cases[] = {
        {"granularity=2h", "granularity"},
        {"granularity=1H", "granularity"},
        {"group_by=city", "group_by"},
        {"group_by=ad_id,country", "group_by"},
        {"from=yesterday", "from"},
        {"from=2026-11-20", "from"},
        {"from=2026-11-20T00:00:00", "from"},
        {"from=2026-11-20T00:00:00+01:00", "from"}, /* + is a blank */
        {"from=2026-13-20T00:00:00Z", "from"},
        {"to=x", "to"},
        {"to=9999-01-01T00:00:00Z", "to"},
        {"from=2026-11-20T00:00:00Z&to=2026-11-20T00:00:00Z", "from"},
        {"from=2026-11-21T00:00:00Z&to=2026-11-20T00:00:00Z", "from"},
        /* 1,001 windows */
        {"from=2026-01-01T00:00:00Z&to=2026-02-11T17:00:00Z&granularity=1h",
         "from"},
        {"from=1971-01-01T00:00:00Z&to=2026-02-11T17:00:00Z&granularity=1d",
         "from"},
    };
    char path[PATH_TEXT];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        (void)snprintf(path, sizeof(path), "/v1/campaigns/tea/stats?%s",
                       cases[i].query);
        cJSON *json = ask_json(rig.port, KEY_A1, path, 400);
        text_is(json, "code", "invalid");
        text_is(json, "field", cases[i].field);
        assert_memory_equal(member(json, "detail")->valuestring, cases[i].field,
                            strlen(cases[i].field));
        cJSON_Delete(json);
    }
    cJSON *json = ask_json(rig.port, KEY_A1,
                           "/v1/campaigns/tea/stats?from=2026-01-01T00:00:00Z&"
                           "to=2026-02-11T16:00:00Z&granularity=1h",
                           200);
    assert_int_equal(cJSON_GetArraySize(member(json, "rows")), 1000);
    cJSON_Delete(json);
}

/* --- PostgreSQL --- */

static void
closed_days_are_final_and_come_from_postgres(void **state)
{
    (void)state;
    /* Days of Berlin: the run of the 3rd was forced before the day's end, the 4th's is
     * blocked. */
    run_put(&rig, "Europe/Berlin", "2026-03-03", "posted", "2026-03-03T12:00:00Z");
    daily_put(&rig, "shoes", "2026-03-03", "ad1", "DE", "billable", "none", 77,
              "7");
    run_put(&rig, "Europe/Berlin", "2026-03-04", "blocked", "2026-03-05T06:00:00Z");
    run_put(&rig, "Europe/Berlin", "2026-03-01", "posted", "2026-03-02T06:00:00Z");
    run_put(&rig, "Europe/Berlin", "2026-03-02", "posted", "2026-03-03T06:00:00Z");
    daily_put(&rig, "shoes", "2026-03-02", "ad1", "DE", "billable", "none", 10,
              "2500000");
    daily_put(&rig, "shoes", "2026-03-02", "ad2", "DE", "suspicious", "too_fast", 2,
              "500000");
    daily_put(&rig, "shoes", "2026-03-02", "ad1", "FR", "invalid", "double_click",
              3, "0");
    daily_put(&rig, "shoes", "2026-03-02", "ad1", "FR", "invalid", "honeypot", 1,
              "0");
    daily_put(&rig, "shoes", "2026-03-02", "ad1", "DE", "duplicate", "duplicate", 4,
              "0");
    daily_put(&rig, "shoes", "2026-03-02", "ad1", "DE", "over_budget",
              "over_budget", 5, "0");
    daily_put(&rig, "shoes", "2026-03-02", "ad1", "DE", "quarantined",
              "currency_mismatch", 6, "0");
    daily_put(&rig, "hats", "2026-03-02", "ad1", "DE", "billable", "none", 999,
              "9");
    /* Beyond int64. */
    daily_put(&rig, "shoes", "2026-03-01", "ad1", "DE", "billable", "none", 1,
              "9000000000000000000");
    daily_put(&rig, "shoes", "2026-03-01", "ad1", "FR", "billable", "none", 1,
              "9000000000000000000");

    cJSON *json = ask_json(rig.port, KEY_A1,
                           "/v1/campaigns/shoes/stats?granularity=1d&group_by="
                           "country&from=2026-02-28T12:00:00Z&to=2026-03-04T12:00:"
                           "00Z",
                           200);
    static const char *const states[] = {"unavailable", "final", "final",
                                         "unavailable", "unavailable"};
    text_is(json, "source", "postgres");
    assert_int_equal(cJSON_GetArraySize(member(json, "rows")), 5);
    for (int i = 0; i < 5; i++) {
        text_is(row_at(json, i), "state", states[i]);
        assert_int_equal(has(row_at(json, i), "clicks"), states[i][0] == 'f');
    }
    text_is(row_at(json, 1), "cost", "18000000000000.000000");
    const cJSON *row = row_at(json, 2);
    count_is(row, "clicks", 12);
    count_is(row, "flagged", 2);
    count_is(row, "invalid", 4);
    count_is(row, "duplicate", 4);
    count_is(row, "over_budget", 5);
    count_is(row, "quarantined", 6);
    text_is(row, "cost", "3.000000");
    count_is(member(row, "reasons"), "double_click", 3);
    count_is(member(row, "reasons"), "honeypot", 1);
    assert_false(has(row, "unique_users"));
    const cJSON *groups = member(row, "groups");
    assert_int_equal(cJSON_GetArraySize(groups), 2);
    text_is(cJSON_GetArrayItem(groups, 0), "value", "DE");
    count_is(cJSON_GetArrayItem(groups, 0), "clicks", 12);
    text_is(cJSON_GetArrayItem(groups, 1), "value", "FR");
    count_is(cJSON_GetArrayItem(groups, 1), "invalid", 4);
    cJSON_Delete(json);
}

static void
what_closed_days_do_not_keep_is_unavailable(void **state)
{
    static const char *const queries[] = {"granularity=1d&group_by=ad_group_id",
                                          "granularity=1d&group_by=variant_id",
                                          "granularity=1h"};
    char path[PATH_TEXT];

    (void)state;
    for (size_t i = 0; i < sizeof(queries) / sizeof(queries[0]); i++) {
        (void)snprintf(path, sizeof(path),
                       "/v1/campaigns/shoes/stats?%s&from=2026-03-02T12:00:00Z&to="
                       "2026-03-02T12:00:01Z",
                       queries[i]);
        cJSON *json = ask_json(rig.port, KEY_A1, path, 200);
        text_is(json, "source", "none");
        text_is(row_at(json, 0), "state", "unavailable");
        cJSON_Delete(json);
    }
}

static void
the_rest_of_many_values_is_one_group(void **state)
{
    (void)state;
    sql(&rig, "INSERT INTO campaign_daily_stats SELECT '2026-03-01', 'shoes', "
              "(SELECT max(id) FROM billing_run), 1, 'many-' || n, 'DE', 'mobile', "
              "'p1', 'billable', 'none', 1, n, n FROM generate_series(1, 1500) n");
    cJSON *json =
        ask_json(rig.port, KEY_A1,
                 "/v1/campaigns/shoes/stats?granularity=1d&group_by=ad_id&"
                 "from=2026-03-01T12:00:00Z&to=2026-03-01T12:00:01Z",
                 200);
    const cJSON *groups = member(row_at(json, 0), "groups");
    assert_int_equal(cJSON_GetArraySize(groups), 1001);
    text_is(cJSON_GetArrayItem(groups, 0), "value", "many-1500");
    text_is(cJSON_GetArrayItem(groups, 999), "value", "many-501");
    text_is(cJSON_GetArrayItem(groups, 1000), "value", "__other__");
    count_is(cJSON_GetArrayItem(groups, 1000), "clicks", 500 * 501 / 2 + 2);
    cJSON_Delete(json);
}

static void
yesterday_final_and_today_provisional_stand_side_by_side(void **state)
{
    const struct zone *zone = zone_find(STR("Asia/Kolkata"));
    int32_t today = zone_day(zone, now_ms());
    int64_t start_ms, end_ms, before_ms;
    char day[12], to[CLOCK_TEXT_SIZE];

    (void)state;
    zone_day_bounds(zone, today, &start_ms, &end_ms);
    zone_day_bounds(zone, today - 1, &before_ms, &end_ms);
    run_put(&rig, "Asia/Kolkata", date_format(today - 1, day), "posted",
            clock_format_ms(start_ms, to));
    daily_put(&rig, "sarees", day, "ad1", "IN", "billable", "none", 20, "4000000");
    owner_put(&rig, "sarees", rig.generation, "0");
    row_put(&rig, "sarees", WINDOW_1D, start_ms, "t", "6,1200000,0,0,0,0");
    /* Redis still has yesterday, before budgets: the final row wins. */
    row_put(&rig, "sarees", WINDOW_1D, before_ms, "t", "25,5000000,0,0,0,0");
    row_put(&rig, "sarees", WINDOW_1D, before_ms, "r:honeypot", "3");
    user_put(&rig, "sarees", WINDOW_1D, before_ms, "u1");
    cJSON *json =
        stats_of("sarees", before_ms, start_ms + 1, "granularity=1d", 200);
    text_is(json, "source", "redis,postgres");
    text_is(json, "time_zone", "Asia/Kolkata");
    assert_int_equal(cJSON_GetArraySize(member(json, "rows")), 2);
    text_is(row_at(json, 0), "state", "final");
    count_is(row_at(json, 0), "clicks", 20);
    count_is(row_at(json, 0), "unique_users", 1);
    assert_int_equal(cJSON_GetArraySize(member(row_at(json, 0), "reasons")), 0);
    text_is(row_at(json, 1), "state", "provisional");
    count_is(row_at(json, 1), "clicks", 6);
    cJSON_Delete(json);
}

/* --- a rebuild meanwhile --- */

static atomic_bool race_over;

/* Writes a new generation, points to it, removes the old one: as a rebuild ends. */
static void *
rebuild_again_and_again(void *ctx)
{
    int64_t start_ms = *(int64_t *)ctx;
    struct redis *redis = NULL;
    struct rig mine = rig;

    itest_need(redis_open(&redis, itest_server("CLICKLEDGER_TEST_REDIS"),
                          ITEST_REDIS_TIMEOUT_US, NULL),
               "redis", &(struct why){{0}});
    mine.redis = redis;
    while (!atomic_load(&race_over)) {
        char old[REDISKEY_MAX];
        const struct str drop[] = {
            STR("DEL"), row_key(old, "race", mine.generation, WINDOW_1H, start_ms)};
        mine.generation++;
        row_put(&mine, "race", WINDOW_1H, start_ms, "t", "7,7,0,0,0,0");
        owner_put(&mine, "race", mine.generation, "0");
        redis_do(&mine, drop, 2);
        clock_sleep_us(500);
    }
    redis_close(&redis);
    return NULL;
}

static void
a_row_that_is_rebuilt_meanwhile_never_looks_like_zero(void **state)
{
    int64_t start_ms = hour_ms;
    int provisional = 0;
    pthread_t thread;

    (void)state;
    row_put(&rig, "race", WINDOW_1H, start_ms, "t", "7,7,0,0,0,0");
    owner_put(&rig, "race", rig.generation, "0");
    assert_int_equal(
        pthread_create(&thread, NULL, rebuild_again_and_again, &start_ms), 0);
    for (int i = 0; i < 500; i++) {
        cJSON *json = stats_of("race", start_ms, start_ms + 1, "", 200);
        const cJSON *row = row_at(json, 0);
        if (has(row, "clicks")) {
            count_is(row, "clicks", 7);
            provisional++;
        }
        cJSON_Delete(json);
    }
    atomic_store(&race_over, true);
    (void)pthread_join(thread, NULL);
    assert_true(provisional > 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(redis_rows_say_provisional_and_have_every_number),
        cmocka_unit_test(groups_come_with_most_clicks_first_and_other_last),
        cmocka_unit_test(rows_with_thousands_of_values_are_read_the_same),
        cmocka_unit_test(each_granularity_reads_its_own_rows),
        cmocka_unit_test(
            an_open_window_without_clicks_is_zero_and_one_that_expired_is_unavailable),
        cmocka_unit_test(users_that_are_gone_are_left_out),
        cmocka_unit_test(a_partition_that_is_rebuilt_or_unknown_says_so),
        cmocka_unit_test(live_has_thirty_steps_of_ten_seconds),
        cmocka_unit_test(damaged_rows_do_no_harm),
        cmocka_unit_test(hours_and_days_are_the_campaigns_own),
        cmocka_unit_test(bad_parameters_are_refused_by_name),
        cmocka_unit_test(closed_days_are_final_and_come_from_postgres),
        cmocka_unit_test(what_closed_days_do_not_keep_is_unavailable),
        cmocka_unit_test(the_rest_of_many_values_is_one_group),
        cmocka_unit_test(yesterday_final_and_today_provisional_stand_side_by_side),
        cmocka_unit_test(a_row_that_is_rebuilt_meanwhile_never_looks_like_zero),
    };

    (void)itest_server("CLICKLEDGER_TEST_PG");
    (void)itest_server("CLICKLEDGER_TEST_REDIS");
    return cmocka_run_group_tests(tests, start, stop);
}

/* Rows from Redis: numbers, groups, states. */
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
    (void)state;
    owner_drop(&rig, "tea");
    owner_drop(&rig, "race");
    rig_close(&rig);
    return 0;
}

static int64_t
now_ms(void)
{
    return clock_now_us() / 1000;
}

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

    cJSON *json = stats_of(&rig, "tea", start_ms, start_ms + 1, "", 200);
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
    cJSON *json =
        stats_of(&rig, "tea", start_ms, start_ms + 1, "group_by=country", 200);
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
    json = stats_of(&rig, "tea", start_ms, start_ms + 1, "group_by=ad_id", 200);
    groups = member(row_at(json, 0), "groups");
    text_is(cJSON_GetArrayItem(groups, 0), "value", "ad \"1\"");
    cJSON_Delete(json);
    json =
        stats_of(&rig, "tea", start_ms, start_ms + 1, "group_by=variant_id", 200);
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
            cJSON *json =
                stats_of(&rig, "tea", start_ms, start_ms + 1, queries[i], 200);
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
        cJSON *json = stats_of(&rig, "tea", start_ms, start_ms + 1, more, 200);
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
    cJSON *json = stats_of(&rig, "tea", now - 2 * CLOCK_DAY_MS,
                           now - 2 * CLOCK_DAY_MS + 1, "granularity=1h", 200);
    text_is(row_at(json, 0), "state", "provisional");
    count_is(row_at(json, 0), "clicks", 0);
    cJSON_Delete(json);
    json = stats_of(&rig, "tea", now - 2 * CLOCK_DAY_MS, now - 2 * CLOCK_DAY_MS + 1,
                    "granularity=5m", 200);
    text_is(json, "source", "none");
    text_is(row_at(json, 0), "state", "unavailable");
    assert_false(has(row_at(json, 0), "clicks"));
    cJSON_Delete(json);
    /* Half and half: 5-minute rows from 24 h and some minutes ago until now. */
    json = stats_of(&rig, "tea", now - CLOCK_DAY_MS - CLOCK_HOUR_MS, now,
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
    cJSON *json = stats_of(&rig, "tea", start_ms, start_ms + 1, "", 200);
    assert_false(has(row_at(json, 0), "unique_users"));
    cJSON_Delete(json);
}

static void
a_partition_that_is_rebuilt_or_unknown_says_so(void **state)
{
    int64_t start_ms = hour_ms;

    (void)state;
    owner_put(&rig, "tea", rig.generation, "1");
    cJSON *json = stats_of(&rig, "tea", start_ms, start_ms + 1, "", 200);
    assert_true(cJSON_IsTrue(member(json, "rebuilding")));
    cJSON_Delete(json);
    owner_drop(&rig, "tea");
    json = stats_of(&rig, "tea", start_ms, start_ms + 1, "", 200);
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
            stats_of(&rig, "tea", start_ms, start_ms + 1, "group_by=country", 200));
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
        cJSON *json = stats_of(&rig, "race", start_ms, start_ms + 1, "", 200);
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
        cmocka_unit_test(a_row_that_is_rebuilt_meanwhile_never_looks_like_zero),
    };

    (void)itest_server("CLICKLEDGER_TEST_PG");
    (void)itest_server("CLICKLEDGER_TEST_REDIS");
    return cmocka_run_group_tests(tests, start, stop);
}

/* Closed days, from PostgreSQL. */
#include "tests/dashboard/dashboard_fixture.h"

static struct rig rig;

static int
start(void **state)
{
    (void)state;
    rig_open(&rig);
    return 0;
}

static int
stop(void **state)
{
    (void)state;
    owner_drop(&rig, "sarees");
    rig_close(&rig);
    return 0;
}

static int64_t
now_ms(void)
{
    return clock_now_us() / 1000;
}

static void
days_put(void)
{
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
}

static void
closed_days_are_final_and_come_from_postgres(void **state)
{
    (void)state;
    days_put();
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
        stats_of(&rig, "sarees", before_ms, start_ms + 1, "granularity=1d", 200);
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

static void
a_stored_sum_that_is_none_leaves_the_days_unavailable(void **state)
{
    static const char *const groups[] = {"", "&group_by=country"};

    (void)state;
    daily_put(&rig, "hats", "2026-03-01", "ad1", "DE", "billable", "none", 1,
              "'NaN'");
    for (int i = 0; i < 2; i++) {
        char path[PATH_TEXT];

        (void)snprintf(path, sizeof(path),
                       "/v1/campaigns/hats/stats?granularity=1d%s"
                       "&from=2026-03-01T12:00:00Z&to=2026-03-02T12:00:00Z",
                       groups[i]);
        cJSON *json = ask_json(rig.port, KEY_ACCOUNT, path, 200);
        assert_int_equal(cJSON_GetArraySize(member(json, "rows")), 2);
        for (int k = 0; k < 2; k++) {
            text_is(row_at(json, k), "state", "unavailable");
            assert_false(has(row_at(json, k), "cost"));
        }
        cJSON_Delete(json);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(closed_days_are_final_and_come_from_postgres),
        cmocka_unit_test(what_closed_days_do_not_keep_is_unavailable),
        cmocka_unit_test(the_rest_of_many_values_is_one_group),
        cmocka_unit_test(yesterday_final_and_today_provisional_stand_side_by_side),
        cmocka_unit_test(a_stored_sum_that_is_none_leaves_the_days_unavailable),
    };

    (void)itest_server("CLICKLEDGER_TEST_PG");
    (void)itest_server("CLICKLEDGER_TEST_REDIS");
    return cmocka_run_group_tests(tests, start, stop);
}

/* Where rows begin and end, and parameters that are refused. */
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
    rig_close(&rig);
    return 0;
}

static const struct {
    const char *campaign, *granularity, *from, *to;
    int rows;
    const char *first, *last_end;
    int quarters[3]; /* lengths of the first rows; 0: not looked at */
} bounds[] = {
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

/* Rows follow each other without a gap, and have their length. */
static void
rows_are(const cJSON *json, const char *path, int n, const int quarters[3])
{
    for (int r = 0; r < n; r++) {
        int64_t from_ms, to_ms;
        const cJSON *row = row_at(json, r);
        assert_true(
            rfc3339_parse(str_of(member(row, "start")->valuestring), &from_ms));
        assert_true(rfc3339_parse(str_of(member(row, "end")->valuestring), &to_ms));
        if (r < 3 && quarters[r] > 0 &&
            to_ms - from_ms != quarters[r] * CLOCK_QUARTER_MS)
            fail_msg("%s: row %d: %s", path, r, cJSON_PrintUnformatted(json));
        if (r > 0)
            text_is(row, "start", member(row_at(json, r - 1), "end")->valuestring);
    }
}

static void
hours_and_days_are_the_campaigns_own(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bounds) / sizeof(bounds[0]); i++) {
        char path[PATH_TEXT];
        (void)snprintf(path, sizeof(path),
                       "/v1/campaigns/%s/stats?granularity=%s&from=%s&to=%s",
                       bounds[i].campaign, bounds[i].granularity, bounds[i].from,
                       bounds[i].to);
        cJSON *json = ask_json(rig.port, KEY_A1, path, 200);
        if (cJSON_GetArraySize(member(json, "rows")) != bounds[i].rows)
            fail_msg("%s: %s", path, cJSON_PrintUnformatted(json));
        text_is(row_at(json, 0), "start", bounds[i].first);
        text_is(row_at(json, bounds[i].rows - 1), "end", bounds[i].last_end);
        rows_are(json, path, bounds[i].rows, bounds[i].quarters);
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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hours_and_days_are_the_campaigns_own),
        cmocka_unit_test(bad_parameters_are_refused_by_name),
    };

    (void)itest_server("CLICKLEDGER_TEST_PG");
    (void)itest_server("CLICKLEDGER_TEST_REDIS");
    return cmocka_run_group_tests(tests, start, stop);
}

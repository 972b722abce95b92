/* Servers that are away: refused at once, or silent. */
#include "tests/dashboard/dashboard_fixture.h"

#include "common/log.h"

/* What a silent server may cost one request: libpq's least connect_timeout is 2 s, and
 * libpq counts in whole seconds. */
#define SILENT_US_MAX (4 * CLOCK_SECOND_US)
#define SOON_US_MAX   (3 * CLOCK_SECOND_US / 2)

static struct rig rig;

static int
start(void **state)
{
    (void)state;
    rig_open(&rig);
    run_put(&rig, "Europe/Berlin", "2026-03-02", "posted", "2026-03-03T06:00:00Z");
    daily_put(&rig, "shoes", "2026-03-02", "ad1", "DE", "billable", "none", 10,
              "2500000");
    owner_put(&rig, "shoes", rig.generation, "0");
    return 0;
}

static int
stop(void **state)
{
    (void)state;
    owner_drop(&rig, "shoes");
    rig_close(&rig);
    return 0;
}

/* A port that takes connections and never says a word. */
static int
silent_open(char port[8])
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, n), 0);
    assert_int_equal(listen(fd, 64), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &n), 0);
    (void)snprintf(port, 8, "%u", ntohs(address.sin_port));
    return fd;
}

struct second {
    struct config config;
    struct dashboard *dashboard;
    uint16_t port;
};

/* A dashboard whose servers are elsewhere; the rest is the rig's. */
static void
second_open(struct second *second, const char *redis, const char *postgres)
{
    struct why why = {{0}};
    union {
        const char *in;
        char *out;
    } address = {.in = redis}, conninfo = {.in = postgres};

    second->config = rig.billing.config;
    second->config.redis_address = address.out;
    second->config.postgres_conninfo = conninfo.out;
    second->config.redis_timeout_ms = 200;
    itest_need(dashboard_start(&second->dashboard, &second->config,
                               rig.billing.master_source, &why),
               "dashboard", &why);
    second->port = dashboard_port(second->dashboard);
}

/* The answer must come in time. */
static cJSON *
ask_in(uint16_t port, const char *path, int status, int64_t us_max)
{
    int64_t began_us = clock_mono_us();
    cJSON *json = ask_json(port, KEY_A1, path, status);

    if (clock_mono_us() - began_us > us_max)
        fail_msg("%s took %lld us", path, (long long)(clock_mono_us() - began_us));
    return json;
}

static void
days_are(uint16_t port, const char *source, const char *state, const char *redis,
         const char *postgres, int64_t us_max)
{
    cJSON *json =
        ask_in(port,
               "/v1/campaigns/shoes/stats?granularity=1d&from=2026-03-02T12:00:00Z&"
               "to=2026-03-02T12:00:01Z",
               200, us_max);
    const cJSON *row = cJSON_GetArrayItem(member(json, "rows"), 0);

    text_is(json, "source", source);
    text_is(json, "redis", redis);
    text_is(json, "postgres", postgres);
    text_is(row, "state", state);
    assert_int_equal(has(row, "clicks"), strcmp(state, "unavailable") != 0);
    cJSON_Delete(json);
}

static void
hours_are(uint16_t port, const char *source, const char *state, int64_t us_max)
{
    cJSON *json = ask_in(port, "/v1/campaigns/shoes/stats", 200, us_max);
    const cJSON *rows = member(json, "rows");

    text_is(json, "source", source);
    for (int i = 0; i < cJSON_GetArraySize(rows); i++) {
        const cJSON *row = cJSON_GetArrayItem(rows, i);
        text_is(row, "state", state);
        assert_int_equal(has(row, "clicks"), strcmp(state, "unavailable") != 0);
    }
    cJSON_Delete(json);
}

static void
both_away(struct second *second, int64_t us_max)
{
    struct client_answer answer;

    hours_are(second->port, "none", "unavailable", us_max);
    days_are(second->port, "none", "unavailable", "away", "away", us_max);
    cJSON_Delete(
        ask_in(second->port, "/v1/campaigns/shoes/live", 503, SOON_US_MAX));
    cJSON_Delete(ask_in(second->port, "/readyz", 503, 2 * us_max));
    cJSON_Delete(ask_in(second->port, "/livez", 200, SOON_US_MAX));
    answer = ask_as(second->port, NULL, "GET", "/readyz");
    assert_non_null(client_header(&answer, "Retry-After"));
    client_free(&answer);
    dashboard_stop(&second->dashboard);
}

static void
with_both_refused_all_still_answers_at_once(void **state)
{
    struct second second = {0};

    (void)state;
    second_open(&second, "unix:/nonexistent/redis.sock",
                "host=/nonexistent dbname=x");
    both_away(&second, SOON_US_MAX);
}

static void
with_both_silent_one_request_waits_and_the_next_do_not(void **state)
{
    char redis_port[8], pg_port[8], redis[64], postgres[128];
    int redis_fd = silent_open(redis_port), pg_fd = silent_open(pg_port);
    struct second second = {0};

    (void)state;
    (void)snprintf(redis, sizeof(redis), "127.0.0.1:%s", redis_port);
    (void)snprintf(postgres, sizeof(postgres),
                   "host=127.0.0.1 port=%s dbname=x user=x", pg_port);
    second_open(&second, redis, postgres);
    hours_are(second.port, "none", "unavailable", SOON_US_MAX);
    days_are(second.port, "none", "unavailable", "away", "away", SILENT_US_MAX);
    hours_are(second.port, "none", "unavailable", SOON_US_MAX);
    days_are(second.port, "none", "unavailable", "away", "away", SOON_US_MAX);
    dashboard_stop(&second.dashboard);
    /* The same, by a URL. */
    (void)snprintf(postgres, sizeof(postgres), "postgresql://x@127.0.0.1:%s/x",
                   pg_port);
    second_open(&second, redis, postgres);
    both_away(&second, SILENT_US_MAX);
    (void)close(redis_fd);
    (void)close(pg_fd);
}

static void
without_redis_closed_days_are_there(void **state)
{
    struct second second = {0};

    (void)state;
    second_open(&second, "unix:/nonexistent/redis.sock", rig.conninfo);
    hours_are(second.port, "none", "unavailable", SOON_US_MAX);
    days_are(second.port, "postgres", "final", "away", "ok", SOON_US_MAX);
    cJSON *json = ask_in(second.port, "/readyz", 200, SOON_US_MAX);
    text_is(json, "redis", "away");
    text_is(json, "postgres", "ok");
    cJSON_Delete(json);
    dashboard_stop(&second.dashboard);
}

static void
without_postgres_live_hours_are_there(void **state)
{
    struct second second = {0};

    (void)state;
    second_open(&second, rig.billing.config.redis_address,
                "host=/nonexistent dbname=x");
    hours_are(second.port, "redis", "provisional", SOON_US_MAX);
    days_are(second.port, "none", "unavailable", "ok", "away", SOON_US_MAX);
    cJSON_Delete(ask_in(second.port, "/v1/campaigns/shoes/live", 200, SOON_US_MAX));
    cJSON *json = ask_in(second.port, "/readyz", 200, SOON_US_MAX);
    text_is(json, "redis", "ok");
    text_is(json, "postgres", "away");
    cJSON_Delete(json);
    dashboard_stop(&second.dashboard);
}

/* An error that Redis answers is no zero either. */
static void
rows_of_a_wrong_kind_are_unavailable(void **state)
{
    int64_t start_ms = window_start(WINDOW_1H, zone_find(STR("Europe/Berlin")),
                                    clock_now_us() / 1000) -
                       3 * CLOCK_HOUR_MS;
    char key[REDISKEY_MAX];
    struct str name = row_key(key, "shoes", rig.generation, WINDOW_1H, start_ms);

    (void)state;
    redis_do(&rig, (struct str[]){STR("SET"), name, STR("x")}, 3);
    hours_are(rig.port, "none", "unavailable", SOON_US_MAX);
    redis_do(&rig, (struct str[]){STR("DEL"), name}, 2);
    hours_are(rig.port, "redis", "provisional", SOON_US_MAX);
}

static void
bad_addresses_are_refused_at_start(void **state)
{
    struct config config = rig.billing.config;
    struct dashboard *dashboard = NULL;
    struct why why = {{0}};
    char bad[] = "no=such=thing", long_info[PG_CONNINFO_MAX];

    (void)state;
    config.postgres_conninfo = bad;
    assert_int_equal(
        dashboard_start(&dashboard, &config, rig.billing.master_source, &why),
        ERR_INVALID);
    assert_null(dashboard);
    (void)snprintf(long_info, sizeof(long_info), "dbname=%01000d", 1);
    config.postgres_conninfo = long_info;
    assert_int_equal(
        dashboard_start(&dashboard, &config, rig.billing.master_source, &why),
        ERR_INVALID);
    assert_non_null(strstr(why.text, "postgres.conninfo"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_both_refused_all_still_answers_at_once),
        cmocka_unit_test(with_both_silent_one_request_waits_and_the_next_do_not),
        cmocka_unit_test(without_redis_closed_days_are_there),
        cmocka_unit_test(without_postgres_live_hours_are_there),
        cmocka_unit_test(rows_of_a_wrong_kind_are_unavailable),
        cmocka_unit_test(bad_addresses_are_refused_at_start),
    };

    (void)itest_server("CLICKLEDGER_TEST_PG");
    (void)itest_server("CLICKLEDGER_TEST_REDIS");
    return cmocka_run_group_tests(tests, start, stop);
}

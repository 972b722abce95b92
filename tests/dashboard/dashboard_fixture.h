/* tests/dashboard/dashboard_fixture.h - a dashboard with real servers, keys and campaigns
 * made in memory, and ways to write what aggregate and billing would have written.
 *
 * Rows in Redis are of a random generation, so nobody's data is touched but the owner
 * records of our campaigns' partitions.
 */
#ifndef TESTS_DASHBOARD_FIXTURE_H
#define TESTS_DASHBOARD_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <cjson/cJSON.h>

#include "dashboard/dashboard.h"
#include "schema/migrate.h"
#include "schema/rediskeys.h"
#include "schema/text.h"
#include "tests/billing/billing_fixture.h"
#include "tests/http_client.h"
#include "tests/itest.h"

#define KEY_OF(hex16) "ck_" hex16 hex16 hex16 hex16

/* Of advertiser a1; of all of account 1; of account 2; and three that are good for nothing. */
#define KEY_A1      KEY_OF("00000000000000a1")
#define KEY_ACCOUNT KEY_OF("00000000000000ac")
#define KEY_B       KEY_OF("00000000000000bb")
#define KEY_INGEST  KEY_OF("00000000000000ff")
#define KEY_REVOKED KEY_OF("00000000000000dd")
#define KEY_UNKNOWN KEY_OF("00000000000000ee")

enum { CAMPAIGNS_N = 8, KEYS_N = 5, DASHBOARD_PARTITIONS = 16, PATH_TEXT = 512 };

struct rig {
    struct fixture billing; /* the folder, archive/ and judge/ in it, config */
    struct dashboard *dashboard;
    struct redis *redis;
    struct pg *pg;
    char conninfo[ITEST_CONNINFO_MAX];
    uint32_t generation;
    uint16_t port;
};

static inline struct master_source *
rig_master(void)
{
    static const struct master_rate rate = {0, 250000};
    static const struct master_status active = {0, true};
    static const struct master_budget none = {0, MASTER_NO_BUDGET};
    static const struct {
        const char *id, *advertiser, *zone, *currency;
        uint32_t account;
    } rows[CAMPAIGNS_N] = {
        {"shoes", "a1", "Europe/Berlin", "EUR", 1},
        {"hats", "a2", "Europe/Berlin", "EUR", 1},
        {"sarees", "a1", "Asia/Kolkata", "INR", 1},
        {"bagels", "b1", "America/New_York", "USD", 2},
        {"lord", "a1", "Australia/Lord_Howe", "AUD", 1},
        {"spring/2026", "a1", "UTC", "JPY", 1},
        {"tea", "a1", "UTC", "BHD", 1},
        {"race", "a1", "UTC", "EUR", 1},
    };
    static const struct {
        const char *text, *advertiser;
        uint32_t account, scopes;
        bool revoked;
    } keys[KEYS_N] = {
        {KEY_A1, "a1", 1, MASTER_READ, false},
        {KEY_ACCOUNT, "", 1, MASTER_READ | MASTER_INGEST, false},
        {KEY_B, "", 2, MASTER_READ, false},
        {KEY_INGEST, "", 1, MASTER_INGEST | MASTER_BILLING | MASTER_ADMIN, false},
        {KEY_REVOKED, "", 1, MASTER_READ, true},
    };
    struct master_campaign c[CAMPAIGNS_N] = {0};
    struct master_key k[KEYS_N] = {0};

    for (int i = 0; i < CAMPAIGNS_N; i++)
        c[i] = (struct master_campaign){.id = str_of(rows[i].id),
                                        .account = rows[i].account,
                                        .advertiser = str_of(rows[i].advertiser),
                                        .currency = str_of(rows[i].currency),
                                        .zone = zone_find(str_of(rows[i].zone)),
                                        .rates = &rate,
                                        .budgets = &none,
                                        .statuses = &active,
                                        .rates_n = 1,
                                        .budgets_n = 1,
                                        .statuses_n = 1};
    for (int i = 0; i < KEYS_N; i++) {
        k[i] = (struct master_key){.id = (uint32_t)i + 1,
                                   .account = keys[i].account,
                                   .scopes = keys[i].scopes,
                                   .advertiser = str_of(keys[i].advertiser),
                                   .revoked = keys[i].revoked};
        hash_sha256_of(keys[i].text, strlen(keys[i].text), k[i].sha256);
    }
    return master_fixed(c, CAMPAIGNS_N, k, KEYS_N);
}

/* --- HTTP --- */

static inline struct client_answer
ask_as(uint16_t port, const char *key, const char *method, const char *path)
{
    char header[160] = "";

    if (key != NULL)
        (void)snprintf(header, sizeof(header), "Authorization: Bearer %s\r\n", key);
    return client_ask(port, method, path, header, NULL, 0);
}

/* Every answer but metrics is one JSON value, to its last byte. */
static inline cJSON *
json_of(const struct client_answer *answer)
{
    const char *end = NULL;
    cJSON *json =
        cJSON_ParseWithLengthOpts(answer->body, answer->body_n + 1, &end, true);

    if (json == NULL)
        fail_msg("no JSON: %s", answer->text);
    return json;
}

static inline cJSON *
ask_json(uint16_t port, const char *key, const char *path, int status)
{
    struct client_answer answer = ask_as(port, key, "GET", path);

    if (answer.status != status)
        fail_msg("%s: %d, not %d: %s", path, answer.status, status, answer.text);
    cJSON *json = json_of(&answer);
    client_free(&answer);
    return json;
}

static inline const cJSON *
member(const cJSON *json, const char *name)
{
    const cJSON *found = cJSON_GetObjectItemCaseSensitive(json, name);

    if (found == NULL)
        fail_msg("%s is missing in %s", name, cJSON_PrintUnformatted(json));
    return found;
}

static inline bool
has(const cJSON *json, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(json, name) != NULL;
}

static inline void
text_is(const cJSON *json, const char *name, const char *want)
{
    assert_string_equal(cJSON_GetStringValue(member(json, name)), want);
}

static inline int64_t
number_at(const cJSON *json, const char *name)
{
    const cJSON *found = member(json, name);

    assert_true(cJSON_IsNumber(found));
    return (int64_t)found->valuedouble;
}

/* --- answers of stats --- */

/* from and to as the query has them. */
static inline cJSON *
stats_of(const struct rig *rig, const char *campaign, int64_t from_ms,
         int64_t to_ms, const char *more, int status)
{
    char path[PATH_TEXT], from[CLOCK_TEXT_SIZE], to[CLOCK_TEXT_SIZE];

    (void)snprintf(path, sizeof(path), "/v1/campaigns/%s/stats?from=%s&to=%s&%s",
                   campaign, clock_format_ms(from_ms, from),
                   clock_format_ms(to_ms, to), more);
    return ask_json(rig->port, KEY_ACCOUNT, path, status);
}

static inline const cJSON *
row_at(const cJSON *json, int i)
{
    const cJSON *row = cJSON_GetArrayItem(member(json, "rows"), i);

    assert_non_null(row);
    return row;
}

static inline void
count_is(const cJSON *json, const char *name, int64_t want)
{
    if (number_at(json, name) != want)
        fail_msg("%s is not %lld: %s", name, (long long)want,
                 cJSON_PrintUnformatted(json));
}

/* --- Redis --- */

static inline void
redis_do(struct rig *rig, const struct str *words, size_t n)
{
    struct why why = {{0}};

    itest_need(redis_command(rig->redis, words, n, NULL, &why), words[0].p, &why);
}

static inline uint32_t
partition_of_campaign(const char *campaign)
{
    return hash_partition(campaign, strlen(campaign), DASHBOARD_PARTITIONS);
}

static inline void
owner_put(struct rig *rig, const char *campaign, uint32_t generation,
          const char *dirty)
{
    char key[REDISKEY_MAX], number[16], updated[24];

    (void)snprintf(number, sizeof(number), "%u", generation);
    (void)snprintf(updated, sizeof(updated), "%lld", (long long)clock_now_us());
    const struct str words[] = {
        STR("HSET"),
        {key, rediskey_owner(key, partition_of_campaign(campaign))},
        STR("epoch"),
        STR("3"),
        STR("offset"),
        STR("10"),
        STR("dirty"),
        str_of(dirty),
        STR("log"),
        STR("5"),
        STR("updated_us"),
        str_of(updated),
        STR("generation"),
        str_of(number)};
    redis_do(rig, words, sizeof(words) / sizeof(words[0]));
}

static inline void
owner_drop(struct rig *rig, const char *campaign)
{
    char key[REDISKEY_MAX];
    const struct str words[] = {
        STR("DEL"), {key, rediskey_owner(key, partition_of_campaign(campaign))}};

    redis_do(rig, words, 2);
}

static inline struct str
row_key(char key[REDISKEY_MAX], const char *campaign, uint32_t generation,
        enum window window, int64_t start_ms)
{
    uint32_t p = partition_of_campaign(campaign);

    return (struct str){
        key, rediskey_row(key, p, generation, window, str_of(campaign), start_ms)};
}

static inline void
row_put(struct rig *rig, const char *campaign, enum window window, int64_t start_ms,
        const char *field, const char *value)
{
    char key[REDISKEY_MAX];
    const struct str words[] = {
        STR("HSET"), row_key(key, campaign, rig->generation, window, start_ms),
        str_of(field), str_of(value)};

    redis_do(rig, words, 4);
}

static inline void
user_put(struct rig *rig, const char *campaign, enum window window,
         int64_t start_ms, const char *user)
{
    char key[REDISKEY_MAX];
    const struct str words[] = {
        STR("PFADD"),
        {key, rediskey_users(key, partition_of_campaign(campaign), rig->generation,
                             window, str_of(campaign), start_ms)},
        str_of(user)};

    redis_do(rig, words, 3);
}

/* --- PostgreSQL --- */

static inline void
sql(struct rig *rig, const char *text)
{
    struct why why = {{0}};

    itest_need(pg_exec(rig->pg, text, NULL, 0, NULL, &why), text, &why);
}

/* A run of a day whose receipt was summed up to received_to. */
static inline void
run_put(struct rig *rig, const char *zone, const char *day, const char *status,
        const char *received_to)
{
    char text[1024];

    (void)snprintf(
        text, sizeof(text),
        "INSERT INTO billing_run (time_zone, day, kind, sequence, input_hash, "
        "received_from, received_to, status, code_version) VALUES ('%s', '%s', "
        "'regular', (SELECT count(*) FROM billing_run), "
        "sha256(now()::text::bytea), "
        "'1970-01-01', '%s', '%s', 'test');"
        "SELECT campaign_daily_stats_partition('%s')",
        zone, day, received_to, status, day);
    sql(rig, text);
}

static inline void
daily_put(struct rig *rig, const char *campaign, const char *day, const char *ad,
          const char *country, const char *verdict, const char *reason, int clicks,
          const char *micros)
{
    char text[1024];

    (void)snprintf(
        text, sizeof(text),
        "INSERT INTO campaign_daily_stats VALUES ('%s', '%s', (SELECT "
        "max(id) FROM billing_run), 1, '%s', '%s', 'mobile', 'p1', '%s', "
        "'%s', 0, %d, %s)",
        day, campaign, ad, country, verdict, reason, clicks, micros);
    sql(rig, text);
}

/* --- start and stop --- */

#define TURN        STR("clickledger-itest-dashboard")
#define TURN_US_MAX (200 * CLOCK_SECOND_US)

/* Owner records are the same for all programs that share a Redis: one after another. */
static inline void
turn_take(struct rig *rig)
{
    const struct str words[] = {STR("SET"), TURN,      STR("1"),
                                STR("NX"),  STR("PX"), STR("60000")};
    int64_t until_us = clock_mono_us() + TURN_US_MAX;

    for (bool mine = false; !mine; clock_sleep_us(20000)) {
        struct redis_reply *reply = NULL;
        struct why why = {{0}};
        itest_need(redis_command(rig->redis, words, 6, &reply, &why), "SET", &why);
        mine = reply->type != REDIS_NIL;
        redis_reply_free(&reply);
        if (clock_mono_us() > until_us)
            fail_msg("another dashboard test does not end");
    }
}

static inline void
rig_open(struct rig *rig)
{
    struct why why = {{0}};
    const char *redis = itest_server("CLICKLEDGER_TEST_REDIS");

    itest_database_make(rig->conninfo);
    itest_need(pg_open(&rig->pg, rig->conninfo, &why), "postgres", &why);
    itest_need(migrate(rig->pg, NULL, &why), "migrate", &why);
    itest_need(redis_open(&rig->redis, redis, ITEST_REDIS_TIMEOUT_US, &why),
               "redis", &why);
    turn_take(rig);
    fixture_open(&rig->billing);
    master_drop(rig->billing.master_source, rig->billing.master);
    master_close(&rig->billing.master_source);
    rig->billing.master_source = rig_master();
    rig->billing.master = master_take(rig->billing.master_source);
    rig->generation = (uint32_t)(hash_random_u64() >> 33) | 1;

    struct config *config = &rig->billing.config;
    free(config->data_dir);
    free(config->redis_address);
    free(config->postgres_conninfo);
    config->data_dir = strdup(rig->billing.dir);
    config->redis_address = strdup(redis);
    config->postgres_conninfo = strdup(rig->conninfo);
    config->dashboard_port = 0;
    config->clicklog_partitions = DASHBOARD_PARTITIONS;
    itest_need(
        dashboard_start(&rig->dashboard, config, rig->billing.master_source, &why),
        "dashboard", &why);
    rig->port = dashboard_port(rig->dashboard);
}

static inline void
rig_close(struct rig *rig)
{
    dashboard_stop(&rig->dashboard);
    redis_do(rig, (struct str[]){STR("DEL"), TURN}, 2);
    redis_close(&rig->redis);
    pg_close(&rig->pg);
    fixture_close(&rig->billing);
    itest_database_drop(rig->conninfo);
}

#endif

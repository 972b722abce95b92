/* tests/aggregate/rig.h - a click log and a Redis of our own that can be killed. */
#ifndef TESTS_AGGREGATE_RIG_H
#define TESTS_AGGREGATE_RIG_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "aggregate/aggregate.h"
#include "aggregate/live.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/hash.h"
#include "common/redis.h"
#include "fraud/verdict.h"
#include "schema/click.h"
#include "schema/rediskeys.h"
#include "schema/zone.h"

enum { PARTITIONS = 4, CAMPAIGNS = 6, CELLS_MAX = 200000, WAIT_S = 30 };

struct rig {
    char dir[128], address[160], data[160], archive[200];
    pid_t server;
    struct clicklog *log;
    struct verdictlog *verdicts;
    struct master_source *master;
    struct ruleset_source *rules;
    struct config config;
    struct aggregate *aggregate;
    struct redis *redis; /* the test's own connection */
    uint64_t made;
    bool known_only; /* no clicks of an unknown campaign */
    /* With Kafka log is the spool; of its offsets and of the topic's: */
    bool kafka;
    uint64_t *at[PARTITIONS]; /* where the topic has a click of the spool */
    uint64_t sent[PARTITIONS], end[PARTITIONS]; /* of the spool; the topic's end */
    struct str hot_ip; /* whose address all clicks have, unless empty */
};

static inline void
must(enum err err, const struct why *why)
{
    if (err != ERR_OK)
        fail_msg("%s: %s", err_name(err), why->text);
}

/* --- Redis --- */

static inline void
server_start(struct rig *rig)
{
    char socket[160];
    struct why why = {""};
    const struct str ping[] = {STR("PING")};

    (void)snprintf(socket, sizeof(socket), "%s/redis.sock", rig->dir);
    (void)unlink(socket);
    rig->server = fork();
    assert_true(rig->server >= 0);
    if (rig->server == 0) {
        (void)freopen("/dev/null", "w", stdout);
        (void)execlp("redis-server", "redis-server", "--port", "0", "--unixsocket",
                     socket, "--dir", rig->dir, "--save", "", "--appendonly", "no",
                     (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 500; i++) {
        if (redis_command(rig->redis, ping, 1, NULL, &why) == ERR_OK)
            return;
        if (waitpid(rig->server, NULL, WNOHANG) == rig->server) {
            printf("skipped: no redis-server\n");
            exit(77);
        }
        clock_sleep_us(10000);
    }
    fail_msg("redis-server does not answer: %s", why.text);
}

static inline void
server_kill(struct rig *rig)
{
    (void)kill(rig->server, SIGKILL);
    (void)waitpid(rig->server, NULL, 0);
}

static inline struct redis_reply *
ask(struct rig *rig, const char *a, const char *b, const char *c, const char *d)
{
    const struct str words[] = {str_of(a), str_of(b), str_of(c), str_of(d)};
    size_t n = b == NULL ? 1 : c == NULL ? 2 : d == NULL ? 3 : 4;
    struct redis_reply *reply = NULL;
    struct why why = {""};

    must(redis_command(rig->redis, words, n, &reply, &why), &why);
    return reply;
}

static inline void
tell(struct rig *rig, const char *a, const char *b, const char *c, const char *d)
{
    struct redis_reply *reply = ask(rig, a, b, c, d);

    redis_reply_free(&reply);
}

static inline void
owner_field(struct rig *rig, uint32_t partition, const char *field, char out[128])
{
    char key[REDISKEY_MAX + 1];
    struct redis_reply *reply;

    key[rediskey_owner(key, partition)] = '\0';
    reply = ask(rig, "HGET", key, field, NULL);
    assert_true(reply->text.n < 128);
    memcpy(out, reply->text.p == NULL ? "" : reply->text.p, reply->text.n);
    out[reply->text.n] = '\0';
    redis_reply_free(&reply);
}

static inline void
copy_file(const char *from, const char *to)
{
    struct buf bytes = BUF_MAX(1 << 28);
    struct why why = {""};

    must(file_read(from, &bytes, &why), &why);
    must(file_write(to, bytes.p, bytes.n, &why), &why);
    buf_free(&bytes);
}

/* --- the rig --- */

static inline void
master_make(struct rig *rig)
{
    static const struct master_rate rate[] = {{0, 250000}};
    static const struct master_budget budget[] = {{0, MASTER_NO_BUDGET}};
    static const struct master_status status[] = {{0, true}};
    static const char *const ids[CAMPAIGNS] = {"camp-0", "camp-1", "camp-2",
                                               "camp-3", "camp-4", "camp-5"};
    struct master_campaign campaigns[CAMPAIGNS];

    for (int i = 0; i < CAMPAIGNS; i++)
        campaigns[i] = (struct master_campaign){
            .id = str_of(ids[i]),
            .account = 1,
            .advertiser = STR("adv"),
            .currency = STR("EUR"),
            .zone =
                zone_find(i % 2 == 0 ? STR("Europe/Berlin") : STR("Asia/Kolkata")),
            .rates = rate,
            .budgets = budget,
            .statuses = status,
            .rates_n = 1,
            .budgets_n = 1,
            .statuses_n = 1,
        };
    rig->master = master_fixed(campaigns, CAMPAIGNS, NULL, 0);
    assert_non_null(rig->master);
}

static inline void
rig_aggregate(struct rig *rig, struct aggregate **out)
{
    const struct aggregate_deps deps = {rig->log, rig->verdicts, rig->master,
                                        rig->rules, rig->archive};
    struct why why = {""};

    must(aggregate_start(out, &rig->config, &deps, &why), &why);
}

/* All but the aggregate. */
static inline void
rig_prepare(struct rig *rig)
{
    struct clicklog_config cfg = {.partitions = PARTITIONS,
                                  .map_bytes = 1 << 30,
                                  .bytes_max = 1 << 29,
                                  .no_sync = true};
    char path[256], *argv[] = {NULL};
    struct why why = {""};
    int argc = 0;

    *rig = (struct rig){0};
    (void)snprintf(rig->dir, sizeof(rig->dir), "/tmp/aggtest.XXXXXX");
    assert_non_null(mkdtemp(rig->dir));
    (void)snprintf(rig->data, sizeof(rig->data), "%s/data", rig->dir);
    (void)snprintf(rig->archive, sizeof(rig->archive), "%s/archive", rig->data);
    (void)snprintf(rig->address, sizeof(rig->address), "unix:%s/redis.sock",
                   rig->dir);
    must(redis_open(&rig->redis, rig->address, 5000000, &why), &why);
    server_start(rig);
    must(config_load(&rig->config, NULL, &argc, argv, &why), &why);
    free(rig->config.data_dir);
    free(rig->config.redis_address);
    rig->config.data_dir = strdup(rig->data);
    rig->config.redis_address = strdup(rig->address);
    rig->config.aggregate_flush_ms = 20;
    rig->config.fraud_live_dedup_ids_max = 1 << 16;
    rig->config.fraud_live_users_max = 1 << 16;
    rig->config.fraud_live_addresses_max = 1 << 16;
    must(file_mkdirs(rig->data, &why), &why);
    (void)snprintf(path, sizeof(path), "%s/log", rig->data);
    cfg.dir = path;
    must(file_mkdirs(path, &why), &why);
    must(clicklog_open(&rig->log, &cfg, &why), &why);
    (void)snprintf(path, sizeof(path), "%s/verdicts", rig->data);
    must(file_mkdirs(path, &why), &why);
    must(verdictlog_open(&rig->verdicts, path, 1 << 30, false, &why), &why);
    must(ruleset_open(&rig->rules, NULL, rig->data, &why), &why);
    master_make(rig);
}

static inline void
rig_open(struct rig *rig)
{
    rig_prepare(rig);
    rig_aggregate(rig, &rig->aggregate);
}

static inline void
rig_close(struct rig *rig)
{
    aggregate_stop(&rig->aggregate);
    server_kill(rig);
    redis_close(&rig->redis);
    clicklog_close(&rig->log);
    verdictlog_close(&rig->verdicts);
    master_close(&rig->master);
    ruleset_close(&rig->rules);
    config_free(&rig->config);
    pid_t remover = fork();
    if (remover == 0) {
        (void)execlp("rm", "rm", "-rf", rig->dir, (char *)NULL);
        _exit(127);
    }
    (void)waitpid(remover, NULL, 0);
}

/* --- clicks --- */

static inline struct str
text_of(char out[24], const char *prefix, int range)
{
    int n = snprintf(out, 24, "%s%d", prefix, rand() % range);

    return (struct str){out, (uint32_t)n};
}

struct made {
    uint8_t body[CLICK_BODY_MAX];
    char campaign[24];
};

/* click's texts stay where they are. */
static inline void
click_entry(const struct click *click, struct made *made,
            struct clicklog_entry *entry)
{
    *entry = (struct clicklog_entry){
        .account = 1,
        .campaign = click->campaign_id,
        .event_ms = click->timestamp_ms,
        .partition =
            hash_partition(click->campaign_id.p, click->campaign_id.n, PARTITIONS),
        .version = CLICK_VERSION,
        .body = {(const char *)made->body,
                 (uint32_t)click_encode_body(click, made->body)},
    };
}

static inline void
click_make(struct rig *rig, struct made *made, struct clicklog_entry *entry)
{
    static const char *const agents[] = {
        "Mozilla/5.0 (X11; Linux x86_64) Gecko/1 Firefox/1",
        "Mozilla/5.0 (X11; Linux x86_64) Gecko/1 Firefox/1",
        "Mozilla/5.0 (compatible; Googlebot/2.1)", "curl/8"};
    char ad[24], publisher[24], user[24], group[24];
    uint8_t ip[4] = {10, (uint8_t)rand(), (uint8_t)rand(), (uint8_t)rand()};
    int64_t now_ms = clock_now_us() / 1000;
    struct click click = {.account = 1, .price_micros = 1};
    uint64_t id = rand() % 20 == 0 ? (uint64_t)(rand() % 1000) : ++rig->made + 1000;

    click.campaign_id =
        text_of(made->campaign, "camp-", CAMPAIGNS + !rig->known_only);
    click.timestamp_ms =
        now_ms - (rand() % 10 == 0 ? 2 * CLOCK_DAY_MS : (int64_t)(rand() % 600000));
    memcpy(click.event_id, &id, sizeof(id));
    click.event_id[15] = 1;
    click.ad_id = text_of(ad, "ad-", 20);
    click.publisher_id = text_of(publisher, "pub-", 30);
    click.user_id = text_of(user, "user-", 3000);
    if (rand() % 2 == 0)
        click.ad_group_id = text_of(group, "group-", 5);
    click.ip = rig->hot_ip.n > 0 ? rig->hot_ip : (struct str){(const char *)ip, 4};
    click.remote = click.ip;
    click.user_agent = str_of(agents[rand() % 4]);
    click.country = rand() % 2 == 0 ? STR("DE") : STR("IN");
    click.device = (uint8_t)(rand() % CLICK_DEVICES_N);
    click_entry(&click, made, entry);
}

static inline void
rig_post(struct rig *rig, size_t n)
{
    struct made *made = calloc(n, sizeof(*made));
    struct clicklog_entry *entries = calloc(n, sizeof(*entries));
    struct why why = {""};

    assert_true(made != NULL && entries != NULL);
    for (size_t i = 0; i < n; i++)
        click_make(rig, &made[i], &entries[i]);
    must(clicklog_append(rig->log, entries, n, clock_now_us(), NULL, &why), &why);
    free(made);
    free(entries);
}

static inline uint64_t
log_next(struct rig *rig, uint32_t partition)
{
    uint64_t first, next;
    struct why why = {""};

    if (rig->kafka)
        return rig->end[partition];
    must(clicklog_range(rig->log, partition, &first, &next, &why), &why);
    return next;
}

/* Until all that was posted is in Redis, of a generation that readers use. */
static inline void
rig_settle(struct rig *rig)
{
    for (int i = 0; i < WAIT_S * 100; i++) {
        uint32_t done = 0;

        for (uint32_t p = 0; p < PARTITIONS; p++) {
            char key[REDISKEY_MAX + 1];
            const struct str words[] = {STR("HMGET"), str_of(key), STR("offset"),
                                        STR("building"), STR("dirty")};
            struct redis_reply *reply = NULL;
            struct why why;
            char next[32];

            key[rediskey_owner(key, p)] = '\0';
            (void)snprintf(next, sizeof(next), "%llu",
                           (unsigned long long)log_next(rig, p));
            struct str again[5];
            memcpy(again, words, sizeof(again));
            again[1] = str_of(key);
            if (redis_command(rig->redis, again, 5, &reply, &why) == ERR_OK)
                done += str_equal(reply->items[0]->text, str_of(next)) &&
                        reply->items[1]->text.n == 0 &&
                        str_equal(reply->items[2]->text, STR("0"));
            redis_reply_free(&reply);
        }
        if (done == PARTITIONS)
            return;
        clock_sleep_us(10000);
    }
    fail_msg("after %d s not everything is in Redis", WAIT_S);
}

static inline bool
rig_told(struct rig *rig, const char *what)
{
    char path[256];
    struct buf text = BUF_MAX(1 << 24);
    struct why why = {""};
    bool found;

    (void)snprintf(path, sizeof(path), "%s/aggregate/events.log", rig->data);
    must(file_read(path, &text, &why), &why);
    buf_add(&text, "", 1);
    found = strstr((const char *)text.p, what) != NULL;
    buf_free(&text);
    return found;
}

#endif

/* tests/bench/bench_fraud.c - what the live rules cost a click.
 *
 *   bench_fraud [CLICKS]      default 4 million; ids but for 1 % distinct, 1 million users and
 * addresses, 10 000 clicks a second of receipt
 *
 * Prints one line a measurement: name, ns of CPU a click. Tables have the sizes that the
 * configuration has by default (50 million ids, 20 million users, 4 million addresses).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/hash.h"
#include "fraud/fraud.h"

enum {
    BATCH = 512,
    AHEAD = 16,
    DISTINCT = 1000000,
    AGENTS = 2000,
    CAMPAIGNS = 1000
};

#define START_US INT64_C(1772359200000000)

struct world {
    struct master_source *masters;
    struct ruleset_source *rules;
    const struct master *master;
    const struct ruleset *set;
    struct fraud_addresses *addresses;
    struct fraud_live *live;
    struct fraud_window *window;
    char campaigns[CAMPAIGNS][16], users[DISTINCT][24], agents[AGENTS][160];
    uint8_t ips[DISTINCT][4];
    struct {
        char user[24], agent[160];
        uint8_t ip[4];
    } copies[BATCH]; /* a click's texts lie together, as in the log */
};

static void
must(enum err err, const struct why *why)
{
    if (err == ERR_OK)
        return;
    (void)fprintf(stderr, "bench_fraud: %s\n", why->text);
    exit(1);
}

static uint64_t
mix(uint64_t n)
{
    return hash64(&n, sizeof(n), 1);
}

static int64_t
cpu_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void
masters_make(struct world *world)
{
    static const struct master_rate rate = {0, 250000};
    static const struct master_status active = {0, true};
    static struct master_campaign campaigns[CAMPAIGNS];

    for (int i = 0; i < CAMPAIGNS; i++) {
        (void)snprintf(world->campaigns[i], sizeof(world->campaigns[i]),
                       "campaign-%04d", i);
        campaigns[i] = (struct master_campaign){.id = str_of(world->campaigns[i]),
                                                .account = 1,
                                                .advertiser = STR("a"),
                                                .currency = STR("EUR"),
                                                .rates = &rate,
                                                .rates_n = 1,
                                                .statuses = &active,
                                                .statuses_n = 1};
    }
    world->masters = master_fixed(campaigns, CAMPAIGNS, NULL, 0);
    if (world->masters == NULL)
        exit(1);
    world->master = master_take(world->masters);
}

static void
world_make(struct world *world)
{
    struct why why;

    masters_make(world);
    for (int i = 0; i < AGENTS; i++)
        (void)snprintf(
            world->agents[i], sizeof(world->agents[i]),
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, "
            "like Gecko) Chrome/%d.0.%d.%d Safari/537.36",
            100 + i % 40, 4000 + i, i % 200);
    for (uint64_t i = 0; i < DISTINCT; i++) {
        uint64_t n = mix(i);

        (void)snprintf(world->users[i], sizeof(world->users[i]), "u%016llx",
                       (unsigned long long)n);
        memcpy(world->ips[i], &n, 4);
    }
    must(ruleset_open(&world->rules, NULL, NULL, &why), &why);
    world->set = ruleset_take(world->rules);
    must(fraud_addresses_open(&world->addresses, 4000000, 1, &why), &why);
    must(fraud_live_open(&world->live, 50000000, 20000000, world->addresses, &why),
         &why);
    must(fraud_window_open(&world->window, UINT64_C(1) << 30, &why), &why);
}

static void
batch_make(struct world *world, struct click clicks[BATCH], uint64_t base)
{
    for (uint64_t i = 0; i < BATCH; i++) {
        uint64_t n = mix(base + i), who = n % DISTINCT;
        uint64_t id[2] = {mix(base + i - (n % 100 == 0 ? 1000 : 0)),
                          7}; /* 1 % retries */

        memcpy(world->copies[i].user, world->users[who], sizeof(world->users[who]));
        memcpy(world->copies[i].agent, world->agents[n / 11 % AGENTS], 160);
        memcpy(world->copies[i].ip, world->ips[who], 4);
        clicks[i] = (struct click){
            .account = 1,
            .received_us = START_US + (int64_t)(base + i) * 100,
            .timestamp_ms = START_US / 1000 + (int64_t)(base + i) / 10,
            .campaign_id = str_of(world->campaigns[n / 7 % CAMPAIGNS]),
            .ad_id = STR("ad-1234567"),
            .user_id = str_of(world->copies[i].user),
            .ip = {(const char *)world->copies[i].ip, 4},
            .user_agent = str_of(world->copies[i].agent),
            .price_micros = 100000};
        memcpy(clicks[i].event_id, id, sizeof(id));
    }
}

enum how { EXAMINE, ONE_BY_ONE, TOGETHER, WINDOW, HOWS_N };

/* 1 million users and addresses, the memory fetched some clicks ahead. */
static void
window_run(struct world *world, const struct click clicks[BATCH], uint64_t *sum)
{
    uint64_t keys[BATCH];
    struct why why;
    uint32_t reasons;

    for (int i = 0; i < BATCH; i++)
        keys[i] = mix((uint64_t)clicks[i].received_us / 100 % DISTINCT);
    for (int i = 0; i < BATCH; i++) {
        int ahead = i + AHEAD < BATCH ? i + AHEAD : i;

        fraud_window_prefetch(world->window, keys[ahead], keys[ahead],
                              clicks[ahead].timestamp_ms);
        must(fraud_window_seen(world->window, ruleset_limits(world->set), keys[i],
                               keys[i], clicks[i].timestamp_ms, &reasons, &why),
             &why);
        *sum += reasons;
    }
}

static void
batch_run(struct world *world, enum how how, const struct click clicks[BATCH],
          struct agent_cache *cache, uint64_t *sum)
{
    static struct fraud_facts facts[BATCH];
    static struct verdict verdicts[BATCH];

    if (how == TOGETHER)
        fraud_live_judge_batch(world->live, world->set, world->master, clicks,
                               BATCH, 0, facts, verdicts);
    if (how == WINDOW)
        window_run(world, clicks, sum);
    for (int i = 0; i < BATCH; i++) {
        if (how == EXAMINE)
            fraud_examine(world->set, world->master, cache, &clicks[i], &facts[i]);
        else if (how == ONE_BY_ONE)
            verdicts[i] = fraud_live_judge(world->live, world->set, world->master,
                                           &clicks[i], 0, &facts[i]);
        *sum += verdicts[i].kind;
    }
}

int
main(int argc, char **argv)
{
    static const char *const names[HOWS_N] = {"fraud_examine", "fraud_live_judge",
                                              "fraud_live_judge_batch",
                                              "fraud_window_seen"};
    static struct world world;
    static struct click clicks[BATCH];
    uint64_t n = argc > 1 ? strtoull(argv[1], NULL, 10) : 4000000, sum = 0;
    struct agent_cache *cache = agent_cache_new();
    uint64_t base = DISTINCT;

    world_make(&world);
    fraud_window_hour(world.window, START_US);
    for (int round = 0; round < 2; round++) /* the first makes the pages real */
        for (int how = 0; how < HOWS_N; how++) {
            int64_t spent_ns = 0;

            for (uint64_t i = 0; i < n; i += BATCH, base += BATCH) {
                batch_make(&world, clicks, base);
                int64_t began_ns = cpu_ns();

                batch_run(&world, (enum how)how, clicks, cache, &sum);
                spent_ns += cpu_ns() - began_ns;
            }
            (void)printf("%s%s %.1f ns/click\n", names[how],
                         round == 0 ? "_cold" : "", (double)spent_ns / (double)n);
        }
    (void)printf("checksum %llu forgotten %llu\n", (unsigned long long)sum,
                 (unsigned long long)fraud_addresses_forgotten(world.addresses));
    return 0;
}

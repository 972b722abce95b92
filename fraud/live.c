#include "fraud/live.h"

#include <assert.h>
#include <stdlib.h>

enum { AHEAD = 16 }; /* clicks whose lines are on their way together */

struct fraud_live {
    struct fraud_ids *ids;
    struct fraud_users *users;
    struct fraud_addresses *addresses; /* shared, not ours */
    const struct fraud_hot *hot;       /* the same; NULL: none */
    struct agent_cache *cache;
    uint64_t forgotten; /* of all tables, when last looked */
    int64_t
        forgotten_us; /* time of receipt of the click that saw it grow; -1: never */
};

enum err
fraud_size_check(const char *name, size_t n, struct why *why)
{
    if (n >= FRAUD_TABLE_MIN && n <= FRAUD_TABLE_MAX)
        return ERR_OK;
    return err_set(why, ERR_INVALID, "fraud: %s is %zu, not in %d..%d", name, n,
                   FRAUD_TABLE_MIN, FRAUD_TABLE_MAX);
}

static uint64_t
forgotten_all(const struct fraud_live *live)
{
    return fraud_ids_forgotten(live->ids) + fraud_users_forgotten(live->users) +
           fraud_addresses_forgotten(live->addresses);
}

enum err
fraud_live_open(struct fraud_live **out, size_t ids_max, size_t users_max,
                struct fraud_addresses *shared, struct why *why)
{
    assert(shared != NULL);
    struct fraud_live *live = calloc(1, sizeof(*live));
    enum err err = ERR_OK;

    *out = NULL;
    if (live == NULL || (live->cache = agent_cache_new()) == NULL)
        err = err_set(why, ERR_NOMEM, "fraud: no memory for a worker's state");
    if (err == ERR_OK)
        err = fraud_ids_open(&live->ids, ids_max, why);
    if (err == ERR_OK)
        err = fraud_users_open(&live->users, users_max, why);
    if (err != ERR_OK) {
        fraud_live_close(&live);
        return err;
    }
    live->addresses = shared;
    live->forgotten = forgotten_all(live);
    live->forgotten_us = -1;
    *out = live;
    return ERR_OK;
}

void
fraud_live_hot(struct fraud_live *live, const struct fraud_hot *hot)
{
    live->hot = hot;
}

void
fraud_live_close(struct fraud_live **live)
{
    if (*live == NULL)
        return;
    fraud_ids_close(&(*live)->ids);
    fraud_users_close(&(*live)->users);
    agent_cache_free(&(*live)->cache);
    free(*live);
    *live = NULL;
}

/* An id is looked for in its own partition only: between two partitions, which of them this
 * worker reads first is chance. */
static uint64_t
id_key(const struct click *click, const struct fraud_facts *facts)
{
    return facts->id_hash ^ click->partition * UINT64_C(0x9e3779b97f4a7c15);
}

/* The stateful rules; adds to facts->reasons and feeds the tables. */
static void
state_apply(struct fraud_live *live, const struct ruleset_limits *limits,
            const struct click *click, struct fraud_facts *facts)
{
    int64_t received_us = click->received_us;

    if (fraud_ids_seen(live->ids, id_key(click, facts), received_us))
        facts->reasons |= REASON_BIT(duplicate);
    if (!fraud_feeds(facts->reasons))
        return;
    facts->reasons |= fraud_users_seen(live->users, limits, facts->user_key,
                                       facts->event_ms, received_us);
    uint32_t rates = fraud_addresses_seen(
        live->addresses, limits, facts->address_key, facts->event_ms, received_us);
    if (rates == 0 && live->hot != NULL)
        rates = fraud_hot_reasons(live->hot, facts->address_key, facts->event_ms);
    facts->reasons |= rates;
}

/* True while the tables may lack something that the judge will know. */
static bool
is_cold(struct fraud_live *live, int64_t started_us, int64_t received_us)
{
    uint64_t forgotten = forgotten_all(live);
    int64_t since_us = started_us;

    if (forgotten != live->forgotten) {
        live->forgotten = forgotten;
        live->forgotten_us = received_us;
    }
    if (live->forgotten_us > since_us)
        since_us = live->forgotten_us;
    return clock_floor(received_us, CLOCK_HOUR_US) - CLOCK_HOUR_US < since_us;
}

static struct verdict
verdict_of(struct fraud_live *live, const struct ruleset *set,
           const struct master *master, const struct click *click,
           int64_t started_us, struct fraud_facts *facts)
{
    state_apply(live, ruleset_limits(set), click, facts);
    bool cold = is_cold(live, started_us, click->received_us);
    struct verdict verdict = fraud_conclude(set, master, facts->reasons, 0);

    /* Quarantine comes before all state, and what was seen was seen: these two stand. */
    if (cold && verdict.kind != VERDICT_QUARANTINED &&
        verdict.kind != VERDICT_DUPLICATE)
        verdict.flags |= VERDICT_WARMING;
    return verdict;
}

struct verdict
fraud_live_judge(struct fraud_live *live, const struct ruleset *set,
                 const struct master *master, const struct click *click,
                 int64_t started_us, struct fraud_facts *facts)
{
    fraud_examine(set, master, live->cache, click, facts);
    return verdict_of(live, set, master, click, started_us, facts);
}

/* The click alone; its lines are on their way. */
static void
examine(struct fraud_live *live, const struct ruleset *set,
        const struct master *master, const struct click *click,
        struct fraud_facts *facts)
{
    fraud_examine(set, master, live->cache, click, facts);
    fraud_ids_prefetch(live->ids, id_key(click, facts));
    fraud_users_prefetch(live->users, facts->user_key);
    fraud_addresses_prefetch(live->addresses, facts->address_key, facts->event_ms);
}

void
fraud_live_judge_batch(struct fraud_live *live, const struct ruleset *set,
                       const struct master *master, const struct click *clicks,
                       size_t n, int64_t started_us, struct fraud_facts *facts,
                       struct verdict *verdicts)
{
    for (size_t base = 0; base < n; base += AHEAD) {
        size_t end = n - base < AHEAD ? n : base + AHEAD;

        for (size_t i = base; i < end; i++)
            examine(live, set, master, &clicks[i], &facts[i]);
        for (size_t i = base; i < end; i++)
            verdicts[i] =
                verdict_of(live, set, master, &clicks[i], started_us, &facts[i]);
    }
}

void
fraud_live_replay(struct fraud_live *live, const struct ruleset *set,
                  const struct master *master, const struct click *clicks, size_t n,
                  struct fraud_facts *facts)
{
    for (size_t base = 0; base < n; base += AHEAD) {
        size_t end = n - base < AHEAD ? n : base + AHEAD;

        for (size_t i = base; i < end; i++)
            examine(live, set, master, &clicks[i], &facts[i]);
        for (size_t i = base; i < end; i++) {
            state_apply(live, ruleset_limits(set), &clicks[i], &facts[i]);
            (void)is_cold(live, 0, clicks[i].received_us);
        }
    }
}

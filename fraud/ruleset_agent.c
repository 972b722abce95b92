/* What a user agent is. A slot of the cache is 48 bits of the agent's hash (its number is
 * the other 16), and the answer + 1. The rule set is part of the seed, so a new one misses
 * everything of the old; the rest of the seed is random, so nobody can prepare two agents
 * that share a hash. */

#include <assert.h>
#include <stdlib.h>

#include "common/hash.h"
#include "fraud/ruleset_load.h"
#include "fraud/verdict.h"

#define TAG_MASK UINT64_C(0xffffffffffff0000)

static_assert(AGENT_CACHE_SLOTS == 1 << 16, "slot and tag are the whole hash");
static_assert(REASONS_N < 1 << 16, "the answer fits beside the tag");

struct agent_cache {
    uint64_t seed;
    uint64_t slots[AGENT_CACHE_SLOTS];
};

struct agent_cache *
agent_cache_new(void)
{
    struct agent_cache *cache = calloc(1, sizeof(*cache));

    if (cache != NULL)
        cache->seed = hash_random_u64();
    return cache;
}

void
agent_cache_free(struct agent_cache **cache)
{
    free(*cache);
    *cache = NULL;
}

static bool
is_empty(struct str agent)
{
    for (uint32_t i = 0; i < agent.n; i++)
        if (agent.p[i] != ' ' && agent.p[i] != '\t')
            return false;
    return true;
}

/* Every browser since 1994 says that it is Mozilla, but for the older Operas. */
static bool
is_browser(struct str agent)
{
    static const char mozilla[] = "Mozilla/", opera[] = "Opera/";

    return (agent.n >= sizeof(mozilla) - 1 &&
            memcmp(agent.p, mozilla, sizeof(mozilla) - 1) == 0) ||
           (agent.n >= sizeof(opera) - 1 &&
            memcmp(agent.p, opera, sizeof(opera) - 1) == 0);
}

int
ruleset_agent(const struct ruleset *set, struct agent_cache *cache,
              struct str agent)
{
    if (is_empty(agent))
        return REASON_empty_agent;
    if (!is_browser(agent))
        return REASON_non_browser_agent;
    uint64_t hash = hash64(agent.p, agent.n, cache->seed + set->number);
    uint64_t *slot = &cache->slots[hash & (AGENT_CACHE_SLOTS - 1)];

    if ((*slot & TAG_MASK) != (hash & TAG_MASK) || (*slot & ~TAG_MASK) == 0) {
        uint64_t answer =
            agents_match(set->agents, agent) ? REASON_known_bot_agent : REASON_none;

        *slot = (hash & TAG_MASK) | (answer + 1);
    }
    return (int)(*slot & ~TAG_MASK) - 1;
}

#include <assert.h>
#include <string.h>

#include "common/hash.h"
#include "fraud/fraud.h"
#include "fraud/live.h"

enum {
    V6_NETWORK_SIZE = 8, /* a v6 client is its /64 */
    USER_KEY_MAX =
        64 + 1 + 128 + 1 + 64 /* the limits of CLICK_FIELDS, and 0 between */
};

/* Seeds keep the three kinds of key apart. The id's is 0: the id runs on disk have it. */
enum { SEED_ID = 0, SEED_USER = 1, SEED_ADDRESS = 2 };

static char
lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

static bool
contains(struct str text, const char *word)
{
    size_t n = strlen(word), same;

    for (size_t i = 0; i + n <= text.n; i++) {
        for (same = 0; same < n && lower(text.p[i + same]) == word[same]; same++)
            ;
        if (same == n)
            return true;
    }
    return false;
}

/* Sec-Purpose says prefetch;prerender, X-Purpose and X-Moz once said preview. */
static bool
is_prefetch(struct str purpose)
{
    return purpose.n > 0 &&
           (contains(purpose, "prefetch") || contains(purpose, "prerender") ||
            contains(purpose, "preview"));
}

uint64_t
fraud_id_hash(uint32_t account, const uint8_t event_id[16])
{
    uint8_t key[20] = {(uint8_t)account, (uint8_t)(account >> 8),
                       (uint8_t)(account >> 16), (uint8_t)(account >> 24)};

    memcpy(key + 4, event_id, 16);
    return hash64(key, sizeof(key), SEED_ID);
}

/* Only of a record that no parser of ours would have let pass. */
static uint64_t
user_key_long(const struct click *click)
{
    uint64_t hash = hash64(click->campaign_id.p, click->campaign_id.n, SEED_USER);

    hash = hash64(click->user_id.p, click->user_id.n, hash);
    return hash64(click->ad_id.p, click->ad_id.n, hash);
}

static uint64_t
user_key(const struct click *click)
{
    const struct str *parts[] = {&click->campaign_id, &click->user_id,
                                 &click->ad_id};
    char key[USER_KEY_MAX + 1];
    size_t n = 0;

    if (click->campaign_id.n + click->user_id.n + click->ad_id.n + 3 > sizeof(key))
        return user_key_long(click);
    for (size_t i = 0; i < 3; i++) {
        if (parts[i]->n > 0)
            memcpy(key + n, parts[i]->p, parts[i]->n);
        n += parts[i]->n;
        key[n++] = '\0';
    }
    return hash64(key, n, SEED_USER);
}

static uint64_t
address_key(struct str ip)
{
    return hash64(ip.p, ip.n == 16 ? V6_NETWORK_SIZE : ip.n, SEED_ADDRESS);
}

static uint32_t
campaign_reasons(const struct master_campaign *campaign, const struct click *click)
{
    uint32_t reasons = 0;

    if (campaign == NULL)
        return REASON_BIT(unknown_campaign);
    if (campaign->account != click->account)
        reasons |= REASON_BIT(foreign_campaign);
    if (click->currency.n > 0 && !str_equal(click->currency, campaign->currency))
        reasons |= REASON_BIT(currency_mismatch);
    if (!master_campaign_active(campaign, click->timestamp_ms))
        reasons |= REASON_BIT(inactive_campaign);
    return reasons;
}

static uint32_t
click_reasons(const struct ruleset *set, struct agent_cache *cache,
              const struct click *click)
{
    int agent = ruleset_agent(set, cache, click->user_agent);
    uint32_t reasons = agent == REASON_none ? 0 : UINT32_C(1) << agent;

    if (click->signature == CLICK_SIGNATURE_BAD)
        reasons |= REASON_BIT(bad_signature);
    if (click->test)
        reasons |= REASON_BIT(test_traffic);
    if (is_prefetch(click->purpose))
        reasons |= REASON_BIT(prefetch);
    if (ruleset_address_bad(set, click->ip))
        reasons |= REASON_BIT(bad_address);
    if (ruleset_honeypot(set, click->ad_id))
        reasons |= REASON_BIT(honeypot);
    return reasons;
}

void
fraud_examine(const struct ruleset *set, const struct master *master,
              struct agent_cache *cache, const struct click *click,
              struct fraud_facts *facts)
{
    assert(set != NULL && master != NULL && cache != NULL);
    const struct master_campaign *campaign =
        master_campaign_find(master, click->campaign_id);

    *facts = (struct fraud_facts){
        .id_hash = fraud_id_hash(click->account, click->event_id),
        .user_key = user_key(click),
        .address_key = address_key(click->ip),
        .event_ms = click->timestamp_ms,
        .campaign = campaign,
    };
    if (campaign != NULL)
        facts->price_micros =
            master_price(campaign, click->timestamp_ms, click->price_micros);
    facts->reasons =
        campaign_reasons(campaign, click) | click_reasons(set, cache, click);
}

/* The bits of REASON_MAP's rows whose clicks feed nothing. */
static const uint32_t starving = 0
#define FEEDS_0(name) | REASON_BIT(name)
#define FEEDS_1(name)
#define X(name, verdict, scope, class, feeds, text) FEEDS_##feeds(name)
    REASON_MAP(X)
#undef X
    ;

bool
fraud_feeds(uint32_t reasons)
{
    return (reasons & starving) == 0;
}

struct verdict
fraud_conclude(const struct ruleset *set, const struct master *master,
               uint32_t reasons, uint8_t flags)
{
    uint32_t applied = reasons & ~ruleset_limits(set)->shadow;
    enum reason reason =
        applied == 0 ? REASON_none : (enum reason)__builtin_ctz(applied);

    assert((reasons & REASON_BIT(none)) == 0 &&
           reasons >> 1 < UINT32_C(1) << (REASONS_N - 1));
    return (struct verdict){
        .kind = (uint8_t)reason_info(reason)->verdict,
        .reason = (uint8_t)reason,
        .flags = flags,
        .reasons = reasons,
        .ruleset = ruleset_number(set),
        .master = master == NULL ? 0 : (uint16_t)master->version,
    };
}

#include "ingest/rate.h"

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { WAYS = 4, CACHE_LINE = 64, STRIPES = 64 };

#define SECOND_NS INT64_C(1000000000)

struct slot {
    uint64_t key;
    int64_t tat_ns; /* <= now: free */
};

static_assert(sizeof(struct slot) * WAYS == CACHE_LINE, "a set is one cache line");
static_assert(RATE_KEYS_MIN >= WAYS * STRIPES, "each stripe has a set");

/* Sets whose number ends in the stripe's are the stripe's. */
struct stripe {
    _Alignas(CACHE_LINE) pthread_mutex_t mutex;
    struct rate_stats stats;
};

struct rate {
    uint64_t set_mask; /* number of sets - 1 */
    struct slot *slots;
    struct stripe *stripes;
};

static bool
is_power_of_two(uint32_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

enum err
rate_open(struct rate **out, uint32_t keys_max, struct why *why)
{
    assert(out != NULL);
    *out = NULL;
    if (keys_max < RATE_KEYS_MIN || keys_max > RATE_KEYS_MAX)
        return err_set(why, ERR_INVALID, "rate: keys_max is not in %d..%d",
                       RATE_KEYS_MIN, RATE_KEYS_MAX);
    if (!is_power_of_two(keys_max))
        return err_set(why, ERR_INVALID, "rate: keys_max is not a power of two");

    size_t size = keys_max * sizeof(struct slot);
    struct rate *rate = calloc(1, sizeof(*rate));
    if (rate == NULL)
        goto nomem;
    rate->slots = aligned_alloc(CACHE_LINE, size);
    rate->stripes = aligned_alloc(CACHE_LINE, STRIPES * sizeof(struct stripe));
    if (rate->slots == NULL || rate->stripes == NULL)
        goto nomem;
    memset(rate->slots, 0, size);
    memset(rate->stripes, 0, STRIPES * sizeof(struct stripe));
    for (int i = 0; i < STRIPES; i++)
        (void)pthread_mutex_init(&rate->stripes[i].mutex, NULL);
    rate->set_mask = keys_max / WAYS - 1;
    *out = rate;
    return ERR_OK;

nomem:
    if (rate != NULL) {
        free(rate->slots);
        free(rate->stripes);
    }
    free(rate);
    return err_set(why, ERR_NOMEM, "rate: no memory for %zu bytes", size);
}

/* Returns key's slot. A key without one takes the stalest of its set, so that
 * those clicking hardest are the last to be forgotten. */
static struct slot *
slot_claim(struct slot *set, struct stripe *stripe, uint64_t key, int64_t now_ns)
{
    struct slot *stalest = &set[0];

    for (int i = 0; i < WAYS; i++) {
        if (set[i].key == key)
            return &set[i];
        if (set[i].tat_ns < stalest->tat_ns)
            stalest = &set[i];
    }
    if (stalest->tat_ns > now_ns)
        stripe->stats.forgotten++;
    *stalest = (struct slot){.key = key};
    return stalest;
}

static enum rate_verdict
charge(struct slot *slot, const struct rate_limit *limit, uint32_t clicks,
       int64_t now_ns, int64_t *wait_us)
{
    /* Rounded down: in doubt the click passes. Rounded up, we would refuse clicks that
     * the publisher's contract allows. */
    int64_t interval_ns = SECOND_NS / limit->clicks_per_s;
    int64_t tat_ns = slot->tat_ns > now_ns ? slot->tat_ns : now_ns;
    int64_t ahead_ns = tat_ns + interval_ns * clicks - now_ns;
    int64_t ahead_ns_max = interval_ns * limit->burst;

    *wait_us = 0;
    if (ahead_ns > ahead_ns_max) {
        *wait_us = (ahead_ns - ahead_ns_max + 999) / 1000;
        return RATE_LIMITED;
    }
    slot->tat_ns = tat_ns + interval_ns * clicks;
    return RATE_PASS;
}

enum rate_verdict
rate_check(struct rate *rate, uint64_t key, const struct rate_limit *limit,
           uint32_t clicks, int64_t now_us, int64_t *wait_us)
{
    uint64_t set = key & rate->set_mask;
    struct stripe *stripe = &rate->stripes[set % STRIPES];
    enum rate_verdict verdict = RATE_NEVER;
    int64_t now_ns = now_us * 1000;

    assert(limit->clicks_per_s >= 1 &&
           limit->clicks_per_s <= RATE_CLICKS_PER_S_MAX);
    assert(limit->burst >= 1 && limit->burst <= RATE_BURST_MAX);
    assert(now_us > 0 &&
           now_us < INT64_MAX / 2000); /* so that no tat can overflow */
    *wait_us = 0;
    (void)pthread_mutex_lock(&stripe->mutex);
    if (clicks <= limit->burst)
        verdict = charge(slot_claim(&rate->slots[set * WAYS], stripe, key, now_ns),
                         limit, clicks, now_ns, wait_us);
    if (verdict == RATE_PASS)
        stripe->stats.passed += clicks;
    else
        stripe->stats.limited += clicks;
    (void)pthread_mutex_unlock(&stripe->mutex);
    return verdict;
}

void
rate_stats_get(struct rate *rate, struct rate_stats *out)
{
    *out = (struct rate_stats){0};
    for (int i = 0; i < STRIPES; i++) {
        struct stripe *stripe = &rate->stripes[i];

        (void)pthread_mutex_lock(&stripe->mutex);
        out->passed += stripe->stats.passed;
        out->limited += stripe->stats.limited;
        out->forgotten += stripe->stats.forgotten;
        (void)pthread_mutex_unlock(&stripe->mutex);
    }
}

void
rate_close(struct rate **rate)
{
    assert(rate != NULL);
    if (*rate == NULL)
        return;
    for (int i = 0; i < STRIPES; i++)
        (void)pthread_mutex_destroy(&(*rate)->stripes[i].mutex);
    free((*rate)->slots);
    free((*rate)->stripes);
    free(*rate);
    *rate = NULL;
}

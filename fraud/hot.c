/* A set is four buckets in a cache line, found by the bucket's key; minutes and seconds are
 * each in a set of their own. The key is a hash of address, unit and time, so it is the
 * whole identity and readers look at one word of a slot; the other, the bucket's time, is
 * only the writer's. Tables where nothing was ever added answer from one counter. */
#include "fraud/hot.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "fraud/live.h"
#include "fraud/verdict.h"

enum { WAYS = 4, SETS = HOT_SLOTS / WAYS, SET_BYTES = 64 };

struct slot {
    atomic_uint_fast64_t key; /* 0: empty */
    int64_t until_ms;         /* the bucket's end; the writer's */
};

struct fraud_hot {
    struct slot *slots;
    atomic_uint_fast64_t added;
};

static_assert(sizeof(struct slot) * WAYS == SET_BYTES, "a set is one cache line");
static_assert((SETS & (SETS - 1)) == 0, "sets are counted by a mask");

enum err
fraud_hot_open(struct fraud_hot **out, struct why *why)
{
    struct fraud_hot *hot = calloc(1, sizeof(*hot));

    *out = NULL;
    if (hot != NULL)
        hot->slots =
            aligned_alloc(SET_BYTES, (size_t)HOT_SLOTS * sizeof(struct slot));
    if (hot == NULL || hot->slots == NULL) {
        free(hot);
        return err_set(why, ERR_NOMEM, "fraud: no memory for hot addresses");
    }
    for (size_t i = 0; i < HOT_SLOTS; i++) {
        atomic_init(&hot->slots[i].key, 0);
        hot->slots[i].until_ms = 0;
    }
    atomic_init(&hot->added, 0);
    *out = hot;
    return ERR_OK;
}

void
fraud_hot_close(struct fraud_hot **hot)
{
    if (*hot == NULL)
        return;
    free((*hot)->slots);
    free(*hot);
    *hot = NULL;
}

static struct slot *
set_of(const struct fraud_hot *hot, uint64_t key)
{
    return &hot->slots[(key & (SETS - 1)) * WAYS];
}

static bool
bucket_has(const struct fraud_hot *hot, uint64_t key)
{
    const struct slot *set = set_of(hot, key);

    for (int i = 0; i < WAYS; i++)
        if (atomic_load_explicit(&set[i].key, memory_order_relaxed) == key)
            return true;
    return false;
}

static void
bucket_add(struct fraud_hot *hot, uint64_t key, int64_t until_ms)
{
    struct slot *set = set_of(hot, key), *oldest = &set[0];

    if (bucket_has(hot, key))
        return;
    for (int i = 0; i < WAYS; i++) {
        if (atomic_load_explicit(&set[i].key, memory_order_relaxed) == 0) {
            oldest = &set[i];
            break;
        }
        if (set[i].until_ms < oldest->until_ms)
            oldest = &set[i];
    }
    oldest->until_ms = until_ms;
    atomic_store_explicit(&oldest->key, key, memory_order_relaxed);
}

void
fraud_hot_add(struct fraud_hot *hot, uint64_t address_key, int64_t event_ms,
              uint32_t reasons)
{
    if (reasons & REASON_BIT(address_minute_rate))
        bucket_add(hot, fraud_bucket_key(address_key, event_ms, CLOCK_MINUTE_MS),
                   clock_floor(event_ms, CLOCK_MINUTE_MS) + CLOCK_MINUTE_MS);
    if (reasons & REASON_BIT(address_second_rate))
        bucket_add(hot, fraud_bucket_key(address_key, event_ms, 1000),
                   clock_floor(event_ms, 1000) + 1000);
    (void)atomic_fetch_add_explicit(&hot->added, 1, memory_order_relaxed);
}

uint32_t
fraud_hot_reasons(const struct fraud_hot *hot, uint64_t address_key,
                  int64_t event_ms)
{
    uint32_t reasons = 0;

    if (atomic_load_explicit(&hot->added, memory_order_relaxed) == 0)
        return 0;
    if (bucket_has(hot, fraud_bucket_key(address_key, event_ms, CLOCK_MINUTE_MS)))
        reasons |= REASON_BIT(address_minute_rate);
    if (bucket_has(hot, fraud_bucket_key(address_key, event_ms, 1000)))
        reasons |= REASON_BIT(address_second_rate);
    return reasons;
}

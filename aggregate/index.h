/* aggregate/index.h - 64-bit key -> 32-bit item, open addressing.
 *
 * Keys are keyed hashes (seeded at random per process) and are identity: nothing else is
 * compared. With 100 million items the chance that any two ever meet is 0.03 %; live counts
 * of the two would then be added until the next restart. Removal shifts back, so there are
 * no tombstones and a long-lived table does not decay.
 *
 * Memory   16 bytes a slot, at most 3/4 full; doubles.
 * Errors   index_put returns false without memory; the table is as before.
 * Threads  None.
 */
#ifndef AGGREGATE_INDEX_H
#define AGGREGATE_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/prefetch.h"

struct index_slot {
    uint64_t key;
    uint32_t item; /* 0: empty */
    uint32_t unused;
};

struct index {
    struct index_slot *slots; /* NULL: empty */
    uint64_t mask;
    uint64_t used;
};

static inline void
index_prefetch(const struct index *index, uint64_t key)
{
    if (index->slots != NULL)
        prefetch(&index->slots[key & index->mask]);
}

/* 0: not there. */
static inline uint32_t
index_find(const struct index *index, uint64_t key)
{
    if (index->slots == NULL)
        return 0;
    for (uint64_t i = key & index->mask;; i = (i + 1) & index->mask) {
        const struct index_slot *slot = &index->slots[i];

        if (slot->item == 0 || slot->key == key)
            return slot->item;
    }
}

/* key must not be there; item is not 0. */
bool index_put(struct index *index, uint64_t key, uint32_t item);
void index_remove(struct index *index, uint64_t key);
void index_free(struct index *index);

#endif

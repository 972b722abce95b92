#include "aggregate/index.h"

#include <assert.h>
#include <stdlib.h>

enum { SLOTS_MIN = 64 };

static void
slot_put(struct index *index, uint64_t key, uint32_t item)
{
    uint64_t i = key & index->mask;

    while (index->slots[i].item != 0)
        i = (i + 1) & index->mask;
    index->slots[i] = (struct index_slot){.key = key, .item = item};
}

static bool
grow(struct index *index)
{
    struct index old = *index;
    uint64_t size = old.slots == NULL ? SLOTS_MIN : (old.mask + 1) * 2;
    struct index_slot *slots = calloc(size, sizeof(*slots));

    if (slots == NULL)
        return false;
    index->slots = slots;
    index->mask = size - 1;
    for (uint64_t i = 0; old.slots != NULL && i <= old.mask; i++)
        if (old.slots[i].item != 0)
            slot_put(index, old.slots[i].key, old.slots[i].item);
    free(old.slots);
    return true;
}

bool
index_put(struct index *index, uint64_t key, uint32_t item)
{
    assert(item != 0);
    if (index->slots == NULL || (index->used + 1) * 4 > (index->mask + 1) * 3)
        if (!grow(index))
            return false;
    slot_put(index, key, item);
    index->used++;
    return true;
}

void
index_remove(struct index *index, uint64_t key)
{
    uint64_t i = key & index->mask, hole;

    assert(index->slots != NULL);
    while (index->slots[i].item != 0 && index->slots[i].key != key)
        i = (i + 1) & index->mask;
    assert(index->slots[i].item != 0);
    hole = i;
    for (;;) {
        i = (i + 1) & index->mask;
        if (index->slots[i].item == 0)
            break;
        /* An item may move to the hole if its home is not between hole and i. */
        uint64_t home = index->slots[i].key & index->mask;

        if (((i - home) & index->mask) >= ((i - hole) & index->mask)) {
            index->slots[hole] = index->slots[i];
            hole = i;
        }
    }
    index->slots[hole] = (struct index_slot){0};
    assert(index->used > 0);
    index->used--;
}

void
index_free(struct index *index)
{
    free(index->slots);
    *index = (struct index){0};
}

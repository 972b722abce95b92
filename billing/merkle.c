#include "billing/merkle.h"

#include <assert.h>
#include <string.h>

void
merkle_begin(struct merkle *merkle)
{
    *merkle = (struct merkle){.leaves = 0};
}

static void
node_of(const uint8_t *left, const uint8_t *right, uint8_t out[HASH_SHA256_SIZE])
{
    uint8_t both[1 + 2 * HASH_SHA256_SIZE] = {1};

    memcpy(both + 1, left, HASH_SHA256_SIZE);
    memcpy(both + 1 + HASH_SHA256_SIZE, right, HASH_SHA256_SIZE);
    hash_sha256_of(both, sizeof(both), out);
}

/* Like adding 1 to a binary number: each carry joins two trees of the same height. */
static void
leaf_done(struct merkle *merkle)
{
    uint8_t carry[HASH_SHA256_SIZE];
    int level = 0;

    hash_sha256_end(merkle->leaf, carry);
    merkle->leaf = NULL;
    merkle->in_leaf = 0;
    while ((merkle->leaves >> level & 1) != 0) {
        node_of(merkle->levels[level], carry, carry);
        level++;
        assert(level < MERKLE_LEVELS);
    }
    memcpy(merkle->levels[level], carry, sizeof(carry));
    merkle->leaves++;
}

void
merkle_add(struct merkle *merkle, uint32_t account, const uint8_t event_id[16])
{
    const uint8_t head[4] = {(uint8_t)(account >> 24), (uint8_t)(account >> 16),
                             (uint8_t)(account >> 8), (uint8_t)account};

    if (merkle->leaf == NULL) {
        merkle->leaf = hash_sha256_new();
        hash_sha256_add(merkle->leaf, "", 1);
    }
    hash_sha256_add(merkle->leaf, head, sizeof(head));
    hash_sha256_add(merkle->leaf, event_id, 16);
    merkle->ids++;
    if (++merkle->in_leaf == MERKLE_BLOCK)
        leaf_done(merkle);
}

void
merkle_end(struct merkle *merkle, uint8_t root[HASH_SHA256_SIZE])
{
    bool any = false;

    if (merkle->leaf != NULL)
        leaf_done(merkle);
    for (int level = 0; level < MERKLE_LEVELS; level++) {
        if ((merkle->leaves >> level & 1) == 0)
            continue;
        if (any)
            node_of(merkle->levels[level], root, root);
        else
            memcpy(root, merkle->levels[level], HASH_SHA256_SIZE);
        any = true;
    }
    if (!any)
        hash_sha256_of("", 0, root);
}

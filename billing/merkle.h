/* billing/merkle.h - the root over the billed ids of a run.
 *
 *   leaf   SHA-256(0x00 | up to 4,096 x (account u32 BE, event id 16 bytes)), in the order given
 *   node   SHA-256(0x01 | left | right); a last one without a partner moves up as it is
 *   empty  SHA-256 of nothing
 *
 * Memory   One hash a level.
 * Threads  None.
 * Source   RFC 6962 section 2.1 (domain separation of leaves and nodes).
 */
#ifndef BILLING_MERKLE_H
#define BILLING_MERKLE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/hash.h"

enum { MERKLE_BLOCK = 4096, MERKLE_LEVELS = 48 };

struct merkle {
    uint8_t levels[MERKLE_LEVELS][HASH_SHA256_SIZE];
    uint64_t leaves; /* bit i set: levels[i] holds a finished tree of 2^i leaves */
    struct hash_sha256 *leaf; /* the block in hand, or NULL */
    uint32_t in_leaf;
    uint64_t ids;
};

void merkle_begin(struct merkle *merkle);
void merkle_add(struct merkle *merkle, uint32_t account,
                const uint8_t event_id[16]);
void merkle_end(struct merkle *merkle, uint8_t root[HASH_SHA256_SIZE]);

#endif

/* fraud/blocklist.h - a set of addresses: a bloom filter in front, the exact set behind.
 *
 * Memory   1.8 bytes an address for the filter (0.1 %), 4 or 16 for the sorted set.
 * Errors   ERR_FULL over RULESET_ADDRESSES_MAX, ERR_NOMEM.
 * Threads  Building one; blocklist_has any, after blocklist_finish.
 * Source   libbloom 1.6: at most 149 million entries at 0.1 %.
 */
#ifndef FRAUD_BLOCKLIST_H
#define FRAUD_BLOCKLIST_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/str.h"

struct blocklist;

struct blocklist_stats {
    uint64_t addresses; /* different ones */
    uint64_t bytes;
};

enum err blocklist_open(struct blocklist **out, struct why *why);
void blocklist_close(struct blocklist **list);
/* ip: 4 or 16 bytes. */
enum err blocklist_add(struct blocklist *list, struct str ip, struct why *why);
enum err blocklist_finish(struct blocklist *list, struct why *why);
bool blocklist_has(const struct blocklist *list, struct str ip);
/* Only what the filter says, for tests: true for some addresses that are not in the set. */
bool blocklist_maybe(const struct blocklist *list, struct str ip);
void blocklist_stats_get(const struct blocklist *list, struct blocklist_stats *out);

#endif

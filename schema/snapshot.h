/* schema/snapshot.h - a master snapshot as the schema room makes it: from rows, from
 * PostgreSQL, or from the copy on disk. Everybody else sees schema/master.h only.
 *
 * Memory   One reference is the maker's. All that a snapshot shows is its own copy.
 * Errors   ERR_INVALID names the campaign that makes no sense; ERR_CORRUPT the copy.
 * Threads  A snapshot never changes; references are atomic.
 */
#ifndef SCHEMA_SNAPSHOT_H
#define SCHEMA_SNAPSHOT_H

#include <stdint.h>

#include "common/err.h"
#include "schema/master.h"

enum {
    SNAPSHOT_CAMPAIGNS_MAX = 4000000,
    SNAPSHOT_KEYS_MAX = 1000000,
    SNAPSHOT_STEPS_MAX =
        UINT16_MAX, /* rates, budgets or statuses of one campaign */
};

struct pg;
struct snapshot;

/* Copies everything, strings too. Sets index and zone_index; zone NULL becomes UTC. */
enum err snapshot_make(struct snapshot **out, uint64_t version,
                       const struct master_campaign *campaigns,
                       uint32_t campaigns_n, const struct master_key *keys,
                       uint32_t keys_n, struct why *why);
const struct master *snapshot_master(const struct snapshot *snapshot);
void snapshot_take(struct snapshot *snapshot);
/* Frees it with the last reference. */
void snapshot_drop(const struct snapshot *snapshot);

/* In the transaction that is open, which should be one snapshot (repeatable read). */
enum err snapshot_from_pg(struct snapshot **out, struct pg *pg, struct why *why);

/* The copy: all of it, with an XXH3 at its end, replaced whole and durably. */
enum err snapshot_to_file(const struct master *master, const char *path,
                          struct why *why);
enum err snapshot_from_file(struct snapshot **out, const char *path,
                            struct why *why);

#endif

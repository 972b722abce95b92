/* fraud/fraud.h - (click, state) -> verdict. Both paths link this; the slow path only
 * knows more.
 *
 *   fraud_examine    the click alone: quarantine and click rules, and the keys that the
 *                    stateful rules need
 *   fraud_seen_*     stateful tables: ids, (user, ad), addresses; sized and owned by the
 *                    caller: the live owner of a partition, or the judge
 *   fraud_conclude   reasons -> verdict: first match that is not in shadow is primary
 *
 * Stateful rules depend on the fed clicks before them, not on one another's answers: a
 * click feeds if it is no duplicate and all its matches say so (fraud_feeds). So they may
 * be evaluated in any order, and by a sort as well as by a table.
 *   ids         same (account, event_id)
 *   users       |t - t of the last fed click| of the same (campaign, user, ad): under 10 s
 *               double, under 1 h repeat; then last = t
 *   addresses   fed clicks of the address (v6: its /64) in the event time's UTC minute and
 *               second, this one included: over 100, over 10
 *   Of users and addresses a click sees what was received in its own UTC hour of receipt and
 *   the hour before, on both paths, so that live and final answers are alike.
 *
 * Two kinds of table:
 *   fraud_ids, _users, _addresses   live: sets of one cache line (fraud/line.h), fixed in
 *                                   size; when full the stalest of a set is forgotten
 *   fraud_window                    the judge's: exact, growing to a limit, ERR_FULL past it
 *
 * Units    ms of event time; us of receipt for expiry.
 * Memory   Live tables reserve all at open (pages become real when touched): 12.8 bytes an
 *          id, 21.3 a (user, ad), 43 an address. A forgotten entry that still mattered is
 *          counted, and for an hour verdicts carry VERDICT_WARMING.
 * Threads  fraud_addresses is shared, one lock a cache line; the rest one thread each.
 */
#ifndef FRAUD_FRAUD_H
#define FRAUD_FRAUD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "fraud/hot.h"
#include "fraud/ruleset.h"
#include "fraud/verdict.h"
#include "schema/click.h"
#include "schema/master.h"

struct fraud_facts {
    uint32_t reasons;     /* bits of REASON_* found so far */
    uint64_t id_hash;     /* fraud_id_hash */
    uint64_t user_key;    /* of (campaign, user, ad) */
    uint64_t address_key; /* of the address or its /64 */
    int64_t event_ms;
    const struct master_campaign *campaign; /* NULL: unknown */
    int64_t price_micros; /* before the budget; 0 without a campaign */
};

void fraud_examine(const struct ruleset *set, const struct master *master,
                   struct agent_cache *cache, const struct click *click,
                   struct fraud_facts *facts);
bool fraud_feeds(uint32_t reasons);
/* The key of the id runs: XXH3 of account (u32 LE) and the 16 bytes of the event id. */
uint64_t fraud_id_hash(uint32_t account, const uint8_t event_id[16]);
struct verdict fraud_conclude(const struct ruleset *set,
                              const struct master *master, uint32_t reasons,
                              uint8_t flags);

enum {
    FRAUD_TABLE_MIN = 1024,
    FRAUD_TABLE_MAX = 1000000000
}; /* each *_max below */

/* Event ids of the last hour of receipt (to 2 s); exact up to 64-bit hashes. */
struct fraud_ids;
enum err fraud_ids_open(struct fraud_ids **out, size_t ids_max, struct why *why);
void fraud_ids_close(struct fraud_ids **ids);
/* True if it was there within the last hour; else remembers it. An id that nothing has
 * pushed out may also be found after k x 18.2 hours: it is a duplicate, truly. */
bool fraud_ids_seen(struct fraud_ids *ids, uint64_t id_hash, int64_t received_us);
uint64_t fraud_ids_forgotten(const struct fraud_ids *ids);

struct fraud_users;
enum err fraud_users_open(struct fraud_users **out, size_t users_max,
                          struct why *why);
void fraud_users_close(struct fraud_users **users);
/* REASON_BIT(double_click), REASON_BIT(repeat_click) or 0; then remembers the click.
 * For fed clicks only. */
uint32_t fraud_users_seen(struct fraud_users *users,
                          const struct ruleset_limits *limits, uint64_t user_key,
                          int64_t event_ms, int64_t received_us);
uint64_t fraud_users_forgotten(const struct fraud_users *users);

struct fraud_addresses;
/* threads that count in it: one needs no locks, which would cost it as much as the rest. */
enum err fraud_addresses_open(struct fraud_addresses **out, size_t addresses_max,
                              uint32_t threads, struct why *why);
void fraud_addresses_close(struct fraud_addresses **addresses);
/* Bits of address_minute_rate and address_second_rate, or 0; then counts the click. */
uint32_t fraud_addresses_seen(struct fraud_addresses *addresses,
                              const struct ruleset_limits *limits,
                              uint64_t address_key, int64_t event_ms,
                              int64_t received_us);
/* Fetches what _seen will look at. */
void fraud_addresses_prefetch(const struct fraud_addresses *addresses,
                              uint64_t address_key, int64_t event_ms);
uint64_t fraud_addresses_forgotten(const struct fraud_addresses *addresses);

/* The live state of one worker (all partitions it owns). */
struct fraud_live;
enum err fraud_live_open(struct fraud_live **out, size_t ids_max, size_t users_max,
                         struct fraud_addresses *shared, struct why *why);
void fraud_live_close(struct fraud_live **live);
/* Addresses that other processes know to be past a limit: asked where the own table gives
 * no reason. Borrowed; NULL: none, which costs nothing. */
void fraud_live_hot(struct fraud_live *live, const struct fraud_hot *hot);
/* Judges the next click of a partition. started_us: when this owner's tables were empty;
 * verdicts that depend on state carry VERDICT_WARMING until the hour of receipt before the
 * click's began at or after it (1 to 2 hours). */
struct verdict fraud_live_judge(struct fraud_live *live, const struct ruleset *set,
                                const struct master *master,
                                const struct click *click, int64_t started_us,
                                struct fraud_facts *facts);
/* The same for clicks in order; memory is fetched ahead, which pays from some 8 on. */
void fraud_live_judge_batch(struct fraud_live *live, const struct ruleset *set,
                            const struct master *master, const struct click *clicks,
                            size_t n, int64_t started_us, struct fraud_facts *facts,
                            struct verdict *verdicts);
/* Clicks whose verdicts are on record: only feed the tables. */
void fraud_live_replay(struct fraud_live *live, const struct ruleset *set,
                       const struct master *master, const struct click *clicks,
                       size_t n, struct fraud_facts *facts);

/* The judge's users and addresses: exact up to 64-bit hashes, clicks fed in order of
 * receipt, two generations by UTC hour of receipt. What a click sees depends only on the
 * fed clicks of its hour and the one before, so not on where slices were cut. */
struct fraud_window;
enum { FRAUD_WINDOW_BYTES_MIN = 1 << 16 };
enum err fraud_window_open(struct fraud_window **out, uint64_t bytes_max,
                           struct why *why);
void fraud_window_close(struct fraud_window **window);
/* Enters an hour of receipt (its start): the same one is a no-op, the next one makes the
 * current the previous, a later one clears. Never backwards. */
void fraud_window_hour(struct fraud_window *window, int64_t hour_us);
/* *reasons gets the bits of double_click or repeat_click and the address rates, or 0; then
 * the click is remembered. ERR_FULL: nothing is, bytes_max is too low. Fed clicks only. */
enum err fraud_window_seen(struct fraud_window *window,
                           const struct ruleset_limits *limits, uint64_t user_key,
                           uint64_t address_key, int64_t event_ms,
                           uint32_t *reasons, struct why *why);
/* Optional, some clicks ahead of fraud_window_seen: fetches the memory it will touch. */
void fraud_window_prefetch(const struct fraud_window *window, uint64_t user_key,
                           uint64_t address_key, int64_t event_ms);
uint64_t fraud_window_bytes(const struct fraud_window *window);

/* A window in pieces: a judge whose window is full takes out what it remembers, and goes on
 * shard by shard, since what a click sees depends on its own keys only. Its user and its
 * address are in a shard each, of FRAUD_SHARDS. */
enum { FRAUD_SHARDS = 256 };
enum fraud_part { FRAUD_USERS, FRAUD_ADDRESSES, FRAUD_PARTS_N };
struct fraud_entry {
    uint64_t key; /* 0: none */
    int64_t value;
};
uint32_t fraud_shard(uint64_t key); /* of an entry */
uint32_t fraud_user_shard(uint64_t user_key);
uint32_t fraud_address_shard(uint64_t address_key, int64_t event_ms);
/* What is remembered of the current or the previous hour, with gaps. */
const struct fraud_entry *fraud_window_entries(const struct fraud_window *window,
                                               bool previous, enum fraud_part part,
                                               uint64_t *n);
int64_t fraud_window_latest(const struct fraud_window *window, bool previous);
void fraud_window_empty(struct fraud_window *window);
/* Into an emptied window; ERR_FULL. */
enum err fraud_window_restore(struct fraud_window *window, bool previous,
                              enum fraud_part part, const struct fraud_entry *entry,
                              struct why *why);
void fraud_window_restore_latest(struct fraud_window *window, bool previous,
                                 int64_t latest_ms);
/* The halves of fraud_window_seen. */
enum err fraud_window_user(struct fraud_window *window,
                           const struct ruleset_limits *limits, uint64_t user_key,
                           int64_t event_ms, uint32_t *reasons, struct why *why);
enum err fraud_window_address(struct fraud_window *window,
                              const struct ruleset_limits *limits,
                              uint64_t address_key, int64_t event_ms,
                              uint32_t *reasons, struct why *why);

#endif

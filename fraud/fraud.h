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
 *
 * Units    ms of event time; us of receipt for expiry.
 * Memory   Tables take all at open; when full the stalest of a set is forgotten, counted,
 *          and verdicts carry VERDICT_WARMING.
 * Threads  fraud_addresses is shared and striped; the rest one thread each.
 */
#ifndef FRAUD_FRAUD_H
#define FRAUD_FRAUD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
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

/* Event ids of the last hour of receipt; exact up to 64-bit hashes. */
struct fraud_ids;
enum err fraud_ids_open(struct fraud_ids **out, size_t ids_max, struct why *why);
void fraud_ids_close(struct fraud_ids **ids);
/* True if it was there within the last hour; else remembers it. */
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
                          int64_t event_ms);
uint64_t fraud_users_forgotten(const struct fraud_users *users);

struct fraud_addresses;
enum err fraud_addresses_open(struct fraud_addresses **out, size_t addresses_max,
                              struct why *why);
void fraud_addresses_close(struct fraud_addresses **addresses);
/* Bits of address_minute_rate and address_second_rate, or 0; then counts the click. */
uint32_t fraud_addresses_seen(struct fraud_addresses *addresses,
                              const struct ruleset_limits *limits,
                              uint64_t address_key, int64_t event_ms);
uint64_t fraud_addresses_forgotten(const struct fraud_addresses *addresses);

/* The live state of one worker (all partitions it owns). */
struct fraud_live;
enum err fraud_live_open(struct fraud_live **out, size_t ids_max, size_t users_max,
                         struct fraud_addresses *shared, struct why *why);
void fraud_live_close(struct fraud_live **live);
/* Judges the next click of a partition. started_us: when this owner's tables were empty; for
 * an hour of receipt after it verdicts that depend on state carry VERDICT_WARMING. */
struct verdict fraud_live_judge(struct fraud_live *live, const struct ruleset *set,
                                const struct master *master,
                                const struct click *click, int64_t started_us,
                                struct fraud_facts *facts);
/* A click whose verdict is on record: only feeds the tables. */
void fraud_live_replay(struct fraud_live *live, const struct ruleset *set,
                       const struct master *master, const struct click *click,
                       struct fraud_facts *facts);

#endif

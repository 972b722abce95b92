/* fraud/verdict.h - what was decided about a click, and why.
 *
 * REASON_MAP is the one table of rules, in order: the first that matches and is not in
 * shadow is the primary reason and gives the verdict. All matches stand in the bit set.
 * Scope: CLICK the click alone; PARTITION the owner's own state; ALL every partition;
 * DAY the whole day, as later revisions. Feeds: whether its clicks feed the counters of
 * the stateful rules (duplicates, quarantined and test clicks never do).
 *
 * Threads  Values.
 */
#ifndef FRAUD_VERDICT_H
#define FRAUD_VERDICT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/str.h"

enum verdict_kind {
    VERDICT_NONE, /* not judged: packs to 0 */
    VERDICT_BILLABLE,
    VERDICT_SUSPICIOUS, /* billable, flagged for review */
    VERDICT_INVALID,
    VERDICT_DUPLICATE,
    VERDICT_QUARANTINED,
    VERDICT_OVER_BUDGET, /* by the judge only: genuine, delivered for free */
    VERDICT_KINDS_N
};

/* X(name, verdict, scope, class, feeds, text) */
#define REASON_MAP(X)                                                             \
    X(none, BILLABLE, CLICK, NONE, 1, "genuine")                                  \
    X(unknown_campaign, QUARANTINED, CLICK, NONE, 0, "no such campaign")          \
    X(foreign_campaign, QUARANTINED, CLICK, NONE, 0,                              \
      "the key's account does not own the campaign")                              \
    X(currency_mismatch, QUARANTINED, CLICK, NONE, 0,                             \
      "the currency is not the campaign's")                                       \
    X(duplicate, DUPLICATE, PARTITION, NONE, 0, "the same event id came before")  \
    X(bad_signature, INVALID, CLICK, SIVT, 1, "the signature does not match")     \
    X(test_traffic, INVALID, CLICK, GIVT, 0, "marked as a test")                  \
    X(inactive_campaign, INVALID, CLICK, NONE, 1, "the campaign was not running") \
    X(prefetch, INVALID, CLICK, GIVT, 1,                                          \
      "fetched ahead by the browser, not clicked")                                \
    X(empty_agent, INVALID, CLICK, GIVT, 1, "no user agent")                      \
    X(non_browser_agent, INVALID, CLICK, GIVT, 1, "the user agent is no browser") \
    X(known_bot_agent, INVALID, CLICK, GIVT, 1, "the user agent is a known bot")  \
    X(bad_address, INVALID, CLICK, GIVT, 1,                                       \
      "the address is known for invalid traffic")                                 \
    X(data_centre, INVALID, CLICK, GIVT, 1, "the address is a data centre's")     \
    X(honeypot, INVALID, CLICK, SIVT, 1, "an ad that no person can see")          \
    X(double_click, INVALID, PARTITION, GIVT, 1,                                  \
      "the same user on the same ad within 10 s")                                 \
    X(repeat_click, INVALID, PARTITION, SIVT, 1,                                  \
      "the same user on the same ad within 1 h")                                  \
    X(address_minute_rate, INVALID, ALL, SIVT, 1,                                 \
      "over 100 clicks a minute from the address")                                \
    X(address_second_rate, INVALID, ALL, SIVT, 1,                                 \
      "over 10 clicks a second from the address")                                 \
    X(before_impression, INVALID, CLICK, SIVT, 1,                                 \
      "clicked before the ad was shown")                                          \
    X(too_fast, SUSPICIOUS, CLICK, SIVT, 1,                                       \
      "implausibly soon after the ad was shown")                                  \
    X(country_mismatch, SUSPICIOUS, CLICK, SIVT, 1,                               \
      "the address is not in the country claimed")                                \
    X(score_high, INVALID, PARTITION, SIVT, 1, "the risk score is 0.7 or more")   \
    X(score_medium, SUSPICIOUS, PARTITION, SIVT, 1,                               \
      "the risk score is 0.3 to 0.7")                                             \
    X(whole_day, INVALID, DAY, SIVT, 1, "a pattern over the whole day")           \
    X(over_budget, OVER_BUDGET, DAY, NONE, 1, "the daily budget was spent")

enum reason {
#define X(name, verdict, scope, class, feeds, text) REASON_##name,
    REASON_MAP(X)
#undef X
        REASONS_N
};

enum reason_scope { SCOPE_CLICK, SCOPE_PARTITION, SCOPE_ALL, SCOPE_DAY };
enum reason_class { CLASS_NONE, CLASS_GIVT, CLASS_SIVT };

struct reason_info {
    const char *name;
    enum verdict_kind verdict;
    enum reason_scope scope;
    enum reason_class class;
    bool feeds;
    const char *text;
};

#define REASON_BIT(name) (UINT32_C(1) << REASON_##name)

enum {
    VERDICT_WARMING = 1
}; /* flag: live tables had forgotten, or were still cold */

struct verdict {
    uint8_t kind;   /* enum verdict_kind */
    uint8_t reason; /* enum reason, the primary */
    uint8_t flags;
    uint16_t score;   /* risk, 0..10000 for 0..1 */
    uint32_t reasons; /* bits of all that matched, shadow rules included */
    uint16_t ruleset; /* number of the rule set */
    uint16_t master;  /* low bits of the master data's version */
};

const struct reason_info *reason_info(enum reason reason);
const char *verdict_name(enum verdict_kind kind);
/* REASONS_N if unknown. */
enum reason reason_find(struct str name);

/* The recorded live verdict, 8 bytes: kind 8, reason 8, flags 2 | score 14, ruleset 16,
 * master 16. `reasons` is not kept. Never 0 for a judged click. */
uint64_t verdict_pack(const struct verdict *verdict);
struct verdict verdict_unpack(uint64_t packed);

static inline bool
verdict_is_billable(enum verdict_kind kind)
{
    return kind == VERDICT_BILLABLE || kind == VERDICT_SUSPICIOUS;
}

#endif

/* billing/reconcile.h - live against final, click by click: a merge of the columns beside
 * each archive file; every difference carries a reason, unexplained is 0.
 *
 * Threads  None.
 */
#ifndef BILLING_RECONCILE_H
#define BILLING_RECONCILE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "schema/master.h"

/* X(name, text): why a final verdict may differ from the live one. */
#define DIFFERENCE_MAP(X)                                                          \
    X(duplicate_seen_later,                                                        \
      "a repeat that the live path no longer remembered, or in another partition") \
    X(rate_across_campaigns,                                                       \
      "the address's rate counted in order of receipt over all campaigns")         \
    X(ruleset_changed, "another rule set was in force")                            \
    X(master_changed, "campaign data changed in between")                          \
    X(live_warming, "live tables were cold or full")                               \
    X(over_budget, "the daily budget was spent")                                   \
    X(earlier_click_differs,                                                       \
      "an earlier click of the user was a repeat that the live path counted")      \
    X(live_missing, "no live verdict was recorded")                                \
    X(unexplained, "none of these: a defect")

struct reconcile_result {
    uint64_t clicks, same, different, unexplained;
    uint64_t
        live_missing; /* of different: their live verdicts may still be on their way */
};

/* Local day `day` of every campaign; table (or JSON) into out. */
enum err reconcile_day(const char *archive_dir, const struct master *master,
                       int32_t day, bool json, struct buf *out,
                       struct reconcile_result *result, struct why *why);

#endif

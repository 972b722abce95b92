/* billing/close_rows.h - what a run posts: rows of campaign_daily_stats, and the totals of
 * each (account, campaign), built from the slices' sums.
 *
 * Units    Micros, 128 bits.
 * Memory   About 200 bytes a row and its texts, at most CLOSE_ROWS_MAX rows: when they are
 *          full the caller writes them out and clears them. 130 bytes a campaign.
 * Errors   ERR_FULL at a limit; nothing is added then.
 * Threads  None.
 */
#ifndef BILLING_CLOSE_ROWS_H
#define BILLING_CLOSE_ROWS_H

#include <stdint.h>

#include "billing/sums.h"
#include "common/err.h"
#include "common/money.h"
#include "fraud/verdict.h"

enum { CLOSE_ROWS_MAX = 1 << 20, CLOSE_CAMPAIGNS_MAX = 3000000 };

/* Clicks of one (account, campaign): received is ingest's, the rest the judge's. */
struct close_campaign {
    uint32_t account;
    struct str campaign;
    uint64_t
        received; /* wraps below 0 when less was received than posted: a difference */
    uint64_t kinds[VERDICT_KINDS_N];
    uint64_t conflicts;
    money_wide cost_micros;
};

struct close_rows {
    struct sums_row *rows;
    uint32_t n, cap;
    uint32_t max;    /* 0: CLOSE_ROWS_MAX */
    uint32_t *slots; /* row + 1, open addressing */
    uint32_t slots_n;
    struct close_campaign *campaigns;
    uint32_t campaigns_n, campaigns_cap;
    uint32_t *campaign_slots;
    uint32_t campaign_slots_n;
    struct close_text *texts;          /* chunks that the rows' strings live in */
    struct close_text *campaign_texts; /* and the campaigns' */
};

/* Adds to the row with the same key. */
enum err close_rows_add(struct close_rows *rows, const struct sums_row *row,
                        struct why *why);
/* Adds to the campaign's totals. */
enum err close_rows_count(struct close_rows *rows, const struct sums_row *row,
                          struct why *why);
/* Forgets the rows, keeps the totals. */
void close_rows_clear(struct close_rows *rows);
/* The campaign's totals, made at first use. NULL: no memory, or the limit. */
struct close_campaign *close_rows_campaign(struct close_rows *rows,
                                           uint32_t account, struct str campaign);
/* Looks only: NULL if there is none. */
const struct close_campaign *close_rows_campaign_find(const struct close_rows *rows,
                                                      uint32_t account,
                                                      struct str campaign);
void close_rows_free(struct close_rows *rows);

#endif

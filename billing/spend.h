/* billing/spend.h - what each campaign has spent on each local day, against its budget.
 *
 * In order of receipt: the first click that does not fit, and all after it that local day,
 * are over budget; that a day is exhausted is kept, so later slices know. The state is
 * written whole after each slice; the last slice's file is where the next one goes on.
 *
 *   DIR/spend/<to_us>.avro    campaign_id, day, spent (decimal), exhausted
 *
 * Units    Micros; local days; days older than SPEND_DAYS before the slice are dropped.
 * Memory   48 bytes a (campaign, day).
 * Errors   ERR_NOTFOUND: no such file. ERR_CORRUPT names it.
 * Threads  None.
 */
#ifndef BILLING_SPEND_H
#define BILLING_SPEND_H

#include <stdbool.h>
#include <stdint.h>

#include "billing/publish.h"
#include "common/err.h"
#include "common/str.h"
#include "schema/master.h"

enum { SPEND_DAYS = 9, SPEND_ROWS_MAX = 20000000 };

struct spend;

/* Empty; borrows master. */
enum err spend_open(struct spend **out, const struct master *master,
                    struct why *why);
void spend_close(struct spend **spend);
/* Adds the rows of DIR/spend/<to_us>.avro to an empty state. */
enum err spend_load(struct spend *spend, const char *judge_dir, int64_t to_us,
                    struct why *why);
/* publish NULL: durable on return. Rows of days before from_day are left out. */
enum err spend_save(const struct spend *spend, const char *judge_dir, int64_t to_us,
                    int32_t from_day, struct publish *publish, struct why *why);
/* *fits: the price is within the campaign's budget of that day, and is now spent. */
enum err spend_take(struct spend *spend, const struct master_campaign *campaign,
                    int32_t day, int64_t price_micros, bool *fits, struct why *why);

#endif

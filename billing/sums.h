/* billing/sums.h - clicks and money of one slice, summed: what close reads.
 *
 *   DIR/sums/<to_us>.avro     one record a key: account, campaign_id, zone, day, ad_id,
 *                             country, device, publisher_id, kind, reason, unit_price_micros,
 *                             and of the clicks with that key: clicks, cost, list, conflicts
 *
 * A key may stand in more than one record of a file (the judge's memory is bounded):
 * readers add up. A slice without clicks has no file. The account is the posting one, the
 * campaign_id the posted one; an unknown campaign has zone "UTC".
 *   unit_price_micros   what one such click is billed; 0 unless billable or suspicious
 *   cost                clicks * unit_price_micros
 *   list                what they would have cost without filter and budget: of billed clicks the
 *                       same as cost; of the others the amount that was not billed
 *   conflicts           of the duplicates: the same id came with another payload
 *
 * Units    Micros of the campaign's currency; local days since 1970-01-01. cost and list are Avro
 *          decimals (fixed 16, scale 6): 128 bits, so that no sum can wrap.
 * Memory   One Avro block.
 * Errors   ERR_NOTFOUND: no such file. ERR_CORRUPT names it.
 * Threads  None.
 */
#ifndef BILLING_SUMS_H
#define BILLING_SUMS_H

#include <stdbool.h>
#include <stdint.h>

#include "billing/publish.h"
#include "common/err.h"
#include "common/money.h"
#include "common/str.h"

struct sums_row {
    uint32_t account;
    struct str campaign; /* strings are borrowed: until visit returns */
    struct str zone;
    int32_t day;
    struct str ad, country, publisher;
    uint8_t device; /* enum click_device */
    uint8_t kind;   /* enum verdict_kind */
    uint8_t reason; /* enum reason, the primary */
    int64_t unit_price_micros;
    uint64_t clicks;
    money_wide cost_micros;
    money_wide list_micros;
    uint64_t conflicts;
};

extern const char sums_schema[];

struct sums_writer;
enum err sums_create(struct sums_writer **out, const char *judge_dir, int64_t to_us,
                     struct why *why);
enum err sums_add(struct sums_writer *writer, const struct sums_row *row,
                  struct why *why);
/* publish NULL: durable on return. */
enum err sums_finish(struct sums_writer **writer, struct publish *publish,
                     struct why *why);
void sums_abort(struct sums_writer **writer);

/* Every record of the slice that ended at to_us (struct judge_slice). visit returns false
 * to stop. ERR_NOTFOUND for a slice with clicks is damage; one without has no file. */
enum err sums_each(const char *judge_dir, int64_t to_us,
                   bool (*visit)(void *ctx, const struct sums_row *row), void *ctx,
                   struct why *why);

#endif

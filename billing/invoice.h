/* billing/invoice.h - invoices: draft, finalise with a gapless number, export.
 *
 * A draft is made anew at will from posted, unblocked runs of a month that no other invoice
 * holds; making it drops the drafts of later months. An advertiser has one a currency. Finalising takes the number (per legal entity and year) from a counter row in the
 * same transaction and stores the CSV's bytes; then nothing changes. Lines: campaign and unit price;
 * one rounding a line, half away from zero, then lines are added.
 *
 * Units    Micros to minor units of the currency.
 * Errors   ERR_CONFLICT: blocked runs, days not closed, already finalised.
 * Threads  One.
 */
#ifndef BILLING_INVOICE_H
#define BILLING_INVOICE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

struct pg;

struct invoice_result {
    uint32_t invoices, lines;
};

/* Told after each invoice, of how many; NULL where nobody looks. */
struct invoice_watch {
    void (*show)(void *ctx, uint64_t done, uint64_t total);
    void *ctx;
};

/* month: "2026-11". advertiser NULL: all. Of a month still running, drafts cover its closed
 * days. */
enum err invoice_draft(struct pg *pg, const char *month, const char *advertiser,
                       const struct invoice_watch *watch,
                       struct invoice_result *out, struct why *why);
/* partial: finalise although the month is not over or days are not closed. */
enum err invoice_finalise(struct pg *pg, const char *month, const char *advertiser,
                          bool partial, int64_t now_us, int64_t grace_us,
                          const struct invoice_watch *watch,
                          struct invoice_result *out, struct why *why);
/* RFC 4180 CSV of the month's invoices (or of one number). */
enum err invoice_export_csv(struct pg *pg, const char *month, const char *number,
                            struct buf *out, struct why *why);
enum err invoice_list(struct pg *pg, const char *month, bool json, struct buf *out,
                      struct why *why);

#endif

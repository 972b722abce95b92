/* billing/invoice_csv.h - invoices as CSV (RFC 4180): one row a line, one header.
 *
 * Units    Amounts in the currency, with its decimals; unit prices with six.
 * Threads  None.
 */
#ifndef BILLING_INVOICE_CSV_H
#define BILLING_INVOICE_CSV_H

#include "common/buf.h"
#include "common/err.h"

struct pg;

enum { INVOICE_CSV_BYTES_MAX = 256 << 20 };

/* Rows of the invoices (alias i) that the SQL condition with $1 selects. params[1] is the
 * number that a draft is about to get, or NULL. */
enum err invoice_csv(struct pg *pg, const char *condition,
                     const char *const params[2], struct buf *out, struct why *why);
void invoice_csv_header(struct buf *out);

#endif

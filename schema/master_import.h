/* schema/master_import.h - campaigns from and to CSV (RFC 4180).
 *
 *   campaign_id, account, advertiser_id, currency, time_zone, cpc     must be there
 *   name, advertiser_name                empty: as it is; for a new one: the id
 *   status (active, paused)              empty: as it is; for a new one: active
 *   cpc                                  decimal, or `event`: the click's own price, up to
 *   price_cap                            this cap (must be there for `event`)
 *   daily_budget                         empty: none
 *   cpc_from, status_from (RFC 3339), budget_from (date)     valid from; see below
 *
 * Columns come in any order, by name. An account or advertiser that is new is made. A
 * campaign may stand on several lines that agree on all but prices, budgets, statuses and
 * their dates: its history.
 *
 * Valid from: a date given makes exactly that row. None given, for a new campaign or one
 * on several lines: 1970. None given, for one line of a campaign that is there: only when
 * the value differs from the one in force, from now (a budget: from today).
 *
 * A campaign keeps its advertiser, currency and time zone for good, an advertiser its account.
 * No row of a campaign that is there may touch a closed day (a posted billing_run of
 * its time zone): refused with line and column. price_cap has no date: it holds for all
 * that is judged from then on. All or nothing, in one transaction; the same file again
 * changes nothing.
 *
 * Units    Columns count characters from 1; lines from 1, those inside quotes too.
 * Memory   The file (IMPORT_BYTES_MAX) and an entry a line.
 * Errors   ERR_INVALID: each error is a line of report, `line:column: field: message`.
 *          ERR_AGAIN: PostgreSQL is away. ERR_NOTFOUND: the file.
 * Threads  One; two imports at a time wait for each other.
 */
#ifndef SCHEMA_MASTER_IMPORT_H
#define SCHEMA_MASTER_IMPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/str.h"

struct pg;

enum { IMPORT_BYTES_MAX = 256 << 20, IMPORT_ROWS_MAX = 4000000 };

/* report gets the errors, or one line of what was (with dry_run: would be) done. */
enum err master_import(struct pg *pg, const char *path, bool dry_run,
                       struct buf *report, struct why *why);
/* The same from memory, at a given time. */
enum err master_import_text(struct pg *pg, struct str csv, bool dry_run,
                            int64_t now_ms, struct buf *report, struct why *why);
/* All campaigns with their history; importing it changes nothing, and into an empty
 * database makes the same. */
enum err master_export(struct pg *pg, struct buf *csv, struct why *why);

#endif

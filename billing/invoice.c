/* Lines and totals are computed here, in integers; SQL sums and keeps. */
#include "billing/invoice.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "billing/invoice_csv.h"
#include "common/clock.h"
#include "common/money.h"
#include "common/pg.h"

enum { DATE_SIZE = 12, NUMBER_TEXT = 24, INVOICE_NUMBER_SIZE = 64 };

static void
month_bounds(const char *month, char first[DATE_SIZE])
{
    (void)snprintf(first, DATE_SIZE, "%.7s-01", month);
}

/* Advertisers and currencies with posted runs of the month that no invoice holds. A run
 * belongs to the month of its day; late runs of an invoiced month go on the next invoice
 * made. */
static const char advertisers_sql[] =
    "SELECT DISTINCT a.id, acc.legal_entity_id, c.currency "
    "FROM campaign_daily_stats s JOIN billing_run r ON r.id = s.run_id "
    "JOIN campaign c ON c.id = s.campaign_id JOIN advertiser a ON a.id = "
    "c.advertiser_id "
    "JOIN account acc ON acc.id = a.account_id "
    "WHERE r.status = 'posted' AND s.day < $1::date + interval '1 month' "
    "AND ($2::text IS NULL OR a.id = $2) AND s.verdict IN ('billable', "
    "'suspicious') "
    "AND NOT EXISTS (SELECT 1 FROM invoice_run ir WHERE ir.run_id = r.id "
    "AND ir.advertiser_id = a.id AND ir.currency = c.currency) "
    "ORDER BY 1, 3";

static const char lines_sql[] =
    "SELECT s.campaign_id, c.name, s.unit_price_micros, min(s.day), max(s.day), "
    "sum(s.clicks)::bigint, sum(s.cost_micros)::numeric(40, 0) "
    "FROM campaign_daily_stats s JOIN invoice_run ir ON ir.run_id = s.run_id "
    "AND ir.invoice_id = $1 JOIN campaign c ON c.id = s.campaign_id "
    "AND c.advertiser_id = ir.advertiser_id AND c.currency = $2 "
    "WHERE s.verdict IN ('billable', 'suspicious') "
    "GROUP BY 1, 2, 3 ORDER BY 1, 3";

struct line_maker {
    struct pg *pg;
    const char *invoice;
    int places;
    money_wide total_minor;
    uint32_t n;
};

static enum err
line_insert(struct line_maker *maker, const struct pg_result *rows, int row,
            struct why *why)
{
    char number[NUMBER_TEXT], minor[MONEY_TEXT_SIZE];
    money_wide micros = 0;
    enum err err = money_wide_parse(str_of(pg_value(rows, row, 6)), &micros, why);

    if (err != ERR_OK)
        return err;
    /* The one rounding of the line; the total is the sum of what is rounded. */
    money_wide rounded = money_round(micros, maker->places);
    maker->total_minor += rounded;
    (void)snprintf(number, sizeof(number), "%u", ++maker->n);
    const char *params[] = {
        maker->invoice,         number,
        pg_value(rows, row, 0), pg_value(rows, row, 1),
        pg_value(rows, row, 3), pg_value(rows, row, 4),
        pg_value(rows, row, 2), pg_value(rows, row, 5),
        pg_value(rows, row, 6), money_minor_format(rounded, 0, minor)};
    return pg_exec(
        maker->pg,
        "INSERT INTO invoice_line (invoice_id, line, campaign_id, description, "
        "first_day, last_day, unit_price_micros, clicks, amount_micros, "
        "amount_minor) VALUES ($1, $2, $3, 'Clicks, ' || $4, $5, $6, $7, $8, $9, "
        "$10)",
        params, 10, NULL, why);
}

static enum err
lines_make(struct line_maker *maker, const char *currency, struct why *why)
{
    struct pg_result *rows = NULL;
    char total[MONEY_TEXT_SIZE];
    const char *params[] = {maker->invoice, currency};
    enum err err = pg_exec(maker->pg, lines_sql, params, 2, &rows, why);

    for (int i = 0; err == ERR_OK && i < pg_rows(rows); i++)
        err = line_insert(maker, rows, i, why);
    pg_result_free(&rows);
    if (err != ERR_OK)
        return err;
    const char *sums[] = {maker->invoice,
                          money_minor_format(maker->total_minor, 0, total)};
    return pg_exec(maker->pg, "UPDATE invoice SET total_minor = $2 WHERE id = $1",
                   sums, 2, NULL, why);
}

/* The runs whose clicks this draft bills: posted, of this or an earlier month, and on no
 * other final invoice. */
static enum err
runs_attach(struct pg *pg, const char *invoice, const char *advertiser,
            const char *currency, const char *first, struct why *why)
{
    const char *params[] = {invoice, advertiser, first, currency};

    return pg_exec(
        pg,
        "INSERT INTO invoice_run (invoice_id, run_id, advertiser_id, currency) "
        "SELECT DISTINCT $1::bigint, r.id, $2::text, $4::char(3) FROM billing_run "
        "r "
        "JOIN campaign_daily_stats s ON s.run_id = r.id AND s.day = r.day "
        "JOIN campaign c ON c.id = s.campaign_id AND c.advertiser_id = $2 "
        "AND c.currency = $4 "
        "WHERE r.status = 'posted' AND r.day < $3::date + interval '1 month' "
        "AND s.verdict IN ('billable', 'suspicious') AND NOT EXISTS "
        "(SELECT 1 FROM invoice_run ir WHERE ir.run_id = r.id AND ir.advertiser_id "
        "= $2 AND ir.currency = $4)",
        params, 4, NULL, why);
}

static enum err
draft_one(struct pg *pg, const struct pg_result *who, int row, const char *first,
          struct invoice_result *out, struct why *why)
{
    const char *advertiser = pg_value(who, row, 0),
               *currency = pg_value(who, row, 2);
    char places[NUMBER_TEXT], invoice[NUMBER_TEXT];
    struct pg_result *made = NULL;
    struct line_maker maker = {.pg = pg,
                               .invoice = invoice,
                               .places = money_currency_places(str_of(currency))};

    if (maker.places < 0)
        return err_set(why, ERR_INVALID, "invoice: %s has the unknown currency %s",
                       advertiser, currency);
    (void)snprintf(places, sizeof(places), "%d", maker.places);
    const char *params[] = {pg_value(who, row, 1), advertiser, first, currency,
                            places};
    enum err err =
        pg_exec(pg,
                "INSERT INTO invoice (status, legal_entity_id, advertiser_id, "
                "month, currency, places, total_minor) VALUES ('draft', $1, $2, "
                "$3, $4, $5, 0) RETURNING id",
                params, 5, &made, why);
    if (err == ERR_OK)
        (void)snprintf(invoice, sizeof(invoice), "%s", pg_value(made, 0, 0));
    pg_result_free(&made);
    if (err == ERR_OK)
        err = runs_attach(pg, invoice, advertiser, currency, first, why);
    if (err == ERR_OK)
        err = lines_make(&maker, currency, why);
    out->invoices += err == ERR_OK;
    out->lines += maker.n;
    return err;
}

static void
watch_show(const struct invoice_watch *watch, int done, int total)
{
    if (watch != NULL)
        watch->show(watch->ctx, (uint64_t)done, (uint64_t)total);
}

/* phases: 1 for drafts alone, 2 when as many steps of finalising follow. */
static enum err
drafts_make(struct pg *pg, const char *month, const char *advertiser,
            const struct invoice_watch *watch, int phases,
            struct invoice_result *out, struct why *why)
{
    char first[DATE_SIZE];
    struct pg_result *who = NULL;

    month_bounds(month, first);
    const char *params[] = {first, advertiser};
    /* A draft is made anew from what is posted; one writer at a time. Drafts of later
     * months go too: they hold runs of this one that no invoice had. */
    enum err err = pg_exec(pg, "LOCK TABLE invoice IN SHARE ROW EXCLUSIVE MODE",
                           NULL, 0, NULL, why);
    if (err == ERR_OK)
        err = pg_exec(
            pg,
            "DELETE FROM invoice WHERE status = 'draft' AND month >= $1 AND "
            "($2::text IS NULL OR advertiser_id = $2)",
            params, 2, NULL, why);
    if (err == ERR_OK)
        err = pg_exec(pg, advertisers_sql, params, 2, &who, why);
    for (int i = 0; err == ERR_OK && i < pg_rows(who); i++) {
        err = draft_one(pg, who, i, first, out, why);
        watch_show(watch, i + 1, pg_rows(who) * phases);
    }
    pg_result_free(&who);
    return err;
}

enum err
invoice_draft(struct pg *pg, const char *month, const char *advertiser,
              const struct invoice_watch *watch, struct invoice_result *out,
              struct why *why)
{
    *out = (struct invoice_result){0};
    enum err err = pg_begin(pg, why);
    if (err != ERR_OK)
        return err;
    err = drafts_make(pg, month, advertiser, watch, 1, out, why);
    if (err == ERR_OK)
        return pg_commit(pg, why);
    pg_rollback(pg);
    return err;
}

/* A day whose identity does not hold cannot be invoiced, and an open month only knowingly. */
static enum err
month_ready(struct pg *pg, const char *first, bool partial, int64_t now_us,
            int64_t grace_us, struct why *why)
{
    char before[CLOCK_TEXT_SIZE];
    struct pg_result *result = NULL;
    const char *params[] = {first,
                            clock_format_ms((now_us - grace_us) / 1000, before)};
    enum err err =
        pg_exec(pg,
                "SELECT time_zone, day FROM billing_run WHERE status = 'blocked' "
                "AND day < $1::date + interval '1 month' ORDER BY 2, 1 LIMIT 1",
                params, 1, &result, why);
    if (err == ERR_OK && pg_rows(result) > 0)
        err = err_set(why, ERR_CONFLICT,
                      "invoice: the run of %s in %s is blocked, as received and "
                      "judged clicks "
                      "differ; see its certificate, then close the day again",
                      pg_value(result, 0, 1), pg_value(result, 0, 0));
    pg_result_free(&result);
    if (err != ERR_OK || partial)
        return err;
    err = pg_exec(pg, "SELECT $1::date + interval '1 month' <= $2::timestamptz",
                  params, 2, &result, why);
    if (err == ERR_OK && strcmp(pg_value(result, 0, 0), "t") != 0)
        err = err_set(
            why, ERR_CONFLICT,
            "invoice: month %.7s and its grace are not over; --partial finalises "
            "what is closed",
            first);
    pg_result_free(&result);
    return err;
}

/* What a lost log received in the month must be counted before anybody can tell which days
 * have clicks. */
static enum err
lost_counted(struct pg *pg, const char *first, struct why *why)
{
    struct pg_result *result = NULL;
    const char *params[] = {first};
    enum err err = pg_exec(
        pg,
        "SELECT lpad(to_hex(spool), 16, '0'), lost_at FROM ingest_spool WHERE "
        "lost_at IS NOT NULL AND coalesce(recounted_until, reported_until) < "
        "lost_at "
        "AND lost_at >= $1::date - interval '1 day' AND coalesce(recounted_until, "
        "reported_until) < $1::date + interval '1 month 8 days' LIMIT 1",
        params, 1, &result, why);

    if (err == ERR_OK && pg_rows(result) > 0)
        err = err_set(
            why, ERR_CONFLICT,
            "invoice: what the ingest log %s received before it was lost at "
            "%s is not counted from the archive yet; close a day that is "
            "judged further, or use --partial",
            pg_value(result, 0, 0), pg_value(result, 0, 1));
    pg_result_free(&result);
    return err;
}

/* Every day of the month that has clicks must be closed in its campaigns' time zone. */
static enum err
days_closed(struct pg *pg, const char *first, struct why *why)
{
    struct pg_result *result = NULL;
    const char *params[] = {first};
    enum err err = pg_exec(
        pg,
        "SELECT x.day, x.time_zone FROM (SELECT DISTINCT (r.quarter AT TIME ZONE "
        "coalesce(c.time_zone, 'UTC'))::date AS day, coalesce(c.time_zone, 'UTC') "
        "AS time_zone FROM (SELECT quarter, campaign_id FROM received_count UNION "
        "ALL SELECT quarter, campaign_id FROM received_recount) r LEFT JOIN "
        "campaign "
        "c ON c.id = r.campaign_id "
        "WHERE r.quarter >= $1::date - interval '1 day' AND r.quarter < $1::date + "
        "interval '1 month 1 day') x WHERE x.day >= $1::date AND x.day < $1::date "
        "+ "
        "interval '1 month' AND NOT EXISTS (SELECT 1 FROM billing_run b WHERE "
        "b.day = "
        "x.day AND b.time_zone = x.time_zone AND b.status = 'posted') ORDER BY 1, "
        "2 LIMIT 1",
        params, 1, &result, why);

    if (err == ERR_OK && pg_rows(result) > 0)
        err = err_set(
            why, ERR_CONFLICT,
            "invoice: day %s of %s has clicks and is not closed; close it, or use "
            "--partial",
            pg_value(result, 0, 0), pg_value(result, 0, 1));
    pg_result_free(&result);
    return err;
}

/* INV-2026-000001: from a counter row, in the transaction that uses the number, so that a
 * failure leaves no gap. */
static enum err
number_take(struct pg *pg, const char *invoice, const char *now,
            char number[INVOICE_NUMBER_SIZE], struct why *why)
{
    struct pg_result *result = NULL;
    const char *params[] = {invoice, now};
    enum err err =
        pg_exec(pg,
                "WITH me AS (SELECT i.legal_entity_id, l.invoice_prefix AS prefix, "
                "extract(year FROM $2::timestamptz AT TIME ZONE 'UTC')::int AS "
                "year FROM invoice i "
                "JOIN legal_entity l ON l.id = i.legal_entity_id WHERE i.id = $1), "
                "taken AS (INSERT INTO invoice_counter (legal_entity_id, year, "
                "series, last) "
                "SELECT legal_entity_id, year, 'invoice', 1 FROM me ON CONFLICT "
                "(legal_entity_id, "
                "year, series) DO UPDATE SET last = invoice_counter.last + 1 "
                "RETURNING last) "
                "SELECT prefix || '-' || year || '-' || lpad(last::text, "
                "greatest(6, length(last::text)), '0') "
                "FROM me, taken",
                params, 2, &result, why);

    if (err == ERR_OK)
        (void)snprintf(number, INVOICE_NUMBER_SIZE, "%s", pg_value(result, 0, 0));
    pg_result_free(&result);
    return err;
}

/* debit receivable (rounded), credit unbilled (exact), the difference to rounding. */
static enum err
ledger_post(struct pg *pg, const char *invoice, struct why *why)
{
    const char *params[] = {invoice};

    return pg_exec(
        pg,
        "WITH me AS (SELECT i.id, i.advertiser_id, i.legal_entity_id, i.currency, "
        "i.total_minor * 10::numeric ^ (6 - i.places) AS due, (SELECT coalesce(sum("
        "amount_micros), 0) FROM invoice_line WHERE invoice_id = i.id) AS exact, "
        "(SELECT coalesce(sum(clicks), 0) FROM invoice_line WHERE invoice_id = "
        "i.id) AS n "
        "FROM invoice i WHERE i.id = $1), "
        "booked AS (INSERT INTO ledger_transaction (invoice_id, text) SELECT id, "
        "'invoice' "
        "FROM me RETURNING id) "
        "INSERT INTO ledger_entry (transaction_id, ledger_account, currency, "
        "micros, clicks) "
        "SELECT booked.id, e.name, me.currency, trunc(e.micros), me.n FROM booked, "
        "me, "
        "LATERAL (VALUES ('receivable:' || me.advertiser_id, me.due), "
        "('unbilled:' || me.advertiser_id, -me.exact), "
        "('rounding:' || me.legal_entity_id, me.exact - me.due)) AS e(name, "
        "micros)",
        params, 1, NULL, why);
}

/* The last change of an invoice: number, parties as they are now, issued bytes. */
static enum err
issue(struct pg *pg, const char *invoice, const char *number, const char *now,
      struct why *why)
{
    struct buf csv = BUF_MAX(INVOICE_CSV_BYTES_MAX),
               hex = BUF_MAX(2u * INVOICE_CSV_BYTES_MAX);
    const char *only[] = {invoice, number};
    enum err err = invoice_csv(pg, "i.id = $1::bigint", only, &csv, why);

    for (size_t i = 0; err == ERR_OK && i < csv.n; i++)
        buf_printf(&hex, "%02x", csv.p[i]);
    buf_add(&hex, "", 1);
    if (err == ERR_OK && (hex.failed || csv.failed))
        err = err_set(why, ERR_NOMEM, "invoice: no memory for the CSV");
    const char *params[] = {invoice, number, now, (const char *)hex.p};
    if (err == ERR_OK)
        err = pg_exec(
            pg,
            "UPDATE invoice SET number = $2, status = 'final', finalised_at = $3, "
            "csv = decode($4, 'hex'), seller = (SELECT to_jsonb(l) FROM "
            "legal_entity l WHERE l.id = legal_entity_id), buyer = (SELECT "
            "to_jsonb(a) FROM advertiser a WHERE a.id = advertiser_id) "
            "WHERE id = $1",
            params, 4, NULL, why);
    buf_free(&csv);
    buf_free(&hex);
    return err;
}

static enum err
finalise_all(struct pg *pg, const char *first, const char *advertiser,
             int64_t now_us, const struct invoice_watch *watch, struct why *why)
{
    char number[INVOICE_NUMBER_SIZE], now[CLOCK_TEXT_SIZE];
    struct pg_result *drafts = NULL;
    const char *params[] = {first, advertiser};
    enum err err =
        pg_exec(pg,
                "SELECT id FROM invoice WHERE status = 'draft' AND month = $1 AND "
                "($2::text IS NULL OR advertiser_id = $2) ORDER BY advertiser_id",
                params, 2, &drafts, why);

    (void)clock_format_ms(now_us / 1000, now);
    for (int i = 0; err == ERR_OK && i < pg_rows(drafts); i++) {
        const char *invoice = pg_value(drafts, i, 0);
        err = number_take(pg, invoice, now, number, why);
        if (err == ERR_OK)
            err = ledger_post(pg, invoice, why);
        if (err == ERR_OK)
            err = issue(pg, invoice, number, now, why);
        watch_show(watch, pg_rows(drafts) + i + 1, 2 * pg_rows(drafts));
    }
    pg_result_free(&drafts);
    return err;
}

enum err
invoice_finalise(struct pg *pg, const char *month, const char *advertiser,
                 bool partial, int64_t now_us, int64_t grace_us,
                 const struct invoice_watch *watch, struct invoice_result *out,
                 struct why *why)
{
    char first[DATE_SIZE];

    assert(month != NULL);
    *out = (struct invoice_result){0};
    month_bounds(month, first);
    enum err err = pg_begin(pg, why);
    if (err != ERR_OK)
        return err;
    err = month_ready(pg, first, partial, now_us, grace_us, why);
    if (err == ERR_OK && !partial)
        err = lost_counted(pg, first, why);
    if (err == ERR_OK && !partial)
        err = days_closed(pg, first, why);
    /* Drafted anew here, so that what is issued is what is posted now. */
    if (err == ERR_OK)
        err = drafts_make(pg, month, advertiser, watch, 2, out, why);
    if (err == ERR_OK)
        err = finalise_all(pg, first, advertiser, now_us, watch, why);
    if (err == ERR_OK)
        return pg_commit(pg, why);
    pg_rollback(pg);
    return err;
}

/* Issued invoices as they were issued, drafts as they stand. */
static enum err
export_rows(struct pg *pg, const struct pg_result *rows, struct buf *out,
            struct why *why)
{
    enum err err = ERR_OK;

    for (int i = 0; err == ERR_OK && i < pg_rows(rows); i++) {
        const char *only[] = {pg_value(rows, i, 0), NULL};
        const char *issued = pg_value(rows, i, 1);
        if (issued != NULL)
            buf_add_text(out, issued);
        else
            err = invoice_csv(pg, "i.id = $1::bigint", only, out, why);
    }
    return err;
}

enum err
invoice_export_csv(struct pg *pg, const char *month, const char *number,
                   struct buf *out, struct why *why)
{
    char first[DATE_SIZE];
    struct pg_result *rows = NULL;

    month_bounds(month, first);
    const char *params[] = {first, number};
    enum err err =
        pg_exec(pg,
                "SELECT id, convert_from(csv, 'UTF8') FROM invoice WHERE "
                "CASE WHEN $2::text IS NULL THEN month = $1 ELSE number = $2 END "
                "ORDER BY number NULLS LAST, advertiser_id, id",
                params, 2, &rows, why);
    if (err == ERR_OK && number != NULL && pg_rows(rows) == 0)
        err = err_set(why, ERR_NOTFOUND, "invoice: there is no invoice %s", number);
    invoice_csv_header(out);
    if (err == ERR_OK)
        err = export_rows(pg, rows, out, why);
    pg_result_free(&rows);
    if (err == ERR_OK && out->failed)
        return err_set(why, ERR_NOMEM, "invoice: no memory for the CSV");
    return err;
}

static void
list_row(const struct pg_result *rows, int i, bool json, struct buf *out)
{
    static const char *const names[] = {"number",   "status", "advertiser_id",
                                        "currency", "total",  "lines"};

    if (!json) {
        buf_printf(out, "%-20s %-6s %-20s %16s %s  %s lines\n",
                   pg_value(rows, i, 0) == NULL ? "(draft)" : pg_value(rows, i, 0),
                   pg_value(rows, i, 1), pg_value(rows, i, 2), pg_value(rows, i, 4),
                   pg_value(rows, i, 3), pg_value(rows, i, 5));
        return;
    }
    buf_add_text(out, i == 0 ? "{" : ",{");
    for (int k = 0; k < 6; k++) {
        const char *value = pg_value(rows, i, k);
        buf_printf(out, "%s\"%s\":", k == 0 ? "" : ",", names[k]);
        if (value == NULL || k == 5)
            buf_add_text(out, value == NULL ? "null" : value);
        else
            buf_add_json(out, str_of(value));
    }
    buf_add_text(out, "}");
}

enum err
invoice_list(struct pg *pg, const char *month, bool json, struct buf *out,
             struct why *why)
{
    char first[DATE_SIZE];
    struct pg_result *rows = NULL;

    month_bounds(month, first);
    const char *params[] = {first};
    enum err err = pg_exec(
        pg,
        "SELECT number, status, advertiser_id, currency, round(total_minor / "
        "10::numeric ^ places, places)::text, (SELECT count(*) FROM invoice_line l "
        "WHERE l.invoice_id = i.id) FROM invoice i WHERE month = $1 "
        "ORDER BY number NULLS LAST, advertiser_id",
        params, 1, &rows, why);
    if (err == ERR_OK && json)
        buf_add_text(out, "[");
    for (int i = 0; err == ERR_OK && i < pg_rows(rows); i++)
        list_row(rows, i, json, out);
    if (err == ERR_OK && json)
        buf_add_text(out, "]\n");
    pg_result_free(&rows);
    return err;
}

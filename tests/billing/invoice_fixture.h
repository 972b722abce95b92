/* tests/billing/invoice_fixture.h - a desk to write invoices at: the database of a house,
 * and runs that are written straight into its tables. */
#ifndef TESTS_BILLING_INVOICE_FIXTURE_H
#define TESTS_BILLING_INVOICE_FIXTURE_H

#include "billing/invoice.h"
#include "tests/billing/close_fixture.h"

#define GRACE_US (3 * CLOCK_DAY_US)

/* Only the database of the house. */
static inline void
desk_open(struct house *h)
{
    int applied;

    *h = (struct house){.n = 0};
    itest_database_make(h->conninfo);
    MUST(pg_open(&h->pg, h->conninfo, why));
    MUST(migrate(h->pg, &applied, why));
    house_sql(h, house_master_sql);
}

static inline void
desk_close(struct house *h)
{
    CHECK(house_number(h,
                       "SELECT count(*) FROM (SELECT transaction_id, currency "
                       "FROM ledger_entry GROUP BY 1, 2 HAVING sum(micros) <> 0) "
                       "x") == 0);
    CHECK(house_number(h,
                       "SELECT count(*) FROM (SELECT total_minor, (SELECT "
                       "coalesce(sum(amount_minor), 0) FROM invoice_line l WHERE "
                       "l.invoice_id = i.id) AS lines FROM invoice i) x WHERE "
                       "total_minor <> lines") == 0);
    pg_close(&h->pg);
    itest_database_drop(h->conninfo);
}

/* A posted run of a zone and day; sequence counts up. */
static inline void
run_post(struct house *h, const char *zone, const char *day, const char *status)
{
    char sql[1024];

    (void)snprintf(
        sql, sizeof(sql),
        "SELECT campaign_daily_stats_partition('%s'); INSERT INTO billing_run "
        "(time_zone, day, kind, sequence, input_hash, received_from, received_to, "
        "status, code_version) SELECT '%s', '%s', CASE WHEN count(*) = 0 THEN "
        "'regular' ELSE 'late' END, count(*), sha256(convert_to(count(*)::text, "
        "'UTF8')), now(), now(), '%s', 'test' FROM billing_run WHERE time_zone = "
        "'%s' AND day = '%s'",
        day, zone, day, status, zone, day);
    house_sql(h, sql);
}

/* Clicks in the newest run, and in the ledger. */
static inline void
clicks_post(struct house *h, const char *campaign, int64_t price_micros,
            int64_t clicks)
{
    char sql[2048];

    (void)snprintf(
        sql, sizeof(sql),
        "INSERT INTO campaign_daily_stats SELECT day, '%s', id, 1, 'a', 'DE', "
        "'mobile', 'p', 'billable', 'none', %lld, %lld, %lld::numeric * %lld, 0 "
        "FROM billing_run ORDER BY id DESC LIMIT 1;"
        "WITH t AS (INSERT INTO ledger_transaction (run_id, text) SELECT max(id), "
        "'t' FROM billing_run RETURNING id), c AS (SELECT * FROM campaign WHERE id "
        "= "
        "'%s') INSERT INTO ledger_entry SELECT t.id, 'unbilled:' || "
        "c.advertiser_id, c.id, c.currency, %lld::numeric * %lld, %lld FROM t, c "
        "UNION ALL SELECT t.id, 'revenue:1', c.id, c.currency, -%lld::numeric * "
        "%lld, %lld FROM t, c",
        campaign, (long long)price_micros, (long long)clicks,
        (long long)price_micros, (long long)clicks, campaign,
        (long long)price_micros, (long long)clicks, (long long)clicks,
        (long long)price_micros, (long long)clicks, (long long)clicks);
    house_sql(h, sql);
}

static inline enum err
finalise(struct house *h, const char *month, const char *advertiser, bool partial,
         const char *now, struct invoice_result *result, struct why *why)
{
    memset(why, 0, sizeof(*why));
    return invoice_finalise(h->pg, month, advertiser, partial, at(now), GRACE_US,
                            NULL, result, why);
}

static inline struct invoice_result
finalised(struct house *h, const char *month, const char *now)
{
    struct invoice_result result;
    struct why told;

    if (finalise(h, month, NULL, false, now, &result, &told) != ERR_OK) {
        fprintf(stderr, "finalise %s: %s\n", month, told.text);
        exit(1);
    }
    return result;
}

#endif

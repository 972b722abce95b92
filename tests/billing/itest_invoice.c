/* Invoices in a real PostgreSQL, from runs that are written straight into its tables. */
#include "billing/invoice.h"

#include "tests/billing/invoice_fixture.h"

/* ---- rounding ---- */

/* Half away from zero, by another way than the product's: a remainder looked at. */
static int64_t
model_round(int64_t micros, int places)
{
    static const int64_t units[] = {1000000, 100000, 10000, 1000};
    int64_t unit = units[places], rest = micros % unit;

    return micros / unit + (rest * 2 >= unit ? 1 : 0);
}

struct model_line {
    const char *campaign;
    int64_t price_micros, micros;
};

static void
test_each_line_is_rounded_once(void)
{
    static const struct {
        const char *campaign, *advertiser, *currency;
        int places;
    } kinds[] = {{"shoes", "adv", "EUR", 2},
                 {"books", "adv", "EUR", 2},
                 {"yen", "jp", "JPY", 0},
                 {"fils", "bh", "BHD", 3}};
    static const int64_t prices[] = {1,      4999,    5000,  250001,
                                     333333, 1500000, 499999};
    static struct model_line lines[4 * 7];
    struct house h;
    uint64_t seed = 12;
    char day[12], sql[512];

    desk_open(&h);
    for (int d = 0; d < 9; d++) {
        run_post(&h, "UTC", date_format(day_of("2026-03-01") + d * 3, day),
                 "posted");
        for (int i = 0; i < 12; i++) {
            size_t k = random_below(&seed, 4), p = random_below(&seed, 7);
            int64_t clicks = 1 + (int64_t)random_below(&seed, 40);
            clicks_post(&h, kinds[k].campaign, prices[p], clicks);
            struct model_line *line = &lines[k * 7 + p];
            *line = (struct model_line){kinds[k].campaign, prices[p],
                                        line->micros + prices[p] * clicks};
        }
    }
    struct invoice_result r = finalised(&h, "2026-03", "2026-04-10T00:00:00Z");
    uint32_t n = 0;
    int64_t totals[4] = {0};
    for (size_t i = 0; i < 28; i++) {
        if (lines[i].campaign == NULL)
            continue;
        n++;
        int64_t minor = model_round(lines[i].micros, kinds[i / 7].places);
        totals[i / 7] += minor;
        (void)snprintf(sql, sizeof(sql),
                       "SELECT amount_minor FROM invoice_line WHERE campaign_id = "
                       "'%s' AND unit_price_micros = %lld",
                       lines[i].campaign, (long long)lines[i].price_micros);
        CHECK(house_number(&h, sql) == minor);
    }
    CHECK(r.invoices == 3 && r.lines == n);
    CHECK(house_number(&h, "SELECT total_minor FROM invoice WHERE currency = "
                           "'EUR'") == totals[0] + totals[1]);
    CHECK(house_number(&h, "SELECT total_minor FROM invoice WHERE currency = "
                           "'JPY'") == totals[2]);
    CHECK(house_number(&h, "SELECT total_minor FROM invoice WHERE currency = "
                           "'BHD'") == totals[3]);
    /* All that was unbilled is receivable now, but for what rounding took or gave. */
    CHECK(house_number(&h,
                       "SELECT count(*) FROM (SELECT ledger_account, currency "
                       "FROM ledger_entry WHERE ledger_account LIKE 'unbilled:%' "
                       "GROUP BY 1, 2 HAVING sum(micros) <> 0) x") == 0);
    CHECK(house_number(&h,
                       "SELECT sum(micros)::bigint FROM ledger_entry WHERE "
                       "ledger_account = 'receivable:jp'") == totals[2] * 1000000);
    desk_close(&h);
}

/* ---- numbers ---- */

static void
test_numbers_have_no_gap_whatever_fails_in_between(void)
{
    struct house h;
    struct invoice_result r;
    struct why told;
    char text[512];

    desk_open(&h);
    for (int month = 1; month <= 4; month++) {
        char day[16], name[16], now[32];
        (void)snprintf(day, sizeof(day), "2026-%02d-05", month);
        (void)snprintf(name, sizeof(name), "2026-%02d", month);
        (void)snprintf(now, sizeof(now), "2026-%02d-20T00:00:00Z", month + 1);
        run_post(&h, "UTC", day, "posted");
        clicks_post(&h, "shoes", 250000, 4);
        clicks_post(&h, "fils", 1000, 4);
        clicks_post(&h, "yen", 5000000, 4);
        /* Fails after numbers were taken, at the last of the three. */
        house_sql(
            &h, "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ "
                "BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = "
                "'check_violation'; END $$; CREATE TRIGGER refuse BEFORE UPDATE OF "
                "status ON invoice FOR EACH ROW WHEN (NEW.advertiser_id = 'jp') "
                "EXECUTE FUNCTION refuse()");
        CHECK(finalise(&h, name, NULL, false, now, &r, &told) == ERR_CONFLICT);
        CHECK(strstr(told.text, "not now") != NULL);
        house_sql(&h, "DROP TRIGGER refuse ON invoice; DROP FUNCTION refuse()");
        CHECK(house_number(&h, "SELECT count(*) FROM invoice WHERE status = "
                               "'final'") == 3 * (month - 1));
        r = finalised(&h, name, now);
        CHECK(r.invoices == 3 && r.lines == 3);
        r = finalised(&h, name, now); /* again: nothing is left */
        CHECK(r.invoices == 0);
    }
    house_text(&h,
               "SELECT string_agg(right(number, 4), ' ' ORDER BY number) FROM "
               "invoice",
               text, sizeof(text));
    CHECK(strcmp(text, "0001 0002 0003 0004 0005 0006 0007 0008 0009 0010 0011 "
                       "0012") == 0);
    /* The millionth has a digit more. */
    house_sql(&h, "UPDATE invoice_counter SET last = 999999");
    run_post(&h, "UTC", "2026-05-05", "posted");
    clicks_post(&h, "shoes", 250000, 4);
    clicks_post(&h, "yen", 5000000, 4);
    (void)finalised(&h, "2026-05", "2026-06-20T00:00:00Z");
    house_text(&h,
               "SELECT string_agg(number, ' ' ORDER BY number) FROM invoice "
               "WHERE month = '2026-05-01'",
               text, sizeof(text));
    CHECK(strcmp(text, "INV-2026-1000000 INV-2026-1000001") == 0);
    desk_close(&h);
}

static void
test_a_numbers_year_is_that_of_finalising_in_utc(void)
{
    struct house h;
    char text[64];

    desk_open(&h);
    run_post(&h, "UTC", "2026-10-05", "posted");
    clicks_post(&h, "shoes", 250000, 4);
    (void)finalised(&h, "2026-10", "2026-12-31T23:59:59Z");
    run_post(&h, "UTC", "2026-11-05", "posted");
    clicks_post(&h, "shoes", 250000, 4);
    (void)finalised(&h, "2026-11", "2027-01-01T00:00:00Z");
    house_text(&h, "SELECT string_agg(number, ' ' ORDER BY number) FROM invoice",
               text, sizeof(text));
    CHECK(strcmp(text, "INV-2026-000001 INV-2027-000001") == 0);
    desk_close(&h);
}

static void
test_what_is_issued_never_changes(void)
{
    static const char *const tries[] = {
        "UPDATE invoice SET csv = 'x'",
        "UPDATE invoice SET total_minor = 0",
        "UPDATE invoice SET status = 'draft', number = NULL",
        "DELETE FROM invoice",
        "UPDATE invoice_line SET amount_minor = 0",
        "DELETE FROM invoice_line",
        "INSERT INTO invoice_line SELECT id, 99, 'c', 'd', month, month, 1, 1, 1, "
        "1 "
        "FROM invoice",
        "DELETE FROM invoice_run",
        "UPDATE invoice_run SET run_id = run_id",
        "UPDATE ledger_entry SET micros = 0",
        "DELETE FROM ledger_transaction",
    };
    struct house h;
    struct buf before = BUF_MAX(1 << 20), after = BUF_MAX(1 << 20);

    desk_open(&h);
    run_post(&h, "UTC", "2026-03-05", "posted");
    clicks_post(&h, "shoes", 250000, 4);
    (void)finalised(&h, "2026-03", "2026-04-10T00:00:00Z");
    MUST(invoice_export_csv(h.pg, "2026-03", NULL, &before, why));
    for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++)
        CHECK(pg_exec(h.pg, tries[i], NULL, 0, NULL, NULL) == ERR_CONFLICT);
    /* A renamed campaign or advertiser changes no issued byte. */
    house_sql(&h,
              "UPDATE campaign SET name = 'Other'; UPDATE advertiser SET name = "
              "'Other'");
    MUST(invoice_export_csv(h.pg, "2026-03", NULL, &after, why));
    CHECK(before.n == after.n && memcmp(before.p, after.p, before.n) == 0);
    CHECK(house_number(
              &h, "SELECT count(*) FROM invoice WHERE buyer->>'name' = "
                  "'Adv, \"the\" one' AND seller->>'name' = 'clickledger'") == 1);
    buf_free(&before);
    buf_free(&after);
    desk_close(&h);
}

/* ---- what may be finalised ---- */

static void
test_blocked_open_and_unclosed_days_refuse(void)
{
    struct house h;
    struct invoice_result r;
    struct why told;

    desk_open(&h);
    run_post(&h, "Europe/Berlin", "2026-03-05", "posted");
    clicks_post(&h, "shoes", 250000, 4);
    run_post(&h, "Europe/Berlin", "2026-03-06", "blocked");
    CHECK(finalise(&h, "2026-03", NULL, false, "2026-04-10T00:00:00Z", &r, &told) ==
          ERR_CONFLICT);
    CHECK(strstr(told.text, "2026-03-06") != NULL &&
          strstr(told.text, "Europe/Berlin") != NULL);
    CHECK(finalise(&h, "2026-03", NULL, true, "2026-04-10T00:00:00Z", &r, &told) ==
          ERR_CONFLICT); /* --partial does not unblock */
    CHECK(finalise(&h, "2026-02", NULL, false, "2026-04-10T00:00:00Z", &r, &told) ==
          ERR_OK);
    house_sql(&h, "DELETE FROM billing_run WHERE status = 'blocked'");

    /* The month ends with March, its grace with the 3rd of April. */
    CHECK(finalise(&h, "2026-03", NULL, false, "2026-04-03T23:59:59Z", &r, &told) ==
          ERR_CONFLICT);
    CHECK(strstr(told.text, "--partial") != NULL);
    /* Berlin's first of April began when UTC's last of March had two hours to go. */
    house_sql(&h,
              "INSERT INTO received_count VALUES ('2026-03-31T22:00Z', 1, 1, 1, "
              "'shoes', '2026-03-31T22:15Z', 1)");
    CHECK(finalise(&h, "2026-03", NULL, false, "2026-04-04T00:00:00Z", &r, &told) ==
          ERR_OK);
    CHECK(r.invoices == 1);

    run_post(&h, "Europe/Berlin", "2026-04-01", "posted");
    clicks_post(&h, "shoes", 250000, 4);
    house_sql(&h,
              "INSERT INTO received_count VALUES ('2026-04-30T21:00Z', 1, 1, 1, "
              "'shoes', '2026-04-30T21:45Z', 1)");
    CHECK(finalise(&h, "2026-04", NULL, false, "2026-05-10T00:00:00Z", &r, &told) ==
          ERR_CONFLICT);
    CHECK(strstr(told.text, "2026-04-30") != NULL);
    CHECK(finalise(&h, "2026-04", NULL, true, "2026-04-20T00:00:00Z", &r, &told) ==
          ERR_OK);
    CHECK(r.invoices == 1 && r.lines == 1);
    desk_close(&h);
}

static void
test_a_late_run_goes_on_the_next_invoice_and_drafts_are_made_anew(void)
{
    struct house h;
    struct invoice_result r;

    desk_open(&h);
    run_post(&h, "UTC", "2026-03-05", "posted");
    clicks_post(&h, "shoes", 250000, 4);
    for (int i = 0; i < 3; i++) {
        MUST(invoice_draft(h.pg, "2026-03", NULL, NULL, &r, why));
        CHECK(r.invoices == 1 && r.lines == 1);
        CHECK(house_number(&h, "SELECT count(*) FROM invoice") == 1);
        CHECK(house_number(&h, "SELECT count(*) FROM ledger_entry WHERE "
                               "ledger_account LIKE 'receivable:%'") == 0);
    }
    run_post(&h, "UTC", "2026-03-05", "posted"); /* late, before it is final */
    clicks_post(&h, "shoes", 250000, 1);
    MUST(invoice_draft(h.pg, "2026-03", NULL, NULL, &r, why));
    CHECK(house_number(&h, "SELECT clicks FROM invoice_line") == 5);

    /* A draft of April would hold March's runs; March takes them back. */
    MUST(invoice_draft(h.pg, "2026-04", NULL, NULL, &r, why));
    (void)finalised(&h, "2026-03", "2026-04-10T00:00:00Z");
    CHECK(house_number(&h, "SELECT clicks FROM invoice_line l JOIN invoice i ON "
                           "i.id = l.invoice_id WHERE status = 'final'") == 5);

    run_post(&h, "UTC", "2026-03-05", "posted"); /* late, after it is final */
    clicks_post(&h, "shoes", 250000, 2);
    run_post(&h, "UTC", "2026-04-05", "posted");
    clicks_post(&h, "shoes", 250000, 10);
    (void)finalised(&h, "2026-04", "2026-05-10T00:00:00Z");
    CHECK(house_number(&h, "SELECT clicks FROM invoice_line l JOIN invoice i ON "
                           "i.id = l.invoice_id WHERE month = '2026-04-01'") == 12);
    char text[64];
    house_text(&h,
               "SELECT first_day || ' ' || last_day FROM invoice_line WHERE "
               "clicks = 12",
               text, sizeof(text));
    CHECK(strcmp(text, "2026-03-05 2026-04-05") == 0);
    CHECK(house_number(&h, "SELECT sum(micros)::bigint FROM ledger_entry WHERE "
                           "ledger_account = 'unbilled:adv'") == 0);
    desk_close(&h);
}

static void
test_an_advertiser_with_two_currencies_gets_two_invoices(void)
{
    struct house h;
    struct invoice_result r;

    desk_open(&h);
    run_post(&h, "Europe/Berlin", "2026-03-05", "posted");
    clicks_post(&h, "shoes", 250000, 4);
    clicks_post(&h, "dinar", 1500, 3);
    r = finalised(&h, "2026-03", "2026-04-10T00:00:00Z");
    CHECK(r.invoices == 2 && r.lines == 2);
    CHECK(house_number(&h, "SELECT total_minor FROM invoice WHERE currency = "
                           "'EUR'") == 100);
    CHECK(house_number(&h, "SELECT total_minor FROM invoice WHERE currency = "
                           "'BHD'") == 5);
    r = finalised(&h, "2026-03", "2026-04-10T00:00:00Z");
    CHECK(r.invoices == 0);
    desk_close(&h);
}

static void
test_one_advertiser_alone(void)
{
    struct house h;
    struct invoice_result r;
    struct why told;
    struct buf out = BUF_MAX(1 << 16);

    desk_open(&h);
    run_post(&h, "UTC", "2026-03-05", "posted");
    clicks_post(&h, "shoes", 250000, 4);
    clicks_post(&h, "yen", 5000000, 3);
    MUST(invoice_draft(h.pg, "2026-03", NULL, NULL, &r, why));
    CHECK(r.invoices == 2);
    CHECK(finalise(&h, "2026-03", "jp", false, "2026-04-10T00:00:00Z", &r, &told) ==
          ERR_OK);
    CHECK(r.invoices == 1);
    CHECK(house_number(&h,
                       "SELECT count(*) FROM invoice WHERE status = 'draft' AND "
                       "advertiser_id = 'adv'") == 1);
    MUST(invoice_list(h.pg, "2026-03", true, &out, why));
    buf_add(&out, "", 1);
    CHECK(
        strcmp((const char *)out.p,
               "[{\"number\":\"INV-2026-000001\",\"status\":\"final\","
               "\"advertiser_id\":\"jp\",\"currency\":\"JPY\",\"total\":\"15\","
               "\"lines\":1},{\"number\":null,\"status\":\"draft\","
               "\"advertiser_id\":\"adv\",\"currency\":\"EUR\",\"total\":\"1.00\","
               "\"lines\":1}]\n") == 0);
    buf_free(&out);
    desk_close(&h);
}

int
main(void)
{
    test_each_line_is_rounded_once();
    test_numbers_have_no_gap_whatever_fails_in_between();
    test_a_numbers_year_is_that_of_finalising_in_utc();
    test_what_is_issued_never_changes();
    test_blocked_open_and_unclosed_days_refuse();
    test_a_late_run_goes_on_the_next_invoice_and_drafts_are_made_anew();
    test_an_advertiser_with_two_currencies_gets_two_invoices();
    test_one_advertiser_alone();
    return 0;
}

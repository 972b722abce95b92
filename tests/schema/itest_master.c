/* Campaigns in and out of a real database; keys; running stages that follow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "schema/master.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/file.h"
#include "schema/master_import.h"
#include "schema/master_key.h"
#include "schema/migrate.h"
#include "schema/zone.h"
#include "tests/itest.h"

#define HEADER                                                                   \
    "campaign_id,name,account,advertiser_id,advertiser_name,currency,time_zone," \
    "status,"                                                                    \
    "cpc,cpc_from,price_cap,daily_budget,budget_from\r\n"
#define NOW_MS INT64_C(1795255687000) /* 2026-11-21T10:08:07Z */

static char conninfo[ITEST_CONNINFO_MAX];
static struct pg *pg;

static int
make(void **state)
{
    struct why why = {""};

    (void)state;
    itest_database_make(conninfo);
    itest_need(pg_open(&pg, conninfo, &why), "open", &why);
    itest_need(migrate(pg, NULL, &why), "migrate", &why);
    return 0;
}

static int
drop(void **state)
{
    (void)state;
    pg_close(&pg);
    itest_database_drop(conninfo);
    return 0;
}

static int64_t
number_of(const char *sql)
{
    struct pg_result *rows = NULL;
    struct why why = {""};
    int64_t number;

    itest_need(pg_exec(pg, sql, NULL, 0, &rows, &why), sql, &why);
    assert_int_equal(pg_rows(rows), 1);
    number = pg_i64(rows, 0, 0);
    pg_result_free(&rows);
    return number;
}

/* Imports, and wants the report to be exactly `want` (NULL: any). */
static void
import_is(const char *csv, bool dry_run, enum err want_err, const char *want)
{
    struct buf report = BUF_MAX(1 << 20);
    struct why why = {""};
    enum err err =
        master_import_text(pg, str_of(csv), dry_run, NOW_MS, &report, &why);

    buf_add(&report, "", 1);
    if (err != want_err || (want != NULL && strcmp((char *)report.p, want) != 0))
        fprintf(stderr, "%s: %s\nreport:\n%s", err_name(err), why.text,
                (char *)report.p);
    assert_int_equal(err, want_err);
    if (want != NULL)
        assert_string_equal((char *)report.p, want);
    buf_free(&report);
}

static const char two[] =
    HEADER "c1,Spring,acme,a1,Acme Ltd,EUR,Europe/Berlin,active,0.25,,,100,\r\n"
           "c2,\"Say \"\"hi\"\", twice\",acme,a1,Acme "
           "Ltd,JPY,Asia/Kolkata,paused,event,,40,,\r\n";

static void
a_file_is_imported_and_the_same_again_changes_nothing(void **state)
{
    int64_t version;

    (void)state;
    import_is(
        two, true, ERR_OK,
        "dry run, nothing written: campaigns: 2 new, 0 changed, 0 as they were; "
        "rates 2, budgets 1, statuses 2\n");
    assert_int_equal(number_of("SELECT count(*) FROM campaign"), 0);
    import_is(two, false, ERR_OK,
              "campaigns: 2 new, 0 changed, 0 as they were; rates 2, budgets 1, "
              "statuses 2\n");
    assert_int_equal(number_of("SELECT count(*) FROM campaign"), 2);
    assert_int_equal(
        number_of("SELECT micros FROM campaign_rate WHERE campaign_id = 'c1' "
                  "AND valid_from = 'epoch'"),
        250000);
    assert_int_equal(number_of("SELECT count(*) FROM account WHERE name = 'acme'"),
                     1);
    version = number_of("SELECT version FROM master_version");
    import_is(two, false, ERR_OK,
              "campaigns: 0 new, 0 changed, 2 as they were; rates 0, budgets 0, "
              "statuses 0\n");
    assert_int_equal(number_of("SELECT version FROM master_version"), version);
}

static void
a_change_is_valid_from_now_or_from_the_date_given(void **state)
{
    (void)state;
    import_is(two, false, ERR_OK, NULL);
    import_is(HEADER
              "c1,Spring,acme,a1,Acme Ltd,EUR,Europe/Berlin,paused,0.30,,,150,\r\n"
              "c2,New name,acme,a1,,JPY,Asia/Kolkata,paused,event,,50,,\r\n",
              false, ERR_OK,
              "campaigns: 0 new, 2 changed, 0 as they were; rates 1, budgets 1, "
              "statuses 1\n");
    assert_int_equal(
        number_of("SELECT count(*) FROM campaign_rate WHERE campaign_id = 'c1' "
                  "AND valid_from = '2026-11-21T10:08:07Z' AND micros = 300000"),
        1);
    assert_int_equal(
        number_of("SELECT daily_micros FROM campaign_budget WHERE campaign_id "
                  "= 'c1' AND valid_from = '2026-11-21'"),
        150000000);
    assert_int_equal(
        number_of("SELECT price_cap_micros FROM campaign WHERE id = 'c2' AND "
                  "name = 'New name'"),
        50000000);
    import_is("cpc_from,cpc,time_zone,currency,advertiser_id,account,campaign_id\n"
              "2026-12-01T00:00:00+01:00,0.5,Europe/Berlin,EUR,a1,acme,c1\n",
              false, ERR_OK,
              "campaigns: 0 new, 1 changed, 0 as they were; rates 1, budgets 0, "
              "statuses 0\n");
    assert_int_equal(
        number_of("SELECT micros FROM campaign_rate WHERE campaign_id = 'c1' "
                  "AND valid_from = '2026-11-30T23:00:00Z'"),
        500000);
}

static void
several_lines_of_a_campaign_are_its_history(void **state)
{
    static const char history[] =
        HEADER "c1,n,acme,a1,A,EUR,UTC,active,0.25,,,,\r\n"
               "c1,n,acme,a1,A,EUR,UTC,active,0.50,2026-11-20T12:00:00Z,,10,2026-"
               "11-20\r\n";

    (void)state;
    import_is(history, false, ERR_OK,
              "campaigns: 1 new, 0 changed, 0 as they were; rates 2, budgets 1, "
              "statuses 1\n");
    import_is(history, false, ERR_OK,
              "campaigns: 0 new, 0 changed, 1 as they were; rates 0, budgets 0, "
              "statuses 0\n");
    import_is(HEADER "c1,n,acme,a1,A,EUR,UTC,active,0.25,,,,\r\n"
                     "c1,m,acme,a1,A,EUR,UTC,active,0.30,,,,\r\n",
              false, ERR_INVALID,
              "3:4: name: differs from line 2 of the same campaign\n"
              "3:31: cpc: line 2 gives another value from the same time on\n");
}

static void
every_error_is_told_by_line_and_column_and_nothing_is_written(void **state)
{
    (void)state;
    import_is(HEADER
              "c1,n,acme,a1,A,EUR,Europe/Berlin,active,0.25,,,,\r\n"
              "c 2,n,acme,a1,A,EUX,Mars,on,0.1234567,yesterday,x,-1,2026-02-30\r\n"
              ",\"two\nlines\",,a1,A,EUR,UTC,,event,,,,\r\n"
              "c4,n,acme,a1\r\n"
              "c5,\"\xC3\xA4\",other,a1,A,EUR,UTC,,,,,,\r\n",
              false, ERR_INVALID, NULL);
    assert_int_equal(number_of("SELECT count(*) FROM campaign"), 0);
    assert_int_equal(number_of("SELECT count(*) FROM account"), 0);
    import_is(HEADER "c 2,n,acme,a1,A,EUX,Mars,on,cheap,yesterday,,,2026-02-30\r\n",
              false, ERR_INVALID, NULL);
    import_is(HEADER "c2,n,acme,a1,A,EUX,Mars,on,event,yesterday,,,2026-02-30\r\n"
                     "c5,\"\xC3\xA4\",acme,a1,A,EUR,UTC,idle,1,,,,\r\n"
                     "c6,n,acme\r\n",
              false, ERR_INVALID,
              "2:16: currency: an ISO 4217 code like EUR, please\n"
              "2:20: time_zone: a tzdata name like Europe/Berlin or UTC, please\n"
              "2:25: status: active or paused, please\n"
              "2:34: cpc_from: a time like 2026-11-21T00:00:00+01:00, or nothing, "
              "please\n"
              "2:46: budget_from: a date like 2026-11-21, or nothing, please\n"
              "3:26: status: active or paused, please\n"
              "4:1: record: 3 fields, the header has 13\n");
}

static void
a_broken_header_or_quote_is_told_where_it_is(void **state)
{
    (void)state;
    import_is("", false, ERR_INVALID, "1:1: file: it is empty\n");
    import_is("campaign_id,colour,cpc,cpc\n", false, ERR_INVALID,
              "1:1: account: the column is missing\n"
              "1:1: advertiser_id: the column is missing\n"
              "1:1: currency: the column is missing\n"
              "1:1: time_zone: the column is missing\n"
              "1:13: colour: no such column; see `campaign import --help`\n"
              "1:24: cpc: the column is there twice\n");
    import_is(HEADER "c1,\"n,acme\r\n", false, ERR_INVALID,
              "3:1: CSV: the quote that begins the field is never closed\n");
    import_is(HEADER "c1,n\"m,acme\r\n", false, ERR_INVALID,
              "2:5: CSV: a quote inside a field without quotes: quote the field "
              "and double it\n");
    import_is(HEADER "c1,\xFF,acme\r\n", false, ERR_INVALID,
              "2:4: CSV: bytes that are not UTF-8: save the file as UTF-8\n");
}

static void
what_a_campaign_is_made_of_cannot_change(void **state)
{
    (void)state;
    import_is(two, false, ERR_OK, NULL);
    import_is(
        HEADER "c1,Spring,acme,a9,,USD,UTC,active,0.25,,,100,\r\n"
               "c7,x,rival,a1,,EUR,UTC,active,event,,,,\r\n",
        false, ERR_INVALID,
        "2:16: advertiser_id: it is a1 and cannot change: make a new campaign\n"
        "2:20: currency: it is EUR and cannot change: make a new campaign\n"
        "2:24: time_zone: it is Europe/Berlin and cannot change: make a new "
        "campaign\n"
        "3:6: account: advertiser a1 belongs to account acme\n");
    import_is(HEADER "c7,x,acme,a1,,EUR,UTC,active,event,,,,\r\n", false,
              ERR_INVALID,
              "2:37: price_cap: cpc is event: the cap of its price, please\n");
}

static void
nothing_back_dates_into_a_closed_day(void **state)
{
    (void)state;
    import_is(two, false, ERR_OK, NULL);
    itest_sql(
        conninfo,
        "INSERT INTO billing_run (time_zone, day, kind, sequence, input_hash, "
        "received_from, received_to, status, code_version) VALUES "
        "('Europe/Berlin', '2026-11-20', 'regular', 0, decode(repeat('00', 32), "
        "'hex'), 'epoch', 'epoch', 'posted', 'x'), "
        "('Asia/Kolkata', '2026-11-20', 'regular', 0, decode(repeat('00', 32), "
        "'hex'), 'epoch', 'epoch', 'blocked', 'x')");
    import_is(HEADER "c1,Spring,acme,a1,Acme Ltd,EUR,Europe/Berlin,active,0.30,"
                     "2026-11-20T23:59:59+01:00,,100,2026-11-20\r\n",
              false, ERR_INVALID,
              "2:58: cpc_from: it would change 2026-11-20, which is closed in "
              "Europe/Berlin: "
              "valid from 2026-11-20T23:00:00.000Z or later, please\n");
    import_is(
        HEADER "c1,Spring,acme,a1,Acme Ltd,EUR,Europe/Berlin,active,0.30,"
               "2026-11-21T00:00:00+01:00,,90,2026-11-20\r\n",
        false, ERR_INVALID,
        "2:88: budget_from: it would change 2026-11-20, which is closed in "
        "Europe/Berlin: valid from 2026-11-20T23:00:00.000Z or later, please\n");
    import_is(
        HEADER
        "c1,Spring,acme,a1,Acme Ltd,EUR,Europe/Berlin,paused,0.30,"
        "2026-11-21T00:00:00+01:00,,90,2026-11-21\r\n"
        /* a blocked run closes nothing */
        "c2,x,acme,a1,,JPY,Asia/Kolkata,paused,3,2026-11-19T00:00:00Z,40,,\r\n"
        /* a new campaign had no price that could change */
        "c3,x,acme,a1,,EUR,Europe/Berlin,active,3,,,,\r\n",
        false, ERR_OK,
        "campaigns: 1 new, 2 changed, 0 as they were; rates 3, budgets 1, statuses "
        "2\n");
}

static struct buf
exported(void)
{
    struct buf csv = BUF_MAX(1 << 20);
    struct why why = {""};

    itest_need(master_export(pg, &csv, &why), "export", &why);
    buf_add(&csv, "", 1);
    return csv;
}

static void
an_export_imports_as_no_change_and_elsewhere_as_the_same(void **state)
{
    struct buf first, second;

    (void)state;
    import_is(two, false, ERR_OK, NULL);
    import_is(HEADER
              "c1,Spring,acme,a1,Acme Ltd,EUR,Europe/Berlin,paused,0.30,,,,\r\n"
              "c9,\"a\r\nb\",acme,a1,,EUR,UTC,active,1,,,,\r\n",
              false, ERR_INVALID, NULL);
    import_is(HEADER
              "c1,Spring,acme,a1,Acme Ltd,EUR,Europe/Berlin,paused,0.30,,,,\r\n"
              "c1,Spring,acme,a1,Acme Ltd,EUR,Europe/Berlin,active,0.40,"
              "2026-11-22T00:00:00Z,,7,2027-01-01\r\n",
              false, ERR_INVALID, NULL);
    import_is(HEADER "c1,Spring,acme,a1,Acme Ltd,EUR,Europe/Berlin,paused,0.30,"
                     "2026-11-22T00:00:00.123Z,,7,2027-01-01\r\n",
              false, ERR_OK, NULL);
    first = exported();
    import_is((char *)first.p, false, ERR_OK,
              "campaigns: 0 new, 0 changed, 2 as they were; rates 0, budgets 0, "
              "statuses 0\n");
    assert_int_equal(drop(NULL), 0);
    assert_int_equal(make(NULL), 0);
    import_is((char *)first.p, false, ERR_OK, NULL);
    second = exported();
    assert_string_equal((char *)first.p, (char *)second.p);
    buf_free(&first);
    buf_free(&second);
}

static void
running_stages_follow_and_go_on_from_the_copy(void **state)
{
    char root[] = "/tmp/clickledger-master-XXXXXX", path[64];
    struct master_source *source = NULL;
    const struct master *before, *after;
    struct why why = {""};
    bool changed = true;

    (void)state;
    assert_non_null(mkdtemp(root));
    (void)snprintf(path, sizeof(path), "%s/master.cache", root);
    import_is(two, false, ERR_OK, NULL);
    itest_need(master_open(&source, root, conninfo, &why), "open", &why);
    before = master_take(source);
    assert_int_equal(before->campaigns_n, 2);
    assert_int_equal(
        master_price(master_campaign_find(before, STR("c1")), NOW_MS + 1, 1),
        250000);
    assert_int_equal(
        master_price(master_campaign_find(before, STR("c2")), 0, 50000000),
        40000000);
    assert_true(str_equal(zone_name(master_campaign_find(before, STR("c2"))->zone),
                          STR("Asia/Kolkata")));
    assert_false(
        master_campaign_active(master_campaign_find(before, STR("c2")), NOW_MS));
    assert_int_equal(master_budget(master_campaign_find(before, STR("c1")), 20000),
                     100000000);
    itest_need(master_poll(source, &changed, &why), "poll", &why);
    assert_false(changed);

    import_is(HEADER
              "c1,Spring,acme,a1,Acme Ltd,EUR,Europe/Berlin,active,0.30,,,,\r\n",
              false, ERR_OK, NULL);
    itest_need(master_poll(source, &changed, &why), "poll", &why);
    assert_true(changed);
    after = master_take(source);
    assert_int_equal(
        master_price(master_campaign_find(before, STR("c1")), NOW_MS + 1, 1),
        250000);
    assert_int_equal(
        master_price(master_campaign_find(after, STR("c1")), NOW_MS + 1, 1),
        300000);
    assert_int_equal(
        master_price(master_campaign_find(after, STR("c1")), NOW_MS - 1, 1),
        250000);
    master_drop(source, before);
    master_drop(source, after);
    master_close(&source);

    /* Away: the copy, which is as new as the last poll. */
    itest_need(master_open(&source, root, "host=/nonexistent", &why), "open", &why);
    after = master_take(source);
    assert_int_equal(
        master_price(master_campaign_find(after, STR("c1")), NOW_MS + 1, 1),
        300000);
    master_drop(source, after);
    assert_int_equal(master_poll(source, &changed, &why), ERR_AGAIN);
    master_close(&source);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(root), 0);
}

static void
keys_are_made_found_listed_and_revoked(void **state)
{
    char text[MASTER_KEY_TEXT_SIZE];
    struct master_key_new wanted = {.account = "acme",
                                    .name = "ad server",
                                    .scopes = MASTER_INGEST | MASTER_READ,
                                    .rate_clicks_per_s = 5000};
    struct master_source *source = NULL;
    const struct master *master;
    const struct master_key *key;
    struct buf list = BUF_MAX(1 << 16);
    struct why why = {""};
    uint8_t sha[32];
    uint32_t id = 0;
    bool changed;

    (void)state;
    assert_int_equal(master_key_create(pg, &wanted, text, &id, &why), ERR_NOTFOUND);
    assert_string_equal(text, "");
    wanted.make_account = true;
    itest_need(master_key_create(pg, &wanted, text, &id, &why), "create", &why);
    assert_int_equal(strlen(text), MASTER_KEY_TEXT_SIZE - 1);
    assert_true(master_key_hash(str_of(text), sha));
    assert_int_equal(
        number_of("SELECT count(*) FROM api_key WHERE encode(sha256, 'hex') "
                  "LIKE '%ck_%'"),
        0);

    itest_need(master_open(&source, NULL, conninfo, &why), "open", &why);
    master = master_take(source);
    key = master_key_find(master, sha);
    assert_non_null(key);
    assert_int_equal(key->id, id);
    assert_int_equal(key->scopes, MASTER_INGEST | MASTER_READ);
    assert_int_equal(key->rate_clicks_per_s, 5000);
    assert_int_equal(key->advertiser.n, 0);
    assert_false(key->revoked);
    master_drop(source, master);

    itest_need(master_key_list(pg, true, &list, &why), "list", &why);
    buf_add(&list, "", 1);
    assert_non_null(strstr((char *)list.p, "\"scopes\":\"ingest,read\""));
    assert_null(strstr((char *)list.p, text));
    assert_null(strstr((char *)list.p, text + 3));
    buf_free(&list);

    assert_int_equal(master_key_revoke(pg, id + 1, &why), ERR_NOTFOUND);
    itest_need(master_key_revoke(pg, id, &why), "revoke", &why);
    itest_need(master_key_revoke(pg, id, &why), "revoke again", &why);
    itest_need(master_poll(source, &changed, &why), "poll", &why);
    assert_true(changed);
    master = master_take(source);
    assert_true(master_key_find(master, sha)->revoked);
    master_drop(source, master);
    master_close(&source);
}

static void
a_key_that_makes_no_sense_is_refused(void **state)
{
    char text[MASTER_KEY_TEXT_SIZE];
    struct master_key_new wanted = {
        .account = "acme", .name = "k", .scopes = MASTER_READ};
    struct why why = {""};

    (void)state;
    import_is(two, false, ERR_OK, NULL);
    itest_need(master_key_create(pg, &wanted, text, NULL, &why), "create", &why);
    wanted.advertiser = "a1";
    itest_need(master_key_create(pg, &wanted, text, NULL, &why), "create", &why);
    wanted.advertiser = "nobody";
    assert_int_equal(master_key_create(pg, &wanted, text, NULL, &why),
                     ERR_NOTFOUND);
    wanted.advertiser = "a1";
    wanted.account = "rival";
    wanted.make_account = true;
    assert_int_equal(master_key_create(pg, &wanted, text, NULL, &why),
                     ERR_CONFLICT);
    assert_int_equal(number_of("SELECT count(*) FROM account WHERE name = 'rival'"),
                     0);
    wanted.scopes = 0;
    assert_int_equal(master_key_create(pg, &wanted, text, NULL, &why), ERR_INVALID);
    wanted.scopes = 1;
    wanted.name = "";
    assert_int_equal(master_key_create(pg, &wanted, text, NULL, &why), ERR_INVALID);
}

static void
ten_thousand_campaigns_are_imported_at_once(void **state)
{
    struct buf csv = BUF_MAX(16 << 20);

    (void)state;
    buf_add_text(&csv, HEADER);
    for (int i = 0; i < 10000; i++)
        buf_printf(&csv, "c%d,n,acme,a%d,,EUR,UTC,active,0.%02d,,,,\r\n", i, i % 50,
                   1 + i % 90);
    buf_add(&csv, "", 1);
    import_is(
        (char *)csv.p, false, ERR_OK,
        "campaigns: 10000 new, 0 changed, 0 as they were; rates 10000, budgets 0, "
        "statuses 10000\n");
    import_is(
        (char *)csv.p, false, ERR_OK,
        "campaigns: 0 new, 0 changed, 10000 as they were; rates 0, budgets 0, "
        "statuses 0\n");
    buf_free(&csv);
}

int
main(void)
{
#define IN_A_DATABASE(f) cmocka_unit_test_setup_teardown(f, make, drop)
    const struct CMUnitTest tests[] = {
        IN_A_DATABASE(a_file_is_imported_and_the_same_again_changes_nothing),
        IN_A_DATABASE(a_change_is_valid_from_now_or_from_the_date_given),
        IN_A_DATABASE(several_lines_of_a_campaign_are_its_history),
        IN_A_DATABASE(
            every_error_is_told_by_line_and_column_and_nothing_is_written),
        IN_A_DATABASE(a_broken_header_or_quote_is_told_where_it_is),
        IN_A_DATABASE(what_a_campaign_is_made_of_cannot_change),
        IN_A_DATABASE(nothing_back_dates_into_a_closed_day),
        IN_A_DATABASE(an_export_imports_as_no_change_and_elsewhere_as_the_same),
        IN_A_DATABASE(running_stages_follow_and_go_on_from_the_copy),
        IN_A_DATABASE(keys_are_made_found_listed_and_revoked),
        IN_A_DATABASE(a_key_that_makes_no_sense_is_refused),
        IN_A_DATABASE(ten_thousand_campaigns_are_imported_at_once),
    };

    (void)itest_server("CLICKLEDGER_TEST_PG");
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Days closed in a real PostgreSQL, from clicks that were really counted, archived and
 * judged. */
#include "billing/judge_core.h"
#include "tests/billing/close_fixture.h"

#define D1 \
    "2026-03-02" /* the day under test; the service starts on the day before */

static enum err
close_tried(struct house *h, const struct close_input *in,
            struct close_result *result, struct why *why)
{
    (void)h;
    memset(why, 0, sizeof(*why));
    return close_day(in, result, why);
}

static void
test_a_day_closes_once_when_its_grace_is_over(void)
{
    struct house h;
    struct close_result r;
    struct why told;

    house_open(&h);
    house_traffic(&h);
    int32_t day = day_of(D1);
    struct close_input in = house_input(&h, day, at("2026-03-03T00:45:00Z"));
    CHECK(close_tried(&h, &in, &r, &told) == ERR_AGAIN); /* nothing is judged */

    /* Kolkata's day ended at 18:30 UTC and its grace at 00:30: not judged that far. */
    house_judge(&h, at("2026-03-03T00:00:00Z"));
    CHECK(close_tried(&h, &in, &r, &told) == ERR_AGAIN);
    CHECK(r.runs_early == 4 && strstr(told.text, "--force") != NULL);
    in.zone = "Asia/Kolkata";
    CHECK(close_tried(&h, &in, &r, &told) == ERR_AGAIN);
    CHECK(strstr(told.text, "2026-03-03T00:30:00.000Z") != NULL);
    in.zone = "Mars/Olympus";
    CHECK(close_tried(&h, &in, &r, &told) == ERR_INVALID);
    CHECK(strstr(told.text, "Mars/Olympus") != NULL);
    CHECK(house_number(&h, "SELECT count(*) FROM billing_run") == 0);

    house_judge(&h, at("2026-03-03T01:00:00Z"));
    r = house_close_day(&h, day, at("2026-03-03T01:10:00Z"));
    CHECK(r.runs_new == 1 && r.runs_early == 3 && r.runs_blocked == 0);
    house_check(&h);

    house_judge(&h, at("2026-03-03T11:00:00Z")); /* New York's ends at 05:00 UTC */
    r = house_close_day(&h, day, at("2026-03-03T11:00:00Z"));
    CHECK(r.runs_new == 3 && r.runs_same == 1 && r.runs_early == 0);
    CHECK(r.clicks > 0 && r.billable > 0 && r.billable < r.clicks);
    house_check(&h);
    CHECK(house_number(&h, "SELECT count(*) FROM campaign_daily_stats WHERE "
                           "verdict = 'quarantined'") > 0);
    CHECK(house_number(&h, "SELECT count(*) FROM campaign_daily_stats s JOIN "
                           "billing_run r ON r.id = s.run_id WHERE (campaign_id = "
                           "'nobody') <> (time_zone = 'UTC')") == 0);
    CHECK(house_number(&h, "SELECT count(*) FROM campaign_daily_stats WHERE "
                           "verdict = 'over_budget'") > 0);

    r = house_close_day(&h, day, at("2026-03-03T12:00:00Z"));
    CHECK(r.runs_new == 0 && r.runs_late == 0 && r.runs_same == 4);
    house_judge(&h, at("2026-03-03T12:00:00Z")); /* judged on, nothing new */
    r = house_close_day(&h, day, at("2026-03-03T12:00:00Z"));
    CHECK(r.runs_same == 4 && r.runs_new + r.runs_late + r.runs_blocked == 0);
    CHECK(house_number(&h, "SELECT count(*) FROM billing_run") == 4);
    CHECK(house_number(&h, "SELECT count(*) FROM billing_run WHERE forced <> ''") ==
          0);
    CHECK(house_number(&h, "SELECT count(*) FROM pg_class WHERE relname = "
                           "'campaign_daily_stats_2026_03'") == 1);
    house_close(&h);
}

static void
test_debits_and_credits_by_currency(void)
{
    struct house h;

    house_open(&h);
    house_clicks(&h, "nobody", 1, at("2026-03-01T12:00:00Z"));
    house_clicks(&h, "shoes", 3, at("2026-03-02T12:00:00Z"));
    house_clicks(&h, "dinar", 2, at("2026-03-02T12:10:00Z"));
    house_clicks(&h, "fils", 7, at("2026-03-02T12:20:00Z"));
    house_judge(&h, at("2026-03-03T12:00:00Z"));
    (void)house_close_day(&h, day_of(D1), at("2026-03-03T12:00:00Z"));
    CHECK(house_number(&h, "SELECT micros FROM ledger_entry WHERE ledger_account = "
                           "'unbilled:adv' AND currency = 'EUR'") == 3 * 250001);
    CHECK(house_number(&h, "SELECT micros FROM ledger_entry WHERE ledger_account = "
                           "'unbilled:adv' AND currency = 'BHD'") == 2 * 333333);
    CHECK(house_number(&h, "SELECT micros FROM ledger_entry WHERE ledger_account = "
                           "'unbilled:bh'") == 7 * 1499);
    CHECK(house_number(&h, "SELECT clicks FROM ledger_entry WHERE ledger_account = "
                           "'unbilled:bh'") == 7);
    CHECK(house_number(&h, "SELECT sum(micros) FROM ledger_entry WHERE "
                           "ledger_account = 'revenue:1' AND currency = 'BHD'") ==
          -(2 * 333333 + 7 * 1499));
    house_check(&h);
    CHECK(pg_exec(h.pg, "UPDATE ledger_entry SET micros = 0", NULL, 0, NULL,
                  NULL) == ERR_CONFLICT);
    CHECK(pg_exec(h.pg, "DELETE FROM certificate", NULL, 0, NULL, NULL) ==
          ERR_CONFLICT);
    house_close(&h);
}

static void
test_late_clicks_post_as_late_runs_in_their_order(void)
{
    struct house h;
    struct close_result r;

    house_open(&h);
    house_clicks(&h, "shoes", 1, at("2026-03-01T12:00:00Z"));
    house_clicks(&h, "shoes", 5, at("2026-03-02T12:00:00Z"));
    house_judge(&h, at("2026-03-03T12:00:00Z"));
    r = house_close_day(&h, day_of(D1), at("2026-03-03T12:00:00Z"));
    CHECK(r.runs_new == 4 && r.clicks == 5);
    for (int late = 1; late <= 3; late++) {
        int64_t us = at("2026-03-03T12:00:00Z") + late * 5 * HOUR;
        for (int i = 0; i < late; i++)
            house_click(&h, "shoes", at("2026-03-02T13:00:00Z") / 1000 + late,
                        us - 4 * HOUR + i);
        house_judge(&h, us);
        r = house_close_day(&h, day_of(D1), us);
        CHECK(r.runs_late == 1 && r.runs_same == 3 && r.clicks == (uint64_t)late);
        house_check(&h);
    }
    char text[256];
    house_text(&h,
               "SELECT string_agg(sequence || kind || c.received, ',' ORDER BY "
               "r.id) FROM billing_run r JOIN certificate c ON c.run_id = r.id "
               "WHERE time_zone = 'Europe/Berlin'",
               text, sizeof(text));
    CHECK(strcmp(text, "0regular5,1late1,2late2,3late3") == 0);
    CHECK(house_number(&h, "SELECT sum(clicks) FROM campaign_daily_stats") == 11);
    /* Runs follow each other without a gap or an overlap. */
    CHECK(house_number(&h,
                       "SELECT count(*) FROM (SELECT received_from, "
                       "lag(received_to) OVER (PARTITION BY time_zone ORDER BY "
                       "sequence) AS before FROM billing_run) x WHERE before IS "
                       "NOT NULL AND before <> received_from") == 0);
    house_close(&h);
}

/* A day of before the service's first click has late clicks only. */
static void
test_a_day_with_only_late_clicks(void)
{
    struct house h;

    house_open(&h);
    house_click(&h, "shoes", at("2026-02-27T12:00:00Z") / 1000,
                at("2026-03-02T12:00:00Z"));
    house_judge(&h, at("2026-03-02T13:00:00Z"));
    struct close_result r =
        house_close_day(&h, day_of("2026-02-27"), at("2026-03-02T13:00:00Z"));
    CHECK(r.runs_new == 1 && r.clicks == 1);
    r = house_close_day(&h, day_of("2026-02-26"), at("2026-03-02T13:00:00Z"));
    CHECK(r.runs_new + r.runs_same + r.runs_early == 0); /* not watched: no run */
    house_check(&h);
    house_close(&h);
}

static void
test_what_was_received_and_not_judged_blocks_until_it_is(void)
{
    struct house h;
    struct close_result r;
    char text[512];

    house_open(&h);
    house_clicks(&h, "shoes", 1, at("2026-03-01T12:00:00Z"));
    house_clicks(&h, "shoes", 5, at("2026-03-02T12:00:00Z"));
    house_clicks(&h, "yen", 4, at("2026-03-02T13:00:00Z"));
    house_judge(&h, at("2026-03-03T12:00:00Z"));
    int64_t stored_us;
    MUST(received_store(h.log, h.pg, &stored_us, why));
    house_sql(&h, "UPDATE received_count SET clicks = clicks + 2 WHERE campaign_id "
                  "= 'shoes' AND hour = '2026-03-02T12:00Z'");
    for (int i = 0; i < 3; i++) { /* again and again: one blocked run */
        r = house_close_day(&h, day_of(D1), at("2026-03-03T12:00:00Z"));
        CHECK(r.runs_blocked == 1 && r.runs_new + r.runs_same == 3);
        CHECK(house_number(&h, "SELECT count(*) FROM billing_run WHERE status = "
                               "'blocked'") == 1);
    }
    house_text(&h, "SELECT differences FROM certificate WHERE differences <> ''",
               text, sizeof(text));
    CHECK(strcmp(text, "account 1 campaign shoes: received 7, judged 5") == 0);
    CHECK(house_number(&h, "SELECT count(*) FROM campaign_daily_stats WHERE "
                           "campaign_id = 'shoes'") == 0);
    CHECK(house_number(&h, "SELECT count(*) FROM ledger_entry WHERE campaign_id = "
                           "'shoes'") == 0);
    CHECK(house_number(&h, "SELECT sum(clicks) FROM campaign_daily_stats") == 4);
    house_check_chain(&h);

    house_sql(&h, "UPDATE received_count SET clicks = clicks - 2 WHERE campaign_id "
                  "= 'shoes' AND hour = '2026-03-02T12:00Z'");
    r = house_close_day(&h, day_of(D1), at("2026-03-03T12:00:00Z"));
    CHECK(r.runs_new == 1 && r.runs_blocked == 0 && r.runs_same == 3);
    CHECK(house_number(&h, "SELECT count(*) FROM billing_run WHERE status = "
                           "'blocked'") == 0);
    house_check(&h);
    house_close(&h);
}

/* After the regular run: received grows without a judged click, or falls below what was
 * posted. */
static void
test_a_difference_that_comes_later_blocks_too(void)
{
    struct house h;
    struct close_result r;

    house_open(&h);
    house_clicks(&h, "shoes", 1, at("2026-03-01T12:00:00Z"));
    house_clicks(&h, "shoes", 5, at("2026-03-02T12:00:00Z"));
    house_judge(&h, at("2026-03-03T12:00:00Z"));
    (void)house_close_day(&h, day_of(D1), at("2026-03-03T12:00:00Z"));

    /* Another log counted a late click that never reached the archive. */
    house_sql(&h,
              "INSERT INTO received_count VALUES ('2026-03-03T12:00Z', 9, 9, 1, "
              "'small', '2026-03-02T12:15Z', 1)");
    house_judge(&h, at("2026-03-03T14:00:00Z"));
    r = house_close_day(&h, day_of(D1), at("2026-03-03T14:00:00Z"));
    CHECK(r.runs_blocked == 1 && r.runs_late == 0);
    CHECK(house_number(&h, "SELECT received FROM certificate WHERE differences <> "
                           "''") == 1);
    house_sql(&h, "DELETE FROM received_count WHERE spool = 9");
    r = house_close_day(&h, day_of(D1), at("2026-03-03T14:00:00Z"));
    CHECK(r.runs_blocked == 0 && r.runs_same == 4);
    CHECK(house_number(&h, "SELECT count(*) FROM billing_run WHERE status = "
                           "'blocked'") == 0);

    house_sql(&h, "CREATE TABLE gone AS SELECT * FROM received_count WHERE quarter "
                  ">= '2026-03-02'; DELETE FROM received_count WHERE quarter >= "
                  "'2026-03-02'");
    house_click(&h, "shoes", at("2026-03-02T12:30:00Z") / 1000,
                at("2026-03-03T15:00:00Z"));
    house_judge(&h, at("2026-03-03T16:00:00Z"));
    r = house_close_day(&h, day_of(D1), at("2026-03-03T16:00:00Z"));
    CHECK(r.runs_blocked == 1);
    CHECK(house_number(&h, "SELECT received FROM certificate WHERE differences <> "
                           "''") == 1 - 5);
    house_sql(&h, "INSERT INTO received_count SELECT * FROM gone");
    r = house_close_day(&h, day_of(D1), at("2026-03-03T16:00:00Z"));
    CHECK(r.runs_late == 1 && r.runs_blocked == 0);
    house_check(&h);
    house_close(&h);
}

/* The judge's files are no longer those that the day was closed from. */
static void
test_changed_input_of_a_closed_day_is_refused(void)
{
    struct house h;
    struct close_result r;
    struct why told;
    struct judge_slice *slices;
    char path[FILE_PATH_MAX];
    uint32_t n;

    house_open(&h);
    house_clicks(&h, "shoes", 1, at("2026-03-01T12:00:00Z"));
    house_clicks(&h, "shoes", 5, at("2026-03-02T12:00:00Z"));
    house_judge(&h, at("2026-03-03T12:00:00Z"));
    (void)house_close_day(&h, day_of(D1), at("2026-03-03T12:00:00Z"));
    MUST(judge_slices(h.f.judge, &slices, &n, why));
    (void)snprintf(path, sizeof(path), "%s/judged.log", h.f.judge);
    CHECK(unlink(path) == 0);
    for (uint32_t i = 0; i < n; i++) {
        slices[i].files_sha256[7] ^= slices[i].clicks == 5;
        MUST(judge_log_append(h.f.judge, &slices[i], 0, 0, why));
    }
    free(slices);
    struct close_input in = house_input(&h, day_of(D1), at("2026-03-03T12:00:00Z"));
    CHECK(close_tried(&h, &in, &r, &told) == ERR_CONFLICT);
    CHECK(strstr(told.text, D1) != NULL && strstr(told.text, "is closed") != NULL);
    CHECK(house_number(&h, "SELECT count(*) FROM billing_run") == 4);
    house_check_chain(&h);
    house_close(&h);
}

static void
test_an_ingest_log_that_has_not_told_its_counts_is_waited_for(void)
{
    struct house h;
    struct close_result r;
    struct why told;

    house_open(&h);
    house_clicks(&h, "shoes", 1, at("2026-03-01T12:00:00Z"));
    house_clicks(&h, "shoes", 5, at("2026-03-02T12:00:00Z"));
    house_judge(&h, at("2026-03-03T12:00:00Z"));
    house_sql(&h, "INSERT INTO ingest_spool VALUES (12345, '2026-03-03T11:00Z')");
    struct close_input in = house_input(&h, day_of(D1), at("2026-03-03T12:00:00Z"));
    CHECK(close_tried(&h, &in, &r, &told) == ERR_AGAIN);
    CHECK(strstr(told.text, "3039") != NULL &&
          strstr(told.text, "2026-03-03 11:00:00+00") != NULL);
    CHECK(house_number(&h, "SELECT count(*) FROM billing_run") == 0);
    house_sql(&h, "UPDATE ingest_spool SET retired = true WHERE spool = 12345");
    r = house_close_day(&h, day_of(D1), at("2026-03-03T12:00:00Z"));
    CHECK(r.runs_new == 4);

    house_sql(&h, "UPDATE ingest_spool SET retired = false WHERE spool = 12345");
    in.day = day_of("2026-03-03");
    in.force = true;
    MUST(close_day(&in, &r, why));
    CHECK(r.runs_new == 4);
    house_check(&h);
    house_close(&h);
}

/* The shortest and the longest day of a year in Berlin, and their neighbours. */
static void
test_days_of_23_and_25_hours(void)
{
    static const struct {
        const char *event, *day;
    } clicks[] = {
        {"2026-03-27T22:59:59.999Z", "2026-03-27"},
        {"2026-03-28T22:59:59.999Z", "2026-03-28"},
        {"2026-03-28T23:00:00.000Z", "2026-03-29"},
        {"2026-03-29T21:59:59.999Z", "2026-03-29"},
        {"2026-03-29T22:00:00.000Z", "2026-03-30"},
        {"2026-10-24T21:59:59.999Z", "2026-10-24"},
        {"2026-10-24T22:00:00.000Z", "2026-10-25"},
        {"2026-10-25T22:59:59.999Z", "2026-10-25"},
        {"2026-10-25T23:00:00.000Z", "2026-10-26"},
        {"2026-12-31T22:59:59.999Z", "2026-12-31"},
        {"2026-12-31T23:00:00.000Z", "2027-01-01"},
    };
    struct house h;
    size_t n = sizeof(clicks) / sizeof(clicks[0]);
    char sql[512];

    house_open(&h);
    for (size_t i = 0; i < n; i++) {
        house_click(&h, "shoes", at(clicks[i].event) / 1000, at(clicks[i].event));
        /* a neighbour where the day is another one */
        house_click(&h, "nobody", at(clicks[i].event) / 1000, at(clicks[i].event));
        if (i + 1 < n &&
            at(clicks[i + 1].event) - at(clicks[i].event) < 3 * CLOCK_DAY_US)
            continue;
        /* the last of a group: ids are kept for 35 days, so close them now */
        int64_t us = clock_floor(at(clicks[i].event), HOUR) + 48 * HOUR;
        house_judge(&h, us);
        for (size_t k = 0; k <= i; k++)
            if (us - at(clicks[k].event) < 10 * CLOCK_DAY_US)
                (void)house_close_day(&h, day_of(clicks[k].day), us);
    }
    for (size_t i = 0; i < n; i++) {
        uint64_t expected = 0;
        for (size_t k = 0; k < n; k++)
            expected += strcmp(clicks[k].day, clicks[i].day) == 0;
        (void)snprintf(sql, sizeof(sql),
                       "SELECT sum(clicks) FROM campaign_daily_stats WHERE day = "
                       "'%s' AND campaign_id = 'shoes'",
                       clicks[i].day);
        CHECK(house_number(&h, sql) == (int64_t)expected);
    }
    CHECK(house_number(&h, "SELECT count(*) FROM billing_run WHERE status <> "
                           "'posted'") == 0);
    CHECK(house_number(&h, "SELECT count(*) FROM pg_class WHERE relname IN "
                           "('campaign_daily_stats_2026_12', "
                           "'campaign_daily_stats_2027_01')") == 2);
    house_check(&h);
    house_close(&h);
}

/* Half past an hour, before the day is over, and on from there. */
static void
test_forced_cuts_inside_an_hour_are_exact(void)
{
    struct house h;
    struct close_result r;
    char text[256];

    house_open(&h);
    house_clicks(&h, "shoes", 1, at("2026-03-01T12:00:00Z"));
    house_clicks(&h, "shoes", 600, at("2026-03-02T12:00:00Z"));
    house_judge(&h, at("2026-03-02T12:20:00Z"));
    struct close_input in = house_input(&h, day_of(D1), at("2026-03-02T12:20:00Z"));
    in.force = true;
    MUST(close_day(&in, &r, why));
    CHECK(r.runs_new == 4 && r.runs_blocked == 0 && r.clicks == 600);
    house_text(&h,
               "SELECT forced FROM billing_run WHERE time_zone = "
               "'Europe/Berlin'",
               text, sizeof(text));
    CHECK(strstr(text, "2026-03-02T12:20:00.000Z") != NULL &&
          strstr(text, "21600 s") != NULL);

    house_clicks(&h, "shoes", 300, at("2026-03-02T12:21:00Z"));
    house_judge(&h, at("2026-03-02T12:40:00.000Z") + 7);
    in.now_us = at("2026-03-02T12:40:00Z");
    MUST(close_day(&in, &r, why));
    CHECK(r.runs_late == 1 && r.clicks == 300 && r.runs_same == 3);

    /* The log goes on past the cut: that is not the run's. */
    house_clicks(&h, "shoes", 10, at("2026-03-02T12:50:00Z"));
    MUST(close_day(&in, &r, why));
    CHECK(r.runs_same == 4 && r.runs_blocked == 0);
    house_judge(&h, at("2026-03-02T14:00:00Z"));
    r = house_close_day(&h, day_of(D1), at("2026-03-02T14:00:00Z"));
    CHECK(r.runs_late == 1 && r.clicks == 10);
    CHECK(house_number(&h, "SELECT count(*) FROM billing_run WHERE received_to = "
                           "'2026-03-02T12:40:00.000007Z'") == 1);
    house_check(&h);
    house_close(&h);
}

/* A cut inside an hour that is over and no longer in the log cannot be compared: it says so,
 * and does not call that a difference. */
static void
test_a_cut_whose_counts_are_gone_is_tried_again(void)
{
    struct house h;
    struct close_result r;
    struct why told;

    house_open(&h);
    house_clicks(&h, "shoes", 1, at("2026-03-01T12:00:00Z"));
    house_clicks(&h, "shoes", 10, at("2026-03-02T12:00:00Z"));
    house_judge(&h, at("2026-03-02T12:20:00Z"));
    house_clicks(&h, "shoes", 10, at("2026-03-02T12:30:00Z"));
    MUST(clicklog_append(h.log, NULL, 0, at("2026-03-02T13:00:00Z"), NULL, why));
    int64_t stored_us;
    MUST(received_store(h.log, h.pg, &stored_us, why));
    CHECK(stored_us == at("2026-03-02T13:00:00Z"));
    MUST(clicklog_received_drop(h.log, stored_us, why));
    struct close_input in = house_input(&h, day_of(D1), at("2026-03-02T13:00:00Z"));
    in.force = true;
    CHECK(close_tried(&h, &in, &r, &told) == ERR_AGAIN && r.runs_blocked == 0);
    in.log = NULL;
    CHECK(close_tried(&h, &in, &r, &told) == ERR_AGAIN);
    CHECK(house_number(&h, "SELECT count(*) FROM billing_run WHERE status = "
                           "'blocked'") == 0);
    house_judge(&h, at("2026-03-02T13:00:00Z"));
    in.log = h.log;
    MUST(close_day(&in, &r, why));
    CHECK(r.runs_blocked == 0);
    CHECK(house_number(&h, "SELECT sum(clicks) FROM campaign_daily_stats") == 20);
    house_check(&h);
    house_close(&h);
}

static int64_t newcomer_known_us;

static const struct zone *
newcomer_zone(const struct memory *click)
{
    return strcmp(click->campaign, "newcomer") == 0 &&
                   click->received_us < newcomer_known_us
               ? zone_find(STR("UTC"))
               : NULL;
}

/* Clicks came before their campaign was imported: they are quarantined on UTC's day, the
 * later ones are billed on New York's. */
static void
test_a_campaign_that_was_unknown_at_first_closes_in_both_zones(void)
{
    struct house h;
    struct close_result r;

    house_open(&h);
    house_clicks(&h, "shoes", 1, at("2026-03-01T01:00:00Z"));
    house_clicks(&h, "newcomer", 5, at("2026-03-02T10:00:00Z"));
    house_clicks(&h, "shoes", 2, at("2026-03-02T10:10:00Z"));
    newcomer_known_us = at("2026-03-02T10:30:00Z");
    house_judge(&h, newcomer_known_us); /* a cut in the very hour */
    house_sql(
        &h, "INSERT INTO campaign (id, advertiser_id, name, time_zone, currency, "
            "price_cap_micros) VALUES ('newcomer', 'bh', 'N', 'America/New_York', "
            "'BHD', 1000000); INSERT INTO campaign_rate VALUES ('newcomer', "
            "'epoch', 5000); INSERT INTO campaign_status VALUES ('newcomer', "
            "'epoch', true)");
    house_follow(&h);
    CHECK(master_campaign_find(h.f.master, STR("newcomer")) != NULL);
    struct memory *last = &h.clicks[h.n];
    house_clicks(&h, "newcomer", 7, at("2026-03-02T10:40:00Z"));
    CHECK(last->account == 2);
    house_judge(&h, at("2026-03-03T12:00:00Z"));
    r = house_close_day(&h, day_of(D1), at("2026-03-03T12:00:00Z"));
    CHECK(r.runs_new == 4 && r.runs_blocked == 0);
    house_check_chain(&h);
    house_check_money(&h);
    house_check_stats(&h, newcomer_zone);
    CHECK(house_number(&h, "SELECT sum(received) FROM certificate") == 14);
    CHECK(house_number(&h,
                       "SELECT sum(clicks) FROM campaign_daily_stats WHERE "
                       "campaign_id = 'newcomer' AND verdict = 'billable'") == 7);

    /* Late, in both ways of looking at it; and a lost one is still found out. */
    house_click(&h, "newcomer", at("2026-03-02T11:00:00Z") / 1000,
                at("2026-03-03T12:10:00Z"));
    house_judge(&h, at("2026-03-03T13:00:00Z"));
    int64_t stored_us;
    MUST(received_store(h.log, h.pg, &stored_us, why));
    house_sql(&h, "UPDATE received_count SET clicks = clicks + 1 WHERE campaign_id "
                  "= 'newcomer' AND hour = '2026-03-03T12:00Z'");
    r = house_close_day(&h, day_of(D1), at("2026-03-03T13:00:00Z"));
    CHECK(r.runs_blocked == 1 && r.runs_late == 0);
    house_sql(&h, "UPDATE received_count SET clicks = clicks - 1 WHERE campaign_id "
                  "= 'newcomer' AND hour = '2026-03-03T12:00Z'");
    r = house_close_day(&h, day_of(D1), at("2026-03-03T13:00:00Z"));
    CHECK(r.runs_blocked == 0 && r.runs_late == 1);
    house_check_stats(&h, newcomer_zone);
    house_check_money(&h);
    house_close(&h);
}

/* Nobody has a campaign in a zone any more, in which clicks were judged. */
static void
test_a_zone_that_master_data_has_left_still_closes(void)
{
    struct house h;
    struct close_result r;

    house_open(&h);
    house_clicks(&h, "fils", 1, at("2026-03-01T01:00:00Z"));
    house_clicks(&h, "fils", 9, at("2026-03-02T12:00:00Z"));
    house_judge(&h, at("2026-03-02T13:00:00Z"));
    house_sql(&h,
              "UPDATE campaign SET time_zone = 'Asia/Kolkata' WHERE id = 'fils'");
    house_follow(&h);
    house_judge(&h, at("2026-03-03T12:00:00Z"));
    r = house_close_day(&h, day_of(D1), at("2026-03-03T12:00:00Z"));
    CHECK(r.runs_blocked == 0);
    CHECK(house_number(&h, "SELECT sum(s.clicks) FROM campaign_daily_stats s JOIN "
                           "billing_run r ON r.id = s.run_id WHERE r.time_zone = "
                           "'America/New_York'") == 9);
    house_check_money(&h);
    house_close(&h);
}

/* Rows that do not fit at once are written in parts. */
static void
test_more_rows_than_memory_holds(void)
{
    struct house h;
    struct close_result r;

    house_open(&h);
    house_traffic(&h);
    house_judge(&h, at("2026-03-03T12:00:00Z"));
    struct close_input in = house_input(&h, day_of(D1), at("2026-03-03T12:00:00Z"));
    in.rows_max = 7;
    MUST(close_day(&in, &r, why));
    CHECK(r.runs_new == 4 && r.clicks > 100);
    house_check(&h);
    house_close(&h);
}

int
main(void)
{
    test_a_day_closes_once_when_its_grace_is_over();
    test_debits_and_credits_by_currency();
    test_late_clicks_post_as_late_runs_in_their_order();
    test_a_day_with_only_late_clicks();
    test_what_was_received_and_not_judged_blocks_until_it_is();
    test_a_difference_that_comes_later_blocks_too();
    test_changed_input_of_a_closed_day_is_refused();
    test_an_ingest_log_that_has_not_told_its_counts_is_waited_for();
    test_days_of_23_and_25_hours();
    test_forced_cuts_inside_an_hour_are_exact();
    test_a_cut_whose_counts_are_gone_is_tried_again();
    test_a_campaign_that_was_unknown_at_first_closes_in_both_zones();
    test_a_zone_that_master_data_has_left_still_closes();
    test_more_rows_than_memory_holds();
    return 0;
}

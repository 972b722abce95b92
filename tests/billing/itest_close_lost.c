/* Days that are closed although an ingest log is lost: what it had told stays exact, what it had
 * not is counted from the archive, by name. */
#include "billing/invoice.h"
#include "billing/recount.h"
#include "tests/billing/close_fixture.h"

#define D1 "2026-03-02"

enum { LOST = 7, LOST_INCARNATION = 700 };

static void
taken_by_lost(struct house *h)
{
    h->lost = true;
    h->incarnation = LOST_INCARNATION;
}

static void
taken_by_ours(struct house *h)
{
    struct clicklog_stats stats;

    clicklog_stats_get(h->log, &stats);
    h->lost = false;
    h->incarnation = stats.incarnation;
}

/* Log 7 takes 3 clicks in the hour of 11, which it tells, and 5 + 2 in the hour of 12, which it
 * does not; it is lost at 12:50, and ours takes 4 more in that hour, and 2 later. */
static void
lost_open(struct house *h)
{
    house_open(h);
    taken_by_ours(h);
    house_clicks(h, "shoes", 1, at("2026-03-01T12:00:00Z"));
    taken_by_lost(h);
    house_clicks(h, "shoes", 3, at(D1 "T11:10:00Z"));
    house_clicks(h, "shoes", 5, at(D1 "T12:20:00Z"));
    house_clicks(h, "yen", 2, at(D1 "T12:40:00Z"));
    house_sql(h, "INSERT INTO ingest_spool VALUES (7, '2026-03-02T12:00Z')");
    house_sql(h, "INSERT INTO received_count VALUES ('2026-03-02T11:00Z', 7, 700, "
                 "1, 'shoes', '2026-03-02T11:00Z', 3)");
}

static void
lost_known(struct house *h)
{
    house_sql(h,
              "UPDATE ingest_spool SET lost_at = '2026-03-02T12:50Z' WHERE spool "
              "= 7");
}

static void
ours_goes_on(struct house *h)
{
    taken_by_ours(h);
    house_clicks(h, "shoes", 4, at(D1 "T12:55:00Z"));
    house_clicks(h, "yen", 2, at(D1 "T13:10:00Z"));
}

static bool
text_is(struct house *h, const char *sql, const char *want)
{
    char text[512];

    house_text(h, sql, text, sizeof(text));
    if (strcmp(text, want) != 0)
        printf("is '%s', should be '%s'\n", text, want);
    return strcmp(text, want) == 0;
}

static void
test_less_received_is_accepted_and_named(void)
{
    struct house h;
    struct close_result r;
    struct why told;

    lost_open(&h);
    ours_goes_on(&h);
    house_judge(&h, at("2026-03-03T12:00:00Z"));
    struct close_input in = house_input(&h, day_of(D1), at("2026-03-03T12:00:00Z"));
    CHECK(close_day(&in, &r, &told) == ERR_AGAIN); /* it is waited for */
    CHECK(strstr(told.text, "forget") != NULL);

    lost_known(&h);
    r = house_close_day(&h, day_of(D1), at("2026-03-03T12:00:00Z"));
    CHECK(r.runs_new == 4 && r.runs_blocked == 0);
    CHECK(r.clicks == 16 && r.recounted == 7);
    CHECK(text_is(&h,
                  "SELECT string_agg(time_zone || ' ' || received || ' ' || "
                  "recounted || ' ' || recounted_spools, ', ' ORDER BY time_zone) "
                  "FROM certificate c JOIN billing_run r ON r.id = c.run_id WHERE "
                  "received > 0",
                  "Asia/Kolkata 4 2 0000000000000007:2, Europe/Berlin 12 5 "
                  "0000000000000007:5"));
    CHECK(house_number(&h,
                       "SELECT sum(clicks) FROM received_recount WHERE spool = 7 "
                       "AND incarnation = 700 AND hour = "
                       "'2026-03-02T12:00Z'") == 7);
    CHECK(house_number(&h, "SELECT count(*) FROM ingest_spool WHERE spool = 7 AND "
                           "recounted_until = '2026-03-03T12:00Z'") == 1);
    house_check(&h);

    r = house_close_day(&h, day_of(D1), at("2026-03-03T12:00:00Z"));
    CHECK(r.runs_same == 4 && r.recounted == 0);
    house_click(&h, "shoes", at(D1 "T13:00:00Z") / 1000,
                at("2026-03-03T12:30:00Z"));
    house_judge(&h, at("2026-03-03T13:00:00Z"));
    r = house_close_day(&h, day_of(D1), at("2026-03-03T13:00:00Z"));
    CHECK(r.runs_late == 1 && r.clicks == 1 && r.recounted == 0);
    CHECK(house_number(&h, "SELECT sum(clicks) FROM received_recount") == 7);
    house_check(&h);
    house_close(&h);
}

/* Each by one click: blocked, with these numbers. */
static void
is_blocked(const char *sql, const char *differences)
{
    struct house h;

    lost_open(&h);
    ours_goes_on(&h);
    lost_known(&h);
    house_judge(&h, at("2026-03-03T12:00:00Z"));
    int64_t stored_us;
    MUST(received_store(h.log, h.pg, &stored_us, why));
    house_sql(&h, sql);
    struct close_result r =
        house_close_day(&h, day_of(D1), at("2026-03-03T12:00:00Z"));
    CHECK(r.runs_blocked == 1 && r.runs_new == 3);
    CHECK(text_is(&h, "SELECT differences FROM certificate WHERE differences <> ''",
                  differences));
    CHECK(house_number(&h, "SELECT count(*) FROM ledger_entry WHERE campaign_id = "
                           "'shoes'") == 0);
    house_close(&h);
}

static void
test_what_it_had_told_and_what_others_count_stays_exact(void)
{
    is_blocked("UPDATE received_count SET clicks = 2 WHERE spool = 7",
               "account 1 campaign shoes: received 11, judged 12");
    is_blocked("UPDATE received_count SET clicks = 4 WHERE spool = 7",
               "account 1 campaign shoes: received 13, judged 12");
    is_blocked("UPDATE received_count SET clicks = clicks + 1 WHERE campaign_id = "
               "'shoes' AND spool <> 7 AND hour = '2026-03-02T12:00Z'",
               "account 1 campaign shoes: received 13, judged 12");
    is_blocked("UPDATE received_count SET clicks = clicks - 1 WHERE campaign_id = "
               "'shoes' AND spool <> 7 AND hour = '2026-03-02T12:00Z'",
               "account 1 campaign shoes: received 11, judged 12");
    /* Nobody counted the whole of an hour that it had told. */
    is_blocked("DELETE FROM received_count WHERE spool = 7",
               "account 1 campaign shoes: received 9, judged 12");
}

static void
test_clicks_after_it_was_lost_are_not_its(void)
{
    struct house h;

    lost_open(&h);
    house_clicks(&h, "shoes", 1, at(D1 "T12:51:00Z")); /* of nobody's count */
    ours_goes_on(&h);
    lost_known(&h);
    house_judge(&h, at("2026-03-03T12:00:00Z"));
    struct close_result r =
        house_close_day(&h, day_of(D1), at("2026-03-03T12:00:00Z"));
    CHECK(r.runs_blocked == 1 && r.recounted == 2);
    CHECK(text_is(&h, "SELECT differences FROM certificate WHERE differences <> ''",
                  "account 1 campaign shoes: received 12, judged 13"));
    house_close(&h);
}

static void
test_hours_that_another_log_has_not_told_wait_for_it(void)
{
    struct house h;
    struct close_result r;
    struct why told;

    lost_open(&h);
    ours_goes_on(&h);
    lost_known(&h);
    house_sql(&h, "INSERT INTO ingest_spool VALUES (8, '2026-03-02T12:00Z')");
    house_judge(&h, at("2026-03-03T12:00:00Z"));
    struct close_input in = house_input(&h, day_of(D1), at("2026-03-03T12:00:00Z"));
    CHECK(close_day(&in, &r, &told) == ERR_AGAIN);
    in.force = true; /* its clicks cannot be told from those of 7 */
    MUST(close_day(&in, &r, why));
    CHECK(r.runs_blocked == 2 && r.recounted == 0);
    CHECK(house_number(&h, "SELECT count(*) FROM received_recount") == 0);

    house_sql(&h, "UPDATE ingest_spool SET reported_until = '2026-03-03T12:00Z' "
                  "WHERE spool = 8");
    in.force = false;
    MUST(close_day(&in, &r, why));
    CHECK(r.runs_blocked == 0 && r.runs_new == 2 && r.recounted == 7);
    house_check(&h);
    house_close(&h);
}

/* Nobody knew of log 9 when its clicks were counted as those of 7; then it tells them. */
static void
test_a_log_that_is_heard_of_late_counts_itself(void)
{
    struct house h;
    bool any = false;

    lost_open(&h);
    ours_goes_on(&h);
    lost_known(&h);
    house_judge(&h, at("2026-03-03T12:00:00Z"));
    int64_t stored_us;
    MUST(received_store(h.log, h.pg, &stored_us, why));
    const struct recount_input in = {h.pg, h.log, h.f.archive,
                                     at("2026-03-03T12:00:00Z")};
    for (int i = 0; i < 2; i++)
        MUST(recount_store(&in, &any, why));
    CHECK(any && house_number(&h, "SELECT sum(clicks) FROM received_recount") == 7);
    house_sql(&h, "INSERT INTO received_count VALUES ('2026-03-02T12:00Z', 9, 700, "
                  "1, 'shoes', '2026-03-02T12:15Z', 5), ('2026-03-02T12:00Z', 9, "
                  "700, 1, 'yen', '2026-03-02T12:30Z', 2)");
    struct close_result r =
        house_close_day(&h, day_of(D1), at("2026-03-03T12:00:00Z"));
    CHECK(r.runs_new == 4 && r.clicks == 16 && r.recounted == 0);
    house_check(&h);
    house_close(&h);
}

/* A forced cut inside the very hour. The clicks until the cut are looked up, and later, when the
 * hour is over, stored; each is named once. */
static void
test_a_forced_cut_inside_the_lost_hour(void)
{
    struct house h;
    struct close_result r;

    lost_open(&h);
    lost_known(&h);
    house_judge(&h, at(D1 "T12:45:00Z"));
    struct close_input in = house_input(&h, day_of(D1), at(D1 "T12:45:00Z"));
    in.force = true;
    MUST(close_day(&in, &r, why));
    CHECK(r.runs_blocked == 0 && r.clicks == 10 && r.recounted == 7);
    CHECK(house_number(&h, "SELECT count(*) FROM received_recount") == 0);
    house_click(&h, "shoes", at(D1 "T12:47:00Z") / 1000, at(D1 "T12:47:00Z"));
    ours_goes_on(&h);
    house_judge(&h, at("2026-03-03T12:00:00Z"));
    r = house_close_day(&h, day_of(D1), at("2026-03-03T12:00:00Z"));
    CHECK(r.runs_late == 2 && r.clicks == 7 && r.recounted == 1);
    house_check(&h);
    house_close(&h);

    lost_open(&h);
    lost_known(&h);
    ours_goes_on(&h);
    house_judge(&h, at(D1 "T13:20:00Z"));
    in = house_input(&h, day_of(D1), at(D1 "T13:20:00Z"));
    in.force = true;
    MUST(close_day(&in, &r, why));
    CHECK(r.runs_blocked == 0 && r.clicks == 16 && r.recounted == 7);
    house_click(&h, "yen", at(D1 "T13:00:00Z") / 1000, at(D1 "T13:30:00Z"));
    house_judge(&h, at("2026-03-03T12:00:00Z"));
    r = house_close_day(&h, day_of(D1), at("2026-03-03T12:00:00Z"));
    CHECK(r.runs_late == 1 && r.clicks == 1 && r.recounted == 0);
    house_check(&h);
    house_close(&h);
}

/* The first run was counted by the log itself, which is lost afterwards. */
static void
test_a_log_that_is_lost_after_a_run(void)
{
    struct house h;
    struct close_result r;
    int64_t stored_us;
    struct why told;
    char sql[160];
    struct clicklog_stats stats;

    house_open(&h);
    taken_by_ours(&h);
    house_clicks(&h, "shoes", 1, at("2026-03-01T12:00:00Z"));
    house_clicks(&h, "shoes", 3, at(D1 "T11:10:00Z"));
    house_clicks(&h, "shoes", 5, at(D1 "T12:20:00Z"));
    house_judge(&h, at(D1 "T12:30:00Z"));
    struct close_input in = house_input(&h, day_of(D1), at(D1 "T12:30:00Z"));
    in.force = true;
    MUST(close_day(&in, &r, why));
    CHECK(r.clicks == 8 && r.recounted == 0);
    house_clicks(&h, "shoes", 2, at(D1 "T12:40:00Z"));

    clicklog_stats_get(h.log, &stats);
    (void)snprintf(sql, sizeof(sql),
                   "UPDATE ingest_spool SET lost_at = '2026-03-02T12:50Z' WHERE "
                   "spool = %lld",
                   (long long)stats.spool_id);
    house_sql(&h, sql);
    CHECK(received_store(h.log, h.pg, &stored_us, &told) == ERR_CONFLICT);
    CHECK(strstr(told.text, "lost") != NULL);
    house_judge(&h, at("2026-03-03T12:00:00Z"));
    in = house_input(&h, day_of(D1), at("2026-03-03T12:00:00Z"));
    CHECK(close_day(&in, &r, &told) == ERR_CONFLICT); /* its log is here still */
    in.log = NULL;
    MUST(close_day(&in, &r, why));
    CHECK(r.runs_late == 1 && r.runs_blocked == 0 && r.clicks == 2);
    CHECK(r.recounted == 7); /* five of them are in the run before */
    house_check(&h);
    house_close(&h);
}

static void
test_giving_a_log_up(void)
{
    struct house h;
    struct received_lost lost;
    struct why told;

    house_open(&h);
    CHECK(received_lose(h.pg, 9, false, false, &lost, &told) == ERR_NOTFOUND);
    CHECK(strstr(told.text, "0000000000000009") != NULL);
    MUST(received_lose(h.pg, 9, true, false, &lost, why)); /* the topics know it */
    CHECK(!lost.known && strncmp(lost.told_to, "1970", 4) == 0);

    int64_t stored_us;
    struct clicklog_stats stats;
    MUST(received_store(h.log, h.pg, &stored_us, why));
    clicklog_stats_get(h.log, &stats);
    CHECK(received_lose(h.pg, stats.spool_id, true, false, &lost, &told) ==
          ERR_CONFLICT);
    CHECK(strstr(told.text, "--force") != NULL);
    MUST(received_lose(h.pg, stats.spool_id, false, true, &lost, why));
    char first[sizeof(lost.lost_at)];
    memcpy(first, lost.lost_at, sizeof(first));
    MUST(received_lose(h.pg, stats.spool_id, false, false, &lost, why)); /* again */
    CHECK(lost.known && strcmp(first, lost.lost_at) == 0);
    CHECK(received_store(h.log, h.pg, &stored_us, &told) == ERR_CONFLICT);
    house_close(&h);
}

static void
test_a_month_waits_until_lost_clicks_are_counted(void)
{
    struct house h;
    struct invoice_result issued;
    struct why told;

    lost_open(&h);
    ours_goes_on(&h);
    lost_known(&h);
    house_judge(&h, at("2026-03-03T12:00:00Z"));
    CHECK(invoice_finalise(h.pg, "2026-03", NULL, false, at("2026-05-01T00:00:00Z"),
                           0, NULL, &issued, &told) == ERR_CONFLICT);
    CHECK(strstr(told.text, "0000000000000007") != NULL);
    (void)house_close_day(&h, day_of(D1), at("2026-03-03T12:00:00Z"));
    /* Now it is the first of the month, of which there are clicks, that is not closed. */
    CHECK(invoice_finalise(h.pg, "2026-03", NULL, false, at("2026-05-01T00:00:00Z"),
                           0, NULL, &issued, &told) == ERR_CONFLICT);
    CHECK(strstr(told.text, "2026-03-01") != NULL);
    (void)house_close_day(&h, day_of("2026-03-01"), at("2026-03-03T12:00:00Z"));
    MUST(invoice_finalise(h.pg, "2026-03", NULL, false, at("2026-05-01T00:00:00Z"),
                          0, NULL, &issued, why));
    CHECK(issued.invoices == 2);
    house_close(&h);
}

/* Hours whose clicks the brokers have not got yet are not told. */
static void
test_counts_wait_for_their_clicks(void)
{
    struct house h;
    int64_t stored_us = 0;

    house_open(&h);
    house_clicks(&h, "shoes", 1, at(D1 "T10:10:00Z"));
    house_clicks(&h, "shoes", 1, at(D1 "T11:10:00Z"));
    MUST(clicklog_append(h.log, NULL, 0, at(D1 "T12:10:00Z"), NULL, why));
    MUST(received_store_below(h.log, h.pg, 1, &stored_us, why));
    CHECK(house_number(&h, "SELECT count(*) FROM received_count") == 0);
    MUST(received_store_below(h.log, h.pg, at(D1 "T11:30:00Z"), &stored_us, why));
    CHECK(stored_us == at(D1 "T11:00:00Z"));
    CHECK(house_number(&h, "SELECT sum(clicks) FROM received_count") == 1);
    MUST(received_store_below(h.log, h.pg, at(D1 "T10:30:00Z"), &stored_us, why));
    MUST(received_store_below(h.log, h.pg, INT64_MAX, &stored_us, why));
    CHECK(house_number(&h, "SELECT sum(clicks) FROM received_count") == 2);
    house_close(&h);
}

int
main(void)
{
    test_less_received_is_accepted_and_named();
    test_what_it_had_told_and_what_others_count_stays_exact();
    test_clicks_after_it_was_lost_are_not_its();
    test_hours_that_another_log_has_not_told_wait_for_it();
    test_a_log_that_is_heard_of_late_counts_itself();
    test_a_forced_cut_inside_the_lost_hour();
    test_a_log_that_is_lost_after_a_run();
    test_giving_a_log_up();
    test_a_month_waits_until_lost_clicks_are_counted();
    test_counts_wait_for_their_clicks();
    return 0;
}

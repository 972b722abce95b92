/* Several processes at one PostgreSQL: days closed once, counts told once. */
#include <signal.h>
#include <sys/wait.h>

#include "tests/billing/close_fixture.h"

#define D1 \
    "2026-03-02" /* the day under test; the service starts on the day before */

static void
close_in_child(struct house *h, int32_t day, const char *zone)
{
    struct close_input in = house_input(h, day, at("2026-03-03T12:00:00Z"));
    struct close_result r;
    struct pg *pg = NULL;
    struct why told = {{0}};

    in.log = NULL; /* told already */
    in.zone = zone;
    if (pg_open(&pg, h->conninfo, &told) != ERR_OK)
        _exit(2);
    in.pg = pg;
    enum err err = close_day(&in, &r, &told);
    if (err != ERR_OK || r.runs_blocked > 0)
        fprintf(stderr, "child: %s\n", told.text);
    _exit(err == ERR_OK && r.runs_blocked == 0 ? 0 : 1);
}

static void
children_wait(int n)
{
    for (int i = 0; i < n; i++) {
        int status = 0;
        CHECK(wait(&status) > 0);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
}

static void
test_processes_that_close_at_once_close_once_in_one_chain(void)
{
    static const char *const zones[] = {NULL, "Europe/Berlin", "Asia/Kolkata",
                                        "UTC", "America/New_York"};
    struct house h;
    int n = 0;

    house_open(&h);
    house_traffic(&h);
    house_judge(&h, at("2026-03-03T12:00:00Z"));
    int64_t stored_us;
    MUST(received_store(h.log, h.pg, &stored_us, why));
    for (int i = 0; i < 10; i++) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0)
            close_in_child(&h, day_of(i % 2 == 0 ? D1 : "2026-03-01"),
                           zones[i % 5]);
        n++;
    }
    children_wait(n);
    CHECK(house_number(&h, "SELECT count(*) FROM billing_run WHERE day = '" D1
                           "'") == 4);
    CHECK(house_number(&h, "SELECT count(*) FROM billing_run WHERE status = "
                           "'blocked'") == 0);
    house_check(&h);
    house_close(&h);
}

/* A process that looked at the judge's record before another one judged and posted on. */
static void
progress_overtakes(void *ctx, uint64_t done, uint64_t total)
{
    struct house *h = ctx;
    static volatile sig_atomic_t once;

    (void)done;
    (void)total;
    if (once++ > 0)
        return;
    struct pg *other = NULL;
    int64_t stored_us;
    house_judge(h, at("2026-03-03T13:00:00Z"));
    MUST(pg_open(&other, h->conninfo, why));
    MUST(received_store(h->log, other, &stored_us, why));
    pg_close(&other);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        close_in_child(h, day_of(D1), "Europe/Berlin"); /* ours is Kolkata */
    children_wait(1);
}

static void
test_a_process_that_was_overtaken_finds_a_no_op(void)
{
    struct house h;
    struct close_result r;

    house_open(&h);
    house_clicks(&h, "shoes", 1, at("2026-03-01T12:00:00Z"));
    house_clicks(&h, "shoes", 5, at("2026-03-02T12:00:00Z"));
    house_clicks(&h, "yen", 5, at("2026-03-02T13:00:00Z"));
    house_judge(&h, at("2026-03-03T12:00:00Z"));
    struct close_input in = house_input(&h, day_of(D1), at("2026-03-03T12:00:00Z"));
    int64_t stored_us;
    MUST(received_store(h.log, h.pg, &stored_us, why));
    in.progress = progress_overtakes;
    in.progress_ctx = &h;
    MUST(close_day(&in, &r, why));
    CHECK(r.runs_blocked == 0 && r.runs_new == 3 && r.runs_same == 1);
    house_check(&h);
    house_close(&h);
}

static void
store_in_child(struct house *h)
{
    struct pg *pg = NULL;
    struct why told = {{0}};
    int64_t stored_us;

    if (pg_open(&pg, h->conninfo, &told) != ERR_OK)
        _exit(2);
    enum err err = received_store(h->log, pg, &stored_us, &told);
    if (err != ERR_OK)
        fprintf(stderr, "child: %s\n", told.text);
    _exit(err == ERR_OK ? 0 : 1);
}

static void
test_received_counts_are_stored_once(void)
{
    struct house h;
    int64_t stored_us = 0;

    house_open(&h);
    house_clicks(&h, "shoes", 100, at("2026-03-01T12:00:00Z"));
    house_clicks(&h, "shoes", 50, at("2026-03-01T13:30:00Z"));
    /* The open hour is not told. */
    for (int i = 0; i < 3; i++) {
        MUST(received_store(h.log, h.pg, &stored_us, why));
        CHECK(stored_us == at("2026-03-01T13:00:00Z"));
        CHECK(house_number(&h, "SELECT sum(clicks) FROM received_count") == 100);
    }
    MUST(clicklog_append(h.log, NULL, 0, at("2026-03-01T14:00:00Z"), NULL, why));
    MUST(received_store(h.log, h.pg, &stored_us, why));
    CHECK(house_number(&h, "SELECT sum(clicks) FROM received_count") == 150);
    CHECK(house_number(&h, "SELECT count(*) FROM ingest_spool WHERE reported_until "
                           "= '2026-03-01T14:00Z'") == 1);
    /* The same hour told twice is refused by the table itself. */
    CHECK(pg_exec(h.pg, "INSERT INTO received_count SELECT * FROM received_count",
                  NULL, 0, NULL, NULL) == ERR_CONFLICT);
    house_close(&h);
}

/* No row says yet what was told: all tell at once. */
static void
test_processes_that_tell_the_same_counts_at_once(void)
{
    struct house h;

    house_open(&h);
    house_clicks(&h, "shoes", 100, at("2026-03-01T12:00:00Z"));
    MUST(clicklog_append(h.log, NULL, 0, at("2026-03-01T14:00:00Z"), NULL, why));
    for (int i = 0; i < 8; i++) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0)
            store_in_child(&h);
    }
    children_wait(8);
    CHECK(house_number(&h, "SELECT sum(clicks) FROM received_count") == 100);
    house_close(&h);
}

int
main(void)
{
    test_processes_that_close_at_once_close_once_in_one_chain();
    test_a_process_that_was_overtaken_finds_a_no_op();
    test_received_counts_are_stored_once();
    test_processes_that_tell_the_same_counts_at_once();
    return 0;
}

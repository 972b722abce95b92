/* The scheduler of two processes beside one PostgreSQL: with one data directory's copy each,
 * and with data directories that differ. */
#include "deploy/stages.h"

#include <stdatomic.h>
#include <sys/wait.h>

#include "tests/billing/close_fixture.h"

/* Midday, UTC, four days ago: closed everywhere by now, whatever the grace. */
static int64_t
noon_us(void)
{
    return clock_floor(clock_now_us(), CLOCK_DAY_US) - 4 * CLOCK_DAY_US + 12 * HOUR;
}

static void
house_fill(struct house *h)
{
    house_open(h);
    house_clicks(h, "shoes", 1, noon_us() - 2 * CLOCK_DAY_US);
    house_clicks(h, "shoes", 5, noon_us());
    house_clicks(h, "yen", 3, noon_us() + HOUR);
    int64_t now_us = clock_now_us(), stored_us;
    MUST(clicklog_append(h->log, NULL, 0, now_us, NULL, why));
    archiver_roll(&h->archiver, now_us);
    MUST(received_store(h->log, h->pg, &stored_us, why));
}

static void
stages_of(struct stages *stages, const struct house *h, const char *data_dir)
{
    *stages = (struct stages){.config = &h->f.config,
                              .master = h->f.master_source,
                              .rules = h->f.rules_source};
    (void)snprintf(stages->archive_dir, sizeof(stages->archive_dir), "%s/archive",
                   data_dir);
    (void)snprintf(stages->judge_dir, sizeof(stages->judge_dir), "%s/judge",
                   data_dir);
}

/* One look from a process of its own; its exit code is 0, or 1 when it was not its turn. */
static pid_t
look_in_child(const struct house *h, const char *data_dir)
{
    pid_t pid = fork();

    CHECK(pid >= 0);
    if (pid != 0)
        return pid;
    struct stages stages;
    struct pg *pg = NULL;
    struct why told;
    int64_t judged_us = 0;
    stages_of(&stages, h, data_dir);
    if (pg_open(&pg, h->conninfo, &told) != ERR_OK)
        _exit(2);
    enum err err = stages_look(&stages, pg, &judged_us, &told);
    pg_close(&pg);
    _exit(err == ERR_OK ? 0 : err == ERR_AGAIN ? 1 : 2);
}

static int
child_ended(pid_t pid)
{
    int status = 0;

    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    CHECK(WEXITSTATUS(status) < 2);
    return WEXITSTATUS(status);
}

/* A copy of an archive that is not judged yet: as a restored machine would have. */
static void
copy_make(const struct house *h, char copy[PATH_SIZE])
{
    (void)snprintf(copy, PATH_SIZE, "%s/copy", h->f.dir);
    MUST(file_mkdirs(copy, why));
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        (void)execlp("cp", "cp", "-r", h->f.archive, copy, (char *)NULL);
        _exit(1);
    }
    CHECK(child_ended(pid) == 0);
    char judge[PATH_SIZE + 8];
    (void)snprintf(judge, sizeof(judge), "%s/judge", copy);
    MUST(file_mkdirs(judge, why));
}

static int64_t
posted(struct house *h)
{
    CHECK(house_number(h, "SELECT count(*) FROM billing_run WHERE status <> "
                          "'posted'") == 0);
    return house_number(h, "SELECT count(*) FROM billing_run");
}

static void
test_who_has_the_lock_is_alone(void)
{
    struct house h;
    struct pg *other = NULL;
    bool got = false;

    house_fill(&h);
    MUST(pg_open(&other, h.conninfo, why));
    MUST(pg_try_lock(other, INT64_C(0x636c69636b6c6564), &got, why));
    CHECK(got);
    CHECK(child_ended(look_in_child(&h, h.f.dir)) == 1);
    CHECK(posted(&h) == 0 && access(h.f.judge, F_OK) == 0);
    pg_close(&other); /* a process that dies takes its lock with it */
    int tries = 0;
    while (child_ended(look_in_child(&h, h.f.dir)) != 0)
        CHECK(tries++ < 50);
    CHECK(posted(&h) > 0);
    house_check(&h);
    house_close(&h);
}

/* Two machines with the same clicks: whoever is first closes, the other finds it done. */
static void
test_two_copies_close_each_day_once(void)
{
    struct house h;
    char copy[PATH_SIZE];

    house_fill(&h);
    copy_make(&h, copy);
    int went = 0;
    for (int round = 0; round < 4; round++) {
        pid_t a = look_in_child(&h, h.f.dir), b = look_in_child(&h, copy);
        int waited = child_ended(a) + child_ended(b);
        CHECK(waited <= 1);
        went += 2 - waited;
    }
    CHECK(went >= 4);
    while (child_ended(look_in_child(&h, h.f.dir)) != 0)
        ;
    int64_t runs = posted(&h);
    CHECK(runs > 0);
    CHECK(house_number(&h, "SELECT count(*) FROM billing_run WHERE sequence > 0") ==
          0);
    CHECK(house_number(&h, "SELECT sum(clicks) FROM campaign_daily_stats") == 9);
    CHECK(child_ended(look_in_child(&h, copy)) == 0);
    CHECK(posted(&h) == runs);
    house_check(&h);
    house_close(&h);
}

/* A second data directory that never saw these clicks: what is closed stays closed, and
 * nothing is posted from it. */
static void
test_another_data_directory_changes_nothing_that_is_closed(void)
{
    struct house h, other;
    char text[512], before[512];
    static const char runs[] =
        "SELECT md5(string_agg(r::text || c::text, ',' ORDER BY r.id)) FROM "
        "billing_run r JOIN certificate c ON c.run_id = r.id WHERE status = "
        "'posted'";

    house_fill(&h);
    CHECK(child_ended(look_in_child(&h, h.f.dir)) == 0);
    house_text(&h, runs, before, sizeof(before));
    int64_t entries = house_number(&h, "SELECT count(*) FROM ledger_entry");
    house_open(
        &other); /* its own clicks, in its own archive; its database is not used */
    house_clicks(&other, "shoes", 2, noon_us() - 2 * CLOCK_DAY_US);
    archiver_roll(&other.archiver, clock_now_us());
    CHECK(child_ended(look_in_child(&h, other.f.dir)) == 0);
    house_text(&h, runs, text, sizeof(text));
    CHECK(strcmp(text, before) == 0);
    CHECK(house_number(&h, "SELECT count(*) FROM ledger_entry") == entries);
    house_check_chain(&h);
    house_close(&other);
    house_close(&h);
}

/* The other one first: it judged other clicks than were counted, so it can only block, and
 * the right one takes the blocked runs away. */
static void
test_another_data_directory_that_comes_first_can_only_block(void)
{
    struct house h, other;

    house_fill(&h);
    house_open(&other);
    house_clicks(&other, "shoes", 2, noon_us() - 2 * CLOCK_DAY_US);
    archiver_roll(&other.archiver, clock_now_us());
    CHECK(child_ended(look_in_child(&h, other.f.dir)) == 0);
    CHECK(house_number(&h, "SELECT count(*) FROM ledger_entry") == 0);
    CHECK(house_number(&h, "SELECT count(*) FROM billing_run WHERE status = "
                           "'blocked'") > 0);
    CHECK(house_number(&h, "SELECT coalesce(sum(clicks), 0) FROM "
                           "campaign_daily_stats") == 0);
    house_close(&other);
    house_close(&h);
}

/* Nothing ran for three weeks: the day before the pause is still closed. */
static void
test_a_day_that_was_missed_is_closed_at_the_next_start(void)
{
    struct house h;
    int64_t us = noon_us() - 20 * CLOCK_DAY_US, stored_us;

    house_open(&h);
    house_clicks(&h, "shoes", 1, us - CLOCK_DAY_US);
    house_clicks(&h, "shoes", 5, us);
    MUST(clicklog_append(h.log, NULL, 0, clock_now_us(), NULL, why));
    archiver_roll(&h.archiver, clock_now_us());
    MUST(received_store(h.log, h.pg, &stored_us, why));
    CHECK(child_ended(look_in_child(&h, h.f.dir)) == 0);
    CHECK(posted(&h) > 0);
    CHECK(house_number(&h, "SELECT sum(clicks) FROM campaign_daily_stats") == 6);
    house_check(&h);
    house_close(&h);
}

int
main(void)
{
    test_who_has_the_lock_is_alone();
    test_two_copies_close_each_day_once();
    test_another_data_directory_changes_nothing_that_is_closed();
    test_another_data_directory_that_comes_first_can_only_block();
    test_a_day_that_was_missed_is_closed_at_the_next_start();
    return 0;
}

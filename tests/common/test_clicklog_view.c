/* What readers ask beside records: where a time begins, cuts, owners. The LMDB log. */
#include "common/clicklog.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/clock.h"
#include "tests/common/clicklog_fixture.h"

static const int64_t T0 = INT64_C(1795000000000000) / CLOCK_HOUR_US * CLOCK_HOUR_US;

enum { GROUPS = 50, GROUP = 7, PARTITIONS = 3 };

/* Group i is received at T0 + i seconds, GROUP clicks for partition 1. */
static struct clicklog *
log_filled(const struct folder *folder, const char *body)
{
    struct clicklog_config cfg = config_of(folder, PARTITIONS);
    struct clicklog *log;
    struct clicklog_entry entries[GROUP];

    MUST(clicklog_open(&log, &cfg, why));
    for (int i = 0; i < GROUP; i++)
        entries[i] = (struct clicklog_entry){.account = 7,
                                             .campaign = STR("c"),
                                             .event_ms = T0 / 1000,
                                             .partition = 1,
                                             .version = 2,
                                             .body = str_of(body)};
    for (int i = 0; i < GROUPS; i++)
        MUST(clicklog_append(log, entries, GROUP, T0 + i * CLOCK_SECOND_US, NULL,
                             why));
    return log;
}

static void
since_is(struct clicklog *log, int64_t since_us, uint64_t offset, int64_t received)
{
    struct clicklog_reader *reader;
    uint64_t got;
    int64_t got_us;

    MUST(clicklog_reader_open(&reader, log, why));
    MUST(clicklog_since(reader, 1, since_us, &got, &got_us, why));
    assert_int_equal(got, offset);
    assert_int_equal(got_us, received);
    clicklog_reader_close(&reader);
}

static void
a_time_begins_at_the_first_record_received_at_or_after_it(void **unused)
{
    struct folder folder = folder_make();
    struct clicklog *log = log_filled(&folder, "x");
    struct clicklog_reader *reader;
    uint64_t offset;
    int64_t us;

    (void)unused;
    since_is(log, 0, 0, T0);
    since_is(log, T0, 0, T0);
    since_is(log, T0 + 1, GROUP, T0 + CLOCK_SECOND_US);
    since_is(log, T0 + 30 * CLOCK_SECOND_US, 30 * GROUP, T0 + 30 * CLOCK_SECOND_US);
    since_is(log, T0 + 30 * CLOCK_SECOND_US - 1, 30 * GROUP,
             T0 + 30 * CLOCK_SECOND_US);
    since_is(log, T0 + 49 * CLOCK_SECOND_US + 1, (uint64_t)GROUPS * GROUP,
             INT64_MAX);
    MUST(clicklog_reader_open(&reader, log, why));
    MUST(clicklog_since(reader, 0, 0, &offset, &us, why)); /* an empty partition */
    assert_int_equal(offset, 0);
    assert_int_equal(us, INT64_MAX);
    assert_int_equal(clicklog_since(reader, 9, 0, &offset, &us, NULL), ERR_INVALID);
    clicklog_reader_close(&reader);
    clicklog_close(&log);
    folder_remove(&folder);
}

static void
of_a_trimmed_log_a_time_begins_at_what_is_left(void **unused)
{
    struct folder folder = folder_make();
    struct clicklog *log = log_filled(&folder, "x");

    (void)unused;
    MUST(clicklog_trim(log, 1, 20 * GROUP, why));
    since_is(log, T0, 20 * GROUP, T0 + 20 * CLOCK_SECOND_US);
    since_is(log, T0 + 25 * CLOCK_SECOND_US, 25 * GROUP, T0 + 25 * CLOCK_SECOND_US);
    MUST(clicklog_trim(log, 1, (uint64_t)GROUPS * GROUP, why));
    since_is(log, T0, (uint64_t)GROUPS * GROUP, INT64_MAX);
    clicklog_close(&log);
    folder_remove(&folder);
}

static void
a_mark_is_floor_and_next_of_one_commit_also_in_another_process(void **unused)
{
    struct folder folder = folder_make();
    struct clicklog_config cfg = config_of(&folder, PARTITIONS);
    struct clicklog_mark mark;
    struct clicklog *log;

    (void)unused;
    MUST(clicklog_open(&log, &cfg, why));
    MUST(clicklog_mark_get(log, &mark, why));
    assert_int_equal(mark.floor_us, 0); /* none yet */
    clicklog_close(&log);
    log = log_filled(&folder, "x");
    MUST(clicklog_mark_get(log, &mark, why));
    assert_int_equal(mark.next[0], 0);
    assert_int_equal(mark.next[1], GROUPS * GROUP);
    assert_true(mark.floor_us > T0 + 49 * CLOCK_SECOND_US);
    MUST(clicklog_append(log, NULL, 0, T0 + CLOCK_HOUR_US, NULL, why));
    MUST(clicklog_mark_get(log, &mark, why));
    assert_true(mark.floor_us >= T0 + CLOCK_HOUR_US);
    assert_int_equal(mark.next[1], GROUPS * GROUP);
    assert_int_equal(mark.next[PARTITIONS], 0);
    clicklog_close(&log);
    cfg.read_only = true;
    MUST(clicklog_open(&log, &cfg, why));
    MUST(clicklog_mark_get(log, &mark, why));
    assert_int_equal(mark.next[1], GROUPS * GROUP);
    assert_true(mark.floor_us >= T0 + CLOCK_HOUR_US);
    clicklog_close(&log);
    folder_remove(&folder);
}

static void
the_lmdb_log_is_owned_by_its_reader_for_good(void **unused)
{
    struct folder folder = folder_make();
    struct clicklog *log = log_filled(&folder, "x");
    uint64_t offset;

    (void)unused;
    assert_false(clicklog_is_kafka(log));
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        assert_int_equal(clicklog_owned(log, p), 1);
        clicklog_let_go(log, p);
        assert_int_equal(clicklog_owned(log, p), 1);
    }
    assert_int_equal(clicklog_owned(log, PARTITIONS), 0);
    assert_int_equal(clicklog_end(log, 0), 0);
    assert_int_equal(clicklog_end(log, 1), GROUPS * GROUP);
    assert_int_equal(clicklog_end(log, 99), 0);
    assert_int_equal(clicklog_find(log, 1, 0, 1, 1, &offset, NULL), ERR_NOTFOUND);
    clicklog_close(&log);
    folder_remove(&folder);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_time_begins_at_the_first_record_received_at_or_after_it),
        cmocka_unit_test(of_a_trimmed_log_a_time_begins_at_what_is_left),
        cmocka_unit_test(
            a_mark_is_floor_and_next_of_one_commit_also_in_another_process),
        cmocka_unit_test(the_lmdb_log_is_owned_by_its_reader_for_good),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

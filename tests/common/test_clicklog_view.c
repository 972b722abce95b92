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

/* n clicks of one partition. */
static void
fill(struct clicklog *log, uint32_t partition, int n)
{
    for (int i = 0; i < n; i++) {
        const struct clicklog_entry entry = {.account = 7,
                                             .campaign = STR("c"),
                                             .event_ms = T0 / 1000,
                                             .partition = partition,
                                             .version = 2,
                                             .body = STR("x")};

        MUST(clicklog_append(log, &entry, 1, T0, NULL, why));
    }
}

static void
offset_is(struct clicklog *log, uint32_t p, uint64_t incarnation, uint64_t count,
          uint64_t want)
{
    uint64_t offset = 99;

    MUST(clicklog_offset_of(log, p, (struct clicklog_last){incarnation, count},
                            &offset, why));
    assert_int_equal(offset, want);
}

static void
last_is(const struct clicklog_last *last, uint64_t incarnation, uint64_t count)
{
    assert_int_equal(last->incarnation, incarnation);
    assert_int_equal(last->count, count);
}

/* Runs with 3, 0, 4, 0 and 5 clicks of partition 0; 2 of partition 1 in the first alone. */
static void
a_mark_says_how_far_the_last_two_incarnations_of_a_partition_came(void **unused)
{
    static const int counts[] = {3, 0, 4, 0, 5};
    struct folder folder = folder_make();
    struct clicklog_config cfg = config_of(&folder, PARTITIONS);
    struct clicklog_mark mark;
    struct clicklog_stats stats;
    struct clicklog *log;
    uint64_t run[5], next[CLICKLOG_PARTITIONS_MAX], offset;

    (void)unused;
    for (int i = 0; i < 5; i++) {
        MUST(clicklog_open(&log, &cfg, why));
        clicklog_stats_get(log, &stats);
        run[i] = stats.incarnation;
        fill(log, 0, counts[i]);
        fill(log, 1, i == 0 ? 2 : 0);
        if (i == 3) {
            MUST(clicklog_trim(log, 0, 7, why)); /* counts stay */
            MUST(clicklog_mark_get(log, &mark, why));
            assert_int_equal(mark.incarnation, run[3]);
            last_is(&mark.last[0], run[2], 4);
            last_is(&mark.before[0], run[0], 3);
        }
        if (i < 4)
            clicklog_close(&log);
    }
    for (int reopened = 0; reopened < 2; reopened++) {
        MUST(clicklog_mark_get(log, &mark, why));
        assert_int_equal(mark.spool_id, stats.spool_id);
        assert_int_equal(mark.incarnation, run[4]);
        last_is(&mark.last[0], run[4], 5);
        last_is(&mark.before[0], run[2], 4);
        last_is(&mark.last[1], run[0], 2);
        last_is(&mark.before[1], 0, 0);
        last_is(&mark.last[2], 0, 0);
        MUST(clicklog_ends(log, next, why));
        assert_memory_equal(next, mark.next, PARTITIONS * sizeof(next[0]));
        offset_is(log, 0, run[0], 2, 2);
        offset_is(log, 0, run[1], 0, 3);
        offset_is(log, 0, run[1], 9, 3); /* more than it has: an older image */
        offset_is(log, 0, run[2], 4, 7);
        offset_is(log, 0, run[4], 1, 8);
        offset_is(log, 1, run[4], 0, 2);
        assert_int_equal(clicklog_offset_of(log, 0,
                                            (struct clicklog_last){12345, 1},
                                            &offset, NULL),
                         ERR_NOTFOUND);
        assert_int_equal(
            clicklog_offset_of(log, 0, (struct clicklog_last){0, 0}, &offset, NULL),
            ERR_NOTFOUND);
        clicklog_close(&log);
        cfg.read_only = true; /* as the relay and the keeper's commands see it */
        MUST(clicklog_open(&log, &cfg, why));
    }
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
        cmocka_unit_test(
            a_mark_says_how_far_the_last_two_incarnations_of_a_partition_came),
        cmocka_unit_test(the_lmdb_log_is_owned_by_its_reader_for_good),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

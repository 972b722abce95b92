/* Records as a log may hold them, with repeats, holes and what was sent again: each one
 * that counts is counted once. */
#include "aggregate/gap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "aggregate/owner.h"

static void
test_the_next_seq_counts_a_lower_one_is_a_repeat_a_higher_one_a_gap(void **state)
{
    struct seqs seqs = {0};

    (void)state;
    assert_int_equal(seqs_take(&seqs, 7, 1, false), SEQ_GAP);
    assert_int_equal(seqs_take(&seqs, 7, 0, false), SEQ_NEXT);
    assert_int_equal(seqs_take(&seqs, 7, 1, false), SEQ_NEXT);
    assert_int_equal(seqs_take(&seqs, 7, 0, false), SEQ_AGAIN);
    assert_int_equal(seqs_take(&seqs, 7, 3, false), SEQ_GAP);
    assert_int_equal(seqs_take(&seqs, 8, 0, false), SEQ_NEXT);
    assert_int_equal(seqs_take(&seqs, 7, 2, false), SEQ_NEXT); /* sent again late */
    assert_int_equal(seqs_take(&seqs, 9, 500, true), SEQ_NEXT);
    assert_int_equal(seqs_take(&seqs, 9, 501, false), SEQ_NEXT);
    assert_int_equal(seqs_expected(&seqs, 9), 502);
    assert_int_equal(seqs_expected(&seqs, 10), 0);
    assert_true(seqs_known(&seqs, 7));
    assert_false(seqs_known(&seqs, 10));
}

static void
test_many_incarnations_are_known_and_fit_their_field(void **state)
{
    struct seqs seqs = {0};
    char text[SEQS_TEXT_MAX];

    (void)state;
    for (uint64_t i = 0; i < SEQS_MAX; i++)
        assert_int_equal(seqs_take(&seqs, UINT64_MAX - i, UINT64_MAX - 1, true),
                         SEQ_NEXT);
    for (uint64_t i = 0; i < SEQS_MAX; i++)
        assert_int_equal(seqs_take(&seqs, UINT64_MAX - i, 5, false), SEQ_AGAIN);
    assert_true(seqs_format(&seqs, text) < SEQS_TEXT_MAX);
    assert_int_equal(seqs_take(&seqs, 1, 0, false), SEQ_NEXT);
    assert_int_equal(seqs.n, SEQS_MAX);
    assert_false(seqs_known(&seqs, UINT64_MAX)); /* the oldest */
}

static void
test_a_skip_ends_where_the_missing_record_is(void **state)
{
    struct gap gap = {0};

    (void)state;
    assert_false(gap_skips(&gap, 0, 7, 5));
    gap_skip_add(&gap, (struct gap_skip){7, 5, 100});
    assert_true(gap_skips(&gap, 40, 7, 6));
    assert_true(gap_skips(&gap, 99, 7, 9));
    assert_false(gap_skips(&gap, 99, 7, 5)); /* the one that is missing */
    assert_false(gap_skips(&gap, 100, 7, 9));
    assert_false(gap_skips(&gap, 40, 8, 9)); /* of another incarnation */
    gap_skip_add(&gap, (struct gap_skip){7, 20, 200});
    assert_true(gap_skips(&gap, 150, 7, 21));
    assert_false(gap_skips(&gap, 150, 7, 15));
}

static void
test_the_skip_that_ends_first_makes_room(void **state)
{
    struct gap gap = {0};

    (void)state;
    for (uint64_t i = 0; i < GAP_SKIPS_MAX; i++)
        gap_skip_add(&gap, (struct gap_skip){i + 1, 0, 100 + i});
    gap_skip_add(&gap, (struct gap_skip){99, 0, 500});
    assert_true(gap_skips(&gap, 50, 99, 1));
    assert_false(gap_skips(&gap, 50, 1, 1));
    for (uint64_t i = 1; i < GAP_SKIPS_MAX; i++)
        assert_true(gap_skips(&gap, 50, i + 1, 1));
}

/* --- a log made at random, read by the rule --- */

enum { SEQ_N = 60, LOG_MAX = 4000, INCARNATIONS = 3 };

struct entry {
    uint64_t incarnation, seq;
};

struct made_log {
    struct entry of[LOG_MAX];
    size_t n;
};

static void
send(struct made_log *log, uint64_t incarnation, uint64_t from, uint64_t to)
{
    for (uint64_t s = from; s < to; s++)
        log->of[log->n++] = (struct entry){incarnation, s};
}

/* Each incarnation in pieces, some lost, some twice; at the end all is sent again, as
 * `relay rewind` does. */
static void
log_make(struct made_log *log)
{
    log->n = 0;
    for (uint64_t i = 1; i <= INCARNATIONS; i++) {
        for (uint64_t s = 0; s < SEQ_N;) {
            uint64_t to = s + 1 + (uint64_t)(rand() % 10);

            to = to > SEQ_N ? SEQ_N : to;
            if (rand() % 6 != 0)
                send(log, i, s, to);
            if (rand() % 4 == 0)
                send(log, i, s > 5 ? s - 5 : 0, to);
            s = to;
        }
    }
    for (uint64_t i = 1; i <= INCARNATIONS; i++)
        send(log, i, 0, SEQ_N);
}

static uint64_t
log_find(const struct made_log *log, size_t from, uint64_t incarnation,
         uint64_t seq)
{
    for (size_t at = from; at < log->n; at++)
        if (log->of[at].incarnation == incarnation && log->of[at].seq == seq)
            return at;
    fail_msg("it was sent again, so it is somewhere");
    return 0;
}

static void
test_after_a_rewind_each_record_has_been_counted_once_and_in_order(void **state)
{
    static struct made_log log;

    (void)state;
    srand(7);
    for (int round = 0; round < 500; round++) {
        uint64_t next[INCARNATIONS + 1] = {0};
        struct seqs seqs = {0};
        struct gap gap = {0};

        log_make(&log);
        for (size_t at = 0; at < log.n;) {
            uint64_t incarnation = log.of[at].incarnation, seq = log.of[at].seq;
            enum seq_answer answer = seqs_take(&seqs, incarnation, seq, false);

            if (answer == SEQ_GAP && !gap_skips(&gap, at, incarnation, seq)) {
                uint64_t want = seqs_expected(&seqs, incarnation);

                gap_skip_add(
                    &gap, (struct gap_skip){incarnation, want,
                                            log_find(&log, at, incarnation, want)});
                continue; /* the same record again */
            }
            if (answer == SEQ_NEXT)
                assert_int_equal(seq, next[incarnation]++);
            at++;
        }
        for (int i = 1; i <= INCARNATIONS; i++)
            assert_int_equal(next[i], SEQ_N);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            test_the_next_seq_counts_a_lower_one_is_a_repeat_a_higher_one_a_gap),
        cmocka_unit_test(test_many_incarnations_are_known_and_fit_their_field),
        cmocka_unit_test(test_a_skip_ends_where_the_missing_record_is),
        cmocka_unit_test(test_the_skip_that_ends_first_makes_room),
        cmocka_unit_test(
            test_after_a_rewind_each_record_has_been_counted_once_and_in_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What a worker does when the log gives it a partition or takes it. */
#include "aggregate/tenure.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/clock.h"

static void
test_each_state_and_owner_has_one_answer(void **state)
{
    static const enum part_state others[] = {PART_CLAIM, PART_WARM, PART_RUN,
                                             PART_LOST};

    (void)state;
    assert_int_equal(tenure_of(PART_IDLE, 0, 0), TENURE_NONE);
    assert_int_equal(tenure_of(PART_IDLE, 0, 3), TENURE_TAKE);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(tenure_of(others[i], 3, 3), TENURE_HOLD);
        assert_int_equal(tenure_of(others[i], 3, 0), TENURE_LEAVE);
        assert_int_equal(tenure_of(others[i], 3, 4), TENURE_AGAIN);
    }
}

static void
test_taking_forgets_what_the_last_tenure_waited_for(void **state)
{
    struct part part = {.state = PART_IDLE,
                        .retry_us = 9,
                        .flush_retry_us = 9,
                        .leave_us = 9,
                        .claimed_before = true};

    (void)state;
    tenure_take(&part, 7);
    assert_int_equal(part.state, PART_CLAIM);
    assert_int_equal(part.taken, 7);
    assert_int_equal(part.retry_us, 0);
    assert_int_equal(part.flush_retry_us, 0);
    assert_int_equal(part.leave_us, 0);
    assert_false(part.claimed_before);
}

static void
test_a_partition_is_settled_when_nothing_of_it_is_only_in_memory(void **state)
{
    static const struct {
        const char *name;
        enum part_state state;
        uint64_t flushed, inflight, read_next;
        uint32_t judged_n;
        bool want;
    } cases[] = {
        {"all flushed", PART_RUN, 5, 5, 5, 0, true},
        {"counted, not flushed", PART_RUN, 5, 5, 6, 0, false},
        {"a flush without an answer", PART_RUN, 5, 6, 5, 0, false},
        {"verdicts not on record", PART_RUN, 5, 5, 5, 1, false},
        {"not claimed yet", PART_CLAIM, 5, 5, 6, 0, true},
        {"warming", PART_WARM, 5, 5, 5, 0, true},
        {"another's", PART_LOST, 5, 6, 7, 0, true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct part part = {.state = cases[i].state,
                            .flushed = cases[i].flushed,
                            .inflight = cases[i].inflight,
                            .read_next = cases[i].read_next,
                            .judged_n = cases[i].judged_n};

        if (tenure_settled(&part) != cases[i].want)
            fail_msg("%s", cases[i].name);
    }
}

static void
test_leaving_is_given_up_within_half_a_session(void **state)
{
    struct config config = {.kafka_session_ms = 1000};
    struct shared shared = {.config = &config};
    struct part part = {.shared = &shared};

    (void)state;
    assert_int_equal(tenure_leave_until_us(&part, 1000000), 1400000);
    assert_int_equal(tenure_leave_until_us(&part, 1300000), 1400000);
    part.leave_us = 0;
    config.kafka_session_ms = 600000; /* nobody waits for minutes */
    assert_int_equal(tenure_leave_until_us(&part, 1000000), 6000000);
}

static void
test_a_lag_is_as_old_as_its_oldest_click_or_the_standstill(void **state)
{
    struct part part = {.state = PART_RUN, .flushed = 10};
    const int64_t s = CLOCK_SECOND_US, now = 1000 * CLOCK_SECOND_US;

    (void)state;
    part.lag.records = metric_gauge("records", NULL, "");
    part.lag.seconds = metric_gauge("seconds", NULL, "");
    assert_int_equal(part_lag_us(&part, 10, now), 0);
    assert_int_equal(part_lag_us(&part, 12, now), 0); /* just come */
    part.oldest_us = now - 5 * s;
    assert_int_equal(part_lag_us(&part, 13, now + s), 6 * s);
    assert_int_equal(metric_value(part.lag.records), 3);
    assert_int_equal(metric_value(part.lag.seconds), 6);
    part.flushed = 13;
    part.oldest_us = 0;
    assert_int_equal(part_lag_us(&part, 13, now + 2 * s), 0);
    assert_int_equal(metric_value(part.lag.seconds), 0);
    /* nothing can be read: the lag grows all the same */
    part.state = PART_CLAIM;
    assert_int_equal(part_lag_us(&part, 20, now + 3 * s), 0);
    assert_int_equal(part_lag_us(&part, 90, now + 63 * s), 60 * s);
    assert_int_equal(metric_value(part.lag.seconds), 60);
    part.flushed = 15; /* it moves */
    assert_int_equal(part_lag_us(&part, 90, now + 64 * s), 0);
    assert_int_equal(metric_value(part.lag.records), 75);
    part.oldest_us = now + 70 * s; /* a clock that is ahead */
    assert_int_equal(part_lag_us(&part, 90, now + 64 * s), 0);
    part.state = PART_IDLE; /* another's */
    part.oldest_us = 0;
    assert_int_equal(part_lag_us(&part, 99, now + 99 * s), 0);
    assert_int_equal(metric_value(part.lag.records), 0);
    part.lag.records = part.lag.seconds = NULL;
    assert_int_equal(part_lag_us(&part, 99, now + 99 * s), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_state_and_owner_has_one_answer),
        cmocka_unit_test(test_taking_forgets_what_the_last_tenure_waited_for),
        cmocka_unit_test(
            test_a_partition_is_settled_when_nothing_of_it_is_only_in_memory),
        cmocka_unit_test(test_leaving_is_given_up_within_half_a_session),
        cmocka_unit_test(
            test_a_lag_is_as_old_as_its_oldest_click_or_the_standstill),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

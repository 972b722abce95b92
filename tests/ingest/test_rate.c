/* Time is an argument, so an hour of clicks runs at once and a failure replays.
 * Shown here: for one key the limit is exact; between keys there is no influence; a
 * request passes whole or not at all; threads share one limit. */
#include "ingest/rate.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define SEC INT64_C(1000000)
#define T0  (INT64_C(1700000000) * SEC)

enum { KEYS = 1024, THREADS = 4, CLICKS_PER_THREAD = 20000 };

static const struct rate_limit TEN = {.clicks_per_s = 10, .burst = 3};

static struct rate *
table(void)
{
    struct rate *rate;

    assert_int_equal(rate_open(&rate, KEYS, NULL), ERR_OK);
    return rate;
}

static enum rate_verdict
check(struct rate *rate, uint64_t key, uint32_t clicks, int64_t now_us)
{
    int64_t wait_us;

    return rate_check(rate, key, &TEN, clicks, now_us, &wait_us);
}

static void
test_a_burst_is_spent_then_refills_by_the_interval(void **state)
{
    static const struct {
        int64_t at_us;
        enum rate_verdict want;
    } clicks[] = {
        {0, RATE_PASS},         {0, RATE_PASS},          {0, RATE_PASS},
        {0, RATE_LIMITED},      {99999, RATE_LIMITED},   {100000, RATE_PASS},
        {100000, RATE_LIMITED}, {SEC * 3600, RATE_PASS},
    };
    struct rate *rate = table();

    (void)state;
    for (size_t i = 0; i < sizeof(clicks) / sizeof(clicks[0]); i++)
        assert_int_equal(check(rate, 42, 1, T0 + clicks[i].at_us), clicks[i].want);
    rate_close(&rate);
    assert_null(rate);
}

static void
test_a_request_passes_whole_or_costs_nothing(void **state)
{
    struct rate *rate = table();
    int64_t wait_us;

    (void)state;
    assert_int_equal(check(rate, 1, 2, T0), RATE_PASS);
    assert_int_equal(rate_check(rate, 1, &TEN, 2, T0, &wait_us), RATE_LIMITED);
    assert_int_equal(wait_us, 100000); /* one of the two has room already */
    assert_int_equal(check(rate, 1, 1, T0), RATE_PASS);
    assert_int_equal(rate_check(rate, 1, &TEN, 3, T0, &wait_us), RATE_LIMITED);
    assert_int_equal(wait_us, 300000);
    assert_int_equal(check(rate, 1, 3, T0 + wait_us - 1), RATE_LIMITED);
    assert_int_equal(check(rate, 1, 3, T0 + wait_us), RATE_PASS);
    assert_int_equal(check(rate, 2, 4, T0), RATE_NEVER);
    rate_close(&rate);
}

/* The model is a leaking bucket: plainer, and another algorithm. */
static void
test_it_agrees_with_a_leaking_bucket(void **state)
{
    const int64_t interval_us = 100000, depth_us = 3 * interval_us;
    struct rate *rate = table();
    int64_t level_us = 0, now_us = T0;

    (void)state;
    srand(1);
    for (int i = 0; i < 1000000; i++) {
        int64_t step_us = rand() % 250000;
        uint32_t clicks = 1 + (uint32_t)rand() % 3;

        now_us += step_us;
        level_us = level_us > step_us ? level_us - step_us : 0;
        if (level_us + clicks * interval_us > depth_us) {
            assert_int_equal(check(rate, 7, clicks, now_us), RATE_LIMITED);
        } else {
            assert_int_equal(check(rate, 7, clicks, now_us), RATE_PASS);
            level_us += clicks * interval_us;
        }
    }
    rate_close(&rate);
}

static void
test_a_flood_limits_no_quiet_key_and_frees_no_loud_one(void **state)
{
    struct rate *rate = table();
    struct rate_stats stats;

    (void)state;
    assert_int_equal(check(rate, 1, 3, T0), RATE_PASS);
    for (uint64_t i = 1; i <= 5000; i++)
        assert_int_equal(check(rate, i << 32 | (i & 1023), 1, T0), RATE_PASS);
    assert_int_equal(check(rate, 0, 1, T0), RATE_PASS);
    assert_int_equal(check(rate, 1, 1, T0), RATE_LIMITED);

    rate_stats_get(rate, &stats);
    assert_int_equal(stats.passed, 3 + 5000 + 1);
    assert_int_equal(stats.limited, 1);
    assert_int_equal(stats.forgotten, 5002 - KEYS); /* distinct keys - slots */
    rate_close(&rate);
}

struct hammer {
    struct rate *rate;
    uint64_t passed;
};

static void *
hammer_main(void *arg)
{
    struct hammer *hammer = arg;
    const struct rate_limit limit = {.clicks_per_s = 1000, .burst = 5000};
    int64_t wait_us;

    for (int i = 0; i < CLICKS_PER_THREAD; i++)
        if (rate_check(hammer->rate, 9, &limit, 1, T0, &wait_us) == RATE_PASS)
            hammer->passed++;
    return NULL;
}

static void
test_threads_share_one_limit(void **state)
{
    struct rate *rate = table();
    struct hammer hammers[THREADS];
    pthread_t threads[THREADS];
    uint64_t passed = 0;

    (void)state;
    for (int i = 0; i < THREADS; i++) {
        hammers[i] = (struct hammer){.rate = rate};
        assert_int_equal(
            pthread_create(&threads[i], NULL, hammer_main, &hammers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        (void)pthread_join(threads[i], NULL);
        passed += hammers[i].passed;
    }
    assert_int_equal(passed, 5000);
    rate_close(&rate);
}

static void
test_a_bad_size_is_refused_and_named(void **state)
{
    static const uint32_t bad[] = {0, 4, RATE_KEYS_MIN - 1, 1000, UINT32_MAX};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct rate *rate;
        struct why why = {{0}};

        assert_int_equal(rate_open(&rate, bad[i], &why), ERR_INVALID);
        assert_null(rate);
        assert_memory_equal(why.text, "rate: keys_max", 14);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_burst_is_spent_then_refills_by_the_interval),
        cmocka_unit_test(test_a_request_passes_whole_or_costs_nothing),
        cmocka_unit_test(test_it_agrees_with_a_leaking_bucket),
        cmocka_unit_test(test_a_flood_limits_no_quiet_key_and_frees_no_loud_one),
        cmocka_unit_test(test_threads_share_one_limit),
        cmocka_unit_test(test_a_bad_size_is_refused_and_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

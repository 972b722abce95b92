#include <pthread.h>

#include "tests/fraud/fraud_fixture.h"

enum { THREADS = 4, ADDRESSES = 64, ROUNDS = 101 };

static struct fraud_addresses *
addresses_open(size_t addresses_max)
{
    struct fraud_addresses *addresses;
    struct why why;

    assert_int_equal(fraud_addresses_open(&addresses, addresses_max, THREADS, &why),
                     ERR_OK);
    return addresses;
}

static void
the_eleventh_of_a_second_and_the_101st_of_a_minute_are_over(void **state)
{
    (void)state;
    struct fraud_addresses *addresses = addresses_open(1024);

    for (int i = 1; i <= 12; i++)
        assert_int_equal(
            fraud_addresses_seen(addresses, &DEFAULTS, 9, T0_MS + 83 * i, T0_US),
            i > 10 ? REASON_BIT(address_second_rate) : 0);
    for (int i = 13; i <= 110; i++) /* 2 a second, forth and back */
        assert_int_equal(
            fraud_addresses_seen(addresses, &DEFAULTS, 9,
                                 T0_MS + (i % 2 ? i / 2 : 58 - i / 2) * 1000 + 999,
                                 T0_US),
            i > 100 ? REASON_BIT(address_minute_rate) : 0);
    assert_int_equal(
        fraud_addresses_seen(addresses, &DEFAULTS, 9, T0_MS + 60000, T0_US), 0);
    assert_int_equal(fraud_addresses_seen(addresses, &DEFAULTS, 10, T0_MS, T0_US),
                     0);
    fraud_addresses_close(&addresses);
    assert_null(addresses);
}

static void
a_bucket_counts_the_hour_of_receipt_and_the_one_before(void **state)
{
    (void)state;
    const struct ruleset_limits limits = {.address_minute_max = 2,
                                          .address_second_max = 99};
    const uint32_t over = REASON_BIT(address_minute_rate);
    struct fraud_addresses *addresses = addresses_open(1024);

    assert_int_equal(fraud_addresses_seen(addresses, &limits, 9, T0_MS, T0_US), 0);
    assert_int_equal(fraud_addresses_seen(addresses, &limits, 9, T0_MS, T0_US), 0);
    assert_int_equal(
        fraud_addresses_seen(addresses, &limits, 9, T0_MS, T0_US + HOUR_US), over);
    assert_int_equal(
        fraud_addresses_seen(addresses, &limits, 9, T0_MS, T0_US + 2 * HOUR_US), 0);
    assert_int_equal(
        fraud_addresses_seen(addresses, &limits, 9, T0_MS, T0_US + 4 * HOUR_US), 0);
    fraud_addresses_close(&addresses);
}

static void
counts_stop_at_their_top_and_never_wrap(void **state)
{
    (void)state;
    struct fraud_addresses *addresses = addresses_open(1024);
    const uint32_t over =
        REASON_BIT(address_minute_rate) | REASON_BIT(address_second_rate);

    for (int i = 1; i <= 10000; i++) {
        uint32_t got = fraud_addresses_seen(addresses, &DEFAULTS, 9, T0_MS, T0_US);

        if (i > 100)
            assert_int_equal(got, over);
    }
    fraud_addresses_close(&addresses);
}

struct worker {
    struct fraud_addresses *addresses;
    uint64_t over;
};

static void *
worker_run(void *arg)
{
    struct worker *worker = arg;

    for (int i = 0; i < ROUNDS; i++)
        for (uint64_t address = 0; address < ADDRESSES; address++) {
            uint32_t got =
                fraud_addresses_seen(worker->addresses, &DEFAULTS, address << 40,
                                     T0_MS + i * 100, T0_US);

            worker->over += (got & REASON_BIT(address_minute_rate)) != 0;
        }
    return NULL;
}

static void
threads_together_lose_no_click(void **state)
{
    (void)state;
    struct worker workers[THREADS];
    pthread_t threads[THREADS];
    struct fraud_addresses *addresses = addresses_open(1024);
    uint64_t over = 0;

    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){addresses, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, worker_run, &workers[i]),
                         0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        over += workers[i].over;
    }
    assert_int_equal(over, ADDRESSES * (THREADS * ROUNDS - 100));
    fraud_addresses_close(&addresses);
}

static void
a_flood_forgets_seconds_that_are_over_before_what_is_alive(void **state)
{
    (void)state;
    struct fraud_addresses *addresses = addresses_open(1024);
    uint64_t seed = 4;

    /* A loud address among a million others: 1 click in 50 ms, so 1200 a minute. */
    for (int i = 0; i < 2000; i++) {
        int64_t at_us = T0_US + i * SECOND_US / 20;
        uint32_t got =
            fraud_addresses_seen(addresses, &DEFAULTS, 9, at_us / 1000, at_us);

        if (i % 1200 >= 100)
            assert_true((got & REASON_BIT(address_minute_rate)) != 0);
        for (int k = 0; k < 100; k++)
            assert_int_equal(fraud_addresses_seen(addresses, &DEFAULTS,
                                                  random_next(&seed), at_us / 1000,
                                                  at_us),
                             0);
    }
    fraud_addresses_close(&addresses);
}

static void
a_bad_size_is_refused_and_named(void **state)
{
    (void)state;
    struct fraud_addresses *addresses;
    struct why why;

    assert_int_equal(fraud_addresses_open(&addresses, 1, THREADS, &why),
                     ERR_INVALID);
    assert_non_null(strstr(why.text, "addresses_max"));
    assert_null(addresses);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            the_eleventh_of_a_second_and_the_101st_of_a_minute_are_over),
        cmocka_unit_test(a_bucket_counts_the_hour_of_receipt_and_the_one_before),
        cmocka_unit_test(counts_stop_at_their_top_and_never_wrap),
        cmocka_unit_test(threads_together_lose_no_click),
        cmocka_unit_test(
            a_flood_forgets_seconds_that_are_over_before_what_is_alive),
        cmocka_unit_test(a_bad_size_is_refused_and_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

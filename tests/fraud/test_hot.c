/* What was added is found in its minute or second and nowhere else; a full set loses its
 * oldest bucket; readers beside the writer never see what was not added. */
#include "fraud/hot.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/hash.h"
#include "fraud/fraud.h"
#include "fraud/live.h"

#define MINUTE REASON_BIT(address_minute_rate)
#define SECOND REASON_BIT(address_second_rate)

static const int64_t at_ms = INT64_C(1800000000000) + 17250;

static struct fraud_hot *
hot_new(void)
{
    struct fraud_hot *hot = NULL;
    struct why why;

    assert_int_equal(fraud_hot_open(&hot, &why), ERR_OK);
    return hot;
}

static void
test_an_empty_table_has_no_reasons(void **state)
{
    struct fraud_hot *hot = hot_new();

    (void)state;
    assert_int_equal(fraud_hot_reasons(hot, 7, at_ms), 0);
    assert_int_equal(fraud_hot_reasons(hot, 0, 0), 0);
    fraud_hot_close(&hot);
    assert_null(hot);
    fraud_hot_close(&hot);
}

static void
test_a_bucket_is_hot_from_its_first_to_its_last_millisecond(void **state)
{
    static const struct {
        const char *name;
        uint32_t added;
        int64_t dt_ms;
        uint32_t want;
    } cases[] = {
        {"the same time", MINUTE | SECOND, 0, MINUTE | SECOND},
        {"minute only", MINUTE, 0, MINUTE},
        {"second only", SECOND, 0, SECOND},
        {"first of the second", SECOND, -250, SECOND},
        {"before the second", SECOND, -251, 0},
        {"last of the second", SECOND, 749, SECOND},
        {"after the second", SECOND, 750, 0},
        {"first of the minute", MINUTE, -17250, MINUTE},
        {"before the minute", MINUTE, -17251, 0},
        {"last of the minute", MINUTE, 42749, MINUTE},
        {"after the minute", MINUTE, 42750, 0},
        {"nothing is added", 0, 0, 0},
        {"no rate's bit", REASON_BIT(duplicate), 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fraud_hot *hot = hot_new();

        fraud_hot_add(hot, 99, at_ms, cases[i].added);
        if (fraud_hot_reasons(hot, 99, at_ms + cases[i].dt_ms) != cases[i].want)
            fail_msg("%s", cases[i].name);
        assert_int_equal(fraud_hot_reasons(hot, 98, at_ms + cases[i].dt_ms), 0);
        fraud_hot_close(&hot);
    }
}

static void
test_times_before_1970_have_their_buckets(void **state)
{
    struct fraud_hot *hot = hot_new();

    (void)state;
    fraud_hot_add(hot, 5, -1, MINUTE | SECOND);
    assert_int_equal(fraud_hot_reasons(hot, 5, -1000), MINUTE | SECOND);
    assert_int_equal(fraud_hot_reasons(hot, 5, 0), 0);
    fraud_hot_close(&hot);
}

/* A million buckets in room for a quarter of it: the newest minutes are there. */
static void
test_a_full_table_keeps_the_newest_buckets(void **state)
{
    struct fraud_hot *hot = hot_new();
    int found = 0;

    (void)state;
    for (int64_t m = 0; m < 100; m++)
        for (uint64_t a = 0; a < 10000; a++)
            fraud_hot_add(hot, hash64(&a, sizeof(a), 1), at_ms + m * 60000, MINUTE);
    for (uint64_t a = 0; a < 10000; a++) {
        uint64_t key = hash64(&a, sizeof(a), 1);

        found += fraud_hot_reasons(hot, key, at_ms + 99 * 60000) == MINUTE;
        assert_int_equal(fraud_hot_reasons(hot, key, at_ms + 100 * 60000), 0);
    }
    assert_int_equal(found, 10000);
    fraud_hot_close(&hot);
}

static void
test_an_older_bucket_that_comes_late_is_kept_too(void **state)
{
    struct fraud_hot *hot = hot_new();

    (void)state;
    fraud_hot_add(hot, 5, at_ms, MINUTE);
    fraud_hot_add(hot, 5, at_ms - 3600000, MINUTE);
    fraud_hot_add(hot, 5, at_ms, MINUTE); /* again: no second slot */
    assert_int_equal(fraud_hot_reasons(hot, 5, at_ms), MINUTE);
    assert_int_equal(fraud_hot_reasons(hot, 5, at_ms - 3600000), MINUTE);
    fraud_hot_close(&hot);
}

struct race {
    struct fraud_hot *hot;
    atomic_bool stop;
    uint64_t wrong;
};

static void *
race_read(void *arg)
{
    struct race *race = arg;

    for (uint64_t i = 0; !atomic_load(&race->stop); i++) {
        uint64_t key = i % 50000;

        /* Odd addresses are never added. */
        if (key % 2 == 1 && fraud_hot_reasons(race->hot, key, at_ms) != 0)
            race->wrong++;
        else
            (void)fraud_hot_reasons(race->hot, key, at_ms);
    }
    return NULL;
}

static void
test_readers_beside_the_writer_see_only_what_was_added(void **state)
{
    struct race race = {.hot = hot_new()};
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, race_read, &race), 0);
    for (uint64_t i = 0; i < 400000; i++)
        fraud_hot_add(race.hot, i * 2, at_ms, MINUTE | SECOND);
    atomic_store(&race.stop, true);
    (void)pthread_join(thread, NULL);
    assert_int_equal(race.wrong, 0);
    fraud_hot_close(&race.hot);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_empty_table_has_no_reasons),
        cmocka_unit_test(
            test_a_bucket_is_hot_from_its_first_to_its_last_millisecond),
        cmocka_unit_test(test_times_before_1970_have_their_buckets),
        cmocka_unit_test(test_a_full_table_keeps_the_newest_buckets),
        cmocka_unit_test(test_an_older_bucket_that_comes_late_is_kept_too),
        cmocka_unit_test(test_readers_beside_the_writer_see_only_what_was_added),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

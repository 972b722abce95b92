#include "tests/fraud/fraud_fixture.h"

enum { MODEL_IDS = 5000, STEPS = 200000 };

static struct fraud_ids *
ids_open(size_t ids_max)
{
    struct fraud_ids *ids;
    struct why why;

    assert_int_equal(fraud_ids_open(&ids, ids_max, &why), ERR_OK);
    return ids;
}

static void
an_id_is_seen_for_an_hour_after_its_first_time(void **state)
{
    (void)state;
    struct fraud_ids *ids = ids_open(1024);

    assert_false(fraud_ids_seen(ids, 7, T0_US));
    assert_true(fraud_ids_seen(ids, 7, T0_US));
    assert_false(fraud_ids_seen(ids, 8, T0_US));
    assert_true(fraud_ids_seen(ids, 7, T0_US + HOUR_US));
    assert_false(fraud_ids_seen(ids, 7, T0_US + HOUR_US + 4 * SECOND_US));
    assert_true(fraud_ids_seen(ids, 7, T0_US + HOUR_US + 5 * SECOND_US));
    assert_int_equal(fraud_ids_forgotten(ids), 0);
    fraud_ids_close(&ids);
    assert_null(ids);
}

static void
hashes_that_differ_in_any_bit_are_told_apart(void **state)
{
    (void)state;
    struct fraud_ids *ids = ids_open(1024);
    uint64_t seed = 1;

    assert_false(fraud_ids_seen(ids, 0, T0_US));
    assert_true(fraud_ids_seen(ids, 0, T0_US));
    for (int bit = 0; bit < 64; bit++) {
        uint64_t hash = random_next(&seed);

        assert_false(fraud_ids_seen(ids, hash, T0_US));
        assert_false(fraud_ids_seen(ids, hash ^ UINT64_C(1) << bit, T0_US));
        assert_true(fraud_ids_seen(ids, hash, T0_US));
    }
    assert_int_equal(fraud_ids_forgotten(ids), 0);
    fraud_ids_close(&ids);
}

static void
it_agrees_with_a_list_of_first_times(void **state)
{
    (void)state;
    struct fraud_ids *ids = ids_open(100000);
    static int64_t first_us[MODEL_IDS];
    uint64_t seed = 2;
    int64_t now_us = T0_US;

    memset(first_us, 0, sizeof(first_us));
    for (int i = 0; i < STEPS; i++) {
        uint64_t id = random_below(&seed, MODEL_IDS), state_of_id = id;

        now_us += (int64_t)random_below(&seed, 200) * 1000;
        int64_t age_us = now_us - first_us[id];

        if (age_us > HOUR_US - 2 * SECOND_US && age_us <= HOUR_US + 2 * SECOND_US)
            continue; /* either answer is right to 2 s */
        bool want = age_us <= HOUR_US;

        assert_int_equal(fraud_ids_seen(ids, random_next(&state_of_id), now_us),
                         want);
        if (!want)
            first_us[id] = now_us;
    }
    assert_int_equal(fraud_ids_forgotten(ids), 0);
    fraud_ids_close(&ids);
}

static void
only_what_is_alive_counts_as_forgotten(void **state)
{
    (void)state;
    struct fraud_ids *ids = ids_open(1024);
    uint64_t low = 0;

    for (uint64_t i = 0; i < 8; i++)
        assert_false(fraud_ids_seen(ids, low | i, T0_US));
    /* An hour later all 8 of the line are dead: taking their places costs nothing. */
    for (uint64_t i = 8; i < 16; i++)
        assert_false(
            fraud_ids_seen(ids, low | i, T0_US + HOUR_US + 10 * SECOND_US));
    assert_int_equal(fraud_ids_forgotten(ids), 0);
    assert_false(fraud_ids_seen(ids, low | 16, T0_US + HOUR_US + 12 * SECOND_US));
    assert_int_equal(fraud_ids_forgotten(ids), 1);
    assert_true(fraud_ids_seen(ids, low | 15, T0_US + HOUR_US + 12 * SECOND_US));
    fraud_ids_close(&ids);
}

static void
at_its_maximum_it_forgets_under_three_in_a_hundred(void **state)
{
    (void)state;
    enum { N = 400000 };
    struct fraud_ids *ids = ids_open(N);
    uint64_t seed = 3, again = 3, seen = 0;

    for (int i = 0; i < N; i++)
        (void)fraud_ids_seen(ids, random_next(&seed), T0_US);
    assert_true(fraud_ids_forgotten(ids) < N * 3 / 100);
    uint64_t forgotten = fraud_ids_forgotten(ids);

    for (int i = 0; i < N; i++)
        seen += fraud_ids_seen(ids, random_next(&again), T0_US);
    assert_true(seen + 3 * forgotten >=
                N); /* forgetting counts at least what was lost */
    fraud_ids_close(&ids);
}

static void
a_bad_size_is_refused_and_named(void **state)
{
    (void)state;
    struct fraud_ids *ids;
    struct why why;

    assert_int_equal(fraud_ids_open(&ids, 0, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "ids_max"));
    assert_null(ids);
    assert_int_equal(fraud_ids_open(&ids, (size_t)FRAUD_TABLE_MAX + 1, &why),
                     ERR_INVALID);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_id_is_seen_for_an_hour_after_its_first_time),
        cmocka_unit_test(hashes_that_differ_in_any_bit_are_told_apart),
        cmocka_unit_test(it_agrees_with_a_list_of_first_times),
        cmocka_unit_test(only_what_is_alive_counts_as_forgotten),
        cmocka_unit_test(at_its_maximum_it_forgets_under_three_in_a_hundred),
        cmocka_unit_test(a_bad_size_is_refused_and_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

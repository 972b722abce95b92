/* The model is the HyperLogLog itself: registers computed by a plain second writing of
 * Redis's hash. What the mirror leaves out must change none of them. */
#include "aggregate/users.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The same registers as Redis itself are shown by itest_aggregate; here their shape. */
static void
test_marks_are_spread_as_a_hyperloglog_needs(void **state)
{
    uint64_t seen[USERS_REGISTERS / 64] = {0};
    unsigned distinct = 0, ranks[52] = {0};

    (void)state;
    for (int i = 0; i < 100000; i++) {
        char id[32];
        int n = snprintf(id, sizeof(id), "user-%d", i);
        struct user_mark mark = users_mark((struct str){id, (uint32_t)n});

        assert_in_range(mark.rank, 1, 51);
        assert_true(mark.index < USERS_REGISTERS);
        ranks[mark.rank]++;
        if ((seen[mark.index / 64] >> mark.index % 64 & 1) == 0)
            distinct++;
        seen[mark.index / 64] |= UINT64_C(1) << mark.index % 64;
    }
    assert_in_range(distinct, 16300, 16384); /* 16384 (1 - e^-6.1) */
    assert_in_range(ranks[1], 49000, 51000);
    assert_in_range(ranks[2], 24000, 26000);
}

static void
random_id(char id[32], unsigned *n, unsigned range)
{
    *n = (unsigned)snprintf(id, 32, "u%u", (unsigned)rand() % range);
}

/* Redis's own reading of a dense register: six bits, little endian. */
static void
expect_dense(const struct users *users, const uint8_t all[USERS_REGISTERS])
{
    uint8_t dense[USERS_DENSE_BYTES];

    users_format(users, dense);
    assert_memory_equal(dense, "HYLL\0\0\0\0\0\0\0\0\0\0\0\x80", 16);
    for (unsigned i = 0; i < USERS_REGISTERS; i++) {
        unsigned rank = 0;

        for (unsigned bit = 0; bit < 6; bit++) {
            unsigned at = i * 6 + bit;

            rank |= (unsigned)(dense[16 + at / 8] >> at % 8 & 1) << bit;
        }
        assert_int_equal(rank, all[i]);
    }
}

static void
test_what_is_skipped_changes_no_register(void **state)
{
    static const unsigned ranges[] = {1, 10, 300, 3000, 100000, 10000000};

    (void)state;
    srand(1);
    for (size_t r = 0; r < sizeof(ranges) / sizeof(ranges[0]); r++) {
        uint8_t all[USERS_REGISTERS] = {0}, sent[USERS_REGISTERS] = {0};
        struct users *users = NULL;
        size_t bytes = 0;
        unsigned skipped = 0;

        for (int i = 0; i < 200000; i++) {
            char id[32];
            unsigned n;

            random_id(id, &n, ranges[r]);
            struct user_mark mark = users_mark((struct str){id, n});
            if (all[mark.index] < mark.rank)
                all[mark.index] = mark.rank;
            if (users_raise(&users, mark, &bytes, SIZE_MAX) == USER_KNOWN)
                skipped++;
            else if (sent[mark.index] < mark.rank)
                sent[mark.index] = mark.rank;
        }
        assert_memory_equal(all, sent, sizeof(all));
        expect_dense(users, all);
        assert_true(skipped > 100000);
        users_free(&users, &bytes);
        assert_int_equal(bytes, 0);
        assert_null(users);
    }
}

static void
test_without_memory_every_id_is_sent(void **state)
{
    struct users *users = NULL;
    size_t bytes = 0;

    (void)state;
    for (int i = 0; i < 10; i++)
        assert_int_equal(users_raise(&users, users_mark(STR("same")), &bytes, 0),
                         USER_UNSURE);
    assert_null(users);
    assert_int_equal(bytes, 0);
    /* A mirror that may not grow forgets nobody it knows. */
    assert_int_equal(users_raise(&users, users_mark(STR("same")), &bytes, 1),
                     USER_NEW);
    for (int i = 0; i < 1000; i++) {
        char id[16];
        int n = snprintf(id, sizeof(id), "%d", i);

        (void)users_raise(&users, users_mark((struct str){id, (uint32_t)n}), &bytes,
                          1);
    }
    assert_int_equal(users_raise(&users, users_mark(STR("same")), &bytes, 1),
                     USER_KNOWN);
    users_free(&users, &bytes);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_marks_are_spread_as_a_hyperloglog_needs),
        cmocka_unit_test(test_what_is_skipped_changes_no_register),
        cmocka_unit_test(test_without_memory_every_id_is_sent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

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

/* --- from Redis --- */

enum { REGISTERS_BYTES = USERS_DENSE_BYTES - 16 };

/* Loads a copy that ends where its memory does, so that a sanitizer sees one byte too many
 * read. */
static enum user_answer
load(struct users **users, const void *text, size_t n, size_t *bytes,
     size_t bytes_max)
{
    char *copy = malloc(n);
    enum user_answer answer;

    assert_non_null(copy);
    memcpy(copy, text, n);
    answer = users_load(users, (struct str){copy, (uint32_t)n}, bytes, bytes_max);
    free(copy);
    return answer;
}

/* Ids of a range until so many were tried: the same ones each time. */
static struct users *
users_of(unsigned range, int tries, size_t *bytes)
{
    struct users *users = NULL;

    srand(range);
    for (int i = 0; i < tries; i++) {
        char id[32];
        unsigned n;

        random_id(id, &n, range);
        (void)users_raise(&users, users_mark((struct str){id, n}), bytes, SIZE_MAX);
    }
    return users;
}

static void
test_what_was_formatted_is_loaded_whole(void **state)
{
    static const unsigned ranges[] = {1, 10, 300, 1100, 3000, 1000000};

    (void)state;
    for (size_t r = 0; r < sizeof(ranges) / sizeof(ranges[0]); r++) {
        uint8_t before[USERS_DENSE_BYTES], after[USERS_DENSE_BYTES];
        size_t bytes = 0;
        struct users *users = users_of(ranges[r], 100000, &bytes), *again = NULL;

        users_format(users, before);
        assert_int_equal(load(&again, before, sizeof(before), &bytes, SIZE_MAX),
                         USER_KNOWN);
        users_format(again, after);
        assert_memory_equal(before, after, sizeof(after));
        srand(ranges[r]);
        for (int i = 0; i < 1000; i++) {
            char id[32];
            unsigned n;

            random_id(id, &n, ranges[r]);
            assert_int_equal(users_raise(&again, users_mark((struct str){id, n}),
                                         &bytes, SIZE_MAX),
                             USER_KNOWN);
        }
        users_free(&users, &bytes);
        users_free(&again, &bytes);
        assert_int_equal(bytes, 0);
    }
}

static void
test_every_register_and_every_rank_is_loaded(void **state)
{
    uint8_t dense[USERS_DENSE_BYTES] = "HYLL", after[USERS_DENSE_BYTES];
    uint8_t all[USERS_REGISTERS];
    struct users *users = NULL;
    size_t bytes = 0;

    (void)state;
    for (unsigned i = 0; i < USERS_REGISTERS; i++) {
        all[i] = (uint8_t)(i * 7 % 64);
        for (unsigned bit = 0; bit < 6; bit++) {
            unsigned at = i * 6 + bit;

            dense[16 + at / 8] =
                (uint8_t)(dense[16 + at / 8] | ((unsigned)all[i] >> bit & 1U)
                                                   << at % 8);
        }
    }
    memcpy(dense + 4, "\0abc\1\2\3\4\5\6\7\x80", 12); /* unused, cached count */
    assert_int_equal(load(&users, dense, sizeof(dense), &bytes, SIZE_MAX),
                     USER_KNOWN);
    expect_dense(users, all);
    users_format(users, after);
    assert_memory_equal(dense + 16, after + 16, REGISTERS_BYTES);
    users_free(&users, &bytes);
}

static void
test_what_is_loaded_only_raises(void **state)
{
    uint8_t text[USERS_DENSE_BYTES], all[USERS_REGISTERS] = {0};
    size_t bytes = 0;
    struct users *a = users_of(500, 1000, &bytes), *b = users_of(700, 1000, &bytes);

    (void)state;
    for (int round = 0; round < 2; round++) {
        srand(round == 0 ? 500 : 700);
        for (int i = 0; i < 1000; i++) {
            char id[32];
            unsigned n;

            random_id(id, &n, round == 0 ? 500 : 700);
            struct user_mark mark = users_mark((struct str){id, n});
            if (all[mark.index] < mark.rank)
                all[mark.index] = mark.rank;
        }
    }
    users_format(b, text);
    assert_int_equal(load(&a, text, sizeof(text), &bytes, SIZE_MAX), USER_KNOWN);
    expect_dense(a, all);
    users_free(&a, &bytes);
    users_free(&b, &bytes);
}

#define HEAD          "HYLL\1\0\0\0\0\0\0\0\0\0\0\x80"
#define TEXT(literal) (literal), sizeof(literal) - 1

/* ZERO 00nnnnnn, XZERO 01nnnnnn nnnnnnnn, VAL 1rrrrrnn, each one less than it means. */
static void
test_a_sparse_form_is_loaded_register_by_register(void **state)
{
    static const struct {
        const char *text;
        size_t n;
        struct {
            unsigned from, to, rank;
        } runs[4];
    } cases[] = {
        {TEXT(HEAD "\x7f\xff"), {{0, 0, 0}}},             /* all are zero */
        {TEXT(HEAD "\x80\x7f\xfe"), {{0, 1, 1}}},         /* the first */
        {TEXT(HEAD "\x7f\xfe\x80"), {{16383, 16384, 1}}}, /* the last */
        {TEXT(HEAD "\xff\x7f\xfb"), {{0, 4, 32}}},        /* longest, highest */
        {TEXT(HEAD "\x3f\x84\x7f\xbe"), {{64, 65, 2}}},   /* the longest ZERO */
        {TEXT(HEAD "\x00\x8b\x40\x00\x92\x7f\xf6"),       /* shortest runs */
         {{1, 5, 3}, {6, 9, 5}}},
        {TEXT(HEAD "\x83\xff\x86\x7f\xf4"), {{0, 4, 1}, {4, 8, 32}, {8, 11, 2}}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t all[USERS_REGISTERS] = {0};
        struct users *users = NULL;
        size_t bytes = 0;

        for (size_t k = 0; k < 4; k++)
            for (unsigned at = cases[i].runs[k].from; at < cases[i].runs[k].to;
                 at++)
                all[at] = (uint8_t)cases[i].runs[k].rank;
        assert_int_equal(load(&users, cases[i].text, cases[i].n, &bytes, SIZE_MAX),
                         USER_KNOWN);
        if (cases[i].runs[0].rank == 0)
            assert_null(users);
        else
            expect_dense(users, all);
        users_free(&users, &bytes);
        assert_int_equal(bytes, 0);
    }
}

static void
test_a_key_that_is_absent_loads_nothing(void **state)
{
    struct users *users = NULL;
    size_t bytes = 0;

    (void)state;
    assert_int_equal(users_load(&users, STR(""), &bytes, SIZE_MAX), USER_KNOWN);
    assert_int_equal(users_load(&users, (struct str){NULL, 0}, &bytes, 0),
                     USER_KNOWN);
    assert_null(users);
    assert_int_equal(bytes, 0);
}

static void
test_what_is_no_hyperloglog_is_damaged(void **state)
{
    static const struct {
        const char *text;
        size_t n;
    } cases[] = {
        {TEXT("H")},
        {TEXT("HYLL")},
        {TEXT("HYLL\1\0\0\0\0\0\0\0\0\0\0")}, /* a head without its last byte */
        {TEXT("garbage that is longer than a head")},
        {TEXT("hYLL\1\0\0\0\0\0\0\0\0\0\0\x80\x7f\xff")},
        {TEXT("HYLK\1\0\0\0\0\0\0\0\0\0\0\x80\x7f\xff")},
        {TEXT("HYLL\2\0\0\0\0\0\0\0\0\0\0\x80\x7f\xff")}, /* no such encoding */
        {TEXT("HYLL\xff\0\0\0\0\0\0\0\0\0\0\x80\x7f\xff")},
        {TEXT("HYLL\0\0\0\0\0\0\0\0\0\0\0\x80")},         /* dense: a head alone */
        {TEXT("HYLL\0\0\0\0\0\0\0\0\0\0\0\x80\x7f\xff")}, /* sparse, said dense */
        {TEXT(HEAD)},                                     /* sparse: ends early */
        {TEXT(HEAD "\x7f\xfe")},
        {TEXT(HEAD "\x7f\xfd\x80")},
        {TEXT(HEAD "\xff\xff\xff")},
        {TEXT(HEAD "\x7f\xff\x00")}, /* runs over */
        {TEXT(HEAD "\x7f\xff\x80")},
        {TEXT(HEAD "\x7f\xfe\x81")},
        {TEXT(HEAD "\x7f\xfe\x01")},
        {TEXT(HEAD "\x80\x7f\xff")},
        {TEXT(HEAD "\x7f")}, /* XZERO cut off */
        {TEXT(HEAD "\x84\x7f")},
        {TEXT(HEAD "\x7f\xff\x40")},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct users *users = NULL;
        size_t bytes = 0;

        if (load(&users, cases[i].text, cases[i].n, &bytes, SIZE_MAX) !=
            USER_DAMAGED)
            fail_msg("case %zu was loaded", i);
        users_free(&users, &bytes);
        assert_int_equal(bytes, 0);
    }
}

static void
test_a_dense_form_of_a_wrong_length_is_damaged(void **state)
{
    static const size_t lengths[] = {16,
                                     17,
                                     USERS_DENSE_BYTES / 2,
                                     USERS_DENSE_BYTES - 1,
                                     USERS_DENSE_BYTES + 1,
                                     USERS_DENSE_BYTES + REGISTERS_BYTES};
    char text[USERS_DENSE_BYTES + REGISTERS_BYTES] = "HYLL";

    (void)state;
    memset(text + 16, 0x41, sizeof(text) - 16);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        struct users *users = NULL;
        size_t bytes = 0;

        assert_int_equal(load(&users, text, lengths[i], &bytes, SIZE_MAX),
                         USER_DAMAGED);
        users_free(&users, &bytes);
    }
}

/* Whatever the bytes are: an answer, and none of them read that is not there. */
static void
test_random_damage_is_survived(void **state)
{
    (void)state;
    srand(3);
    for (int i = 0; i < 20000; i++) {
        uint8_t text[64] = HEAD;
        size_t n = 1 + (size_t)rand() % sizeof(text), bytes = 0;
        struct users *users = NULL;
        enum user_answer answer;

        for (size_t k = 16; k < sizeof(text); k++)
            text[k] = (uint8_t)(rand() % 4 == 0 ? 0x7f : rand());
        answer = load(&users, text, n, &bytes, SIZE_MAX);
        assert_true(answer == USER_KNOWN || answer == USER_DAMAGED);
        users_free(&users, &bytes);
        assert_int_equal(bytes, 0);
    }
}

static void
test_without_memory_what_is_loaded_is_unsure(void **state)
{
    uint8_t text[USERS_DENSE_BYTES];
    size_t bytes = 0, kept = 0;
    struct users *full = users_of(3000, 100000, &bytes), *users = NULL;

    (void)state;
    users_format(full, text);
    assert_int_equal(load(&users, text, sizeof(text), &kept, 0), USER_UNSURE);
    assert_null(users);
    assert_int_equal(load(&users, TEXT(HEAD "\x80\x7f\xfe"), &kept, 0),
                     USER_UNSURE);
    /* Nothing has room everywhere. */
    assert_int_equal(load(&users, TEXT(HEAD "\x7f\xff"), &kept, 0), USER_KNOWN);
    assert_null(users);
    /* Half of it is kept, and known. */
    assert_int_equal(load(&users, text, sizeof(text), &kept, 1000), USER_UNSURE);
    assert_non_null(users);
    assert_int_equal(load(&users, text, sizeof(text), &kept, 1000), USER_UNSURE);
    assert_int_equal(load(&users, text, sizeof(text), &kept, SIZE_MAX), USER_KNOWN);
    uint8_t again[USERS_DENSE_BYTES];
    users_format(users, again);
    assert_memory_equal(text, again, sizeof(text));
    /* Damage weighs more than memory. */
    assert_int_equal(load(&users, text, sizeof(text) - 1, &kept, 0), USER_DAMAGED);
    users_free(&users, &kept);
    users_free(&full, &bytes);
    assert_int_equal(kept, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_marks_are_spread_as_a_hyperloglog_needs),
        cmocka_unit_test(test_what_is_skipped_changes_no_register),
        cmocka_unit_test(test_without_memory_every_id_is_sent),
        cmocka_unit_test(test_what_was_formatted_is_loaded_whole),
        cmocka_unit_test(test_every_register_and_every_rank_is_loaded),
        cmocka_unit_test(test_what_is_loaded_only_raises),
        cmocka_unit_test(test_a_sparse_form_is_loaded_register_by_register),
        cmocka_unit_test(test_a_key_that_is_absent_loads_nothing),
        cmocka_unit_test(test_what_is_no_hyperloglog_is_damaged),
        cmocka_unit_test(test_a_dense_form_of_a_wrong_length_is_damaged),
        cmocka_unit_test(test_random_damage_is_survived),
        cmocka_unit_test(test_without_memory_what_is_loaded_is_unsure),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

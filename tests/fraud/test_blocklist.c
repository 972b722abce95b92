#include "fraud/blocklist.h"

#include <stdio.h>

#include "fraud/honeypots.h"
#include "tests/fraud/fraud_fixture.h"

enum { LISTED = 20000, ASKED = 400000 };

static struct str
v4_of(uint64_t number, uint8_t out[16])
{
    memcpy(out, &number, 4);
    return (struct str){(const char *)out, 4};
}

static struct str
v6_of(uint64_t number, uint8_t out[16])
{
    memset(out, 0x20, 16);
    memcpy(out + 4, &number, 8);
    return (struct str){(const char *)out, 16};
}

/* Even numbers are in, odd ones are out. */
static void
all_that_is_listed_is_bad_and_a_false_positive_of_the_filter_is_not(void **state)
{
    (void)state;
    struct blocklist *list;
    struct blocklist_stats stats;
    struct why why;
    uint8_t ip[16];
    uint64_t maybe = 0;

    assert_int_equal(blocklist_open(&list, &why), ERR_OK);
    for (uint64_t i = 0; i < LISTED; i++) {
        uint64_t n = (i * 7919 % LISTED) * 2; /* not sorted, and each twice */

        for (int twice = 0; twice < 2; twice++) {
            assert_int_equal(blocklist_add(list, v4_of(n, ip), &why), ERR_OK);
            assert_int_equal(blocklist_add(list, v6_of(n, ip), &why), ERR_OK);
        }
    }
    assert_int_equal(blocklist_finish(list, &why), ERR_OK);
    for (uint64_t i = 0; i < LISTED; i++) {
        assert_true(blocklist_has(list, v4_of(2 * i, ip)));
        assert_true(blocklist_has(list, v6_of(2 * i, ip)));
    }
    for (uint64_t i = 0; i < ASKED; i++) {
        struct str asked = i % 2 ? v4_of(2 * i + 1, ip) : v6_of(2 * i + 1, ip);

        assert_false(blocklist_has(list, asked));
        maybe += blocklist_maybe(list, asked);
    }
    print_message("the filter alone would have refused %llu of %d\n",
                  (unsigned long long)maybe, ASKED);
    assert_true(maybe > 0); /* so the exact set was needed, and decided */
    assert_true(maybe < ASKED / 500);
    blocklist_stats_get(list, &stats);
    assert_int_equal(stats.addresses, 2 * LISTED);
    blocklist_close(&list);
    assert_null(list);
}

static void
the_ends_of_the_range_are_found(void **state)
{
    (void)state;
    struct blocklist *list;
    struct why why;
    struct str zero = {"\0\0\0\0", 4}, ones = {"\xff\xff\xff\xff", 4};

    assert_int_equal(blocklist_open(&list, &why), ERR_OK);
    assert_int_equal(blocklist_add(list, ones, &why), ERR_OK);
    assert_int_equal(blocklist_add(list, zero, &why), ERR_OK);
    assert_int_equal(blocklist_finish(list, &why), ERR_OK);
    assert_true(blocklist_has(list, zero));
    assert_true(blocklist_has(list, ones));
    assert_false(blocklist_has(list, STR("\x7f\xff\xff\xff")));
    assert_false(blocklist_has(list, STR("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0")));
    blocklist_close(&list);
}

static void
an_empty_list_has_nothing(void **state)
{
    (void)state;
    struct blocklist *list;
    struct honeypots *pots;
    struct why why;

    assert_int_equal(blocklist_open(&list, &why), ERR_OK);
    assert_int_equal(blocklist_finish(list, &why), ERR_OK);
    assert_false(blocklist_has(list, STR("abcd")));
    blocklist_close(&list);
    assert_int_equal(honeypots_open(&pots, &why), ERR_OK);
    assert_int_equal(honeypots_finish(pots, &why), ERR_OK);
    assert_false(honeypots_has(pots, STR("ad")));
    honeypots_close(&pots);
}

static void
honeypots_are_found_exactly(void **state)
{
    (void)state;
    struct honeypots *pots;
    struct why why;
    char id[32];

    assert_int_equal(honeypots_open(&pots, &why), ERR_OK);
    for (int i = 0; i < 5000; i++) {
        int n = snprintf(id, sizeof(id), "ad-%d", 2 * i);

        assert_int_equal(honeypots_add(pots, (struct str){id, (uint32_t)n}, &why),
                         ERR_OK);
    }
    assert_int_equal(honeypots_finish(pots, &why), ERR_OK);
    for (int i = 0; i < 10000; i++) {
        int n = snprintf(id, sizeof(id), "ad-%d", i);

        assert_int_equal(honeypots_has(pots, (struct str){id, (uint32_t)n}),
                         i % 2 == 0);
    }
    assert_false(honeypots_has(pots, STR("")));
    honeypots_close(&pots);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            all_that_is_listed_is_bad_and_a_false_positive_of_the_filter_is_not),
        cmocka_unit_test(the_ends_of_the_range_are_found),
        cmocka_unit_test(an_empty_list_has_nothing),
        cmocka_unit_test(honeypots_are_found_exactly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

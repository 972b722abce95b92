#include "tests/fraud/fraud_fixture.h"

static void
a_verdict_is_the_same_after_packing_but_for_its_reasons(void **state)
{
    (void)state;
    uint64_t seed = 1;

    for (int i = 0; i < 100000; i++) {
        struct verdict in = {
            .kind = (uint8_t)(1 + random_below(&seed, VERDICT_KINDS_N - 1)),
            .reason = (uint8_t)random_below(&seed, REASONS_N),
            .flags = (uint8_t)random_below(&seed, 4),
            .score = (uint16_t)random_below(&seed, 10001),
            .ruleset = (uint16_t)random_next(&seed),
            .master = (uint16_t)random_next(&seed),
        };
        uint64_t packed = verdict_pack(&in);
        struct verdict out = verdict_unpack(packed);

        assert_true(packed != 0);
        assert_int_equal(out.kind, in.kind);
        assert_int_equal(out.reason, in.reason);
        assert_int_equal(out.flags, in.flags);
        assert_int_equal(out.score, in.score);
        assert_int_equal(out.ruleset, in.ruleset);
        assert_int_equal(out.master, in.master);
        assert_int_equal(out.reasons, 0);
    }
}

static void
each_reason_is_found_by_its_name_and_nothing_else_is(void **state)
{
    (void)state;
    for (int i = 0; i < REASONS_N; i++)
        assert_int_equal(reason_find(str_of(reason_info((enum reason)i)->name)), i);
    assert_int_equal(reason_find(STR("Duplicate")), REASONS_N);
    assert_int_equal(reason_find(STR("")), REASONS_N);
    assert_int_equal(reason_find(STR("duplicat")), REASONS_N);
}

static void
only_quarantine_duplicates_and_tests_feed_nothing(void **state)
{
    (void)state;
    const uint32_t starving = REASON_BIT(unknown_campaign) |
                              REASON_BIT(foreign_campaign) |
                              REASON_BIT(currency_mismatch) |
                              REASON_BIT(duplicate) | REASON_BIT(test_traffic);

    assert_true(fraud_feeds(0));
    for (int i = 1; i < REASONS_N; i++)
        assert_int_equal(fraud_feeds(UINT32_C(1) << i), (starving >> i & 1) == 0);
    assert_false(fraud_feeds(REASON_BIT(honeypot) | REASON_BIT(test_traffic)));
}

static void
each_kind_has_a_name(void **state)
{
    (void)state;
    for (int i = 0; i < VERDICT_KINDS_N; i++)
        assert_non_null(verdict_name((enum verdict_kind)i));
    assert_string_equal(verdict_name(VERDICT_OVER_BUDGET), "over_budget");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_verdict_is_the_same_after_packing_but_for_its_reasons),
        cmocka_unit_test(each_reason_is_found_by_its_name_and_nothing_else_is),
        cmocka_unit_test(only_quarantine_duplicates_and_tests_feed_nothing),
        cmocka_unit_test(each_kind_has_a_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "tests/fraud/fraud_fixture.h"

static struct fraud_users *
users_open(size_t users_max)
{
    struct fraud_users *users;
    struct why why;

    assert_int_equal(fraud_users_open(&users, users_max, &why), ERR_OK);
    return users;
}

static void
double_and_repeat_are_counted_from_the_last_click_received(void **state)
{
    (void)state;
    static const struct {
        int64_t event_ms;
        uint32_t want;
    } clicks[] = {
        {0, 0},
        {0, REASON_BIT(double_click)},
        {9999, REASON_BIT(double_click)},
        {19999, REASON_BIT(repeat_click)}, /* 10 000 after */
        {10000, REASON_BIT(double_click)}, /* 9 999 before: received later */
        {20000,
         REASON_BIT(repeat_click)}, /* from the last received, not the latest */
        {3620000, 0},               /* 3 600 000 after */
        {7219999, REASON_BIT(repeat_click)},
        {-86400000, 0}, /* a day late */
        {7219999, 0},
    };
    struct fraud_users *users = users_open(1024);

    for (size_t i = 0; i < sizeof(clicks) / sizeof(clicks[0]); i++)
        assert_int_equal(fraud_users_seen(users, &DEFAULTS, 5,
                                          T0_MS + clicks[i].event_ms,
                                          T0_US + (int64_t)i),
                         clicks[i].want);
    assert_int_equal(fraud_users_seen(users, &DEFAULTS, 6, T0_MS, T0_US), 0);
    fraud_users_close(&users);
    assert_null(users);
}

static void
thresholds_are_the_rule_sets(void **state)
{
    (void)state;
    const struct ruleset_limits limits = {.double_click_ms = 0,
                                          .repeat_click_ms = 500};
    struct fraud_users *users = users_open(1024);

    assert_int_equal(fraud_users_seen(users, &limits, 5, T0_MS, T0_US), 0);
    assert_int_equal(fraud_users_seen(users, &limits, 5, T0_MS, T0_US),
                     REASON_BIT(repeat_click));
    assert_int_equal(fraud_users_seen(users, &limits, 5, T0_MS + 500, T0_US), 0);
    fraud_users_close(&users);
}

static void
only_what_is_alive_counts_as_forgotten_and_the_stalest_goes(void **state)
{
    (void)state;
    struct fraud_users *users = users_open(1024);

    for (uint64_t i = 0; i < 5; i++) /* one line: the top bits are the same */
        (void)fraud_users_seen(users, &DEFAULTS, i, T0_MS,
                               T0_US + (int64_t)i * 60 * SECOND_US);
    (void)fraud_users_seen(users, &DEFAULTS, 5, T0_MS, T0_US + 600 * SECOND_US);
    assert_int_equal(fraud_users_forgotten(users), 1);
    assert_int_equal(
        fraud_users_seen(users, &DEFAULTS, 4, T0_MS, T0_US + 600 * SECOND_US),
        REASON_BIT(double_click));
    /* Two hours later they are dead. */
    for (uint64_t i = 10; i < 15; i++)
        (void)fraud_users_seen(users, &DEFAULTS, i, T0_MS, T0_US + 2 * HOUR_US);
    assert_int_equal(fraud_users_forgotten(users), 1);
    fraud_users_close(&users);
}

static void
a_bad_size_is_refused_and_named(void **state)
{
    (void)state;
    struct fraud_users *users;
    struct why why;

    assert_int_equal(fraud_users_open(&users, 1, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "users_max"));
    assert_null(users);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            double_and_repeat_are_counted_from_the_last_click_received),
        cmocka_unit_test(thresholds_are_the_rule_sets),
        cmocka_unit_test(
            only_what_is_alive_counts_as_forgotten_and_the_stalest_goes),
        cmocka_unit_test(a_bad_size_is_refused_and_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

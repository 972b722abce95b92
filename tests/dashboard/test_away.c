#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dashboard/away.h"

#define S INT64_C(1000000)

static void
who_answers_is_asked_by_all(void **state)
{
    struct away away = {.name = "redis"};

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_true(away_ask(&away, i));
    away_report(&away, ERR_OK, 0, 1, NULL);
    assert_true(away_ask(&away, 2));
    away_report(&away, ERR_FATAL, 2, 3, NULL); /* an answer, if a bad one */
    assert_true(away_ask(&away, 4));
}

static void
after_a_time_out_one_thread_asks_again_later(void **state)
{
    struct away away = {.name = "redis"};
    struct why why = {"time-out"};

    (void)state;
    assert_true(away_ask(&away, 100 * S));
    away_report(&away, ERR_AGAIN, 100 * S, 102 * S, &why);
    assert_false(away_ask(&away, 103 * S));
    assert_false(away_ask(&away, 110 * S - 1));
    assert_true(away_ask(&away, 110 * S));
    assert_false(away_ask(&away, 110 * S)); /* another thread */
    assert_false(away_ask(&away, 111 * S));
    away_report(&away, ERR_OK, 110 * S, 111 * S, NULL);
    assert_true(away_ask(&away, 111 * S));
    assert_true(away_ask(&away, 111 * S));
}

static void
waits_are_bounded_and_a_lost_turn_is_given_again(void **state)
{
    struct away away = {.name = "redis"};
    struct why why = {"refused"};

    (void)state;
    away_report(&away, ERR_AGAIN, S, S, &why); /* at once: asked again soon */
    assert_false(away_ask(&away, S + AWAY_MIN_US - 1));
    assert_true(away_ask(&away, S + AWAY_MIN_US));
    away_report(&away, ERR_AGAIN, S, 100 * S, &why);
    assert_false(away_ask(&away, 100 * S + AWAY_MAX_US - 1));
    assert_true(away_ask(&away, 100 * S + AWAY_MAX_US));
    /* Its thread never reports. */
    assert_false(away_ask(&away, 100 * S + AWAY_MAX_US + AWAY_ASK_US - 1));
    assert_true(away_ask(&away, 100 * S + AWAY_MAX_US + AWAY_ASK_US));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_answers_is_asked_by_all),
        cmocka_unit_test(after_a_time_out_one_thread_asks_again_later),
        cmocka_unit_test(waits_are_bounded_and_a_lost_turn_is_given_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

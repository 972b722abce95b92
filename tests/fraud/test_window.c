/* The judge's window and the live tables, side by side, against a list of all clicks. */

#include <stdlib.h>

#include "tests/fraud/fraud_fixture.h"

enum { CLICKS = 4000 };

struct fed {
    uint64_t user, address;
    int64_t event_ms, received_us;
};

static bool
is_visible(const struct fed *then, const struct fed *now)
{
    return then->received_us / HOUR_US + 1 >= now->received_us / HOUR_US;
}

/* The rules' text, word by word, over all clicks before this one. */
static uint32_t
model_seen(const struct fed *clicks, int n)
{
    const struct fed *now = &clicks[n];
    uint32_t minute = 1, second = 1, reasons = 0;
    bool found = false;

    for (int i = n - 1; i >= 0 && is_visible(&clicks[i], now); i--) {
        int64_t dt = llabs(now->event_ms - clicks[i].event_ms);

        if (clicks[i].address == now->address) {
            minute += clicks[i].event_ms / 60000 == now->event_ms / 60000;
            second += clicks[i].event_ms / 1000 == now->event_ms / 1000;
        }
        if (clicks[i].user != now->user || found)
            continue;
        found = true;
        if (dt < 10000)
            reasons |= REASON_BIT(double_click);
        else if (dt < 3600000)
            reasons |= REASON_BIT(repeat_click);
    }
    if (minute > 100)
        reasons |= REASON_BIT(address_minute_rate);
    if (second > 10)
        reasons |= REASON_BIT(address_second_rate);
    return reasons;
}

/* In order of receipt; event times are late, early and days behind. */
static void
clicks_make(struct fed clicks[CLICKS], uint64_t seed)
{
    int64_t now_us = T0_US + HOUR_US / 2;

    for (int i = 0; i < CLICKS; i++) {
        uint64_t kind = random_below(&seed, 100), user = random_below(&seed, 60);
        uint64_t address = random_below(&seed, 5);
        int64_t late_ms = kind < 60   ? (int64_t)random_below(&seed, 2000)
                          : kind < 90 ? (int64_t)random_below(&seed, 600000)
                          : kind < 95
                              ? -(int64_t)random_below(&seed, 300000)
                              : (int64_t)random_below(&seed, 7 * 86400) * 1000;

        now_us += (int64_t)random_below(&seed, 40) * 1000;
        if (random_below(&seed, 500) == 0)
            now_us += (int64_t)random_below(&seed, 5) * HOUR_US / 2;
        clicks[i] = (struct fed){random_next(&user), random_next(&address),
                                 now_us / 1000 - late_ms, now_us};
    }
}

static void
window_and_live_tables_agree_with_a_list_of_all_clicks(void **state)
{
    (void)state;
    static struct fed clicks[CLICKS];
    uint32_t found = 0;

    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct fraud_window *window;
        struct fraud_users *users;
        struct fraud_addresses *addresses;
        struct why why;

        clicks_make(clicks, seed);
        assert_int_equal(fraud_window_open(&window, 64 << 20, &why), ERR_OK);
        assert_int_equal(fraud_users_open(&users, 1024, &why), ERR_OK);
        assert_int_equal(fraud_addresses_open(&addresses, 1024, 1, &why), ERR_OK);
        for (int i = 0; i < CLICKS; i++) {
            const struct fed *c = &clicks[i];
            uint32_t want = model_seen(clicks, i), got, live;

            fraud_window_hour(window, c->received_us / HOUR_US * HOUR_US);
            fraud_window_prefetch(window, c->user, c->address, c->event_ms);
            assert_int_equal(fraud_window_seen(window, &DEFAULTS, c->user,
                                               c->address, c->event_ms, &got, &why),
                             ERR_OK);
            assert_int_equal(got, want);
            live = fraud_users_seen(users, &DEFAULTS, c->user, c->event_ms,
                                    c->received_us) |
                   fraud_addresses_seen(addresses, &DEFAULTS, c->address,
                                        c->event_ms, c->received_us);
            assert_int_equal(live, want);
            found |= got;
        }
        assert_int_equal(fraud_users_forgotten(users), 0);
        assert_int_equal(fraud_addresses_forgotten(addresses), 0);
        fraud_window_close(&window);
        fraud_users_close(&users);
        fraud_addresses_close(&addresses);
    }
    assert_int_equal(found, REASON_BIT(double_click) | REASON_BIT(repeat_click) |
                                REASON_BIT(address_minute_rate) |
                                REASON_BIT(address_second_rate));
}

static uint32_t
seen(struct fraud_window *window, uint64_t user, int64_t event_ms)
{
    uint32_t reasons;
    struct why why;

    assert_int_equal(
        fraud_window_seen(window, &DEFAULTS, user, user, event_ms, &reasons, &why),
        ERR_OK);
    return reasons;
}

static void
an_hour_is_seen_from_itself_and_the_next_only(void **state)
{
    (void)state;
    struct fraud_window *window;
    struct why why;

    assert_int_equal(fraud_window_open(&window, 1 << 20, &why), ERR_OK);
    fraud_window_hour(window, T0_US);
    assert_int_equal(seen(window, 1, T0_MS), 0);
    fraud_window_hour(window, T0_US);
    assert_int_equal(seen(window, 1, T0_MS + 9999), REASON_BIT(double_click));
    fraud_window_hour(window, T0_US + HOUR_US);
    assert_int_equal(seen(window, 1, T0_MS + 3600000), REASON_BIT(repeat_click));
    fraud_window_hour(window, T0_US + 3 * HOUR_US); /* a gap clears */
    assert_int_equal(seen(window, 1, T0_MS + 3600000), 0);
    fraud_window_hour(window, T0_US + 4 * HOUR_US);
    fraud_window_hour(window, T0_US + 5 * HOUR_US); /* two empty hours too */
    assert_int_equal(seen(window, 1, T0_MS + 3600000), 0);
    fraud_window_close(&window);
}

static void
the_limit_is_kept_and_a_full_window_says_so_and_stays_as_it_was(void **state)
{
    (void)state;
    struct fraud_window *window;
    struct why why = {{0}};
    uint32_t reasons;
    uint64_t user = 1;
    enum err err = ERR_OK;

    assert_int_equal(fraud_window_open(&window, 1000, &why), ERR_INVALID);
    assert_int_equal(fraud_window_open(&window, FRAUD_WINDOW_BYTES_MIN, &why),
                     ERR_OK);
    fraud_window_hour(window, T0_US);
    while (err == ERR_OK) {
        err =
            fraud_window_seen(window, &DEFAULTS, user, user, T0_MS, &reasons, &why);
        assert_true(fraud_window_bytes(window) <= FRAUD_WINDOW_BYTES_MIN);
        assert_true(++user < 1000000);
    }
    assert_int_equal(err, ERR_FULL);
    assert_non_null(strstr(why.text, "limit"));
    /* The refused click was not counted: the same one after a clear is the first. */
    fraud_window_hour(window, T0_US + 2 * HOUR_US);
    assert_int_equal(fraud_window_bytes(window), 0);
    assert_int_equal(seen(window, user - 1, T0_MS), 0);
    fraud_window_close(&window);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(window_and_live_tables_agree_with_a_list_of_all_clicks),
        cmocka_unit_test(an_hour_is_seen_from_itself_and_the_next_only),
        cmocka_unit_test(
            the_limit_is_kept_and_a_full_window_says_so_and_stays_as_it_was),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/file.h"
#include "tests/fraud/fraud_fixture.h"

enum { CLICKS = 3000 };

struct house {
    struct master_source *masters;
    const struct master *master;
    struct ruleset_source *rules;
    const struct ruleset *set;
    struct fraud_addresses *addresses;
    struct fraud_live *live;
};

static void
live_renew(struct house *house)
{
    struct why why;

    fraud_live_close(&house->live);
    fraud_addresses_close(&house->addresses);
    assert_int_equal(fraud_addresses_open(&house->addresses, 10000, 1, &why),
                     ERR_OK);
    assert_int_equal(
        fraud_live_open(&house->live, 10000, 10000, house->addresses, &why),
        ERR_OK);
}

static int
house_make(void **state)
{
    struct house *house = calloc(1, sizeof(*house));
    struct why why;

    assert_non_null(house);
    house->masters = fixture_master();
    house->master = master_take(house->masters);
    assert_int_equal(ruleset_open(&house->rules, NULL, NULL, &why), ERR_OK);
    house->set = ruleset_take(house->rules);
    live_renew(house);
    *state = house;
    return 0;
}

static int
house_remove(void **state)
{
    struct house *house = *state;

    fraud_live_close(&house->live);
    fraud_addresses_close(&house->addresses);
    ruleset_drop(house->rules, house->set);
    ruleset_close(&house->rules);
    master_drop(house->masters, house->master);
    master_close(&house->masters);
    free(house);
    return 0;
}

static struct verdict
judge(struct house *house, const struct click *click, int64_t started_us)
{
    struct fraud_facts facts;
    struct verdict v = fraud_live_judge(house->live, house->set, house->master,
                                        click, started_us, &facts);

    assert_int_equal(v.reasons, facts.reasons);
    return v;
}

/* Another user and address each time, so that only what is asked about repeats. */
static struct click
click_of(uint64_t id, const char *user, const char ip[4])
{
    struct click click = fixture_click(id);

    click.user_id = str_of(user);
    click.ip = (struct str){ip, 4};
    return click;
}

static void
what_is_quarantined_duplicate_or_a_test_feeds_no_counter(void **state)
{
    struct house *house = *state;
    struct click a = click_of(1, "u1", "\1\1\1\1"),
                 b = click_of(2, "u1", "\1\1\1\1");

    a.test = true;
    assert_int_equal(judge(house, &a, 0).reason, REASON_test_traffic);
    assert_int_equal(judge(house, &b, 0).reason, REASON_none);
    struct verdict again = judge(house, &b, 0);

    assert_int_equal(again.kind, VERDICT_DUPLICATE);
    assert_int_equal(again.reasons, REASON_BIT(duplicate)); /* no double_click */
    struct click c = click_of(3, "u1", "\1\1\1\1");

    c.timestamp_ms += 10000;
    assert_int_equal(judge(house, &c, 0).reason, REASON_repeat_click);

    struct click d = click_of(4, "u2", "\1\1\1\2"),
                 e = click_of(5, "u2", "\1\1\1\2");

    d.currency = STR("JPY");
    assert_int_equal(judge(house, &d, 0).kind, VERDICT_QUARANTINED);
    assert_int_equal(judge(house, &e, 0).reason, REASON_none);
    assert_int_equal(judge(house, &d, 0).reasons,
                     REASON_BIT(currency_mismatch) | REASON_BIT(duplicate));
}

static void
an_id_is_a_duplicate_in_its_own_partition_only(void **state)
{
    struct house *house = *state;
    struct click a = click_of(1, "u1", "\1\1\1\1"),
                 b = click_of(1, "u2", "\1\1\1\2");

    b.partition = a.partition + 3;
    assert_int_equal(judge(house, &b, 0).reason, REASON_none);
    assert_int_equal(judge(house, &a, 0).reason, REASON_none);
    assert_int_equal(judge(house, &b, 0).kind, VERDICT_DUPLICATE);
    assert_int_equal(judge(house, &a, 0).kind, VERDICT_DUPLICATE);
}

static void
what_is_invalid_by_itself_feeds_the_counters(void **state)
{
    struct house *house = *state;
    struct click a = click_of(1, "u1", "\1\1\1\1"),
                 b = click_of(2, "u1", "\1\1\1\1");

    a.user_agent = STR("curl/8");
    assert_int_equal(judge(house, &a, 0).reason, REASON_non_browser_agent);
    assert_int_equal(judge(house, &b, 0).reason, REASON_double_click);
}

static void
addresses_are_counted_over_all_workers(void **state)
{
    struct house *house = *state;
    struct fraud_live *other;
    struct fraud_facts facts;
    struct why why;
    char user[16];

    assert_int_equal(fraud_live_open(&other, 1024, 1024, house->addresses, &why),
                     ERR_OK);
    for (int i = 1; i <= 12; i++) {
        (void)snprintf(user, sizeof(user), "u%d", i);
        struct click click = click_of((uint64_t)i, user, "\1\1\1\1");
        struct verdict v = fraud_live_judge(i % 2 ? house->live : other, house->set,
                                            house->master, &click, 0, &facts);

        assert_int_equal(v.reason,
                         i > 10 ? REASON_address_second_rate : REASON_none);
    }
    fraud_live_close(&other);
}

static void
verdicts_are_warming_until_the_hour_before_is_known(void **state)
{
    struct house *house = *state;
    const int64_t started_us = T0_US + HOUR_US / 2;
    static const struct {
        int64_t after_us;
        uint8_t want;
    } at[] = {{HOUR_US / 2, VERDICT_WARMING},
              {HOUR_US, VERDICT_WARMING},
              {2 * HOUR_US - 1, VERDICT_WARMING},
              {2 * HOUR_US, 0}};

    for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        struct click click = click_of(i, "u", "\1\1\1\1");

        click.received_us = T0_US + at[i].after_us;
        click.timestamp_ms = click.received_us / 1000 + 7200000 * (int64_t)i;
        assert_int_equal(judge(house, &click, started_us).flags, at[i].want);
        click.campaign_id = STR("hats"); /* quarantine waits for nothing */
        assert_int_equal(judge(house, &click, started_us).flags, 0);
    }
    struct click click = click_of(100, "v", "\1\1\1\2");

    assert_int_equal(judge(house, &click, T0_US).flags, VERDICT_WARMING);
    assert_int_equal(judge(house, &click, T0_US).flags, 0); /* a duplicate is one */
}

static void
forgetting_makes_verdicts_warm_again(void **state)
{
    struct house *house = *state;
    struct click click = fixture_click(0);
    struct verdict v = judge(house, &click, 0);
    uint64_t id = 1;

    assert_int_equal(v.flags, 0);
    for (; id < 700000 && v.flags == 0; id++) {
        click = fixture_click(id);
        click.test = true; /* only ids fill up */
        v = judge(house, &click, 0);
    }
    assert_int_equal(v.flags, VERDICT_WARMING);
    click = fixture_click(id);
    click.received_us = T0_US + 2 * HOUR_US;
    assert_int_equal(judge(house, &click, 0).flags, 0);
}

static void
clicks_make(struct click clicks[CLICKS], char users[CLICKS][8], char ips[CLICKS][4])
{
    uint64_t seed = 9;

    for (int i = 0; i < CLICKS; i++) {
        (void)snprintf(users[i], 8, "u%d", (int)random_below(&seed, 200));
        memcpy(ips[i], "\1\1\1", 3);
        ips[i][3] = (char)random_below(&seed, 8);
        clicks[i] = click_of(random_below(&seed, CLICKS), users[i], ips[i]);
        clicks[i].received_us = T0_US + i * 20000;
        clicks[i].timestamp_ms = clicks[i].received_us / 1000;
        clicks[i].test = random_below(&seed, 20) == 0;
        if (random_below(&seed, 20) == 0)
            clicks[i].campaign_id = STR("books");
        if (random_below(&seed, 20) == 0)
            clicks[i].user_agent = STR("Mozilla/5.0 Somebot");
    }
}

static void
one_by_one_in_batches_and_replayed_the_answers_are_the_same(void **state)
{
    struct house *house = *state;
    static struct click clicks[CLICKS];
    static char users[CLICKS][8], ips[CLICKS][4];
    static struct verdict want[CLICKS], got[CLICKS];
    static struct fraud_facts facts[CLICKS];
    uint32_t found = 0;

    clicks_make(clicks, users, ips);
    for (int i = 0; i < CLICKS; i++) {
        want[i] = judge(house, &clicks[i], 0);
        found |= want[i].reasons;
    }
    live_renew(house);
    fraud_live_judge_batch(house->live, house->set, house->master, clicks, CLICKS,
                           0, facts, got);
    for (int i = 0; i < CLICKS; i++) {
        assert_int_equal(verdict_pack(&got[i]), verdict_pack(&want[i]));
        assert_int_equal(got[i].reasons, want[i].reasons);
    }
    live_renew(house);
    fraud_live_replay(house->live, house->set, house->master, clicks, CLICKS / 2,
                      facts);
    for (int i = CLICKS / 2; i < CLICKS; i++)
        assert_int_equal(judge(house, &clicks[i], 0).reasons, want[i].reasons);
    assert_int_equal(found & REASON_BIT(duplicate), REASON_BIT(duplicate));
    assert_int_equal(found & REASON_BIT(double_click), REASON_BIT(double_click));
    assert_int_equal(found & REASON_BIT(repeat_click), REASON_BIT(repeat_click));
    assert_int_equal(found & REASON_BIT(address_minute_rate),
                     REASON_BIT(address_minute_rate));
}

static void
a_rule_in_shadow_is_recorded_and_not_applied(void **state)
{
    struct house *house = *state;
    char dir[] = "/tmp/clickledger-live-XXXXXX", path[64];
    static const char json[] =
        "{\"shadow\": [\"non_browser_agent\", \"double_click\"]}";
    struct ruleset_source *rules;
    struct why why;

    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/rules.json", dir);
    assert_int_equal(file_write(path, json, sizeof(json) - 1, &why), ERR_OK);
    assert_int_equal(ruleset_open(&rules, dir, NULL, &why), ERR_OK);
    ruleset_drop(house->rules, house->set);
    ruleset_close(&house->rules);
    house->rules = rules;
    house->set = ruleset_take(rules);

    struct click a = click_of(1, "u", "\1\1\1\1"), b = click_of(2, "u", "\1\1\1\1");

    a.user_agent = STR("curl/8");
    struct verdict first = judge(house, &a, 0), second = judge(house, &b, 0);

    assert_int_equal(first.kind, VERDICT_BILLABLE);
    assert_int_equal(first.reason, REASON_none);
    assert_int_equal(first.reasons, REASON_BIT(non_browser_agent));
    assert_int_equal(second.kind, VERDICT_BILLABLE);
    assert_int_equal(second.reasons, REASON_BIT(double_click));
    b = click_of(3, "u", "\1\1\1\1");
    b.ad_id = STR("honeypot");
    b.user_agent = STR("curl/8");
    assert_int_equal(judge(house, &b, 0).reason,
                     REASON_honeypot); /* the next applies */
    (void)unlink(path);
    (void)rmdir(dir);
}

static void
an_address_that_is_hot_elsewhere_is_past_its_rate_here(void **state)
{
    struct house *house = *state;
    struct fraud_hot *hot = NULL;
    struct why why;
    struct click a = click_of(1, "u1", "\1\1\1\1"),
                 b = click_of(2, "u2", "\1\1\1\1"),
                 c = click_of(3, "u3", "\1\1\1\2");
    struct fraud_facts facts;

    assert_int_equal(fraud_hot_open(&hot, &why), ERR_OK);
    fraud_live_hot(house->live, hot);
    (void)fraud_live_judge(house->live, house->set, house->master, &a, 0, &facts);
    assert_int_equal(facts.reasons, 0);
    fraud_hot_add(hot, facts.address_key, facts.event_ms,
                  REASON_BIT(address_minute_rate));
    assert_int_equal(judge(house, &b, 0).reason, REASON_address_minute_rate);
    assert_int_equal(judge(house, &c, 0).reason, REASON_none);
    /* What feeds nothing has no rate: a duplicate stays one. */
    assert_int_equal(judge(house, &b, 0).reasons, REASON_BIT(duplicate));
    fraud_live_hot(house->live, NULL);
    fraud_hot_close(&hot);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, house_make, house_remove)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_quarantined_duplicate_or_a_test_feeds_no_counter),
        TEST(an_id_is_a_duplicate_in_its_own_partition_only),
        TEST(what_is_invalid_by_itself_feeds_the_counters),
        TEST(addresses_are_counted_over_all_workers),
        TEST(verdicts_are_warming_until_the_hour_before_is_known),
        TEST(forgetting_makes_verdicts_warm_again),
        TEST(one_by_one_in_batches_and_replayed_the_answers_are_the_same),
        TEST(an_address_that_is_hot_elsewhere_is_past_its_rate_here),
        TEST(a_rule_in_shadow_is_recorded_and_not_applied),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

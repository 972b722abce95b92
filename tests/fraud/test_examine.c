#include "tests/fraud/fraud_fixture.h"

/* One change to the clean click, and what it must lead to. */
struct row {
    const char *text;
    void (*change)(struct click *click);
    uint32_t reasons;
};

#define CHANGE(name, statement)       \
    static void name(struct click *c) \
    {                                 \
        statement;                    \
    }

CHANGE(nothing, (void)c)
CHANGE(campaign_unknown, c->campaign_id = STR("hats"))
CHANGE(campaign_of_another, c->campaign_id = STR("books"))
CHANGE(currency_same, c->currency = STR("EUR"))
CHANGE(currency_other, c->currency = STR("JPY"))
CHANGE(campaign_paused, c->campaign_id = STR("paused"))
CHANGE(campaign_stopped_later, c->campaign_id = STR("stopped"))
CHANGE(campaign_stopped, c->campaign_id = STR("stopped"); c->timestamp_ms += 1000)
CHANGE(signature_good, c->signature = CLICK_SIGNATURE_GOOD)
CHANGE(signature_bad, c->signature = CLICK_SIGNATURE_BAD)
CHANGE(tested, c->test = true)
CHANGE(prefetched, c->purpose = STR("Prefetch;Prerender"))
CHANGE(previewed, c->purpose = STR("preview"))
CHANGE(prerendered, c->purpose = STR("prerender"))
CHANGE(purpose_other, c->purpose = STR("prefetc"))
CHANGE(agent_none, c->user_agent = STR(""))
CHANGE(agent_curl, c->user_agent = STR("curl/8"))
CHANGE(agent_bot, c->user_agent = STR("Mozilla/5.0 (Examplebot)"))
CHANGE(ad_honeypot, c->ad_id = STR("honeypot-9"))
CHANGE(several, c->ad_id = STR("honeypot-9"); c->user_agent = STR("curl/8");
       c->test = true)

static const struct row rows[] = {
    {"clean", nothing, 0},
    {"unknown campaign", campaign_unknown, REASON_BIT(unknown_campaign)},
    {"foreign campaign", campaign_of_another, REASON_BIT(foreign_campaign)},
    {"the campaign's currency", currency_same, 0},
    {"another currency", currency_other, REASON_BIT(currency_mismatch)},
    {"paused", campaign_paused, REASON_BIT(inactive_campaign)},
    {"stopped after the click", campaign_stopped_later, 0},
    {"stopped", campaign_stopped, REASON_BIT(inactive_campaign)},
    {"good signature", signature_good, 0},
    {"bad signature", signature_bad, REASON_BIT(bad_signature)},
    {"test", tested, REASON_BIT(test_traffic)},
    {"prefetch", prefetched, REASON_BIT(prefetch)},
    {"preview", previewed, REASON_BIT(prefetch)},
    {"prerender", prerendered, REASON_BIT(prefetch)},
    {"another purpose", purpose_other, 0},
    {"no agent", agent_none, REASON_BIT(empty_agent)},
    {"curl", agent_curl, REASON_BIT(non_browser_agent)},
    {"bot", agent_bot, REASON_BIT(known_bot_agent)},
    {"honeypot", ad_honeypot, REASON_BIT(honeypot)},
    {"several", several,
     REASON_BIT(honeypot) | REASON_BIT(non_browser_agent) |
         REASON_BIT(test_traffic)},
};

struct house {
    struct master_source *masters;
    const struct master *master;
    struct ruleset_source *rules;
    const struct ruleset *set;
    struct agent_cache *cache;
};

static int
house_make(void **state)
{
    static struct house house;
    struct why why;

    house.masters = fixture_master();
    house.master = master_take(house.masters);
    assert_int_equal(ruleset_open(&house.rules, NULL, NULL, &why), ERR_OK);
    house.set = ruleset_take(house.rules);
    house.cache = agent_cache_new();
    *state = &house;
    return 0;
}

static int
house_remove(void **state)
{
    struct house *house = *state;

    agent_cache_free(&house->cache);
    ruleset_drop(house->rules, house->set);
    ruleset_close(&house->rules);
    master_drop(house->masters, house->master);
    master_close(&house->masters);
    return 0;
}

static struct fraud_facts
facts_of(const struct house *house, const struct click *click)
{
    struct fraud_facts facts;

    fraud_examine(house->set, house->master, house->cache, click, &facts);
    return facts;
}

static void
each_rule_finds_its_click_and_no_other(void **state)
{
    const struct house *house = *state;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct click click = fixture_click(1);

        rows[i].change(&click);
        struct fraud_facts facts = facts_of(house, &click);

        if (facts.reasons != rows[i].reasons)
            print_message("%s\n", rows[i].text);
        assert_int_equal(facts.reasons, rows[i].reasons);
        assert_int_equal(facts.event_ms, click.timestamp_ms);
        assert_int_equal(facts.price_micros,
                         rows[i].change == campaign_unknown ? 0 : 250000);
        assert_int_equal(facts.campaign == NULL,
                         rows[i].change == campaign_unknown);
    }
}

static void
the_first_match_that_is_not_in_shadow_is_primary(void **state)
{
    const struct house *house = *state;

    for (int i = 0; i < REASONS_N; i++)
        for (int k = i; k < REASONS_N; k++) {
            uint32_t reasons =
                (UINT32_C(1) << i | UINT32_C(1) << k) & ~REASON_BIT(none);
            int want = i > 0 ? i : k;
            struct verdict v =
                fraud_conclude(house->set, house->master, reasons, 0);

            assert_int_equal(v.reason, want);
            assert_int_equal(v.kind, reason_info((enum reason)want)->verdict);
            assert_int_equal(v.reasons, reasons);
            assert_int_equal(v.ruleset, ruleset_number(house->set));
            assert_int_equal(v.master, house->master->version);
        }
}

static void
keys_tell_what_the_rules_tell_apart(void **state)
{
    const struct house *house = *state;
    struct click a = fixture_click(1), b = fixture_click(2);
    struct fraud_facts fa = facts_of(house, &a), fb = facts_of(house, &b);

    assert_true(fa.id_hash != fb.id_hash);
    assert_int_equal(fa.user_key, fb.user_key);
    assert_int_equal(fa.address_key, fb.address_key);
    b = a;
    b.account = 2;
    assert_true(facts_of(house, &b).id_hash != fa.id_hash);
    b = a;
    b.user_id = STR("use");
    b.ad_id = STR("rad-1"); /* the same letters, cut elsewhere */
    assert_true(facts_of(house, &b).user_key != fa.user_key);
    b = a;
    b.ip = STR("\x20\x01\x0d\xb8\1\2\3\4\5\6\7\x08\x09\x0a\x0b\x0c");
    fb = facts_of(house, &b);
    b.ip = STR(
        "\x20\x01\x0d\xb8\1\2\3\4\x99\6\7\x08\x09\x0a\x0b\x0d"); /* the same /64 */
    assert_int_equal(facts_of(house, &b).address_key, fb.address_key);
    b.ip = STR("\x20\x01\x0d\xb8\1\2\3\5\5\6\7\x08\x09\x0a\x0b\x0c");
    assert_true(facts_of(house, &b).address_key != fb.address_key);
}

/* The id runs on disk hold this hash: it must never change. */
static void
the_id_hash_is_xxh3_of_account_and_id(void **state)
{
    (void)state;
    uint8_t key[20] = {0x78, 0x56, 0x34, 0x12}, id[16];

    for (int i = 0; i < 16; i++)
        key[4 + i] = id[i] = (uint8_t)(i * 17);
    assert_int_equal(fraud_id_hash(0x12345678, id), hash64(key, sizeof(key), 0));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_rule_finds_its_click_and_no_other),
        cmocka_unit_test(the_first_match_that_is_not_in_shadow_is_primary),
        cmocka_unit_test(keys_tell_what_the_rules_tell_apart),
        cmocka_unit_test(the_id_hash_is_xxh3_of_account_and_id),
    };

    return cmocka_run_group_tests(tests, house_make, house_remove);
}

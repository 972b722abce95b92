/* The list of well-known bots (../shared/data/bots, MIT licence) is read where it is there.
 * The built-in patterns were written knowing which of its agents generic words miss, so the
 * rate found says nothing of agents that nobody has listed. */

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/file.h"
#include "fraud/agents.h"
#include "tests/fraud/fraud_fixture.h"

enum {
    FOUND_PERMILLE_MIN = 970
}; /* of the agents listed as real instances of bots */

static struct agents *
agents_make(const char *const *lines, size_t n)
{
    struct agents *agents;
    struct why why;

    assert_int_equal(agents_open(&agents, &why), ERR_OK);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(agents_add(agents, str_of(lines[i]), &why), ERR_OK);
    assert_int_equal(agents_finish(agents, &why), ERR_OK);
    return agents;
}

static void
patterns_match_anywhere_in_any_case_but_for_exceptions(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "Bot", "he", "she", "hers", "!cuBOT", "/^x[0-9]{2,}y$/", "/colou?r/"};
    static const struct {
        const char *agent;
        bool want;
    } agents_of[] = {
        {"Mozilla/5.0 (Googlebot)", true},
        {"ROBOT", true},
        {"Linux; CUBOT X19", false},
        {"Linux; CUBOT X19; bot", true},
        {"cubotbot", true},
        {"ushers", true},
        {"us", false},
        {"hxe", false},
        {"x12y", true},
        {"x1y", false},
        {"ax12y", false},
        {"my COLOR", true},
        {"", false},
    };
    struct agents *agents = agents_make(lines, sizeof(lines) / sizeof(lines[0]));

    for (size_t i = 0; i < sizeof(agents_of) / sizeof(agents_of[0]); i++)
        assert_int_equal(agents_match(agents, str_of(agents_of[i].agent)),
                         agents_of[i].want);
    agents_close(&agents);
    assert_null(agents);
}

/* A small alphabet, so that prefixes and suffixes overlap all the time. */
static void
the_automaton_agrees_with_strstr(void **state)
{
    (void)state;
    uint64_t seed = 5;

    for (int round = 0; round < 300; round++) {
        char words[12][8], text[40];
        const char *lines[12];
        size_t n = 1 + random_below(&seed, 12);

        for (size_t i = 0; i < n; i++) {
            size_t length = 1 + random_below(&seed, 6);

            for (size_t k = 0; k < length; k++)
                words[i][k] = (char)('a' + random_below(&seed, 3));
            words[i][length] = '\0';
            lines[i] = words[i];
        }
        struct agents *agents = agents_make(lines, n);

        for (int t = 0; t < 200; t++) {
            size_t length = random_below(&seed, sizeof(text));
            bool want = false;

            for (size_t k = 0; k < length; k++)
                text[k] = (char)('a' + random_below(&seed, 4));
            text[length] = '\0';
            for (size_t i = 0; i < n; i++)
                want |= strstr(text, words[i]) != NULL;
            assert_int_equal(agents_match(agents, str_of(text)), want);
        }
        agents_close(&agents);
    }
}

static void
bad_lines_and_too_many_are_refused(void **state)
{
    (void)state;
    struct agents *agents;
    struct why why;
    char line[RULESET_LINE_MAX + 2];
    enum err err = ERR_OK;

    assert_int_equal(agents_open(&agents, &why), ERR_OK);
    memset(line, 'x', sizeof(line));
    assert_int_equal(agents_add(agents, (struct str){line, sizeof(line) - 1}, &why),
                     ERR_INVALID);
    assert_int_equal(agents_add(agents, STR("/(/"), &why), ERR_INVALID);
    assert_int_equal(agents_add(agents, STR("//"), &why), ERR_INVALID);
    assert_int_equal(agents_add(agents, STR("!"), &why), ERR_INVALID);
    assert_int_equal(agents_add(agents, STR("a\0b"), &why), ERR_INVALID);
    for (int i = 0; i <= RULESET_PATTERNS_MAX && err == ERR_OK; i++) {
        int n = snprintf(line, sizeof(line), "pattern-%d", i);

        err = agents_add(agents, (struct str){line, (uint32_t)n}, &why);
    }
    assert_int_equal(err, ERR_FULL);
    agents_close(&agents);
}

static const struct ruleset *
builtin_take(struct ruleset_source **source)
{
    struct why why;

    assert_int_equal(ruleset_open(source, NULL, NULL, &why), ERR_OK);
    return ruleset_take(*source);
}

static void
the_built_in_list_knows_browsers_libraries_and_bots(void **state)
{
    (void)state;
    static const struct {
        const char *agent;
        int want;
    } agents[] = {
        {"", REASON_empty_agent},
        {" \t ", REASON_empty_agent},
        {"curl/8.5.0", REASON_non_browser_agent},
        {"python-requests/2.31.0", REASON_non_browser_agent},
        {"Googlebot/2.1", REASON_non_browser_agent},
        {"mozilla/5.0", REASON_non_browser_agent},
        {"Mozilla", REASON_non_browser_agent},
        {"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
         REASON_known_bot_agent},
        {"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
         "HeadlessChrome/120.0.0.0 Safari/537.36",
         REASON_known_bot_agent},
        {BROWSER, REASON_none},
        {"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, "
         "like Gecko) "
         "Chrome/141.0.0.0 Safari/537.36 Edg/141.0.0.0",
         REASON_none},
        {"Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) "
         "AppleWebKit/605.1.15 "
         "(KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1",
         REASON_none},
        {"Mozilla/5.0 (Linux; Android 9; CUBOT_X19) AppleWebKit/537.36 (KHTML, "
         "like Gecko) "
         "Chrome/128.0.0.0 Mobile Safari/537.36",
         REASON_none},
        {"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) "
         "AppleWebKit/605.1.15 "
         "(KHTML, like Gecko) Mobile/15E148 "
         "[FBAN/FBIOS;FBAV/470.0.0.37.100;FBDV/iPhone14,5]",
         REASON_none},
        {"Mozilla/5.0 (Linux; Android 14; SM-S918B Build/UP1A.231005.007; wv) "
         "AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/129.0.0.0 "
         "Mobile "
         "Safari/537.36 Instagram 351.0.0.41.106 Android",
         REASON_none},
        {"Mozilla/5.0 (SMART-TV; Linux; Tizen 7.0) AppleWebKit/537.36 (KHTML, like "
         "Gecko) "
         "SamsungBrowser/5.0 Chrome/108.0.0.0 TV Safari/537.36",
         REASON_none},
        {"Opera/9.80 (Windows NT 6.1) Presto/2.12.388 Version/12.18", REASON_none},
        {"Mozilla/5.0 (Windows NT 6.1; WOW64; Trident/7.0; rv:11.0) like Gecko",
         REASON_none},
        {"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 "
         "(KHTML, like "
         "Gecko) GSA/380.0 Mobile/15E148 Safari/604.1",
         REASON_none},
    };
    struct ruleset_source *source;
    const struct ruleset *set = builtin_take(&source);
    struct agent_cache *cache = agent_cache_new();

    for (int round = 0; round < 2; round++) /* then from the cache */
        for (size_t i = 0; i < sizeof(agents) / sizeof(agents[0]); i++)
            assert_int_equal(ruleset_agent(set, cache, str_of(agents[i].agent)),
                             agents[i].want);
    agent_cache_free(&cache);
    ruleset_drop(source, set);
    ruleset_close(&source);
}

static void
a_full_cache_changes_no_answer(void **state)
{
    (void)state;
    struct ruleset_source *source;
    const struct ruleset *set = builtin_take(&source);
    struct agent_cache *cache = agent_cache_new();

    for (int i = 0; i < 3 * AGENT_CACHE_SLOTS; i++) {
        char agent[64];
        int n = snprintf(agent, sizeof(agent), "Mozilla/5.0 (%d; %s)", i,
                         i % 3 == 0 ? "Foobot/1" : "Firefox");

        assert_int_equal(
            ruleset_agent(set, cache, (struct str){agent, (uint32_t)n}),
            i % 3 == 0 ? REASON_known_bot_agent : REASON_none);
    }
    agent_cache_free(&cache);
    ruleset_drop(source, set);
    ruleset_close(&source);
}

/* Each agent under instances/list of every bot; counts those that are no browser's. */
static void
agents_count(const cJSON *bots, const char *list, unsigned *all, unsigned *found)
{
    struct ruleset_source *source;
    const struct ruleset *set = builtin_take(&source);
    struct agent_cache *cache = agent_cache_new();
    const cJSON *bot, *agent;

    *all = *found = 0;
    cJSON_ArrayForEach(bot, bots)
    {
        const cJSON *instances = cJSON_GetObjectItemCaseSensitive(bot, "instances");

        cJSON_ArrayForEach(agent, cJSON_GetObjectItemCaseSensitive(instances, list))
        {
            int got = ruleset_agent(set, cache, str_of(agent->valuestring));

            ++*all;
            *found += got != REASON_none;
            if (got == REASON_none)
                print_message("not found: %.120s\n", agent->valuestring);
        }
    }
    agent_cache_free(&cache);
    ruleset_drop(source, set);
    ruleset_close(&source);
}

/* Its three "rejected" agents are one that imitates two others: the preview fetcher of a
 * messenger, which the list accepts under its own name. It is no person's click either. */
static void
the_well_known_bots_are_found(void **state)
{
    (void)state;
    struct buf text = BUF_MAX(16 << 20);
    unsigned all, found;

    if (file_read("../shared/data/bots/well-known-bots.json", &text, NULL) !=
            ERR_OK &&
        file_read("../../../shared/data/bots/well-known-bots.json", &text, NULL) !=
            ERR_OK &&
        file_read("../../../../shared/data/bots/well-known-bots.json", &text,
                  NULL) != ERR_OK) {
        buf_free(&text);
        skip();
    }
    cJSON *bots = cJSON_ParseWithLength((const char *)text.p, text.n);

    assert_non_null(bots);
    agents_count(bots, "accepted", &all, &found);
    print_message("found %u of %u agents of well-known bots\n", found, all);
    assert_true(all > 1000);
    assert_true(found * 1000 >= all * FOUND_PERMILLE_MIN);
    agents_count(bots, "rejected", &all, &found);
    assert_int_equal(found, all);
    cJSON_Delete(bots);
    buf_free(&text);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_match_anywhere_in_any_case_but_for_exceptions),
        cmocka_unit_test(the_automaton_agrees_with_strstr),
        cmocka_unit_test(bad_lines_and_too_many_are_refused),
        cmocka_unit_test(the_built_in_list_knows_browsers_libraries_and_bots),
        cmocka_unit_test(a_full_cache_changes_no_answer),
        cmocka_unit_test(the_well_known_bots_are_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

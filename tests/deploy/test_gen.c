/* The generator: the same seed the same bytes, its shares, and clicks that say of themselves
 * what they are. */
#include "deploy/gen.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "deploy/gen_plan.h"
#include "schema/click.h"
#include "schema/text.h"

/* 2026-11-21T12:00:00Z */
#define NOW_MS INT64_C(1795262400000)

static struct gen_options
options_of(uint64_t seed, uint32_t clicks)
{
    return (struct gen_options){.seed = seed,
                                .days = 2,
                                .end_day = (int32_t)(NOW_MS / CLOCK_DAY_MS),
                                .clicks = clicks,
                                .campaigns = 50,
                                .now_ms = NOW_MS,
                                .account = "demo"};
}

static struct gen_plan *
plan_of(uint64_t seed, uint32_t clicks)
{
    const struct gen_options options = options_of(seed, clicks);
    struct gen_plan *plan = NULL;

    assert_int_equal(gen_plan_make(&plan, &options, NULL), ERR_OK);
    assert_int_equal(gen_clicks(plan), clicks);
    return plan;
}

static void
all_bytes(uint64_t seed, struct buf *out)
{
    struct gen_plan *plan = plan_of(seed, 3000);

    buf_reset(out);
    gen_campaigns_csv(plan, out);
    for (uint32_t i = 0; i < gen_clicks(plan); i++) {
        gen_click_json(plan, i, out);
        buf_add_text(out, gen_pattern_name(plan, i));
    }
    assert_false(out->failed);
    gen_plan_free(&plan);
}

static void
the_same_seed_makes_the_same_bytes_and_another_others(void **state)
{
    struct buf a = BUF_MAX(1 << 25), b = BUF_MAX(1 << 25);

    (void)state;
    all_bytes(1, &a);
    all_bytes(1, &b);
    assert_int_equal(a.n, b.n);
    assert_memory_equal(a.p, b.p, a.n);
    all_bytes(2, &b);
    assert_true(a.n != b.n || memcmp(a.p, b.p, a.n) != 0);
    buf_free(&a);
    buf_free(&b);
}

static void
patterns_have_their_shares(void **state)
{
    static const struct {
        const char *name;
        int per_mille;
    } shares[] = {
#define X(name, per_mille) {#name, per_mille},
        GEN_PATTERNS(X)
#undef X
    };
    struct gen_plan *plan = plan_of(7, 200000);
    uint32_t counts[GEN_PATTERNS_N] = {0}, retries = 0;
    int sum = 0;

    (void)state;
    for (uint32_t i = 0; i < gen_clicks(plan); i++) {
        const char *name = gen_pattern_name(plan, i);
        int at = 0;
        while (strcmp(shares[at].name, name) != 0)
            assert_true(++at < GEN_PATTERNS_N);
        counts[at]++;
        retries += plan->shots[i].retry;
    }
    for (int k = 0; k < GEN_PATTERNS_N; k++)
        sum += shares[k].per_mille;
    for (int k = 0; k < GEN_PATTERNS_N; k++) {
        double expected = 200000.0 * shares[k].per_mille / sum;
        /* A flood is many clicks at once, so its share wavers more. */
        double slack = strstr(shares[k].name, "flood") != NULL ? 0.5 : 0.25;
        if (counts[k] < expected * (1 - slack) - 20 ||
            counts[k] > expected * (1 + slack) + 20)
            fail_msg("%s: %u clicks, not about %.0f", shares[k].name, counts[k],
                     expected);
    }
    assert_true(retries > 0);
    gen_plan_free(&plan);
}

/* What ingest would answer, by the same parser. */
static void
only_bad_fields_are_refused(void **state)
{
    struct gen_plan *plan = plan_of(3, 20000);
    struct click_parser *parser = NULL;
    struct buf json = BUF_MAX(1 << 16);
    uint32_t refused = 0, bad = 0;
    unsigned unknown;
    const struct click_limits limits = {NOW_MS, 5 * CLOCK_MINUTE_MS,
                                        7 * CLOCK_DAY_MS};

    (void)state;
    assert_int_equal(click_parser_open(&parser, 32768, NULL), ERR_OK);
    for (uint32_t i = 0; i < gen_clicks(plan); i++) {
        struct click click;
        struct click_error error;
        buf_reset(&json);
        gen_click_json(plan, i, &json);
        bool good =
            click_parse(parser, (struct str){(char *)json.p, (uint32_t)json.n},
                        &limits, &click, &error, &unknown);
        bool is_bad = plan->shots[i].pattern == GEN_bad_field;
        refused += !good;
        bad += is_bad;
        assert_int_equal(good, !is_bad);
    }
    assert_int_equal(refused, bad);
    assert_true(bad > 20);
    click_parser_close(&parser);
    buf_free(&json);
    gen_plan_free(&plan);
}

static int
by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* An id comes again only in retries and conflicts; a retry's bytes are the first's. */
static void
ids_repeat_only_in_retries_and_conflicts(void **state)
{
    struct gen_plan *plan = plan_of(11, 20000);
    uint32_t n = 0, *firsts = calloc(20000, sizeof(*firsts));
    struct buf a = BUF_MAX(1 << 16), b = BUF_MAX(1 << 16);

    (void)state;
    assert_non_null(firsts);
    for (uint32_t i = 0; i < gen_clicks(plan); i++) {
        const struct gen_shot *shot = &plan->shots[i];
        assert_true(shot->event_ms <= NOW_MS);
        assert_true(i == 0 || plan->shots[i - 1].post_ms <= shot->post_ms);
        if (shot->retry == 0)
            firsts[n++] = shot->id;
    }
    qsort(firsts, n, sizeof(*firsts), by_number);
    for (uint32_t i = 1; i < n; i++)
        assert_true(firsts[i - 1] < firsts[i]);
    for (uint32_t i = 0; i < 4000; i++) {
        if (plan->shots[i].retry == 0 || plan->shots[i].pattern == GEN_conflict)
            continue;
        uint32_t first = 0;
        while (plan->shots[first].id != plan->shots[i].id ||
               plan->shots[first].retry != 0)
            first++;
        buf_reset(&a);
        buf_reset(&b);
        gen_click_json(plan, first, &a);
        gen_click_json(plan, i, &b);
        if (plan->shots[first].pattern == plan->shots[i].pattern) {
            assert_int_equal(a.n, b.n);
            assert_memory_equal(a.p, b.p, a.n);
        }
    }
    free(firsts);
    buf_free(&a);
    buf_free(&b);
    gen_plan_free(&plan);
}

static void
the_first_campaign_has_the_most_clicks(void **state)
{
    struct gen_plan *plan = plan_of(5, 50000);
    uint32_t counts[50] = {0};

    (void)state;
    for (uint32_t i = 0; i < gen_clicks(plan); i++)
        counts[plan->shots[i].campaign]++;
    /* Zipf: the first has about twice the second's and ten times the tenth's. */
    assert_true(counts[0] > counts[1] * 3 / 2 && counts[0] < counts[1] * 3);
    assert_true(counts[0] > counts[9] * 6 && counts[0] < counts[9] * 16);
    gen_plan_free(&plan);
}

static void
wrong_options_are_refused_with_the_flag(void **state)
{
    struct gen_options table[6];
    static const char *const flags[6] = {"--clicks", "--clicks", "--campaigns",
                                         "--days",   "--days",   "--end"};
    struct gen_plan *plan;
    struct why why;

    (void)state;
    for (int i = 0; i < 6; i++)
        table[i] = options_of(1, 100);
    table[0].clicks = 0;
    table[1].clicks = GEN_CLICKS_MAX + 1;
    table[2].campaigns = 0;
    table[3].days = GEN_DAYS_MAX + 1;
    table[4].days = 0;
    table[5].end_day -= 10;
    for (int i = 0; i < 6; i++) {
        memset(&why, 0, sizeof(why));
        assert_int_equal(gen_plan_make(&plan, &table[i], &why), ERR_INVALID);
        assert_null(plan);
        assert_non_null(strstr(why.text, flags[i]));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_makes_the_same_bytes_and_another_others),
        cmocka_unit_test(patterns_have_their_shares),
        cmocka_unit_test(only_bad_fields_are_refused),
        cmocka_unit_test(ids_repeat_only_in_retries_and_conflicts),
        cmocka_unit_test(the_first_campaign_has_the_most_clicks),
        cmocka_unit_test(wrong_options_are_refused_with_the_flag),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

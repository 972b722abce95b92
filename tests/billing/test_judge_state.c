/* The rules' state in little memory gives the reasons that it gives in much. */
#include "billing/judge_core.h"
#include "tests/billing/billing_fixture.h"

enum { HOURS = 7 };

/* Clicks an hour: the second and third need many shards, the fifth fits again. */
static const uint64_t clicks_of[HOURS] = {300, 30000, 30000, 20, 50, 0, 5000};

static void
clicks_fill(struct judged *clicks, uint64_t n, int64_t hour_us, uint64_t *seed)
{
    for (uint64_t i = 0; i < n; i++) {
        uint64_t kind = random_below(seed, 3);

        clicks[i] = (struct judged){
            .user_key = random_next(seed),
            .address_key = random_next(seed),
            .event_ms = hour_us / 1000 + (int64_t)(i * 3600000 / n) -
                        (int64_t)random_below(seed, kind == 0 ? 7200000 : 5000),
            .reasons = random_below(seed, 10) == 0 ? REASON_BIT(duplicate) : 0,
        };
        if (kind != 2) { /* some users and addresses come often */
            clicks[i].user_key =
                random_below(seed, 500) * UINT64_C(0x9E3779B97F4A7C15);
            clicks[i].address_key = random_below(seed, 20);
        }
    }
}

static void
feed(struct state *state, const struct ruleset_limits *limits,
     struct judged *clicks, uint64_t n)
{
    for (uint64_t at = 0, done; at < n; at += done)
        MUST(state_feed(state, limits, clicks + at, n - at, &done, why));
}

static void
test_in_shards_and_in_memory_clicks_get_the_same_reasons(void)
{
    static const uint64_t pieces[] = {1000000, 4000, 777};
    static struct judged a[30000], b[30000];
    struct fixture f;

    fixture_open(&f);
    const struct ruleset_limits *limits = ruleset_limits(f.rules);
    for (size_t p = 0; p < sizeof(pieces) / sizeof(pieces[0]); p++) {
        struct state *much, *little;
        uint64_t seed = p + 1, matched = 0;
        uint32_t shards_max = 1;

        MUST(state_open(&much, f.judge, UINT64_C(1) << 30, why));
        MUST(state_open(&little, f.judge, 1 << 17, why));
        for (int h = 0; h < HOURS; h++) {
            int64_t hour_us = T0_US + (h + (h == 6)) * HOUR; /* a gap before 6 */
            uint64_t n = clicks_of[h];

            clicks_fill(a, n, hour_us, &seed);
            memcpy(b, a, n * sizeof(*b));
            MUST(state_hour(much, hour_us, why));
            MUST(state_hour(little, hour_us, why));
            feed(much, limits, a, n);
            for (uint64_t at = 0; at < n; at += pieces[p])
                feed(little, limits, b + at,
                     n - at < pieces[p] ? n - at : pieces[p]);
            for (uint64_t i = 0; i < n; i++) {
                CHECK(a[i].reasons == b[i].reasons);
                matched += (a[i].reasons & ~REASON_BIT(duplicate)) != 0;
            }
            CHECK(state_shards(much) == 1);
            if (state_shards(little) > shards_max)
                shards_max = state_shards(little);
            if (h == 0 || h == 4)
                CHECK(state_shards(little) == 1);
        }
        CHECK(shards_max >= 8 && matched > 10000);
        state_close(&much);
        state_close(&little);
    }
    fixture_close(&f);
}

static void
test_what_fits_in_no_shard_is_an_error(void)
{
    enum { N = 5000 };
    static struct judged clicks[N];
    struct state *state;
    struct fixture f;
    struct why text = {{0}};
    enum err err = ERR_OK;
    uint64_t seed = 3, done;

    fixture_open(&f);
    CHECK(state_open(&state, f.judge, FRAUD_WINDOW_BYTES_MIN - 1, &text) ==
          ERR_INVALID);
    CHECK(state == NULL);
    MUST(state_open(&state, f.judge, FRAUD_WINDOW_BYTES_MIN, why));
    MUST(state_hour(state, T0_US, why));
    clicks_fill(clicks, N, T0_US, &seed);
    for (int i = 0; i < N; i++) { /* keys of one shard: no number of them helps */
        clicks[i].user_key = (uint64_t)i + 1;
        clicks[i].reasons = 0;
    }
    for (uint64_t at = 0; at < N && err == ERR_OK; at += done)
        err = state_feed(state, ruleset_limits(f.rules), clicks + at, N - at, &done,
                         &text);
    CHECK(err == ERR_FULL && strstr(text.text, "limit") != NULL);
    state_close(&state);
    fixture_close(&f);
}

int
main(void)
{
    test_in_shards_and_in_memory_clicks_get_the_same_reasons();
    test_what_fits_in_no_shard_is_an_error();
    return 0;
}

/* tests/fraud/fraud_fixture.h - master data and a click that no rule minds. */
#ifndef TESTS_FRAUD_FIXTURE_H
#define TESTS_FRAUD_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/hash.h"
#include "fraud/fraud.h"

#define HOUR_US   INT64_C(3600000000)
#define SECOND_US INT64_C(1000000)
/* 2026-03-01T10:00:00Z, the start of an hour. */
#define T0_US INT64_C(1772359200000000)
#define T0_MS (T0_US / 1000)

#define BROWSER \
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"

static const struct ruleset_limits DEFAULTS = {10000, 3600000, 100, 10, 0};

/* splitmix64: a fixed seed gives fixed tests. */
static inline uint64_t
random_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static inline uint64_t
random_below(uint64_t *state, uint64_t n)
{
    return random_next(state) % n;
}

/* Account 1: shoes (EUR, 0.25), paused; account 2: books. */
static inline struct master_source *
fixture_master(void)
{
    static const struct master_rate rate = {0, 250000};
    static const struct master_status active[] = {{0, true}},
                                      paused[] = {{0, false}};
    static const struct master_status stopped[] = {{0, true},
                                                   {T0_MS + 1000, false}};
    const struct master_campaign campaigns[] = {
        {.id = STR("shoes"),
         .account = 1,
         .advertiser = STR("a"),
         .currency = STR("EUR"),
         .rates = &rate,
         .rates_n = 1,
         .statuses = active,
         .statuses_n = 1},
        {.id = STR("paused"),
         .account = 1,
         .advertiser = STR("a"),
         .currency = STR("EUR"),
         .rates = &rate,
         .rates_n = 1,
         .statuses = paused,
         .statuses_n = 1},
        {.id = STR("stopped"),
         .account = 1,
         .advertiser = STR("a"),
         .currency = STR("EUR"),
         .rates = &rate,
         .rates_n = 1,
         .statuses = stopped,
         .statuses_n = 2},
        {.id = STR("books"),
         .account = 2,
         .advertiser = STR("b"),
         .currency = STR("JPY"),
         .rates = &rate,
         .rates_n = 1,
         .statuses = active,
         .statuses_n = 1},
    };
    struct master_source *source = master_fixed(campaigns, 4, NULL, 0);

    assert_non_null(source);
    return source;
}

static inline struct click
fixture_click(uint64_t number)
{
    struct click click = {
        .account = 1,
        .received_us = T0_US,
        .timestamp_ms = T0_MS,
        .campaign_id = STR("shoes"),
        .ad_id = STR("ad-1"),
        .publisher_id = STR("pub"),
        .user_id = STR("user"),
        .ip = {"\xc0\x00\x02\x01", 4},
        .user_agent = STR(BROWSER),
        .country = STR("DE"),
        .price_micros = 300000,
    };

    memcpy(click.event_id, &number, sizeof(number));
    return click;
}

#endif

/* tests/billing/judge_model.h - the judge as it would be if time and memory were nothing:
 * every click compared with every one before. It always tells the truth. */
#ifndef TESTS_BILLING_JUDGE_MODEL_H
#define TESTS_BILLING_JUDGE_MODEL_H

#include "tests/billing/billing_fixture.h"

struct expected {
    enum verdict_kind kind;
    uint32_t reasons; /* duplicate and the stateful ones */
    int64_t price;
    bool conflict;
};

struct world {
    struct click *clicks;
    struct expected *expected;
    size_t n;
};

static bool
same_text(struct str a, struct str b)
{
    return str_equal(a, b);
}

static bool
same_id(const struct click *a, const struct click *b)
{
    return a->account == b->account && memcmp(a->event_id, b->event_id, 16) == 0;
}

static int64_t
hour_of(const struct click *click)
{
    return clock_floor(click->received_us, HOUR);
}

/* Fed clicks received in this hour and the one before. */
static bool
in_view(const struct click *now, const struct click *then)
{
    return hour_of(now) - hour_of(then) <= HOUR;
}

static uint32_t
model_state(const struct world *w, const bool *fed, size_t at)
{
    const struct click *click = &w->clicks[at];
    uint32_t minute = 1, second = 1, reasons = 0;
    bool met = false;

    for (size_t i = at; i-- > 0 && in_view(click, &w->clicks[i]);) {
        const struct click *before = &w->clicks[i];

        if (!fed[i])
            continue;
        if (!met && same_text(before->campaign_id, click->campaign_id) &&
            same_text(before->user_id, click->user_id) &&
            same_text(before->ad_id, click->ad_id)) {
            int64_t apart = llabs(click->timestamp_ms - before->timestamp_ms);

            met = true;
            if (apart < 10000)
                reasons |= REASON_BIT(double_click);
            else if (apart < 3600000)
                reasons |= REASON_BIT(repeat_click);
        }
        if (!same_text(before->ip, click->ip))
            continue;
        minute += before->timestamp_ms / 60000 == click->timestamp_ms / 60000;
        second += before->timestamp_ms / 1000 == click->timestamp_ms / 1000;
    }
    if (minute > 100)
        reasons |= REASON_BIT(address_minute_rate);
    if (second > 10)
        reasons |= REASON_BIT(address_second_rate);
    return reasons;
}

struct model_day {
    const struct master_campaign *campaign;
    int32_t day;
    int64_t spent;
    bool exhausted;
};

static bool
model_fits(struct model_day *days, const struct master_campaign *c, int32_t day,
           int64_t price)
{
    struct model_day *d = days;
    int64_t budget = master_budget(c, day);

    while (d->campaign != NULL && (d->campaign != c || d->day != day))
        d++;
    d->campaign = c;
    d->day = day;
    if (budget != MASTER_NO_BUDGET && d->spent + price > budget)
        d->exhausted = true;
    if (!d->exhausted)
        d->spent += price;
    return !d->exhausted;
}

static bool
same_event(const struct click *a, const struct click *b)
{
    return a->timestamp_ms == b->timestamp_ms &&
           same_text(a->campaign_id, b->campaign_id) &&
           same_text(a->ad_id, b->ad_id) && same_text(a->user_id, b->user_id) &&
           same_text(a->ip, b->ip) && same_text(a->publisher_id, b->publisher_id) &&
           a->price_micros == b->price_micros && a->test == b->test;
}

static void
model_run(const struct fixture *f, struct world *w, int64_t dedup_us)
{
    struct model_day days[4096] = {0};
    bool *fed = calloc(w->n + 1, sizeof(*fed));
    struct agent_cache *agents = agent_cache_new();

    CHECK(fed != NULL && agents != NULL);
    for (size_t i = 0; i < w->n; i++) {
        const struct click *click = &w->clicks[i];
        struct expected *e = &w->expected[i];
        struct fraud_facts facts;
        struct verdict verdict;

        fraud_examine(f->rules, f->master, agents, click, &facts);
        e->reasons = facts.reasons;
        for (size_t j = 0; j < i; j++)
            if (same_id(&w->clicks[j], click) &&
                hour_of(&w->clicks[j]) >= hour_of(click) - dedup_us) {
                e->reasons |= REASON_BIT(duplicate);
                e->conflict = !same_event(&w->clicks[j], click);
                break;
            }
        fed[i] = fraud_feeds(e->reasons);
        if (fed[i])
            e->reasons |= model_state(w, fed, i);
        verdict = fraud_conclude(f->rules, f->master, e->reasons, 0);
        e->kind = (enum verdict_kind)verdict.kind;
        if (!verdict_is_billable(e->kind))
            continue;
        e->price = facts.price_micros;
        if (!model_fits(days, facts.campaign,
                        zone_day(facts.campaign->zone, facts.event_ms), e->price)) {
            e->kind = VERDICT_OVER_BUDGET;
            e->reasons |= REASON_BIT(over_budget);
            e->price = 0;
        }
    }
    free(fed);
    agent_cache_free(&agents);
}

#endif

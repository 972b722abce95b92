#include "deploy/gen.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/hash.h"
#include "common/money.h"
#include "deploy/gen_plan.h"
#include "schema/text.h"

enum { FLOOD_MINUTE = 150, FLOOD_SECOND = 15, ADS = 8 };

/* splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators". */
static uint64_t
draw(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint32_t
draw_below(uint64_t *state, uint32_t n)
{
    return (uint32_t)(((draw(state) >> 32) * n) >> 32);
}

uint64_t
gen_hash(const struct gen_plan *plan, uint64_t what, uint64_t of)
{
    uint64_t words[2] = {what, of};

    return hash64(words, sizeof(words), plan->options.seed);
}

static void
campaign_make(struct gen_plan *plan, uint32_t i)
{
    static const char *const currencies[] = {"EUR", "JPY", "BHD"};
    static const int64_t unit[] = {MONEY_MICROS / 100, MONEY_MICROS,
                                   MONEY_MICROS / 1000};
    struct gen_campaign *campaign = &plan->campaigns[i];
    uint64_t state = gen_hash(plan, 'c', i);

    campaign->advertiser = i / 4;
    uint32_t currency = campaign->advertiser % 3;
    campaign->currency = currencies[currency];
    campaign->zone =
        campaign->advertiser % 2 == 0 ? "Europe/Berlin" : "Asia/Kolkata";
    /* 5 to 154 cents, yen or fils, every third with parts of a cent. */
    campaign->price_micros = unit[currency] * (5 + draw_below(&state, 150));
    if (i % 3 == 0)
        campaign->price_micros += unit[currency] * draw_below(&state, 1000) / 1000;
    campaign->by_event = i % 7 == 3;
    campaign->cap_micros = campaign->price_micros * 2;
    campaign->later_micros = i % 5 == 1 ? campaign->price_micros * 3 / 2 : 0;
    campaign->paused = i % 20 == 19;
    uint32_t daily =
        plan->options.clicks / (plan->options.days * plan->options.campaigns);
    if (i % 6 == 2)
        campaign->budget_micros = campaign->price_micros * (1 + daily / 2);
}

/* Zipf with exponent 1: weights 1 / (rank + 1), as running sums. */
static void
popularity_make(struct gen_plan *plan)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < plan->options.campaigns; i++) {
        sum += (UINT64_C(1) << 32) / (i + 1);
        plan->popularity[i] = sum;
    }
}

static uint32_t
campaign_draw(const struct gen_plan *plan, uint64_t *state)
{
    uint32_t low = 0, high = plan->options.campaigns - 1;
    uint64_t at = draw(state) % plan->popularity[high];

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (plan->popularity[middle] > at)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* More by day than by night: relative weight of each UTC hour. */
static int64_t
time_draw(const struct gen_plan *plan, uint64_t *state)
{
    static const uint8_t hours[24] = {2, 1, 1, 1, 1, 2,  4,  6,  8,  9,  10, 10,
                                      9, 9, 9, 9, 9, 10, 11, 12, 12, 10, 6,  4};
    static const uint32_t sum = 165;
    const struct gen_options *options = &plan->options;
    int64_t first_day = options->end_day - (int64_t)options->days + 1;
    int64_t day = first_day + draw_below(state, options->days);
    uint32_t at = draw_below(state, sum);
    int hour = 0;

    while (hour < 23 && at >= hours[hour])
        at -= hours[hour++];
    int64_t ms = day * CLOCK_DAY_MS + hour * CLOCK_HOUR_MS +
                 draw_below(state, (uint32_t)CLOCK_HOUR_MS);
    return ms <= options->now_ms ? ms
                                 : options->now_ms - draw_below(state, 3600 * 1000);
}

static enum gen_pattern
pattern_draw(uint64_t *state)
{
    static const uint16_t shares[] = {
#define X(name, per_mille) per_mille,
        GEN_PATTERNS(X)
#undef X
    };
    uint32_t sum = 0;

    for (int i = 0; i < GEN_PATTERNS_N; i++)
        sum += shares[i];
    uint32_t at = draw_below(state, sum);
    int pattern = 0;
    while (at >= shares[pattern])
        at -= shares[pattern++];
    return (enum gen_pattern)pattern;
}

static struct gen_shot *
shot_add(struct gen_plan *plan, const struct gen_shot *like)
{
    assert(plan->shots_n < plan->options.clicks);
    struct gen_shot *shot = &plan->shots[plan->shots_n];

    *shot = *like;
    shot->id = plan->shots_n++;
    shot->post_ms = shot->event_ms;
    return shot;
}

static struct gen_shot
shot_draw(const struct gen_plan *plan, uint64_t *state)
{
    uint32_t users = plan->options.clicks / 3 + 1;
    struct gen_shot shot = {
        .event_ms = time_draw(plan, state),
        .campaign = campaign_draw(plan, state),
        .user = draw_below(state, users),
        .ad = (uint8_t)draw_below(state, ADS),
        .pattern = GEN_normal,
    };

    shot.address = shot.user; /* a user keeps an address */
    return shot;
}

/* A burst from one address over all campaigns: what only a rule across partitions sees. */
static void
flood_add(struct gen_plan *plan, uint64_t *state, enum gen_pattern pattern)
{
    uint32_t size = pattern == GEN_minute_flood ? FLOOD_MINUTE : FLOOD_SECOND;
    int64_t span_ms = pattern == GEN_minute_flood ? CLOCK_MINUTE_MS : 1000;
    struct gen_shot base = shot_draw(plan, state);
    int64_t from_ms = clock_floor(base.event_ms, span_ms);

    for (uint32_t i = 0; i < size && plan->shots_n < plan->options.clicks; i++) {
        struct gen_shot shot = shot_draw(plan, state);
        shot.pattern = (uint8_t)pattern;
        shot.address = UINT32_C(0x80000000) | base.address;
        shot.event_ms = from_ms + span_ms * i / size;
        (void)shot_add(plan, &shot);
    }
}

/* A click that follows an earlier one: a retry, or the same user again. */
static void
follow_add(struct gen_plan *plan, uint64_t *state, enum gen_pattern pattern)
{
    const struct gen_shot before = plan->shots[draw_below(state, plan->shots_n)];
    struct gen_shot shot = before;

    shot.pattern = (uint8_t)pattern;
    shot.retry = 0; /* of a retry too: it is a click of its own */
    if (pattern == GEN_double_click)
        shot.event_ms += 1 + draw_below(state, 9000);
    if (pattern == GEN_repeat_click)
        shot.event_ms += 11000 + draw_below(state, 3500000);
    if (shot.event_ms > plan->options.now_ms)
        shot.event_ms = before.event_ms;
    struct gen_shot *added = shot_add(plan, &shot);
    if (pattern == GEN_retry || pattern == GEN_conflict) {
        added->id = before.id;
        if (pattern == GEN_retry)
            added->pattern = before.pattern; /* the same bytes, whatever they are */
        added->retry = 1;
        added->post_ms = before.post_ms + 1 + draw_below(state, 7200000);
    }
}

static void
shots_make(struct gen_plan *plan)
{
    uint64_t state = gen_hash(plan, 's', 0);

    while (plan->shots_n < plan->options.clicks) {
        enum gen_pattern pattern = pattern_draw(&state);
        bool follows = pattern == GEN_retry || pattern == GEN_conflict ||
                       pattern == GEN_double_click || pattern == GEN_repeat_click;
        if (pattern == GEN_minute_flood || pattern == GEN_second_flood) {
            /* The share counts clicks, and a flood is many. */
            uint32_t size =
                pattern == GEN_minute_flood ? FLOOD_MINUTE : FLOOD_SECOND;
            if (draw_below(&state, size) == 0)
                flood_add(plan, &state, pattern);
        } else if (follows) {
            if (plan->shots_n > 0)
                follow_add(plan, &state, pattern);
        } else {
            struct gen_shot shot = shot_draw(plan, &state);
            shot.pattern = (uint8_t)pattern;
            struct gen_shot *added = shot_add(plan, &shot);
            if (pattern == GEN_late)
                added->post_ms +=
                    CLOCK_HOUR_MS + draw_below(&state, 20 * 3600 * 1000);
            else if (draw_below(&state, 20) == 0)
                added->post_ms +=
                    draw_below(&state, 120000); /* a little disordered */
        }
    }
}

static int
post_order(const void *a, const void *b)
{
    const struct gen_shot *x = a, *y = b;

    if (x->post_ms != y->post_ms)
        return x->post_ms < y->post_ms ? -1 : 1;
    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    return (int)x->retry - (int)y->retry;
}

static enum err
options_check(const struct gen_options *o, struct why *why)
{
    if (o->clicks < 1 || o->clicks > GEN_CLICKS_MAX)
        return err_set(why, ERR_INVALID, "gen: --clicks is not in 1..%d",
                       GEN_CLICKS_MAX);
    if (o->campaigns < 1 || o->campaigns > GEN_CAMPAIGNS_MAX)
        return err_set(why, ERR_INVALID, "gen: --campaigns is not in 1..%d",
                       GEN_CAMPAIGNS_MAX);
    if (o->days < 1 || o->days > GEN_DAYS_MAX)
        return err_set(why, ERR_INVALID, "gen: --days is not in 1..%d",
                       GEN_DAYS_MAX);
    int64_t first_ms = (o->end_day - (int64_t)o->days + 1) * CLOCK_DAY_MS;
    if (first_ms > o->now_ms || first_ms < o->now_ms - 7 * CLOCK_DAY_MS)
        return err_set(why, ERR_INVALID,
                       "gen: the first day is not within the last 7: ingest would "
                       "refuse it; change --end or --days");
    return ERR_OK;
}

enum err
gen_plan_make(struct gen_plan **out, const struct gen_options *options,
              struct why *why)
{
    assert(out != NULL);
    *out = NULL;
    enum err err = options_check(options, why);
    if (err != ERR_OK)
        return err;
    struct gen_plan *plan = calloc(1, sizeof(*plan));
    if (plan == NULL)
        return err_set(why, ERR_NOMEM, "gen: no memory");
    plan->options = *options;
    plan->campaigns = calloc(options->campaigns, sizeof(*plan->campaigns));
    plan->popularity = calloc(options->campaigns, sizeof(*plan->popularity));
    plan->shots = calloc(options->clicks, sizeof(*plan->shots));
    if (plan->campaigns == NULL || plan->popularity == NULL ||
        plan->shots == NULL) {
        gen_plan_free(&plan);
        return err_set(why, ERR_NOMEM, "gen: no memory for %u clicks",
                       options->clicks);
    }
    for (uint32_t i = 0; i < options->campaigns; i++)
        campaign_make(plan, i);
    popularity_make(plan);
    shots_make(plan);
    qsort(plan->shots, plan->shots_n, sizeof(*plan->shots), post_order);
    *out = plan;
    return ERR_OK;
}

void
gen_plan_free(struct gen_plan **plan)
{
    if (*plan == NULL)
        return;
    free((*plan)->campaigns);
    free((*plan)->popularity);
    free((*plan)->shots);
    free(*plan);
    *plan = NULL;
}

uint32_t
gen_clicks(const struct gen_plan *plan)
{
    return plan->shots_n;
}

const char *
gen_pattern_name(const struct gen_plan *plan, uint32_t i)
{
    static const char *const names[] = {
#define X(name, per_mille) #name,
        GEN_PATTERNS(X)
#undef X
    };

    if (plan->shots[i].retry != 0 && plan->shots[i].pattern != GEN_conflict)
        return "retry";
    return names[plan->shots[i].pattern];
}

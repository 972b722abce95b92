/* deploy/gen.h - seeded traffic: the same seed makes the same campaigns and clicks.
 *
 * Campaigns have Zipf popularity, three currencies (EUR, JPY, BHD: 2, 0 and 3 decimals), two
 * time zones, fixed and event prices, a rate change, budgets, some paused. Days have a
 * rhythm. Among the genuine clicks are retries (some with another payload), double and
 * repeat clicks, bots, prefetches, tests, honeypots, address floods, unknown campaigns, wrong
 * currencies, clicks that must be refused, and late and disordered ones.
 *
 * Units    ms of event time.
 * Memory   48 bytes a click.
 * Threads  A plan is read-only once made.
 */
#ifndef DEPLOY_GEN_H
#define DEPLOY_GEN_H

#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

enum { GEN_CAMPAIGNS_MAX = 1000000, GEN_CLICKS_MAX = 100000000, GEN_DAYS_MAX = 7 };

#define GEN_PATTERNS(X)    \
    X(normal, 800)         \
    X(retry, 30)           \
    X(conflict, 3)         \
    X(double_click, 20)    \
    X(repeat_click, 20)    \
    X(bot, 30)             \
    X(script, 10)          \
    X(no_agent, 5)         \
    X(prefetch, 5)         \
    X(test, 5)             \
    X(honeypot, 4)         \
    X(unknown_campaign, 4) \
    X(wrong_currency, 4)   \
    X(minute_flood, 30)    \
    X(second_flood, 20)    \
    X(late, 20)            \
    X(bad_field, 5)

enum gen_pattern {
#define X(name, per_mille) GEN_##name,
    GEN_PATTERNS(X)
#undef X
        GEN_PATTERNS_N
};

struct gen_options {
    uint64_t seed;
    uint32_t days;
    int32_t end_day; /* last day, days since 1970-01-01 */
    uint32_t clicks;
    uint32_t campaigns;
    int64_t now_ms; /* no event is later */
    const char *account;
};

struct gen_plan;

enum err gen_plan_make(struct gen_plan **out, const struct gen_options *options,
                       struct why *why);
void gen_plan_free(struct gen_plan **plan);
/* The campaigns as CSV for `campaign import`; a second line of a campaign is a later rate. */
void gen_campaigns_csv(const struct gen_plan *plan, struct buf *out);
/* Clicks in the order in which they are posted. */
uint32_t gen_clicks(const struct gen_plan *plan);
/* Appends click i as one line of JSON, without a line end. */
void gen_click_json(const struct gen_plan *plan, uint32_t i, struct buf *out);
const char *gen_pattern_name(const struct gen_plan *plan, uint32_t i);

/* Posts a plan and writes the truth; progress goes to standard error. */
struct gen_post {
    const char *url; /* http://host:port */
    const char *key;
    const char *truth_path; /* NULL: none */
    uint32_t batch;
    uint32_t connections;
};
struct gen_result {
    uint64_t requests, accepted, rejected, retried;
};
enum err gen_post(const struct gen_plan *plan, const struct gen_post *post,
                  struct gen_result *out, struct why *why);

#endif

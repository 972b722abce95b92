/* deploy/gen_plan.h - the inside of a plan, for the generator's own files.
 *
 * Threads  None.
 */
#ifndef DEPLOY_GEN_PLAN_H
#define DEPLOY_GEN_PLAN_H

#include "deploy/gen.h"

struct gen_campaign {
    const char *currency, *zone;
    uint32_t advertiser;
    bool by_event, paused;
    int64_t price_micros, cap_micros;
    int64_t
        later_micros; /* the rate from noon UTC of the last day on; 0: no change */
    int64_t budget_micros; /* 0: none */
};

struct gen_shot {
    int64_t event_ms, post_ms;
    uint32_t id; /* of the event: a retry has the first one's */
    uint32_t campaign, user, address;
    uint8_t ad, pattern, retry;
};

struct gen_plan {
    struct gen_options options;
    struct gen_campaign *campaigns;
    uint64_t *popularity;
    struct gen_shot *shots;
    uint32_t shots_n;
};

/* A number that depends on the seed, a letter, and an index. */
uint64_t gen_hash(const struct gen_plan *plan, uint64_t what, uint64_t of);

#endif

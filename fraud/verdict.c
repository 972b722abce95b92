#include "fraud/verdict.h"

#include <assert.h>

enum { SCORE_BITS = 14, FLAGS_MAX = 3 };

static_assert(REASONS_N <= 32, "reasons are bits of a uint32_t");
static_assert((int)VERDICT_WARMING <= (int)FLAGS_MAX,
              "two bits of flags are packed");

static const struct reason_info infos[REASONS_N] = {
#define X(name, verdict, scope, class, feeds, text) \
    {#name, VERDICT_##verdict, SCOPE_##scope, CLASS_##class, feeds, text},
    REASON_MAP(X)
#undef X
};

const struct reason_info *
reason_info(enum reason reason)
{
    assert(reason < REASONS_N);
    return &infos[reason];
}

const char *
verdict_name(enum verdict_kind kind)
{
    static const char *const names[VERDICT_KINDS_N] = {
        [VERDICT_NONE] = "none",
        [VERDICT_BILLABLE] = "billable",
        [VERDICT_SUSPICIOUS] = "suspicious",
        [VERDICT_INVALID] = "invalid",
        [VERDICT_DUPLICATE] = "duplicate",
        [VERDICT_QUARANTINED] = "quarantined",
        [VERDICT_OVER_BUDGET] = "over_budget",
    };

    assert(kind < VERDICT_KINDS_N);
    return names[kind];
}

enum reason
reason_find(struct str name)
{
    int found = REASONS_N;

    for (int i = 0; i < REASONS_N && found == REASONS_N; i++)
        if (str_equal(name, str_of(infos[i].name)))
            found = i;
    return (enum reason)found;
}

uint64_t
verdict_pack(const struct verdict *verdict)
{
    assert(verdict->score < 1 << SCORE_BITS);
    assert(verdict->flags <= FLAGS_MAX);
    return (uint64_t)verdict->kind | (uint64_t)verdict->reason << 8 |
           (uint64_t)verdict->flags << 16 | (uint64_t)verdict->score << 18 |
           (uint64_t)verdict->ruleset << 32 | (uint64_t)verdict->master << 48;
}

struct verdict
verdict_unpack(uint64_t packed)
{
    return (struct verdict){
        .kind = (uint8_t)packed,
        .reason = (uint8_t)(packed >> 8),
        .flags = packed >> 16 & FLAGS_MAX,
        .score = packed >> 18 & ((1 << SCORE_BITS) - 1),
        .ruleset = (uint16_t)(packed >> 32),
        .master = (uint16_t)(packed >> 48),
    };
}

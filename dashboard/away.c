#include "dashboard/away.h"

#include <assert.h>

#include "common/log.h"

bool
away_ask(struct away *away, int64_t now_us)
{
    int64_t until_us = atomic_load(&away->until_us);

    if (until_us == 0)
        return true;
    if (now_us < until_us)
        return false;
    return atomic_compare_exchange_strong(&away->until_us, &until_us,
                                          now_us + AWAY_ASK_US);
}

void
away_report(struct away *away, enum err err, int64_t began_us, int64_t now_us,
            const struct why *why)
{
    int64_t wait_us = (now_us - began_us) * AWAY_FACTOR;

    assert(now_us >= began_us);
    if (err != ERR_AGAIN) {
        if (atomic_exchange(&away->until_us, 0) != 0)
            log_event(LOG_INFO, "dashboard_source_back",
                      LOG_TEXT("source", away->name));
        return;
    }
    wait_us = wait_us < AWAY_MIN_US   ? AWAY_MIN_US
              : wait_us > AWAY_MAX_US ? AWAY_MAX_US
                                      : wait_us;
    if (atomic_exchange(&away->until_us, now_us + wait_us) == 0)
        log_event(LOG_WARN, "dashboard_source_away", LOG_TEXT("source", away->name),
                  LOG_TEXT("why", why->text));
}

#include "ingest/breaker.h"

#include <assert.h>

bool
breaker_would_admit(const struct breaker *breaker)
{
    return breaker->state == BREAKER_CLOSED ||
           (breaker->state == BREAKER_HALF_OPEN && !breaker->probing);
}

bool
breaker_admit(struct breaker *breaker, bool *probe)
{
    bool admitted = breaker_would_admit(breaker);

    *probe = admitted && breaker->state == BREAKER_HALF_OPEN;
    if (*probe)
        breaker->probing = true;
    return admitted;
}

/* A probe of an earlier half-open time (late since) is nobody's any more. */
void
breaker_failed(struct breaker *breaker, bool probe)
{
    if (probe && breaker->state == BREAKER_HALF_OPEN)
        breaker->probing = false;
}

bool
breaker_acknowledged(struct breaker *breaker, bool probe)
{
    if (!probe || breaker->state != BREAKER_HALF_OPEN)
        return false;
    *breaker = (struct breaker){.state = BREAKER_CLOSED};
    return true;
}

bool
breaker_late(struct breaker *breaker)
{
    if (breaker->state == BREAKER_OPEN)
        return false;
    *breaker = (struct breaker){.state = BREAKER_OPEN};
    return true;
}

bool
breaker_caught_up(struct breaker *breaker)
{
    assert(!breaker->probing || breaker->state == BREAKER_HALF_OPEN);
    if (breaker->state != BREAKER_OPEN)
        return false;
    breaker->state = BREAKER_HALF_OPEN;
    return true;
}

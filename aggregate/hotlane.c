#include "aggregate/hotlane.h"

#include <stdlib.h>

bool
lane_open(struct lane *lane)
{
    *lane = (struct lane){
        .filling = calloc(LANE_MAX, sizeof(struct lane_click)),
        .handed = calloc(LANE_MAX, sizeof(struct lane_click)),
    };
    return lane->filling != NULL && lane->handed != NULL;
}

void
lane_close(struct lane *lane)
{
    free(lane->filling);
    free(lane->handed);
    *lane = (struct lane){0};
}

bool
lane_add(struct lane *lane, struct lane_click click)
{
    if (lane->n == LANE_MAX)
        lane_hand(lane);
    if (lane->n == LANE_MAX)
        return false;
    lane->filling[lane->n++] = click;
    return true;
}

void
lane_hand(struct lane *lane)
{
    struct lane_click *empty;

    if (lane->n == 0 ||
        atomic_load_explicit(&lane->handed_n, memory_order_acquire) != 0)
        return;
    empty = lane->handed;
    lane->handed = lane->filling;
    lane->filling = empty;
    atomic_store_explicit(&lane->handed_n, lane->n, memory_order_release);
    lane->n = 0;
}

const struct lane_click *
lane_take(struct lane *lane, uint32_t *n)
{
    *n = atomic_load_explicit(&lane->handed_n, memory_order_acquire);
    return *n > 0 ? lane->handed : NULL;
}

void
lane_done(struct lane *lane)
{
    atomic_store_explicit(&lane->handed_n, 0, memory_order_release);
}

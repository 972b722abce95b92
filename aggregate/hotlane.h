/* aggregate/hotlane.h - a worker's clicks on their way to the address stage: two buffers
 * that change hands.
 *
 *   worker: lane_add ... lane_hand   |   stage: lane_take ... lane_done
 *
 * The worker fills one buffer while the stage empties the other; when the stage is slow the
 * worker's fills up, and what comes then is refused.
 *
 * Memory   2 x LANE_MAX x 32 bytes; pages become real when touched.
 * Threads  One worker, one stage; no locks.
 */
#ifndef AGGREGATE_HOTLANE_H
#define AGGREGATE_HOTLANE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { LANE_MAX = 1 << 17 };

struct lane_click {
    uint64_t address_key;
    int64_t event_ms;
    uint64_t offset;
    uint64_t received_ms : 48, partition : 16;
};

struct lane {
    struct lane_click *filling; /* the worker's */
    uint32_t n;
    struct lane_click *handed; /* the stage's while handed_n > 0 */
    _Atomic uint32_t handed_n;
};

bool lane_open(struct lane *lane);
void lane_close(struct lane *lane);
/* False: it is full. */
bool lane_add(struct lane *lane, struct lane_click click);
/* Hands over what there is, unless the stage is still at the last. */
void lane_hand(struct lane *lane);
/* NULL: nothing. */
const struct lane_click *lane_take(struct lane *lane, uint32_t *n);
void lane_done(struct lane *lane);

#endif

/* aggregate/live.h - one campaign's last minutes in 10 s steps: a ring of 64 steps.
 *
 * Step S10 (seconds of event time, a multiple of 10) lives in slot (S10 / 10) % 64. A newer
 * step takes the slot of an older one; a click older than its slot's step is past the ring.
 *
 * Units    Seconds; micros.
 * Memory   1 KiB.
 * Threads  None.
 */
#ifndef AGGREGATE_LIVE_H
#define AGGREGATE_LIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/str.h"

enum {
    LIVE_STEP_S = 10,
    LIVE_STEPS = 64,
    LIVE_EXPIRE_S = 900,
    /* Clicks this much older than now are not worth a step: readers ask for 5 minutes. */
    LIVE_AGE_S_MAX = 330,
    LIVE_TEXT_MAX = 64,
};

struct live {
    struct {
        uint32_t step; /* S10 / 10; 0: empty */
        uint32_t clicks;
        int64_t cost_micros;
    } steps[LIVE_STEPS];
    uint64_t dirty; /* bits of slots */
};

/* Counts one billable click. False if it is past the ring. */
bool live_count(struct live *live, int64_t event_ms, int64_t cost_micros);
/* Slot k as Redis keeps it: "S10,clicks,cost". Returns its length. */
uint32_t live_format(const struct live *live, unsigned k, char out[LIVE_TEXT_MAX]);
/* The reverse; false if the texts are not a slot's. */
bool live_load(struct live *live, struct str field, struct str value);

/* Decimal numbers joined by commas: exactly n of them, or false. */
bool numbers_parse(struct str text, int64_t *out, unsigned n);
/* Writes them; returns the length, at most 21 * n. */
uint32_t numbers_format(char *out, const int64_t *numbers, unsigned n);

#endif

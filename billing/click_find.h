/* billing/click_find.h - clicks by event id, with their live and final verdicts.
 *
 * Memory   One archive file's verdicts.
 * Threads  None.
 */
#ifndef BILLING_CLICK_FIND_H
#define BILLING_CLICK_FIND_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

enum { CLICK_FIND_MAX = 100 };

struct click;

struct click_find {
    const char *archive_dir, *judge_dir;
    uint8_t event_id[16];
    bool json;
    bool discreet; /* no user id, no sender, and of the address only the network */
    /* NULL: all; else only the clicks that it says yes to. */
    bool (*allowed)(void *ctx, const struct click *click);
    void *ctx;
};

/* Each click with that id, in order of receipt: a JSON array, or text for people. *found
 * counts them; a repeat stands beside its first. */
enum err click_find(const struct click_find *what, struct buf *out, uint32_t *found,
                    struct why *why);

#endif

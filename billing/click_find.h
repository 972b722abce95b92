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

/* Each click with that id, in order of receipt, of one account (0: of all): a JSON array, or
 * text for people. *found counts them; a repeat is found beside its first. */
enum err click_find(const char *archive_dir, const char *judge_dir,
                    const uint8_t event_id[16], uint32_t account, bool json,
                    struct buf *out, uint32_t *found, struct why *why);

#endif

/* billing/archive_side.h - what the archive asks of the brokers beside the clicks, in a
 * thread of its own, so that no partition waits for it: verdicts are followed, lost clicks
 * looked for, and what is listed is told to the spool.
 *
 * Errors   Tried again every second; one event when it begins to fail, one when it works.
 * Threads  Its own. It reads of a part what is _Atomic, or archived; archive_side_* from the archive's.
 */
#ifndef BILLING_ARCHIVE_SIDE_H
#define BILLING_ARCHIVE_SIDE_H

#include "billing/archive_part.h"
#include "common/control.h"

struct archive_side;

/* parts outlive it. verdicts and control may be NULL. */
enum err archive_side_start(struct archive_side **out, struct clicklog *log,
                            struct verdictlog *verdicts, struct control *control,
                            struct part *parts, uint32_t parts_n, struct why *why);
/* Says once more what is listed, then stops. */
void archive_side_stop(struct archive_side **side);
/* Looks for a partition's next click until archive_side_found takes it, or forget. */
void archive_side_look(struct archive_side *side, uint32_t partition,
                       const struct part_gap *gap);
bool archive_side_found(struct archive_side *side, uint32_t partition,
                        uint64_t *log_offset);
void archive_side_forget(struct archive_side *side, uint32_t partition);

#endif

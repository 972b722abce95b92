/* aggregate/flush.h - what has changed in a partition goes to Redis in one script.
 *
 *   epoch is ours, offset is what we flushed last, not dirty? else EPOCH, OFFSET, DIRTY
 *   dirty = 1 | rows (HSET of absolute values, PFADD of new user ids or SET of a whole
 *   HyperLogLog, EXPIREAT) |
 *   dirty = 0, offset, L, event_ms, updated_us
 *
 * Redis does not undo what fails half-way: a mark left behind means rebuild. Values are
 * absolute and PFADD repeats do nothing, so a flush whose answer was lost may be sent again
 * as part of the next one. EXPIREAT is set every time: a row that expired meanwhile cannot
 * come back for good.
 *
 * Verdicts of the clicks must be durable before (part_blocks, verdictlog_append).
 *
 * Memory   One struct flush a partition in flight, kept and used again.
 * Threads  None.
 */
#ifndef AGGREGATE_FLUSH_H
#define AGGREGATE_FLUSH_H

#include "aggregate/part.h"

struct flush;

enum { FLUSH_UNPACK_MAX = 4000 }; /* Lua's stack takes 8,000 */

enum err flush_open(struct flush **out, struct why *why);
void flush_close(struct flush **flush);
/* Loads the script; flushes need it. */
enum err flush_prepare(struct redis *redis, struct why *why);
/* Builds and queues a partition's flush. */
enum err flush_send(struct flush *flush, struct part *part, struct tools *tools,
                    struct why *why);
/* Its answer: on ERR_OK the partition is flushed. On ERR_CONFLICT it is dealt with too:
 * the partition claims again, or is lost. */
enum err flush_receive(struct part *part, struct tools *tools, struct why *why);

#endif

/* aggregate/flush.h - what has changed in a partition goes to Redis in one transaction.
 *
 *   build   HSET of absolute values, PFADD of new user ids or SET of a whole HyperLogLog,
 *           EXPIREAT, a key each; offset, L, event_ms, updated_us of the owner last
 *   send    WATCH of the owner: epoch is ours, offset is what we flushed last, not dirty? else
 *           refused; MULTI, all of that, EXEC
 *   receive nobody wrote the owner meanwhile: all of it is there
 *
 * Values are absolute and PFADD repeats do nothing, so a flush whose answer was lost may be
 * sent again as part of the next one. EXPIREAT is set every time: a row that expired
 * meanwhile cannot come back for good. A command that fails inside EXEC (a key of another
 * type) does not undo the others: then the partition is marked dirty, which means rebuild.
 *
 * Verdicts of the clicks must be durable before (part_blocks, verdictlog_append).
 *
 * Memory   One struct flush a worker, kept and used again; redis holds what is built.
 * Threads  None.
 */
#ifndef AGGREGATE_FLUSH_H
#define AGGREGATE_FLUSH_H

#include "aggregate/part.h"

struct flush;

enum err flush_open(struct flush **out, struct why *why);
void flush_close(struct flush **flush);
/* Lays a partition's flush out; another's may be under way. */
enum err flush_build(struct flush *flush, struct part *part, struct tools *tools,
                     struct why *why);
/* Sends what was built last; on any error it is forgotten. ERR_CONFLICT: Redis has another
 * epoch, offset or mark, and it is dealt with: the partition claims again, or is lost. */
enum err flush_send(struct part *part, struct tools *tools, struct why *why);
/* Its answer: on ERR_OK the partition is flushed. */
enum err flush_receive(struct part *part, struct tools *tools, struct why *why);

#endif

/* aggregate/tenure.h - whose a partition is: what its worker must do when the log gives it
 * or takes it.
 *
 *   owned (common/clicklog.h)   the partition's state    what is to be done
 *   0                           IDLE                     nothing
 *   g                           IDLE                     TAKE: claim it
 *   g, as when it was taken     any other                HOLD: go on
 *   0                           any other                LEAVE: record, flush, let go
 *   another g                   any other                AGAIN: another process may have had
 *                                                        it between: start from a claim
 *
 * LMDB's log gives every partition at once and takes none.
 *
 * Threads  None.
 */
#ifndef AGGREGATE_TENURE_H
#define AGGREGATE_TENURE_H

#include "aggregate/part.h"

enum tenure { TENURE_NONE, TENURE_TAKE, TENURE_HOLD, TENURE_LEAVE, TENURE_AGAIN };

enum tenure tenure_of(enum part_state state, uint64_t taken, uint64_t owned);
/* IDLE -> CLAIM. */
void tenure_take(struct part *part, uint64_t owned);
/* Nothing that was counted would be lost: it is on record and in Redis. */
bool tenure_settled(const struct part *part);
/* When leaving is given up. Asked again: the same. */
int64_t tenure_leave_until_us(struct part *part, int64_t now_us);
/* -> IDLE, whatever is not on record forgotten; the log may give it to another. */
void tenure_end(struct part *part, int64_t now_us);
/* Some time after the end, unless it came back: its verdicts are not followed any more. */
void tenure_rest(struct part *part, int64_t now_us);

#endif

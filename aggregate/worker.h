/* aggregate/worker.h - one thread and its share of the partitions, in turn: of these, those
 * that the log gives it (aggregate/tenure.h).
 *
 *   claim those that need it -> read a batch of each -> when it is time: record the
 *   verdicts of a share of them (one sync), send its flushes, take the answers
 *
 * A share is a quarter of the partitions. Each has its flush every aggregate.flush_ms, and
 * they have them in turn; when more than aggregate.flush_fields fields of a partition have
 * changed and the worker is not at ease, later in proportion, up to aggregate.flush_ms_max:
 * a field that changes again meanwhile is written once.
 *
 * Threads  worker_start makes one; worker_stop joins it.
 */
#ifndef AGGREGATE_WORKER_H
#define AGGREGATE_WORKER_H

#include "aggregate/part.h"

struct worker;

/* Looks after partitions index, index + workers, ... */
enum err worker_start(struct worker **out, struct shared *shared, uint32_t index,
                      uint32_t workers, struct why *why);
/* Flushes what it can, once, and frees. */
void worker_stop(struct worker **worker);
uint64_t worker_flushed(const struct worker *worker, uint32_t partition);

#endif

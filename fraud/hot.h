/* fraud/hot.h - addresses that another process has found past a rate's limit.
 *
 * A fixed table of (address, minute) and (address, second) buckets that are past the limit:
 * each click in one that is judged from then on. Written by one, read by all workers.
 *
 * Units    Milliseconds of event time.
 * Memory   HOT_SLOTS x 16 bytes; when a set is full its oldest bucket goes.
 * Threads  fraud_hot_add one; fraud_hot_reasons any.
 */
#ifndef FRAUD_HOT_H
#define FRAUD_HOT_H

#include <stdint.h>

#include "common/err.h"

enum { HOT_SLOTS = 1 << 18 };

struct fraud_hot;

enum err fraud_hot_open(struct fraud_hot **out, struct why *why);
void fraud_hot_close(struct fraud_hot **hot);
/* reasons: bits of address_minute_rate, address_second_rate. event_ms: any time within the
 * bucket. */
void fraud_hot_add(struct fraud_hot *hot, uint64_t address_key, int64_t event_ms,
                   uint32_t reasons);
/* The bits that hold for a click; one cache line or two. */
uint32_t fraud_hot_reasons(const struct fraud_hot *hot, uint64_t address_key,
                           int64_t event_ms);

#endif

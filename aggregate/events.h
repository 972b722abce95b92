/* aggregate/events.h - what the live path did about trouble, for `clickledger doctor`.
 *
 * DIR/events.log, one line an event: time, partition, what, why:
 *   2026-11-21T09:08:07.123Z p7 rebuild redis has no owner record: built from offset 0
 * Past EVENTS_BYTES_MAX the file becomes events.log.1, replacing the one before. The same
 * goes to the structured log.
 *
 * Errors   A line that cannot be written is lost: counting goes on.
 * Threads  Any.
 */
#ifndef AGGREGATE_EVENTS_H
#define AGGREGATE_EVENTS_H

#include <stdint.h>

#include "common/err.h"
#include "common/log.h"

enum { EVENTS_BYTES_MAX = 1 << 20 };

struct events;

/* dir is made if need be. */
enum err events_open(struct events **out, const char *dir, struct why *why);
void events_close(struct events **events);
void events_add(struct events *events, enum log_level level, uint32_t partition,
                const char *what, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

#endif

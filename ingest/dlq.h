/* ingest/dlq.h - the dead-letter log: clicks that were refused, and why.
 *
 *   any thread: dlq_add -> one bounded buffer -> writer thread -> DATA/dlq/<time>-<n>.ndjson
 *
 * A line is {"time","key","account","remote","code","field","event_id","message","raw",
 * "cut"}; raw is the click's text, cut to DLQ_RAW_MAX bytes. It is for people who look
 * for the mistake: it never holds up a request, so what does not fit is dropped and
 * counted, and what was added in the last moments before a crash may be lost.
 *
 * Units    Bytes.
 * Memory   Two buffers of DLQ_QUEUE_MAX at most.
 * Errors   Writing: logged once a minute at most, the lines are counted as dropped.
 *          Past bytes_max the oldest segment file is removed.
 * Threads  dlq_add any; the rest the owner's.
 */
#ifndef INGEST_DLQ_H
#define INGEST_DLQ_H

#include <stdint.h>

#include "common/err.h"
#include "common/str.h"

enum {
    DLQ_RAW_MAX = 4096,
    DLQ_QUEUE_MAX = 4 << 20,
    DLQ_SEGMENTS = 8, /* bytes_max is cut into as many files, or more */
    DLQ_SEGMENT_BYTES_MAX = 16 << 20,
};

struct dlq;

struct dlq_entry {
    int64_t time_ms;
    uint32_t key, account;
    struct str remote; /* 4 or 16 bytes */
    const char *code, *field, *event_id, *message;
    struct str raw;
};

/* data_dir/dlq is made. */
enum err dlq_open(struct dlq **out, const char *data_dir, uint64_t bytes_max,
                  struct why *why);
void dlq_add(struct dlq *dlq, const struct dlq_entry *entry);
/* Lines that found no room or no disk. */
uint64_t dlq_dropped(struct dlq *dlq);
/* Writes what is queued, then closes. */
void dlq_close(struct dlq **dlq);

#endif

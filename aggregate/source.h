/* aggregate/source.h - one partition's clicks by offset: from the log, or, below the log's
 * first offset, from the archive's files.
 *
 * Memory   One archive file's blocks and live verdicts, while it is read.
 * Errors   ERR_NOTFOUND: neither has the offset; with Kafka, that retention was shorter
 *          than the lag. ERR_CORRUPT names file or record.
 * Threads  None; the reader is the worker's.
 */
#ifndef AGGREGATE_SOURCE_H
#define AGGREGATE_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "common/clicklog.h"
#include "common/err.h"
#include "schema/click.h"

struct source;

enum err source_open(struct source **out, struct clicklog *log,
                     const char *archive_dir, uint32_t partition, struct why *why);
void source_close(struct source **source);
/* Decodes up to max clicks from offset on: click i has offset from + i. They borrow until
 * source_release. *n is 0 at the end, and with Kafka also while more is on its way. */
enum err source_read(struct source *source, struct clicklog_reader *reader,
                     uint64_t from, struct click *clicks, size_t max, size_t *n,
                     struct why *why);
/* ERR_NOTFOUND: what to tell when offset lies outside [first, next) of Kafka. */
enum err source_gone(uint32_t partition, uint64_t offset, uint64_t first,
                     uint64_t next, struct why *why);
void source_release(struct source *source, struct clicklog_reader *reader);
/* The live verdict that the archive keeps of an offset just read from it; 0: none. */
uint64_t source_verdict(const struct source *source, uint64_t offset);
/* The first offset received at or after since_us that log or archive have. */
enum err source_since(struct source *source, struct clicklog_reader *reader,
                      int64_t since_us, uint64_t *offset, struct why *why);

#endif

/* common/verdictlog.h - the recorded live verdicts: facts beside the click log.
 *
 * A block is (partition, base offset, epoch, n packed verdicts of 8 bytes). The owner of a
 * partition claims a higher epoch before it judges; where blocks overlap, the highest
 * epoch wins, offset by offset, so a zombie's block never counts.
 *
 * Layout (LMDB, environment DIR): key partition u16 BE, base u64 BE, epoch u64 BE; value:
 *   u32 count, u32 zero, u64 XXH3 of the rest, count x u64 (0 is never a verdict).
 *
 * Errors   As common/clicklog.h.
 * Threads  Appends are serialised inside; readers any.
 */
#ifndef COMMON_VERDICTLOG_H
#define COMMON_VERDICTLOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

enum { VERDICTLOG_BLOCK_MAX = 65536 };

struct verdictlog;

struct verdictlog_block {
    uint32_t partition;
    uint64_t base;
    uint64_t epoch;
    const uint64_t *verdicts; /* borrowed */
    uint32_t count;           /* 1..VERDICTLOG_BLOCK_MAX */
};

enum err verdictlog_open(struct verdictlog **out, const char *dir,
                         uint64_t map_bytes, bool read_only, struct why *why);
void verdictlog_close(struct verdictlog **log);
/* All blocks in one transaction with one sync; durable on return. */
enum err verdictlog_append(struct verdictlog *log,
                           const struct verdictlog_block *blocks, size_t n,
                           struct why *why);
/* Fills out[i] with the winning verdict of offset from + i, or 0 where none is recorded. */
enum err verdictlog_read(struct verdictlog *log, uint32_t partition, uint64_t from,
                         size_t n, uint64_t *out, struct why *why);
/* The highest epoch on record of partition (0: none) and the offset after the last
 * recorded verdict. */
enum err verdictlog_last(struct verdictlog *log, uint32_t partition,
                         uint64_t *epoch, uint64_t *next, struct why *why);
/* Topic click_verdicts, a block a message in the partition of its clicks, offsets those of
 * raw_clicks; DIR is a local copy of what was followed, so that the readers above work as
 * they do without Kafka, and may be deleted at any time. verdictlog_append returns when
 * the brokers have all blocks (ERR_AGAIN: perhaps they do; append the same again).
 *
 *   value: u32 magic "CLV1", u32 count, u64 base, u64 epoch, u64 XXH3 of the rest seeded
 *          with the three before it, count x u64; little endian. Timestamp: the wall clock.
 *
 * What was appended is in the copy only once it was followed: verdictlog_read and _last
 * need a verdictlog_follow after the append. A damaged message is skipped and logged once.
 * One process a DIR (ERR_CONFLICT); config outlives the log. The open needs the brokers.
 */
struct config;
enum err verdictlog_open_kafka(struct verdictlog **out, const struct config *config,
                               const char *dir, uint64_t map_bytes,
                               struct why *why);
/* Kafka: follows a partition from what was written at or after since_us on (0: all that
 * is held), and returns when all that the topic had on entry is here. Again with the same
 * or a later since_us: waits for what is new; with an earlier one: begins there again.
 * What is older than since_us need not be there. ERR_AGAIN: brokers away, or somebody left
 * the partition meanwhile. Without Kafka: ERR_OK. */
enum err verdictlog_follow(struct verdictlog *log, uint32_t partition,
                           int64_t since_us, struct why *why);
/* For all that follow it in this process; the next verdictlog_follow goes on. */
void verdictlog_leave(struct verdictlog *log, uint32_t partition);
/* Removes whole blocks below offset. */
enum err verdictlog_trim(struct verdictlog *log, uint32_t partition,
                         uint64_t offset, struct why *why);

#endif

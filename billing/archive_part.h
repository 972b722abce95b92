/* billing/archive_part.h - one partition of the archive: its open file, its list, and what
 * still lacks live verdicts.
 *
 *   log --archive_part_read(limit)--> open file --part_roll--> renamed, listed
 *
 * Whatever fails puts the partition back to what is listed: the log still has the rest,
 * and reading it again makes the same rows.
 *
 * Units    Offsets; microseconds of receipt.
 * Errors   ERR_FULL, ERR_FATAL: try again later. ERR_CORRUPT: a gap or a repeat in
 *          (incarnation, seq), or a damaged block: the partition stays where it is.
 * Threads  The archive's own, but `listed` and `live_listed`.
 */
#ifndef BILLING_ARCHIVE_PART_H
#define BILLING_ARCHIVE_PART_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/clicklog.h"
#include "common/err.h"
#include "common/metrics.h"
#include "common/verdictlog.h"
#include "schema/avrofile.h"
#include "schema/manifest.h"

enum { PART_INCARNATIONS_MAX = 16, PART_LIVE_MAX = 16384 };

/* L: the last seq seen of an incarnation. Older ones than these cannot come back: offsets
 * only grow, and an incarnation ends when the next begins. */
struct part_last {
    uint64_t incarnation, seq;
};

struct part {
    const char *dir;
    uint32_t partition;
    uint64_t roll_bytes;
    struct manifest_writer *list;
    uint64_t next; /* offset to read */
    struct part_last lasts[PART_INCARNATIONS_MAX];
    uint32_t lasts_n;

    struct avrofile_writer *file; /* NULL: none open */
    struct manifest_file open;
    int64_t hour_us;
    uint16_t version;

    struct manifest_file *live; /* listed, without live verdicts: a queue */
    uint32_t live_first, live_n, live_cap;

    bool failing; /* said so already */
    int64_t retry_mono_us;
    _Atomic uint64_t listed, live_listed;
    struct metric *files_total, *bytes_total, *lag, *broken;
};

enum err archive_part_open(struct part *part, const char *dir, uint32_t partition,
                           uint64_t roll_bytes, struct why *why);
void archive_part_close(struct part *part);
/* Throws the open file away and stands where the list ends. */
enum err archive_part_reset(struct part *part, struct why *why);
/* Takes every click received before limit_us into files. */
enum err archive_part_read(struct part *part, struct clicklog_reader *reader,
                           int64_t limit_us, struct why *why);
/* Finishes and lists the open file, if there is one. */
enum err part_roll(struct part *part, struct why *why);
/* Queues a listed file for its live verdicts. */
enum err part_live_add(struct part *part, const struct manifest_file *file,
                       struct why *why);
/* Writes what live verdicts there are; gives a file up after an hour with holes in them,
 * or after a day without them. */
enum err part_live_write(struct part *part, struct verdictlog *verdicts,
                         int64_t now_us, struct why *why);

#endif

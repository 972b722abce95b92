/* billing/archive_part.h - one partition of the archive: its open file, its list, and what
 * still lacks live verdicts.
 *
 *   log --archive_part_read(limit)--> open file --part_roll--> renamed, listed
 *
 * Two numbers for a click: its ordinal (how many of its partition came before it; file
 * names and lists have these) and its offset in the log. Over LMDB they are the same. Over
 * Kafka, where clicks may come again, the log's runs ahead: each file is contiguous there
 * too, and its metadata clickledger.log_id and .log_offset say which log, and the offset
 * of its first row.
 *
 * Whatever fails puts the partition back to what is listed: the log still has the rest,
 * and reading it again makes the same rows. A gap over Kafka is waited for instead: what
 * is missing may be sent again, and all that came before it with it, in order.
 *
 * Units    Ordinals, but log_* are offsets of the log; microseconds of receipt.
 * Memory   One record, of the log's largest; the queue for live verdicts.
 * Errors   ERR_FULL, ERR_FATAL, ERR_AGAIN: try again later. ERR_CONFLICT: another archive
 *          has the list. ERR_CORRUPT: a gap (part->gap), over LMDB a repeat too, or a damaged
 *          block: the partition stays where it is. Over Kafka what is missing behind the last that
 *          came of an incarnation, as the spool's marks count it, is a gap as well.
 *          ERR_NOTFOUND: the log does not hold its next offset any more.
 * Threads  The archive's own, but what is _Atomic and archive_part_archived.
 */
#ifndef BILLING_ARCHIVE_PART_H
#define BILLING_ARCHIVE_PART_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "billing/archive_seqs.h"
#include "common/clicklog.h"
#include "common/err.h"
#include "common/metrics.h"
#include "common/verdictlog.h"
#include "schema/avrofile.h"
#include "schema/manifest.h"

enum { PART_LIVE_MAX = 16384 };
#define PART_STILL_US    INT64_C(5000000) /* before clicks are looked upon as lost */
#define PART_LOG_ID      "clickledger.log_id" /* clicklog_stats.spool_id, hex */
#define PART_LOG_OFFSET  "clickledger.log_offset"
#define PART_LOG_UNKNOWN UINT64_MAX

/* A listed file that waits for its live verdicts. */
struct part_live {
    struct manifest_file file;
    uint64_t log_base; /* PART_LOG_UNKNOWN: the file knows */
};

/* The click that must come next, and where its incarnation went on instead: whatever is
 * missing was received no later than what came there. */
struct part_gap {
    uint64_t incarnation, seq, log_offset;
    int64_t received_us;
};

/* The end of a log in Kafka, asked for when a spool's incarnation was known: whatever was sent
 * before that began is below. */
struct part_began {
    uint64_t spool_id, incarnation, end;
};

struct part {
    const char *dir;
    uint32_t partition;
    uint64_t roll_bytes;
    bool kafka;
    uint64_t log_id;
    struct manifest_writer *list;
    uint64_t next;     /* ordinal of the next click to take */
    uint64_t log_next; /* offset to read next */
    bool placed;       /* log_next is known */
    int64_t last_us;   /* nothing that is new was received before it */
    struct archive_seqs seqs;

    struct clicklog_record
        held; /* the next click, read, but not before the limit */
    uint8_t *held_bytes;
    bool holding;
    bool complete; /* nothing is missing before the limit of the last read */
    bool more;     /* the last read stopped before it met an end */
    bool stalled;  /* at gap */
    struct part_gap gap;
    uint64_t heal_until; /* what was missing comes again before it or there */
    struct part_began began;
    uint64_t still_next; /* nothing new came since then */
    int64_t still_mono_us;

    struct avrofile_writer *file; /* NULL: none open */
    struct manifest_file open;
    uint64_t open_log_base;
    int64_t hour_us;
    uint16_t version;

    struct part_live *live; /* a queue */
    uint32_t live_first, live_n, live_cap;
    uint64_t log_listed; /* below it all is listed, or a repeat; 0: unknown */

    bool down;    /* must be reset before it is read */
    bool failing; /* said so already */
    uint64_t failed_next;
    int64_t retry_mono_us;
    bool fresh;             /* ours, but its folder was not looked through yet */
    _Atomic uint64_t owned; /* clicklog_owned, as we have acted on it */
    _Atomic uint64_t listed, live_listed;
    pthread_mutex_t mutex;         /* of archived */
    struct clicklog_last archived; /* as `listed`, for spools */
    _Atomic int64_t
        follow_us;         /* live verdicts are wanted since then; 0: none are */
    _Atomic bool followed; /* they were all here, once */
    struct metric *files_total, *bytes_total, *repeats_total, *lag, *broken;
};

/* Makes the list if there is none; the partition is nobody's, until a reset. */
enum err archive_part_open(struct part *part, const char *dir, uint32_t partition,
                           uint64_t roll_bytes, struct clicklog *log,
                           struct why *why);
void archive_part_close(struct part *part);
/* How far the list is, from any thread. */
struct clicklog_last archive_part_archived(struct part *part);
/* Throws the open file away and stands where the list ends. */
enum err archive_part_reset(struct part *part, struct why *why);
/* Throws the open file and the queue away and lets go of the list. */
void archive_part_drop(struct part *part);
/* Takes clicks received before limit_us into files, over Kafka at most so many a call.
 * Sets complete (mark is the newest one, of limit_us or later) and more. */
enum err archive_part_read(struct part *part, struct clicklog *log,
                           struct clicklog_reader *reader, int64_t limit_us,
                           const struct clicklog_mark *mark, struct why *why);
/* What was missing was found at log_offset: reads on, and drops until there what would be
 * out of order; it comes again behind. */
void archive_part_heal(struct part *part, uint64_t log_offset);
/* Finishes and lists the open file, if there is one. */
enum err part_roll(struct part *part, struct why *why);

/* --- archive_cut.c --- */

/* Whether the partition has all that was received before the mark's cut, after a read that met
 * none of later. ERR_CORRUPT: some of it is missing for good (part->gap). */
enum err part_cut_look(struct part *part, struct clicklog *log,
                       const struct clicklog_mark *mark, struct why *why);
/* A new incarnation begins with this record: ERR_CORRUPT if the mark knows of clicks before it
 * that did not come (part->gap). */
enum err part_cut_begin(struct part *part, const struct clicklog_mark *mark,
                        const struct clicklog_record *record, struct why *why);

/* --- archive_live.c --- */

/* Where in this log a listed file begins, as its metadata says. ERR_NOTFOUND: it is from
 * another log, or gone. */
enum err part_log_base(const struct part *part, const struct manifest_file *file,
                       uint64_t *log_base, struct why *why);

/* Queues a listed file for its live verdicts. */
enum err part_live_add(struct part *part, const struct manifest_file *file,
                       uint64_t log_base, struct why *why);
/* live_listed and follow_us, after a change of the queue or of log_listed. */
void part_live_update(struct part *part);
/* Writes what live verdicts there are; gives a file up after an hour with holes in them,
 * or after a day without them. */
enum err part_live_write(struct part *part, struct verdictlog *verdicts,
                         int64_t now_us, struct why *why);

#endif

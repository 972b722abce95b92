/* common/clicklog.h - the click log: what was answered 202, in order, durably.
 *
 * Two readers: LMDB in the data directory, and Kafka (see "Kafka" below). The appender is
 * always LMDB's; with Kafka it is the spool that the relay sends from.
 *
 *   append (one committer)                      read (many, any process)
 *   entries -> group -> one LMDB transaction, one sync -> blocks -> records
 *
 * A record's identity is (incarnation, partition, seq), inside the record: the log
 * writes it, as the first four fields of the Avro record, in front of the body that
 * the caller encoded:
 *     incarnation fixed(8, big endian) | partition int | seq long | received_at long (us)
 * An incarnation is a random number drawn at each clicklog_open for writing; seq counts
 * from 0 per incarnation and partition, without a gap. Beside it each partition has an
 * offset, which counts on over incarnations and is where readers resume.
 *
 * Layout (LMDB, one environment DIR, one writer process, held by DIR/writer.lock):
 *   blocks    key: partition u16 BE, base offset u64 BE; value: struct of clicklog.c:
 *             magic, schema version, count, incarnation, first seq, received_us, XXH3 of
 *             the rest, then count x (u32 length, record)
 *   received  key: received hour, incarnation, txn -> counts per (account, campaign,
 *             quarter-hour of event time), appended by the same transaction; folded later
 *   meta      partitions, spool id, next offsets, floor_us, incarnations with their last
 *             seqs (the closing record of each), bytes used
 *
 * received_us is one time for a whole group, later than every earlier group's (also over
 * restarts and clock steps), so hours of receipt are clean cuts: floor_us says that every
 * later record will have received_us >= floor_us.
 *
 * Units    Microseconds of the server's clock; offsets and seqs count records.
 * Memory   Map of map_bytes address space (sparse); the bytes limit is ours.
 * Errors   clicklog_append: ERR_FULL (limit or disk), ERR_FATAL (I/O): nothing of the
 *          group is in the log; after an I/O error of the sync the state on disk is unknown,
 *          and every further append is refused until the log is opened anew.
 *          Readers: ERR_CORRUPT with partition and offset when a checksum is wrong.
 * Threads  One appender; readers one thread each; clicklog_wait any.
 * Source   LMDB 0.9.24; murmur2 partitioning is the caller's (common/hash.h).
 */
#ifndef COMMON_CLICKLOG_H
#define COMMON_CLICKLOG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/str.h"

enum {
    CLICKLOG_PARTITIONS_MAX = 256,
    CLICKLOG_GROUP_MAX = 65536, /* entries in one append */
    CLICKLOG_PREFIX_MAX = 8 + 5 + 10 + 10,
    CLICKLOG_RECORD_MAX = 65536,
};

struct clicklog;
struct clicklog_reader;

struct clicklog_config {
    const char *dir;
    uint32_t
        partitions; /* fixed when the directory is made; another value: ERR_INVALID */
    uint64_t map_bytes; /* address space, sparse */
    uint64_t bytes_max; /* our own limit: past it append answers ERR_FULL */
    bool read_only;     /* another process reads or inspects */
    bool no_sync; /* tests and benchmarks of everything else; never by default */
};

/* One click to append. The first three are for the *received* counts. */
struct clicklog_entry {
    uint32_t account;
    struct str campaign;
    int64_t event_ms;
    uint32_t partition;
    uint16_t version; /* of the schema the body is encoded with */
    struct str body;  /* Avro, from the field after received_at on; borrowed */
};

struct clicklog_record {
    uint64_t offset;
    int64_t received_us;
    uint64_t incarnation;
    uint64_t seq;
    uint16_t version;
    const uint8_t *p; /* the whole Avro record, prefix included */
    uint32_t n;
};

/* *received* counts of one hour of receipt, folded. */
struct clicklog_received {
    int64_t hour_us; /* start of the hour of receipt */
    uint64_t incarnation;
    uint32_t account;
    struct str campaign;
    int64_t quarter_ms; /* start of the quarter-hour of event time, UTC */
    uint64_t clicks;
};

struct clicklog_stats {
    uint64_t spool_id; /* random, drawn when the directory was made */
    uint64_t incarnation;
    uint64_t bytes_used;
    uint64_t groups;
    uint64_t records;
    int64_t floor_us;
    bool broken; /* an I/O error: appends are refused */
};

enum err clicklog_open(struct clicklog **out, const struct clicklog_config *cfg,
                       struct why *why);
void clicklog_close(struct clicklog **log);

/* Appends all entries or none, durable on return. now_us is the clock; *received_us, if
 * not NULL, gets the group's time. n may be 0: that moves only floor_us (a heartbeat). */
enum err clicklog_append(struct clicklog *log, const struct clicklog_entry *entries,
                         size_t n, int64_t now_us, int64_t *received_us,
                         struct why *why);

uint32_t clicklog_partitions(const struct clicklog *log);
void clicklog_stats_get(struct clicklog *log, struct clicklog_stats *out);
/* First offset still held, and the offset after the last. */
enum err clicklog_range(struct clicklog *log, uint32_t partition, uint64_t *first,
                        uint64_t *next, struct why *why);
/* Sleeps until something newer than *seen is committed in this process, or timeout. */
void clicklog_wait(struct clicklog *log, uint64_t *seen, int64_t timeout_us);
void clicklog_wake(struct clicklog *log);

/* Removes whole blocks below offset. For the appender's thread (or one that it asked). */
enum err clicklog_trim(struct clicklog *log, uint32_t partition, uint64_t offset,
                       struct why *why);

enum err clicklog_reader_open(struct clicklog_reader **out, struct clicklog *log,
                              struct why *why);
/* Takes a snapshot and stands before offset of partition. ERR_NOTFOUND if offset is
 * below the first held (trimmed) or above the next. */
enum err clicklog_seek(struct clicklog_reader *reader, uint32_t partition,
                       uint64_t offset, struct why *why);
/* The next record; its bytes are borrowed until clicklog_release. ERR_AGAIN: at the
 * snapshot's end. */
enum err clicklog_next(struct clicklog_reader *reader, struct clicklog_record *out,
                       struct why *why);
/* Lets the snapshot go; never keep one for long, it pins pages. */
void clicklog_release(struct clicklog_reader *reader);
void clicklog_reader_close(struct clicklog_reader **reader);

/* The first offset received at or after since_us, and its time of receipt (INT64_MAX: there
 * is none, then *offset is the end). */
enum err clicklog_since(struct clicklog_reader *reader, uint32_t partition,
                        int64_t since_us, uint64_t *offset, int64_t *received_us,
                        struct why *why);

/* The first `count` clicks of an incarnation in one partition; {0, 0}: none. Unlike an offset it
 * says the same of a spool, of the one that replaces it, and of one that is restored from an
 * older image. */
struct clicklog_last {
    uint64_t incarnation, count;
};

/* A cut: what this spool received before floor_us ends, in each partition, with `last`, before
 * which came `before` of another incarnation. */
struct clicklog_mark {
    uint64_t spool_id;
    uint64_t incarnation; /* the spool's newest, with or without clicks; 0: none */
    int64_t floor_us;
    uint64_t next[CLICKLOG_PARTITIONS_MAX]; /* as offsets; over Kafka all 0 */
    struct clicklog_last last[CLICKLOG_PARTITIONS_MAX];
    struct clicklog_last before[CLICKLOG_PARTITIONS_MAX];
};
/* The newest one known; floor_us 0: none yet. */
enum err clicklog_mark_get(struct clicklog *log, struct clicklog_mark *out,
                           struct why *why);
/* The next offsets of all partitions, of one commit. LMDB only, as the next one is. */
enum err clicklog_ends(struct clicklog *log, uint64_t next[CLICKLOG_PARTITIONS_MAX],
                       struct why *why);
/* The offset after what is of the spool in `last` and before it: clicks of that incarnation
 * that the spool, an older image, has not got do not count. ERR_NOTFOUND: the incarnation is not
 * of this spool. */
enum err clicklog_offset_of(struct clicklog *log, uint32_t partition,
                            struct clicklog_last last, uint64_t *offset,
                            struct why *why);

/* --- Kafka ---
 *
 * A view of topic raw_clicks as member of a consumer group (range assignor). Offsets are
 * Kafka's. A record may come twice, and after a lost write others may be missing: readers
 * look at (incarnation, seq). received_us grows with the offsets but for those that come
 * again. clicklog_range asks the broker; clicklog_next may say ERR_AGAIN before the end
 * is reached: more is on its way, or 4,096 records were read since the seek, which then
 * must go on (clicklog_wait does not sleep meanwhile). clicklog_seek to an offset that is
 * not held any more is ERR_NOTFOUND, there or at the first clicklog_next; to a partition
 * that is not ours, ERR_AGAIN. What is not read waits in a bounded queue; a partition
 * whose queue is full is not fetched.
 *
 *   owned 0 --assigned--> g --revoked--> 0, until clicklog_let_go or kafka.session_ms / 2
 *
 * Errors   ERR_AGAIN: broker away.
 * Threads  One reader a partition at a time; clicklog_owned, _let_go, _wait any.
 */
struct config;
struct control;
struct clicklog_kafka_config {
    const struct config *config; /* outlives the log */
    const char *stage;           /* the group is kafka.group-STAGE */
    struct control *control;     /* for clicklog_mark_get; may be NULL */
};
/* Partitions are the topic's. ERR_NOTFOUND: no topic; `clickledger topics create`. */
enum err clicklog_open_kafka(struct clicklog **out,
                             const struct clicklog_kafka_config *cfg,
                             struct why *why);
bool clicklog_is_kafka(const struct clicklog *log);
/* ids[version], 1 <= version < n, is that schema version's id in a registry; before the
 * first reader. Any other id, and in LMDB all, is the version itself. */
void clicklog_schema_ids(struct clicklog *log, const uint32_t *ids, uint32_t n);
/* 0: not ours; else a number that is another after each assignment. LMDB: always 1. */
uint64_t clicklog_owned(const struct clicklog *log, uint32_t partition);
/* All is flushed, or given up: the partition may go to another member. */
void clicklog_let_go(struct clicklog *log, uint32_t partition);
/* The end as last heard of; costs nothing. */
uint64_t clicklog_end(struct clicklog *log, uint32_t partition);
/* Where, from an offset on, the record (incarnation, seq) is. ERR_NOTFOUND: nowhere up to
 * the end. Reads all of it: for gaps only. */
enum err clicklog_find(struct clicklog *log, uint32_t partition, uint64_t from,
                       uint64_t incarnation, uint64_t seq, uint64_t *offset,
                       struct why *why);

/* Each folded count of every hour of receipt that ended at or before floor_us, in order
 * of hour. visit returns false to stop. */
enum err clicklog_received_each(struct clicklog *log,
                                bool (*visit)(void *ctx,
                                              const struct clicklog_received *row),
                                void *ctx, struct why *why);
/* The same for every group with received_us < until_us, grouped by hour of receipt, the
 * open hour included. ERR_AGAIN when groups after the cut are folded with those before it
 * already, which takes thousands of groups in between. */
enum err clicklog_received_all(struct clicklog *log, int64_t until_us,
                               bool (*visit)(void *ctx,
                                             const struct clicklog_received *row),
                               void *ctx, struct why *why);
/* Forgets counts of hours of receipt before hour_us: they are stored elsewhere now.
 * For the appender's thread (or one that it asked). */
enum err clicklog_received_drop(struct clicklog *log, int64_t hour_us,
                                struct why *why);

#endif

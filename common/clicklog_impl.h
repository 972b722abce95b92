/* common/clicklog_impl.h - what the files of the click log share; not for others.
 *
 *   clicklog.c           open, close, format, incarnations
 *   clicklog_change.c    write transactions, the state, statistics, waiting
 *   clicklog_append.c    groups -> blocks
 *   clicklog_read.c      blocks -> records; range, trim
 *   clicklog_received.c  the *received* counts: stored, folded, told
 *   clicklog_tally.c     a table of counts by (account, campaign, quarter-hour)
 *   clicklog_view.c      times, owners
 *   clicklog_mark.c      cuts: how far each incarnation came
 *
 * Values are little endian as the machine is; keys are big endian, so that LMDB's order is
 * theirs.
 */
#ifndef COMMON_CLICKLOG_IMPL_H
#define COMMON_CLICKLOG_IMPL_H

#include <lmdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/clicklog.h"
#include "common/lmdbenv.h"

enum {
    BLOCK_BYTES = 256 * 1024, /* a block ends past it: overflow runs stay small */
    BLOCK_MAGIC = 0x31424c43, /* "CLB1" */
    RECEIVED_MAGIC = 0x31524c43, /* "CLR1" */
    CAMPAIGN_BYTES_MAX = 255,
    FOLD_BLOCKS = 4096,                /* waiting groups that cause a fold */
    FOLD_BYTES = 8 * 1024 * 1024,      /* or their bytes */
    FOLD_BYTES_MAX = 32 * 1024 * 1024, /* a folded block past it is left alone */
    TRIM_BLOCKS = 1024,                /* removed in one transaction */
};

#define QUARTER_MS INT64_C(900000)

enum table { TABLE_BLOCKS, TABLE_RECEIVED, TABLE_META, TABLES_N };

struct block_key {
    uint8_t b[10]; /* partition u16, base u64 */
};

struct block_header {
    uint32_t magic;
    uint16_t version;
    uint16_t zero;
    uint64_t check; /* hash64 of what follows, seeded with key and version */
    uint32_t count;
    uint32_t bytes; /* of the records and their lengths */
    uint64_t incarnation;
    uint64_t first_seq;
    int64_t received_us;
};

struct received_key {
    uint8_t b[20]; /* hour since 1970 u32, incarnation u64, group u64 */
};

struct received_header {
    uint32_t magic;
    uint32_t sorted; /* 1: a folded block, rows in order */
    uint64_t check;  /* hash64 of what follows */
    uint32_t count;
    uint32_t zero;
    int64_t last_us; /* receipt of the last group in it */
};

/* One value in meta, rewritten by every change; cut after the last partition. */
struct state {
    int64_t floor_us;
    uint64_t bytes_used;
    uint64_t groups;
    uint64_t records;
    uint64_t next[CLICKLOG_PARTITIONS_MAX];
};

/* meta "i" + ordinal: one incarnation. The newest one's start is where its offsets begin; of
 * those before it, which are closed, how many clicks it has: the closing record. */
struct incarnation {
    uint64_t incarnation;
    uint64_t closed;
    uint64_t start[CLICKLOG_PARTITIONS_MAX];
};

/* Which groups of this hour wait to be folded: all blocks of (hour, our incarnation) from
 * group first on, the first of them perhaps a folded one of folded_bytes. */
struct fold {
    int64_t hour;
    uint64_t first;
    uint64_t folded_bytes;
    uint64_t bytes;
    uint32_t blocks;
};

/* Counts by (account, campaign, quarter-hour). Campaigns are borrowed. */
struct tally_row {
    uint64_t hash;
    uint64_t clicks;
    struct str campaign;
    uint32_t account;
    int32_t quarter; /* quarter-hours since 1970 */
};

struct tally_slot {
    uint32_t round; /* of the tally when it was taken; another: free */
    uint32_t row;
};

struct tally {
    struct tally_row *rows;
    struct tally_slot *slots; /* twice the rows */
    uint32_t rows_n, rows_cap;
    uint32_t round;
};

/* Rows as they are stored: account u32, quarter i32, clicks u64, length u8, campaign. */
enum { ROW_FIXED = 4 + 4 + 8 + 1 };

struct clicklog_kafka;

struct clicklog {
    struct clicklog_kafka *kafka; /* then all but partitions is unused */
    struct lmdbenv env;
    uint32_t partitions;
    uint64_t bytes_max;
    bool read_only;
    bool broken; /* the appender's; readers ask stats */
    int lock_fd;
    uint64_t spool_id;
    uint64_t incarnation;
    /* the appender's */
    struct state state;
    struct fold fold;
    uint64_t start
        [CLICKLOG_PARTITIONS_MAX]; /* next offsets when the incarnation began */
    struct tally tally;
    uint32_t *order; /* CLICKLOG_GROUP_MAX indices of entries, by partition */
    /* shared */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint64_t generation;
    struct clicklog_stats stats;
};

/* One write transaction and what becomes true when it is committed. */
struct change {
    MDB_txn *txn;
    struct state state;
    struct fold fold;
};

/* Fails with ERR_FATAL when the log is broken. */
enum err change_begin(struct clicklog *log, struct change *change, struct why *why);
/* Commits and publishes; on failure nothing of it has happened. */
enum err change_commit(struct clicklog *log, struct change *change,
                       struct why *why);
void change_abort(struct change *change);
/* An error of LMDB inside a change, for change_abort's callers. */
enum err change_error(struct clicklog *log, int rc, const char *doing,
                      struct why *why);

/* What a value costs on disk, and how bytes_used counts it. */
uint64_t value_cost(size_t key, size_t value);
/* The state as a snapshot sees it. */
enum err state_read(struct clicklog *log, MDB_txn *txn, struct state *out,
                    struct why *why);

/* Puts the cursor on the newest incarnation's record. MDB_NOTFOUND: there is none. */
int incarnation_seek(MDB_cursor *cursor, MDB_val *key, MDB_val *value);

struct block_key block_key(uint32_t partition, uint64_t base);
uint32_t block_key_partition(const MDB_val *key);
uint64_t block_key_base(const MDB_val *key);
uint64_t block_check(const struct block_header *header, const uint8_t *value,
                     uint32_t partition, uint64_t base);

void tally_free(struct tally *tally);
void tally_reset(struct tally *tally);
bool tally_add(struct tally *tally, uint32_t account, struct str campaign,
               int32_t quarter, uint64_t clicks);
void tally_sort(struct tally *tally);
/* The rows as stored, and their bytes. */
size_t tally_size(const struct tally *tally);
void tally_write(const struct tally *tally, uint8_t *out);
/* One stored row; its bytes, 0 if it is broken. */
size_t tally_row_read(const uint8_t *p, const uint8_t *end, struct tally_row *row);
/* The order of folded rows: account, campaign, quarter. */
int tally_row_compare(const struct tally_row *a, const struct tally_row *b);

/* Folds the waiting blocks if there are enough: before any write of the transaction. */
enum err received_fold(struct clicklog *log, struct change *change, int64_t hour,
                       struct why *why);
/* Stores log->tally as the counts of the change's group. */
enum err received_put(struct clicklog *log, struct change *change,
                      int64_t received_us, struct why *why);

#endif

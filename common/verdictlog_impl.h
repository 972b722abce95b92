/* common/verdictlog_impl.h - what the verdict log's files share.
 *
 *   verdictlog.c        blocks in LMDB, written by the owner or, as a copy, by
 *                       verdictlog_kafka.c's follower
 *   verdictlog_copy.c   the copy: whose it is, which messages are in it, a block's wire form
 *   verdictlog_kafka.c  the topic: appending, waiting for what is followed
 *   verdictlog_follow.c the thread that brings messages into the copy
 *
 * The copy is not synced. What survives a killed process is whole; after another start of
 * the machine it may not be, so then it is thrown away.
 *
 * Units    Offsets of raw_clicks in blocks, of click_verdicts in struct copied.
 * Threads  As each function says.
 */
#ifndef COMMON_VERDICTLOG_IMPL_H
#define COMMON_VERDICTLOG_IMPL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/kafka.h"
#include "common/lmdbenv.h"
#include "common/str.h"
#include "common/verdictlog.h"

enum verdictlog_table {
    VERDICTLOG_BLOCKS,
    VERDICTLOG_PARTITIONS,
    VERDICTLOG_COPIED, /* a copy only */
    VERDICTLOG_TABLES
};

struct verdictlog_kafka;

struct verdictlog {
    struct lmdbenv env;
    bool read_only;
    struct verdictlog_kafka *kafka; /* NULL: this is the log itself */
};

/* Puts one block. longer: the same block with more verdicts at its end replaces it, and
 * one with fewer is no change; that is what an append that was tried again leaves. */
enum err verdictlog_block_put(struct verdictlog *log, MDB_txn *txn,
                              const struct verdictlog_block *block, bool longer,
                              struct why *why);
enum err verdictlog_block_valid(const struct verdictlog_block *block,
                                struct why *why);
enum err verdictlog_commit(struct verdictlog *log, MDB_txn *txn, uint64_t bytes,
                           struct why *why);

/* --- the copy --- */

/* Messages [from, next) of a partition of click_verdicts are in the copy. */
struct copied {
    uint64_t from, next;
};

/* Opens DIR as a copy of the log that id names; another's is emptied. *lock holds DIR
 * until it is closed: ERR_CONFLICT when another process has it. */
enum err copy_open(struct verdictlog *log, const char *dir, uint64_t map_bytes,
                   uint64_t id, int *lock, struct why *why);
enum err copy_copied(struct verdictlog *log, uint32_t partition, struct copied *out,
                     bool *known, struct why *why);
int copy_copied_put(struct verdictlog *log, MDB_txn *txn, uint32_t partition,
                    const struct copied *copied);
/* Forgets all blocks of a partition, some a transaction. */
enum err copy_empty(struct verdictlog *log, uint32_t partition, struct why *why);

/* --- the wire --- */

enum { WIRE_BLOCK_HEAD = 32 };

/* out has WIRE_BLOCK_HEAD + 8 * count bytes. */
void wire_block_make(const struct verdictlog_block *block, uint8_t *out);
/* Copies the verdicts to verdicts (VERDICTLOG_BLOCK_MAX). False: damaged, or no block. */
bool wire_block_read(struct str value, uint32_t partition, uint64_t *verdicts,
                     struct verdictlog_block *out);

/* --- the topic --- */

/* One partition. An order is given under the mutex and carried out by the follower. */
struct slot {
    enum { ORDER_NONE, ORDER_FOLLOW, ORDER_LEAVE } order;
    uint64_t since; /* of ORDER_FOLLOW: the first message wanted */
    bool followed;
    struct copied copied; /* valid while followed */
};

struct verdictlog_kafka {
    const struct config *config;
    char topic[KAFKA_NAME_MAX + 1];
    uint32_t partitions;
    int lock;
    struct kafka_consumer *consumer; /* the follower's, but for its questions */
    pthread_t thread;
    bool started;

    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t cond;
    bool stop;
    struct slot slots[KAFKA_PARTITIONS_MAX];
    struct why trouble; /* the follower's last */

    /* the follower's */
    uint64_t *verdicts; /* VERDICTLOG_BLOCK_MAX */
    uint64_t skipped;
    struct {
        uint64_t next;
        bool touched;
    } group[KAFKA_PARTITIONS_MAX]; /* of the transaction that is open */
    enum { REDO_NONE, REDO_AGAIN, REDO_LOST } redo[KAFKA_PARTITIONS_MAX];

    pthread_mutex_t appending; /* guards these two */
    struct kafka_producer *producer;
    uint8_t *wire; /* one block */
};

/* The thread; its argument is the log. */
void *verdictlog_follower(void *log);

void verdictlog_kafka_close(struct verdictlog *log);
enum err verdictlog_kafka_append(struct verdictlog *log,
                                 const struct verdictlog_block *blocks, size_t n,
                                 struct why *why);

#endif

/* ingest/relay_impl.h - what the files of the relay share; not for others.
 *
 *   relay.c          start, stop, claiming the topics
 *   relay_send.c     spool -> producer -> cursor: the sending thread
 *   relay_mark.c     how far the spool is: the telling thread
 *   relay_cursor.c   the mapped file
 *   relay_rewind.c   requests to send again: files DIR/rewind-PARTITION-OFFSET
 */
#ifndef INGEST_RELAY_IMPL_H
#define INGEST_RELAY_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "common/clock.h"
#include "common/kafka.h"
#include "common/metrics.h"
#include "ingest/relay.h"
#include "schema/click.h"
#include "schema/topics.h"

enum {
    RELAY_BATCH = 1024,            /* records handed over at a time */
    RELAY_BATCH_BYTES = 256 << 10, /* and their bytes, so that they stay in cache */
    RELAY_TURN_BATCHES = 32,       /* of one snapshot */
    RELAY_POLL_US = 1000,          /* while acknowledgements are outstanding */
    RELAY_FULL_US = 5000,          /* after the producer's queue was full */
    RELAY_IDLE_US = 100000,        /* nothing to send */
    RELAY_REWIND_US = 500000,      /* between looks for requests */
    RELAY_WAIT_US_MIN = 20000,     /* after a failure, doubled */
    RELAY_WAIT_US_MAX = 1000000,
    RELAY_MARK_US = 200000,         /* between marks */
    RELAY_MARK_POLL_US = 10000,     /* whether a mark is reached */
    RELAY_CLAIM_US = 2000000,       /* waiting for click_control at the start */
    RELAY_CLAIM_AGAIN_US = 1000000, /* between later tries */
};

struct relay {
    const struct config *config;
    struct clicklog *log;
    struct control *control;
    char dir[1024];
    int lock_fd; /* DIR/relay.lock, held as long as we live */
    uint32_t partitions;
    uint64_t spool_id;
    char topic[KAFKA_NAME_MAX + 1];
    struct relay_cursor *cursor;
    pthread_t sender, teller;
    bool sender_runs, teller_runs;
    atomic_bool stop;      /* the sender's */
    atomic_bool tell_last; /* the teller's: the sender has ended */
    /* By relay_start or the teller: the topics are ours, ids are known. */
    atomic_bool claimed;
    uint8_t heads[CLICK_VERSION + 1][WIRE_HEAD]; /* by version */
    /* the sender's */
    struct clicklog_reader *reader;
    struct kafka_producer *producer;
    struct kafka_item *items;              /* RELAY_BATCH */
    uint8_t *bytes;                        /* RELAY_BATCH_BYTES */
    uint64_t end[CLICKLOG_PARTITIONS_MAX]; /* of the spool, as last seen */
    uint64_t
        base[CLICKLOG_PARTITIONS_MAX]; /* the cursor when the producer opened */
    uint64_t sent[CLICKLOG_PARTITIONS_MAX]; /* the offset to send next */
    uint32_t turn;                          /* the partition that begins */
    bool stuck[CLICKLOG_PARTITIONS_MAX]; /* unreadable; until the next producer */
    bool full;    /* the producer's queue, or a partition's share of it */
    bool failing; /* since relay_failed was said */
    int64_t wait_us, rewind_us, stop_us;
    /* the teller's */
    struct clicklog_mark said; /* last */
    bool complained;
    struct metric *backlog, *acked_total, *resends, *marks;
};

/* ERR_AGAIN: the brokers or the registry are away. */
enum err relay_claim(struct relay *relay, int64_t timeout_us, struct why *why);
void *relay_send_main(void *relay);
void *relay_mark_main(void *relay);

/* Where campaign_id stands in a record; false if it does not decode so far. */
bool relay_record_key(const uint8_t *p, size_t n, struct str *key);

/* The only writer's, but for relay_cursor_lower. */
void relay_cursor_raise(struct relay_cursor *cursor, uint32_t partition,
                        uint64_t offset);
void relay_cursor_lower(struct relay_cursor *cursor, uint32_t partition,
                        uint64_t offset);
/* The running relay has seen that the spool's newest incarnation is another. */
void relay_cursor_stamp(struct relay_cursor *cursor, uint64_t incarnation);
/* Moves every partition into what the spool holds. */
enum err relay_cursor_clamp(struct relay_cursor *cursor, struct clicklog *log,
                            struct why *why);

/* Holds DIR/relay.lock; ERR_CONFLICT if another relay does. */
enum err relay_lock(const char *dir, int *fd, struct why *why);
/* Calls take for each request, then removes it. */
void relay_rewinds_each(const char *dir, uint32_t partitions,
                        void (*take)(void *ctx, uint32_t partition,
                                     uint64_t offset),
                        void *ctx);

#endif

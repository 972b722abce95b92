/* common/clicklog_kafka_impl.h - what the files of the click log's Kafka reader share.
 *
 * Two handles of librdkafka, so that who owns a partition and what is read of it never
 * meet: one is the member of the group and fetches nothing, the other fetches the
 * partitions that readers seek, each from the offset named, and knows no group. A
 * partition begins anew by stop and start, which leaves nothing of before in its queue.
 *
 *   group  owned / let_go   <->  workers
 *   fetch  queue of librdkafka -> ring of messages -> records, kept until a seek passes them
 */
#ifndef COMMON_CLICKLOG_KAFKA_IMPL_H
#define COMMON_CLICKLOG_KAFKA_IMPL_H

#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/clicklog_kafka.h"
#include "common/kafka_impl.h"
#include "common/metrics.h"

enum {
    RING_MESSAGES =
        8192, /* of one partition, taken and not passed by a seek; 2^n */
    TAKE_MESSAGES = 1024, /* taken at once */
    SCHEMAS_MAX = 64,
};

/* One partition's messages. */
struct fetch {
    rd_kafka_t *rk;
    rd_kafka_topic_t *topic;
    const char *name;
    int32_t partition;
    uint64_t bytes_max; /* librdkafka's limit of the queue */
    rd_kafka_queue_t *queue;
    rd_kafka_message_t **ring;
    uint32_t head, at, tail; /* kept from head on, the reader is at `at` */
    uint64_t next;           /* the offset that comes after the newest taken */
    bool started;
    bool settled; /* the first one asked for has come */
    bool lenient; /* it did not, twice: take what comes after it */
    bool full;    /* the queue has been: librdkafka sleeps up to a second */
    bool nudge;   /* and now there is room again */
    bool stray;   /* something that was not asked for came instead */
    int64_t started_us, heard_us;
    enum err trouble; /* what came instead of a message */
    uint64_t trouble_at;
    int64_t trouble_us;
    char trouble_text[128];
};

struct part {
    pthread_mutex_t mutex; /* held between seek and release */
    struct fetch fetch;
    _Atomic uint64_t owned;
    atomic_bool let_go;
    atomic_bool touched; /* read since it was assigned */
    atomic_bool fetching;
    atomic_bool nudge;
    _Atomic uint64_t end; /* as the brokers said when asked */
    _Atomic int64_t end_us;
};

struct group {
    struct kafka_watch watch; /* first: the handle's opaque */
    struct clicklog_kafka *kafka;
    rd_kafka_t *rk;
    char name[256], stage[64];
    uint64_t generation;
    bool fenced;
    int64_t fenced_us, pause_us; /* when last, and how long we stayed away */
    bool started;
    pthread_t thread;
    struct metric *rebalances, *partitions_owned;
};

struct clicklog_kafka {
    struct kafka_watch watch; /* first: the fetching handle's opaque */
    const struct config *config;
    struct control *control;
    char topic[KAFKA_NAME_MAX + 1];
    rd_kafka_t *rk;
    rd_kafka_topic_t *rkt;
    struct kafka_ask ask;
    uint32_t partitions;
    uint64_t log_id;
    struct part *parts;
    struct group group;
    uint32_t
        schemas[SCHEMAS_MAX]; /* [version]: its id; all 0: the version itself */
    bool registered;
    atomic_bool stop;
    bool started; /* the keeper */
    pthread_t keeper;
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* generation, let_go */
    pthread_cond_t work;    /* for the keeper */
    uint64_t generation;
};

/* Settings of a handle that fetches; `own` has room for FETCH_SETTINGS. */
enum { FETCH_SETTINGS = 12, FETCH_SETTING_SIZE = 24 };
size_t fetch_settings(const struct config *config, uint64_t bytes_max,
                      struct kafka_setting *own,
                      char text[FETCH_SETTINGS][FETCH_SETTING_SIZE]);
enum err fetch_init(struct fetch *fetch, rd_kafka_t *rk, rd_kafka_topic_t *topic,
                    const char *name, int32_t partition, struct why *why);
void fetch_stop(struct fetch *fetch);
void fetch_free(struct fetch *fetch);
/* Stands before offset; end is the newest one heard of, at end_us. */
enum err fetch_seek(struct fetch *fetch, uint64_t offset, uint64_t end,
                    int64_t end_us, struct why *why);
/* ERR_AGAIN: none has come yet, or the ring is full: seek on. */
enum err fetch_next(struct fetch *fetch, rd_kafka_message_t **out, struct why *why);
bool fetch_is_full(const struct fetch *fetch);
/* The newest end that came with messages; 0: none. */
uint64_t fetch_end(const struct fetch *fetch);

/* A message of ours as a record; ERR_CORRUPT names topic, partition and offset. */
enum err message_record(const struct clicklog_kafka *kafka,
                        const rd_kafka_message_t *message,
                        struct clicklog_record *out, struct why *why);

/* A handle that fetches, and its topic; what was made stays the caller's on failure. */
enum err clicklog_kafka_handle(const struct clicklog_kafka *kafka, const char *name,
                               struct kafka_watch *watch, rd_kafka_t **rk,
                               rd_kafka_topic_t **rkt, struct why *why);

enum err group_join(struct group *group, struct clicklog_kafka *kafka,
                    const char *stage, struct why *why);
/* Leaves it, unless the member is static. */
void group_leave(struct group *group);

/* The first offset whose message time, in milliseconds, is `when` or later (-1: none), or
 * RD_KAFKA_OFFSET_BEGINNING, RD_KAFKA_OFFSET_END. */
enum err kafka_offset_ask(struct clicklog_kafka *kafka, uint32_t partition,
                          int64_t when, int timeout_ms, int64_t *offset,
                          struct why *why);

/* A mutex's moment: wakes all that wait for `changed`. */
void kafka_changed(struct clicklog_kafka *kafka);

#endif

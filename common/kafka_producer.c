#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/kafka.h"
#include "common/kafka_impl.h"

enum {
    MESSAGES_MAX = 5000000, /* in the queue, beside its bytes */
    MESSAGE_BYTES_MIN = 64, /* so few are smaller that bytes / this is enough */
    BATCH_MESSAGES_MAX = 100000, /* in one request to a partition */
    WIRE_MAX = 1048576,          /* KAFKA_MESSAGE_MAX, key and framing */
    FLUSH_STEP_MS = 50,
    ASK_MS_MIN = 1000,       /* connecting takes a while */
    STALL_MS_MIN = 1000,     /* so does sending anew */
    STALLS_MAX = 12,         /* of one partition, while others go on */
    REQUEST_MS_MAX = 300000, /* librdkafka's own limit */
};

/* A message's opaque is its number in its partition, from 1: what is acknowledged out of
 * turn, because one before it failed, is seen by that and not counted. */
struct kafka_producer {
    struct kafka_watch watch; /* first: librdkafka's opaque is one */
    rd_kafka_t *rk;
    rd_kafka_topic_t *topic;
    int32_t partitions;
    uint64_t share;                            /* bytes of a partition in flight */
    uint64_t sent[KAFKA_PARTITIONS_MAX];       /* the sender's */
    uint64_t bytes_sent[KAFKA_PARTITIONS_MAX]; /* the sender's */
    _Atomic uint64_t acked[KAFKA_PARTITIONS_MAX];
    _Atomic uint64_t bytes_done[KAFKA_PARTITIONS_MAX]; /* delivered or failed */
    _Atomic uint64_t queued, reported;                 /* over all */
    _Atomic int64_t progress_us; /* the last report, or the send before it */
    uint64_t reported_before;    /* guarded by polling */
    int64_t stall_us;
    pthread_mutex_t polling; /* one at a time takes reports */
    atomic_bool failed;
    pthread_mutex_t mutex; /* guards cause */
    char cause[sizeof(((struct why *)0)->text)];
};

static void
fail(struct kafka_producer *producer, const char *what, rd_kafka_resp_err_t code)
{
    (void)pthread_mutex_lock(&producer->mutex);
    if (!atomic_load(&producer->failed))
        (void)snprintf(producer->cause, sizeof(producer->cause),
                       "kafka: %s: %s: %s", rd_kafka_topic_name(producer->topic),
                       what, rd_kafka_err2str(code));
    atomic_store(&producer->failed, true);
    (void)pthread_mutex_unlock(&producer->mutex);
}

static enum err
failed(struct kafka_producer *producer, struct why *why)
{
    enum err err;

    (void)pthread_mutex_lock(&producer->mutex);
    err = err_set(why, ERR_AGAIN, "%s", producer->cause);
    (void)pthread_mutex_unlock(&producer->mutex);
    return err;
}

/* A delivery report. Only one thread at a time is here: producer->polling. */
static void
report(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque)
{
    struct kafka_producer *producer = opaque;
    _Atomic uint64_t *acked = &producer->acked[message->partition];
    _Atomic uint64_t *done = &producer->bytes_done[message->partition];
    uint64_t n = atomic_load_explicit(acked, memory_order_relaxed);
    uint64_t bytes = atomic_load_explicit(done, memory_order_relaxed);

    (void)rk;
    if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR)
        fail(producer, "not delivered", message->err);
    else if ((uintptr_t)message->_private == n + 1) {
        atomic_store_explicit(acked, n + 1, memory_order_release);
        kafka_watch_ok(&producer->watch);
    } else /* past a failed one; cannot be otherwise with idempotence */
        fail(producer, "delivered out of turn", RD_KAFKA_RESP_ERR__INCONSISTENT);
    atomic_store_explicit(done, bytes + message->key_len + message->len,
                          memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&producer->reported, 1, memory_order_relaxed);
}

/* --- open, close --- */

static enum err
conf_make(rd_kafka_conf_t **out, struct kafka_producer *producer,
          const struct config *config, const char *name, int64_t linger_ms,
          struct why *why)
{
    int64_t messages = config->kafka_queue_bytes_max / MESSAGE_BYTES_MIN;
    int64_t wire =
        config->kafka_batch_bytes > WIRE_MAX ? config->kafka_batch_bytes : WIRE_MAX;
    int64_t stall_ms = config->kafka_delivery_ms_max < STALL_MS_MIN
                           ? STALL_MS_MIN
                           : config->kafka_delivery_ms_max;
    int64_t wait_ms = STALLS_MAX * stall_ms;
    char request[24], queue_kb[24], queue_n[24], batch[24], batch_n[24], linger[24],
        wait[24], wire_max[24];
    const struct kafka_setting own[] = {
        {"enable.idempotence", "true"}, /* and with it acks=all, retries, order */
        {"acks", "all"},
        {"compression.codec", "lz4"},
        {"queue.buffering.max.kbytes", queue_kb},
        {"queue.buffering.max.messages", queue_n},
        {"message.max.bytes", wire_max},
        {"batch.size", batch},
        {"batch.num.messages", batch_n},
        {"linger.ms", linger},
        {"message.timeout.ms", wait},
        {"request.timeout.ms", request},
        {"socket.timeout.ms", request},
        {"retry.backoff.ms", "50"},
    };
    enum err err;

    (void)snprintf(queue_kb, sizeof(queue_kb), "%" PRId64,
                   config->kafka_queue_bytes_max / 1024);
    (void)snprintf(queue_n, sizeof(queue_n), "%" PRId64,
                   messages < MESSAGES_MAX ? messages : MESSAGES_MAX);
    (void)snprintf(batch, sizeof(batch), "%" PRId64, config->kafka_batch_bytes);
    (void)snprintf(batch_n, sizeof(batch_n), "%d", BATCH_MESSAGES_MAX);
    (void)snprintf(wire_max, sizeof(wire_max), "%" PRId64, wire);
    (void)snprintf(linger, sizeof(linger), "%" PRId64,
                   linger_ms < 0 ? config->kafka_linger_ms : linger_ms);
    (void)snprintf(wait, sizeof(wait), "%" PRId64, wait_ms);
    (void)snprintf(request, sizeof(request), "%" PRId64,
                   stall_ms > REQUEST_MS_MAX ? REQUEST_MS_MAX : stall_ms);
    producer->stall_us = stall_ms * 1000;
    err = kafka_conf(out, config, name, &producer->watch, own,
                     sizeof(own) / sizeof(own[0]), why);
    if (err == ERR_OK)
        rd_kafka_conf_set_dr_msg_cb(*out, report);
    return err;
}

/* Before the first message: so that all are queued in their partition at once. */
static enum err
topic_know(struct kafka_producer *producer, const char *topic, int64_t ask_ms,
           int64_t queue_bytes_max, struct why *why)
{
    const rd_kafka_metadata_t *metadata = NULL;
    rd_kafka_resp_err_t code;
    enum err err = ERR_OK;

    producer->topic = rd_kafka_topic_new(producer->rk, topic, NULL);
    if (producer->topic == NULL)
        return kafka_error(rd_kafka_last_error(), topic, "cannot be used", why);
    code = rd_kafka_metadata(producer->rk, 0, producer->topic, &metadata,
                             ask_ms < KAFKA_ASK_MS ? (int)ask_ms : KAFKA_ASK_MS);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
        return kafka_watch_error(code, &producer->watch, topic, "no broker answers",
                                 why);
    if (metadata->topic_cnt != 1)
        err = err_set(why, ERR_NOTFOUND, "kafka: %s: no such topic", topic);
    else
        err = kafka_error(metadata->topics[0].err, topic, "cannot be used", why);
    if (err == ERR_OK)
        producer->partitions = metadata->topics[0].partition_cnt;
    if (err == ERR_OK && producer->partitions > KAFKA_PARTITIONS_MAX)
        err = err_set(why, ERR_INVALID, "kafka: %s: %d partitions, at most %d",
                      topic, producer->partitions, KAFKA_PARTITIONS_MAX);
    rd_kafka_metadata_destroy(metadata);
    if (producer->partitions > 0)
        producer->share =
            (uint64_t)queue_bytes_max / (uint64_t)producer->partitions;
    return err;
}

enum err
kafka_producer_open(struct kafka_producer **out, const struct config *config,
                    const char *topic, const char *name, int64_t linger_ms,
                    struct why *why)
{
    struct kafka_producer *producer = calloc(1, sizeof(*producer));
    rd_kafka_conf_t *conf;
    enum err err;

    *out = NULL;
    if (producer == NULL)
        return err_set(why, ERR_NOMEM, "kafka: no memory for a producer");
    if (pthread_mutex_init(&producer->mutex, NULL) != 0 ||
        pthread_mutex_init(&producer->polling, NULL) != 0)
        abort();
    err = conf_make(&conf, producer, config, name, linger_ms, why);
    kafka_watch_quiet(&producer->watch, true);
    if (err == ERR_OK)
        err = kafka_new(&producer->rk, RD_KAFKA_PRODUCER, conf, why);
    if (err == ERR_OK)
        err = topic_know(producer, topic,
                         config->kafka_delivery_ms_max < ASK_MS_MIN
                             ? ASK_MS_MIN
                             : config->kafka_delivery_ms_max,
                         config->kafka_queue_bytes_max, why);
    if (err != ERR_OK) {
        kafka_producer_close(&producer);
        return err;
    }
    kafka_watch_quiet(&producer->watch, false);
    *out = producer;
    return ERR_OK;
}

void
kafka_producer_close(struct kafka_producer **producer)
{
    struct kafka_producer *p = *producer;

    if (p == NULL)
        return;
    if (p->rk != NULL)
        (void)rd_kafka_purge(p->rk, RD_KAFKA_PURGE_F_QUEUE |
                                        RD_KAFKA_PURGE_F_INFLIGHT |
                                        RD_KAFKA_PURGE_F_NON_BLOCKING);
    if (p->topic != NULL)
        rd_kafka_topic_destroy(p->topic);
    if (p->rk != NULL)
        rd_kafka_destroy(p->rk);
    (void)pthread_mutex_destroy(&p->mutex);
    (void)pthread_mutex_destroy(&p->polling);
    free(p);
    *producer = NULL;
}

/* --- sending --- */

uint64_t
kafka_in_flight(const struct kafka_producer *producer)
{
    uint64_t reported = atomic_load(&producer->reported);
    uint64_t queued = atomic_load(&producer->queued);

    return queued > reported ? queued - reported : 0;
}

uint64_t
kafka_room(const struct kafka_producer *producer, int32_t partition)
{
    uint64_t under_way;

    assert(partition >= 0 && partition < producer->partitions);
    under_way = producer->bytes_sent[partition] -
                atomic_load_explicit(&producer->bytes_done[partition],
                                     memory_order_relaxed);
    if (under_way == 0)
        return producer->share > 0 ? producer->share : 1;
    return under_way < producer->share ? producer->share - under_way : 0;
}

/* One larger than a share goes alone. */
static bool
has_room(const struct kafka_producer *producer, int32_t partition, uint64_t bytes,
         uint64_t *room)
{
    if (bytes > *room)
        *room = kafka_room(producer, partition);
    return bytes <= *room || *room >= producer->share;
}

/* rd_kafka_produce_batch of 2.0.2 gives all messages the time of the call, so one by one;
 * the cost is the same, it makes one message after another too. */
static rd_kafka_resp_err_t
put(struct kafka_producer *producer, int32_t partition,
    const struct kafka_item *item)
{
    uintptr_t number = (uintptr_t)producer->sent[partition] + 1;

    /* librdkafka copies key and value; its arguments are not const */
    return rd_kafka_producev(
        producer->rk, RD_KAFKA_V_RKT(producer->topic),
        RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_KEY(item->key.p, item->key.n),
        RD_KAFKA_V_VALUE((void *)(uintptr_t)item->value.p, item->value.n),
        RD_KAFKA_V_TIMESTAMP(item->timestamp_ms), RD_KAFKA_V_OPAQUE((void *)number),
        RD_KAFKA_V_END);
}

enum err
kafka_send(struct kafka_producer *producer, int32_t partition,
           const struct kafka_item *items, size_t n, size_t *sent, struct why *why)
{
    rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR_NO_ERROR;
    uint64_t room = 0;
    size_t i;

    *sent = 0;
    if (partition < 0 || partition >= producer->partitions)
        return err_set(why, ERR_INVALID, "kafka: %s: partition %d of %d",
                       rd_kafka_topic_name(producer->topic), partition,
                       producer->partitions);
    if (atomic_load_explicit(&producer->failed, memory_order_acquire))
        return failed(producer, why);
    if (kafka_in_flight(producer) == 0)
        atomic_store_explicit(&producer->progress_us, clock_mono_us(),
                              memory_order_relaxed);
    /* counted before: a report may come at once */
    (void)atomic_fetch_add_explicit(&producer->queued, n, memory_order_relaxed);
    for (i = 0; i < n; i++) {
        uint64_t bytes = (uint64_t)items[i].key.n + items[i].value.n;

        if (!has_room(producer, partition, bytes, &room))
            break;
        code = put(producer, partition, &items[i]);
        if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
            break;
        producer->sent[partition]++;
        producer->bytes_sent[partition] += bytes;
        room -= bytes < room ? bytes : room;
    }
    (void)atomic_fetch_sub_explicit(&producer->queued, n - i, memory_order_relaxed);
    *sent = i;
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR || code == RD_KAFKA_RESP_ERR__QUEUE_FULL)
        return ERR_OK;
    if (code == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE)
        return err_set(why, ERR_INVALID,
                       "kafka: %s: a message of %" PRIu32 " bytes, at most %d",
                       rd_kafka_topic_name(producer->topic), items[i].value.n,
                       KAFKA_MESSAGE_MAX);
    fail(producer, "cannot send", code);
    return failed(producer, why);
}

/* librdkafka's time-out of a message would count the time in our own queue: a slow broker
 * would fail each time the queue is full. Ours is that no report at all comes. */
static void
stall_check(struct kafka_producer *producer)
{
    uint64_t reported = atomic_load(&producer->reported);
    int64_t now_us = clock_mono_us();

    if (reported != producer->reported_before || kafka_in_flight(producer) == 0) {
        producer->reported_before = reported;
        atomic_store(&producer->progress_us, now_us);
    } else if (now_us - atomic_load(&producer->progress_us) > producer->stall_us)
        fail(producer, "no acknowledgement", RD_KAFKA_RESP_ERR__TIMED_OUT);
}

enum err
kafka_poll(struct kafka_producer *producer, int64_t timeout_us, struct why *why)
{
    (void)pthread_mutex_lock(&producer->polling);
    (void)rd_kafka_poll(producer->rk, (int)((timeout_us + 999) / 1000));
    stall_check(producer);
    (void)pthread_mutex_unlock(&producer->polling);
    return atomic_load(&producer->failed) ? failed(producer, why) : ERR_OK;
}

uint64_t
kafka_acked(const struct kafka_producer *producer, int32_t partition)
{
    assert(partition >= 0 && partition < producer->partitions);
    return atomic_load_explicit(&producer->acked[partition], memory_order_acquire);
}

enum err
kafka_flush(struct kafka_producer *producer, int64_t timeout_us, struct why *why)
{
    int64_t until = clock_mono_us() + timeout_us;

    for (;;) {
        enum err err = kafka_poll(producer, 0, why);
        int64_t left = until - clock_mono_us();

        if (err != ERR_OK || kafka_in_flight(producer) == 0)
            return err;
        if (left <= 0)
            return err_set(why, ERR_AGAIN,
                           "kafka: %s: no acknowledgement of %" PRIu64
                           " messages within %" PRId64 " ms",
                           rd_kafka_topic_name(producer->topic),
                           kafka_in_flight(producer), timeout_us / 1000);
        (void)pthread_mutex_lock(&producer->polling);
        left = (left + 999) / 1000; /* sends at once, whatever the linger */
        (void)rd_kafka_flush(producer->rk,
                             left < FLUSH_STEP_MS ? (int)left : FLUSH_STEP_MS);
        (void)pthread_mutex_unlock(&producer->polling);
    }
}

/* librdkafka's consumer without a group ("simple"): each partition is started and stopped
 * by itself, all deliver into one queue.
 *
 * Its end-of-partition marks are on, for they alone tell where a compacted partition ends. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/kafka.h"
#include "common/kafka_impl.h"

enum {
    TAKE_MAX = 512,     /* messages taken from librdkafka's queue at once */
    FETCH_SHARES = 16,  /* of kafka.fetch_bytes_max: one partition's */
    FETCH_KB_MIN = 256, /* and at least so much */
};

struct kafka_consumer {
    struct kafka_watch watch; /* first: librdkafka's opaque is one */
    rd_kafka_t *rk;
    struct kafka_ask ask;
    rd_kafka_topic_t *topic;
    rd_kafka_queue_t *queue;
    int32_t partitions;
    bool followed[KAFKA_PARTITIONS_MAX];
    uint64_t at[KAFKA_PARTITIONS_MAX];
    /* taken; those from here on are still to be given out; the one before is borrowed */
    rd_kafka_message_t *taken[TAKE_MAX];
    size_t taken_n, next;
};

/* --- open, close --- */

static enum err
conf_make(rd_kafka_conf_t **out, struct kafka_consumer *consumer,
          const struct config *config, const char *name, struct why *why)
{
    int64_t kb = config->kafka_fetch_bytes_max / 1024 / FETCH_SHARES;
    char queued[24], fetch[24];
    const struct kafka_setting own[] = {
        {"enable.auto.commit", "false"},
        {"auto.commit.enable", "false"}, /* the simple consumer's */
        {"auto.offset.reset", "error"},
        {"enable.partition.eof", "true"},
        {"queued.max.messages.kbytes", queued},
        {"fetch.message.max.bytes", "1048576"},
        {"fetch.max.bytes", fetch},
        {"fetch.wait.max.ms", "100"},
        {"fetch.error.backoff.ms", "100"},
    };

    kb = kb < FETCH_KB_MIN ? FETCH_KB_MIN : kb;
    (void)snprintf(queued, sizeof(queued), "%" PRId64,
                   kb > 2097151 ? INT64_C(2097151) : kb);
    (void)snprintf(fetch, sizeof(fetch), "%" PRId64,
                   config->kafka_fetch_bytes_max > 2147483135
                       ? INT64_C(2147483135)
                       : config->kafka_fetch_bytes_max);
    return kafka_conf(out, config, name, &consumer->watch, own,
                      sizeof(own) / sizeof(own[0]), why);
}

static enum err
topic_know(struct kafka_consumer *consumer, const char *topic, struct why *why)
{
    const rd_kafka_metadata_t *metadata = NULL;
    rd_kafka_resp_err_t code;
    enum err err = ERR_OK;

    consumer->topic = rd_kafka_topic_new(consumer->rk, topic, NULL);
    if (consumer->topic == NULL)
        return kafka_error(rd_kafka_last_error(), topic, "cannot be used", why);
    code = rd_kafka_metadata(consumer->rk, 0, consumer->topic, &metadata,
                             KAFKA_ASK_MS);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
        return kafka_watch_error(code, &consumer->watch, topic, "no broker answers",
                                 why);
    if (metadata->topic_cnt != 1)
        err = err_set(why, ERR_NOTFOUND, "kafka: %s: no such topic", topic);
    else
        err = kafka_error(metadata->topics[0].err, topic, "cannot be used", why);
    if (err == ERR_OK)
        consumer->partitions = metadata->topics[0].partition_cnt;
    if (err == ERR_OK && consumer->partitions > KAFKA_PARTITIONS_MAX)
        err = err_set(why, ERR_INVALID, "kafka: %s: %d partitions, at most %d",
                      topic, consumer->partitions, KAFKA_PARTITIONS_MAX);
    rd_kafka_metadata_destroy(metadata);
    return err;
}

enum err
kafka_consumer_open(struct kafka_consumer **out, const struct config *config,
                    const char *topic, const char *name, struct why *why)
{
    struct kafka_consumer *consumer = calloc(1, sizeof(*consumer));
    rd_kafka_conf_t *conf;
    enum err err;

    *out = NULL;
    if (consumer == NULL)
        return err_set(why, ERR_NOMEM, "kafka: no memory for a consumer");
    err = conf_make(&conf, consumer, config, name, why);
    if (err == ERR_OK)
        err = kafka_new(&consumer->rk, RD_KAFKA_CONSUMER, conf, why);
    if (err == ERR_OK)
        err = kafka_ask_open(&consumer->ask, config, topic, why);
    if (err == ERR_OK)
        err = topic_know(consumer, topic, why);
    if (err != ERR_OK) {
        kafka_consumer_close(&consumer);
        return err;
    }
    kafka_watch_quiet(&consumer->watch, false);
    consumer->queue = rd_kafka_queue_new(consumer->rk);
    *out = consumer;
    return ERR_OK;
}

static void
taken_free(struct kafka_consumer *consumer)
{
    for (size_t i = 0; i < consumer->taken_n; i++)
        rd_kafka_message_destroy(consumer->taken[i]);
    consumer->taken_n = consumer->next = 0;
}

void
kafka_consumer_close(struct kafka_consumer **consumer)
{
    struct kafka_consumer *c = *consumer;

    if (c == NULL)
        return;
    for (int32_t p = 0; p < c->partitions; p++)
        kafka_consumer_leave(c, p);
    taken_free(c);
    if (c->queue != NULL)
        rd_kafka_queue_destroy(c->queue);
    if (c->topic != NULL)
        rd_kafka_topic_destroy(c->topic);
    if (c->rk != NULL)
        rd_kafka_destroy(c->rk);
    kafka_ask_close(&c->ask);
    free(c);
    *consumer = NULL;
}

uint32_t
kafka_consumer_partitions(const struct kafka_consumer *consumer)
{
    return (uint32_t)consumer->partitions;
}

/* --- partitions --- */

static enum err
partition_valid(const struct kafka_consumer *consumer, int32_t partition,
                struct why *why)
{
    if (partition >= 0 && partition < consumer->partitions)
        return ERR_OK;
    return err_set(why, ERR_INVALID, "kafka: %s: partition %d of %d",
                   rd_kafka_topic_name(consumer->topic), partition,
                   consumer->partitions);
}

enum err
kafka_consumer_follow(struct kafka_consumer *consumer, int32_t partition,
                      uint64_t offset, struct why *why)
{
    enum err err = partition_valid(consumer, partition, why);

    if (err != ERR_OK)
        return err;
    if (offset > INT64_MAX)
        return err_set(why, ERR_INVALID, "kafka: %s: offset %" PRIu64,
                       rd_kafka_topic_name(consumer->topic), offset);
    kafka_consumer_leave(consumer, partition);
    if (rd_kafka_consume_start_queue(consumer->topic, partition, (int64_t)offset,
                                     consumer->queue) != 0)
        return kafka_error(rd_kafka_last_error(),
                           rd_kafka_topic_name(consumer->topic), "cannot follow",
                           why);
    consumer->followed[partition] = true;
    consumer->at[partition] = offset;
    return ERR_OK;
}

/* librdkafka drops what it has queued of the partition; we, what we have taken. */
void
kafka_consumer_leave(struct kafka_consumer *consumer, int32_t partition)
{
    size_t kept = consumer->next;

    if (partition < 0 || partition >= consumer->partitions ||
        !consumer->followed[partition])
        return;
    consumer->followed[partition] = false;
    (void)rd_kafka_consume_stop(consumer->topic, partition);
    for (size_t i = consumer->next; i < consumer->taken_n; i++) {
        if (consumer->taken[i]->partition == partition)
            rd_kafka_message_destroy(consumer->taken[i]);
        else
            consumer->taken[kept++] = consumer->taken[i];
    }
    consumer->taken_n = kept;
}

uint64_t
kafka_consumer_at(const struct kafka_consumer *consumer, int32_t partition)
{
    assert(partition >= 0 && partition < consumer->partitions);
    return consumer->at[partition];
}

/* --- messages --- */

/* Waits for one, then takes what is there besides: a batch alone would wait to be full. */
static bool
take_some(struct kafka_consumer *consumer, int64_t timeout_us)
{
    rd_kafka_message_t *first;
    ssize_t n;

    taken_free(consumer);
    (void)rd_kafka_poll(consumer->rk, 0); /* errors */
    first =
        rd_kafka_consume_queue(consumer->queue, (int)((timeout_us + 999) / 1000));
    if (first == NULL)
        return false;
    consumer->taken[0] = first;
    n = rd_kafka_consume_batch_queue(consumer->queue, 0, consumer->taken + 1,
                                     TAKE_MAX - 1);
    consumer->taken_n = 1 + (size_t)(n > 0 ? n : 0);
    return true;
}

/* A message that is an error. True: it is the caller's business. */
static bool
error_take(struct kafka_consumer *consumer, const rd_kafka_message_t *message,
           struct kafka_message *out, enum err *err, struct why *why)
{
    int32_t partition = message->partition;

    if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        if (message->offset >= 0 &&
            (uint64_t)message->offset > consumer->at[partition])
            consumer->at[partition] = (uint64_t)message->offset;
        return false;
    }
    *err = kafka_code(message->err);
    (void)err_set(why, *err, "kafka: %s: partition %d, offset %" PRIu64 ": %s",
                  rd_kafka_topic_name(consumer->topic), partition,
                  consumer->at[partition], rd_kafka_message_errstr(message));
    if (*err == ERR_NOTFOUND) { /* librdkafka has stopped it */
        *out = (struct kafka_message){.partition = partition,
                                      .offset = consumer->at[partition]};
        kafka_consumer_leave(consumer, partition);
    }
    return true;
}

/* True: out or *err is set. */
static bool
message_take(struct kafka_consumer *consumer, const rd_kafka_message_t *message,
             struct kafka_message *out, enum err *err, struct why *why)
{
    int32_t partition = message->partition;

    if (partition < 0 || partition >= consumer->partitions ||
        !consumer->followed[partition])
        return false;
    if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR)
        return error_take(consumer, message, out, err, why);
    if (message->offset < 0 || (uint64_t)message->offset < consumer->at[partition])
        return false;
    *out = (struct kafka_message){
        partition,
        (uint64_t)message->offset,
        rd_kafka_message_timestamp(message, NULL),
        {message->key, (uint32_t)message->key_len},
        {message->payload, (uint32_t)message->len},
    };
    consumer->at[partition] = (uint64_t)message->offset + 1;
    *err = ERR_OK;
    kafka_watch_ok(&consumer->watch);
    return true;
}

enum err
kafka_consumer_next(struct kafka_consumer *consumer, int64_t timeout_us,
                    struct kafka_message *out, struct why *why)
{
    int64_t until = clock_mono_us() + timeout_us, left = timeout_us;
    enum err err = ERR_AGAIN;

    for (;;) {
        while (consumer->next < consumer->taken_n)
            if (message_take(consumer, consumer->taken[consumer->next++], out, &err,
                             why))
                return err;
        if (!take_some(consumer, left > 0 ? left : 0)) {
            left = until - clock_mono_us();
            if (left <= 0)
                return err_set(why, ERR_AGAIN, "kafka: %s: nothing new",
                               rd_kafka_topic_name(consumer->topic));
        }
    }
}

/* --- questions --- */

static enum err
offset_ask(struct kafka_consumer *consumer, int32_t partition, int64_t when,
           int64_t *out, struct why *why)
{
    enum err err = partition_valid(consumer, partition, why);

    return err != ERR_OK ? err
                         : kafka_ask_offset(&consumer->ask, partition, when,
                                            KAFKA_ASK_MS, out, why);
}

enum err
kafka_consumer_range(struct kafka_consumer *consumer, int32_t partition,
                     uint64_t *first, uint64_t *next, struct why *why)
{
    int64_t low = 0, high = 0;
    enum err err =
        offset_ask(consumer, partition, RD_KAFKA_OFFSET_BEGINNING, &low, why);

    if (err == ERR_OK)
        err = offset_ask(consumer, partition, RD_KAFKA_OFFSET_END, &high, why);
    if (err == ERR_OK && (low < 0 || high < low))
        err = err_set(why, ERR_FATAL,
                      "kafka: %s: partition %d: offsets %" PRId64 " to %" PRId64,
                      rd_kafka_topic_name(consumer->topic), partition, low, high);
    *first = err == ERR_OK ? (uint64_t)low : 0;
    *next = err == ERR_OK ? (uint64_t)high : 0;
    return err;
}

enum err
kafka_consumer_since(struct kafka_consumer *consumer, int32_t partition,
                     int64_t since_ms, uint64_t *offset, struct why *why)
{
    uint64_t first;
    int64_t found = -1;
    enum err err =
        offset_ask(consumer, partition, since_ms < 0 ? 0 : since_ms, &found, why);

    *offset = found >= 0 ? (uint64_t)found : 0;
    if (err != ERR_OK || found >= 0)
        return err;
    return kafka_consumer_range(consumer, partition, &first, offset, why);
}

#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/kafka.h"
#include "common/verdictlog_impl.h"

enum {
    POLL_US = 10000,     /* for room in the producer's queue */
    STALL_US = 30000000, /* a wait that gets nowhere is given up */
    WAIT_US = 1000000,
};

_Static_assert(WIRE_BLOCK_HEAD + 8 * VERDICTLOG_BLOCK_MAX <= KAFKA_MESSAGE_MAX,
               "a block is one message");

/* --- appending --- */

static enum err
block_send(struct verdictlog_kafka *kafka, const struct verdictlog_block *block,
           int64_t until_us, struct why *why)
{
    struct kafka_item item = {
        {NULL, 0},
        {(const char *)kafka->wire, WIRE_BLOCK_HEAD + 8 * block->count},
        clock_now_us() / 1000};
    size_t sent = 0;

    wire_block_make(block, kafka->wire);
    for (;;) {
        enum err err = kafka_send(kafka->producer, (int32_t)block->partition, &item,
                                  1, &sent, why);

        if (err != ERR_OK || sent == 1)
            return err;
        if (clock_mono_us() > until_us) /* its queue is full */
            return err_set(why, ERR_AGAIN, "%s: the queue is full", kafka->topic);
        err = kafka_poll(kafka->producer, POLL_US, why);
        if (err != ERR_OK)
            return err;
    }
}

static enum err
blocks_send(struct verdictlog_kafka *kafka, const struct verdictlog_block *blocks,
            size_t n, struct why *why)
{
    int64_t until_us;
    enum err err = ERR_OK;

    if (kafka->producer == NULL)
        err = kafka_producer_open(&kafka->producer, kafka->config, kafka->topic,
                                  "verdicts", 0, why);
    until_us = clock_mono_us() + kafka->config->kafka_delivery_ms_max * 1000;
    for (size_t i = 0; i < n && err == ERR_OK; i++)
        err = block_send(kafka, &blocks[i], until_us, why);
    if (err == ERR_OK) {
        int64_t left = until_us - clock_mono_us();

        err = kafka_flush(kafka->producer, left > 0 ? left : 0, why);
    }
    if (err !=
        ERR_OK) /* perhaps they have it: the next try says so with a new one */
        kafka_producer_close(&kafka->producer);
    return err;
}

enum err
verdictlog_kafka_append(struct verdictlog *log,
                        const struct verdictlog_block *blocks, size_t n,
                        struct why *why)
{
    struct verdictlog_kafka *kafka = log->kafka;
    enum err err;

    for (size_t i = 0; i < n; i++)
        if (blocks[i].partition >= kafka->partitions)
            return err_set(why, ERR_INVALID, "%s: partition %u of %u", kafka->topic,
                           blocks[i].partition, kafka->partitions);
    (void)pthread_mutex_lock(&kafka->appending);
    err = blocks_send(kafka, blocks, n, why);
    (void)pthread_mutex_unlock(&kafka->appending);
    return err;
}

/* --- following, from outside --- */

/* True when it is there; *moved when it has come nearer. */
static bool
arrived(const struct slot *slot, uint64_t since, uint64_t end, uint64_t *seen,
        bool *moved)
{
    *moved = slot->followed && slot->copied.next != *seen;
    if (*moved)
        *seen = slot->copied.next;
    return slot->order == ORDER_NONE && slot->followed &&
           slot->copied.from <= since && slot->copied.next >= end;
}

/* The order that is needed, if any: of two that wait, the one who wants more counts. */
static void
order_give(struct slot *slot, uint64_t since)
{
    if (slot->order == ORDER_FOLLOW)
        slot->since = since < slot->since ? since : slot->since;
    else if (slot->order == ORDER_LEAVE || !slot->followed ||
             slot->copied.from > since) {
        slot->order = ORDER_FOLLOW;
        slot->since = since;
    }
}

static enum err
wait_for(struct verdictlog_kafka *kafka, uint32_t partition, uint64_t since,
         uint64_t end, struct why *why)
{
    struct slot *slot = &kafka->slots[partition];
    int64_t until_us = clock_mono_us() + STALL_US;
    uint64_t seen = UINT64_MAX;
    enum err err = ERR_OK;
    bool moved;

    (void)pthread_mutex_lock(&kafka->mutex);
    order_give(slot, since);
    kafka->trouble.text[0] = '\0';
    while (!arrived(slot, since, end, &seen, &moved)) {
        int64_t now_us = clock_mono_us(), wake_us = now_us + WAIT_US;
        struct timespec wake = {wake_us / CLOCK_SECOND_US,
                                wake_us % CLOCK_SECOND_US * 1000};

        if (moved)
            until_us = now_us + STALL_US;
        if (slot->order == ORDER_LEAVE ||
            (slot->order == ORDER_NONE &&
             (!slot->followed || slot->copied.from > since)))
            err = err_set(why, ERR_AGAIN, "%s: partition %u was let go",
                          kafka->topic, partition);
        else if (now_us > until_us || kafka->stop)
            err = err_set(why, ERR_AGAIN, "%s: partition %u: nothing comes: %s",
                          kafka->topic, partition, kafka->trouble.text);
        if (err != ERR_OK)
            break;
        (void)pthread_cond_timedwait(&kafka->cond, &kafka->mutex, &wake);
    }
    (void)pthread_mutex_unlock(&kafka->mutex);
    return err;
}

enum err
verdictlog_follow(struct verdictlog *log, uint32_t partition, int64_t since_us,
                  struct why *why)
{
    struct verdictlog_kafka *kafka = log->kafka;
    uint64_t since, first, end;
    enum err err;

    if (kafka == NULL)
        return ERR_OK;
    if (partition >= kafka->partitions)
        return err_set(why, ERR_INVALID, "%s: partition %u of %u", kafka->topic,
                       partition, kafka->partitions);
    err = kafka_consumer_range(kafka->consumer, (int32_t)partition, &first, &end,
                               why);
    since = first;
    if (err == ERR_OK && since_us > 0)
        err = kafka_consumer_since(kafka->consumer, (int32_t)partition,
                                   since_us / 1000, &since, why);
    if (err != ERR_OK)
        return err;
    return wait_for(kafka, partition, since < end ? since : end, end, why);
}

void
verdictlog_leave(struct verdictlog *log, uint32_t partition)
{
    struct verdictlog_kafka *kafka = log->kafka;

    if (kafka == NULL || partition >= kafka->partitions)
        return;
    (void)pthread_mutex_lock(&kafka->mutex);
    kafka->slots[partition].order = ORDER_LEAVE;
    (void)pthread_cond_broadcast(&kafka->cond);
    (void)pthread_mutex_unlock(&kafka->mutex);
}

/* --- open, close --- */

static enum err
kafka_start(struct verdictlog *log, const char *dir, uint64_t map_bytes,
            struct why *why)
{
    struct verdictlog_kafka *kafka = log->kafka;
    uint64_t id;
    enum err err = kafka_log_id(kafka->config, kafka->topic, &id, why);

    if (err == ERR_OK)
        err = kafka_consumer_open(&kafka->consumer, kafka->config, kafka->topic,
                                  "verdicts", why);
    if (err == ERR_OK)
        kafka->partitions = kafka_consumer_partitions(kafka->consumer);
    if (err == ERR_OK)
        err = copy_open(log, dir, map_bytes, id, &kafka->lock, why);
    if (err != ERR_OK)
        return err;
    if (pthread_create(&kafka->thread, NULL, verdictlog_follower, log) != 0)
        return err_set(why, ERR_AGAIN, "%s: cannot make a thread", kafka->topic);
    kafka->started = true;
    return ERR_OK;
}

static struct verdictlog_kafka *
kafka_make(const struct config *config)
{
    struct verdictlog_kafka *kafka = calloc(1, sizeof(*kafka));
    pthread_condattr_t attr;

    if (kafka == NULL)
        return NULL;
    kafka->config = config;
    kafka->lock = -1;
    kafka_topic_name(config, "click_verdicts", kafka->topic);
    if (pthread_mutex_init(&kafka->mutex, NULL) != 0 ||
        pthread_mutex_init(&kafka->appending, NULL) != 0 ||
        pthread_condattr_init(&attr) != 0 ||
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) != 0 ||
        pthread_cond_init(&kafka->cond, &attr) != 0)
        abort();
    (void)pthread_condattr_destroy(&attr);
    kafka->verdicts = calloc(VERDICTLOG_BLOCK_MAX, sizeof(*kafka->verdicts));
    kafka->wire = malloc(WIRE_BLOCK_HEAD + 8 * VERDICTLOG_BLOCK_MAX);
    return kafka;
}

enum err
verdictlog_open_kafka(struct verdictlog **out, const struct config *config,
                      const char *dir, uint64_t map_bytes, struct why *why)
{
    struct verdictlog *log = calloc(1, sizeof(*log));
    enum err err;

    *out = NULL;
    if (log != NULL)
        log->kafka = kafka_make(config);
    if (log == NULL || log->kafka == NULL || log->kafka->verdicts == NULL ||
        log->kafka->wire == NULL)
        err = err_set(why, ERR_NOMEM, "verdictlog: no memory");
    else
        err = kafka_start(log, dir, map_bytes, why);
    if (err != ERR_OK)
        verdictlog_close(&log);
    *out = log;
    return err;
}

void
verdictlog_kafka_close(struct verdictlog *log)
{
    struct verdictlog_kafka *kafka = log->kafka;

    if (kafka == NULL)
        return;
    if (kafka->started) {
        (void)pthread_mutex_lock(&kafka->mutex);
        kafka->stop = true;
        (void)pthread_cond_broadcast(&kafka->cond);
        (void)pthread_mutex_unlock(&kafka->mutex);
        (void)pthread_join(kafka->thread, NULL);
    }
    kafka_producer_close(&kafka->producer);
    kafka_consumer_close(&kafka->consumer);
    if (kafka->lock >= 0)
        (void)close(kafka->lock); /* the environment's own files are closed next */
    (void)pthread_cond_destroy(&kafka->cond);
    (void)pthread_mutex_destroy(&kafka->mutex);
    (void)pthread_mutex_destroy(&kafka->appending);
    free(kafka->verdicts);
    free(kafka->wire);
    free(kafka);
    log->kafka = NULL;
}

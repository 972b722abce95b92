#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clicklog_kafka_impl.h"
#include "common/clock.h"

enum {
    START_MS_MAX = 3000,    /* without what was asked for: start again */
    SILENCE_MS_MAX = 10000, /* though the brokers have more */
    TROUBLE_MS = 1000,      /* an error stands so long before it is tried again */
    MESSAGE_BYTES = 1 << 20,
};

size_t
fetch_settings(const struct config *config, uint64_t bytes_max,
               struct kafka_setting *own,
               char text[FETCH_SETTINGS][FETCH_SETTING_SIZE])
{
    int64_t whole = config->kafka_fetch_bytes_max;
    const struct kafka_setting settings[FETCH_SETTINGS] = {
        {"enable.auto.commit", "false"},
        {"enable.auto.offset.store", "false"},
        {"auto.offset.reset", "error"},
        {"fetch.min.bytes", "1"},
        {"fetch.wait.max.ms", "100"},
        {"fetch.error.backoff.ms", "100"},
        {"queued.min.messages", "10000000"}, /* bytes are the limit */
        {"queued.max.messages.kbytes", text[0]},
        {"max.partition.fetch.bytes", text[1]},
        {"fetch.max.bytes", text[2]},
        {"topic.metadata.refresh.interval.ms", "30000"},
        {"enable.partition.eof", "false"},
    };

    (void)snprintf(text[0], FETCH_SETTING_SIZE, "%" PRIu64, bytes_max / 1024);
    (void)snprintf(text[1], FETCH_SETTING_SIZE, "%d", MESSAGE_BYTES);
    (void)snprintf(text[2], FETCH_SETTING_SIZE, "%" PRId64,
                   whole < 50 * MESSAGE_BYTES ? whole : 50 * MESSAGE_BYTES);
    memcpy(own, settings, sizeof(settings));
    return FETCH_SETTINGS;
}

enum err
fetch_init(struct fetch *fetch, rd_kafka_t *rk, rd_kafka_topic_t *topic,
           const char *name, int32_t partition, struct why *why)
{
    fetch->rk = rk;
    fetch->topic = topic;
    fetch->name = name;
    fetch->partition = partition;
    fetch->queue = rd_kafka_queue_get_partition(rk, name, partition);
    if (fetch->queue == NULL)
        return err_set(why, ERR_NOTFOUND, "kafka: %s: there is no partition %d",
                       name, partition);
    return ERR_OK;
}

static void
ring_drop(struct fetch *fetch, uint32_t until)
{
    while (fetch->head != until)
        rd_kafka_message_destroy(fetch->ring[fetch->head++ % RING_MESSAGES]);
}

void
fetch_stop(struct fetch *fetch)
{
    ring_drop(fetch, fetch->tail);
    fetch->at = fetch->head;
    if (fetch->started)
        (void)rd_kafka_consume_stop(fetch->topic, fetch->partition);
    fetch->started = fetch->full = false;
}

void
fetch_free(struct fetch *fetch)
{
    fetch_stop(fetch);
    if (fetch->queue != NULL)
        rd_kafka_queue_destroy(fetch->queue);
    fetch->queue = NULL;
    free(fetch->ring);
    fetch->ring = NULL;
}

static enum err
fetch_start(struct fetch *fetch, uint64_t offset, struct why *why)
{
    fetch_stop(fetch);
    if (fetch->ring == NULL)
        fetch->ring = calloc(RING_MESSAGES, sizeof(rd_kafka_message_t *));
    if (fetch->ring == NULL)
        return err_set(why, ERR_NOMEM, "kafka: no memory for partition %d",
                       fetch->partition);
    if (rd_kafka_consume_start(fetch->topic, fetch->partition, (int64_t)offset) !=
        0)
        return kafka_error(rd_kafka_last_error(), fetch->name, "start reading",
                           why);
    fetch->started = true;
    fetch->settled = fetch->lenient = fetch->stray = false;
    fetch->trouble = ERR_OK;
    fetch->next = offset;
    fetch->started_us = fetch->heard_us = clock_mono_us();
    return ERR_OK;
}

static enum err
trouble_told(const struct fetch *fetch, struct why *why)
{
    if (fetch->trouble == ERR_NOTFOUND)
        return err_set(
            why, ERR_NOTFOUND,
            "kafka: %s: partition %d, offset %" PRIu64 " is not held: %s",
            fetch->name, fetch->partition, fetch->trouble_at, fetch->trouble_text);
    return err_set(why, fetch->trouble,
                   "kafka: %s: partition %d, offset %" PRIu64 ": %s", fetch->name,
                   fetch->partition, fetch->trouble_at, fetch->trouble_text);
}

/* Nothing has come for long though there is something: a seek or a change of leader that
 * librdkafka has lost. */
static bool
must_repeat(const struct fetch *fetch, int64_t now, uint64_t end, int64_t end_us)
{
    if (fetch->trouble != ERR_OK)
        return now - fetch->trouble_us > TROUBLE_MS * 1000;
    if (fetch->head != fetch->tail)
        return false;
    if (!fetch->settled && now - fetch->started_us > START_MS_MAX * 1000)
        return fetch->stray || end > fetch->next;
    return now - fetch->heard_us > SILENCE_MS_MAX * 1000 && end > fetch->next &&
           end_us > fetch->heard_us;
}

enum err
fetch_seek(struct fetch *fetch, uint64_t offset, uint64_t end, int64_t end_us,
           struct why *why)
{
    uint64_t kept = fetch->next;
    bool stray = fetch->stray, same = offset == fetch->next;
    enum err err;

    if (offset > INT64_MAX)
        return err_set(why, ERR_NOTFOUND,
                       "kafka: %s: partition %d has no offset %" PRIu64,
                       fetch->name, fetch->partition, offset);
    if (fetch->head != fetch->tail)
        kept = (uint64_t)fetch->ring[fetch->head % RING_MESSAGES]->offset;
    if (!fetch->started || offset < kept || offset > fetch->next)
        return fetch_start(fetch, offset, why);
    while (fetch->head != fetch->tail &&
           (uint64_t)fetch->ring[fetch->head % RING_MESSAGES]->offset < offset)
        ring_drop(fetch, fetch->head + 1);
    fetch->at = fetch->head;
    if (!same || !must_repeat(fetch, clock_mono_us(), end, end_us))
        return fetch->trouble != ERR_OK && same ? trouble_told(fetch, why) : ERR_OK;
    err = fetch_start(fetch, offset, why);
    fetch->lenient = stray;
    return err;
}

static void
error_take(struct fetch *fetch, const rd_kafka_message_t *message)
{
    const char *text = rd_kafka_message_errstr(message);

    if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
        return;
    /* Of an offset asked for before the last start. */
    if (message->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET &&
        message->offset >= 0 && (uint64_t)message->offset != fetch->next)
        return;
    fetch->trouble = kafka_code(message->err);
    if (message->err == RD_KAFKA_RESP_ERR__BAD_MSG ||
        message->err == RD_KAFKA_RESP_ERR__BAD_COMPRESSION)
        fetch->trouble = ERR_CORRUPT;
    else if (fetch->trouble != ERR_NOTFOUND)
        fetch->trouble = ERR_AGAIN;
    fetch->trouble_at = fetch->next;
    fetch->trouble_us = clock_mono_us();
    (void)snprintf(fetch->trouble_text, sizeof(fetch->trouble_text), "%s",
                   text != NULL ? text : rd_kafka_err2str(message->err));
}

/* Whether it is the next one. What stood in the queue before the last start is not. */
static bool
message_wanted(struct fetch *fetch, const rd_kafka_message_t *message)
{
    uint64_t offset = (uint64_t)message->offset;

    if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        error_take(fetch, message);
        return false;
    }
    if (offset == fetch->next ||
        (offset > fetch->next && (fetch->settled || fetch->lenient))) {
        fetch->settled = true;
        fetch->next = offset + 1;
        return true;
    }
    fetch->stray = true;
    return false;
}

/* librdkafka looks at a full queue's room once a second, unless something wakes it. */
static void
room_watch(struct fetch *fetch, uint64_t bytes, uint32_t n)
{
    uint64_t left = rd_kafka_queue_length(fetch->queue), each = bytes / n;

    if ((left + n) * each >= fetch->bytes_max / 4 * 3)
        fetch->full = true;
    if (fetch->full && left * each < fetch->bytes_max / 2) {
        fetch->full = false;
        fetch->nudge = true;
    }
}

static void
take(struct fetch *fetch)
{
    uint32_t start = fetch->tail % RING_MESSAGES, used = fetch->tail - fetch->head;
    uint32_t room = RING_MESSAGES - used, kept = 0;
    rd_kafka_message_t **to = fetch->ring + start;
    uint64_t bytes = 0;
    ssize_t n;

    if (room > RING_MESSAGES - start)
        room = RING_MESSAGES - start;
    if (room > TAKE_MESSAGES)
        room = TAKE_MESSAGES;
    if (room == 0)
        return;
    n = rd_kafka_consume_batch_queue(fetch->queue, 0, to, room);
    if (n <= 0)
        return;
    for (ssize_t i = 0; i < n; i++) {
        bytes += to[i]->len + to[i]->key_len;
        if (message_wanted(fetch, to[i]))
            to[kept++] = to[i];
        else
            rd_kafka_message_destroy(to[i]);
    }
    fetch->tail += kept;
    fetch->heard_us = clock_mono_us();
    room_watch(fetch, bytes, (uint32_t)n);
}

enum err
fetch_next(struct fetch *fetch, rd_kafka_message_t **out, struct why *why)
{
    if (fetch->at == fetch->tail) {
        if (!fetch->started)
            return ERR_AGAIN;
        if (fetch->trouble == ERR_OK)
            take(fetch);
        if (fetch->at == fetch->tail)
            return fetch->trouble != ERR_OK ? trouble_told(fetch, why) : ERR_AGAIN;
    }
    *out = fetch->ring[fetch->at++ % RING_MESSAGES];
    return ERR_OK;
}

bool
fetch_is_full(const struct fetch *fetch)
{
    return fetch->tail - fetch->head == RING_MESSAGES;
}

uint64_t
fetch_end(const struct fetch *fetch)
{
    int64_t low, high;

    if (rd_kafka_get_watermark_offsets(fetch->rk, fetch->name, fetch->partition,
                                       &low, &high) != RD_KAFKA_RESP_ERR_NO_ERROR ||
        high < 0)
        return 0;
    return (uint64_t)high;
}

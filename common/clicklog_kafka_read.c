#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "common/clicklog_kafka_impl.h"
#include "common/clock.h"

enum {
    WIRE_HEAD_BYTES = 5, /* as schema/topics.h writes it */
    ASK_MS = 3000,
    SINCE_MS_MAX = 10000, /* for the first record of a time to arrive */
    FIND_MS_MAX = 10000,  /* without any message */
    PAUSE_US = 2000,
};

struct clicklog_kafka_reader {
    struct clicklog_kafka *kafka;
    struct part *part; /* its mutex is ours; NULL: none */
};

/* --- a message as a record --- */

static enum err
foreign(const struct clicklog_kafka *kafka, const rd_kafka_message_t *message,
        const char *what, struct why *why)
{
    return err_set(why, ERR_CORRUPT,
                   "kafka: %s: partition %d, offset %" PRId64 ": %s", kafka->topic,
                   message->partition, message->offset, what);
}

/* An Avro int or long that is not negative; false past the end or 64 bits. */
static bool
natural_read(const uint8_t **p, const uint8_t *end, uint64_t *out)
{
    uint64_t value = 0;

    for (unsigned shift = 0; *p < end && shift < 64; shift += 7) {
        uint8_t byte = *(*p)++;

        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *out = value >> 1;
            return (value & 1) == 0 && (shift < 63 || byte < 2);
        }
    }
    return false;
}

static uint64_t
big_endian(const uint8_t *p, unsigned n)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < n; i++)
        value = value << 8 | p[i];
    return value;
}

/* 0: no schema of ours. What was written before there was a registry has its version. */
static uint16_t
version_of(const struct clicklog_kafka *kafka, uint32_t id)
{
    for (uint16_t version = 1; kafka->registered && version < SCHEMAS_MAX;
         version++)
        if (kafka->schemas[version] == id && id != 0)
            return version;
    return id <= UINT16_MAX ? (uint16_t)id : 0;
}

enum err
message_record(const struct clicklog_kafka *kafka,
               const rd_kafka_message_t *message, struct clicklog_record *out,
               struct why *why)
{
    const uint8_t *p = message->payload, *end = p + message->len;
    uint64_t partition, received;

    if (p == NULL || message->len < WIRE_HEAD_BYTES + 8 || p[0] != 0)
        return foreign(kafka, message, "not a click: no schema id before it", why);
    out->version = version_of(kafka, (uint32_t)big_endian(p + 1, 4));
    if (out->version == 0)
        return foreign(kafka, message, "its schema id is not of a click", why);
    p += WIRE_HEAD_BYTES;
    out->p = p;
    out->n = (uint32_t)(end - p);
    out->offset = (uint64_t)message->offset;
    out->incarnation = big_endian(p, 8);
    p += 8;
    if (!natural_read(&p, end, &partition) || !natural_read(&p, end, &out->seq) ||
        !natural_read(&p, end, &received))
        return foreign(kafka, message, "not a click: its first fields are damaged",
                       why);
    if (partition != (uint64_t)message->partition)
        return foreign(kafka, message, "it belongs to another partition", why);
    out->received_us = (int64_t)received;
    return ERR_OK;
}

/* --- the reader --- */

enum err
clicklog_kafka_reader_open(struct clicklog_kafka_reader **out,
                           struct clicklog_kafka *kafka, struct why *why)
{
    *out = calloc(1, sizeof(**out));
    if (*out == NULL)
        return err_set(why, ERR_NOMEM, "kafka: no memory for a reader");
    (*out)->kafka = kafka;
    return ERR_OK;
}

void
clicklog_kafka_release(struct clicklog_kafka_reader *reader)
{
    struct part *part = reader->part;

    if (part == NULL)
        return;
    reader->part = NULL;
    (void)pthread_mutex_unlock(&part->mutex);
}

void
clicklog_kafka_reader_close(struct clicklog_kafka_reader **reader)
{
    if (*reader == NULL)
        return;
    clicklog_kafka_release(*reader);
    free(*reader);
    *reader = NULL;
}

enum err
clicklog_kafka_seek(struct clicklog_kafka_reader *reader, uint32_t partition,
                    uint64_t offset, struct why *why)
{
    struct part *part = &reader->kafka->parts[partition];
    enum err err;

    clicklog_kafka_release(reader);
    if (atomic_load(&part->owned) == 0)
        return err_set(why, ERR_AGAIN,
                       "kafka: %s: partition %u is not assigned to this process",
                       reader->kafka->topic, partition);
    (void)pthread_mutex_lock(&part->mutex);
    atomic_store(&part->touched, true);
    err = fetch_seek(&part->fetch, offset, atomic_load(&part->end),
                     atomic_load(&part->end_us), why);
    atomic_store(&part->fetching, part->fetch.started);
    if (err == ERR_OK)
        reader->part = part;
    else
        (void)pthread_mutex_unlock(&part->mutex);
    return err;
}

/* The keeper wakes librdkafka. */
static void
nudge(struct clicklog_kafka *kafka, struct part *part)
{
    part->fetch.nudge = false;
    atomic_store(&part->nudge, true);
    (void)pthread_mutex_lock(&kafka->mutex);
    (void)pthread_cond_broadcast(&kafka->work);
    (void)pthread_mutex_unlock(&kafka->mutex);
}

enum err
clicklog_kafka_next(struct clicklog_kafka_reader *reader,
                    struct clicklog_record *out, struct why *why)
{
    struct part *part = reader->part;
    rd_kafka_message_t *message;
    enum err err;

    if (part == NULL)
        return ERR_AGAIN;
    err = fetch_next(&part->fetch, &message, why);
    if (part->fetch.nudge)
        nudge(reader->kafka, part);
    if (err == ERR_AGAIN && fetch_is_full(&part->fetch))
        kafka_changed(reader->kafka); /* nobody waits while there is more */
    if (err != ERR_OK)
        return err;
    kafka_watch_ok(&reader->kafka->watch);
    err = message_record(reader->kafka, message, out, why);
    if (err != ERR_OK)
        part->fetch.at--;
    return err;
}

/* --- times --- */

/* Waits for the record that the reader stands before. */
static enum err
next_wait(struct clicklog_kafka_reader *reader, int64_t until_us,
          struct clicklog_record *out, struct why *why)
{
    enum err err;

    while ((err = clicklog_kafka_next(reader, out, why)) == ERR_AGAIN &&
           clock_mono_us() < until_us && !atomic_load(&reader->kafka->stop))
        clock_sleep_us(PAUSE_US);
    if (err == ERR_AGAIN)
        return err_set(why, ERR_AGAIN, "kafka: %s: no answer within %d ms",
                       reader->kafka->topic, SINCE_MS_MAX);
    return err;
}

enum err
clicklog_kafka_since(struct clicklog_kafka_reader *reader, uint32_t partition,
                     int64_t since_us, uint64_t *offset, int64_t *received_us,
                     struct why *why)
{
    int64_t until_us = clock_mono_us() + SINCE_MS_MAX * 1000, found = -1;
    struct clicklog_record record = {.received_us = INT64_MIN};
    uint64_t first, end, at;
    enum err err =
        clicklog_kafka_range(reader->kafka, partition, &first, &end, why);

    if (err == ERR_OK)
        err = kafka_offset_ask(reader->kafka, partition,
                               since_us < 0 ? 0 : since_us / 1000, ASK_MS, &found,
                               why);
    if (err != ERR_OK)
        return err;
    *received_us = INT64_MAX;
    /* The end was asked for first: what has come since then lies behind it. */
    at = found < 0 ? end : (uint64_t)found;
    while (at < end && err == ERR_OK) {
        err = clicklog_kafka_seek(reader, partition, at, why);
        if (err == ERR_OK)
            err = next_wait(reader, until_us, &record, why);
        if (err == ERR_OK && record.received_us >= since_us) {
            *received_us = record.received_us;
            at = record.offset;
            break;
        }
        at = record.offset + 1; /* of the same millisecond */
    }
    clicklog_kafka_release(reader);
    *offset = at;
    return err;
}

/* --- one record found again --- */

struct search {
    struct kafka_watch watch; /* first: the handle's opaque */
    rd_kafka_t *rk;
    rd_kafka_topic_t *rkt;
    struct fetch fetch;
};

static enum err
search_open(struct search *search, const struct clicklog_kafka *kafka,
            uint32_t partition, struct why *why)
{
    enum err err = clicklog_kafka_handle(kafka, "find", &search->watch, &search->rk,
                                         &search->rkt, why);

    if (err != ERR_OK)
        return err;
    return fetch_init(&search->fetch, search->rk, search->rkt, kafka->topic,
                      (int32_t)partition, why);
}

static void
search_close(struct search *search)
{
    fetch_free(&search->fetch);
    if (search->rkt != NULL)
        rd_kafka_topic_destroy(search->rkt);
    if (search->rk != NULL)
        rd_kafka_destroy(search->rk);
}

static enum err
search_run(struct search *search, const struct clicklog_kafka *kafka, uint64_t from,
           uint64_t end, const struct clicklog_record *wanted, uint64_t *offset,
           struct why *why)
{
    int64_t heard_us = clock_mono_us();
    struct clicklog_record record = {0};
    rd_kafka_message_t *message;
    enum err err = ERR_OK;

    search->fetch.bytes_max = UINT64_MAX; /* nobody nudges */
    for (uint64_t at = from; at < end; at = record.offset + 1) {
        err = fetch_seek(&search->fetch, at, end, heard_us, why);
        while (err == ERR_OK &&
               (err = fetch_next(&search->fetch, &message, why)) == ERR_AGAIN &&
               clock_mono_us() - heard_us < FIND_MS_MAX * 1000 &&
               !atomic_load(&kafka->stop)) {
            clock_sleep_us(PAUSE_US);
            err = fetch_seek(&search->fetch, at, end, heard_us, why);
        }
        if (err == ERR_AGAIN)
            return err_set(why, ERR_AGAIN, "kafka: %s: nothing within %d ms",
                           kafka->topic, FIND_MS_MAX);
        if (err == ERR_OK)
            err = message_record(kafka, message, &record, why);
        if (err != ERR_OK)
            return err;
        heard_us = clock_mono_us();
        if (record.incarnation == wanted->incarnation &&
            record.seq == wanted->seq) {
            *offset = record.offset;
            return ERR_OK;
        }
    }
    return err_set(why, ERR_NOTFOUND,
                   "kafka: %s: incarnation %016" PRIx64 ", seq %" PRIu64
                   " is not between offsets %" PRIu64 " and %" PRIu64,
                   kafka->topic, wanted->incarnation, wanted->seq, from, end);
}

enum err
clicklog_kafka_find(struct clicklog_kafka *kafka, uint32_t partition, uint64_t from,
                    uint64_t incarnation, uint64_t seq, uint64_t *offset,
                    struct why *why)
{
    const struct clicklog_record wanted = {.incarnation = incarnation, .seq = seq};
    struct search search = {0};
    uint64_t first, end;
    enum err err;

    if (partition >= kafka->partitions)
        return err_set(why, ERR_INVALID, "kafka: partition %u of %u", partition,
                       kafka->partitions);
    err = clicklog_kafka_range(kafka, partition, &first, &end, why);
    if (err != ERR_OK)
        return err;
    err = search_open(&search, kafka, partition, why);
    if (err == ERR_OK)
        err = search_run(&search, kafka, from < first ? first : from, end, &wanted,
                         offset, why);
    search_close(&search);
    return err;
}

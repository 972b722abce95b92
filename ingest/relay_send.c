/* Spool -> producer -> cursor. One thread, which owns the producer and the reader. */
#include <assert.h>
#include <string.h>

#include "common/log.h"
#include "ingest/relay_impl.h"

/* --- one record --- */

/* An Avro long's bytes; 0: it does not end. */
static size_t
varint_size(const uint8_t *p, const uint8_t *end)
{
    for (size_t n = 1; n <= 10 && p + n <= end; n++)
        if ((p[n - 1] & 0x80) == 0)
            return n;
    return 0;
}

/* Passes over so many Avro longs; NULL: cut short. */
static const uint8_t *
varints_skip(const uint8_t *p, const uint8_t *end, int count)
{
    while (p != NULL && count-- > 0) {
        size_t n = varint_size(p, end);

        p = n == 0 ? NULL : p + n;
    }
    return p;
}

static const uint8_t *
bytes_skip(const uint8_t *p, const uint8_t *end, size_t n)
{
    return p == NULL || (size_t)(end - p) < n ? NULL : p + n;
}

/* The order of fields is click.avsc's, and will stay: new ones go to the end. */
bool
relay_record_key(const uint8_t *p, size_t n, struct str *key)
{
    const uint8_t *end = p + n;

    p = bytes_skip(p, end, 8);   /* incarnation */
    p = varints_skip(p, end, 5); /* partition, seq, received_at, account, key */
    if (p == NULL || p == end || *p > 32)
        return false;
    p = bytes_skip(p, end, 1 + (size_t)*p / 2); /* remote: 4 or 16 bytes */
    p = varints_skip(p, end, 1);                /* signature */
    p = bytes_skip(p, end, 16);                 /* event_id */
    p = varints_skip(p, end, 1);                /* timestamp */
    if (p == NULL || end - p < 2)
        return false;
    uint32_t length = *p++;
    if (length & 0x80)
        length = (length & 0x7f) | (uint32_t)*p++ << 7;
    *key = (struct str){(const char *)p, length / 2};
    return (length & 1) == 0 && bytes_skip(p, end, length / 2) != NULL;
}

/* --- spool to producer --- */

static enum err
item_add(struct relay *relay, const struct clicklog_record *record, size_t i,
         size_t *used, struct why *why)
{
    struct kafka_item *item = &relay->items[i];
    uint8_t *to = relay->bytes + *used;

    if (record->version < CLICK_VERSION_FIRST || record->version > CLICK_VERSION)
        return err_set(why, ERR_CORRUPT,
                       "a record of schema version %u; this program knows %d to %d",
                       record->version, CLICK_VERSION_FIRST, CLICK_VERSION);
    memcpy(to, relay->heads[record->version], WIRE_HEAD);
    memcpy(to + WIRE_HEAD, record->p, record->n);
    if (!relay_record_key(to + WIRE_HEAD, record->n, &item->key))
        return err_set(why, ERR_CORRUPT,
                       "the record at offset %llu has no campaign",
                       (unsigned long long)record->offset);
    item->value = (struct str){(const char *)to, WIRE_HEAD + record->n};
    item->timestamp_ms = record->received_us / 1000;
    *used += WIRE_HEAD + record->n;
    return ERR_OK;
}

/* Up to RELAY_BATCH records of the snapshot; *n 0: its end. */
static enum err
batch_fill(struct relay *relay, size_t *n, struct why *why)
{
    struct clicklog_record record = {0};
    size_t used = 0;
    enum err err = ERR_OK;

    *n = 0;
    while (*n < RELAY_BATCH &&
           used + WIRE_HEAD + CLICKLOG_RECORD_MAX <= RELAY_BATCH_BYTES) {
        err = clicklog_next(relay->reader, &record, why);
        if (err == ERR_OK)
            err = item_add(relay, &record, *n, &used, why);
        if (err != ERR_OK)
            break;
        ++*n;
    }
    return err == ERR_AGAIN ? ERR_OK : err;
}

/* What one snapshot has of a partition, up to a turn's worth. */
static enum err
snapshot_send(struct relay *relay, uint32_t p, struct why *why)
{
    enum err err = clicklog_seek(relay->reader, p, relay->sent[p], why);
    bool more = err == ERR_OK;

    for (int i = 0; i < RELAY_TURN_BATCHES && more; i++) {
        size_t n = 0, sent = 0;
        enum err later = batch_fill(relay, &n, why);

        err = n == 0 ? ERR_OK
                     : kafka_send(relay->producer, (int32_t)p, relay->items, n,
                                  &sent, why);
        relay->sent[p] += sent;
        relay->full = relay->full || sent < n;
        if (err == ERR_OK)
            err = later; /* what is before it went out */
        more = err == ERR_OK && n > 0 && sent == n;
    }
    clicklog_release(relay->reader);
    return err;
}

/* A block that cannot be read stops its partition, and no other. */
static enum err
partition_send(struct relay *relay, uint32_t p, struct why *why)
{
    enum err err = snapshot_send(relay, p, why);

    if (err != ERR_CORRUPT)
        return err;
    relay->stuck[p] = true;
    log_event(LOG_ERROR, "relay_stuck", LOG_NUMBER("partition", p),
              LOG_NUMBER("offset", relay->sent[p]), LOG_TEXT("why", why->text));
    return ERR_OK;
}

/* Sends what is new. *some: there was something. */
static enum err
spool_send(struct relay *relay, bool *some, struct why *why)
{
    uint32_t partitions = relay->partitions;
    enum err err = clicklog_ends(relay->log, relay->end, why);

    *some = relay->full = false;
    for (uint32_t i = 0; i < partitions && err == ERR_OK; i++) {
        uint32_t p = (relay->turn + i) % partitions;

        if (relay->stuck[p] || relay->sent[p] >= relay->end[p])
            continue;
        *some = true;
        /* Its leader may be away: the others have their own share of the queue. */
        if (kafka_room(relay->producer, (int32_t)p) == 0)
            relay->full = true;
        else
            err = partition_send(relay, p, why);
    }
    relay->turn = (relay->turn + 1) % partitions;
    return err;
}

/* --- producer to cursor --- */

static void
recovered(struct relay *relay)
{
    relay->wait_us = RELAY_WAIT_US_MIN;
    if (relay->failing)
        log_event(LOG_INFO, "relay_goes_on", LOG_TEXT("topic", relay->topic));
    relay->failing = false;
}

static void
acknowledged_take(struct relay *relay)
{
    uint64_t backlog = 0, acked = 0;

    for (uint32_t p = 0; p < relay->partitions; p++) {
        uint64_t at = relay_cursor_get(relay->cursor, p);
        uint64_t now =
            relay->producer == NULL
                ? at
                : relay->base[p] + kafka_acked(relay->producer, (int32_t)p);

        assert(now <= relay->sent[p] || relay->producer == NULL);
        if (now > at) {
            relay_cursor_raise(relay->cursor, p, now);
            acked += now - at;
            at = now;
        }
        backlog += relay->end[p] > at ? relay->end[p] - at : 0;
    }
    metric_set(relay->backlog, (int64_t)backlog);
    if (acked == 0)
        return;
    metric_add(relay->acked_total, (int64_t)acked);
    recovered(relay);
}

static bool
all_acknowledged(const struct relay *relay)
{
    for (uint32_t p = 0; p < relay->partitions; p++)
        if (relay_cursor_get(relay->cursor, p) < relay->end[p])
            return false;
    return true;
}

static enum err
producer_open(struct relay *relay, struct why *why)
{
    enum err err = relay_cursor_clamp(relay->cursor, relay->log, why);

    if (err == ERR_OK)
        err = kafka_producer_open(&relay->producer, relay->config, relay->topic,
                                  "relay", -1, why);
    for (uint32_t p = 0; p < relay->partitions; p++)
        relay->base[p] = relay->sent[p] = relay_cursor_get(relay->cursor, p);
    memset(relay->stuck, 0, sizeof(relay->stuck));
    return err;
}

/* --- failures and requests --- */

static void
producer_drop(struct relay *relay)
{
    if (relay->producer == NULL)
        return;
    acknowledged_take(relay); /* what came before the failure stands */
    if (kafka_in_flight(relay->producer) > 0)
        metric_add(relay->resends, 1);
    kafka_producer_close(&relay->producer);
}

static bool
out_of_time(const struct relay *relay)
{
    return atomic_load(&relay->stop) && relay->stop_us != 0 &&
           clock_mono_us() >= relay->stop_us;
}

static void
failed(struct relay *relay, enum err err, const struct why *why)
{
    int64_t until_us = clock_mono_us() + relay->wait_us;

    producer_drop(relay);
    if (!relay->failing)
        log_event(LOG_WARN, "relay_failed", LOG_TEXT("topic", relay->topic),
                  LOG_TEXT("error", err_name(err)), LOG_TEXT("why", why->text),
                  LOG_TEXT("effect", "sends again from the cursor until it works"));
    relay->failing = true;
    while (clock_mono_us() < until_us && !out_of_time(relay))
        clock_sleep_us(RELAY_WAIT_US_MIN / 2);
    relay->wait_us = relay->wait_us * 2 > RELAY_WAIT_US_MAX ? RELAY_WAIT_US_MAX
                                                            : relay->wait_us * 2;
}

static void
rewind_take(void *ctx, uint32_t partition, uint64_t offset)
{
    struct relay *relay = ctx;

    producer_drop(relay);
    log_event(LOG_WARN, "relay_rewinds", LOG_NUMBER("partition", partition),
              LOG_NUMBER("from", relay_cursor_get(relay->cursor, partition)),
              LOG_NUMBER("to", offset));
    relay_cursor_lower(relay->cursor, partition, offset);
}

static void
rewinds_look(struct relay *relay)
{
    if (clock_mono_us() < relay->rewind_us)
        return;
    relay->rewind_us = clock_mono_us() + RELAY_REWIND_US;
    relay_rewinds_each(relay->dir, relay->partitions, rewind_take, relay);
}

/* --- the thread --- */

static enum err
step(struct relay *relay, uint64_t *seen, bool *some, struct why *why)
{
    enum err err = ERR_OK;
    int64_t full_us;

    if (relay->producer == NULL)
        err = producer_open(relay, why);
    if (err == ERR_OK)
        err = spool_send(relay, some, why);
    if (err == ERR_OK) {
        /* A full queue gets some room before the snapshots are taken anew. */
        full_us = clock_mono_us() + RELAY_FULL_US;
        do
            err = kafka_poll(
                relay->producer,
                kafka_in_flight(relay->producer) == 0 ? 0 : RELAY_POLL_US, why);
        while (err == ERR_OK && relay->full && clock_mono_us() < full_us);
        acknowledged_take(relay);
    }
    if (err == ERR_OK && !*some && kafka_in_flight(relay->producer) == 0)
        clicklog_wait(relay->log, seen,
                      atomic_load(&relay->stop) ? RELAY_POLL_US : RELAY_IDLE_US);
    return err;
}

void *
relay_send_main(void *arg)
{
    struct relay *relay = arg;
    uint64_t seen = 0;
    bool done = false;

    while (!done) {
        struct why why = {{0}};
        bool some = false;
        enum err err;

        if (!atomic_load(&relay->claimed)) {
            done = atomic_load(&relay->stop);
            clock_sleep_us(RELAY_MARK_POLL_US);
            continue;
        }
        if (atomic_load(&relay->stop) && relay->stop_us == 0)
            relay->stop_us =
                clock_mono_us() + relay->config->kafka_delivery_ms_max * 1000;
        rewinds_look(relay);
        err = step(relay, &seen, &some, &why);
        if (err != ERR_OK)
            failed(relay, err, &why);
        done = out_of_time(relay) || (atomic_load(&relay->stop) && err == ERR_OK &&
                                      !some && all_acknowledged(relay));
    }
    producer_drop(relay);
    return NULL;
}

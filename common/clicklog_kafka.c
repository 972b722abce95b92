#include "common/clicklog_kafka.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clicklog_kafka_impl.h"
#include "common/clock.h"
#include "common/control.h"

enum {
    KEEPER_US = 100000,  /* its pause */
    END_ASKED_MS = 5000, /* an end is asked for again after */
    END_WAIT_MS = 1000,
    ASK_MS = 3000,
    PARTITION_BYTES_MIN = 1 << 20,
};

/* --- waiting --- */

static void
conditions_init(struct clicklog_kafka *kafka)
{
    pthread_condattr_t attr;

    if (pthread_mutex_init(&kafka->mutex, NULL) != 0 ||
        pthread_condattr_init(&attr) != 0 ||
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) != 0 ||
        pthread_cond_init(&kafka->changed, &attr) != 0 ||
        pthread_cond_init(&kafka->work, &attr) != 0)
        abort();
    (void)pthread_condattr_destroy(&attr);
}

static struct timespec
timespec_of(int64_t us)
{
    return (struct timespec){.tv_sec = (time_t)(us / CLOCK_SECOND_US),
                             .tv_nsec = (long)(us % CLOCK_SECOND_US * 1000)};
}

void
kafka_changed(struct clicklog_kafka *kafka)
{
    (void)pthread_mutex_lock(&kafka->mutex);
    kafka->generation++;
    (void)pthread_cond_broadcast(&kafka->changed);
    (void)pthread_mutex_unlock(&kafka->mutex);
}

/* A queue that was empty has something; called by librdkafka's threads. */
static void
queue_filled(rd_kafka_t *rk, void *opaque)
{
    (void)rk;
    kafka_changed(opaque);
}

void
clicklog_kafka_wait(struct clicklog_kafka *kafka, uint64_t *seen,
                    int64_t timeout_us)
{
    int64_t end = clock_mono_us() + (timeout_us > 0 ? timeout_us : 0);
    struct timespec until = timespec_of(end);

    (void)pthread_mutex_lock(&kafka->mutex);
    while (kafka->generation == *seen && clock_mono_us() < end)
        (void)pthread_cond_timedwait(&kafka->changed, &kafka->mutex, &until);
    *seen = kafka->generation;
    (void)pthread_mutex_unlock(&kafka->mutex);
}

void
clicklog_kafka_wake(struct clicklog_kafka *kafka)
{
    kafka_changed(kafka);
}

/* --- questions to the brokers --- */

enum err
kafka_offset_ask(struct clicklog_kafka *kafka, uint32_t partition, int64_t when,
                 int timeout_ms, int64_t *offset, struct why *why)
{
    return kafka_ask_offset(&kafka->ask, (int32_t)partition, when, timeout_ms,
                            offset, why);
}

enum err
clicklog_kafka_range(struct clicklog_kafka *kafka, uint32_t partition,
                     uint64_t *first, uint64_t *next, struct why *why)
{
    int64_t low, high;
    enum err err = kafka_offset_ask(kafka, partition, RD_KAFKA_OFFSET_BEGINNING,
                                    ASK_MS, &low, why);

    if (err == ERR_OK)
        err = kafka_offset_ask(kafka, partition, RD_KAFKA_OFFSET_END, ASK_MS, &high,
                               why);
    if (err != ERR_OK)
        return err;
    if (low < 0 || high < low)
        return err_set(why, ERR_AGAIN, "kafka: %s: partition %u: no range yet",
                       kafka->topic, partition);
    *first = (uint64_t)low;
    *next = (uint64_t)high;
    atomic_store(&kafka->parts[partition].end, *next);
    atomic_store(&kafka->parts[partition].end_us, clock_mono_us());
    return ERR_OK;
}

/* --- the keeper --- */

/* Asks the leader of a partition for its end by the handle that fetches, which also wakes
 * librdkafka's thread of it when that sleeps on full queues. */
static void
end_ask(struct clicklog_kafka *kafka, uint32_t p)
{
    int64_t high;

    if (kafka_offset_get(kafka->rk, kafka->topic, (int32_t)p, RD_KAFKA_OFFSET_END,
                         END_WAIT_MS, &high) != RD_KAFKA_RESP_ERR_NO_ERROR ||
        high < 0)
        return;
    atomic_store(&kafka->parts[p].end, (uint64_t)high);
    atomic_store(&kafka->parts[p].end_us, clock_mono_us());
    kafka_watch_ok(&kafka->watch);
    kafka_watch_ok(&kafka->group.watch);
}

/* One round; at most one question that nothing urges. */
static void
keep(struct clicklog_kafka *kafka)
{
    int64_t now = clock_mono_us();
    bool asked = false;

    (void)rd_kafka_poll(kafka->rk, 0);
    for (uint32_t p = 0; p < kafka->partitions && !atomic_load(&kafka->stop); p++) {
        struct part *part = &kafka->parts[p];

        if (atomic_exchange(&part->nudge, false)) {
            end_ask(kafka, p);
        } else if (atomic_load(&part->owned) != 0 && !asked &&
                   (atomic_load(&part->end_us) == 0 ||
                    now - atomic_load(&part->end_us) > END_ASKED_MS * 1000)) {
            end_ask(kafka, p);
            asked = true;
        }
        if (atomic_load(&part->owned) == 0 && atomic_load(&part->fetching) &&
            pthread_mutex_trylock(&part->mutex) == 0) {
            fetch_stop(&part->fetch);
            atomic_store(&part->fetching, false);
            (void)pthread_mutex_unlock(&part->mutex);
        }
    }
}

static void *
keeper_run(void *arg)
{
    struct clicklog_kafka *kafka = arg;

    while (!atomic_load(&kafka->stop)) {
        struct timespec until = timespec_of(clock_mono_us() + KEEPER_US);

        keep(kafka);
        (void)pthread_mutex_lock(&kafka->mutex);
        if (!atomic_load(&kafka->stop))
            (void)pthread_cond_timedwait(&kafka->work, &kafka->mutex, &until);
        (void)pthread_mutex_unlock(&kafka->mutex);
    }
    return NULL;
}

/* --- open and close --- */

static enum err
partitions_ask(struct clicklog_kafka *kafka, struct why *why)
{
    const struct rd_kafka_metadata *metadata = NULL;
    rd_kafka_resp_err_t code =
        rd_kafka_metadata(kafka->rk, 0, kafka->rkt, &metadata, KAFKA_ASK_MS);
    enum err err = ERR_OK;
    int n = 0;

    if (code == RD_KAFKA_RESP_ERR_NO_ERROR && metadata->topic_cnt == 1) {
        code = metadata->topics[0].err;
        n = metadata->topics[0].partition_cnt;
    }
    if (metadata != NULL)
        rd_kafka_metadata_destroy(metadata);
    if (kafka_code(code) == ERR_NOTFOUND ||
        (code == RD_KAFKA_RESP_ERR_NO_ERROR && n == 0))
        return err_set(why, ERR_NOTFOUND,
                       "kafka: there is no topic %s: `clickledger topics create` "
                       "makes it",
                       kafka->topic);
    err = kafka_error(code, kafka->topic, "ask for partitions", why);
    if (err == ERR_OK && n > CLICKLOG_PARTITIONS_MAX)
        err = err_set(why, ERR_INVALID, "kafka: %s has %d partitions, at most %d",
                      kafka->topic, n, CLICKLOG_PARTITIONS_MAX);
    kafka->partitions = err == ERR_OK ? (uint32_t)n : 0;
    return err;
}

static uint64_t
partition_bytes(const struct clicklog_kafka *kafka)
{
    uint64_t each = (uint64_t)kafka->config->kafka_fetch_bytes_max /
                    (kafka->partitions != 0 ? kafka->partitions : 1);

    return each < PARTITION_BYTES_MIN ? PARTITION_BYTES_MIN : each;
}

enum err
clicklog_kafka_handle(const struct clicklog_kafka *kafka, const char *name,
                      struct kafka_watch *watch, rd_kafka_t **rk,
                      rd_kafka_topic_t **rkt, struct why *why)
{
    struct kafka_setting own[FETCH_SETTINGS];
    char text[FETCH_SETTINGS][FETCH_SETTING_SIZE];
    size_t n = fetch_settings(kafka->config, partition_bytes(kafka), own, text);
    rd_kafka_conf_t *conf;
    enum err err = kafka_conf(&conf, kafka->config, name, watch, own, n, why);

    if (err == ERR_OK)
        err = kafka_new(rk, RD_KAFKA_CONSUMER, conf, why);
    if (err != ERR_OK)
        return err;
    *rkt = rd_kafka_topic_new(*rk, kafka->topic, NULL);
    if (*rkt == NULL)
        return kafka_error(rd_kafka_last_error(), kafka->topic, "open", why);
    return ERR_OK;
}

static enum err
parts_make(struct clicklog_kafka *kafka, struct why *why)
{
    enum err err = ERR_OK;

    kafka->parts = calloc(kafka->partitions, sizeof(*kafka->parts));
    if (kafka->parts == NULL)
        return err_set(why, ERR_NOMEM, "kafka: no memory for %u partitions",
                       kafka->partitions);
    for (uint32_t p = 0; p < kafka->partitions; p++)
        if (pthread_mutex_init(&kafka->parts[p].mutex, NULL) != 0)
            abort();
    for (uint32_t p = 0; err == ERR_OK && p < kafka->partitions; p++) {
        struct fetch *fetch = &kafka->parts[p].fetch;

        err =
            fetch_init(fetch, kafka->rk, kafka->rkt, kafka->topic, (int32_t)p, why);
        if (err != ERR_OK)
            break;
        fetch->bytes_max = partition_bytes(kafka);
        rd_kafka_queue_cb_event_enable(fetch->queue, queue_filled, kafka);
    }
    return err;
}

/* The limit of a queue follows from the number of partitions: asked with a handle that is
 * thrown away. */
static enum err
handles_make(struct clicklog_kafka *kafka, const char *stage, struct why *why)
{
    char name[64];
    enum err err;

    (void)snprintf(name, sizeof(name), "%s-fetch", stage);
    err = clicklog_kafka_handle(kafka, name, &kafka->watch, &kafka->rk, &kafka->rkt,
                                why);
    if (err == ERR_OK)
        err = partitions_ask(kafka, why);
    if (kafka->rkt != NULL)
        rd_kafka_topic_destroy(kafka->rkt);
    if (kafka->rk != NULL)
        rd_kafka_destroy(kafka->rk);
    kafka->rkt = NULL;
    kafka->rk = NULL;
    if (err == ERR_OK)
        err = clicklog_kafka_handle(kafka, name, &kafka->watch, &kafka->rk,
                                    &kafka->rkt, why);
    return err;
}

enum err
clicklog_kafka_open(struct clicklog_kafka **out,
                    const struct clicklog_kafka_config *cfg, struct why *why)
{
    struct clicklog_kafka *kafka = calloc(1, sizeof(*kafka));
    enum err err;

    *out = NULL;
    if (kafka == NULL)
        return err_set(why, ERR_NOMEM, "kafka: no memory");
    conditions_init(kafka);
    kafka->config = cfg->config;
    kafka->control = cfg->control;
    kafka_topic_name(cfg->config, "raw_clicks", kafka->topic);
    err = handles_make(kafka, cfg->stage, why);
    if (err == ERR_OK)
        err = kafka_ask_open(&kafka->ask, cfg->config, kafka->topic, why);
    if (err == ERR_OK)
        err = kafka_log_id(cfg->config, kafka->topic, &kafka->log_id, why);
    if (err == ERR_OK)
        err = parts_make(kafka, why);
    if (err == ERR_OK && pthread_create(&kafka->keeper, NULL, keeper_run, kafka))
        err = err_set(why, ERR_NOMEM, "kafka: no thread");
    else if (err == ERR_OK)
        kafka->started = true;
    if (err == ERR_OK)
        err = group_join(&kafka->group, kafka, cfg->stage, why);
    if (err != ERR_OK) {
        clicklog_kafka_close(&kafka);
        return err;
    }
    *out = kafka;
    return ERR_OK;
}

static void
parts_free(struct clicklog_kafka *kafka)
{
    for (uint32_t p = 0; kafka->parts != NULL && p < kafka->partitions; p++) {
        struct part *part = &kafka->parts[p];

        if (part->fetch.queue != NULL)
            rd_kafka_queue_cb_event_enable(part->fetch.queue, NULL, NULL);
        fetch_free(&part->fetch);
        (void)pthread_mutex_destroy(&part->mutex);
    }
    free(kafka->parts);
}

void
clicklog_kafka_close(struct clicklog_kafka **out)
{
    struct clicklog_kafka *kafka = *out;

    if (kafka == NULL)
        return;
    (void)pthread_mutex_lock(&kafka->mutex);
    atomic_store(&kafka->stop, true);
    (void)pthread_cond_broadcast(&kafka->changed);
    (void)pthread_cond_broadcast(&kafka->work);
    (void)pthread_mutex_unlock(&kafka->mutex);
    group_leave(&kafka->group);
    if (kafka->started)
        (void)pthread_join(kafka->keeper, NULL);
    parts_free(kafka);
    if (kafka->rkt != NULL)
        rd_kafka_topic_destroy(kafka->rkt);
    if (kafka->rk != NULL)
        rd_kafka_destroy(kafka->rk);
    kafka_ask_close(&kafka->ask);
    (void)pthread_cond_destroy(&kafka->work);
    (void)pthread_cond_destroy(&kafka->changed);
    (void)pthread_mutex_destroy(&kafka->mutex);
    free(kafka);
    *out = NULL;
}

/* --- what is known --- */

uint32_t
clicklog_kafka_partitions(const struct clicklog_kafka *kafka)
{
    return kafka->partitions;
}

void
clicklog_kafka_stats(struct clicklog_kafka *kafka, struct clicklog_stats *out)
{
    struct clicklog_mark mark;

    *out = (struct clicklog_stats){.spool_id = kafka->log_id};
    for (uint32_t p = 0; p < kafka->partitions; p++)
        out->records += clicklog_kafka_end(kafka, p);
    if (clicklog_kafka_mark(kafka, &mark, NULL) == ERR_OK)
        out->floor_us = mark.floor_us;
}

enum err
clicklog_kafka_mark(struct clicklog_kafka *kafka, struct clicklog_mark *out,
                    struct why *why)
{
    struct control_spool spool;
    enum err err;

    memset(out, 0, sizeof(*out));
    if (kafka->control == NULL)
        return ERR_OK;
    err = control_spool_get(kafka->control, &spool, why);
    if (err == ERR_OK)
        *out = spool.mark;
    return err == ERR_NOTFOUND ? ERR_OK : err;
}

uint64_t
clicklog_kafka_owned(const struct clicklog_kafka *kafka, uint32_t partition)
{
    return partition < kafka->partitions
               ? atomic_load(&kafka->parts[partition].owned)
               : 0;
}

void
clicklog_kafka_let_go(struct clicklog_kafka *kafka, uint32_t partition)
{
    if (partition >= kafka->partitions)
        return;
    (void)pthread_mutex_lock(&kafka->mutex);
    atomic_store(&kafka->parts[partition].let_go, true);
    (void)pthread_cond_broadcast(&kafka->changed);
    (void)pthread_cond_broadcast(&kafka->work);
    (void)pthread_mutex_unlock(&kafka->mutex);
}

uint64_t
clicklog_kafka_end(struct clicklog_kafka *kafka, uint32_t partition)
{
    struct part *part = &kafka->parts[partition];
    uint64_t asked = atomic_load(&part->end), fetched = 0;

    if (atomic_load(&part->fetching))
        fetched = fetch_end(&part->fetch);
    return fetched > asked ? fetched : asked;
}

void
clicklog_kafka_schema_ids(struct clicklog_kafka *kafka, const uint32_t *ids,
                          uint32_t n)
{
    for (uint32_t version = 1; version < n && version < SCHEMAS_MAX; version++)
        kafka->schemas[version] = ids[version];
    kafka->registered = true;
}

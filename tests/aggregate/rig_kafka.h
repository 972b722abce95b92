/* tests/aggregate/rig_kafka.h - the rig with a topic between: its click log is the spool, a
 * plain relay sends it on, and any number of "processes", each with a data directory of
 * its own, are members of the group. */
#ifndef TESTS_AGGREGATE_RIG_KAFKA_H
#define TESTS_AGGREGATE_RIG_KAFKA_H

#include "rig.h"

#include <inttypes.h>
#include <librdkafka/rdkafka.h>

#include "common/kafka.h"
#include "common/metrics.h"
#include "schema/topics.h"

enum { SPOOL_MAX = 1 << 18 };

struct process {
    struct config config;
    struct clicklog *log;
    struct verdictlog *verdicts;
    struct aggregate *aggregate;
};

struct kafka_rig {
    struct rig rig; /* rig.config: of the topics; rig.verdicts: a reader's copy */
    struct kafka_producer *producer;
    char topic[KAFKA_NAME_MAX + 1];
};

static inline void text_set(char **key, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static inline void
text_set(char **key, const char *fmt, ...)
{
    char text[256];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    free(*key);
    *key = strdup(text);
    assert_non_null(*key);
}

static inline void
kafka_config(struct config *config, const char *prefix)
{
    text_set(&config->kafka_brokers, "%s", getenv("CLICKLEDGER_TEST_KAFKA"));
    text_set(&config->kafka_topic_prefix, "%s", prefix);
    text_set(&config->kafka_group, "%sgroup", prefix);
    config->kafka_replication = config->kafka_min_insync = 1;
    config->kafka_session_ms = 6000;
    config->clicklog_partitions = PARTITIONS;
}

/* --- processes --- */

static inline void
process_start(struct kafka_rig *k, struct process *process, int number,
              const char *group)
{
    const char *prefix = k->rig.config.kafka_topic_prefix;
    char path[256], *argv[] = {NULL};
    struct why why = {""};
    int argc = 0;

    *process = (struct process){0};
    must(config_load(&process->config, NULL, &argc, argv, &why), &why);
    kafka_config(&process->config, prefix);
    if (group != NULL)
        text_set(&process->config.kafka_group, "%s%s", prefix, group);
    text_set(&process->config.data_dir, "%s/process-%d", k->rig.dir, number);
    text_set(&process->config.redis_address, "%s", k->rig.address);
    process->config.aggregate_flush_ms = k->rig.config.aggregate_flush_ms;
    process->config.aggregate_threads = 2;
    process->config.fraud_live_dedup_ids_max = 1 << 16;
    process->config.fraud_live_users_max = 1 << 16;
    process->config.fraud_live_addresses_max = 1 << 16;
    (void)snprintf(path, sizeof(path), "%s/verdicts", process->config.data_dir);
    must(file_mkdirs(path, &why), &why);
    must(verdictlog_open_kafka(&process->verdicts, &process->config, path, 1 << 30,
                               &why),
         &why);
    const struct clicklog_kafka_config view = {&process->config, "aggregate", NULL};
    must(clicklog_open_kafka(&process->log, &view, &why), &why);
    const struct aggregate_deps deps = {process->log, process->verdicts,
                                        k->rig.master, k->rig.rules, NULL};
    must(aggregate_start(&process->aggregate, &process->config, &deps, &why), &why);
}

static inline void
process_stop(struct process *process)
{
    aggregate_stop(&process->aggregate);
    clicklog_close(&process->log);
    verdictlog_close(&process->verdicts);
    config_free(&process->config);
}

static inline uint32_t
process_owns(const struct process *process)
{
    uint32_t n = 0;

    for (uint32_t p = 0; p < PARTITIONS; p++)
        n += clicklog_owned(process->log, p) != 0;
    return n;
}

static inline void
process_wait(const struct process *process, uint32_t owned)
{
    for (int i = 0; i < WAIT_S * 100; i++) {
        if (process_owns(process) == owned)
            return;
        clock_sleep_us(10000);
    }
    fail_msg("after %d s %u partitions are owned, want %u", WAIT_S,
             process_owns(process), owned);
}

/* How often an event of a kind stands in a process's log. */
static inline int
process_told(const struct process *process, const char *what)
{
    char path[300];
    struct buf text = BUF_MAX(1 << 24);
    struct why why = {""};
    int n = 0;

    (void)snprintf(path, sizeof(path), "%s/aggregate/events.log",
                   process->config.data_dir);
    must(file_read(path, &text, &why), &why);
    buf_add(&text, "", 1);
    for (const char *at = (const char *)text.p; (at = strstr(at, what)) != NULL;
         at++)
        n++;
    buf_free(&text);
    return n;
}

/* --- a plain relay --- */

static inline uint8_t *
varint_put(uint8_t *p, uint64_t v)
{
    for (v <<= 1; v >= 0x80; v >>= 7)
        *p++ = (uint8_t)(v | 0x80);
    *p++ = (uint8_t)v;
    return p;
}

/* Sends [from, to) of the spool, whatever was sent before. */
static inline void
relay(struct kafka_rig *k, uint32_t p, uint64_t from, uint64_t to)
{
    struct rig *rig = &k->rig;
    struct clicklog_reader *reader;
    struct clicklog_record record;
    uint8_t *value = malloc(WIRE_HEAD + CLICKLOG_RECORD_MAX);
    struct why why = {""};

    assert_non_null(value);
    must(clicklog_reader_open(&reader, rig->log, &why), &why);
    must(clicklog_seek(reader, p, from, &why), &why);
    while (from < to) {
        struct kafka_item item = {.key = STR("key")};
        size_t sent = 0;

        must(clicklog_next(reader, &record, &why), &why);
        wire_head(record.version, value);
        memcpy(value + WIRE_HEAD, record.p, record.n);
        item.value = (struct str){(const char *)value, WIRE_HEAD + record.n};
        item.timestamp_ms = record.received_us / 1000;
        must(kafka_send(k->producer, (int32_t)p, &item, 1, &sent, &why), &why);
        assert_int_equal(sent, 1);
        if (rig->at[p][from] == UINT64_MAX)
            rig->at[p][from] = rig->end[p];
        rig->end[p]++;
        from++;
    }
    clicklog_reader_close(&reader);
    free(value);
}

/* What is new in the spool. */
static inline void
relay_new(struct kafka_rig *k)
{
    struct why why = {""};

    for (uint32_t p = 0; p < PARTITIONS; p++) {
        uint64_t first, next;

        must(clicklog_range(k->rig.log, p, &first, &next, &why), &why);
        assert_true(next < SPOOL_MAX);
        relay(k, p, k->rig.sent[p], next);
        k->rig.sent[p] = next;
    }
    must(kafka_flush(k->producer, 10000000, &why), &why);
}

static inline void
kafka_post(struct kafka_rig *k, size_t n)
{
    rig_post(&k->rig, n);
    relay_new(k);
}

/* --- the rig --- */

static inline void
kafka_rig_open(struct kafka_rig *k)
{
    struct buf report = BUF_MAX(1 << 16);
    char prefix[40], path[200];
    struct why why = {""};

    rig_prepare(&k->rig);
    k->rig.kafka = true;
    (void)snprintf(prefix, sizeof(prefix), "agg%" PRIx64 "-", hash_random_u64());
    kafka_config(&k->rig.config, prefix);
    must(topics_create(&k->rig.config, &report, &why), &why);
    buf_free(&report);
    kafka_topic_name(&k->rig.config, "raw_clicks", k->topic);
    must(kafka_producer_open(&k->producer, &k->rig.config, k->topic, "test", 1,
                             &why),
         &why);
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        k->rig.at[p] = malloc(SPOOL_MAX * sizeof(uint64_t));
        assert_non_null(k->rig.at[p]);
        memset(k->rig.at[p], 0xff, SPOOL_MAX * sizeof(uint64_t));
    }
    verdictlog_close(&k->rig.verdicts);
    (void)snprintf(path, sizeof(path), "%s/copy", k->rig.dir);
    must(file_mkdirs(path, &why), &why);
    must(verdictlog_open_kafka(&k->rig.verdicts, &k->rig.config, path, 1 << 30,
                               &why),
         &why);
}

static inline void
kafka_rig_close(struct kafka_rig *k)
{
    kafka_producer_close(&k->producer);
    for (uint32_t p = 0; p < PARTITIONS; p++)
        free(k->rig.at[p]);
    rig_close(&k->rig);
}

/* The verdicts that all processes have recorded. */
static inline void
verdicts_follow(struct kafka_rig *k)
{
    struct why why = {""};

    for (uint32_t p = 0; p < PARTITIONS; p++)
        must(verdictlog_follow(k->rig.verdicts, p, 0, &why), &why);
}

/* --- what an operator or retention does --- */

static inline void
topic_cut(struct kafka_rig *k, uint32_t p, uint64_t before)
{
    char text[200];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_DeleteRecords_t *records;
    rd_kafka_event_t *event;

    assert_int_equal(rd_kafka_conf_set(conf, "bootstrap.servers",
                                       k->rig.config.kafka_brokers, text,
                                       sizeof(text)),
                     RD_KAFKA_CONF_OK);
    rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof(text));
    assert_non_null(rk);
    queue = rd_kafka_queue_new(rk);
    rd_kafka_topic_partition_list_add(list, k->topic, (int32_t)p)->offset =
        (int64_t)before;
    records = rd_kafka_DeleteRecords_new(list);
    rd_kafka_DeleteRecords(rk, &records, 1, NULL, queue);
    event = rd_kafka_queue_poll(queue, 20000);
    assert_non_null(event);
    assert_int_equal(rd_kafka_event_error(event), 0);
    rd_kafka_event_destroy(event);
    rd_kafka_DeleteRecords_destroy(records);
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_queue_destroy(queue);
    rd_kafka_destroy(rk);
}

#endif

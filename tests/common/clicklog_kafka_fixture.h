/* tests/common/clicklog_kafka_fixture.h - topic raw_clicks with a prefix of its own, clicks
 * for it, and reading it as a worker does. */
#ifndef TESTS_COMMON_CLICKLOG_KAFKA_FIXTURE_H
#define TESTS_COMMON_CLICKLOG_KAFKA_FIXTURE_H

#include <librdkafka/rdkafka.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/clicklog.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/hash.h"
#include "common/kafka.h"
#include "tests/common/clicklog_fixture.h"
#include "tests/itest.h"

enum { PARTITIONS = 4, WAIT_US = 20 * 1000000, BODY = 100 };

static const uint64_t INCARNATION = 0x0123456789abcdef;
static const int64_t T0 = INT64_C(1795000000000000);

/* A configuration with a prefix of its own, its topic, and a producer. */
struct world {
    struct config config;
    char topic[KAFKA_NAME_MAX + 1];
    rd_kafka_t *rk;
    uint64_t seq[PARTITIONS];
};

static inline void
admin_wait(rd_kafka_queue_t *queue)
{
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, 20000);

    CHECK(event != NULL);
    if (rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR_NO_ERROR)
        fprintf(stderr, "admin: %s\n", rd_kafka_event_error_string(event));
    CHECK(rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR_NO_ERROR);
    rd_kafka_event_destroy(event);
    rd_kafka_queue_destroy(queue);
}

static inline void
topic_make(struct world *world)
{
    char text[200];
    rd_kafka_NewTopic_t *topic =
        rd_kafka_NewTopic_new(world->topic, PARTITIONS, 1, text, sizeof(text));
    rd_kafka_queue_t *queue = rd_kafka_queue_new(world->rk);

    rd_kafka_CreateTopics(world->rk, &topic, 1, NULL, queue);
    admin_wait(queue);
    rd_kafka_NewTopic_destroy(topic);
    clock_sleep_us(300000);
}

static inline struct world *
world_make(const char *brokers, const char *const *flags)
{
    struct world *world = calloc(1, sizeof(*world));
    char prefix[80], broker[300], text[200];
    char *argv[16];
    int argc = 0;
    rd_kafka_conf_t *conf = rd_kafka_conf_new();

    (void)snprintf(prefix, sizeof(prefix), "--kafka.topic_prefix=t%016" PRIx64 ".",
                   hash_random_u64());
    (void)snprintf(broker, sizeof(broker), "--kafka.brokers=%s", brokers);
    argv[argc++] = strdup("test");
    argv[argc++] = strdup(prefix);
    argv[argc++] = strdup(broker);
    argv[argc++] = strdup("--kafka.session_ms=6000");
    (void)snprintf(text, sizeof(text), "--kafka.group=g%016" PRIx64,
                   hash_random_u64());
    argv[argc++] = strdup(text);
    for (int i = 0; flags != NULL && flags[i] != NULL; i++)
        argv[argc++] = strdup(flags[i]);
    argv[argc] = NULL;
    char *all[16];
    int n = argc;
    memcpy(all, argv, sizeof(all));
    MUST(config_load(&world->config, NULL, &argc, argv, why));
    for (int i = 0; i < n; i++)
        free(all[i]);
    kafka_topic_name(&world->config, "raw_clicks", world->topic);
    CHECK(rd_kafka_conf_set(conf, "bootstrap.servers", brokers, text,
                            sizeof(text)) == RD_KAFKA_CONF_OK);
    CHECK(rd_kafka_conf_set(conf, "compression.type", "lz4", text, sizeof(text)) ==
          RD_KAFKA_CONF_OK);
    CHECK(rd_kafka_conf_set(conf, "linger.ms", "5", text, sizeof(text)) ==
          RD_KAFKA_CONF_OK);
    world->rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof(text));
    CHECK(world->rk != NULL);
    topic_make(world);
    return world;
}

static inline void
world_free(struct world *world)
{
    rd_kafka_destroy(world->rk);
    config_free(&world->config);
    free(world);
}

static inline size_t
zigzag_write(uint8_t *p, uint64_t value)
{
    size_t n = 0;

    for (value <<= 1; value >= 0x80; value >>= 7)
        p[n++] = (uint8_t)(value | 0x80);
    p[n++] = (uint8_t)value;
    return n;
}

/* Click seq of partition p as a message's value; its body says seq in each byte. */
static inline size_t
value_make(uint8_t value[512], uint32_t p, uint64_t seq)
{
    size_t n = 5 + 8;

    memset(value, 0, n);
    value[4] = 2;
    for (int i = 0; i < 8; i++)
        value[5 + i] = (uint8_t)(INCARNATION >> (56 - 8 * i));
    n += zigzag_write(value + n, p);
    n += zigzag_write(value + n, seq);
    n += zigzag_write(value + n, (uint64_t)T0 + seq * 1000);
    memset(value + n, (int)(seq % 251), BODY);
    return n + BODY;
}

static inline void
produce(struct world *world, uint32_t p, const void *value, size_t n, int64_t ms)
{
    rd_kafka_resp_err_t code;

    do {
        code = rd_kafka_producev(
            world->rk, RD_KAFKA_V_TOPIC(world->topic),
            RD_KAFKA_V_PARTITION((int32_t)p), RD_KAFKA_V_KEY("campaign", 8),
            RD_KAFKA_V_VALUE((void *)(uintptr_t)value, n), RD_KAFKA_V_TIMESTAMP(ms),
            RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
        if (code == RD_KAFKA_RESP_ERR__QUEUE_FULL)
            (void)rd_kafka_poll(world->rk, 100);
    } while (code == RD_KAFKA_RESP_ERR__QUEUE_FULL);
    CHECK(code == RD_KAFKA_RESP_ERR_NO_ERROR);
}

static inline void
clicks_produce(struct world *world, uint32_t p, uint64_t first, uint64_t n)
{
    uint8_t value[512];

    for (uint64_t seq = first; seq < first + n; seq++) {
        size_t bytes = value_make(value, p, seq);

        produce(world, p, value, bytes, (T0 + (int64_t)seq * 1000) / 1000);
    }
    CHECK(rd_kafka_flush(world->rk, 30000) == RD_KAFKA_RESP_ERR_NO_ERROR);
}

static inline struct clicklog *
view_open(const struct world *world)
{
    struct clicklog_kafka_config cfg = {&world->config, "test", NULL};
    struct clicklog *log;

    MUST(clicklog_open_kafka(&log, &cfg, why));
    return log;
}

static inline uint32_t
owned_count(const struct clicklog *log)
{
    uint32_t n = 0;

    for (uint32_t p = 0; p < PARTITIONS; p++)
        n += clicklog_owned(log, p) != 0;
    return n;
}

static inline void
owned_wait(struct clicklog *log, uint32_t n)
{
    int64_t end = clock_mono_us() + WAIT_US;
    uint64_t seen = 0;

    while (owned_count(log) != n && clock_mono_us() < end)
        clicklog_wait(log, &seen, 100000);
    assert_int_equal(owned_count(log), n);
}

/* Reads records [from, until) as a worker does: 512 at most between seeks. seq is the
 * offset plus `shift`. */
static inline void
read_range(struct clicklog *log, uint32_t p, uint64_t from, uint64_t until)
{
    struct clicklog_reader *reader;
    struct clicklog_record record;
    int64_t end = clock_mono_us() + WAIT_US;
    uint64_t seen = 0;

    MUST(clicklog_reader_open(&reader, log, why));
    while (from < until) {
        enum err err = ERR_OK;
        int n = 0;

        MUST(clicklog_seek(reader, p, from, why));
        for (; n < 512 && from < until; n++) {
            struct why said = {""};

            err = clicklog_next(reader, &record, &said);
            if (err != ERR_OK && err != ERR_AGAIN)
                fprintf(stderr, "%s\n", said.text);
            CHECK(err == ERR_OK || err == ERR_AGAIN);
            if (err != ERR_OK)
                break;
            struct str body = record_body(&record, p);
            CHECK(record.offset == from);
            CHECK(record.incarnation == INCARNATION);
            CHECK(record.seq == from);
            CHECK(record.version == 2);
            CHECK(record.received_us == T0 + (int64_t)record.seq * 1000);
            CHECK(body.n == BODY && (uint8_t)body.p[BODY - 1] == record.seq % 251);
            from++;
        }
        clicklog_release(reader);
        if (err == ERR_AGAIN)
            clicklog_wait(log, &seen, 100000);
        CHECK(clock_mono_us() < end);
    }
    clicklog_reader_close(&reader);
}

/* What the first record at offset says, once something is said. */
static inline enum err
read_one(struct clicklog *log, uint32_t p, uint64_t offset,
         struct clicklog_record *out, struct why *said)
{
    struct clicklog_reader *reader;
    int64_t end = clock_mono_us() + WAIT_US;
    uint64_t seen = 0;
    enum err err;

    MUST(clicklog_reader_open(&reader, log, why));
    do {
        err = clicklog_seek(reader, p, offset, said);
        if (err == ERR_OK)
            err = clicklog_next(reader, out, said);
        clicklog_release(reader);
        if (err == ERR_AGAIN)
            clicklog_wait(log, &seen, 50000);
    } while (err == ERR_AGAIN && clock_mono_us() < end);
    clicklog_reader_close(&reader);
    return err;
}

#endif

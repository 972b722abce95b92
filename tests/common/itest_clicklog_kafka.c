/* The click log's Kafka reader against a real broker. */
#include "common/clicklog.h"

#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/hash.h"
#include "common/kafka.h"
#include "common/metrics.h"
#include "tests/common/clicklog_fixture.h"
#include "tests/itest.h"

enum { PARTITIONS = 4, WAIT_US = 20 * 1000000, BODY = 100 };

static const uint64_t INCARNATION = 0x0123456789abcdef;
static const int64_t T0 = INT64_C(1795000000000000);

static const char *brokers;

/* A configuration with a prefix of its own, its topic, and a producer. */
struct world {
    struct config config;
    char topic[KAFKA_NAME_MAX + 1];
    rd_kafka_t *rk;
    uint64_t seq[PARTITIONS];
};

static void
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

static void
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

static struct world *
world_make(const char *const *flags)
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

static void
world_free(struct world *world)
{
    rd_kafka_destroy(world->rk);
    config_free(&world->config);
    free(world);
}

static size_t
zigzag_write(uint8_t *p, uint64_t value)
{
    size_t n = 0;

    for (value <<= 1; value >= 0x80; value >>= 7)
        p[n++] = (uint8_t)(value | 0x80);
    p[n++] = (uint8_t)value;
    return n;
}

/* Click seq of partition p as a message's value; its body says seq in each byte. */
static size_t
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

static void
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

static void
clicks_produce(struct world *world, uint32_t p, uint64_t first, uint64_t n)
{
    uint8_t value[512];

    for (uint64_t seq = first; seq < first + n; seq++) {
        size_t bytes = value_make(value, p, seq);

        produce(world, p, value, bytes, (T0 + (int64_t)seq * 1000) / 1000);
    }
    CHECK(rd_kafka_flush(world->rk, 30000) == RD_KAFKA_RESP_ERR_NO_ERROR);
}

static struct clicklog *
view_open(const struct world *world)
{
    struct clicklog_kafka_config cfg = {&world->config, "test", NULL};
    struct clicklog *log;

    MUST(clicklog_open_kafka(&log, &cfg, why));
    return log;
}

static uint32_t
owned_count(const struct clicklog *log)
{
    uint32_t n = 0;

    for (uint32_t p = 0; p < PARTITIONS; p++)
        n += clicklog_owned(log, p) != 0;
    return n;
}

static void
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
static void
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
static enum err
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

static void
all_is_read_in_order_and_again_from_any_offset(void **unused)
{
    struct world *world = world_make(NULL);
    struct clicklog *log;
    uint64_t seed = 7, first, next;
    struct clicklog_stats stats;

    (void)unused;
    for (uint32_t p = 0; p < PARTITIONS; p++)
        clicks_produce(world, p, 0, 5000 + p);
    log = view_open(world);
    assert_true(clicklog_is_kafka(log));
    assert_int_equal(clicklog_partitions(log), PARTITIONS);
    owned_wait(log, PARTITIONS);
    for (uint32_t p = 0; p < PARTITIONS; p++)
        read_range(log, p, 0, 5000 + p);
    for (int i = 0; i < 30; i++) { /* back and forth */
        uint32_t p = (uint32_t)(random_next(&seed) % PARTITIONS);
        uint64_t from = random_next(&seed) % 5000;
        uint64_t until = from + random_next(&seed) % (5000 - from + 1);

        read_range(log, p, from, until);
    }
    MUST(clicklog_range(log, 2, &first, &next, why));
    assert_int_equal(first, 0);
    assert_int_equal(next, 5002);
    assert_int_equal(clicklog_end(log, 2), 5002);
    clicklog_stats_get(log, &stats);
    assert_true(stats.spool_id != 0);
    clicks_produce(world, 1, 5001, 100); /* what comes later comes as well */
    read_range(log, 1, 5001, 5101);
    assert_int_equal(clicklog_end(log, 1), 5101);
    clicklog_close(&log);
    world_free(world);
}

static void
a_batch_that_was_not_used_is_read_again(void **unused)
{
    struct world *world = world_make(NULL);
    struct clicklog *log;

    (void)unused;
    clicks_produce(world, 0, 0, 30000);
    log = view_open(world);
    owned_wait(log, PARTITIONS);
    read_range(log, 0, 0, 512);
    read_range(log, 0, 0, 512);
    read_range(log, 0, 300, 700);
    read_range(log, 0, 700, 30000);
    clicklog_close(&log);
    world_free(world);
}

static void
a_reader_is_told_to_seek_on_when_it_keeps_too_much(void **unused)
{
    struct world *world = world_make(NULL);
    struct clicklog *log;
    struct clicklog_reader *reader;
    struct clicklog_record record;
    uint64_t n = 0, seen = 0;
    int64_t start;

    (void)unused;
    clicks_produce(world, 3, 0, 20000);
    log = view_open(world);
    owned_wait(log, PARTITIONS);
    assert_int_equal(read_one(log, 3, 0, &record, NULL), ERR_OK);
    clock_sleep_us(500000);
    MUST(clicklog_reader_open(&reader, log, why));
    MUST(clicklog_seek(reader, 3, 0, why));
    while (clicklog_next(reader, &record, NULL) == ERR_OK)
        assert_int_equal(record.offset, n++);
    assert_true(n >= 1024 && n < 20000);
    clicklog_wait(log, &seen, 0);
    assert_int_equal(clicklog_next(reader, &record, NULL), ERR_AGAIN);
    start = clock_mono_us();
    clicklog_wait(log, &seen, 5000000); /* there is more: nobody sleeps */
    assert_true(clock_mono_us() - start < 1000000);
    clicklog_reader_close(&reader);
    read_range(log, 3, n, 20000);
    clicklog_close(&log);
    world_free(world);
}

static void
waiting_readers_are_woken_by_what_arrives(void **unused)
{
    struct world *world = world_make(NULL);
    struct clicklog *log = view_open(world);
    struct clicklog_record record;
    struct clicklog_reader *reader;
    uint64_t seen = 0;
    int64_t start;

    (void)unused;
    owned_wait(log, PARTITIONS);
    clicks_produce(world, 2, 0, 1);
    assert_int_equal(read_one(log, 2, 0, &record, NULL), ERR_OK);
    MUST(clicklog_reader_open(&reader, log, why));
    MUST(clicklog_seek(reader, 2, 1, why));
    assert_int_equal(clicklog_next(reader, &record, NULL), ERR_AGAIN);
    clicklog_release(reader);
    clicklog_wait(log, &seen, 0);
    clicks_produce(world, 2, 1, 1);
    start = clock_mono_us();
    clicklog_wait(log, &seen, 5000000);
    assert_true(clock_mono_us() - start < 1000000);
    read_range(log, 2, 1, 2);
    clicklog_reader_close(&reader);
    clicklog_close(&log);
    world_free(world);
}

static void
what_is_no_click_is_named_by_partition_and_offset(void **unused)
{
    struct world *world = world_make(NULL);
    struct clicklog *log;
    struct clicklog_record record;
    uint8_t value[512];
    struct why said = {""};
    uint32_t ids[] = {0, 70000, 70002};
    size_t n = value_make(value, 0, 0);

    (void)unused;
    produce(world, 0, "hello", 5, 1);
    value[0] = 1;
    produce(world, 0, value, n, 1);
    value[0] = 0;
    produce(world, 0, value, 5 + 8 + 2, 1); /* ends inside seq's place */
    value[4] = 0;
    produce(world, 0, value, n, 1);
    n = value_make(value, 1, 0);
    produce(world, 0, value, n, 1);
    n = value_make(value, 0, 5);
    memset(value + 13, 0xff, n - 13);
    produce(world, 0, value, n, 1);
    n = value_make(value, 0, 6);
    value[2] = 70002 >> 16;
    value[3] = 70002 >> 8 & 255;
    value[4] = 70002 & 255;
    produce(world, 0, value, n, 1);
    clicks_produce(world, 0, 7, 1);
    log = view_open(world);
    owned_wait(log, PARTITIONS);
    for (uint64_t offset = 0; offset < 7; offset++) {
        char wanted[64];

        (void)snprintf(wanted, sizeof(wanted), "partition 0, offset %" PRIu64 ":",
                       offset);
        assert_int_equal(read_one(log, 0, offset, &record, &said), ERR_CORRUPT);
        assert_non_null(strstr(said.text, wanted));
    }
    assert_int_equal(read_one(log, 0, 7, &record, &said), ERR_OK);
    clicklog_schema_ids(log, ids, 3);
    assert_int_equal(read_one(log, 0, 6, &record, &said), ERR_OK);
    assert_int_equal(record.version, 2);
    assert_int_equal(read_one(log, 0, 7, &record, &said), ERR_CORRUPT);
    clicklog_close(&log);
    world_free(world);
}

static void
offsets_that_are_not_held_are_not_found(void **unused)
{
    struct world *world = world_make(NULL);
    struct clicklog *log;
    struct clicklog_record record;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_DeleteRecords_t *records;
    rd_kafka_queue_t *queue = rd_kafka_queue_new(world->rk);
    struct why said = {""};
    uint64_t first, next;

    (void)unused;
    clicks_produce(world, 1, 0, 1000);
    log = view_open(world);
    owned_wait(log, PARTITIONS);
    read_range(log, 1, 0, 1000);
    rd_kafka_topic_partition_list_add(list, world->topic, 1)->offset = 600;
    records = rd_kafka_DeleteRecords_new(list);
    rd_kafka_DeleteRecords(world->rk, &records, 1, NULL, queue);
    admin_wait(queue);
    rd_kafka_DeleteRecords_destroy(records);
    rd_kafka_topic_partition_list_destroy(list);
    MUST(clicklog_range(log, 1, &first, &next, why));
    assert_int_equal(first, 600);
    assert_int_equal(next, 1000);
    for (int i = 0; i < 3; i++)
        assert_int_equal(read_one(log, 1, 100, &record, &said), ERR_NOTFOUND);
    assert_non_null(strstr(said.text, "partition 1, offset 100"));
    read_range(log, 1, 600, 1000);
    assert_int_equal(read_one(log, 1, 599, &record, &said), ERR_NOTFOUND);
    assert_int_equal(read_one(log, 1, 2000, &record, &said), ERR_NOTFOUND);
    assert_int_equal(read_one(log, 1, UINT64_MAX, &record, &said), ERR_NOTFOUND);
    read_range(log, 1, 900, 1000);
    clicklog_close(&log);
    world_free(world);
}

static void
a_time_begins_and_a_record_is_found(void **unused)
{
    struct world *world = world_make(NULL);
    struct clicklog *log;
    struct clicklog_reader *reader;
    uint64_t offset;
    int64_t us;

    (void)unused;
    clicks_produce(world, 2, 0, 3000);
    clicks_produce(world, 2, 1500, 1500); /* again, as after a relay's failure */
    log = view_open(world);
    owned_wait(log, PARTITIONS);
    MUST(clicklog_reader_open(&reader, log, why));
    MUST(clicklog_since(reader, 2, 0, &offset, &us, why));
    assert_int_equal(offset, 0);
    assert_int_equal(us, T0);
    MUST(clicklog_since(reader, 2, T0 + 1234 * 1000, &offset, &us, why));
    assert_int_equal(offset, 1234);
    assert_int_equal(us, T0 + 1234 * 1000);
    MUST(clicklog_since(reader, 2, T0 + 1234 * 1000 - 999, &offset, &us, why));
    assert_int_equal(offset, 1234);
    MUST(clicklog_since(reader, 2, T0 + 1234 * 1000 + 1, &offset, &us, why));
    assert_int_equal(offset, 1235);
    MUST(clicklog_since(reader, 2, T0 + CLOCK_HOUR_US, &offset, &us, why));
    assert_int_equal(offset, 4500);
    assert_int_equal(us, INT64_MAX);
    MUST(clicklog_since(reader, 3, 0, &offset, &us, why));
    assert_int_equal(offset, 0);
    assert_int_equal(us, INT64_MAX);
    clicklog_reader_close(&reader);
    MUST(clicklog_find(log, 2, 0, INCARNATION, 1700, &offset, why));
    assert_int_equal(offset, 1700);
    MUST(clicklog_find(log, 2, 1701, INCARNATION, 1700, &offset, why));
    assert_int_equal(offset, 3200);
    assert_int_equal(clicklog_find(log, 2, 3201, INCARNATION, 1700, &offset, NULL),
                     ERR_NOTFOUND);
    assert_int_equal(clicklog_find(log, 2, 0, INCARNATION + 1, 1700, &offset, NULL),
                     ERR_NOTFOUND);
    assert_int_equal(clicklog_find(log, 3, 0, INCARNATION, 0, &offset, NULL),
                     ERR_NOTFOUND);
    clicklog_close(&log);
    world_free(world);
}

/* A worker that lets each partition go as soon as it is not ours, but no sooner than
 * after delay_us. */
struct worker {
    struct clicklog *log;
    int64_t delay_us;
    atomic_bool stop;
    pthread_t thread;
    _Atomic uint64_t let_go;
};

static void *
worker_run(void *arg)
{
    struct worker *worker = arg;
    uint64_t had[PARTITIONS] = {0}, seen = 0;

    while (!atomic_load(&worker->stop)) {
        for (uint32_t p = 0; p < PARTITIONS; p++) {
            uint64_t owned = clicklog_owned(worker->log, p);
            struct clicklog_record record;

            if (had[p] != 0 && owned != had[p]) {
                clock_sleep_us(worker->delay_us);
                clicklog_let_go(worker->log, p);
                atomic_fetch_add(&worker->let_go, 1);
            }
            had[p] = owned;
            if (owned != 0) {
                struct clicklog_reader *reader;

                MUST(clicklog_reader_open(&reader, worker->log, why));
                if (clicklog_seek(reader, p, 0, NULL) == ERR_OK)
                    (void)clicklog_next(reader, &record, NULL);
                clicklog_reader_close(&reader);
            }
        }
        clicklog_wait(worker->log, &seen, 50000);
    }
    return NULL;
}

static void
worker_start(struct worker *worker, struct clicklog *log, int64_t delay_us)
{
    memset(worker, 0, sizeof(*worker));
    worker->log = log;
    worker->delay_us = delay_us;
    CHECK(pthread_create(&worker->thread, NULL, worker_run, worker) == 0);
}

static void
worker_stop(struct worker *worker)
{
    atomic_store(&worker->stop, true);
    clicklog_wake(worker->log);
    CHECK(pthread_join(worker->thread, NULL) == 0);
}

static void
two_members_share_and_hand_over(void **unused)
{
    struct world *world = world_make(NULL);
    struct clicklog *a = view_open(world), *b;
    struct worker wa, wb;
    uint64_t before;

    (void)unused;
    for (uint32_t p = 0; p < PARTITIONS; p++)
        clicks_produce(world, p, 0, 100);
    owned_wait(a, PARTITIONS);
    before = clicklog_owned(a, 0);
    worker_start(&wa, a, 0);
    clock_sleep_us(300000);
    b = view_open(world);
    worker_start(&wb, b, 0);
    owned_wait(b, PARTITIONS / 2);
    owned_wait(a, PARTITIONS / 2);
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        assert_true((clicklog_owned(a, p) != 0) != (clicklog_owned(b, p) != 0));
        if (clicklog_owned(a, p) != 0)
            assert_true(clicklog_owned(a, p) != before);
    }
    assert_true(atomic_load(&wa.let_go) >= PARTITIONS);
    worker_stop(&wa);
    clicklog_close(&a); /* it leaves, so nobody waits for its session's end */
    owned_wait(b, PARTITIONS);
    worker_stop(&wb);
    for (uint32_t p = 0; p < PARTITIONS; p++)
        read_range(b, p, 0, 100);
    clicklog_close(&b);
    world_free(world);
}

static void
a_partition_moves_only_when_it_was_let_go(void **unused)
{
    struct world *world = world_make(NULL);
    struct clicklog *a = view_open(world), *b;
    struct clicklog_record record;
    struct worker slow;
    int64_t start;

    (void)unused;
    for (uint32_t p = 0; p < PARTITIONS; p++)
        clicks_produce(world, p, 0, 10);
    owned_wait(a, PARTITIONS);
    worker_start(&slow, a, 300000); /* four flushes, 1.2 s */
    clock_sleep_us(500000);
    start = clock_mono_us();
    b = view_open(world);
    while (owned_count(b) == 0) {
        assert_true(clock_mono_us() - start < WAIT_US);
        clock_sleep_us(20000);
    }
    assert_true(atomic_load(&slow.let_go) >= PARTITIONS);
    worker_stop(&slow);
    assert_int_equal(owned_count(b), PARTITIONS / 2);
    /* What has moved is not to be read here. */
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        struct clicklog_reader *reader;

        MUST(clicklog_reader_open(&reader, a, why));
        assert_int_equal(clicklog_seek(reader, p, 0, NULL),
                         clicklog_owned(a, p) != 0 ? ERR_OK : ERR_AGAIN);
        clicklog_reader_close(&reader);
        if (clicklog_owned(b, p) != 0)
            assert_int_equal(read_one(b, p, 3, &record, NULL), ERR_OK);
    }
    clicklog_close(&b);
    clicklog_close(&a);
    world_free(world);
}

static void
a_worker_that_never_lets_go_costs_half_a_session(void **unused)
{
    const char *const flags[] = {"--kafka.session_ms=6000", NULL};
    struct world *world = world_make(flags);
    struct clicklog *a = view_open(world), *b;
    struct clicklog_record record;
    int64_t start;

    (void)unused;
    clicks_produce(world, 0, 0, 10);
    owned_wait(a, PARTITIONS);
    assert_int_equal(read_one(a, 0, 0, &record, NULL), ERR_OK);
    b = view_open(world);
    start = clock_mono_us();
    while (owned_count(b) == 0) {
        assert_true(clock_mono_us() - start < 10 * CLOCK_SECOND_US);
        clock_sleep_us(20000);
    }
    assert_true(clock_mono_us() - start > CLOCK_SECOND_US);
    owned_wait(a, PARTITIONS / 2);
    clicklog_close(&a);
    clicklog_close(&b);
    world_free(world);
}

static void
a_static_member_comes_back_to_what_it_had(void **unused)
{
    const char *const flags[] = {"--kafka.instance_id=one", NULL};
    struct world *world = world_make(flags);
    struct clicklog *log = view_open(world);

    (void)unused;
    clicks_produce(world, 0, 0, 10);
    owned_wait(log, PARTITIONS);
    clicklog_close(&log);
    log = view_open(world);
    owned_wait(log, PARTITIONS);
    read_range(log, 0, 0, 10);
    clicklog_close(&log);
    world_free(world);
}

static void
what_cannot_be_opened_says_why(void **unused)
{
    struct world *world = world_make(NULL);
    struct clicklog_kafka_config cfg = {&world->config, "test", NULL};
    struct clicklog *log = NULL;
    struct why said = {""};
    char *prefix = world->config.kafka_topic_prefix;

    (void)unused;
    world->config.kafka_topic_prefix = strdup("nothing-here.");
    assert_int_equal(clicklog_open_kafka(&log, &cfg, &said), ERR_NOTFOUND);
    assert_non_null(strstr(said.text, "topics create"));
    assert_null(log);
    free(world->config.kafka_topic_prefix);
    world->config.kafka_topic_prefix = prefix;
    free(world->config.kafka_brokers);
    world->config.kafka_brokers = strdup("");
    assert_int_equal(clicklog_open_kafka(&log, &cfg, &said), ERR_INVALID);
    world_free(world);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_is_read_in_order_and_again_from_any_offset),
        cmocka_unit_test(a_batch_that_was_not_used_is_read_again),
        cmocka_unit_test(a_reader_is_told_to_seek_on_when_it_keeps_too_much),
        cmocka_unit_test(waiting_readers_are_woken_by_what_arrives),
        cmocka_unit_test(what_is_no_click_is_named_by_partition_and_offset),
        cmocka_unit_test(offsets_that_are_not_held_are_not_found),
        cmocka_unit_test(a_time_begins_and_a_record_is_found),
        cmocka_unit_test(two_members_share_and_hand_over),
        cmocka_unit_test(a_partition_moves_only_when_it_was_let_go),
        cmocka_unit_test(a_worker_that_never_lets_go_costs_half_a_session),
        cmocka_unit_test(a_static_member_comes_back_to_what_it_had),
        cmocka_unit_test(what_cannot_be_opened_says_why),
    };

    brokers = itest_server("CLICKLEDGER_TEST_KAFKA");
    return cmocka_run_group_tests(tests, NULL, NULL);
}

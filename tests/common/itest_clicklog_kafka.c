/* The click log's Kafka reader against a real broker. */
#include "common/clicklog.h"

#include <pthread.h>
#include <stdatomic.h>

#include "tests/common/clicklog_kafka_fixture.h"

static const char *brokers;

static void
all_is_read_in_order_and_again_from_any_offset(void **unused)
{
    struct world *world = world_make(brokers, NULL);
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
    struct world *world = world_make(brokers, NULL);
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
    struct world *world = world_make(brokers, NULL);
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
    struct world *world = world_make(brokers, NULL);
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
    struct world *world = world_make(brokers, NULL);
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
    /* Written before there was a registry. */
    assert_int_equal(read_one(log, 0, 7, &record, &said), ERR_OK);
    clicklog_close(&log);
    world_free(world);
}

static void
offsets_that_are_not_held_are_not_found(void **unused)
{
    struct world *world = world_make(brokers, NULL);
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
    struct world *world = world_make(brokers, NULL);
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
    struct world *world = world_make(brokers, NULL);
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
    struct world *world = world_make(brokers, NULL);
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
    struct world *world = world_make(brokers, flags);
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
    struct world *world = world_make(brokers, flags);
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
    struct world *world = world_make(brokers, NULL);
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

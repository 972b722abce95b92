/* The click log's Kafka reader when its broker dies, stalls, or answers others. A broker of
 * its own, since it is killed. */
#include "common/clicklog.h"

#include "tests/common/clicklog_kafka_fixture.h"
#include "tests/common/own_kafka.h"

static void
a_killed_broker_is_waited_for_and_reading_goes_on(void **unused)
{
    struct world *world = world_make(own_kafka.brokers, NULL);
    struct clicklog *log;
    struct clicklog_record record;
    struct why said = {""};
    uint64_t first, next;
    int64_t start;

    (void)unused;
    for (uint32_t p = 0; p < PARTITIONS; p++)
        clicks_produce(world, p, 0, 20000);
    log = view_open(world);
    owned_wait(log, PARTITIONS);
    read_range(log, 0, 0, 1000);
    own_kafka_signal(1, SIGKILL);
    start = clock_mono_us();
    assert_int_equal(clicklog_range(log, 0, &first, &next, &said), ERR_AGAIN);
    assert_true(clock_mono_us() - start < 5 * CLOCK_SECOND_US);
    assert_true(clicklog_end(log, 0) >= 1000);
    /* Seeks back and forth meanwhile hold nobody up. */
    for (uint64_t offset = 0; offset < 20; offset++) {
        struct clicklog_reader *reader;

        MUST(clicklog_reader_open(&reader, log, why));
        if (clicklog_seek(reader, 1, offset * 7 % 20, &said) == ERR_OK)
            (void)clicklog_next(reader, &record, &said);
        clicklog_reader_close(&reader);
    }
    assert_true(clock_mono_us() - start < 8 * CLOCK_SECOND_US);
    own_kafka_again(1);
    owned_wait(log, PARTITIONS);
    for (uint32_t p = 0; p < PARTITIONS; p++)
        read_range(log, p, p == 0 ? 1000 : 0, 20000);
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        clicks_produce(world, p, 20000, 100);
        owned_wait(log, PARTITIONS);
        read_range(log, p, 20000, 20100);
    }
    clicklog_close(&log);
    world_free(world);
}

static void
a_view_closes_though_its_broker_is_away(void **unused)
{
    struct world *world = world_make(own_kafka.brokers, NULL);
    struct clicklog *log;
    struct clicklog_kafka_config cfg = {&world->config, "test", NULL};
    struct why said = {""};
    int64_t start;

    (void)unused;
    clicks_produce(world, 0, 0, 100);
    log = view_open(world);
    owned_wait(log, PARTITIONS);
    read_range(log, 0, 0, 100);
    own_kafka_signal(1, SIGKILL);
    clock_sleep_us(200000);
    start = clock_mono_us();
    clicklog_close(&log);
    assert_true(clock_mono_us() - start < 15 * CLOCK_SECOND_US);
    assert_int_equal(clicklog_open_kafka(&log, &cfg, &said), ERR_AGAIN);
    assert_null(log);
    own_kafka_again(1);
    log = view_open(world);
    owned_wait(log, PARTITIONS);
    read_range(log, 0, 0, 100);
    clicklog_close(&log);
    world_free(world);
}

/* The broker answers nothing for longer than a session: what is assigned may have gone to
 * another. */
static void
an_expired_session_takes_all_partitions_at_once(void **unused)
{
    const char *const flags[] = {"--kafka.session_ms=3000", NULL};
    struct world *world = world_make(own_kafka.brokers, flags);
    struct clicklog *log;
    uint64_t seen = 0, before;
    int64_t start;

    (void)unused;
    clicks_produce(world, 0, 0, 100);
    log = view_open(world);
    owned_wait(log, PARTITIONS);
    read_range(log, 0, 0, 50);
    before = clicklog_owned(log, 0);
    own_kafka_signal(1, SIGSTOP);
    start = clock_mono_us();
    while (owned_count(log) > 0 && clock_mono_us() - start < WAIT_US)
        clicklog_wait(log, &seen, 100000);
    own_kafka_signal(1, SIGCONT);
    assert_true(clock_mono_us() - start < 6 * CLOCK_SECOND_US);
    owned_wait(log, PARTITIONS);
    assert_true(clicklog_owned(log, 0) != before);
    read_range(log, 0, 50, 100);
    clicklog_close(&log);
    world_free(world);
}

/* Transactions of others leave offsets without a record. */
static void
offsets_that_nobody_has_are_passed(void **unused)
{
    struct world *world = world_make(own_kafka.brokers, NULL);
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_t *plain = world->rk, *rk;
    struct clicklog *log;
    struct clicklog_record record;
    char text[200];
    int64_t start;

    (void)unused;
    CHECK(rd_kafka_conf_set(conf, "bootstrap.servers", own_kafka.brokers, text,
                            sizeof(text)) == RD_KAFKA_CONF_OK);
    CHECK(rd_kafka_conf_set(conf, "transactional.id", world->topic, text,
                            sizeof(text)) == RD_KAFKA_CONF_OK);
    rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof(text));
    CHECK(rk != NULL && rd_kafka_init_transactions(rk, 30000) == NULL);
    CHECK(rd_kafka_begin_transaction(rk) == NULL);
    world->rk = rk;
    clicks_produce(world, 0, 0, 5);
    CHECK(rd_kafka_commit_transaction(rk, 30000) == NULL); /* takes offset 5 */
    world->rk = plain;
    rd_kafka_destroy(rk);
    clicks_produce(world, 0, 6, 5);
    log = view_open(world);
    owned_wait(log, PARTITIONS);
    assert_int_equal(read_one(log, 0, 4, &record, NULL), ERR_OK);
    assert_int_equal(record.offset, 4);
    assert_int_equal(read_one(log, 0, 5, &record, NULL), ERR_OK);
    assert_int_equal(record.offset, 6); /* the one before has come: at once */
    read_range(log, 0, 6, 11);
    start = clock_mono_us();
    assert_int_equal(read_one(log, 0, 5, &record, NULL), ERR_OK); /* looked twice */
    assert_int_equal(record.offset, 6);
    assert_true(clock_mono_us() - start < 10 * CLOCK_SECOND_US);
    read_range(log, 0, 6, 11);
    clicklog_close(&log);
    world_free(world);
}

/* Two processes with one kafka.instance_id: the older one is out, and says so. */
static void
a_fenced_static_member_owns_nothing(void **unused)
{
    const char *const flags[] = {"--kafka.instance_id=same", NULL};
    struct world *world = world_make(own_kafka.brokers, flags);
    struct clicklog *a = view_open(world), *b;
    uint64_t seen = 0;
    int64_t start = clock_mono_us();

    (void)unused;
    owned_wait(a, PARTITIONS);
    b = view_open(world);
    while (owned_count(a) > 0 && clock_mono_us() - start < WAIT_US)
        clicklog_wait(a, &seen, 100000);
    assert_int_equal(owned_count(a), 0);
    owned_wait(b, PARTITIONS);
    clicklog_close(&a);
    assert_int_equal(owned_count(b), PARTITIONS);
    clicklog_close(&b);
    world_free(world);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(offsets_that_nobody_has_are_passed),
        cmocka_unit_test(a_fenced_static_member_owns_nothing),
        cmocka_unit_test(an_expired_session_takes_all_partitions_at_once),
        cmocka_unit_test(a_killed_broker_is_waited_for_and_reading_goes_on),
        cmocka_unit_test(a_view_closes_though_its_broker_is_away),
    };

    own_kafka_start(1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

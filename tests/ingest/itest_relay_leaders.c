/* The relay over three brokers, one of which is killed: its partitions have no leader and
 * wait; the others go on, although what waits is many times the producer's queue. */
#include "tests/ingest/relay_fixture.h"

#include <librdkafka/rdkafka.h>

enum { LOST = 3, FEW = 1000, MANY = 100000, GO_ON_S = 10 };

/* Which partitions of raw_clicks have a leader; the number of those without. */
static unsigned
leaders_look(const struct world *w, bool led[P])
{
    const rd_kafka_metadata_t *metadata = NULL;
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    char topic[KAFKA_NAME_MAX + 1], text[200];
    rd_kafka_topic_t *rkt;
    rd_kafka_t *rk;
    unsigned without = 0;

    kafka_topic_name(&w->f->config, "raw_clicks", topic);
    assert_int_equal(rd_kafka_conf_set(conf, "bootstrap.servers", own_kafka.brokers,
                                       text, sizeof(text)),
                     RD_KAFKA_CONF_OK);
    assert_int_equal(rd_kafka_conf_set(conf, "log_level", "0", text, sizeof(text)),
                     RD_KAFKA_CONF_OK);
    rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof(text));
    assert_non_null(rk);
    rkt = rd_kafka_topic_new(rk, topic, NULL);
    assert_int_equal(rd_kafka_metadata(rk, 0, rkt, &metadata, 10000), 0);
    assert_int_equal(metadata->topics[0].partition_cnt, P);
    for (int i = 0; i < P; i++) {
        const rd_kafka_metadata_partition_t *p = &metadata->topics[0].partitions[i];

        led[p->id] = p->leader >= 0;
        without += p->leader < 0;
    }
    rd_kafka_metadata_destroy(metadata);
    rd_kafka_topic_destroy(rkt);
    rd_kafka_destroy(rk);
    return without;
}

static void
leaders_await(const struct world *w, bool led[P], bool all)
{
    int64_t until_us = clock_mono_us() + WAIT_S * CLOCK_SECOND_US;

    while ((leaders_look(w, led) == 0) != all) {
        assert_true(clock_mono_us() < until_us);
        clock_sleep_us(100000);
    }
}

static void
test_a_partition_without_a_leader_stops_no_other(void **state)
{
    struct world *w = *state;
    struct relay_cursor *cursor;
    uint64_t first, next, waits = 0;
    int64_t until_us;
    struct heard *h;
    bool led[P];

    control_close(&w->control); /* its topic may be the lost broker's */
    w->f->config.kafka_delivery_ms_max = 5000;
    w->f->config.kafka_queue_bytes_max = 1 << 20;
    spool_fill(w, FEW);
    relay_begin(w);
    cursor_await(w);

    own_kafka_signal(LOST, SIGKILL);
    leaders_await(w, led, false);
    spool_fill(w, MANY);
    MUST(relay_cursor_open(&cursor, w->dir, w->f->log, why));
    until_us = clock_mono_us() + GO_ON_S * CLOCK_SECOND_US;
    for (uint32_t p = 0; p < P; p++) {
        MUST(clicklog_range(w->f->log, p, &first, &next, why));
        while (led[p] && relay_cursor_get(cursor, p) < next) {
            assert_true(clock_mono_us() < until_us);
            clock_sleep_us(5000);
        }
        if (!led[p])
            waits += next - relay_cursor_get(cursor, p);
    }
    assert_true(waits > MANY / P / 2);
    relay_cursor_close(&cursor);

    own_kafka_again(LOST);
    leaders_await(w, led, true);
    cursor_await(w);
    relay_stop(&w->relay);
    h = kafka_hear(w); /* all of it, in order */
    free(h);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            test_a_partition_without_a_leader_stops_no_other, world_make,
            world_free),
    };

    own_kafka_start(3);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

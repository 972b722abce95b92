/* What stops the relay, or a part of it, over three brokers: a partition without a leader or
 * with a damaged block, which stops no other, and topics that another spool was given. */
#include "tests/ingest/relay_fixture.h"

#include <fcntl.h>
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

/* One of three brokers is killed. What waits for its partitions is many times the producer's
 * queue. */
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

static uint64_t
cursor_at(struct world *w, uint32_t p)
{
    struct relay_cursor *cursor;
    uint64_t at;

    MUST(relay_cursor_open(&cursor, w->dir, w->f->log, why));
    at = relay_cursor_get(cursor, p);
    relay_cursor_close(&cursor);
    return at;
}

/* Says on click_control what it is told, as a relay of another machine would. */
static void
say_spool(struct world *w, uint64_t forget, uint64_t spool_id)
{
    struct control_spool spool = {.spool_id = spool_id};
    struct control *other;

    MUST(control_open(&other, &w->f->config, P, why));
    MUST(control_sync(other, 10 * CLOCK_SECOND_US, why));
    MUST(control_spool_forget(other, forget, why));
    if (spool_id != 0)
        MUST(control_spool_put(other, &spool, why));
    control_close(&other);
}

/* An operator let another machine have the topics while we ran. */
static void
test_a_relay_whose_topics_were_given_away_sends_no_more(void **state)
{
    struct world *w = *state;
    struct clicklog_stats stats;
    uint64_t before[P];

    spool_fill(w, 500);
    relay_begin(w);
    cursor_await(w);
    clicklog_stats_get(w->f->log, &stats);
    say_spool(w, stats.spool_id, stats.spool_id + 1);
    clock_sleep_us(CLOCK_SECOND_US / 2);
    spool_fill(w, 10); /* with the mark of these it finds out */
    for (int i = 0; i < 1000 && atomic_load(&w->relay->claimed); i++)
        clock_sleep_us(10000);
    assert_false(atomic_load(&w->relay->claimed));
    clock_sleep_us(CLOCK_SECOND_US / 2);
    for (uint32_t p = 0; p < P; p++)
        before[p] = cursor_at(w, p);
    spool_fill(w, 500);
    clock_sleep_us(2 * CLOCK_SECOND_US);
    for (uint32_t p = 0; p < P; p++)
        assert_int_equal(cursor_at(w, p), before[p]);
    say_spool(w, stats.spool_id + 1, 0); /* and is given them back */
    cursor_await(w);
    relay_stop(&w->relay);
    free(kafka_hear(w));
}

/* Overwrites a byte wherever the spool has the words; it is closed. */
static void
spool_spoil(struct world *w, const char *words)
{
    struct buf all = BUF_MAX(64 << 20);
    size_t n = strlen(words);
    char path[PATH_SIZE];
    int fd;

    (void)snprintf(path, sizeof(path), "%s/log/data.mdb", w->f->dir);
    MUST(file_read(path, &all, why));
    fd = open(path, O_RDWR);
    for (size_t i = 0; i + n <= all.n; i++)
        if (memcmp(all.p + i, words, n) == 0)
            assert_int_equal(pwrite(fd, "?", 1, (off_t)i), 1);
    (void)close(fd);
    buf_free(&all);
}

static void
test_a_damaged_block_stops_its_partition_and_no_other(void **state)
{
    static const char words[] = "SPOIL ME, BLOCK";
    struct world *w = *state;
    const struct clicklog_entry bad = {.account = 1,
                                       .campaign = STR("c"),
                                       .partition = 2,
                                       .version = CLICK_VERSION,
                                       .body = {words, sizeof(words) - 1}};
    uint64_t first, next, at;

    spool_fill(w, 1000);
    MUST(clicklog_range(w->f->log, 2, &first, &at, why));
    MUST(clicklog_append(w->f->log, &bad, 1, clock_now_us(), NULL, why));
    spool_fill(w, 1000);
    clicklog_close(&w->f->log);
    spool_spoil(w, words);
    log_start(w->f, UINT64_C(1) << 29);
    relay_begin(w);
    for (uint32_t p = 0; p < P; p++) {
        MUST(clicklog_range(w->f->log, p, &first, &next, why));
        for (int i = 0; i < 2000 && cursor_at(w, p) < (p == 2 ? at : next); i++)
            clock_sleep_us(5000);
        assert_int_equal(cursor_at(w, p), p == 2 ? at : next);
    }
    spool_fill(w, 1000); /* and they go on */
    clock_sleep_us(CLOCK_SECOND_US);
    for (uint32_t p = 0; p < P; p++) {
        MUST(clicklog_range(w->f->log, p, &first, &next, why));
        assert_int_equal(cursor_at(w, p), p == 2 ? at : next);
    }
    w->f->config.kafka_delivery_ms_max = 200; /* it stops with clicks left */
    relay_stop(&w->relay);
}

int
main(int argc, char **argv)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, world_make, world_free)
    const struct CMUnitTest tests[] = {
        TEST(test_a_relay_whose_topics_were_given_away_sends_no_more),
        TEST(test_a_damaged_block_stops_its_partition_and_no_other),
        TEST(test_a_partition_without_a_leader_stops_no_other),
    };

    if (argc > 1) /* one of them, by a pattern */
        cmocka_set_test_filter(argv[1]);
    own_kafka_start(3);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

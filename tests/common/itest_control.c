/* Against a real broker: what one process says, another hears. */
#include "common/control.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/clock.h"
#include "tests/common/clicklog_fixture.h"
#include "tests/common/kafka_fixture.h"

enum { P = 3 };
#define SYNC INT64_C(10000000)

static struct config config;

/* A set of topics of its own, for each test. */
static int
setup(void **state)
{
    char topic[KAFKA_NAME_MAX + 1];

    (void)state;
    fixture_config(&config, fixture_brokers());
    fixture_topic(&config, "click_control", 1, "compact", topic);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    config_free(&config);
    return 0;
}

static struct control_spool
spool_make(uint64_t id)
{
    return (struct control_spool){
        .spool_id = id,
        .mark = {.spool_id = id,
                 .incarnation = UINT64_MAX - 5,
                 .floor_us = 1763736000000000,
                 .last = {{UINT64_MAX - 5, 7}, {1, UINT64_MAX - 1}, {0, 0}},
                 .before = {{8, 9}}}};
}

static void
what_a_spool_says_is_heard_by_others_and_by_those_who_come_later(void **state)
{
    struct control *one, *two;
    struct control_spool spool = spool_make(UINT64_C(0xfedcba9876543210)), got;
    struct why said = {""};

    (void)state;
    MUST(control_open(&one, &config, P, why));
    MUST(control_open(&two, &config, P, why));
    MUST(control_sync(two, SYNC, why));
    assert_int_equal(control_spool_get(two, &got, &said), ERR_NOTFOUND);
    MUST(control_spool_put(one, &spool, why));
    MUST(control_sync(two, SYNC, why));
    MUST(control_spool_get(two, &got, why));
    assert_memory_equal(&got, &spool, sizeof(got));
    for (uint64_t i = 0; i < 20; i++) {
        spool.mark.last[0].count = i + 1;
        MUST(control_spool_put(one, &spool, why));
    }
    spool.closed = true;
    MUST(control_spool_put(one, &spool, why));
    MUST(control_sync(two, SYNC, why));
    MUST(control_spool_get(two, &got, why));
    assert_memory_equal(&got, &spool, sizeof(got));
    control_close(&two);
    MUST(control_open(&two, &config, P, why));
    MUST(control_sync(two, SYNC, why));
    MUST(control_spool_get(two, &got, why));
    assert_memory_equal(&got, &spool, sizeof(got));
    control_close(&two);
    control_close(&one);
}

static void
a_second_spool_is_refused_until_the_first_is_forgotten(void **state)
{
    struct control *one, *two;
    struct control_spool a = spool_make(0xa), b = spool_make(0xb), got;
    struct why said = {""};

    (void)state;
    MUST(control_open(&one, &config, P, why));
    MUST(control_open(&two, &config, P, why));
    MUST(control_spool_put(one, &a, why));
    assert_int_equal(control_spool_put(two, &b, &said), ERR_CONFLICT);
    assert_non_null(strstr(said.text, "relay forget 000000000000000a"));
    MUST(control_spool_put(one, &a, why));
    MUST(control_spool_forget(two, 0xa, why));
    MUST(control_spool_put(two, &b, why));
    MUST(control_sync(one, SYNC, why));
    assert_int_equal(control_spool_put(one, &a, &said), ERR_CONFLICT);
    MUST(control_spool_get(one, &got, why));
    assert_int_equal(got.spool_id, 0xb);
    MUST(control_spool_forget(two, 0xb, why));
    MUST(control_sync(one, SYNC, why));
    assert_int_equal(control_spool_get(one, &got, &said), ERR_NOTFOUND);
    control_close(&two);
    control_close(&one);
}

static void
how_far_the_archive_is_is_heard(void **state)
{
    struct control *one, *two;
    struct clicklog_last archived[P] = {{1, UINT64_MAX}, {0, 0}, {UINT64_MAX, 3}};
    struct clicklog_last got[P] = {{9, 9}, {9, 9}, {9, 9}};

    (void)state;
    MUST(control_open(&one, &config, P, why));
    MUST(control_open(&two, &config, P, why));
    MUST(control_sync(two, SYNC, why));
    control_archived_get(two, got);
    for (int i = 0; i < P; i++)
        assert_true(got[i].incarnation == 0 && got[i].count == 0);
    MUST(control_archived_put(one, archived, why));
    MUST(control_sync(two, SYNC, why));
    control_archived_get(two, got);
    assert_memory_equal(got, archived, sizeof(got));
    control_close(&two);
    control_close(&one);
}

/* Bytes that are not ours, as a broken writer might leave them. */
static void
what_is_no_message_of_ours_is_passed_over(void **state)
{
    static const struct {
        const char *key, *value;
    } bad[] = {
        {"", "{}"},
        {"archive", "{"},
        {"archive", "{\"listed\":[1,2,3]}"},
        {"archive", "{\"last\":[1,2,3]}"},
        {"archive", "{\"last\":[[\"a\",1],[\"b\",2]]}"},
        {"archive", "{\"last\":[[\"a\",1],[\"b\",2],[\"c\"]]}"},
        {"archive", "{\"last\":[[\"a\",1],[\"b\",2],[\"c\",3,4]]}"},
        {"archive", "{\"last\":[[\"a\",1],[\"b\",2],[\"c\",-3]]}"},
        {"archive", "{\"last\":[[\"a\",1],[\"b\",2],[\"x\",3]]}"},
        {"archive", "{\"last\":[[\"a\",1],[\"b\",2],[3,3]]}"},
        {"archive", "{\"last\":[[\"a\",1],[\"b\",2],[\"0\",3]]}"},
        {"archive", "{\"last\":[[\"a\",1],[\"b\",2],[\"c\",0]]}"},
        {"archive", "{\"last\":[[\"a\",1],[\"b\",2],[\"c\",1e300]]}"},
        {"archive", "{\"last\":7}"},
        {"spool:12", "{}"},
        {"spool:00000000000000zz", "{}"},
        {"spool:00000000000000aa", "[]"},
        {"spool:00000000000000aa", "{\"incarnation\":\"1\",\"floor_us\":1}"},
        {"spool:00000000000000aa", "{\"incarnation\":\"-1\",\"floor_us\":1,"
                                   "\"last\":[[\"0\",0],[\"0\",0],[\"0\",0]],"
                                   "\"before\":[[\"0\",0],[\"0\",0],[\"0\",0]],"
                                   "\"closed\":false}"},
        {"spool:00000000000000aa", "{\"incarnation\":\"1\",\"floor_us\":1,"
                                   "\"last\":[[\"0\",0],[\"0\",0],[\"0\",0]],"
                                   "\"closed\":false}"},
    };
    struct kafka_producer *producer;
    struct control *control;
    struct control_spool spool = spool_make(0xc), got;
    struct why said = {""};
    struct clicklog_last archived[P] = {{4, 5}, {6, 7}}, heard[P];
    char topic[KAFKA_NAME_MAX + 1];
    size_t sent;

    (void)state;
    kafka_topic_name(&config, "click_control", topic);
    MUST(control_open(&control, &config, P, why));
    MUST(control_archived_put(control, archived, why));
    MUST(kafka_producer_open(&producer, &config, topic, "test", 0, why));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct kafka_item item = {str_of(bad[i].key), str_of(bad[i].value), 1};

        MUST(kafka_send(producer, 0, &item, 1, &sent, why));
    }
    MUST(kafka_flush(producer, SYNC, why));
    kafka_producer_close(&producer);
    MUST(control_sync(control, SYNC, why));
    control_archived_get(control, heard);
    assert_memory_equal(heard, archived, sizeof(heard));
    assert_int_equal(control_spool_get(control, &got, &said), ERR_NOTFOUND);
    MUST(control_spool_put(control, &spool, why));
    control_close(&control);
}

static void
without_a_broker_it_opens_and_says_so_when_asked(void **state)
{
    struct control_spool spool = spool_make(1);
    struct control *control;
    struct why said = {""};

    (void)state;
    fixture_set(&config.kafka_brokers, "127.0.0.1:1");
    config.kafka_delivery_ms_max = 500;
    MUST(control_open(&control, &config, P, why));
    assert_int_equal(control_sync(control, 500000, &said), ERR_AGAIN);
    assert_non_null(strstr(said.text, "click_control"));
    assert_int_equal(control_archived_put(control, spool.mark.last, &said),
                     ERR_AGAIN);
    control_close(&control);
}

static void
a_missing_topic_is_named(void **state)
{
    struct control *control;
    struct why said = {""};

    (void)state;
    fixture_set(&config.kafka_topic_prefix, "nothing-here-");
    MUST(control_open(&control, &config, P, why));
    assert_int_equal(control_sync(control, 3000000, &said), ERR_AGAIN);
    assert_non_null(strstr(said.text, "nothing-here-click_control"));
    assert_non_null(strstr(said.text, "no"));
    control_close(&control);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(what_a_spool_says_is_heard_by_others_and_by_those_who_come_later),
        TEST(a_second_spool_is_refused_until_the_first_is_forgotten),
        TEST(how_far_the_archive_is_is_heard),
        TEST(what_is_no_message_of_ours_is_passed_over),
        TEST(without_a_broker_it_opens_and_says_so_when_asked),
        TEST(a_missing_topic_is_named),
    };

    (void)fixture_brokers();
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

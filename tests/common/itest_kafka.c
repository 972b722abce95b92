/* Against a real broker: topics, order and acknowledgements, offsets and times; and when it
 * is killed, for which it is one of our own. */
#include "common/kafka.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/clock.h"
#include "tests/common/clicklog_fixture.h"
#include "tests/common/kafka_fixture.h"
#include "tests/common/own_kafka.h"

enum { TOPIC_N = 4 };
#define SECOND INT64_C(1000000)

static struct config config;

static void
a_topic_is_read_as_it_was_made(void **state)
{
    struct kafka_topic made = {.partitions = 3,
                               .replication = 1,
                               .retention_ms = 86400000,
                               .min_insync = 1,
                               .max_message_bytes = 2000000,
                               .cleanup_policy = "compact",
                               .compression = "lz4",
                               .timestamp_type = "CreateTime"};
    struct kafka_topic got;
    struct why said = {""};

    (void)state;
    kafka_topic_name(&config, "settings", made.name);
    assert_int_equal(kafka_topic_read(&config, made.name, &got, &said),
                     ERR_NOTFOUND);
    assert_int_equal(kafka_topic_read(&config, made.name, &got, &said),
                     ERR_NOTFOUND);
    MUST(kafka_topic_create(&config, &made, why));
    MUST(kafka_topic_read(&config, made.name, &got, why));
    assert_string_equal(got.name, made.name);
    assert_int_equal(got.partitions, 3);
    assert_int_equal(got.replication, 1);
    assert_int_equal(got.retention_ms, 86400000);
    assert_int_equal(got.retention_bytes, -1);
    assert_int_equal(got.min_insync, 1);
    assert_int_equal(got.max_message_bytes, 2000000);
    assert_string_equal(got.cleanup_policy, "compact");
    assert_string_equal(got.compression, "lz4");
    assert_string_equal(got.timestamp_type, "CreateTime");
    assert_int_equal(kafka_topic_create(&config, &made, &said), ERR_CONFLICT);
    made.replication = 9;
    kafka_topic_name(&config, "copies", made.name);
    assert_int_equal(kafka_topic_create(&config, &made, &said), ERR_INVALID);
    assert_non_null(strstr(said.text, "copies"));
}

static void
the_log_id_tells_topics_apart_and_stays(void **state)
{
    uint64_t one, again, two;

    (void)state;
    MUST(kafka_log_id(&config, "a", &one, why));
    MUST(kafka_log_id(&config, "a", &again, why));
    MUST(kafka_log_id(&config, "b", &two, why));
    assert_int_equal(one, again);
    assert_int_not_equal(one, two);
}

static void
nobody_at_home_is_an_error_to_try_again(void **state)
{
    struct config away;
    struct why said = {""};
    struct kafka_producer *producer;
    uint64_t id;

    (void)state;
    fixture_config(&away, "127.0.0.1:1");
    away.kafka_delivery_ms_max = 1000;
    assert_int_equal(kafka_log_id(&away, "a", &id, &said), ERR_AGAIN);
    assert_non_null(strstr(said.text, "127.0.0.1:1"));
    assert_int_equal(kafka_producer_open(&producer, &away, "a", "test", 0, &said),
                     ERR_AGAIN);
    assert_null(producer);
    assert_non_null(strstr(said.text, "Connection refused"));
    config_free(&away);
    assert_int_equal(
        kafka_producer_open(&producer, &config, "no-such-topic", "test", 0, &said),
        ERR_NOTFOUND);
    assert_null(producer);
}

/* --- sending and reading --- */

/* Message i of a partition: its number, with a body whose size varies. */
static struct kafka_item
item_make(uint8_t *body, uint64_t i)
{
    uint32_t size = 16 + (uint32_t)(i * 37 % 300);

    memset(body, (int)('a' + i % 26), size);
    memcpy(body, &i, sizeof(i));
    return (struct kafka_item){{(const char *)body, 8},
                               {(const char *)body, size},
                               1700000000000 + (int64_t)i * 10};
}

/* Sends numbers [from, to) to each partition; stops when the producer fails. */
static enum err
send_numbers(struct kafka_producer *producer, const uint64_t *from, uint64_t to,
             struct why *why)
{
    uint64_t next[TOPIC_N];
    bool more = true;

    memcpy(next, from, sizeof(next));
    while (more) {
        more = false;
        for (int32_t p = 0; p < TOPIC_N; p++) {
            uint8_t bodies[64][512];
            struct kafka_item items[64];
            size_t n = 0, sent;
            enum err err;

            while (n < 64 && next[p] + n < to) {
                items[n] = item_make(bodies[n], next[p] + n);
                n++;
            }
            if (n == 0)
                continue;
            more = true;
            err = kafka_send(producer, p, items, n, &sent, why);
            if (err == ERR_OK)
                err = kafka_poll(producer, sent < n ? 10000 : 0, why);
            if (err != ERR_OK)
                return err;
            next[p] += sent;
        }
    }
    return kafka_flush(producer, 30 * SECOND, why);
}

/* Reads a partition whole: first occurrences are 0, 1, 2 ... to to - 1 and look right. */
static void
check_numbers(const char *topic, int32_t partition, uint64_t to, bool repeats)
{
    struct kafka_consumer *consumer;
    struct kafka_message message;
    uint64_t first, next, expected = 0;

    MUST(kafka_consumer_open(&consumer, &config, topic, "check", why));
    MUST(kafka_consumer_range(consumer, partition, &first, &next, why));
    assert_int_equal(first, 0);
    if (!repeats)
        assert_int_equal(next, to);
    MUST(kafka_consumer_follow(consumer, partition, 0, why));
    while (kafka_consumer_at(consumer, partition) < next) {
        uint8_t body[512];
        struct kafka_item item;
        uint64_t i;

        MUST(kafka_consumer_next(consumer, 10 * SECOND, &message, why));
        assert_int_equal(message.partition, partition);
        assert_int_equal(message.key.n, 8);
        memcpy(&i, message.value.p, sizeof(i));
        if (!repeats)
            assert_int_equal(message.offset, i);
        assert_true(i <= expected); /* never one that skips another */
        item = item_make(body, i);
        assert_true(str_equal(message.value, item.value));
        assert_int_equal(message.timestamp_ms, item.timestamp_ms);
        expected += i == expected;
    }
    assert_int_equal(expected, to);
    kafka_consumer_close(&consumer);
}

static void
messages_arrive_in_order_with_their_key_and_time(void **state)
{
    char topic[KAFKA_NAME_MAX + 1];
    struct kafka_producer *producer;
    static const uint64_t zero[TOPIC_N];
    struct why said = {""};
    size_t sent;

    (void)state;
    fixture_topic(&config, "order", TOPIC_N, "delete", topic);
    MUST(kafka_producer_open(&producer, &config, topic, "test", -1, why));
    MUST(send_numbers(producer, zero, 20000, why));
    for (int32_t p = 0; p < TOPIC_N; p++)
        assert_int_equal(kafka_acked(producer, p), 20000);
    assert_int_equal(kafka_in_flight(producer), 0);
    assert_int_equal(kafka_send(producer, TOPIC_N, NULL, 0, &sent, &said),
                     ERR_INVALID);
    assert_int_equal(kafka_send(producer, -1, NULL, 0, &sent, &said), ERR_INVALID);
    kafka_producer_close(&producer);
    for (int32_t p = 0; p < TOPIC_N; p++)
        check_numbers(topic, p, 20000, false);
}

static void
the_largest_message_goes_and_a_larger_one_is_refused(void **state)
{
    char topic[KAFKA_NAME_MAX + 1];
    struct kafka_producer *producer;
    struct kafka_consumer *consumer;
    struct kafka_message message;
    char *bytes = malloc(2000000);
    struct kafka_item item = {{"k", 1}, {bytes, KAFKA_MESSAGE_MAX}, 1};
    struct why said = {""};
    size_t sent;

    (void)state;
    assert_non_null(bytes);
    hash_random_bytes(bytes, 2000000); /* does not compress */
    fixture_topic(&config, "large", 1, "delete", topic);
    MUST(kafka_producer_open(&producer, &config, topic, "test", 0, why));
    MUST(kafka_send(producer, 0, &item, 1, &sent, why));
    assert_int_equal(sent, 1);
    MUST(kafka_flush(producer, 10 * SECOND, why));
    item.value.n = 2000000;
    assert_int_equal(kafka_send(producer, 0, &item, 1, &sent, &said), ERR_INVALID);
    assert_int_equal(sent, 0);
    assert_int_equal(kafka_in_flight(producer), 0);
    MUST(kafka_poll(producer, 0, why)); /* nothing was lost: it goes on */
    kafka_producer_close(&producer);
    MUST(kafka_consumer_open(&consumer, &config, topic, "test", why));
    MUST(kafka_consumer_follow(consumer, 0, 0, why));
    MUST(kafka_consumer_next(consumer, 10 * SECOND, &message, why));
    assert_int_equal(message.value.n, KAFKA_MESSAGE_MAX);
    assert_memory_equal(message.value.p, bytes, KAFKA_MESSAGE_MAX);
    kafka_consumer_close(&consumer);
    free(bytes);
}

static void
a_full_queue_takes_a_part(void **state)
{
    char topic[KAFKA_NAME_MAX + 1];
    struct kafka_producer *producer;
    static char bytes[65536];
    struct kafka_item items[64];
    int64_t was = config.kafka_queue_bytes_max;
    uint64_t total = 0;
    size_t sent;

    (void)state;
    fixture_topic(&config, "full", 1, "delete", topic);
    for (int i = 0; i < 64; i++)
        items[i] = (struct kafka_item){{NULL, 0}, {bytes, sizeof(bytes)}, 1};
    config.kafka_queue_bytes_max = 1048576;
    MUST(kafka_producer_open(&producer, &config, topic, "test", 1000, why));
    MUST(kafka_send(producer, 0, items, 64, &sent, why));
    assert_in_range(sent, 1, 17);
    assert_int_equal(kafka_in_flight(producer), sent);
    for (total = sent; total < 640; total += sent) {
        MUST(kafka_send(producer, 0, items, 64, &sent, why));
        MUST(kafka_poll(producer, sent == 0 ? 10000 : 0, why));
    }
    MUST(kafka_flush(producer, 10 * SECOND, why));
    assert_int_equal(kafka_acked(producer, 0), total);
    kafka_producer_close(&producer);
    config.kafka_queue_bytes_max = was;
}

static void
a_partition_has_its_share_of_the_queue(void **state)
{
    char topic[KAFKA_NAME_MAX + 1];
    struct kafka_producer *producer;
    static char bytes[300000];
    struct kafka_item items[64], large = {{NULL, 0}, {bytes, sizeof(bytes)}, 1};
    int64_t was = config.kafka_queue_bytes_max;
    size_t sent;

    (void)state;
    fixture_topic(&config, "shares", TOPIC_N, "delete", topic);
    for (int i = 0; i < 64; i++)
        items[i] = (struct kafka_item){{"key", 3}, {bytes, 65533}, 1};
    config.kafka_queue_bytes_max = 1048576;
    MUST(kafka_producer_open(&producer, &config, topic, "test", 1000, why));
    assert_int_equal(kafka_room(producer, 0), 1048576 / TOPIC_N);
    MUST(kafka_send(producer, 0, items, 64, &sent, why));
    assert_int_equal(sent, 4);
    assert_int_equal(kafka_room(producer, 0), 0);
    MUST(kafka_send(producer, 0, items, 64, &sent, why));
    assert_int_equal(sent, 0);
    MUST(kafka_send(producer, 1, items, 2, &sent, why)); /* not its affair */
    assert_int_equal(sent, 2);
    MUST(kafka_send(producer, 2, &large, 1, &sent, why)); /* than a share: alone */
    assert_int_equal(sent, 1);
    MUST(kafka_send(producer, 2, &large, 1, &sent, why));
    assert_int_equal(sent, 0);
    MUST(kafka_flush(producer, 10 * SECOND, why));
    for (int32_t p = 0; p < TOPIC_N; p++)
        assert_int_equal(kafka_room(producer, p), 1048576 / TOPIC_N);
    kafka_producer_close(&producer);
    config.kafka_queue_bytes_max = was;
}

static void
times_and_offsets_are_found(void **state)
{
    char topic[KAFKA_NAME_MAX + 1];
    static const uint64_t zero[TOPIC_N];
    struct kafka_producer *producer;
    struct kafka_consumer *consumer;
    struct kafka_message message;
    struct why said = {""};
    uint64_t offset;

    (void)state;
    fixture_topic(&config, "times", TOPIC_N, "delete", topic);
    MUST(kafka_producer_open(&producer, &config, topic, "test", -1, why));
    MUST(send_numbers(producer, zero, 1000, why));
    kafka_producer_close(&producer);
    MUST(kafka_consumer_open(&consumer, &config, topic, "test", why));
    MUST(kafka_consumer_since(consumer, 2, 1700000005000, &offset, why));
    assert_int_equal(offset, 500);
    MUST(kafka_consumer_since(consumer, 2, 0, &offset, why));
    assert_int_equal(offset, 0);
    MUST(kafka_consumer_since(consumer, 2, 1800000000000, &offset, why));
    assert_int_equal(offset, 1000);
    /* forth and back again, with the first place's messages on their way */
    for (int i = 0; i < 20; i++) {
        MUST(kafka_consumer_follow(consumer, 2, 600, why));
        if (i % 2 == 0)
            MUST(kafka_consumer_next(consumer, 10 * SECOND, &message, why));
        MUST(kafka_consumer_follow(consumer, 2, 10, why));
        MUST(kafka_consumer_next(consumer, 10 * SECOND, &message, why));
        assert_int_equal(message.offset, 10);
        MUST(kafka_consumer_next(consumer, 10 * SECOND, &message, why));
        assert_int_equal(message.offset, 11);
    }
    kafka_consumer_leave(consumer, 2);
    assert_int_equal(kafka_consumer_next(consumer, 300000, &message, &said),
                     ERR_AGAIN);
    MUST(kafka_consumer_follow(consumer, 1, 1000, why));
    assert_int_equal(kafka_consumer_next(consumer, 300000, &message, &said),
                     ERR_AGAIN);
    assert_int_equal(kafka_consumer_at(consumer, 1), 1000);
    MUST(kafka_consumer_follow(consumer, 3, 5000, why)); /* beyond the end */
    assert_int_equal(kafka_consumer_next(consumer, 10 * SECOND, &message, &said),
                     ERR_NOTFOUND);
    assert_int_equal(message.partition, 3);
    MUST(kafka_consumer_follow(consumer, 3, 999, why));
    MUST(kafka_consumer_next(consumer, 10 * SECOND, &message, why));
    assert_int_equal(message.offset, 999);
    assert_int_equal(kafka_consumer_follow(consumer, TOPIC_N, 0, &said),
                     ERR_INVALID);
    kafka_consumer_close(&consumer);
}

/* The brokers refuse one in the middle, by size. */
static void
what_comes_after_a_failed_message_is_not_counted(void **state)
{
    struct kafka_topic made = {
        .partitions = 1, .replication = 1, .max_message_bytes = 20000};
    struct kafka_producer *producer;
    struct kafka_consumer *consumer;
    struct kafka_message message;
    static uint8_t noise[100000];
    struct kafka_item large = {{NULL, 0}, {(const char *)noise, sizeof(noise)}, 1};
    struct why said = {""};
    enum err err = ERR_OK;
    uint64_t acked, i;
    size_t sent;

    (void)state;
    hash_random_bytes(noise, sizeof(noise));
    kafka_topic_name(&config, "middle", made.name);
    made.retention_ms = -1;
    MUST(kafka_topic_create(&config, &made, why));
    MUST(kafka_producer_open(&producer, &config, made.name, "test", 0, why));
    for (i = 0; i < 2000 && err == ERR_OK; i++) {
        uint8_t body[512];
        struct kafka_item item = item_make(body, i);

        err = kafka_send(producer, 0, i == 1000 ? &large : &item, 1, &sent, &said);
        if (err == ERR_OK && i == 500)
            err = kafka_flush(producer, 10 * SECOND, &said);
    }
    for (int64_t until = clock_mono_us() + 20 * SECOND;
         err == ERR_OK && clock_mono_us() < until;)
        err = kafka_poll(producer, 10000, &said);
    assert_int_equal(err, ERR_AGAIN);
    assert_non_null(strstr(said.text, made.name));
    for (int n = 0; n < 100; n++) { /* for good, whatever is reported still */
        assert_int_equal(kafka_poll(producer, 10000, &said), ERR_AGAIN);
        acked = kafka_acked(producer, 0);
        assert_in_range(acked, 501, 1000);
    }
    assert_int_equal(kafka_send(producer, 0, &large, 1, &sent, &said), ERR_AGAIN);
    assert_int_equal(kafka_flush(producer, SECOND, &said), ERR_AGAIN);
    kafka_producer_close(&producer);
    MUST(kafka_consumer_open(&consumer, &config, made.name, "test", why));
    MUST(kafka_consumer_follow(consumer, 0, 0, why));
    for (i = 0; i < acked; i++) {
        uint64_t number;

        MUST(kafka_consumer_next(consumer, 10 * SECOND, &message, why));
        memcpy(&number, message.value.p, sizeof(number));
        assert_int_equal(number, i);
    }
    kafka_consumer_close(&consumer);
}

/* --- a broker is killed --- */

/* Sends up to "to" with producers that are renewed, as the relay does. */
static void
send_until(const char *topic, uint64_t acked[TOPIC_N], uint64_t to)
{
    int64_t until = clock_mono_us() + 90 * SECOND;
    enum err err = ERR_AGAIN;

    while (err != ERR_OK) {
        struct kafka_producer *producer;
        struct why said = {""};
        uint64_t from[TOPIC_N];

        assert_true(clock_mono_us() < until);
        err = kafka_producer_open(&producer, &config, topic, "test", -1, &said);
        if (err != ERR_OK)
            continue;
        memcpy(from, acked, sizeof(from));
        err = send_numbers(producer, from, to, &said);
        assert_true(err == ERR_OK || err == ERR_AGAIN);
        if (err == ERR_AGAIN)
            print_message("%s\n", said.text);
        for (int32_t p = 0; p < TOPIC_N; p++)
            acked[p] = from[p] + kafka_acked(producer, p);
        kafka_producer_close(&producer);
    }
}

static void *
kill_and_start(void *unused)
{
    clock_sleep_us(300000);
    own_kafka_signal(1, SIGKILL);
    clock_sleep_us(1 * SECOND);
    own_kafka_again(1);
    return unused;
}

static void
what_was_acknowledged_is_a_prefix_although_the_broker_is_killed(void **state)
{
    char topic[KAFKA_NAME_MAX + 1];
    uint64_t acked[TOPIC_N] = {0};
    int64_t was = config.kafka_delivery_ms_max;
    pthread_t killer;

    (void)state;
    fixture_topic(&config, "killed", TOPIC_N, "delete", topic);
    config.kafka_delivery_ms_max = 1000;
    assert_int_equal(pthread_create(&killer, NULL, kill_and_start, NULL), 0);
    for (uint64_t to = 5000; to <= 100000; to += 5000)
        send_until(topic, acked, to);
    assert_int_equal(pthread_join(killer, NULL), 0);
    for (int32_t p = 0; p < TOPIC_N; p++)
        assert_int_equal(acked[p], 100000);
    config.kafka_delivery_ms_max = was;
    for (int32_t p = 0; p < TOPIC_N; p++)
        check_numbers(topic, p, 100000, true);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_topic_is_read_as_it_was_made),
        cmocka_unit_test(the_log_id_tells_topics_apart_and_stays),
        cmocka_unit_test(nobody_at_home_is_an_error_to_try_again),
        cmocka_unit_test(messages_arrive_in_order_with_their_key_and_time),
        cmocka_unit_test(the_largest_message_goes_and_a_larger_one_is_refused),
        cmocka_unit_test(a_full_queue_takes_a_part),
        cmocka_unit_test(a_partition_has_its_share_of_the_queue),
        cmocka_unit_test(times_and_offsets_are_found),
        cmocka_unit_test(what_comes_after_a_failed_message_is_not_counted),
        cmocka_unit_test(
            what_was_acknowledged_is_a_prefix_although_the_broker_is_killed),
    };
    int failed;

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    own_kafka_start(1);
    fixture_config(&config, own_kafka.brokers);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    config_free(&config);
    return failed;
}

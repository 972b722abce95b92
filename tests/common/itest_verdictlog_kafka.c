/* Against a real broker: what one process appends, another follows into its copy. It is one
 * of our own, since it is killed. */
#include "common/verdictlog.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "common/clock.h"
#include "tests/common/clicklog_fixture.h"
#include "tests/common/kafka_fixture.h"
#include "tests/common/own_kafka.h"

enum { P = 3 };
#define SECOND INT64_C(1000000)
static const uint64_t MAP = UINT64_C(1) << 30;

static struct config config;
static char topic[KAFKA_NAME_MAX + 1];
static struct folder folder;

/* A topic and a folder of its own, for each test. */
static int
setup(void **state)
{
    (void)state;
    fixture_config(&config, own_kafka.brokers);
    fixture_topic(&config, "click_verdicts", P, "delete", topic);
    folder = folder_make();
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    folder_remove(&folder);
    config_free(&config);
    return 0;
}

static struct verdictlog *
log_open(const char *name)
{
    struct verdictlog *log;
    char dir[128];

    (void)snprintf(dir, sizeof(dir), "%s/%s", folder.path, name);
    MUST(verdictlog_open_kafka(&log, &config, dir, MAP, why));
    return log;
}

/* Verdicts first, first + 1 ... */
static enum err
append(struct verdictlog *log, uint32_t partition, uint64_t base, uint64_t epoch,
       uint32_t count, uint64_t first, struct why *why)
{
    static uint64_t verdicts[VERDICTLOG_BLOCK_MAX];
    struct verdictlog_block block = {partition, base, epoch, verdicts, count};

    for (uint32_t i = 0; i < count; i++)
        verdicts[i] = first + i;
    return verdictlog_append(log, &block, 1, why);
}

static void
expect(struct verdictlog *log, uint32_t partition, uint64_t from,
       const uint64_t *want, size_t n)
{
    uint64_t got[64] = {0};

    assert_true(n <= 64);
    MUST(verdictlog_read(log, partition, from, n, got, why));
    for (size_t i = 0; i < n; i++)
        if (got[i] != want[i])
            fail_msg("offset %" PRIu64 ": %" PRIu64 ", not %" PRIu64, from + i,
                     got[i], want[i]);
}

static void
the_highest_epoch_of_two_writers_wins_in_every_copy(void **state)
{
    struct verdictlog *zombie = log_open("a"), *owner = log_open("b");
    const uint64_t want[12] = {0, 0, 102, 103, 504, 505, 506, 107, 108, 109, 0, 0};
    uint64_t epoch, next;

    (void)state;
    MUST(append(owner, 2, 4, 9, 3, 504, why));
    MUST(append(zombie, 2, 2, 8, 8, 102, why)); /* later and longer */
    MUST(append(zombie, 1, 0, 8, 1, 7, why));
    for (int i = 0; i < 2; i++) {
        struct verdictlog *log = i == 0 ? zombie : owner;

        MUST(verdictlog_follow(log, 2, 0, why));
        expect(log, 2, 0, want, 12);
        MUST(verdictlog_last(log, 2, &epoch, &next, why));
        assert_int_equal(epoch, 9);
        assert_int_equal(next, 10);
        MUST(verdictlog_last(log, 1, &epoch, &next, why));
        assert_int_equal(epoch, 0); /* not followed */
    }
    verdictlog_close(&zombie);
    verdictlog_close(&owner);
}

static void
the_same_again_and_longer_again_is_no_conflict(void **state)
{
    struct verdictlog *log = log_open("a");
    const uint64_t want[6] = {1, 2, 3, 4, 0, 0};

    (void)state;
    MUST(append(log, 0, 0, 5, 2, 1, why));
    MUST(append(log, 0, 0, 5, 2, 1, why));
    MUST(append(log, 0, 0, 5, 4, 1, why)); /* tried again, with more */
    MUST(append(log, 0, 0, 5, 3, 1, why));
    MUST(
        append(log, 0, 0, 5, 2, 800, why)); /* contradicts: the first is the fact */
    MUST(verdictlog_follow(log, 0, 0, why));
    expect(log, 0, 0, want, 6);
    verdictlog_close(&log);
}

static void
a_reopened_copy_goes_on_and_a_deleted_one_is_made_again(void **state)
{
    struct verdictlog *writer = log_open("w"), *log = log_open("a");
    const uint64_t want[4] = {11, 12, 21, 22};
    char path[128];

    (void)state;
    MUST(append(writer, 1, 0, 1, 2, 11, why));
    MUST(verdictlog_follow(log, 1, 0, why));
    expect(log, 1, 0, want, 2);
    verdictlog_close(&log);
    MUST(append(writer, 1, 2, 1, 2, 21, why));
    log = log_open("a");
    expect(log, 1, 0, want, 2); /* before anything was followed */
    MUST(verdictlog_follow(log, 1, 0, why));
    expect(log, 1, 0, want, 4);
    verdictlog_close(&log);
    (void)snprintf(path, sizeof(path), "%s/a", folder.path);
    path_remove(path);
    log = log_open("a");
    MUST(verdictlog_follow(log, 1, 0, why));
    expect(log, 1, 0, want, 4);
    verdictlog_close(&log);
    verdictlog_close(&writer);
}

static void
a_copy_of_another_log_or_of_another_start_of_the_machine_is_emptied(void **state)
{
    struct verdictlog *log = log_open("a");
    const uint64_t want[2] = {5, 6}, none[2] = {0, 0};
    char other[KAFKA_NAME_MAX + 1], path[128], *kept;

    (void)state;
    MUST(append(log, 1, 0, 1, 2, 5, why));
    MUST(verdictlog_follow(log, 1, 0, why));
    expect(log, 1, 0, want, 2);
    verdictlog_close(&log);
    kept = strdup(config.kafka_topic_prefix);
    fixture_set(&config.kafka_topic_prefix, "other");
    (void)snprintf(other, sizeof(other), "o%016" PRIx64, hash_random_u64());
    fixture_set(&config.kafka_topic_prefix, other);
    fixture_topic(&config, "click_verdicts", P, "delete", other);
    log = log_open("a");
    expect(log, 1, 0, none, 2);
    verdictlog_close(&log);
    fixture_set(&config.kafka_topic_prefix, kept);
    free(kept);
    log = log_open("a");
    expect(log, 1, 0, none, 2);
    MUST(verdictlog_follow(log, 1, 0, why));
    expect(log, 1, 0, want, 2);
    verdictlog_close(&log);
    (void)snprintf(path, sizeof(path), "%s/a/boot", folder.path);
    (void)unlink(path);
    log = log_open("a");
    expect(log, 1, 0, none, 2);
    verdictlog_close(&log);
}

static void
a_second_process_is_refused_the_same_copy(void **state)
{
    struct verdictlog *log = log_open("a"), *second;
    struct why said = {""};
    char dir[128];

    (void)state;
    (void)snprintf(dir, sizeof(dir), "%s/a", folder.path);
    assert_int_equal(verdictlog_open_kafka(&second, &config, dir, MAP, &said),
                     ERR_CONFLICT);
    assert_null(second);
    verdictlog_close(&log);
}

/* Now; what is appended from here on is at least a few milliseconds later. */
static int64_t
moment(void)
{
    int64_t now_us;

    clock_sleep_us(20000);
    now_us = clock_now_us();
    clock_sleep_us(20000);
    return now_us;
}

static void
a_partition_that_was_left_has_no_holes_afterwards(void **state)
{
    struct verdictlog *writer = log_open("w"), *log = log_open("a");
    uint64_t want[5] = {1, 2, 3, 4, 5};
    const uint64_t late[5] = {0, 0, 0, 0, 5}, from_third[5] = {0, 0, 3, 4, 5};
    int64_t at[5];

    (void)state;
    for (uint64_t i = 0; i < 2; i++) {
        at[i] = moment();
        MUST(append(writer, 0, i, 1, 1, i + 1, why));
    }
    MUST(verdictlog_follow(log, 0, 0, why));
    expect(log, 0, 0, want, 2);
    verdictlog_leave(log, 0);
    clock_sleep_us(200000);
    for (uint64_t i = 2; i < 5; i++) {
        at[i] = moment();
        MUST(append(writer, 0, i, 1, 1, i + 1, why));
    }
    MUST(append(writer, 0, 0, 7, 1, 901, why)); /* overrules the first */
    want[0] = 901;
    /* later than what was copied: the old may be overruled in between, so it is gone */
    MUST(verdictlog_follow(log, 0, at[4], why));
    expect(log, 0, 1, late + 1, 4);
    MUST(verdictlog_follow(log, 0, at[2], why)); /* earlier again */
    expect(log, 0, 1, from_third + 1, 4);
    MUST(verdictlog_follow(log, 0, 0, why));
    expect(log, 0, 0, want, 5);
    verdictlog_leave(log, 0);
    MUST(verdictlog_follow(log, 0, 0, why)); /* at once */
    expect(log, 0, 0, want, 5);
    MUST(verdictlog_follow(log, 0, clock_now_us() + 3600 * SECOND, why));
    verdictlog_close(&log);
    verdictlog_close(&writer);
}

static void
damaged_messages_are_skipped(void **state)
{
    struct verdictlog *log = log_open("a");
    struct kafka_producer *producer;
    const uint64_t want[3] = {1, 0, 3};
    uint8_t bytes[64] = "CLV1\001";
    struct kafka_item items[] = {
        {{NULL, 0}, {NULL, 0}, 1},
        {{NULL, 0}, {"CLV", 3}, 1},
        {{NULL, 0}, {(const char *)bytes, 40}, 1}, /* check */
        {{NULL, 0}, {(const char *)bytes, 41}, 1},
        {{NULL, 0}, {(const char *)bytes, 32}, 1},
    };
    size_t sent;

    (void)state;
    MUST(append(log, 2, 0, 1, 1, 1, why));
    MUST(kafka_producer_open(&producer, &config, topic, "test", 0, why));
    MUST(kafka_send(producer, 2, items, 5, &sent, why));
    MUST(kafka_flush(producer, 10 * SECOND, why));
    kafka_producer_close(&producer);
    MUST(append(log, 2, 2, 1, 1, 3, why));
    MUST(verdictlog_follow(log, 2, 0, why));
    expect(log, 2, 0, want, 3);
    verdictlog_close(&log);
}

static void
the_largest_blocks_go_and_wrong_ones_are_refused(void **state)
{
    struct verdictlog *log = log_open("a");
    struct why said = {""};
    static uint64_t got[VERDICTLOG_BLOCK_MAX], noise[VERDICTLOG_BLOCK_MAX];
    struct verdictlog_block blocks[20];

    (void)state;
    hash_random_bytes(noise, sizeof(noise)); /* does not compress */
    for (uint32_t i = 0; i < 20; i++)
        blocks[i] =
            (struct verdictlog_block){i % P, (uint64_t)i * VERDICTLOG_BLOCK_MAX, 3,
                                      noise, VERDICTLOG_BLOCK_MAX};
    MUST(verdictlog_append(log, blocks, 20, why));
    MUST(verdictlog_follow(log, 1, 0, why));
    MUST(verdictlog_read(log, 1, UINT64_C(19) * VERDICTLOG_BLOCK_MAX,
                         VERDICTLOG_BLOCK_MAX, got, why));
    assert_memory_equal(got, noise, sizeof(got));
    blocks[0].count = 0;
    assert_int_equal(verdictlog_append(log, blocks, 1, &said), ERR_INVALID);
    blocks[0].count = 1;
    blocks[0].partition = P;
    assert_int_equal(verdictlog_append(log, blocks, 1, &said), ERR_INVALID);
    assert_int_equal(verdictlog_follow(log, P, 0, &said), ERR_INVALID);
    verdictlog_leave(log, P);
    MUST(verdictlog_append(log, blocks, 0, why));
    MUST(verdictlog_trim(log, 1, UINT64_MAX, why));
    MUST(verdictlog_read(log, 1, UINT64_C(19) * VERDICTLOG_BLOCK_MAX, 1, got, why));
    assert_int_equal(got[0], 0);
    verdictlog_close(&log);
}

static void
brokers_that_are_away_are_an_error_to_try_again(void **state)
{
    struct verdictlog *log;
    struct why said = {""};
    char dir[128];

    (void)state;
    (void)snprintf(dir, sizeof(dir), "%s/a", folder.path);
    fixture_set(&config.kafka_brokers, "127.0.0.1:1");
    assert_int_equal(verdictlog_open_kafka(&log, &config, dir, MAP, &said),
                     ERR_AGAIN);
    assert_null(log);
}

static void
a_broker_that_was_killed_is_waited_for_and_followed_on(void **state)
{
    struct verdictlog *log;
    struct why said = {""};
    const uint64_t want[3] = {1, 2, 3};
    int64_t began, until;
    enum err err;

    (void)state;
    config.kafka_delivery_ms_max = 1000;
    log = log_open("a");
    MUST(append(log, 0, 0, 1, 1, 1, why));
    MUST(verdictlog_follow(log, 0, 0, why));
    own_kafka_signal(1, SIGKILL);
    for (int i = 0; i < 2; i++) {
        began = clock_mono_us();
        assert_int_equal(append(log, 0, 1, 1, 1, 2, &said), ERR_AGAIN);
        assert_in_range(clock_mono_us() - began, 0, 4 * SECOND);
    }
    expect(log, 0, 0, want, 1); /* the copy is there */
    own_kafka_again(1);
    until = clock_mono_us() + 60 * SECOND;
    do
        err = append(log, 0, 1, 1, 1, 2, &said);
    while (err == ERR_AGAIN && clock_mono_us() < until);
    assert_int_equal(err, ERR_OK);
    MUST(append(log, 0, 2, 1, 1, 3, why));
    do
        err = verdictlog_follow(log, 0, 0, &said);
    while (err == ERR_AGAIN && clock_mono_us() < until);
    assert_int_equal(err, ERR_OK);
    expect(log, 0, 0, want, 3);
    verdictlog_close(&log);
}

/* --- many at once --- */

struct crowd {
    struct verdictlog *log;
    uint32_t partition;
};

static void *
append_many(void *arg)
{
    struct crowd *crowd = arg;

    for (uint64_t i = 0; i < 200; i++) {
        uint64_t verdict = 1000 + i;
        struct verdictlog_block block = {crowd->partition, i, 1, &verdict, 1};

        MUST(verdictlog_append(crowd->log, &block, 1, why));
        if (i % 20 == 0)
            MUST(verdictlog_follow(crowd->log, crowd->partition, 0, why));
        if (i % 50 == 49)
            verdictlog_leave(crowd->log, crowd->partition);
    }
    MUST(verdictlog_follow(crowd->log, crowd->partition, 0, why));
    return NULL;
}

static void
many_append_and_follow_at_once(void **state)
{
    struct verdictlog *log = log_open("a");
    struct crowd crowd[P];
    pthread_t threads[P];

    (void)state;
    for (uint32_t p = 0; p < P; p++) {
        crowd[p] = (struct crowd){log, p};
        assert_int_equal(pthread_create(&threads[p], NULL, append_many, &crowd[p]),
                         0);
    }
    for (uint32_t p = 0; p < P; p++) {
        uint64_t got[200];

        assert_int_equal(pthread_join(threads[p], NULL), 0);
        MUST(verdictlog_read(log, p, 0, 200, got, why));
        for (uint64_t i = 0; i < 200; i++)
            assert_int_equal(got[i], 1000 + i);
    }
    verdictlog_close(&log);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(the_highest_epoch_of_two_writers_wins_in_every_copy),
        TEST(the_same_again_and_longer_again_is_no_conflict),
        TEST(a_reopened_copy_goes_on_and_a_deleted_one_is_made_again),
        TEST(a_copy_of_another_log_or_of_another_start_of_the_machine_is_emptied),
        TEST(a_second_process_is_refused_the_same_copy),
        TEST(a_partition_that_was_left_has_no_holes_afterwards),
        TEST(damaged_messages_are_skipped),
        TEST(the_largest_blocks_go_and_wrong_ones_are_refused),
        TEST(brokers_that_are_away_are_an_error_to_try_again),
        TEST(a_broker_that_was_killed_is_waited_for_and_followed_on),
        TEST(many_append_and_follow_at_once),
    };

    own_kafka_start(1);
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

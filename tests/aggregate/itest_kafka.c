/* Over Kafka: whoever counts a partition, and however often its records come, rows are what
 * the recorded verdicts say. Needs a broker (CLICKLEDGER_TEST_KAFKA); Redis is the test's
 * own. */
#define _DEFAULT_SOURCE
#include "model.h"
#include "rig.h"
#include "rig_kafka.h"

static int
setup(void **state)
{
    struct kafka_rig *k = calloc(1, sizeof(*k));

    assert_non_null(k);
    srand(1);
    kafka_rig_open(k);
    *state = k;
    return 0;
}

static int
teardown(void **state)
{
    kafka_rig_close(*state);
    free(*state);
    return 0;
}

static void
expect(struct kafka_rig *k)
{
    rig_settle(&k->rig);
    verdicts_follow(k);
    rig_expect(&k->rig);
}

static void
test_two_processes_share_the_partitions_and_hand_them_over(void **state)
{
    struct kafka_rig *k = *state;
    struct process one, two;

    process_start(k, &one, 1, NULL);
    process_wait(&one, PARTITIONS);
    for (int i = 0; i < 5; i++)
        kafka_post(k, 700);
    expect(k);
    process_start(k, &two, 2, NULL);
    for (int i = 0; i < 30; i++) { /* clicks while partitions move */
        kafka_post(k, 300);
        clock_sleep_us(100000);
    }
    process_wait(&two, PARTITIONS / 2);
    process_wait(&one, PARTITIONS / 2);
    expect(k);
    assert_true(process_told(&one, " let-go whoever has it next counts on from "
                                   "offset ") >= PARTITIONS);
    assert_int_equal(process_told(&two, " resume "), PARTITIONS / 2);
    kafka_post(k, 1000);
    process_stop(&one);
    kafka_post(k, 1000);
    process_wait(&two, PARTITIONS);
    kafka_post(k, 300);
    expect(k);
    for (uint32_t p = 0; p < PARTITIONS; p++)
        assert_int_equal(aggregate_flushed(two.aggregate, p), k->rig.end[p]);
    process_stop(&two);
}

static void
test_all_processes_away_and_back_go_on_where_they_were(void **state)
{
    struct kafka_rig *k = *state;
    struct process one;
    char before[128], after[128];

    process_start(k, &one, 1, NULL);
    kafka_post(k, 2000);
    expect(k);
    owner_field(&k->rig, 0, "generation", before);
    process_stop(&one);
    kafka_post(k, 2000);
    process_start(k, &one, 2, NULL); /* its copy of the verdicts is empty */
    kafka_post(k, 500);
    expect(k);
    owner_field(&k->rig, 0, "generation", after);
    assert_string_equal(before, after);
    process_stop(&one);
}

/* Redis came back from a copy that a claim had not reached: nobody gets its epoch again. */
static void
test_a_claim_that_redis_forgot_is_never_repeated(void **state)
{
    struct kafka_rig *k = *state;
    uint64_t last[PARTITIONS] = {0};
    struct process one;

    for (int round = 0; round < 3; round++) {
        uint64_t began_us = (uint64_t)clock_now_us();

        process_start(k, &one, round % 2 + 1, NULL);
        kafka_post(k, 500); /* to every partition */
        rig_settle(&k->rig);
        process_stop(&one);
        for (uint32_t p = 0; p < PARTITIONS; p++) {
            char text[128];
            uint64_t epoch;

            owner_field(&k->rig, p, "epoch", text);
            epoch = strtoull(text, NULL, 10);
            assert_true(epoch >= began_us && epoch > last[p]);
            last[p] = epoch;
            (void)snprintf(text, sizeof(text), "{p%u}:owner", p);
            tell(&k->rig, "HDEL", text, "epoch", NULL);
        }
    }
}

static void
test_a_wiped_redis_is_filled_from_the_topic_and_all_verdicts(void **state)
{
    struct kafka_rig *k = *state;
    struct process one, two;

    process_start(k, &one, 1, NULL);
    kafka_post(k, 2000);
    rig_settle(&k->rig);
    process_stop(&one);
    process_start(k, &two, 2, NULL);
    kafka_post(k, 2000);
    expect(k);
    tell(&k->rig, "FLUSHALL", NULL, NULL, NULL);
    clock_sleep_us(1500000);
    expect(k);
    assert_true(process_told(&two, " rebuild redis has no record") > 0);
    kafka_post(k, 500);
    expect(k);
    process_stop(&two);
}

static void
test_records_that_come_again_count_once(void **state)
{
    struct kafka_rig *k = *state;
    struct process one;

    process_start(k, &one, 1, NULL);
    kafka_post(k, 1000);
    for (uint32_t p = 0; p < PARTITIONS; p++)
        relay(k, p, k->rig.sent[p] / 3, k->rig.sent[p]);
    kafka_post(k, 1000);
    expect(k);
    process_stop(&one);
    for (uint32_t p = 0; p < PARTITIONS; p++)
        relay(k, p, 0, k->rig.sent[p]);
    kafka_post(k, 500);
    process_start(k, &one, 1, NULL);
    expect(k);
    process_stop(&one);
}

/* Two groups: each thinks that all partitions are its own, as one that was cut off for
 * long does. */
static void
test_a_zombie_is_fenced_once_and_its_verdicts_never_count(void **state)
{
    struct kafka_rig *k = *state;
    struct verdict honeypot = {.kind = VERDICT_INVALID, .reason = REASON_honeypot};
    uint64_t verdicts[5000];
    struct process zombie, heir;
    struct why why = {""};

    process_start(k, &zombie, 1, NULL);
    kafka_post(k, 1000);
    expect(k);
    process_start(k, &heir, 2, "heirs-");
    process_wait(&heir, PARTITIONS);
    for (int i = 0; i < 10; i++) {
        kafka_post(k, 300);
        clock_sleep_us(100000);
    }
    clock_sleep_us(1500000);
    expect(k);
    assert_int_equal(process_told(&zombie, " fenced "), PARTITIONS);
    assert_int_equal(process_told(&heir, " fenced "), 0);
    /* And what it would still have in its pocket. */
    for (size_t i = 0; i < 5000; i++)
        verdicts[i] = verdict_pack(&honeypot);
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        struct verdictlog_block block = {p, 0, 1, verdicts,
                                         (uint32_t)k->rig.end[p]};

        assert_true(block.count < 5000);
        must(verdictlog_append(zombie.verdicts, &block, 1, &why), &why);
    }
    process_stop(&zombie);
    kafka_post(k, 300);
    expect(k);
    tell(&k->rig, "FLUSHALL", NULL, NULL, NULL);
    clock_sleep_us(1500000);
    expect(k);
    process_stop(&heir);
}

static void
test_a_gap_stands_still_until_the_clicks_are_sent_again(void **state)
{
    struct kafka_rig *k = *state;
    struct process one, two;
    uint64_t before, lost;

    process_start(k, &one, 1, NULL);
    kafka_post(k, 1000);
    expect(k);
    before = k->rig.end[3];
    rig_post(&k->rig, 1000);
    lost = k->rig.sent[3];
    k->rig.sent[3] += 20; /* never reach the topic */
    relay_new(k);
    clock_sleep_us(3000000);
    assert_int_equal(aggregate_flushed(one.aggregate, 3), before);
    assert_int_equal(process_told(&one, " gap "), 1);
    kafka_post(k, 300);
    /* `relay rewind`: from there on all comes again, then what is new. */
    for (uint64_t i = lost; i < k->rig.sent[3]; i++)
        k->rig.at[3][i] = UINT64_MAX;
    relay(k, 3, lost, k->rig.sent[3]);
    kafka_post(k, 300);
    expect(k);
    assert_int_equal(process_told(&one, " gap-mended "), 1);
    process_stop(&one);
    /* A rebuild comes by the same hole, and gets over it. */
    tell(&k->rig, "FLUSHALL", NULL, NULL, NULL);
    process_start(k, &two, 2, NULL);
    expect(k);
    process_stop(&two);
}

static void
test_a_lag_beyond_retention_stops_the_partition(void **state)
{
    struct kafka_rig *k = *state;
    struct metric *stalled =
        metric_gauge("clickledger_aggregate_stalled_partitions", NULL, "");
    struct process one;
    char offset[128], text[128];

    process_start(k, &one, 1, NULL);
    kafka_post(k, 1000);
    expect(k);
    owner_field(&k->rig, 3, "offset", offset);
    process_stop(&one);
    kafka_post(k, 1000);
    topic_cut(k, 3, k->rig.end[3] - 10);
    process_start(k, &one, 1, NULL);
    for (int i = 0; i < 3000 && metric_value(stalled) == 0; i++)
        clock_sleep_us(10000);
    clock_sleep_us(2500000); /* some tries later it is where it was */
    assert_int_equal(metric_value(stalled), 1);
    assert_int_equal(
        process_told(&one, "retention is shorter than the lag: partition 3"), 1);
    owner_field(&k->rig, 3, "offset", text);
    assert_string_equal(text, offset);
    owner_field(&k->rig, 0, "offset", text); /* the others go on */
    assert_int_equal(strtoul(text, NULL, 10), k->rig.end[0]);
    tell(&k->rig, "DEL", "{p3}:owner", NULL, NULL); /* as the message says */
    rig_settle(&k->rig);
    for (int i = 0; i < 1000 && metric_value(stalled) != 0; i++)
        clock_sleep_us(10000);
    assert_int_equal(metric_value(stalled), 0);
    process_stop(&one);
}

static void
test_what_is_no_click_stops_the_partition_with_its_offset(void **state)
{
    struct kafka_rig *k = *state;
    struct kafka_item item = {.value = STR("hello"), .timestamp_ms = 1};
    struct process one;
    struct why why = {""};
    size_t sent;
    char text[128];

    process_start(k, &one, 1, NULL);
    kafka_post(k, 1000);
    expect(k);
    must(kafka_send(k->producer, 3, &item, 1, &sent, &why), &why);
    must(kafka_flush(k->producer, 10000000, &why), &why);
    (void)snprintf(text, sizeof(text), "partition 3, offset %" PRIu64,
                   k->rig.end[3]);
    for (int i = 0; i < 1000 && process_told(&one, text) == 0; i++)
        clock_sleep_us(10000);
    assert_int_equal(process_told(&one, text), 1);
    process_stop(&one);
}

/* Of the last n clicks of each of a process's partitions, those past a rate. */
static unsigned
rated(struct kafka_rig *k, const struct process *process, uint64_t n)
{
    const uint32_t rates =
        REASON_BIT(address_minute_rate) | REASON_BIT(address_second_rate);
    unsigned found = 0;
    struct why why = {""};

    for (uint32_t p = 0; p < PARTITIONS; p++) {
        uint64_t from = k->rig.end[p] > n ? k->rig.end[p] - n : 0;

        if (clicklog_owned(process->log, p) == 0)
            continue;
        for (uint64_t o = from; o < k->rig.end[p]; o++) {
            uint64_t packed = 0;

            must(verdictlog_read(k->rig.verdicts, p, o, 1, &packed, &why), &why);
            found += (1U << verdict_unpack(packed).reason & rates) != 0;
        }
    }
    return found;
}

static void
test_an_address_is_hot_over_all_processes(void **state)
{
    struct kafka_rig *k = *state;
    struct metric *hot =
        metric_counter("clickledger_hot_addresses_total", NULL, "");
    int64_t before = metric_value(hot);
    struct process one, two;

    k->rig.known_only = true;
    process_start(k, &one, 1, NULL);
    process_start(k, &two, 2, NULL);
    process_wait(&one, PARTITIONS / 2);
    process_wait(&two, PARTITIONS / 2);
    clock_sleep_us(1000000);
    kafka_post(k, 100);
    rig_settle(&k->rig);
    k->rig.hot_ip = (struct str){"\x09\x08\x07\x06", 4};
    /* Event times lie in ten minutes: about 1000 / 10 / 2 a minute in each process. */
    kafka_post(k, 1400);
    rig_settle(&k->rig);
    for (int i = 0; i < 500 && metric_value(hot) == before; i++)
        clock_sleep_us(10000);
    assert_true(metric_value(hot) > before);
    clock_sleep_us(500000);
    kafka_post(k, 200);
    expect(k);
    /* The first has a third of the clicks, far below a limit: it was told. Half of them
     * have another reason, before this one. */
    assert_true(rated(k, &one, 40) > 5);
    assert_true(rated(k, &two, 40) > 5);
    process_stop(&one);
    process_stop(&two);
}

int
main(int argc, char **argv)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_two_processes_share_the_partitions_and_hand_them_over),
        T(test_all_processes_away_and_back_go_on_where_they_were),
        T(test_a_claim_that_redis_forgot_is_never_repeated),
        T(test_a_wiped_redis_is_filled_from_the_topic_and_all_verdicts),
        T(test_records_that_come_again_count_once),
        T(test_a_zombie_is_fenced_once_and_its_verdicts_never_count),
        T(test_a_gap_stands_still_until_the_clicks_are_sent_again),
        T(test_a_lag_beyond_retention_stops_the_partition),
        T(test_what_is_no_click_stops_the_partition_with_its_offset),
        T(test_an_address_is_hot_over_all_processes),
    };
#undef T

    if (getenv("CLICKLEDGER_TEST_KAFKA") == NULL) {
        printf("skipped: no broker (CLICKLEDGER_TEST_KAFKA is not set)\n");
        return 77;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    if (argc > 1) /* one of them, by a pattern */
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

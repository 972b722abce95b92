/* Whatever happens to Redis or to us, its rows become again what the recorded verdicts
 * say. The test runs a Redis of its own, so that it may kill it. */
#define _DEFAULT_SOURCE
#include "model.h"
#include "rig.h"

#include "schema/avrofile.h"
#include "schema/manifest.h"

static int
setup(void **state)
{
    struct rig *rig = calloc(1, sizeof(*rig));

    assert_non_null(rig);
    srand(1);
    rig_open(rig);
    *state = rig;
    return 0;
}

static int
teardown(void **state)
{
    rig_close(*state);
    free(*state);
    return 0;
}

static void
test_rows_are_what_the_recorded_verdicts_say(void **state)
{
    struct rig *rig = *state;

    for (int i = 0; i < 5; i++) {
        rig_post(rig, 700);
        clock_sleep_us(30000);
    }
    rig_expect(rig);
    for (uint32_t p = 0; p < PARTITIONS; p++)
        assert_int_equal(aggregate_flushed(rig->aggregate, p), log_next(rig, p));
}

/* Billable clicks of a partition's known campaigns since a step, by the log. */
static int64_t
live_wanted(struct rig *rig, uint32_t p, int64_t since_ms)
{
    struct clicklog_reader *reader;
    struct clicklog_record record;
    struct why why = {""};
    int64_t n = 0;

    must(clicklog_reader_open(&reader, rig->log, &why), &why);
    must(clicklog_seek(reader, p, 0, &why), &why);
    while (clicklog_next(reader, &record, &why) == ERR_OK) {
        struct click click;
        uint64_t packed;

        must(click_decode(&click, record.p, record.n, record.version, NULL, &why),
             &why);
        must(verdictlog_read(rig->verdicts, p, record.offset, 1, &packed, &why),
             &why);
        n += click.timestamp_ms >= since_ms &&
             verdict_is_billable((enum verdict_kind)verdict_unpack(packed).kind);
    }
    clicklog_reader_close(&reader);
    return n;
}

static void
test_the_last_minutes_stand_in_their_rings(void **state)
{
    struct rig *rig = *state;
    int64_t since_ms = clock_floor(clock_now_us() / 1000 - 280000, 10000), got = 0,
            want = 0;

    rig_post(rig, 2000);
    rig_settle(rig);
    aggregate_stop(&rig->aggregate); /* the second half goes on in the same steps */
    rig_aggregate(rig, &rig->aggregate);
    rig_post(rig, 2000);
    rig_settle(rig);
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        char pattern[64];
        struct redis_reply *keys, *ring;

        want += live_wanted(rig, p, since_ms);
        (void)snprintf(pattern, sizeof(pattern), "{p%u}:1:live:*", p);
        keys = ask(rig, "KEYS", pattern, NULL, NULL);
        for (size_t i = 0; i < keys->count; i++) {
            (void)snprintf(pattern, sizeof(pattern), "%.*s",
                           (int)keys->items[i]->text.n, keys->items[i]->text.p);
            ring = ask(rig, "HVALS", pattern, NULL, NULL);
            for (size_t k = 0; k < ring->count; k++) {
                int64_t step[3];

                assert_true(numbers_parse(ring->items[k]->text, step, 3));
                got += step[0] * 1000 >= since_ms ? step[1] : 0;
            }
            redis_reply_free(&ring);
        }
        redis_reply_free(&keys);
    }
    assert_true(want > 0);
    assert_int_equal(got, want);
}

static void
test_a_restart_goes_on_where_it_was(void **state)
{
    struct rig *rig = *state;
    char before[128], after[128];

    rig_post(rig, 1000);
    rig_settle(rig);
    owner_field(rig, 0, "generation", before);
    aggregate_stop(&rig->aggregate);
    rig_post(rig, 1000);
    rig_aggregate(rig, &rig->aggregate);
    rig_post(rig, 500);
    rig_expect(rig);
    owner_field(rig, 0, "generation", after);
    assert_string_equal(before, after);
    assert_true(rig_told(rig, " resume "));
}

static void
test_a_wiped_redis_is_filled_again(void **state)
{
    struct rig *rig = *state;

    rig_post(rig, 1000);
    rig_settle(rig);
    server_kill(rig);
    rig_post(rig, 1000);
    clock_sleep_us(300000);
    server_start(rig);
    rig_post(rig, 300);
    rig_expect(rig);
    tell(rig, "FLUSHALL", NULL, NULL,
         NULL); /* and without a word, while nobody clicks */
    clock_sleep_us(1500000);
    rig_expect(rig);
    assert_true(rig_told(rig, " rebuild redis has no record"));
}

static void
test_a_redis_restored_from_an_older_snapshot_catches_up(void **state)
{
    struct rig *rig = *state;
    char dump[200], kept[200];

    (void)snprintf(dump, sizeof(dump), "%s/dump.rdb", rig->dir);
    (void)snprintf(kept, sizeof(kept), "%s/kept.rdb", rig->dir);
    rig_post(rig, 1000);
    rig_settle(rig);
    tell(rig, "SAVE", NULL, NULL, NULL);
    copy_file(dump, kept);
    rig_post(rig, 1000);
    rig_settle(rig);
    server_kill(rig);
    copy_file(kept, dump);
    server_start(rig);
    rig_expect(rig);
    assert_true(rig_told(rig, " rolled-back "));
    /* The same while we are away, with verdicts on record that Redis never saw. */
    rig_post(rig, 500);
    rig_settle(rig);
    aggregate_stop(&rig->aggregate);
    server_kill(rig);
    copy_file(kept, dump);
    server_start(rig);
    rig_aggregate(rig, &rig->aggregate);
    rig_expect(rig);
}

static void
test_a_flush_that_fails_half_way_is_a_rebuild(void **state)
{
    struct rig *rig = *state;
    struct redis_reply *keys;
    char key[REDISKEY_MAX];

    rig_post(rig, 1000);
    rig_settle(rig);
    keys = ask(rig, "KEYS", "*:1d:camp-*", NULL, NULL);
    assert_true(keys->count > 0);
    for (size_t i = 0; i < keys->count; i++) {
        (void)snprintf(key, sizeof(key), "%.*s", (int)keys->items[i]->text.n,
                       keys->items[i]->text.p);
        if (strstr(key, "hll") == NULL)
            tell(rig, "SET", key, "no hash", NULL);
    }
    redis_reply_free(&keys);
    rig_post(rig, 1000);
    rig_expect(rig);
    assert_true(rig_told(rig, " rebuild it is marked dirty"));
    /* What the first generation left is removed some seconds after the switch. */
    for (int i = 0; i < 200; i++) {
        size_t left;

        keys = ask(rig, "KEYS", "{p*}:1:*", NULL, NULL);
        left = keys->count;
        redis_reply_free(&keys);
        if (left == 0)
            return;
        clock_sleep_us(100000);
    }
    fail_msg("the old generation stays");
}

/* One row, while we hold it: the flush fails inside EXEC, its other commands are done. */
static void
test_a_row_of_another_type_is_a_rebuild_of_its_partition_alone(void **state)
{
    struct rig *rig = *state;
    char key[REDISKEY_MAX + 1], before[PARTITIONS][128], after[128];
    struct redis_reply *keys;
    uint32_t hit;

    rig_post(rig, 1000);
    rig_settle(rig);
    for (uint32_t p = 0; p < PARTITIONS; p++)
        owner_field(rig, p, "generation", before[p]);
    keys = ask(rig, "KEYS", "{p*}:1:1d:camp-0:*", NULL, NULL);
    assert_true(keys->count > 0);
    (void)snprintf(key, sizeof(key), "%s", keys->items[0]->text.p);
    redis_reply_free(&keys);
    hit = (uint32_t)strtoul(key + 2, NULL, 10);
    tell(rig, "DEL", key, NULL, NULL);
    tell(rig, "SET", key, "no hash", NULL);
    rig_post(rig, 1000);
    rig_expect(rig);
    assert_true(rig_told(rig, " damaged "));
    assert_true(rig_told(rig, "WRONGTYPE"));
    assert_true(rig_told(rig, " rebuild it is marked dirty"));
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        owner_field(rig, p, "generation", after);
        if ((strcmp(before[p], after) != 0) != (p == hit))
            fail_msg("partition %u was hit; partition %u had generation %s, has %s",
                     hit, p, before[p], after);
    }
}

static void
test_a_full_redis_is_waited_for(void **state)
{
    struct rig *rig = *state;

    rig_post(rig, 500);
    rig_settle(rig);
    tell(rig, "CONFIG", "SET", "maxmemory", "1");
    rig_post(rig, 1000);
    clock_sleep_us(500000);
    tell(rig, "CONFIG", "SET", "maxmemory", "0");
    rig_expect(rig);
}

/* Blocks with a higher epoch than ours win, and a new owner's epoch is above theirs. */
static void
test_recorded_verdicts_are_taken_whatever_the_rules_say_now(void **state)
{
    struct rig *rig = *state;
    struct verdict honeypot = {.kind = VERDICT_INVALID, .reason = REASON_honeypot};
    uint64_t verdicts[2000], at[PARTITIONS];
    struct why why = {""};
    char epoch[128];

    rig_post(rig, 500);
    rig_settle(rig);
    for (uint32_t p = 0; p < PARTITIONS; p++)
        at[p] = log_next(rig, p);
    aggregate_stop(&rig->aggregate);
    /* A judged click of a campaign that is not in the master data here would wait. */
    rig->known_only = true;
    rig_post(rig, 500);
    for (size_t i = 0; i < 2000; i++)
        verdicts[i] = verdict_pack(&honeypot);
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        struct verdictlog_block block = {p, at[p], 1000, verdicts,
                                         (uint32_t)(log_next(rig, p) - at[p])};

        if (block.count > 0)
            must(verdictlog_append(rig->verdicts, &block, 1, &why), &why);
    }
    rig_aggregate(rig, &rig->aggregate);
    rig_settle(rig);
    rig_expect(rig);
    owner_field(rig, 0, "epoch", epoch);
    assert_true(strtoul(epoch, NULL, 10) > 1000);
}

static void
test_a_zombie_is_fenced(void **state)
{
    struct rig *rig = *state;
    struct aggregate *other = NULL;

    rig_post(rig, 500);
    rig_settle(rig);
    rig_aggregate(rig, &other);
    clock_sleep_us(200000);
    for (int i = 0; i < 5; i++) {
        rig_post(rig, 300);
        clock_sleep_us(50000);
    }
    rig_expect(rig);
    clock_sleep_us(1200000);
    assert_true(rig_told(rig, " fenced "));
    rig_post(rig, 300);
    rig_expect(rig);
    aggregate_stop(&rig->aggregate);
    rig->aggregate = other;
    rig_post(rig, 300);
    rig_expect(rig);
}

static void
test_a_gap_stops_the_partition_until_it_is_mended(void **state)
{
    struct rig *rig = *state;
    char key[REDISKEY_MAX + 1], seqs[128], broken[160], *last;
    uint64_t before;

    rig_post(rig, 500);
    rig_settle(rig);
    before = log_next(rig, 0);
    aggregate_stop(&rig->aggregate);
    key[rediskey_owner(key, 0)] = '\0';
    owner_field(rig, 0, "seqs", seqs);
    last = strrchr(seqs, ':') + 1;
    (void)snprintf(broken, sizeof(broken), "%.*s%lu", (int)(last - seqs), seqs,
                   strtoul(last, NULL, 10) - 5);
    tell(rig, "HSET", key, "seqs", broken);
    rig_aggregate(rig, &rig->aggregate);
    rig_post(rig, 500);
    clock_sleep_us(2500000);
    assert_int_equal(aggregate_flushed(rig->aggregate, 0), before);
    assert_true(rig_told(rig, " gap "));
    tell(rig, "HSET", key, "dirty", "1"); /* the operator: build it anew */
    rig_expect(rig);
}

/* One file a partition, as the archive would list it. */
static void
archive_partition(struct rig *rig, uint32_t p)
{
    struct manifest_writer *writer = NULL;
    struct avrofile_writer *file = NULL;
    struct clicklog_reader *reader = NULL;
    struct clicklog_record record;
    struct manifest_file listed = {.partition = p};
    char incs[MANIFEST_INCS_MAX], path[400];
    uint64_t next = 0;
    struct why why = {""};

    (void)snprintf(listed.path, sizeof(listed.path), "part-%u.avro", p);
    (void)snprintf(path, sizeof(path), "%s/%s", rig->archive, listed.path);
    must(manifest_writer_open(&writer, rig->archive, p, &next, incs, &why), &why);
    must(avrofile_create(&file, path, click_schema(CLICK_VERSION), AVROFILE_SNAPPY,
                         NULL, 0, &why),
         &why);
    must(clicklog_reader_open(&reader, rig->log, &why), &why);
    must(clicklog_seek(reader, p, 0, &why), &why);
    while (clicklog_next(reader, &record, &why) == ERR_OK) {
        must(avrofile_add(file, record.p, record.n, &why), &why);
        if (listed.clicks++ == 0)
            listed.first_received_us = record.received_us;
        listed.last_received_us = record.received_us;
        listed.last = record.offset;
    }
    clicklog_reader_close(&reader);
    listed.bytes = avrofile_bytes(file);
    must(avrofile_finish(&file, NULL, listed.sha256, &why), &why);
    must(manifest_add(writer, &listed, "0:0", &why), &why);
    manifest_writer_close(&writer);
}

/* The whole model needs the log, so here the totals alone are compared. */
static int64_t
clicks_in_days(struct rig *rig)
{
    struct redis_reply *sum = ask(
        rig, "EVAL",
        "local n = 0 for _, k in ipairs(redis.call('KEYS', '*:1d:camp-*')) do\n"
        "if not string.find(k, 'hll') then local p = string.match(k, '^{p%d+}')\n"
        "local g = redis.call('HGET', p .. ':owner', 'generation')\n"
        "if string.find(k, p .. ':' .. g .. ':1d:', 1, true) then\n"
        "for v in string.gmatch(redis.call('HGET', k, 't'), '%d+') do n = n + v "
        "end\n"
        "end end end return n",
        "0", NULL);
    int64_t n = sum->integer;

    redis_reply_free(&sum);
    return n;
}

static void
test_what_the_log_no_longer_has_comes_from_the_archive(void **state)
{
    struct rig *rig = *state;
    struct why why = {""};
    uint64_t first, next;
    int64_t before;

    for (int i = 0; i < 6; i++)
        rig_post(rig, 2500);
    rig_expect(rig);
    before = clicks_in_days(rig);
    assert_true(before > 0);
    aggregate_stop(&rig->aggregate);
    must(file_mkdirs(rig->archive, &why), &why);
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        if (log_next(rig, p) == 0)
            continue;
        archive_partition(rig, p);
        must(clicklog_trim(rig->log, p, log_next(rig, p) / 2, &why), &why);
        must(clicklog_range(rig->log, p, &first, &next, &why), &why);
        assert_true(first > 0 && first < next);
    }
    tell(rig, "FLUSHALL", NULL, NULL, NULL);
    rig_aggregate(rig, &rig->aggregate);
    rig_settle(rig);
    assert_int_equal(clicks_in_days(rig), before);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_rows_are_what_the_recorded_verdicts_say),
        T(test_the_last_minutes_stand_in_their_rings),
        T(test_a_restart_goes_on_where_it_was),
        T(test_a_wiped_redis_is_filled_again),
        T(test_a_redis_restored_from_an_older_snapshot_catches_up),
        T(test_a_flush_that_fails_half_way_is_a_rebuild),
        T(test_a_row_of_another_type_is_a_rebuild_of_its_partition_alone),
        T(test_a_full_redis_is_waited_for),
        T(test_recorded_verdicts_are_taken_whatever_the_rules_say_now),
        T(test_a_zombie_is_fenced),
        T(test_a_gap_stops_the_partition_until_it_is_mended),
        T(test_what_the_log_no_longer_has_comes_from_the_archive),
    };
#undef T

    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

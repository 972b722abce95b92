#include "common/clicklog.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "tests/common/clicklog_fixture.h"

static const int64_t T0 = INT64_C(1795000000000000) / CLOCK_HOUR_US * CLOCK_HOUR_US;

static struct clicklog_entry
entry_of(uint32_t partition, const char *campaign, const char *body)
{
    return (struct clicklog_entry){
        .account = 7,
        .campaign = str_of(campaign),
        .event_ms = T0 / 1000,
        .partition = partition,
        .version = 2,
        .body = str_of(body),
    };
}

static struct clicklog *
log_open(const struct clicklog_config *cfg)
{
    struct clicklog *log;

    MUST(clicklog_open(&log, cfg, why));
    return log;
}

static void
range_is(struct clicklog *log, uint32_t partition, uint64_t first, uint64_t next)
{
    uint64_t got_first, got_next;

    MUST(clicklog_range(log, partition, &got_first, &got_next, why));
    assert_int_equal(got_first, first);
    assert_int_equal(got_next, next);
}

static void
what_is_appended_is_read_in_order(void **unused)
{
    struct folder folder = folder_make();
    struct clicklog_config cfg = config_of(&folder, 4);
    struct clicklog *log = log_open(&cfg);
    struct clicklog_reader *reader;
    struct clicklog_entry entries[] = {entry_of(3, "c1", "one"),
                                       entry_of(0, "c2", "two"),
                                       entry_of(3, "c1", "three")};
    struct clicklog_record record;
    int64_t received;

    (void)unused;
    MUST(clicklog_append(log, entries, 3, T0, &received, why));
    assert_int_equal(received, T0);
    range_is(log, 3, 0, 2);
    range_is(log, 0, 0, 1);
    range_is(log, 1, 0, 0);
    MUST(clicklog_reader_open(&reader, log, why));
    MUST(clicklog_seek(reader, 3, 0, why));
    MUST(clicklog_next(reader, &record, why));
    assert_int_equal(record.version, 2);
    assert_true(str_equal(record_body(&record, 3), STR("one")));
    MUST(clicklog_next(reader, &record, why));
    assert_int_equal(record.offset, 1);
    assert_int_equal(record.seq, 1);
    assert_true(str_equal(record_body(&record, 3), STR("three")));
    assert_int_equal(clicklog_next(reader, &record, NULL), ERR_AGAIN);
    MUST(clicklog_seek(reader, 3, 1, why)); /* into the middle of a block */
    MUST(clicklog_next(reader, &record, why));
    assert_true(str_equal(record_body(&record, 3), STR("three")));
    MUST(clicklog_seek(reader, 1, 0, why)); /* empty */
    assert_int_equal(clicklog_next(reader, &record, NULL), ERR_AGAIN);
    assert_int_equal(clicklog_seek(reader, 3, 3, NULL), ERR_NOTFOUND);
    assert_int_equal(clicklog_next(reader, &record, NULL), ERR_AGAIN);
    clicklog_reader_close(&reader);
    clicklog_close(&log);
    folder_remove(&folder);
}

static void
received_time_is_later_than_every_earlier_group_even_when_the_clock_steps_back(
    void **unused)
{
    struct folder folder = folder_make();
    struct clicklog_config cfg = config_of(&folder, 1);
    struct clicklog *log = log_open(&cfg);
    struct clicklog_entry entry = entry_of(0, "c", "x");
    struct clicklog_stats stats;
    int64_t a, b, c, d;

    (void)unused;
    MUST(clicklog_append(log, &entry, 1, T0, &a, why));
    MUST(clicklog_append(log, &entry, 1, T0 - 5000000, &b, why));
    assert_int_equal(b, a + 1);
    MUST(clicklog_append(log, NULL, 0, T0 + 100, NULL, why)); /* a heartbeat */
    clicklog_stats_get(log, &stats);
    assert_int_equal(stats.floor_us, T0 + 100);
    assert_int_equal(stats.groups, 2);
    clicklog_close(&log);
    log = log_open(&cfg);
    MUST(clicklog_append(log, &entry, 1, 1000, &c, why));
    assert_int_equal(c, T0 + 100);
    MUST(clicklog_append(log, NULL, 0, 1000, NULL, why));
    MUST(clicklog_append(log, &entry, 1, 1000, &d, why));
    assert_int_equal(d, T0 + 101);
    clicklog_stats_get(log, &stats);
    assert_int_equal(stats.floor_us, d + 1);
    clicklog_close(&log);
    folder_remove(&folder);
}

static void
each_open_is_an_incarnation_whose_seqs_start_at_0_while_offsets_go_on(void **unused)
{
    struct folder folder = folder_make();
    struct clicklog_config cfg = config_of(&folder, 2);
    struct clicklog_entry entry = entry_of(1, "c", "x");
    struct clicklog_reader *reader;
    struct clicklog_record record;
    struct clicklog_stats stats;
    uint64_t incarnations[300], spool = 0;
    struct clicklog *log;

    (void)unused;
    for (int i = 0; i < 300; i++) {
        log = log_open(&cfg);
        clicklog_stats_get(log, &stats);
        assert_true(i == 0 || stats.spool_id == spool);
        spool = stats.spool_id;
        incarnations[i] = stats.incarnation;
        MUST(clicklog_append(log, &entry, 1, T0 + i, NULL, why));
        MUST(clicklog_append(log, &entry, 1, T0 + i, NULL, why));
        clicklog_close(&log);
    }
    cfg.read_only = true;
    log = log_open(&cfg);
    MUST(clicklog_reader_open(&reader, log, why));
    MUST(clicklog_seek(reader, 1, 0, why));
    for (uint64_t i = 0; i < 600; i++) {
        MUST(clicklog_next(reader, &record, why));
        assert_int_equal(record.offset, i);
        assert_int_equal(record.incarnation, incarnations[i / 2]);
        assert_int_equal(record.seq, i % 2);
        (void)record_body(&record, 1);
    }
    clicklog_reader_close(&reader);
    clicklog_close(&log);
    folder_remove(&folder);
}

static void
large_groups_are_cut_into_blocks_and_by_schema_version(void **unused)
{
    enum { N = 3000 };
    struct folder folder = folder_make();
    struct clicklog_config cfg = config_of(&folder, 2);
    struct clicklog *log = log_open(&cfg);
    struct clicklog_entry *entries = calloc(N, sizeof(*entries));
    char *body = calloc(1, 60000);
    struct clicklog_reader *reader;
    struct clicklog_record record;

    (void)unused;
    for (int i = 0; i < N; i++) {
        entries[i] = entry_of((uint32_t)(i % 2), "c", "");
        entries[i].version = (uint16_t)(i / 2 % 7 == 0 ? 1 : 2);
        entries[i].body = (struct str){body, (uint32_t)(i * 20)};
    }
    MUST(clicklog_append(log, entries, N, T0, NULL, why));
    MUST(clicklog_reader_open(&reader, log, why));
    for (uint32_t p = 0; p < 2; p++) {
        MUST(clicklog_seek(reader, p, 0, why));
        for (uint32_t i = p; i < N; i += 2) {
            MUST(clicklog_next(reader, &record, why));
            assert_int_equal(record_body(&record, p).n, i * 20);
            assert_int_equal(record.version, i / 2 % 7 == 0 ? 1 : 2);
        }
        assert_int_equal(clicklog_next(reader, &record, NULL), ERR_AGAIN);
    }
    /* Trimming removes whole blocks only, from the front. */
    uint64_t first, next;
    MUST(clicklog_trim(log, 0, 701, why));
    MUST(clicklog_range(log, 0, &first, &next, why));
    assert_true(first > 0 && first <= 701);
    assert_int_equal(next, N / 2);
    assert_int_equal(clicklog_seek(reader, 0, first - 1, NULL), ERR_NOTFOUND);
    MUST(clicklog_seek(reader, 0, first, why));
    MUST(clicklog_next(reader, &record, why));
    assert_int_equal(record_body(&record, 0).n, first * 40);
    clicklog_reader_close(&reader);
    clicklog_close(&log);
    free(entries);
    free(body);
    folder_remove(&folder);
}

static void
a_trimmed_log_counts_its_bytes_down_to_nothing_and_keeps_its_offsets(void **unused)
{
    struct folder folder = folder_make();
    struct clicklog_config cfg = config_of(&folder, 2);
    struct clicklog *log = log_open(&cfg);
    struct clicklog_entry entry = entry_of(1, "c", "some body");
    struct clicklog_reader *reader;
    struct clicklog_record record;
    struct clicklog_stats stats;

    (void)unused;
    for (int i = 0; i < 3000; i++)
        MUST(clicklog_append(log, &entry, 1, T0, NULL, why));
    MUST(clicklog_trim(log, 1, 2999, why));
    range_is(log, 1, 2999, 3000);
    MUST(clicklog_trim(log, 1, 3000, why));
    MUST(clicklog_received_drop(log, T0 + CLOCK_HOUR_US, why));
    range_is(log, 1, 3000, 3000);
    clicklog_stats_get(log, &stats);
    assert_int_equal(stats.bytes_used, 0);
    clicklog_close(&log);
    log = log_open(&cfg);
    MUST(clicklog_append(log, &entry, 1, T0, NULL, why));
    range_is(log, 1, 3000, 3001);
    MUST(clicklog_reader_open(&reader, log, why));
    MUST(clicklog_seek(reader, 1, 3000, why));
    MUST(clicklog_next(reader, &record, why));
    assert_int_equal(record.seq, 0);
    assert_int_equal(clicklog_seek(reader, 1, 2999, NULL), ERR_NOTFOUND);
    clicklog_reader_close(&reader);
    clicklog_close(&log);
    folder_remove(&folder);
}

static void
past_its_limit_nothing_is_appended_until_it_is_trimmed(void **unused)
{
    struct folder folder = folder_make();
    struct clicklog_config cfg = config_of(&folder, 1);
    char body[1000] = {0};
    struct clicklog_entry entry = entry_of(0, "c", "");
    uint64_t first, next, full;
    struct clicklog *log;
    struct why told;
    enum err err;

    (void)unused;
    cfg.bytes_max = 1 << 20;
    entry.body = (struct str){body, sizeof(body)};
    log = log_open(&cfg);
    while ((err = clicklog_append(log, &entry, 1, T0, NULL, &told)) == ERR_OK)
        ;
    assert_int_equal(err, ERR_FULL);
    assert_non_null(strstr(told.text, "clicklog.bytes_max"));
    MUST(clicklog_range(log, 0, &first, &full, why));
    assert_true(full > 700);
    assert_int_equal(clicklog_append(log, &entry, 1, T0, NULL, NULL), ERR_FULL);
    MUST(clicklog_append(log, NULL, 0, T0, NULL, why)); /* heartbeats still pass */
    MUST(clicklog_range(log, 0, &first, &next, why));
    assert_int_equal(next, full);
    MUST(clicklog_trim(log, 0, 10, why));
    MUST(clicklog_append(log, &entry, 1, T0, NULL, why));
    range_is(log, 0, 10, full + 1);
    clicklog_close(&log);
    folder_remove(&folder);
}

static void
a_full_map_refuses_and_the_log_stays_usable(void **unused)
{
    struct folder folder = folder_make();
    struct clicklog_config cfg = config_of(&folder, 1);
    char *body = calloc(1, 40000);
    struct clicklog_entry entry = entry_of(0, "c", "");
    struct clicklog_stats stats;
    struct clicklog *log;
    uint64_t n = 0;
    enum err err;

    (void)unused;
    cfg.map_bytes = 1 << 20;
    entry.body = (struct str){body, 40000};
    log = log_open(&cfg);
    while ((err = clicklog_append(log, &entry, 1, T0, NULL, NULL)) == ERR_OK)
        n++;
    assert_int_equal(err, ERR_FULL);
    clicklog_stats_get(log, &stats);
    assert_false(stats.broken);
    MUST(clicklog_trim(log, 0, n, why));
    MUST(clicklog_append(log, NULL, 0, T0, NULL,
                         why)); /* pages are free a commit later */
    MUST(clicklog_append(log, &entry, 1, T0, NULL, why));
    range_is(log, 0, n, n + 1);
    clicklog_close(&log);
    free(body);
    folder_remove(&folder);
}

static void
bad_entries_and_configurations_are_refused_by_name(void **unused)
{
    struct folder folder = folder_make();
    struct clicklog_config cfg = config_of(&folder, 4);
    char big[CLICKLOG_RECORD_MAX] = {0}, campaign[300];
    struct clicklog_entry entry = entry_of(4, "c", "x");
    struct clicklog *log, *second;
    struct clicklog_stats stats;
    struct why told;

    (void)unused;
    cfg.partitions = 0;
    assert_int_equal(clicklog_open(&log, &cfg, &told), ERR_INVALID);
    cfg.partitions = CLICKLOG_PARTITIONS_MAX + 1;
    assert_int_equal(clicklog_open(&log, &cfg, &told), ERR_INVALID);
    cfg.partitions = 4;
    cfg.read_only = true;
    assert_int_equal(clicklog_open(&log, &cfg, &told), ERR_NOTFOUND);
    cfg.read_only = false;
    log = log_open(&cfg);
    assert_int_equal(clicklog_append(log, &entry, 1, T0, NULL, &told), ERR_INVALID);
    assert_non_null(strstr(told.text, "partition 4 of 4"));
    entry.partition = 0;
    entry.body = (struct str){big, sizeof(big)};
    assert_int_equal(clicklog_append(log, &entry, 1, T0, NULL, &told), ERR_INVALID);
    entry.body.n = CLICKLOG_RECORD_MAX - CLICKLOG_PREFIX_MAX;
    memset(campaign, 'c', sizeof(campaign));
    entry.campaign = (struct str){campaign, 256};
    assert_int_equal(clicklog_append(log, &entry, 1, T0, NULL, &told), ERR_INVALID);
    entry.campaign.n = 255;
    MUST(clicklog_append(log, &entry, 1, T0, NULL, why));
    assert_int_equal(clicklog_open(&second, &cfg, &told), ERR_CONFLICT);
    char pid[32];
    (void)snprintf(pid, sizeof(pid), "process %ld", (long)getpid());
    assert_non_null(strstr(told.text, pid));
    clicklog_stats_get(log, &stats);
    assert_int_equal(stats.records, 1);
    clicklog_close(&log);
    cfg.partitions = 8;
    assert_int_equal(clicklog_open(&log, &cfg, &told), ERR_INVALID);
    assert_non_null(strstr(told.text, "clicklog.partitions"));
    assert_null(log);
    folder_remove(&folder);
}

/* Overwrites some bytes of what is stored. */
static void
file_spoil(const struct folder *folder, const char *find, size_t n)
{
    char path[128];
    int fd;

    (void)snprintf(path, sizeof(path), "%s/data.mdb", folder->path);
    fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    off_t size = lseek(fd, 0, SEEK_END);
    char *all = malloc((size_t)size);
    assert_int_equal(pread(fd, all, (size_t)size, 0), size);
    for (off_t i = 0; i + (off_t)n <= size; i++)
        if (memcmp(all + i, find, n) == 0)
            assert_int_equal(pwrite(fd, "?", 1, i), 1);
    free(all);
    (void)close(fd);
}

static void
a_spoiled_byte_is_reported_with_partition_and_offset(void **unused)
{
    struct folder folder = folder_make();
    struct clicklog_config cfg = config_of(&folder, 4);
    struct clicklog *log = log_open(&cfg);
    struct clicklog_entry good = entry_of(2, "c", "untouched"),
                          bad = entry_of(2, "c", "SPOIL ME");
    struct clicklog_reader *reader;
    struct clicklog_record record;
    struct why told;

    (void)unused;
    MUST(clicklog_append(log, &good, 1, T0, NULL, why));
    MUST(clicklog_append(log, &bad, 1, T0, NULL, why));
    clicklog_close(&log);
    file_spoil(&folder, "SPOIL ME", 8);
    log = log_open(&cfg);
    MUST(clicklog_reader_open(&reader, log, why));
    MUST(clicklog_seek(reader, 2, 0, why));
    MUST(clicklog_next(reader, &record, why));
    assert_int_equal(clicklog_next(reader, &record, &told), ERR_CORRUPT);
    assert_non_null(strstr(told.text, "partition 2, offset 1"));
    clicklog_reader_close(&reader);
    clicklog_close(&log);
    folder_remove(&folder);
}

/* A child appends without end; parent reads along, kills it, and opens anew. */
static void
another_process_reads_along_and_a_killed_writer_leaves_a_whole_log(void **unused)
{
    struct folder folder = folder_make();
    struct clicklog_config cfg = config_of(&folder, 2);
    struct clicklog_entry entries[] = {entry_of(0, "a", "even"),
                                       entry_of(1, "b", "odd")};
    uint64_t seen = 0, total = 0;

    (void)unused;
    for (int round = 0; round < 20; round++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            struct clicklog *log = log_open(&cfg);
            for (int64_t i = 0;; i++)
                MUST(clicklog_append(log, entries, 2, T0 + i, NULL, why));
        }
        struct clicklog_config reading = cfg;
        struct clicklog *log = NULL;
        struct clicklog_reader *reader;
        struct clicklog_record record;
        reading.read_only = true;
        while (clicklog_open(&log, &reading, NULL) != ERR_OK)
            clock_sleep_us(1000);
        MUST(clicklog_reader_open(&reader, log, why));
        uint64_t want = seen + 50 + (uint64_t)round;
        while (seen < want) {
            clicklog_wait(log, &total, 100000);
            MUST(clicklog_seek(reader, 1, seen, why));
            while (clicklog_next(reader, &record, NULL) == ERR_OK)
                assert_int_equal(record.offset, seen++);
        }
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, NULL, 0), child);
        clicklog_reader_close(&reader);
        clicklog_close(&log);

        int64_t start = clock_mono_us();
        log = log_open(&cfg);
        assert_true(clock_mono_us() - start < CLOCK_SECOND_US);
        uint64_t first, even, odd;
        MUST(clicklog_range(log, 0, &first, &even, why));
        MUST(clicklog_range(log, 1, &first, &odd, why));
        assert_int_equal(even, odd); /* groups are whole */
        assert_true(odd >= seen);
        seen = odd;
        clicklog_close(&log);
    }
    folder_remove(&folder);
}

struct waiter {
    struct clicklog *log;
    uint64_t records;
};

static void *
wait_and_count(void *p)
{
    struct waiter *waiter = p;
    struct clicklog_reader *reader;
    struct clicklog_record record;
    uint64_t seen = 0;

    MUST(clicklog_reader_open(&reader, waiter->log, why));
    while (waiter->records < 2000) {
        MUST(clicklog_seek(reader, 0, waiter->records, why));
        while (clicklog_next(reader, &record, NULL) == ERR_OK)
            waiter->records++;
        clicklog_release(reader);
        if (waiter->records < 2000)
            clicklog_wait(waiter->log, &seen, 10 * CLOCK_SECOND_US);
    }
    clicklog_reader_close(&reader);
    return NULL;
}

static void
waiting_readers_are_woken_by_commits(void **unused)
{
    struct folder folder = folder_make();
    struct clicklog_config cfg = config_of(&folder, 1);
    struct clicklog_entry entry = entry_of(0, "c", "x");
    struct clicklog *log = log_open(&cfg);
    struct waiter waiters[3];
    pthread_t threads[3];

    (void)unused;
    for (int i = 0; i < 3; i++) {
        waiters[i] = (struct waiter){log, 0};
        assert_int_equal(
            pthread_create(&threads[i], NULL, wait_and_count, &waiters[i]), 0);
    }
    for (int i = 0; i < 2000; i++)
        MUST(clicklog_append(log, &entry, 1, T0 + i, NULL, why));
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    uint64_t seen = 0;
    clicklog_wait(log, &seen, 0);
    int64_t start = clock_mono_us();
    clicklog_wait(log, &seen, 30000);
    assert_true(clock_mono_us() - start >= 29000);
    clicklog_close(&log);
    folder_remove(&folder);
}

/* Against a plainer model: arrays in memory. */
static void
random_groups_trims_and_restarts_agree_with_a_plain_model(void **unused)
{
    enum { P = 5, KEPT = 200000 };
    struct folder folder = folder_make();
    struct clicklog_config cfg = config_of(&folder, P);
    struct clicklog *log = log_open(&cfg);
    struct clicklog_reader *reader;
    struct clicklog_record record;
    static uint32_t lengths[P][KEPT];
    static char body[3000];
    struct clicklog_entry *entries = calloc(5000, sizeof(*entries));
    uint64_t next[P] = {0}, trimmed[P] = {0}, seed = 42;
    int64_t now = T0;

    (void)unused;
    for (int step = 0; step < 300; step++) {
        uint64_t dice = random_next(&seed) % 20;
        uint32_t p = (uint32_t)(random_next(&seed) % P);

        if (dice == 0) {
            clicklog_close(&log);
            log = log_open(&cfg);
        } else if (dice < 4) {
            trimmed[p] += random_next(&seed) % (next[p] - trimmed[p] + 1);
            MUST(clicklog_trim(log, p, trimmed[p], why));
        } else {
            size_t n = random_next(&seed) % (dice < 10 ? 20 : 600);
            for (size_t i = 0; i < n; i++) {
                uint32_t q = (uint32_t)(random_next(&seed) % P);
                uint32_t length = (uint32_t)(random_next(&seed) % sizeof(body));
                entries[i] = entry_of(q, "c", "");
                entries[i].body = (struct str){body, length};
                lengths[q][next[q]++] = length;
            }
            now += (int64_t)(random_next(&seed) % 1000) - 400;
            MUST(clicklog_append(log, entries, n, now, NULL, why));
        }
    }
    MUST(clicklog_reader_open(&reader, log, why));
    for (uint32_t p = 0; p < P; p++) {
        uint64_t first, end;
        int64_t last = 0;
        MUST(clicklog_range(log, p, &first, &end, why));
        assert_true(first <= trimmed[p]);
        assert_int_equal(end, next[p]);
        for (uint64_t from = first; from < end;
             from += 1 + random_next(&seed) % 500) {
            MUST(clicklog_seek(reader, p, from, why));
            for (uint64_t o = from; o < end && o < from + 40; o++) {
                MUST(clicklog_next(reader, &record, why));
                assert_int_equal(record.offset, o);
                assert_int_equal(record_body(&record, p).n, lengths[p][o]);
                assert_true(o == from || record.received_us >= last);
                last = record.received_us;
            }
        }
    }
    clicklog_reader_close(&reader);
    clicklog_close(&log);
    free(entries);
    folder_remove(&folder);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_appended_is_read_in_order),
        cmocka_unit_test(
            received_time_is_later_than_every_earlier_group_even_when_the_clock_steps_back),
        cmocka_unit_test(
            each_open_is_an_incarnation_whose_seqs_start_at_0_while_offsets_go_on),
        cmocka_unit_test(large_groups_are_cut_into_blocks_and_by_schema_version),
        cmocka_unit_test(
            a_trimmed_log_counts_its_bytes_down_to_nothing_and_keeps_its_offsets),
        cmocka_unit_test(past_its_limit_nothing_is_appended_until_it_is_trimmed),
        cmocka_unit_test(a_full_map_refuses_and_the_log_stays_usable),
        cmocka_unit_test(bad_entries_and_configurations_are_refused_by_name),
        cmocka_unit_test(a_spoiled_byte_is_reported_with_partition_and_offset),
        cmocka_unit_test(
            another_process_reads_along_and_a_killed_writer_leaves_a_whole_log),
        cmocka_unit_test(waiting_readers_are_woken_by_commits),
        cmocka_unit_test(random_groups_trims_and_restarts_agree_with_a_plain_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

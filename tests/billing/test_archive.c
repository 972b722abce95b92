/* The archive with a real click log: clean cuts, live verdicts, and SIGKILL at any time:
 * every offset is in exactly one listed file, with its own click. */
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "billing/archive.h"
#include "billing/judge_stream.h"
#include "tests/billing/billing_fixture.h"

#define WAIT_US (20 * SECOND)

struct store {
    struct fixture f;
    struct clicklog *log;
    struct verdictlog *verdicts;
};

static void
store_open(struct store *s)
{
    char log[PATH_SIZE], verdicts[PATH_SIZE];
    struct clicklog_config config = {.dir = log,
                                     .partitions = FIXTURE_PARTITIONS,
                                     .map_bytes = 1 << 30,
                                     .bytes_max = 1 << 29,
                                     .no_sync = true};

    fixture_open(&s->f);
    (void)snprintf(log, sizeof(log), "%s/log", s->f.dir);
    (void)snprintf(verdicts, sizeof(verdicts), "%s/verdicts", s->f.dir);
    MUST(file_mkdirs(log, why));
    MUST(file_mkdirs(verdicts, why));
    MUST(clicklog_open(&s->log, &config, why));
    MUST(verdictlog_open(&s->verdicts, verdicts, 1 << 28, false, why));
}

static void
store_close(struct store *s)
{
    clicklog_close(&s->log);
    verdictlog_close(&s->verdicts);
    fixture_close(&s->f);
}

/* Appends one group of n clicks, numbered from number, at now_us. */
static void
group_append(struct clicklog *log, uint64_t number, size_t n, int64_t now_us)
{
    static const char *const campaigns[] = {"shoes", "books", "small", "tight",
                                            "other"};
    struct clicklog_entry entries[64];
    static uint8_t bodies[64][1024];

    CHECK(n <= 64);
    for (size_t i = 0; i < n; i++) {
        struct click click = fixture_click(number + i, now_us);
        struct str campaign = str_of(campaigns[(number + i) % 5]);
        uint8_t body[CLICK_BODY_MAX];
        size_t size;

        click.campaign_id = campaign;
        size = click_encode_body(&click, body);
        CHECK(size <= sizeof(bodies[i]));
        memcpy(bodies[i], body, size);
        entries[i] = (struct clicklog_entry){
            .account = 1,
            .campaign = campaign,
            .event_ms = click.timestamp_ms,
            .partition = hash_partition(campaign.p, campaign.n, FIXTURE_PARTITIONS),
            .version = CLICK_VERSION,
            .body = {(const char *)bodies[i], (uint32_t)size},
        };
    }
    MUST(clicklog_append(log, entries, n, now_us, NULL, why));
}

/* Reads all listed files: each click of 0..n-1 once, at its offset, in one hour a file. */
static void
archive_check(const struct store *s, uint64_t n)
{
    uint8_t *seen = calloc(n + 1, 1);
    struct stream *stream;
    struct stream_click in;
    struct manifest manifest;
    uint64_t clicks = 0;
    int64_t last_us = 0;
    enum err err;

    CHECK(seen != NULL);
    MUST(manifest_read(&manifest, s->f.archive, 0, why));
    CHECK(manifest.partitions == FIXTURE_PARTITIONS);
    MUST(stream_open(&stream, s->f.archive, manifest.files, manifest.files_n, why));
    while ((err = stream_next(stream, &in, NULL)) == ERR_OK) {
        const struct manifest_file *file = &manifest.files[in.file];
        uint64_t number;

        memcpy(&number, in.click->event_id, sizeof(number));
        CHECK(number < n && !seen[number]);
        seen[number] = 1;
        clicks++;
        CHECK(in.click->received_us >= last_us);
        last_us = in.click->received_us;
        CHECK(last_us >= file->first_received_us &&
              last_us <= file->last_received_us);
        CHECK(file->first_received_us / HOUR == file->last_received_us / HOUR);
    }
    CHECK(err == ERR_AGAIN && clicks == n);
    for (uint32_t i = 0; i < manifest.files_n; i++) {
        char path[PATH_SIZE + MANIFEST_PATH_MAX + 2];
        struct stat st;

        (void)snprintf(path, sizeof(path), "%s/%s", s->f.archive,
                       manifest.files[i].path);
        CHECK(stat(path, &st) == 0 &&
              (uint64_t)st.st_size == manifest.files[i].bytes);
    }
    stream_close(&stream);
    manifest_free(&manifest);
    free(seen);
}

static uint32_t
files_of(const struct store *s)
{
    struct manifest manifest;
    uint32_t n;

    MUST(manifest_read(&manifest, s->f.archive, 0, why));
    n = manifest.files_n;
    manifest_free(&manifest);
    return n;
}

static struct archive *
start(const struct store *s)
{
    struct archive *archive;

    MUST(archive_start(&archive, &s->f.config, s->f.archive, s->log, s->verdicts,
                       NULL, why));
    return archive;
}

static void
test_what_is_in_the_log_is_archived_at_the_end(struct store *s)
{
    struct archive *archive = start(s);

    for (uint64_t g = 0; g < 100; g++)
        group_append(s->log, g * 50, 50, T0_US + (int64_t)g * SECOND);
    archive_stop(&archive);
    archive_check(s, 5000);
    archive = start(s); /* nothing new */
    archive_stop(&archive);
    archive_check(s, 5000);
}

static void
test_a_request_rolls_at_a_clean_cut(struct store *s)
{
    int64_t now_us = clock_now_us();
    struct archive *archive = start(s);

    group_append(s->log, 0, 50, now_us);
    group_append(s->log, 50, 0, clock_now_us() + 2 * SECOND); /* heartbeat */
    MUST(manifest_roll_wait(s->f.archive, now_us + 1, WAIT_US, why));
    archive_check(s, 50);
    CHECK(archive_listed(archive, 0) + archive_listed(archive, 1) +
              archive_listed(archive, 2) + archive_listed(archive, 3) ==
          50);
    group_append(s->log, 50, 0, clock_now_us() + 4 * SECOND);
    MUST(manifest_roll_wait(s->f.archive, clock_now_us() + 2 * SECOND, WAIT_US,
                            why));
    CHECK(files_of(s) <= FIXTURE_PARTITIONS);
    archive_stop(&archive);
}

static void
test_files_hold_one_hour_and_hours_end_for_all_partitions(struct store *s)
{
    struct archive *archive = start(s);

    for (uint64_t g = 0; g < 40; g++)
        group_append(s->log, g * 10, 10, T0_US + (int64_t)g * 10 * 60 * SECOND);
    group_append(s->log, 400, 0, T0_US + 9 * HOUR + HOUR / 2);
    MUST(manifest_roll_wait(s->f.archive, T0_US + 9 * HOUR, WAIT_US, why));
    archive_check(s, 400);
    archive_stop(&archive);
}

static void
test_a_small_roll_size_makes_many_files(struct store *s)
{
    struct archive *archive;

    s->f.config.archive_roll_bytes = 4096;
    archive = start(s);
    for (uint64_t g = 0; g < 100; g++)
        group_append(s->log, g * 50, 50, T0_US + (int64_t)g);
    archive_stop(&archive);
    archive_check(s, 5000);
    CHECK(files_of(s) > 20);
}

static void
verdicts_append(const struct store *s, uint32_t p, uint64_t base, uint32_t n)
{
    uint64_t packed[64];
    const struct verdictlog_block block = {p, base, 1, packed, n};

    for (uint32_t i = 0; i < n; i++)
        packed[i] = base + i + 1;
    MUST(verdictlog_append(s->verdicts, &block, 1, why));
}

static void
test_live_verdicts_follow_when_all_are_recorded(struct store *s)
{
    struct archive *archive = start(s);
    int64_t now_us = clock_now_us(), until_us = clock_mono_us() + WAIT_US;
    struct manifest manifest;

    group_append(s->log, 0, 50, now_us);
    group_append(s->log, 50, 0, clock_now_us() + 2 * SECOND);
    MUST(manifest_roll_wait(s->f.archive, now_us + 1, WAIT_US, why));
    MUST(manifest_read(&manifest, s->f.archive, 0, why));
    for (uint32_t i = 0; i < manifest.files_n; i++) {
        const struct manifest_file *file = &manifest.files[i];
        uint64_t live[64];

        CHECK(archive_live_listed(archive, file->partition) == file->base);
        CHECK(manifest_live_read(s->f.archive, file, live, NULL) == ERR_NOTFOUND);
        verdicts_append(s, file->partition, file->base, (uint32_t)file->clicks);
        while (archive_live_listed(archive, file->partition) <= file->last) {
            CHECK(clock_mono_us() < until_us);
            clock_sleep_us(20000);
        }
        MUST(manifest_live_read(s->f.archive, file, live, why));
        for (uint64_t k = 0; k < file->clicks; k++)
            CHECK(live[k] == file->base + k + 1);
    }
    manifest_free(&manifest);
    archive_stop(&archive);
}

static void
test_unlisted_files_are_removed_at_start_but_not_the_judges(struct store *s)
{
    struct archive *archive = start(s);
    static const char *const names[] = {"part-0-900-999.avro", "part-1-77.avro.tmp",
                                        "part-0-900-999.live.avro",
                                        "part-3-5-9.final.avro.tmp", "notes.txt"};
    static const bool stays[] = {false, false, false, true, true};
    char path[PATH_SIZE + 64];

    group_append(s->log, 0, 50, T0_US);
    archive_stop(&archive);
    for (int i = 0; i < 5; i++) {
        (void)snprintf(path, sizeof(path), "%s/date=2026-03-01/hour=10/%s",
                       s->f.archive, names[i]);
        MUST(file_write(path, "x", 1, why));
    }
    archive = start(s);
    archive_stop(&archive);
    for (int i = 0; i < 5; i++) {
        (void)snprintf(path, sizeof(path), "%s/date=2026-03-01/hour=10/%s",
                       s->f.archive, names[i]);
        CHECK((access(path, F_OK) == 0) == stays[i]);
    }
    archive_check(s, 50);
}

/* A child that appends and archives, and is killed; the next goes on after what is durable. */
static void
child_run(const struct store *s, uint64_t first)
{
    struct store mine = *s;
    char log[PATH_SIZE];
    struct clicklog_config config = {.dir = log,
                                     .partitions = FIXTURE_PARTITIONS,
                                     .map_bytes = 1 << 30,
                                     .bytes_max = 1 << 29,
                                     .no_sync = true};

    (void)snprintf(log, sizeof(log), "%s/log", s->f.dir);
    MUST(clicklog_open(&mine.log, &config, why));
    mine.verdicts = NULL;
    (void)start(&mine);
    for (uint64_t g = 0; g < 100000; g++) {
        group_append(mine.log, first + g * 20, 20, clock_now_us());
        clock_sleep_us(200);
    }
    _exit(0);
}

static uint64_t
appended(const struct store *s)
{
    uint64_t sum = 0, first, next;

    for (uint32_t p = 0; p < FIXTURE_PARTITIONS; p++) {
        MUST(clicklog_range(s->log, p, &first, &next, why));
        sum += next;
    }
    return sum;
}

static void
test_sigkill_at_any_time_loses_nothing_and_repeats_nothing(struct store *s)
{
    uint64_t seed = 3, n = 0;
    char log[PATH_SIZE];
    struct clicklog_config config = {.dir = log,
                                     .partitions = FIXTURE_PARTITIONS,
                                     .map_bytes = 1 << 30,
                                     .bytes_max = 1 << 29,
                                     .no_sync = true};
    struct archive *archive;

    (void)snprintf(log, sizeof(log), "%s/log", s->f.dir);
    s->f.config.archive_roll_bytes = 8192;
    for (int round = 0; round < 24; round++) {
        pid_t pid;

        clicklog_close(&s->log);
        pid = fork();
        CHECK(pid >= 0);
        if (pid == 0)
            child_run(s, n);
        clock_sleep_us(20000 + (int64_t)random_below(&seed, 250000));
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
        MUST(clicklog_open(&s->log, &config, why));
        n = appended(s);
    }
    CHECK(n > 0);
    archive = start(s);
    archive_stop(&archive);
    archive_check(s, n);
}

/* The archive's folder cannot be written: it waits, and goes on when it can. */
static void
test_a_folder_that_cannot_be_written_is_waited_for(struct store *s)
{
    struct archive *archive;
    char path[PATH_SIZE + 64];
    int64_t now_us = clock_now_us();
    char day[16];
    time_t seconds = (time_t)(now_us / SECOND);
    struct tm tm;

    CHECK(gmtime_r(&seconds, &tm) != NULL &&
          strftime(day, sizeof(day), "%F", &tm) > 0);
    (void)snprintf(path, sizeof(path), "%s/date=%s", s->f.archive, day);
    MUST(file_write(path, "in the way", 10, why));
    archive = start(s);
    group_append(s->log, 0, 50, now_us);
    group_append(s->log, 50, 0, now_us + 60 * SECOND);
    CHECK(manifest_roll_wait(s->f.archive, now_us + 1, SECOND, NULL) == ERR_AGAIN);
    CHECK(files_of(s) == 0);
    CHECK(unlink(path) == 0);
    MUST(manifest_roll_wait(s->f.archive, now_us + 1, WAIT_US, why));
    archive_stop(&archive);
    archive_check(s, 50);
}

int
main(void)
{
    static void (*const tests[])(struct store *) = {
        test_what_is_in_the_log_is_archived_at_the_end,
        test_a_request_rolls_at_a_clean_cut,
        test_files_hold_one_hour_and_hours_end_for_all_partitions,
        test_a_small_roll_size_makes_many_files,
        test_live_verdicts_follow_when_all_are_recorded,
        test_unlisted_files_are_removed_at_start_but_not_the_judges,
        test_sigkill_at_any_time_loses_nothing_and_repeats_nothing,
        test_a_folder_that_cannot_be_written_is_waited_for,
    };

    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        struct store s;

        store_open(&s);
        tests[i](&s);
        store_close(&s);
    }
    return 0;
}

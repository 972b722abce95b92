/* tests/powercut/test_powercut.c SHIM.so - the shim, then the logs under it.
 *
 * Each case starts this program again as a child with the shim preloaded, lets it work,
 * cuts its power, and looks at what is left. A case that loses data on purpose (no_sync)
 * shows that the others could fail.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/file.h"
#include "common/verdictlog.h"
#include "tests/common/clicklog_fixture.h"

enum { EXIT_CUT = 137, ROUNDS = 30, PARTITIONS = 4, GROUP_MAX = 200 };

static const int64_t T0 = INT64_C(1795000000000000);

/* The parent's end of a child: one line of 8 bytes for everything that it was promised. */
struct child {
    pid_t pid;
    int promises;
};

static struct child
child_start(const char *self, const char *shim, const char *what, const char *dir,
            uint64_t seed)
{
    int ends[2];
    char number[32];
    struct child child;

    CHECK(pipe(ends) == 0);
    child.pid = fork();
    CHECK(child.pid >= 0);
    if (child.pid == 0) {
        (void)snprintf(number, sizeof(number), "%llu", (unsigned long long)seed);
        CHECK(setenv("POWERCUT_SEED", number, 1) == 0);
        CHECK(setenv("POWERCUT_DIR", dir, 1) == 0);
        CHECK(setenv("LD_PRELOAD", shim, 1) == 0);
        CHECK(dup2(ends[1], 1) == 1);
        (void)execl(self, self, "--child", what, dir, (char *)NULL);
        _exit(1);
    }
    (void)close(ends[1]);
    child.promises = ends[0];
    /* A signal before the shim has started would be an ordinary end. */
    uint64_t ready;
    CHECK(read(child.promises, &ready, sizeof(ready)) == sizeof(ready) &&
          ready == 0);
    return child;
}

/* The last promise made before the end; 0 if there is none. */
static uint64_t
child_end(const struct child *child)
{
    uint64_t last = 0, promise;
    int status;

    while (read(child->promises, &promise, sizeof(promise)) == sizeof(promise))
        last = promise;
    (void)close(child->promises);
    CHECK(waitpid(child->pid, &status, 0) == child->pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != EXIT_CUT) {
        fprintf(stderr, "the child ended with wait status %#x\n", (unsigned)status);
        exit(1);
    }
    return last;
}

static void
promise(uint64_t n)
{
    CHECK(write(1, &n, sizeof(n)) == sizeof(n));
}

static char *
path_in(const char *dir, const char *name)
{
    static char paths[4][256];
    static int at;
    char *path = paths[at++ % 4];

    CHECK(snprintf(path, sizeof(paths[0]), "%s/%s", dir, name) <
          (int)sizeof(paths[0]));
    return path;
}

static int
file_make(const char *dir, const char *name, const char *text)
{
    int fd = open(path_in(dir, name), O_RDWR | O_CREAT | O_TRUNC, 0600);

    CHECK(fd >= 0);
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    return fd;
}

static void
folder_sync(const char *dir)
{
    int fd = open(dir, O_RDONLY);

    CHECK(fd >= 0 && fsync(fd) == 0);
    (void)close(fd);
}

static void
child_files(const char *dir)
{
    char block[10000];
    int fd;

    memset(block, 'n', sizeof(block));
    fd = file_make(dir, "synced", "durable");
    CHECK(fsync(fd) == 0);
    fd = file_make(dir, "overwritten", "old old old");
    CHECK(fsync(fd) == 0 && pwrite(fd, "new", 3, 4) == 3);
    CHECK(pwrite(fd, block, sizeof(block), 5000) == sizeof(block));
    fd = file_make(dir, "cut", "long content");
    CHECK(fsync(fd) == 0 && ftruncate(fd, 4) == 0);
    fd = file_make(dir, "truncated", "before");
    CHECK(fsync(fd) == 0 && close(fd) == 0);
    (void)file_make(dir, "truncated", "after");
    fd = file_make(dir, "removed", "still there");
    CHECK(fsync(fd) == 0);
    fd = file_make(dir, "replaced", "first");
    CHECK(fsync(fd) == 0);
    fd = file_make(dir, "dsync", "");
    CHECK(fsync(fd) == 0);
    fd = open(path_in(dir, "dsync"), O_WRONLY | O_DSYNC);
    CHECK(fd >= 0 && write(fd, "at once", 7) == 7);
    folder_sync(dir);

    CHECK(unlink(path_in(dir, "removed")) == 0);
    fd = file_make(dir, "replacement", "second");
    CHECK(fsync(fd) == 0);
    CHECK(rename(path_in(dir, "replacement"), path_in(dir, "replaced")) == 0);
    CHECK(mkdir(path_in(dir, "folder"), 0700) == 0);
    (void)file_make(dir, "folder/inside", "x");
    (void)file_make(dir, "created", "never synced");
    fd = open(path_in(dir, "synced"), O_WRONLY | O_APPEND);
    CHECK(fd >= 0 && write(fd, " and not", 8) == 8);
    CHECK(raise(SIGUSR2) == 0);
    for (;;)
        (void)pause();
}

static void
text_is(const char *dir, const char *name, const char *want)
{
    struct buf got = BUF_MAX(1 << 20);

    MUST(file_read(path_in(dir, name), &got, why));
    if (got.n != strlen(want) || memcmp(got.p, want, got.n) != 0) {
        fprintf(stderr, "%s: \"%.*s\", not \"%s\"\n", name, (int)got.n,
                (const char *)got.p, want);
        exit(1);
    }
    buf_free(&got);
}

static void
gone(const char *dir, const char *name)
{
    struct stat st;

    CHECK(stat(path_in(dir, name), &st) != 0 && errno == ENOENT);
}

/* A folder to be tracked, inside one that also takes the graveyard. */
static char *
data_make(const struct folder *folder)
{
    char *dir = path_in(folder->path, "data");

    CHECK(mkdir(dir, 0700) == 0);
    return dir;
}

static void
what_is_not_synced_is_gone(const char *self, const char *shim)
{
    struct folder folder = folder_make();
    char dir[256];
    struct child child;

    (void)snprintf(dir, sizeof(dir), "%s", data_make(&folder));
    child = child_start(self, shim, "files", dir, 0);
    (void)child_end(&child);
    text_is(dir, "synced", "durable");
    text_is(dir, "overwritten", "old old old");
    text_is(dir, "cut", "long content");
    text_is(dir, "truncated", "before");
    text_is(dir, "removed", "still there");
    text_is(dir, "replaced", "first");
    text_is(dir, "dsync", "at once");
    gone(dir, "created");
    gone(dir, "folder");
    folder_remove(&folder);
    printf("ok: what is not synced is gone\n");
}

static struct clicklog_config
log_config(const char *dir, bool no_sync)
{
    return (struct clicklog_config){.dir = dir,
                                    .partitions = PARTITIONS,
                                    .map_bytes = UINT64_C(1) << 32,
                                    .bytes_max = UINT64_C(1) << 31,
                                    .no_sync = no_sync};
}

/* Appends without end, from what is there on; trims behind itself; promises the number of
 * clicks that are durable. */
static void
child_log(const char *dir, bool no_sync)
{
    static char body[2000];
    struct clicklog_config cfg = log_config(dir, no_sync);
    struct clicklog_entry entries[GROUP_MAX];
    struct clicklog_stats stats;
    struct clicklog *log;
    uint64_t seed, first, next;

    MUST(clicklog_open(&log, &cfg, why));
    clicklog_stats_get(log, &stats);
    seed = stats.incarnation;
    for (uint64_t group = 1;; group++) {
        size_t n = random_next(&seed) % GROUP_MAX + 1;

        for (size_t i = 0; i < n; i++)
            entries[i] = (struct clicklog_entry){
                .account = 1,
                .campaign = STR("campaign"),
                .event_ms = T0 / 1000,
                .partition = (uint32_t)(random_next(&seed) % PARTITIONS),
                .version = 1,
                .body = {body, (uint32_t)(random_next(&seed) % sizeof(body))},
            };
        MUST(clicklog_append(log, entries, n, T0, NULL, why));
        clicklog_stats_get(log, &stats);
        promise(stats.records);
        if (group % 50 == 0)
            for (uint32_t p = 0; p < PARTITIONS; p++) {
                MUST(clicklog_range(log, p, &first, &next, why));
                MUST(clicklog_trim(log, p, first + (next - first) / 2, why));
            }
    }
}

static bool
received_sum(void *ctx, const struct clicklog_received *row)
{
    *(uint64_t *)ctx += row->clicks;
    return true;
}

/* Reads all that is held; the sum of offsets is the number of clicks ever. */
static uint64_t
log_verify(const char *dir)
{
    struct clicklog_config cfg = log_config(dir, false);
    struct clicklog_reader *reader;
    struct clicklog_record record;
    struct clicklog_stats stats;
    struct clicklog *log;
    uint64_t total = 0, received = 0, first, next;

    MUST(clicklog_open(&log, &cfg, why));
    MUST(clicklog_reader_open(&reader, log, why));
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        MUST(clicklog_range(log, p, &first, &next, why));
        MUST(clicklog_seek(reader, p, first, why));
        for (uint64_t o = first; o < next; o++) {
            MUST(clicklog_next(reader, &record, why));
            CHECK(record.offset == o);
            (void)record_body(&record, p);
        }
        total += next;
    }
    clicklog_reader_close(&reader);
    clicklog_stats_get(log, &stats); /* past the hour, whatever it is by now */
    MUST(clicklog_append(log, NULL, 0, stats.floor_us + CLOCK_HOUR_US, NULL, why));
    MUST(clicklog_received_each(log, received_sum, &received, why));
    clicklog_stats_get(log, &stats);
    CHECK(stats.records == total);
    CHECK(received == total);
    clicklog_close(&log);
    return total;
}

static void
nap(uint64_t us)
{
    clock_sleep_us((int64_t)us);
}

/* Cuts at random times; every second round goes on with what the last one left. */
static void
every_click_that_was_promised_is_there(const char *self, const char *shim,
                                       uint64_t seed)
{
    struct folder folder = {{0}};
    char dir[256];
    uint64_t total = 0;

    for (uint64_t round = 0; round < ROUNDS; round++) {
        if (round % 2 == 0) {
            folder = folder_make();
            (void)snprintf(dir, sizeof(dir), "%s", data_make(&folder));
        }
        struct child child = child_start(
            self, shim, "log", dir, round % 3 == 0 ? 0 : random_next(&seed) | 1);
        nap(2000 + random_next(&seed) % 60000);
        CHECK(kill(child.pid, SIGUSR2) == 0);
        uint64_t promised = child_end(&child), there = 0;
        struct stat st;
        if (stat(path_in(dir, "log/data.mdb"), &st) == 0)
            there = log_verify(path_in(dir, "log"));
        if (there < promised) {
            fprintf(stderr, "round %llu: %llu clicks promised, %llu there\n",
                    (unsigned long long)round, (unsigned long long)promised,
                    (unsigned long long)there);
            exit(1);
        }
        total += promised;
        if (round % 2 == 1)
            folder_remove(&folder);
    }
    CHECK(total > 0);
    printf("ok: every click that was promised is there (%llu clicks, %d cuts)\n",
           (unsigned long long)total, ROUNDS);
}

static void
without_sync_promised_clicks_are_lost(const char *self, const char *shim)
{
    struct folder folder = folder_make();
    char dir[256];
    struct child child;
    uint64_t promised, there = 0;
    struct stat st;

    (void)snprintf(dir, sizeof(dir), "%s", data_make(&folder));
    child = child_start(self, shim, "log-no-sync", dir, 0);
    nap(300000);
    CHECK(kill(child.pid, SIGUSR2) == 0);
    promised = child_end(&child);
    if (stat(path_in(dir, "log/data.mdb"), &st) == 0)
        there = log_verify(path_in(dir, "log"));
    CHECK(promised > 0 && there < promised);
    folder_remove(&folder);
    printf("ok: without sync promised clicks are lost (%llu of %llu)\n",
           (unsigned long long)(promised - there), (unsigned long long)promised);
}

static void
child_verdicts(const char *dir)
{
    static uint64_t verdicts[500];
    struct verdictlog *log;
    uint64_t epoch, next;

    MUST(verdictlog_open(&log, dir, UINT64_C(1) << 30, false, why));
    for (;;) {
        MUST(verdictlog_last(log, 0, &epoch, &next, why));
        for (uint64_t i = 0; i < 500; i++)
            verdicts[i] = next + i + 1;
        struct verdictlog_block block = {0, next, 1, verdicts, 500};
        MUST(verdictlog_append(log, &block, 1, why));
        promise(next + 500);
    }
}

static void
every_verdict_that_was_promised_is_there(const char *self, const char *shim,
                                         uint64_t seed)
{
    for (int round = 0; round < ROUNDS / 3; round++) {
        struct folder folder = folder_make();
        struct verdictlog *log;
        uint64_t promised, epoch, next = 0, got[500];
        struct child child;
        struct stat st;
        char dir[256];

        (void)snprintf(dir, sizeof(dir), "%s", data_make(&folder));
        child = child_start(self, shim, "verdicts", dir,
                            round % 2 == 0 ? 0 : random_next(&seed) | 1);
        nap(2000 + random_next(&seed) % 60000);
        CHECK(kill(child.pid, SIGUSR2) == 0);
        promised = child_end(&child);
        if (stat(path_in(dir, "data.mdb"), &st) == 0) {
            MUST(verdictlog_open(&log, dir, UINT64_C(1) << 30, false, why));
            MUST(verdictlog_last(log, 0, &epoch, &next, why));
            for (uint64_t o = 0; o < next; o += 500) {
                MUST(verdictlog_read(log, 0, o, 500, got, why));
                for (uint64_t i = 0; i < 500; i++)
                    CHECK(got[i] == o + i + 1);
            }
            verdictlog_close(&log);
        }
        CHECK(next >= promised);
        folder_remove(&folder);
    }
    printf("ok: every verdict that was promised is there\n");
}

static int
child_main(const char *what, const char *dir)
{
    promise(0);
    if (strcmp(what, "files") == 0)
        child_files(dir);
    if (strcmp(what, "verdicts") == 0)
        child_verdicts(dir);
    child_log(path_in(dir, "log"), strcmp(what, "log-no-sync") == 0);
    return 1;
}

int
main(int argc, char **argv)
{
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;

    if (argc == 4 && strcmp(argv[1], "--child") == 0)
        return child_main(argv[2], argv[3]);
    if (argc < 2) {
        fprintf(stderr, "usage: %s SHIM.so [SEED]\n", argv[0]);
        return 2;
    }
    printf("seed %llu\n", (unsigned long long)seed);
    what_is_not_synced_is_gone("/proc/self/exe", argv[1]);
    every_click_that_was_promised_is_there("/proc/self/exe", argv[1], seed);
    without_sync_promised_clicks_are_lost("/proc/self/exe", argv[1]);
    every_verdict_that_was_promised_is_there("/proc/self/exe", argv[1], seed + 1);
    return 0;
}

/* Every system call with which the log writes fails once, in turn. The definitions here
 * take the place of the C library's for the whole program, liblmdb included. */
#define _GNU_SOURCE
#undef _FILE_OFFSET_BITS /* or pwrite would be only another name of pwrite64 */
#include "common/clicklog.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/common/clicklog_fixture.h"

enum fault { FAULT_ENOSPC, FAULT_SHORT, FAULT_EIO, FAULTS_N };

enum { P = 2, GROUP = 40 };

static const int64_t T0 = INT64_C(1795000000000000);

/* The one switch that the calls below look at. */
static struct {
    int calls_left; /* -1: off; 0: this one fails */
    enum fault fault;
    bool disk_full;
    bool on_meta; /* the call that failed was a synchronous one */
} inject = {.calls_left = -1};

static bool
fails_now(void)
{
    return inject.calls_left >= 0 && inject.calls_left-- == 0;
}

static bool
is_meta(int fd)
{
    return (fcntl(fd, F_GETFL) & O_DSYNC) != 0;
}

static ssize_t
call_fail(int fd, const void *p, size_t n, off_t at)
{
    inject.on_meta = is_meta(fd);
    if (inject.fault == FAULT_SHORT)
        return syscall(SYS_pwrite64, fd, p, n / 2, at);
    errno = inject.fault == FAULT_ENOSPC ? ENOSPC : EIO;
    return -1;
}

ssize_t
pwrite(int fd, const void *p, size_t n, off_t at)
{
    return fails_now() ? call_fail(fd, p, n, at)
                       : syscall(SYS_pwrite64, fd, p, n, at);
}

ssize_t
pwrite64(int fd, const void *p, size_t n, off_t at)
{
    return pwrite(fd, p, n, at);
}

/* LMDB writes runs of pages with lseek and writev. */
ssize_t
writev(int fd, const struct iovec *v, int n)
{
    return fails_now()
               ? call_fail(fd, v[0].iov_base, v[0].iov_len, lseek(fd, 0, SEEK_CUR))
               : syscall(SYS_writev, fd, v, n);
}

int
fdatasync(int fd)
{
    if (!fails_now())
        return (int)syscall(SYS_fdatasync, fd);
    inject.on_meta = false;
    errno = inject.fault == FAULT_ENOSPC ? ENOSPC : EIO;
    return -1;
}

int
statvfs(const char *path, struct statvfs *fs)
{
    (void)path;
    *fs = (struct statvfs){.f_frsize = 4096,
                           .f_bavail = inject.disk_full ? 0 : 1 << 30};
    return 0;
}

int
statvfs64(const char *path, struct statvfs64 *fs)
{
    (void)path;
    *fs = (struct statvfs64){.f_frsize = 4096,
                             .f_bavail = inject.disk_full ? 0 : 1 << 30};
    return 0;
}

static void
entries_make(struct clicklog_entry *entries, const char *body)
{
    for (size_t i = 0; i < GROUP; i++)
        entries[i] = (struct clicklog_entry){.account = 1,
                                             .campaign = STR("c"),
                                             .event_ms = T0 / 1000,
                                             .partition = (uint32_t)(i % P),
                                             .version = 1,
                                             .body = {body, (uint32_t)(i * 300)}};
}

static void
log_is_whole(struct clicklog *log, uint64_t clicks)
{
    struct clicklog_reader *reader;
    struct clicklog_record record;

    MUST(clicklog_reader_open(&reader, log, why));
    for (uint32_t p = 0; p < P; p++) {
        MUST(clicklog_seek(reader, p, 0, why));
        for (uint64_t o = 0; o < clicks / P; o++) {
            MUST(clicklog_next(reader, &record, why));
            assert_int_equal(record_body(&record, p).n,
                             (o % (GROUP / P) * P + p) * 300);
        }
        assert_int_equal(clicklog_next(reader, &record, NULL), ERR_AGAIN);
    }
    clicklog_reader_close(&reader);
}

/* One append during which call number `call` fails; false when there are not so many. */
static bool
fail_once(int call, enum fault fault)
{
    static const char body[GROUP * 300];
    struct folder folder = folder_make();
    struct clicklog_config cfg = config_of(&folder, P);
    struct clicklog_entry entries[GROUP];
    struct clicklog_stats stats;
    struct clicklog *log;
    uint64_t clicks = 0;
    enum err err;
    bool failed;

    cfg.no_sync = false;
    entries_make(entries, body);
    MUST(clicklog_open(&log, &cfg, why));
    for (int i = 0; i < 3; i++, clicks += GROUP)
        MUST(clicklog_append(log, entries, GROUP, T0, NULL, why));
    inject.fault = fault;
    inject.disk_full = fault != FAULT_EIO;
    inject.calls_left = call;
    err = clicklog_append(log, entries, GROUP, T0, NULL, NULL);
    failed = inject.calls_left < 0;
    inject.calls_left = -1;
    clicklog_stats_get(log, &stats);
    if (!failed) {
        assert_int_equal(err, ERR_OK);
        clicks += GROUP;
    } else if (fault == FAULT_EIO || inject.on_meta) {
        assert_int_equal(err, ERR_FATAL);
        assert_true(stats.broken);
        assert_int_equal(clicklog_append(log, entries, GROUP, T0, NULL, NULL),
                         ERR_FATAL);
    } else {
        assert_int_equal(err, ERR_FULL);
        assert_false(stats.broken);
        log_is_whole(log, clicks);
    }
    assert_int_equal(stats.records, clicks);
    if (stats.broken) {
        clicklog_close(&log);
        MUST(clicklog_open(&log, &cfg, why));
    }
    MUST(clicklog_append(log, entries, GROUP, T0, NULL, why));
    log_is_whole(log, clicks + GROUP);
    clicklog_close(&log);
    folder_remove(&folder);
    return failed;
}

static void
each_write_and_sync_that_fails_leaves_a_whole_log(void **unused)
{
    (void)unused;
    for (int fault = 0; fault < FAULTS_N; fault++) {
        int calls = 0;

        while (fail_once(calls, (enum fault)fault))
            calls++;
        assert_true(calls >= 3); /* pages, sync, meta */
    }
}

static void
a_real_full_disk_refuses_and_takes_clicks_again_when_there_is_room(void **unused)
{
    static const char body[GROUP * 300], filler[1 << 20];
    struct folder folder = folder_make();
    struct clicklog_config cfg = config_of(&folder, P);
    struct clicklog_entry entries[GROUP];
    struct clicklog *log;
    uint64_t clicks = 0;
    char path[128];
    int fd;

    (void)unused;
    if (mount("none", folder.path, "tmpfs", 0, "size=4m") != 0) {
        folder_remove(&folder);
        skip(); /* only root may mount */
    }
    (void)snprintf(path, sizeof(path), "%s/filler", folder.path);
    fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0 && write(fd, filler, sizeof(filler)) == sizeof(filler));
    (void)close(fd);
    cfg.no_sync = false;
    inject.disk_full = true;
    entries_make(entries, body);
    MUST(clicklog_open(&log, &cfg, why));
    while (clicklog_append(log, entries, GROUP, T0, NULL, NULL) == ERR_OK)
        clicks += GROUP;
    assert_true(clicks > GROUP);
    for (int i = 0; i < 20; i++)
        assert_int_equal(clicklog_append(log, entries, GROUP, T0, NULL, NULL),
                         ERR_FULL);
    log_is_whole(log, clicks);
    assert_int_equal(unlink(path), 0);
    MUST(clicklog_append(log, entries, GROUP, T0, NULL, why));
    log_is_whole(log, clicks + GROUP);
    clicklog_close(&log);
    assert_int_equal(umount2(folder.path, MNT_DETACH), 0);
    folder_remove(&folder);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_write_and_sync_that_fails_leaves_a_whole_log),
        cmocka_unit_test(
            a_real_full_disk_refuses_and_takes_clicks_again_when_there_is_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

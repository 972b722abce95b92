/* tests/powercut/powercut.c - a power cut for one process: a preloaded library.
 *
 *   LD_PRELOAD=./powercut.so POWERCUT_DIR=DATA [POWERCUT_SEED=n] PROGRAM ...
 *   kill -USR2 PID        cut: reverts what was not synced, then exits with 137
 *
 * SIGKILL does not show a missing fsync: the page cache survives. This does. It follows
 * every file under POWERCUT_DIR that is opened for writing: write, pwrite, writev, pwritev,
 * ftruncate, fallocate, O_TRUNC, and the folder's changes: creation, mkdir, rename, unlink,
 * rmdir. fsync, fdatasync, sync and syncfs make a file durable (and are not passed on: the
 * simulated disk is the page cache, so tests are fast); a folder's changes are durable when
 * the folder is synced; writes to descriptors opened with O_SYNC or O_DSYNC at once.
 *
 * SIGUSR2 wakes a thread of the shim. It takes the lock that every followed call holds,
 * so no write is half-way and none follows, freezes the other threads, reverts, and ends
 * the process. What another thread sends to the network before it is frozen was promised
 * before: its fsync had returned.
 *
 *   POWERCUT_SEED unset, 0  everything unsynced is lost
 *   POWERCUT_SEED n         each unsynced page is lost or kept by a coin, sizes too; of the
 *                           changes of folders, the newest from a random one on. The line
 *                           on stderr repeats the seed.
 *
 * Limits   One process writes a file at a time (the log's writer.lock sees to it). Not
 *          followed: stdio (it is told on stderr), mmap, copy_file_range, sendfile. What a
 *          process left unsynced when it ended otherwise counts as durable. A program built
 *          with a sanitizer needs the sanitizer's library first in LD_PRELOAD.
 * Threads  Any; one lock.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "tests/powercut/threads.h"
#include "tests/powercut/undo.h"

enum { EXIT_CUT = 137 };

static void on_signal(int number);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool on, thread_runs, cutting;
static atomic_uint frozen; /* threads that have stopped for the cut */
static int wake[2] = {-1, -1};

/* Stops the other threads where they are: what they would read from the map while it is
 * reverted must reach nobody. One that blocks the signal, or sits in the kernel, is waited
 * for a second; SIGBUS stops it should it touch what is gone. */
static void
threads_freeze(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    const struct timespec tick = {.tv_nsec = 1000000};

    (void)sigaction(SIGBUS, &action, NULL);
    atomic_store(&cutting, true);
    for (int tries = 0;
         tries < 1000 && atomic_load(&frozen) < threads_signal(SIGUSR2); tries++)
        (void)nanosleep(&tick, NULL);
}

/* From here on nothing may need a lock that a frozen thread holds: no malloc, no stdio. */
static _Noreturn void
cut_now(uint64_t seed)
{
    struct undo_result r;
    char line[256];
    int n;

    (void)pthread_mutex_lock(&lock); /* and never let go */
    threads_freeze();
    undo_revert(seed, &r);
    n = snprintf(line, sizeof(line),
                 "powercut: pid=%ld seed=%llu files=%llu pages=%llu lost=%llu "
                 "changes=%llu lost=%llu\n",
                 (long)getpid(), (unsigned long long)seed,
                 (unsigned long long)r.files, (unsigned long long)r.pages,
                 (unsigned long long)r.pages_lost, (unsigned long long)r.changes,
                 (unsigned long long)r.changes_lost);
    (void)syscall(SYS_write, 2, line, n);
    _exit(EXIT_CUT);
}

static void *
cut(void *unused)
{
    const char *text = getenv("POWERCUT_SEED");
    uint64_t seed = text == NULL ? 0 : strtoull(text, NULL, 10);
    char byte;

    (void)unused;
    while (read(wake[0], &byte, 1) != 1)
        ;
    cut_now(seed);
}

static void
on_signal(int number)
{
    int saved = errno;

    (void)number;
    if (atomic_load(&cutting)) {
        atomic_fetch_add(&frozen, 1);
        for (;;)
            (void)pause();
    }
    if (!atomic_load(&thread_runs) || syscall(SYS_write, wake[1], "", 1) != 1)
        _exit(EXIT_CUT); /* nothing was written yet */
    errno = saved;
}

/* With the lock held: the first followed call of a process starts the thread. */
static void
thread_ensure(void)
{
    pthread_t thread;
    sigset_t all, old;

    if (atomic_load(&thread_runs))
        return;
    (void)sigfillset(&all);
    if (pipe2(wake, O_CLOEXEC) != 0 ||
        pthread_sigmask(SIG_SETMASK, &all, &old) != 0 ||
        pthread_create(&thread, NULL, cut, NULL) != 0)
        abort();
    (void)pthread_detach(thread);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    atomic_store(&thread_runs, true);
}

static void
enter(void)
{
    (void)pthread_mutex_lock(&lock);
    thread_ensure();
}

static void
leave(void)
{
    int saved = errno;

    (void)pthread_mutex_unlock(&lock);
    errno = saved;
}

static void
fork_prepare(void)
{
    (void)pthread_mutex_lock(&lock);
}

static void
fork_parent(void)
{
    (void)pthread_mutex_unlock(&lock);
}

/* What the parent has not synced stays the parent's. */
static void
fork_child(void)
{
    undo_forget();
    atomic_store(&thread_runs, false);
    (void)pthread_mutex_unlock(&lock);
}

__attribute__((constructor)) static void
start(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

    if (!undo_start(getenv("POWERCUT_DIR")))
        return;
    if (sigaction(SIGUSR2, &action, NULL) != 0 ||
        pthread_atfork(fork_prepare, fork_parent, fork_child) != 0)
        abort();
    atomic_store(&on, true);
}

static bool
follows(int fd)
{
    char path[UNDO_PATH_MAX];

    return atomic_load(&on) && undo_path_of_fd(fd, path);
}

static bool
syncs_itself(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && (flags & O_DSYNC) != 0; /* O_SYNC includes its bit */
}

/* Where a write() of fd would begin. */
static off_t
position(int fd)
{
    struct stat st;

    if ((fcntl(fd, F_GETFL) & O_APPEND) != 0)
        return fstat(fd, &st) == 0 ? st.st_size : 0;
    return lseek(fd, 0, SEEK_CUR);
}

static uint64_t
vector_size(const struct iovec *v, int n)
{
    uint64_t size = 0;

    for (int i = 0; i < n; i++)
        size += v[i].iov_len;
    return size;
}

/* One write of size bytes at `at`, between its before and after. */
#define FOLLOWED(fd, at, size, call)                          \
    do {                                                      \
        ssize_t got_;                                         \
        if (!follows(fd))                                     \
            return (call);                                    \
        enter();                                              \
        off_t at_ = (at);                                     \
        undo_before_write(fd, at_, (size));                   \
        got_ = (ssize_t)(call);                               \
        if (got_ > 0 && syncs_itself(fd))                     \
            undo_after_synced_write(fd, at_, (uint64_t)got_); \
        leave();                                              \
        return got_;                                          \
    } while (0)

ssize_t
write(int fd, const void *p, size_t n)
{
    FOLLOWED(fd, position(fd), n, syscall(SYS_write, fd, p, n));
}

ssize_t
pwrite(int fd, const void *p, size_t n, off_t at)
{
    FOLLOWED(fd, at, n, syscall(SYS_pwrite64, fd, p, n, at));
}

ssize_t
pwrite64(int fd, const void *p, size_t n, off_t at)
{
    return pwrite(fd, p, n, at);
}

ssize_t
writev(int fd, const struct iovec *v, int n)
{
    FOLLOWED(fd, position(fd), vector_size(v, n), syscall(SYS_writev, fd, v, n));
}

ssize_t
pwritev(int fd, const struct iovec *v, int n, off_t at)
{
    FOLLOWED(fd, at, vector_size(v, n),
             syscall(SYS_pwritev, fd, v, n, (unsigned long)at, 0));
}

ssize_t
pwritev64(int fd, const struct iovec *v, int n, off_t at)
{
    return pwritev(fd, v, n, at);
}

int
ftruncate(int fd, off_t size)
{
    struct stat st;
    int rc;

    if (!follows(fd) || fstat(fd, &st) != 0)
        return (int)syscall(SYS_ftruncate, fd, size);
    enter();
    undo_before_write(fd, size,
                      st.st_size > size ? (uint64_t)(st.st_size - size) : 0);
    rc = (int)syscall(SYS_ftruncate, fd, size);
    leave();
    return rc;
}

int
ftruncate64(int fd, off_t size)
{
    return ftruncate(fd, size);
}

int
fallocate(int fd, int mode, off_t at, off_t n)
{
    int rc;

    if (!follows(fd))
        return (int)syscall(SYS_fallocate, fd, mode, at, n);
    enter();
    undo_before_write(fd, at, mode == 0 ? 0 : (uint64_t)n);
    rc = (int)syscall(SYS_fallocate, fd, mode, at, n);
    leave();
    return rc;
}

int
posix_fallocate(int fd, off_t at, off_t n)
{
    return fallocate(fd, 0, at, n) == 0 ? 0 : errno;
}

int
fallocate64(int fd, int mode, off_t at, off_t n)
{
    return fallocate(fd, mode, at, n);
}

int
posix_fallocate64(int fd, off_t at, off_t n)
{
    return posix_fallocate(fd, at, n);
}

int
fsync(int fd)
{
    if (!follows(fd))
        return (int)syscall(SYS_fsync, fd);
    enter();
    undo_synced(fd);
    leave();
    return 0;
}

int
fdatasync(int fd)
{
    if (!follows(fd))
        return (int)syscall(SYS_fdatasync, fd);
    return fsync(fd);
}

void
sync(void)
{
    if (atomic_load(&on)) {
        enter();
        undo_all_synced();
        leave();
        return;
    }
    (void)syscall(SYS_sync);
}

int
syncfs(int fd)
{
    if (!atomic_load(&on))
        return (int)syscall(SYS_syncfs, fd);
    sync();
    return 0;
}

/* Opens for writing go through here; O_TRUNC becomes a cut that can be undone. */
static int
open_followed(int dirfd, const char *path, int flags, mode_t mode)
{
    char full[UNDO_PATH_MAX];
    struct stat st;
    bool made;
    int fd;

    if (!atomic_load(&on) || (flags & O_TMPFILE) == O_TMPFILE ||
        ((flags & O_ACCMODE) == O_RDONLY && (flags & O_CREAT) == 0) ||
        !undo_path_of(dirfd, path, full))
        return (int)syscall(SYS_openat, dirfd, path, flags, mode);
    enter();
    made = (flags & O_CREAT) != 0 && lstat(full, &st) != 0;
    if (made)
        undo_creates(full);
    fd = (int)syscall(SYS_openat, dirfd, path, flags & ~O_TRUNC, mode);
    if (made && fd < 0)
        undo_cancel();
    leave();
    if (fd >= 0 && (flags & O_TRUNC) != 0 && ftruncate(fd, 0) != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static mode_t
mode_of(int flags, va_list ap)
{
    return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(ap, mode_t) : 0;
}

#define OPEN(name)                                         \
    int name(const char *path, int flags, ...)             \
    {                                                      \
        va_list ap;                                        \
        va_start(ap, flags);                               \
        mode_t mode = mode_of(flags, ap);                  \
        va_end(ap);                                        \
        return open_followed(AT_FDCWD, path, flags, mode); \
    }
#define OPENAT(name)                                      \
    int name(int dirfd, const char *path, int flags, ...) \
    {                                                     \
        va_list ap;                                       \
        va_start(ap, flags);                              \
        mode_t mode = mode_of(flags, ap);                 \
        va_end(ap);                                       \
        return open_followed(dirfd, path, flags, mode);   \
    }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int dirfd, const char *path, int flags);

/* What open becomes in a program built with _FORTIFY_SOURCE. */
int
__open_2(const char *path, int flags)
{
    return open_followed(AT_FDCWD, path, flags, 0);
}

int
__open64_2(const char *path, int flags)
{
    return open_followed(AT_FDCWD, path, flags, 0);
}

int
__openat_2(int dirfd, const char *path, int flags)
{
    return open_followed(dirfd, path, flags, 0);
}

int
creat(const char *path, mode_t mode)
{
    return open_followed(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode);
}

/* stdio writes inside the C library, past us. */
#define FOPEN(name)                                                           \
    FILE *name(const char *path, const char *mode)                            \
    {                                                                         \
        char full[UNDO_PATH_MAX];                                             \
        FILE *(*real)(const char *, const char *) = NULL;                     \
        *(void **)&real = dlsym(RTLD_NEXT, #name);                            \
        if (atomic_load(&on) && strpbrk(mode, "wa+") != NULL &&               \
            undo_path_of(AT_FDCWD, path, full))                               \
            fprintf(stderr, "powercut: %s: written by stdio: not followed\n", \
                    full);                                                    \
        return real(path, mode);                                              \
    }

FOPEN(fopen)
FOPEN(fopen64)

/* A change of a folder, noted before and taken back if it fails. */
#define NOTED(note, call)  \
    do {                   \
        int rc_;           \
        enter();           \
        note;              \
        rc_ = (int)(call); \
        if (rc_ != 0)      \
            undo_cancel(); \
        leave();           \
        return rc_;        \
    } while (0)

int
mkdirat(int dirfd, const char *path, mode_t mode)
{
    char full[UNDO_PATH_MAX];

    if (!atomic_load(&on) || !undo_path_of(dirfd, path, full))
        return (int)syscall(SYS_mkdirat, dirfd, path, mode);
    NOTED(undo_makes_folder(full), syscall(SYS_mkdirat, dirfd, path, mode));
}

int
mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}

int
unlinkat(int dirfd, const char *path, int flags)
{
    char full[UNDO_PATH_MAX];

    if (!atomic_load(&on) || !undo_path_of(dirfd, path, full))
        return (int)syscall(SYS_unlinkat, dirfd, path, flags);
    if ((flags & AT_REMOVEDIR) != 0)
        NOTED(undo_removes_folder(full), syscall(SYS_unlinkat, dirfd, path, flags));
    NOTED(undo_unlinks(full), syscall(SYS_unlinkat, dirfd, path, flags));
}

int
unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

int
rmdir(const char *path)
{
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

int
remove(const char *path)
{
    struct stat st;

    if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return rmdir(path);
    return unlink(path);
}

int
linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    char full[UNDO_PATH_MAX];

    if (!atomic_load(&on) || !undo_path_of(to_fd, to, full))
        return (int)syscall(SYS_linkat, from_fd, from, to_fd, to, flags);
    NOTED(undo_creates(full), syscall(SYS_linkat, from_fd, from, to_fd, to, flags));
}

int
link(const char *from, const char *to)
{
    return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int
renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    char from_full[UNDO_PATH_MAX], to_full[UNDO_PATH_MAX];

    if (!atomic_load(&on) || flags != 0 ||
        !undo_path_of(from_fd, from, from_full) ||
        !undo_path_of(to_fd, to, to_full))
        return (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, flags);
    NOTED(undo_renames(from_full, to_full),
          syscall(SYS_renameat2, from_fd, from, to_fd, to, flags));
}

int
renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    return renameat2(from_fd, from, to_fd, to, 0);
}

int
rename(const char *from, const char *to)
{
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

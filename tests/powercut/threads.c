#define _GNU_SOURCE
#include "tests/powercut/threads.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What getdents64 gives of /proc/self/task. */
struct task {
    uint64_t ino;
    int64_t off;
    unsigned short size;
    unsigned char type;
    char name[];
};

unsigned
threads_signal(int number)
{
    char bytes[4096] __attribute__((aligned(8)));
    long self = syscall(SYS_gettid), n;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/task", O_RDONLY, 0);
    unsigned others = 0;

    if (fd < 0)
        abort();
    while ((n = syscall(SYS_getdents64, fd, bytes, sizeof(bytes))) > 0)
        for (long at = 0; at < n;) {
            const struct task *task = (const void *)(bytes + at);
            long tid = strtol(task->name, NULL, 10);

            at += task->size;
            if (tid <= 0 || tid == self)
                continue;
            others++;
            (void)syscall(SYS_tgkill, getpid(), tid, number);
        }
    (void)syscall(SYS_close, fd);
    return others;
}

#define _GNU_SOURCE /* flock */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "common/file.h"
#include "ingest/relay_impl.h"

enum err
relay_lock(const char *dir, int *fd, struct why *why)
{
    char path[FILE_PATH_MAX + 16];

    (void)snprintf(path, sizeof(path), "%s/relay.lock", dir);
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (*fd < 0)
        return err_set(why, ERR_FATAL, "%s: %s", path, strerror(errno));
    if (flock(*fd, LOCK_EX | LOCK_NB) == 0)
        return ERR_OK;
    (void)close(*fd);
    *fd = -1;
    return err_set(why, ERR_CONFLICT,
                   "%s: another relay sends from this spool already", dir);
}

/* The name says all, so that its making is atomic and several requests do not collide. */
static enum err
request_make(const char *dir, uint32_t partition, uint64_t offset, struct why *why)
{
    char path[FILE_PATH_MAX + 64];
    int fd;

    (void)snprintf(path, sizeof(path), "%s/rewind-%" PRIu32 "-%" PRIu64, dir,
                   partition, offset);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0)
        return err_set(why, ERR_FATAL, "%s: %s", path, strerror(errno));
    (void)close(fd);
    return file_sync_folder_of(path, why);
}

enum err
relay_rewind(const char *dir, struct clicklog *log, uint32_t partition,
             uint64_t offset, uint64_t *from, struct why *why)
{
    struct relay_cursor *cursor = NULL;
    uint64_t first, next, at;
    int fd = -1;
    enum err err;

    if (partition >= clicklog_partitions(log))
        return err_set(why, ERR_INVALID, "partition %" PRIu32 ": there are 0 to %u",
                       partition, clicklog_partitions(log) - 1);
    err = relay_cursor_open(&cursor, dir, log, why);
    if (err != ERR_OK)
        return err;
    at = relay_cursor_get(cursor, partition);
    err = clicklog_range(log, partition, &first, &next, why);
    if (err == ERR_OK) {
        *from = offset < first ? first : offset > at ? at : offset;
        err = relay_lock(dir, &fd, why);
        if (err == ERR_OK)
            relay_cursor_lower(cursor, partition, *from);
        else if (err == ERR_CONFLICT)
            err = request_make(dir, partition, *from, why);
    }
    if (fd >= 0)
        (void)close(fd);
    relay_cursor_close(&cursor);
    return err;
}

static bool
number_read(const char **p, uint64_t *out)
{
    char *end;

    if (**p < '0' || **p > '9')
        return false;
    errno = 0;
    *out = strtoull(*p, &end, 10);
    *p = end;
    return errno == 0;
}

static bool
name_read(const char *name, uint64_t *partition, uint64_t *offset)
{
    static const char head[] = "rewind-";
    const char *p = name + sizeof(head) - 1;

    if (strncmp(name, head, sizeof(head) - 1) != 0 || !number_read(&p, partition) ||
        *p++ != '-')
        return false;
    return number_read(&p, offset) && *p == '\0';
}

void
relay_rewinds_each(const char *dir, uint32_t partitions,
                   void (*take)(void *ctx, uint32_t partition, uint64_t offset),
                   void *ctx)
{
    char path[FILE_PATH_MAX + 264];
    uint64_t partition, offset;
    struct dirent *entry;
    DIR *d = opendir(dir);

    while (d != NULL && (entry = readdir(d)) != NULL) {
        if (!name_read(entry->d_name, &partition, &offset))
            continue;
        if (partition < partitions)
            take(ctx, (uint32_t)partition, offset);
        (void)snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
        (void)unlink(path);
    }
    if (d != NULL)
        (void)closedir(d);
}

#define _GNU_SOURCE /* syncfs */
#include "billing/publish.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"

enum { DISKS_MAX = 8 };

void
publish_init(struct publish *publish)
{
    *publish = (struct publish){.paths = BUF_MAX(PUBLISH_BYTES_MAX)};
}

enum err
publish_add(struct publish *publish, const char *path, struct why *why)
{
    size_t n = strlen(path) + 1;

    if (n > FILE_PATH_MAX)
        return err_set(why, ERR_INVALID, "path %.80s...: too long", path);
    buf_add(&publish->paths, path, n);
    publish->files++;
    if (publish->paths.failed)
        return err_set(why, ERR_FULL, "publish: paths of more than %d bytes",
                       PUBLISH_BYTES_MAX);
    return ERR_OK;
}

enum err
publish_avro(struct publish *publish, struct avrofile_writer **writer,
             const char *path, struct why *why)
{
    enum err err;

    if (publish == NULL)
        return avrofile_finish(writer, NULL, NULL, why);
    err =
        publish_add(publish, path, why); /* so that a failed one is removed, too */
    if (err == ERR_OK)
        return avrofile_finish_unsynced(writer, why);
    avrofile_abort(writer);
    return err;
}

static const char *
path_next(const struct publish *publish, const char *path)
{
    const char *next = path + strlen(path) + 1;

    return next == (const char *)publish->paths.p + publish->paths.n ? NULL : next;
}

static const char *
path_first(const struct publish *publish)
{
    return publish->paths.n == 0 ? NULL : (const char *)publish->paths.p;
}

static enum err
failed(const char *what, const char *path, struct why *why)
{
    return err_set(why, errno == ENOSPC || errno == EDQUOT ? ERR_FULL : ERR_FATAL,
                   "%s %s: %s", what, path, strerror(errno));
}

static bool
same_folder(const char *a, const char *b)
{
    size_t n = (size_t)(strrchr(a, '/') - a);

    return strncmp(a, b, n + 1) == 0 && strchr(b + n + 1, '/') == NULL;
}

/* Syncs the file system of path's folder, unless it is among those done. */
static enum err
disk_sync(const char *path, dev_t *done, int *done_n, struct why *why)
{
    char folder[FILE_PATH_MAX];
    struct stat st;
    enum err err = ERR_OK;
    int fd;

    (void)snprintf(folder, sizeof(folder), "%s", path);
    *strrchr(folder, '/') = '\0';
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return failed("open", folder, why);
    if (fstat(fd, &st) != 0)
        err = failed("stat", folder, why);
    for (int i = 0; i < *done_n && err == ERR_OK; i++)
        if (done[i] == st.st_dev) {
            (void)close(fd);
            return ERR_OK;
        }
    if (err == ERR_OK && *done_n == DISKS_MAX)
        err = err_set(why, ERR_FULL, "%s: on more than %d file systems", folder,
                      DISKS_MAX);
    if (err == ERR_OK && syncfs(fd) != 0)
        err = failed("sync the file system of", folder, why);
    if (err == ERR_OK)
        done[(*done_n)++] = st.st_dev;
    (void)close(fd);
    return err;
}

static enum err
file_sync(const char *path, struct why *why)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    enum err err = ERR_OK;

    if (fd < 0)
        return failed("open", path, why);
    if (fsync(fd) != 0)
        err = failed("sync", path, why);
    (void)close(fd);
    return err;
}

/* The bytes of every temporary file, durable. */
static enum err
bytes_sync(const struct publish *publish, struct why *why)
{
    const char *before = NULL;
    dev_t disks[DISKS_MAX];
    int disks_n = 0;
    enum err err = ERR_OK;

    for (const char *p = path_first(publish); p != NULL && err == ERR_OK;
         before = p, p = path_next(publish, p)) {
        char tmp[FILE_PATH_MAX + 4];

        (void)snprintf(tmp, sizeof(tmp), "%s.tmp", p);
        if (publish->files <= PUBLISH_EACH_MAX)
            err = file_sync(tmp, why);
        else if (before == NULL || !same_folder(before, p))
            err = disk_sync(p, disks, &disks_n, why);
    }
    return err;
}

enum err
publish_all(struct publish *publish, struct why *why)
{
    char tmp[FILE_PATH_MAX + 4];
    const char *before = NULL;
    enum err err = bytes_sync(publish, why);

    for (const char *p = path_first(publish); p != NULL && err == ERR_OK;
         p = path_next(publish, p)) {
        (void)snprintf(tmp, sizeof(tmp), "%s.tmp", p);
        if (rename(tmp, p) != 0)
            err = failed("rename to", p, why);
    }
    for (const char *p = path_first(publish); p != NULL && err == ERR_OK;
         before = p, p = path_next(publish, p))
        if (before == NULL || !same_folder(before, p))
            err = file_sync_folder_of(p, why);
    if (err == ERR_OK) {
        buf_reset(&publish->paths);
        publish->files = 0;
    }
    return err;
}

void
publish_free(struct publish *publish)
{
    char tmp[FILE_PATH_MAX + 4];

    for (const char *p = path_first(publish); p != NULL;
         p = path_next(publish, p)) {
        (void)snprintf(tmp, sizeof(tmp), "%s.tmp", p);
        (void)unlink(tmp);
    }
    buf_free(&publish->paths);
    publish->files = 0;
}

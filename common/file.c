#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/hash.h"

enum { FOLDER_MODE = 0750, FILE_MODE = 0640, READ_STEP = 65536 };

/* The error in errno, of doing verb to path. */
static enum err
failed(const char *verb, const char *path, struct why *why)
{
    int error = errno;
    enum err code = error == ENOSPC || error == EDQUOT ? ERR_FULL
                    : error == ENOENT                  ? ERR_NOTFOUND
                                                       : ERR_FATAL;

    return err_set(why, code, "%s %s: %s", verb, path, strerror(error));
}

static enum err
path_copy(const char *path, char out[FILE_PATH_MAX], struct why *why)
{
    size_t n = strlen(path);

    if (n == 0)
        return err_set(why, ERR_INVALID, "a path is empty");
    if (n >= FILE_PATH_MAX)
        return err_set(why, ERR_INVALID, "path %.80s...: longer than %d bytes",
                       path, FILE_PATH_MAX - 1);
    memcpy(out, path, n + 1);
    return ERR_OK;
}

enum err
file_sync_folder_of(const char *path, struct why *why)
{
    char folder[FILE_PATH_MAX];
    enum err err = path_copy(path, folder, why);

    if (err != ERR_OK)
        return err;

    char *slash = strrchr(folder, '/');
    if (slash == NULL)
        memcpy(folder, ".", 2);
    else
        slash[slash == folder ? 1 : 0] = '\0';

    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return failed("open folder", folder, why);
    if (fsync(fd) != 0)
        err = failed("sync folder", folder, why);
    (void)close(fd);
    return err;
}

/* One folder, whose parent is there. */
static enum err
make_folder(const char *path, struct why *why)
{
    struct stat st;

    if (mkdir(path, FOLDER_MODE) == 0)
        return file_sync_folder_of(path, why);
    if (errno != EEXIST)
        return failed("make folder", path, why);
    if (stat(path, &st) != 0)
        return failed("look at", path, why);
    if (!S_ISDIR(st.st_mode))
        return err_set(why, ERR_FATAL, "make folder %s: a file of this name exists",
                       path);
    return ERR_OK;
}

enum err
file_mkdirs(const char *path, struct why *why)
{
    char part[FILE_PATH_MAX];
    enum err err = path_copy(path, part, why);

    if (err != ERR_OK)
        return err;
    for (size_t n = strlen(part); n > 1 && part[n - 1] == '/'; n--)
        part[n - 1] = '\0';
    for (char *p = part + 1; *p != '\0' && err == ERR_OK; p++) {
        if (*p != '/' || p[-1] == '/')
            continue;
        *p = '\0';
        err = make_folder(part, why);
        *p = '/';
    }
    return err == ERR_OK ? make_folder(part, why) : err;
}

static enum err
read_all(int fd, const char *path, struct buf *out, struct why *why)
{
    for (;;) {
        size_t room = out->max - out->n < READ_STEP ? out->max - out->n : READ_STEP;
        uint8_t beyond, *to = room == 0 ? &beyond : buf_room(out, room);
        ssize_t n;

        if (to == NULL)
            return err_set(why, ERR_NOMEM, "read %s: no memory", path);
        n = read(fd, to, room == 0 ? 1 : room);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return failed("read", path, why);
        if (n == 0)
            return ERR_OK;
        if (room == 0)
            return err_set(why, ERR_FULL,
                           "read %s: larger than the %zu bytes allowed", path,
                           out->max);
        out->n += (size_t)n;
    }
}

enum err
file_read(const char *path, struct buf *out, struct why *why)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    enum err err;

    if (fd < 0)
        return failed("open", path, why);
    err = read_all(fd, path, out, why);
    (void)close(fd);
    return err;
}

enum err
file_write_all(int fd, const void *data, size_t size, const char *path,
               struct why *why)
{
    const uint8_t *p = data;

    while (size > 0) {
        ssize_t n = write(fd, p, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return failed("write", path, why);
        p += n;
        size -= (size_t)n;
    }
    return ERR_OK;
}

enum err
file_publish(const char *tmp, const char *path, struct why *why)
{
    if (rename(tmp, path) != 0)
        return failed("rename to", path, why);
    return file_sync_folder_of(path, why);
}

/* Writes, syncs and closes fd whatever happens. */
static enum err
write_and_sync(int fd, const void *data, size_t size, const char *path,
               struct why *why)
{
    enum err err = file_write_all(fd, data, size, path, why);

    if (err == ERR_OK && fsync(fd) != 0)
        err = failed("sync", path, why);
    if (close(fd) != 0 && err == ERR_OK)
        err = failed("close", path, why);
    return err;
}

enum err
file_write(const char *path, const void *data, size_t size, struct why *why)
{
    char tmp[FILE_PATH_MAX];
    int n = snprintf(tmp, sizeof(tmp), "%s.%016" PRIx64 ".tmp", path,
                     hash_random_u64());

    if (n < 0 || n >= FILE_PATH_MAX)
        return err_set(why, ERR_INVALID, "path %.80s...: too long", path);

    int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, FILE_MODE);
    if (fd < 0)
        return failed("create", tmp, why);

    enum err err = write_and_sync(fd, data, size, tmp, why);
    if (err == ERR_OK)
        return file_publish(tmp, path, why);
    (void)unlink(tmp);
    return err;
}

#define _DEFAULT_SOURCE /* flock */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "common/file.h"
#include "schema/manifest.h"
#include "schema/manifest_line.h"

struct manifest_writer {
    int fd;
    bool broken; /* the end of the list on disk is unknown */
    struct manifest_state state;
    struct manifest_file last; /* path "": none */
    off_t size;
    char path[FILE_PATH_MAX];
};

static enum err
failed(const struct manifest_writer *writer, const char *verb, struct why *why)
{
    return err_set(why, errno == ENOSPC || errno == EDQUOT ? ERR_FULL : ERR_FATAL,
                   "%s %s: %s", verb, writer->path, strerror(errno));
}

static enum err
list_open(struct manifest_writer *writer, const char *dir, uint32_t partition,
          struct why *why)
{
    char folder[FILE_PATH_MAX];
    enum err err =
        manifest_list_path(dir, partition, writer->path, sizeof(writer->path), why);

    if (err != ERR_OK)
        return err;
    memcpy(folder, writer->path, sizeof(folder));
    *strrchr(folder, '/') = '\0';
    err = file_mkdirs(folder, why);
    if (err != ERR_OK)
        return err;
    writer->fd = open(writer->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (writer->fd < 0)
        return failed(writer, "open", why);
    if (flock(writer->fd, LOCK_EX | LOCK_NB) != 0)
        return err_set(why, ERR_CONFLICT,
                       "%s: another archive writes it; stop that one first",
                       writer->path);
    return file_sync_folder_of(writer->path, why);
}

/* Reads the list, and cuts a torn last line. */
static enum err
list_mend(struct manifest_writer *writer, struct str text,
          char incs[MANIFEST_INCS_MAX], struct why *why)
{
    struct manifest_line line;
    uint32_t at = 0, number = 1;
    enum manifest_step step;

    for (; (step = manifest_line_next(text, &at, &line)) == MANIFEST_LINE;
         number++) {
        const char *wrong = manifest_line_follow(&writer->state, &line);

        if (wrong != NULL)
            return err_set(why, ERR_CORRUPT, "%s:%u: %s", writer->path, number,
                           wrong);
        if (!line.is_file)
            continue;
        writer->last = line.file;
        if (line.incs.n > 0)
            memcpy(incs, line.incs.p, line.incs.n);
        incs[line.incs.n] = '\0';
    }
    if (step == MANIFEST_DAMAGED)
        return err_set(why, ERR_CORRUPT, "%s:%u: the line is damaged", writer->path,
                       number);
    writer->size = (off_t)at;
    if (step == MANIFEST_TORN &&
        (ftruncate(writer->fd, writer->size) != 0 || fsync(writer->fd) != 0))
        return failed(writer, "mend", why);
    return ERR_OK;
}

enum err
manifest_writer_open(struct manifest_writer **out, const char *dir,
                     uint32_t partition, uint64_t *next,
                     char incs[MANIFEST_INCS_MAX], struct why *why)
{
    struct buf text = BUF_MAX(MANIFEST_BYTES_MAX);
    struct manifest_writer *writer = calloc(1, sizeof(*writer));
    enum err err;

    assert(partition < MANIFEST_PARTITIONS_MAX);
    *out = NULL;
    incs[0] = '\0';
    if (writer == NULL)
        return err_set(why, ERR_NOMEM, "archive list: no memory");
    writer->fd = -1;
    err = list_open(writer, dir, partition, why);
    if (err == ERR_OK)
        err = file_read(writer->path, &text, why);
    if (err == ERR_OK)
        err =
            list_mend(writer, (struct str){(const char *)text.p, (uint32_t)text.n},
                      incs, why);
    buf_free(&text);
    if (err != ERR_OK) {
        manifest_writer_close(&writer);
        return err;
    }
    *next = writer->state.next;
    *out = writer;
    return ERR_OK;
}

void
manifest_writer_close(struct manifest_writer **writer)
{
    if (*writer == NULL)
        return;
    if ((*writer)->fd >= 0)
        (void)close((*writer)->fd);
    free(*writer);
    *writer = NULL;
}

int64_t
manifest_writer_through(const struct manifest_writer *writer)
{
    return writer->state.through_us;
}

const struct manifest_file *
manifest_writer_last(const struct manifest_writer *writer)
{
    return writer->last.path[0] == '\0' ? NULL : &writer->last;
}

/* Appends and syncs; on failure the list is cut back to what it was. After a failed sync
 * nobody knows what the disk holds, so the writer is broken until it is opened anew. */
static enum err
line_append(struct manifest_writer *writer, struct buf *line,
            const struct manifest_state *after, struct why *why)
{
    enum err err;

    if (line->failed)
        return err_set(why, ERR_NOMEM, "%s: no memory for a line", writer->path);
    err = file_write_all(writer->fd, line->p, line->n, writer->path, why);
    if (err == ERR_OK && fsync(writer->fd) != 0) {
        writer->broken = true;
        return failed(writer, "sync", why);
    }
    if (err != ERR_OK) {
        writer->broken = ftruncate(writer->fd, writer->size) != 0;
        return err;
    }
    writer->size += (off_t)line->n;
    writer->state = *after;
    return ERR_OK;
}

/* line.file's text form must be read back as it is. */
static enum err
line_put(struct manifest_writer *writer, const struct manifest_line *line,
         struct why *why)
{
    struct manifest_state after = writer->state;
    const char *wrong = manifest_line_follow(&after, line);
    struct buf text = BUF_MAX(MANIFEST_INCS_MAX + 1024);
    struct manifest_line back;
    uint32_t at = 0;
    enum err err;

    if (writer->broken)
        return err_set(why, ERR_FATAL, "%s: an earlier write failed; open it anew",
                       writer->path);
    if (wrong != NULL)
        return err_set(why, ERR_CONFLICT, "%s: %s is refused: %s", writer->path,
                       line->is_file ? line->file.path : "through", wrong);
    if (line->is_file)
        manifest_line_add_file(&text, &line->file, line->incs);
    else
        manifest_line_add_through(&text, line->through_us);
    if (!text.failed &&
        manifest_line_next((struct str){(const char *)text.p, (uint32_t)text.n},
                           &at, &back) != MANIFEST_LINE)
        err = err_set(why, ERR_INVALID, "%s: a file that cannot be listed: %.100s",
                      writer->path, line->is_file ? line->file.path : "through");
    else
        err = line_append(writer, &text, &after, why);
    if (err == ERR_OK && line->is_file)
        writer->last = line->file;
    buf_free(&text);
    return err;
}

enum err
manifest_add(struct manifest_writer *writer, const struct manifest_file *file,
             const char *incs, struct why *why)
{
    struct manifest_line line = {.is_file = true, .file = *file};

    line.incs = str_of(incs);
    return line_put(writer, &line, why);
}

enum err
manifest_through(struct manifest_writer *writer, int64_t received_us,
                 struct why *why)
{
    struct manifest_line line = {.is_file = false, .through_us = received_us};

    /* Nothing new to say: a list does not grow by what it says already. */
    if (received_us == writer->state.through_us)
        return ERR_OK;
    return line_put(writer, &line, why);
}

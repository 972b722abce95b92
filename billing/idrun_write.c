#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "billing/idrun.h"
#include "billing/idrun_file.h"
#include "common/hash.h"

struct idrun_writer {
    int fd;
    struct idrun_header header;
    uint64_t added;
    uint64_t last_hash;
    uint32_t n; /* in the chunk */
    uint64_t *hashes;
    struct idrun_detail *details;
    char path[FILE_PATH_MAX], tmp[FILE_PATH_MAX + 8];
};

enum err
idrun_create(struct idrun_writer **out, const char *path, int64_t from_us,
             int64_t to_us, uint64_t count, struct why *why)
{
    struct idrun_writer *w = calloc(1, sizeof(*w));
    struct idrun_header *h;

    *out = NULL;
    if (w == NULL)
        return err_set(why, ERR_NOMEM, "id run: no memory");
    (void)snprintf(w->path, sizeof(w->path), "%s", path);
    (void)snprintf(w->tmp, sizeof(w->tmp), "%s.tmp", path);
    w->hashes = malloc(IDRUN_CHUNK * sizeof(*w->hashes));
    w->details = malloc(IDRUN_CHUNK * sizeof(*w->details));
    w->fd = open(w->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (w->hashes == NULL || w->details == NULL || w->fd < 0) {
        enum err err = w->fd < 0 ? err_set(why, ERR_FATAL, "create %s: %s", w->tmp,
                                           strerror(errno))
                                 : err_set(why, ERR_NOMEM, "id run: no memory");

        idrun_abort(&w);
        return err;
    }
    h = &w->header;
    memcpy(h->magic, IDRUN_MAGIC, sizeof(h->magic));
    h->version = IDRUN_VERSION;
    h->chunk = IDRUN_CHUNK;
    h->count = count;
    h->from_us = from_us;
    h->to_us = to_us;
    h->hashes_at = sizeof(*h);
    h->details_at = h->hashes_at + count * sizeof(uint64_t);
    h->tables_at = h->details_at + count * sizeof(struct idrun_detail);
    *out = w;
    return ERR_OK;
}

static enum err
write_at(struct idrun_writer *w, const void *data, size_t n, uint64_t at,
         struct why *why)
{
    const uint8_t *p = data;

    while (n > 0) {
        ssize_t done = pwrite(w->fd, p, n, (off_t)at);

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return err_set(why, errno == ENOSPC ? ERR_FULL : ERR_FATAL,
                           "write %s: %s", w->tmp, strerror(errno));
        p += done;
        at += (uint64_t)done;
        n -= (size_t)done;
    }
    return ERR_OK;
}

static enum err
chunk_flush(struct idrun_writer *w, struct why *why)
{
    struct idrun_header *h = &w->header;
    uint64_t first = w->added - w->n;
    enum err err = write_at(w, w->hashes, w->n * sizeof(uint64_t),
                            h->hashes_at + first * sizeof(uint64_t), why);

    if (err == ERR_OK)
        err = write_at(w, w->details, w->n * sizeof(struct idrun_detail),
                       h->details_at + first * sizeof(struct idrun_detail), why);
    h->hashes_sum = hash64(w->hashes, w->n * sizeof(uint64_t), h->hashes_sum);
    h->details_sum =
        hash64(w->details, w->n * sizeof(struct idrun_detail), h->details_sum);
    w->n = 0;
    return err;
}

enum err
idrun_add(struct idrun_writer *w, uint64_t hash, const struct idrun_detail *detail,
          struct why *why)
{
    assert(w->added < w->header.count);
    assert(w->added == 0 || hash >= w->last_hash);
    w->last_hash = hash;
    w->hashes[w->n] = hash;
    w->details[w->n] = *detail;
    w->n++;
    w->added++;
    return w->n == IDRUN_CHUNK ? chunk_flush(w, why) : ERR_OK;
}

/* The tables as one block, by malloc; NULL without memory. */
static uint8_t *
tables_build(struct idrun_header *h, const struct idrun_tables *t)
{
    uint32_t zones_n = 0, zone_at = t->text_n;
    uint8_t *block, *p;

    for (uint32_t i = 0; i < t->zones_n; i++)
        zones_n += t->zones[i].n + 1;
    h->files_n = t->files_n;
    h->zones_n = t->zones_n;
    h->accounts_n = t->accounts_n;
    h->text_n = t->text_n + zones_n;
    h->tables_n = (uint64_t)t->files_n * sizeof(struct idrun_file) +
                  ((uint64_t)t->zones_n + t->accounts_n) * 4 + h->text_n;
    block = p = calloc(1, h->tables_n + 1);
    if (block == NULL)
        return NULL;
    if (t->files_n > 0)
        memcpy(p, t->files, t->files_n * sizeof(struct idrun_file));
    p += t->files_n * sizeof(struct idrun_file);
    for (uint32_t i = 0; i < t->zones_n; i++, p += 4) {
        memcpy(p, &zone_at, 4);
        zone_at += t->zones[i].n + 1;
    }
    if (t->accounts_n > 0)
        memcpy(p, t->accounts, t->accounts_n * 4);
    p += t->accounts_n * 4;
    if (t->text_n > 0)
        memcpy(p, t->text, t->text_n);
    p += t->text_n;
    for (uint32_t i = 0; i < t->zones_n; i++) {
        memcpy(p, t->zones[i].p, t->zones[i].n);
        p += t->zones[i].n + 1; /* calloc ended it */
    }
    return block;
}

static enum err
finish(struct idrun_writer *w, const struct idrun_tables *tables,
       struct publish *publish, struct why *why)
{
    struct idrun_header *h = &w->header;
    uint8_t *block;
    enum err err;

    assert(w->added == h->count);
    err = chunk_flush(w, why);
    if (err != ERR_OK)
        return err;
    block = tables_build(h, tables);
    if (block == NULL)
        return err_set(why, ERR_NOMEM, "id run: no memory");
    h->tables_sum = hash64(block, h->tables_n, 0);
    h->sum = hash64(h, offsetof(struct idrun_header, sum), 0);
    err = write_at(w, block, h->tables_n, h->tables_at, why);
    free(block);
    if (err == ERR_OK)
        err = write_at(w, h, sizeof(*h), 0, why);
    if (err == ERR_OK && publish != NULL)
        return publish_add(publish, w->path, why);
    if (err == ERR_OK && fsync(w->fd) != 0)
        err = err_set(why, ERR_FATAL, "sync %s: %s", w->tmp, strerror(errno));
    return err == ERR_OK ? file_publish(w->tmp, w->path, why) : err;
}

enum err
idrun_finish(struct idrun_writer **writer, const struct idrun_tables *tables,
             struct publish *publish, struct why *why)
{
    enum err err = finish(*writer, tables, publish, why);

    if (err == ERR_OK)
        (*writer)->tmp[0] = '\0';
    idrun_abort(writer);
    return err;
}

void
idrun_abort(struct idrun_writer **writer)
{
    struct idrun_writer *w = *writer;

    if (w == NULL)
        return;
    if (w->fd >= 0) {
        (void)close(w->fd);
        if (w->tmp[0] != '\0')
            (void)unlink(w->tmp);
    }
    free(w->hashes);
    free(w->details);
    free(w);
    *writer = NULL;
}

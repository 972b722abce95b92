#define _GNU_SOURCE /* flock */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"
#include "common/log.h"
#include "ingest/relay_impl.h"

#define CURSOR_MAGIC UINT64_C(0x31524f5352554352) /* "RCURSOR1" */

enum { CURSOR_BYTES = 4096 /* one page: either all of it is there or none */ };

struct cursor_file {
    uint64_t magic;
    uint64_t spool_id;
    uint32_t partitions;
    uint32_t zero;
    _Atomic uint64_t at[CLICKLOG_PARTITIONS_MAX];
    _Atomic uint64_t
        incarnation; /* the spool's newest when `at` was last held against
                                     it; 0: never */
};

static_assert(sizeof(struct cursor_file) <= CURSOR_BYTES, "one page");

struct relay_cursor {
    struct cursor_file *file; /* mapped shared */
    uint32_t partitions;
};

void
relay_dir(const struct config *config, char *out)
{
    (void)snprintf(out, FILE_PATH_MAX, "%s/relay", config->data_dir);
}

static enum err
failed(const char *path, const char *doing, struct why *why)
{
    return err_set(why, errno == ENOSPC ? ERR_FULL : ERR_FATAL, "%s: %s: %s", path,
                   doing, strerror(errno));
}

/* In place, since others may have it mapped: the magic goes first and comes last. */
static enum err
begin_anew(struct cursor_file *file, struct clicklog *log, uint64_t spool_id,
           struct why *why)
{
    uint32_t partitions = clicklog_partitions(log);

    file->magic = 0;
    atomic_thread_fence(memory_order_seq_cst);
    for (uint32_t p = 0; p < CLICKLOG_PARTITIONS_MAX; p++) {
        uint64_t first = 0, next;
        enum err err =
            p < partitions ? clicklog_range(log, p, &first, &next, why) : ERR_OK;

        if (err != ERR_OK)
            return err;
        atomic_store(&file->at[p], first);
    }
    atomic_store(&file->incarnation, 0);
    file->spool_id = spool_id;
    file->partitions = partitions;
    file->zero = 0;
    atomic_thread_fence(memory_order_seq_cst);
    file->magic = CURSOR_MAGIC;
    return ERR_OK;
}

/* Holds the file's lock. */
static enum err
content_check(struct cursor_file *file, struct clicklog *log, const char *path,
              bool fresh, struct why *why)
{
    struct clicklog_stats stats;
    const char *fault = NULL;

    clicklog_stats_get(log, &stats);
    if (file->magic != CURSOR_MAGIC || file->zero != 0)
        fault = "damaged";
    else if (file->spool_id != stats.spool_id)
        fault = "of another spool";
    else if (file->partitions != clicklog_partitions(log))
        fault = "of another number of partitions";
    if (fault == NULL)
        return ERR_OK;
    if (!fresh)
        log_event(LOG_WARN, "relay_cursor_anew", LOG_TEXT("path", path),
                  LOG_TEXT("why", fault),
                  LOG_TEXT("effect", "all that the spool holds is sent again"));
    return begin_anew(file, log, stats.spool_id, why);
}

/* The file has its size and nothing else is sure; the caller closes fd. */
static enum err
file_size_set(int fd, const char *path, bool *fresh, struct why *why)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return failed(path, "cannot look at it", why);
    *fresh = st.st_size == 0;
    if (st.st_size == CURSOR_BYTES)
        return ERR_OK;
    /* Never shorter: what others have mapped must stay there. posix_fallocate, so that a
     * full disk says so here and not by a signal at the first write. */
    int rc = posix_fallocate(fd, 0, CURSOR_BYTES);

    errno = rc;
    return rc == 0 ? ERR_OK : failed(path, "cannot make it", why);
}

/* What was acknowledged may be of a spool that has been set back to an older image since: what it
 * appended then has the same offsets and was never sent. `at` counts clicks of the incarnation
 * that it was held against, and of older ones, and so ends where that one ends in this spool. */
static enum err
incarnation_check(struct relay_cursor *cursor, struct clicklog *log,
                  struct why *why)
{
    uint64_t was = atomic_load(&cursor->file->incarnation);
    struct clicklog_mark mark;
    enum err err = clicklog_mark_get(log, &mark, why);

    for (uint32_t p = 0; p < cursor->partitions && err == ERR_OK && was != 0 &&
                         was != mark.incarnation;
         p++) {
        uint64_t end = 0, next;

        err = clicklog_offset_of(log, p, (struct clicklog_last){was, UINT64_MAX},
                                 &end, why);
        if (err == ERR_NOTFOUND) /* the image is from before it */
            err = clicklog_range(log, p, &end, &next, why);
        if (err == ERR_OK)
            relay_cursor_lower(cursor, p, end);
    }
    if (err == ERR_OK)
        relay_cursor_stamp(cursor, mark.incarnation);
    return err;
}

enum err
relay_cursor_open(struct relay_cursor **out, const char *dir, struct clicklog *log,
                  struct why *why)
{
    struct relay_cursor *cursor = calloc(1, sizeof(*cursor));
    char path[FILE_PATH_MAX + 16];
    bool fresh = false;
    enum err err;
    int fd = -1;

    *out = NULL;
    if (cursor == NULL)
        return err_set(why, ERR_NOMEM, "relay: no memory");
    (void)snprintf(path, sizeof(path), "%s/cursor", dir);
    err = file_mkdirs(dir, why);
    if (err == ERR_OK) {
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
        if (fd < 0 || flock(fd, LOCK_EX) != 0)
            err = failed(path, "cannot open it", why);
    }
    if (err == ERR_OK)
        err = file_size_set(fd, path, &fresh, why);
    if (err == ERR_OK) {
        void *map =
            mmap(NULL, CURSOR_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

        if (map == MAP_FAILED)
            err = failed(path, "cannot map it", why);
        else
            cursor->file = map;
    }
    if (err == ERR_OK)
        err = content_check(cursor->file, log, path, fresh, why);
    cursor->partitions = clicklog_partitions(log);
    if (err == ERR_OK)
        err = incarnation_check(cursor, log, why);
    if (err == ERR_OK)
        err = relay_cursor_clamp(cursor, log, why);
    if (fd >= 0) {
        (void)flock(fd, LOCK_UN); /* the mapping would keep it */
        (void)close(fd);
    }
    *out = cursor;
    if (err != ERR_OK)
        relay_cursor_close(out);
    return err;
}

void
relay_cursor_close(struct relay_cursor **cursor)
{
    struct relay_cursor *c = *cursor;

    *cursor = NULL;
    if (c == NULL)
        return;
    if (c->file != NULL)
        (void)munmap(c->file, CURSOR_BYTES);
    free(c);
}

uint64_t
relay_cursor_get(const struct relay_cursor *cursor, uint32_t partition)
{
    assert(partition < cursor->partitions);
    return atomic_load_explicit(&cursor->file->at[partition], memory_order_acquire);
}

void
relay_cursor_raise(struct relay_cursor *cursor, uint32_t partition, uint64_t offset)
{
    assert(partition < cursor->partitions);
    if (offset > relay_cursor_get(cursor, partition))
        atomic_store_explicit(&cursor->file->at[partition], offset,
                              memory_order_release);
}

void
relay_cursor_lower(struct relay_cursor *cursor, uint32_t partition, uint64_t offset)
{
    uint64_t at = relay_cursor_get(cursor, partition);

    while (offset < at &&
           !atomic_compare_exchange_weak(&cursor->file->at[partition], &at, offset))
        ;
}

void
relay_cursor_stamp(struct relay_cursor *cursor, uint64_t incarnation)
{
    atomic_store(&cursor->file->incarnation, incarnation);
}

enum err
relay_cursor_clamp(struct relay_cursor *cursor, struct clicklog *log,
                   struct why *why)
{
    for (uint32_t p = 0; p < cursor->partitions; p++) {
        /* Before the range: the spool only grows, and a running relay is never past it. */
        uint64_t at = relay_cursor_get(cursor, p), first, next;
        enum err err = clicklog_range(log, p, &first, &next, why);

        if (err != ERR_OK)
            return err;
        if (at >= first && at <= next)
            continue;
        log_event(
            LOG_WARN, "relay_cursor_moved", LOG_NUMBER("partition", p),
            LOG_NUMBER("from", at), LOG_NUMBER("to", at < first ? first : next),
            LOG_TEXT("why", at < first ? "the spool does not hold these any more"
                                       : "the spool ends before it"));
        if (at < first)
            relay_cursor_raise(cursor, p, first);
        else
            relay_cursor_lower(cursor, p, next);
    }
    return ERR_OK;
}

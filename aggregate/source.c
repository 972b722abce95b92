#include "aggregate/source.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/file.h"
#include "schema/avrofile.h"
#include "schema/manifest.h"

struct source {
    struct clicklog *log;
    const char *archive_dir;
    uint32_t partition;
    /* the archive file in hand */
    struct avrofile_reader *file;
    struct manifest_file listed;
    unsigned version;
    uint64_t *verdicts; /* of the file, or NULL */
    struct str block;   /* what is left of the block */
    uint64_t block_left;
    uint64_t file_next; /* offset of the next record */
};

enum err
source_open(struct source **out, struct clicklog *log, const char *archive_dir,
            uint32_t partition, struct why *why)
{
    struct source *source = calloc(1, sizeof(*source));

    *out = source;
    if (source == NULL)
        return err_set(why, ERR_NOMEM, "aggregate: no memory for partition %u",
                       partition);
    source->log = log;
    source->archive_dir = archive_dir;
    source->partition = partition;
    return ERR_OK;
}

static void
file_close(struct source *source)
{
    avrofile_close(&source->file);
    free(source->verdicts);
    source->verdicts = NULL;
    source->block_left = 0;
}

void
source_close(struct source **source)
{
    if (*source == NULL)
        return;
    file_close(*source);
    free(*source);
    *source = NULL;
}

static enum err
retention_error(const struct source *source, uint64_t offset, struct why *why)
{
    uint64_t first = 0, next = 0;

    if (clicklog_range(source->log, source->partition, &first, &next, why) !=
        ERR_OK)
        return ERR_AGAIN;
    return source_gone(source->partition, offset, first, next, why);
}

enum err
source_gone(uint32_t partition, uint64_t offset, uint64_t first, uint64_t next,
            struct why *why)
{
    if (offset > next)
        return err_set(why, ERR_NOTFOUND,
                       "the topic has lost clicks: partition %u is counted up to "
                       "offset %" PRIu64 ", the topic ends at %" PRIu64
                       "; `clickledger relay rewind` sends them again",
                       partition, offset, next);
    return err_set(
        why, ERR_NOTFOUND,
        "retention is shorter than the lag: partition %u is counted up to offset "
        "%" PRIu64 ", the topic begins at %" PRIu64
        "; longer retention (kafka.retention_h) keeps more. To count on without "
        "those clicks, delete {p%u}:owner in Redis: live counts then lack them, "
        "invoices do not",
        partition, offset, first, partition);
}

/* The listed file that holds offset. */
static enum err
file_find(struct source *source, uint64_t offset, struct why *why)
{
    struct manifest manifest;
    enum err err;

    if (source->archive_dir == NULL && clicklog_is_kafka(source->log))
        return retention_error(source, offset, why);
    if (source->archive_dir == NULL)
        return err_set(
            why, ERR_NOTFOUND,
            "partition %u: offset %llu is no longer in the log, and there is "
            "no archive",
            source->partition, (unsigned long long)offset);
    err = manifest_read(&manifest, source->archive_dir, 0, why);
    if (err != ERR_OK)
        return err;
    err = err_set(why, ERR_NOTFOUND,
                  "partition %u: neither the log nor the archive has offset %llu",
                  source->partition, (unsigned long long)offset);
    for (uint32_t i = 0; i < manifest.files_n; i++) {
        const struct manifest_file *file = &manifest.files[i];

        if (file->partition == source->partition && file->base <= offset &&
            offset <= file->last) {
            source->listed = *file;
            err = ERR_OK;
            break;
        }
    }
    manifest_free(&manifest);
    return err;
}

/* Live verdicts beside the file are a help only: without them the verdict log must do. */
static void
file_verdicts(struct source *source)
{
    source->verdicts = calloc(source->listed.clicks + 1, sizeof(uint64_t));
    if (source->verdicts == NULL)
        return;
    if (manifest_live_read(source->archive_dir, &source->listed, source->verdicts,
                           NULL) == ERR_OK)
        return;
    free(source->verdicts);
    source->verdicts = NULL;
}

static enum err
file_open(struct source *source, uint64_t offset, struct why *why)
{
    char path[FILE_PATH_MAX];
    enum err err;
    int n;

    file_close(source);
    err = file_find(source, offset, why);
    if (err != ERR_OK)
        return err;
    n = snprintf(path, sizeof(path), "%s/%s", source->archive_dir,
                 source->listed.path);
    if (n < 0 || (size_t)n >= sizeof(path))
        return err_set(why, ERR_INVALID, "data.dir: the path is too long");
    err = avrofile_open(&source->file, path, why);
    if (err != ERR_OK)
        return err;
    source->version = click_schema_version(avrofile_schema(source->file));
    if (source->version == 0) {
        file_close(source);
        return err_set(why, ERR_CORRUPT, "%s: its schema is unknown", path);
    }
    source->file_next = source->listed.base;
    file_verdicts(source);
    return ERR_OK;
}

/* The next record of the file in hand; ERR_AGAIN at its end. */
static enum err
record_next(struct source *source, struct click *click, struct why *why)
{
    size_t used = 0;
    enum err err;

    while (source->block_left == 0) {
        err =
            avrofile_block(source->file, &source->block, &source->block_left, why);
        if (err != ERR_OK)
            return err;
    }
    err = click_decode(click, (const uint8_t *)source->block.p, source->block.n,
                       source->version, &used, why);
    if (err != ERR_OK)
        return err;
    source->block.p += used;
    source->block.n -= (uint32_t)used;
    source->block_left--;
    source->file_next++;
    return ERR_OK;
}

/* One block's records at most: the next block takes its memory. */
static enum err
records_read(struct source *source, uint64_t from, struct click *clicks, size_t max,
             size_t *n, struct why *why)
{
    enum err err = ERR_OK;

    if (source->file == NULL || from < source->file_next ||
        from > source->listed.last)
        err = file_open(source, from, why);
    while (err == ERR_OK && source->file_next < from) {
        struct click skipped;

        err = record_next(source, &skipped, why);
    }
    if (err == ERR_OK)
        err = record_next(source, &clicks[0], why);
    if (err == ERR_AGAIN)
        err = err_set(why, ERR_CORRUPT, "%s: it ends before offset %llu",
                      source->listed.path, (unsigned long long)from);
    if (err != ERR_OK) {
        file_close(source);
        return err;
    }
    for (*n = 1; *n < max && source->block_left > 0 && err == ERR_OK;
         *n += err == ERR_OK)
        err = record_next(source, &clicks[*n], why);
    return err;
}

enum err
source_read(struct source *source, struct clicklog_reader *reader, uint64_t from,
            struct click *clicks, size_t max, size_t *n, struct why *why)
{
    enum err err = clicklog_seek(reader, source->partition, from, why);

    *n = 0;
    if (err == ERR_NOTFOUND)
        return records_read(source, from, clicks, max, n, why);
    if (source->file != NULL)
        file_close(source);
    while (err == ERR_OK && *n < max) {
        struct clicklog_record record;

        err = clicklog_next(reader, &record, why);
        if (err == ERR_OK && record.offset != from + *n)
            err = ERR_NOTFOUND;
        if (err == ERR_NOTFOUND) /* not held any more; what came before is good */
            return *n > 0 ? ERR_OK
                          : records_read(source, from, clicks, max, n, why);
        if (err != ERR_OK)
            break;
        err = click_decode(&clicks[*n], record.p, record.n, record.version, NULL,
                           why);
        *n += err == ERR_OK;
    }
    return err == ERR_AGAIN ? ERR_OK : err;
}

void
source_release(struct source *source, struct clicklog_reader *reader)
{
    (void)source;
    clicklog_release(reader);
}

uint64_t
source_verdict(const struct source *source, uint64_t offset)
{
    if (source->verdicts == NULL || offset < source->listed.base ||
        offset - source->listed.base >= source->listed.clicks)
        return 0;
    return source->verdicts[offset - source->listed.base];
}

enum err
source_since(struct source *source, struct clicklog_reader *reader,
             int64_t since_us, uint64_t *offset, struct why *why)
{
    struct manifest manifest;
    int64_t received_us;
    enum err err = clicklog_since(reader, source->partition, since_us, offset,
                                  &received_us, why);

    if (err != ERR_OK || source->archive_dir == NULL)
        return err;
    err = manifest_read(&manifest, source->archive_dir, since_us, why);
    if (err == ERR_NOTFOUND)
        return ERR_OK;
    if (err != ERR_OK)
        return err;
    for (uint32_t i = 0; i < manifest.files_n; i++)
        if (manifest.files[i].partition == source->partition &&
            manifest.files[i].base < *offset)
            *offset = manifest.files[i].base;
    manifest_free(&manifest);
    return ERR_OK;
}

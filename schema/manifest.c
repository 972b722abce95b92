/* The readers' side; schema/manifest_write.c is the writer's. */
#include "schema/manifest.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/file.h"
#include "schema/avrofile.h"
#include "schema/manifest_line.h"

enum { POLL_US = 50000, ASK_AGAIN_US = 1000000 };

const char manifest_live_schema[] =
    "{\"type\":\"record\",\"name\":\"live_verdict\",\"namespace\":\"clickledger\","
    "\"fields\":[{\"name\":\"verdict\",\"type\":\"long\"}]}";

static enum err
file_add(struct manifest *manifest, uint32_t *cap, const struct manifest_file *file,
         struct why *why)
{
    if (manifest->files_n == *cap) {
        uint32_t grown_cap = *cap == 0 ? 256 : *cap * 2;
        struct manifest_file *grown =
            realloc(manifest->files, grown_cap * sizeof(*grown));

        if (grown == NULL)
            return err_set(why, ERR_NOMEM, "no memory for %u archive files",
                           grown_cap);
        manifest->files = grown;
        *cap = grown_cap;
    }
    manifest->files[manifest->files_n++] = *file;
    return ERR_OK;
}

/* One partition's list. */
static enum err
list_parse(struct manifest *manifest, uint32_t *cap, uint32_t partition,
           int64_t since_us, const char *path, struct str text, int64_t *through_us,
           struct why *why)
{
    struct manifest_state state = {0, 0};
    struct manifest_line line;
    uint32_t at = 0, number = 1;
    enum manifest_step step;
    enum err err = ERR_OK;

    for (; (step = manifest_line_next(text, &at, &line)) == MANIFEST_LINE;
         number++) {
        const char *wrong = manifest_line_follow(&state, &line);

        if (wrong != NULL)
            return err_set(why, ERR_CORRUPT, "%s:%u: %s", path, number, wrong);
        line.file.partition = partition;
        if (line.is_file && line.file.last_received_us >= since_us)
            err = file_add(manifest, cap, &line.file, why);
        if (err != ERR_OK)
            return err;
    }
    if (step == MANIFEST_DAMAGED)
        return err_set(why, ERR_CORRUPT, "%s:%u: the line is damaged", path,
                       number);
    manifest->next[partition] = state.next;
    *through_us = state.through_us;
    return ERR_OK;
}

static int
files_order(const void *a_p, const void *b_p)
{
    const struct manifest_file *a = a_p, *b = b_p;

    if (a->first_received_us != b->first_received_us)
        return a->first_received_us < b->first_received_us ? -1 : 1;
    if (a->partition != b->partition)
        return a->partition < b->partition ? -1 : 1;
    return a->base < b->base ? -1 : a->base > b->base;
}

/* A list that has no partition before it was lost: reading on would bill too little. */
static enum err
lists_complete(const char *dir, uint32_t from, struct why *why)
{
    for (uint32_t p = from; p < MANIFEST_PARTITIONS_MAX; p++) {
        char path[FILE_PATH_MAX];
        enum err err = manifest_list_path(dir, p, path, sizeof(path), why);

        if (err != ERR_OK)
            return err;
        if (access(path, F_OK) == 0)
            return err_set(why, ERR_CORRUPT,
                           "%s exists, but not the list of partition %u", path,
                           from);
    }
    return ERR_OK;
}

static enum err
list_read(struct manifest *out, uint32_t *cap, const char *dir, uint32_t partition,
          int64_t since_us, struct why *why)
{
    char path[FILE_PATH_MAX];
    struct buf text = BUF_MAX(MANIFEST_BYTES_MAX);
    int64_t through_us = 0;
    enum err err = manifest_list_path(dir, partition, path, sizeof(path), why);

    if (err == ERR_OK)
        err = file_read(path, &text, why);
    if (err == ERR_OK)
        err = list_parse(out, cap, partition, since_us, path,
                         (struct str){(const char *)text.p, (uint32_t)text.n},
                         &through_us, why);
    if (err == ERR_OK && (partition == 0 || through_us < out->through_us))
        out->through_us = through_us;
    buf_free(&text);
    return err;
}

enum err
manifest_read(struct manifest *out, const char *dir, int64_t since_us,
              struct why *why)
{
    uint32_t cap = 0;
    enum err err = ERR_OK;

    memset(out, 0, sizeof(*out));
    while (err == ERR_OK && out->partitions < MANIFEST_PARTITIONS_MAX) {
        err = list_read(out, &cap, dir, out->partitions, since_us, why);
        if (err == ERR_OK)
            out->partitions++;
    }
    if (err == ERR_NOTFOUND)
        err = lists_complete(dir, out->partitions, why);
    if (err != ERR_OK) {
        manifest_free(out);
        return err;
    }
    if (out->files_n > 0)
        qsort(out->files, out->files_n, sizeof(*out->files), files_order);
    return ERR_OK;
}

void
manifest_free(struct manifest *manifest)
{
    free(manifest->files);
    memset(manifest, 0, sizeof(*manifest));
}

static enum err
roll_ask(const char *dir, struct why *why)
{
    char path[FILE_PATH_MAX];
    int n = snprintf(path, sizeof(path), "%s/roll-requested", dir);

    if (n < 0 || (size_t)n >= sizeof(path))
        return err_set(why, ERR_INVALID, "path %.80s...: too long", dir);

    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
    enum err err = ERR_OK;
    if (fd < 0 || futimens(fd, NULL) != 0)
        err = err_set(why, errno == ENOSPC ? ERR_FULL : ERR_FATAL, "touch %s: %s",
                      path, strerror(errno));
    if (fd >= 0)
        (void)close(fd);
    return err;
}

enum err
manifest_roll_wait(const char *dir, int64_t until_us, int64_t timeout_us,
                   struct why *why)
{
    int64_t start_us = clock_mono_us(), asked_us = start_us - ASK_AGAIN_US;

    for (;;) {
        struct manifest manifest;
        enum err err = manifest_read(&manifest, dir, INT64_MAX, why);
        int64_t now_us = clock_mono_us();

        if (err != ERR_OK)
            return err;
        bool done = manifest.partitions > 0 && manifest.through_us >= until_us;
        manifest_free(&manifest);
        if (done)
            return ERR_OK;
        if (now_us - start_us >= timeout_us)
            return err_set(
                why, ERR_AGAIN,
                "the archive in %s is not complete up to the cut: is clickledger "
                "running? start it, or wait",
                dir);
        if (now_us - asked_us >= ASK_AGAIN_US) {
            err = roll_ask(dir, why);
            asked_us = now_us;
        }
        if (err != ERR_OK)
            return err;
        clock_sleep_us(POLL_US);
    }
}

/* Fills verdicts from the reader's blocks; *n gets how many there were. */
static enum err
live_fill(struct avrofile_reader *reader, const char *path, uint64_t *verdicts,
          uint64_t max, uint64_t *n, struct why *why)
{
    struct str bytes;
    uint64_t records;
    enum err err;

    *n = 0;
    while ((err = avrofile_block(reader, &bytes, &records, why)) == ERR_OK) {
        const uint8_t *p = (const uint8_t *)bytes.p, *end = p + bytes.n;

        for (; records > 0; records--, (*n)++) {
            int64_t value = 0;
            unsigned used = avro_long_get(p, end, &value);

            if (used == 0 || *n == max)
                return err_set(why, ERR_CORRUPT, "%s: not %llu verdicts", path,
                               (unsigned long long)max);
            verdicts[*n] = (uint64_t)value;
            p += used;
        }
        if (p != end)
            return err_set(why, ERR_CORRUPT, "%s: bytes follow a block's verdicts",
                           path);
    }
    return err == ERR_AGAIN ? ERR_OK : err;
}

enum err
manifest_live_read(const char *dir, const struct manifest_file *file,
                   uint64_t *verdicts, struct why *why)
{
    char beside[MANIFEST_PATH_MAX + 8], path[FILE_PATH_MAX];
    struct avrofile_reader *reader;
    uint64_t n = 0;
    int length;
    enum err err;

    manifest_beside(file, "live", beside);
    length = snprintf(path, sizeof(path), "%s/%s", dir, beside);
    if (length < 0 || (size_t)length >= sizeof(path))
        return err_set(why, ERR_INVALID, "path %.80s...: too long", dir);
    err = avrofile_open(&reader, path, why);
    if (err != ERR_OK)
        return err;
    err = live_fill(reader, path, verdicts, file->clicks, &n, why);
    avrofile_close(&reader);
    if (err == ERR_OK && n != file->clicks)
        return err_set(why, ERR_CORRUPT, "%s: %llu verdicts of %llu", path,
                       (unsigned long long)n, (unsigned long long)file->clicks);
    return err;
}

void
manifest_beside(const struct manifest_file *file, const char *kind,
                char path[MANIFEST_PATH_MAX + 8])
{
    size_t n = strlen(file->path), kind_n = strlen(kind);

    assert(kind_n <= 5);
    if (n >= 5 && memcmp(file->path + n - 5, ".avro", 5) == 0)
        n -= 5;
    assert(n + 1 + kind_n + 5 < MANIFEST_PATH_MAX + 8);
    memcpy(path, file->path, n);
    path[n++] = '.';
    memcpy(path + n, kind, kind_n);
    memcpy(path + n + kind_n, ".avro", 6);
}

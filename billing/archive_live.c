/* The recorded live verdicts of listed files, written beside them. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "billing/archive_part.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"

#define LIVE_HOLES_US CLOCK_HOUR_US
#define LIVE_WAIT_US  CLOCK_DAY_US
/* A verdict's time is the wall clock of whoever judged, its click's that of ingest. */
#define SKEW_US (600 * CLOCK_SECOND_US)

void
part_live_update(struct part *part)
{
    const struct part_live *first = part->live + part->live_first;
    uint64_t at = part->log_listed;
    int64_t since_us = 0;

    if (part->live_n > 0) {
        at = first->log_base == PART_LOG_UNKNOWN ? 0 : first->log_base;
        since_us = first->file.first_received_us - SKEW_US;
        since_us = since_us > 0 ? since_us : 1;
    }
    atomic_store(&part->live_listed, at);
    atomic_store(&part->follow_us, since_us);
}

static void
queue_pop(struct part *part)
{
    part->live_first++;
    part->live_n--;
    part_live_update(part);
}

enum err
part_live_add(struct part *part, const struct manifest_file *file,
              uint64_t log_base, struct why *why)
{
    if (part->live_first > 0 && part->live_first + part->live_n == part->live_cap) {
        memmove(part->live, part->live + part->live_first,
                part->live_n * sizeof(*part->live));
        part->live_first = 0;
    }
    if (part->live_n == PART_LIVE_MAX) { /* the oldest goes without */
        part->live_first++;
        part->live_n--;
    }
    if (part->live_first + part->live_n == part->live_cap) {
        uint32_t cap = part->live_cap == 0 ? 64 : part->live_cap * 2;
        struct part_live *grown = realloc(part->live, cap * sizeof(*grown));

        if (grown == NULL)
            return err_set(why, ERR_NOMEM, "archive: no memory");
        part->live = grown;
        part->live_cap = cap;
    }
    part->live[part->live_first + part->live_n++] =
        (struct part_live){*file, log_base};
    part_live_update(part);
    return ERR_OK;
}

static bool
number_parse(struct str text, int base, uint64_t *out)
{
    char digits[24], *end;

    if (text.n == 0 || text.n >= sizeof(digits))
        return false;
    memcpy(digits, text.p, text.n);
    digits[text.n] = '\0';
    *out = strtoull(digits, &end, base);
    return *end == '\0' && *out != PART_LOG_UNKNOWN;
}

/* Over LMDB offsets are ordinals, unless the file is from another log. */
static bool
log_base_read(const struct part *part, const struct avrofile_reader *reader,
              const struct manifest_file *file, uint64_t *log_base)
{
    struct str id = avrofile_meta_get(reader, PART_LOG_ID);
    uint64_t log_id;

    *log_base = file->base;
    if (!part->kafka)
        return id.n == 0;
    return number_parse(id, 16, &log_id) && log_id == part->log_id &&
           number_parse(avrofile_meta_get(reader, PART_LOG_OFFSET), 10, log_base);
}

enum err
part_log_base(const struct part *part, const struct manifest_file *file,
              uint64_t *log_base, struct why *why)
{
    struct avrofile_reader *reader = NULL;
    char path[FILE_PATH_MAX];
    enum err err;

    (void)snprintf(path, sizeof(path), "%s/%s", part->dir, file->path);
    err = avrofile_open(&reader, path, why);
    if (err == ERR_OK && !log_base_read(part, reader, file, log_base))
        err =
            err_set(why, ERR_NOTFOUND, "%s: its clicks are from another log", path);
    avrofile_close(&reader);
    return err;
}

/* A file from before a restart says itself where it begins. Verdicts have the offsets of
 * the log that was read when they were made: of a file from another log there are none. */
static enum err
log_base_find(const struct part *part, struct part_live *live, struct why *why)
{
    return live->log_base != PART_LOG_UNKNOWN
               ? ERR_OK
               : part_log_base(part, &live->file, &live->log_base, why);
}

static enum err
live_file(const struct part *part, const struct manifest_file *file,
          const uint64_t *verdicts, struct why *why)
{
    char beside[MANIFEST_PATH_MAX + 8], path[FILE_PATH_MAX];
    struct avrofile_writer *avro = NULL;
    enum err err;

    manifest_beside(file, "live", beside);
    (void)snprintf(path, sizeof(path), "%s/%s", part->dir, beside);
    err = avrofile_create(&avro, path, manifest_live_schema, AVROFILE_SNAPPY, NULL,
                          0, why);
    for (uint64_t i = 0; i < file->clicks && err == ERR_OK; i++) {
        uint8_t record[AVRO_LONG_SIZE_MAX];

        err = avrofile_add(avro, record,
                           avro_long_put(record, (int64_t)verdicts[i]), why);
    }
    if (err == ERR_OK)
        return avrofile_finish(&avro, NULL, NULL, why);
    avrofile_abort(&avro);
    return err;
}

/* ERR_AGAIN: not all there yet. */
static enum err
live_one(const struct part *part, struct verdictlog *log,
         const struct part_live *live, struct why *why)
{
    const struct manifest_file *file = &live->file;
    uint64_t *verdicts = malloc(file->clicks * sizeof(*verdicts));
    enum err err;

    if (verdicts == NULL)
        return err_set(why, ERR_NOMEM, "archive: no memory for live verdicts");
    err = verdictlog_read(log, file->partition, live->log_base, file->clicks,
                          verdicts, why);
    for (uint64_t i = 0; i < file->clicks && err == ERR_OK; i++)
        if (verdicts[i] == 0)
            err = ERR_AGAIN;
    if (err == ERR_OK)
        err = live_file(part, file, verdicts, why);
    free(verdicts);
    return err;
}

/* Whether it is time to stop waiting for a file's verdicts: `there` are later ones. */
static bool
given_up(const struct part *part, const struct manifest_file *file, bool there,
         int64_t now_us)
{
    int64_t age_us = now_us - file->last_received_us;

    if (part->kafka && !atomic_load(&part->followed))
        there = false; /* more of them are on their way */
    return age_us >= (there ? LIVE_HOLES_US : LIVE_WAIT_US);
}

enum err
part_live_write(struct part *part, struct verdictlog *verdicts, int64_t now_us,
                struct why *why)
{
    uint64_t epoch, next = 0, missing = 0;
    enum err err = ERR_OK;

    if (part->live_n > 0)
        err = verdictlog_last(verdicts, part->partition, &epoch, &next, why);
    while (part->live_n > 0 && err == ERR_OK) {
        struct part_live *live = &part->live[part->live_first];
        bool known, there;

        err = log_base_find(part, live, why);
        known = err == ERR_OK;
        if (!known && err != ERR_NOTFOUND && err != ERR_CORRUPT)
            break;
        part_live_update(part);
        there = known && next >= live->log_base + live->file.clicks;
        if (there)
            err = live_one(part, verdicts, live, why);
        if (!there || err == ERR_AGAIN) {
            err = ERR_OK;
            if (known && !given_up(part, &live->file, there, now_us))
                break;
            missing++;
        }
        if (err == ERR_OK)
            queue_pop(part);
    }
    if (missing > 0)
        log_event(LOG_WARN, "archive_live_missing",
                  LOG_NUMBER("partition", part->partition),
                  LOG_NUMBER("files", missing));
    return err;
}

#include "billing/archive_part.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "schema/click.h"

enum { SNAPSHOT_RECORDS = 65536 }; /* read before the log's snapshot is let go */

#define LIVE_HOLES_US CLOCK_HOUR_US
#define LIVE_WAIT_US  CLOCK_DAY_US

/* "1f00:41,2a01:7" to lasts; false if it is no such text. */
static bool
lasts_parse(struct part *part, const char *text)
{
    part->lasts_n = 0;
    while (*text != '\0') {
        struct part_last last;
        char *end;

        last.incarnation = strtoull(text, &end, 16);
        if (end == text || *end != ':' || part->lasts_n == PART_INCARNATIONS_MAX)
            return false;
        text = end + 1;
        last.seq = strtoull(text, &end, 10);
        if (end == text || (*end != ',' && *end != '\0'))
            return false;
        part->lasts[part->lasts_n++] = last;
        text = *end == ',' ? end + 1 : end;
    }
    return true;
}

static void
lasts_format(const struct part *part, char text[MANIFEST_INCS_MAX])
{
    size_t n = 0;

    text[0] = '\0';
    for (uint32_t i = 0; i < part->lasts_n; i++)
        n += (size_t)snprintf(text + n, MANIFEST_INCS_MAX - n,
                              "%s%016" PRIx64 ":%" PRIu64, i == 0 ? "" : ",",
                              part->lasts[i].incarnation, part->lasts[i].seq);
    assert(n < MANIFEST_INCS_MAX);
}

enum err
archive_part_open(struct part *part, const char *dir, uint32_t partition,
                  uint64_t roll_bytes, struct why *why)
{
    char label[32];

    *part =
        (struct part){.dir = dir, .partition = partition, .roll_bytes = roll_bytes};
    (void)snprintf(label, sizeof(label), "partition=\"%u\"", partition);
    part->files_total = metric_counter("clickledger_archive_files_total", NULL,
                                       "archive files listed");
    part->bytes_total = metric_counter("clickledger_archive_bytes_total", NULL,
                                       "bytes of archive files listed");
    part->lag = metric_gauge("clickledger_archive_lag_clicks", label,
                             "clicks in the log that no listed archive file holds");
    part->broken = metric_gauge("clickledger_archive_broken", label,
                                "1 while the partition cannot be archived");
    return archive_part_reset(part, why);
}

void
archive_part_close(struct part *part)
{
    avrofile_abort(&part->file);
    manifest_writer_close(&part->list);
    free(part->live);
    part->live = NULL;
}

static void
live_listed_update(struct part *part)
{
    uint64_t at = part->live_n > 0 ? part->live[part->live_first].base
                                   : atomic_load(&part->listed);

    atomic_store(&part->live_listed, at);
}

enum err
archive_part_reset(struct part *part, struct why *why)
{
    char incs[MANIFEST_INCS_MAX];
    uint64_t next = 0;
    enum err err;

    avrofile_abort(&part->file);
    manifest_writer_close(&part->list);
    err = manifest_writer_open(&part->list, part->dir, part->partition, &next, incs,
                               why);
    if (err != ERR_OK)
        return err;
    if (!lasts_parse(part, incs))
        return err_set(why, ERR_CORRUPT,
                       "archive list of partition %u: bad incs %.60s",
                       part->partition, incs);
    part->next = next;
    atomic_store(&part->listed, next);
    live_listed_update(part);
    return ERR_OK;
}

/* Accepts L + 1 and nothing else: offsets have no room for a click that is left out. */
static enum err
continuity_check(struct part *part, const struct clicklog_record *record,
                 struct why *why)
{
    struct part_last *last = NULL;
    uint64_t expected;

    for (uint32_t i = 0; i < part->lasts_n; i++)
        if (part->lasts[i].incarnation == record->incarnation)
            last = &part->lasts[i];
    expected = last == NULL ? 0 : last->seq + 1;
    if (record->seq != expected || record->offset != part->next)
        return err_set(why, ERR_CORRUPT,
                       "partition %u, offset %" PRIu64 ": incarnation %016" PRIx64
                       " goes on with seq %" PRIu64 " instead of %" PRIu64,
                       part->partition, record->offset, record->incarnation,
                       record->seq, expected);
    if (last == NULL) {
        if (part->lasts_n == PART_INCARNATIONS_MAX) {
            memmove(part->lasts, part->lasts + 1,
                    (PART_INCARNATIONS_MAX - 1) * sizeof(*part->lasts));
            part->lasts_n--;
        }
        last = &part->lasts[part->lasts_n++];
        last->incarnation = record->incarnation;
    }
    last->seq = record->seq;
    return ERR_OK;
}

/* "date=2026-11-21/hour=09" of an hour. */
static void
hour_folder(int64_t hour_us, char *text, size_t size)
{
    time_t s = (time_t)(hour_us / CLOCK_SECOND_US);
    struct tm tm;

    (void)gmtime_r(&s, &tm);
    (void)snprintf(text, size, "date=%04d-%02d-%02d/hour=%02d", tm.tm_year + 1900,
                   tm.tm_mon + 1, tm.tm_mday, tm.tm_hour);
}

static enum err
file_begin(struct part *part, const struct clicklog_record *record, struct why *why)
{
    char folder[64], path[FILE_PATH_MAX], incs[MANIFEST_INCS_MAX], partition[16];
    const char *schema = click_schema(record->version);
    enum err err;

    if (schema == NULL)
        return err_set(why, ERR_CORRUPT,
                       "partition %u, offset %" PRIu64
                       ": schema version %u is unknown",
                       part->partition, record->offset, record->version);
    part->hour_us = clock_floor(record->received_us, CLOCK_HOUR_US);
    part->version = record->version;
    part->open = (struct manifest_file){.partition = part->partition,
                                        .base = record->offset,
                                        .first_received_us = record->received_us};
    hour_folder(part->hour_us, folder, sizeof(folder));
    (void)snprintf(path, sizeof(path), "%s/%s", part->dir, folder);
    err = file_mkdirs(path, why);
    if (err != ERR_OK)
        return err;
    (void)snprintf(path, sizeof(path), "%s/%s/part-%u-%" PRIu64 ".avro", part->dir,
                   folder, part->partition, part->open.base);
    (void)snprintf(partition, sizeof(partition), "%u", part->partition);
    lasts_format(part, incs);
    const struct avrofile_meta meta[] = {
        {"clickledger.partition", str_of(partition)},
        {"clickledger.last_before", str_of(incs)},
    };
    return avrofile_create(&part->file, path, schema, AVROFILE_SNAPPY, meta, 2,
                           why);
}

static enum err
list_add(struct part *part, const char *path, struct why *why)
{
    char incs[MANIFEST_INCS_MAX];
    struct stat st;
    enum err err;

    if (stat(path, &st) != 0)
        return err_set(why, ERR_FATAL, "%s: vanished", path);
    part->open.bytes = (uint64_t)st.st_size;
    lasts_format(part, incs);
    err = manifest_add(part->list, &part->open, incs, why);
    if (err != ERR_OK)
        return err;
    atomic_store(&part->listed, part->open.last + 1);
    metric_add(part->files_total, 1);
    metric_add(part->bytes_total, (int64_t)part->open.bytes);
    return part_live_add(part, &part->open, why);
}

enum err
part_roll(struct part *part, struct why *why)
{
    struct manifest_file *open = &part->open;
    char folder[64], path[FILE_PATH_MAX];
    uint64_t before = part->open.base;
    enum err err;

    if (part->file == NULL)
        return ERR_OK;
    open->last = part->next - 1;
    open->clicks = open->last - open->base + 1;
    hour_folder(part->hour_us, folder, sizeof(folder));
    (void)snprintf(open->path, sizeof(open->path),
                   "%s/part-%u-%" PRIu64 "-%" PRIu64 ".avro", folder,
                   part->partition, open->base, open->last);
    (void)snprintf(path, sizeof(path), "%s/%s", part->dir, open->path);
    err = avrofile_finish(&part->file, path, open->sha256, why);
    if (err == ERR_OK)
        err = list_add(part, path, why);
    if (err != ERR_OK && archive_part_reset(part, NULL) == ERR_OK &&
        part->next == before)
        (void)unlink(path); /* surely not listed */
    return err;
}

static enum err
record_take(struct part *part, const struct clicklog_record *record,
            struct why *why)
{
    int64_t hour_us = clock_floor(record->received_us, CLOCK_HOUR_US);
    enum err err = ERR_OK;

    if (part->file != NULL &&
        (hour_us != part->hour_us || record->version != part->version ||
         avrofile_bytes(part->file) >= part->roll_bytes))
        err = part_roll(part, why);
    if (err == ERR_OK && part->file == NULL)
        err = file_begin(part, record, why);
    if (err == ERR_OK)
        err = continuity_check(part, record, why);
    if (err == ERR_OK)
        err = avrofile_add(part->file, record->p, record->n, why);
    if (err != ERR_OK)
        return err;
    part->open.last_received_us = record->received_us;
    part->next = record->offset + 1;
    return ERR_OK;
}

enum err
archive_part_read(struct part *part, struct clicklog_reader *reader,
                  int64_t limit_us, struct why *why)
{
    bool more = true;
    enum err err = ERR_OK;

    while (more && err == ERR_OK) {
        struct clicklog_record record;
        uint32_t n = 0;

        more = false;
        err = clicklog_seek(reader, part->partition, part->next, why);
        while (err == ERR_OK && n < SNAPSHOT_RECORDS &&
               (err = clicklog_next(reader, &record, why)) == ERR_OK &&
               record.received_us < limit_us) {
            err = record_take(part, &record, why);
            more = ++n == SNAPSHOT_RECORDS;
        }
        clicklog_release(reader);
    }
    return err == ERR_AGAIN ? ERR_OK : err;
}

enum err
part_live_add(struct part *part, const struct manifest_file *file, struct why *why)
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
        struct manifest_file *grown = realloc(part->live, cap * sizeof(*grown));

        if (grown == NULL)
            return err_set(why, ERR_NOMEM, "archive: no memory");
        part->live = grown;
        part->live_cap = cap;
    }
    part->live[part->live_first + part->live_n++] = *file;
    live_listed_update(part);
    return ERR_OK;
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
         const struct manifest_file *file, struct why *why)
{
    uint64_t *verdicts = malloc(file->clicks * sizeof(*verdicts));
    enum err err;

    if (verdicts == NULL)
        return err_set(why, ERR_NOMEM, "archive: no memory for live verdicts");
    err = verdictlog_read(log, file->partition, file->base, file->clicks, verdicts,
                          why);
    for (uint64_t i = 0; i < file->clicks && err == ERR_OK; i++)
        if (verdicts[i] == 0)
            err = ERR_AGAIN;
    if (err == ERR_OK)
        err = live_file(part, file, verdicts, why);
    free(verdicts);
    return err;
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
        const struct manifest_file *file = &part->live[part->live_first];
        int64_t age_us = now_us - file->last_received_us;
        bool there = next > file->last;

        if (there)
            err = live_one(part, verdicts, file, why);
        if (!there || err == ERR_AGAIN) {
            err = ERR_OK;
            if (age_us < (there ? LIVE_HOLES_US : LIVE_WAIT_US))
                break;
            missing++;
        }
        if (err != ERR_OK)
            break;
        part->live_first++;
        part->live_n--;
        live_listed_update(part);
    }
    if (missing > 0)
        log_event(LOG_WARN, "archive_live_missing",
                  LOG_NUMBER("partition", part->partition),
                  LOG_NUMBER("files", missing));
    return err;
}

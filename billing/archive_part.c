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
#include "schema/click.h"

enum {
    SNAPSHOT_RECORDS = 65536, /* read before the log's snapshot is let go */
    KAFKA_RECORDS = 65536, /* read in one go, before owners are looked at again */
};

/* seqs are as the list ends. */
static void
listed_set(struct part *part, uint64_t next)
{
    (void)pthread_mutex_lock(&part->mutex);
    part->archived = archive_seqs_newest(&part->seqs);
    (void)pthread_mutex_unlock(&part->mutex);
    atomic_store(&part->listed, next);
}

struct clicklog_last
archive_part_archived(struct part *part)
{
    struct clicklog_last archived;

    (void)pthread_mutex_lock(&part->mutex);
    archived = part->archived;
    (void)pthread_mutex_unlock(&part->mutex);
    return archived;
}

enum err
archive_part_open(struct part *part, const char *dir, uint32_t partition,
                  uint64_t roll_bytes, struct clicklog *log, struct why *why)
{
    char label[32], incs[MANIFEST_INCS_MAX];
    struct clicklog_stats stats;
    uint64_t next = 0;
    enum err err;

    clicklog_stats_get(log, &stats);

    *part = (struct part){.dir = dir,
                          .partition = partition,
                          .roll_bytes = roll_bytes,
                          .kafka = clicklog_is_kafka(log),
                          .log_id = stats.spool_id};
    (void)snprintf(label, sizeof(label), "partition=\"%u\"", partition);
    part->files_total = metric_counter("clickledger_archive_files_total", NULL,
                                       "archive files listed");
    part->bytes_total = metric_counter("clickledger_archive_bytes_total", NULL,
                                       "bytes of archive files listed");
    part->repeats_total = metric_counter("clickledger_archive_repeats_total", NULL,
                                         "clicks that came again and were dropped");
    part->lag = metric_gauge("clickledger_archive_lag_clicks", label,
                             "clicks in the log that no listed archive file holds");
    part->broken = metric_gauge("clickledger_archive_broken", label,
                                "1 while the partition cannot be archived");
    if (pthread_mutex_init(&part->mutex, NULL) != 0)
        abort();
    part->held_bytes = malloc(CLICKLOG_RECORD_MAX);
    if (part->held_bytes == NULL)
        return err_set(why, ERR_NOMEM, "archive: no memory");
    err = manifest_writer_open(&part->list, dir, partition, &next, incs, why);
    manifest_writer_close(&part->list);
    if (err == ERR_OK && archive_seqs_parse(&part->seqs, incs))
        listed_set(part, next);
    /* Of a partition that another archive has, nothing is wanted yet. */
    return err == ERR_CONFLICT && part->kafka ? ERR_OK : err;
}

void
archive_part_close(struct part *part)
{
    avrofile_abort(&part->file);
    manifest_writer_close(&part->list);
    free(part->live);
    free(part->held_bytes);
    part->live = NULL;
    part->held_bytes = NULL;
    (void)pthread_mutex_destroy(&part->mutex);
}

enum err
archive_part_reset(struct part *part, struct why *why)
{
    char incs[MANIFEST_INCS_MAX];
    uint64_t next = 0;
    enum err err;

    avrofile_abort(&part->file);
    manifest_writer_close(&part->list);
    part->holding = part->placed = part->complete = part->stalled = false;
    part->down = true;
    part->heal_until = 0;
    err = manifest_writer_open(&part->list, part->dir, part->partition, &next, incs,
                               why);
    if (err != ERR_OK)
        return err;
    if (!archive_seqs_parse(&part->seqs, incs))
        return err_set(why, ERR_CORRUPT,
                       "archive list of partition %u: bad incs %.60s",
                       part->partition, incs);
    part->next = next;
    part->last_us = manifest_writer_through(part->list);
    listed_set(part, next);
    if (!part->kafka) {
        part->placed = true;
        part->log_next = part->log_listed = next;
    }
    part_live_update(part);
    part->down = false;
    return ERR_OK;
}

void
archive_part_drop(struct part *part)
{
    avrofile_abort(&part->file);
    manifest_writer_close(&part->list);
    part->holding = part->placed = part->complete = part->stalled = false;
    part->live_first = part->live_n = 0;
    part->log_listed = 0;
    part_live_update(part);
    atomic_store(&part->followed, false);
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
file_create(struct part *part, const char *path, const char *schema,
            struct why *why)
{
    char partition[16], incs[MANIFEST_INCS_MAX], log_id[24], log_offset[24];

    (void)snprintf(partition, sizeof(partition), "%u", part->partition);
    (void)snprintf(log_id, sizeof(log_id), "%016" PRIx64, part->log_id);
    (void)snprintf(log_offset, sizeof(log_offset), "%" PRIu64, part->open_log_base);
    archive_seqs_format(&part->seqs, incs);
    const struct avrofile_meta meta[] = {
        {"clickledger.partition", str_of(partition)},
        {"clickledger.last_before", str_of(incs)},
        {PART_LOG_ID, str_of(log_id)},
        {PART_LOG_OFFSET, str_of(log_offset)},
    };
    return avrofile_create(&part->file, path, schema, AVROFILE_SNAPPY, meta,
                           part->kafka ? 4 : 2, why);
}

static enum err
file_begin(struct part *part, const struct clicklog_record *record, struct why *why)
{
    char folder[64], path[FILE_PATH_MAX];
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
                                        .base = part->next,
                                        .first_received_us = record->received_us};
    part->open_log_base = record->offset;
    hour_folder(part->hour_us, folder, sizeof(folder));
    (void)snprintf(path, sizeof(path), "%s/%s", part->dir, folder);
    err = file_mkdirs(path, why);
    if (err != ERR_OK)
        return err;
    (void)snprintf(path, sizeof(path), "%s/%s/part-%u-%" PRIu64 ".avro", part->dir,
                   folder, part->partition, part->open.base);
    return file_create(part, path, schema, why);
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
    archive_seqs_format(&part->seqs, incs);
    err = manifest_add(part->list, &part->open, incs, why);
    if (err != ERR_OK)
        return err;
    listed_set(part, part->open.last + 1);
    part->log_listed = part->open_log_base + part->open.clicks;
    metric_add(part->files_total, 1);
    metric_add(part->bytes_total, (int64_t)part->open.bytes);
    return part_live_add(part, &part->open, part->open_log_base, why);
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

/* Whether the record cannot go into the open file. */
static bool
file_ends(const struct part *part, const struct clicklog_record *record)
{
    return clock_floor(record->received_us, CLOCK_HOUR_US) != part->hour_us ||
           record->version != part->version ||
           record->offset != part->open_log_base + (part->next - part->open.base) ||
           avrofile_bytes(part->file) >= part->roll_bytes;
}

static enum err
record_take(struct part *part, const struct clicklog_record *record,
            struct why *why)
{
    enum err err = ERR_OK;

    if (part->file != NULL && file_ends(part, record))
        err = part_roll(part, why);
    if (err == ERR_OK && part->file == NULL)
        err = file_begin(part, record, why);
    if (err == ERR_OK)
        err = avrofile_add(part->file, record->p, record->n, why);
    if (err != ERR_OK)
        return err;
    archive_seqs_take(&part->seqs, record->incarnation, record->seq);
    part->open.last_received_us = part->last_us = record->received_us;
    part->next++;
    return ERR_OK;
}

static void
record_hold(struct part *part, const struct clicklog_record *record)
{
    assert(record->n <= CLICKLOG_RECORD_MAX);
    part->held = *record;
    memcpy(part->held_bytes, record->p, record->n);
    part->held.p = part->held_bytes;
    part->holding = true;
}

static enum err
gap_found(struct part *part, const struct clicklog_record *record,
          uint64_t expected, struct why *why)
{
    part->stalled = part->kafka;
    part->gap = (struct part_gap){record->incarnation, expected, record->offset,
                                  record->received_us};
    return err_set(why, ERR_CORRUPT,
                   "partition %u, offset %" PRIu64 ": incarnation %016" PRIx64
                   " goes on with seq %" PRIu64 " instead of %" PRIu64 "%s",
                   part->partition, record->offset, record->incarnation,
                   record->seq, expected,
                   part->kafka ? "; lost, or older than the topic's retention: "
                                 "`clickledger relay rewind` sends them again"
                               : "");
}

/* Whether the record is passed by: it came before, or it comes again where it is due.
 * Before what is missing has come, only that, and what belongs before it, is taken. */
static bool
record_passed(const struct part *part, const struct clicklog_record *record,
              enum archive_seq seq, uint64_t expected)
{
    if (!part->kafka)
        return false;
    if (record->offset < part->heal_until &&
        (seq == ARCHIVE_SEQ_GAP || record->received_us > part->gap.received_us))
        return true;
    /* The second: of an incarnation long forgotten. */
    return seq == ARCHIVE_SEQ_REPEAT ||
           (expected == 0 && record->received_us < part->last_us &&
            part->seqs.n == ARCHIVE_SEQS_MAX);
}

/* What was received before clicks that are listed cannot be listed any more. A spool that takes
 * the place of a lost one can do that, if its machine's clock is behind. */
static enum err
clock_check(const struct part *part, const struct clicklog_record *record,
            struct why *why)
{
    if (record->received_us >= part->last_us)
        return ERR_OK;
    return err_set(why, ERR_CORRUPT,
                   "partition %u, offset %" PRIu64 ": incarnation %016" PRIx64
                   " begins at %" PRId64 " us, and clicks received up to %" PRId64
                   " us are archived: a spool's machine has its clock behind",
                   part->partition, record->offset, record->incarnation,
                   record->received_us, part->last_us);
}

/* Over LMDB nothing comes twice, and offsets have no room for a click that is left out. */
static enum err
record_step(struct part *part, const struct clicklog_record *record,
            int64_t limit_us, const struct clicklog_mark *mark, struct why *why)
{
    uint64_t expected;
    enum archive_seq seq =
        archive_seqs_look(&part->seqs, record->incarnation, record->seq, &expected);
    enum err err = ERR_OK;

    if (record_passed(part, record, seq, expected)) {
        part->log_next = record->offset + 1;
        metric_add(part->repeats_total, 1);
        return ERR_OK;
    }
    if (seq != ARCHIVE_SEQ_NEXT ||
        (!part->kafka && record->offset != part->log_next))
        return gap_found(part, record, expected, why);
    if (part->kafka && expected == 0)
        err = clock_check(part, record, why);
    if (part->kafka && expected == 0 && err == ERR_OK)
        err = part_cut_begin(part, mark, record, why);
    if (err != ERR_OK)
        return err;
    part->log_next = record->offset + 1;
    if (record->received_us < limit_us)
        return record_take(part, record, why);
    record_hold(part, record);
    return ERR_OK;
}

/* Where in the log the list ends: behind the rows of its last file. Where that is not known,
 * or not held any more (what came again behind it would be enough), by time: what is not
 * listed was received since. Either way it is seq that says whether any is missing. */
static enum err
place(struct part *part, struct clicklog_reader *reader, struct clicklog *log,
      struct why *why)
{
    const struct manifest_file *last = manifest_writer_last(part->list);
    uint64_t first, next;
    int64_t received_us;
    enum err err = clicklog_range(log, part->partition, &first, &next, why);

    if (err != ERR_OK)
        return err;
    if (last != NULL &&
        part_log_base(part, last, &part->log_next, NULL) == ERR_OK &&
        part->log_next + last->clicks >= first &&
        part->log_next + last->clicks <= next)
        part->log_next += last->clicks;
    else
        err = clicklog_since(reader, part->partition, part->last_us,
                             &part->log_next, &received_us, why);
    if (err != ERR_OK)
        return err;
    part->placed = true;
    part->log_listed = part->log_next;
    part_live_update(part);
    return ERR_OK;
}

/* Up to an end: of the log, of the snapshot, of what was fetched, or before limit_us. */
static enum err
records_read(struct part *part, struct clicklog_reader *reader, int64_t limit_us,
             const struct clicklog_mark *mark, uint32_t *read_n, struct why *why)
{
    struct clicklog_record record;
    uint32_t n = 0;
    enum err err = clicklog_seek(reader, part->partition, part->log_next, why);

    while (err == ERR_OK && !part->holding && n < SNAPSHOT_RECORDS &&
           (err = clicklog_next(reader, &record, why)) == ERR_OK) {
        err = record_step(part, &record, limit_us, mark, why);
        n++;
    }
    *read_n = n;
    clicklog_release(reader);
    if (err == ERR_NOTFOUND && part->kafka)
        return err_set(why, err,
                       "partition %u: offset %" PRIu64
                       " is no longer held: the topic's retention "
                       "(kafka.retention_h) is shorter than the archive's lag",
                       part->partition, part->log_next);
    return err;
}

/* A snapshot's end is the log's; the end of what was fetched is none while there was any. */
static enum err
all_read(struct part *part, struct clicklog_reader *reader, int64_t limit_us,
         const struct clicklog_mark *mark, struct why *why)
{
    uint32_t n = 0, sum = 0;
    enum err err = ERR_OK;

    do {
        err = records_read(part, reader, limit_us, mark, &n, why);
        sum += n;
        if (part->kafka && err == ERR_AGAIN && n > 0)
            err = ERR_OK;
        part->more = part->kafka && !part->holding && sum >= KAFKA_RECORDS;
    } while (err == ERR_OK && !part->holding && !part->more &&
             (part->kafka ? n > 0 : n == SNAPSHOT_RECORDS));
    return err;
}

/* Over LMDB ordinals are offsets: the log counts as we do, or it is another one. A mark from
 * before what is taken says nothing. */
static enum err
counts_compare(struct part *part, const struct clicklog_mark *mark, struct why *why)
{
    uint64_t spool = mark->next[part->partition];

    part->complete = part->holding || part->next >= spool;
    if (mark->floor_us <= part->last_us ||
        (part->next <= spool && !(part->holding && part->next < spool &&
                                  part->held.received_us >= mark->floor_us)))
        return ERR_OK;
    return err_set(why, ERR_CORRUPT,
                   "partition %u: %" PRIu64
                   " clicks came before the log's cut at %" PRId64
                   " us, the log has %" PRIu64 ": the archive is of another one",
                   part->partition, part->next, mark->floor_us, spool);
}

enum err
archive_part_read(struct part *part, struct clicklog *log,
                  struct clicklog_reader *reader, int64_t limit_us,
                  const struct clicklog_mark *mark, struct why *why)
{
    enum err err = ERR_OK;

    assert(!part->down && !part->stalled);
    part->complete = part->more = false;
    if (part->holding && part->held.received_us < limit_us) {
        part->holding = false;
        err = record_take(part, &part->held, why);
    }
    if (err == ERR_OK && !part->holding && !part->placed)
        err = place(part, reader, log, why);
    if (err == ERR_OK && !part->holding)
        err = all_read(part, reader, limit_us, mark, why);
    if (err != ERR_OK && err != ERR_AGAIN)
        return err;
    part->complete = part->holding;
    if (!part->kafka)
        return counts_compare(part, mark, why);
    return part->holding || part->more ? ERR_OK
                                       : part_cut_look(part, log, mark, why);
}

void
archive_part_heal(struct part *part, uint64_t log_offset)
{
    assert(part->stalled);
    part->stalled = false;
    part->heal_until = log_offset;
}

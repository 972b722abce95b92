/* tests/billing/view_fixture.h - a click log in memory, in the place of common/clicklog.h's:
 * its offsets run ahead of what was accepted, as Kafka's do. Clicks come again, are lost and
 * come later, partitions come and go. Only for programs that link no other part of the log. */
#ifndef TESTS_BILLING_VIEW_FIXTURE_H
#define TESTS_BILLING_VIEW_FIXTURE_H

#include <pthread.h>

#include "billing/archive_part.h"
#include "common/control.h"
#include "schema/click.h"
#include "tests/billing/billing_fixture.h"

enum { PARTS = 3, SENT_MAX = 4096, ROW_SIZE = 16 };

/* --- the log --- */

struct sent {
    uint64_t incarnation, seq, ordinal;
    int64_t received_us;
};

struct track {
    struct sent sent[SENT_MAX];
    uint64_t first, fetched, n; /* [first, fetched) can be read of [0, n) */
    uint64_t owned;
    bool let_go;
};

struct clicklog {
    pthread_mutex_t mutex;
    struct track tracks[PARTS];
    struct clicklog_mark mark;
    struct clicklog_last archived[CLICKLOG_PARTITIONS_MAX];
};

struct clicklog_reader {
    struct clicklog *log;
    struct track *track;
    uint64_t at;
    uint8_t row[ROW_SIZE];
};

static inline void
row_of(uint8_t row[ROW_SIZE], const struct sent *sent)
{
    memcpy(row, &sent->ordinal, 8);
    memcpy(row + 8, &sent->received_us, 8);
}

uint32_t
clicklog_partitions(const struct clicklog *log)
{
    (void)log;
    return PARTS;
}

enum err
clicklog_reader_open(struct clicklog_reader **out, struct clicklog *log,
                     struct why *why)
{
    (void)why;
    *out = calloc(1, sizeof(**out));
    CHECK(*out != NULL);
    (*out)->log = log;
    return ERR_OK;
}

void
clicklog_reader_close(struct clicklog_reader **reader)
{
    free(*reader);
    *reader = NULL;
}

enum err
clicklog_seek(struct clicklog_reader *reader, uint32_t partition, uint64_t offset,
              struct why *why)
{
    (void)why;
    (void)pthread_mutex_lock(&reader->log->mutex);
    reader->track = &reader->log->tracks[partition];
    reader->at = offset;
    enum err err = offset < reader->track->first ? ERR_NOTFOUND : ERR_OK;
    (void)pthread_mutex_unlock(&reader->log->mutex);
    return err;
}

enum err
clicklog_next(struct clicklog_reader *reader, struct clicklog_record *out,
              struct why *why)
{
    enum err err = ERR_AGAIN;

    (void)why;
    (void)pthread_mutex_lock(&reader->log->mutex);
    if (reader->at < reader->track->fetched) {
        const struct sent *sent = &reader->track->sent[reader->at];

        row_of(reader->row, sent);
        *out = (struct clicklog_record){.offset = reader->at++,
                                        .received_us = sent->received_us,
                                        .incarnation = sent->incarnation,
                                        .seq = sent->seq,
                                        .version = CLICK_VERSION,
                                        .p = reader->row,
                                        .n = ROW_SIZE};
        err = ERR_OK;
    }
    (void)pthread_mutex_unlock(&reader->log->mutex);
    return err;
}

void
clicklog_release(struct clicklog_reader *reader)
{
    (void)reader;
}

enum err
clicklog_since(struct clicklog_reader *reader, uint32_t partition, int64_t since_us,
               uint64_t *offset, int64_t *received_us, struct why *why)
{
    const struct track *track = &reader->log->tracks[partition];

    (void)why;
    (void)pthread_mutex_lock(&reader->log->mutex);
    *offset = track->first;
    while (*offset < track->n && track->sent[*offset].received_us < since_us)
        ++*offset;
    *received_us =
        *offset < track->n ? track->sent[*offset].received_us : INT64_MAX;
    (void)pthread_mutex_unlock(&reader->log->mutex);
    return ERR_OK;
}

enum err
clicklog_mark_get(struct clicklog *log, struct clicklog_mark *out, struct why *why)
{
    (void)why;
    (void)pthread_mutex_lock(&log->mutex);
    *out = log->mark;
    (void)pthread_mutex_unlock(&log->mutex);
    return ERR_OK;
}

bool
clicklog_is_kafka(const struct clicklog *log)
{
    (void)log;
    return true;
}

void
clicklog_stats_get(struct clicklog *log, struct clicklog_stats *out)
{
    (void)log;
    *out = (struct clicklog_stats){.spool_id = 0xfedcba9876543210};
}

uint64_t
clicklog_owned(const struct clicklog *log, uint32_t partition)
{
    struct clicklog *mine = (struct clicklog *)(uintptr_t)log;

    (void)pthread_mutex_lock(&mine->mutex);
    uint64_t owned = mine->tracks[partition].owned;
    (void)pthread_mutex_unlock(&mine->mutex);
    return owned;
}

void
clicklog_let_go(struct clicklog *log, uint32_t partition)
{
    (void)pthread_mutex_lock(&log->mutex);
    log->tracks[partition].let_go = true;
    (void)pthread_mutex_unlock(&log->mutex);
}

uint64_t
clicklog_end(struct clicklog *log, uint32_t partition)
{
    (void)pthread_mutex_lock(&log->mutex);
    uint64_t end = log->tracks[partition].n;
    (void)pthread_mutex_unlock(&log->mutex);
    return end;
}

enum err
clicklog_range(struct clicklog *log, uint32_t partition, uint64_t *first,
               uint64_t *next, struct why *why)
{
    (void)why;
    *first = log->tracks[partition].first;
    *next = clicklog_end(log, partition);
    return ERR_OK;
}

enum err
clicklog_find(struct clicklog *log, uint32_t partition, uint64_t from,
              uint64_t incarnation, uint64_t seq, uint64_t *offset, struct why *why)
{
    const struct track *track = &log->tracks[partition];
    enum err err = ERR_NOTFOUND;

    (void)why;
    (void)pthread_mutex_lock(&log->mutex);
    for (*offset = from; *offset < track->n; ++*offset)
        if (track->sent[*offset].incarnation == incarnation &&
            track->sent[*offset].seq == seq) {
            err = ERR_OK;
            break;
        }
    (void)pthread_mutex_unlock(&log->mutex);
    return err;
}

void
clicklog_wait(struct clicklog *log, uint64_t *seen, int64_t timeout_us)
{
    (void)log;
    (void)seen;
    (void)timeout_us;
    clock_sleep_us(5000);
}

void
clicklog_wake(struct clicklog *log)
{
    (void)log;
}

/* --- the control topic: the log stands for it --- */

enum err
control_archived_put(struct control *control, const struct clicklog_last *archived,
                     struct why *why)
{
    struct clicklog *log = (struct clicklog *)control;

    (void)why;
    (void)pthread_mutex_lock(&log->mutex);
    memcpy(log->archived, archived, sizeof(log->archived));
    (void)pthread_mutex_unlock(&log->mutex);
    return ERR_OK;
}

void
control_archived_get(struct control *control, struct clicklog_last *archived)
{
    struct clicklog *log = (struct clicklog *)control;

    (void)pthread_mutex_lock(&log->mutex);
    memcpy(archived, log->archived, sizeof(log->archived));
    (void)pthread_mutex_unlock(&log->mutex);
}

/* --- what a test has --- */

struct view {
    struct fixture f;
    struct clicklog log;
    struct verdictlog *verdicts;
    uint64_t spooled[PARTS]; /* ordinals given out */
    struct sent spool[PARTS][SENT_MAX];
};

static inline void
view_open(struct view *v)
{
    char verdicts[PATH_SIZE];

    memset(&v->log, 0, sizeof(v->log));
    memset(v->spooled, 0, sizeof(v->spooled));
    (void)pthread_mutex_init(&v->log.mutex, NULL);
    fixture_open(&v->f);
    (void)snprintf(verdicts, sizeof(verdicts), "%s/verdicts", v->f.dir);
    MUST(file_mkdirs(verdicts, why));
    MUST(verdictlog_open(&v->verdicts, verdicts, 1 << 28, false, why));
    for (int p = 0; p < PARTS; p++)
        v->log.tracks[p].owned = 1;
}

static inline void
view_close(struct view *v)
{
    verdictlog_close(&v->verdicts);
    (void)pthread_mutex_destroy(&v->log.mutex);
    fixture_close(&v->f);
}

/* Accepted by the spool, not sent yet. */
static inline void
spool(struct view *v, uint32_t p, uint64_t incarnation, uint64_t n,
      int64_t received_us)
{
    for (uint64_t i = 0; i < n; i++) {
        uint64_t at = v->spooled[p]++;
        const struct sent *before = at > 0 ? &v->spool[p][at - 1] : NULL;
        uint64_t seq = before != NULL && before->incarnation == incarnation
                           ? before->seq + 1
                           : 0;

        CHECK(at < SENT_MAX);
        v->spool[p][at] = (struct sent){incarnation, seq, at, received_us};
    }
}

/* Sends ordinals [from, to) of a partition. */
static inline void
send_range(struct view *v, uint32_t p, uint64_t from, uint64_t to)
{
    struct track *track = &v->log.tracks[p];

    (void)pthread_mutex_lock(&v->log.mutex);
    for (uint64_t i = from; i < to; i++) {
        CHECK(track->n < SENT_MAX);
        track->sent[track->n++] = v->spool[p][i];
    }
    track->fetched = track->n;
    (void)pthread_mutex_unlock(&v->log.mutex);
}

/* What was received before floor_us, of a spool whose newest incarnation began. Clicks below
 * from[p] are another spool's. */
static inline struct clicklog_mark
mark_of(const struct view *v, int64_t floor_us, uint64_t spool_id,
        uint64_t incarnation, const uint64_t from[PARTS])
{
    struct clicklog_mark mark = {
        .spool_id = spool_id, .incarnation = incarnation, .floor_us = floor_us};

    for (int p = 0; p < PARTS; p++)
        for (uint64_t i = from[p]; i < v->spooled[p]; i++) {
            const struct sent *sent = &v->spool[p][i];

            if (sent->received_us >= floor_us)
                break;
            if (mark.last[p].incarnation != sent->incarnation)
                mark.before[p] = mark.last[p];
            mark.last[p] = (struct clicklog_last){sent->incarnation, sent->seq + 1};
        }
    return mark;
}

static inline void
mark_set(struct view *v, const struct clicklog_mark *mark)
{
    (void)pthread_mutex_lock(&v->log.mutex);
    v->log.mark = *mark;
    (void)pthread_mutex_unlock(&v->log.mutex);
}

/* A mark of the only spool, whose newest incarnation is that of the newest click. */
static inline void
mark(struct view *v, int64_t floor_us)
{
    struct clicklog_mark mark;
    uint64_t incarnation = 0;
    int64_t newest_us = 0;

    for (int p = 0; p < PARTS; p++)
        for (uint64_t i = 0; i < v->spooled[p]; i++)
            if (v->spool[p][i].received_us >= newest_us) {
                newest_us = v->spool[p][i].received_us;
                incarnation = v->spool[p][i].incarnation;
            }
    mark = mark_of(v, floor_us, 1, incarnation, (uint64_t[PARTS]){0});
    mark_set(v, &mark);
}

/* What a partition's files must hold: the first copy that comes in order. */
static inline uint64_t
accepted(const struct track *track, uint64_t *offsets)
{
    uint64_t next = 0;

    for (uint64_t i = 0; i < track->n; i++) {
        while (i < track->n && track->sent[i].ordinal > next)
            i++;
        if (i < track->n && track->sent[i].ordinal == next)
            offsets[next++] = i;
    }
    return next;
}

static inline uint64_t
file_check(const struct view *v, const struct manifest_file *file,
           const uint64_t *offsets)
{
    char path[PATH_SIZE + MANIFEST_PATH_MAX + 2], want[32];
    struct avrofile_reader *reader;
    struct str block;
    uint64_t n, at = file->base;

    (void)snprintf(path, sizeof(path), "%s/%s", v->f.archive, file->path);
    MUST(avrofile_open(&reader, path, why));
    (void)snprintf(want, sizeof(want), "%" PRIu64, offsets[at]);
    CHECK(str_equal(avrofile_meta_get(reader, PART_LOG_OFFSET), str_of(want)));
    while (avrofile_block(reader, &block, &n, NULL) == ERR_OK) {
        CHECK(block.n == n * ROW_SIZE);
        for (uint64_t i = 0; i < n; i++, at++) {
            uint8_t row[ROW_SIZE];

            row_of(row, &v->spool[file->partition][at]);
            CHECK(memcmp(block.p + i * ROW_SIZE, row, ROW_SIZE) == 0);
            CHECK(offsets[at] == offsets[file->base] + (at - file->base));
        }
    }
    avrofile_close(&reader);
    CHECK(at == file->last + 1);
    CHECK(file->first_received_us / HOUR == file->last_received_us / HOUR);
    return n;
}

/* Every listed file has its rows, at its offsets; a partition has n of them. */
static inline void
check(const struct view *v, const uint64_t n[PARTS])
{
    static uint64_t offsets[PARTS][SENT_MAX];
    struct manifest manifest;

    for (int p = 0; p < PARTS; p++)
        (void)accepted(&v->log.tracks[p], offsets[p]);
    MUST(manifest_read(&manifest, v->f.archive, 0, why));
    CHECK(manifest.partitions == PARTS);
    for (uint32_t i = 0; i < manifest.files_n; i++)
        (void)file_check(v, &manifest.files[i],
                         offsets[manifest.files[i].partition]);
    for (int p = 0; p < PARTS; p++)
        CHECK(manifest.next[p] == n[p]);
    manifest_free(&manifest);
}

static inline int64_t
through(const struct view *v)
{
    struct manifest manifest;
    int64_t us;

    MUST(manifest_read(&manifest, v->f.archive, INT64_MAX, why));
    us = manifest.through_us;
    manifest_free(&manifest);
    return us;
}

/* Each test with a view of its own. */
static inline void
views_run(void (*const *tests)(struct view *), size_t n)
{
    struct view *v = calloc(1, sizeof(*v));

    CHECK(v != NULL);
    for (size_t i = 0; i < n; i++) {
        view_open(v);
        tests[i](v);
        view_close(v);
    }
    free(v);
}

#endif

#include "ingest/dlq.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "ingest/dlq_files.h"
#include "schema/text.h"

enum { LINE_MAX = 8 * DLQ_RAW_MAX, COMPLAIN_US = 60 * 1000000 };

struct dlq {
    char dir[FILE_PATH_MAX];
    uint64_t bytes_max;
    uint64_t segment_max;
    pthread_mutex_t mutex;
    pthread_cond_t ready;
    pthread_t writer;
    struct buf queue; /* under mutex, as the next two */
    uint64_t dropped, queued_lines;
    bool ending;
    /* the writer's */
    int fd;
    uint64_t segment_n, segment_bytes;
    int64_t complain_us;
};

static void
segment_close(struct dlq *dlq)
{
    if (dlq->fd < 0)
        return;
    (void)fdatasync(dlq->fd);
    (void)close(dlq->fd);
    dlq->fd = -1;
}

static enum err
segment_open(struct dlq *dlq, struct why *why)
{
    char path[FILE_PATH_MAX + 64];

    /* Time first, so that names sort by age over restarts. */
    (void)snprintf(path, sizeof(path), "%s/%015" PRId64 "-%06" PRIu64 DLQ_SUFFIX,
                   dlq->dir, clock_now_us() / 1000, dlq->segment_n++ % 1000000);
    dlq->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    dlq->segment_bytes = 0;
    if (dlq->fd < 0)
        return err_set(why, ERR_FATAL, "dlq: %s: %s", path, strerror(errno));
    return ERR_OK;
}

/* Makes the room for n bytes more first, so that the limit holds at every moment. */
static enum err
lines_write(struct dlq *dlq, const struct buf *lines, struct why *why)
{
    enum err err = ERR_OK;

    if (dlq->fd >= 0 && dlq->segment_bytes + lines->n > dlq->segment_max)
        segment_close(dlq);
    dlq_files_trim(dlq->dir,
                   lines->n >= dlq->bytes_max ? 0 : dlq->bytes_max - lines->n,
                   dlq->fd >= 0);
    if (dlq->fd < 0)
        err = segment_open(dlq, why);
    if (err == ERR_OK)
        err = file_write_all(dlq->fd, lines->p, lines->n, dlq->dir, why);
    dlq->segment_bytes += lines->n;
    if (err != ERR_OK)
        segment_close(dlq);
    return err;
}

static void
lines_out(struct dlq *dlq, const struct buf *lines, uint64_t count)
{
    struct why why = {{0}};

    if (lines->n == 0 || lines_write(dlq, lines, &why) == ERR_OK)
        return;
    (void)pthread_mutex_lock(&dlq->mutex);
    dlq->dropped += count;
    (void)pthread_mutex_unlock(&dlq->mutex);
    if (clock_mono_us() < dlq->complain_us)
        return;
    dlq->complain_us = clock_mono_us() + COMPLAIN_US;
    log_event(LOG_WARN, "dlq_not_written", LOG_TEXT("why", why.text),
              LOG_NUMBER("lines", count));
}

static void *
writer_main(void *arg)
{
    struct dlq *dlq = arg;
    struct buf lines = BUF_MAX(dlq->queue.max);
    bool ending = false;

    while (!ending) {
        struct buf swap;
        uint64_t count;

        (void)pthread_mutex_lock(&dlq->mutex);
        while (dlq->queue.n == 0 && !dlq->ending)
            (void)pthread_cond_wait(&dlq->ready, &dlq->mutex);
        ending = dlq->ending;
        swap = dlq->queue;
        dlq->queue = lines;
        lines = swap;
        count = dlq->queued_lines;
        dlq->queued_lines = 0;
        (void)pthread_mutex_unlock(&dlq->mutex);
        lines_out(dlq, &lines, count);
        buf_reset(&lines);
    }
    segment_close(dlq);
    buf_free(&lines);
    return NULL;
}

enum err
dlq_open(struct dlq **out, const char *data_dir, uint64_t bytes_max,
         struct why *why)
{
    struct dlq *dlq = calloc(1, sizeof(*dlq));
    enum err err;
    int rc;

    *out = NULL;
    if (dlq == NULL)
        return err_set(why, ERR_NOMEM, "dlq: no memory");
    dlq->fd = -1;
    dlq->bytes_max = bytes_max;
    dlq->segment_max = bytes_max / DLQ_SEGMENTS;
    if (dlq->segment_max > DLQ_SEGMENT_BYTES_MAX)
        dlq->segment_max = DLQ_SEGMENT_BYTES_MAX;
    /* What is written at once is at most a segment. */
    dlq->queue = BUF_MAX(dlq->segment_max < DLQ_QUEUE_MAX ? dlq->segment_max
                                                          : (size_t)DLQ_QUEUE_MAX);
    (void)snprintf(dlq->dir, sizeof(dlq->dir), "%s/dlq", data_dir);
    err = file_mkdirs(dlq->dir, why);
    if (err != ERR_OK) {
        free(dlq);
        return err;
    }
    (void)pthread_mutex_init(&dlq->mutex, NULL);
    (void)pthread_cond_init(&dlq->ready, NULL);
    rc = pthread_create(&dlq->writer, NULL, writer_main, dlq);
    if (rc != 0) {
        free(dlq);
        return err_set(why, ERR_FATAL, "dlq: no thread: %s", strerror(rc));
    }
    *out = dlq;
    return ERR_OK;
}

/* Cut where a UTF-8 character begins; buf_add_json replaces what is no UTF-8. */
static struct str
raw_cut(struct str raw)
{
    if (raw.n <= DLQ_RAW_MAX)
        return raw;
    raw.n = DLQ_RAW_MAX;
    while (raw.n > DLQ_RAW_MAX - 4 && ((uint8_t)raw.p[raw.n] & 0xC0) == 0x80)
        raw.n--;
    return raw;
}

static void
member(struct buf *line, const char *name, struct str value)
{
    buf_printf(line, ",\"%s\":", name);
    buf_add_json(line, value);
}

static void
line_format(struct buf *line, const struct dlq_entry *entry)
{
    char time[CLOCK_TEXT_SIZE], ip[IP_TEXT_SIZE];
    struct str raw = raw_cut(entry->raw);

    buf_printf(line, "{\"time\":\"%s\",\"key\":%" PRIu32 ",\"account\":%" PRIu32,
               clock_format_ms(entry->time_ms, time), entry->key, entry->account);
    member(line, "remote", str_of(ip_format(entry->remote, ip)));
    member(line, "code", str_of(entry->code));
    member(line, "field", str_of(entry->field));
    member(line, "event_id", str_of(entry->event_id));
    member(line, "message", str_of(entry->message));
    member(line, "raw", raw);
    buf_printf(line, ",\"cut\":%s}\n", raw.n < entry->raw.n ? "true" : "false");
}

void
dlq_add(struct dlq *dlq, const struct dlq_entry *entry)
{
    struct buf line = BUF_MAX(LINE_MAX);
    bool wake;

    line_format(&line, entry);
    (void)pthread_mutex_lock(&dlq->mutex);
    wake = dlq->queue.n == 0;
    if (line.failed || line.n > dlq->queue.max - dlq->queue.n) {
        dlq->dropped++;
    } else {
        buf_add(&dlq->queue, line.p, line.n);
        if (dlq->queue.failed)
            dlq->dropped++;
        else
            dlq->queued_lines++;
        dlq->queue.failed = false;
    }
    if (wake)
        (void)pthread_cond_signal(&dlq->ready);
    (void)pthread_mutex_unlock(&dlq->mutex);
    buf_free(&line);
}

uint64_t
dlq_dropped(struct dlq *dlq)
{
    uint64_t dropped;

    (void)pthread_mutex_lock(&dlq->mutex);
    dropped = dlq->dropped;
    (void)pthread_mutex_unlock(&dlq->mutex);
    return dropped;
}

void
dlq_close(struct dlq **dlq)
{
    struct dlq *d = *dlq;

    *dlq = NULL;
    if (d == NULL)
        return;
    (void)pthread_mutex_lock(&d->mutex);
    d->ending = true;
    (void)pthread_cond_signal(&d->ready);
    (void)pthread_mutex_unlock(&d->mutex);
    (void)pthread_join(d->writer, NULL);
    (void)pthread_cond_destroy(&d->ready);
    (void)pthread_mutex_destroy(&d->mutex);
    buf_free(&d->queue);
    free(d);
}

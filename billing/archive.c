#include "billing/archive.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "billing/archive_part.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "schema/text.h"

#define POLL_US      INT64_C(200000) /* without news */
#define GATHER_US    INT64_C(50000)  /* between passes */
#define RETRY_US     INT64_C(1000000)
#define LIVE_US      INT64_C(1000000) /* between looks for live verdicts */
#define LIVE_BACK_US (2 * CLOCK_DAY_US)

struct archive {
    char dir[FILE_PATH_MAX - 256];
    struct clicklog *log;
    struct verdictlog *verdicts; /* may be NULL */
    struct clicklog_reader *reader;
    struct part *parts;
    uint32_t parts_n;
    int64_t roll_us;
    int64_t cut_us;         /* all received before it is in files, open or listed */
    int64_t rolled_us;      /* the cut of the last roll */
    int64_t rolled_mono_us; /* when */
    int64_t live_mono_us;
    int64_t asked_us; /* someone wants a roll past this time; 0: nobody */
    pthread_t thread;
    _Atomic bool stop;
};

/* A partition failed: it stands at its list's end and is tried again in a while. */
static void
part_failed(struct part *part, enum err err, const struct why *why)
{
    if (!part->failing)
        log_event(LOG_ERROR, "archive_failed",
                  LOG_NUMBER("partition", part->partition),
                  LOG_TEXT("error", err_name(err)), LOG_TEXT("why", why->text));
    part->failing = true;
    part->retry_mono_us = clock_mono_us() + RETRY_US;
    metric_set(part->broken, 1);
    avrofile_abort(&part->file);
}

static void
part_mended(struct part *part)
{
    if (!part->failing)
        return;
    part->failing = false;
    metric_set(part->broken, 0);
    log_event(LOG_INFO, "archive_goes_on",
              LOG_NUMBER("partition", part->partition));
}

/* Takes what was received before limit_us; then, if asked, lists all of it and says so. */
static void
part_step(struct archive *archive, struct part *part, int64_t limit_us, bool roll)
{
    struct why why = {""};
    enum err err = ERR_OK;

    if (part->failing) {
        if (clock_mono_us() < part->retry_mono_us)
            return;
        err = archive_part_reset(part, &why);
    }
    if (err == ERR_OK)
        err = archive_part_read(part, archive->reader, limit_us, &why);
    if (err == ERR_OK && roll)
        err = part_roll(part, &why);
    if (err == ERR_OK && roll) {
        err = manifest_through(part->list, limit_us, &why);
        if (err == ERR_CONFLICT) /* it says more already: another one lags behind */
            err = ERR_OK;
    }
    if (err != ERR_OK)
        part_failed(part, err, &why);
    else
        part_mended(part);
}

static bool
any_open(const struct archive *archive)
{
    for (uint32_t p = 0; p < archive->parts_n; p++)
        if (archive->parts[p].file != NULL || archive->parts[p].failing)
            return true;
    return false;
}

/* Goes on to `to_us`, stopping at each full hour, where everything is rolled, so that a file
 * never holds two hours and every `through` is a clean cut over all partitions. */
static void
advance(struct archive *archive, int64_t to_us, bool roll)
{
    while (archive->cut_us < to_us || roll) {
        int64_t hour_us =
            clock_floor(archive->cut_us, CLOCK_HOUR_US) + CLOCK_HOUR_US;
        int64_t limit_us = hour_us < to_us ? hour_us : to_us;
        bool last = limit_us == to_us;
        bool now = limit_us == hour_us || (last && roll);

        for (uint32_t p = 0; p < archive->parts_n; p++)
            part_step(archive, &archive->parts[p], limit_us, now);
        archive->cut_us = limit_us;
        if (now) {
            archive->rolled_us = limit_us;
            archive->rolled_mono_us = clock_mono_us();
        }
        if (last)
            break;
    }
}

/* The earliest click that no list holds decides where to go on from; without one, floor. */
static int64_t
first_unlisted(struct archive *archive, int64_t floor_us)
{
    int64_t first_us = floor_us;

    for (uint32_t p = 0; p < archive->parts_n; p++) {
        struct clicklog_record record;

        if (clicklog_seek(archive->reader, p, archive->parts[p].next, NULL) ==
                ERR_OK &&
            clicklog_next(archive->reader, &record, NULL) == ERR_OK &&
            record.received_us < first_us)
            first_us = record.received_us;
        clicklog_release(archive->reader);
    }
    return first_us;
}

/* Takes the request's file away before the log's floor is read: what was received before the
 * request is then below a floor that comes after. */
static void
request_take(struct archive *archive)
{
    char path[FILE_PATH_MAX];

    (void)snprintf(path, sizeof(path), "%s/roll-requested", archive->dir);
    if (unlink(path) == 0)
        archive->asked_us = clock_now_us();
}

static void
lag_update(struct archive *archive)
{
    for (uint32_t p = 0; p < archive->parts_n; p++) {
        struct part *part = &archive->parts[p];
        uint64_t first, next, listed = atomic_load(&part->listed);

        if (clicklog_range(archive->log, p, &first, &next, NULL) == ERR_OK)
            metric_set(part->lag, next > listed ? (int64_t)(next - listed) : 0);
    }
}

static void
live_write(struct archive *archive)
{
    for (uint32_t p = 0; p < archive->parts_n && archive->verdicts != NULL; p++) {
        struct why why = {""};
        enum err err = part_live_write(&archive->parts[p], archive->verdicts,
                                       clock_now_us(), &why);

        if (err != ERR_OK)
            log_event(LOG_WARN, "archive_live_failed", LOG_NUMBER("partition", p),
                      LOG_TEXT("error", err_name(err)), LOG_TEXT("why", why.text));
    }
    archive->live_mono_us = clock_mono_us();
    lag_update(archive);
}

static void
pass(struct archive *archive, bool stopping)
{
    struct clicklog_stats stats;
    bool due, moved;

    request_take(archive);
    clicklog_stats_get(archive->log, &stats);
    if (archive->cut_us == 0)
        archive->cut_us = first_unlisted(archive, stats.floor_us);
    moved = stats.floor_us > archive->rolled_us;
    due = clock_mono_us() - archive->rolled_mono_us >= archive->roll_us;
    advance(archive, stats.floor_us,
            (moved || any_open(archive)) &&
                (due || stopping || archive->asked_us > 0));
    if (archive->rolled_us >= archive->asked_us)
        archive->asked_us = 0;
    if (stopping || clock_mono_us() - archive->live_mono_us >= LIVE_US)
        live_write(archive);
}

static void *
thread_main(void *ctx)
{
    struct archive *archive = ctx;
    uint64_t seen = 0;

    while (!atomic_load(&archive->stop)) {
        pass(archive, false);
        clicklog_wait(archive->log, &seen, POLL_US);
        if (!atomic_load(&archive->stop))
            clock_sleep_us(GATHER_US);
    }
    pass(archive, true);
    return NULL;
}

/* ---- start: removes what is unlisted, queues what lacks live verdicts ---- */

static int
path_compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Whether the archive made this file of that name; the judge's are not its to remove. */
static bool
is_ours(const char *name)
{
    return strncmp(name, "part-", 5) == 0 && strstr(name, ".final.avro") == NULL;
}

/* The archive file that `name` is, or stands beside. */
static void
owner_of(const char *name, char *out, size_t size)
{
    const char *live = strstr(name, ".live.avro");

    if (live == NULL)
        (void)snprintf(out, size, "%s", name);
    else
        (void)snprintf(out, size, "%.*s.avro", (int)(live - name), name);
}

static void
hour_clean(const char *dir, const char *hour, const char *const *listed, size_t n)
{
    char folder[FILE_PATH_MAX - 256 + 64], path[FILE_PATH_MAX + 256];
    const struct dirent *entry;
    DIR *stream;

    (void)snprintf(folder, sizeof(folder), "%s/%s", dir, hour);
    stream = opendir(folder);
    if (stream == NULL)
        return;
    while ((entry = readdir(stream)) != NULL) {
        char owner[256], relative[512];
        const char *key = relative;
        size_t length = strlen(entry->d_name);
        bool temporary =
            length > 4 && strcmp(entry->d_name + length - 4, ".tmp") == 0;

        if (!is_ours(entry->d_name))
            continue;
        owner_of(entry->d_name, owner, sizeof(owner));
        (void)snprintf(relative, sizeof(relative), "%s/%s", hour, owner);
        if (!temporary &&
            bsearch(&key, listed, n, sizeof(*listed), path_compare) != NULL)
            continue;
        (void)snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        (void)unlink(path);
        log_event(LOG_INFO, "archive_unlisted_removed", LOG_TEXT("path", path));
    }
    (void)closedir(stream);
}

/* Unlisted files are of hours that were not complete: none is older than since_day. */
static void
clean(struct archive *archive, const struct manifest *manifest, int32_t since_day)
{
    const char **listed = calloc(manifest->files_n + 1, sizeof(*listed));
    const struct dirent *entry;
    DIR *stream = opendir(archive->dir);

    for (uint32_t i = 0; i < manifest->files_n && listed != NULL; i++)
        listed[i] = manifest->files[i].path;
    if (listed != NULL)
        qsort(listed, manifest->files_n, sizeof(*listed), path_compare);
    while (stream != NULL && listed != NULL && (entry = readdir(stream)) != NULL) {
        int32_t day;

        if (strncmp(entry->d_name, "date=", 5) != 0 ||
            !date_parse(str_of(entry->d_name + 5), &day) || day < since_day)
            continue;
        for (int hour = 0; hour < 24; hour++) {
            char name[64];

            (void)snprintf(name, sizeof(name), "date=%.10s/hour=%02d",
                           entry->d_name + 5, hour);
            hour_clean(archive->dir, name, listed, manifest->files_n);
        }
    }
    if (stream != NULL)
        (void)closedir(stream);
    free(listed);
}

static enum err
live_queue(struct archive *archive, const struct manifest *manifest,
           int64_t since_us, struct why *why)
{
    enum err err = ERR_OK;

    for (uint32_t i = 0; i < manifest->files_n && err == ERR_OK; i++) {
        const struct manifest_file *file = &manifest->files[i];
        char beside[MANIFEST_PATH_MAX + 8], path[FILE_PATH_MAX];

        manifest_beside(file, "live", beside);
        (void)snprintf(path, sizeof(path), "%s/%s", archive->dir, beside);
        if (file->last_received_us >= since_us &&
            file->partition < archive->parts_n && access(path, F_OK) != 0)
            err = part_live_add(&archive->parts[file->partition], file, why);
    }
    return err;
}

static enum err
start_over(struct archive *archive, struct why *why)
{
    int64_t since_us = clock_now_us() - LIVE_BACK_US, clean_us;
    struct manifest manifest;
    enum err err = manifest_read(&manifest, archive->dir, INT64_MAX, why);

    if (err != ERR_OK)
        return err;
    clean_us = clock_floor(manifest.through_us, CLOCK_DAY_US);
    manifest_free(&manifest);
    err = manifest_read(&manifest, archive->dir,
                        clean_us < since_us ? clean_us : since_us, why);
    if (err != ERR_OK)
        return err;
    clean(archive, &manifest, (int32_t)(clean_us / CLOCK_DAY_US));
    err = live_queue(archive, &manifest, since_us, why);
    manifest_free(&manifest);
    return err;
}

static enum err
archive_open(struct archive *archive, const struct config *config, struct why *why)
{
    enum err err = file_mkdirs(archive->dir, why);

    archive->roll_us = config->archive_roll_s * CLOCK_SECOND_US;
    archive->rolled_mono_us = clock_mono_us();
    archive->parts = calloc(clicklog_partitions(archive->log), sizeof(struct part));
    if (err == ERR_OK && archive->parts == NULL)
        err = err_set(why, ERR_NOMEM, "archive: no memory");
    if (err == ERR_OK)
        err = clicklog_reader_open(&archive->reader, archive->log, why);
    for (uint32_t p = 0; p < clicklog_partitions(archive->log) && err == ERR_OK;
         p++) {
        archive->parts_n++;
        err = archive_part_open(&archive->parts[p], archive->dir, p,
                                (uint64_t)config->archive_roll_bytes, why);
    }
    return err == ERR_OK ? start_over(archive, why) : err;
}

static void
archive_free(struct archive *archive)
{
    for (uint32_t p = 0; p < archive->parts_n; p++)
        archive_part_close(&archive->parts[p]);
    free(archive->parts);
    clicklog_reader_close(&archive->reader);
    free(archive);
}

enum err
archive_start(struct archive **out, const struct config *config, const char *dir,
              struct clicklog *log, struct verdictlog *verdicts, struct why *why)
{
    struct archive *archive = calloc(1, sizeof(*archive));
    enum err err;

    *out = NULL;
    if (archive == NULL)
        return err_set(why, ERR_NOMEM, "archive: no memory");
    archive->log = log;
    archive->verdicts = verdicts;
    if (strlen(dir) >= sizeof(archive->dir))
        err = err_set(why, ERR_INVALID, "path %.80s...: too long", dir);
    else {
        memcpy(archive->dir, dir, strlen(dir) + 1);
        err = archive_open(archive, config, why);
    }
    if (err == ERR_OK &&
        pthread_create(&archive->thread, NULL, thread_main, archive) != 0)
        err = err_set(why, ERR_FATAL, "archive: cannot start a thread");
    if (err != ERR_OK) {
        archive_free(archive);
        return err;
    }
    *out = archive;
    return ERR_OK;
}

void
archive_stop(struct archive **archive)
{
    if (*archive == NULL)
        return;
    atomic_store(&(*archive)->stop, true);
    clicklog_wake((*archive)->log);
    (void)pthread_join((*archive)->thread, NULL);
    archive_free(*archive);
    *archive = NULL;
}

uint64_t
archive_listed(const struct archive *archive, uint32_t partition)
{
    assert(partition < archive->parts_n);
    return atomic_load(&archive->parts[partition].listed);
}

uint64_t
archive_live_listed(const struct archive *archive, uint32_t partition)
{
    assert(partition < archive->parts_n);
    return atomic_load(&archive->parts[partition].live_listed);
}

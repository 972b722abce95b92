#include "billing/archive.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "billing/archive_clean.h"
#include "billing/archive_part.h"
#include "billing/archive_side.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"

#define POLL_US   INT64_C(200000) /* without news */
#define GATHER_US INT64_C(50000)  /* between passes */
#define RETRY_US  INT64_C(1000000)
/* Over Kafka the rows since the last roll are fetched again. */
#define RETRY_KAFKA_US INT64_C(5000000)
#define LIVE_US        INT64_C(1000000) /* between looks for live verdicts */
#define ASKED_US       INT64_C(1000000) /* between rolls for one request, over Kafka */

struct archive {
    char dir[FILE_PATH_MAX - 256];
    struct clicklog *log;
    bool kafka;
    struct verdictlog *verdicts; /* may be NULL */
    struct clicklog_reader *reader;
    struct archive_side *side; /* NULL: nobody to talk to */
    struct part *parts;
    uint32_t parts_n;
    uint32_t turn;             /* the partition to begin with */
    struct clicklog_mark mark; /* the newest cut */
    int64_t roll_us;
    int64_t cut_us;         /* all received before it is in files, open or listed */
    bool gained;            /* partitions may have older clicks than cut_us */
    int64_t roll_at_us;     /* the cut that a roll waits for; 0: none does */
    int64_t rolled_us;      /* the cut of the last roll */
    int64_t rolled_mono_us; /* when */
    int64_t live_mono_us;
    int64_t asked_us; /* someone wants a roll past this time; 0: nobody */
    pthread_t thread;
    _Atomic bool stop;
};

static bool
is_owned(const struct part *part)
{
    return atomic_load(&part->owned) != 0;
}

/* Once, until it goes on again. */
static void
part_complain(struct part *part, enum err err, const struct why *why)
{
    if (!part->failing)
        log_event(LOG_ERROR, "archive_failed",
                  LOG_NUMBER("partition", part->partition),
                  LOG_TEXT("error", err_name(err)), LOG_TEXT("why", why->text));
    part->failing = true;
    part->failed_next = part->next;
    metric_set(part->broken, 1);
}

/* A partition failed: it stands at its list's end and is tried again in a while. */
static void
part_failed(struct part *part, enum err err, const struct why *why)
{
    bool slow = part->kafka && (err == ERR_CORRUPT || err == ERR_NOTFOUND);

    part_complain(part, err, why);
    part->retry_mono_us = clock_mono_us() + (slow ? RETRY_KAFKA_US : RETRY_US);
    part->down = true;
    part->complete = part->stalled = false;
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

/* Lists what came before the gap, and has what is missing looked for. */
static void
part_stalled(struct archive *archive, struct part *part, enum err err,
             const struct why *why)
{
    struct why roll = {""};

    part_complain(part, err, why);
    err = part_roll(part, &roll);
    if (err != ERR_OK)
        part_failed(part, err, &roll);
    else
        archive_side_look(archive->side, part->partition, &part->gap);
}

/* Whether the partition can be read now. */
static bool
part_ready(struct archive *archive, struct part *part)
{
    struct why why = {""};
    uint64_t log_offset;
    enum err err;

    if (part->stalled) {
        if (!archive_side_found(archive->side, part->partition, &log_offset))
            return false;
        archive_part_heal(part, log_offset);
    }
    if (!part->down)
        return true;
    if (part->fresh || clock_mono_us() < part->retry_mono_us)
        return false;
    err = archive_part_reset(part, &why);
    if (err != ERR_OK)
        part_failed(part, err, &why);
    return err == ERR_OK;
}

/* Takes what was received before limit_us. */
static void
part_step(struct archive *archive, struct part *part, int64_t limit_us)
{
    struct why why = {""};
    enum err err;

    part->complete = part->more = false;
    if (!is_owned(part) || !part_ready(archive, part))
        return;
    err = archive_part_read(part, archive->log, archive->reader, limit_us,
                            &archive->mark, &why);
    if (err != ERR_OK && part->stalled)
        part_stalled(archive, part, err, &why);
    else if (err != ERR_OK)
        part_failed(part, err, &why);
    else if (part->complete || part->next != part->failed_next)
        part_mended(part);
}

/* Whether nothing is missing before limit_us but of partitions that cannot be archived: those
 * do not say so in their lists, and the others need not wait for them. */
static bool
all_step(struct archive *archive, int64_t limit_us)
{
    bool all = true;

    for (uint32_t i = 0; i < archive->parts_n; i++) {
        struct part *part = &archive->parts[(archive->turn + i) % archive->parts_n];

        part_step(archive, part, limit_us);
        if (!is_owned(part) || part->failing || part->complete)
            continue;
        all = false;
        if (part->placed)
            continue;
        /* Its broker does not answer; the next ones may neither, and each takes its time. */
        archive->turn = part->partition + 1;
        break;
    }
    return all;
}

/* Lists all that was received before limit_us, and says that it is all. */
static void
cut(struct archive *archive, int64_t limit_us)
{
    for (uint32_t p = 0; p < archive->parts_n; p++) {
        struct part *part = &archive->parts[p];
        struct why why = {""};
        enum err err = ERR_OK;

        if (!part->complete)
            continue;
        if (part->file != NULL && part->open.first_received_us < limit_us)
            err = part_roll(part, &why);
        if (err == ERR_OK)
            err = manifest_through(part->list, limit_us, &why);
        if (err != ERR_OK && err != ERR_CONFLICT) /* it says more already */
            part_failed(part, err, &why);
    }
    archive->rolled_us = limit_us;
    archive->rolled_mono_us = clock_mono_us();
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
 * never holds two hours and every `through` is a clean cut over all partitions. True when it
 * got there; if not, clicks are on their way that come before the next stop. */
static bool
advance(struct archive *archive, int64_t to_us, bool roll)
{
    while (archive->cut_us < to_us || roll) {
        int64_t hour_us =
            clock_floor(archive->cut_us, CLOCK_HOUR_US) + CLOCK_HOUR_US;
        int64_t limit_us = hour_us < to_us ? hour_us : to_us;
        bool last = limit_us == to_us;

        if (!all_step(archive, limit_us))
            return false;
        archive->cut_us = limit_us;
        if (limit_us == hour_us || (last && roll))
            cut(archive, limit_us);
        if (last)
            break;
    }
    return true;
}

/* The earliest click that no file holds decides where to go on from; without one, the
 * newest cut. False: not all are known yet. */
static bool
begin(struct archive *archive)
{
    int64_t first_us = archive->mark.floor_us;

    if (!all_step(archive, INT64_MIN))
        return false;
    for (uint32_t p = 0; p < archive->parts_n; p++) {
        const struct part *part = &archive->parts[p];

        if (is_owned(part) && part->holding && part->held.received_us < first_us)
            first_us = part->held.received_us;
    }
    if (archive->cut_us == 0 || first_us < archive->cut_us)
        archive->cut_us = first_us;
    archive->gained = false;
    return true;
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
        uint64_t first, next = 0, from = atomic_load(&part->listed);

        if (archive->kafka) {
            next = is_owned(part) ? clicklog_end(archive->log, p) : 0;
            from = part->placed ? part->log_next : next;
        } else if (clicklog_range(archive->log, p, &first, &next, NULL) != ERR_OK) {
            continue;
        }
        metric_set(part->lag, next > from ? (int64_t)(next - from) : 0);
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

/* Partitions come and go. What is not listed of one that goes is read again by whoever has
 * it next; its list is free before the partition is. */
static void
owners_follow(struct archive *archive)
{
    for (uint32_t p = 0; p < archive->parts_n; p++) {
        struct part *part = &archive->parts[p];
        uint64_t owned = clicklog_owned(archive->log, p);

        if (owned == atomic_load(&part->owned))
            continue;
        if (is_owned(part)) {
            if (part->stalled)
                archive_side_forget(archive->side, p);
            archive_part_drop(part);
            part_mended(part);
            if (owned == 0)
                clicklog_let_go(archive->log, p);
        }
        atomic_store(&part->owned, owned);
        part->down = part->fresh = owned != 0;
        part->retry_mono_us = 0;
        part->failed_next = UINT64_MAX;
        if (owned != 0)
            archive->gained = true;
    }
}

/* Takes the lists of partitions that are new to us, then looks through their folders. */
static void
fresh_take(struct archive *archive)
{
    struct why why = {""};
    bool any = false;
    enum err err;

    for (uint32_t p = 0; p < archive->parts_n; p++) {
        struct part *part = &archive->parts[p];

        if (!is_owned(part) || !part->fresh ||
            clock_mono_us() < part->retry_mono_us)
            continue;
        err = archive_part_reset(part, &why);
        if (err != ERR_OK)
            part_failed(part, err, &why);
        any = any || err == ERR_OK;
    }
    if (!any)
        return;
    err = archive_clean(archive->dir, archive->parts, archive->parts_n, &why);
    for (uint32_t p = 0; p < archive->parts_n && err != ERR_OK; p++)
        if (archive->parts[p].fresh)
            part_failed(&archive->parts[p], err, &why);
}

/* False: no cut is known. */
static bool
mark_follow(struct archive *archive)
{
    struct clicklog_mark mark;

    if (clicklog_mark_get(archive->log, &mark, NULL) == ERR_OK &&
        mark.floor_us >= archive->mark.floor_us)
        archive->mark = mark;
    return archive->mark.floor_us > 0;
}

/* Whether all is to be rolled at the newest cut. */
static bool
roll_wanted(const struct archive *archive, bool stopping)
{
    int64_t age_us = clock_mono_us() - archive->rolled_mono_us;
    bool moved = archive->mark.floor_us > archive->rolled_us;
    bool asked =
        archive->asked_us > 0 && (!archive->kafka || age_us >= ASKED_US ||
                                  archive->mark.floor_us >= archive->asked_us);

    return (moved || any_open(archive)) &&
           (age_us >= archive->roll_us || stopping || asked);
}

/* At the end what is in hand is listed, whether or not its cut was reached: it is all of
 * before the cuts to come. */
static void
part_end(struct part *part)
{
    struct why why = {""};
    enum err err = ERR_OK;

    if (is_owned(part) && !part->down)
        err = part_roll(part, &why);
    if (err != ERR_OK)
        part_failed(part, err, &why);
}

/* A roll waits for its cut, however far later ones are. */
static void
go_on(struct archive *archive, bool stopping)
{
    int64_t floor_us = archive->mark.floor_us;

    if (archive->roll_at_us == 0 && roll_wanted(archive, stopping))
        archive->roll_at_us = floor_us;
    if (archive->roll_at_us == 0) {
        (void)advance(archive, floor_us, false);
    } else if (advance(archive, archive->roll_at_us, true)) {
        archive->roll_at_us = 0;
        if (archive->rolled_us >= archive->asked_us)
            archive->asked_us = 0;
    }
}

static void
pass(struct archive *archive, bool stopping)
{
    owners_follow(archive);
    fresh_take(archive);
    request_take(archive);
    if (mark_follow(archive) &&
        ((archive->cut_us != 0 && !archive->gained) || begin(archive)))
        go_on(archive, stopping);
    for (uint32_t p = 0; p < archive->parts_n && stopping; p++)
        part_end(&archive->parts[p]);
    if (stopping || clock_mono_us() - archive->live_mono_us >= LIVE_US)
        live_write(archive);
}

static bool
any_more(const struct archive *archive)
{
    for (uint32_t p = 0; p < archive->parts_n; p++)
        if (archive->parts[p].more)
            return true;
    return false;
}

static void *
thread_main(void *ctx)
{
    struct archive *archive = ctx;
    uint64_t seen = 0;

    while (!atomic_load(&archive->stop)) {
        pass(archive, false);
        if (any_more(archive))
            continue;
        clicklog_wait(archive->log, &seen, POLL_US);
        if (!atomic_load(&archive->stop))
            clock_sleep_us(GATHER_US);
    }
    pass(archive, true);
    return NULL;
}

/* Alone on its log it takes all partitions at once, and says so if it cannot. */
static enum err
parts_take(struct archive *archive, struct why *why)
{
    enum err err = ERR_OK;

    for (uint32_t p = 0; p < archive->parts_n && err == ERR_OK; p++) {
        struct part *part = &archive->parts[p];

        err = archive_part_reset(part, why);
        atomic_store(&part->owned, clicklog_owned(archive->log, p));
        part->fresh = true;
    }
    if (err == ERR_OK)
        err = archive_clean(archive->dir, archive->parts, archive->parts_n, why);
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
                                (uint64_t)config->archive_roll_bytes, archive->log,
                                why);
    }
    if (err == ERR_OK && !archive->kafka)
        err = parts_take(archive, why);
    return err;
}

static void
archive_free(struct archive *archive)
{
    archive_side_stop(&archive->side);
    for (uint32_t p = 0; p < archive->parts_n; p++)
        archive_part_close(&archive->parts[p]);
    free(archive->parts);
    clicklog_reader_close(&archive->reader);
    free(archive);
}

enum err
archive_start(struct archive **out, const struct config *config, const char *dir,
              struct clicklog *log, struct verdictlog *verdicts,
              struct control *control, struct why *why)
{
    struct archive *archive = calloc(1, sizeof(*archive));
    enum err err;

    *out = NULL;
    if (archive == NULL)
        return err_set(why, ERR_NOMEM, "archive: no memory");
    archive->log = log;
    archive->kafka = clicklog_is_kafka(log);
    archive->verdicts = verdicts;
    if (strlen(dir) >= sizeof(archive->dir))
        err = err_set(why, ERR_INVALID, "path %.80s...: too long", dir);
    else {
        memcpy(archive->dir, dir, strlen(dir) + 1);
        err = archive_open(archive, config, why);
    }
    if (err == ERR_OK && (archive->kafka || control != NULL))
        err = archive_side_start(&archive->side, log, verdicts, control,
                                 archive->parts, archive->parts_n, why);
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

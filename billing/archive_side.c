#include "billing/archive_side.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"

#define ROUND_US INT64_C(1000000)
#define NAP_US   INT64_C(50000)
#define LOOK_US  INT64_C(3000000) /* between looks for what is lost */

/* A click that is looked for, each time from where the last look ended. */
struct lost {
    bool wanted, found;
    uint64_t number; /* of the request */
    struct part_gap gap;
    uint64_t at;
};

struct archive_side {
    struct clicklog *log;
    struct verdictlog *verdicts;
    struct control *control;
    struct part *parts;
    uint32_t parts_n;
    pthread_mutex_t mutex; /* of lost */
    struct lost *lost;
    struct clicklog_last told[CLICKLOG_PARTITIONS_MAX];
    bool has_told;
    bool follow_fails, tell_fails;
    pthread_t thread;
    _Atomic bool stop;
};

static void
say(bool *fails, enum err err, const char *what, const struct why *why)
{
    if (err != ERR_OK && !*fails)
        log_event(LOG_WARN, "archive_waits", LOG_TEXT("for", what),
                  LOG_TEXT("error", err_name(err)), LOG_TEXT("why", why->text));
    else if (err == ERR_OK && *fails)
        log_event(LOG_INFO, "archive_waited", LOG_TEXT("for", what));
    *fails = err != ERR_OK;
}

/* Follows on its own from the first time; again, since others may have left it. */
static void
follow(struct archive_side *side)
{
    struct why why = {""};
    enum err err = ERR_OK;

    for (uint32_t p = 0; p < side->parts_n && !atomic_load(&side->stop); p++) {
        struct part *part = &side->parts[p];
        int64_t since_us = atomic_load(&part->follow_us);
        struct why one = {""};
        enum err failed;

        if (since_us == 0)
            continue;
        failed = verdictlog_follow(side->verdicts, p, since_us, &one);
        if (failed == ERR_OK) {
            atomic_store(&part->followed, true);
        } else if (err == ERR_OK) {
            err = failed;
            why = one;
        }
    }
    say(&side->follow_fails, err, "live verdicts", &why);
}

/* One partition's search, without the mutex: it reads the log to its end. */
static void
look_one(struct archive_side *side, uint32_t p, const struct lost *lost)
{
    uint64_t end = clicklog_end(side->log, p), at = 0;
    enum err err = clicklog_find(side->log, p, lost->gap.log_offset,
                                 lost->gap.incarnation, lost->gap.seq, &at, NULL);

    (void)pthread_mutex_lock(&side->mutex);
    struct lost *now = &side->lost[p];
    if (now->wanted && now->number == lost->number) {
        now->found = err == ERR_OK;
        now->at = at;
        if (err == ERR_NOTFOUND && end > now->gap.log_offset)
            now->gap.log_offset = end;
    }
    (void)pthread_mutex_unlock(&side->mutex);
}

static void
look(struct archive_side *side)
{
    for (uint32_t p = 0; p < side->parts_n && !atomic_load(&side->stop); p++) {
        (void)pthread_mutex_lock(&side->mutex);
        struct lost lost = side->lost[p];
        (void)pthread_mutex_unlock(&side->mutex);
        if (lost.wanted && !lost.found)
            look_one(side, p, &lost);
    }
}

/* Of partitions that another archive has, what is known stays. */
static void
tell(struct archive_side *side)
{
    struct clicklog_last archived[CLICKLOG_PARTITIONS_MAX] = {{0, 0}};
    struct why why = {""};
    enum err err;

    control_archived_get(side->control, archived);
    for (uint32_t p = 0; p < side->parts_n; p++)
        if (atomic_load(&side->parts[p].owned) != 0)
            archived[p] = archive_part_archived(&side->parts[p]);
    if (side->has_told && memcmp(archived, side->told, sizeof(archived)) == 0)
        return;
    err = control_archived_put(side->control, archived, &why);
    say(&side->tell_fails, err, "the control topic", &why);
    side->has_told = err == ERR_OK;
    memcpy(side->told, archived, sizeof(archived));
}

static void *
side_main(void *ctx)
{
    struct archive_side *side = ctx;
    bool kafka = clicklog_is_kafka(side->log);
    int64_t round_us = 0, look_us = 0;

    for (; !atomic_load(&side->stop); clock_sleep_us(NAP_US)) {
        int64_t now_us = clock_mono_us();

        if (now_us < round_us)
            continue;
        round_us = now_us + ROUND_US;
        if (side->control != NULL)
            tell(side);
        if (kafka && side->verdicts != NULL)
            follow(side);
        if (kafka && now_us >= look_us) {
            look(side);
            look_us = now_us + LOOK_US;
        }
    }
    if (side->control != NULL)
        tell(side);
    return NULL;
}

static void
side_free(struct archive_side *side)
{
    (void)pthread_mutex_destroy(&side->mutex);
    free(side->lost);
    free(side);
}

enum err
archive_side_start(struct archive_side **out, struct clicklog *log,
                   struct verdictlog *verdicts, struct control *control,
                   struct part *parts, uint32_t parts_n, struct why *why)
{
    struct archive_side *side = calloc(1, sizeof(*side));

    assert(parts_n <= CLICKLOG_PARTITIONS_MAX);
    *out = NULL;
    if (side == NULL)
        return err_set(why, ERR_NOMEM, "archive: no memory");
    side->log = log;
    side->verdicts = verdicts;
    side->control = control;
    side->parts = parts;
    side->parts_n = parts_n;
    (void)pthread_mutex_init(&side->mutex, NULL);
    side->lost = calloc(parts_n, sizeof(*side->lost));
    if (side->lost == NULL) {
        side_free(side);
        return err_set(why, ERR_NOMEM, "archive: no memory");
    }
    if (pthread_create(&side->thread, NULL, side_main, side) != 0) {
        side_free(side);
        return err_set(why, ERR_FATAL, "archive: cannot start a thread");
    }
    *out = side;
    return ERR_OK;
}

void
archive_side_stop(struct archive_side **side)
{
    if (*side == NULL)
        return;
    atomic_store(&(*side)->stop, true);
    (void)pthread_join((*side)->thread, NULL);
    side_free(*side);
    *side = NULL;
}

void
archive_side_look(struct archive_side *side, uint32_t partition,
                  const struct part_gap *gap)
{
    (void)pthread_mutex_lock(&side->mutex);
    struct lost *lost = &side->lost[partition];
    uint64_t number = lost->number + 1;
    *lost = (struct lost){.wanted = true, .number = number, .gap = *gap};
    (void)pthread_mutex_unlock(&side->mutex);
}

bool
archive_side_found(struct archive_side *side, uint32_t partition,
                   uint64_t *log_offset)
{
    (void)pthread_mutex_lock(&side->mutex);
    struct lost *lost = &side->lost[partition];
    bool found = lost->wanted && lost->found;
    *log_offset = lost->at;
    if (found)
        lost->wanted = false;
    (void)pthread_mutex_unlock(&side->mutex);
    return found;
}

void
archive_side_forget(struct archive_side *side, uint32_t partition)
{
    (void)pthread_mutex_lock(&side->mutex);
    side->lost[partition].wanted = false;
    (void)pthread_mutex_unlock(&side->mutex);
}

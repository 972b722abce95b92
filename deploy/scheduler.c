/* The scheduler: judges each finished hour of receipt, and closes local days when their
 * grace is over. Two processes agree through an advisory lock; what one has done is a
 * no-op for the other. */
#include "deploy/stages.h"

#include <assert.h>
#include <stdlib.h>

#include "billing/close.h"
#include "billing/judge.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/pg.h"
#include "schema/text.h"

#define SCHEDULER_LOCK INT64_C(0x636c69636b6c6564) /* "clickled" */

/* A day of up to MISSED_DAYS ago may have been missed when nothing ran: its ids are kept as
 * long (billing.dedup_days). */
enum { LOOK_EVERY_S = 30, MISSED_DAYS = 34, SETTLE_S = 60 };

static enum err
hours_judge(struct stages *stages, const struct master *master,
            const struct ruleset *rules, struct judge_result *result,
            struct why *why)
{
    /* An hour's clicks reach the archive a little after its end. */
    int64_t until_us = clock_now_us() - SETTLE_S * CLOCK_SECOND_US;
    const struct judge_input in = {
        .config = stages->config,
        .archive_dir = stages->archive_dir,
        .judge_dir = stages->judge_dir,
        .master = master,
        .rules = rules,
        .until_us = clock_floor(until_us, CLOCK_HOUR_US),
    };
    return judge_run(&in, result, why);
}

/* Whether the day's grace is over on the whole planet: then a day that still waits is a
 * thing to tell. */
static bool
is_overdue(const struct stages *stages, int32_t day, int64_t now_us)
{
    int64_t over_us = (day + INT64_C(1)) * CLOCK_DAY_US + 13 * CLOCK_HOUR_US;

    return now_us > over_us + stages->config->billing_grace_s * CLOCK_SECOND_US;
}

static void
one_day_close(struct stages *stages, const struct master *master, struct pg *pg,
              int32_t day)
{
    char text[12];
    int64_t sent_us = 1;
    struct close_result result = {0};
    struct why why = {{0}};
    enum err err = stages_sent(stages, &sent_us, &why);
    const struct close_input in = {
        .config = stages->config,
        .archive_dir = stages->archive_dir,
        .judge_dir = stages->judge_dir,
        .master = master,
        .pg = pg,
        .log = stages->log,
        .sent_us = sent_us,
        .day = day,
        .now_us = clock_now_us(),
    };
    if (err == ERR_OK)
        err = close_day(&in, &result, &why);

    (void)date_format(day, text);
    if (err != ERR_OK && err != ERR_AGAIN)
        log_event(LOG_ERROR, "close_failed", LOG_TEXT("day", text),
                  LOG_TEXT("why", why.text));
    if (err == ERR_AGAIN && is_overdue(stages, day, in.now_us))
        log_event(LOG_WARN, "close_waits", LOG_TEXT("day", text),
                  LOG_TEXT("why", why.text));
    if (result.runs_new + result.runs_late + result.runs_blocked > 0)
        log_event(result.runs_blocked > 0 ? LOG_ERROR : LOG_INFO, "day_closed",
                  LOG_TEXT("day", text), LOG_NUMBER("runs", result.runs_new),
                  LOG_NUMBER("late", result.runs_late),
                  LOG_NUMBER("blocked", result.runs_blocked),
                  LOG_NUMBER("recounted", (int64_t)result.recounted),
                  LOG_NUMBER("billable", (int64_t)result.billable));
}

static bool
is_posted(struct pg *pg, int32_t day)
{
    char text[12];
    const char *params[] = {date_format(day, text)};
    struct pg_result *result = NULL;
    struct why why;

    /* If it cannot be asked, it is not closed now either: the next hour asks again. */
    bool posted = pg_exec(pg,
                          "SELECT 1 FROM billing_run WHERE day = $1 AND status = "
                          "'posted' LIMIT 1",
                          params, 1, &result, &why) != ERR_OK ||
                  pg_rows(result) > 0;
    pg_result_free(&result);
    return posted;
}

static void
days_close(struct stages *stages, const struct master *master, struct pg *pg,
           bool first)
{
    int32_t today = (int32_t)(clock_now_us() / CLOCK_DAY_US);
    /* Late clicks come as late as ingest takes them; a day ends later in the west. */
    int32_t late_days =
        (int32_t)(stages->config->ingest_past_ms_max / CLOCK_DAY_MS) + 2;

    for (int32_t day = today - MISSED_DAYS;
         first && day < today - late_days && !atomic_load(&stages->stop); day++) {
        if (!is_posted(pg, day))
            one_day_close(stages, master, pg, day);
    }
    for (int32_t day = today - late_days;
         day <= today && !atomic_load(&stages->stop); day++)
        one_day_close(stages, master, pg, day);
}

/* In a new data directory there is nothing to close, and nothing to tell about it. */
static bool
is_anything_judged(const struct stages *stages)
{
    struct judge_slice *slices = NULL;
    struct why why;
    uint32_t n = 0;
    enum err err = judge_slices(stages->judge_dir, &slices, &n, &why);

    free(slices);
    return err != ERR_OK || n > 0; /* what cannot be read, closing will name */
}

/* *judged_us remembers how far this process has seen things judged and closed, so that
 * nothing is read again until a new hour is there. */
static void
turn(struct stages *stages, struct pg *pg, int64_t *judged_us)
{
    const struct master *master = master_take(stages->master);
    const struct ruleset *rules = ruleset_take(stages->rules);
    struct judge_result result = {0};
    struct why why = {{0}};

    enum err err = hours_judge(stages, master, rules, &result, &why);
    if (err != ERR_OK && err != ERR_AGAIN)
        log_event(LOG_ERROR, "judge_failed", LOG_TEXT("why", why.text));
    if (result.slices > 0)
        log_event(LOG_INFO, "judged", LOG_NUMBER("slices", (int64_t)result.slices),
                  LOG_NUMBER("clicks", (int64_t)result.clicks),
                  LOG_NUMBER("duplicates", (int64_t)result.duplicates),
                  LOG_NUMBER("conflicts", (int64_t)result.conflicts));
    if (err == ERR_OK && result.judged_until_us > *judged_us &&
        is_anything_judged(stages)) {
        days_close(stages, master, pg, *judged_us == 0);
        *judged_us = result.judged_until_us;
    }
    ruleset_drop(stages->rules, rules);
    master_drop(stages->master, master);
}

enum err
stages_look(struct stages *stages, struct pg *pg, int64_t *judged_us,
            struct why *why)
{
    bool ours = false;
    struct why gone;
    enum err err = pg_try_lock(pg, SCHEDULER_LOCK, &ours, why);

    if (err == ERR_OK && !ours)
        err = err_set(why, ERR_AGAIN, "scheduler: another process is at it");
    if (err != ERR_OK)
        return err;
    turn(stages, pg, judged_us);
    (void)pg_unlock(pg, SCHEDULER_LOCK, &gone);
    return ERR_OK;
}

void *
stages_scheduler(void *ctx)
{
    struct stages *stages = ctx;
    char conninfo[PG_CONNINFO_MAX];
    struct pg *pg = NULL;
    int64_t judged_us = 0;
    struct why why;

    assert(stages->master != NULL);
    if (pg_conninfo(stages->config->postgres_conninfo,
                    stages->config->postgres_password_file, conninfo,
                    &why) != ERR_OK ||
        pg_open(&pg, conninfo, &why) != ERR_OK) {
        log_event(LOG_ERROR, "scheduler_stopped", LOG_TEXT("why", why.text));
        return NULL;
    }
    while (stages_sleep(stages, LOOK_EVERY_S * CLOCK_SECOND_US)) {
        if (stages_look(stages, pg, &judged_us, &why) == ERR_AGAIN)
            log_event(LOG_DEBUG, "scheduler_waits", LOG_TEXT("why", why.text));
    }
    pg_close(&pg);
    return NULL;
}

/* The scheduler: judges each finished hour of receipt, and closes local days when their
 * grace is over. Two processes agree through an advisory lock; what one has done is a
 * no-op for the other. */
#include "deploy/stages.h"

#include <assert.h>

#include "billing/close.h"
#include "billing/judge.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/pg.h"

#define SCHEDULER_LOCK INT64_C(0x636c69636b6c6564) /* "clickled" */

enum { LOOK_EVERY_S = 30, LATE_DAYS = 9, SETTLE_S = 60 };

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

static void
days_close(struct stages *stages, const struct master *master, struct pg *pg)
{
    int64_t now_us = clock_now_us();
    int32_t today = (int32_t)(now_us / CLOCK_DAY_US);

    for (int32_t day = today - LATE_DAYS; day <= today; day++) {
        const struct close_input in = {
            .config = stages->config,
            .archive_dir = stages->archive_dir,
            .judge_dir = stages->judge_dir,
            .master = master,
            .pg = pg,
            .log = stages->log,
            .day = day,
            .now_us = now_us,
        };
        struct close_result result = {0};
        struct why why = {{0}};
        enum err err = close_day(&in, &result, &why);
        if (err != ERR_OK && err != ERR_AGAIN)
            log_event(LOG_ERROR, "close_failed", LOG_NUMBER("day", day),
                      LOG_TEXT("why", why.text));
        if (result.runs_new + result.runs_late + result.runs_blocked > 0)
            log_event(result.runs_blocked > 0 ? LOG_ERROR : LOG_INFO, "day_closed",
                      LOG_NUMBER("day", day), LOG_NUMBER("runs", result.runs_new),
                      LOG_NUMBER("late", result.runs_late),
                      LOG_NUMBER("blocked", result.runs_blocked),
                      LOG_NUMBER("billable", (int64_t)result.billable));
    }
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
    if (err == ERR_OK && result.judged_until_us > *judged_us) {
        days_close(stages, master, pg);
        *judged_us = result.judged_until_us;
    }
    ruleset_drop(stages->rules, rules);
    master_drop(stages->master, master);
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
        bool ours = false;
        if (pg_try_lock(pg, SCHEDULER_LOCK, &ours, &why) != ERR_OK || !ours)
            continue;
        turn(stages, pg, &judged_us);
        (void)pg_unlock(pg, SCHEDULER_LOCK, &why);
    }
    pg_close(&pg);
    return NULL;
}

/* The answers that need little: readiness, metrics, one click. */
#include "dashboard/call.h"

#include <stdio.h>

#include "billing/click_find.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/metrics.h"
#include "common/pg.h"
#include "common/redis.h"
#include "schema/click.h"
#include "schema/text.h"

static bool
redis_answers(struct call *call)
{
    const struct str ping[] = {STR("PING")};
    int64_t began_us = clock_mono_us();
    struct why why = {{0}};

    if (!away_ask(call->redis_away, began_us))
        return false;
    enum err err = redis_command(call->redis, ping, 1, NULL, &why);
    away_report(call->redis_away, err, began_us, clock_mono_us(), &why);
    return err == ERR_OK;
}

static bool
postgres_answers(struct call *call)
{
    int64_t began_us = clock_mono_us();
    struct why why = {{0}};

    if (!away_ask(call->postgres_away, began_us))
        return false;
    enum err err = pg_exec(call->pg, "SELECT 1", NULL, 0, NULL, &why);
    away_report(call->postgres_away, err, began_us, clock_mono_us(), &why);
    return err == ERR_OK;
}

enum err
serve_ready(struct call *call, struct why *why)
{
    bool redis = redis_answers(call), postgres = postgres_answers(call);

    if (!redis && !postgres)
        return err_set(why, ERR_AGAIN, "neither Redis nor PostgreSQL answers");
    if (!call_master_loaded(call))
        return err_set(why, ERR_AGAIN, "the keys are not loaded yet");
    buf_printf(
        &call->out,
        "{\"ready\":true,\"redis\":\"%s\",\"postgres\":\"%s\",\"campaigns\":%u}\n",
        redis ? "ok" : "away", postgres ? "ok" : "away", call->master->campaigns_n);
    return ERR_OK;
}

enum err
serve_metrics(struct call *call, struct why *why)
{
    (void)why;
    call->content_type = "text/plain; version=0.0.4; charset=utf-8";
    metrics_format(&call->out);
    return ERR_OK;
}

static bool
click_allowed(void *ctx, const struct click *click)
{
    const struct call *call = ctx;
    const struct master_campaign *campaign =
        master_campaign_find(call->master, click->campaign_id);

    /* A key of a whole account also sees what it posted for campaigns that nobody knows. */
    if (campaign == NULL)
        return call->key->advertiser.n == 0 && click->account == call->key->account;
    return call_may_read(call->key, campaign);
}

enum err
serve_click(struct call *call, struct why *why)
{
    char archive_dir[FILE_PATH_MAX], judge_dir[FILE_PATH_MAX];
    struct click_find what = {
        .archive_dir = archive_dir,
        .judge_dir = judge_dir,
        .json = true,
        .discreet = call->key->advertiser.n > 0,
        .allowed = click_allowed,
        .ctx = call,
    };
    uint32_t found = 0;

    (void)snprintf(archive_dir, sizeof(archive_dir), "%s/archive",
                   call->config->data_dir);
    (void)snprintf(judge_dir, sizeof(judge_dir), "%s/judge",
                   call->config->data_dir);
    if (!uuid_parse(call->id, what.event_id))
        return call_invalid(call, "event_id", "must be a UUID", why);
    enum err err = click_find(&what, &call->out, &found, why);
    if (err == ERR_OK && found == 0)
        err = err_set(
            why, ERR_NOTFOUND,
            "no such click; one of the last minutes appears when its archive file "
            "is closed");
    return err;
}

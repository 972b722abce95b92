/* received = billable + over_budget + invalid + duplicates + quarantined, campaign by
 * campaign: the left side is ingest's count, the right side the judge's. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "billing/close_run.h"
#include "common/clicklog.h"
#include "common/clock.h"
#include "common/pg.h"
#include "schema/text.h"
#include "schema/zone.h"

enum { SPOOL_TEXT = 24, MOVED_NOBODY = 0 /* the account that marks a campaign */ };

#define EVENT_MS_MAX INT64_C(253402300799000) /* the year 9999 */

static enum err
no_memory(struct why *why)
{
    return err_set(why, ERR_NOMEM, "close: no memory for the identity");
}

static uint64_t
judged_of(const struct close_campaign *campaign)
{
    uint64_t sum = 0;

    for (int kind = 0; kind < VERDICT_KINDS_N; kind++)
        sum += campaign->kinds[kind];
    return sum;
}

/* ---- what ingest counted ---- */

/* Hours of our own log that PostgreSQL may not have, or has beyond the cut. */
static int64_t
log_from_us(const struct close_run *run)
{
    int64_t hour_us = clock_floor(run->until_us, CLOCK_HOUR_US);

    return run->in->log != NULL && run->stored_below_us < hour_us
               ? run->stored_below_us
               : hour_us;
}

/* Clicks of an (account, campaign). */
struct counted {
    uint32_t account;
    struct str campaign;
    uint64_t clicks;
    bool recounted; /* from the archive, since spool, which took them, is lost */
    uint64_t spool;
};

/* Where they go. */
struct counting {
    struct close_run *run;
    enum err (*add)(struct close_run *run, const struct counted *counted,
                    struct why *why);
    int64_t hour_from_us;                   /* hours of receipt from here on */
    int64_t quarter_from_ms, quarter_to_ms; /* of event time */
    enum err err;
    struct why *why;
};

static bool
is_counted(const struct counting *counting, int64_t hour_us, int64_t quarter_ms)
{
    return hour_us >= counting->hour_from_us &&
           quarter_ms >= counting->quarter_from_ms &&
           quarter_ms < counting->quarter_to_ms;
}

static bool
log_visit(void *ctx, const struct clicklog_received *row)
{
    struct counting *counting = ctx;
    const struct counted counted = {
        .account = row->account, .campaign = row->campaign, .clicks = row->clicks};

    if (is_counted(counting, row->hour_us, row->quarter_ms))
        counting->err = counting->add(counting->run, &counted, counting->why);
    return counting->err == ERR_OK;
}

static enum err
log_count(const struct counting *counting, struct why *why)
{
    const struct close_run *run = counting->run;
    struct counting later = *counting;
    int64_t from_us = log_from_us(run);

    if (run->in->log == NULL || from_us >= run->until_us)
        return ERR_OK;
    if (later.hour_from_us < from_us)
        later.hour_from_us = from_us;
    enum err err =
        clicklog_received_all(run->in->log, run->until_us, log_visit, &later, why);
    return err == ERR_OK ? later.err : err;
}

static bool
rest_visit(void *ctx, const struct recount_row *row)
{
    struct counting *counting = ctx;
    const struct counted counted = {.account = row->account,
                                    .campaign = row->campaign,
                                    .clicks = row->clicks,
                                    .recounted = true,
                                    .spool = row->spool};

    if (is_counted(counting, row->hour_us, row->quarter_ms))
        counting->err = counting->add(counting->run, &counted, counting->why);
    return counting->err == ERR_OK;
}

/* Whole hours are stored; the rest of what lost logs took, up to the cut, is looked up. What
 * its own log has told after all does not count twice. */
static enum err
recount_count(struct counting *counting, struct why *why)
{
    const struct close_run *run = counting->run;
    const struct recount_input in = {.pg = run->in->pg,
                                     .log = run->in->log,
                                     .archive_dir = run->in->archive_dir,
                                     .until_us = run->until_us};
    char from[RUN_TIME_SIZE], quarter_from[RUN_TIME_SIZE], until[RUN_TIME_SIZE],
        quarter_to[RUN_TIME_SIZE];
    const char *params[] = {
        close_time(counting->hour_from_us, from), close_time(run->until_us, until),
        close_time(counting->quarter_from_ms * 1000, quarter_from),
        close_time(counting->quarter_to_ms * 1000, quarter_to)};
    struct pg_result *result = NULL;
    enum err err = pg_exec(
        run->in->pg,
        "SELECT account_id, campaign_id, sum(clicks)::bigint, spool FROM "
        "received_recount r WHERE hour >= $1 AND hour < $2 AND quarter >= "
        "$3 AND quarter < $4 AND NOT EXISTS (SELECT 1 FROM received_count t "
        "WHERE t.hour = r.hour AND t.incarnation = r.incarnation) "
        "GROUP BY 1, 2, 4",
        params, 4, &result, why);

    for (int i = 0; err == ERR_OK && i < pg_rows(result); i++) {
        const struct counted counted = {.account = (uint32_t)pg_i64(result, i, 0),
                                        .campaign = str_of(pg_value(result, i, 1)),
                                        .clicks = (uint64_t)pg_i64(result, i, 2),
                                        .recounted = true,
                                        .spool = (uint64_t)pg_i64(result, i, 3)};
        err = counting->add(counting->run, &counted, why);
    }
    pg_result_free(&result);
    if (err == ERR_OK)
        err = recount_rest_each(&in, rest_visit, counting, why);
    return err == ERR_OK ? counting->err : err;
}

/* Finished hours stand in PostgreSQL; what our own log has not stored there yet, and the
 * hour that a forced cut divides, the log itself knows up to the cut. */
static enum err
received_count(struct counting *counting, struct why *why)
{
    const struct close_run *run = counting->run;
    char until[RUN_TIME_SIZE], from[RUN_TIME_SIZE], quarter_from[RUN_TIME_SIZE],
        quarter_to[RUN_TIME_SIZE], log_from[RUN_TIME_SIZE], spool[SPOOL_TEXT] = "";
    struct clicklog_stats stats = {0};
    struct pg_result *result = NULL;

    if (run->in->log != NULL) {
        clicklog_stats_get(run->in->log, &stats);
        (void)snprintf(spool, sizeof(spool), "%lld", (long long)stats.spool_id);
    }
    const char *params[] = {
        close_time(counting->hour_from_us, from),
        close_time(clock_floor(run->until_us, CLOCK_HOUR_US), until),
        close_time(counting->quarter_from_ms * 1000, quarter_from),
        close_time(counting->quarter_to_ms * 1000, quarter_to),
        run->in->log != NULL ? spool : NULL,
        close_time(log_from_us(run), log_from)};
    enum err err = pg_exec(
        run->in->pg,
        "SELECT account_id, campaign_id, sum(clicks)::bigint FROM received_count "
        "WHERE hour >= $1 AND hour < $2 AND quarter >= $3 AND quarter < $4 "
        "AND (spool IS DISTINCT FROM $5::bigint OR hour < $6) GROUP BY 1, 2",
        params, 6, &result, why);
    for (int i = 0; err == ERR_OK && i < pg_rows(result); i++) {
        const struct counted counted = {.account = (uint32_t)pg_i64(result, i, 0),
                                        .campaign = str_of(pg_value(result, i, 1)),
                                        .clicks = (uint64_t)pg_i64(result, i, 2)};
        err = counting->add(counting->run, &counted, why);
    }
    pg_result_free(&result);
    if (err == ERR_OK)
        err = log_count(counting, why);
    return err == ERR_OK && run->any_lost ? recount_count(counting, why) : err;
}

/* In the certificate it stands by log. */
static void
recounted_add(struct close_run *run, uint64_t spool, int64_t clicks)
{
    uint32_t i = 0;

    while (i < run->recounted_n && run->recounted[i].spool != spool)
        i++;
    if (i == RECOUNT_SPOOLS_MAX)
        i--; /* named as the last */
    else if (i == run->recounted_n)
        run->recounted[run->recounted_n++].spool = spool;
    run->recounted[i].clicks += clicks;
}

/* What earlier runs of the day have named is theirs. */
static enum err
recounted_before(struct close_run *run, struct why *why)
{
    char day[12];
    struct pg_result *result = NULL;
    const char *params[] = {run->zone_name, date_format(run->in->day, day)};
    enum err err = pg_exec(
        run->in->pg,
        "SELECT ('x' || split_part(one, ':', 1))::bit(64)::bigint, "
        "sum(split_part(one, ':', 2)::bigint)::bigint FROM billing_run r JOIN "
        "certificate c ON c.run_id = r.id, unnest(string_to_array("
        "c.recounted_spools, ',')) AS one WHERE r.time_zone = $1 AND r.day = $2 "
        "AND r.status = 'posted' GROUP BY 1",
        params, 2, &result, why);
    uint32_t kept = 0;

    for (int i = 0; err == ERR_OK && i < pg_rows(result); i++)
        recounted_add(run, (uint64_t)pg_i64(result, i, 0), -pg_i64(result, i, 1));
    pg_result_free(&result);
    for (uint32_t i = 0; i < run->recounted_n; i++) {
        if (run->recounted[i].clicks > 0)
            run->recounted[kept++] = run->recounted[i];
    }
    run->recounted_n = kept;
    return err;
}

/* A campaign's received clicks belong to the run if the campaign's zone does. */
static enum err
day_add(struct close_run *run, const struct counted *counted, struct why *why)
{
    const struct master_campaign *known =
        master_campaign_find(run->in->master, counted->campaign);
    const struct zone *zone = known != NULL ? known->zone : zone_find(STR("UTC"));

    if (!str_equal(zone_name(zone), str_of(run->zone_name)))
        return ERR_OK;
    struct close_campaign *campaign =
        close_rows_campaign(&run->rows, counted->account, counted->campaign);
    if (campaign == NULL)
        return no_memory(why);
    campaign->received += counted->clicks;
    if (counted->recounted)
        recounted_add(run, counted->spool, (int64_t)counted->clicks);
    return ERR_OK;
}

static enum err
day_received(struct close_run *run, struct why *why)
{
    /* Nothing is received for a day much before it begins. */
    struct counting counting = {
        .run = run,
        .add = day_add,
        .hour_from_us =
            clock_floor(run->day_from_ms * 1000 - CLOCK_DAY_US, CLOCK_HOUR_US),
        .quarter_from_ms = run->day_from_ms,
        .quarter_to_ms = run->day_to_ms,
        .why = why};

    enum err err = received_count(&counting, why);
    return err == ERR_OK && run->any_lost ? recounted_before(run, why) : err;
}

enum err
close_received_since(struct close_run *run, bool *any, struct why *why)
{
    char day[12], hour[RUN_TIME_SIZE], from[RUN_TIME_SIZE], to[RUN_TIME_SIZE];
    struct pg_result *result = NULL;
    const char *params[] = {
        run->zone_name,
        date_format(run->in->day, day),
        close_time(clock_floor(run->after_us, CLOCK_HOUR_US), hour),
        close_time(run->day_from_ms * 1000, from),
        close_time(run->day_to_ms * 1000, to),
    };
    enum err err = pg_exec(
        run->in->pg,
        "SELECT EXISTS (SELECT 1 FROM received_count WHERE hour >= $3 AND "
        "quarter >= $4 AND quarter < $5) OR EXISTS (SELECT 1 FROM billing_run "
        "WHERE time_zone = $1 AND day = $2 AND (status = 'blocked' OR forced <> "
        "''))",
        params, 5, &result, why);

    *any = err == ERR_OK && strcmp(pg_value(result, 0, 0), "t") == 0;
    pg_result_free(&result);
    return err;
}

/* ---- what was judged ---- */

static enum verdict_kind
kind_find(const char *name)
{
    for (int kind = 0; kind < VERDICT_KINDS_N; kind++) {
        if (strcmp(verdict_name((enum verdict_kind)kind), name) == 0)
            return (enum verdict_kind)kind;
    }
    return VERDICT_NONE;
}

/* The clicks that earlier runs of this day posted, by campaign. */
static enum err
posted_read(struct close_run *run, struct close_rows *all, struct why *why)
{
    char day[12];
    struct pg_result *result = NULL;
    const char *params[] = {run->zone_name, date_format(run->in->day, day)};
    enum err err = pg_exec(
        run->in->pg,
        "SELECT s.account_id, s.campaign_id, s.verdict, sum(s.clicks)::bigint "
        "FROM campaign_daily_stats s JOIN billing_run r ON r.id = s.run_id "
        "WHERE r.time_zone = $1 AND r.day = $2 AND s.day = $2 "
        "AND r.status = 'posted' GROUP BY 1, 2, 3",
        params, 2, &result, why);
    for (int i = 0; err == ERR_OK && i < pg_rows(result); i++) {
        struct close_campaign *campaign = close_rows_campaign(
            all, (uint32_t)pg_i64(result, i, 0), str_of(pg_value(result, i, 1)));
        if (campaign == NULL)
            err = no_memory(why);
        else
            campaign->kinds[kind_find(pg_value(result, i, 2))] +=
                (uint64_t)pg_i64(result, i, 3);
    }
    pg_result_free(&result);
    return err;
}

/* ---- moved campaigns ---- */

struct moving {
    struct close_run *run;
    bool totals; /* second pass: add up what the first one marked */
    enum err err;
};

/* Looks without making: a marked campaign has an entry of nobody's account. */
static bool
is_moved(const struct close_moved *moved, struct str campaign)
{
    return close_rows_campaign_find(&moved->totals, MOVED_NOBODY, campaign) != NULL;
}

static bool
moved_visit(void *ctx, const struct sums_row *row)
{
    struct moving *moving = ctx;
    struct close_moved *moved = moving->run->moved;
    struct close_campaign *campaign;

    if (!moving->totals) {
        const struct master_campaign *known =
            master_campaign_find(moving->run->in->master, row->campaign);
        struct str now = known != NULL ? zone_name(known->zone) : STR("UTC");
        if (str_equal(now, row->zone))
            return true;
        campaign = close_rows_campaign(&moved->totals, MOVED_NOBODY, row->campaign);
    } else {
        if (!is_moved(moved, row->campaign))
            return true;
        campaign = close_rows_campaign(&moved->totals, row->account, row->campaign);
        if (campaign != NULL)
            campaign->kinds[row->kind] += row->clicks;
    }
    if (campaign == NULL)
        moving->err = ERR_NOMEM;
    return campaign != NULL;
}

static enum err
moved_pass(struct close_run *run, bool totals, struct why *why)
{
    struct moving moving = {.run = run, .totals = totals};
    uint16_t now = (uint16_t)run->in->master->version;
    bool changed = totals;

    /* Only a change of the master data moves a campaign. */
    for (uint32_t i = 0; i < run->slices_n && !changed; i++)
        changed = run->slices[i].from_us >= run->moved->from_us &&
                  run->slices[i].clicks > 0 && run->slices[i].master != now;
    for (uint32_t i = 0; i < run->slices_n && changed; i++) {
        const struct judge_slice *slice = &run->slices[i];
        if (slice->from_us < run->moved->from_us || slice->clicks == 0 ||
            slice->to_us > run->until_us)
            continue;
        enum err err =
            sums_each(run->in->judge_dir, slice->to_us, moved_visit, &moving, why);
        if (err != ERR_OK || moving.err != ERR_OK)
            return err != ERR_OK ? err : no_memory(why);
    }
    return ERR_OK;
}

static enum err
moved_add(struct close_run *run, const struct counted *counted, struct why *why)
{
    if (!is_moved(run->moved, counted->campaign))
        return ERR_OK;
    struct close_campaign *campaign = close_rows_campaign(
        &run->moved->totals, counted->account, counted->campaign);
    if (campaign == NULL)
        return no_memory(why);
    campaign->received += counted->clicks;
    return ERR_OK;
}

static enum err
moved_fill(struct close_run *run, struct why *why)
{
    struct counting counting = {.run = run,
                                .add = moved_add,
                                .hour_from_us = run->moved->from_us,
                                .quarter_from_ms = 0,
                                .quarter_to_ms = EVENT_MS_MAX,
                                .why = why};

    if (run->moved->known)
        return ERR_OK;
    enum err err = moved_pass(run, false, why);
    if (err == ERR_OK && run->moved->totals.campaigns_n > 0)
        err = moved_pass(run, true, why);
    if (err == ERR_OK && run->moved->totals.campaigns_n > 0)
        err = received_count(&counting, why);
    run->moved->known = err == ERR_OK;
    return err;
}

/* ---- the comparison ---- */

static void
difference_name(struct close_run *run, const struct close_campaign *campaign,
                uint32_t named)
{
    size_t used = strlen(run->differences);

    if (named >= RUN_DIFFERENCES_MAX)
        return;
    (void)snprintf(run->differences + used, sizeof(run->differences) - used,
                   "%saccount %u campaign %.*s: received %lld, judged %llu",
                   named > 0 ? "; " : "", campaign->account,
                   (int)campaign->campaign.n, campaign->campaign.p,
                   (long long)campaign->received,
                   (unsigned long long)judged_of(campaign));
}

static void
campaign_compare(struct close_run *run, struct close_campaign *campaign,
                 const struct close_campaign *posted, uint32_t *named)
{
    if (is_moved(run->moved, campaign->campaign)) {
        const struct close_campaign *total = close_rows_campaign_find(
            &run->moved->totals, campaign->account, campaign->campaign);
        campaign->received = judged_of(campaign);
        if (total != NULL)
            campaign->received += total->received - judged_of(total);
    } else if (posted != NULL) {
        campaign->received -= judged_of(posted);
    }
    if (campaign->received != judged_of(campaign))
        difference_name(run, campaign, (*named)++);
}

static enum err
campaigns_compare(struct close_run *run, struct why *why)
{
    struct close_rows before = {0};
    uint32_t named = 0;
    enum err err = posted_read(run, &before, why);

    /* A campaign that was posted but of which ingest knows nothing must be looked at too. */
    for (uint32_t i = 0; err == ERR_OK && i < before.campaigns_n; i++) {
        if (close_rows_campaign(&run->rows, before.campaigns[i].account,
                                before.campaigns[i].campaign) == NULL)
            err = no_memory(why);
    }
    for (uint32_t i = 0; err == ERR_OK && i < run->rows.campaigns_n; i++) {
        struct close_campaign *campaign = &run->rows.campaigns[i];
        campaign_compare(run, campaign,
                         close_rows_campaign_find(&before, campaign->account,
                                                  campaign->campaign),
                         &named);
    }
    close_rows_free(&before);
    size_t used = strlen(run->differences);
    if (named > RUN_DIFFERENCES_MAX)
        (void)snprintf(run->differences + used, sizeof(run->differences) - used,
                       "; and %u campaigns more", named - RUN_DIFFERENCES_MAX);
    return err;
}

/* A difference is no fact when the cut is inside an hour that only the log can divide, and the
 * log is not here, or may have handed the hour over meanwhile. */
static enum err
cut_check(const struct close_run *run, struct why *why)
{
    int64_t hour_us = clock_floor(run->until_us, CLOCK_HOUR_US);
    char spool[SPOOL_TEXT], stored[RUN_TIME_SIZE];
    struct clicklog_stats stats;
    struct pg_result *result = NULL;

    if (log_from_us(run) >= run->until_us)
        return ERR_OK;
    if (run->in->log == NULL)
        return err_set(
            why, ERR_AGAIN,
            "close: judged until inside an hour, and no click log is here "
            "that could count its clicks: judge the whole hour first");
    clicklog_stats_get(run->in->log, &stats);
    (void)snprintf(spool, sizeof(spool), "%lld", (long long)stats.spool_id);
    int64_t since_us =
        run->stored_below_us > hour_us ? hour_us : run->stored_below_us;
    const char *params[] = {spool, close_time(since_us, stored)};
    enum err err = pg_exec(run->in->pg,
                           "SELECT 1 FROM ingest_spool WHERE spool = $1 AND "
                           "reported_until > $2",
                           params, 2, &result, why);
    bool moved_on = err == ERR_OK && pg_rows(result) > 0;
    pg_result_free(&result);
    return moved_on
               ? err_set(why, ERR_AGAIN,
                         "close: an hour of receipt ended meanwhile: run it again")
               : err;
}

enum err
close_identity(struct close_run *run, struct why *why)
{
    enum err err = moved_fill(run, why);

    assert(run->differences[0] == '\0');
    if (err == ERR_OK)
        err = day_received(run, why);
    if (err == ERR_OK)
        err = campaigns_compare(run, why);
    if (err == ERR_OK && run->differences[0] != '\0')
        err = cut_check(run, why);
    return err;
}

#include "billing/close_run.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "billing/idrun.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/pg.h"
#include "schema/text.h"
#include "schema/zone.h"

#define MONTH_LOCK INT64_C(0x636c6f73656d6f6e) /* "closemon" */

enum { DAYS_BEFORE = 32 }; /* a click is at most 30 days late: ingest.past_ms_max */

struct closing {
    const struct close_input *in;
    struct judge_slice *slices;
    uint32_t slices_n;
    int64_t judged_us;       /* the end of the last slice, when we began */
    int64_t stored_below_us; /* by received_store */
    bool any_lost;           /* by recount_store */
    struct close_moved moved;
    struct close_result *out;
    struct why early_why; /* a zone's grace is not over */
};

static void
slice_hash_add(struct hash_sha256 *sha, const struct judge_slice *slice)
{
    int64_t numbers[5] = {slice->from_us, slice->to_us, (int64_t)slice->clicks,
                          slice->ruleset, slice->master};

    hash_sha256_add(sha, numbers, sizeof(numbers));
    hash_sha256_add(sha, slice->files_sha256, sizeof(slice->files_sha256));
}

/* What a run was made from: zone, day, and the slices it covers with the digests of their
 * archive files, their rule sets and master data. */
static void
input_hash(const struct closing *closing, const char *zone, int64_t after_us,
           int64_t until_us, uint8_t out[HASH_SHA256_SIZE])
{
    struct hash_sha256 *sha = hash_sha256_new();

    hash_sha256_add(sha, zone, strlen(zone) + 1);
    hash_sha256_add(sha, &closing->in->day, sizeof(closing->in->day));
    for (uint32_t i = 0; i < closing->slices_n; i++) {
        const struct judge_slice *slice = &closing->slices[i];
        if (slice->to_us > after_us && slice->to_us <= until_us)
            slice_hash_add(sha, slice);
    }
    hash_sha256_end(sha, out);
}

/* Another process may have judged and posted further since we looked. */
static enum err
slices_follow(struct closing *closing, int64_t until_us, struct why *why)
{
    struct judge_slice *slices;
    uint32_t n;

    if (until_us <= closing->slices[closing->slices_n - 1].to_us)
        return ERR_OK;
    enum err err = judge_slices(closing->in->judge_dir, &slices, &n, why);
    if (err != ERR_OK || n == 0) {
        free(slices);
        return err;
    }
    free(closing->slices);
    closing->slices = slices;
    closing->slices_n = n;
    return ERR_OK;
}

/* The runs that stand: sets where the next one begins, and refuses if what an earlier one
 * was made from is no longer what is there. */
static enum err
runs_before(struct closing *closing, struct close_run *run, struct why *why)
{
    char day[12];
    struct pg_result *result = NULL;
    const char *params[] = {run->zone_name, date_format(closing->in->day, day)};
    enum err err = pg_exec(
        closing->in->pg,
        "SELECT sequence, (extract(epoch FROM received_from) * 1000000)::bigint, "
        "(extract(epoch FROM received_to) * 1000000)::bigint, encode(input_hash, "
        "'hex') "
        "FROM billing_run WHERE time_zone = $1 AND day = $2 AND status = 'posted' "
        "ORDER BY sequence",
        params, 2, &result, why);

    run->after_us = run->day_from_ms * 1000 - CLOCK_DAY_US;
    for (int i = 0; err == ERR_OK && i < pg_rows(result); i++) {
        uint8_t hash[HASH_SHA256_SIZE];
        char hex[HASH_SHA256_HEX_SIZE];
        int64_t after_us = pg_i64(result, i, 1), until_us = pg_i64(result, i, 2);
        err = slices_follow(closing, until_us, why);
        if (err != ERR_OK)
            break;
        input_hash(closing, run->zone_name, after_us, until_us, hash);
        hash_hex(hash, sizeof(hash), hex);
        if (strcmp(hex, pg_value(result, i, 3)) != 0)
            err =
                err_set(why, ERR_CONFLICT,
                        "close: %s %s is closed, and not from what is judged here: "
                        "files changed, or another data directory closed it; a "
                        "closed day stays as it is",
                        run->zone_name, day);
        run->sequence = (int32_t)pg_i64(result, i, 0) + 1;
        run->after_us = until_us;
    }
    pg_result_free(&result);
    return err;
}

struct summing {
    struct close_run *run;
    enum err (*add)(struct close_run *run, const struct sums_row *row,
                    struct why *why);
    enum err err;
    struct why *why;
};

static bool
sum_visit(void *ctx, const struct sums_row *row)
{
    struct summing *summing = ctx;
    const struct close_run *run = summing->run;

    if (row->day != run->in->day || !str_equal(row->zone, str_of(run->zone_name)))
        return true;
    summing->err = summing->add(summing->run, row, summing->why);
    return summing->err == ERR_OK;
}

enum err
close_sums_each(struct close_run *run,
                enum err (*add)(struct close_run *run, const struct sums_row *row,
                                struct why *why),
                struct why *why)
{
    const struct close_input *in = run->in;

    for (uint32_t i = 0; i < run->slices_n; i++) {
        const struct judge_slice *slice = &run->slices[i];
        struct summing summing = {.run = run, .add = add, .why = why};
        if (slice->to_us <= run->after_us || slice->to_us > run->until_us ||
            slice->clicks == 0)
            continue;
        enum err err =
            sums_each(in->judge_dir, slice->to_us, sum_visit, &summing, why);
        if (err == ERR_OK)
            err = summing.err;
        if (err != ERR_OK)
            return err;
        if (in->progress != NULL)
            in->progress(in->progress_ctx, i + 1, run->slices_n);
    }
    return ERR_OK;
}

/* Totals always; rows as long as they fit: else close_post reads them again, in parts. */
static enum err
row_sum(struct close_run *run, const struct sums_row *row, struct why *why)
{
    run->summed = true;
    if (!run->rows_full && close_rows_add(&run->rows, row, NULL) != ERR_OK) {
        run->rows_full = true;
        close_rows_clear(&run->rows);
    }
    return close_rows_count(&run->rows, row, why);
}

/* Whether the zone's day may be closed now; if not, why says when. */
static bool
day_is_due(const struct closing *closing, const struct close_run *run,
           struct why *why)
{
    const struct close_input *in = closing->in;
    int64_t due_us =
        run->day_to_ms * 1000 + in->config->billing_grace_s * CLOCK_SECOND_US;
    char day[12], due[CLOCK_TEXT_SIZE];

    if (in->force || (in->now_us >= due_us && closing->judged_us >= due_us))
        return true;
    (void)err_set(
        why, ERR_AGAIN,
        "close: %s of %s closes when clicks received until %s are judged; "
        "--force does not wait",
        date_format(in->day, day), run->zone_name,
        clock_format_ms(due_us / 1000, due));
    return false;
}

static void
forced_note(const struct closing *closing, struct close_run *run)
{
    const struct close_input *in = closing->in;
    int64_t due_us =
        run->day_to_ms * 1000 + in->config->billing_grace_s * CLOCK_SECOND_US;
    char text[CLOCK_TEXT_SIZE];

    if (in->force && closing->judged_us < due_us)
        (void)snprintf(run->forced, sizeof(run->forced),
                       "grace: judged until %s instead of the day's end and %lld s",
                       clock_format_ms(closing->judged_us / 1000, text),
                       (long long)in->config->billing_grace_s);
}

/* Sums what is new. *nothing: no row, and no reason to look at the identity either. */
static enum err
run_sum(struct closing *closing, struct close_run *run, bool *nothing,
        struct why *why)
{
    /* A day that was watched from its first moment closes even when it is empty. */
    bool any = closing->slices[0].from_us <= run->day_from_ms * 1000;
    enum err err = close_sums_each(run, row_sum, why);

    if (err == ERR_OK && run->sequence > 0)
        err = close_received_since(run, &any, why);
    *nothing = !run->summed && !any;
    return err;
}

/* Inside a transaction that holds the (zone, day). */
static enum err
run_make(struct closing *closing, struct close_run *run, bool *made,
         struct why *why)
{
    bool nothing;

    *made = false;
    enum err err = runs_before(closing, run, why);
    if (err != ERR_OK)
        return err;
    run->until_us = closing->judged_us;
    if (run->after_us >= run->until_us)
        return ERR_OK;
    if (run->sequence == 0 && !day_is_due(closing, run, &closing->early_why)) {
        closing->out->runs_early++;
        return ERR_OK;
    }
    run->slices = closing->slices;
    run->slices_n = closing->slices_n;
    err = run_sum(closing, run, &nothing, why);
    if (err != ERR_OK || nothing)
        return err;
    forced_note(closing, run);
    input_hash(closing, run->zone_name, run->after_us, run->until_us,
               run->input_hash);
    err = close_identity(run, why);
    if (err != ERR_OK)
        return err;
    /* Clicks that were missing have come, and an earlier run has them all. */
    if (!run->summed && run->sequence > 0 && run->differences[0] == '\0')
        return close_unblock(run, why);
    err = close_post(run, why);
    *made = err == ERR_OK;
    return err;
}

static void
result_add(struct closing *closing, const struct close_run *run, bool made)
{
    struct close_result *out = closing->out;

    if (!made) {
        out->runs_same += run->sequence > 0;
        return;
    }
    if (run->differences[0] != '\0') {
        out->runs_blocked++;
        log_event(LOG_ERROR, "run_blocked", LOG_TEXT("zone", run->zone_name),
                  LOG_TEXT("differences", run->differences));
        return;
    }
    if (run->sequence > 0)
        out->runs_late++;
    else
        out->runs_new++;
    for (uint32_t i = 0; i < run->rows.campaigns_n; i++) {
        const struct close_campaign *campaign = &run->rows.campaigns[i];
        for (int kind = 0; kind < VERDICT_KINDS_N; kind++)
            out->clicks += campaign->kinds[kind];
        out->billable +=
            campaign->kinds[VERDICT_BILLABLE] + campaign->kinds[VERDICT_SUSPICIOUS];
    }
    for (uint32_t i = 0; i < run->recounted_n; i++)
        out->recounted += (uint64_t)run->recounted[i].clicks;
}

static enum err
zone_close(struct closing *closing, const char *name, const struct zone *zone,
           struct why *why)
{
    const struct close_input *in = closing->in;
    struct close_run run = {.in = in,
                            .moved = &closing->moved,
                            .stored_below_us = closing->stored_below_us,
                            .any_lost = closing->any_lost,
                            .rows = {.max = in->rows_max},
                            .zone_name = name,
                            .zone = zone};
    char day[12];
    bool made = false;

    zone_day_bounds(zone, in->day, &run.day_from_ms, &run.day_to_ms);
    enum err err = pg_begin(in->pg, why);
    if (err != ERR_OK)
        return err;
    /* Two processes: the second waits here, then finds the first one's run. */
    const char *params[] = {name, date_format(in->day, day)};
    err = pg_exec(in->pg,
                  "SELECT pg_advisory_xact_lock(hashtextextended($1::text || ' ' "
                  "|| $2::text, 0))",
                  params, 2, NULL, why);
    if (err == ERR_OK)
        err = run_make(closing, &run, &made, why);
    if (err == ERR_OK)
        err = pg_commit(in->pg, why);
    if (err == ERR_OK)
        result_add(closing, &run, made);
    else
        pg_rollback(in->pg);
    close_rows_free(&run.rows);
    return err;
}

/* Every process that takes clicks must have told its counts up to the cut. */
static enum err
spools_heard(struct closing *closing, struct why *why)
{
    const struct close_input *in = closing->in;
    char until[RUN_TIME_SIZE];
    struct pg_result *result = NULL;
    enum err err = ERR_OK;

    if (in->log != NULL)
        err = received_store_below(in->log, in->pg,
                                   in->sent_us > 0 ? in->sent_us : INT64_MAX,
                                   &closing->stored_below_us, why);
    if (err != ERR_OK || in->force)
        return err;
    const char *params[] = {
        close_time(clock_floor(closing->judged_us, CLOCK_HOUR_US), until)};
    err = pg_exec(in->pg,
                  "SELECT to_hex(spool), reported_until FROM ingest_spool "
                  "WHERE NOT retired AND lost_at IS NULL AND reported_until < "
                  "$1::timestamptz LIMIT 1",
                  params, 1, &result, why);
    if (err == ERR_OK && pg_rows(result) > 0)
        err = err_set(
            why, ERR_AGAIN,
            "close: the ingest log %s has told its counts only until %s; start its "
            "process, retire it (UPDATE ingest_spool), or use --force; lost with "
            "its "
            "machine: clickledger relay forget",
            pg_value(result, 0, 0), pg_value(result, 0, 1));
    pg_result_free(&result);
    return err;
}

/* Names of the time zones that clicks were judged in, in the days around. */
struct zone_list {
    const struct zone *zones[ZONES_MAX];
    uint32_t n;
};

static void
zone_list_add(struct zone_list *list, const struct zone *zone)
{
    for (uint32_t i = 0; i < list->n; i++) {
        if (list->zones[i] == zone)
            return;
    }
    if (zone != NULL && list->n < ZONES_MAX)
        list->zones[list->n++] = zone;
}

/* The master data's, those that ids were judged in when a campaign was elsewhere, and last,
 * for clicks of campaigns that nobody knows, UTC. */
static enum err
zone_list_make(const struct closing *closing, struct zone_list *list,
               struct why *why)
{
    const struct master *master = closing->in->master;
    struct idruns runs = {0};
    enum err err = idruns_open(&runs, closing->in->judge_dir,
                               closing->moved.from_us, closing->judged_us, why);

    *list = (struct zone_list){.n = 0};
    for (uint16_t i = 0; i < master->zones_n; i++)
        zone_list_add(list, master->zones[i]);
    for (uint32_t r = 0; err == ERR_OK && r < runs.n; r++) {
        for (uint16_t z = 0; idrun_zone(runs.runs[r], z).n > 0; z++)
            zone_list_add(list, zone_find(idrun_zone(runs.runs[r], z)));
    }
    zone_list_add(list, zone_find(STR("UTC")));
    idruns_close(&runs);
    return err;
}

/* A zone whose closed day no longer fits what is judged does not keep the others open. */
static enum err
zones_close(struct closing *closing, const struct zone_list *list, struct why *why)
{
    enum err err = ERR_OK;
    bool known = false;

    for (uint32_t i = 0; i < list->n && (err == ERR_OK || err == ERR_CONFLICT);
         i++) {
        char name[ZONE_NAME_MAX + 1];
        struct str zone = zone_name(list->zones[i]);
        struct why one_why = {{0}};
        (void)snprintf(name, sizeof(name), "%.*s", (int)zone.n, zone.p);
        if (closing->in->zone != NULL && strcmp(closing->in->zone, name) != 0)
            continue;
        known = true;
        enum err one = zone_close(closing, name, list->zones[i], &one_why);
        if (one != ERR_OK && err == ERR_OK)
            err = err_set(why, one, "%s", one_why.text);
        else if (one != ERR_OK && one != ERR_CONFLICT)
            err = err_set(why, one, "%s", one_why.text);
    }
    if (!known)
        return err_set(why, ERR_INVALID, "close: no campaign is in time zone '%s'",
                       closing->in->zone);
    return err;
}

/* The month's partition, before any transaction of a run: making it locks the whole table,
 * which a run that holds other locks must not wait for. */
static enum err
month_make(const struct closing *closing, struct why *why)
{
    int64_t day_us = closing->in->day * CLOCK_DAY_US;
    char day[12], sql[160];

    if (day_us - CLOCK_DAY_US > closing->judged_us ||
        day_us < closing->slices[0].from_us - DAYS_BEFORE * CLOCK_DAY_US)
        return ERR_OK; /* nothing can be judged of it */
    (void)snprintf(sql, sizeof(sql),
                   "SELECT pg_advisory_xact_lock(%lld); "
                   "SELECT campaign_daily_stats_partition('%s')",
                   (long long)MONTH_LOCK, date_format(closing->in->day, day));
    return pg_exec(closing->in->pg, sql, NULL, 0, NULL, why);
}

static enum err
closing_run(struct closing *closing, struct why *why)
{
    struct zone_list *list = calloc(1, sizeof(*list));

    if (list == NULL)
        return err_set(why, ERR_NOMEM, "close: no memory");
    closing->judged_us = closing->slices[closing->slices_n - 1].to_us;
    closing->moved.from_us = (closing->in->day - INT64_C(2)) * CLOCK_DAY_US;
    const struct recount_input recount = {.pg = closing->in->pg,
                                          .log = closing->in->log,
                                          .archive_dir = closing->in->archive_dir,
                                          .until_us = closing->judged_us};
    enum err err = spools_heard(closing, why);
    if (err == ERR_OK)
        err = recount_store(&recount, &closing->any_lost, why);
    if (err == ERR_OK)
        err = month_make(closing, why);
    if (err == ERR_OK)
        err = zone_list_make(closing, list, why);
    if (err == ERR_OK)
        err = zones_close(closing, list, why);
    close_rows_free(&closing->moved.totals);
    free(list);
    return err;
}

enum err
close_day(const struct close_input *in, struct close_result *out, struct why *why)
{
    struct closing closing = {.in = in, .out = out};

    assert(in->pg != NULL);
    *out = (struct close_result){0};
    enum err err =
        judge_slices(in->judge_dir, &closing.slices, &closing.slices_n, why);
    if (err != ERR_OK)
        return err;
    if (closing.slices_n == 0)
        err = err_set(why, ERR_AGAIN,
                      "close: nothing is judged yet: run `clickledger judge`");
    else
        err = closing_run(&closing, why);
    free(closing.slices);
    if (err == ERR_OK && out->runs_early > 0 &&
        out->runs_new + out->runs_late + out->runs_blocked == 0)
        return err_set(why, ERR_AGAIN, "%s", closing.early_why.text);
    return err;
}

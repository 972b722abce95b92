#include "billing/close_run.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/pg.h"
#include "schema/text.h"
#include "schema/zone.h"

struct closing {
    const struct close_input *in;
    struct judge_slice *slices;
    uint32_t slices_n;
    int64_t judged_us; /* the end of the last slice */
    struct close_result *out;
    bool early; /* a zone's grace is not over */
    struct why early_why;
};

static void
slice_hash_add(struct hash_sha256 *sha, const struct judge_slice *slice)
{
    int64_t numbers[4] = {slice->from_us, slice->to_us, (int64_t)slice->clicks,
                          slice->ruleset};

    hash_sha256_add(sha, numbers, sizeof(numbers));
    hash_sha256_add(sha, slice->files_sha256, sizeof(slice->files_sha256));
}

/* What a run was made from: zone, day, and the slices it covers with the digests of their
 * archive files and their rule sets. Prices stand in the verdict files, which are frozen. */
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
        input_hash(closing, run->zone_name, after_us, until_us, hash);
        hash_hex(hash, sizeof(hash), hex);
        if (strcmp(hex, pg_value(result, i, 3)) != 0)
            err = err_set(why, ERR_CONFLICT,
                          "close: %s %s is closed, and what it was made from has "
                          "changed; a closed day changes only by --adjust",
                          run->zone_name, day);
        run->sequence = (int32_t)pg_i64(result, i, 0) + 1;
        run->after_us = until_us;
    }
    pg_result_free(&result);
    return err;
}

struct summing {
    struct close_run *run;
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
    summing->err = close_rows_add(&summing->run->rows, row, summing->why);
    return summing->err == ERR_OK;
}

static enum err
slices_sum(struct closing *closing, struct close_run *run, struct why *why)
{
    for (uint32_t i = 0; i < closing->slices_n; i++) {
        const struct judge_slice *slice = &closing->slices[i];
        struct summing summing = {.run = run, .why = why};
        if (slice->to_us <= run->after_us || slice->clicks == 0)
            continue;
        enum err err = sums_each(closing->in->judge_dir, slice->to_us, sum_visit,
                                 &summing, why);
        if (err == ERR_OK)
            err = summing.err;
        if (err != ERR_OK)
            return err;
        if (closing->in->progress != NULL)
            closing->in->progress(closing->in->progress_ctx, i + 1,
                                  closing->slices_n);
    }
    return ERR_OK;
}

static uint64_t
campaign_judged(const struct close_campaign *campaign)
{
    uint64_t sum = 0;

    for (int kind = 0; kind < VERDICT_KINDS_N; kind++)
        sum += campaign->kinds[kind];
    return sum;
}

static void
difference_name(struct close_run *run, const struct close_campaign *campaign,
                int named)
{
    size_t used = strlen(run->differences);

    if (named >= RUN_DIFFERENCES_MAX)
        return;
    (void)snprintf(run->differences + used, sizeof(run->differences) - used,
                   "%saccount %u campaign %.*s: received %lld, judged %llu",
                   named > 0 ? "; " : "", campaign->account,
                   (int)campaign->campaign.n, campaign->campaign.p,
                   (long long)campaign->received,
                   (unsigned long long)campaign_judged(campaign));
}

/* received = billable + over_budget + invalid + duplicates + quarantined, of everything
 * received so far for the day, campaign by campaign. Leaves this run's own part of it in
 * received: what earlier runs posted is theirs. */
static enum err
identity_check(struct close_run *run, struct why *why)
{
    struct close_rows before = {0};
    int named = 0;
    enum err err = close_posted(run, &before, why);

    /* A campaign that was posted but of which ingest knows nothing must be looked at too. */
    for (uint32_t i = 0; err == ERR_OK && i < before.campaigns_n; i++) {
        if (close_rows_campaign(&run->rows, before.campaigns[i].account,
                                before.campaigns[i].campaign) == NULL)
            err = err_set(why, ERR_NOMEM, "close: no memory for the identity");
    }
    for (uint32_t i = 0; err == ERR_OK && i < run->rows.campaigns_n; i++) {
        struct close_campaign *campaign = &run->rows.campaigns[i];
        const struct close_campaign *posted =
            close_rows_campaign(&before, campaign->account, campaign->campaign);
        if (posted == NULL) {
            err = err_set(why, ERR_NOMEM, "close: no memory for the identity");
            break;
        }
        campaign->received -= campaign_judged(posted);
        if (campaign->received != campaign_judged(campaign))
            difference_name(run, campaign, named++);
    }
    close_rows_free(&before);
    return err;
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

/* Inside a transaction that holds the (zone, day). */
static enum err
run_make(struct closing *closing, struct close_run *run, bool *made,
         struct why *why)
{
    *made = false;
    enum err err = runs_before(closing, run, why);
    if (err != ERR_OK)
        return err;
    run->until_us = closing->judged_us;
    if (run->after_us >= run->until_us)
        return ERR_OK;
    if (run->sequence == 0 && !day_is_due(closing, run, &closing->early_why)) {
        closing->early = true;
        return ERR_OK;
    }
    err = slices_sum(closing, run, why);
    bool watched = closing->slices_n > 0 &&
                   closing->slices[0].from_us <= run->day_from_ms * 1000;
    if (err != ERR_OK || (run->rows.n == 0 && (run->sequence > 0 || !watched)))
        return err;
    forced_note(closing, run);
    input_hash(closing, run->zone_name, run->after_us, run->until_us,
               run->input_hash);
    err = close_received(run, why);
    if (err == ERR_OK)
        err = identity_check(run, why);
    if (err == ERR_OK)
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
        out->clicks += campaign_judged(campaign);
        out->billable +=
            campaign->kinds[VERDICT_BILLABLE] + campaign->kinds[VERDICT_SUSPICIOUS];
    }
}

static enum err
zone_close(struct closing *closing, const char *name, const struct zone *zone,
           struct why *why)
{
    const struct close_input *in = closing->in;
    struct close_run run = {.in = in, .zone_name = name, .zone = zone};
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
spools_heard(const struct closing *closing, struct why *why)
{
    const struct close_input *in = closing->in;
    char until[RUN_TIME_SIZE];
    struct pg_result *result = NULL;
    int64_t stored_us;
    enum err err = ERR_OK;

    if (in->log != NULL)
        err = received_store(in->log, in->pg, &stored_us, why);
    if (err != ERR_OK || in->force)
        return err;
    const char *params[] = {
        close_time(clock_floor(closing->judged_us, CLOCK_HOUR_US), until)};
    err = pg_exec(in->pg,
                  "SELECT to_hex(spool), reported_until FROM ingest_spool "
                  "WHERE NOT retired AND reported_until < $1::timestamptz LIMIT 1",
                  params, 1, &result, why);
    if (err == ERR_OK && pg_rows(result) > 0)
        err = err_set(
            why, ERR_AGAIN,
            "close: the ingest log %s has told its counts only until %s; start its "
            "process, retire it (UPDATE ingest_spool), or use --force",
            pg_value(result, 0, 0), pg_value(result, 0, 1));
    pg_result_free(&result);
    return err;
}

static enum err
zones_close(struct closing *closing, struct why *why)
{
    const struct master *master = closing->in->master;
    enum err err = ERR_OK;
    bool utc_done = false;

    for (uint16_t i = 0; err == ERR_OK && i <= master->zones_n; i++) {
        /* Last, the clicks of campaigns that nobody knows: their days are UTC's. */
        const struct zone *zone =
            i < master->zones_n ? master->zones[i] : zone_find(STR("UTC"));
        char name[128];
        assert(zone != NULL);
        (void)snprintf(name, sizeof(name), "%.*s", (int)zone_name(zone).n,
                       zone_name(zone).p);
        bool utc = strcmp(name, "UTC") == 0;
        if ((utc && utc_done) ||
            (closing->in->zone != NULL && strcmp(closing->in->zone, name) != 0))
            continue;
        utc_done = utc_done || utc;
        err = zone_close(closing, name, zone, why);
    }
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
    if (closing.slices_n == 0) {
        free(closing.slices);
        return err_set(why, ERR_AGAIN,
                       "close: nothing is judged yet: run `clickledger judge`");
    }
    closing.judged_us = closing.slices[closing.slices_n - 1].to_us;
    err = spools_heard(&closing, why);
    if (err == ERR_OK)
        err = zones_close(&closing, why);
    free(closing.slices);
    if (err == ERR_OK && closing.early &&
        out->runs_new + out->runs_late + out->runs_blocked == 0)
        return err_set(why, ERR_AGAIN, "%s", closing.early_why.text);
    return err;
}

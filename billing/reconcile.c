#include "billing/reconcile.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "billing/click_file.h"
#include "billing/final.h"
#include "common/clock.h"
#include "schema/click.h"
#include "schema/manifest.h"
#include "schema/text.h"
#include "schema/zone.h"

enum difference {
#define X(name, text) DIFFERENCE_##name,
    DIFFERENCE_MAP(X)
#undef X
        DIFFERENCES_N
};

static const struct {
    const char *name, *text;
} differences[] = {
#define X(name, text) {#name, text},
    DIFFERENCE_MAP(X)
#undef X
};

struct tally {
    uint64_t clicks, live_billable, final_billable;
    uint64_t repeats_later; /* of any day: what earlier_click_differs rests on */
    uint64_t by[DIFFERENCES_N];
};

struct reconciling {
    const char *archive_dir;
    const struct master *master;
    int32_t day;
    struct tally
        *tallies; /* one a campaign of the snapshot, and the last for the unknown */
    struct reconcile_result *result;
    uint64_t *live;
    struct final_row *final;
    uint64_t cap;
};

static bool
is_campaign_rule(enum reason reason)
{
    return reason == REASON_unknown_campaign || reason == REASON_foreign_campaign ||
           reason == REASON_currency_mismatch || reason == REASON_inactive_campaign;
}

static bool
is_rate(enum reason reason)
{
    return reason == REASON_address_minute_rate ||
           reason == REASON_address_second_rate;
}

static bool
is_user_rule(enum reason reason)
{
    return reason == REASON_double_click || reason == REASON_repeat_click;
}

/* Why the final verdict is not the live one. From the surest reason to the widest. */
static enum difference
explain(const struct verdict *live, const struct verdict *final)
{
    enum reason was = (enum reason)live->reason, is = (enum reason) final->reason;

    if (final->kind == VERDICT_OVER_BUDGET &&
        verdict_is_billable((enum verdict_kind)live->kind))
        return DIFFERENCE_over_budget;
    if (live->ruleset != final->ruleset)
        return DIFFERENCE_ruleset_changed;
    if (live->master != final->master &&
        (is_campaign_rule(was) || is_campaign_rule(is)))
        return DIFFERENCE_master_changed;
    if (is == REASON_duplicate && was != REASON_duplicate)
        return DIFFERENCE_duplicate_seen_later;
    if ((live->flags & VERDICT_WARMING) != 0)
        return DIFFERENCE_live_warming;
    if (is_rate(is) || (is_rate(was) && !is_user_rule(is)))
        return DIFFERENCE_rate_across_campaigns;
    if (is_user_rule(was) || is_user_rule(is))
        return DIFFERENCE_earlier_click_differs;
    return DIFFERENCE_unexplained;
}

static void
row_compare(struct reconciling *r, const struct click *click, uint64_t packed,
            const struct final_row *final)
{
    const struct master_campaign *campaign =
        master_campaign_find(r->master, click->campaign_id);
    const struct zone *zone =
        campaign != NULL ? campaign->zone : zone_find(STR("UTC"));

    struct tally *tally =
        &r->tallies[campaign != NULL ? campaign->index : r->master->campaigns_n];
    struct verdict live = verdict_unpack(packed);
    tally->repeats_later += final->verdict.reason == REASON_duplicate &&
                            live.reason != REASON_duplicate;
    if (zone_day(zone, click->timestamp_ms) != r->day)
        return;
    tally->clicks++;
    r->result->clicks++;
    tally->live_billable += verdict_is_billable((enum verdict_kind)live.kind);
    tally->final_billable +=
        verdict_is_billable((enum verdict_kind) final->verdict.kind);
    if (live.kind == final->verdict.kind && live.reason == final->verdict.reason) {
        r->result->same++;
        return;
    }
    enum difference why =
        packed == 0 ? DIFFERENCE_live_missing : explain(&live, &final->verdict);
    tally->by[why]++;
    r->result->different++;
    r->result->live_missing += why == DIFFERENCE_live_missing;
    r->result->unexplained += why == DIFFERENCE_unexplained;
}

static enum err
rows_grow(struct reconciling *r, uint64_t clicks, struct why *why)
{
    if (clicks <= r->cap)
        return ERR_OK;
    free(r->live);
    free(r->final);
    r->live = calloc(clicks, sizeof(*r->live));
    r->final = calloc(clicks, sizeof(*r->final));
    r->cap = r->live != NULL && r->final != NULL ? clicks : 0;
    return r->cap > 0 ? ERR_OK : err_set(why, ERR_NOMEM, "reconcile: no memory");
}

static enum err
clicks_compare(struct reconciling *r, const struct manifest_file *file,
               struct why *why)
{
    struct click_file *in = NULL;
    struct click click;
    uint64_t row = 0;
    enum err err = click_file_open(&in, r->archive_dir, file, why);

    while (err == ERR_OK && (err = click_file_next(in, &click, why)) == ERR_OK) {
        row_compare(r, &click, r->live[row], &r->final[row]);
        row++;
    }
    click_file_close(&in);
    return err == ERR_AGAIN ? ERR_OK : err;
}

static enum err
file_compare(struct reconciling *r, const struct manifest_file *file,
             struct why *why)
{
    enum err err = rows_grow(r, file->clicks, why);

    if (err == ERR_OK)
        err = final_read(r->archive_dir, file, r->final, why);
    if (err == ERR_NOTFOUND) /* not judged yet: nothing final to compare with */
        return ERR_OK;
    if (err == ERR_OK)
        err = manifest_live_read(r->archive_dir, file, r->live, why);
    if (err == ERR_NOTFOUND) {
        memset(r->live, 0, file->clicks * sizeof(*r->live));
        err = ERR_OK;
    }
    return err == ERR_OK ? clicks_compare(r, file, why) : err;
}

static void
tally_line(const struct tally *tally, struct str name, bool json, bool first,
           struct buf *out)
{
    if (json) {
        buf_add_text(out, first ? "" : ",");
        buf_add_text(out, "{\"campaign_id\":");
        buf_add_json(out, name);
        buf_printf(
            out, ",\"clicks\":%llu,\"live_billable\":%llu,\"final_billable\":%llu",
            (unsigned long long)tally->clicks,
            (unsigned long long)tally->live_billable,
            (unsigned long long)tally->final_billable);
        for (int i = 0; i < DIFFERENCES_N; i++)
            buf_printf(out, ",\"%s\":%llu", differences[i].name,
                       (unsigned long long)tally->by[i]);
        buf_add_text(out, "}");
        return;
    }
    buf_printf(out, "%-24.*s %10llu %10llu %10llu  ", (int)name.n, name.p,
               (unsigned long long)tally->clicks,
               (unsigned long long)tally->live_billable,
               (unsigned long long)tally->final_billable);
    for (int i = 0; i < DIFFERENCES_N; i++) {
        if (tally->by[i] > 0)
            buf_printf(out, " %s=%llu", differences[i].name,
                       (unsigned long long)tally->by[i]);
    }
    buf_add_text(out, "\n");
}

/* Both paths judge the rules about a user in the same order from the same clicks, unless a
 * repeat was seen later: without one, such a difference is a defect. */
static void
excuses_check(struct reconciling *r)
{
    for (uint32_t i = 0; i <= r->master->campaigns_n; i++) {
        struct tally *tally = &r->tallies[i];
        uint64_t n = tally->by[DIFFERENCE_earlier_click_differs];
        if (tally->repeats_later > 0 || n == 0)
            continue;
        tally->by[DIFFERENCE_unexplained] += n;
        tally->by[DIFFERENCE_earlier_click_differs] = 0;
        r->result->unexplained += n;
    }
}

static void
tables_format(const struct reconciling *r, bool json, struct buf *out)
{
    struct tally all = {0};
    bool first = true;
    char day[12];

    if (json)
        buf_printf(out, "{\"day\":\"%s\",\"campaigns\":[",
                   date_format(r->day, day));
    else
        buf_printf(out, "%-24s %10s %10s %10s   differences by reason\n",
                   "campaign", "clicks", "live", "final");
    for (uint32_t i = 0; i <= r->master->campaigns_n; i++) {
        const struct tally *tally = &r->tallies[i];
        if (tally->clicks == 0)
            continue;
        tally_line(tally,
                   i < r->master->campaigns_n ? r->master->campaigns[i].id
                                              : STR("(unknown)"),
                   json, first, out);
        first = false;
        all.clicks += tally->clicks;
        all.live_billable += tally->live_billable;
        all.final_billable += tally->final_billable;
        for (int k = 0; k < DIFFERENCES_N; k++)
            all.by[k] += tally->by[k];
    }
    if (!json) {
        tally_line(&all, STR("all"), false, true, out);
        for (int k = 0; k < DIFFERENCES_N; k++) {
            if (all.by[k] > 0)
                buf_printf(out, "  %s: %s\n", differences[k].name,
                           differences[k].text);
        }
    }
    buf_printf(
        out,
        json ? "],\"clicks\":%llu,\"same\":%llu,\"different\":%llu,"
               "\"unexplained\":%llu}\n"
             : "%llu clicks, %llu the same, %llu different, %llu unexplained\n",
        (unsigned long long)r->result->clicks, (unsigned long long)r->result->same,
        (unsigned long long)r->result->different,
        (unsigned long long)r->result->unexplained);
}

enum err
reconcile_day(const char *archive_dir, const struct master *master, int32_t day,
              bool json, struct buf *out, struct reconcile_result *result,
              struct why *why)
{
    struct manifest manifest;
    struct reconciling r = {
        .archive_dir = archive_dir, .master = master, .day = day, .result = result};

    assert(result != NULL);
    *result = (struct reconcile_result){0};
    /* A day's clicks are received from shortly before its first moment anywhere on. */
    enum err err = manifest_read(&manifest, archive_dir,
                                 (day - INT64_C(2)) * CLOCK_DAY_US, why);
    if (err != ERR_OK)
        return err;
    r.tallies = calloc(master->campaigns_n + 1u, sizeof(*r.tallies));
    if (r.tallies == NULL)
        err = err_set(why, ERR_NOMEM, "reconcile: no memory");
    for (uint32_t i = 0; err == ERR_OK && i < manifest.files_n; i++)
        err = file_compare(&r, &manifest.files[i], why);
    if (err == ERR_OK) {
        excuses_check(&r);
        tables_format(&r, json, out);
    }
    free(r.tallies);
    free(r.live);
    free(r.final);
    manifest_free(&manifest);
    return err;
}

/* What a run reads from PostgreSQL and writes to it. */
#include "billing/close_run.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "billing/idrun.h"
#include "billing/merkle.h"
#include "common/buf.h"
#include "common/clicklog.h"
#include "common/clock.h"
#include "common/pg.h"
#include "schema/click.h"
#include "schema/text.h"

enum {
    NUMBER_TEXT = 24,
    NAME_MAX_BYTES = 256,
    CERTIFICATE_BYTES = 4096,
    RECOUNTED_BYTES = 40 * RECOUNT_SPOOLS_MAX
};

char *
close_time(int64_t us, char text[RUN_TIME_SIZE])
{
    char ms[CLOCK_TEXT_SIZE];

    /* "....sss" and then the rest of the microseconds, and Z. */
    (void)clock_format_ms(clock_floor(us, 1000) / 1000, ms);
    ms[strlen(ms) - 1] = '\0';
    (void)snprintf(text, RUN_TIME_SIZE, "%s%03dZ", ms,
                   (int)(us - clock_floor(us, 1000)));
    return text;
}

enum err
close_unblock(struct close_run *run, struct why *why)
{
    char day[12];
    const char *key[] = {run->zone_name, date_format(run->in->day, day)};

    return pg_exec(run->in->pg,
                   "WITH gone AS (SELECT id FROM billing_run WHERE time_zone = $1 "
                   "AND day = $2 AND status = 'blocked'), certificates AS (DELETE "
                   "FROM certificate WHERE run_id IN (SELECT id FROM gone)) "
                   "DELETE FROM billing_run WHERE id IN (SELECT id FROM gone)",
                   key, 2, NULL, why);
}

static enum err
run_insert(struct close_run *run, struct why *why)
{
    char day[12], sequence[NUMBER_TEXT], hash[HASH_SHA256_HEX_SIZE];
    char from[RUN_TIME_SIZE], to[RUN_TIME_SIZE];
    struct pg_result *result = NULL;

    (void)snprintf(sequence, sizeof(sequence), "%d", run->sequence);
    hash_hex(run->input_hash, sizeof(run->input_hash), hash);
    (void)date_format(run->in->day, day);
    const char *params[] = {run->zone_name,
                            day,
                            run->sequence == 0 ? "regular" : "late",
                            sequence,
                            hash,
                            close_time(run->after_us, from),
                            close_time(run->until_us, to),
                            run->differences[0] == '\0' ? "posted" : "blocked",
                            CLICKLEDGER_VERSION,
                            run->forced};
    enum err err = pg_exec(
        run->in->pg,
        "INSERT INTO billing_run (time_zone, day, kind, sequence, input_hash, "
        "received_from, received_to, status, code_version, forced) VALUES "
        "($1, $2, $3, $4, decode($5, 'hex'), $6, $7, $8, $9, $10) RETURNING id",
        params, 10, &result, why);
    if (err == ERR_OK)
        (void)snprintf(run->id, sizeof(run->id), "%s", pg_value(result, 0, 0));
    pg_result_free(&result);
    return err;
}

static void
field_str(struct pg *pg, struct str s)
{
    char text[NAME_MAX_BYTES];

    (void)snprintf(text, sizeof(text), "%.*s", (int)s.n, s.p);
    pg_copy_field(pg, text);
}

static void
field_micros(struct pg *pg, money_wide micros)
{
    char text[MONEY_TEXT_SIZE];

    pg_copy_field(pg, money_minor_format(micros, 0, text));
}

static enum err
row_write(struct close_run *run, const struct sums_row *row, struct why *why)
{
    struct pg *pg = run->in->pg;
    char day[12];

    pg_copy_field(pg, date_format(run->in->day, day));
    field_str(pg, row->campaign);
    pg_copy_field(pg, run->id);
    pg_copy_i64(pg, row->account);
    field_str(pg, row->ad);
    field_str(pg, row->country);
    pg_copy_field(pg, click_device_name(row->device));
    field_str(pg, row->publisher);
    pg_copy_field(pg, verdict_name((enum verdict_kind)row->kind));
    pg_copy_field(pg, reason_info((enum reason)row->reason)->name);
    pg_copy_i64(pg, row->unit_price_micros);
    pg_copy_i64(pg, (int64_t)row->clicks);
    field_micros(pg, row->cost_micros);
    field_micros(pg, row->list_micros);
    run->written++;
    return pg_copy_row_end(pg, why);
}

static enum err
rows_write(struct close_run *run, struct why *why)
{
    enum err err = ERR_OK;

    for (uint32_t i = 0; err == ERR_OK && i < run->rows.n; i++)
        err = row_write(run, &run->rows.rows[i], why);
    close_rows_clear(&run->rows);
    return err;
}

/* A key may stand in more than one part: readers add up. */
static enum err
row_part(struct close_run *run, const struct sums_row *row, struct why *why)
{
    enum err err = close_rows_add(&run->rows, row, why);

    if (err != ERR_FULL)
        return err;
    err = rows_write(run, why);
    return err == ERR_OK ? close_rows_add(&run->rows, row, why) : err;
}

static enum err
stats_copy(struct close_run *run, struct why *why)
{
    struct pg *pg = run->in->pg;
    char day[12];
    int64_t copied;
    const char *params[] = {date_format(run->in->day, day)};
    enum err err = pg_exec(pg, "SELECT campaign_daily_stats_partition($1)", params,
                           1, NULL, why);

    if (err == ERR_OK)
        err = pg_copy_begin(pg,
                            "COPY campaign_daily_stats (day, campaign_id, run_id, "
                            "account_id, ad_id, "
                            "country, device_type, publisher_id, verdict, reason, "
                            "unit_price_micros, "
                            "clicks, cost_micros, list_micros) FROM STDIN",
                            why);
    if (err == ERR_OK && run->rows_full)
        err = close_sums_each(run, row_part, why);
    if (err == ERR_OK)
        err = rows_write(run, why);
    if (err == ERR_OK)
        err = pg_copy_end(pg, &copied, why);
    assert(err != ERR_OK || copied == (int64_t)run->written);
    return err;
}

/* debit unbilled:ADVERTISER, credit revenue:LEGAL_ENTITY, campaign by campaign. */
static enum err
ledger_post(struct close_run *run, struct why *why)
{
    char day[12], text[128];

    (void)snprintf(text, sizeof(text), "clicks of %s, %s",
                   date_format(run->in->day, day), run->zone_name);
    const char *params[] = {run->id, text, day};
    return pg_exec(run->in->pg,
                   "WITH booked AS (INSERT INTO ledger_transaction (run_id, text) "
                   "VALUES ($1, $2) "
                   "RETURNING id), cost AS (SELECT c.id AS campaign, c.currency, "
                   "a.id AS advertiser, "
                   "acc.legal_entity_id AS entity, sum(s.cost_micros) AS micros, "
                   "sum(s.clicks) AS "
                   "clicks FROM campaign_daily_stats s JOIN campaign c ON c.id = "
                   "s.campaign_id JOIN "
                   "advertiser a ON a.id = c.advertiser_id JOIN account acc ON "
                   "acc.id = a.account_id "
                   "WHERE s.run_id = $1 AND s.day = $3 AND s.verdict IN "
                   "('billable', 'suspicious') "
                   "GROUP BY 1, 2, 3, 4) "
                   "INSERT INTO ledger_entry (transaction_id, ledger_account, "
                   "campaign_id, currency, "
                   "micros, clicks) "
                   "SELECT booked.id, 'unbilled:' || advertiser, campaign, "
                   "currency, micros, clicks "
                   "FROM booked, cost UNION ALL "
                   "SELECT booked.id, 'revenue:' || entity, campaign, currency, "
                   "-micros, clicks "
                   "FROM booked, cost",
                   params, 3, NULL, why);
}

static bool
billed_visit(void *ctx, const struct idrun_billed *billed)
{
    merkle_add(ctx, billed->account, billed->event_id);
    return true;
}

/* "SPOOL:CLICKS,..."; "" when nothing was. */
static char *
recounted_text(const struct close_run *run, char text[RECOUNTED_BYTES])
{
    size_t used = 0;

    text[0] = '\0';
    for (uint32_t i = 0; i < run->recounted_n; i++)
        used += (size_t)snprintf(text + used, RECOUNTED_BYTES - used,
                                 "%s%016" PRIx64 ":%" PRId64, i > 0 ? "," : "",
                                 run->recounted[i].spool, run->recounted[i].clicks);
    assert(used < RECOUNTED_BYTES);
    return text;
}

static uint64_t
recounted_sum(const struct close_run *run)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < run->recounted_n; i++)
        sum += (uint64_t)run->recounted[i].clicks;
    return sum;
}

/* The certificate as one line of text: what is hashed, and what its columns say. */
static void
certificate_line(const struct close_run *run, const uint64_t *totals,
                 const char *merkle_root, const char *previous, struct buf *out)
{
    char day[12], hash[HASH_SHA256_HEX_SIZE];

    hash_hex(run->input_hash, sizeof(run->input_hash), hash);
    buf_printf(out, "run=%s zone=%s day=%s sequence=%d input=%s", run->id,
               run->zone_name, date_format(run->in->day, day), run->sequence, hash);
    static const char *const names[] = {"received",   "archived",    "billable",
                                        "suspicious", "over_budget", "invalid",
                                        "duplicate",  "quarantined", "conflicts"};
    for (int i = 0; i < 9; i++)
        buf_printf(out, " %s=%lld", names[i], (long long)totals[i]);
    if (run->recounted_n > 0) {
        char recounted[RECOUNTED_BYTES];
        buf_printf(out, " recounted=%s", recounted_text(run, recounted));
    }
    buf_printf(out, " merkle=%s previous=%s", merkle_root, previous);
}

static void
totals_make(const struct close_run *run, uint64_t totals[9])
{
    memset(totals, 0, 9 * sizeof(*totals));
    for (uint32_t i = 0; i < run->rows.campaigns_n; i++) {
        const struct close_campaign *c = &run->rows.campaigns[i];
        totals[0] += c->received;
        for (int kind = 0; kind < VERDICT_KINDS_N; kind++)
            totals[1] += c->kinds[kind];
        totals[2] += c->kinds[VERDICT_BILLABLE] + c->kinds[VERDICT_SUSPICIOUS];
        totals[3] += c->kinds[VERDICT_SUSPICIOUS];
        totals[4] += c->kinds[VERDICT_OVER_BUDGET];
        totals[5] += c->kinds[VERDICT_INVALID];
        totals[6] += c->kinds[VERDICT_DUPLICATE];
        totals[7] += c->kinds[VERDICT_QUARANTINED];
        totals[8] += c->conflicts;
    }
}

static enum err
merkle_make(const struct close_run *run, uint64_t billable,
            char hex[HASH_SHA256_HEX_SIZE], struct why *why)
{
    struct merkle merkle;
    uint8_t root[HASH_SHA256_SIZE];
    const struct idrun_filter filter = {
        .after_us = run->after_us,
        .until_us = run->until_us,
        .zone = str_of(run->zone_name),
        .day = run->in->day,
    };

    merkle_begin(&merkle);
    enum err err =
        idrun_billed_each(run->in->judge_dir, &filter, billed_visit, &merkle, why);
    uint64_t ids = merkle.ids;
    merkle_end(&merkle, root);
    hash_hex(root, sizeof(root), hex);
    if (err == ERR_OK && ids != billable)
        return err_set(why, ERR_CORRUPT,
                       "close: the id runs hold %llu billed clicks, the sums %llu; "
                       "ids are kept for billing.dedup_days",
                       (unsigned long long)ids, (unsigned long long)billable);
    return err;
}

static enum err
previous_get(struct pg *pg, char hex[HASH_SHA256_HEX_SIZE], struct why *why)
{
    struct pg_result *result = NULL;
    enum err err = pg_exec(
        pg,
        "SELECT encode(c.hash, 'hex') FROM certificate c JOIN billing_run r "
        "ON r.id = c.run_id WHERE r.status = 'posted' "
        "ORDER BY c.run_id DESC LIMIT 1",
        NULL, 0, &result, why);

    if (err == ERR_OK)
        (void)snprintf(hex, HASH_SHA256_HEX_SIZE, "%s",
                       pg_rows(result) > 0 ? pg_value(result, 0, 0) : "");
    pg_result_free(&result);
    return err;
}

static enum err
certificate_insert(struct close_run *run, struct why *why)
{
    uint64_t totals[9];
    char texts[9][NUMBER_TEXT], root[HASH_SHA256_HEX_SIZE],
        hash[HASH_SHA256_HEX_SIZE];
    char previous[HASH_SHA256_HEX_SIZE] = "";
    uint8_t digest[HASH_SHA256_SIZE];
    struct buf line = BUF_MAX(CERTIFICATE_BYTES);

    totals_make(run, totals);
    enum err err = merkle_make(run, totals[2], root, why);
    if (err == ERR_OK)
        err = previous_get(run->in->pg, previous, why);
    if (err != ERR_OK)
        return err;
    certificate_line(run, totals, root, previous, &line);
    hash_sha256_of(line.p, line.n, digest);
    buf_free(&line);
    hash_hex(digest, sizeof(digest), hash);
    char recounted[NUMBER_TEXT], recounted_spools[RECOUNTED_BYTES];
    (void)snprintf(recounted, sizeof(recounted), "%" PRIu64, recounted_sum(run));
    const char *params[16] = {run->id};
    for (int i = 0; i < 9; i++) {
        (void)snprintf(texts[i], sizeof(texts[i]), "%lld", (long long)totals[i]);
        params[1 + i] = texts[i];
    }
    params[10] = root;
    params[11] = previous;
    params[12] = hash;
    params[13] = run->differences;
    params[14] = recounted;
    params[15] = recounted_text(run, recounted_spools);
    return pg_exec(
        run->in->pg,
        "INSERT INTO certificate (run_id, received, archived, billable, "
        "suspicious, over_budget, invalid, duplicate, quarantined, conflicts, "
        "merkle_root, previous_hash, hash, differences, recounted, "
        "recounted_spools) VALUES ($1, $2, $3, $4, "
        "$5, $6, $7, $8, $9, $10, decode($11, 'hex'), decode($12, 'hex'), "
        "decode($13, 'hex'), $14, $15, $16)",
        params, 16, NULL, why);
}

enum err
close_post(struct close_run *run, struct why *why)
{
    bool blocked = run->differences[0] != '\0';
    /* The chain has one end: whoever adds to it waits for whoever is adding, before it takes
     * a run's number, so that numbers and chain are in one order. */
    enum err err =
        pg_exec(run->in->pg, "LOCK TABLE certificate IN SHARE ROW EXCLUSIVE MODE",
                NULL, 0, NULL, why);

    /* A blocked run posted nothing: the new attempt takes its place. */
    if (err == ERR_OK)
        err = close_unblock(run, why);
    if (err == ERR_OK)
        err = run_insert(run, why);
    if (err == ERR_OK && !blocked)
        err = stats_copy(run, why);
    if (err == ERR_OK && !blocked)
        err = ledger_post(run, why);
    if (err == ERR_OK)
        err = certificate_insert(run, why);
    return err;
}

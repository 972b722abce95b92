#include "billing/recount.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "billing/click_file.h"
#include "billing/close_run.h"
#include "common/clicklog.h"
#include "common/clock.h"
#include "common/hash.h"
#include "common/pg.h"

enum {
    TALLY_ROWS = 4096,
    TALLY_SLOTS = 4 * TALLY_ROWS,
    CAMPAIGN_BYTES = 128, /* longer than any campaign's id */
    NUMBER_TEXT = 24,
    DAYS_MAX =
        35, /* of a log that never told anything: nothing older can be closed */
};

#define QUARTER_MS INT64_C(900000)

struct lost {
    uint64_t spool;
    int64_t from_us; /* hours from here on are not counted */
    int64_t lost_us;
};

/* Somebody told a count of this. */
struct told {
    uint64_t incarnation;
    int64_t hour_us;
};

struct tally_row {
    struct recount_row row;
    char campaign[CAMPAIGN_BYTES];
};

struct recount {
    struct lost lost[RECOUNT_SPOOLS_MAX]; /* in order of lost_us */
    int lost_n;
    struct told *told; /* sorted */
    size_t told_n, told_cap;
    struct tally_row *rows; /* TALLY_ROWS */
    uint32_t rows_n;
    uint16_t *slots; /* row + 1 */
    bool (*visit)(void *ctx, const struct recount_row *row);
    void *ctx;
    bool stopped;
};

static enum err
no_memory(struct why *why)
{
    return err_set(why, ERR_NOMEM, "recount: no memory");
}

static void
recount_free(struct recount *r)
{
    free(r->told);
    free(r->rows);
    free(r->slots);
    *r = (struct recount){0};
}

/* ---- which logs, and how far ---- */

static enum err
lost_read(struct recount *r, struct pg *pg, int64_t until_us, bool lock,
          struct why *why)
{
    char until[RUN_TIME_SIZE], sql[512];
    const char *params[] = {close_time(until_us, until)};
    struct pg_result *result = NULL;
    int64_t first_us =
        clock_floor(until_us - DAYS_MAX * CLOCK_DAY_US, CLOCK_HOUR_US);

    (void)snprintf(sql, sizeof(sql),
                   "SELECT spool, (extract(epoch FROM coalesce(recounted_until, "
                   "reported_until)) * 1000000)::bigint, "
                   "(extract(epoch FROM lost_at) * 1000000)::bigint "
                   "FROM ingest_spool WHERE lost_at IS NOT NULL AND "
                   "coalesce(recounted_until, reported_until) < least(lost_at, "
                   "$1::timestamptz) ORDER BY lost_at, spool LIMIT %d%s",
                   RECOUNT_SPOOLS_MAX, lock ? " FOR UPDATE" : "");
    enum err err = pg_exec(pg, sql, params, 1, &result, why);
    r->lost_n = err == ERR_OK ? pg_rows(result) : 0;
    for (int i = 0; i < r->lost_n; i++) {
        struct lost *lost = &r->lost[i];
        *lost = (struct lost){.spool = (uint64_t)pg_i64(result, i, 0),
                              .from_us = pg_i64(result, i, 1),
                              .lost_us = pg_i64(result, i, 2)};
        if (lost->from_us < first_us)
            lost->from_us = first_us;
    }
    pg_result_free(&result);
    return err;
}

/* Below it every log that is alive (but `but`) has told its counts. */
static enum err
heard_us(struct pg *pg, struct clicklog *but, int64_t *out, struct why *why)
{
    struct clicklog_stats stats;
    char spool[NUMBER_TEXT] = "";
    struct pg_result *result = NULL;

    if (but != NULL) {
        clicklog_stats_get(but, &stats);
        (void)snprintf(spool, sizeof(spool), "%lld", (long long)stats.spool_id);
    }
    const char *params[] = {but != NULL ? spool : NULL};
    enum err err = pg_exec(
        pg,
        "SELECT (extract(epoch FROM min(reported_until)) * 1000000)::bigint FROM "
        "ingest_spool WHERE NOT retired AND lost_at IS NULL AND spool IS DISTINCT "
        "FROM $1::bigint",
        params, 1, &result, why);
    *out = err == ERR_OK && pg_value(result, 0, 0) != NULL ? pg_i64(result, 0, 0)
                                                           : INT64_MAX;
    pg_result_free(&result);
    return err;
}

static int64_t
least_from_us(const struct recount *r)
{
    int64_t least = INT64_MAX;

    for (int i = 0; i < r->lost_n; i++)
        least = r->lost[i].from_us < least ? r->lost[i].from_us : least;
    return least;
}

/* ---- what is told ---- */

static bool
told_add(struct recount *r, uint64_t incarnation, int64_t hour_us)
{
    if (r->told_n > 0 && r->told[r->told_n - 1].incarnation == incarnation &&
        r->told[r->told_n - 1].hour_us == hour_us)
        return true;
    if (r->told_n == r->told_cap) {
        size_t cap = r->told_cap * 2 + 64;
        struct told *grown = realloc(r->told, cap * sizeof(*grown));
        if (grown == NULL)
            return false;
        r->told = grown;
        r->told_cap = cap;
    }
    r->told[r->told_n++] = (struct told){incarnation, hour_us};
    return true;
}

static int
told_compare(const void *a, const void *b)
{
    const struct told *x = a, *y = b;

    if (x->incarnation != y->incarnation)
        return x->incarnation < y->incarnation ? -1 : 1;
    return (x->hour_us > y->hour_us) - (x->hour_us < y->hour_us);
}

static bool
log_visit(void *ctx, const struct clicklog_received *row)
{
    struct recount *r = ctx;

    r->stopped = !told_add(r, row->incarnation, row->hour_us);
    return !r->stopped;
}

/* The log first: an hour that it hands over meanwhile is found in PostgreSQL. */
static enum err
told_read(struct recount *r, const struct recount_input *in, int64_t from_us,
          struct why *why)
{
    char from[RUN_TIME_SIZE];
    struct pg_result *result = NULL;
    const char *params[] = {close_time(from_us, from)};
    enum err err = ERR_OK;

    if (in->log != NULL)
        err = clicklog_received_all(in->log, in->until_us, log_visit, r, why);
    if (err == ERR_OK && r->stopped)
        err = no_memory(why);
    if (err == ERR_OK)
        err = pg_exec(in->pg,
                      "SELECT DISTINCT incarnation, (extract(epoch FROM hour) * "
                      "1000000)::bigint FROM received_count WHERE hour >= $1",
                      params, 1, &result, why);
    for (int i = 0; err == ERR_OK && i < pg_rows(result); i++) {
        if (!told_add(r, (uint64_t)pg_i64(result, i, 0), pg_i64(result, i, 1)))
            err = no_memory(why);
    }
    pg_result_free(&result);
    if (err == ERR_OK && r->told_n > 0)
        qsort(r->told, r->told_n, sizeof(*r->told), told_compare);
    return err;
}

static bool
is_told(const struct recount *r, uint64_t incarnation, int64_t hour_us)
{
    const struct told want = {incarnation, hour_us};

    return r->told_n > 0 &&
           bsearch(&want, r->told, r->told_n, sizeof(want), told_compare) != NULL;
}

/* ---- counting ---- */

static void
tally_flush(struct recount *r)
{
    for (uint32_t i = 0; i < r->rows_n && !r->stopped; i++)
        r->stopped = !r->visit(r->ctx, &r->rows[i].row);
    memset(r->slots, 0, TALLY_SLOTS * sizeof(*r->slots));
    r->rows_n = 0;
}

static bool
row_same(const struct recount_row *a, const struct recount_row *b)
{
    return a->quarter_ms == b->quarter_ms && a->account == b->account &&
           a->hour_us == b->hour_us && a->incarnation == b->incarnation &&
           a->spool == b->spool && str_equal(a->campaign, b->campaign);
}

static void
tally_add(struct recount *r, const struct recount_row *row)
{
    uint64_t seed = (uint64_t)row->quarter_ms ^ (uint64_t)row->hour_us << 20 ^
                    (uint64_t)row->account << 40 ^ row->incarnation;
    uint32_t at =
        (uint32_t)hash64(row->campaign.p, row->campaign.n, seed) % TALLY_SLOTS;

    while (r->slots[at] != 0 && !row_same(&r->rows[r->slots[at] - 1].row, row))
        at = (at + 1) % TALLY_SLOTS;
    if (r->slots[at] == 0 && r->rows_n == TALLY_ROWS) {
        tally_flush(r);
        tally_add(r, row);
        return;
    }
    if (r->slots[at] == 0) {
        struct tally_row *made = &r->rows[r->rows_n++];
        assert(row->campaign.n <= CAMPAIGN_BYTES);
        made->row = *row;
        memcpy(made->campaign, row->campaign.p, row->campaign.n);
        made->row.campaign.p = made->campaign;
        made->row.clicks = 0;
        r->slots[at] = (uint16_t)r->rows_n;
    }
    r->rows[r->slots[at] - 1].row.clicks++;
}

/* Whose click it is: of the logs that may have taken it, the one that was lost first. */
static const struct lost *
lost_find(const struct recount *r, const struct click *click, int64_t hour_us)
{
    for (int i = 0; i < r->lost_n; i++) {
        if (hour_us >= r->lost[i].from_us &&
            click->received_us < r->lost[i].lost_us)
            return &r->lost[i];
    }
    return NULL;
}

static void
click_take(struct recount *r, const struct click *click)
{
    int64_t hour_us = clock_floor(click->received_us, CLOCK_HOUR_US);
    const struct lost *lost = lost_find(r, click, hour_us);

    if (lost == NULL || is_told(r, click->incarnation, hour_us))
        return;
    const struct recount_row row = {
        .spool = lost->spool,
        .incarnation = click->incarnation,
        .hour_us = hour_us,
        .quarter_ms = clock_floor(click->timestamp_ms, QUARTER_MS),
        .account = click->account,
        .campaign = click->campaign_id};
    tally_add(r, &row);
}

static enum err
file_count(struct recount *r, const char *archive_dir,
           const struct manifest_file *file, int64_t until_us, struct why *why)
{
    struct click_file *in = NULL;
    struct click click;
    enum err err = click_file_open(&in, archive_dir, file, why);

    while (err == ERR_OK && !r->stopped) {
        err = click_file_next(in, &click, why);
        if (err == ERR_OK && click.received_us < until_us)
            click_take(r, &click);
    }
    click_file_close(&in);
    return err == ERR_AGAIN ? ERR_OK : err;
}

/* Every click received in [from_us, until_us). */
static enum err
files_count(struct recount *r, const char *archive_dir, int64_t from_us,
            int64_t until_us, struct why *why)
{
    struct manifest manifest;
    enum err err = manifest_read(&manifest, archive_dir, from_us, why);

    if (err != ERR_OK)
        return err;
    for (uint32_t i = 0; i < manifest.files_n && err == ERR_OK && !r->stopped;
         i++) {
        const struct manifest_file *file = &manifest.files[i];
        if (file->first_received_us < until_us &&
            file->first_received_us < r->lost[r->lost_n - 1].lost_us)
            err = file_count(r, archive_dir, file, until_us, why);
    }
    manifest_free(&manifest);
    if (err == ERR_OK)
        tally_flush(r);
    return err;
}

static enum err
tally_make(struct recount *r, struct why *why)
{
    r->rows = calloc(TALLY_ROWS, sizeof(*r->rows));
    r->slots = calloc(TALLY_SLOTS, sizeof(*r->slots));
    return r->rows == NULL || r->slots == NULL ? no_memory(why) : ERR_OK;
}

/* ---- whole hours, stored ---- */

struct storing {
    struct pg *pg;
    enum err err;
    struct why *why;
};

static bool
row_store(void *ctx, const struct recount_row *row)
{
    struct storing *storing = ctx;
    char hour[RUN_TIME_SIZE], quarter[RUN_TIME_SIZE];
    char campaign[CAMPAIGN_BYTES + 1];

    (void)snprintf(campaign, sizeof(campaign), "%.*s", (int)row->campaign.n,
                   row->campaign.p);
    pg_copy_field(storing->pg, close_time(row->hour_us, hour));
    pg_copy_i64(storing->pg, (int64_t)row->spool);
    pg_copy_i64(storing->pg, (int64_t)row->incarnation);
    pg_copy_i64(storing->pg, row->account);
    pg_copy_field(storing->pg, campaign);
    pg_copy_field(storing->pg, close_time(row->quarter_ms * 1000, quarter));
    pg_copy_i64(storing->pg, (int64_t)row->clicks);
    storing->err = pg_copy_row_end(storing->pg, storing->why);
    return storing->err == ERR_OK;
}

static enum err
rows_store(struct recount *r, const struct recount_input *in, int64_t to_us,
           struct why *why)
{
    struct storing storing = {.pg = in->pg, .why = why};
    int64_t from_us = least_from_us(r), rows;
    enum err err = told_read(r, in, from_us, why);

    r->visit = row_store;
    r->ctx = &storing;
    if (err == ERR_OK)
        err = tally_make(r, why);
    if (err == ERR_OK)
        err = pg_copy_begin(in->pg,
                            "COPY received_recount (hour, spool, incarnation, "
                            "account_id, campaign_id, quarter, clicks) FROM STDIN",
                            why);
    if (err == ERR_OK)
        err = files_count(r, in->archive_dir, from_us, to_us, why);
    if (err == ERR_OK)
        err = storing.err;
    return err == ERR_OK ? pg_copy_end(in->pg, &rows, why) : err;
}

static enum err
recounted_set(const struct recount *r, struct pg *pg, int64_t to_us,
              struct why *why)
{
    char to[RUN_TIME_SIZE], spool[NUMBER_TEXT];
    const char *params[] = {spool, close_time(to_us, to)};
    enum err err = ERR_OK;

    for (int i = 0; i < r->lost_n && err == ERR_OK; i++) {
        (void)snprintf(spool, sizeof(spool), "%lld", (long long)r->lost[i].spool);
        err = pg_exec(pg,
                      "UPDATE ingest_spool SET recounted_until = "
                      "greatest(coalesce(recounted_until, reported_until), $2) "
                      "WHERE spool = $1",
                      params, 2, NULL, why);
    }
    return err;
}

static enum err
any_lost(struct pg *pg, bool *any, struct why *why)
{
    struct pg_result *result = NULL;
    enum err err =
        pg_exec(pg, "SELECT 1 FROM ingest_spool WHERE lost_at IS NOT NULL LIMIT 1",
                NULL, 0, &result, why);

    *any = err == ERR_OK && pg_rows(result) > 0;
    pg_result_free(&result);
    return err;
}

/* Inside a transaction. */
static enum err
hours_store(struct recount *r, const struct recount_input *in, struct why *why)
{
    int64_t told_us, to_us = clock_floor(in->until_us, CLOCK_HOUR_US);
    enum err err = heard_us(in->pg, NULL, &told_us, why);

    if (err == ERR_OK && told_us < to_us)
        to_us = clock_floor(told_us, CLOCK_HOUR_US);
    if (err == ERR_OK)
        err = lost_read(r, in->pg, to_us, true, why);
    if (err != ERR_OK || r->lost_n == 0)
        return err;
    err = rows_store(r, in, to_us, why);
    return err == ERR_OK ? recounted_set(r, in->pg, to_us, why) : err;
}

enum err
recount_store(const struct recount_input *in, bool *any, struct why *why)
{
    struct recount r = {.lost_n = 0};
    enum err err = any_lost(in->pg, any, why);

    if (err != ERR_OK || !*any)
        return err;
    err = pg_begin(in->pg, why);
    if (err != ERR_OK)
        return err;
    err = hours_store(&r, in, why);
    recount_free(&r);
    if (err == ERR_OK)
        return pg_commit(in->pg, why);
    pg_rollback(in->pg);
    return err;
}

enum err
recount_rest_each(const struct recount_input *in,
                  bool (*visit)(void *ctx, const struct recount_row *row),
                  void *ctx, struct why *why)
{
    struct recount r = {.visit = visit, .ctx = ctx};
    int64_t told_us, to_us = in->until_us;
    enum err err = heard_us(in->pg, in->log, &told_us, why);

    if (err == ERR_OK && told_us < to_us)
        to_us = told_us;
    if (err == ERR_OK)
        err = lost_read(&r, in->pg, to_us, false, why);
    if (err == ERR_OK && r.lost_n > 0)
        err = told_read(&r, in, least_from_us(&r), why);
    if (err == ERR_OK && r.lost_n > 0)
        err = tally_make(&r, why);
    if (err == ERR_OK && r.lost_n > 0)
        err = files_count(&r, in->archive_dir, least_from_us(&r), to_us, why);
    recount_free(&r);
    return err;
}

/* What ingest counted, hour by hour of receipt, from the click log into PostgreSQL. */
#include "billing/close.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/clicklog.h"
#include "common/clock.h"
#include "common/pg.h"

enum { U64_TEXT = 24 };

struct storing {
    struct pg *pg;
    uint64_t spool;
    int64_t from_us; /* hours before it are stored already */
    int64_t to_us;   /* hours from it on are not over */
    enum err err;
    struct why *why;
};

static void
field_u64(struct pg *pg, uint64_t value)
{
    /* bigint is signed; the bits are what matters. */
    pg_copy_i64(pg, (int64_t)value);
}

static bool
row_copy(void *ctx, const struct clicklog_received *row)
{
    struct storing *storing = ctx;
    char hour[CLOCK_TEXT_SIZE], quarter[CLOCK_TEXT_SIZE], name[256];

    if (row->hour_us < storing->from_us || row->hour_us >= storing->to_us)
        return true;
    (void)snprintf(name, sizeof(name), "%.*s", (int)row->campaign.n,
                   row->campaign.p);
    pg_copy_field(storing->pg, clock_format_ms(row->hour_us / 1000, hour));
    field_u64(storing->pg, storing->spool);
    field_u64(storing->pg, row->incarnation);
    pg_copy_i64(storing->pg, row->account);
    pg_copy_field(storing->pg, name);
    pg_copy_field(storing->pg, clock_format_ms(row->quarter_ms, quarter));
    field_u64(storing->pg, row->clicks);
    storing->err = pg_copy_row_end(storing->pg, storing->why);
    return storing->err == ERR_OK;
}

static enum err
reported_get(struct pg *pg, uint64_t spool, int64_t *reported_us, struct why *why)
{
    char text[U64_TEXT];
    struct pg_result *result = NULL;

    (void)snprintf(text, sizeof(text), "%lld", (long long)spool);
    const char *params[] = {text};
    /* The row must be there to be locked: of two processes that tell the same counts, one
     * waits here, and then finds them told. */
    enum err err =
        pg_exec(pg,
                "INSERT INTO ingest_spool (spool, reported_until) VALUES "
                "($1, 'epoch') ON CONFLICT (spool) DO NOTHING",
                params, 1, NULL, why);
    if (err != ERR_OK)
        return err;
    err = pg_exec(pg,
                  "SELECT (extract(epoch FROM reported_until) * 1000000)::bigint, "
                  "lpad(to_hex(spool), 16, '0'), lost_at "
                  "FROM ingest_spool WHERE spool = $1 FOR UPDATE",
                  params, 1, &result, why);
    *reported_us = 0;
    if (err == ERR_OK && pg_rows(result) > 0)
        *reported_us = pg_i64(result, 0, 0);
    if (err == ERR_OK && pg_rows(result) > 0 && pg_value(result, 0, 2) != NULL)
        err =
            err_set(why, ERR_CONFLICT,
                    "the ingest log %s was given up as lost at %s (clickledger "
                    "relay forget): its counts are not taken any more; begin with "
                    "an empty log directory",
                    pg_value(result, 0, 1), pg_value(result, 0, 2));
    pg_result_free(&result);
    return err;
}

static enum err
rows_store(struct storing *storing, struct clicklog *log, struct why *why)
{
    int64_t rows;
    enum err err =
        pg_copy_begin(storing->pg,
                      "COPY received_count (hour, spool, incarnation, "
                      "account_id, campaign_id, quarter, clicks) FROM STDIN",
                      why);
    if (err != ERR_OK)
        return err;
    err = clicklog_received_each(log, row_copy, storing, why);
    if (err == ERR_OK)
        err = storing->err;
    return err == ERR_OK ? pg_copy_end(storing->pg, &rows, why) : err;
}

static enum err
reported_set(struct pg *pg, uint64_t spool, int64_t until_us, struct why *why)
{
    char id[U64_TEXT], until[CLOCK_TEXT_SIZE];

    (void)snprintf(id, sizeof(id), "%lld", (long long)spool);
    const char *params[] = {id, clock_format_ms(until_us / 1000, until)};
    return pg_exec(
        pg,
        "UPDATE ingest_spool SET reported_until = greatest(reported_until, $2), "
        "heard_at = now() WHERE spool = $1",
        params, 2, NULL, why);
}

enum err
received_store_below(struct clicklog *log, struct pg *pg, int64_t below_us,
                     int64_t *stored_below_us, struct why *why)
{
    struct clicklog_stats stats;
    struct storing storing = {.pg = pg, .why = why};

    assert(log != NULL);
    /* Read before the counts: what they leave out is after it. */
    clicklog_stats_get(log, &stats);
    int64_t until_us = clock_floor(
        stats.floor_us < below_us ? stats.floor_us : below_us, CLOCK_HOUR_US);
    storing.spool = stats.spool_id;
    storing.to_us = until_us;
    enum err err = pg_begin(pg, why);
    if (err != ERR_OK)
        return err;
    err = reported_get(pg, stats.spool_id, &storing.from_us, why);
    if (err == ERR_OK && storing.from_us < until_us)
        err = rows_store(&storing, log, why);
    if (err == ERR_OK)
        err = reported_set(pg, stats.spool_id, until_us, why);
    if (err == ERR_OK)
        err = pg_commit(pg, why);
    if (err != ERR_OK) {
        pg_rollback(pg);
        return err;
    }
    *stored_below_us = until_us;
    return ERR_OK;
}

enum err
received_store(struct clicklog *log, struct pg *pg, int64_t *stored_below_us,
               struct why *why)
{
    return received_store_below(log, pg, INT64_MAX, stored_below_us, why);
}

/* ---- a log that is lost ---- */

/* Inside a transaction: whether it may be given up. */
static enum err
lose_check(struct pg *pg, uint64_t spool, bool known, const char *id,
           struct received_lost *out, struct why *why)
{
    const char *params[] = {id};
    struct pg_result *result = NULL;
    enum err err = pg_exec(
        pg,
        "SELECT extract(epoch FROM now() - coalesce(heard_at, "
        "'epoch'))::bigint, lost_at FROM ingest_spool WHERE spool = $1 FOR UPDATE",
        params, 1, &result, why);

    if (err != ERR_OK)
        return err;
    out->known = pg_rows(result) > 0;
    int64_t quiet_s = out->known ? pg_i64(result, 0, 0) : INT64_MAX;
    bool lost = out->known && pg_value(result, 0, 1) != NULL;
    pg_result_free(&result);
    if (!out->known && !known)
        return err_set(why, ERR_NOTFOUND,
                       "no ingest log %016" PRIx64
                       " is known to PostgreSQL or to the "
                       "topics; --force gives it up all the same",
                       spool);
    if (!lost && quiet_s < RECEIVED_QUIET_S)
        return err_set(why, ERR_CONFLICT,
                       "the ingest log %016" PRIx64
                       " told PostgreSQL its counts %" PRId64
                       " s ago: it is not lost. Stop its process and wait %d s; or "
                       "--force, if you know that it is gone for good",
                       spool, quiet_s, RECEIVED_QUIET_S);
    return ERR_OK;
}

static enum err
lose_write(struct pg *pg, const char *id, struct received_lost *out,
           struct why *why)
{
    const char *params[] = {id};
    struct pg_result *result = NULL;
    enum err err = pg_exec(
        pg,
        "INSERT INTO ingest_spool AS s (spool, reported_until, lost_at) VALUES "
        "($1, 'epoch', now()) ON CONFLICT (spool) DO UPDATE SET lost_at = "
        "coalesce(s.lost_at, now()) RETURNING lost_at, reported_until",
        params, 1, &result, why);

    if (err == ERR_OK) {
        (void)snprintf(out->lost_at, sizeof(out->lost_at), "%s",
                       pg_value(result, 0, 0));
        (void)snprintf(out->told_to, sizeof(out->told_to), "%s",
                       pg_value(result, 0, 1));
    }
    pg_result_free(&result);
    return err;
}

enum err
received_lose(struct pg *pg, uint64_t spool, bool known, bool force,
              struct received_lost *out, struct why *why)
{
    char id[U64_TEXT];
    struct why checked = {{0}};

    *out = (struct received_lost){.known = false};
    (void)snprintf(id, sizeof(id), "%lld", (long long)spool);
    enum err err = pg_begin(pg, why);
    if (err != ERR_OK)
        return err;
    err = lose_check(pg, spool, known, id, out, &checked);
    if (force && (err == ERR_NOTFOUND || err == ERR_CONFLICT))
        err = ERR_OK;
    if (err != ERR_OK)
        (void)err_set(why, err, "%s", checked.text);
    if (err == ERR_OK)
        err = lose_write(pg, id, out, why);
    if (err == ERR_OK)
        return pg_commit(pg, why);
    pg_rollback(pg);
    return err;
}

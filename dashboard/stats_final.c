/* Closed days, from PostgreSQL. */
#include "dashboard/stats.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/pg.h"
#include "schema/text.h"
#include "schema/zone.h"

enum { SQL_BYTES_MAX = 1024, DATE_SIZE = 12 };

/* Columns of campaign_daily_stats; the rest is not kept by day. */
static const char *
column_of(int dimension)
{
    switch (dimension) {
    case DIMENSION_AD:
        return "ad_id";
    case DIMENSION_COUNTRY:
        return "country";
    case DIMENSION_DEVICE:
        return "device_type";
    case DIMENSION_PUBLISHER:
        return "publisher_id";
    default:
        return NULL;
    }
}

/* Rows are days, in order. */
static struct stats_row *
row_of_day(struct stats *stats, const char *text)
{
    const struct zone *zone = stats->call->campaign->zone;
    uint32_t low = 0, high = stats->n;
    int32_t day;

    if (!date_parse(str_of(text), &day))
        return NULL;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int32_t its = zone_day(zone, stats->rows[middle].start_ms);
        if (its == day)
            return &stats->rows[middle];
        if (its < day)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static void
cell_add(struct stats_cell *cell, const char *verdict, uint64_t clicks,
         money_wide cost)
{
    bool flagged = strcmp(verdict, "suspicious") == 0;

    if (flagged || strcmp(verdict, "billable") == 0) {
        cell->clicks += clicks;
        cell->cost_micros += cost;
        cell->flagged += flagged ? clicks : 0;
    } else if (strcmp(verdict, "invalid") == 0) {
        cell->invalid += clicks;
    }
}

static enum err
totals_add(struct stats *stats, const struct pg_result *result, int i,
           struct why *why)
{
    struct stats_row *row = row_of_day(stats, pg_value(result, i, 0));
    money_wide cost = 0;

    if (row == NULL || row->state != STATS_FINAL)
        return ERR_OK;
    enum err err = money_wide_parse(str_of(pg_value(result, i, 4)), &cost, why);
    if (err != ERR_OK)
        return err;
    const char *verdict = pg_value(result, i, 1);
    uint64_t clicks = (uint64_t)pg_i64(result, i, 3);
    cell_add(&row->all, verdict, clicks, cost);
    row->duplicate += strcmp(verdict, "duplicate") == 0 ? clicks : 0;
    row->quarantined += strcmp(verdict, "quarantined") == 0 ? clicks : 0;
    row->over_budget += strcmp(verdict, "over_budget") == 0 ? clicks : 0;
    enum reason reason = reason_find(str_of(pg_value(result, i, 2)));
    if (reason < REASONS_N && reason != REASON_none)
        row->reasons[reason] += clicks;
    return ERR_OK;
}

static enum err
group_add(struct stats_cell *cell, const struct pg_result *result, int i,
          struct why *why)
{
    money_wide cost = 0;
    enum err err = money_wide_parse(str_of(pg_value(result, i, 4)), &cost, why);

    if (err == ERR_OK)
        cell_add(cell, pg_value(result, i, 2), (uint64_t)pg_i64(result, i, 3),
                 cost);
    return err;
}

/* Rows come ordered by day and value, several verdicts each. */
static enum err
groups_add(struct stats *stats, const struct pg_result *result, struct why *why)
{
    struct stats_row *row = NULL;
    int n = pg_rows(result);
    enum err err = ERR_OK;

    for (int i = 0; i < n && err == ERR_OK;) {
        const char *day = pg_value(result, i, 0), *value = pg_value(result, i, 1);
        struct stats_cell cell = {0};
        struct stats_row *its = row_of_day(stats, day);
        if (its != row && row != NULL)
            stats_groups_end(stats, row);
        row = its;
        for (; err == ERR_OK && i < n && strcmp(pg_value(result, i, 0), day) == 0 &&
               strcmp(pg_value(result, i, 1), value) == 0;
             i++)
            err = group_add(&cell, result, i, why);
        if (row != NULL && row->state == STATS_FINAL)
            stats_group_add(stats, str_of(value), &cell);
    }
    if (row != NULL)
        stats_groups_end(stats, row);
    return err;
}

static enum err
days_mark(struct stats *stats, const char *from, const char *to, struct why *why)
{
    char zone[128];
    struct str name = zone_name(stats->call->campaign->zone);
    struct pg_result *result = NULL;

    (void)snprintf(zone, sizeof(zone), "%.*s", (int)name.n, name.p);
    const char *params[] = {zone, from, to};
    enum err err =
        pg_exec(stats->call->pg,
                "SELECT day, (extract(epoch FROM max(received_to)) * 1000)::bigint "
                "FROM billing_run WHERE time_zone = $1 AND day BETWEEN $2 AND $3 "
                "AND status = 'posted' GROUP BY day",
                params, 3, &result, why);
    for (int i = 0; err == ERR_OK && i < pg_rows(result); i++) {
        struct stats_row *row = row_of_day(stats, pg_value(result, i, 0));
        /* A day closed by force before its end still gets clicks. */
        if (row != NULL && pg_i64(result, i, 1) >= row->end_ms) {
            row->state = STATS_FINAL;
            stats->postgres_used = true;
        }
    }
    pg_result_free(&result);
    return err;
}

static enum err
days_read(struct stats *stats, const char *from, const char *to, struct why *why)
{
    char id[128], sql[SQL_BYTES_MAX];
    struct str campaign = stats->call->campaign->id;
    const char *column = column_of(stats->query.group_by);
    struct pg_result *result = NULL;

    (void)snprintf(id, sizeof(id), "%.*s", (int)campaign.n, campaign.p);
    const char *params[] = {id, from, to};
    enum err err = pg_exec(
        stats->call->pg,
        "SELECT day, verdict, reason, sum(clicks)::bigint, sum(cost_micros) FROM "
        "campaign_daily_stats WHERE campaign_id = $1 AND day BETWEEN $2 AND $3 "
        "GROUP BY 1, 2, 3",
        params, 3, &result, why);
    for (int i = 0; err == ERR_OK && i < pg_rows(result); i++)
        err = totals_add(stats, result, i, why);
    pg_result_free(&result);
    if (err != ERR_OK || column == NULL)
        return err;
    (void)snprintf(
        sql, sizeof(sql),
        "SELECT day, %s, verdict, sum(clicks)::bigint, sum(cost_micros) FROM "
        "campaign_daily_stats WHERE campaign_id = $1 AND day BETWEEN $2 AND $3 "
        "GROUP BY 1, 2, 3 ORDER BY 1, 2",
        column);
    err = pg_exec(stats->call->pg, sql, params, 3, &result, why);
    if (err == ERR_OK)
        err = groups_add(stats, result, why);
    pg_result_free(&result);
    return err;
}

/* What a failure left half read counts as not read. */
static void
rows_forget(struct stats *stats)
{
    stats->postgres_used = false;
    for (uint32_t i = 0; i < stats->n; i++)
        stats_row_clear(&stats->rows[i]);
}

void
stats_final(struct stats *stats)
{
    const struct zone *zone = stats->call->campaign->zone;
    char from[DATE_SIZE], to[DATE_SIZE];
    struct why why = {{0}};
    int64_t began_us = clock_mono_us();

    /* A dimension that closed days do not keep is read from Redis while it is there. */
    if (stats->query.group_by != STATS_NO_GROUP &&
        column_of(stats->query.group_by) == NULL)
        return;
    stats->postgres_away = !away_ask(stats->call->postgres_away, began_us);
    if (stats->postgres_away)
        return;
    (void)date_format(zone_day(zone, stats->rows[0].start_ms), from);
    (void)date_format(zone_day(zone, stats->rows[stats->n - 1].start_ms), to);
    enum err err = days_mark(stats, from, to, &why);
    if (err == ERR_OK && stats->postgres_used)
        err = days_read(stats, from, to, &why);
    away_report(stats->call->postgres_away, err, began_us, clock_mono_us(), &why);
    if (err == ERR_OK)
        return;
    stats->postgres_away = true;
    rows_forget(stats);
    if (err != ERR_AGAIN)
        log_event(LOG_ERROR, "dashboard_postgres", LOG_TEXT("why", why.text));
}

#include "dashboard/stats.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "schema/text.h"
#include "schema/zone.h"

enum { FOUND_BYTES_MAX = 16 << 20 };

#define TIME_RULE                                                            \
    "must be an RFC 3339 time such as 2026-11-21T00:00:00Z (in a URL write " \
    "the + of an offset as %2B)"
#define ROWS_RULE                                                        \
    "is over 1000 windows before to: ask for a shorter time, or with a " \
    "coarser granularity"
_Static_assert(STATS_ROWS_MAX == 1000, "ROWS_RULE says so");

static const char *const window_names[] = WINDOW_NAMES;
static const char *const dimension_names[] = DIMENSION_NAMES;

/* from, to as RFC 3339; by default the last 24 hours. */
static enum err
bounds_parse(struct call *call, struct stats_query *query, struct why *why)
{
    int64_t now_ms = clock_now_us() / 1000;
    struct str from = http_query(call->request, "from");
    struct str to = http_query(call->request, "to");

    query->to_ms = now_ms;
    if (to.n > 0 && !rfc3339_parse(to, &query->to_ms))
        return call_invalid(call, "to", TIME_RULE, why);
    query->from_ms = query->to_ms - CLOCK_DAY_MS;
    if (from.n > 0 && !rfc3339_parse(from, &query->from_ms))
        return call_invalid(call, "from", TIME_RULE, why);
    if (query->from_ms >= query->to_ms)
        return call_invalid(call, "from", "must be before to", why);
    return ERR_OK;
}

static enum err
query_parse(struct call *call, struct stats_query *query, struct why *why)
{
    struct str granularity = http_query(call->request, "granularity");
    struct str group_by = http_query(call->request, "group_by");
    bool known = granularity.n == 0;

    query->window = WINDOW_1H;
    for (int i = 0; i < WINDOWS_N; i++) {
        if (str_equal(granularity, str_of(window_names[i]))) {
            query->window = (enum window)i;
            known = true;
        }
    }
    if (!known)
        return call_invalid(call, "granularity", "must be 5m, 1h or 1d", why);
    query->group_by = STATS_NO_GROUP;
    for (int i = 0; i < DIMENSIONS_N; i++) {
        if (str_equal(group_by, str_of(dimension_names[i])))
            query->group_by = i;
    }
    if (group_by.n > 0 && query->group_by == STATS_NO_GROUP)
        return call_invalid(call, "group_by",
                            "must be ad_id, ad_group_id, creative_id, variant_id, "
                            "country, device_type or publisher_id",
                            why);
    return bounds_parse(call, query, why);
}

static enum err
rows_make(struct stats *stats, struct why *why)
{
    const struct zone *zone = stats->call->campaign->zone;
    const struct stats_query *query = &stats->query;

    stats->rows = calloc(STATS_ROWS_MAX, sizeof(*stats->rows));
    if (stats->rows == NULL)
        return err_set(why, ERR_NOMEM, "stats: no memory");
    int64_t start_ms = window_start(query->window, zone, query->from_ms);
    while (start_ms < query->to_ms) {
        if (stats->n == STATS_ROWS_MAX)
            return call_invalid(stats->call, "from", ROWS_RULE, why);
        struct stats_row *row = &stats->rows[stats->n++];
        row->start_ms = start_ms;
        row->end_ms = window_end(query->window, zone, start_ms);
        row->groups = BUF_MAX(ANSWER_BYTES_MAX);
        assert(row->end_ms > start_ms);
        start_ms = row->end_ms;
    }
    return ERR_OK;
}

void
stats_row_clear(struct stats_row *row)
{
    struct buf groups = row->groups;

    buf_reset(&groups);
    *row = (struct stats_row){.start_ms = row->start_ms,
                              .end_ms = row->end_ms,
                              .groups = groups,
                              .wanted = row->wanted};
}

static void
reasons_format(const struct stats_row *row, struct buf *out)
{
    bool first = true;

    buf_add_text(out, ",\"reasons\":{");
    for (int i = 0; i < REASONS_N; i++) {
        if (row->reasons[i] == 0)
            continue;
        buf_printf(out, "%s\"%s\":%llu", first ? "" : ",",
                   reason_info((enum reason)i)->name,
                   (unsigned long long)row->reasons[i]);
        first = false;
    }
    buf_add_text(out, "}");
}

static void
row_format(const struct stats *stats, const struct stats_row *row, struct buf *out)
{
    static const char *const states[] = {"unavailable", "provisional", "final"};
    char start[CLOCK_TEXT_SIZE], end[CLOCK_TEXT_SIZE];

    buf_printf(out, "{\"start\":\"%s\",\"end\":\"%s\",\"state\":\"%s\"",
               clock_format_ms(row->start_ms, start),
               clock_format_ms(row->end_ms, end), states[row->state]);
    if (row->state != STATS_UNAVAILABLE) {
        buf_add_text(out, ",");
        stats_cell_format(&row->all, out);
        buf_printf(out, ",\"duplicate\":%llu,\"quarantined\":%llu",
                   (unsigned long long)row->duplicate,
                   (unsigned long long)row->quarantined);
        if (row->state == STATS_FINAL)
            buf_printf(out, ",\"over_budget\":%llu",
                       (unsigned long long)row->over_budget);
        if (row->has_users)
            buf_printf(out, ",\"unique_users\":%llu",
                       (unsigned long long)row->users);
        reasons_format(row, out);
        if (stats->query.group_by != STATS_NO_GROUP) {
            buf_add_text(out, ",\"groups\":[");
            buf_add(out, row->groups.p, row->groups.n);
            buf_add_text(out, "]");
        }
    }
    buf_add_text(out, "}");
}

static void
stats_format(const struct stats *stats, struct buf *out)
{
    const struct master_campaign *campaign = stats->call->campaign;
    const char *source = stats->redis_used && stats->postgres_used
                             ? "redis,postgres"
                         : stats->redis_used    ? "redis"
                         : stats->postgres_used ? "postgres"
                                                : "none";
    char as_of[CLOCK_TEXT_SIZE];
    int64_t as_of_us = stats->as_of_us > 0 ? stats->as_of_us : clock_now_us();

    buf_add_text(out, "{\"campaign_id\":");
    buf_add_json(out, campaign->id);
    buf_printf(out, ",\"granularity\":\"%s\",\"time_zone\":",
               window_names[stats->query.window]);
    buf_add_json(out, zone_name(campaign->zone));
    buf_add_text(out, ",\"currency\":");
    buf_add_json(out, campaign->currency);
    if (stats->query.group_by != STATS_NO_GROUP)
        buf_printf(out, ",\"group_by\":\"%s\"",
                   dimension_names[stats->query.group_by]);
    buf_printf(
        out,
        ",\"source\":\"%s\",\"as_of\":\"%s\",\"rebuilding\":%s,\"redis\":\"%s\","
        "\"postgres\":\"%s\",\"rows\":[",
        source, clock_format_ms(as_of_us / 1000, as_of),
        stats->rebuilding ? "true" : "false", stats->redis_away ? "away" : "ok",
        stats->postgres_away ? "away" : "ok");
    for (uint32_t i = 0; i < stats->n; i++) {
        buf_add_text(out, i == 0 ? "\n" : ",\n");
        row_format(stats, &stats->rows[i], out);
    }
    buf_add_text(out, "]}\n");
}

enum err
serve_stats(struct call *call, struct why *why)
{
    struct stats stats = {.call = call, .found = BUF_MAX(FOUND_BYTES_MAX)};
    enum err err = query_parse(call, &stats.query, why);

    if (err == ERR_OK)
        err = rows_make(&stats, why);
    if (err == ERR_OK) {
        if (stats.query.window == WINDOW_1D)
            stats_final(&stats);
        stats_provisional(&stats);
        stats_format(&stats, &call->out);
    }
    for (uint32_t i = 0; stats.rows != NULL && i < stats.n; i++)
        buf_free(&stats.rows[i].groups);
    free(stats.rows);
    buf_free(&stats.found);
    return err;
}

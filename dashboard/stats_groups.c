/* A row's values of one dimension: those with the most clicks, and the rest as one. */
#include "dashboard/stats.h"

#include <stdlib.h>

#define OTHER STR("__other__")

void
stats_cell_format(const struct stats_cell *cell, struct buf *out)
{
    char cost[MONEY_TEXT_SIZE];

    buf_printf(
        out, "\"clicks\":%llu,\"cost\":\"%s\",\"flagged\":%llu,\"invalid\":%llu",
        (unsigned long long)cell->clicks,
        money_format(cell->cost_micros, MONEY_PLACES_MAX, cost),
        (unsigned long long)cell->flagged, (unsigned long long)cell->invalid);
}

static void
other_add(struct stats *stats, const struct stats_cell *cell)
{
    stats->has_other = true;
    stats->other.clicks += cell->clicks;
    stats->other.cost_micros += cell->cost_micros;
    stats->other.flagged += cell->flagged;
    stats->other.invalid += cell->invalid;
}

void
stats_group_add(struct stats *stats, struct str value,
                const struct stats_cell *cell)
{
    struct stats_group group = {value, *cell};

    if (str_equal(value, OTHER) ||
        stats->found.n + sizeof(group) > stats->found.max)
        other_add(stats, cell);
    else
        buf_add(&stats->found, &group, sizeof(group));
}

static int
more_first(const void *left, const void *right)
{
    const struct stats_group *a = left, *b = right;
    uint32_t n = a->value.n < b->value.n ? a->value.n : b->value.n;

    if (a->cell.clicks != b->cell.clicks)
        return a->cell.clicks > b->cell.clicks ? -1 : 1;
    if (a->cell.invalid != b->cell.invalid)
        return a->cell.invalid > b->cell.invalid ? -1 : 1;
    int order = n == 0 ? 0 : memcmp(a->value.p, b->value.p, n);
    return order != 0 ? order
                      : (a->value.n > b->value.n) - (a->value.n < b->value.n);
}

static void
group_format(struct stats_row *row, struct str value, const struct stats_cell *cell)
{
    buf_add_text(&row->groups, row->groups.n == 0 ? "{\"value\":" : ",{\"value\":");
    buf_add_json(&row->groups, value);
    buf_add_text(&row->groups, ",");
    stats_cell_format(cell, &row->groups);
    buf_add_text(&row->groups, "}");
}

void
stats_groups_end(struct stats *stats, struct stats_row *row)
{
    struct stats_group *groups = (struct stats_group *)(void *)stats->found.p;
    size_t n = stats->found.n / sizeof(*groups);

    if (n > 1)
        qsort(groups, n, sizeof(*groups), more_first);
    for (size_t i = 0; i < n && i < STATS_GROUPS_MAX; i++)
        group_format(row, groups[i].value, &groups[i].cell);
    for (size_t i = STATS_GROUPS_MAX; i < n; i++)
        other_add(stats, &groups[i].cell);
    if (stats->has_other)
        group_format(row, OTHER, &stats->other);
    stats->groups_bytes += row->groups.n;
    /* Never an answer that is cut short without a word. */
    if (stats->found.failed || row->groups.failed ||
        stats->groups_bytes > ANSWER_BYTES_MAX)
        stats->call->out.failed = true;
    if (stats->groups_bytes > ANSWER_BYTES_MAX)
        buf_free(&row->groups);
    buf_reset(&stats->found);
    stats->other = (struct stats_cell){0};
    stats->has_other = false;
}

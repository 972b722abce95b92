#include "schema/import_plan.h"

#include <assert.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/pg.h"
#include "schema/snapshot.h"
#include "schema/text.h"
#include "schema/zone.h"

/* One import at work. */
struct planner {
    struct import *import;
    const struct import_there *there;
    const struct master *master;
    struct import_plan *plan;
    int64_t now_ms;
    struct import_row **order;
};

/* A campaign's rows in the file, and what is there of it. */
struct group {
    struct import_row **rows;
    uint32_t n;
    const struct master_campaign *campaign; /* NULL: new */
    uint32_t steps_n;                       /* planned for it */
};

/* The three kinds of steps differ in these only. */
struct kind {
    enum import_column value, from;
    bool in_days;
    bool first_counts_before; /* the first rate prices what came before it too */
    uint32_t there_n;
    const struct master_campaign *campaign;
    enum { KIND_RATE, KIND_BUDGET, KIND_STATUS } what;
};

static int
str_order(struct str a, struct str b)
{
    uint32_t n = a.n < b.n ? a.n : b.n;
    int order = n == 0 ? 0 : memcmp(a.p, b.p, n);

    return order != 0 ? order : (a.n > b.n) - (a.n < b.n);
}

static int
rows_order(const void *a_p, const void *b_p, enum import_column column)
{
    const struct import_row *a = *(struct import_row *const *)a_p,
                            *b = *(struct import_row *const *)b_p;
    int order = str_order(a->text[column], b->text[column]);

    return order != 0 ? order : (a > b) - (a < b); /* then as in the file */
}

static int
by_campaign(const void *a, const void *b)
{
    return rows_order(a, b, IMPORT_campaign_id);
}

static int
by_advertiser(const void *a, const void *b)
{
    return rows_order(a, b, IMPORT_advertiser_id);
}

/* The row of an ordered result whose first column is id; -1: none. */
static int
result_find(const struct pg_result *rows, struct str id)
{
    int low = 0, high = pg_rows(rows);

    while (low < high) {
        int middle = low + (high - low) / 2;
        int order = str_order(str_of(pg_value(rows, middle, 0)), id);

        if (order == 0)
            return middle;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}

static void
advertiser_put(struct planner *planner, const struct import_row *row,
               struct str name)
{
    struct import_plan *plan = planner->plan;

    plan->advertisers[plan->advertisers_n++] = (struct planned_advertiser){
        row->text[IMPORT_advertiser_id], row->text[IMPORT_account], name,
        row->text[IMPORT_time_zone], row->text[IMPORT_currency]};
}

/* All rows of one advertiser: they agree on account and name, with each other and with
 * what is there. */
static void
advertiser_plan(struct planner *planner, struct import_row **rows, uint32_t n)
{
    const struct pg_result *there = planner->there->advertisers;
    int at = result_find(there, rows[0]->text[IMPORT_advertiser_id]);
    struct str account =
        at < 0 ? rows[0]->text[IMPORT_account] : str_of(pg_value(there, at, 1));
    struct str name = {NULL, 0};

    for (uint32_t i = 0; i < n; i++) {
        struct str given = rows[i]->text[IMPORT_advertiser_name];

        if (!str_equal(rows[i]->text[IMPORT_account], account))
            import_wrong(planner->import, rows[i], IMPORT_account,
                         "advertiser %.*s belongs to account %.*s",
                         (int)rows[i]->text[IMPORT_advertiser_id].n,
                         rows[i]->text[IMPORT_advertiser_id].p, (int)account.n,
                         account.p);
        if (name.n == 0)
            name = given;
        else if (given.n > 0 && !str_equal(given, name))
            import_wrong(planner->import, rows[i], IMPORT_advertiser_name,
                         "an earlier line says %.*s", (int)name.n, name.p);
    }
    if (at < 0)
        advertiser_put(planner, rows[0],
                       name.n == 0 ? rows[0]->text[IMPORT_advertiser_id] : name);
    else if (name.n > 0 && !str_equal(name, str_of(pg_value(there, at, 2))))
        advertiser_put(planner, rows[0], name);
}

/* Lines of one campaign agree on what has no date. */
static void
facts_agree(struct planner *planner, const struct group *group)
{
    static const enum import_column facts[] = {
        IMPORT_name,          IMPORT_account,
        IMPORT_advertiser_id, IMPORT_advertiser_name,
        IMPORT_currency,      IMPORT_time_zone,
        IMPORT_price_cap};

    for (uint32_t i = 1; i < group->n; i++)
        for (size_t f = 0; f < sizeof(facts) / sizeof(*facts); f++)
            if (!str_equal(group->rows[0]->text[facts[f]],
                           group->rows[i]->text[facts[f]]))
                import_wrong(planner->import, group->rows[i], facts[f],
                             "differs from line %u of the same campaign",
                             group->rows[0]->at[facts[f]].line);
}

static void
fact_keeps(struct planner *planner, struct import_row *row,
           enum import_column column, struct str there)
{
    if (!str_equal(row->text[column], there))
        import_wrong(planner->import, row, column,
                     "it is %.*s and cannot change: make a new campaign",
                     (int)there.n, there.p);
}

/* The campaign's own row: new, changed or as it was. */
static void
campaign_plan(struct planner *planner, struct group *group)
{
    struct import_plan *plan = planner->plan;
    struct import_row *row = group->rows[0];
    const struct master_campaign *there = group->campaign;
    struct str name = row->text[IMPORT_name], old_name = {NULL, 0};
    int64_t cap = row->cap_micros;

    if (there != NULL) {
        int at = result_find(planner->there->campaigns, there->id);

        assert(at >= 0); /* one transaction, one state */
        old_name = str_of(pg_value(planner->there->campaigns, at, 1));
        fact_keeps(planner, row, IMPORT_advertiser_id, there->advertiser);
        fact_keeps(planner, row, IMPORT_currency, there->currency);
        fact_keeps(planner, row, IMPORT_time_zone, zone_name(there->zone));
        name = name.n == 0 ? old_name : name;
        cap = cap < 0 ? there->price_cap_micros : cap;
    } else {
        name = name.n == 0 ? row->text[IMPORT_campaign_id] : name;
    }
    for (uint32_t i = 0; i < group->n; i++)
        if (group->rows[i]->rate.value == MASTER_EVENT_PRICE && cap <= 0 &&
            row->cap_micros < 0)
            import_wrong(planner->import, group->rows[i], IMPORT_price_cap,
                         "cpc is event: the cap of its price, please");
    cap = cap < 0 ? 0 : cap;
    if (there != NULL && str_equal(name, old_name) &&
        cap == there->price_cap_micros)
        return;
    plan->campaigns[plan->campaigns_n++] = (struct planned_campaign){
        row->text[IMPORT_campaign_id], row->text[IMPORT_advertiser_id], name,
        row->text[IMPORT_time_zone],   row->text[IMPORT_currency],      cap};
    group->steps_n++;
}

static struct kind
kind_of(int what, const struct master_campaign *campaign)
{
    struct kind kind = {.campaign = campaign, .what = what};

    if (what == KIND_RATE) {
        kind.value = IMPORT_cpc;
        kind.from = IMPORT_cpc_from;
        kind.first_counts_before = true;
        kind.there_n = campaign == NULL ? 0 : campaign->rates_n;
    } else if (what == KIND_BUDGET) {
        kind.value = IMPORT_daily_budget;
        kind.from = IMPORT_budget_from;
        kind.in_days = true;
        kind.there_n = campaign == NULL ? 0 : campaign->budgets_n;
    } else {
        kind.value = IMPORT_status;
        kind.from = IMPORT_status_from;
        kind.there_n = campaign == NULL ? 0 : campaign->statuses_n;
    }
    return kind;
}

static struct planned_step
there_at(const struct kind *kind, uint32_t i)
{
    const struct master_campaign *c = kind->campaign;

    assert(i < kind->there_n);
    if (kind->what == KIND_RATE)
        return (struct planned_step){c->id, c->rates[i].valid_from_ms,
                                     c->rates[i].micros};
    if (kind->what == KIND_BUDGET)
        return (struct planned_step){c->id, c->budgets[i].valid_from_day,
                                     c->budgets[i].daily_micros};
    return (struct planned_step){c->id, c->statuses[i].valid_from_ms,
                                 c->statuses[i].active};
}

/* How many rows that are there begin at or before `from`. */
static uint32_t
there_until(const struct kind *kind, int64_t from)
{
    uint32_t n = 0;

    while (n < kind->there_n && there_at(kind, n).from <= from)
        n++;
    return n;
}

/* The last closed day of the zone that overlaps [from_ms, to_ms). */
static bool
closed_find(const struct import_there *there, const struct zone *zone,
            int64_t from_ms, int64_t to_ms, int32_t *day, int64_t *open_ms)
{
    bool found = false;

    *open_ms = INT64_MIN;
    for (int i = 0; i < there->closed_n; i++) {
        int64_t day_from_ms, day_to_ms;

        if (there->closed[i].zone != zone)
            continue;
        zone_day_bounds(zone, there->closed[i].day, &day_from_ms, &day_to_ms);
        if (day_to_ms > *open_ms)
            *open_ms = day_to_ms;
        if (day_from_ms >= to_ms || day_to_ms <= from_ms)
            continue;
        found = true;
        *day = there->closed[i].day;
    }
    return found;
}

static int64_t
instant_of(const struct kind *kind, int64_t from)
{
    int64_t from_ms, to_ms;

    if (!kind->in_days || from == INT64_MIN || from == INT64_MAX)
        return from;
    zone_day_bounds(kind->campaign->zone, (int32_t)from, &from_ms, &to_ms);
    return from_ms;
}

/* A row of a campaign that is there changes everything until the next row begins. */
static void
closed_check(struct planner *planner, const struct kind *kind,
             struct import_row *row, const struct import_step *step, int64_t from)
{
    const struct zone *zone = kind->campaign->zone;
    uint32_t i = there_until(kind, from);
    bool first = i == 0 || (i == 1 && there_at(kind, 0).from == from);
    int64_t start = first && kind->first_counts_before ? INT64_MIN : from;
    int64_t end = i < kind->there_n ? there_at(kind, i).from : INT64_MAX;
    char date[16], open[CLOCK_TEXT_SIZE];
    int64_t open_ms;
    int32_t day = 0;

    uint32_t in_force = i > 0 ? i - 1 : 0;
    if ((i > 0 || (kind->first_counts_before && kind->there_n > 0)) &&
        there_at(kind, in_force).value == step->value)
        return; /* it says what is so already */
    if (!closed_find(planner->there, zone, instant_of(kind, start),
                     instant_of(kind, end), &day, &open_ms))
        return;
    import_wrong(planner->import, row, step->from_given ? kind->from : kind->value,
                 "it would change %s, which is closed in %.*s: valid from %s or "
                 "later, please",
                 date_format(day, date), (int)zone_name(zone).n, zone_name(zone).p,
                 clock_format_ms(open_ms, open));
}

static void
step_put(struct planner *planner, struct group *group, const struct kind *kind,
         struct planned_step step)
{
    struct import_plan *plan = planner->plan;

    group->steps_n++;
    if (kind->what == KIND_RATE)
        plan->rates[plan->rates_n++] = step;
    else if (kind->what == KIND_BUDGET)
        plan->budgets[plan->budgets_n++] = step;
    else
        plan->statuses[plan->statuses_n++] = step;
}

static const struct import_step *
step_of(const struct import_row *row, const struct kind *kind)
{
    return kind->what == KIND_RATE     ? &row->rate
           : kind->what == KIND_BUDGET ? &row->budget
                                       : &row->status;
}

/* From when: as given, 1970 where history is stated, else now. */
static int64_t
from_of(const struct planner *planner, const struct group *group,
        const struct kind *kind, const struct import_step *step)
{
    if (step->from_given)
        return step->from;
    if (group->campaign == NULL || group->n > 1)
        return 0;
    return kind->in_days ? zone_day(group->campaign->zone, planner->now_ms)
                         : planner->now_ms;
}

/* Whether an earlier line of the group made the same row; another value is an error. */
static bool
said_before(struct planner *planner, const struct group *group,
            const struct kind *kind, uint32_t at, int64_t from)
{
    for (uint32_t i = 0; i < at; i++) {
        const struct import_step *step = step_of(group->rows[i], kind);

        if (!step->given || from_of(planner, group, kind, step) != from)
            continue;
        if (step->value != step_of(group->rows[at], kind)->value)
            import_wrong(planner->import, group->rows[at], kind->value,
                         "line %u gives another value from the same time on",
                         group->rows[i]->at[kind->value].line);
        return true;
    }
    return false;
}

static void
step_plan(struct planner *planner, struct group *group, const struct kind *kind,
          uint32_t at)
{
    struct import_row *row = group->rows[at];
    const struct import_step *step = step_of(row, kind);
    int64_t from;
    uint32_t i;

    if (!step->given)
        return;
    from = from_of(planner, group, kind, step);
    if (said_before(planner, group, kind, at, from))
        return;
    i = there_until(kind, from);
    if (i > 0 && there_at(kind, i - 1).value == step->value &&
        (there_at(kind, i - 1).from == from ||
         (!step->from_given && group->n == 1)))
        return; /* there already */
    if (kind->what == KIND_BUDGET && step->value == MASTER_NO_BUDGET && i == 0 &&
        !step->from_given)
        return; /* no budget, and none before */
    if (group->campaign != NULL)
        closed_check(planner, kind, row, step, from);
    step_put(
        planner, group, kind,
        (struct planned_step){row->text[IMPORT_campaign_id], from, step->value});
}

/* A new campaign runs from 1970 on unless its line says otherwise. */
static void
status_default(struct planner *planner, struct group *group)
{
    struct kind kind = kind_of(KIND_STATUS, NULL);
    bool given = false;

    for (uint32_t i = 0; i < group->n; i++)
        given |= group->rows[i]->status.given;
    if (group->campaign == NULL && !given)
        step_put(
            planner, group, &kind,
            (struct planned_step){group->rows[0]->text[IMPORT_campaign_id], 0, 1});
}

static void
group_plan(struct planner *planner, struct import_row **rows, uint32_t n)
{
    struct import_plan *plan = planner->plan;
    struct group group = {rows, n, NULL, 0};

    for (uint32_t i = 0; i < n; i++)
        if (rows[i]->bad)
            return;
    group.campaign =
        master_campaign_find(planner->master, rows[0]->text[IMPORT_campaign_id]);
    facts_agree(planner, &group);
    campaign_plan(planner, &group);
    for (int what = KIND_RATE; what <= KIND_STATUS; what++) {
        struct kind kind = kind_of(what, group.campaign);

        for (uint32_t i = 0; i < n; i++)
            step_plan(planner, &group, &kind, i);
    }
    status_default(planner, &group);
    if (group.campaign == NULL)
        plan->campaigns_new++;
    else if (group.steps_n > 0)
        plan->campaigns_changed++;
    else
        plan->campaigns_same++;
}

/* Calls plan_one for each run of rows with the same id. */
static void
each_group(struct planner *planner, enum import_column column,
           int (*order)(const void *, const void *),
           void (*plan_one)(struct planner *, struct import_row **, uint32_t))
{
    uint32_t n = 0, all = planner->import->rows_n;

    for (uint32_t i = 0; i < all; i++)
        if (planner->import->rows[i].text[column].n > 0)
            planner->order[n++] = &planner->import->rows[i];
    if (n > 0)
        qsort(planner->order, n, sizeof(struct import_row *), order);
    for (uint32_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n; end++)
            if (!str_equal(planner->order[i]->text[column],
                           planner->order[end]->text[column]))
                break;
        plan_one(planner, planner->order + i, end - i);
    }
}

enum err
import_plan(struct import_plan *out, struct import *import,
            const struct import_there *there, int64_t now_ms, struct why *why)
{
    size_t n = (size_t)import->rows_n + 1;
    struct planner planner = {.import = import,
                              .there = there,
                              .master = snapshot_master(there->snapshot),
                              .plan = out,
                              .now_ms = now_ms};

    memset(out, 0, sizeof(*out));
    planner.order = calloc(n, sizeof(struct import_row *));
    out->advertisers = calloc(n, sizeof(*out->advertisers));
    out->campaigns = calloc(n, sizeof(*out->campaigns));
    out->rates = calloc(n, sizeof(*out->rates));
    out->budgets = calloc(n, sizeof(*out->budgets));
    out->statuses = calloc(n, sizeof(*out->statuses));
    if (planner.order == NULL || out->advertisers == NULL ||
        out->campaigns == NULL || out->rates == NULL || out->budgets == NULL ||
        out->statuses == NULL) {
        free(planner.order);
        import_plan_free(out);
        return err_set(why, ERR_NOMEM, "import: no memory for %zu lines", n);
    }
    each_group(&planner, IMPORT_advertiser_id, by_advertiser, advertiser_plan);
    each_group(&planner, IMPORT_campaign_id, by_campaign, group_plan);
    free(planner.order);
    return ERR_OK;
}

void
import_plan_free(struct import_plan *plan)
{
    free(plan->advertisers);
    free(plan->campaigns);
    free(plan->rates);
    free(plan->budgets);
    free(plan->statuses);
    memset(plan, 0, sizeof(*plan));
}

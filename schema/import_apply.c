/* The database's side of an import: what is there, and the writing. Rows go to staging
 * tables by COPY and from there in one statement a table, so that 100,000 campaigns are
 * eleven round trips and master_version grows by a handful. */
#include <assert.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/pg.h"
#include "schema/import_plan.h"
#include "schema/snapshot.h"
#include "schema/text.h"
#include "schema/zone.h"

enum { TEXT_MAX = 1024 };

static const char campaigns_sql[] =
    "SELECT id, name FROM campaign ORDER BY id COLLATE \"C\"";
static const char advertisers_sql[] = "SELECT v.id, a.name, v.name FROM advertiser "
                                      "v JOIN account a ON a.id = v.account_id "
                                      "ORDER BY v.id COLLATE \"C\"";
static const char closed_sql[] =
    "SELECT DISTINCT time_zone, day - DATE '1970-01-01' FROM billing_run "
    "WHERE status = 'posted'";

static enum err
closed_load(struct import_there *there, struct pg *pg, struct why *why)
{
    struct pg_result *rows = NULL;
    enum err err = pg_exec(pg, closed_sql, NULL, 0, &rows, why);

    if (err == ERR_OK) {
        there->closed = calloc((size_t)pg_rows(rows) + 1, sizeof(*there->closed));
        if (there->closed == NULL)
            err = err_set(why, ERR_NOMEM, "import: no memory");
    }
    for (int i = 0; err == ERR_OK && i < pg_rows(rows); i++)
        there->closed[there->closed_n++] = (struct closed_day){
            zone_find(str_of(pg_value(rows, i, 0))), (int32_t)pg_i64(rows, i, 1)};
    pg_result_free(&rows);
    return err;
}

enum err
import_there_load(struct import_there *out, struct pg *pg, struct why *why)
{
    enum err err;

    memset(out, 0, sizeof(*out));
    err = snapshot_from_pg(&out->snapshot, pg, why);
    if (err == ERR_OK)
        err = pg_exec(pg, campaigns_sql, NULL, 0, &out->campaigns, why);
    if (err == ERR_OK)
        err = pg_exec(pg, advertisers_sql, NULL, 0, &out->advertisers, why);
    if (err == ERR_OK)
        err = closed_load(out, pg, why);
    if (err != ERR_OK)
        import_there_free(out);
    return err;
}

void
import_there_free(struct import_there *there)
{
    snapshot_drop(there->snapshot);
    pg_result_free(&there->campaigns);
    pg_result_free(&there->advertisers);
    free(there->closed);
    memset(there, 0, sizeof(*there));
}

/* Fields of the file are at most 256 bytes; texts end at a zero byte here. */
static void
copy_str(struct pg *pg, struct str text)
{
    char terminated[TEXT_MAX];

    assert(text.n < sizeof(terminated));
    if (text.n > 0)
        memcpy(terminated, text.p, text.n);
    terminated[text.n] = '\0';
    pg_copy_field(pg, terminated);
}

static enum err
advertisers_copy(const struct import_plan *plan, struct pg *pg, struct why *why)
{
    enum err err = pg_copy_begin(pg, "COPY import_advertiser FROM STDIN", why);

    for (uint32_t i = 0; err == ERR_OK && i < plan->advertisers_n; i++) {
        copy_str(pg, plan->advertisers[i].id);
        copy_str(pg, plan->advertisers[i].account);
        copy_str(pg, plan->advertisers[i].name);
        copy_str(pg, plan->advertisers[i].time_zone);
        copy_str(pg, plan->advertisers[i].currency);
        err = pg_copy_row_end(pg, why);
    }
    return err == ERR_OK ? pg_copy_end(pg, NULL, why) : err;
}

static enum err
campaigns_copy(const struct import_plan *plan, struct pg *pg, struct why *why)
{
    enum err err = pg_copy_begin(pg, "COPY import_campaign FROM STDIN", why);

    for (uint32_t i = 0; err == ERR_OK && i < plan->campaigns_n; i++) {
        copy_str(pg, plan->campaigns[i].id);
        copy_str(pg, plan->campaigns[i].advertiser);
        copy_str(pg, plan->campaigns[i].name);
        copy_str(pg, plan->campaigns[i].time_zone);
        copy_str(pg, plan->campaigns[i].currency);
        pg_copy_i64(pg, plan->campaigns[i].cap_micros);
        err = pg_copy_row_end(pg, why);
    }
    return err == ERR_OK ? pg_copy_end(pg, NULL, why) : err;
}

/* from and value as PostgreSQL's text: exact, where an epoch in doubles is not. */
static enum err
steps_copy(const struct planned_step *steps, uint32_t n, bool in_days,
           struct pg *pg, const char *copy_sql, struct why *why)
{
    enum err err = pg_copy_begin(pg, copy_sql, why);
    char text[CLOCK_TEXT_SIZE];

    for (uint32_t i = 0; err == ERR_OK && i < n; i++) {
        copy_str(pg, steps[i].campaign);
        pg_copy_field(pg, in_days ? date_format((int32_t)steps[i].from, text)
                                  : clock_format_ms(steps[i].from, text));
        if (steps[i].value < 0)
            pg_copy_field(pg, NULL); /* the event's price, or no budget */
        else
            pg_copy_i64(pg, steps[i].value);
        err = pg_copy_row_end(pg, why);
    }
    return err == ERR_OK ? pg_copy_end(pg, NULL, why) : err;
}

static enum err
run(struct pg *pg, const char *sql, struct why *why)
{
    return pg_exec(pg, sql, NULL, 0, NULL, why);
}

static enum err
advertisers_write(const struct import_plan *plan, struct pg *pg, struct why *why)
{
    struct pg_result *missing = NULL;
    enum err err;

    if (plan->advertisers_n == 0)
        return ERR_OK;
    err = run(
        pg,
        "CREATE TEMP TABLE import_advertiser (id text, account text, name text, "
        "time_zone text, currency text) ON COMMIT DROP",
        why);
    if (err == ERR_OK)
        err = advertisers_copy(plan, pg, why);
    if (err == ERR_OK)
        err = pg_exec(pg,
                      "SELECT 1 FROM import_advertiser i WHERE NOT EXISTS "
                      "(SELECT 1 FROM account a WHERE a.name = i.account) LIMIT 1",
                      NULL, 0, &missing, why);
    if (err == ERR_OK && pg_rows(missing) > 0)
        err = run(pg,
                  "INSERT INTO account (name) SELECT DISTINCT account "
                  "FROM import_advertiser i WHERE NOT EXISTS "
                  "(SELECT 1 FROM account a WHERE a.name = i.account) ORDER BY 1",
                  why);
    pg_result_free(&missing);
    if (err == ERR_OK)
        err = run(
            pg,
            "INSERT INTO advertiser (id, account_id, name, time_zone, currency) "
            "SELECT i.id, a.id, i.name, i.time_zone, i.currency "
            "FROM import_advertiser i JOIN account a ON a.name = i.account "
            "ON CONFLICT (id) DO UPDATE SET name = excluded.name",
            why);
    return err;
}

static enum err
campaigns_write(const struct import_plan *plan, struct pg *pg, struct why *why)
{
    enum err err;

    if (plan->campaigns_n == 0)
        return ERR_OK;
    err = run(
        pg,
        "CREATE TEMP TABLE import_campaign (id text, advertiser text, name text, "
        "time_zone text, currency text, cap bigint) ON COMMIT DROP",
        why);
    if (err == ERR_OK)
        err = campaigns_copy(plan, pg, why);
    if (err == ERR_OK)
        err = run(
            pg,
            "INSERT INTO campaign (id, advertiser_id, name, time_zone, currency, "
            "price_cap_micros) SELECT * FROM ("
            "SELECT id, advertiser, name, time_zone, currency, cap "
            "FROM import_campaign) i "
            "ON CONFLICT (id) DO UPDATE SET name = excluded.name, "
            "price_cap_micros = excluded.price_cap_micros",
            why);
    return err;
}

static enum err
rates_write(const struct import_plan *plan, struct pg *pg, struct why *why)
{
    enum err err;

    if (plan->rates_n == 0)
        return ERR_OK;
    err = run(
        pg,
        "CREATE TEMP TABLE import_rate (campaign_id text, valid_from timestamptz, "
        "micros bigint) ON COMMIT DROP",
        why);
    if (err == ERR_OK)
        err = steps_copy(plan->rates, plan->rates_n, false, pg,
                         "COPY import_rate FROM STDIN", why);
    if (err == ERR_OK)
        err = run(pg,
                  "INSERT INTO campaign_rate SELECT * FROM import_rate "
                  "ON CONFLICT (campaign_id, valid_from) "
                  "DO UPDATE SET micros = excluded.micros",
                  why);
    return err;
}

static enum err
budgets_write(const struct import_plan *plan, struct pg *pg, struct why *why)
{
    enum err err;

    if (plan->budgets_n == 0)
        return ERR_OK;
    err = run(pg,
              "CREATE TEMP TABLE import_budget (campaign_id text, valid_from date, "
              "daily_micros bigint) ON COMMIT DROP",
              why);
    if (err == ERR_OK)
        err = steps_copy(plan->budgets, plan->budgets_n, true, pg,
                         "COPY import_budget FROM STDIN", why);
    if (err == ERR_OK)
        err = run(pg,
                  "INSERT INTO campaign_budget SELECT * FROM import_budget "
                  "ON CONFLICT (campaign_id, valid_from) "
                  "DO UPDATE SET daily_micros = excluded.daily_micros",
                  why);
    return err;
}

static enum err
statuses_write(const struct import_plan *plan, struct pg *pg, struct why *why)
{
    enum err err;

    if (plan->statuses_n == 0)
        return ERR_OK;
    err = run(pg,
              "CREATE TEMP TABLE import_status (campaign_id text, valid_from "
              "timestamptz, "
              "active integer) ON COMMIT DROP",
              why);
    if (err == ERR_OK)
        err = steps_copy(plan->statuses, plan->statuses_n, false, pg,
                         "COPY import_status FROM STDIN", why);
    if (err == ERR_OK)
        err = run(pg,
                  "INSERT INTO campaign_status "
                  "SELECT campaign_id, valid_from, active <> 0 FROM import_status "
                  "ON CONFLICT (campaign_id, valid_from) "
                  "DO UPDATE SET active = excluded.active",
                  why);
    return err;
}

enum err
import_apply(const struct import_plan *plan, struct pg *pg, struct why *why)
{
    enum err err = advertisers_write(plan, pg, why);

    if (err == ERR_OK)
        err = campaigns_write(plan, pg, why);
    if (err == ERR_OK)
        err = rates_write(plan, pg, why);
    if (err == ERR_OK)
        err = budgets_write(plan, pg, why);
    if (err == ERR_OK)
        err = statuses_write(plan, pg, why);
    return err;
}

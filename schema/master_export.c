/* The campaign CSV from the database: as many lines a campaign as it has rates, budgets or
 * statuses, whichever are most; the shorter histories repeat their last row. */
#include <assert.h>

#include "common/clock.h"
#include "common/money.h"
#include "common/pg.h"
#include "schema/import_plan.h"
#include "schema/master_import.h"
#include "schema/snapshot.h"
#include "schema/text.h"
#include "schema/zone.h"

static void
add_money(struct buf *csv, int64_t micros)
{
    char text[MONEY_TEXT_SIZE];

    buf_add_text(csv, money_format(micros, MONEY_PLACES_MAX, text));
}

static void
add_status(struct buf *csv, const struct master_campaign *c, uint32_t line)
{
    char text[CLOCK_TEXT_SIZE];

    if (c->statuses_n == 0) {
        buf_add_text(csv, ",,");
        return;
    }

    const struct master_status *status =
        &c->statuses[line < c->statuses_n ? line : c->statuses_n - 1u];
    buf_printf(csv, ",%s,%s", status->active ? "active" : "paused",
               clock_format_ms(status->valid_from_ms, text));
}

static void
add_rate(struct buf *csv, const struct master_campaign *c, uint32_t line)
{
    char text[CLOCK_TEXT_SIZE];

    buf_add_text(csv, ",");
    if (c->rates_n == 0) {
        buf_add_text(csv, ",");
        return;
    }

    const struct master_rate *rate =
        &c->rates[line < c->rates_n ? line : c->rates_n - 1u];
    if (rate->micros == MASTER_EVENT_PRICE)
        buf_add_text(csv, "event");
    else
        add_money(csv, rate->micros);
    buf_printf(csv, ",%s", clock_format_ms(rate->valid_from_ms, text));
}

static void
add_budget(struct buf *csv, const struct master_campaign *c, uint32_t line)
{
    char text[CLOCK_TEXT_SIZE];

    buf_add_text(csv, ",");
    if (c->budgets_n == 0) {
        buf_add_text(csv, ",");
        return;
    }

    const struct master_budget *budget =
        &c->budgets[line < c->budgets_n ? line : c->budgets_n - 1u];
    if (budget->daily_micros != MASTER_NO_BUDGET)
        add_money(csv, budget->daily_micros);
    buf_printf(csv, ",%s", date_format(budget->valid_from_day, text));
}

static void
add_campaign(struct buf *csv, const struct master_campaign *c, const char *name,
             const char *account, const char *advertiser_name)
{
    uint32_t lines = 1;

    lines = c->rates_n > lines ? c->rates_n : lines;
    lines = c->budgets_n > lines ? c->budgets_n : lines;
    lines = c->statuses_n > lines ? c->statuses_n : lines;
    for (uint32_t line = 0; line < lines; line++) {
        const struct str facts[] = {c->id,
                                    str_of(name),
                                    str_of(account),
                                    c->advertiser,
                                    str_of(advertiser_name),
                                    c->currency,
                                    zone_name(c->zone)};

        for (size_t i = 0; i < sizeof(facts) / sizeof(*facts); i++) {
            buf_add_text(csv, i == 0 ? "" : ",");
            csv_add(csv, facts[i]);
        }
        add_status(csv, c, line);
        add_rate(csv, c, line);
        buf_add_text(csv, ",");
        add_money(csv, c->price_cap_micros);
        add_budget(csv, c, line);
        buf_add_text(csv, "\r\n");
    }
}

static enum err
names_read(struct pg *pg, struct pg_result **rows, struct why *why)
{
    return pg_exec(
        pg,
        "SELECT c.id, c.name, a.name, v.name FROM campaign c "
        "JOIN advertiser v ON v.id = c.advertiser_id "
        "JOIN account a ON a.id = v.account_id ORDER BY c.id COLLATE \"C\"",
        NULL, 0, rows, why);
}

static void
export_all(const struct master *master, const struct pg_result *names,
           struct buf *csv)
{
    for (int i = 0; i < IMPORT_COLUMNS_N; i++)
        buf_printf(csv, "%s%s", i == 0 ? "" : ",",
                   import_column_name((enum import_column)i));
    buf_add_text(csv, "\r\n");
    assert((uint32_t)pg_rows(names) == master->campaigns_n); /* one transaction */
    for (uint32_t i = 0; i < master->campaigns_n; i++) {
        int row = (int)i;

        assert(str_equal(master->campaigns[i].id, str_of(pg_value(names, row, 0))));
        add_campaign(csv, &master->campaigns[i], pg_value(names, row, 1),
                     pg_value(names, row, 2), pg_value(names, row, 3));
    }
}

enum err
master_export(struct pg *pg, struct buf *csv, struct why *why)
{
    struct snapshot *snapshot = NULL;
    struct pg_result *names = NULL;
    enum err err = pg_begin(pg, why);

    if (err != ERR_OK)
        return err;
    err = pg_exec(pg, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
                  NULL, 0, NULL, why);
    if (err == ERR_OK)
        err = snapshot_from_pg(&snapshot, pg, why);
    if (err == ERR_OK)
        err = names_read(pg, &names, why);
    if (err == ERR_OK)
        export_all(snapshot_master(snapshot), names, csv);
    if (err == ERR_OK && csv->failed)
        err = err_set(why, ERR_NOMEM, "export: no memory for the file");
    pg_rollback(pg);
    pg_result_free(&names);
    snapshot_drop(snapshot);
    return err;
}

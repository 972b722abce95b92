/* The snapshot's rows from PostgreSQL: four ordered queries, merged by campaign. */
#include <assert.h>
#include <stdlib.h>

#include "common/pg.h"
#include "schema/snapshot.h"
#include "schema/zone.h"

/* COLLATE "C" orders by bytes, as strcmp does. Times before the epoch round down. */
static const char campaigns_sql[] =
    "SELECT c.id, a.account_id, c.advertiser_id, c.currency, c.time_zone, "
    "c.price_cap_micros FROM campaign c JOIN advertiser a ON a.id = "
    "c.advertiser_id "
    "ORDER BY c.id COLLATE \"C\"";
static const char rates_sql[] =
    "SELECT campaign_id, floor(extract(epoch FROM valid_from) * 1000)::bigint, "
    "micros "
    "FROM campaign_rate ORDER BY campaign_id COLLATE \"C\", valid_from";
static const char budgets_sql[] =
    "SELECT campaign_id, valid_from - DATE '1970-01-01', daily_micros "
    "FROM campaign_budget ORDER BY campaign_id COLLATE \"C\", valid_from";
static const char statuses_sql[] =
    "SELECT campaign_id, floor(extract(epoch FROM valid_from) * 1000)::bigint, "
    "active::int FROM campaign_status ORDER BY campaign_id COLLATE \"C\", "
    "valid_from";
static const char keys_sql[] =
    "SELECT id, account_id, encode(sha256, 'hex'), scopes, coalesce(advertiser_id, "
    "''), "
    "rate_clicks_per_s, (revoked_at IS NOT NULL)::int FROM api_key ORDER BY id";

enum table { CAMPAIGNS, RATES, BUDGETS, STATUSES, KEYS, VERSION, TABLES_N };

struct loader {
    struct pg_result *tables[TABLES_N];
    struct master_campaign *campaigns;
    struct master_rate *rates;
    struct master_budget *budgets;
    struct master_status *statuses;
    struct master_key *keys;
    int at[TABLES_N]; /* the next row to merge */
};

static enum err
queries_run(struct loader *loader, struct pg *pg, struct why *why)
{
    static const char *const queries[TABLES_N] = {
        campaigns_sql, rates_sql, budgets_sql,
        statuses_sql,  keys_sql,  "SELECT version FROM master_version"};
    enum err err = ERR_OK;

    for (int i = 0; i < TABLES_N && err == ERR_OK; i++)
        err = pg_exec(pg, queries[i], NULL, 0, &loader->tables[i], why);
    if (err == ERR_OK && pg_rows(loader->tables[VERSION]) != 1)
        err = err_set(why, ERR_CORRUPT, "table master_version has not one row");
    return err;
}

static int64_t
i64_or(const struct pg_result *result, int row, int column, int64_t otherwise)
{
    return pg_value(result, row, column) == NULL ? otherwise
                                                 : pg_i64(result, row, column);
}

/* The rows of one table that belong to campaign id, which come next. */
static int
rows_of(struct loader *loader, enum table table, const char *id)
{
    const struct pg_result *result = loader->tables[table];
    int n = 0;

    while (loader->at[table] + n < pg_rows(result) &&
           strcmp(pg_value(result, loader->at[table] + n, 0), id) == 0)
        n++;
    return n;
}

static bool
steps_merge(struct loader *loader, struct master_campaign *c, const char *id)
{
    int rates_n = rows_of(loader, RATES, id),
        budgets_n = rows_of(loader, BUDGETS, id),
        statuses_n = rows_of(loader, STATUSES, id);

    if (rates_n > SNAPSHOT_STEPS_MAX || budgets_n > SNAPSHOT_STEPS_MAX ||
        statuses_n > SNAPSHOT_STEPS_MAX)
        return false;
    c->rates = loader->rates + loader->at[RATES];
    c->budgets = loader->budgets + loader->at[BUDGETS];
    c->statuses = loader->statuses + loader->at[STATUSES];
    c->rates_n = (uint16_t)rates_n;
    c->budgets_n = (uint16_t)budgets_n;
    c->statuses_n = (uint16_t)statuses_n;
    loader->at[RATES] += rates_n;
    loader->at[BUDGETS] += budgets_n;
    loader->at[STATUSES] += statuses_n;
    return true;
}

/* Every row of a step table, in the query's order. */
static void
steps_read(struct loader *loader)
{
    const struct pg_result *t = loader->tables[RATES];

    for (int i = 0; i < pg_rows(t); i++)
        loader->rates[i] = (struct master_rate){
            pg_i64(t, i, 1), i64_or(t, i, 2, MASTER_EVENT_PRICE)};
    t = loader->tables[BUDGETS];
    for (int i = 0; i < pg_rows(t); i++)
        loader->budgets[i] = (struct master_budget){
            (int32_t)pg_i64(t, i, 1), i64_or(t, i, 2, MASTER_NO_BUDGET)};
    t = loader->tables[STATUSES];
    for (int i = 0; i < pg_rows(t); i++)
        loader->statuses[i] =
            (struct master_status){pg_i64(t, i, 1), pg_i64(t, i, 2) != 0};
}

static enum err
campaigns_read(struct loader *loader, struct why *why)
{
    const struct pg_result *t = loader->tables[CAMPAIGNS];

    steps_read(loader);
    for (int i = 0; i < pg_rows(t); i++) {
        struct master_campaign *c = &loader->campaigns[i];
        const char *id = pg_value(t, i, 0), *zone = pg_value(t, i, 4);

        c->id = str_of(id);
        c->account = (uint32_t)pg_i64(t, i, 1);
        c->advertiser = str_of(pg_value(t, i, 2));
        c->currency = str_of(pg_value(t, i, 3));
        c->zone = zone_find(str_of(zone));
        c->price_cap_micros = pg_i64(t, i, 5);
        if (c->zone == NULL)
            return err_set(
                why, ERR_INVALID,
                "campaign %s: time zone %s is not in tzdata: install a newer "
                "tzdata or correct the campaign",
                id, zone);
        if (!steps_merge(loader, c, id))
            return err_set(why, ERR_FULL,
                           "campaign %s: over %d rates, budgets or statuses", id,
                           SNAPSHOT_STEPS_MAX);
    }
    return ERR_OK;
}

static bool
sha_parse(const char *hex, uint8_t out[32])
{
    if (strlen(hex) != 64)
        return false;
    for (int i = 0; i < 32; i++) {
        char byte[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        char *end;

        out[i] = (uint8_t)strtoul(byte, &end, 16);
        if (end != byte + 2)
            return false;
    }
    return true;
}

static enum err
keys_read(struct loader *loader, struct why *why)
{
    const struct pg_result *t = loader->tables[KEYS];

    for (int i = 0; i < pg_rows(t); i++) {
        struct master_key *key = &loader->keys[i];

        *key = (struct master_key){
            .id = (uint32_t)pg_i64(t, i, 0),
            .account = (uint32_t)pg_i64(t, i, 1),
            .scopes = (uint32_t)pg_i64(t, i, 3),
            .advertiser = str_of(pg_value(t, i, 4)),
            .rate_clicks_per_s = (uint32_t)pg_i64(t, i, 5),
            .revoked = pg_i64(t, i, 6) != 0,
        };
        if (!sha_parse(pg_value(t, i, 2), key->sha256))
            return err_set(why, ERR_CORRUPT, "api_key %u: no SHA-256", key->id);
    }
    return ERR_OK;
}

static enum err
arrays_make(struct loader *loader, struct why *why)
{
    size_t n[TABLES_N];

    for (int i = 0; i < TABLES_N; i++)
        n[i] = (size_t)pg_rows(loader->tables[i]) + 1;
    loader->campaigns = calloc(n[CAMPAIGNS], sizeof(*loader->campaigns));
    loader->rates = calloc(n[RATES], sizeof(*loader->rates));
    loader->budgets = calloc(n[BUDGETS], sizeof(*loader->budgets));
    loader->statuses = calloc(n[STATUSES], sizeof(*loader->statuses));
    loader->keys = calloc(n[KEYS], sizeof(*loader->keys));
    if (loader->campaigns == NULL || loader->rates == NULL ||
        loader->budgets == NULL || loader->statuses == NULL || loader->keys == NULL)
        return err_set(why, ERR_NOMEM, "master data: no memory");
    return ERR_OK;
}

enum err
snapshot_from_pg(struct snapshot **out, struct pg *pg, struct why *why)
{
    struct loader loader = {0};
    enum err err = queries_run(&loader, pg, why);

    *out = NULL;
    if (err == ERR_OK)
        err = arrays_make(&loader, why);
    if (err == ERR_OK)
        err = campaigns_read(&loader, why);
    if (err == ERR_OK)
        err = keys_read(&loader, why);
    if (err == ERR_OK)
        err = snapshot_make(
            out, (uint64_t)pg_i64(loader.tables[VERSION], 0, 0), loader.campaigns,
            (uint32_t)pg_rows(loader.tables[CAMPAIGNS]), loader.keys,
            (uint32_t)pg_rows(loader.tables[KEYS]), why);
    for (int i = 0; i < TABLES_N; i++)
        pg_result_free(&loader.tables[i]);
    free(loader.campaigns);
    free(loader.rates);
    free(loader.budgets);
    free(loader.statuses);
    free(loader.keys);
    return err;
}

#include "schema/migrate.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "common/hash.h"
#include "common/log.h"
#include "common/pg.h"
#include "schema/migrations.h"

/* The advisory lock that migrating processes wait for; held to the transaction's end. */
static const char lock_sql[] = "SELECT pg_advisory_xact_lock(4856072201)";
static const char table_sql[] =
    "CREATE TABLE IF NOT EXISTS schema_migration ("
    " number integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL,"
    " applied_at timestamptz NOT NULL DEFAULT now())";

static void
sha_of(const struct migration *migration, char hex[HASH_SHA256_HEX_SIZE])
{
    uint8_t digest[HASH_SHA256_SIZE];

    hash_sha256_of(migration->sql, migration->n, digest);
    hash_hex(digest, sizeof(digest), hex);
}

/* What is applied must be ours, byte for byte. */
static enum err
row_check(const struct pg_result *rows, int row, struct why *why)
{
    int64_t number = pg_i64(rows, row, 0);
    char hex[HASH_SHA256_HEX_SIZE];

    for (int i = 0; i < migrations_n; i++) {
        if (migrations[i].number != number)
            continue;
        sha_of(&migrations[i], hex);
        if (strcmp(hex, pg_value(rows, row, 2)) == 0)
            return ERR_OK;
        return err_set(
            why, ERR_CONFLICT,
            "migration %s was applied with another text: this database belongs "
            "to another build of clickledger",
            migrations[i].name);
    }
    return err_set(
        why, ERR_CONFLICT,
        "the database has migration %s, which this clickledger (%s) does not "
        "know: install a newer one",
        pg_value(rows, row, 1), CLICKLEDGER_VERSION);
}

static enum err
apply(struct pg *pg, const struct migration *migration, struct why *why)
{
    char number[16], hex[HASH_SHA256_HEX_SIZE];
    const char *const params[] = {number, migration->name, hex};
    struct why inner = {""};
    enum err err = pg_exec(pg, migration->sql, NULL, 0, NULL, &inner);

    if (err != ERR_OK)
        return err_set(why, err, "migration %s: %.180s", migration->name,
                       inner.text);
    (void)snprintf(number, sizeof(number), "%d", migration->number);
    sha_of(migration, hex);
    return pg_exec(pg,
                   "INSERT INTO schema_migration (number, name, sha256) "
                   "VALUES ($1, $2, $3)",
                   params, 3, NULL, why);
}

/* The first of our files that the database does not have; NULL when it has all. */
static enum err
pending_find(struct pg *pg, const struct migration **out, struct why *why)
{
    struct pg_result *rows = NULL;
    enum err err = pg_exec(
        pg, "SELECT number, name, sha256 FROM schema_migration ORDER BY number",
        NULL, 0, &rows, why);

    *out = NULL;
    for (int i = 0; err == ERR_OK && i < pg_rows(rows); i++)
        err = row_check(rows, i, why);
    for (int i = 0; err == ERR_OK && i < migrations_n && *out == NULL; i++) {
        bool there = false;

        for (int row = 0; row < pg_rows(rows); row++)
            there |= pg_i64(rows, row, 0) == migrations[i].number;
        if (!there)
            *out = &migrations[i];
    }
    pg_result_free(&rows);
    return err;
}

/* One transaction: the next pending file, if any. */
static enum err
step(struct pg *pg, const struct migration **done, struct why *why)
{
    enum err err = pg_begin(pg, why);

    *done = NULL;
    if (err == ERR_OK)
        err = pg_exec(pg, lock_sql, NULL, 0, NULL, why);
    if (err == ERR_OK)
        err = pg_exec(pg, table_sql, NULL, 0, NULL, why);
    if (err == ERR_OK)
        err = pending_find(pg, done, why);
    if (err == ERR_OK && *done != NULL)
        err = apply(pg, *done, why);
    if (err == ERR_OK)
        err = pg_commit(pg, why);
    if (err != ERR_OK)
        pg_rollback(pg);
    return err;
}

enum err
migrate(struct pg *pg, int *applied, struct why *why)
{
    const struct migration *done = NULL;
    int n = 0;

    assert(pg != NULL);
    for (;; n++) {
        enum err err = step(pg, &done, why);

        if (err != ERR_OK)
            return err;
        if (done == NULL)
            break;
        log_event(LOG_INFO, "migrated", LOG_TEXT("file", done->name));
    }
    if (applied != NULL)
        *applied = n;
    return ERR_OK;
}

#include "schema/master.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/file.h"
#include "common/log.h"
#include "common/pg.h"
#include "schema/snapshot.h"

struct master_source {
    pthread_mutex_t lock;     /* guards `current` */
    struct snapshot *current; /* one reference is ours */
    struct pg *pg;            /* NULL: the copy only */
    char path[FILE_PATH_MAX]; /* of the copy; empty: none */
};

static void
swap_in(struct master_source *source, struct snapshot *snapshot)
{
    struct snapshot *old;

    (void)pthread_mutex_lock(&source->lock);
    old = source->current;
    source->current = snapshot;
    (void)pthread_mutex_unlock(&source->lock);
    snapshot_drop(old);
}

static enum err
version_read(struct pg *pg, uint64_t *version, struct why *why)
{
    struct pg_result *result = NULL;
    enum err err =
        pg_exec(pg, "SELECT version FROM master_version", NULL, 0, &result, why);

    if (err == ERR_OK && pg_rows(result) != 1)
        err = err_set(why, ERR_CORRUPT, "table master_version has not one row");
    if (err == ERR_OK)
        *version = (uint64_t)pg_i64(result, 0, 0);
    pg_result_free(&result);
    return err;
}

/* All queries see one state of the database. */
static enum err
load(struct pg *pg, struct snapshot **out, struct why *why)
{
    enum err err = pg_begin(pg, why);

    if (err == ERR_OK)
        err = pg_exec(pg,
                      "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
                      NULL, 0, NULL, why);
    if (err == ERR_OK)
        err = snapshot_from_pg(out, pg, why);
    pg_rollback(pg);
    return err;
}

/* A copy that cannot be written is no reason to go on with old prices. */
static void
copy_write(const struct master_source *source, const struct master *master)
{
    struct why why;

    if (source->path[0] != '\0' &&
        snapshot_to_file(master, source->path, &why) != ERR_OK)
        log_event(LOG_ERROR, "master_copy_failed", LOG_TEXT("why", why.text));
}

enum err
master_poll(struct master_source *source, bool *changed, struct why *why)
{
    struct snapshot *snapshot = NULL;
    uint64_t version = 0;
    enum err err;

    *changed = false;
    if (source->pg == NULL)
        return ERR_OK;
    err = version_read(source->pg, &version, why);
    if (err != ERR_OK)
        return err;

    /* Another version, not only a later one: a database may be restored. */
    if (source->current != NULL &&
        snapshot_master(source->current)->version == version)
        return ERR_OK;
    err = load(source->pg, &snapshot, why);
    if (err != ERR_OK)
        return err;
    copy_write(source, snapshot_master(snapshot));
    swap_in(source, snapshot);
    *changed = true;
    return ERR_OK;
}

/* The first snapshot: PostgreSQL's, else the copy. */
static enum err
first_load(struct master_source *source, struct why *why)
{
    struct snapshot *snapshot = NULL;
    struct why copy_why = {""};
    enum err err = ERR_AGAIN;
    bool changed;

    if (source->pg != NULL)
        err = master_poll(source, &changed, why);
    if (source->pg != NULL && (err == ERR_OK || source->path[0] == '\0'))
        return err;

    enum err copy_err = snapshot_from_file(&snapshot, source->path, &copy_why);
    if (copy_err != ERR_OK) {
        if (source->pg == NULL)
            return err_set(why, copy_err, "%s", copy_why.text);
        return err; /* what PostgreSQL said is what the operator can mend */
    }
    if (source->pg != NULL)
        log_event(LOG_WARN, "master_from_copy", LOG_TEXT("why", why->text),
                  LOG_NUMBER("version", snapshot_master(snapshot)->version));
    swap_in(source, snapshot);
    return ERR_OK;
}

static struct master_source *
source_new(void)
{
    struct master_source *source = calloc(1, sizeof(*source));

    if (source != NULL)
        (void)pthread_mutex_init(&source->lock, NULL);
    return source;
}

enum err
master_open(struct master_source **out, const char *data_dir, const char *conninfo,
            struct why *why)
{
    struct master_source *source = source_new();
    struct why unused;
    enum err err = ERR_OK;
    int n = 0;

    *out = NULL;
    if (source == NULL)
        return err_set(why, ERR_NOMEM, "master data: no memory");
    if (data_dir != NULL)
        n = snprintf(source->path, sizeof(source->path), "%s/master.cache",
                     data_dir);
    if (n < 0 || (size_t)n >= sizeof(source->path))
        err = err_set(why, ERR_INVALID, "path %.80s...: too long", data_dir);
    else if (data_dir == NULL && conninfo == NULL)
        err = err_set(why, ERR_INVALID,
                      "master data: neither a folder nor PostgreSQL");
    if (err == ERR_OK && conninfo != NULL)
        err = pg_open(&source->pg, conninfo, why);
    if (err == ERR_OK)
        err = first_load(source, why == NULL ? &unused : why);
    if (err == ERR_OK)
        *out = source;
    else
        master_close(&source);
    return err;
}

void
master_close(struct master_source **source)
{
    if (*source == NULL)
        return;
    if ((*source)->pg != NULL)
        pg_close(&(*source)->pg);
    snapshot_drop((*source)->current);
    (void)pthread_mutex_destroy(&(*source)->lock);
    free(*source);
    *source = NULL;
}

const struct master *
master_take(struct master_source *source)
{
    struct snapshot *snapshot;

    (void)pthread_mutex_lock(&source->lock);
    snapshot = source->current;
    snapshot_take(snapshot);
    (void)pthread_mutex_unlock(&source->lock);
    return snapshot_master(snapshot);
}

void
master_drop(struct master_source *source, const struct master *master)
{
    (void)source;
    snapshot_drop((const struct snapshot *)(const void *)master);
}

struct master_source *
master_fixed(const struct master_campaign *campaigns, uint32_t campaigns_n,
             const struct master_key *keys, uint32_t keys_n)
{
    struct master_source *source = source_new();

    if (source == NULL || snapshot_make(&source->current, 1, campaigns, campaigns_n,
                                        keys, keys_n, NULL) != ERR_OK)
        master_close(&source);
    return source;
}

bool
master_campaign_active(const struct master_campaign *campaign, int64_t event_ms)
{
    for (uint32_t i = campaign->statuses_n; i > 0; i--)
        if (campaign->statuses[i - 1].valid_from_ms <= event_ms)
            return campaign->statuses[i - 1].active;
    return false;
}

int64_t
master_price(const struct master_campaign *campaign, int64_t event_ms,
             int64_t event_price_micros)
{
    uint32_t i = campaign->rates_n;

    if (i == 0)
        return 0;
    while (i > 1 && campaign->rates[i - 1].valid_from_ms > event_ms)
        i--;

    int64_t micros = campaign->rates[i - 1].micros;
    if (micros != MASTER_EVENT_PRICE)
        return micros;
    return event_price_micros < campaign->price_cap_micros
               ? event_price_micros
               : campaign->price_cap_micros;
}

int64_t
master_budget(const struct master_campaign *campaign, int32_t day)
{
    for (uint32_t i = campaign->budgets_n; i > 0; i--)
        if (campaign->budgets[i - 1].valid_from_day <= day)
            return campaign->budgets[i - 1].daily_micros;
    return MASTER_NO_BUDGET;
}

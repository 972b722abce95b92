/* The keeper: a slow loop beside the stages. It may wait for PostgreSQL as long as it
 * likes; no click waits for it. */
#include "deploy/stages.h"

#include <assert.h>
#include <string.h>

#include "billing/close.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/pg.h"
#include "schema/manifest.h"
#include "schema/migrate.h"

enum { TRIM_EVERY_S = 5, STORE_EVERY_S = 30 };

struct keeper {
    struct stages *stages;
    struct pg *pg;
    struct relay_cursor *cursor; /* with Kafka */
    bool away;                   /* PostgreSQL, said once */
    bool migrated;
    int64_t stored_below_us;
    int64_t rules_us, trim_us,
        store_us; /* when each is due, by the monotone clock */
};

static void
postgres_state(struct keeper *keeper, enum err err, const struct why *why)
{
    bool away = err != ERR_OK;

    if (away && !keeper->away)
        log_event(LOG_WARN, "postgres_away", LOG_TEXT("why", why->text));
    if (!away && keeper->away)
        log_event(LOG_INFO, "postgres_back", LOG_TEXT("why", ""));
    keeper->away = away;
}

static void
master_follow(struct keeper *keeper)
{
    struct why why = {{0}};
    bool changed = false;
    int applied = 0;

    /* The database may have been away, or newly made, when the process started. */
    if (!keeper->migrated) {
        enum err err = migrate(keeper->pg, &applied, &why);
        postgres_state(keeper, err, &why);
        if (err != ERR_OK)
            return;
        keeper->migrated = true;
    }
    postgres_state(keeper, master_poll(keeper->stages->master, &changed, &why),
                   &why);
    if (changed) {
        const struct master *master = master_take(keeper->stages->master);
        log_event(LOG_INFO, "master_changed",
                  LOG_NUMBER("version", (int64_t)master->version),
                  LOG_NUMBER("campaigns", master->campaigns_n),
                  LOG_NUMBER("keys", master->keys_n));
        master_drop(keeper->stages->master, master);
    }
}

static void
rules_follow(struct keeper *keeper)
{
    struct why why = {{0}};
    bool changed = false;

    if (ruleset_poll(keeper->stages->rules, &changed, &why) != ERR_OK) {
        log_event(LOG_ERROR, "ruleset_refused", LOG_TEXT("why", why.text),
                  LOG_TEXT("effect", "the rule set in force stays"));
    } else if (changed) {
        const struct ruleset *set = ruleset_take(keeper->stages->rules);
        log_event(LOG_INFO, "ruleset_changed",
                  LOG_NUMBER("number", ruleset_number(set)));
        ruleset_drop(keeper->stages->rules, set);
    }
}

static void
received_follow(struct keeper *keeper)
{
    struct why why = {{0}};
    int64_t sent_us;

    if (!keeper->migrated)
        return;
    enum err err = stages_sent(keeper->stages, &sent_us, &why);
    if (err == ERR_OK)
        err = received_store_below(keeper->stages->log, keeper->pg, sent_us,
                                   &keeper->stored_below_us, &why);
    if (err != ERR_OK)
        log_event(LOG_WARN, "received_not_stored", LOG_TEXT("why", why.text));
}

/* With Kafka, whoever archives it: as far as it is of this very spool, and acknowledged. */
static void
archived_get(struct keeper *keeper, uint64_t *listed)
{
    struct stages *stages = keeper->stages;
    struct clicklog_last archived[CLICKLOG_PARTITIONS_MAX] = {{0, 0}};

    if (keeper->cursor == NULL &&
        relay_cursor_open(&keeper->cursor, stages->relay_dir, stages->log, NULL) !=
            ERR_OK)
        return;
    control_archived_get(stages->control, archived);
    for (uint32_t p = 0; p < clicklog_partitions(stages->log); p++) {
        uint64_t sent = relay_cursor_get(keeper->cursor, p), offset = 0;

        if (archived[p].count > 0 && clicklog_offset_of(stages->log, p, archived[p],
                                                        &offset, NULL) == ERR_OK)
            listed[p] = offset < sent ? offset : sent;
    }
}

/* What is archived: by this process, or, as its lists say, by another. */
static void
listed_get(struct keeper *keeper, uint64_t *listed)
{
    const struct stages *stages = keeper->stages;
    struct manifest manifest;
    struct why why;

    if (stages->control != NULL) {
        archived_get(keeper, listed);
        return;
    }
    for (uint32_t p = 0;
         stages->archive != NULL && p < clicklog_partitions(stages->log); p++)
        listed[p] = archive_listed(stages->archive, p);
    if (stages->archive != NULL ||
        manifest_read(&manifest, stages->archive_dir, INT64_MAX, &why) != ERR_OK)
        return;
    memcpy(listed, manifest.next, sizeof(manifest.next));
    manifest_free(&manifest);
}

/* Trims only what the archive holds, and only so much that keep_bytes stay: readers that
 * restart then find their clicks in the log and not in files. */
static void
log_trim(struct keeper *keeper)
{
    struct stages *stages = keeper->stages;
    uint64_t keep = (uint64_t)stages->config->clicklog_keep_bytes;
    uint64_t listed[MANIFEST_PARTITIONS_MAX] = {0};
    struct ingest_trim trim = {.received_drop_us = keeper->stored_below_us};
    struct clicklog_stats stats;

    clicklog_stats_get(stages->log, &stats);
    listed_get(keeper, listed);
    for (uint32_t p = 0; p < clicklog_partitions(stages->log); p++) {
        uint64_t first = 0, next = 0;

        if (stats.bytes_used <= keep ||
            clicklog_range(stages->log, p, &first, &next, NULL) != ERR_OK)
            continue;
        double over = (double)(stats.bytes_used - keep) / (double)stats.bytes_used;
        uint64_t below = first + (uint64_t)((double)(next - first) * over);
        trim.below[p] = below < listed[p] ? below : listed[p];
    }
    ingest_trim_request(stages->ingest, &trim);
}

/* Verdicts whose clicks have left the log, and which stand in the archive; with Kafka, a
 * copy's verdicts whose clicks have left the topic. */
static void
verdicts_trim(const struct stages *stages)
{
    bool kafka = stages->control != NULL;
    struct clicklog *log =
        stages->aggregate_log != NULL ? stages->aggregate_log : stages->archive_log;

    if (stages->verdicts == NULL || log == NULL ||
        (!kafka && (stages->aggregate == NULL || stages->archive == NULL)))
        return;
    for (uint32_t p = 0; p < clicklog_partitions(log); p++) {
        uint64_t first = 0, next = 0;

        if (clicklog_range(log, p, &first, &next, NULL) != ERR_OK)
            continue;
        if (!kafka && archive_live_listed(stages->archive, p) < first)
            first = archive_live_listed(stages->archive, p);
        (void)verdictlog_trim(stages->verdicts, p, first, NULL);
    }
}

static bool
due(int64_t *at_us, int64_t every_s)
{
    int64_t now_us = clock_mono_us();

    if (now_us < *at_us)
        return false;
    *at_us = now_us + every_s * CLOCK_SECOND_US;
    return true;
}

void *
stages_keeper(void *ctx)
{
    struct stages *stages = ctx;
    struct keeper keeper = {.stages = stages};
    char conninfo[PG_CONNINFO_MAX];
    struct why why;

    assert(stages->master != NULL);
    if (pg_conninfo(stages->config->postgres_conninfo,
                    stages->config->postgres_password_file, conninfo,
                    &why) != ERR_OK ||
        pg_open(&keeper.pg, conninfo, &why) != ERR_OK) {
        log_event(LOG_ERROR, "keeper_stopped", LOG_TEXT("why", why.text));
        return NULL;
    }
    while (stages_sleep(stages, stages->config->master_poll_ms * 1000)) {
        master_follow(&keeper);
        if (due(&keeper.rules_us, stages->config->fraud_reload_s))
            rules_follow(&keeper);
        if (stages->ingest != NULL && due(&keeper.store_us, STORE_EVERY_S))
            received_follow(&keeper);
        if (!due(&keeper.trim_us, TRIM_EVERY_S))
            continue;
        if (stages->ingest != NULL)
            log_trim(&keeper);
        verdicts_trim(stages);
    }
    relay_cursor_close(&keeper.cursor);
    pg_close(&keeper.pg);
    return NULL;
}

#define _GNU_SOURCE /* flock */
#include "deploy/stages.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/file.h"
#include "common/kafka.h"
#include "common/log.h"
#include "common/pg.h"
#include "deploy/telemetry.h"
#include "schema/migrate.h"

enum { NAP_US = 50000 };

bool
stages_sleep(struct stages *stages, int64_t us)
{
    int64_t until_us = clock_mono_us() + us;

    while (!atomic_load(&stages->stop) && clock_mono_us() < until_us)
        clock_sleep_us(NAP_US);
    return !atomic_load(&stages->stop);
}

/* One process a data directory and stage that writes: held as long as the process lives,
 * so that a crash leaves nothing to clean up. */
static enum err
stage_hold(const char *dir, const char *name, int *fd, struct why *why)
{
    char path[FILE_PATH_MAX], text[32];

    (void)snprintf(path, sizeof(path), "%s/%s.pid", dir, name);
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (*fd < 0)
        return err_set(why, ERR_FATAL, "%s: %s", path, strerror(errno));
    if (flock(*fd, LOCK_EX | LOCK_NB) != 0)
        return err_set(
            why, ERR_CONFLICT,
            "another clickledger runs the stage %s on %s (its process id is in %s)",
            name, dir, path);
    int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    if (ftruncate(*fd, 0) != 0)
        return err_set(why, ERR_FATAL, "%s: %s", path, strerror(errno));
    return file_write_all(*fd, text, (size_t)n, path, why);
}

static const struct {
    unsigned which;
    const char *name;
    bool
        kafka; /* several may share a data directory's log, but not Kafka's copies */
} holds[STAGES_N] = {
    {STAGE_INGEST, "ingest", false},       {STAGE_ARCHIVE, "archive", false},
    {STAGE_RELAY, "relay", true},          {STAGE_AGGREGATE, "aggregate", true},
    {STAGE_DASHBOARD, "dashboard", false}, {STAGE_SCHEDULER, "scheduler", false},
};

unsigned
stage_of(const char *name)
{
    for (unsigned i = 0; i < STAGES_N; i++)
        if (strcmp(holds[i].name, name) == 0)
            return holds[i].which;
    return 0;
}

static bool
is_held(const struct stages *stages, unsigned i)
{
    if ((stages->which & holds[i].which) == 0 ||
        (holds[i].which & (STAGE_DASHBOARD | STAGE_SCHEDULER)) != 0)
        return false;
    return !holds[i].kafka || kafka_wanted(stages->config);
}

static enum err
stages_hold(struct stages *stages, struct why *why)
{
    enum err err = ERR_OK;

    for (unsigned i = 0; i < STAGES_N && err == ERR_OK; i++)
        if (is_held(stages, i))
            err = stage_hold(stages->config->data_dir, holds[i].name,
                             &stages->locks[i], why);
    return err;
}

static void
stages_let_go(struct stages *stages)
{
    for (unsigned i = 0; i < STAGES_N; i++) {
        if (stages->locks[i] >= 0)
            (void)close(stages->locks[i]);
        stages->locks[i] = -1;
    }
}

/* A database that is away is no reason not to accept clicks, as long as a copy of the
 * master data says whose they are. */
static enum err
database_prepare(const char *conninfo, struct why *why)
{
    struct pg *pg = NULL;
    int applied = 0;
    enum err err = pg_open(&pg, conninfo, why);

    if (err == ERR_OK)
        err = migrate(pg, &applied, why);
    if (err == ERR_OK && applied > 0)
        log_event(LOG_INFO, "migrated", LOG_NUMBER("applied", applied));
    pg_close(&pg);
    if (err == ERR_AGAIN) {
        log_event(
            LOG_WARN, "postgres_away", LOG_TEXT("why", why->text),
            LOG_TEXT("effect", "billing waits; master data comes from the copy"));
        return ERR_OK;
    }
    return err;
}

static enum err
data_open(struct stages *stages, struct why *why)
{
    const struct config *config = stages->config;
    char conninfo[PG_CONNINFO_MAX];
    enum err err = pg_conninfo(config->postgres_conninfo,
                               config->postgres_password_file, conninfo, why);

    if (err == ERR_OK)
        err = database_prepare(conninfo, why);
    if (err == ERR_OK)
        err = master_open(&stages->master, config->data_dir, conninfo, why);
    if (err == ERR_OK)
        err = ruleset_open(&stages->rules, config->fraud_ruleset_dir,
                           config->data_dir, why);
    if (err == ERR_OK && (stages->which & (STAGE_ALL & ~STAGE_DASHBOARD)) != 0)
        err = stages_log_open(stages, why);
    return err;
}

static enum err
path_start(struct stages *stages, struct why *why)
{
    const struct config *config = stages->config;
    enum err err = ERR_OK;

    if ((stages->which & STAGE_ARCHIVE) != 0)
        err = archive_start(&stages->archive, config, stages->archive_dir,
                            stages->archive_log, stages->verdicts, stages->control,
                            why);
    if (err == ERR_OK && (stages->which & STAGE_AGGREGATE) != 0) {
        const struct aggregate_deps deps = {
            .log = stages->aggregate_log,
            .verdicts = stages->verdicts,
            .master = stages->master,
            .rules = stages->rules,
            .archive_dir = kafka_wanted(config) ? NULL : stages->archive_dir,
        };
        err = aggregate_start(&stages->aggregate, config, &deps, why);
    }
    if (err == ERR_OK && (stages->which & STAGE_RELAY) != 0 && kafka_wanted(config))
        err = relay_start(&stages->relay, config, stages->log, stages->control,
                          stages->relay_dir, why);
    if (err == ERR_OK && (stages->which & STAGE_INGEST) != 0)
        err =
            ingest_start(&stages->ingest, config, stages->log, stages->master, why);
    if (err == ERR_OK && (stages->which & STAGE_DASHBOARD) != 0)
        err = dashboard_start(&stages->dashboard, config, stages->master, why);
    if (err == ERR_OK && (stages->which & (STAGE_INGEST | STAGE_DASHBOARD)) == 0)
        err = telemetry_start(&stages->telemetry, config, why);
    return err;
}

static enum err
threads_start(struct stages *stages, struct why *why)
{
    if (pthread_create(&stages->keeper, NULL, stages_keeper, stages) != 0)
        return err_set(why, ERR_FATAL, "run: cannot start the keeper thread");
    stages->keeper_runs = true;
    if ((stages->which & STAGE_SCHEDULER) == 0 ||
        stages->config->billing_schedule == 0)
        return ERR_OK;
    if (pthread_create(&stages->scheduler, NULL, stages_scheduler, stages) != 0)
        return err_set(why, ERR_FATAL, "run: cannot start the scheduler thread");
    stages->scheduler_runs = true;
    return ERR_OK;
}

enum err
stages_start(struct stages *stages, const struct config *config, unsigned which,
             struct why *why)
{
    assert(stages != NULL);
    assert(which != 0);
    *stages = (struct stages){
        .config = config, .which = which, .locks = {-1, -1, -1, -1, -1, -1}};
    (void)snprintf(stages->archive_dir, sizeof(stages->archive_dir), "%s/archive",
                   config->data_dir);
    relay_dir(config, stages->relay_dir);
    (void)snprintf(stages->judge_dir, sizeof(stages->judge_dir), "%s/judge",
                   config->data_dir);
    enum err err = file_mkdirs(config->data_dir, why);
    if (err == ERR_OK)
        err = stages_hold(stages, why);
    if (err == ERR_OK)
        err = data_open(stages, why);
    if (err == ERR_OK)
        err = path_start(stages, why);
    if (err == ERR_OK)
        err = threads_start(stages, why);
    if (err != ERR_OK)
        stages_stop(stages);
    return err;
}

void
stages_stop(struct stages *stages)
{
    assert(stages != NULL);
    atomic_store(&stages->stop, true);
    if (stages->scheduler_runs)
        (void)pthread_join(stages->scheduler, NULL);
    if (stages->keeper_runs)
        (void)pthread_join(stages->keeper, NULL);
    stages->scheduler_runs = stages->keeper_runs = false;
    if (stages->ingest != NULL)
        ingest_stop(&stages->ingest);
    if (stages->relay != NULL)
        relay_stop(&stages->relay);
    if (stages->aggregate != NULL)
        aggregate_stop(&stages->aggregate);
    if (stages->archive != NULL)
        archive_stop(&stages->archive);
    if (stages->dashboard != NULL)
        dashboard_stop(&stages->dashboard);
    if (stages->telemetry != NULL)
        http_stop(&stages->telemetry);
    stages_log_close(stages);
    if (stages->rules != NULL)
        ruleset_close(&stages->rules);
    if (stages->master != NULL)
        master_close(&stages->master);
    stages_let_go(stages);
}

#include "deploy/session.h"

#include <assert.h>
#include <stdio.h>

#include "common/file.h"
#include "deploy/stages.h"
#include "schema/migrate.h"

enum err
session_open_database(struct session *session, const struct config *config,
                      struct why *why)
{
    char conninfo[PG_CONNINFO_MAX];
    int applied;

    *session = (struct session){.config = config};
    (void)snprintf(session->archive_dir, sizeof(session->archive_dir), "%s/archive",
                   config->data_dir);
    (void)snprintf(session->judge_dir, sizeof(session->judge_dir), "%s/judge",
                   config->data_dir);
    enum err err = pg_conninfo(config->postgres_conninfo,
                               config->postgres_password_file, conninfo, why);
    if (err == ERR_OK)
        err = pg_open(&session->pg, conninfo, why);
    if (err == ERR_OK)
        err = migrate(session->pg, &applied, why);
    return err;
}

enum err
session_open(struct session *session, const struct config *config, struct why *why)
{
    char conninfo[PG_CONNINFO_MAX];
    enum err err = session_open_database(session, config, why);

    if (err == ERR_OK)
        err = file_mkdirs(config->data_dir, why);
    if (err == ERR_OK)
        err = pg_conninfo(config->postgres_conninfo, config->postgres_password_file,
                          conninfo, why);
    if (err == ERR_OK)
        err = master_open(&session->master, config->data_dir, conninfo, why);
    if (err == ERR_OK)
        err = ruleset_open(&session->rules_source, config->fraud_ruleset_dir,
                           config->data_dir, why);
    if (err != ERR_OK)
        return err;
    session->snapshot = master_take(session->master);
    session->rules = ruleset_take(session->rules_source);
    assert(session->snapshot != NULL);
    return ERR_OK;
}

void
session_close(struct session *session)
{
    if (session->rules != NULL)
        ruleset_drop(session->rules_source, session->rules);
    if (session->snapshot != NULL)
        master_drop(session->master, session->snapshot);
    if (session->rules_source != NULL)
        ruleset_close(&session->rules_source);
    if (session->master != NULL)
        master_close(&session->master);
    pg_close(&session->pg);
}

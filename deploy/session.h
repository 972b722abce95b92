/* deploy/session.h - what a command needs of the house: paths, database, a snapshot of the
 * master data and the rule set in force.
 *
 * Errors   ERR_AGAIN: PostgreSQL is away.
 * Threads  The command's.
 */
#ifndef DEPLOY_SESSION_H
#define DEPLOY_SESSION_H

#include "common/config.h"
#include "common/err.h"
#include "common/pg.h"
#include "fraud/ruleset.h"
#include "schema/master.h"

struct session {
    const struct config *config;
    char archive_dir[1024];
    char judge_dir[1024];
    struct pg *pg;
    struct master_source *master;
    const struct master *snapshot;
    struct ruleset_source *rules_source;
    const struct ruleset *rules;
};

/* Migrates the database if it is older. */
enum err session_open(struct session *session, const struct config *config,
                      struct why *why);
void session_close(struct session *session);
/* Only the database: for master data commands, which may be the first to come. */
enum err session_open_database(struct session *session, const struct config *config,
                               struct why *why);

#endif

/* schema/migrate.h - the numbered SQL files in schema/sql, built into the binary, applied
 * in order, each in a transaction, under an advisory lock; their number and SHA-256 are
 * kept in table schema_migration.
 *
 * Errors   ERR_CONFLICT: the database is newer than this binary, or an applied file
 *          differs from ours. ERR_AGAIN: PostgreSQL is away.
 * Memory   None kept.
 * Threads  One.
 */
#ifndef SCHEMA_MIGRATE_H
#define SCHEMA_MIGRATE_H

#include "common/err.h"

struct pg;

/* *applied (may be NULL) gets how many files were applied now. Waits for another process
 * that is at it. */
enum err migrate(struct pg *pg, int *applied, struct why *why);

#endif

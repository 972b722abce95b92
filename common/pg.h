/* common/pg.h - PostgreSQL: the only user of libpq.
 *
 * One struct pg is one connection; it reconnects by itself at the next call after an
 * error, never inside a transaction: until pg_rollback (or a failed pg_commit) every call is
 * then ERR_AGAIN. Parameters and results are text; times are UTC, dates ISO, whatever the
 * server's settings.
 *
 * Memory   A result is the caller's, freed by pg_result_free.
 * Errors   ERR_AGAIN: server away, shut down, serialisation failure, lost connection;
 *          ERR_CONFLICT: unique, exclusion, foreign key or check violation, or RAISE from
 *          our SQL; ERR_FULL: its disk; ERR_FATAL: the rest, also pg_commit of a
 *          transaction in which a statement had failed. why holds the server's primary
 *          message. ERR_AGAIN of pg_commit leaves open whether it happened: look.
 * Threads  None: one connection, one thread.
 */
#ifndef COMMON_PG_H
#define COMMON_PG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

struct pg;
struct pg_result;

enum { PG_CONNINFO_MAX = 1024 };

/* conninfo with the password that a file holds; an empty file name: conninfo as it is. */
enum err pg_conninfo(const char *conninfo, const char *password_file,
                     char out[PG_CONNINFO_MAX], struct why *why);
/* Does not connect yet. conninfo is libpq's. */
enum err pg_open(struct pg **out, const char *conninfo, struct why *why);
void pg_close(struct pg **pg);
/* Runs sql, which may hold several statements if n is 0. params[i] NULL is SQL NULL.
 * *out may be NULL when no rows matter. */
enum err pg_exec(struct pg *pg, const char *sql, const char *const *params, int n,
                 struct pg_result **out, struct why *why);
int pg_rows(const struct pg_result *result);
/* NULL for SQL NULL. Borrowed from result. */
const char *pg_value(const struct pg_result *result, int row, int column);
int64_t pg_i64(const struct pg_result *result, int row, int column);
void pg_result_free(struct pg_result **result);

enum err pg_begin(struct pg *pg, struct why *why);
enum err pg_commit(struct pg *pg, struct why *why);
/* Never fails: a broken connection is rolled back by its server. */
void pg_rollback(struct pg *pg);

/* COPY table (columns) FROM STDIN, text format: begin, rows, end. A row is built with
 * pg_copy_field (escaped; NULL is \N) and pg_copy_row_end. */
enum err pg_copy_begin(struct pg *pg, const char *copy_sql, struct why *why);
void pg_copy_field(struct pg *pg, const char *text);
void pg_copy_i64(struct pg *pg, int64_t value);
enum err pg_copy_row_end(struct pg *pg, struct why *why);
enum err pg_copy_end(struct pg *pg, int64_t *rows, struct why *why);

/* A session lock by key; *got tells whether it is ours. Freed by unlock or disconnect. */
enum err pg_try_lock(struct pg *pg, int64_t key, bool *got, struct why *why);
enum err pg_unlock(struct pg *pg, int64_t key, struct why *why);

#endif

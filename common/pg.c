#include "common/pg.h"

#include <assert.h>
#include <inttypes.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"

enum {
    COPY_CHUNK = 65536, /* rows are handed to libpq in pieces of about this size */
    COPY_ROW_MAX = 16 << 20, /* one row */
    NUMBER_SIZE = 24,        /* an int64 as text */
    SQLSTATE_SIZE = 5,
    PASSWORD_BYTES_MAX = 512,
};

struct pg {
    PGconn *conn; /* NULL: never connected, or thrown away */
    char *conninfo;
    bool
        in_transaction; /* begun, and neither committed nor rolled back by our caller */
    bool copying;
    bool row_begun;
    struct buf rows;
};

struct pg_result {
    PGresult *rows;
};

/* What a server's SQLSTATE means for the caller; the longest prefix that fits counts. */
static const struct {
    const char *prefix;
    enum err code;
} states[] = {
    {"08", ERR_AGAIN},       /* connection */
    {"23505", ERR_CONFLICT}, /* unique */
    {"23503", ERR_CONFLICT}, /* foreign key */
    {"23514", ERR_CONFLICT}, /* check */
    {"23P01", ERR_CONFLICT}, /* exclusion */
    {"40001", ERR_AGAIN},    /* serialisation */
    {"40P01", ERR_AGAIN},    /* deadlock */
    {"53", ERR_AGAIN},       /* too many connections, out of memory */
    {"53100", ERR_FULL},     /* disk full */
    {"55P03", ERR_AGAIN},    /* lock not available */
    {"57014", ERR_AGAIN},    /* cancelled, statement time-out */
    {"57P", ERR_AGAIN},      /* shutting down, starting up */
    {"P0001", ERR_CONFLICT}, /* RAISE */
};

static enum err
state_code(const char *state)
{
    enum err code = ERR_FATAL;
    size_t best = 0;

    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
        size_t n = strlen(states[i].prefix);

        if (n > best && strncmp(state, states[i].prefix, n) == 0) {
            best = n;
            code = states[i].code;
        }
    }
    return code;
}

/* libpq ends its messages with a line feed, and may put several lines in one. */
static enum err
lost(const char *message, struct why *why)
{
    enum err err = err_set(why, ERR_AGAIN, "postgres: %s", message);

    if (why == NULL)
        return err;
    for (char *p = why->text; *p != '\0'; p++)
        if (*p == '\n')
            *p = p[1] == '\0' ? '\0' : ' ';
    return err;
}

static enum err
failed(const struct pg *pg, const PGresult *result, struct why *why)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

    if (state == NULL || message == NULL)
        return lost(PQerrorMessage(pg->conn), why);
    return err_set(why, state_code(state), "postgres: %s", message);
}

/* The server's notices are chatter ("relation exists, skipping"). */
static void
ignore_notice(void *ctx, const PGresult *result)
{
    (void)ctx;
    (void)result;
}

enum err
pg_conninfo(const char *conninfo, const char *password_file,
            char out[PG_CONNINFO_MAX], struct why *why)
{
    struct buf secret = BUF_MAX(PASSWORD_BYTES_MAX),
               text = BUF_MAX(PG_CONNINFO_MAX - 1);
    enum err err = ERR_OK;

    buf_add_text(&text, conninfo);
    if (password_file[0] != '\0') {
        err = file_read(password_file, &secret, why);
        while (secret.n > 0 &&
               (secret.p[secret.n - 1] == '\n' || secret.p[secret.n - 1] == '\r'))
            secret.n--;
        buf_add_text(&text, " password='");
        for (size_t i = 0; i < secret.n; i++) {
            if (secret.p[i] == '\'' || secret.p[i] == '\\')
                buf_add(&text, "\\", 1);
            buf_add(&text, &secret.p[i], 1);
        }
        buf_add_text(&text, "'");
    }
    if (err == ERR_OK && text.failed)
        err = err_set(why, ERR_INVALID,
                      "postgres.conninfo and password are over %d bytes",
                      PG_CONNINFO_MAX - 1);
    if (err == ERR_OK) {
        memcpy(out, text.p, text.n);
        out[text.n] = '\0';
    }
    buf_free(&secret);
    buf_free(&text);
    return err;
}

enum err
pg_open(struct pg **out, const char *conninfo, struct why *why)
{
    char *message = NULL;
    struct pg *pg;

    assert(out != NULL);
    *out = NULL;

    PQconninfoOption *options = PQconninfoParse(conninfo, &message);
    if (options == NULL) {
        (void)lost(message == NULL ? "no memory" : message, why);
        PQfreemem(message);
        return ERR_INVALID;
    }
    PQconninfoFree(options);

    pg = calloc(1, sizeof(*pg));
    if (pg != NULL)
        pg->conninfo = strdup(conninfo);
    if (pg == NULL || pg->conninfo == NULL) {
        pg_close(&pg);
        return err_set(why, ERR_NOMEM, "postgres: no memory");
    }
    pg->rows = BUF_MAX(COPY_ROW_MAX + COPY_CHUNK);
    *out = pg;
    return ERR_OK;
}

static void
disconnect(struct pg *pg)
{
    if (pg->conn != NULL)
        PQfinish(pg->conn);
    pg->conn = NULL;
    pg->copying = false;
    buf_reset(&pg->rows);
}

void
pg_close(struct pg **pg)
{
    assert(pg != NULL);
    if (*pg == NULL)
        return;
    disconnect(*pg);
    buf_free(&(*pg)->rows);
    free((*pg)->conninfo);
    free(*pg);
    *pg = NULL;
}

/* Times and dates come back as text, so the session must not depend on the server's
 * settings. What stands before dbname is a default that conninfo may override. */
static enum err
connect_now(struct pg *pg, struct why *why)
{
    const char *const names[] = {"connect_timeout", "fallback_application_name",
                                 "dbname", "client_encoding", NULL};
    const char *const values[] = {"10", "clickledger", pg->conninfo, "UTF8", NULL};
    PGresult *result;
    enum err err = ERR_OK;

    pg->conn = PQconnectdbParams(names, values, 1);
    if (pg->conn == NULL)
        return lost("no memory", why);
    if (PQstatus(pg->conn) != CONNECTION_OK) {
        err = lost(PQerrorMessage(pg->conn), why);
        disconnect(pg);
        return err;
    }
    (void)PQsetNoticeReceiver(pg->conn, ignore_notice, NULL);
    result = PQexec(pg->conn, "SET timezone = 'UTC'; SET datestyle = 'ISO, YMD';"
                              "SET standard_conforming_strings = on");
    if (PQresultStatus(result) != PGRES_COMMAND_OK) {
        err = failed(pg, result, why);
        disconnect(pg);
    }
    PQclear(result);
    return err;
}

/* Ends a COPY that its caller gave up, with nothing copied. */
static void
copy_abort(struct pg *pg)
{
    if (!pg->copying)
        return;
    pg->copying = false;
    buf_reset(&pg->rows);
    if (PQputCopyEnd(pg->conn, "given up by the client") != 1) {
        disconnect(pg);
        return;
    }
    for (PGresult *r = PQgetResult(pg->conn); r != NULL; r = PQgetResult(pg->conn))
        PQclear(r);
}

/* A usable connection, new if the last one broke; never in the middle of a transaction,
 * whose first half would be lost without a word. */
static enum err
ensure(struct pg *pg, struct why *why)
{
    assert(pg != NULL);
    copy_abort(pg);
    if (pg->conn != NULL && PQstatus(pg->conn) == CONNECTION_OK)
        return ERR_OK;
    if (pg->in_transaction)
        return err_set(why, ERR_AGAIN,
                       "postgres: the connection was lost inside a transaction");
    disconnect(pg);
    return connect_now(pg, why);
}

static PGresult *
run(struct pg *pg, const char *sql, const char *const *params, int n)
{
    return n == 0 ? PQexec(pg->conn, sql)
                  : PQexecParams(pg->conn, sql, n, NULL, params, NULL, NULL, 0);
}

/* Follows BEGIN and COMMIT that came as plain SQL; a lost connection tells nothing. */
static void
transaction_follow(struct pg *pg)
{
    PGTransactionStatusType status = PQtransactionStatus(pg->conn);

    if (status == PQTRANS_IDLE)
        pg->in_transaction = false;
    else if (status == PQTRANS_INTRANS || status == PQTRANS_INERROR)
        pg->in_transaction = true;
}

enum err
pg_exec(struct pg *pg, const char *sql, const char *const *params, int n,
        struct pg_result **out, struct why *why)
{
    PGresult *rows;
    enum err err;

    assert(sql != NULL);
    assert(n >= 0);
    if (out != NULL)
        *out = NULL;
    err = ensure(pg, why);
    if (err != ERR_OK)
        return err;
    rows = run(pg, sql, params, n);
    switch ((int)PQresultStatus(rows)) {
    case PGRES_EMPTY_QUERY:
    case PGRES_COMMAND_OK:
    case PGRES_TUPLES_OK:
        break;
    case PGRES_COPY_IN:
    case PGRES_COPY_OUT:
    case PGRES_COPY_BOTH:
        disconnect(pg);
        err = err_set(why, ERR_FATAL, "postgres: COPY belongs to pg_copy_begin");
        break;
    default:
        err = failed(pg, rows, why);
    }
    transaction_follow(pg);
    if (err == ERR_OK && out != NULL) {
        *out = malloc(sizeof(**out));
        if (*out != NULL) {
            (*out)->rows = rows;
            return ERR_OK;
        }
        err = err_set(why, ERR_NOMEM, "postgres: no memory for a result");
    }
    PQclear(rows);
    return err;
}

int
pg_rows(const struct pg_result *result)
{
    return PQntuples(result->rows);
}

const char *
pg_value(const struct pg_result *result, int row, int column)
{
    assert(row >= 0 && row < PQntuples(result->rows));
    assert(column >= 0 && column < PQnfields(result->rows));
    if (PQgetisnull(result->rows, row, column))
        return NULL;
    return PQgetvalue(result->rows, row, column);
}

int64_t
pg_i64(const struct pg_result *result, int row, int column)
{
    const char *text = pg_value(result, row, column);

    return text == NULL ? 0 : strtoll(text, NULL, 10);
}

void
pg_result_free(struct pg_result **result)
{
    assert(result != NULL);
    if (*result == NULL)
        return;
    PQclear((*result)->rows);
    free(*result);
    *result = NULL;
}

enum err
pg_begin(struct pg *pg, struct why *why)
{
    assert(!pg->in_transaction);
    return pg_exec(pg, "BEGIN", NULL, 0, NULL, why);
}

enum err
pg_commit(struct pg *pg, struct why *why)
{
    enum err err = ensure(pg, why);

    if (err == ERR_OK) {
        PGresult *result = PQexec(pg->conn, "COMMIT");

        if (PQresultStatus(result) != PGRES_COMMAND_OK)
            err = failed(pg, result, why);
        else if (strcmp(PQcmdStatus(result), "COMMIT") != 0)
            err = err_set(
                why, ERR_FATAL,
                "postgres: rolled back, as one of its statements had failed");
        PQclear(result);
    }
    pg->in_transaction = false;
    return err;
}

void
pg_rollback(struct pg *pg)
{
    assert(pg != NULL);
    copy_abort(pg);
    if (pg->conn != NULL && PQtransactionStatus(pg->conn) != PQTRANS_IDLE) {
        PGresult *result = PQexec(pg->conn, "ROLLBACK");
        bool done = PQresultStatus(result) == PGRES_COMMAND_OK;

        PQclear(result);
        if (!done)
            disconnect(pg);
    }
    pg->in_transaction = false;
}

enum err
pg_copy_begin(struct pg *pg, const char *copy_sql, struct why *why)
{
    enum err err = ensure(pg, why);

    if (err != ERR_OK)
        return err;

    PGresult *result = PQexec(pg->conn, copy_sql);
    pg->copying = PQresultStatus(result) == PGRES_COPY_IN;
    pg->row_begun = false;
    buf_reset(&pg->rows);
    if (!pg->copying)
        err = failed(pg, result, why);
    PQclear(result);
    return err;
}

static void
field_begin(struct pg *pg)
{
    assert(pg->copying);
    if (pg->row_begun)
        buf_add(&pg->rows, "\t", 1);
    pg->row_begun = true;
}

void
pg_copy_field(struct pg *pg, const char *text)
{
    field_begin(pg);
    if (text == NULL) {
        buf_add(&pg->rows, "\\N", 2);
        return;
    }
    for (;;) {
        size_t n = strcspn(text, "\\\t\n\r");

        buf_add(&pg->rows, text, n);
        text += n;
        if (*text == '\0')
            return;
        char c = *text == '\t'   ? 't'
                 : *text == '\n' ? 'n'
                 : *text == '\r' ? 'r'
                                 : '\\';
        buf_add(&pg->rows, (const char[]){'\\', c}, 2);
        text++;
    }
}

void
pg_copy_i64(struct pg *pg, int64_t value)
{
    char text[NUMBER_SIZE];
    int n = snprintf(text, sizeof(text), "%" PRId64, value);

    field_begin(pg);
    buf_add(&pg->rows, text, (size_t)n);
}

static enum err
copy_flush(struct pg *pg, struct why *why)
{
    if (pg->rows.n == 0)
        return ERR_OK;
    if (PQputCopyData(pg->conn, (const char *)pg->rows.p, (int)pg->rows.n) != 1)
        return lost(PQerrorMessage(pg->conn), why);
    buf_reset(&pg->rows);
    return ERR_OK;
}

enum err
pg_copy_row_end(struct pg *pg, struct why *why)
{
    assert(pg->copying);
    pg->row_begun = false;
    buf_add(&pg->rows, "\n", 1);
    if (pg->rows.failed)
        return err_set(why, ERR_NOMEM,
                       "postgres: no room for a row (at most %d bytes)",
                       COPY_ROW_MAX);
    return pg->rows.n < COPY_CHUNK ? ERR_OK : copy_flush(pg, why);
}

/* Every result is taken: an error may follow the first one. */
static enum err
copy_results(struct pg *pg, int64_t *rows, struct why *why)
{
    enum err err = ERR_OK;

    for (PGresult *r = PQgetResult(pg->conn); r != NULL;
         r = PQgetResult(pg->conn)) {
        if (PQresultStatus(r) != PGRES_COMMAND_OK)
            err = failed(pg, r, why);
        else if (rows != NULL)
            *rows = strtoll(PQcmdTuples(r), NULL, 10);
        PQclear(r);
    }
    if (err == ERR_OK && PQstatus(pg->conn) != CONNECTION_OK)
        err = lost(PQerrorMessage(pg->conn), why);
    transaction_follow(pg);
    return err;
}

enum err
pg_copy_end(struct pg *pg, int64_t *rows, struct why *why)
{
    enum err err;

    assert(pg->copying);
    assert(!pg->row_begun);
    if (rows != NULL)
        *rows = 0;
    if (pg->rows.failed) {
        copy_abort(pg);
        return err_set(why, ERR_NOMEM,
                       "postgres: a row was too large: nothing copied");
    }
    err = copy_flush(pg, why);
    pg->copying = false;
    if (err == ERR_OK && PQputCopyEnd(pg->conn, NULL) != 1)
        err = lost(PQerrorMessage(pg->conn), why);
    if (err == ERR_OK)
        return copy_results(pg, rows, why);
    (void)copy_results(pg, NULL, why);
    return err;
}

static enum err
lock_call(struct pg *pg, const char *sql, int64_t key, bool *got, struct why *why)
{
    char text[NUMBER_SIZE];
    const char *params[] = {text};
    struct pg_result *result;
    enum err err;

    (void)snprintf(text, sizeof(text), "%" PRId64, key);
    err = pg_exec(pg, sql, params, 1, &result, why);
    if (err != ERR_OK)
        return err;
    *got = strcmp(pg_value(result, 0, 0), "t") == 0;
    pg_result_free(&result);
    return ERR_OK;
}

enum err
pg_try_lock(struct pg *pg, int64_t key, bool *got, struct why *why)
{
    assert(got != NULL);
    *got = false;
    return lock_call(pg, "SELECT pg_try_advisory_lock($1::bigint)", key, got, why);
}

enum err
pg_unlock(struct pg *pg, int64_t key, struct why *why)
{
    bool held = false;
    enum err err =
        lock_call(pg, "SELECT pg_advisory_unlock($1::bigint)", key, &held, why);

    if (err == ERR_OK && !held)
        return err_set(why, ERR_NOTFOUND, "postgres: lock %" PRId64 " was not held",
                       key);
    return err;
}

/* Against a real server, in tables of the session. */
#include "common/pg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct pg *pg;

static enum err
run(const char *sql)
{
    return pg_exec(pg, sql, NULL, 0, NULL, NULL);
}

static int
open_pg(void **state)
{
    (void)state;
    return pg_open(&pg, getenv("CLICKLEDGER_TEST_PG"), NULL) != ERR_OK;
}

static int
close_pg(void **state)
{
    (void)state;
    pg_close(&pg);
    pg_close(&pg);
    return pg != NULL;
}

static int64_t
number(const char *sql)
{
    struct pg_result *result;
    int64_t n;

    assert_int_equal(pg_exec(pg, sql, NULL, 0, &result, NULL), ERR_OK);
    assert_int_equal(pg_rows(result), 1);
    n = pg_i64(result, 0, 0);
    pg_result_free(&result);
    return n;
}

static void
parameters_and_results_are_text(void **state)
{
    const char *const params[] = {"it's \\ \"quoted\"", NULL,
                                  "-9223372036854775808"};
    struct pg_result *result;

    (void)state;
    assert_int_equal(pg_exec(pg,
                             "SELECT $1::text, $2::text, $3::bigint,"
                             " timestamptz '2026-03-01 12:00+02'",
                             params, 3, &result, NULL),
                     ERR_OK);
    assert_int_equal(pg_rows(result), 1);
    assert_string_equal(pg_value(result, 0, 0), params[0]);
    assert_null(pg_value(result, 0, 1));
    assert_int_equal(pg_i64(result, 0, 1), 0);
    assert_int_equal(pg_i64(result, 0, 2), INT64_MIN);
    assert_string_equal(pg_value(result, 0, 3), "2026-03-01 10:00:00+00");
    pg_result_free(&result);
    assert_null(result);
    assert_int_equal(number("CREATE TEMP TABLE several(n int);"
                            "INSERT INTO several VALUES (1), (2);"
                            "SELECT sum(n) FROM several"),
                     3);
    assert_int_equal(pg_exec(pg, "SELECT 1 WHERE false", NULL, 0, &result, NULL),
                     ERR_OK);
    assert_int_equal(pg_rows(result), 0);
    pg_result_free(&result);
}

static void
errors_have_their_class_and_the_servers_words(void **state)
{
    static const struct {
        const char *sql;
        enum err want;
        const char *says;
    } cases[] = {
        {"INSERT INTO t VALUES (1, 1)", ERR_CONFLICT, "duplicate key"},
        {"INSERT INTO t VALUES (2, -1)", ERR_CONFLICT, "check constraint"},
        {"INSERT INTO child VALUES (9)", ERR_CONFLICT, "foreign key"},
        {"DO $$ BEGIN RAISE 'closed day'; END $$", ERR_CONFLICT, "closed day"},
        {"DO $$ BEGIN RAISE SQLSTATE '40001'; END $$", ERR_AGAIN, ""},
        {"DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$", ERR_AGAIN, ""},
        {"DO $$ BEGIN RAISE SQLSTATE '53100'; END $$", ERR_FULL, ""},
        {"DO $$ BEGIN RAISE SQLSTATE '53300'; END $$", ERR_AGAIN, ""},
        {"DO $$ BEGIN RAISE SQLSTATE '57P01'; END $$", ERR_AGAIN, ""},
        {"SELECT 1 / 0", ERR_FATAL, "division by zero"},
        {"SELEKT", ERR_FATAL, "syntax error"},
        {"SELECT * FROM no_such_table", ERR_FATAL, "no_such_table"},
        {"COPY t FROM STDIN", ERR_FATAL, "pg_copy_begin"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct pg_result *result;
        struct why why;

        (void)run("CREATE TEMP TABLE IF NOT EXISTS t(id int PRIMARY KEY, n int "
                  "CHECK (n > 0));"
                  "CREATE TEMP TABLE IF NOT EXISTS child(id int REFERENCES t);"
                  "INSERT INTO t VALUES (1, 1) ON CONFLICT DO NOTHING");
        assert_int_equal(pg_exec(pg, cases[i].sql, NULL, 0, &result, &why),
                         cases[i].want);
        assert_null(result);
        assert_non_null(strstr(why.text, cases[i].says));
        assert_int_equal(number("SELECT 5"), 5);
    }
}

static void
a_transaction_is_whole_or_nothing(void **state)
{
    struct why why;

    (void)state;
    assert_int_equal(run("CREATE TEMP TABLE tx(n int UNIQUE)"), ERR_OK);
    assert_int_equal(pg_begin(pg, NULL), ERR_OK);
    assert_int_equal(run("INSERT INTO tx VALUES (1)"), ERR_OK);
    assert_int_equal(pg_commit(pg, NULL), ERR_OK);
    assert_int_equal(pg_begin(pg, NULL), ERR_OK);
    assert_int_equal(run("INSERT INTO tx VALUES (2)"), ERR_OK);
    pg_rollback(pg);
    pg_rollback(pg);
    assert_int_equal(number("SELECT count(*) FROM tx"), 1);

    /* The server answers COMMIT of a failed transaction with success and ROLLBACK. */
    assert_int_equal(pg_begin(pg, NULL), ERR_OK);
    assert_int_equal(run("INSERT INTO tx VALUES (3)"), ERR_OK);
    assert_int_equal(run("INSERT INTO tx VALUES (1)"), ERR_CONFLICT);
    assert_int_equal(pg_commit(pg, &why), ERR_FATAL);
    assert_non_null(strstr(why.text, "rolled back"));
    assert_int_equal(number("SELECT count(*) FROM tx"), 1);
}

/* Ends pg's session from another one. */
static void
terminate(void)
{
    char sql[96];
    struct pg *other;

    (void)snprintf(sql, sizeof(sql), "SELECT pg_terminate_backend(%lld, 5000)",
                   (long long)number("SELECT pg_backend_pid()"));
    assert_int_equal(pg_open(&other, getenv("CLICKLEDGER_TEST_PG"), NULL), ERR_OK);
    assert_int_equal(pg_exec(other, sql, NULL, 0, NULL, NULL), ERR_OK);
    pg_close(&other);
}

static void
a_lost_connection_mends_but_never_inside_a_transaction(void **state)
{
    (void)state;
    assert_int_equal(run("SELECT 1"), ERR_OK);
    terminate();
    assert_int_equal(run("SELECT 1"), ERR_AGAIN);
    assert_int_equal(run("SELECT 1"), ERR_OK);

    assert_int_equal(pg_begin(pg, NULL), ERR_OK);
    terminate();
    for (int i = 0; i < 3; i++)
        assert_int_equal(run("SELECT 1"), ERR_AGAIN);
    assert_int_equal(pg_commit(pg, NULL), ERR_AGAIN);
    assert_int_equal(run("SELECT 1"), ERR_OK);

    assert_int_equal(pg_begin(pg, NULL), ERR_OK);
    terminate();
    pg_rollback(pg);
    assert_int_equal(run("SELECT 1"), ERR_OK);

    assert_int_equal(run("BEGIN"), ERR_OK); /* as plain SQL too */
    terminate();
    assert_int_equal(run("SELECT 1"), ERR_AGAIN);
    assert_int_equal(run("SELECT 1"), ERR_AGAIN);
    pg_rollback(pg);
    assert_int_equal(run("SELECT 1"), ERR_OK);
}

static void
copy_brings_every_character_over(void **state)
{
    static const char odd[] =
        "tab\t line\n return\r back\\slash \\N \\. é \x01 end";
    struct pg_result *result;
    int64_t rows = -1;

    (void)state;
    assert_int_equal(run("CREATE TEMP TABLE c(a text, b text, n bigint)"), ERR_OK);
    assert_int_equal(pg_copy_begin(pg, "COPY c FROM STDIN", NULL), ERR_OK);
    for (int64_t i = 0; i < 20000; i++) {
        pg_copy_field(pg, i % 3 == 0 ? odd : i % 3 == 1 ? "" : "\\N");
        pg_copy_field(pg, NULL);
        pg_copy_i64(pg, i == 0 ? INT64_MIN : i);
        assert_int_equal(pg_copy_row_end(pg, NULL), ERR_OK);
    }
    assert_int_equal(pg_copy_end(pg, &rows, NULL), ERR_OK);
    assert_int_equal(rows, 20000);
    assert_int_equal(pg_exec(pg, "SELECT a, b, n FROM c ORDER BY n LIMIT 3", NULL,
                             0, &result, NULL),
                     ERR_OK);
    assert_string_equal(pg_value(result, 0, 0), odd);
    assert_int_equal(pg_i64(result, 0, 2), INT64_MIN);
    assert_string_equal(pg_value(result, 1, 0), "");
    assert_null(pg_value(result, 1, 1));
    assert_string_equal(pg_value(result, 2, 0), "\\N");
    pg_result_free(&result);
    assert_int_equal(pg_copy_begin(pg, "COPY c FROM STDIN", NULL), ERR_OK);
    assert_int_equal(pg_copy_end(pg, &rows, NULL), ERR_OK);
    assert_int_equal(rows, 0);
}

static void
a_copy_that_fails_or_is_given_up_leaves_nothing(void **state)
{
    struct why why;
    int64_t rows;

    (void)state;
    assert_int_equal(run("CREATE TEMP TABLE d(n int PRIMARY KEY)"), ERR_OK);
    assert_int_equal(pg_copy_begin(pg, "COPY d FROM STDIN", NULL), ERR_OK);
    for (int64_t i = 0; i < 3; i++) {
        pg_copy_i64(pg, i % 2);
        assert_int_equal(pg_copy_row_end(pg, NULL), ERR_OK);
    }
    assert_int_equal(pg_copy_end(pg, &rows, &why), ERR_CONFLICT);
    assert_non_null(strstr(why.text, "duplicate key"));
    assert_int_equal(rows, 0);
    assert_int_equal(pg_copy_begin(pg, "COPY no_such FROM STDIN", &why), ERR_FATAL);

    assert_int_equal(pg_copy_begin(pg, "COPY d FROM STDIN", NULL), ERR_OK);
    pg_copy_i64(pg, 8);
    assert_int_equal(pg_copy_row_end(pg, NULL), ERR_OK);
    assert_int_equal(number("SELECT count(*) FROM d"), 0);

    assert_int_equal(pg_begin(pg, NULL), ERR_OK);
    assert_int_equal(pg_copy_begin(pg, "COPY d FROM STDIN", NULL), ERR_OK);
    pg_copy_i64(pg, 9);
    pg_rollback(pg);
    assert_int_equal(number("SELECT count(*) FROM d"), 0);
}

static void
one_session_holds_a_lock(void **state)
{
    const int64_t key = INT64_C(-7400000000000001);
    struct pg *other;
    bool got;

    (void)state;
    assert_int_equal(pg_open(&other, getenv("CLICKLEDGER_TEST_PG"), NULL), ERR_OK);
    assert_int_equal(pg_try_lock(pg, key, &got, NULL), ERR_OK);
    assert_true(got);
    assert_int_equal(pg_try_lock(other, key, &got, NULL), ERR_OK);
    assert_false(got);
    assert_int_equal(pg_unlock(other, key, NULL), ERR_NOTFOUND);
    assert_int_equal(pg_unlock(pg, key, NULL), ERR_OK);
    assert_int_equal(pg_try_lock(other, key, &got, NULL), ERR_OK);
    assert_true(got);
    pg_close(&other);
}

static void
bad_conninfo_is_invalid_and_an_absent_server_is_again(void **state)
{
    struct pg *other;
    struct why why;

    (void)state;
    assert_int_equal(pg_open(&other, "nonsense=1", &why), ERR_INVALID);
    assert_null(other);
    assert_non_null(strstr(why.text, "nonsense"));
    assert_int_equal(pg_open(&other, "host=/nonexistent dbname=x", &why), ERR_OK);
    assert_int_equal(pg_exec(other, "SELECT 1", NULL, 0, NULL, &why), ERR_AGAIN);
    assert_null(strchr(why.text, '\n'));
    pg_rollback(other);
    pg_close(&other);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters_and_results_are_text),
        cmocka_unit_test(errors_have_their_class_and_the_servers_words),
        cmocka_unit_test(a_transaction_is_whole_or_nothing),
        cmocka_unit_test(a_lost_connection_mends_but_never_inside_a_transaction),
        cmocka_unit_test(copy_brings_every_character_over),
        cmocka_unit_test(a_copy_that_fails_or_is_given_up_leaves_nothing),
        cmocka_unit_test(one_session_holds_a_lock),
        cmocka_unit_test(bad_conninfo_is_invalid_and_an_absent_server_is_again),
    };

    if (getenv("CLICKLEDGER_TEST_PG") == NULL) {
        (void)puts("skipped: no servers");
        return 77;
    }
    return cmocka_run_group_tests(tests, open_pg, close_pg);
}

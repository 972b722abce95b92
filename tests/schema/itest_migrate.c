/* An empty database becomes ours; ours stays as it is; a newer or another one is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "schema/migrate.h"

#include <pthread.h>

#include "schema/migrations.h"
#include "tests/itest.h"

static char conninfo[ITEST_CONNINFO_MAX];

static struct pg *
connect_to(void)
{
    struct why why = {""};
    struct pg *pg = NULL;

    itest_need(pg_open(&pg, conninfo, &why), "open", &why);
    return pg;
}

static int
make(void **state)
{
    (void)state;
    itest_database_make(conninfo);
    return 0;
}

static int
drop(void **state)
{
    (void)state;
    itest_database_drop(conninfo);
    return 0;
}

static void
files_are_numbered_from_one_without_a_gap(void **state)
{
    (void)state;
    assert_true(migrations_n >= 1);
    for (int i = 0; i < migrations_n; i++) {
        assert_int_equal(migrations[i].number, i + 1);
        assert_int_equal(strlen(migrations[i].sql), migrations[i].n);
    }
}

static void
an_empty_database_gets_every_file_once(void **state)
{
    struct pg *pg = connect_to();
    struct pg_result *rows = NULL;
    struct why why = {""};
    int applied = -1;

    (void)state;
    assert_int_equal(migrate(pg, &applied, &why), ERR_OK);
    assert_int_equal(applied, migrations_n);
    assert_int_equal(migrate(pg, &applied, &why), ERR_OK);
    assert_int_equal(applied, 0);
    assert_int_equal(
        pg_exec(pg, "SELECT count(*) FROM schema_migration", NULL, 0, &rows, &why),
        ERR_OK);
    assert_int_equal(pg_i64(rows, 0, 0), migrations_n);
    pg_result_free(&rows);
    pg_close(&pg);
}

static void *
migrate_thread(void *arg)
{
    struct pg *pg = connect_to();
    struct why why = {""};
    enum err *err = arg;

    *err = migrate(pg, NULL, &why);
    pg_close(&pg);
    return NULL;
}

static void
processes_that_start_together_wait_for_each_other(void **state)
{
    enum { N = 4 };
    pthread_t threads[N];
    enum err errs[N];

    (void)state;
    for (int i = 0; i < N; i++)
        assert_int_equal(
            pthread_create(&threads[i], NULL, migrate_thread, &errs[i]), 0);
    for (int i = 0; i < N; i++) {
        (void)pthread_join(threads[i], NULL);
        assert_int_equal(errs[i], ERR_OK);
    }
}

static void
a_newer_database_is_refused_by_name(void **state)
{
    struct pg *pg = connect_to();
    struct why why = {""};

    (void)state;
    assert_int_equal(migrate(pg, NULL, &why), ERR_OK);
    itest_sql(conninfo, "INSERT INTO schema_migration (number, name, sha256) "
                        "VALUES (9000, '9000_tomorrow.sql', '00')");
    assert_int_equal(migrate(pg, NULL, &why), ERR_CONFLICT);
    assert_non_null(strstr(why.text, "9000_tomorrow.sql"));
    assert_non_null(strstr(why.text, "install a newer"));
    pg_close(&pg);
}

static void
a_file_applied_with_another_text_is_refused(void **state)
{
    struct pg *pg = connect_to();
    struct why why = {""};

    (void)state;
    assert_int_equal(migrate(pg, NULL, &why), ERR_OK);
    itest_sql(conninfo, "UPDATE schema_migration SET sha256 = repeat('0', 64)");
    assert_int_equal(migrate(pg, NULL, &why), ERR_CONFLICT);
    assert_non_null(strstr(why.text, migrations[0].name));
    pg_close(&pg);
}

static void
a_file_that_fails_leaves_nothing_behind(void **state)
{
    struct pg *pg = connect_to();
    struct pg_result *rows = NULL;
    struct why why = {""};

    (void)state;
    itest_sql(conninfo, "CREATE TABLE invoice_line (in_the_way integer)");
    assert_int_not_equal(migrate(pg, NULL, &why), ERR_OK);
    assert_non_null(strstr(why.text, migrations[0].name));
    assert_int_equal(pg_exec(pg,
                             "SELECT 1 FROM pg_tables WHERE tablename = 'campaign'",
                             NULL, 0, &rows, &why),
                     ERR_OK);
    assert_int_equal(pg_rows(rows), 0);
    pg_result_free(&rows);
    itest_sql(conninfo, "DROP TABLE invoice_line");
    assert_int_equal(migrate(pg, NULL, &why), ERR_OK);
    pg_close(&pg);
}

static void
a_server_that_is_away_is_for_later(void **state)
{
    struct pg *pg = NULL;
    struct why why = {""};

    (void)state;
    assert_int_equal(pg_open(&pg, "host=/nonexistent dbname=none", &why), ERR_OK);
    assert_int_equal(migrate(pg, NULL, &why), ERR_AGAIN);
    pg_close(&pg);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_numbered_from_one_without_a_gap),
        cmocka_unit_test_setup_teardown(an_empty_database_gets_every_file_once,
                                        make, drop),
        cmocka_unit_test_setup_teardown(
            processes_that_start_together_wait_for_each_other, make, drop),
        cmocka_unit_test_setup_teardown(a_newer_database_is_refused_by_name, make,
                                        drop),
        cmocka_unit_test_setup_teardown(a_file_applied_with_another_text_is_refused,
                                        make, drop),
        cmocka_unit_test_setup_teardown(a_file_that_fails_leaves_nothing_behind,
                                        make, drop),
        cmocka_unit_test(a_server_that_is_away_is_for_later),
    };

    (void)itest_server("CLICKLEDGER_TEST_PG");
    return cmocka_run_group_tests(tests, NULL, NULL);
}

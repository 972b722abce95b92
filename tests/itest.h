/* tests/itest.h - what every integration test needs: a database of its own, dropped at
 * the end, and an emptied Redis database.
 *
 *   int main(void)
 *   {
 *       char conninfo[ITEST_CONNINFO_MAX];
 *       itest_database_make(conninfo);      exits 77 ("skipped") without servers
 *       ...
 *       itest_database_drop(conninfo);
 *   }
 *
 * CLICKLEDGER_TEST_PG     conninfo of a user who may create databases
 * CLICKLEDGER_TEST_REDIS  address as common/redis.h takes it
 *
 * Errors   A server that answers wrongly ends the test with a message and 1.
 * Threads  One.
 */
#ifndef TESTS_ITEST_H
#define TESTS_ITEST_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"
#include "common/pg.h"
#include "common/redis.h"

enum { ITEST_CONNINFO_MAX = 1024, ITEST_SKIPPED = 77 };

#define ITEST_REDIS_TIMEOUT_US INT64_C(5000000)

/* The variable's value, or the end of the test. */
static inline const char *
itest_server(const char *variable)
{
    const char *value = getenv(variable);

    if (value != NULL && value[0] != '\0')
        return value;
    printf("skipped: no servers (%s is not set)\n", variable);
    exit(ITEST_SKIPPED);
}

static inline void
itest_need(enum err err, const char *what, const struct why *why)
{
    if (err == ERR_OK)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, err_name(err), why->text);
    exit(1);
}

/* Runs one statement on a connection of its own. */
static inline void
itest_sql(const char *conninfo, const char *sql)
{
    struct why why = {""};
    struct pg *pg = NULL;

    itest_need(pg_open(&pg, conninfo, &why), "open", &why);
    itest_need(pg_exec(pg, sql, NULL, 0, NULL, &why), sql, &why);
    pg_close(&pg);
}

/* A new, empty database with a random name; conninfo gets how to reach it. A URL is
 * not understood: give key=value words. */
static inline void
itest_database_make(char conninfo[ITEST_CONNINFO_MAX])
{
    const char *server = itest_server("CLICKLEDGER_TEST_PG");
    char name[64], sql[128];
    int n;

    (void)snprintf(name, sizeof(name), "itest_%016" PRIx64, hash_random_u64());
    (void)snprintf(sql, sizeof(sql), "CREATE DATABASE %s", name);
    itest_sql(server, sql);
    /* The last dbname in a conninfo wins. */
    n = snprintf(conninfo, ITEST_CONNINFO_MAX, "%s dbname=%s", server, name);
    if (n < 0 || n >= ITEST_CONNINFO_MAX) {
        fprintf(stderr, "CLICKLEDGER_TEST_PG is too long\n");
        exit(1);
    }
}

/* Connections that a test left open are ended. */
static inline void
itest_database_drop(const char *conninfo)
{
    const char *name = strrchr(conninfo, '=');
    char sql[128];

    (void)snprintf(sql, sizeof(sql), "DROP DATABASE %s WITH (FORCE)",
                   name == NULL ? "?" : name + 1);
    itest_sql(itest_server("CLICKLEDGER_TEST_PG"), sql);
}

/* The address of the test Redis, emptied. Tests that use it do not run side by side. */
static inline const char *
itest_redis_flushed(void)
{
    const char *address = itest_server("CLICKLEDGER_TEST_REDIS");
    const struct str words[] = {STR("FLUSHALL")};
    struct redis *redis = NULL;
    struct why why = {""};

    itest_need(redis_open(&redis, address, ITEST_REDIS_TIMEOUT_US, &why), "redis",
               &why);
    itest_need(redis_command(redis, words, 1, NULL, &why), "FLUSHALL", &why);
    redis_close(&redis);
    return address;
}

#endif

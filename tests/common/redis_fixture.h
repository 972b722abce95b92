/* tests/common/redis_fixture.h - a connection to the test's server, and a second one.
 *
 * Environment  CLICKLEDGER_TEST_REDIS: an address, without a cluster.
 */
#ifndef TESTS_COMMON_REDIS_FIXTURE_H
#define TESTS_COMMON_REDIS_FIXTURE_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/redis.h"

#define KEY "clickledger-itest-redis"

static struct redis *redis;

static inline int
open_redis(void **state)
{
    (void)state;
    return redis_open(&redis, getenv("CLICKLEDGER_TEST_REDIS"), 2000000, NULL) !=
           ERR_OK;
}

static inline int
close_redis(void **state)
{
    (void)state;
    (void)redis_command(redis, (struct str[]){STR("DEL"), STR(KEY)}, 2, NULL, NULL);
    redis_close(&redis);
    return redis != NULL;
}

static inline enum err
ask(const struct str *words, size_t n, struct redis_reply **out)
{
    struct why why = {""};
    enum err err = redis_command(redis, words, n, out, &why);

    if (err != ERR_OK)
        print_message("%s\n", why.text);
    return err;
}

#define ASK(out, ...)                      \
    ask((const struct str[]){__VA_ARGS__}, \
        sizeof((const struct str[]){__VA_ARGS__}) / sizeof(struct str), (out))

/* A second connection. */
static inline struct redis *
other_open(void)
{
    struct redis *other;

    assert_int_equal(
        redis_open(&other, getenv("CLICKLEDGER_TEST_REDIS"), 2000000, NULL),
        ERR_OK);
    return other;
}

static inline void
other_ask(const struct str *words, size_t n)
{
    struct redis *other = other_open();

    assert_int_equal(redis_command(other, words, n, NULL, NULL), ERR_OK);
    redis_close(&other);
}

#define OTHER_ASK(...)                           \
    other_ask((const struct str[]){__VA_ARGS__}, \
              sizeof((const struct str[]){__VA_ARGS__}) / sizeof(struct str))

static inline struct str
client_id(char id[24])
{
    struct redis_reply *reply;
    int n;

    assert_int_equal(ASK(&reply, STR("CLIENT"), STR("ID")), ERR_OK);
    n = snprintf(id, 24, "%lld", (long long)reply->integer);
    redis_reply_free(&reply);
    return (struct str){id, (uint32_t)n};
}

static inline int
redis_main(const char *group, const struct CMUnitTest *tests, size_t n)
{
    if (getenv("CLICKLEDGER_TEST_REDIS") == NULL) {
        (void)puts("skipped: no servers");
        return 77;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    return _cmocka_run_group_tests(group, tests, n, open_redis, close_redis);
}

#endif

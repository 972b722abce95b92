/* The owner record in a real Redis: claims, generations, and what a failover may forget. */
#include "aggregate/owner.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "schema/rediskeys.h"
#include "tests/itest.h"

enum { PARTITION = 3, LOG_ID = 77 };

static struct redis *redis;
static char key[REDISKEY_MAX + 1];

static int
setup(void **state)
{
    struct why why = {""};

    (void)state;
    itest_need(
        redis_open(&redis, itest_redis_flushed(), ITEST_REDIS_TIMEOUT_US, &why),
        "redis", &why);
    key[rediskey_owner(key, PARTITION)] = '\0';
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    redis_close(&redis);
    return 0;
}

static void
field_expect(const char *field, const char *want)
{
    const struct str words[] = {STR("HGET"), str_of(key), str_of(field)};
    struct redis_reply *reply = NULL;
    struct why why = {""};

    itest_need(redis_command(redis, words, 3, &reply, &why), field, &why);
    assert_int_equal(reply->text.n, strlen(want));
    assert_memory_equal(reply->text.p, want, strlen(want));
    redis_reply_free(&reply);
}

static void
field_set(const char *field, const char *value)
{
    const struct str words[] = {STR("HSET"), str_of(key), str_of(field),
                                str_of(value)};
    struct why why = {""};

    itest_need(redis_command(redis, words, 4, NULL, &why), field, &why);
}

static struct owner_state
claim(uint64_t epoch_min)
{
    struct owner_state state;
    struct why why = {""};

    itest_need(owner_claim(redis, PARTITION, epoch_min, 1, &state, &why), "claim",
               &why);
    return state;
}

static void
an_epoch_is_exact_and_above_every_other(void **state)
{
    static const uint64_t now_us = UINT64_C(1795275974251123);

    (void)state;
    assert_int_equal(claim(1).epoch, 1);
    assert_int_equal(claim(1).epoch, 2);
    assert_int_equal(claim(now_us).epoch, now_us);
    field_expect("epoch", "1795275974251123");
    assert_int_equal(claim(now_us).epoch, now_us + 1); /* the same instant */
    assert_int_equal(claim(5).epoch, now_us + 2);
    field_expect("epoch", "1795275974251125");
    field_set("epoch", "4"); /* claims that a failover forgot */
    assert_int_equal(claim(now_us + 3).epoch, now_us + 3);
    /* The last that Lua counts exactly. */
    assert_int_equal(claim((UINT64_C(1) << 53) - 1).epoch, (UINT64_C(1) << 53) - 1);
}

static void
a_generation_under_construction_has_the_only_offset(void **state)
{
    struct owner_state owner = claim(9);
    struct why why = {""};

    (void)state;
    assert_false(owner.found);
    itest_need(owner_begin(redis, PARTITION, 9, 1, 100, LOG_ID, 2, &why), "begin",
               &why);
    itest_need(owner_switch(redis, PARTITION, 9, 100, 3, &why), "switch", &why);
    field_expect("offset", "100");
    field_expect("building", "");

    itest_need(owner_begin(redis, PARTITION, 9, 2, 40, LOG_ID, 4, &why), "begin",
               &why);
    field_expect("offset", "");
    field_expect("generation", "1"); /* readers go on with it */
    itest_need(owner_read(redis, PARTITION, &owner, &why), "read", &why);
    assert_true(owner.found);
    assert_int_equal(owner.generation, 1);
    assert_int_equal(owner.building, 2);
    assert_int_equal(owner.build_offset, 40);
    assert_int_equal(owner.offset, 0);
    assert_int_equal(owner_switch(redis, PARTITION, 9, 41, 5, &why), ERR_CONFLICT);
    assert_int_equal(owner_switch(redis, PARTITION, 8, 40, 5, &why), ERR_CONFLICT);
    itest_need(owner_switch(redis, PARTITION, 9, 40, 5, &why), "switch", &why);
    field_expect("offset", "40");
    field_expect("generation", "2");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_epoch_is_exact_and_above_every_other,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            a_generation_under_construction_has_the_only_offset, setup, teardown),
    };

    (void)itest_server("CLICKLEDGER_TEST_REDIS");
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Against a real cluster: slots, scripts, redirects. */
#include "common/redis_impl.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "common/clock.h"
#include "redis_cluster_fixture.h"

static void
commands_go_to_the_master_of_their_key(void **state)
{
    unsigned seen = 0;

    (void)state;
    for (unsigned p = 0; p < PARTITIONS; p++) {
        char text[32];
        struct str key = key_of(text, p, "x");
        struct redis_reply *reply;

        assert_int_equal(ask(redis, WORDS(STR("SET"), key, key), NULL), ERR_OK);
        assert_int_equal(ask(redis, WORDS(STR("GET"), key), &reply), ERR_OK);
        assert_true(str_equal(reply->text, key));
        redis_reply_free(&reply);
        /* The master itself has it: it would say MOVED otherwise. */
        seen |= 1U << master_of(p);
        assert_int_equal(
            ask(rig.node[master_of(p)], WORDS(STR("GET"), key), &reply), ERR_OK);
        assert_true(str_equal(reply->text, key));
        redis_reply_free(&reply);
    }
    assert_int_equal(__builtin_popcount(seen), 3);
}

static void
a_pipeline_across_nodes_is_answered_in_order(void **state)
{
    enum { COMMANDS = 30000, BIG = 100000 };
    char *big = calloc(1, BIG);

    (void)state;
    assert_non_null(big);
    for (int i = 0; i < COMMANDS; i++) {
        char name[32], n[24];
        struct str key = key_of(name, (unsigned)i % PARTITIONS, "list");

        /* Every thousandth is big: flushed at once, and still in its turn. */
        struct str value = i % 1000 == 0 ? (struct str){big, BIG} : number_of(n, i);
        const struct str words[] = {STR("GETSET"), key, value};
        assert_int_equal(redis_queue(redis, words, 3, NULL), ERR_OK);
    }
    for (int i = 0; i < COMMANDS; i++) {
        struct redis_reply *reply;
        char n[24];

        assert_int_equal(redis_reply_next(redis, &reply, NULL), ERR_OK);
        if (i < PARTITIONS)
            assert_int_equal(reply->type, REDIS_NIL);
        else if ((i - PARTITIONS) % 1000 == 0)
            assert_int_equal(reply->text.n, BIG);
        else
            assert_true(str_equal(reply->text, number_of(n, i - PARTITIONS)));
        redis_reply_free(&reply);
    }
    assert_int_equal(redis_reply_next(redis, NULL, NULL), ERR_AGAIN);
    free(big);
}

static void
keys_of_two_slots_in_one_command_are_invalid(void **state)
{
    struct redis_reply *reply;
    struct why why;
    struct str keys[] = {STR("{p0}:a"), STR("{p1}:a")};
    const struct str words[] = {STR("UNLINK"), keys[0], keys[1]};

    (void)state;
    assert_int_equal(redis_queue(redis, words, 3, NULL), ERR_OK);
    assert_int_equal(redis_queue(redis, words, 2, NULL), ERR_OK);
    assert_int_equal(redis_reply_next(redis, NULL, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "CROSSSLOT"));
    assert_int_equal(redis_reply_next(redis, &reply, &why), ERR_OK);
    redis_reply_free(&reply);
    assert_int_equal(
        redis_eval(redis, "return 1", "0", keys, 2, NULL, 0, NULL, &why),
        ERR_INVALID);
}

static void
replies_left_behind_do_not_answer_the_next_command(void **state)
{
    struct redis_reply *reply;
    char text[32];

    (void)state;
    for (unsigned p = 0; p < PARTITIONS; p++) {
        const struct str words[] = {STR("GET"), key_of(text, p, "x")};
        assert_int_equal(redis_queue(redis, words, 2, NULL), ERR_OK);
    }
    assert_int_equal(redis_reply_next(redis, NULL, NULL), ERR_OK);
    assert_int_equal(ask(redis, WORDS(STR("ECHO"), STR("mine")), &reply), ERR_OK);
    assert_true(str_equal(reply->text, STR("mine")));
    redis_reply_free(&reply);
}

static void
a_command_without_a_key_runs_where_it_is_told(void **state)
{
    (void)state;
    assert_int_equal(ask(redis, WORDS(STR("PING")), NULL), ERR_OK);
    for (unsigned p = 0; p < PARTITIONS; p++) {
        char text[32], pattern[32];
        struct str key = key_of(text, p, "x");
        const struct str words[] = {STR("SCAN"),  STR("0"),
                                    STR("MATCH"), key_of(pattern, p, "x"),
                                    STR("COUNT"), STR("100000")};
        struct redis_reply *reply;

        assert_int_equal(redis_command_at(redis, key, words, 6, &reply, NULL),
                         ERR_OK);
        assert_int_equal(reply->items[1]->count, 1);
        assert_true(str_equal(reply->items[1]->items[0]->text, key));
        redis_reply_free(&reply);
    }
}

/* --- scripts --- */

static const char script[] = "return ARGV[1]";

/* How many partitions answer NOSCRIPT; each other one its own number. */
static int
scripts_missing(const char *sha)
{
    int missing = 0;

    for (unsigned p = 0; p < PARTITIONS; p++) {
        char text[32], n[24];
        const struct str words[] = {STR("EVALSHA"), str_of(sha), STR("1"),
                                    key_of(text, p, "x"), number_of(n, p)};
        assert_int_equal(redis_queue(redis, words, 5, NULL), ERR_OK);
    }
    for (unsigned p = 0; p < PARTITIONS; p++) {
        struct redis_reply *reply;
        char n[24];
        enum err err = redis_reply_next(redis, &reply, NULL);

        missing += err == ERR_NOTFOUND;
        if (err == ERR_NOTFOUND)
            continue;
        assert_int_equal(err, ERR_OK);
        assert_true(str_equal(reply->text, number_of(n, p)));
        redis_reply_free(&reply);
    }
    return missing;
}

static int64_t
script_exists(const char *sha)
{
    struct redis_reply *reply;
    int64_t exists;

    assert_int_equal(
        ask(redis, WORDS(STR("SCRIPT"), STR("EXISTS"), str_of(sha)), &reply),
        ERR_OK);
    exists = reply->items[0]->integer;
    redis_reply_free(&reply);
    return exists;
}

static void
scripts_go_to_every_master(void **state)
{
    struct redis_reply *reply;
    char sha[41];

    (void)state;
    redis_script_sha(script, sha);
    assert_int_equal(scripts_missing(sha), PARTITIONS);
    assert_int_equal(script_exists(sha), 0);
    assert_int_equal(
        ask(redis, WORDS(STR("SCRIPT"), STR("LOAD"), STR(script)), &reply), ERR_OK);
    assert_true(str_equal(reply->text, str_of(sha)));
    redis_reply_free(&reply);
    assert_int_equal(scripts_missing(sha), 0);
    assert_int_equal(script_exists(sha), 1);

    /* One node forgets. */
    assert_int_equal(
        ask(rig.node[master_of(0)], WORDS(STR("SCRIPT"), STR("FLUSH")), NULL),
        ERR_OK);
    int missing = scripts_missing(sha);
    assert_true(missing > 0 && missing < PARTITIONS);
    assert_int_equal(script_exists(sha), 0);
    const struct str keys[] = {STR("{p0}:x")}, args[] = {STR("7")};
    assert_int_equal(redis_eval(redis, script, sha, keys, 1, args, 1, &reply, NULL),
                     ERR_OK);
    assert_true(str_equal(reply->text, STR("7")));
    redis_reply_free(&reply);
    assert_int_equal(scripts_missing(sha), 0); /* EVAL has taught it */
    assert_int_equal(ask(redis, WORDS(STR("SCRIPT"), STR("FLUSH")), NULL), ERR_OK);
    assert_int_equal(scripts_missing(sha), PARTITIONS);
}

/* --- slots that move --- */

static void
a_slot_that_moved_is_found_for_all_that_is_queued(void **state)
{
    char text[32], last[24];
    struct str key = key_of(text, 3, "moved");

    (void)state;
    /* The map is known, then it is wrong. */
    assert_int_equal(ask(redis, WORDS(STR("SET"), key, STR("0")), NULL), ERR_OK);
    struct move m;
    move_begin(&m, 3);
    move_rest(&m);
    for (int i = 1; i <= 1000; i++) {
        char n[24], other[32];
        const struct str get[] = {STR("GET"),
                                  key_of(other, (unsigned)i % PARTITIONS, "x")};
        const struct str set[] = {STR("GETSET"), key, number_of(n, i)};
        assert_int_equal(redis_queue(redis, set, 3, NULL), ERR_OK);
        assert_int_equal(redis_queue(redis, get, 2, NULL), ERR_OK);
    }
    for (int i = 1; i <= 1000; i++) {
        struct redis_reply *reply;
        char n[24], other[32];
        struct why why = {""};

        enum err err = redis_reply_next(redis, &reply, &why);
        if (err != ERR_OK)
            fail_msg("%d: %s", i, why.text);
        assert_true(str_equal(reply->text, number_of(n, i - 1)));
        redis_reply_free(&reply);
        assert_int_equal(redis_reply_next(redis, &reply, NULL), ERR_OK);
        assert_true(
            str_equal(reply->text, key_of(other, (unsigned)i % PARTITIONS, "x")));
        redis_reply_free(&reply);
    }
    struct redis_reply *reply;
    assert_int_equal(ask(rig.node[m.to], WORDS(STR("GET"), key), &reply), ERR_OK);
    assert_true(str_equal(reply->text, number_of(last, 1000)));
    redis_reply_free(&reply);
}

static void
a_slot_that_moves_is_asked_for(void **state)
{
    char a_text[32], b_text[32], c_text[32];
    struct str a = key_of(a_text, 5, "a"), b = key_of(b_text, 5, "b"),
               c = key_of(c_text, 5, "c");
    struct redis_reply *reply;
    struct why why;

    (void)state;
    assert_int_equal(ask(redis, WORDS(STR("SET"), a, STR("1")), NULL), ERR_OK);
    assert_int_equal(ask(redis, WORDS(STR("SET"), b, STR("2")), NULL), ERR_OK);
    struct move m;
    move_begin(&m, 5);
    move_key(&m, a);
    for (int i = 0; i < 100; i++) { /* a: there, b: here, c: not yet anywhere */
        const struct str incr[3][2] = {
            {STR("INCR"), a}, {STR("INCR"), b}, {STR("INCR"), c}};
        for (int k = 0; k < 3; k++)
            assert_int_equal(redis_queue(redis, incr[k], 2, NULL), ERR_OK);
    }
    for (int i = 0; i < 100; i++) {
        const int64_t from[3] = {1, 2, 0};
        for (int k = 0; k < 3; k++) {
            assert_int_equal(redis_reply_next(redis, &reply, &why), ERR_OK);
            assert_int_equal(reply->integer, from[k] + i + 1);
            redis_reply_free(&reply);
        }
    }
    /* Half here and half there: again, until it is whole. */
    const struct str both[] = {STR("MGET"), a, b};
    int64_t began_us = clock_mono_us();
    assert_int_equal(redis_command(redis, both, 3, NULL, &why), ERR_AGAIN);
    assert_non_null(strstr(why.text, "TRYAGAIN"));
    assert_true(clock_mono_us() - began_us < 2 * TIMEOUT_US);
    move_rest(&m);
    assert_int_equal(redis_command(redis, both, 3, &reply, &why), ERR_OK);
    assert_true(str_equal(reply->items[0]->text, STR("101")));
    assert_true(str_equal(reply->items[1]->text, STR("102")));
    redis_reply_free(&reply);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_go_to_the_master_of_their_key),
        cmocka_unit_test(a_pipeline_across_nodes_is_answered_in_order),
        cmocka_unit_test(keys_of_two_slots_in_one_command_are_invalid),
        cmocka_unit_test(replies_left_behind_do_not_answer_the_next_command),
        cmocka_unit_test(a_command_without_a_key_runs_where_it_is_told),
        cmocka_unit_test(scripts_go_to_every_master),
        cmocka_unit_test(a_slot_that_moved_is_found_for_all_that_is_queued),
        cmocka_unit_test(a_slot_that_moves_is_asked_for),
    };

    return rig_main(tests, sizeof(tests) / sizeof(tests[0]));
}

/* Against a real server: words as they are, pipelines, lost connections, scripts. */
#include "redis_fixture.h"

static void
words_are_binary_and_of_any_size(void **state)
{
    static const size_t sizes[] = {0, 1, 9, 10, 65535, 65536, 5000000};
    char *data = malloc(5000000);

    (void)state;
    assert_non_null(data);
    srand(5);
    for (size_t i = 0; i < 5000000; i++)
        data[i] = (char)rand();
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct str value = {data, (uint32_t)sizes[i]};
        struct redis_reply *reply;

        assert_int_equal(ASK(NULL, STR("SET"), STR(KEY), value), ERR_OK);
        assert_int_equal(ASK(&reply, STR("GET"), STR(KEY)), ERR_OK);
        assert_int_equal(reply->type, REDIS_TEXT);
        assert_true(str_equal(reply->text, value));
        redis_reply_free(&reply);
        assert_null(reply);
    }
    free(data);
}

static void
every_type_of_reply_is_mirrored(void **state)
{
    struct redis_reply *reply;

    (void)state;
    assert_int_equal(
        ASK(&reply, STR("EVAL"),
            STR("return {1, 'two', false, {3, {}}, redis.status_reply('OK')}"),
            STR("0")),
        ERR_OK);
    assert_int_equal(reply->type, REDIS_ARRAY);
    assert_int_equal(reply->count, 5);
    assert_int_equal(reply->items[0]->type, REDIS_INTEGER);
    assert_int_equal(reply->items[0]->integer, 1);
    assert_true(str_equal(reply->items[1]->text, STR("two")));
    assert_int_equal(reply->items[2]->type, REDIS_NIL);
    assert_int_equal(reply->items[3]->count, 2);
    assert_int_equal(reply->items[3]->items[0]->integer, 3);
    assert_int_equal(reply->items[3]->items[1]->type, REDIS_ARRAY);
    assert_int_equal(reply->items[3]->items[1]->count, 0);
    assert_true(str_equal(reply->items[4]->text, STR("OK")));
    redis_reply_free(&reply);
    assert_int_equal(ASK(&reply, STR("GET"), STR(KEY "-none")), ERR_OK);
    assert_int_equal(reply->type, REDIS_NIL);
    redis_reply_free(&reply);
}

static void
a_pipeline_is_answered_in_order(void **state)
{
    enum { COMMANDS = 100000 };

    (void)state;
    for (int i = 0; i < COMMANDS; i++) {
        char text[16];
        struct str words[] = {STR("ECHO"), {text, 0}};

        words[1].n = (uint32_t)snprintf(text, sizeof(text), "%d", i);
        assert_int_equal(redis_queue(redis, words, 2, NULL), ERR_OK);
    }
    for (int i = 0; i < COMMANDS; i++) {
        char text[16];
        struct redis_reply *reply;

        (void)snprintf(text, sizeof(text), "%d", i);
        assert_int_equal(redis_reply_next(redis, &reply, NULL), ERR_OK);
        assert_true(str_equal(reply->text, str_of(text)));
        redis_reply_free(&reply);
    }
    assert_int_equal(redis_reply_next(redis, NULL, NULL), ERR_AGAIN);
}

static void
replies_left_behind_do_not_answer_the_next_command(void **state)
{
    struct redis_reply *reply;

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(
            redis_queue(redis, (struct str[]){STR("ECHO"), STR("old")}, 2, NULL),
            ERR_OK);
    assert_int_equal(redis_reply_next(redis, NULL, NULL), ERR_OK);
    assert_int_equal(ASK(&reply, STR("ECHO"), STR("new")), ERR_OK);
    assert_true(str_equal(reply->text, STR("new")));
    redis_reply_free(&reply);
}

static void
error_replies_have_their_class(void **state)
{
    static const struct {
        const char *script;
        enum err want;
    } cases[] = {
        {"return redis.error_reply('EPOCH 7 is newer')", ERR_CONFLICT},
        {"return redis.error_reply('OFFSET 9')", ERR_CONFLICT},
        {"return redis.error_reply('DIRTY')", ERR_CONFLICT},
        {"return redis.error_reply('EPOCHS are not a code')", ERR_FATAL},
        {"return redis.error_reply('OOM maxmemory')", ERR_FULL},
        {"return redis.error_reply('MISCONF disk')", ERR_FULL},
        {"return redis.error_reply('LOADING')", ERR_AGAIN},
        {"return {1, {redis.error_reply('EPOCH inside')}}", ERR_CONFLICT},
        {"return redis.call('nonsense')", ERR_FATAL},
        {"this is no Lua", ERR_FATAL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct redis_reply *reply;
        struct why why;
        struct str words[] = {STR("EVAL"), str_of(cases[i].script), STR("0")};

        assert_int_equal(redis_command(redis, words, 3, &reply, &why),
                         cases[i].want);
        assert_null(reply);
        assert_int_equal(strncmp(why.text, "redis: ", 7), 0);
        assert_int_equal(ASK(NULL, STR("PING")), ERR_OK);
    }
}

static void
scripts_run_whether_the_server_knows_them_or_not(void **state)
{
    static const char script[] = "return {KEYS[1], KEYS[2], ARGV[1], #ARGV}";
    const struct str keys[] = {STR("k1"), STR("k2")}, args[] = {STR("a"), STR("")};
    char sha[41];

    (void)state;
    redis_script_sha("", sha);
    assert_string_equal(sha, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    redis_script_sha(script, sha);
    for (int i = 0; i < 4; i++) {
        struct redis_reply *reply;

        if (i % 2 == 0)
            assert_int_equal(ASK(NULL, STR("SCRIPT"), STR("FLUSH")), ERR_OK);
        assert_int_equal(
            redis_eval(redis, script, sha, keys, 2, args, 2, &reply, NULL), ERR_OK);
        assert_true(str_equal(reply->items[0]->text, STR("k1")));
        assert_true(str_equal(reply->items[1]->text, STR("k2")));
        assert_true(str_equal(reply->items[2]->text, STR("a")));
        assert_int_equal(reply->items[3]->integer, 2);
        redis_reply_free(&reply);
    }
    assert_int_equal(
        redis_eval(redis, "return 1", "0", NULL, 0, NULL, 0, NULL, NULL), ERR_OK);
}

/* Closes redis's connection from the server's side. */
static void
kill_connection(void)
{
    char id[24];

    OTHER_ASK(STR("CLIENT"), STR("KILL"), STR("ID"), client_id(id));
}

static void
a_lost_connection_is_again_once_and_then_mends(void **state)
{
    struct why why;

    (void)state;
    kill_connection();
    assert_int_equal(
        redis_command(redis, (struct str[]){STR("PING")}, 1, NULL, &why),
        ERR_AGAIN);
    assert_int_equal(ASK(NULL, STR("PING")), ERR_OK);

    kill_connection();
    for (int i = 0; i < 3; i++)
        (void)redis_queue(redis, (struct str[]){STR("PING")}, 1, &why);
    for (int i = 0; i < 3; i++)
        assert_int_equal(redis_reply_next(redis, NULL, &why), ERR_AGAIN);
    assert_int_equal(ASK(NULL, STR("PING")), ERR_OK);
}

static void
a_late_reply_is_a_time_out_and_never_anothers_answer(void **state)
{
    struct redis *hasty;
    struct redis_reply *reply;
    struct why why;

    (void)state;
    assert_int_equal(
        redis_open(&hasty, getenv("CLICKLEDGER_TEST_REDIS"), 50000, NULL), ERR_OK);
    struct str wait[] = {STR("BLPOP"), STR(KEY "-list"), STR("1")};
    assert_int_equal(redis_command(hasty, wait, 3, &reply, &why), ERR_AGAIN);
    assert_non_null(strstr(why.text, "time-out"));
    struct str echo[] = {STR("ECHO"), STR("mine")};
    assert_int_equal(redis_command(hasty, echo, 2, &reply, &why), ERR_OK);
    assert_true(str_equal(reply->text, STR("mine")));
    redis_reply_free(&reply);
    redis_close(&hasty);
}

static void
bad_addresses_are_refused_and_absent_servers_are_again(void **state)
{
    static const char *const bad[] = {
        "",
        "localhost",
        ":1",
        "unix:",
        "host:",
        "host:0",
        "host:65536",
        "host:1x",
        "host:-1",
        "host:999999",
        "unix:/"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aa"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    };
    static const char *const absent[] = {"unix:/nonexistent", "127.0.0.1:1",
                                         "[::1]:1"};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct redis *none;
        struct why why;

        assert_int_equal(redis_open(&none, bad[i], 1000, &why), ERR_INVALID);
        assert_null(none);
        assert_non_null(strstr(why.text, "host:port or unix:/path"));
    }
    for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++) {
        struct redis *away;
        struct why why;

        assert_int_equal(redis_open(&away, absent[i], 1000000, NULL), ERR_OK);
        assert_int_equal(
            redis_command(away, (struct str[]){STR("PING")}, 1, NULL, &why),
            ERR_AGAIN);
        assert_non_null(strstr(why.text, "redis at "));
        redis_close(&away);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_binary_and_of_any_size),
        cmocka_unit_test(every_type_of_reply_is_mirrored),
        cmocka_unit_test(a_pipeline_is_answered_in_order),
        cmocka_unit_test(replies_left_behind_do_not_answer_the_next_command),
        cmocka_unit_test(error_replies_have_their_class),
        cmocka_unit_test(scripts_run_whether_the_server_knows_them_or_not),
        cmocka_unit_test(a_lost_connection_is_again_once_and_then_mends),
        cmocka_unit_test(a_late_reply_is_a_time_out_and_never_anothers_answer),
        cmocka_unit_test(bad_addresses_are_refused_and_absent_servers_are_again),
    };

    return redis_main("redis", tests, sizeof(tests) / sizeof(tests[0]));
}

/* Transactions against a real server: all or nothing, whatever goes wrong between. */
#include "common/redis_impl.h"

#include "common/clock.h"
#include "redis_fixture.h"

#define A KEY "-a"
#define B KEY "-b"
#define C KEY "-c"

static int
forget(void **state)
{
    (void)state;
    return ASK(NULL, STR("DEL"), STR(A), STR(B), STR(C)) != ERR_OK;
}

static void
add(const struct str *words, size_t n)
{
    assert_int_equal(redis_add(redis, words, n, NULL), ERR_OK);
}

#define ADD(...)                           \
    add((const struct str[]){__VA_ARGS__}, \
        sizeof((const struct str[]){__VA_ARGS__}) / sizeof(struct str))

static enum err
watch(struct str key)
{
    const struct str words[] = {STR("TYPE"), key};
    struct redis_reply *reply;
    struct why why;
    enum err err = redis_watch(redis, key, words, 2, &reply, &why);

    assert_true((err == ERR_OK) == (reply != NULL));
    redis_reply_free(&reply);
    return err;
}

static enum err
run(struct why *why)
{
    enum err err = redis_exec_send(redis, why);

    return err == ERR_OK ? redis_exec_end(redis, why) : err;
}

/* "": there is no such key. */
static void
expect(struct str key, struct str want)
{
    struct redis_reply *reply;

    assert_int_equal(ASK(&reply, STR("GET"), key), ERR_OK);
    if (reply->type == REDIS_NIL ? want.n > 0 : !str_equal(reply->text, want))
        fail_msg("%s is \"%.*s\", want \"%s\"", key.p, (int)reply->text.n,
                 reply->text.n > 0 ? reply->text.p : "", want.p);
    redis_reply_free(&reply);
}

/* One that sets C and nothing else. */
static void
expect_works(void)
{
    struct why why = {""};

    ADD(STR("APPEND"), STR(C), STR("."));
    assert_int_equal(watch(STR(A)), ERR_OK);
    if (run(&why) != ERR_OK)
        fail_msg("%s", why.text);
}

static void
the_commands_of_a_transaction_run_together_and_in_order(void **state)
{
    enum { ROUNDS = 200, COMMANDS = 100 };
    struct redis *other = other_open();
    const struct str both[] = {STR("MGET"), STR(A), STR(B)};
    struct redis_reply *reply;

    (void)state;
    for (int i = 0; i < ROUNDS; i++) {
        ADD(STR("INCR"), STR(A));
        for (int k = 0; k < COMMANDS; k++) {
            char n[16];
            struct str number = {
                n, (uint32_t)snprintf(n, sizeof(n), "%d", i * COMMANDS + k)};

            ADD(STR("RPUSH"), STR(C), number);
        }
        ADD(STR("INCR"), STR(B));
        assert_int_equal(watch(STR(A)), ERR_OK);
        assert_int_equal(redis_exec_send(redis, NULL), ERR_OK);
        /* Another sees all of it, or nothing. */
        assert_int_equal(redis_command(other, both, 3, &reply, NULL), ERR_OK);
        assert_true(str_equal(reply->items[0]->text, reply->items[1]->text));
        redis_reply_free(&reply);
        assert_int_equal(redis_exec_end(redis, NULL), ERR_OK);
    }
    redis_close(&other);
    assert_int_equal(ASK(&reply, STR("LRANGE"), STR(C), STR("0"), STR("-1")),
                     ERR_OK);
    assert_int_equal(reply->count, ROUNDS * COMMANDS);
    for (size_t i = 0; i < reply->count; i++)
        assert_int_equal(strtol(reply->items[i]->text.p, NULL, 10), i);
    redis_reply_free(&reply);
}

static void
a_watched_key_that_another_writes_to_is_a_conflict_and_nothing_is_done(void **state)
{
    struct redis_reply *reply;
    struct why why = {""};
    const struct str get[] = {STR("GET"), STR(A)};

    (void)state;
    assert_int_equal(ASK(NULL, STR("SET"), STR(A), STR("1")), ERR_OK);
    for (int i = 0; i < 3; i++) {
        ADD(STR("SET"), STR(A), STR("mine"));
        ADD(STR("SET"), STR(B), STR("mine"));
        assert_int_equal(redis_watch(redis, STR(A), get, 2, &reply, NULL), ERR_OK);
        assert_true(str_equal(reply->text, STR("1")));
        redis_reply_free(&reply);
        if (i == 0) /* the same value is a write too */
            OTHER_ASK(STR("SET"), STR(A), STR("1"));
        else if (i == 1) /* and so is one after the commands were sent: or before */
            OTHER_ASK(STR("APPEND"), STR(A), STR(""));
        else
            OTHER_ASK(STR("DEL"), STR(A));
        assert_int_equal(run(&why), ERR_CONFLICT);
        assert_non_null(strstr(why.text, "somebody else"));
        expect(STR(A), i == 2 ? STR("") : STR("1"));
        expect(STR(B), STR(""));
    }
    expect_works();
    expect(STR(B), STR(""));
    /* Who only looks disturbs nobody. */
    ADD(STR("SET"), STR(A), STR("mine"));
    assert_int_equal(watch(STR(A)), ERR_OK);
    OTHER_ASK(STR("GET"), STR(A));
    assert_int_equal(run(NULL), ERR_OK);
    expect(STR(A), STR("mine"));
}

static void
a_watch_left_behind_does_not_bind_the_next_transaction(void **state)
{
    (void)state;
    assert_int_equal(watch(STR(A)), ERR_OK);
    ADD(STR("SET"), STR(B), STR("1"));
    assert_int_equal(watch(STR(B)), ERR_OK);
    OTHER_ASK(STR("SET"), STR(A), STR("theirs"));
    assert_int_equal(run(NULL), ERR_OK);
    expect(STR(A), STR("theirs"));
    expect(STR(B), STR("1"));
    /* The same key again: only what came after the second look counts. */
    assert_int_equal(watch(STR(A)), ERR_OK);
    OTHER_ASK(STR("SET"), STR(A), STR("again"));
    expect_works();
}

/* Breaks what redis_watch began. */
static void
step_between(int how)
{
    if (how == 1)
        assert_int_equal(ASK(NULL, STR("PING")), ERR_OK);
    if (how == 2)
        assert_int_equal(redis_queue(redis, (struct str[]){STR("PING")}, 1, NULL),
                         ERR_OK);
    if (how == 3)
        assert_int_equal(
            redis_eval(redis, "return 1", "0", NULL, 0, NULL, 0, NULL, NULL),
            ERR_OK);
    if (how == 4)
        expect_works();
}

static void
exec_without_a_watch_just_before_is_again_and_what_was_added_is_forgotten(
    void **state)
{
    (void)state;
    for (int how = 0; how <= 4; how++) {
        struct why why = {""};

        if (how > 0)
            assert_int_equal(watch(STR(A)), ERR_OK);
        step_between(how);
        ADD(STR("SET"), STR(B), STR("never"));
        assert_int_equal(redis_exec_send(redis, &why), ERR_AGAIN);
        assert_non_null(strstr(why.text, "does not watch"));
        expect_works();
        expect(STR(B), STR(""));
    }
    ADD(STR("SET"), STR(B), STR("never"));
    redis_add_reset(redis);
    expect_works();
    expect(STR(B), STR(""));
    /* A look that fails is no watch. */
    assert_int_equal(ASK(NULL, STR("SET"), STR(A), STR("text")), ERR_OK);
    struct redis_reply *reply;
    const struct str words[] = {STR("HGET"), STR(A), STR("x")};
    assert_int_equal(redis_watch(redis, STR(A), words, 3, &reply, NULL), ERR_FATAL);
    assert_null(reply);
    ADD(STR("SET"), STR(B), STR("never"));
    assert_int_equal(redis_exec_send(redis, NULL), ERR_AGAIN);
    expect_works();
    expect(STR(B), STR(""));
}

static void
a_command_refused_when_it_is_queued_means_that_nothing_was_done(void **state)
{
    struct why why = {""};

    (void)state;
    ADD(STR("SET"), STR(A), STR("never"));
    ADD(STR("GET"));
    ADD(STR("nonsense"), STR(A));
    ADD(STR("SET"), STR(B), STR("never"));
    assert_int_equal(watch(STR(A)), ERR_OK);
    assert_int_equal(run(&why), ERR_FATAL);
    assert_non_null(strstr(why.text, "wrong number of arguments")); /* the first */
    expect(STR(A), STR(""));
    expect(STR(B), STR(""));
    expect_works();
}

static void
a_full_server_refuses_the_whole_transaction(void **state)
{
    struct why why = {""};
    enum err watched, ran;

    (void)state;
    ADD(STR("DEL"), STR(C)); /* this alone it would take */
    ADD(STR("SET"), STR(A), STR("never"));
    assert_int_equal(ASK(NULL, STR("SET"), STR(C), STR("1")), ERR_OK);
    OTHER_ASK(STR("CONFIG"), STR("SET"), STR("maxmemory"), STR("1"));
    watched = watch(STR(A));
    ran = run(&why);
    OTHER_ASK(STR("CONFIG"), STR("SET"), STR("maxmemory"), STR("0"));
    assert_int_equal(watched, ERR_OK);
    assert_int_equal(ran, ERR_FULL);
    assert_non_null(strstr(why.text, "OOM"));
    expect(STR(A), STR(""));
    expect(STR(C), STR("1"));
    expect_works();
}

static void
must_write(struct redis_link *link, const char *text)
{
    assert_int_equal(
        redis_link_write(link, (const uint8_t *)text, strlen(text), NULL), ERR_OK);
}

/* Sends what redis_exec_send would, and lets something happen before EXEC. */
static void
a_server_that_is_full_only_at_exec_is_full(void **state)
{
    static const char commands[] =
        "*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$25\r\n" A "\r\n$1\r\n1\r\n",
                      exec[] = "*1\r\n$4\r\nEXEC\r\n";
    struct redis_transaction *t = &redis->transaction;
    struct why why = {""};
    enum err err;

    (void)state;
    assert_int_equal(strlen(A), 25);
    assert_int_equal(watch(STR(A)), ERR_OK);
    t->due = 3;
    must_write(t->link, commands);
    clock_sleep_us(100000);
    OTHER_ASK(STR("CONFIG"), STR("SET"), STR("maxmemory"), STR("1"));
    must_write(t->link, exec);
    err = redis_exec_end(redis, &why);
    OTHER_ASK(STR("CONFIG"), STR("SET"), STR("maxmemory"), STR("0"));
    if (err != ERR_FULL)
        fail_msg("%s: %s", err_name(err), why.text);
    expect(STR(A), STR(""));
    expect_works();
}

static void
a_command_that_fails_when_it_runs_is_corrupt_and_the_others_were_done(void **state)
{
    struct why why = {""};

    (void)state;
    assert_int_equal(ASK(NULL, STR("SET"), STR(A), STR("text")), ERR_OK);
    ADD(STR("SET"), STR(B), STR("1"));
    ADD(STR("HSET"), STR(A), STR("field"), STR("value"));
    ADD(STR("SET"), STR(C), STR("1"));
    assert_int_equal(watch(STR(A)), ERR_OK);
    assert_int_equal(run(&why), ERR_CORRUPT);
    assert_non_null(strstr(why.text, "WRONGTYPE"));
    expect(STR(A), STR("text"));
    expect(STR(B), STR("1"));
    expect(STR(C), STR("1"));
    expect_works();
}

static void
commands_of_the_next_may_be_added_while_one_is_under_way(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        ADD(STR("SET"), STR(A), STR("first"));
        assert_int_equal(watch(STR(A)), ERR_OK);
        if (i == 1) /* what becomes of the first is nothing to the second */
            OTHER_ASK(STR("SET"), STR(A), STR("theirs"));
        ADD(STR("SET"), STR(C), STR("first"));
        assert_int_equal(redis_exec_send(redis, NULL), ERR_OK);
        ADD(STR("GETSET"), STR(B), STR("second"));
        assert_int_equal(redis_exec_end(redis, NULL),
                         i == 0 ? ERR_OK : ERR_CONFLICT);
        ADD(STR("SET"), STR(C), STR("second"));
        assert_int_equal(watch(STR(B)), ERR_OK);
        assert_int_equal(run(NULL), ERR_OK);
        expect(STR(A), i == 0 ? STR("first") : STR("theirs"));
        expect(STR(B), STR("second"));
        expect(STR(C), STR("second"));
        assert_int_equal(forget(state), 0);
    }
}

static void
a_connection_lost_after_the_watch_is_again_and_nothing_is_done(void **state)
{
    char text[24];
    struct str id = client_id(text);
    struct why why = {""};

    (void)state;
    ADD(STR("SET"), STR(A), STR("never"));
    assert_int_equal(watch(STR(A)), ERR_OK);
    OTHER_ASK(STR("CLIENT"), STR("KILL"), STR("ID"), id);
    assert_int_equal(run(&why), ERR_AGAIN);
    assert_non_null(strstr(why.text, "redis at "));
    expect(STR(A), STR(""));
    expect_works();
    /* Lost before the look. */
    id = client_id(text);
    OTHER_ASK(STR("CLIENT"), STR("KILL"), STR("ID"), id);
    assert_int_equal(watch(STR(A)), ERR_AGAIN);
    expect_works();
}

/* The server reads it, and waits with its answer until it is too late. */
static void
a_connection_lost_before_the_answer_is_again(void **state)
{
    char text[24];
    struct str id = client_id(text);
    struct why why = {""};
    enum err sent, end = ERR_OK;

    (void)state;
    OTHER_ASK(STR("CLIENT"), STR("PAUSE"), STR("10000"), STR("WRITE"));
    ADD(STR("SET"), STR(A), STR("never"));
    assert_int_equal(watch(STR(A)), ERR_OK);
    sent = redis_exec_send(redis, &why);
    ADD(STR("APPEND"), STR(B), STR("next")); /* outlives the connection */
    OTHER_ASK(STR("CLIENT"), STR("KILL"), STR("ID"), id);
    if (sent == ERR_OK)
        end = redis_exec_end(redis, &why);
    OTHER_ASK(STR("CLIENT"), STR("UNPAUSE"));
    assert_int_equal(sent, ERR_OK);
    assert_int_equal(end, ERR_AGAIN);
    expect_works();
    expect(STR(A), STR(""));
    expect(STR(B), STR("next"));
}

static void
an_answer_that_comes_too_late_is_again_though_all_was_done(void **state)
{
    struct redis *patient = redis;
    enum err err;

    (void)state;
    assert_int_equal(
        redis_open(&redis, getenv("CLICKLEDGER_TEST_REDIS"), 100000, NULL), ERR_OK);
    ADD(STR("SET"), STR(A), STR("1"));
    ADD(STR("EVAL"),
        STR("local from = redis.call('TIME') repeat local now = redis.call('TIME') "
            "until (now[1] - from[1]) * 1000000 + now[2] - from[2] > 400000"),
        STR("0"));
    assert_int_equal(watch(STR(A)), ERR_OK);
    err = run(NULL);
    redis_close(&redis);
    redis = patient;
    assert_int_equal(err, ERR_AGAIN);
    expect(STR(A), STR("1"));
}

static void
words_of_a_transaction_are_binary_and_of_any_size(void **state)
{
    static const size_t sizes[] = {1, 9, 10, 65535, 65536, 5000000};
    char *data = malloc(5000000);

    (void)state;
    assert_non_null(data);
    srand(6);
    for (size_t i = 0; i < 5000000; i++)
        data[i] = (char)rand();
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct str value = {data, (uint32_t)sizes[i]};

        ADD(STR("SET"), STR(A), value);
        ADD(STR("SET"), STR(B), STR(""));
        ADD(STR("SET"), STR(C), value);
        assert_int_equal(watch(STR(A)), ERR_OK);
        assert_int_equal(run(NULL), ERR_OK);
        expect(STR(A), value);
        expect(STR(B), STR(""));
        expect(STR(C), value);
    }
    free(data);
}

static void
a_command_too_big_is_refused_and_what_was_added_before_it_is_forgotten(void **state)
{
    const struct str big[] = {STR("SET"), STR(A), {"", REDIS_COMMAND_BYTES_MAX}};
    struct why why = {""};

    (void)state;
    ADD(STR("SET"), STR(B), STR("never"));
    assert_int_equal(redis_add(redis, big, 3, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "bytes"));
    expect_works();
    expect(STR(A), STR(""));
    expect(STR(B), STR(""));
}

static void
an_absent_server_is_again_at_the_watch(void **state)
{
    const struct str get[] = {STR("GET"), STR(A)};
    struct redis_reply *reply;
    struct redis *away;
    struct why why;

    (void)state;
    assert_int_equal(redis_open(&away, "unix:/nonexistent", 1000000, NULL), ERR_OK);
    assert_int_equal(redis_add(away, get, 2, NULL), ERR_OK);
    assert_int_equal(redis_watch(away, STR(A), get, 2, &reply, &why), ERR_AGAIN);
    assert_null(reply);
    assert_non_null(strstr(why.text, "redis at "));
    assert_int_equal(redis_exec_send(away, &why), ERR_AGAIN);
    redis_close(&away);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, forget, forget)
    const struct CMUnitTest tests[] = {
        T(the_commands_of_a_transaction_run_together_and_in_order),
        T(a_watched_key_that_another_writes_to_is_a_conflict_and_nothing_is_done),
        T(a_watch_left_behind_does_not_bind_the_next_transaction),
        T(exec_without_a_watch_just_before_is_again_and_what_was_added_is_forgotten),
        T(a_command_refused_when_it_is_queued_means_that_nothing_was_done),
        T(a_full_server_refuses_the_whole_transaction),
        T(a_server_that_is_full_only_at_exec_is_full),
        T(a_command_that_fails_when_it_runs_is_corrupt_and_the_others_were_done),
        T(commands_of_the_next_may_be_added_while_one_is_under_way),
        T(a_connection_lost_after_the_watch_is_again_and_nothing_is_done),
        T(a_connection_lost_before_the_answer_is_again),
        T(an_answer_that_comes_too_late_is_again_though_all_was_done),
        T(words_of_a_transaction_are_binary_and_of_any_size),
        T(a_command_too_big_is_refused_and_what_was_added_before_it_is_forgotten),
        T(an_absent_server_is_again_at_the_watch),
    };
#undef T

    return redis_main("transactions", tests, sizeof(tests) / sizeof(tests[0]));
}

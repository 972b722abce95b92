/* Transactions against a real cluster: each at its key's master, also while slots move. */
#include "common/redis_impl.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>

#include <cmocka.h>

#include "common/clock.h"
#include "redis_cluster_fixture.h"

static void
add(const struct str *words, size_t n)
{
    assert_int_equal(redis_add(redis, words, n, NULL), ERR_OK);
}

static enum err
watch(struct str key, struct why *why)
{
    struct redis_reply *reply;
    enum err err = redis_watch(redis, key, WORDS(STR("EXISTS"), key), &reply, why);

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
expect(struct redis *at, struct str key, struct str want)
{
    struct redis_reply *reply;

    assert_int_equal(ask(at, WORDS(STR("GET"), key), &reply), ERR_OK);
    assert_true(reply->type == REDIS_NIL ? want.n == 0
                                         : str_equal(reply->text, want));
    redis_reply_free(&reply);
}

/* key becomes value, by a transaction. */
static void
transact(struct str key, struct str value)
{
    struct why why = {""};

    add(WORDS(STR("SET"), key, value));
    if (watch(key, &why) != ERR_OK || run(&why) != ERR_OK)
        fail_msg("%.*s: %s", (int)key.n, key.p, why.text);
    expect(redis, key, value);
}

static void
a_transaction_goes_to_the_master_of_its_key(void **state)
{
    unsigned seen = 0;

    (void)state;
    for (unsigned p = 0; p < PARTITIONS; p++) {
        struct redis *master = rig.node[master_of(p)];
        char a_text[32], b_text[32];
        struct str a = key_of(a_text, p, "tx-a"), b = key_of(b_text, p, "tx-b");

        seen |= 1U << master_of(p);
        add(WORDS(STR("SET"), a, a));
        add(WORDS(STR("SET"), b, b));
        assert_int_equal(watch(a, NULL), ERR_OK);
        assert_int_equal(run(NULL), ERR_OK);
        expect(master, a, a);
        expect(master, b, b);

        add(WORDS(STR("SET"), b, STR("never")));
        assert_int_equal(watch(a, NULL), ERR_OK);
        assert_int_equal(ask(master, WORDS(STR("SET"), a, STR("theirs")), NULL),
                         ERR_OK);
        assert_int_equal(run(NULL), ERR_CONFLICT);
        expect(redis, b, b);
    }
    assert_int_equal(__builtin_popcount(seen), 3);
    add(WORDS(STR("SET"), STR("{p0}:tx"), STR("never")));
    assert_int_equal(watch(STR("{p0}:tx"), NULL), ERR_OK);
    expect(redis, STR("{p1}:none"), STR("")); /* another node's, and yet */
    assert_int_equal(run(NULL), ERR_AGAIN);
    expect(redis, STR("{p0}:tx"), STR(""));
}

static void
keys_of_two_slots_in_one_transaction_are_refused_whole(void **state)
{
    (void)state;
    for (unsigned p = 1; p < PARTITIONS; p++) {
        char text[32];
        struct str other = key_of(text, p, "tx-other");

        add(WORDS(STR("SET"), STR("{p0}:tx-here"), STR("never")));
        add(WORDS(STR("SET"), other, STR("never")));
        assert_int_equal(watch(STR("{p0}:tx-here"), NULL), ERR_OK);
        assert_int_not_equal(run(NULL), ERR_OK);
        expect(redis, STR("{p0}:tx-here"), STR(""));
        expect(redis, other, STR(""));
    }
}

static void
the_watch_finds_a_slot_that_moved(void **state)
{
    char text[32];
    struct str key = key_of(text, 7, "tx");
    struct move m;

    (void)state;
    transact(key, STR("1")); /* the map is known, then it is wrong */
    move_begin(&m, 7);
    move_rest(&m);
    transact(key, STR("2"));
    expect(rig.node[m.to], key, STR("2"));
}

static void
a_slot_on_its_way_is_again_and_nothing_is_done_before_it_has_arrived(void **state)
{
    char a_text[32], b_text[32], c_text[32];
    struct str a = key_of(a_text, 9, "tx-a"), b = key_of(b_text, 9, "tx-b"),
               c = key_of(c_text, 9, "tx-c");
    struct why why;
    struct move m;

    (void)state;
    transact(a, STR("1"));
    transact(b, STR("1"));
    move_begin(&m, 9);
    move_key(&m, a);
    /* a: there, b: here, c: not yet anywhere. */
    assert_int_equal(watch(a, &why), ERR_AGAIN);
    assert_non_null(strstr(why.text, "ASK"));
    assert_int_equal(watch(c, &why), ERR_AGAIN);
    for (int i = 0; i < 3; i++) {
        add(WORDS(STR("SET"), b, STR("never")));
        if (i == 2)
            add(WORDS(STR("MSET"), a, STR("never"), b, STR("never")));
        else
            add(WORDS(STR("SET"), i == 0 ? a : c, STR("never")));
        assert_int_equal(watch(b, NULL), ERR_OK);
        assert_int_equal(run(&why), ERR_AGAIN);
        assert_non_null(strstr(why.text, i == 2 ? "TRYAGAIN" : "ASK"));
        expect(redis, a, STR("1"));
        expect(redis, b, STR("1"));
        expect(redis, c, STR(""));
    }
    transact(b, STR("2")); /* what is wholly here is done here */
    move_rest(&m);
    transact(a, STR("3"));
    transact(b, STR("3"));
    transact(c, STR("3"));
    expect(rig.node[m.to], b, STR("3"));
}

static void
a_slot_that_moved_after_the_watch_is_again_and_nothing_is_done(void **state)
{
    char text[32];
    struct str key = key_of(text, 11, "tx");
    struct why why;
    struct move m;

    (void)state;
    transact(key, STR("1"));
    add(WORDS(STR("SET"), key, STR("never")));
    assert_int_equal(watch(key, NULL), ERR_OK);
    move_begin(&m, 11);
    move_rest(&m);
    assert_int_equal(run(&why), ERR_AGAIN);
    assert_non_null(strstr(why.text, "MOVED"));
    expect(rig.node[m.to], key, STR("1"));
    transact(key, STR("2"));
    expect(rig.node[m.to], key, STR("2"));
}

/* Sends what redis_exec_send would, and moves the slot before EXEC. */
static void
a_slot_that_moved_before_exec_is_again_and_nothing_is_done(void **state)
{
    const struct str multi[] = {STR("MULTI")}, exec[] = {STR("EXEC")};
    char text[32], value[24];
    struct str key = key_of(text, 13, "tx");
    const struct str set[] = {STR("SET"), key, STR("never")};
    const struct redis_words runs[] = {{multi, 1}, {set, 3}, {exec, 1}};
    struct buf bytes = BUF_MAX(1024);
    struct why why = {""};
    struct move m;

    (void)state;
    transact(key, STR("1"));
    assert_int_equal(watch(key, NULL), ERR_OK);
    redis->transaction.due = 3;
    for (int i = 0; i < 3; i++) {
        if (i == 2) {
            clock_sleep_us(100000); /* they are queued */
            move_begin(&m, 13);
            move_rest(&m);
        }
        buf_reset(&bytes);
        assert_int_equal(redis_words_put(&bytes, &runs[i], 1, NULL), ERR_OK);
        assert_int_equal(
            redis_link_write(redis->transaction.link, bytes.p, bytes.n, NULL),
            ERR_OK);
    }
    buf_free(&bytes);
    if (redis_exec_end(redis, &why) != ERR_AGAIN)
        fail_msg("%s", why.text);
    assert_non_null(strstr(why.text, "MOVED"));
    expect(rig.node[m.to], key, STR("1"));
    transact(key, number_of(value, 2));
}

static void
a_master_that_hangs_before_its_answer_is_again_and_the_others_go_on(void **state)
{
    int hung = master_of(1);
    unsigned alive = 0;
    char text[32], other_text[32];
    struct str key = key_of(text, 1, "tx-hung"), other;
    int64_t began_us;
    struct why why;
    enum err sent, end = ERR_OK;

    (void)state;
    while (master_of(alive) == hung)
        alive++;
    other = key_of(other_text, alive, "tx-alive");
    transact(key, STR("1"));
    transact(other, STR("1"));
    add(WORDS(STR("SET"), key, STR("2")));
    assert_int_equal(watch(key, NULL), ERR_OK);
    assert_int_equal(kill(rig_pid(&rig, hung), SIGSTOP), 0);
    sent = redis_exec_send(redis, &why);
    if (sent == ERR_OK)
        end = redis_exec_end(redis, &why);
    began_us = clock_mono_us();
    transact(other, STR("2"));
    enum err again = watch(key, NULL); /* not waited for a second time */
    int64_t took_us = clock_mono_us() - began_us;
    assert_int_equal(kill(rig_pid(&rig, hung), SIGCONT), 0);
    assert_int_equal(sent, ERR_OK);
    assert_int_equal(end, ERR_AGAIN);
    assert_non_null(strstr(why.text, "time-out"));
    assert_int_equal(again, ERR_AGAIN);
    assert_true(took_us < TIMEOUT_US);
    began_us = clock_mono_us();
    while (watch(key, NULL) != ERR_OK) {
        assert_true(clock_mono_us() - began_us < PATIENCE_US);
        clock_sleep_us(10000);
    }
    transact(key, STR("3"));
}

/* Commands that never left us are nobody's answers later. */
static void
a_master_that_was_away_for_a_moment_takes_transactions_again(void **state)
{
    int dead = master_of(0);
    char text[32];
    struct str key = key_of(text, 0, "tx-away");
    const struct str get[] = {STR("GET"), key};
    int64_t began_us;
    enum err err;

    (void)state;
    transact(key, STR("1"));
    assert_true(rig_node(&rig, "kill", dead));
    for (int i = 0; i < 5; i++) {
        add(WORDS(STR("SET"), key, STR("2")));
        assert_int_equal(watch(key, NULL), ERR_AGAIN);
        assert_int_equal(redis_exec_send(redis, NULL), ERR_AGAIN);
        for (int k = 0; k < 3; k++)
            assert_int_equal(redis_queue(redis, get, 2, NULL), ERR_OK);
        for (int k = 0; k < 3; k++)
            assert_int_equal(redis_reply_next(redis, NULL, NULL), ERR_AGAIN);
    }
    assert_true(rig_node(&rig, "start-node", dead));
    began_us = clock_mono_us();
    do {
        redis_add_reset(redis);
        add(WORDS(STR("SET"), key, STR("3")));
        err = watch(key, NULL);
        if (err == ERR_OK)
            err = run(NULL);
        assert_true(clock_mono_us() - began_us < PATIENCE_US);
        clock_sleep_us(10000);
    } while (err == ERR_AGAIN);
    assert_int_equal(err, ERR_OK);
    expect(redis, key, STR("3"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_transaction_goes_to_the_master_of_its_key),
        cmocka_unit_test(keys_of_two_slots_in_one_transaction_are_refused_whole),
        cmocka_unit_test(the_watch_finds_a_slot_that_moved),
        cmocka_unit_test(
            a_slot_on_its_way_is_again_and_nothing_is_done_before_it_has_arrived),
        cmocka_unit_test(
            a_slot_that_moved_after_the_watch_is_again_and_nothing_is_done),
        cmocka_unit_test(
            a_slot_that_moved_before_exec_is_again_and_nothing_is_done),
        cmocka_unit_test(
            a_master_that_hangs_before_its_answer_is_again_and_the_others_go_on),
        cmocka_unit_test(
            a_master_that_was_away_for_a_moment_takes_transactions_again),
    };

    return rig_main(tests, sizeof(tests) / sizeof(tests[0]));
}

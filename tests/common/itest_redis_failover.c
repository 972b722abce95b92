/* Against a real cluster whose nodes die, hang and come back. */
#include "common/redis_impl.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "common/clock.h"
#include "redis_cluster_fixture.h"

struct stream {
    int64_t set[PARTITIONS]; /* the last value acknowledged */
    int64_t tries, again, again_alive, longest_us;
    int64_t first_again_us, last_again_us;
};

/* One round: a write to every partition, and what came of each. */
static void
stream_round(struct stream *s, int64_t value, unsigned dead)
{
    int64_t began_us = clock_mono_us(), took_us;

    for (unsigned p = 0; p < PARTITIONS; p++) {
        char text[32], n[24];
        const struct str words[] = {
            STR("EVAL"),
            STR("redis.call('SET', KEYS[1], ARGV[1]) return "
                "KEYS[1] .. ' ' .. ARGV[1]"),
            STR("1"),
            key_of(text, p, "stream"),
            number_of(n, value),
        };
        assert_int_equal(redis_queue(redis, words, 5, NULL), ERR_OK);
    }
    for (unsigned p = 0; p < PARTITIONS; p++) {
        char expected[64], text[32];
        struct redis_reply *reply;
        struct str key = key_of(text, p, "stream");
        enum err err = redis_reply_next(redis, &reply, NULL);

        s->tries++;
        if (err != ERR_OK) {
            assert_int_equal(err, ERR_AGAIN);
            s->again++;
            s->again_alive += (dead >> p & 1) == 0;
            s->last_again_us = clock_mono_us();
            if (s->first_again_us == 0)
                s->first_again_us = s->last_again_us;
            continue;
        }
        (void)snprintf(expected, sizeof(expected), "%.*s %lld", (int)key.n, key.p,
                       (long long)value);
        assert_true(str_equal(reply->text, str_of(expected)));
        redis_reply_free(&reply);
        s->set[p] = value;
    }
    took_us = clock_mono_us() - began_us;
    s->longest_us = took_us > s->longest_us ? took_us : s->longest_us;
}

static unsigned
partitions_of(int node)
{
    unsigned set = 0;

    for (unsigned p = 0; p < PARTITIONS; p++)
        set |= (unsigned)(master_of(p) == node) << p;
    return set;
}

/* Rounds until all of them are answered for a second; then each key has its last value. */
static struct stream
stream_until_whole(unsigned dead)
{
    int64_t began_us = clock_mono_us(), value = 0;
    struct stream s = {.tries = 0};

    do {
        stream_round(&s, ++value, dead);
        assert_true(clock_mono_us() - began_us < PATIENCE_US);
        clock_sleep_us(5000);
    } while (s.again == 0 || clock_mono_us() - s.last_again_us < 1000000);
    for (unsigned p = 0; p < PARTITIONS; p++) {
        char text[32], n[24];
        const struct str words[] = {STR("GET"), key_of(text, p, "stream")};
        struct redis_reply *reply;

        assert_int_equal(ask(redis, words, 2, &reply), ERR_OK);
        assert_true(str_equal(reply->text, number_of(n, s.set[p])));
        redis_reply_free(&reply);
    }
    print_message(
        "%lld of %lld commands again, for %lld ms; the longest round of %d "
        "took %lld ms\n",
        (long long)s.again, (long long)s.tries,
        (long long)(s.last_again_us - s.first_again_us) / 1000, PARTITIONS,
        (long long)s.longest_us / 1000);
    return s;
}

/* All nodes run and replicas are in sync. */
static void
whole_again(void)
{
    const char *start[] = {"deploy/redis-cluster", "start", rig.dir, NULL};

    assert_int_equal(rig_run(start), 0);
}

static void
a_killed_master_is_again_until_its_replica_is_promoted(void **state)
{
    int dead = master_of(0);
    unsigned set = partitions_of(dead);
    struct stream s = {.tries = 0};

    (void)state;
    for (int i = 0; i < 20; i++)
        stream_round(&s, i, 0);
    assert_int_equal(s.again, 0);
    /* What is queued now, and half of it sent, is answered by nobody. */
    for (unsigned p = 0; p < PARTITIONS; p++) {
        char text[32];
        const struct str words[] = {STR("GET"), key_of(text, p, "x")};
        assert_int_equal(redis_queue(redis, words, 2, NULL), ERR_OK);
    }
    assert_true(rig_node(&rig, "kill", dead));
    for (unsigned p = 0; p < PARTITIONS; p++) {
        enum err err = redis_reply_next(redis, NULL, NULL);
        assert_int_equal(err, (set >> p & 1) != 0 ? ERR_AGAIN : ERR_OK);
    }
    s = stream_until_whole(set);
    /* The rest of the cluster never noticed, and refusals are quick. */
    assert_int_equal(s.again_alive, 0);
    assert_true(s.longest_us < TIMEOUT_US);
    assert_int_not_equal(master_of(0), dead);
    assert_true(rig_node(&rig, "start-node", dead));
    whole_again();
    s = (struct stream){.tries = 0};
    stream_round(&s, 1, 0);
    assert_int_equal(s.again, 0);
}

static void
a_master_that_hangs_costs_a_time_out_and_not_the_others(void **state)
{
    int hung = master_of(1);
    unsigned set = partitions_of(hung);
    struct stream s;

    (void)state;
    assert_int_equal(kill(rig_pid(&rig, hung), SIGSTOP), 0);
    s = stream_until_whole(set);
    assert_int_equal(s.again_alive, 0);
    /* One time-out, and a look at the map that may ask the hung node too. */
    assert_true(s.longest_us < 2 * TIMEOUT_US);
    /* It comes back and takes itself for the master until it hears otherwise. */
    assert_int_equal(kill(rig_pid(&rig, hung), SIGCONT), 0);
    whole_again();
    s = (struct stream){.tries = 0};
    for (int i = 0; i < 20; i++)
        stream_round(&s, i, 0);
    assert_int_equal(s.again, 0);
}

static void
a_restarted_master_is_found_again(void **state)
{
    (void)state;
    for (int i = 1; i <= RIG_NODES; i++)
        assert_true(rig_node(&rig, "kill", i));
    assert_int_equal(
        redis_command(redis, WORDS(STR("GET"), STR("{p0}:x")), NULL, NULL),
        ERR_AGAIN);
    assert_int_equal(redis_command(redis, WORDS(STR("PING")), NULL, NULL),
                     ERR_AGAIN);
    whole_again();
    clock_sleep_us(1100000); /* as long as a node may be left alone */
    struct stream s = {.tries = 0};
    stream_round(&s, 1, 0); /* finds its connections dead: perhaps lost */
    s = (struct stream){.tries = 0};
    stream_round(&s, 2, 0);
    assert_int_equal(s.again, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_master_is_again_until_its_replica_is_promoted),
        cmocka_unit_test(a_master_that_hangs_costs_a_time_out_and_not_the_others),
        cmocka_unit_test(a_restarted_master_is_found_again),
    };

    return rig_main(tests, sizeof(tests) / sizeof(tests[0]));
}

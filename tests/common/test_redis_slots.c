/* Slots, the keys of commands, maps and redirects: without a server. */
#include "common/redis_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void
slots_are_those_of_the_specification(void **state)
{
    static const struct {
        const char *key;
        unsigned slot;
    } known[] = {
        {"123456789", 0x31c3},
        {"", 0},
        {"foo", 12182},
        {"bar", 5061},
        {"{foo}", 12182},
        {"a{foo}b{bar}", 12182},
        {"{user1000}.following", 3443},
        {"{user1000}.followers", 3443},
        {"foo{}{bar}", 8363},    /* an empty tag is none */
        {"foo{{bar}}zap", 4015}, /* the tag is "{bar" */
        {"foo{bar}{zap}", 5061},
        {"foo{bar", 15278},
        {"}foo{", 8453},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        unsigned slot = redis_slot(str_of(known[i].key));
        if (slot != known[i].slot)
            print_message("%s: %u\n", known[i].key, slot);
        assert_int_equal(slot, known[i].slot);
    }
}

/* The plain definition, a bit at a time. */
static unsigned
slot_plainly(const uint8_t *p, size_t n)
{
    unsigned crc = 0;

    for (size_t i = 0; i < n; i++) {
        crc ^= (unsigned)p[i] << 8;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc & 0x8000) != 0 ? (crc << 1 ^ 0x1021) & 0xffff : crc << 1;
    }
    return crc % 16384;
}

static void
slots_equal_a_bitwise_crc(void **state)
{
    uint8_t key[64];

    (void)state;
    srand(7);
    for (int i = 0; i < 20000; i++) {
        size_t n = (size_t)rand() % sizeof(key);

        for (size_t j = 0; j < n; j++)
            key[j] = (uint8_t)rand();
        if (memchr(key, '{', n) != NULL)
            continue;
        assert_int_equal(redis_slot((struct str){(char *)key, (uint32_t)n}),
                         slot_plainly(key, n));
    }
}

static void
a_partitions_keys_share_a_slot(void **state)
{
    (void)state;
    assert_int_equal(redis_slot(STR("{p7}:owner")),
                     redis_slot(STR("{p7}:1:1d:c:0")));
    assert_int_not_equal(redis_slot(STR("{p7}:owner")),
                         redis_slot(STR("{p8}:owner")));
}

static bool
key_of(struct str *key, const char *a, const char *b, const char *c, const char *d)
{
    struct str first[2] = {str_of(a), str_of(b)},
               second[2] = {str_of(c), str_of(d)};
    /* Two runs, as redis_eval has them; an absent word is none. */
    const struct redis_words runs[2] = {{first, b == NULL ? 1 : 2},
                                        {second, c == NULL   ? 0
                                                 : d == NULL ? 1
                                                             : 2}};

    return redis_key_of(runs, 2, key);
}

static void
a_commands_key_is_its_second_word_or_a_scripts_first(void **state)
{
    struct str key;

    (void)state;
    assert_true(key_of(&key, "GET", "k", NULL, NULL));
    assert_true(str_equal(key, STR("k")));
    assert_true(key_of(&key, "evalsha", "sha", "2", "k"));
    assert_true(str_equal(key, STR("k")));
    assert_true(key_of(&key, "EVAL", "return 1", "1", "k"));
    assert_true(str_equal(key, STR("k")));
    assert_false(key_of(&key, "EVAL", "return 1", "0", "argument"));
    assert_false(key_of(&key, "EVAL", "return 1", "1", NULL));
    assert_false(key_of(&key, "PING", NULL, NULL, NULL));
    assert_false(key_of(&key, "scan", "0", NULL, NULL));
    assert_false(key_of(&key, "SCRIPT", "LOAD", "return 1", NULL));
    assert_false(key_of(&key, "FLUSHALL", NULL, NULL, NULL));
}

/* --- CLUSTER SLOTS --- */

struct rows {
    struct redis_reply node[64], *list[64];
    size_t nodes, lists;
};

static struct redis_reply *
number(struct rows *rows, int64_t n)
{
    struct redis_reply *r = &rows->node[rows->nodes++];
    *r = (struct redis_reply){.type = REDIS_INTEGER, .integer = n};
    return r;
}

static struct redis_reply *
text(struct rows *rows, const char *t)
{
    struct redis_reply *r = &rows->node[rows->nodes++];
    *r = (struct redis_reply){.type = t == NULL ? REDIS_NIL : REDIS_TEXT,
                              .text = str_of(t)};
    return r;
}

static struct redis_reply *
list(struct rows *rows, size_t n, ...)
{
    struct redis_reply *r = &rows->node[rows->nodes++];
    va_list more;

    *r = (struct redis_reply){
        .type = REDIS_ARRAY, .count = n, .items = rows->list + rows->lists};
    va_start(more, n);
    for (size_t i = 0; i < n; i++)
        rows->list[rows->lists++] = va_arg(more, struct redis_reply *);
    va_end(more);
    return r;
}

static enum err
range_of(struct redis_range *range, int64_t from, int64_t to, const char *host,
         int64_t port)
{
    struct rows r = {.nodes = 0};
    struct redis_reply *node =
        list(&r, 3, text(&r, host), number(&r, port), text(&r, "id"));
    struct redis_reply *one =
        list(&r, 4, number(&r, from), number(&r, to), node, node);
    struct why why;

    return redis_range_read(list(&r, 1, one), 0, "asked.example", range, &why);
}

static void
a_range_of_the_map_is_read(void **state)
{
    struct redis_range range;

    (void)state;
    assert_int_equal(range_of(&range, 0, 5460, "10.0.0.1", 6379), ERR_OK);
    assert_int_equal(range.from, 0);
    assert_int_equal(range.to, 5460);
    assert_string_equal(range.address, "10.0.0.1:6379");
    assert_int_equal(range_of(&range, 16383, 16383, "::1", 65535), ERR_OK);
    assert_string_equal(range.address, "::1:65535");
    /* A node that does not know its own address. */
    assert_int_equal(range_of(&range, 0, 1, "", 7000), ERR_OK);
    assert_string_equal(range.address, "asked.example:7000");
    assert_int_equal(range_of(&range, 0, 1, NULL, 7000), ERR_OK);
    assert_string_equal(range.address, "asked.example:7000");
}

static void
a_map_that_is_none_is_refused(void **state)
{
    struct rows r = {.nodes = 0};
    struct redis_range range;
    char host[300];

    (void)state;
    memset(host, 'h', sizeof(host) - 1);
    host[sizeof(host) - 1] = '\0';
    assert_int_equal(range_of(&range, 0, 16384, "h", 1), ERR_FATAL);
    assert_int_equal(range_of(&range, -1, 5, "h", 1), ERR_FATAL);
    assert_int_equal(range_of(&range, 5, 4, "h", 1), ERR_FATAL);
    assert_int_equal(range_of(&range, 0, 5, "h", 0), ERR_FATAL);
    assert_int_equal(range_of(&range, 0, 5, "h", 65536), ERR_FATAL);
    assert_int_equal(range_of(&range, 0, 5, "?", 6379), ERR_FATAL);
    assert_int_equal(range_of(&range, 0, 5, host, 6379), ERR_FATAL);
    struct redis_reply *bad[] = {
        list(&r, 1, text(&r, "x")),
        list(&r, 1, list(&r, 0)),
        list(&r, 1, list(&r, 2, number(&r, 0), number(&r, 1))),
        list(&r, 1, list(&r, 3, number(&r, 0), number(&r, 1), number(&r, 2))),
        list(&r, 1, list(&r, 3, number(&r, 0), number(&r, 1), list(&r, 0))),
        list(&r, 1, list(&r, 3, text(&r, "0"), number(&r, 1), list(&r, 0))),
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(redis_range_read(bad[i], 0, "h", &range, NULL), ERR_FATAL);
}

static void
redirects_are_read(void **state)
{
    static const char *const none[] = {
        "ERR no",          "MOVED",         "MOVED ",
        "MOVED 1",         "MOVED 1 h",     "MOVED 16384 h:1",
        "MOVED x h:1",     "MOVED 1 h:",    "MOVED 1 h:0",
        "MOVED 1 h:65536", "MOVED 1 h:99x", "MOVED -1 h:1",
        "MOVED 1 ?:6379",  "ASK",           "ASKING 1 h:1",
        "moved 1 h:1",     "MOVED 1:2 h",   "MOVED  h:1",
    };
    struct redis_range range;
    bool ask;

    (void)state;
    assert_true(
        redis_redirect_read("MOVED 3999 127.0.0.1:6381", "a", &ask, &range));
    assert_false(ask);
    assert_int_equal(range.from, 3999);
    assert_int_equal(range.to, 3999);
    assert_string_equal(range.address, "127.0.0.1:6381");
    assert_true(redis_redirect_read("ASK 0 ::1:6381", "a", &ask, &range));
    assert_true(ask);
    assert_string_equal(range.address, "::1:6381");
    assert_true(redis_redirect_read("MOVED 1 :6381", "asked", &ask, &range));
    assert_string_equal(range.address, "asked:6381");
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        if (redis_redirect_read(none[i], "asked", &ask, &range))
            fail_msg("%s", none[i]);
    }
}

static void
bad_addresses_of_a_cluster_are_refused(void **state)
{
    static const char *const bad[] = {
        "cluster:",       "cluster:host", "cluster:,",
        "cluster:h:1,",   "cluster:,h:1", "cluster:h:1,,h:2",
        "cluster:unix:/", "cluster:h:0",  "cluster:h:1,x",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct redis *redis;
        struct why why;

        if (redis_open(&redis, bad[i], 1000, &why) != ERR_INVALID)
            fail_msg("%s", bad[i]);
        assert_null(redis);
        assert_non_null(strstr(why.text, "cluster:host:port,host:port"));
    }
}

static void
a_cluster_that_is_away_is_again_and_says_where(void **state)
{
    const struct str get[] = {STR("GET"), STR("k")}, ping[] = {STR("PING")};
    const struct str load[] = {STR("SCRIPT"), STR("LOAD"), STR("return 1")};
    struct redis *redis;
    struct why why;

    (void)state;
    assert_int_equal(
        redis_open(&redis, "cluster:127.0.0.1:1,[::1]:1", 500000, &why), ERR_OK);
    assert_int_equal(redis_command(redis, get, 2, NULL, &why), ERR_AGAIN);
    assert_non_null(strstr(why.text, "redis at "));
    assert_int_equal(redis_command(redis, ping, 1, NULL, &why), ERR_AGAIN);
    assert_int_equal(redis_command(redis, load, 3, NULL, &why), ERR_AGAIN);
    assert_int_equal(redis_queue(redis, get, 2, &why), ERR_OK);
    assert_int_equal(redis_queue(redis, get, 2, &why), ERR_OK);
    assert_int_equal(redis_reply_next(redis, NULL, &why), ERR_AGAIN);
    redis_close(&redis); /* with a reply due */
    assert_null(redis);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_are_those_of_the_specification),
        cmocka_unit_test(slots_equal_a_bitwise_crc),
        cmocka_unit_test(a_partitions_keys_share_a_slot),
        cmocka_unit_test(a_commands_key_is_its_second_word_or_a_scripts_first),
        cmocka_unit_test(a_range_of_the_map_is_read),
        cmocka_unit_test(a_map_that_is_none_is_refused),
        cmocka_unit_test(redirects_are_read),
        cmocka_unit_test(bad_addresses_of_a_cluster_are_refused),
        cmocka_unit_test(a_cluster_that_is_away_is_again_and_says_where),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

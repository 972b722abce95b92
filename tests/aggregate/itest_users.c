/* The users of a row: what Redis has of them is taken over at a restart, all of it and
 * nothing twice. The truth is a HyperLogLog that gets every id (rig_expect). */
#define _DEFAULT_SOURCE
#include "model.h"
#include "rig.h"

struct users_rig {
    struct rig rig;
    int64_t at_ms;   /* of all clicks, so that they meet in the same rows */
    unsigned rounds; /* each has an ad of its own: no click repeats another */
};

static int
setup(void **state)
{
    struct users_rig *u = calloc(1, sizeof(*u));

    assert_non_null(u);
    srand(1);
    rig_open(&u->rig);
    u->at_ms =
        clock_floor(clock_now_us() / 1000, 5 * CLOCK_MINUTE_MS) - CLOCK_MINUTE_MS;
    *state = u;
    return 0;
}

static int
teardown(void **state)
{
    struct users_rig *u = *state;

    rig_close(&u->rig);
    free(u);
    return 0;
}

/* A billable click of each of users [from, to) on each of the first campaigns. */
static void
post_users(struct users_rig *u, unsigned campaigns, unsigned from, unsigned to)
{
    size_t count = (size_t)campaigns * (to - from);
    struct made *made = calloc(count, sizeof(*made));
    struct clicklog_entry *entries = calloc(count, sizeof(*entries));
    struct why why = {""};
    char ad[24];
    int ad_n = snprintf(ad, sizeof(ad), "ad-%u", u->rounds++);

    assert_true(made != NULL && entries != NULL);
    for (size_t i = 0; i < count; i++) {
        const uint8_t ip[4] = {10, (uint8_t)rand(), (uint8_t)rand(),
                               (uint8_t)rand()};
        struct click click = {.account = 1, .timestamp_ms = u->at_ms};
        uint64_t id = ++u->rig.made;
        char user[24];
        int n = snprintf(user, sizeof(user), "user-%zu", from + i / campaigns);

        (void)snprintf(made[i].campaign, sizeof(made[i].campaign), "camp-%zu",
                       i % campaigns);
        click.campaign_id = str_of(made[i].campaign);
        memcpy(click.event_id, &id, sizeof(id));
        click.ad_id = (struct str){ad, (uint32_t)ad_n};
        click.publisher_id = STR("pub");
        click.user_id = (struct str){user, (uint32_t)n};
        click.ip = click.remote = (struct str){(const char *)ip, 4};
        click.user_agent = STR("Mozilla/5.0 (X11; Linux x86_64) Gecko/1 Firefox/1");
        click.country = STR("DE");
        click_entry(&click, &made[i], &entries[i]);
    }
    must(clicklog_append(u->rig.log, entries, count, clock_now_us(), NULL, &why),
         &why);
    free(made);
    free(entries);
    rig_settle(&u->rig);
}

static void
restart(struct users_rig *u)
{
    aggregate_stop(&u->rig.aggregate);
    rig_aggregate(&u->rig, &u->rig.aggregate);
}

/* Every users' key has this encoding ("\1": sparse), and there are three a campaign. */
static void
expect_encoding(struct users_rig *u, unsigned campaigns, char encoding)
{
    struct redis_reply *keys = ask(&u->rig, "KEYS", "*:hll:*", NULL, NULL);

    assert_int_equal(keys->count, campaigns * WINDOWS_N);
    for (size_t i = 0; i < keys->count; i++) {
        struct redis_reply *byte =
            ask(&u->rig, "GETRANGE", keys->items[i]->text.p, "4", "4");

        assert_int_equal(byte->text.n, 1);
        assert_int_equal(byte->text.p[0], encoding);
        redis_reply_free(&byte);
    }
    redis_reply_free(&keys);
}

/* The billable clicks of each row, so that what is compared is not nothing. */
static void
expect_clicks(struct users_rig *u, unsigned campaigns, unsigned want)
{
    struct redis_reply *keys = ask(&u->rig, "KEYS", "{p*}:*:1d:camp-*", NULL, NULL);
    char head[24];
    size_t rows = 0;

    (void)snprintf(head, sizeof(head), "%u,", want);
    for (size_t i = 0; i < keys->count; i++) {
        const char *key = keys->items[i]->text.p;
        struct redis_reply *totals;

        if (strstr(key, "hll") != NULL)
            continue;
        totals = ask(&u->rig, "HGET", key, "t", NULL);
        if (strncmp(totals->text.p, head, strlen(head)) != 0)
            fail_msg("%s: %s, want %s", key, totals->text.p, head);
        redis_reply_free(&totals);
        rows++;
    }
    assert_int_equal(rows, campaigns);
    redis_reply_free(&keys);
}

/* Calls of a command since the last look. */
static long
calls_of(struct users_rig *u, const char *command)
{
    struct redis_reply *info = ask(&u->rig, "INFO", "commandstats", NULL, NULL);
    char name[64];
    const char *at;
    long calls = 0;

    (void)snprintf(name, sizeof(name), "cmdstat_%s:calls=", command);
    at = strstr(info->text.p, name);
    if (at != NULL)
        calls = strtol(at + strlen(name), NULL, 10);
    redis_reply_free(&info);
    return calls;
}

static void
calls_forget(struct users_rig *u)
{
    tell(&u->rig, "CONFIG", "RESETSTAT", NULL, NULL);
}

static void
test_users_of_a_small_row_survive_a_restart(void **state)
{
    struct users_rig *u = *state;

    post_users(u, CAMPAIGNS, 0, 30);
    expect_encoding(u, CAMPAIGNS, 1);
    restart(u);
    calls_forget(u);
    post_users(u, CAMPAIGNS, 0, 30);
    expect_clicks(u, CAMPAIGNS, 60);
    assert_int_equal(calls_of(u, "pfadd"), 0); /* all are known */
    assert_int_equal(calls_of(u, "set"), 0);
    assert_true(calls_of(u, "hset") > 0);
    post_users(u, CAMPAIGNS, 20, 40);
    assert_true(calls_of(u, "pfadd") > 0);
    assert_int_equal(calls_of(u, "set"), 0);
    expect_clicks(u, CAMPAIGNS, 80);
    expect_encoding(u, CAMPAIGNS, 1);
    rig_expect(&u->rig);
    assert_false(rig_told(&u->rig, " damaged "));
}

static void
test_users_of_a_row_with_thousands_survive_a_restart(void **state)
{
    struct users_rig *u = *state;

    post_users(u, 2, 0, 3000);
    expect_encoding(u, 2, 0);
    restart(u);
    calls_forget(u);
    post_users(u, 2, 0, 3000);
    expect_clicks(u, 2, 6000);
    assert_int_equal(calls_of(u, "pfadd"), 0);
    assert_int_equal(calls_of(u, "set"), 0);
    rig_expect(&u->rig);
    post_users(u, 2, 2900, 3020); /* few by PFADD, to what was loaded */
    restart(u);
    post_users(u, 2, 2000, 5000);
    expect_clicks(u, 2, 9120);
    rig_expect(&u->rig);
    assert_false(rig_told(&u->rig, " damaged "));
}

/* The whole that is written then must have the users of before the restart too. */
static void
test_a_small_row_that_grows_after_a_restart_keeps_its_users(void **state)
{
    struct users_rig *u = *state;

    post_users(u, CAMPAIGNS, 0, 40);
    expect_encoding(u, CAMPAIGNS, 1);
    restart(u);
    calls_forget(u);
    post_users(u, CAMPAIGNS, 100, 1000);
    assert_true(calls_of(u, "set") > 0);
    expect_encoding(u, CAMPAIGNS, 0);
    rig_expect(&u->rig);
    restart(u);
    calls_forget(u);
    post_users(u, CAMPAIGNS, 0, 40);
    assert_int_equal(calls_of(u, "pfadd") + calls_of(u, "set"), 0);
    rig_expect(&u->rig);
}

/* A users' key of camp-0's, and its partition. */
static uint32_t
users_key(struct users_rig *u, const char *window, char key[REDISKEY_MAX + 1])
{
    char pattern[64];
    struct redis_reply *keys;

    (void)snprintf(pattern, sizeof(pattern), "*:hll:%s:camp-0:*", window);
    keys = ask(&u->rig, "KEYS", pattern, NULL, NULL);
    assert_int_equal(keys->count, 1);
    (void)snprintf(key, REDISKEY_MAX + 1, "%s", keys->items[0]->text.p);
    redis_reply_free(&keys);
    return (uint32_t)strtoul(key + 2, NULL, 10);
}

/* Until only one generation of it is left. */
static void
wait_for_sweep(struct users_rig *u)
{
    for (int i = 0; i < 200; i++) {
        struct redis_reply *keys =
            ask(&u->rig, "KEYS", "*:hll:1d:camp-0:*", NULL, NULL);
        size_t n = keys->count;

        redis_reply_free(&keys);
        if (n == 1)
            return;
        clock_sleep_us(100000);
    }
    fail_msg("the old generation stays");
}

static void
test_a_users_key_that_is_no_hyperloglog_is_noticed_when_it_is_loaded(void **state)
{
    static const struct {
        const char *window, *command, *value;
    } damages[] = {
        {"5m", "SET", "garbage"},
        {"1h", "SETRANGE", "h"},      /* a magic that is none */
        {"1d", "APPEND", "\x7f\xff"}, /* registers past the last */
        {"5m", "RPUSH", "of another type"},
    };
    struct users_rig *u = *state;

    post_users(u, CAMPAIGNS, 0, 40);
    for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
        char key[REDISKEY_MAX + 1], before[PARTITIONS][128], after[128];
        uint32_t hit;

        wait_for_sweep(u);
        aggregate_stop(&u->rig.aggregate);
        hit = users_key(u, damages[i].window, key);
        for (uint32_t p = 0; p < PARTITIONS; p++)
            owner_field(&u->rig, p, "generation", before[p]);
        if (strcmp(damages[i].command, "RPUSH") == 0)
            tell(&u->rig, "DEL", key, NULL, NULL);
        if (strcmp(damages[i].command, "SETRANGE") == 0)
            tell(&u->rig, damages[i].command, key, "0", damages[i].value);
        else
            tell(&u->rig, damages[i].command, key, damages[i].value, NULL);
        rig_aggregate(&u->rig, &u->rig.aggregate);
        post_users(u, CAMPAIGNS, 30, 50);
        rig_expect(&u->rig);
        for (uint32_t p = 0; p < PARTITIONS; p++) {
            owner_field(&u->rig, p, "generation", after);
            if ((strcmp(before[p], after) != 0) != (p == hit))
                fail_msg("damage %zu, of partition %u: partition %u had "
                         "generation %s, has %s",
                         i, hit, p, before[p], after);
        }
    }
    assert_true(rig_told(&u->rig, " damaged "));
    assert_true(rig_told(&u->rig, "no HyperLogLog"));
}

static void
test_a_users_key_that_becomes_another_type_is_a_rebuild(void **state)
{
    struct users_rig *u = *state;
    char key[REDISKEY_MAX + 1];

    post_users(u, CAMPAIGNS, 0, 30);
    (void)users_key(u, "1h", key);
    tell(&u->rig, "DEL", key, NULL, NULL);
    tell(&u->rig, "RPUSH", key, "of another type", NULL);
    post_users(u, CAMPAIGNS, 20, 40);
    rig_expect(&u->rig);
    assert_true(rig_told(&u->rig, "WRONGTYPE"));
    assert_true(rig_told(&u->rig, " rebuild it is marked dirty"));
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_users_of_a_small_row_survive_a_restart),
        T(test_users_of_a_row_with_thousands_survive_a_restart),
        T(test_a_small_row_that_grows_after_a_restart_keeps_its_users),
        T(test_a_users_key_that_is_no_hyperloglog_is_noticed_when_it_is_loaded),
        T(test_a_users_key_that_becomes_another_type_is_a_rebuild),
    };
#undef T

    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

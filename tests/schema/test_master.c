/* Snapshots: found, priced and copied as a plain walk over the rows would. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "schema/master.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/file.h"
#include "schema/snapshot.h"
#include "schema/zone.h"

static const struct master_rate rates[] = {
    {1000, 250000}, {2000, MASTER_EVENT_PRICE}, {3000, 0}};
static const struct master_budget budgets[] = {
    {10, 5000000}, {12, MASTER_NO_BUDGET}, {14, 0}};
static const struct master_status statuses[] = {
    {1000, true}, {2000, false}, {3000, true}};

static struct master_campaign
campaign_of(const char *id)
{
    return (struct master_campaign){.id = str_of(id),
                                    .account = 3,
                                    .advertiser = STR("adv"),
                                    .currency = STR("EUR"),
                                    .zone = zone_find(STR("Europe/Berlin")),
                                    .price_cap_micros = 300000,
                                    .rates = rates,
                                    .budgets = budgets,
                                    .statuses = statuses,
                                    .rates_n = 3,
                                    .budgets_n = 3,
                                    .statuses_n = 3};
}

static void
a_price_is_the_rate_at_event_time(void **state)
{
    static const struct {
        int64_t event_ms, event_price, want;
    } table[] = {
        {INT64_MIN, 1, 250000}, {999, 1, 250000},       {1000, 1, 250000},
        {1999, 1, 250000},      {2000, 123456, 123456}, {2000, 300000, 300000},
        {2999, 300001, 300000}, {3000, 300001, 0},      {INT64_MAX, 5, 0},
    };
    struct master_campaign campaign = campaign_of("c");

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++)
        assert_int_equal(
            master_price(&campaign, table[i].event_ms, table[i].event_price),
            table[i].want);
    campaign.rates_n = 0;
    assert_int_equal(master_price(&campaign, 1000, 77), 0);
}

static void
budgets_and_statuses_begin_where_they_say(void **state)
{
    struct master_campaign campaign = campaign_of("c");

    (void)state;
    assert_int_equal(master_budget(&campaign, 9), MASTER_NO_BUDGET);
    assert_int_equal(master_budget(&campaign, 10), 5000000);
    assert_int_equal(master_budget(&campaign, 11), 5000000);
    assert_int_equal(master_budget(&campaign, 12), MASTER_NO_BUDGET);
    assert_int_equal(master_budget(&campaign, 20), 0);
    assert_false(master_campaign_active(&campaign, 999));
    assert_true(master_campaign_active(&campaign, 1000));
    assert_false(master_campaign_active(&campaign, 2000));
    assert_true(master_campaign_active(&campaign, 3000));
}

enum { MANY = 20000 };

static struct master_source *
many_make(void)
{
    struct master_campaign *campaigns = calloc(MANY, sizeof(*campaigns));
    struct master_key *keys = calloc(MANY, sizeof(*keys));
    char(*ids)[16] = calloc(MANY, sizeof(*ids));
    struct master_source *source;

    assert_non_null(campaigns);
    assert_non_null(keys);
    assert_non_null(ids);
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(ids[i], sizeof(ids[i]), "c-%d", i);
        campaigns[i] = campaign_of(ids[i]);
        campaigns[i].rates_n = (uint16_t)(i % 4);
        campaigns[i].zone = i % 3 == 0 ? NULL : campaigns[i].zone;
        memcpy(keys[i].sha256, &i, sizeof(i)); /* many that begin alike */
        keys[i].sha256[31] = (uint8_t)i;
        keys[i].id = (uint32_t)i;
        keys[i].advertiser = campaigns[i].id;
    }
    source = master_fixed(campaigns, MANY, keys, MANY);
    free(campaigns);
    free(keys);
    free(ids); /* the snapshot has its own */
    assert_non_null(source);
    return source;
}

static void
check_many(const struct master *master)
{
    assert_int_equal(master->campaigns_n, MANY);
    assert_int_equal(master->zones_n, 2);
    for (int i = 0; i < MANY; i++) {
        char id[16];
        uint8_t sha[32] = {0};
        const struct master_campaign *c;
        const struct master_key *key;

        (void)snprintf(id, sizeof(id), "c-%d", i);
        c = master_campaign_find(master, str_of(id));
        assert_non_null(c);
        assert_true(str_equal(c->id, str_of(id)));
        assert_int_equal(c->index, i);
        assert_ptr_equal(c, &master->campaigns[i]);
        assert_ptr_equal(c->zone, master->zones[c->zone_index]);
        assert_true(str_equal(zone_name(c->zone),
                              i % 3 == 0 ? STR("UTC") : STR("Europe/Berlin")));
        assert_int_equal(c->rates_n, i % 4);
        if (c->rates_n > 0)
            assert_int_equal(c->rates[0].micros, 250000);
        assert_int_equal(c->budgets[2].valid_from_day, 14);
        assert_true(c->statuses[2].active);
        memcpy(sha, &i, sizeof(i));
        sha[31] = (uint8_t)i;
        key = master_key_find(master, sha);
        assert_non_null(key);
        assert_int_equal(key->id, i);
        assert_true(str_equal(key->advertiser, str_of(id)));
        sha[31] ^= 1;
        assert_null(master_key_find(master, sha));
        (void)snprintf(id, sizeof(id), "d-%d", i);
        assert_null(master_campaign_find(master, str_of(id)));
    }
    assert_null(master_campaign_find(master, (struct str){NULL, 0}));
}

static void
every_campaign_and_key_is_found_and_no_other(void **state)
{
    struct master_source *source = many_make();
    const struct master *master = master_take(source);

    (void)state;
    check_many(master);
    master_drop(source, master);
    master_close(&source);
    assert_null(source);
}

static void
an_empty_snapshot_knows_nobody(void **state)
{
    struct master_source *source = master_fixed(NULL, 0, NULL, 0);
    uint8_t sha[32] = {0};

    (void)state;
    assert_non_null(source);
    const struct master *master = master_take(source);
    assert_null(master_campaign_find(master, STR("c")));
    assert_null(master_key_find(master, sha));
    master_close(&source);
    assert_int_equal(master->campaigns_n, 0); /* a reference outlives its source */
    master_drop(NULL, master);
}

static void
a_campaign_twice_or_rates_out_of_order_are_refused(void **state)
{
    static const struct master_rate backwards[] = {{2000, 1}, {1000, 2}};
    struct master_campaign campaigns[2] = {campaign_of("c"), campaign_of("c")};
    struct snapshot *snapshot = NULL;
    struct why why;

    (void)state;
    assert_int_equal(snapshot_make(&snapshot, 1, campaigns, 2, NULL, 0, &why),
                     ERR_INVALID);
    assert_non_null(strstr(why.text, "campaign c: it is there twice"));
    assert_null(master_fixed(campaigns, 2, NULL, 0));
    campaigns[0].rates = backwards;
    campaigns[0].rates_n = 2;
    assert_int_equal(snapshot_make(&snapshot, 1, campaigns, 1, NULL, 0, &why),
                     ERR_INVALID);
}

static void
the_copy_on_disk_is_the_snapshot_again(void **state)
{
    char root[] = "/tmp/clickledger-master-XXXXXX", path[64];
    struct master_source *source = many_make(), *copy = NULL;
    const struct master *master = master_take(source);
    struct why why;
    bool changed = true;

    (void)state;
    assert_non_null(mkdtemp(root));
    assert_int_equal(master_open(&copy, root, NULL, &why), ERR_NOTFOUND);
    (void)snprintf(path, sizeof(path), "%s/master.cache", root);
    assert_int_equal(snapshot_to_file(master, path, &why), ERR_OK);
    master_drop(source, master);
    master_close(&source);

    assert_int_equal(master_open(&copy, root, NULL, &why), ERR_OK);
    assert_int_equal(master_poll(copy, &changed, &why), ERR_OK);
    assert_false(changed);
    master = master_take(copy);
    check_many(master);
    master_drop(copy, master);
    master_close(&copy);

    /* PostgreSQL away: the copy; away, and no copy: later. */
    assert_int_equal(master_open(&copy, root, "host=/nonexistent", &why), ERR_OK);
    assert_int_equal(master_poll(copy, &changed, &why), ERR_AGAIN);
    master_close(&copy);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(master_open(&copy, root, "host=/nonexistent", &why),
                     ERR_AGAIN);
    assert_null(copy);
    assert_int_equal(rmdir(root), 0);
}

static void
a_broken_copy_is_refused_at_every_byte(void **state)
{
    char root[] = "/tmp/clickledger-master-XXXXXX", path[64];
    struct master_campaign campaign = campaign_of("c-1");
    struct master_key key = {.id = 1, .account = 2, .scopes = 1};
    struct snapshot *snapshot = NULL;
    struct buf good = BUF_MAX(1 << 16);
    struct why why;

    (void)state;
    assert_non_null(mkdtemp(root));
    (void)snprintf(path, sizeof(path), "%s/master.cache", root);
    assert_int_equal(snapshot_make(&snapshot, 7, &campaign, 1, &key, 1, &why),
                     ERR_OK);
    assert_int_equal(snapshot_to_file(snapshot_master(snapshot), path, &why),
                     ERR_OK);
    snapshot_drop(snapshot);
    assert_int_equal(snapshot_from_file(&snapshot, path, &why), ERR_OK);
    assert_int_equal(snapshot_master(snapshot)->version, 7);
    snapshot_drop(snapshot);
    assert_int_equal(file_read(path, &good, &why), ERR_OK);
    for (size_t i = 0; i < good.n; i++) {
        FILE *file = fopen(path, "wb");

        assert_non_null(file);
        good.p[i] ^= 4;
        assert_int_equal(fwrite(good.p, 1, good.n, file), good.n);
        assert_int_equal(fclose(file), 0);
        good.p[i] ^= 4;
        assert_int_equal(snapshot_from_file(&snapshot, path, &why), ERR_CORRUPT);
        assert_int_equal(truncate(path, (off_t)i), 0);
        assert_int_equal(snapshot_from_file(&snapshot, path, &why), ERR_CORRUPT);
    }
    buf_free(&good);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(root), 0);
}

static void *
take_and_drop(void *arg)
{
    struct master_source *source = arg;

    for (int i = 0; i < 20000; i++) {
        const struct master *master = master_take(source);

        if (master_campaign_find(master, STR("c-7")) == NULL)
            return arg;
        master_drop(source, master);
    }
    return NULL;
}

static void
threads_take_and_drop_at_will(void **state)
{
    struct master_source *source = many_make();
    pthread_t threads[4];

    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_drop, source),
                         0);
    for (int i = 0; i < 4; i++) {
        void *wrong = NULL;

        (void)pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
    master_close(&source);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_price_is_the_rate_at_event_time),
        cmocka_unit_test(budgets_and_statuses_begin_where_they_say),
        cmocka_unit_test(every_campaign_and_key_is_found_and_no_other),
        cmocka_unit_test(an_empty_snapshot_knows_nobody),
        cmocka_unit_test(a_campaign_twice_or_rates_out_of_order_are_refused),
        cmocka_unit_test(the_copy_on_disk_is_the_snapshot_again),
        cmocka_unit_test(a_broken_copy_is_refused_at_every_byte),
        cmocka_unit_test(threads_take_and_drop_at_will),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

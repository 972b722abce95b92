/* The model counts each click in each of its windows by itself, in order, in a plain list
 * of fields; "Redis" is the model of what flushes wrote. Both must agree at each flush,
 * whatever is evicted and loaded again between. */
#include "aggregate/window.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "schema/zone.h"

enum { FIELDS_MAX = 1 << 18, BUCKETS = 1 << 16, VALUES_MAX = 5 };

struct field {
    char key[160]; /* row and field */
    int64_t numbers[WINDOW_TOTALS_N];
    int next;
};

struct store {
    struct field *fields;
    int n;
    int buckets[BUCKETS];
};

static unsigned
bucket_of(const char *key)
{
    unsigned h = 5381;

    for (; *key != '\0'; key++)
        h = h * 33 + (unsigned char)*key;
    return h % BUCKETS;
}

static struct field *
store_find(struct store *store, const char *key)
{
    for (int i = store->buckets[bucket_of(key)]; i != 0; i = store->fields[i].next)
        if (strcmp(store->fields[i].key, key) == 0)
            return &store->fields[i];
    return NULL;
}

static struct field *
store_make(struct store *store, const char *key)
{
    struct field *field = store_find(store, key);
    unsigned bucket = bucket_of(key);

    if (field != NULL)
        return field;
    assert_true(store->n + 1 < FIELDS_MAX);
    field = &store->fields[++store->n];
    memset(field, 0, sizeof(*field));
    snprintf(field->key, sizeof(field->key), "%s", key);
    field->next = store->buckets[bucket];
    store->buckets[bucket] = store->n;
    return field;
}

static struct store *
store_new(void)
{
    struct store *store = calloc(1, sizeof(*store));

    assert_non_null(store);
    store->fields = calloc(FIELDS_MAX, sizeof(struct field));
    assert_non_null(store->fields);
    return store;
}

static void
store_free(struct store *store)
{
    free(store->fields);
    free(store);
}

static void
row_name(char out[128], enum window window, struct str campaign, int64_t start_ms)
{
    snprintf(out, 128, "%d|%.*s|%lld|", (int)window, (int)campaign.n, campaign.p,
             (long long)start_ms);
}

/* --- the model --- */

static void
model_value(struct store *model, const char *row, char letter, struct str value,
            const int64_t add[WINDOW_CELL_N])
{
    char key[160], count[160];
    struct field *field;

    if (value.n == 0)
        return;
    snprintf(key, sizeof(key), "%s%c:%.*s", row, letter, (int)value.n, value.p);
    field = store_find(model, key);
    if (field == NULL && !str_equal(value, STR("__other__"))) {
        snprintf(count, sizeof(count), "#%s%c", row, letter);
        struct field *values = store_make(model, count);

        if (values->numbers[0] >= VALUES_MAX)
            snprintf(key, sizeof(key), "%s%c:__other__", row, letter);
        else
            values->numbers[0]++;
    }
    field = store_make(model, key);
    for (int i = 0; i < WINDOW_CELL_N; i++)
        field->numbers[i] += add[i];
}

static void
model_row(struct store *model, const char *row, const struct window_click *wc)
{
    const struct click *click = wc->click;
    bool billable = verdict_is_billable((enum verdict_kind)wc->verdict.kind);
    int64_t add[WINDOW_TOTALS_N] = {billable,
                                    billable ? wc->price_micros : 0,
                                    wc->verdict.kind == VERDICT_SUSPICIOUS,
                                    wc->verdict.kind == VERDICT_INVALID,
                                    wc->verdict.kind == VERDICT_DUPLICATE,
                                    wc->verdict.kind == VERDICT_QUARANTINED};
    char key[160];

    snprintf(key, sizeof(key), "%st", row);
    struct field *t = store_make(model, key);
    for (int i = 0; i < WINDOW_TOTALS_N; i++)
        t->numbers[i] += add[i];
    if (!billable) {
        snprintf(key, sizeof(key), "%sr:%s", row,
                 reason_info((enum reason)wc->verdict.reason)->name);
        store_make(model, key)->numbers[0]++;
    }
    if (!billable && wc->verdict.kind != VERDICT_INVALID)
        return;
    model_value(model, row, 'a', click->ad_id, add);
    model_value(model, row, 'g', click->ad_group_id, add);
    model_value(model, row, 'c', click->creative_id, add);
    model_value(model, row, 'v', click->variant_id, add);
    model_value(model, row, 'n', click->country, add);
    model_value(model, row, 'd', str_of(click_device_name(click->device)), add);
    model_value(model, row, 'p', click->publisher_id, add);
}

static void
model_count(struct store *model, const struct window_click *wc, int64_t now_us)
{
    for (unsigned window = 0; window < WINDOWS_N; window++) {
        int64_t start =
            window_start((enum window)window, wc->zone, wc->click->timestamp_ms);
        int64_t end = window_end((enum window)window, wc->zone, start);
        char row[128];

        if (window_expiry_s((enum window)window, end) <= now_us / 1000000)
            continue;
        row_name(row, (enum window)window, wc->click->campaign_id, start);
        model_row(model, row, wc);
    }
}

/* --- what a flush would write, and a load reads --- */

static void
flush(struct windows *windows, struct store *redis)
{
    windows_derive(windows);
    for (uint32_t i = 0; i < windows_dirty(windows); i++) {
        struct window_dirty dirty;
        char row[128], key[160];

        windows_dirty_get(windows, i, &dirty);
        row_name(row, dirty.window, dirty.campaign, dirty.start_ms);
        snprintf(key, sizeof(key), "%st", row);
        memcpy(store_make(redis, key)->numbers, dirty.totals,
               sizeof(int64_t) * WINDOW_TOTALS_N);
        for (uint32_t c = 0; c < dirty.cells_n; c++) {
            int64_t numbers[WINDOW_CELL_N];
            struct str field;
            unsigned n = windows_cell(windows, dirty.cells[c], &field, numbers);

            snprintf(key, sizeof(key), "%s%.*s", row, (int)field.n, field.p);
            memcpy(store_make(redis, key)->numbers, numbers, sizeof(int64_t) * n);
        }
    }
    windows_clean(windows);
}

static void
load(struct windows *windows, struct store *redis)
{
    for (uint32_t i = 0; i < windows_loads(windows); i++) {
        struct window_load wanted = windows_load_get(windows, i);
        char row[128];

        if (wanted.live)
            continue;
        row_name(row, wanted.window, wanted.campaign, wanted.start_ms);
        for (int k = 1; k <= redis->n; k++) {
            struct field *f = &redis->fields[k];
            char text[160];
            size_t at = strlen(row);

            if (strncmp(f->key, row, at) != 0)
                continue;
            uint32_t n = numbers_format(text, f->numbers,
                                        strcmp(f->key + at, "t") == 0 ? 6
                                        : f->key[at] == 'r'           ? 1
                                                                      : 4);
            assert_true(windows_load_field(windows, i, str_of(f->key + at),
                                           (struct str){text, n}));
        }
    }
    windows_loads_done(windows);
}

static void
expect_equal(struct store *model, struct store *redis)
{
    int compared = 0;

    for (int i = 1; i <= model->n; i++) {
        const struct field *want = &model->fields[i];
        const struct field *got;

        if (want->key[0] == '#')
            continue;
        got = store_find(redis, want->key);
        if (got == NULL)
            fail_msg("%s is missing", want->key);
        if (memcmp(got->numbers, want->numbers, sizeof(want->numbers)) != 0)
            fail_msg("%s: %lld clicks, want %lld", want->key,
                     (long long)got->numbers[0], (long long)want->numbers[0]);
        compared++;
    }
    assert_int_equal(compared, redis->n);
}

/* --- random clicks --- */

struct traffic {
    struct click click;
    char campaign[16], ad[16], publisher[16], user[16], group[16];
};

static struct str
pick(char out[16], const char *prefix, int range)
{
    int n = snprintf(out, 16, "%s%d", prefix, rand() % range);

    return (struct str){out, (uint32_t)n};
}

static void
traffic_make(struct traffic *t, int64_t now_ms, int campaigns)
{
    static const char *const countries[] = {"DE", "FR", "IN", "US",
                                            "JP", "BR", "NG"};
    struct click *click = &t->click;
    /* Never around 24 h: there an hour is fed by live and expired 5 minutes alike, and
     * which values of it come first depends on when it was flushed. */
    int64_t age_ms = rand() % 10 == 0
                         ? 26 * CLOCK_HOUR_MS + rand() % (7 * CLOCK_DAY_MS)
                         : rand() % (20 * CLOCK_MINUTE_MS);

    *click = (struct click){.timestamp_ms = now_ms - age_ms};
    click->campaign_id = pick(t->campaign, "c", campaigns);
    click->ad_id = pick(t->ad, "ad", 8);
    click->publisher_id = pick(t->publisher, "p", 9);
    click->user_id = pick(t->user, "u", 1000);
    if (rand() % 2 == 0)
        click->ad_group_id = pick(t->group, "g", 3);
    if (rand() % 50 == 0)
        click->ad_id = STR("__other__");
    click->country = (struct str){countries[rand() % 7], 2};
    click->device = (uint8_t)(rand() % CLICK_DEVICES_N);
}

static struct verdict
verdict_random(void)
{
    static const struct verdict all[] = {
        {.kind = VERDICT_BILLABLE},
        {.kind = VERDICT_BILLABLE},
        {.kind = VERDICT_BILLABLE},
        {.kind = VERDICT_SUSPICIOUS, .reason = REASON_too_fast},
        {.kind = VERDICT_INVALID, .reason = REASON_double_click},
        {.kind = VERDICT_INVALID, .reason = REASON_known_bot_agent},
        {.kind = VERDICT_DUPLICATE, .reason = REASON_duplicate},
        {.kind = VERDICT_QUARANTINED, .reason = REASON_foreign_campaign},
    };

    return all[(size_t)rand() % (sizeof(all) / sizeof(all[0]))];
}

static struct windows *
open_windows(uint32_t values_max)
{
    const struct windows_config cfg = {
        .values_max = values_max, .seed = 42, .users_bytes_max = 1 << 24};
    struct windows *windows;

    assert_int_equal(windows_open(&windows, &cfg, NULL), ERR_OK);
    return windows;
}

static const struct zone *
zone_of(struct str campaign)
{
    return (campaign.p[1] - '0') % 2 == 0 ? zone_find(STR("Europe/Berlin"))
                                          : zone_find(STR("Asia/Kolkata"));
}

#define NOW_MS \
    INT64_C(1792830000000) /* a week around Berlin's change of clocks, 2026 */

static void
test_random_clicks_over_days_agree_with_the_model(void **state)
{
    enum { ROUNDS = 60, BATCH = 100 };
    struct store *model = store_new(), *redis = store_new();
    struct windows *windows = open_windows(VALUES_MAX);
    int64_t now_us = NOW_MS * 1000;

    (void)state;
    srand(7);
    for (int round = 0; round < ROUNDS; round++) {
        struct traffic traffic[BATCH];
        struct window_click clicks[BATCH];

        for (int i = 0; i < BATCH; i++) {
            traffic_make(&traffic[i], now_us / 1000, 4);
            clicks[i] = (struct window_click){
                .click = &traffic[i].click,
                .verdict = verdict_random(),
                .zone = zone_of(traffic[i].click.campaign_id),
                .price_micros = rand() % 1000000,
            };
            model_count(model, &clicks[i], now_us);
        }
        windows_touch(windows, clicks, BATCH, now_us);
        load(windows, redis);
        windows_count(windows, clicks, BATCH, now_us);
        assert_false(windows_failed(windows));
        if (rand() % 3 == 0)
            windows_derive(windows); /* a flush that did not land changes nothing */
        if (rand() % 2 == 0 || round == ROUNDS - 1) {
            flush(windows, redis);
            expect_equal(model, redis);
            if (rand() % 3 == 0)
                windows_evict(windows, now_us, rand() % 2 * CLOCK_HOUR_US, 100);
        }
        now_us += rand() % (3 * CLOCK_HOUR_US);
    }
    windows_close(&windows);
    assert_null(windows);
    store_free(model);
    store_free(redis);
}

static void
test_a_click_of_which_all_windows_expired_is_counted_as_such_only(void **state)
{
    struct windows *windows = open_windows(VALUES_MAX);
    struct click click = {.campaign_id = STR("c0"),
                          .ad_id = STR("a"),
                          .publisher_id = STR("p"),
                          .user_id = STR("u"),
                          .country = STR("DE"),
                          .timestamp_ms = NOW_MS - 11 * CLOCK_DAY_MS};
    struct window_click wc = {.click = &click,
                              .verdict = {.kind = VERDICT_BILLABLE},
                              .zone = zone_find(STR("Europe/Berlin"))};
    struct windows_stats stats;

    (void)state;
    windows_touch(windows, &wc, 1, NOW_MS * 1000);
    assert_int_equal(windows_loads(windows), 0);
    windows_count(windows, &wc, 1, NOW_MS * 1000);
    assert_int_equal(windows_changed(windows), 0);
    windows_stats_get(windows, &stats);
    assert_int_equal(stats.expired, 1);
    windows_close(&windows);
}

static void
test_a_zone_that_changes_moves_only_what_comes_after(void **state)
{
    struct windows *windows = open_windows(VALUES_MAX);
    struct store *redis = store_new();
    struct click click = {.campaign_id = STR("c0"),
                          .ad_id = STR("a"),
                          .publisher_id = STR("p"),
                          .user_id = STR("u"),
                          .country = STR("DE"),
                          .timestamp_ms = NOW_MS};
    struct window_click wc = {.click = &click,
                              .verdict = {.kind = VERDICT_BILLABLE},
                              .zone = zone_find(STR("Europe/Berlin"))};
    static const char *const zones[] = {"Europe/Berlin", "Asia/Kolkata"};
    char key[160], row[128];
    unsigned days = 0;

    (void)state;
    for (int i = 0; i < 2; i++) {
        wc.zone = zone_find(str_of(zones[i]));
        windows_touch(windows, &wc, 1, NOW_MS * 1000);
        windows_loads_done(windows);
        windows_count(windows, &wc, 1, NOW_MS * 1000);
    }
    windows_derive(windows);
    for (uint32_t i = 0; i < windows_dirty(windows); i++) {
        struct window_dirty dirty;

        windows_dirty_get(windows, i, &dirty);
        days += dirty.window == WINDOW_1D && dirty.users_n > 0;
    }
    assert_int_equal(days, 2); /* the same user, in the day of each zone */
    flush(windows, redis);
    for (int i = 0; i < 2; i++) {
        int64_t start =
            window_start(WINDOW_1D, zone_find(str_of(zones[i])), NOW_MS);

        row_name(row, WINDOW_1D, click.campaign_id, start);
        snprintf(key, sizeof(key), "%st", row);
        assert_non_null(store_find(redis, key));
        assert_int_equal(store_find(redis, key)->numbers[0], 1);
    }
    windows_close(&windows);
    store_free(redis);
}

static void
test_fields_that_are_not_ours_are_refused(void **state)
{
    static const struct {
        const char *field, *value;
    } bad[] = {
        {"t", "1,2,3,4,5"}, {"t", "1,2,3,4,5,6,7"},
        {"t", "x"},         {"a:x", "1,2,3"},
        {"a:x", "1,2,3,"},  {"a:", "1,2,3,4"},
        {"z:x", "1,2,3,4"}, {"a-x", "1,2,3,4"},
        {"r:x", "1,2"},     {"a:x", "1,2,3,99999999999999999999"},
        {"", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct windows *windows = open_windows(VALUES_MAX);
        struct click click = {.campaign_id = STR("c0"), .timestamp_ms = NOW_MS};
        struct window_click wc = {.click = &click};

        windows_touch(windows, &wc, 1, NOW_MS * 1000);
        assert_int_equal(windows_loads(windows), 4);
        if (windows_load_field(windows, 0, str_of(bad[i].field),
                               str_of(bad[i].value)))
            fail_msg("%s = %s was taken", bad[i].field, bad[i].value);
        windows_close(&windows);
    }
}

static void
test_the_ring_keeps_the_newest_step_of_a_slot(void **state)
{
    struct live live = {0}, again = {0};
    char text[LIVE_TEXT_MAX];
    uint32_t n;

    (void)state;
    assert_true(live_count(&live, 1000000 * 1000, 5));
    assert_true(live_count(&live, 1000009 * 1000, 6));
    assert_true(live_count(&live, (1000000 + 640) * 1000, 7));
    assert_false(live_count(&live, 1000005 * 1000, 8)); /* past the ring */
    unsigned k = 100000 % 64;
    n = live_format(&live, k, text);
    assert_true(str_equal((struct str){text, n}, STR("1000640,1,7")));
    char slot[8];
    snprintf(slot, sizeof(slot), "%u", k);
    assert_true(live_load(&again, str_of(slot), (struct str){text, n}));
    assert_memory_equal(&again.steps, &live.steps, sizeof(live.steps));
    assert_false(live_load(&again, STR("64"), (struct str){text, n}));
    assert_false(
        live_load(&again, STR("1"), STR("1000640,1,7"))); /* another slot's */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_clicks_over_days_agree_with_the_model),
        cmocka_unit_test(
            test_a_click_of_which_all_windows_expired_is_counted_as_such_only),
        cmocka_unit_test(test_a_zone_that_changes_moves_only_what_comes_after),
        cmocka_unit_test(test_fields_that_are_not_ours_are_refused),
        cmocka_unit_test(test_the_ring_keeps_the_newest_step_of_a_slot),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

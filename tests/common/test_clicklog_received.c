#include "common/clicklog.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/clock.h"
#include "tests/common/clicklog_fixture.h"

enum { CAMPAIGNS = 40, ACCOUNTS = 3, QUARTERS = 6, HOURS = 4 };

static const int64_t T0 = INT64_C(1795000000000000) / CLOCK_HOUR_US * CLOCK_HOUR_US;

/* What is told, as a plain table; and that it is told in order and once. */
struct told {
    uint64_t counts[HOURS][ACCOUNTS][CAMPAIGNS][QUARTERS];
    int64_t hour_us;
    uint64_t rows, stop_after;
    uint64_t incarnation; /* 0: any */
};

static bool
tell(void *ctx, const struct clicklog_received *row)
{
    struct told *told = ctx;
    int64_t hour = (row->hour_us - T0) / CLOCK_HOUR_US;
    int64_t quarter = (row->quarter_ms - T0 / 1000) / CLOCK_QUARTER_MS;

    assert_true(row->hour_us >= told->hour_us);
    assert_true(hour >= 0 && hour < HOURS && row->account < ACCOUNTS);
    assert_true(quarter >= 0 && quarter < QUARTERS && row->campaign.n == 3);
    if (told->incarnation != 0)
        assert_int_equal(row->incarnation, told->incarnation);
    int campaign = (row->campaign.p[1] - '0') * 10 + (row->campaign.p[2] - '0');
    uint64_t *count = &told->counts[hour][row->account][campaign][quarter];
    assert_int_equal(told->incarnation != 0 ? *count : 0, 0); /* once */
    *count += row->clicks;
    told->hour_us = row->hour_us;
    told->rows++;
    return told->rows != told->stop_after;
}

static struct clicklog_entry
entry_random(uint64_t *seed, char campaign[4])
{
    unsigned c = (unsigned)(random_next(seed) % CAMPAIGNS);

    campaign[0] = 'c';
    campaign[1] = (char)('0' + c / 10);
    campaign[2] = (char)('0' + c % 10);
    return (struct clicklog_entry){
        .account = (uint32_t)(random_next(seed) % ACCOUNTS),
        .campaign = {campaign, 3},
        .event_ms = T0 / 1000 + (int64_t)(random_next(seed) %
                                          (QUARTERS * (uint64_t)CLOCK_QUARTER_MS)),
        .partition = c % 2,
        .version = 1,
        .body = STR("x"),
    };
}

static void
model_add(struct told *model, int hour, const struct clicklog_entry *entry)
{
    int64_t quarter = (entry->event_ms - T0 / 1000) / CLOCK_QUARTER_MS;
    int campaign = (entry->campaign.p[1] - '0') * 10 + (entry->campaign.p[2] - '0');

    model->counts[hour][entry->account][campaign][quarter]++;
}

/* 10,000 groups an hour: two folds each, and a rest that waits. */
static void
counts_of_finished_hours_are_exact_after_folding(void **unused)
{
    static struct told model, told;
    struct folder folder = folder_make();
    struct clicklog_config cfg = config_of(&folder, 2);
    struct clicklog_entry entries[5];
    struct clicklog_stats stats;
    char campaigns[5][4];
    struct clicklog *log;
    uint64_t seed = 3, rows = 0, bytes;

    (void)unused;
    MUST(clicklog_open(&log, &cfg, why));
    for (int hour = 0; hour < HOURS; hour++)
        for (int i = 0; i < 10000; i++) {
            size_t n = random_next(&seed) % 5 + 1;

            for (size_t j = 0; j < n; j++) {
                entries[j] = entry_random(&seed, campaigns[j]);
                if (hour < HOURS - 1) /* the last is not over: not told */
                    model_add(&model, hour, &entries[j]);
            }
            MUST(clicklog_append(log, entries, n, T0 + hour * CLOCK_HOUR_US + i,
                                 NULL, why));
        }
    clicklog_stats_get(log, &stats);
    told.incarnation = stats.incarnation;
    MUST(clicklog_received_each(log, tell, &told, why));
    assert_memory_equal(told.counts, model.counts, sizeof(model.counts));
    rows = told.rows;
    assert_true(rows <= (HOURS - 1) * ACCOUNTS * CAMPAIGNS * QUARTERS);

    /* A visit may stop it; a heartbeat past the hour's end finishes the last hour. */
    told = (struct told){.stop_after = 7};
    MUST(clicklog_received_each(log, tell, &told, why));
    assert_int_equal(told.rows, 7);
    MUST(clicklog_append(log, NULL, 0, T0 + HOURS * CLOCK_HOUR_US, NULL, why));
    told = (struct told){.incarnation = stats.incarnation};
    MUST(clicklog_received_each(log, tell, &told, why));
    assert_true(told.rows > rows);

    /* What is stored elsewhere is forgotten, and its bytes with it. */
    clicklog_stats_get(log, &stats);
    bytes = stats.bytes_used;
    MUST(clicklog_received_drop(log, T0 + 2 * CLOCK_HOUR_US, why));
    clicklog_stats_get(log, &stats);
    assert_true(stats.bytes_used < bytes);
    told = (struct told){.hour_us = T0 + 2 * CLOCK_HOUR_US};
    MUST(clicklog_received_each(log, tell, &told, why));
    MUST(clicklog_trim(log, 0, UINT64_MAX / 2, why));
    MUST(clicklog_trim(log, 1, UINT64_MAX / 2, why));
    MUST(clicklog_received_drop(log, T0 + HOURS * CLOCK_HOUR_US, why));
    clicklog_stats_get(log, &stats);
    assert_int_equal(stats.bytes_used, 0);
    clicklog_close(&log);
    folder_remove(&folder);
}

static void
counts_survive_restarts_within_the_hour(void **unused)
{
    static struct told model, told;
    struct folder folder = folder_make();
    struct clicklog_config cfg = config_of(&folder, 2);
    struct clicklog_entry entry;
    struct clicklog *log;
    char campaign[4];
    uint64_t seed = 4;

    (void)unused;
    for (int restart = 0; restart < 12; restart++) {
        MUST(clicklog_open(&log, &cfg, why));
        for (int i = 0; i < 1500; i++) {
            entry = entry_random(&seed, campaign);
            model_add(&model, 0, &entry);
            MUST(clicklog_append(log, &entry, 1, T0, NULL, why));
        }
        clicklog_close(&log);
    }
    MUST(clicklog_open(&log, &cfg, why));
    MUST(clicklog_append(log, NULL, 0, T0 + CLOCK_HOUR_US, NULL, why));
    MUST(clicklog_received_each(log, tell, &told, why));
    assert_memory_equal(told.counts, model.counts, sizeof(model.counts));
    clicklog_close(&log);
    folder_remove(&folder);
}

struct sum {
    uint64_t clicks, rows;
    uint32_t last;
};

static bool
sum_up(void *ctx, const struct clicklog_received *row)
{
    struct sum *sum = ctx;
    uint32_t campaign;

    memcpy(&campaign, row->campaign.p, 4);
    campaign = __builtin_bswap32(campaign);
    assert_true(sum->rows == 0 || campaign > sum->last); /* in order, each once */
    sum->last = campaign;
    sum->clicks += row->clicks;
    sum->rows++;
    return true;
}

/* So many campaigns with long names that folded blocks pass their limit. */
static void
very_many_campaigns_are_folded_into_several_blocks_and_told_once(void **unused)
{
    enum { N = 20000, ROUNDS = 40, DISTINCT = 300000 };
    struct folder folder = folder_make();
    struct clicklog_config cfg = config_of(&folder, 1);
    struct clicklog_entry *entries = calloc(N, sizeof(*entries));
    char(*names)[200] = calloc(N, sizeof(*names));
    uint8_t *used = calloc(DISTINCT, 1);
    struct clicklog *log;
    struct sum sum = {0};
    uint64_t seed = 5, distinct = 0;

    (void)unused;
    cfg.bytes_max = UINT64_C(1) << 32;
    MUST(clicklog_open(&log, &cfg, why));
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < N; i++) {
            uint32_t campaign = (uint32_t)(random_next(&seed) % DISTINCT);
            uint32_t big_endian = __builtin_bswap32(campaign);

            distinct += used[campaign] == 0;
            used[campaign] = 1;
            memcpy(names[i], &big_endian, 4);
            entries[i] = (struct clicklog_entry){
                .account = 1,
                .campaign = {names[i], sizeof(names[i])},
                .event_ms = T0 / 1000,
                .version = 1,
            };
        }
        MUST(clicklog_append(log, entries, N, T0, NULL, why));
    }
    MUST(clicklog_append(log, NULL, 0, T0 + CLOCK_HOUR_US, NULL, why));
    MUST(clicklog_received_each(log, sum_up, &sum, why));
    assert_int_equal(sum.clicks, N * ROUNDS);
    assert_int_equal(sum.rows, distinct);
    clicklog_close(&log);
    free(entries);
    free(names);
    free(used);
    folder_remove(&folder);
}

/* The cut falls between groups: what comes after it is left out, the open hour counts. */
static void
counts_up_to_a_cut_leave_out_later_groups(void **unused)
{
    static struct told told;
    struct folder folder = folder_make();
    struct clicklog_config cfg = config_of(&folder, 2);
    struct clicklog_entry entry;
    struct clicklog *log;
    char campaign[4];
    uint64_t seed = 6;

    (void)unused;
    MUST(clicklog_open(&log, &cfg, why));
    for (int64_t i = 0; i < 3000; i++) {
        entry = entry_random(&seed, campaign);
        MUST(clicklog_append(log, &entry, 1, T0 + i, NULL, why));
    }
    for (int64_t cut = 0; cut <= 3000; cut += 500) {
        struct sum sum = {0};

        told = (struct told){0};
        MUST(clicklog_received_all(log, T0 + cut, tell, &told, why));
        for (size_t i = 0; i < sizeof(told.counts) / sizeof(uint64_t); i++)
            sum.clicks += (&told.counts[0][0][0][0])[i];
        assert_int_equal(sum.clicks, cut);
    }
    /* Once they are folded together a cut between them is no longer known. */
    for (int64_t i = 3000; i < 6000; i++)
        MUST(clicklog_append(log, &entry, 1, T0 + i, NULL, why));
    told = (struct told){0};
    assert_int_equal(clicklog_received_all(log, T0 + 500, tell, &told, NULL),
                     ERR_AGAIN);
    told = (struct told){0};
    MUST(clicklog_received_all(log, T0 + 6000, tell, &told, why));
    clicklog_close(&log);
    folder_remove(&folder);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_of_finished_hours_are_exact_after_folding),
        cmocka_unit_test(counts_survive_restarts_within_the_hour),
        cmocka_unit_test(
            very_many_campaigns_are_folded_into_several_blocks_and_told_once),
        cmocka_unit_test(counts_up_to_a_cut_leave_out_later_groups),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

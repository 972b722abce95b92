/* What counting costs: touch, count, derive and lay out, without Redis or fraud rules.
 *
 * 1,000 campaigns by default (Zipf), 16 partitions, batches of 512 as the workers read
 * them; hours and days are derived every 250,000 clicks, as four flushes a second would at
 * 1,000,000 clicks/s. Prints ns of CPU per click.
 *
 *   bench_window [CAMPAIGNS [CLICKS]]
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "aggregate/window.h"
#include "common/clock.h"
#include "common/hash.h"
#include "schema/zone.h"

enum { PARTITIONS = 16, BATCH = 512, FLUSH_CLICKS = 250000, POOL = 1 << 18 };

struct pool {
    char campaign[16], ad[24], publisher[24], user[24], group[24];
    struct click click;
    struct window_click wc;
    uint32_t partition;
};

static int64_t
cpu_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* Rank by inverse of a continuous Zipf with exponent 1. */
static unsigned
zipf(unsigned n)
{
    double u = (double)rand() / RAND_MAX;
    unsigned k = (unsigned)exp(u * log((double)n + 1)) - 1;

    return k < n ? k : n - 1;
}

static struct str
text_of(char out[24], const char *prefix, unsigned number)
{
    return (struct str){out, (uint32_t)snprintf(out, 24, "%s%u", prefix, number)};
}

static void
pool_fill(struct pool *p, unsigned campaigns, int64_t now_ms)
{
    static const char *const countries[] = {"DE", "FR", "IN", "US",
                                            "JP", "BR", "GB", "ES"};
    unsigned campaign = zipf(campaigns);
    struct click *click = &p->click;

    click->campaign_id = (struct str){
        p->campaign, (uint32_t)snprintf(p->campaign, 16, "camp-%05u", campaign)};
    click->ad_id = text_of(p->ad, "ad-", campaign * 10 + zipf(10));
    click->publisher_id = text_of(p->publisher, "publisher-", zipf(200));
    click->user_id = text_of(p->user, "user-", (unsigned)rand() % 1000000);
    click->ad_group_id = text_of(p->group, "group-", campaign * 3 + zipf(3));
    click->country = (struct str){countries[zipf(8)], 2};
    click->device = (uint8_t)zipf(CLICK_DEVICES_N);
    click->timestamp_ms = now_ms - rand() % 2000;
    p->partition =
        hash_partition(click->campaign_id.p, click->campaign_id.n, PARTITIONS);
    p->wc = (struct window_click){
        .click = click,
        .verdict = {.kind = VERDICT_BILLABLE},
        .zone = zone_find(campaign % 2 == 0 ? STR("Europe/Berlin")
                                            : STR("Asia/Kolkata")),
        .price_micros = 250000,
    };
    if (rand() % 10 == 0)
        p->wc.verdict = (struct verdict){.kind = VERDICT_INVALID,
                                         .reason = REASON_known_bot_agent};
}

struct batches {
    struct window_click clicks[PARTITIONS][BATCH];
    size_t n[PARTITIONS];
};

static void
batch_count(struct windows *w, struct window_click *clicks, size_t n,
            int64_t now_us)
{
    windows_touch(w, clicks, n, now_us);
    windows_loads_done(w);
    windows_count(w, clicks, n, now_us);
}

/* A worker has just decoded its batch: its texts are in the cache, as here. */
static unsigned
batch_warm(const struct window_click *clicks, size_t n)
{
    unsigned sum = 0;

    for (size_t i = 0; i < n; i++) {
        const struct click *c = clicks[i].click;

        sum +=
            (unsigned)(c->campaign_id.p[0] + c->ad_id.p[0] + c->publisher_id.p[0] +
                       c->user_id.p[0] + c->ad_group_id.p[0]) +
            c->device;
    }
    return sum;
}

static uint64_t
flush(struct windows **windows)
{
    uint64_t fields = 0;

    for (unsigned p = 0; p < PARTITIONS; p++) {
        windows_derive(windows[p]);
        for (uint32_t i = 0; i < windows_dirty(windows[p]); i++) {
            struct window_dirty dirty;

            windows_dirty_get(windows[p], i, &dirty);
            fields += 1 + dirty.cells_n;
        }
        windows_clean(windows[p]);
    }
    return fields;
}

int
main(int argc, char **argv)
{
    unsigned campaigns = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1000;
    uint64_t clicks = argc > 2 ? strtoull(argv[2], NULL, 10) : 5000000, fields = 0;
    struct windows *windows[PARTITIONS];
    struct batches *b = calloc(1, sizeof(*b));
    struct pool *pool = calloc(POOL, sizeof(*pool));
    int64_t now_us = INT64_C(1790000000000000), count_ns = 0, flush_ns = 0;
    struct windows_stats stats = {0};
    unsigned warmed = 0;

    if (b == NULL || pool == NULL || campaigns == 0)
        return 1;
    srand(1);
    for (unsigned i = 0; i < POOL; i++)
        pool_fill(&pool[i], campaigns, now_us / 1000);
    for (unsigned p = 0; p < PARTITIONS; p++) {
        const struct windows_config cfg = {
            .values_max = 1000, .seed = 1, .users_bytes_max = 32 << 20};

        if (windows_open(&windows[p], &cfg, NULL) != ERR_OK)
            return 1;
    }
    for (uint64_t i = 0; i < clicks; i++) {
        struct pool *one = &pool[i % POOL];
        unsigned p = one->partition;

        b->clicks[p][b->n[p]++] = one->wc;
        if (b->n[p] == BATCH) {
            warmed += batch_warm(b->clicks[p], BATCH);
            int64_t from = cpu_ns();

            batch_count(windows[p], b->clicks[p], BATCH, now_us);
            count_ns += cpu_ns() - from;
            b->n[p] = 0;
        }
        if (i % FLUSH_CLICKS == FLUSH_CLICKS - 1) {
            int64_t from = cpu_ns();

            fields += flush(windows);
            flush_ns += cpu_ns() - from;
            now_us += 250000;
        }
    }
    for (unsigned p = 0; p < PARTITIONS; p++) {
        struct windows_stats one;

        windows_stats_get(windows[p], &one);
        stats.cells += one.cells;
        stats.users_sent += one.users_sent;
        windows_close(&windows[p]);
    }
    printf("window_count_ns_per_click %.1f\nwindow_derive_ns_per_click %.1f\n"
           "window_fields_per_click %.3f\nwindow_pfadds_per_click "
           "%.3f\nwindow_cells %llu\n",
           (double)count_ns / (double)clicks, (double)flush_ns / (double)clicks,
           (double)fields / (double)clicks,
           (double)stats.users_sent / (double)clicks,
           (unsigned long long)stats.cells);
    free(pool);
    free(b);
    return warmed == 0; /* never */
}

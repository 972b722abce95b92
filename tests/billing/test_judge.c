/* The judge against a plainer model over random clicks; slices cut anywhere, memory of any
 * size and a judge killed half-way give the same verdicts. */
#include <signal.h>
#include <sys/wait.h>

#include "billing/sums.h"
#include "tests/billing/billing_fixture.h"
#include "tests/billing/judge_model.h"

/* ---- random clicks ---- */

static const char *const texts[] = {"0", "1", "2", "3", "4",
                                    "5", "6", "7", "8", "9"};
static const char *const campaigns[] = {"shoes",  "books", "small", "tight",
                                        "paused", "other", "nobody"};
static const uint8_t addresses[4][4] = {
    {1, 1, 1, 1}, {1, 1, 1, 2}, {1, 1, 1, 3}, {1, 1, 1, 4}};

/* Groups of one received time, about step_us apart; about one click in ten repeats. */
static void
world_fill(struct world *w, size_t n, int64_t step_us, uint64_t seed)
{
    int64_t now_us = T0_US + 1;

    *w = (struct world){.clicks = calloc(n, sizeof(*w->clicks)),
                        .expected = calloc(n, sizeof(*w->expected))};
    CHECK(w->clicks != NULL && w->expected != NULL);
    while (w->n < n) {
        struct click *click = &w->clicks[w->n];

        if (random_below(&seed, 8) == 0)
            now_us += 1 + (int64_t)random_below(&seed, (uint64_t)step_us * 16);
        if (w->n > 0 && random_below(&seed, 10) == 0) {
            uint64_t back = random_below(&seed, 4) == 0 ? w->n
                            : w->n < 50                 ? w->n
                                                        : 50;

            *click = w->clicks[w->n - 1 - random_below(&seed, back)];
            if (random_below(&seed, 3) == 0)
                click->publisher_id = str_of(texts[random_below(&seed, 10)]);
        } else {
            *click = fixture_click(w->n, now_us);
            click->campaign_id = str_of(campaigns[random_below(&seed, 7)]);
            click->user_id = str_of(texts[random_below(&seed, 10)]);
            click->ad_id = str_of(texts[random_below(&seed, 4)]);
            click->ip =
                (struct str){(const char *)addresses[random_below(&seed, 4)], 4};
            click->timestamp_ms =
                now_us / 1000 - (int64_t)random_below(&seed, 30) * 1000;
            if (random_below(&seed, 20) == 0)
                click->timestamp_ms -= (int64_t)random_below(&seed, 86400000);
            click->test = random_below(&seed, 50) == 0;
            click->price_micros = (int64_t)random_below(&seed, 1200000);
        }
        click->received_us = now_us;
        w->n++;
    }
}

/* Order of receipt within a group: by partition. */
static int
receipt_compare(const void *a, const void *b)
{
    const struct click *x = a, *y = b;

    if (x->received_us != y->received_us)
        return x->received_us < y->received_us ? -1 : 1;
    if (x->partition != y->partition)
        return x->partition < y->partition ? -1 : 1;
    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static void
world_free(struct world *w)
{
    free(w->clicks);
    free(w->expected);
}

/* Archives the world: files roll at each hour, at random, and at each of cuts. */
static void
world_archive(const struct fixture *f, struct world *w, const int64_t *cuts,
              size_t cuts_n, uint64_t seed)
{
    struct archiver a;
    int64_t last_us = w->clicks[w->n - 1].received_us, hour_us = 0;
    size_t cut = 0;

    archiver_open(&a, f->archive);
    for (size_t i = 0; i < w->n; i++) {
        struct click *click = &w->clicks[i];

        if (hour_us != 0 && hour_of(click) != hour_us)
            archiver_roll(&a, hour_us + HOUR);
        hour_us = hour_of(click);
        while (cut < cuts_n && click->received_us >= cuts[cut]) {
            archiver_roll(&a, cuts[cut]);
            cut++;
        }
        if (i > 0 && click->received_us > w->clicks[i - 1].received_us &&
            random_below(&seed, 100) == 0)
            archiver_roll(&a, click->received_us);
        archiver_add(&a, click);
    }
    archiver_roll(&a, clock_floor(last_us, HOUR) + HOUR);
    archiver_close(&a);
    qsort(w->clicks, w->n, sizeof(*w->clicks), receipt_compare);
}

static void
finals_compare(const struct fixture *f, const struct world *w)
{
    struct final_row *rows[FIXTURE_PARTITIONS];
    size_t kinds[VERDICT_KINDS_N] = {0};

    finals_read(f, rows);
    for (size_t i = 0; i < w->n; i++) {
        const struct click *click = &w->clicks[i];
        const struct final_row *row = &rows[click->partition][click->seq];
        const struct expected *e = &w->expected[i];

        kinds[e->kind]++;
        if (row->verdict.kind != e->kind || row->verdict.reasons != e->reasons ||
            row->price_micros != e->price || row->seq != click->seq ||
            ((row->flags & FINAL_CONFLICT) != 0) != e->conflict) {
            fprintf(stderr,
                    "click %zu of partition %u: kind %d not %d, reasons %x not %x, "
                    "price %" PRId64 " not %" PRId64 ", flags %d\n",
                    i, click->partition, row->verdict.kind, (int)e->kind,
                    row->verdict.reasons, e->reasons, row->price_micros, e->price,
                    row->flags);
            exit(1);
        }
    }
    for (uint32_t p = 0; p < FIXTURE_PARTITIONS; p++)
        free(rows[p]);
    if (w->n >= 5000) /* the test sees every kind */
        for (int k = VERDICT_BILLABLE; k < VERDICT_KINDS_N; k++)
            CHECK(k == VERDICT_SUSPICIOUS || kinds[k] > 0);
}

struct totals {
    uint64_t clicks, conflicts, billed;
    money_wide cost;
};

static bool
totals_add(void *ctx, const struct sums_row *row)
{
    struct totals *t = ctx;

    t->clicks += row->clicks;
    t->conflicts += row->conflicts;
    t->cost += row->cost_micros;
    if (verdict_is_billable((enum verdict_kind)row->kind)) {
        t->billed += row->clicks;
        CHECK(row->list_micros == row->cost_micros);
        CHECK(row->cost_micros == (money_wide)row->clicks * row->unit_price_micros);
    } else {
        CHECK(row->unit_price_micros == 0 && row->cost_micros == 0);
    }
    return true;
}

static struct totals
totals_of(const struct fixture *f)
{
    struct judge_slice *slices;
    struct totals t = {0};
    uint32_t n;

    MUST(judge_slices(f->judge, &slices, &n, why));
    for (uint32_t i = 0; i < n; i++)
        if (slices[i].clicks > 0)
            MUST(sums_each(f->judge, slices[i].to_us, totals_add, &t, why));
    free(slices);
    return t;
}

/* Sums and id runs tell the same as the verdicts. */
static void
sums_compare(const struct fixture *f, const struct world *w)
{
    struct totals want = {0}, t = totals_of(f);

    for (size_t i = 0; i < w->n; i++) {
        want.clicks++;
        want.conflicts += w->expected[i].conflict;
        want.cost += w->expected[i].price;
        want.billed += verdict_is_billable(w->expected[i].kind);
    }
    CHECK(t.clicks == want.clicks && t.conflicts == want.conflicts);
    CHECK(t.cost == want.cost && t.billed == want.billed);
}

static void
finds_compare(const struct fixture *f, const struct world *w)
{
    if (w->clicks[w->n - 1].received_us - w->clicks[0].received_us >
        30 * CLOCK_DAY_US)
        return; /* the id runs of the first clicks are gone */
    for (size_t i = 0; i < w->n; i += 211) {
        struct judge_found found[64];
        uint32_t n, same = 0;
        bool here = false;

        MUST(judge_find(f->archive, f->judge, w->clicks[i].event_id, found, 64, &n,
                        why));
        for (size_t j = 0; j < w->n; j++)
            same += memcmp(w->clicks[j].event_id, w->clicks[i].event_id, 16) == 0;
        for (uint32_t k = 0; k < n; k++)
            here |= found[k].judged && found[k].offset == w->clicks[i].seq;
        CHECK(n == same && here);
    }
}

static int64_t
end_of(const struct world *w)
{
    return clock_floor(w->clicks[w->n - 1].received_us, HOUR) + HOUR;
}

/* ---- tests ---- */

static void
test_random_clicks_get_the_models_verdicts(void)
{
    static const struct {
        size_t n;
        int64_t step_us;
        int64_t memory;
        uint64_t window_bytes;
    } cases[] = {
        {6000, SECOND, 2000000, 0},
        {6000, SECOND, 1000, 0},
        {6000, SECOND, 2000000, FRAUD_WINDOW_BYTES_MIN},
        {6000, SECOND, 1000, FRAUD_WINDOW_BYTES_MIN},
        {6000, SECOND / 20, 1000, 0},
        {1500, 60 * SECOND, 2000000, 0},
        {1000, 3600 * SECOND, 1000, 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fixture f;
        struct world w;
        struct judge_result result;

        fixture_open(&f);
        f.config.billing_judge_clicks_max = cases[i].memory;
        f.window_bytes = cases[i].window_bytes;
        world_fill(&w, cases[i].n, cases[i].step_us, i + 1);
        world_archive(&f, &w, NULL, 0, i);
        model_run(&f, &w, 35 * CLOCK_DAY_US);
        result = fixture_judge(&f, end_of(&w), false);
        CHECK(result.clicks == w.n && result.judged_until_us == end_of(&w));
        finals_compare(&f, &w);
        sums_compare(&f, &w);
        finds_compare(&f, &w);
        result = fixture_judge(&f, end_of(&w), false); /* again: nothing to do */
        CHECK(result.clicks == 0 && result.slices == 0);
        world_free(&w);
        fixture_close(&f);
    }
}

static void
test_slices_cut_anywhere_give_the_same_verdicts(uint64_t window_bytes)
{
    struct fixture f;
    struct world w;
    int64_t cuts[12];
    uint64_t seed = 5;

    fixture_open(&f);
    f.window_bytes = window_bytes;
    world_fill(&w, 5000, SECOND, 42);
    for (size_t i = 0; i < 12; i++) /* ascending, within the time of the clicks */
        cuts[i] = w.clicks[(i + 1) * 380 + random_below(&seed, 100)].received_us +
                  (int64_t)(i % 2);
    world_archive(&f, &w, cuts, 12, 9);
    model_run(&f, &w, 35 * CLOCK_DAY_US);
    for (size_t i = 0; i < 12; i++) {
        struct judge_result result = fixture_judge(&f, cuts[i], true);

        CHECK(result.judged_until_us == cuts[i]);
    }
    (void)fixture_judge(&f, end_of(&w), false);
    finals_compare(&f, &w);
    sums_compare(&f, &w);
    finds_compare(&f, &w);
    world_free(&w);
    fixture_close(&f);
}

static void
kill_self(void *ctx, uint64_t done, uint64_t total)
{
    const uint64_t *at = ctx;

    (void)total;
    if (done >= *at)
        (void)raise(SIGKILL);
}

/* The child judges until SIGKILL: by progress, or after some microseconds. */
static void
judge_killed(const struct fixture *f, int64_t until_us, uint64_t at, int64_t us)
{
    pid_t pid = fork();

    CHECK(pid >= 0);
    if (pid == 0) {
        struct judge_input in = fixture_input(f, until_us, false);
        struct judge_result result;

        in.progress = kill_self;
        in.progress_ctx = &at;
        (void)judge_run(&in, &result, NULL);
        _exit(0);
    }
    if (us > 0) {
        clock_sleep_us(us);
        (void)kill(pid, SIGKILL);
    }
    (void)waitpid(pid, NULL, 0);
}

static void
test_a_judge_killed_at_any_time_goes_on_to_the_same_verdicts(void)
{
    struct fixture f;
    struct world w;
    uint64_t seed = 11;

    fixture_open(&f);
    f.config.billing_judge_clicks_max = 1000;
    world_fill(&w, 6000, 2 * SECOND, 77);
    world_archive(&f, &w, NULL, 0, 3);
    model_run(&f, &w, 35 * CLOCK_DAY_US);
    for (int i = 0; i < 12; i++)
        judge_killed(&f, end_of(&w), i < 4 ? (uint64_t)(i + 1) * 900 : UINT64_MAX,
                     i < 4 ? 0 : 1000 + (int64_t)random_below(&seed, 60000));
    (void)fixture_judge(&f, end_of(&w), false);
    finals_compare(&f, &w);
    sums_compare(&f, &w);
    finds_compare(&f, &w);
    world_free(&w);
    fixture_close(&f);
}

/* One click a day with the same id, and one that returns after exactly 35 and 36 days. */
static void
test_ids_are_remembered_for_35_days_and_not_36(void)
{
    static const struct {
        int64_t days;
        bool duplicate;
    } cases[] = {{0, true},  {1, true},   {34, true},
                 {35, true}, {36, false}, {60, false}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fixture f;
        struct archiver a;
        struct judge_slice *slices;
        struct final_row *rows[FIXTURE_PARTITIONS];
        struct click first = fixture_click(1, T0_US + 5), second;
        uint32_t p, n;

        fixture_open(&f);
        archiver_open(&a, f.archive);
        archiver_add(&a, &first);
        archiver_roll(&a, T0_US + HOUR);
        (void)fixture_judge(&f, T0_US + HOUR, false);
        second = fixture_click(1, T0_US + 7 + cases[i].days * CLOCK_DAY_US);
        second.user_id = STR("someone");
        if (cases[i].days == 0)
            second.received_us += HOUR;
        archiver_add(&a, &second);
        archiver_roll(&a, clock_floor(second.received_us, HOUR) + HOUR);
        archiver_close(&a);
        (void)fixture_judge(&f, second.received_us + HOUR, false);
        finals_read(&f, rows);
        p = second.partition;
        CHECK(rows[p][0].verdict.kind == VERDICT_BILLABLE);
        CHECK((rows[p][1].verdict.kind == VERDICT_DUPLICATE) == cases[i].duplicate);
        CHECK(((rows[p][1].flags & FINAL_CONFLICT) != 0) == cases[i].duplicate);
        MUST(judge_slices(f.judge, &slices, &n, why));
        for (uint32_t s = 1; s < n; s++)
            CHECK(slices[s].from_us == slices[s - 1].to_us);
        free(slices);
        for (p = 0; p < FIXTURE_PARTITIONS; p++)
            free(rows[p]);
        fixture_close(&f);
    }
}

static void
test_it_waits_for_the_archive(void)
{
    struct fixture f;
    struct archiver a;
    struct click click = fixture_click(1, T0_US + 5);
    struct judge_input in;
    struct judge_result result;

    fixture_open(&f);
    archiver_open(&a, f.archive);
    archiver_add(&a, &click);
    archiver_roll(&a, T0_US + HOUR / 2);
    in = fixture_input(&f, T0_US + HOUR, false);
    CHECK(judge_run(&in, &result, NULL) == ERR_AGAIN && result.clicks == 0);
    in.forced = true;
    CHECK(judge_run(&in, &result, NULL) == ERR_AGAIN && result.clicks == 0);
    in.until_us = T0_US + HOUR / 2;
    MUST(judge_run(&in, &result, why));
    CHECK(result.clicks == 1 && result.judged_until_us == T0_US + HOUR / 2);
    archiver_roll(&a, T0_US + 5 * HOUR);
    archiver_close(&a);
    in = fixture_input(&f, T0_US + 5 * HOUR, false);
    MUST(judge_run(&in, &result, why));
    CHECK(result.judged_until_us == T0_US + 5 * HOUR && result.clicks == 0);
    fixture_close(&f);
}

static void
test_a_damaged_record_of_slices_is_an_error_and_a_torn_end_is_none(void)
{
    struct fixture f;
    struct world w;
    struct judge_slice *slices;
    struct buf text = BUF_MAX(1 << 20);
    char path[FILE_PATH_MAX];
    uint32_t n, again;

    fixture_open(&f);
    world_fill(&w, 1000, 30 * SECOND, 8);
    world_archive(&f, &w, NULL, 0, 8);
    (void)fixture_judge(&f, end_of(&w), false);
    MUST(judge_slices(f.judge, &slices, &n, why));
    free(slices);
    CHECK(n > 3);
    (void)snprintf(path, sizeof(path), "%s/judged.log", f.judge);
    MUST(file_read(path, &text, why));
    MUST(file_write(path, text.p, text.n - 7, why));
    MUST(judge_slices(f.judge, &slices, &again, why));
    free(slices);
    CHECK(again == n - 1);
    (void)fixture_judge(&f, end_of(&w), false); /* judges the last one again */
    MUST(judge_slices(f.judge, &slices, &again, why));
    free(slices);
    CHECK(again == n);
    text.p[30] ^= 1;
    MUST(file_write(path, text.p, text.n, why));
    CHECK(judge_slices(f.judge, &slices, &again, NULL) == ERR_CORRUPT);
    buf_free(&text);
    world_free(&w);
    fixture_close(&f);
}

int
main(void)
{
    test_random_clicks_get_the_models_verdicts();
    test_slices_cut_anywhere_give_the_same_verdicts(0);
    test_slices_cut_anywhere_give_the_same_verdicts(FRAUD_WINDOW_BYTES_MIN);
    test_a_judge_killed_at_any_time_goes_on_to_the_same_verdicts();
    test_ids_are_remembered_for_35_days_and_not_36();
    test_it_waits_for_the_archive();
    test_a_damaged_record_of_slices_is_an_error_and_a_torn_end_is_none();
    return 0;
}

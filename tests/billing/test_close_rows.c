/* Rows and campaign totals against a plain list that is searched from its start. */
#include "billing/close_rows.h"

#include "tests/billing/billing_fixture.h"

enum { MODEL_MAX = 40000, NAMES = 40 };

static char names[NAMES][8];

static struct sums_row
row_random(uint64_t *seed, uint32_t names_n)
{
    struct sums_row row = {
        .account = 1 + (uint32_t)random_below(seed, 3),
        .campaign = str_of(names[random_below(seed, names_n)]),
        .zone = STR("UTC"),
        .day = 20000,
        .ad = str_of(names[random_below(seed, names_n)]),
        .country = str_of(names[random_below(seed, 3)]),
        .publisher = str_of(names[random_below(seed, 3)]),
        .device = (uint8_t)random_below(seed, 3),
        .kind = (uint8_t)(1 + random_below(seed, VERDICT_KINDS_N - 1)),
        .reason = (uint8_t)random_below(seed, 3),
        .unit_price_micros = (int64_t)random_below(seed, 3) * 250000,
        .clicks = 1 + random_below(seed, 5),
        .conflicts = random_below(seed, 2),
    };

    row.cost_micros = (money_wide)row.clicks * row.unit_price_micros;
    row.list_micros = row.cost_micros + 7;
    return row;
}

static bool
same_key(const struct sums_row *a, const struct sums_row *b)
{
    return a->account == b->account && str_equal(a->campaign, b->campaign) &&
           str_equal(a->ad, b->ad) && str_equal(a->country, b->country) &&
           str_equal(a->publisher, b->publisher) && a->device == b->device &&
           a->kind == b->kind && a->reason == b->reason &&
           a->unit_price_micros == b->unit_price_micros;
}

static void
model_add(struct sums_row *model, uint32_t *n, const struct sums_row *row)
{
    uint32_t at = 0;

    while (at < *n && !same_key(&model[at], row))
        at++;
    if (at == *n) {
        model[(*n)++] = *row;
        return;
    }
    model[at].clicks += row->clicks;
    model[at].conflicts += row->conflicts;
    model[at].cost_micros += row->cost_micros;
    model[at].list_micros += row->list_micros;
}

static void
campaigns_compare(const struct close_rows *rows, const struct sums_row *model,
                  uint32_t n)
{
    uint64_t all = 0, counted = 0;

    for (uint32_t c = 0; c < rows->campaigns_n; c++) {
        const struct close_campaign *campaign = &rows->campaigns[c];
        uint64_t kinds[VERDICT_KINDS_N] = {0}, conflicts = 0;
        money_wide cost = 0;
        for (uint32_t i = 0; i < n; i++) {
            if (model[i].account != campaign->account ||
                !str_equal(model[i].campaign, campaign->campaign))
                continue;
            kinds[model[i].kind] += model[i].clicks;
            conflicts += model[i].conflicts;
            cost += model[i].cost_micros;
        }
        CHECK(memcmp(kinds, campaign->kinds, sizeof(kinds)) == 0);
        CHECK(conflicts == campaign->conflicts && cost == campaign->cost_micros);
        CHECK(campaign->received == 0);
        CHECK(close_rows_campaign_find(rows, campaign->account,
                                       campaign->campaign) == campaign);
        for (int k = 0; k < VERDICT_KINDS_N; k++)
            counted += kinds[k];
    }
    for (uint32_t i = 0; i < n; i++)
        all += model[i].clicks;
    CHECK(all == counted);
}

static void
test_rows_are_the_models(void)
{
    static const uint32_t spreads[] = {2, 8, NAMES};
    struct sums_row *model = calloc(MODEL_MAX, sizeof(*model));
    uint64_t seed = 99;

    CHECK(model != NULL);
    for (int s = 0; s < 3; s++) {
        struct close_rows rows = {0};
        uint32_t n = 0;
        for (int i = 0; i < 6000; i++) {
            char gone[4][8];
            struct sums_row row = row_random(&seed, spreads[s]);
            struct str *texts[] = {&row.campaign, &row.ad, &row.country,
                                   &row.publisher};
            model_add(model, &n, &row);
            /* What is lent is not kept. */
            for (int k = 0; k < 4; k++) {
                memcpy(gone[k], texts[k]->p, texts[k]->n);
                texts[k]->p = gone[k];
            }
            MUST(close_rows_add(&rows, &row, why));
            MUST(close_rows_count(&rows, &row, why));
            memset(gone, '?', sizeof(gone));
        }
        CHECK(rows.n == n);
        for (uint32_t i = 0; i < n; i++) {
            const struct sums_row *row = &rows.rows[i];
            CHECK(same_key(row, &model[i]) && row->clicks == model[i].clicks &&
                  row->conflicts == model[i].conflicts &&
                  row->cost_micros == model[i].cost_micros &&
                  row->list_micros == model[i].list_micros);
        }
        campaigns_compare(&rows, model, n);
        close_rows_free(&rows);
        CHECK(rows.n == 0 && rows.rows == NULL);
        close_rows_free(&rows);
    }
    free(model);
}

static void
test_many_campaigns_are_found_again_and_no_others(void)
{
    struct close_rows rows = {0};
    char name[16];

    CHECK(close_rows_campaign_find(&rows, 1, STR("x")) == NULL);
    for (uint32_t i = 0; i < 200000; i++) {
        (void)snprintf(name, sizeof(name), "c%u", i / 2);
        struct close_campaign *made =
            close_rows_campaign(&rows, 1 + i % 2, str_of(name));
        CHECK(made != NULL && made->received == 0);
        made->received = i;
    }
    CHECK(rows.campaigns_n == 200000);
    for (uint32_t i = 0; i < 200000; i += 7) {
        (void)snprintf(name, sizeof(name), "c%u", i / 2);
        CHECK(close_rows_campaign(&rows, 1 + i % 2, str_of(name))->received == i);
        CHECK(close_rows_campaign_find(&rows, 3, str_of(name)) == NULL);
    }
    CHECK(rows.campaigns_n == 200000);
    close_rows_free(&rows);
}

static void
test_empty_texts_are_a_key_and_a_text_past_a_chunk_is_refused(void)
{
    struct close_rows rows = {0};
    struct sums_row row = {.account = 1, .kind = VERDICT_BILLABLE, .clicks = 1};
    char *big = calloc(1, (1 << 20) + 1);

    CHECK(big != NULL);
    MUST(close_rows_add(&rows, &row, why));
    MUST(close_rows_add(&rows, &row, why));
    CHECK(rows.n == 1 && rows.rows[0].clicks == 2 && rows.campaigns_n == 0);
    row.ad = (struct str){big, (1 << 20) + 1};
    CHECK(close_rows_add(&rows, &row, NULL) == ERR_FULL);
    CHECK(rows.n == 1 && rows.rows[0].clicks == 2);
    row.ad = (struct str){big, 1 << 20};
    MUST(close_rows_add(&rows, &row, why));
    CHECK(rows.n == 2);
    free(big);
    close_rows_free(&rows);
}

/* For real: it takes a second and less than a gigabyte. */
static void
test_rows_past_the_limit_are_refused_and_named(void)
{
    struct close_rows rows = {0};
    struct why told = {{0}};
    uint32_t n = 0;
    char ad[16];

    for (; n < CLOSE_ROWS_MAX; n++) {
        (void)snprintf(ad, sizeof(ad), "%u", n);
        const struct sums_row row = {.account = 1,
                                     .campaign = STR("c"),
                                     .ad = str_of(ad),
                                     .kind = VERDICT_BILLABLE,
                                     .clicks = 1};
        if (close_rows_add(&rows, &row, &told) != ERR_OK)
            break;
    }
    CHECK(n == CLOSE_ROWS_MAX);
    const struct sums_row more = {.account = 2, .kind = VERDICT_BILLABLE};
    CHECK(close_rows_add(&rows, &more, &told) == ERR_FULL);
    CHECK(strstr(told.text, "1048576") != NULL);
    CHECK(rows.n == CLOSE_ROWS_MAX);
    /* Cleared, they are an empty table again; totals stay. */
    MUST(close_rows_count(&rows, &more, why));
    close_rows_clear(&rows);
    CHECK(rows.n == 0 && rows.campaigns_n == 1);
    MUST(close_rows_add(&rows, &more, why));
    CHECK(rows.n == 1 && close_rows_campaign_find(&rows, 2, STR("")) != NULL);
    close_rows_free(&rows);
}

int
main(void)
{
    for (int i = 0; i < NAMES; i++)
        (void)snprintf(names[i], sizeof(names[i]), "n%d", i);
    test_rows_are_the_models();
    test_many_campaigns_are_found_again_and_no_others();
    test_empty_texts_are_a_key_and_a_text_past_a_chunk_is_refused();
    test_rows_past_the_limit_are_refused_and_named();
    return 0;
}

#include "billing/close_rows.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"

enum { TEXT_CHUNK = 1 << 20, SLOTS_FIRST = 1024 };

struct close_text {
    struct close_text *before;
    size_t used;
    char bytes[TEXT_CHUNK];
};

static struct str
text_keep(struct close_text **texts, struct str s)
{
    if (s.n == 0)
        return (struct str){"", 0};
    if (s.n > TEXT_CHUNK)
        return (struct str){NULL, 0};
    if (*texts == NULL || (*texts)->used + s.n > TEXT_CHUNK) {
        struct close_text *chunk = malloc(sizeof(*chunk));
        if (chunk == NULL)
            return (struct str){NULL, 0};
        chunk->before = *texts;
        chunk->used = 0;
        *texts = chunk;
    }
    char *to = (*texts)->bytes + (*texts)->used;
    memcpy(to, s.p, s.n);
    (*texts)->used += s.n;
    return (struct str){to, s.n};
}

static void
texts_free(struct close_text **texts)
{
    while (*texts != NULL) {
        struct close_text *chunk = *texts;
        *texts = chunk->before;
        free(chunk);
    }
}

static uint64_t
row_hash(const struct sums_row *row)
{
    uint64_t numbers[4] = {
        row->account, (uint64_t)row->unit_price_micros,
        (uint64_t)row->kind << 16 | (uint64_t)row->reason << 8 | row->device, 0};
    uint64_t hash = hash64(numbers, sizeof(numbers), 0);

    hash = hash64(row->campaign.p, row->campaign.n, hash);
    hash = hash64(row->ad.p, row->ad.n, hash);
    hash = hash64(row->country.p, row->country.n, hash);
    return hash64(row->publisher.p, row->publisher.n, hash);
}

static bool
row_same(const struct sums_row *a, const struct sums_row *b)
{
    return a->account == b->account &&
           a->unit_price_micros == b->unit_price_micros && a->kind == b->kind &&
           a->reason == b->reason && a->device == b->device &&
           str_equal(a->campaign, b->campaign) && str_equal(a->ad, b->ad) &&
           str_equal(a->country, b->country) &&
           str_equal(a->publisher, b->publisher);
}

static uint64_t
campaign_hash(uint32_t account, struct str campaign)
{
    return hash64(campaign.p, campaign.n, account);
}

/* Doubles an index of n items before it is half full; hash_of tells an item's hash. */
static bool
slots_grow(struct close_rows *rows, uint32_t **slots, uint32_t *slots_n, uint32_t n,
           uint64_t (*hash_of)(const struct close_rows *, uint32_t))
{
    if (*slots_n > 0 && n + 1 <= *slots_n / 2)
        return true;
    uint32_t wanted = *slots_n == 0 ? SLOTS_FIRST : *slots_n * 2;
    uint32_t *grown = calloc(wanted, sizeof(*grown));
    if (grown == NULL)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = (uint32_t)hash_of(rows, i) & (wanted - 1);
        while (grown[at] != 0)
            at = (at + 1) & (wanted - 1);
        grown[at] = i + 1;
    }
    free(*slots);
    *slots = grown;
    *slots_n = wanted;
    return true;
}

static uint64_t
hash_of_row(const struct close_rows *rows, uint32_t i)
{
    return row_hash(&rows->rows[i]);
}

static uint64_t
hash_of_campaign(const struct close_rows *rows, uint32_t i)
{
    return campaign_hash(rows->campaigns[i].account, rows->campaigns[i].campaign);
}

static bool
array_grow(void **array, uint32_t *cap, uint32_t n, uint32_t max, size_t size)
{
    if (n >= max)
        return false;
    if (n < *cap)
        return true;
    uint32_t wanted = *cap == 0 ? 256 : *cap * 2;
    if (wanted > max)
        wanted = max;
    void *grown = realloc(*array, wanted * size);
    if (grown == NULL)
        return false;
    *array = grown;
    *cap = wanted;
    return true;
}

/* The slot of a campaign: its own, or the free one where it would go. */
static uint32_t
campaign_slot(const struct close_rows *rows, uint32_t account, struct str campaign)
{
    uint32_t mask = rows->campaign_slots_n - 1;
    uint32_t at = (uint32_t)campaign_hash(account, campaign) & mask;

    for (; rows->campaign_slots[at] != 0; at = (at + 1) & mask) {
        const struct close_campaign *there =
            &rows->campaigns[rows->campaign_slots[at] - 1];
        if (there->account == account && str_equal(there->campaign, campaign))
            break;
    }
    return at;
}

const struct close_campaign *
close_rows_campaign_find(const struct close_rows *rows, uint32_t account,
                         struct str campaign)
{
    if (rows->campaign_slots_n == 0)
        return NULL;
    uint32_t place = rows->campaign_slots[campaign_slot(rows, account, campaign)];
    return place == 0 ? NULL : &rows->campaigns[place - 1];
}

struct close_campaign *
close_rows_campaign(struct close_rows *rows, uint32_t account, struct str campaign)
{
    if (!slots_grow(rows, &rows->campaign_slots, &rows->campaign_slots_n,
                    rows->campaigns_n, hash_of_campaign))
        return NULL;
    uint32_t at = campaign_slot(rows, account, campaign);
    if (rows->campaign_slots[at] != 0)
        return &rows->campaigns[rows->campaign_slots[at] - 1];
    struct str kept = text_keep(&rows->campaign_texts, campaign);
    if (kept.p == NULL ||
        !array_grow((void **)&rows->campaigns, &rows->campaigns_cap,
                    rows->campaigns_n, CLOSE_CAMPAIGNS_MAX,
                    sizeof(*rows->campaigns)))
        return NULL;
    struct close_campaign *made = &rows->campaigns[rows->campaigns_n++];
    *made = (struct close_campaign){.account = account, .campaign = kept};
    rows->campaign_slots[at] = rows->campaigns_n;
    return made;
}

static struct sums_row *
row_find(struct close_rows *rows, const struct sums_row *row)
{
    if (!slots_grow(rows, &rows->slots, &rows->slots_n, rows->n, hash_of_row))
        return NULL;
    uint32_t mask = rows->slots_n - 1;
    uint32_t at = (uint32_t)row_hash(row) & mask;
    for (; rows->slots[at] != 0; at = (at + 1) & mask) {
        if (row_same(&rows->rows[rows->slots[at] - 1], row))
            return &rows->rows[rows->slots[at] - 1];
    }
    if (!array_grow((void **)&rows->rows, &rows->cap, rows->n,
                    rows->max != 0 ? rows->max : CLOSE_ROWS_MAX,
                    sizeof(*rows->rows)))
        return NULL;
    struct sums_row *made = &rows->rows[rows->n];
    *made = *row;
    made->campaign = text_keep(&rows->texts, row->campaign);
    made->zone = (struct str){"", 0};
    made->ad = text_keep(&rows->texts, row->ad);
    made->country = text_keep(&rows->texts, row->country);
    made->publisher = text_keep(&rows->texts, row->publisher);
    if (made->campaign.p == NULL || made->ad.p == NULL || made->country.p == NULL ||
        made->publisher.p == NULL)
        return NULL;
    made->clicks = made->conflicts = 0;
    made->cost_micros = made->list_micros = 0;
    rows->slots[at] = ++rows->n;
    return made;
}

enum err
close_rows_add(struct close_rows *rows, const struct sums_row *row, struct why *why)
{
    assert(row->kind > VERDICT_NONE && row->kind < VERDICT_KINDS_N);
    struct sums_row *sum = row_find(rows, row);

    if (sum == NULL)
        return err_set(why, ERR_FULL, "close: over %d rows at once, or no memory",
                       CLOSE_ROWS_MAX);
    sum->clicks += row->clicks;
    sum->conflicts += row->conflicts;
    sum->cost_micros += row->cost_micros;
    sum->list_micros += row->list_micros;
    return ERR_OK;
}

enum err
close_rows_count(struct close_rows *rows, const struct sums_row *row,
                 struct why *why)
{
    assert(row->kind > VERDICT_NONE && row->kind < VERDICT_KINDS_N);
    struct close_campaign *campaign =
        close_rows_campaign(rows, row->account, row->campaign);

    if (campaign == NULL)
        return err_set(
            why, ERR_FULL,
            "close: over %d campaigns clicked in one zone's day, or no memory",
            CLOSE_CAMPAIGNS_MAX);
    campaign->kinds[row->kind] += row->clicks;
    campaign->conflicts += row->conflicts;
    campaign->cost_micros += row->cost_micros;
    return ERR_OK;
}

void
close_rows_clear(struct close_rows *rows)
{
    texts_free(&rows->texts);
    if (rows->slots_n > 0)
        memset(rows->slots, 0, rows->slots_n * sizeof(*rows->slots));
    rows->n = 0;
}

void
close_rows_free(struct close_rows *rows)
{
    texts_free(&rows->texts);
    texts_free(&rows->campaign_texts);
    free(rows->rows);
    free(rows->slots);
    free(rows->campaigns);
    free(rows->campaign_slots);
    *rows = (struct close_rows){0};
}

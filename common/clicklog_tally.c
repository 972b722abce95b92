#include "common/clicklog_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"

enum { ROWS_FIRST = 1024, ROWS_MAX = 1 << 26 };

void
tally_free(struct tally *tally)
{
    free(tally->rows);
    free(tally->slots);
    *tally = (struct tally){0};
}

void
tally_reset(struct tally *tally)
{
    tally->rows_n = 0;
    tally->round++;
    if (tally->round == 0 &&
        tally->slots != NULL) { /* once in four billion groups */
        memset(tally->slots, 0,
               (size_t)tally->rows_cap * 2 * sizeof(*tally->slots));
        tally->round = 1;
    }
}

static void
slot_take(struct tally *tally, uint32_t row)
{
    uint32_t mask = tally->rows_cap * 2 - 1;
    uint32_t i = (uint32_t)tally->rows[row].hash & mask;

    while (tally->slots[i].round == tally->round)
        i = (i + 1) & mask;
    tally->slots[i] = (struct tally_slot){tally->round, row};
}

static bool
tally_grow(struct tally *tally)
{
    uint32_t cap = tally->rows_cap == 0 ? ROWS_FIRST : tally->rows_cap * 2;
    struct tally_row *rows;
    struct tally_slot *slots;

    if (cap > ROWS_MAX)
        return false;
    rows = realloc(tally->rows, cap * sizeof(*rows));
    if (rows == NULL)
        return false;
    tally->rows = rows;
    slots = calloc((size_t)cap * 2, sizeof(*slots));
    if (slots == NULL)
        return false;
    free(tally->slots);
    tally->slots = slots;
    tally->rows_cap = cap;
    tally->round = 1;
    for (uint32_t i = 0; i < tally->rows_n; i++)
        slot_take(tally, i);
    return true;
}

static bool
row_is(const struct tally_row *row, uint64_t hash, uint32_t account,
       struct str campaign, int32_t quarter)
{
    return row->hash == hash && row->account == account &&
           row->quarter == quarter && str_equal(row->campaign, campaign);
}

bool
tally_add(struct tally *tally, uint32_t account, struct str campaign,
          int32_t quarter, uint64_t clicks)
{
    uint64_t seed = (uint64_t)account << 32 | (uint32_t)quarter;
    uint64_t hash = hash64(campaign.p, campaign.n, seed);
    uint32_t mask, i;

    assert(campaign.n <= CAMPAIGN_BYTES_MAX);
    if (tally->rows_n == tally->rows_cap && !tally_grow(tally))
        return false;
    mask = tally->rows_cap * 2 - 1;
    for (i = (uint32_t)hash & mask; tally->slots[i].round == tally->round;
         i = (i + 1) & mask) {
        struct tally_row *row = &tally->rows[tally->slots[i].row];

        if (row_is(row, hash, account, campaign, quarter)) {
            row->clicks += clicks;
            return true;
        }
    }
    tally->slots[i] = (struct tally_slot){tally->round, tally->rows_n};
    tally->rows[tally->rows_n++] =
        (struct tally_row){hash, clicks, campaign, account, quarter};
    return true;
}

int
tally_row_compare(const struct tally_row *a, const struct tally_row *b)
{
    uint32_t n = a->campaign.n < b->campaign.n ? a->campaign.n : b->campaign.n;
    int order;

    if (a->account != b->account)
        return a->account < b->account ? -1 : 1;
    order = n == 0 ? 0 : memcmp(a->campaign.p, b->campaign.p, n);
    if (order != 0)
        return order;
    if (a->campaign.n != b->campaign.n)
        return a->campaign.n < b->campaign.n ? -1 : 1;
    if (a->quarter != b->quarter)
        return a->quarter < b->quarter ? -1 : 1;
    return 0;
}

static int
by_row(const void *a, const void *b)
{
    return tally_row_compare(a, b);
}

/* The slots are stale afterwards: only reading and resetting may follow. */
void
tally_sort(struct tally *tally)
{
    if (tally->rows_n > 1)
        qsort(tally->rows, tally->rows_n, sizeof(*tally->rows), by_row);
}

size_t
tally_size(const struct tally *tally)
{
    size_t size = (size_t)tally->rows_n * ROW_FIXED;

    for (uint32_t i = 0; i < tally->rows_n; i++)
        size += tally->rows[i].campaign.n;
    return size;
}

void
tally_write(const struct tally *tally, uint8_t *out)
{
    for (uint32_t i = 0; i < tally->rows_n; i++) {
        const struct tally_row *row = &tally->rows[i];

        memcpy(out, &row->account, 4);
        memcpy(out + 4, &row->quarter, 4);
        memcpy(out + 8, &row->clicks, 8);
        out[16] = (uint8_t)row->campaign.n;
        if (row->campaign.n > 0)
            memcpy(out + ROW_FIXED, row->campaign.p, row->campaign.n);
        out += ROW_FIXED + row->campaign.n;
    }
}

size_t
tally_row_read(const uint8_t *p, const uint8_t *end, struct tally_row *row)
{
    if (end - p < ROW_FIXED || end - p < ROW_FIXED + p[16])
        return 0;
    *row = (struct tally_row){0};
    memcpy(&row->account, p, 4);
    memcpy(&row->quarter, p + 4, 4);
    memcpy(&row->clicks, p + 8, 8);
    row->campaign = (struct str){(const char *)p + ROW_FIXED, p[16]};
    return (size_t)ROW_FIXED + p[16];
}

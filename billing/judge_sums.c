/* Sums of one slice: (dims, kind, reason, price) -> clicks and money. */
#include <stdlib.h>
#include <string.h>

#include "billing/judge_core.h"
#include "common/prefetch.h"

enum { SUMS_SLOTS_MIN = 1024 };

struct sum {
    struct sum_key key;
    uint64_t clicks, conflicts;
    money_wide list_micros;
};

/* Rows in order of their first click, so that files do not depend on the table's size. */
struct sums_table {
    uint32_t *slots; /* row + 1 */
    uint32_t slots_n;
    struct sum *rows;
    uint32_t n, cap;
};

enum err
sums_table_open(struct sums_table **out, struct why *why)
{
    struct sums_table *table = calloc(1, sizeof(*table));

    *out = table;
    if (table != NULL)
        table->slots = calloc(SUMS_SLOTS_MIN, sizeof(*table->slots));
    if (table == NULL || table->slots == NULL) {
        sums_table_close(out);
        return err_set(why, ERR_NOMEM, "judge: no memory");
    }
    table->slots_n = SUMS_SLOTS_MIN;
    return ERR_OK;
}

void
sums_table_close(struct sums_table **table)
{
    if (*table == NULL)
        return;
    free((*table)->slots);
    free((*table)->rows);
    free(*table);
    *table = NULL;
}

static uint32_t
sum_hash(const struct sum_key *key)
{
    uint64_t h = (uint64_t)key->dims << 16 | (uint64_t)key->kind << 8 | key->reason;

    h = (h ^ (uint64_t)key->price_micros * 0xD6E8FEB86659FD93u) *
        0x9E3779B97F4A7C15u;
    return (uint32_t)(h >> 32);
}

static bool
sum_same(const struct sum_key *a, const struct sum_key *b)
{
    return a->dims == b->dims && a->kind == b->kind && a->reason == b->reason &&
           a->price_micros == b->price_micros;
}

static enum err
table_grow(struct sums_table *t, struct why *why)
{
    uint32_t cap = t->cap * 2 + 512;
    struct sum *rows = realloc(t->rows, cap * sizeof(*rows));
    uint32_t *slots;

    if (rows == NULL)
        return err_set(why, ERR_NOMEM, "judge: no memory");
    t->rows = rows;
    t->cap = cap;
    while (t->slots_n < cap * 2)
        t->slots_n *= 2;
    slots = calloc(t->slots_n, sizeof(*slots));
    if (slots == NULL)
        return err_set(why, ERR_NOMEM, "judge: no memory");
    for (uint32_t i = 0; i < t->n; i++) {
        uint32_t at = sum_hash(&t->rows[i].key) & (t->slots_n - 1);

        while (slots[at] != 0)
            at = (at + 1) & (t->slots_n - 1);
        slots[at] = i + 1;
    }
    free(t->slots);
    t->slots = slots;
    return ERR_OK;
}

enum err
sums_table_add(struct sums_table *t, const struct sum_key *key, int64_t list_micros,
               bool conflict, struct why *why)
{
    uint32_t at;
    struct sum *row;

    if (t->n == t->cap) {
        enum err err = table_grow(t, why);

        if (err != ERR_OK)
            return err;
    }
    at = sum_hash(key) & (t->slots_n - 1);
    while (t->slots[at] != 0 && !sum_same(&t->rows[t->slots[at] - 1].key, key))
        at = (at + 1) & (t->slots_n - 1);
    if (t->slots[at] == 0) {
        t->rows[t->n++] = (struct sum){.key = *key};
        t->slots[at] = t->n;
    }
    row = &t->rows[t->slots[at] - 1];
    row->clicks++;
    row->conflicts += conflict;
    row->list_micros += list_micros;
    return ERR_OK;
}

void
sums_table_prefetch(const struct sums_table *t, const struct sum_key *key, bool row)
{
    const uint32_t *slot = &t->slots[sum_hash(key) & (t->slots_n - 1)];

    if (!row)
        prefetch(slot);
    else if (*slot != 0)
        prefetch(&t->rows[*slot - 1]);
}

enum err
sums_table_flush(struct judge *judge, struct slice *slice, struct why *why)
{
    struct sums_table *t = judge->sums;
    enum err err = ERR_OK;

    for (uint32_t i = 0; i < t->n && err == ERR_OK; i++) {
        const struct sum *sum = &t->rows[i];
        struct dims_row d;

        dims_get(judge->dims, sum->key.dims, &d);
        const struct sums_row row = {
            .account = d.account,
            .campaign = d.campaign,
            .zone = judge->zones[d.zone],
            .day = d.day,
            .ad = d.ad,
            .country = d.country,
            .publisher = d.publisher,
            .device = d.device,
            .kind = sum->key.kind,
            .reason = sum->key.reason,
            .unit_price_micros = sum->key.price_micros,
            .clicks = sum->clicks,
            .cost_micros = (money_wide)sum->clicks * sum->key.price_micros,
            .list_micros = sum->list_micros,
            .conflicts = sum->conflicts,
        };
        err = sums_add(slice->sums, &row, why);
    }
    memset(t->slots, 0, t->slots_n * sizeof(*t->slots));
    t->n = 0;
    return err;
}

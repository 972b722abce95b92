/* Counting clicks in cells: the hot part of window.c. */
#include <assert.h>
#include <stdlib.h>

#include "aggregate/window.h"
#include "aggregate/window_impl.h"
#include "common/clock.h"
#include "common/prefetch.h"

enum { GROUP = 32, USERS_MIN = 1024, LINE = 64 };

static const struct str other_text = {"__other__", 9};

uint32_t
window_cell_make(struct windows *w, uint32_t row, uint64_t hash, unsigned dimension,
                 struct str text)
{
    struct row *r = &w->rows[row];
    uint32_t i = index_find(&w->cells.index, r->salt ^ hash), value;
    bool named = dimension != CELL_DIMENSION_REASON && !str_equal(text, other_text);

    if (i != 0)
        return i;
    value = value_intern(&w->cells, hash, dimension, text);
    i = value == 0 ? 0 : cell_new(&w->cells, r->salt, value);
    if (i == 0) {
        w->failed = true;
        return 0;
    }

    struct cell *cell = cell_at(&w->cells, i);
    cell->row = row;
    if (named && r->values_n[dimension] >= w->cfg.values_max) {
        cell->extra = 1; /* in no row's list: windows_derive frees it */
        return i;
    }
    if (named)
        r->values_n[dimension]++;
    cell->next = r->cells;
    r->cells = i;
    return i;
}

struct hit {
    uint64_t hash, key;
    struct str text;
    uint32_t cell;
    uint8_t dimension;
};

struct hits {
    struct hit hit[DIMENSIONS_N];
    unsigned n;
    struct delta delta;
    struct user_mark user; /* of billable clicks */
};

static void
hit_add(struct windows *w, struct hits *hits, uint64_t salt, unsigned dimension,
        struct str text, uint64_t hash)
{
    struct hit *hit = &hits->hit[hits->n++];

    *hit = (struct hit){.hash = hash,
                        .key = salt ^ hash,
                        .text = text,
                        .dimension = (uint8_t)dimension};
    index_prefetch(&w->cells.index, hit->key);
}

static void
hit_text(struct windows *w, struct hits *hits, uint64_t salt, unsigned dimension,
         struct str text)
{
    if (text.n > 0)
        hit_add(w, hits, salt, dimension, text,
                window_value_hash(w, dimension, text));
}

/* The values of a click; a reason goes by itself. */
static void
hits_fill(struct windows *w, struct hits *hits, const struct window_click *wc)
{
    const struct click *click = wc->click;
    uint64_t salt = w->rows[wc->leaf].salt;
    enum verdict_kind kind = (enum verdict_kind)wc->verdict.kind;
    bool billable = verdict_is_billable(kind);

    hits->n = 0;
    if (billable)
        hits->user = users_mark(click->user_id);
    if (!billable && kind != VERDICT_INVALID)
        return;
    hits->delta = (struct delta){
        .cost = billable ? wc->price_micros : 0,
        .clicks = billable,
        .flagged = kind == VERDICT_SUSPICIOUS,
        .invalid = kind == VERDICT_INVALID,
    };
    hit_text(w, hits, salt, DIMENSION_AD, click->ad_id);
    hit_text(w, hits, salt, DIMENSION_AD_GROUP, click->ad_group_id);
    hit_text(w, hits, salt, DIMENSION_CREATIVE, click->creative_id);
    hit_text(w, hits, salt, DIMENSION_VARIANT, click->variant_id);
    hit_text(w, hits, salt, DIMENSION_COUNTRY, click->country);
    hit_text(w, hits, salt, DIMENSION_PUBLISHER, click->publisher_id);
    if (click->device < CLICK_DEVICES_N)
        hit_add(w, hits, salt, DIMENSION_DEVICE,
                str_of(click_device_name(click->device)),
                w->device_hash[click->device]);
}

static void
hits_resolve(struct windows *w, struct hits *hits, const struct window_click *wc)
{
    uint32_t row = wc->leaf;

    if (verdict_is_billable((enum verdict_kind)wc->verdict.kind))
        users_prefetch(w->rows[row].users, hits->user);
    for (unsigned i = 0; i < hits->n; i++) {
        struct hit *hit = &hits->hit[i];

        hit->cell = index_find(&w->cells.index, hit->key);
        if (hit->cell == 0)
            hit->cell =
                window_cell_make(w, row, hit->hash, hit->dimension, hit->text);
        if (hit->cell != 0)
            prefetch_write(cell_at(&w->cells, hit->cell));
    }
}

static void
reason_add(struct windows *w, uint32_t row, enum reason reason)
{
    static const struct delta one = {.clicks = 1};
    uint32_t i =
        window_cell_make(w, row, w->reason_hash[reason], CELL_DIMENSION_REASON,
                         str_of(reason_info(reason)->name));

    if (i != 0)
        window_cell_add(w, i, w->rows[row].window, &one);
}

static void
totals_add(struct windows *w, const struct window_click *wc, int64_t now_us)
{
    struct row *row = &w->rows[wc->leaf];
    enum verdict_kind kind = (enum verdict_kind)wc->verdict.kind;
    int64_t *totals = row->totals, *fresh = row->new_totals;
    int64_t add[WINDOW_TOTALS_N] = {
        verdict_is_billable(kind),
        verdict_is_billable(kind) ? wc->price_micros : 0,
        kind == VERDICT_SUSPICIOUS,
        kind == VERDICT_INVALID,
        kind == VERDICT_DUPLICATE,
        kind == VERDICT_QUARANTINED,
    };

    for (unsigned i = 0; i < WINDOW_TOTALS_N; i++) {
        totals[i] += add[i];
        fresh[i] += add[i];
    }
    row->touched_us = now_us;
    window_row_dirty(w, wc->leaf);
}

static void
user_send(struct windows *w, uint32_t row, uint32_t at, uint32_t n)
{
    if (w->users_n == w->users_cap) {
        uint32_t cap = w->users_cap == 0 ? USERS_MIN : w->users_cap * 2;
        struct user_add *users = realloc(w->users, cap * sizeof(*users));

        if (users == NULL) {
            w->failed = true;
            return;
        }
        w->users = users;
        w->users_cap = cap;
    }
    w->users[w->users_n++] = (struct user_add){row, at, n};
    w->stats.users_sent++;
}

/* A register that the 5 minutes have, the hour and the day have too: they got it then. */
static void
user_add(struct windows *w, uint32_t row, struct user_mark mark, struct str id)
{
    uint32_t at = 0;
    bool kept = false;

    for (uint32_t i = row; i != 0; i = w->rows[i].parent) {
        enum user_answer answer = users_raise(
            &w->rows[i].users, mark, &w->users_bytes, w->cfg.users_bytes_max);

        if (answer == USER_KNOWN)
            break;
        if (answer == USER_UNSURE)
            w->rows[i].users_whole = false;
        if (!kept) {
            at = (uint32_t)w->user_bytes.n;
            buf_add_str(&w->user_bytes, id);
            kept = true;
        }
        w->failed = w->failed || w->user_bytes.failed;
        user_send(w, i, at, id.n);
    }
    w->stats.users_skipped += !kept;
}

static void
live_add(struct windows *w, uint32_t c, const struct window_click *wc,
         int64_t now_s)
{
    struct camp *camp = &w->camps[c];
    int64_t event_ms = wc->click->timestamp_ms;

    if (camp->live == NULL || event_ms / 1000 <= now_s - LIVE_AGE_S_MAX)
        return;
    if (live_count(camp->live, event_ms, wc->price_micros) && !camp->live_listed) {
        camp->live_listed = true;
        list_add(w, &w->dirty_lives, c);
    }
}

static void
click_add(struct windows *w, const struct window_click *wc, const struct hits *hits,
          int64_t now_us)
{
    unsigned window = w->rows[wc->leaf].window;

    totals_add(w, wc, now_us);
    for (unsigned i = 0; i < hits->n; i++)
        if (hits->hit[i].cell != 0)
            window_cell_add(w, hits->hit[i].cell, window, &hits->delta);
    if (verdict_is_billable((enum verdict_kind)wc->verdict.kind)) {
        user_add(w, wc->leaf, hits->user, wc->click->user_id);
        live_add(w, w->rows[wc->leaf].camp, wc, now_us / CLOCK_SECOND_US);
    } else {
        reason_add(w, wc->leaf, (enum reason)wc->verdict.reason);
    }
}

static void
rows_prefetch(const struct windows *w, const struct window_click *clicks, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *row = (const char *)&w->rows[clicks[i].leaf];

        for (size_t at = 0; clicks[i].leaf != 0 && at < sizeof(struct row);
             at += LINE)
            prefetch_write(row + at);
    }
}

/* In groups, so that the memory of one click is on its way while another is hashed. */
void
windows_count(struct windows *w, const struct window_click *clicks, size_t n,
              int64_t now_us)
{
    struct hits hits[GROUP];

    assert(w->loads.n == 0);
    for (size_t from = 0; from < n; from += GROUP) {
        size_t k = n - from < GROUP ? n - from : GROUP;
        const struct window_click *group = clicks + from;
        size_t after = n - from - k;

        rows_prefetch(w, group + k, after < GROUP ? after : GROUP);
        for (size_t i = 0; i < k; i++)
            if (group[i].leaf != 0)
                hits_fill(w, &hits[i], &group[i]);
        for (size_t i = 0; i < k; i++)
            if (group[i].leaf != 0)
                hits_resolve(w, &hits[i], &group[i]);
        for (size_t i = 0; i < k; i++)
            if (group[i].leaf != 0)
                click_add(w, &group[i], &hits[i], now_us);
    }
}

uint64_t
windows_changed(const struct windows *w)
{
    uint64_t n = w->users_n; /* costs Redis more than a field */

    for (unsigned i = 0; i < WINDOWS_N; i++)
        n += (w->dirty_cells[i].n + w->dirty_rows[i].n) * (uint64_t)(WINDOWS_N - i);
    return n;
}

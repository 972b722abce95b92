/* Counting, deriving, and laying out what has changed: the hot half of window.c. */
#include <assert.h>
#include <stdlib.h>

#include "aggregate/window.h"
#include "aggregate/window_impl.h"
#include "common/clock.h"

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

/* What one click adds. */
struct delta {
    int64_t cost;
    uint32_t clicks, flagged, invalid;
};

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
            __builtin_prefetch(cell_at(&w->cells, hit->cell), 1);
    }
}

static void
cell_add(struct windows *w, uint32_t i, unsigned window, const struct delta *delta)
{
    struct cell *cell = cell_at(&w->cells, i);

    cell->clicks += delta->clicks;
    cell->cost += delta->cost;
    cell->flagged += delta->flagged;
    cell->invalid += delta->invalid;
    cell->new_clicks += delta->clicks;
    cell->new_cost += delta->cost;
    cell->new_flagged += delta->flagged;
    cell->new_invalid += delta->invalid;
    window_cell_dirty(w, cell, i, window);
}

static void
reason_add(struct windows *w, uint32_t row, enum reason reason)
{
    static const struct delta one = {.clicks = 1};
    uint32_t i =
        window_cell_make(w, row, w->reason_hash[reason], CELL_DIMENSION_REASON,
                         str_of(reason_info(reason)->name));

    if (i != 0)
        cell_add(w, i, w->rows[row].window, &one);
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
            cell_add(w, hits->hit[i].cell, window, &hits->delta);
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
            __builtin_prefetch(row + at, 1);
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
    uint64_t n = 0;

    for (unsigned i = 0; i < WINDOWS_N; i++)
        n += (w->dirty_cells[i].n + w->dirty_rows[i].n) * (uint64_t)(WINDOWS_N - i);
    return n;
}

/* Adds what is new in a cell to the row's hour or day, and for an extra one to the row's
 * __other__. */
static void
cell_derive(struct windows *w, uint32_t i)
{
    struct cell *cell = cell_at(&w->cells, i);
    const struct value *value = value_of(&w->cells, cell);
    const struct row *row = &w->rows[cell->row];
    struct delta delta = {cell->new_cost, cell->new_clicks, cell->new_flagged,
                          cell->new_invalid};
    struct str text = {value->text + 2, value->n - 2u};
    uint32_t parent = row->parent, to;

    if ((delta.clicks | delta.flagged | delta.invalid) == 0 && delta.cost == 0)
        return;
    cell->new_clicks = cell->new_flagged = cell->new_invalid = 0;
    cell->new_cost = 0;
    if (cell->extra) {
        to = window_cell_make(w, cell->row, w->other_hash[value->dimension],
                              value->dimension, other_text);
        if (to != 0) {
            struct cell *other = cell_at(&w->cells, to);

            other->clicks += delta.clicks;
            other->cost += delta.cost;
            other->flagged += delta.flagged;
            other->invalid += delta.invalid;
            window_cell_dirty(w, other, to, row->window);
        }
    }
    if (parent == 0)
        return;
    to = window_cell_make(w, parent, value->hash, value->dimension, text);
    if (to != 0)
        cell_add(w, to, w->rows[parent].window, &delta);
}

static void
row_derive(struct windows *w, uint32_t i)
{
    struct row *row = &w->rows[i];
    struct row *parent = row->parent == 0 ? NULL : &w->rows[row->parent];
    int64_t any = 0;

    for (unsigned k = 0; k < WINDOW_TOTALS_N; k++) {
        any |= row->new_totals[k];
        if (parent != NULL) {
            parent->totals[k] += row->new_totals[k];
            parent->new_totals[k] += row->new_totals[k];
        }
        row->new_totals[k] = 0;
    }
    /* Nothing new, nothing to write: a parent may not even be loaded yet. */
    if (parent != NULL && any != 0) {
        parent->touched_us = row->touched_us;
        window_row_dirty(w, row->parent);
    }
}

/* Extra cells have done their work. */
static void
extras_free(struct windows *w, struct list *dirty)
{
    uint32_t kept = 0;

    for (uint32_t k = 0; k < dirty->n; k++) {
        uint32_t i = dirty->p[k];
        const struct cell *cell = cell_at(&w->cells, i);

        if (cell->extra)
            cell_free(&w->cells, w->rows[cell->row].salt, i);
        else
            dirty->p[kept++] = i;
    }
    dirty->n = kept;
}

/* Counting sort: items by the place of their row; from gets where each row's begin. */
struct sorting {
    struct list *from, *out;
    uint32_t rows;
};

static bool
sorting_begin(struct windows *w, struct sorting *s, uint32_t items)
{
    if (!list_size(w, s->from, s->rows + 2) || !list_size(w, s->out, items + 1))
        return false;
    for (uint32_t i = 0; i < s->rows + 2; i++)
        s->from->p[i] = 0;
    s->from->n = s->rows + 1;
    s->out->n = items;
    return true;
}

/* from[r + 2] has row r's count: afterwards from[r + 1] is where it begins, and filling
 * moves it to its end, which is where the next begins. */
static void
sorting_sum(struct sorting *s)
{
    for (uint32_t i = 1; i < s->rows + 2; i++)
        s->from->p[i] += s->from->p[i - 1];
}

static void
lay_out_cells(struct windows *w)
{
    struct sorting s = {&w->out_cells_from, &w->out_cells, w->out_rows.n};
    uint32_t items = 0;

    for (unsigned k = 0; k < WINDOWS_N; k++)
        items += w->dirty_cells[k].n;
    if (!sorting_begin(w, &s, items))
        return;
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned k = 0; k < WINDOWS_N; k++)
            for (uint32_t j = 0; j < w->dirty_cells[k].n; j++) {
                uint32_t i = w->dirty_cells[k].p[j];
                uint32_t at = w->rows[cell_at(&w->cells, i)->row].dirty_at;

                if (pass == 0)
                    s.from->p[at + 2]++;
                else
                    s.out->p[s.from->p[at + 1]++] = i;
            }
        if (pass == 0)
            sorting_sum(&s);
    }
}

static void
lay_out_users(struct windows *w)
{
    struct sorting s = {&w->out_users_from, &w->out_users, w->out_rows.n};

    if (!sorting_begin(w, &s, w->users_n))
        return;
    for (uint32_t i = 0; i < w->users_n; i++)
        s.from->p[w->rows[w->users[i].row].dirty_at + 2]++;
    sorting_sum(&s);
    for (uint32_t i = 0; i < w->users_n; i++)
        s.out->p[s.from->p[w->rows[w->users[i].row].dirty_at + 1]++] = i;
}

/* The cell, its text and its place in the parent, each a few steps before its turn. */
static void
derive_prefetch(const struct windows *w, const struct list *dirty, uint32_t j)
{
    if (j + 24 < dirty->n)
        __builtin_prefetch(cell_at(&w->cells, dirty->p[j + 24]), 1);
    if (j + 16 < dirty->n) {
        const struct cell *cell = cell_at(&w->cells, dirty->p[j + 16]);

        __builtin_prefetch(value_of(&w->cells, cell));
        __builtin_prefetch(&w->rows[cell->row].parent);
    }
    if (j + 8 < dirty->n) {
        const struct cell *cell = cell_at(&w->cells, dirty->p[j + 8]);
        uint32_t parent = w->rows[cell->row].parent;

        if (parent != 0)
            index_prefetch(&w->cells.index,
                           w->rows[parent].salt ^ value_of(&w->cells, cell)->hash);
    }
}

void
windows_derive(struct windows *w)
{
    w->out_rows.n = 0;
    for (unsigned k = 0; k < WINDOWS_N; k++) {
        for (uint32_t j = 0; j < w->dirty_cells[k].n; j++) {
            derive_prefetch(w, &w->dirty_cells[k], j);
            cell_derive(w, w->dirty_cells[k].p[j]);
        }
        extras_free(w, &w->dirty_cells[k]);
        for (uint32_t j = 0; j < w->dirty_rows[k].n; j++) {
            uint32_t i = w->dirty_rows[k].p[j];

            row_derive(w, i);
            w->rows[i].dirty_at = w->out_rows.n;
            list_add(w, &w->out_rows, i);
        }
    }
    if (w->failed)
        return;
    lay_out_cells(w);
    lay_out_users(w);
}

uint32_t
windows_dirty(const struct windows *windows)
{
    return windows->out_rows.n;
}

void
windows_dirty_get(const struct windows *w, uint32_t i, struct window_dirty *out)
{
    const struct row *row = &w->rows[w->out_rows.p[i]];
    const struct camp *camp = &w->camps[row->camp];

    assert(i < w->out_rows.n && !w->failed);
    *out = (struct window_dirty){
        .window = (enum window)row->window,
        .campaign = {camp->id, camp->n},
        .start_ms = row->start_ms,
        .expiry_s = row->expiry_s,
        .totals = row->totals,
        .cells = w->out_cells.p + w->out_cells_from.p[i],
        .cells_n = w->out_cells_from.p[i + 1] - w->out_cells_from.p[i],
        .users = w->out_users.p + w->out_users_from.p[i],
        .users_n = w->out_users_from.p[i + 1] - w->out_users_from.p[i],
        .whole = row->users_whole ? row->users : NULL,
    };
}

unsigned
windows_cell(const struct windows *w, uint32_t i, struct str *field,
             int64_t numbers[WINDOW_CELL_N])
{
    const struct cell *cell = cell_at(&w->cells, i);
    const struct value *value = value_of(&w->cells, cell);

    *field = (struct str){value->text, value->n};
    numbers[0] = cell->clicks;
    numbers[1] = cell->cost;
    numbers[2] = cell->flagged;
    numbers[3] = cell->invalid;
    return value->dimension == CELL_DIMENSION_REASON ? 1 : WINDOW_CELL_N;
}

struct str
windows_user(const struct windows *w, uint32_t user)
{
    const struct user_add *add = &w->users[user];

    return (struct str){(const char *)w->user_bytes.p + add->at, add->n};
}

uint32_t
windows_lives(const struct windows *windows)
{
    return windows->dirty_lives.n;
}

const struct live *
windows_live_get(const struct windows *w, uint32_t i, struct str *campaign)
{
    const struct camp *camp = &w->camps[w->dirty_lives.p[i]];

    *campaign = (struct str){camp->id, camp->n};
    return camp->live;
}

void
windows_clean(struct windows *w)
{
    for (unsigned k = 0; k < WINDOWS_N; k++) {
        for (uint32_t j = 0; j < w->dirty_cells[k].n; j++)
            cell_at(&w->cells, w->dirty_cells[k].p[j])->dirty = 0;
        for (uint32_t j = 0; j < w->dirty_rows[k].n; j++)
            w->rows[w->dirty_rows[k].p[j]].dirty = false;
        w->dirty_cells[k].n = w->dirty_rows[k].n = 0;
    }
    for (uint32_t i = 0; i < w->dirty_lives.n; i++) {
        struct camp *camp = &w->camps[w->dirty_lives.p[i]];

        camp->live->dirty = 0;
        camp->live_listed = false;
    }
    w->dirty_lives.n = 0;
    w->out_rows.n = 0;
    w->users_n = 0;
    buf_reset(&w->user_bytes);
}

/* Hours and days from what has been counted, and what has changed, laid out by row. */
#include <assert.h>

#include "aggregate/window.h"
#include "aggregate/window_impl.h"
#include "common/prefetch.h"

static const struct str other_text = {"__other__", 9};

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
        window_cell_add(w, to, w->rows[parent].window, &delta);
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
        prefetch_write(cell_at(&w->cells, dirty->p[j + 24]));
    if (j + 16 < dirty->n) {
        const struct cell *cell = cell_at(&w->cells, dirty->p[j + 16]);

        prefetch(value_of(&w->cells, cell));
        prefetch(&w->rows[cell->row].parent);
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

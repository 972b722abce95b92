/* aggregate/window_impl.h - shared by window.c (rows), count.c and derive.c (cells). */
#ifndef AGGREGATE_WINDOW_IMPL_H
#define AGGREGATE_WINDOW_IMPL_H

#include "aggregate/cells.h"
#include "aggregate/window.h"

enum { CAMPAIGN_ID_MAX = 64, RECENT = 4 };

struct camp {
    uint64_t hash;
    const struct zone *zone;
    struct live *live;
    uint32_t recent[RECENT]; /* 5-minute rows last used, by start */
    uint32_t rows;
    uint32_t n;
    bool live_listed;
    char id[CAMPAIGN_ID_MAX];
};

struct row {
    int64_t totals[WINDOW_TOTALS_N];
    int64_t new_totals[WINDOW_TOTALS_N]; /* not derived yet */
    int64_t start_ms, expiry_s, touched_us;
    uint64_t salt, key;
    struct users *users;
    uint32_t camp; /* 0: free */
    uint32_t parent, children;
    uint32_t cells;    /* the first of its cells */
    uint32_t dirty_at; /* place in `dirty` by windows_derive */
    uint32_t values_n[DIMENSIONS_N];
    uint8_t window;
    bool dirty;
    bool
        users_whole; /* `users` has what Redis had when loaded, and every id since */
};

/* A growing array of numbers. */
struct list {
    uint32_t *p;
    uint32_t n, cap;
};

struct user_add {
    uint32_t row, at, n; /* the id's bytes in user_bytes */
};

struct windows {
    struct windows_config cfg;
    struct cells cells;
    struct index camp_index, row_index;
    struct camp *camps; /* [0] unused */
    struct row *rows;   /* [0] unused */
    uint32_t camps_n, camps_cap, rows_n, rows_cap;
    struct list camps_free, rows_free;
    struct list loads; /* row, or camp with LOAD_LIVE */
    struct list dirty_cells[WINDOWS_N], dirty_rows[WINDOWS_N], dirty_lives;
    /* laid out by windows_derive */
    struct list out_rows, out_cells, out_cells_from, out_users, out_users_from;
    struct user_add *users;
    uint32_t users_n, users_cap;
    struct buf user_bytes;
    uint64_t salts;
    uint64_t device_hash[CLICK_DEVICES_N], reason_hash[REASONS_N];
    uint64_t other_hash[DIMENSIONS_N];
    struct windows_stats stats;
    size_t users_bytes;
    bool failed;
};

#define LOAD_LIVE UINT32_C(0x80000000)

void list_add(struct windows *windows, struct list *list, uint32_t item);
bool list_size(struct windows *windows, struct list *list, uint32_t n);
uint64_t window_value_hash(const struct windows *windows, unsigned dimension,
                           struct str text);
/* The cell of a value in a row, made if need be: an `extra` one if the row is full.
 * 0: no memory, then windows->failed. */
uint32_t window_cell_make(struct windows *windows, uint32_t row, uint64_t hash,
                          unsigned dimension, struct str text);

static inline void
window_row_dirty(struct windows *windows, uint32_t row)
{
    struct row *r = &windows->rows[row];

    if (!r->dirty) {
        r->dirty = true;
        list_add(windows, &windows->dirty_rows[r->window], row);
    }
}

static inline void
window_cell_dirty(struct windows *windows, struct cell *cell, uint32_t i,
                  unsigned window)
{
    if (!cell->dirty) {
        cell->dirty = 1;
        list_add(windows, &windows->dirty_cells[window], i);
    }
}

/* What is added to a cell. */
struct delta {
    int64_t cost;
    uint32_t clicks, flagged, invalid;
};

static inline void
window_cell_add(struct windows *windows, uint32_t i, unsigned window,
                const struct delta *delta)
{
    struct cell *cell = cell_at(&windows->cells, i);

    cell->clicks += delta->clicks;
    cell->cost += delta->cost;
    cell->flagged += delta->flagged;
    cell->invalid += delta->invalid;
    cell->new_clicks += delta->clicks;
    cell->new_cost += delta->cost;
    cell->new_flagged += delta->flagged;
    cell->new_invalid += delta->invalid;
    window_cell_dirty(windows, cell, i, window);
}

#endif

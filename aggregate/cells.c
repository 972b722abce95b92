#include "aggregate/cells.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 64, VALUES_MAX = (1 << 30) - 1 };

static_assert(sizeof(struct cell) == LINE, "a cell is one cache line");

static bool
chunk_add(struct cells *cells)
{
    struct cell *chunk;

    if (cells->chunks_n == CELL_CHUNKS_MAX)
        return false;
    /* The list of chunks grows by doubling, at powers of two. */
    if ((cells->chunks_n & (cells->chunks_n - 1)) == 0) {
        size_t cap = cells->chunks_n == 0 ? 1 : (size_t)cells->chunks_n * 2;
        struct cell **chunks = realloc(cells->chunks, cap * sizeof(*chunks));

        if (chunks == NULL)
            return false;
        cells->chunks = chunks;
    }
    chunk = aligned_alloc(LINE, CELL_CHUNK * sizeof(struct cell));
    if (chunk == NULL)
        return false;
    cells->chunks[cells->chunks_n++] = chunk;
    if (cells->cells_n == 0)
        cells->cells_n = 1; /* 0 is no cell */
    return true;
}

static uint32_t
cell_take(struct cells *cells)
{
    uint32_t i = cells->free;

    if (i != 0) {
        cells->free = cell_at(cells, i)->next;
        return i;
    }
    if (cells->cells_n >= cells->chunks_n * (uint32_t)CELL_CHUNK &&
        !chunk_add(cells))
        return 0;
    return cells->cells_n++;
}

uint32_t
cell_new(struct cells *cells, uint64_t salt, uint32_t value)
{
    uint32_t i = cell_take(cells);

    assert(value != 0);
    if (i == 0)
        return 0;
    *cell_at(cells, i) = (struct cell){.value = value & VALUES_MAX};
    if (!index_put(&cells->index, salt ^ cells->values[value]->hash, i)) {
        cell_at(cells, i)->next = cells->free;
        cells->free = i;
        return 0;
    }
    cells->values[value]->cells++;
    cells->live++;
    return i;
}

static void
value_drop(struct cells *cells, uint32_t i)
{
    struct value *value = cells->values[i];

    assert(value->cells > 0);
    if (--value->cells > 0)
        return;
    index_remove(&cells->value_index, value->hash);
    free(value);
    cells->values[i] = NULL;
    cells->values_free[cells->values_free_n++] = i;
}

void
cell_free(struct cells *cells, uint64_t salt, uint32_t i)
{
    struct cell *cell = cell_at(cells, i);

    assert(cell->row != 0);
    index_remove(&cells->index, salt ^ value_of(cells, cell)->hash);
    value_drop(cells, cell->value);
    *cell = (struct cell){.next = cells->free};
    cells->free = i;
    cells->live--;
}

static bool
values_grow(struct cells *cells)
{
    uint32_t cap = cells->values_cap == 0 ? 64 : cells->values_cap * 2;
    struct value **values;
    uint32_t *list;

    if (cap > VALUES_MAX)
        return false;
    values = realloc(cells->values, cap * sizeof(struct value *));
    if (values == NULL)
        return false;
    cells->values = values;
    list = realloc(cells->values_free, cap * sizeof(uint32_t));
    if (list == NULL)
        return false;
    cells->values_free = list;
    cells->values_cap = cap;
    if (cells->values_n == 0)
        cells->values_n = 1; /* 0 is no value */
    return true;
}

static uint32_t
value_take(struct cells *cells)
{
    if (cells->values_free_n > 0)
        return cells->values_free[--cells->values_free_n];
    if (cells->values_n >= cells->values_cap && !values_grow(cells))
        return 0;
    return cells->values_n++;
}

uint32_t
value_intern(struct cells *cells, uint64_t hash, unsigned dimension,
             struct str text)
{
    static const char letters[] = DIMENSION_LETTERS "r";
    uint32_t i = index_find(&cells->value_index, hash);
    struct value *value;

    assert(dimension < CELL_DIMENSIONS_N);
    if (i != 0)
        return i;
    i = value_take(cells);
    if (i == 0)
        return 0;
    value = malloc(sizeof(*value) + text.n + 2);
    if (value == NULL || !index_put(&cells->value_index, hash, i)) {
        free(value);
        cells->values_free[cells->values_free_n++] = i;
        return 0;
    }
    *value = (struct value){
        .hash = hash, .n = (uint16_t)(text.n + 2), .dimension = (uint8_t)dimension};
    value->text[0] = letters[dimension];
    value->text[1] = ':';
    memcpy(value->text + 2, text.p, text.n);
    cells->values[i] = value;
    return i;
}

void
cells_close(struct cells *cells)
{
    for (uint32_t i = 0; i < cells->chunks_n; i++)
        free(cells->chunks[i]);
    free(cells->chunks);
    /* Freed places were set to NULL; a place taken without memory was never set, and
     * stands in the free list. */
    for (uint32_t i = 0; i < cells->values_free_n; i++)
        cells->values[cells->values_free[i]] = NULL;
    for (uint32_t i = 1; i < cells->values_n; i++)
        free(cells->values[i]);
    free(cells->values);
    free(cells->values_free);
    index_free(&cells->index);
    index_free(&cells->value_index);
    *cells = (struct cells){0};
}

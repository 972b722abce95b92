/* aggregate/cells.h - cells and the texts of their fields: the storage behind window.c.
 *
 * Memory   A cell is one cache line, in chunks; freed cells are used again. A field's text
 *          is kept once, counted by its cells.
 * Errors   0 where a cell or value is asked for and there is no memory.
 * Threads  None.
 */
#ifndef AGGREGATE_CELLS_H
#define AGGREGATE_CELLS_H

#include <stdbool.h>
#include <stdint.h>

#include "aggregate/index.h"
#include "common/str.h"
#include "schema/rediskeys.h"

enum {
    CELL_CHUNK_BITS = 10,
    CELL_CHUNK = 1 << CELL_CHUNK_BITS,
    CELL_CHUNKS_MAX = 1 << 18, /* 268 million cells */
    CELL_DIMENSION_REASON = DIMENSIONS_N,
    CELL_DIMENSIONS_N,
};

struct cell {
    int64_t clicks, cost, flagged, invalid; /* absolute */
    int64_t new_cost;                       /* not derived yet */
    uint32_t new_clicks, new_flagged, new_invalid;
    uint32_t row;
    uint32_t next; /* of the row's cells; 0: the last */
    uint32_t value : 30;
    uint32_t dirty : 1;
    uint32_t
        extra : 1; /* past values_max: counts as __other__, derived as itself */
};

/* A field's name: "a:summer-sale", "r:duplicate". */
struct value {
    uint64_t hash;
    uint32_t cells;
    uint16_t n;
    uint8_t dimension;
    char text[];
};

struct cells {
    struct index index; /* row's salt ^ value's hash -> cell */
    struct cell **chunks;
    uint32_t chunks_n, cells_n, free;
    uint64_t live;
    struct index value_index;
    struct value **values;
    uint32_t values_n, values_cap, values_free_n;
    uint32_t *values_free;
};

static inline struct cell *
cell_at(const struct cells *cells, uint32_t i)
{
    return &cells->chunks[i >> CELL_CHUNK_BITS][i & (CELL_CHUNK - 1)];
}

static inline struct value *
value_of(const struct cells *cells, const struct cell *cell)
{
    return cells->values[cell->value];
}

/* A zeroed cell of (salt, hash), with one more use of value; 0: no memory. */
uint32_t cell_new(struct cells *cells, uint64_t salt, uint32_t value);
void cell_free(struct cells *cells, uint64_t salt, uint32_t cell);
/* Finds or makes a value; 0: no memory. */
uint32_t value_intern(struct cells *cells, uint64_t hash, unsigned dimension,
                      struct str text);
void cells_close(struct cells *cells);

#endif

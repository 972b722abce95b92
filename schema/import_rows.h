/* schema/import_rows.h - the campaign CSV as typed rows, before any of it meets the
 * database. For master_import.c and its parts only.
 *
 * Memory   A row's texts belong to `struct import`, freed by import_free.
 * Errors   What is wrong in the file is a list of places, not an enum err.
 * Threads  None.
 */
#ifndef SCHEMA_IMPORT_ROWS_H
#define SCHEMA_IMPORT_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/str.h"
#include "schema/csv.h"

/* X(name, required) in the order of the export. */
#define IMPORT_COLUMNS(X) \
    X(campaign_id, 1)     \
    X(name, 0)            \
    X(account, 1)         \
    X(advertiser_id, 1)   \
    X(advertiser_name, 0) \
    X(currency, 1)        \
    X(time_zone, 1)       \
    X(status, 0)          \
    X(status_from, 0)     \
    X(cpc, 1)             \
    X(cpc_from, 0)        \
    X(price_cap, 0)       \
    X(daily_budget, 0)    \
    X(budget_from, 0)

enum import_column {
#define X(name, required) IMPORT_##name,
    IMPORT_COLUMNS(X)
#undef X
        IMPORT_COLUMNS_N
};

enum { IMPORT_ERRORS_MAX = 10000, IMPORT_MESSAGE_SIZE = 224 };

struct zone;

struct import_place {
    uint32_t line, column;
};

/* A value and since when. */
struct import_step {
    bool given; /* there is a value (a budget: the column is there) */
    bool from_given;
    int64_t value; /* micros or a flag; MASTER_EVENT_PRICE, MASTER_NO_BUDGET */
    int64_t from;  /* ms; budgets: the day */
};

struct import_row {
    bool bad; /* it has an error already */
    struct str text[IMPORT_COLUMNS_N];
    struct import_place at[IMPORT_COLUMNS_N];
    const struct zone *zone;
    struct import_step rate, budget, status;
    int64_t cap_micros; /* -1: not given */
};

struct import_error {
    struct import_place at;
    char text[IMPORT_MESSAGE_SIZE];
};

struct import {
    struct csv *csv;
    struct import_row *rows;
    uint32_t rows_n, rows_cap;
    int columns[64]; /* of the file: enum import_column */
    uint32_t columns_n;
    struct import_error *errors;
    uint32_t errors_n, errors_cap, errors_more;
};

const char *import_column_name(enum import_column column);
/* Adds an error about a column of a row, and marks the row. */
void import_wrong(struct import *import, struct import_row *row,
                  enum import_column column, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* All rows, with all errors that the file alone shows. Fails for want of memory only. */
enum err import_parse(struct import *out, struct str csv, struct why *why);
/* The errors in order of place. */
void import_errors_format(struct import *import, struct buf *out);
void import_free(struct import *import);

#endif

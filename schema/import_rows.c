#include "schema/import_rows.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/money.h"
#include "schema/master.h"
#include "schema/master_import.h"
#include "schema/text.h"
#include "schema/zone.h"

enum { ID_BYTES_MAX = 64, NAME_BYTES_MAX = 256, FIELDS_MAX = 64 };

#define PRICE_MICROS_MAX INT64_C(1000000000000) /* as a click's cost_per_click */
#define DATE_DAY_MAX     INT32_C(106650) /* 2261-12-31, as far as RFC 3339 texts go */

static const struct {
    const char *name;
    bool required;
} columns_known[IMPORT_COLUMNS_N] = {
#define X(name, required) {#name, required},
    IMPORT_COLUMNS(X)
#undef X
};

const char *
import_column_name(enum import_column column)
{
    assert(column < IMPORT_COLUMNS_N);
    return columns_known[column].name;
}

static struct import_error *
error_new(struct import *import, struct import_place at)
{
    if (import->errors_n == IMPORT_ERRORS_MAX) {
        import->errors_more++;
        return NULL;
    }
    if (import->errors_n == import->errors_cap) {
        uint32_t cap = import->errors_cap == 0 ? 64 : import->errors_cap * 2;
        struct import_error *grown = realloc(import->errors, cap * sizeof(*grown));

        if (grown == NULL) {
            import->errors_more++;
            return NULL;
        }
        import->errors = grown;
        import->errors_cap = cap;
    }

    struct import_error *error = &import->errors[import->errors_n++];
    error->at = at;
    return error;
}

__attribute__((format(printf, 3, 4))) static void
error_add(struct import *import, struct import_place at, const char *fmt, ...)
{
    struct import_error *error = error_new(import, at);
    va_list args;

    if (error == NULL)
        return;
    va_start(args, fmt);
    (void)vsnprintf(error->text, sizeof(error->text), fmt, args);
    va_end(args);
}

void
import_wrong(struct import *import, struct import_row *row,
             enum import_column column, const char *fmt, ...)
{
    /* A column that the file does not have: the row's first field stands for it. */
    struct import_place at =
        row->at[column].line == 0 ? row->at[IMPORT_campaign_id] : row->at[column];
    struct import_error *error = error_new(import, at);
    va_list args;

    row->bad = true;
    if (error == NULL)
        return;
    int n = snprintf(error->text, sizeof(error->text),
                     "%s: ", import_column_name(column));
    va_start(args, fmt);
    (void)vsnprintf(error->text + n, sizeof(error->text) - (size_t)n, fmt, args);
    va_end(args);
}

static int
column_find(struct str name)
{
    for (int i = 0; i < IMPORT_COLUMNS_N; i++)
        if (str_equal(name, str_of(columns_known[i].name)))
            return i;
    return -1;
}

static void
header_parse(struct import *import, const struct csv_field *fields, uint32_t n)
{
    bool there[IMPORT_COLUMNS_N] = {false};

    for (uint32_t i = 0; i < n; i++) {
        struct import_place at = {fields[i].line, fields[i].column};
        int column = column_find(fields[i].text);

        import->columns[i] = column;
        if (column < 0)
            error_add(import, at,
                      "%.*s: no such column; see `campaign import --help`",
                      fields[i].text.n > 64 ? 64 : (int)fields[i].text.n,
                      fields[i].text.n == 0 ? "" : fields[i].text.p);
        else if (there[column])
            error_add(import, at, "%s: the column is there twice",
                      columns_known[column].name);
        else
            there[column] = true;
    }
    for (int i = 0; i < IMPORT_COLUMNS_N; i++)
        if (columns_known[i].required && !there[i])
            error_add(import, (struct import_place){1, 1},
                      "%s: the column is missing", columns_known[i].name);
    import->columns_n = n;
}

/* As a click's TOKEN: what can stand in keys, file names and URLs. */
static void
id_check(struct import *import, struct import_row *row, enum import_column column)
{
    struct str text = row->text[column];

    if (text.n == 0 || text.n > ID_BYTES_MAX) {
        import_wrong(import, row, column, "1 to %d characters, please",
                     ID_BYTES_MAX);
        return;
    }
    for (uint32_t i = 0; i < text.n; i++)
        if (text.p[i] <= ' ' || text.p[i] > '~' || text.p[i] == '"' ||
            text.p[i] == '\\') {
            import_wrong(
                import, row, column,
                "printable ASCII without blanks, quotes and backslashes, please");
            return;
        }
}

static void
name_check(struct import *import, struct import_row *row, enum import_column column,
           uint32_t bytes_min)
{
    struct str text = row->text[column];

    if (text.n < bytes_min || text.n > NAME_BYTES_MAX)
        import_wrong(import, row, column, "%u to %d bytes, please", bytes_min,
                     NAME_BYTES_MAX);
    for (uint32_t i = 0; i < text.n; i++)
        if ((unsigned char)text.p[i] < ' ' || text.p[i] == 0x7f) {
            import_wrong(import, row, column,
                         "no line ends or control characters, please");
            return;
        }
}

static int64_t
money_field(struct import *import, struct import_row *row,
            enum import_column column)
{
    struct why why;
    int64_t micros = 0;

    if (money_parse(row->text[column], &micros, &why) != ERR_OK)
        import_wrong(import, row, column, "%.150s", why.text);
    else if (micros > PRICE_MICROS_MAX && column != IMPORT_daily_budget)
        import_wrong(import, row, column, "at most 1000000 a click");
    return micros;
}

static void
instant_field(struct import *import, struct import_row *row,
              enum import_column column, struct import_step *step)
{
    if (row->text[column].n == 0)
        return;
    step->from_given = true;
    if (!rfc3339_parse(row->text[column], &step->from))
        import_wrong(import, row, column,
                     "a time like 2026-11-21T00:00:00+01:00, or nothing, please");
}

static void
rate_parse(struct import *import, struct import_row *row)
{
    row->rate.given = true;
    if (str_equal(row->text[IMPORT_cpc], STR("event")))
        row->rate.value = MASTER_EVENT_PRICE;
    else if (row->text[IMPORT_cpc].n == 0)
        import_wrong(import, row, IMPORT_cpc,
                     "a price like 0.25, or event, please");
    else
        row->rate.value = money_field(import, row, IMPORT_cpc);
    instant_field(import, row, IMPORT_cpc_from, &row->rate);
    row->cap_micros = row->text[IMPORT_price_cap].n == 0
                          ? -1
                          : money_field(import, row, IMPORT_price_cap);
}

static void
budget_parse(struct import *import, struct import_row *row)
{
    struct str from = row->text[IMPORT_budget_from];
    int32_t day = 0;

    row->budget.given = row->at[IMPORT_daily_budget].line != 0;
    row->budget.value = row->text[IMPORT_daily_budget].n == 0
                            ? MASTER_NO_BUDGET
                            : money_field(import, row, IMPORT_daily_budget);
    if (from.n == 0)
        return;
    row->budget.from_given = true;
    if (!date_parse(from, &day) || day < 0 || day > DATE_DAY_MAX)
        import_wrong(import, row, IMPORT_budget_from,
                     "a date like 2026-11-21, or nothing, please");
    else if (!row->budget.given)
        import_wrong(import, row, IMPORT_budget_from, "of which daily_budget?");
    row->budget.from = day;
}

static void
status_parse(struct import *import, struct import_row *row)
{
    struct str text = row->text[IMPORT_status];

    row->status.given = text.n > 0;
    row->status.value = str_equal(text, STR("active"));
    if (text.n > 0 && row->status.value == 0 && !str_equal(text, STR("paused")))
        import_wrong(import, row, IMPORT_status, "active or paused, please");
    instant_field(import, row, IMPORT_status_from, &row->status);
    if (row->status.from_given && !row->status.given)
        import_wrong(import, row, IMPORT_status_from, "of which status?");
}

static void
row_check(struct import *import, struct import_row *row)
{
    struct str zone = row->text[IMPORT_time_zone];

    id_check(import, row, IMPORT_campaign_id);
    name_check(import, row, IMPORT_name, 0);
    name_check(import, row, IMPORT_account, 1);
    id_check(import, row, IMPORT_advertiser_id);
    name_check(import, row, IMPORT_advertiser_name, 0);
    if (row->text[IMPORT_currency].n != 3 ||
        money_currency_places(row->text[IMPORT_currency]) < 0)
        import_wrong(import, row, IMPORT_currency,
                     "an ISO 4217 code like EUR, please");
    row->zone = zone_find(zone);
    if (row->zone == NULL)
        import_wrong(import, row, IMPORT_time_zone,
                     "a tzdata name like Europe/Berlin or UTC, please");
    rate_parse(import, row);
    budget_parse(import, row);
    status_parse(import, row);
}

static struct import_row *
row_new(struct import *import)
{
    if (import->rows_n == import->rows_cap) {
        uint32_t cap = import->rows_cap == 0 ? 256 : import->rows_cap * 2;
        struct import_row *grown = realloc(import->rows, cap * sizeof(*grown));

        if (grown == NULL)
            return NULL;
        import->rows = grown;
        import->rows_cap = cap;
    }

    struct import_row *row = &import->rows[import->rows_n++];
    memset(row, 0, sizeof(*row));
    return row;
}

static enum err
row_add(struct import *import, const struct csv_field *fields, uint32_t n,
        struct why *why)
{
    struct import_place at = {fields[0].line, fields[0].column};
    struct import_row *row;

    if (n != import->columns_n) {
        error_add(import, at, "record: %u fields, the header has %u", n,
                  import->columns_n);
        return ERR_OK;
    }
    row = import->rows_n < IMPORT_ROWS_MAX ? row_new(import) : NULL;
    if (row == NULL)
        return err_set(why, import->rows_n < IMPORT_ROWS_MAX ? ERR_NOMEM : ERR_FULL,
                       "import: no room for more than %u lines", import->rows_n);
    for (uint32_t i = 0; i < n; i++) {
        int column = import->columns[i];

        if (column < 0 || row->at[column].line != 0)
            continue;
        row->text[column] = fields[i].text;
        row->at[column] = (struct import_place){fields[i].line, fields[i].column};
    }
    if (row->at[IMPORT_campaign_id].line == 0)
        row->at[IMPORT_campaign_id] = at;
    row_check(import, row);
    return ERR_OK;
}

enum err
import_parse(struct import *out, struct str csv, struct why *why)
{
    struct csv_field fields[FIELDS_MAX], at;
    struct why syntax = {""};
    uint32_t n;
    enum err err;

    memset(out, 0, sizeof(*out));
    err = csv_open(&out->csv, csv, why);
    if (err != ERR_OK)
        return err;
    err = csv_next(out->csv, fields, FIELDS_MAX, &n, &at, &syntax);
    if (err == ERR_OK)
        header_parse(out, fields, n);
    else if (err == ERR_AGAIN)
        error_add(out, (struct import_place){1, 1}, "file: it is empty");
    /* Without its columns right, each line would only repeat what the header has wrong. */
    if (out->errors_n > 0)
        return ERR_OK;
    while (err == ERR_OK && (err = csv_next(out->csv, fields, FIELDS_MAX, &n, &at,
                                            &syntax)) == ERR_OK) {
        err = row_add(out, fields, n, why);
        if (err != ERR_OK)
            return err;
    }
    if (err == ERR_INVALID || err == ERR_FULL) {
        const char *colon = strchr(syntax.text, ' ');

        error_add(out, (struct import_place){at.line, at.column}, "CSV:%s",
                  colon == NULL ? "" : colon);
    }
    return ERR_OK;
}

static int
errors_order(const void *a_p, const void *b_p)
{
    const struct import_error *a = a_p, *b = b_p;

    if (a->at.line != b->at.line)
        return a->at.line < b->at.line ? -1 : 1;
    if (a->at.column != b->at.column)
        return a->at.column < b->at.column ? -1 : 1;
    return strcmp(a->text, b->text);
}

void
import_errors_format(struct import *import, struct buf *out)
{
    if (import->errors_n > 0)
        qsort(import->errors, import->errors_n, sizeof(*import->errors),
              errors_order);
    for (uint32_t i = 0; i < import->errors_n; i++)
        buf_printf(out, "%u:%u: %s\n", import->errors[i].at.line,
                   import->errors[i].at.column, import->errors[i].text);
    if (import->errors_more > 0)
        buf_printf(out, "and %u more errors\n", import->errors_more);
}

void
import_free(struct import *import)
{
    csv_close(&import->csv);
    free(import->rows);
    free(import->errors);
    memset(import, 0, sizeof(*import));
}

#include "billing/invoice_csv.h"

#include <stdio.h>
#include <string.h>

#include "common/money.h"
#include "common/pg.h"

enum { COLUMNS = 14, SQL_BYTES_MAX = 2048 };

void
invoice_csv_header(struct buf *out)
{
    buf_add_text(
        out, "invoice_number,status,month,advertiser_id,advertiser_name,currency,"
             "line,campaign_id,description,first_day,last_day,unit_price,clicks,"
             "amount\r\n");
}

/* RFC 4180: quoted when it holds a comma, a quote or a line end. A leading = + - @ would be
 * a formula to a spreadsheet: such texts get a leading apostrophe. */
static void
field_add(struct buf *out, const char *text)
{
    if (text == NULL)
        return;
    bool formula = text[0] != '\0' && strchr("=+-@\t\r", text[0]) != NULL;
    if (!formula && strpbrk(text, ",\"\r\n") == NULL) {
        buf_add_text(out, text);
        return;
    }
    buf_add_text(out, formula ? "\"'" : "\"");
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '"')
            buf_add(out, "\"", 1);
        buf_add(out, p, 1);
    }
    buf_add_text(out, "\"");
}

static void
row_add(const struct pg_result *rows, int row, struct buf *out)
{
    char price[MONEY_TEXT_SIZE];

    for (int column = 0; column < COLUMNS; column++) {
        const char *value = pg_value(rows, row, column);
        if (column > 0)
            buf_add(out, ",", 1);
        if (column == 11)
            value =
                money_format(pg_i64(rows, row, column), MONEY_PLACES_MAX, price);
        if (column >= 11) /* our own numbers: a credit's minus is no formula */
            buf_add_text(out, value);
        else
            field_add(out, value);
    }
    buf_add_text(out, "\r\n");
}

enum err
invoice_csv(struct pg *pg, const char *condition, const char *const params[2],
            struct buf *out, struct why *why)
{
    char sql[SQL_BYTES_MAX];
    struct pg_result *rows = NULL;

    (void)snprintf(sql, sizeof(sql),
                   "SELECT coalesce(i.number, $2::text), CASE WHEN i.number IS "
                   "NULL AND $2::text IS NULL "
                   "THEN 'draft' ELSE 'final' END, to_char(i.month, 'YYYY-MM'), "
                   "i.advertiser_id, a.name, "
                   "i.currency, l.line, l.campaign_id, l.description, l.first_day, "
                   "l.last_day, "
                   "l.unit_price_micros, l.clicks, "
                   "round(l.amount_minor / 10::numeric ^ i.places, i.places)::text "
                   "FROM invoice i JOIN advertiser a ON a.id = i.advertiser_id "
                   "JOIN invoice_line l ON l.invoice_id = i.id WHERE %s "
                   "ORDER BY i.number NULLS LAST, i.advertiser_id, i.id, l.line",
                   condition);
    enum err err = pg_exec(pg, sql, params, 2, &rows, why);
    for (int i = 0; err == ERR_OK && i < pg_rows(rows); i++)
        row_add(rows, i, out);
    pg_result_free(&rows);
    return err;
}

#include "schema/csv.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/utf8.h"

struct csv {
    const char *p, *end;
    char *unquoted; /* as large as the text: unquoting only shortens */
    char *to;       /* where the next field goes */
    uint32_t line, column;
};

enum err
csv_open(struct csv **out, struct str text, struct why *why)
{
    struct csv *csv = calloc(1, sizeof(*csv));

    *out = NULL;
    if (csv == NULL || (csv->unquoted = malloc((size_t)text.n + 1)) == NULL) {
        free(csv);
        return err_set(why, ERR_NOMEM, "CSV: no memory for %u bytes", text.n);
    }
    if (text.n >= 3 && memcmp(text.p, "\xEF\xBB\xBF", 3) == 0)
        text = (struct str){text.p + 3, text.n - 3};
    csv->p = text.p;
    csv->end = text.n == 0 ? text.p : text.p + text.n;
    csv->to = csv->unquoted;
    csv->line = csv->column = 1;
    *out = csv;
    return ERR_OK;
}

void
csv_close(struct csv **csv)
{
    if (*csv == NULL)
        return;
    free((*csv)->unquoted);
    free(*csv);
    *csv = NULL;
}

static bool
at_line_end(const struct csv *csv)
{
    return csv->p < csv->end &&
           (*csv->p == '\n' ||
            (*csv->p == '\r' && csv->end - csv->p > 1 && csv->p[1] == '\n'));
}

/* Appends one character of the field to *to and goes on. NULL, or what is wrong. */
static const char *
take_char(struct csv *csv, char **to)
{
    size_t n = utf8_length((const uint8_t *)csv->p, (size_t)(csv->end - csv->p));

    if (n == 0)
        return "bytes that are not UTF-8: save the file as UTF-8";
    if (*csv->p == '\0')
        return "a zero byte";
    memcpy(*to, csv->p, n);
    *to += n;
    csv->column++;
    if (*csv->p == '\n') {
        csv->line++;
        csv->column = 1;
    }
    csv->p += n;
    return NULL;
}

static const char *
take_quoted(struct csv *csv, char **to)
{
    csv->p++;
    csv->column++;
    for (;;) {
        const char *wrong;

        if (csv->p == csv->end)
            return "the quote that begins the field is never closed";
        if (*csv->p != '"') {
            if ((wrong = take_char(csv, to)) != NULL)
                return wrong;
            continue;
        }
        csv->p++;
        csv->column++;
        if (csv->p == csv->end || *csv->p != '"')
            break;
        *(*to)++ = '"';
        csv->p++;
        csv->column++;
    }
    if (csv->p == csv->end || *csv->p == ',' || at_line_end(csv))
        return NULL;
    return "text follows the closing quote: double a quote inside a field";
}

static const char *
take_bare(struct csv *csv, char **to)
{
    while (csv->p < csv->end && *csv->p != ',' && !at_line_end(csv)) {
        const char *wrong = NULL;

        if (*csv->p == '"')
            wrong = "a quote inside a field without quotes: quote the field and "
                    "double it";
        else if (*csv->p == '\r')
            wrong = "a carriage return without a line feed";
        if (wrong == NULL)
            wrong = take_char(csv, to);
        if (wrong != NULL)
            return wrong;
    }
    return NULL;
}

static void
take_line_end(struct csv *csv)
{
    if (csv->p == csv->end)
        return;
    csv->p += *csv->p == '\r' ? 2 : 1;
    csv->line++;
    csv->column = 1;
}

static enum err
take_field(struct csv *csv, struct csv_field *field, struct csv_field *at,
           struct why *why)
{
    char *to = csv->to;
    const char *wrong;

    field->line = csv->line;
    field->column = csv->column;
    wrong = csv->p < csv->end && *csv->p == '"' ? take_quoted(csv, &to)
                                                : take_bare(csv, &to);
    field->text = (struct str){csv->to, (uint32_t)(to - csv->to)};
    csv->to = to;
    if (wrong == NULL)
        return ERR_OK;
    *at = (struct csv_field){{NULL, 0}, csv->line, csv->column};
    csv->p = csv->end;
    return err_set(why, ERR_INVALID, "%u:%u: %s", at->line, at->column, wrong);
}

enum err
csv_next(struct csv *csv, struct csv_field *fields, uint32_t fields_max,
         uint32_t *n, struct csv_field *at, struct why *why)
{
    *n = 0;
    while (at_line_end(csv))
        take_line_end(csv);
    if (csv->p == csv->end)
        return ERR_AGAIN;
    for (;;) {
        enum err err;

        if (*n == fields_max) {
            *at = (struct csv_field){{NULL, 0}, csv->line, csv->column};
            csv->p = csv->end;
            return err_set(why, ERR_FULL, "%u:%u: more than %u fields", at->line,
                           at->column, fields_max);
        }
        err = take_field(csv, &fields[*n], at, why);
        if (err != ERR_OK)
            return err;
        ++*n;
        if (csv->p == csv->end || *csv->p != ',') {
            take_line_end(csv);
            return ERR_OK;
        }
        csv->p++;
        csv->column++;
    }
}

void
csv_add(struct buf *out, struct str text)
{
    bool quote = false;

    for (uint32_t i = 0; i < text.n; i++)
        quote |= memchr(",\"\r\n", text.p[i], 4) != NULL;
    if (!quote) {
        buf_add_str(out, text);
        return;
    }
    buf_add(out, "\"", 1);
    for (uint32_t i = 0; i < text.n; i++) {
        if (text.p[i] == '"')
            buf_add(out, "\"", 1);
        buf_add(out, text.p + i, 1);
    }
    buf_add(out, "\"", 1);
}

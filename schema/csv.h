/* schema/csv.h - CSV as in RFC 4180, read and written.
 *
 * Records end in CRLF or LF; fields may be quoted, a quote inside is doubled. A byte order
 * mark at the start is passed over, lines without anything are too. Refused: a quote in
 * a bare field, text after a closing quote, a quote never closed, a CR alone in a bare field,
 * NUL, and bytes that are not UTF-8.
 *
 * Units    Lines from 1 (line ends inside quotes count); columns: characters from 1.
 * Memory   A field borrows from the reader; all of them stay until csv_close.
 * Errors   ERR_INVALID with line and column; ERR_FULL past fields_max.
 * Threads  None.
 * Source   RFC 4180.
 */
#ifndef SCHEMA_CSV_H
#define SCHEMA_CSV_H

#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/str.h"

struct csv;

struct csv_field {
    struct str text; /* unquoted */
    uint32_t line, column;
};

/* Borrows text. */
enum err csv_open(struct csv **out, struct str text, struct why *why);
void csv_close(struct csv **csv);
/* The next record. ERR_AGAIN at the end. On ERR_INVALID where it is stands in *at, and
 * nothing more can be read. */
enum err csv_next(struct csv *csv, struct csv_field *fields, uint32_t fields_max,
                  uint32_t *n, struct csv_field *at, struct why *why);

/* A field, quoted when it must be. The caller writes "," and CRLF. */
void csv_add(struct buf *out, struct str text);

#endif

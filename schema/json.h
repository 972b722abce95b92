/* schema/json.h - strict JSON without a tree: scan once, then walk the marks.
 *
 * schema/jsonscan.h leaves one mark (a byte offset) for each of { } [ ] : , and for the
 * first byte of each string, number or word. All grammar is checked while walking, by
 * this file, so nothing that is passed over goes unchecked.
 *
 *   {"a": [1, "x"]}      marks 0 1 4 6 7 8 10 13 14, then 15 (the length)
 *
 * What stands between a mark and the next is one token and blanks, so that a string's
 * end is found from the next mark backwards, without reading the string.
 *
 * Memory   Nothing is allocated; texts are borrowed and never written to.
 * Errors   A cursor that refused holds its reason in words.
 * Threads  Cursors are values.
 * Source   RFC 8259.
 */
#ifndef SCHEMA_JSON_H
#define SCHEMA_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/str.h"
#include "schema/jsonscan.h"

enum {
    JSON_DEPTH_MAX = 64,          /* objects and arrays in one another */
    JSON_NUMBER_DIGITS_MAX = 308, /* before the point, exponent counted in */
    JSON_NUMBER_BYTES_MAX = 1024,
};

/* Where a walk stands: at == end is the text's end. */
struct json_cursor {
    const char *text;
    const uint32_t *at;
    const uint32_t *end;
    const char *escape; /* the next backslash, or text_end */
    const char *text_end;
    const char *reason; /* why the walk was refused */
};

/* The byte at the cursor's mark; 0 at the end. */
static inline char
json_peek(const struct json_cursor *c)
{
    return c->at < c->end ? c->text[*c->at] : '\0';
}

/* The bytes from mark at[0] to the next, blanks at the end cut. at is not the end. */
static inline struct str
json_token_at(const char *text, const uint32_t *at)
{
    const char *from = text + at[0], *to = text + at[1];

    while (to[-1] == ' ' || to[-1] == '\n' || to[-1] == '\r' || to[-1] == '\t')
        to--;
    return (struct str){from, (uint32_t)(to - from)};
}

/* The token at the cursor, which moves on. Not at the end. */
static inline struct str
json_token(struct json_cursor *c)
{
    struct str token = json_token_at(c->text, c->at);

    c->at++;
    return token;
}

/* A string's inside, escapes as they stand; the cursor is at its quote, and moves on.
 * *escaped tells whether json_unescape is needed. False: broken. */
static inline bool
json_string(struct json_cursor *c, struct str *inside, bool *escaped)
{
    struct str token = json_token(c);

    if (token.n < 2 || token.p[token.n - 1] != '"') {
        c->reason = "a string is not closed";
        return false;
    }
    *inside = (struct str){token.p + 1, token.n - 2};
    *escaped = c->escape < token.p + token.n;
    return true;
}

/* Moves c->escape behind s, which json_string called escaped. */
void json_escape_next(struct json_cursor *c, struct str s);
/* Writes the meaning of inside (at most inside.n bytes). False: a broken escape or a lone
 * surrogate, *reason tells. */
bool json_unescape(struct str inside, char *out, uint32_t *n, const char **reason);

/* Begins a walk at marks[0]; bytes from there to text_end may hold escapes. */
struct json_cursor json_cursor_at(const char *text, const char *text_end,
                                  const uint32_t *marks, const uint32_t *end);
/* Checks one whole value, whatever it is, and moves behind it. depth: how many objects
 * and arrays are open around it. */
bool json_check(struct json_cursor *c, int depth);
/* true, false, null or a number within range. */
bool json_check_scalar(struct str token, const char **reason);
bool json_is_number(struct str token);

/* After a fault of json_scan: the key of the field in which it is (the last key before
 * it in an object that stands `depth` deep: 1 for an object, 2 in an array), {NULL, 0} if
 * none; *place gets its byte offset. */
struct str json_blame(struct str text, enum json_fault fault, int depth,
                      size_t *place);

#endif

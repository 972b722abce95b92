/* A request's body into the texts of its clicks: one object, an array, or NDJSON. */
#include "schema/clickparse.h"

#include <assert.h>
#include <stdlib.h>

struct visitor {
    bool (*visit)(void *ctx, unsigned index, struct str json);
    void *ctx;
    unsigned clicks_max;
};

static bool
is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static struct str
trim(struct str s)
{
    while (s.n > 0 && is_blank(s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && is_blank(s.p[s.n - 1]))
        s.n--;
    return s;
}

static bool
refuse_count(struct click_error *error, unsigned clicks_max)
{
    return click_refuse(error, "too_large", "",
                        "more than %u clicks in one request: send smaller batches",
                        clicks_max);
}

/* ---- whole texts ---- */

/* Grown to the largest body seen, which the caller has bounded. */
static bool
body_room(struct click_parser *parser, size_t bytes)
{
    size_t size = parser->body_bytes < 65536 ? 65536 : parser->body_bytes;

    if (parser->body != NULL && bytes <= parser->body_bytes)
        return true;
    while (size < bytes)
        size *= 2;
    if (parser->body != NULL)
        json_scanner_close(&parser->body);
    parser->body = json_scanner_open(size);
    parser->body_bytes = parser->body == NULL ? 0 : size;
    return parser->body != NULL;
}

static enum json_fault
body_scan(struct click_parser *parser, struct str body, struct json_cursor *c)
{
    const uint32_t *marks;
    enum json_fault fault;
    uint32_t n;

    if (!body_room(parser, body.n))
        return JSON_NO_MEMORY;
    fault = json_scan(parser->body, body.p, body.n, &marks, &n);
    if (fault != JSON_GOOD)
        return fault;
    *c = json_cursor_at(body.p, body.p + body.n, marks, marks + n);
    parser->body_text = body.p;
    parser->body_escapes = c->escape < c->text_end;
    return JSON_GOOD;
}

static bool
is_one_value(struct click_parser *parser, struct str text)
{
    struct json_cursor c;

    return body_scan(parser, text, &c) == JSON_GOOD && json_check(&c, 0) &&
           c.at == c.end;
}

/* ---- arrays ---- */

static bool
elements_room(struct click_parser *parser, unsigned clicks_max)
{
    struct click_element *elements;

    if (clicks_max <= parser->elements_max)
        return true;
    elements = realloc(parser->elements, clicks_max * sizeof(*elements));
    if (elements == NULL)
        return false;
    parser->elements = elements;
    parser->elements_max = clicks_max;
    return true;
}

/* The cursor is behind '['. Fills parser->elements and *n, and moves behind ']'. */
static bool
elements_find(struct click_parser *parser, struct json_cursor *c,
              unsigned clicks_max, unsigned *n, struct click_error *error)
{
    for (;;) {
        const uint32_t *first = c->at;
        const char *p;

        if (!json_check(c, 1))
            return click_refuse(error, "json", "", "array element %u: %s", *n,
                                c->reason);
        if (*n == clicks_max)
            return refuse_count(error, clicks_max);
        p = c->text + *first;
        parser->elements[(*n)++] = (struct click_element){
            p, trim((struct str){p, c->at[0] - *first}).n, first, c->at};
        if (json_peek(c) == ']')
            break;
        if (json_peek(c) != ',')
            return click_refuse(error, "json", "",
                                "array: a comma or ] is missing after element %u",
                                *n - 1);
        c->at++;
    }
    c->at++;
    return true;
}

static bool
array_split(struct click_parser *parser, struct str body,
            const struct visitor *visitor, struct click_error *error)
{
    struct json_cursor c;
    enum json_fault fault;
    unsigned n = 0;

    if (!elements_room(parser, visitor->clicks_max))
        return click_refuse_fault(error, body, JSON_NO_MEMORY, 2);
    fault = body_scan(parser, body, &c);
    if (fault != JSON_GOOD)
        return click_refuse_fault(error, body, fault, 2);
    c.at++;
    if (json_peek(&c) == ']')
        return click_refuse(error, "missing", "",
                            "an empty array: send at least one click");
    if (!elements_find(parser, &c, visitor->clicks_max, &n, error))
        return false;
    if (c.at != c.end)
        return click_refuse(error, "json", "",
                            "something follows the array: remove it");
    for (unsigned i = 0; i < n; i++) {
        struct str json = {parser->elements[i].p, parser->elements[i].n};

        parser->ready = &parser->elements[i];
        if (!visitor->visit(visitor->ctx, i, json))
            break;
    }
    parser->ready = NULL;
    return true;
}

/* ---- lines ---- */

/* Takes the next line that is not blank off *rest; false at the end. */
static bool
line_next(struct str *rest, struct str *line)
{
    while (rest->n > 0) {
        const char *end = memchr(rest->p, '\n', rest->n);
        uint32_t n = end == NULL ? rest->n : (uint32_t)(end - rest->p);

        *line = trim((struct str){rest->p, n});
        n += end == NULL ? 0 : 1;
        rest->p += n;
        rest->n -= n;
        if (line->n > 0)
            return true;
    }
    return false;
}

/* Is a body of several lines one click over many lines, or one a line? A first line that
 * is a whole object decides, as do "}" at a line's end and "{" at the next one's begin,
 * which never stand in one object. A broken body goes by lines when its second line
 * begins an object, so that one bad line costs only itself. */
static bool
is_lines(struct click_parser *parser, struct str body)
{
    struct str rest = body, first, second;

    if (!line_next(&rest, &first) || !line_next(&rest, &second))
        return false;
    if (first.p[first.n - 1] == '}' &&
        (second.p[0] == '{' || is_one_value(parser, first)))
        return true;
    return !is_one_value(parser, body) && second.p[0] == '{';
}

static bool
lines_split(struct str body, const struct visitor *visitor,
            struct click_error *error)
{
    struct str rest = body, line;
    unsigned n = 0;

    while (line_next(&rest, &line))
        if (++n > visitor->clicks_max)
            return refuse_count(error, visitor->clicks_max);
    rest = body;
    for (unsigned i = 0; line_next(&rest, &line); i++)
        if (!visitor->visit(visitor->ctx, i, line))
            break;
    return true;
}

bool
click_split(struct click_parser *parser, struct str body, unsigned clicks_max,
            bool (*visit)(void *ctx, unsigned index, struct str json), void *ctx,
            struct click_error *error)
{
    struct visitor visitor = {visit, ctx, clicks_max};
    struct str text = trim(body);

    assert(clicks_max > 0);
    parser->ready = NULL;
    if (text.n == 0)
        return click_refuse(error, "missing", "",
                            "an empty body: send a JSON object");
    if (text.p[0] == '[')
        return array_split(parser, text, &visitor, error);
    if (memchr(text.p, '\n', text.n) != NULL && is_lines(parser, text))
        return lines_split(text, &visitor, error);
    if (text.p[0] != '{')
        return click_refuse(
            error, "json", "",
            "neither an object nor an array: send one click, an array "
            "of clicks, or one a line");
    (void)visit(ctx, 0, text);
    return true;
}

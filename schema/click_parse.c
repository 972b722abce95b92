/* click_parse: the fields of one object, once through, each key by one probe of a table
 * without collisions. */
#include "schema/clickparse.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "schema/text.h"

/* ---- keys ---- */

/* n is 1..CLICK_KEY_BYTES_MAX. */
static inline struct click_key
key_of(const char *p, uint32_t n)
{
    struct click_key key = {.n = n};

    if (n >= 8) {
        memcpy(&key.a, p, 8);
        memcpy(&key.b, p + n - 8, 8);
    } else if (n >= 4) {
        uint32_t a, b;

        memcpy(&a, p, 4);
        memcpy(&b, p + n - 4, 4);
        key.a = a;
        key.b = b;
    } else {
        key.a = (uint8_t)p[0];
        key.b = (uint64_t)(uint8_t)p[n / 2] << 8 | (uint8_t)p[n - 1];
    }
    return key;
}

static inline size_t
key_slot(const struct click_key *key, uint64_t seed)
{
    return ((key->a ^ (key->b << 1) ^ key->n) * seed) >> (64 - 6);
}

static_assert(CLICK_KEY_SLOTS == 1 << 6, "key_slot keeps six bits");

static bool
keys_place(struct click_parser *parser)
{
    memset(parser->keys, 0, sizeof(parser->keys));
    for (uint32_t field = 0; field < CLICK_FIELDS_N; field++) {
        struct str name = str_of(click_rules[field].name);
        struct click_key key = key_of(name.p, name.n);
        size_t slot = key_slot(&key, parser->key_seed);

        assert(name.n >= 1 && name.n <= CLICK_KEY_BYTES_MAX);
        key.field = field;
        if (parser->keys[slot].n != 0)
            return false;
        parser->keys[slot] = key;
    }
    return true;
}

/* Tries seeds in a fixed order until no two names share a slot. */
static void
keys_build(struct click_parser *parser)
{
    parser->key_seed = UINT64_C(0x9E3779B97F4A7C15);
    while (!keys_place(parser))
        parser->key_seed = parser->key_seed * UINT64_C(6364136223846793005) + 2;
}

static inline bool
key_equal(const struct click_key *x, const struct click_key *y)
{
    return ((x->a ^ y->a) | (x->b ^ y->b) | (x->n ^ y->n)) == 0;
}

/* CLICK_FIELDS_N if unknown. */
static uint32_t
key_find(const struct click_parser *parser, struct str name)
{
    const struct click_key *found;
    struct click_key key;

    if (name.n == 0 || name.n > CLICK_KEY_BYTES_MAX)
        return CLICK_FIELDS_N;
    key = key_of(name.p, name.n);
    found = &parser->keys[key_slot(&key, parser->key_seed)];
    return key_equal(found, &key) ? found->field : CLICK_FIELDS_N;
}

/* A sender's clicks have their fields in one order: the field that was at this place in
 * the last click is right nearly always, and known before the key has been read, so that
 * the processor need not wait for it. */
static inline uint32_t
key_guess(struct click_parser *parser, struct str name, unsigned place)
{
    const struct click_key *guess = &parser->order[place];
    struct click_key key;
    uint32_t field;

    if (__builtin_expect(name.n >= 1 && name.n <= CLICK_KEY_BYTES_MAX, 1)) {
        key = key_of(name.p, name.n);
        if (__builtin_expect(key_equal(guess, &key), 1))
            return guess->field;
        key.field = field = key_find(parser, name);
        if (field < CLICK_FIELDS_N)
            parser->order[place] = key;
        return field;
    }
    return CLICK_FIELDS_N;
}

/* ---- opening ---- */

enum err
click_parser_open(struct click_parser **out, size_t click_bytes_max,
                  struct why *why)
{
    struct click_parser *parser = calloc(1, sizeof(*parser));

    assert(click_bytes_max > 0);
    assert(click_bytes_max < UINT32_MAX);
    *out = NULL;
    if (parser == NULL)
        goto nomem;
    parser->click_bytes_max = click_bytes_max;
    parser->one = json_scanner_open(click_bytes_max);
    parser->arena = malloc(click_bytes_max);
    if (parser->one == NULL || parser->arena == NULL)
        goto nomem;
    keys_build(parser);
    *out = parser;
    return ERR_OK;

nomem:
    click_parser_close(&parser);
    return err_set(why, ERR_NOMEM,
                   "click: no memory for a parser of %zu bytes a click",
                   click_bytes_max);
}

void
click_parser_close(struct click_parser **parser)
{
    struct click_parser *p = *parser;

    if (p == NULL)
        return;
    if (p->one != NULL)
        json_scanner_close(&p->one);
    if (p->body != NULL)
        json_scanner_close(&p->body);
    free(p->arena);
    free(p->elements);
    free(p);
    *parser = NULL;
}

/* ---- one click ---- */

/* A field that the table does not have: checked whole, counted, forgotten. */
static bool
unknown_pass(struct parse *parse, struct str name)
{
    struct click_parser *parser = parse->parser;
    int shown = name.n > 64 ? 64 : (int)name.n;

    for (unsigned i = 0; i < parse->unknown; i++)
        if (str_equal(parser->unknown[i], name))
            return click_refuse(parse->error, "duplicate_key", "",
                                "%.*s: twice in one object: send it once", shown,
                                name.p);
    if (parse->unknown == CLICK_UNKNOWN_MAX)
        return click_refuse(parse->error, "too_large", "",
                            "more than %d unknown fields: leave them out",
                            CLICK_UNKNOWN_MAX);
    parser->unknown[parse->unknown++] = name;
    if (!json_check(&parse->cursor, 1))
        return click_refuse(parse->error, "json", "", "%.*s: %s", shown, name.p,
                            parse->cursor.reason);
    return true;
}

/* A key with escapes, undone in the arena; p is NULL if refused. */
static struct str
key_unescape(struct parse *parse, struct str inside)
{
    struct click_parser *parser = parse->parser;
    struct json_cursor *c = &parse->cursor;
    char *to = parser->arena + parser->arena_n;
    uint32_t n;

    if (!json_unescape(inside, to, &n, &c->reason)) {
        (void)click_refuse(parse->error, "json", "", "a key: %s", c->reason);
        return (struct str){NULL, 0};
    }
    parser->arena_n += n;
    json_escape_next(c, inside);
    return (struct str){to, n};
}

/* Says what is wrong with the field at the cursor, whose marks are not "key" : value. */
static bool
field_refuse(struct parse *parse)
{
    struct json_cursor *c = &parse->cursor;
    struct str name;
    uint32_t field;
    bool escaped;

    if (json_peek(c) != '"')
        return click_refuse(parse->error, "json", "", "a key in quotes is missing");
    if (!json_string(c, &name, &escaped))
        return click_refuse(parse->error, "json", "", "%s", c->reason);
    field = key_find(parse->parser, name);
    return click_refuse(parse->error, "json",
                        field < CLICK_FIELDS_N ? click_rules[field].name : "",
                        json_peek(c) != ':' ? "a colon is missing after the key"
                                            : "it ends too early");
}

/* The field whose key is at mark `at`: the mark behind its value, or NULL. Known fields
 * have values of one mark, so that the walk's place stays in a register. */
static inline const uint32_t *
field_parse(struct parse *parse, const uint32_t *at)
{
    struct json_cursor *c = &parse->cursor;
    const char *text = c->text;
    struct str name;
    uint32_t field;
    bool escaped;

    c->at = at;
    if (c->end - at < 3 || text[at[0]] != '"' || text[at[1]] != ':') {
        (void)field_refuse(parse);
        return NULL;
    }
    name = json_token_at(text, at);
    if (name.n < 2 || name.p[name.n - 1] != '"') {
        (void)field_refuse(parse);
        return NULL;
    }
    escaped = c->escape < name.p + name.n;
    name = (struct str){name.p + 1, name.n - 2};
    if (escaped) {
        name = key_unescape(parse, name);
        if (name.p == NULL)
            return NULL;
    }
    field = key_guess(parse->parser, name, parse->place++);
    c->at = at + 2;
    if (field == CLICK_FIELDS_N)
        return unknown_pass(parse, name) ? c->at : NULL;
    if ((parse->seen >> field & 1) != 0) {
        (void)click_refuse(parse->error, "duplicate_key", click_rules[field].name,
                           "twice in one object: send it once");
        return NULL;
    }
    parse->seen |= 1U << field;
    return click_value_parse(parse, field) ? at + 3 : NULL;
}

static bool
object_parse(struct parse *parse)
{
    struct json_cursor *c = &parse->cursor;
    const uint32_t *at = c->at + 1;
    char next = at < c->end && c->text[*at] == '}' ? '}' : ',';

    at -= next == ',';
    while (next == ',') {
        at = field_parse(parse, at + 1);
        if (at == NULL)
            return false;
        next = at < c->end ? c->text[*at] : '\0';
    }
    if (next != '}')
        return click_refuse(parse->error, "json", "", "a comma or } is missing");
    if (at + 1 != c->end)
        return click_refuse(
            parse->error, "json", "",
            "something follows the object: remove it, or send NDJSON");
    return true;
}

#define X(name, kind, required, min, max, prose) \
    | (uint32_t)(required) << CLICK_##name
static const uint32_t required_fields = 0 CLICK_FIELDS(X);
#undef X

static_assert(CLICK_FIELDS_N <= 32, "fields are bits of 32");

static bool
missing_check(struct parse *parse)
{
    const uint32_t xy = 1U << CLICK_click_x | 1U << CLICK_click_y;
    uint32_t missing = required_fields & ~parse->present;

    if (missing != 0)
        return click_refuse(parse->error, "missing",
                            click_rules[__builtin_ctz(missing)].name,
                            "missing: it is required");
    parse->click->has_xy = (parse->present & xy) == xy;
    if ((parse->present & xy) != 0 && !parse->click->has_xy)
        return click_refuse(parse->error, "missing",
                            click_rules[__builtin_ctz(xy & ~parse->present)].name,
                            "missing: click_x and click_y go together");
    return true;
}

static bool
time_check(struct parse *parse, const struct click_limits *limits)
{
    int64_t ms = parse->click->timestamp_ms;
    char text[CLOCK_TEXT_SIZE];

    if (ms > limits->now_ms + limits->future_ms_max)
        return click_refuse(parse->error, "too_new", "timestamp",
                            "%s is more than %" PRId64
                            " s ahead of the server: set the sender's clock",
                            clock_format_ms(ms, text),
                            limits->future_ms_max / 1000);
    if (ms < limits->now_ms - limits->past_ms_max)
        return click_refuse(
            parse->error, "too_old", "timestamp",
            "%s is more than %" PRId64 " h behind the server: send clicks sooner",
            clock_format_ms(ms, text), limits->past_ms_max / CLOCK_HOUR_MS);
    return true;
}

/* The event_id of a click that was refused, so that its sender finds it: the first field
 * of that name that can be reached and read. */
static void
event_id_find(struct click_parser *parser, struct json_cursor c, char text[37])
{
    uint8_t id[16];

    text[0] = '\0';
    if (json_peek(&c) != '{')
        return;
    do {
        struct str name, value;
        bool escaped;

        c.at++;
        if (json_peek(&c) != '"' || !json_string(&c, &name, &escaped) ||
            json_peek(&c) != ':')
            return;
        c.at++;
        if (key_find(parser, name) == CLICK_event_id && json_peek(&c) == '"' &&
            json_string(&c, &value, &escaped)) {
            if (uuid_parse(value, id))
                uuid_format(id, text);
            return;
        }
    } while (json_check(&c, 1) && json_peek(&c) == ',');
}

/* Marks of json: those of the body if it is the element being visited. */
static bool
cursor_find(struct click_parser *parser, struct str json, struct json_cursor *c,
            struct click_error *error)
{
    const struct click_element *ready = parser->ready;
    const uint32_t *marks;
    enum json_fault fault;
    uint32_t n;

    if (json.n > parser->click_bytes_max)
        return click_refuse(error, "too_large", "",
                            "%u bytes, at most %zu: shorten its texts",
                            (unsigned)json.n, parser->click_bytes_max);
    if (ready != NULL && ready->p == json.p && ready->n == json.n) {
        *c = (struct json_cursor){parser->body_text, ready->first, ready->end, NULL,
                                  json.p + json.n,   NULL};
        c->escape = c->text_end;
        if (parser->body_escapes)
            json_escape_next(c, (struct str){json.p, 0});
        return true;
    }
    fault = json_scan(parser->one, json.p, json.n, &marks, &n);
    if (fault != JSON_GOOD)
        return click_refuse_fault(error, json, fault, 1);
    *c = json_cursor_at(json.p, json.p + json.n, marks, marks + n);
    return true;
}

bool
click_parse(struct click_parser *parser, struct str json,
            const struct click_limits *limits, struct click *click,
            struct click_error *error, unsigned *unknown)
{
    struct parse parse = {.parser = parser, .click = click, .error = error};
    struct json_cursor start;
    bool good;

    if (unknown != NULL)
        *unknown = 0;
    if (!cursor_find(parser, json, &start, error))
        return false;
    parse.cursor = start;
    parser->arena_n = 0;
    memset(click, 0, sizeof(*click));
    if (json_peek(&start) != '{')
        return click_refuse(error, "type", "", "not a JSON object: a click is one");
    good =
        object_parse(&parse) && missing_check(&parse) && time_check(&parse, limits);
    if (!good)
        event_id_find(parser, start, error->event_id);
    else if (unknown != NULL)
        *unknown = parse.unknown;
    return good;
}

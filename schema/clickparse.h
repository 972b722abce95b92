/* schema/clickparse.h - what click_parse.c, click_value.c and click_split.c share; nobody
 * else includes it.
 *
 * Memory   A parser holds the marks of one click and of one body, and the arena for
 *          strings that had escapes (a click never needs more than its own length).
 * Threads  A parser belongs to one thread.
 */
#ifndef SCHEMA_CLICKPARSE_H
#define SCHEMA_CLICKPARSE_H

#include "schema/click.h"
#include "schema/json.h"

enum {
    CLICK_KEY_SLOTS = 64,    /* a power of two over CLICK_FIELDS_N */
    CLICK_UNKNOWN_MAX = 64,  /* unknown fields in one click */
    CLICK_KEY_BYTES_MAX = 16 /* of known names */
};

enum click_kind {
    KIND_UUID,
    KIND_TIME,
    KIND_TOKEN,
    KIND_TEXT,
    KIND_IP,
    KIND_COUNTRY,
    KIND_DEVICE,
    KIND_MONEY,
    KIND_CURRENCY,
    KIND_INTEGER,
    KIND_BOOL,
};

/* A name as two words that overlap, so that comparing takes no call. */
struct click_key {
    uint64_t a, b;
    uint32_t n; /* 0: an empty slot */
    uint32_t field;
};

/* An element of a body that has been checked: its marks, so that it is not scanned
 * twice. */
struct click_element {
    const char *p;
    uint32_t n;
    const uint32_t *first, *end;
};

struct click_parser {
    struct json_scanner *one, *body;
    size_t click_bytes_max, body_bytes;
    char *arena;
    uint32_t arena_n;
    uint8_t ip[16];
    uint64_t key_seed;
    struct click_key keys[CLICK_KEY_SLOTS];
    /* The fields of the click before, by place; no click gets further. */
    struct click_key order[CLICK_FIELDS_N + CLICK_UNKNOWN_MAX + 1];
    struct str unknown[CLICK_UNKNOWN_MAX];
    struct click_element *elements;
    unsigned elements_max;
    const char *body_text;
    bool body_escapes;
    const struct click_element *ready; /* the element being visited, or NULL */
};

/* One click_parse. */
struct parse {
    struct click_parser *parser;
    struct json_cursor cursor;
    struct click *click;
    struct click_error *error;
    uint32_t seen, present; /* bits of enum click_field */
    unsigned unknown;
    unsigned place; /* fields begun */
};

extern const struct click_rule {
    const char *name;
    enum click_kind kind;
    bool required;
    int64_t min, max;
    size_t offset; /* of the struct str in struct click, for texts */
} click_rules[CLICK_FIELDS_N];

/* The value at the cursor, which moves on. False: error is filled. */
bool click_value_parse(struct parse *parse, enum click_field field);
/* Fills error (but for event_id) and returns false. field "" is the whole click. */
bool click_refuse(struct click_error *error, const char *code, const char *field,
                  const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* Fills error from a fault of the scan. depth as in json_blame. */
bool click_refuse_fault(struct click_error *error, struct str text,
                        enum json_fault fault, int depth);

#endif

/* One value of the click, by the kind of its field. */
#include "schema/clickparse.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "common/money.h"
#include "schema/text.h"

#define OFFSET_NONE(name)     0
#define OFFSET_STR(name)      offsetof(struct click, name)
#define OFFSET_UUID(name)     OFFSET_NONE(name)
#define OFFSET_TIME(name)     OFFSET_NONE(name)
#define OFFSET_TOKEN(name)    OFFSET_STR(name)
#define OFFSET_TEXT(name)     OFFSET_STR(name)
#define OFFSET_IP(name)       OFFSET_NONE(name)
#define OFFSET_COUNTRY(name)  OFFSET_STR(name)
#define OFFSET_DEVICE(name)   OFFSET_NONE(name)
#define OFFSET_MONEY(name)    OFFSET_NONE(name)
#define OFFSET_CURRENCY(name) OFFSET_STR(name)
#define OFFSET_INTEGER(name)  OFFSET_NONE(name)
#define OFFSET_BOOL(name)     OFFSET_NONE(name)

const struct click_rule click_rules[CLICK_FIELDS_N] = {
#define X(name, kind, required, min, max, prose) \
    {#name, KIND_##kind, required, min, max, OFFSET_##kind(name)},
    CLICK_FIELDS(X)
#undef X
};

bool
click_refuse(struct click_error *error, const char *code, const char *field,
             const char *fmt, ...)
{
    va_list ap;
    int n = 0;

    error->code = code;
    error->field = field;
    error->event_id[0] = '\0';
    error->message[0] = '\0';
    if (field[0] != '\0')
        n = snprintf(error->message, sizeof(error->message), "%s: ", field);
    va_start(ap, fmt);
    (void)vsnprintf(error->message + n, sizeof(error->message) - (size_t)n, fmt,
                    ap);
    va_end(ap);
    return false;
}

#define refuse(parse, rule, code, ...) \
    click_refuse((parse)->error, code, (rule)->name, __VA_ARGS__)

/* ---- characters ---- */

#define ONES  UINT64_C(0x0101010101010101)
#define HIGHS UINT64_C(0x8080808080808080)

static inline uint64_t
load64(const char *p)
{
    uint64_t w;

    memcpy(&w, p, sizeof(w));
    return w;
}

/* High bits where a byte is not in 0x21..0x7E. No byte carries into the next. */
static inline uint64_t
not_graphic(uint64_t w)
{
    uint64_t low = ~((w | HIGHS) - ONES * 0x21), del = (w & ~HIGHS) + ONES;

    return (w | low | del) & HIGHS;
}

static bool
token_is_good_slowly(struct str s)
{
    for (uint32_t i = 0; i < s.n; i++)
        if (s.p[i] <= ' ' || s.p[i] > '~' || s.p[i] == '"' || s.p[i] == '\\')
            return false;
    return true;
}

/* escaped: it may hold a quote or a backslash, which a plain JSON string cannot. */
static inline bool
token_is_good(struct str s, bool escaped)
{
    uint64_t bad = 0;

    if (escaped || s.n < 8)
        return token_is_good_slowly(s);
    for (uint32_t i = 0; i + 8 <= s.n; i += 8)
        bad |= not_graphic(load64(s.p + i));
    return (bad | not_graphic(load64(s.p + s.n - 8))) == 0;
}

static bool
text_is_good_slowly(struct str s)
{
    const uint8_t *p = (const uint8_t *)s.p;

    for (uint32_t i = 0; i < s.n; i++) {
        if ((p[i] < 0x20 && p[i] != '\t') || p[i] == 0x7F)
            return false;
        if (p[i] == 0xC2 && i + 1 < s.n && p[i + 1] < 0xA0) /* U+0080..U+009F */
            return false;
    }
    return true;
}

/* The bytes are UTF-8 already. Plain ASCII goes fast. */
static inline bool
text_is_good(struct str s, bool escaped)
{
    uint64_t odd = 0;

    if (escaped || s.n < 8)
        return text_is_good_slowly(s);
    for (uint32_t i = 0; i + 8 <= s.n; i += 8) {
        uint64_t w = load64(s.p + i);

        odd |= w | ((w & ~HIGHS) + ONES);
    }
    odd |= load64(s.p + s.n - 8) | ((load64(s.p + s.n - 8) & ~HIGHS) + ONES);
    return (odd & HIGHS) == 0 || text_is_good_slowly(s);
}

/* ---- values ---- */

/* Escapes undone into the arena: never longer than they were, so it cannot overflow.
 * p is NULL if refused. Strings travel by value, in registers. */
static struct str
string_unescape(struct parse *parse, const struct click_rule *rule,
                struct str inside)
{
    struct click_parser *parser = parse->parser;
    struct json_cursor *c = &parse->cursor;
    char *to = parser->arena + parser->arena_n;
    uint32_t n;

    if (!json_unescape(inside, to, &n, &c->reason)) {
        (void)refuse(parse, rule, "json", "%s", c->reason);
        return (struct str){NULL, 0};
    }
    parser->arena_n += n;
    json_escape_next(c, inside);
    return (struct str){to, n};
}

static bool
text_check(struct parse *parse, const struct click_rule *rule, struct str s,
           bool escaped)
{
    if (s.n > rule->max)
        return refuse(parse, rule, "length", "%u bytes, at most %d: shorten it",
                      (unsigned)s.n, (int)rule->max);
    if (s.n < rule->min)
        return refuse(parse, rule, "length", "empty: give it a value%s",
                      rule->required ? "" : " or leave it out");
    if (rule->kind == KIND_TOKEN && !token_is_good(s, escaped))
        return refuse(parse, rule, "characters",
                      "only printable ASCII without space, quote and backslash is "
                      "allowed: encode the rest");
    if (rule->kind == KIND_TEXT && !text_is_good(s, escaped))
        return refuse(parse, rule, "characters",
                      "a control character: remove it (tab is allowed)");
    if (rule->kind == KIND_COUNTRY && !country_known(s))
        return refuse(
            parse, rule, "value",
            "not an ISO 3166-1 alpha-2 code: write two capitals such as DE");
    if (rule->kind == KIND_CURRENCY && money_currency_places(s) < 0)
        return refuse(parse, rule, "value",
                      "not an ISO 4217 code: write three capitals such as EUR");
    return true;
}

static bool
device_read(struct str s, uint8_t *out)
{
    static const struct str names[] = {
#define X(name) {#name, sizeof(#name) - 1},
        CLICK_DEVICES(X)
#undef X
    };

    for (uint8_t i = 0; i < CLICK_DEVICES_N; i++) {
        if (!str_equal(s, names[i]))
            continue;
        *out = i;
        return true;
    }
    return false;
}

static bool
time_read(struct parse *parse, const struct click_rule *rule,
          enum click_field field, struct str s)
{
    int64_t ms;

    if (s.n > rule->max || !rfc3339_parse(s, &ms))
        return refuse(parse, rule, "value",
                      "not an RFC 3339 time with zone: write it like "
                      "2026-11-21T09:08:07.123Z");
    if (field == CLICK_timestamp) {
        parse->click->timestamp_ms = ms;
    } else {
        parse->click->impression_ms = ms;
        parse->click->has_impression_ts = true;
    }
    return true;
}

static bool
ip_read(struct parse *parse, const struct click_rule *rule, struct str s)
{
    uint32_t n;

    if (!ip_parse(s, parse->parser->ip, &n))
        return refuse(parse, rule, "value",
                      "not an IPv4 or IPv6 address: write it like 192.0.2.1 or "
                      "2001:db8::1");
    parse->click->ip = (struct str){(const char *)parse->parser->ip, n};
    return true;
}

static bool
money_read(struct parse *parse, const struct click_rule *rule, struct str s)
{
    struct why why;
    int64_t micros;

    if (s.n > 1 && s.p[0] == '-')
        return refuse(parse, rule, "range", "negative: a price is 0 or more");
    if (money_parse(s, &micros, &why) != ERR_OK)
        return refuse(parse, rule, "value", "%s", why.text);
    if (micros > rule->max)
        return refuse(parse, rule, "range", "above %" PRId64 ": lower it",
                      rule->max / MONEY_MICROS);
    parse->click->price_micros = micros;
    return true;
}

static bool
string_value(struct parse *parse, const struct click_rule *rule,
             enum click_field field)
{
    struct click *click = parse->click;
    struct str token = json_token(&parse->cursor), *to;
    struct str s = {token.p + 1, token.n - 2};
    bool escaped = parse->cursor.escape < token.p + token.n;

    if (token.n < 2 || token.p[token.n - 1] != '"')
        return refuse(parse, rule, "json", "a string is not closed");
    if (escaped) {
        s = string_unescape(parse, rule, s);
        if (s.p == NULL)
            return false;
    }
    switch (rule->kind) {
    case KIND_TOKEN:
    case KIND_TEXT:
    case KIND_COUNTRY:
    case KIND_CURRENCY:
        to = (void *)((char *)click + rule->offset);
        to->p = s.p;
        to->n = s.n;
        return text_check(parse, rule, s, escaped);
    case KIND_UUID:
        return uuid_parse(s, click->event_id) ||
               refuse(parse, rule, "value",
                      "not a UUID (nor may it be nil): write it like "
                      "0d9e3f6a-52c1-4b7e-9a40-6c1f2e8b7d55");
    case KIND_TIME:
        return time_read(parse, rule, field, s);
    case KIND_IP:
        return ip_read(parse, rule, s);
    case KIND_DEVICE:
        return device_read(s, &click->device) ||
               refuse(parse, rule, "value",
                      "unknown: one of desktop, mobile, tablet, tv, other");
    case KIND_MONEY:
        return money_read(parse, rule, s);
    case KIND_INTEGER:
        return refuse(parse, rule, "type",
                      "a string: write the number without quotes");
    case KIND_BOOL:
        break;
    }
    return refuse(parse, rule, "type",
                  "a string: write true or false without quotes");
}

static bool
integer_read(struct parse *parse, const struct click_rule *rule,
             enum click_field field, struct str token)
{
    int64_t value = 0;

    for (uint32_t i = 0; i < token.n; i++) {
        bool digit = token.p[i] >= '0' && token.p[i] <= '9';

        if (!digit && !(i == 0 && token.p[0] == '-'))
            return refuse(parse, rule, "type",
                          "not an integer: write digits without point or exponent");
        if (digit && value <= rule->max)
            value = value * 10 + (token.p[i] - '0');
    }
    if (token.p[0] == '-' || value > rule->max)
        return refuse(parse, rule, "range", "outside %d..%d", (int)rule->min,
                      (int)rule->max);
    if (field == CLICK_click_x)
        parse->click->click_x = (uint16_t)value;
    else
        parse->click->click_y = (uint16_t)value;
    return true;
}

static bool
scalar_value(struct parse *parse, const struct click_rule *rule,
             enum click_field field)
{
    struct json_cursor *c = &parse->cursor;
    struct str token = json_token(c);
    bool number = json_is_number(token);

    if (!number && !json_check_scalar(token, &c->reason))
        return refuse(parse, rule, "json", "%s", c->reason);
    if (token.p[0] == 'n') {
        parse->present &= ~(1U << field);
        return !rule->required ||
               refuse(parse, rule, "type", "null, but the field is required");
    }
    if (number && rule->kind == KIND_MONEY)
        return money_read(parse, rule, token);
    if (number && rule->kind == KIND_INTEGER)
        return integer_read(parse, rule, field, token);
    if (!number && rule->kind == KIND_BOOL) {
        parse->click->test = token.p[0] == 't';
        return true;
    }
    return refuse(parse, rule, "type", "%s: write a %s",
                  number ? "a number" : "true or false",
                  rule->kind == KIND_BOOL ? "true or false"
                  : rule->kind == KIND_MONEY || rule->kind == KIND_INTEGER
                      ? "number"
                      : "string");
}

bool
click_value_parse(struct parse *parse, enum click_field field)
{
    const struct click_rule *rule = &click_rules[field];
    struct json_cursor *c = &parse->cursor;
    char first = json_peek(c);

    parse->present |= 1U << field;
    if (first == '"')
        return string_value(parse, rule, field);
    if (c->at == c->end)
        return refuse(parse, rule, "json", "it ends too early");
    if (first != '{' && first != '[')
        return scalar_value(parse, rule, field);
    if (!json_check(c, 1))
        return refuse(parse, rule, "json", "%s", c->reason);
    return refuse(parse, rule, "type", "an %s: write one value",
                  first == '{' ? "object" : "array");
}

bool
click_refuse_fault(struct click_error *error, struct str text,
                   enum json_fault fault, int depth)
{
    static const char *const words[] = {
        [JSON_GOOD] = "good",
        [JSON_EMPTY] = "nothing but blanks: send a JSON object",
        [JSON_UTF8] = "not UTF-8: encode the text as UTF-8",
        [JSON_CONTROL] = "a raw control character in a string: escape it",
        [JSON_OPEN_STRING] = "a string is not closed",
        [JSON_TOO_LARGE] = "too many bytes: send less at a time",
        [JSON_NO_MEMORY] = "no memory for so large a text: send less at a time",
    };
    bool large = fault == JSON_TOO_LARGE || fault == JSON_NO_MEMORY;
    size_t place = 0;
    struct str key = {NULL, 0};
    const char *field = "";

    if (!large)
        key = json_blame(text, fault, depth, &place);
    for (int i = 0; i < CLICK_FIELDS_N; i++)
        if (str_equal(key, str_of(click_rules[i].name)))
            field = click_rules[i].name;
    return click_refuse(error, large ? "too_large" : "json", field,
                        "%s (at byte %zu)", words[fault], place);
}

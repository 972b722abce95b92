#include "schema/json.h"

#include <assert.h>

#include "common/utf8.h"

/* ---- strings ---- */

void
json_escape_next(struct json_cursor *c, struct str s)
{
    const char *from = s.p + s.n;
    const char *next = memchr(from, '\\', (size_t)(c->text_end - from));

    c->escape = next == NULL ? c->text_end : next;
}

struct json_cursor
json_cursor_at(const char *text, const char *text_end, const uint32_t *marks,
               const uint32_t *end)
{
    struct json_cursor c = {text, marks, end, NULL, text_end, NULL};

    json_escape_next(&c, (struct str){text + (marks < end ? *marks : 0), 0});
    return c;
}

/* Four hex digits, or -1. */
static int
hex4(const char *p, const char *end)
{
    int value = 0;

    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        value = value << 4 | digit;
    }
    return value;
}

static char *
utf8_put(char *out, uint32_t c)
{
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xC0 | c >> 6);
        *out++ = (char)(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        *out++ = (char)(0xE0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 0x3F));
        *out++ = (char)(0x80 | (c & 0x3F));
    } else {
        *out++ = (char)(0xF0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 0x3F));
        *out++ = (char)(0x80 | (c >> 6 & 0x3F));
        *out++ = (char)(0x80 | (c & 0x3F));
    }
    return out;
}

/* p is behind "\u"; NULL: refused. Six or twelve bytes of text become at most four. */
static const char *
unicode_escape(const char *p, const char *end, char **out, const char **reason)
{
    int unit = hex4(p, end), low;

    if (unit < 0) {
        *reason = "\\u needs four hex digits";
        return NULL;
    }
    p += 4;
    if (unit < 0xD800 || unit > 0xDFFF) {
        *out = utf8_put(*out, (uint32_t)unit);
        return p;
    }
    low = end - p >= 6 && p[0] == '\\' && p[1] == 'u' ? hex4(p + 2, end) : -1;
    if (unit > 0xDBFF || low < 0xDC00 || low > 0xDFFF) {
        *reason = "a lone surrogate: escape both halves of the character";
        return NULL;
    }
    *out = utf8_put(*out, 0x10000 + ((uint32_t)(unit - 0xD800) << 10) +
                              (uint32_t)(low - 0xDC00));
    return p + 6;
}

static char
plain_escape(char c)
{
    switch (c) {
    case '"':
    case '\\':
    case '/':
        return c;
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    default:
        return '\0';
    }
}

bool
json_unescape(struct str inside, char *out, uint32_t *n, const char **reason)
{
    const char *p = inside.p, *end = inside.p + inside.n;
    char *to = out;

    while (p < end) {
        if (*p != '\\') {
            *to++ = *p++;
            continue;
        }
        if (end - p < 2) {
            *reason = "a backslash escapes nothing";
            return false;
        }
        if (p[1] == 'u') {
            p = unicode_escape(p + 2, end, &to, reason);
            if (p == NULL)
                return false;
            continue;
        }
        *to = plain_escape(p[1]);
        if (*to++ == '\0') {
            *reason = "an escape that JSON does not have";
            return false;
        }
        p += 2;
    }
    *n = (uint32_t)(to - out);
    return true;
}

/* Checks the escapes of a string of any length, in pieces. */
static bool
escapes_check(struct json_cursor *c, struct str inside)
{
    const char *p = inside.p, *end = inside.p + inside.n;
    char scratch[4];

    while ((p = memchr(p, '\\', (size_t)(end - p))) != NULL) {
        uint32_t n, size = 2;

        if (end - p >= 2 && p[1] == 'u') {
            int unit = hex4(p + 2, end);

            size = unit >= 0xD800 && unit <= 0xDBFF ? 12 : 6;
        }
        if (size > (uint32_t)(end - p))
            size = (uint32_t)(end - p);
        if (!json_unescape((struct str){p, size}, scratch, &n, &c->reason))
            return false;
        p += size;
    }
    json_escape_next(c, inside);
    return true;
}

/* ---- numbers and words ---- */

static const char *
digits_skip(const char *p, const char *end)
{
    while (p < end && *p >= '0' && *p <= '9')
        p++;
    return p;
}

/* The parts of -?int(.frac)?([eE][+-]?exp)?; false: not a number. */
struct number {
    struct str whole, exponent;
    bool exponent_negative;
};

static bool
number_read(struct str token, struct number *out)
{
    const char *p = token.p, *end = token.p + token.n, *from;

    *out = (struct number){.exponent_negative = false};
    if (p < end && *p == '-')
        p++;
    from = p;
    p = digits_skip(p, end);
    if (p == from || (*from == '0' && p - from > 1))
        return false;
    out->whole = (struct str){from, (uint32_t)(p - from)};
    if (p < end && *p == '.') {
        from = ++p;
        p = digits_skip(p, end);
        if (p == from)
            return false;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        if (++p < end && (*p == '+' || *p == '-'))
            out->exponent_negative = *p++ == '-';
        from = p;
        p = digits_skip(p, end);
        if (p == from)
            return false;
        out->exponent = (struct str){from, (uint32_t)(p - from)};
    }
    return p == end;
}

bool
json_is_number(struct str token)
{
    struct number number;

    return number_read(token, &number);
}

/* Would a double hold it? By the count of digits, so that nothing is rounded here. */
static bool
number_in_range(const struct number *number)
{
    int64_t digits = number->whole.n, exponent = 0;

    for (uint32_t i = 0; i < number->exponent.n && exponent < 100000; i++)
        exponent = exponent * 10 + (number->exponent.p[i] - '0');
    if (!number->exponent_negative)
        digits += exponent;
    return digits <= JSON_NUMBER_DIGITS_MAX;
}

bool
json_check_scalar(struct str token, const char **reason)
{
    struct number number;

    if (str_equal(token, STR("true")) || str_equal(token, STR("false")) ||
        str_equal(token, STR("null")))
        return true;
    if (!number_read(token, &number)) {
        *reason = "not a JSON value";
        return false;
    }
    if (token.n <= JSON_NUMBER_BYTES_MAX && number_in_range(&number))
        return true;
    *reason = "a number past its range: at most 308 digits";
    return false;
}

/* ---- whole values ---- */

static bool
refuse(struct json_cursor *c, const char *reason)
{
    c->reason = reason;
    return false;
}

static inline bool
string_check(struct json_cursor *c)
{
    struct str inside;
    bool escaped;

    if (!json_string(c, &inside, &escaped))
        return false;
    return !escaped || escapes_check(c, inside);
}

static inline bool
mark_skip(struct json_cursor *c, char wanted, const char *reason)
{
    if (json_peek(c) != wanted)
        return refuse(c, reason);
    c->at++;
    return true;
}

static bool
object_check(struct json_cursor *c, int depth)
{
    if (json_peek(c) == '}') {
        c->at++;
        return true;
    }
    for (;;) {
        if (json_peek(c) != '"')
            return refuse(c, "a key in quotes is missing");
        if (!string_check(c) ||
            !mark_skip(c, ':', "a colon is missing after a key") ||
            !json_check(c, depth))
            return false;
        if (json_peek(c) != ',')
            return mark_skip(c, '}', "a comma or } is missing");
        c->at++;
    }
}

static bool
array_check(struct json_cursor *c, int depth)
{
    if (json_peek(c) == ']') {
        c->at++;
        return true;
    }
    for (;;) {
        if (!json_check(c, depth))
            return false;
        if (json_peek(c) != ',')
            return mark_skip(c, ']', "a comma or ] is missing");
        c->at++;
    }
}

bool
json_check(struct json_cursor *c, int depth)
{
    char first = json_peek(c);

    if (c->at == c->end)
        return refuse(c, "it ends too early");
    if (first == '"')
        return string_check(c);
    if (first != '{' && first != '[')
        return json_check_scalar(json_token(c), &c->reason);
    if (depth >= JSON_DEPTH_MAX)
        return refuse(c, "more than 64 objects and arrays in one another");
    c->at++;
    return first == '{' ? object_check(c, depth + 1) : array_check(c, depth + 1);
}

/* ---- after a fault ---- */

static size_t
fault_place(struct str text, enum json_fault fault)
{
    const uint8_t *p = (const uint8_t *)text.p;
    bool in_string = false;

    for (size_t i = 0; i < text.n;) {
        size_t length = utf8_length(p + i, text.n - i);

        if (length == 0 && fault == JSON_UTF8)
            return i;
        if (in_string && p[i] < 0x20 && fault == JSON_CONTROL)
            return i;
        if (p[i] == '"')
            in_string = !in_string;
        else if (in_string && p[i] == '\\')
            i++;
        i += length == 0 ? 1 : length;
    }
    return text.n;
}

/* Bytes to the closing quote of the string whose inside begins at i, or to the end. */
static size_t
string_end(struct str text, size_t i)
{
    while (i < text.n && text.p[i] != '"')
        i += text.p[i] == '\\' ? 2 : 1;
    return i < text.n ? i : text.n;
}

static bool
colon_follows(struct str text, size_t i)
{
    while (i < text.n && strchr(" \t\r\n", text.p[i]) != NULL && text.p[i] != '\0')
        i++;
    return i < text.n && text.p[i] == ':';
}

struct str
json_blame(struct str text, enum json_fault fault, int depth, size_t *place)
{
    size_t until = fault_place(text, fault);
    struct str key = {NULL, 0};
    int open = 0;

    *place = until;
    for (size_t i = 0; i < until; i++) {
        char c = text.p[i];

        if (c == '{' || c == '[')
            open++;
        else if (c == '}' || c == ']')
            open--;
        if (c != '"')
            continue;
        size_t to = string_end(text, i + 1);
        if (open == depth && to < text.n && colon_follows(text, to + 1))
            key = (struct str){text.p + i + 1, (uint32_t)(to - i - 1)};
        i = to;
    }
    return key;
}

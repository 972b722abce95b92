#include "common/buf.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/utf8.h"

enum { FIRST_CAP = 256 };

/* Makes cap >= want. One byte more than cap is allocated: vsnprintf's terminator
 * falls there when the text ends exactly at max. */
static bool
grow(struct buf *buf, size_t want)
{
    size_t cap = buf->cap < FIRST_CAP ? FIRST_CAP : buf->cap;
    uint8_t *p;

    while (cap < want)
        cap = cap > SIZE_MAX / 2 ? want : cap * 2;
    if (cap > buf->max)
        cap = buf->max;
    assert(cap >= want);
    p = cap < SIZE_MAX ? realloc(buf->p, cap + 1) : NULL;
    if (p == NULL)
        return false;
    buf->p = p;
    buf->cap = cap;
    return true;
}

uint8_t *
buf_room(struct buf *buf, size_t n)
{
    assert(buf != NULL);
    assert(buf->n <= buf->cap);

    if (buf->failed)
        return NULL;
    if (n <= buf->cap - buf->n && buf->p != NULL)
        return buf->p + buf->n;
    if (buf->n > buf->max || n > buf->max - buf->n || !grow(buf, buf->n + n)) {
        buf->failed = true;
        return NULL;
    }
    return buf->p + buf->n;
}

void
buf_add(struct buf *buf, const void *data, size_t n)
{
    uint8_t *to;

    if (n == 0)
        return;
    to = buf_room(buf, n);
    if (to == NULL)
        return;
    memcpy(to, data, n);
    buf->n += n;
}

void
buf_add_str(struct buf *buf, struct str s)
{
    buf_add(buf, s.p, s.n);
}

void
buf_add_text(struct buf *buf, const char *text)
{
    buf_add(buf, text, strlen(text));
}

/* The text's length, written if it and its terminator fit into what is there. */
static int print_try(struct buf *buf, const char *fmt, va_list ap)
    __attribute__((format(printf, 2, 0)));

static int
print_try(struct buf *buf, const char *fmt, va_list ap)
{
    if (buf->p == NULL)
        return vsnprintf(NULL, 0, fmt, ap);
    return vsnprintf((char *)buf->p + buf->n, buf->cap - buf->n + 1, fmt, ap);
}

void
buf_printf(struct buf *buf, const char *fmt, ...)
{
    va_list ap, again;
    int length;

    if (buf->failed)
        return;
    va_start(ap, fmt);
    va_copy(again, ap);
    length = print_try(buf, fmt, ap);
    if (length < 0) {
        buf->failed = true;
    } else if (buf->p == NULL || (size_t)length > buf->cap - buf->n) {
        if (buf_room(buf, (size_t)length) != NULL)
            (void)print_try(buf, fmt, again);
    }
    if (!buf->failed)
        buf->n += (size_t)length;
    va_end(again);
    va_end(ap);
}

static void
add_json_control(struct buf *buf, uint8_t c)
{
    static const char short_of[32] = {
        ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};
    static const char hex[] = "0123456789abcdef";

    if (c >= 32)
        buf_add(buf, (const char[]){'\\', (char)c}, 2);
    else if (short_of[c] != 0)
        buf_add(buf, (const char[]){'\\', short_of[c]}, 2);
    else
        buf_add(buf, (const char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]},
                6);
}

void
buf_add_json(struct buf *buf, struct str s)
{
    const uint8_t *p = (const uint8_t *)s.p;
    size_t from = 0, i = 0;

    buf_add(buf, "\"", 1);
    while (i < s.n) {
        bool escape = p[i] < 32 || p[i] == '"' || p[i] == '\\';
        size_t length = escape ? 0 : utf8_length(p + i, s.n - i);

        if (length != 0) {
            i += length;
            continue;
        }
        buf_add(buf, p + from, i - from);
        if (escape)
            add_json_control(buf, p[i]);
        else
            buf_add_text(buf, UTF8_REPLACEMENT);
        from = ++i;
    }
    if (s.n > 0)
        buf_add(buf, p + from, i - from);
    buf_add(buf, "\"", 1);
}

void
buf_reset(struct buf *buf)
{
    buf->n = 0;
    buf->failed = false;
}

void
buf_free(struct buf *buf)
{
    free(buf->p);
    *buf = BUF_MAX(buf->max);
}

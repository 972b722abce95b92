#include "common/log.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/utf8.h"

enum {
    TAIL = 8,         /* what may still follow a value: ..."}\n */
    UNIT_MAX = 6,     /* the longest escape */
    VALUE_MIN = 16,   /* a value with less room than this is not begun */
    NUMBER_SIZE = 24, /* an int64 */
};

struct line {
    size_t n;
    char text[LOG_LINE_MAX];
};

/* Set once at start, before threads. */
static struct {
    enum log_level lowest;
    enum log_format format;
} setup = {LOG_INFO, LOG_LOGFMT};

void
log_setup(enum log_level lowest, enum log_format format)
{
    setup.lowest = lowest;
    setup.format = format;
}

static const char *
level_name(enum log_level level)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};

    return names[level];
}

/* Room for what follows is the caller's business: nothing is written past the end. */
static void
put(struct line *line, const char *text, size_t n)
{
    size_t room = LOG_LINE_MAX - line->n;

    n = n < room ? n : room;
    memcpy(line->text + line->n, text, n);
    line->n += n;
}

static void
put_text(struct line *line, const char *text)
{
    put(line, text, strlen(text));
}

static bool
is_bare(const char *text)
{
    for (const char *p = text; *p != '\0'; p++)
        if ((uint8_t)*p <= ' ' || (uint8_t)*p >= 0x7f || *p == '"' || *p == '=' ||
            *p == '\\')
            return false;
    return text[0] != '\0';
}

/* One character of text as it stands in the quotes; returns how many bytes of text
 * it took. Control characters (so also DEL) cannot reach a terminal. */
static size_t
unit_of(const char *text, size_t n, char unit[UNIT_MAX + 1])
{
    uint8_t c = (uint8_t)text[0];
    size_t length = utf8_length((const uint8_t *)text, n);

    if (c == '"' || c == '\\')
        (void)snprintf(unit, UNIT_MAX + 1, "\\%c", c);
    else if (c == '\n')
        (void)snprintf(unit, UNIT_MAX + 1, "\\n");
    else if (c < ' ' || c == 0x7f)
        (void)snprintf(unit, UNIT_MAX + 1, "\\u%04x", (unsigned)c);
    else if (length == 2 && c == 0xC2 && (uint8_t)text[1] < 0xA0)
        (void)snprintf(unit, UNIT_MAX + 1, "\\u%04x", (unsigned)(uint8_t)text[1]);
    else if (length == 0)
        (void)snprintf(unit, UNIT_MAX + 1, "%s", UTF8_REPLACEMENT);
    else
        (void)snprintf(unit, UNIT_MAX + 1, "%.*s", (int)length, text);
    return length == 0 ? 1 : length;
}

/* A quoted value of at most room bytes, quotes included. */
static void
put_quoted(struct line *line, const char *text, size_t room)
{
    const size_t end = line->n + room - 4; /* dots and closing quote */
    size_t left = strlen(text);

    put(line, "\"", 1);
    while (left > 0) {
        char unit[UNIT_MAX + 1];
        size_t took = unit_of(text, left, unit);

        if (line->n + strlen(unit) > end) {
            put_text(line, "...");
            break;
        }
        put_text(line, unit);
        text += took;
        left -= took;
    }
    put(line, "\"", 1);
}

static void
put_value(struct line *line, const struct log_field *field, size_t room)
{
    char number[NUMBER_SIZE];

    if (field->text == NULL) {
        (void)snprintf(number, sizeof(number), "%" PRId64, field->number);
        put_text(line, number);
    } else if (setup.format == LOG_LOGFMT && is_bare(field->text) &&
               strlen(field->text) <= room) {
        put_text(line, field->text);
    } else {
        put_quoted(line, field->text, room);
    }
}

/* Returns false, and writes nothing, where the field does not fit any more. left is
 * how many fields share the rest of the line, this one included. */
static bool
put_field(struct line *line, const struct log_field *field, int left)
{
    size_t around = strlen(field->name) + sizeof(",\"\":");
    size_t room = LOG_LINE_MAX - TAIL > line->n ? LOG_LINE_MAX - TAIL - line->n : 0;

    room /= (size_t)left;
    if (room < around + NUMBER_SIZE || room < around + VALUE_MIN)
        return false;
    if (setup.format == LOG_JSON) {
        put_text(line, line->n == 0 ? "{\"" : ",\"");
        put_text(line, field->name);
        put_text(line, "\":");
    } else {
        put_text(line, line->n == 0 ? "" : " ");
        put_text(line, field->name);
        put_text(line, "=");
    }
    put_value(line, field, room - around);
    return true;
}

void
log_write(enum log_level level, const char *event, const struct log_field *fields,
          int count)
{
    char time[CLOCK_TEXT_SIZE];
    struct line line;

    if (level < setup.lowest)
        return;
    line.n = 0;
    (void)clock_format_ms(clock_now_us() / 1000, time);
    (void)put_field(&line, &LOG_TEXT("time", time), 1);
    (void)put_field(&line, &LOG_TEXT("level", level_name(level)), 1);
    (void)put_field(&line, &LOG_TEXT("event", event), count + 1);
    for (int i = 0; i < count; i++)
        (void)put_field(&line, &fields[i], count - i);
    put_text(&line, setup.format == LOG_JSON ? "}\n" : "\n");
    (void)!write(STDERR_FILENO, line.text, line.n);
}

/* common/log.h - one line of structured log an event, to standard error: logfmt
 * (time=... level=info event=ingest_started port=8080), or JSON by configuration.
 * Values are escaped, so no input can forge a line. Secrets have no business here.
 *
 * Memory   A line is built on the stack, LOG_LINE_MAX bytes; longer values are cut
 *          and end in "...".
 * Errors   None: a line that cannot be written is lost.
 * Threads  Any; a line is one write().
 */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include <stddef.h>
#include <stdint.h>

enum { LOG_LINE_MAX = 4096 };

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_LOGFMT, LOG_JSON };

struct log_field {
    const char *name;
    const char *text; /* NULL: number */
    int64_t number;
};

static inline const char *
log_text(const char *text)
{
    return text == NULL ? "" : text;
}

#define LOG_TEXT(name, value)   ((struct log_field){(name), log_text(value), 0})
#define LOG_NUMBER(name, value) ((struct log_field){(name), 0, (int64_t)(value)})

/* log_event(LOG_INFO, "name", LOG_TEXT(...), LOG_NUMBER(...)): at least one field. */
#define log_event(level, event, ...)                                  \
    log_write(level, event, (const struct log_field[]){__VA_ARGS__},  \
              (int)(sizeof((const struct log_field[]){__VA_ARGS__}) / \
                    sizeof(struct log_field)))

/* Set once at start, before threads. */
void log_setup(enum log_level lowest, enum log_format format);
void log_write(enum log_level level, const char *event,
               const struct log_field *fields, int count);

#endif

/* common/buf.h - a growing byte buffer, born with its maximum.
 *
 * Memory   Doubles up to max; past it, or without memory, the buffer turns to
 *          "failed", keeps what it has and drops what follows: check once at the end.
 * Threads  None.
 */
#ifndef COMMON_BUF_H
#define COMMON_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/str.h"

struct buf {
    uint8_t *p;
    size_t n;
    size_t cap;
    size_t max;
    bool failed;
};

#define BUF_MAX(bytes) ((struct buf){.max = (bytes)})

void buf_add(struct buf *buf, const void *data, size_t n);
void buf_add_str(struct buf *buf, struct str s);
void buf_add_text(struct buf *buf, const char *text);
void buf_printf(struct buf *buf, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* A JSON string with its quotes; bytes that are not UTF-8 become U+FFFD. */
void buf_add_json(struct buf *buf, struct str s);
/* Room for n more bytes at p + n, or NULL (then failed). The caller adds to buf->n. */
uint8_t *buf_room(struct buf *buf, size_t n);
void buf_reset(struct buf *buf);
void buf_free(struct buf *buf);

#endif

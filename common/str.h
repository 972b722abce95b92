/* common/str.h - a borrowed run of bytes: pointer and length, no terminator.
 *
 * Memory   Borrowed: it lives as long as the buffer that it points into.
 * Threads  A value.
 */
#ifndef COMMON_STR_H
#define COMMON_STR_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct str {
    const char *p; /* may be NULL when n is 0 */
    uint32_t n;
};

#define STR(literal) ((struct str){(literal), sizeof(literal) - 1})

static inline struct str
str_of(const char *text)
{
    return (struct str){text, text == NULL ? 0 : (uint32_t)strlen(text)};
}

static inline bool
str_equal(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

#endif

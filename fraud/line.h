/* fraud/line.h - arrays of cache lines, each a small set of entries: the ground of the live
 * tables, which touch one line an answer.
 *
 *   64-bit hash  --top bits-->  line        --low 48 bits-->  tag within the line
 *
 * With at least LINES_MIN lines, line and tag together tell two hashes apart exactly. An
 * entry's word is tag << 16 | LINE_USED | stamp, the stamp 15 bits of receipt time, compared
 * by signed difference, so it may wrap.
 *
 * Memory   Reserved at once and zero; a page becomes real when first written. Huge pages
 *          are asked for: a random touch then misses no page table.
 * Threads  Values; what guards a line is its table's business.
 */
#ifndef FRAUD_LINE_H
#define FRAUD_LINE_H

#include <stddef.h>
#include <stdint.h>

#include "common/clock.h"
#include "common/err.h"

enum {
    LINE_SIZE = 64,
    LINES_MIN = 65536,
    LINE_USED = 0x8000,
    LINE_STAMP_MASK = 0x7fff,
};

#define LINE_TAG_MASK UINT64_C(0xffffffffffff0000)

/* Zeroed, aligned to a page. n is at least LINES_MIN. name is for why. */
enum err line_map(void **out, uint64_t n, const char *name, struct why *why);
void line_unmap(void *lines, uint64_t n);

static inline uint64_t
line_of(uint64_t hash, uint64_t n)
{
    return (hash >> 32) * n >> 32;
}

static inline uint64_t
line_tag(uint64_t hash)
{
    return hash << 16;
}

/* now - then of two stamps, in -16384..16383. */
static inline int32_t
line_age(uint32_t now, uint32_t then)
{
    uint32_t d = (now - then) & LINE_STAMP_MASK;

    return (int32_t)d - (d & 0x4000 ? 0x8000 : 0);
}

/* Receipt time as 7 bits of hour and 8 of its fraction (14 s). */
static inline uint32_t
line_stamp(int64_t received_us)
{
    int64_t hour = received_us / CLOCK_HOUR_US, rest = received_us % CLOCK_HOUR_US;

    return (uint32_t)(hour << 8 | rest * 256 / CLOCK_HOUR_US) & LINE_STAMP_MASK;
}

/* Hours of receipt from then to now, of two such stamps: -64..63. */
static inline int32_t
line_hours(uint32_t now, uint32_t then)
{
    return line_age(now & 0x7f00, then & 0x7f00) / 256;
}

#endif

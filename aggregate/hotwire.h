/* aggregate/hotwire.h - the two messages of aggregate/hotstage.h, as bytes; little endian.
 *
 *   CLA1  u32 magic, u32 count, u32 partition, u32 zero, u64 base, count x click
 *   CLH1  u32 magic, u32 count, count x notice
 *
 * Errors   What is not such a message, whole and of its exact length, is refused.
 * Threads  None.
 */
#ifndef AGGREGATE_HOTWIRE_H
#define AGGREGATE_HOTWIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/str.h"

enum { HOTWIRE_CLICKS_MAX = 16384, HOTWIRE_NOTICES_MAX = 4096 };

struct hotwire_click {
    uint64_t address_key;
    int64_t event_ms;
};

struct hotwire_notice {
    uint64_t address_key;
    int64_t event_ms;
    uint32_t reasons;
};

/* Starts a message in out, which is emptied; clicks follow, count of them. */
void hotwire_clicks_begin(struct buf *out, uint32_t partition, uint64_t base,
                          uint32_t count);
void hotwire_click_put(struct buf *out, struct hotwire_click click);
bool hotwire_clicks_read(struct str value, uint32_t *partition, uint64_t *base,
                         uint32_t *count);
struct hotwire_click hotwire_click_at(struct str value, uint32_t i);

void hotwire_notices_begin(struct buf *out, uint32_t count);
void hotwire_notice_put(struct buf *out, struct hotwire_notice notice);
bool hotwire_notices_read(struct str value, uint32_t *count);
struct hotwire_notice hotwire_notice_at(struct str value, uint32_t i);

#endif

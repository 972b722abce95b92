#include "aggregate/hotwire.h"

enum {
    CLICKS_HEAD = 24,
    CLICK_BYTES = 16,
    NOTICES_HEAD = 8,
    NOTICE_BYTES = 24,
    CLICKS_MAGIC = 0x31414c43,  /* CLA1 */
    NOTICES_MAGIC = 0x31484c43, /* CLH1 */
};

static void
put(struct buf *out, uint64_t v, unsigned bytes)
{
    uint8_t text[8];

    for (unsigned i = 0; i < bytes; i++)
        text[i] = (uint8_t)(v >> 8 * i);
    buf_add(out, text, bytes);
}

static uint64_t
get(struct str value, uint32_t at, unsigned bytes)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < bytes; i++)
        v |= (uint64_t)(uint8_t)value.p[at + i] << 8 * i;
    return v;
}

void
hotwire_clicks_begin(struct buf *out, uint32_t partition, uint64_t base,
                     uint32_t count)
{
    buf_reset(out);
    put(out, CLICKS_MAGIC, 4);
    put(out, count, 4);
    put(out, partition, 4);
    put(out, 0, 4);
    put(out, base, 8);
}

void
hotwire_click_put(struct buf *out, struct hotwire_click click)
{
    put(out, click.address_key, 8);
    put(out, (uint64_t)click.event_ms, 8);
}

bool
hotwire_clicks_read(struct str value, uint32_t *partition, uint64_t *base,
                    uint32_t *count)
{
    if (value.n < CLICKS_HEAD || get(value, 0, 4) != CLICKS_MAGIC)
        return false;
    *count = (uint32_t)get(value, 4, 4);
    *partition = (uint32_t)get(value, 8, 4);
    *base = get(value, 16, 8);
    return *count > 0 && *count <= HOTWIRE_CLICKS_MAX &&
           value.n == CLICKS_HEAD + *count * CLICK_BYTES;
}

struct hotwire_click
hotwire_click_at(struct str value, uint32_t i)
{
    uint32_t at = CLICKS_HEAD + i * CLICK_BYTES;

    return (struct hotwire_click){get(value, at, 8),
                                  (int64_t)get(value, at + 8, 8)};
}

void
hotwire_notices_begin(struct buf *out, uint32_t count)
{
    buf_reset(out);
    put(out, NOTICES_MAGIC, 4);
    put(out, count, 4);
}

void
hotwire_notice_put(struct buf *out, struct hotwire_notice notice)
{
    put(out, notice.address_key, 8);
    put(out, (uint64_t)notice.event_ms, 8);
    put(out, notice.reasons, 4);
    put(out, 0, 4);
}

bool
hotwire_notices_read(struct str value, uint32_t *count)
{
    if (value.n < NOTICES_HEAD || get(value, 0, 4) != NOTICES_MAGIC)
        return false;
    *count = (uint32_t)get(value, 4, 4);
    return *count > 0 && *count <= HOTWIRE_NOTICES_MAX &&
           value.n == NOTICES_HEAD + *count * NOTICE_BYTES;
}

struct hotwire_notice
hotwire_notice_at(struct str value, uint32_t i)
{
    uint32_t at = NOTICES_HEAD + i * NOTICE_BYTES;

    return (struct hotwire_notice){get(value, at, 8),
                                   (int64_t)get(value, at + 8, 8),
                                   (uint32_t)get(value, at + 16, 4)};
}

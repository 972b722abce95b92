/* The click's Avro record, hand-tuned: one pass, no schema walked, no allocation. The
 * order of the fields is click.avsc's; tests compare with the Avro C library. */
#include "schema/click.h"

#include <assert.h>
#include <stdlib.h>

enum {
    VARINT_MAX = 10,
    FIXED_PART_MAX =
        400, /* all that is not text: numbers, tags, lengths, addresses */
};

#define LIMIT_UUID(max)     0
#define LIMIT_TIME(max)     0
#define LIMIT_TOKEN(max)    (max)
#define LIMIT_TEXT(max)     (max)
#define LIMIT_IP(max)       0
#define LIMIT_COUNTRY(max)  (max)
#define LIMIT_DEVICE(max)   0
#define LIMIT_MONEY(max)    0
#define LIMIT_CURRENCY(max) (max)
#define LIMIT_INTEGER(max)  0
#define LIMIT_BOOL(max)     0
/* Bytes of text that each field may have: LIMIT_campaign_id and so on. */
enum {
#define X(name, kind, required, min, max, prose) LIMIT_##name = LIMIT_##kind(max),
    CLICK_FIELDS(X)
#undef X
};

#define X(name, kind, required, min, max, prose) +LIMIT_##name
static_assert(0 CLICK_FIELDS(X) + FIXED_PART_MAX <= CLICK_BODY_MAX,
              "a click within all limits fits into a body");
#undef X

/* ---- encoding ---- */

static inline uint8_t *
put_long(uint8_t *p, int64_t value)
{
    uint64_t rest = ((uint64_t)value << 1) ^ (uint64_t)(value >> 63);

    while (rest >= 0x80) {
        *p++ = (uint8_t)(rest | 0x80);
        rest >>= 7;
    }
    *p++ = (uint8_t)rest;
    return p;
}

static inline uint8_t *
put_fixed64(uint8_t *p, uint64_t value)
{
    value = __builtin_bswap64(value);
    memcpy(p, &value, sizeof(value));
    return p + sizeof(value);
}

/* Copies of up to 32 bytes are two overlapping moves: cheaper than a call. */
static inline uint8_t *
put_bytes(uint8_t *to, const char *from, size_t n)
{
    if (n >= 8 && n <= 16) {
        memcpy(to, from, 8);
        memcpy(to + n - 8, from + n - 8, 8);
    } else if (n > 16 && n <= 32) {
        memcpy(to, from, 16);
        memcpy(to + n - 16, from + n - 16, 16);
    } else if (n >= 4 && n < 8) {
        memcpy(to, from, 4);
        memcpy(to + n - 4, from + n - 4, 4);
    } else if (n > 32) {
        memcpy(to, from, n);
    } else if (n > 0) {
        to[0] = (uint8_t)from[0];
        to[n / 2] = (uint8_t)from[n / 2];
        to[n - 1] = (uint8_t)from[n - 1];
    }
    return to + n;
}

/* The limit is what keeps the body within CLICK_BODY_MAX: the parser judged it. */
static inline uint8_t *
put_str(uint8_t *p, struct str s, uint32_t limit)
{
    assert(s.n <= limit);
    if (s.n < 64) {
        *p++ = (uint8_t)(s.n << 1);
    } else {
        p[0] = (uint8_t)(s.n << 1 | 0x80); /* limits are below 8192: two bytes */
        p[1] = (uint8_t)(s.n >> 6);
        p += 2;
    }
    return put_bytes(p, s.p, s.n);
}

/* Union of null and string: absent is the empty string. */
static inline uint8_t *
put_optional(uint8_t *p, struct str s, uint32_t limit)
{
    if (s.n == 0) {
        *p++ = 0;
        return p;
    }
    *p++ = 2;
    return put_str(p, s, limit);
}

static inline uint8_t *
put_optional_long(uint8_t *p, bool present, int64_t value)
{
    if (!present) {
        *p++ = 0;
        return p;
    }
    *p++ = 2;
    return put_long(p, value);
}

static uint8_t *
put_optionals(uint8_t *p, const struct click *c)
{
    p = put_optional(p, c->ad_group_id, LIMIT_ad_group_id);
    p = put_optional(p, c->creative_id, LIMIT_creative_id);
    p = put_optional(p, c->variant_id, LIMIT_variant_id);
    p = put_optional_long(p, c->has_xy, c->click_x);
    p = put_optional_long(p, c->has_xy, c->click_y);
    p = put_optional(p, c->impression_id, LIMIT_impression_id);
    p = put_optional_long(p, c->has_impression_ts, c->impression_ms);
    p = put_optional(p, c->currency, LIMIT_currency);
    *p++ = c->test;
    p = put_optional(p, c->tcf, LIMIT_tcf);
    p = put_optional(p, c->gpp, LIMIT_gpp);
    return put_optional(p, c->purpose, LIMIT_purpose);
}

size_t
click_encode_body(const struct click *click, uint8_t out[CLICK_BODY_MAX])
{
    const struct click *c = click;
    uint8_t *p = out;

    assert(c->signature <= CLICK_SIGNATURE_BAD);
    assert(c->device < CLICK_DEVICES_N);
    p = put_long(p, c->account);
    p = put_long(p, c->key);
    p = put_str(p, c->remote, 16);
    *p++ = (uint8_t)(c->signature << 1);
    memcpy(p, c->event_id, sizeof(c->event_id));
    p += sizeof(c->event_id);
    p = put_long(p, c->timestamp_ms);
    p = put_str(p, c->campaign_id, LIMIT_campaign_id);
    p = put_str(p, c->ad_id, LIMIT_ad_id);
    p = put_str(p, c->publisher_id, LIMIT_publisher_id);
    p = put_str(p, c->user_id, LIMIT_user_id);
    p = put_str(p, c->ip, 16);
    p = put_str(p, c->user_agent, LIMIT_user_agent);
    p = put_str(p, c->referer, LIMIT_referer);
    *p++ = (uint8_t)(c->device << 1);
    p = put_str(p, c->os, LIMIT_os);
    p = put_str(p, c->country, LIMIT_country);
    p = put_str(p, c->city, LIMIT_city);
    p = put_long(p, c->price_micros);
    p = put_optionals(p, c);
    assert(p - out <= CLICK_BODY_MAX);
    return (size_t)(p - out);
}

size_t
click_encode_prefix(const struct click *click, uint8_t *out)
{
    uint8_t *p = put_fixed64(out, click->incarnation);

    p = put_long(p, click->partition);
    p = put_long(p, (int64_t)click->seq);
    p = put_long(p, click->received_us);
    return (size_t)(p - out);
}

/* ---- decoding ---- */

/* Every reader leaves bad set and p at end when the record does not decode, so that one
 * check at the end is enough. bad holds the name of the first field at fault. */
struct reader {
    const uint8_t *p;
    const uint8_t *end;
    const char *bad;
};

static void
spoil(struct reader *r, const char *field)
{
    if (r->bad == NULL)
        r->bad = field;
    r->p = r->end;
}

static int64_t
get_long_slow(struct reader *r, const char *field)
{
    uint64_t value = 0;

    for (unsigned shift = 0; r->p < r->end && shift < 7 * VARINT_MAX; shift += 7) {
        uint8_t byte = *r->p++;

        if (shift == 63 && byte > 1)
            break;
        value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80)
            return (int64_t)(value >> 1) ^ -(int64_t)(value & 1);
    }
    spoil(r, field);
    return 0;
}

static inline int64_t
get_long(struct reader *r, const char *field)
{
    if (r->p < r->end && *r->p < 0x80) {
        uint8_t byte = *r->p++;

        return (int64_t)(byte >> 1) ^ -(int64_t)(byte & 1);
    }
    return get_long_slow(r, field);
}

static inline uint64_t
get_range(struct reader *r, uint64_t max, const char *field)
{
    uint64_t value = (uint64_t)get_long(r, field);

    if (__builtin_expect(value > max, 0)) {
        spoil(r, field);
        return 0;
    }
    return value;
}

static inline struct str
get_str(struct reader *r, uint32_t limit, const char *field)
{
    uint64_t n = get_range(r, limit, field);
    const uint8_t *p = r->p;

    if (__builtin_expect(n > (uint64_t)(r->end - p), 0)) {
        spoil(r, field);
        return (struct str){NULL, 0};
    }
    r->p = p + n;
    return (struct str){(const char *)p, (uint32_t)n};
}

static inline bool
get_present(struct reader *r, const char *field)
{
    if (__builtin_expect(r->p < r->end && *r->p <= 2 && *r->p != 1, 1))
        return *r->p++ != 0;
    spoil(r, field);
    return false;
}

static inline struct str
get_optional(struct reader *r, uint32_t limit, const char *field)
{
    if (!get_present(r, field))
        return (struct str){NULL, 0};
    return get_str(r, limit, field);
}

static inline struct str
get_address(struct reader *r, bool required, const char *field)
{
    struct str s = get_str(r, 16, field);

    if (s.n != 4 && s.n != 16 && (required || s.n != 0))
        spoil(r, field);
    return s;
}

static inline void
get_fixed(struct reader *r, void *out, size_t n, const char *field)
{
    if (__builtin_expect((size_t)(r->end - r->p) < n, 0)) {
        spoil(r, field);
        return;
    }
    memcpy(out, r->p, n);
    r->p += n;
}

static void
get_prefix(struct reader *r, struct click *c)
{
    uint64_t incarnation = 0;

    get_fixed(r, &incarnation, sizeof(incarnation), "incarnation");
    c->incarnation = __builtin_bswap64(incarnation);
    c->partition = (uint32_t)get_range(r, INT32_MAX, "partition");
    c->seq = (uint64_t)get_long(r, "seq");
    c->received_us = get_long(r, "received_at");
    c->account = (uint32_t)get_range(r, UINT32_MAX, "account");
    c->key = (uint32_t)get_range(r, UINT32_MAX, "key");
    c->remote = get_address(r, false, "remote");
    c->signature = (uint8_t)get_range(r, CLICK_SIGNATURE_BAD, "signature");
}

static void
get_required(struct reader *r, struct click *c)
{
    get_fixed(r, c->event_id, sizeof(c->event_id), "event_id");
    c->timestamp_ms = get_long(r, "timestamp");
    c->campaign_id = get_str(r, LIMIT_campaign_id, "campaign_id");
    c->ad_id = get_str(r, LIMIT_ad_id, "ad_id");
    c->publisher_id = get_str(r, LIMIT_publisher_id, "publisher_id");
    c->user_id = get_str(r, LIMIT_user_id, "user_id");
    c->ip = get_address(r, true, "ip_address");
    c->user_agent = get_str(r, LIMIT_user_agent, "user_agent");
    c->referer = get_str(r, LIMIT_referer, "referer");
    c->device = (uint8_t)get_range(r, CLICK_DEVICES_N - 1, "device_type");
    c->os = get_str(r, LIMIT_os, "os");
    c->country = get_str(r, LIMIT_country, "country");
    c->city = get_str(r, LIMIT_city, "city");
    c->price_micros = get_long(r, "cost_per_click");
}

static void
get_position(struct reader *r, struct click *c)
{
    bool has_x = get_present(r, "click_x"), has_y;

    c->click_x = has_x ? (uint16_t)get_range(r, UINT16_MAX, "click_x") : 0;
    has_y = get_present(r, "click_y");
    c->click_y = has_y ? (uint16_t)get_range(r, UINT16_MAX, "click_y") : 0;
    if (has_x != has_y)
        spoil(r, "click_y");
    c->has_xy = has_x && has_y;
}

static void
get_optionals(struct reader *r, struct click *c, unsigned version)
{
    c->ad_group_id = get_optional(r, LIMIT_ad_group_id, "ad_group_id");
    c->creative_id = get_optional(r, LIMIT_creative_id, "creative_id");
    c->variant_id = get_optional(r, LIMIT_variant_id, "variant_id");
    get_position(r, c);
    c->impression_id = get_optional(r, LIMIT_impression_id, "impression_id");
    c->has_impression_ts = get_present(r, "impression_ts");
    c->impression_ms = c->has_impression_ts ? get_long(r, "impression_ts") : 0;
    c->currency = get_optional(r, LIMIT_currency, "currency");
    if (r->p < r->end && *r->p <= 1)
        c->test = *r->p++ != 0;
    else
        spoil(r, "test");
    c->tcf = get_optional(r, LIMIT_tcf, "tcf");
    c->gpp = get_optional(r, LIMIT_gpp, "gpp");
    if (version >= 2)
        c->purpose = get_optional(r, LIMIT_purpose, "purpose");
    else
        c->purpose = (struct str){NULL, 0};
}

enum err
click_decode(struct click *out, const uint8_t *p, size_t n, unsigned version,
             size_t *used, struct why *why)
{
    struct reader r = {p, p + n, NULL};

    if (version < CLICK_VERSION_FIRST || version > CLICK_VERSION)
        return err_set(
            why, ERR_CORRUPT,
            "click: record version %u is unknown (known: %d..%d): upgrade "
            "this reader",
            version, CLICK_VERSION_FIRST, CLICK_VERSION);
    get_prefix(&r, out);
    get_required(&r, out);
    get_optionals(&r, out, version);
    if (r.bad != NULL)
        return err_set(why, ERR_CORRUPT, "click: record of %zu bytes: bad %s", n,
                       r.bad);
    if (used != NULL)
        *used = (size_t)(r.p - p);
    return ERR_OK;
}

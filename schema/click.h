/* schema/click.h - the click: READ FIRST.
 *
 * CLICK_FIELDS is the one table of fields, limits and rules. Validation, the texts of
 * errors and docs/api.md are made from it; the order of the binary record is in click.avsc.
 *
 *   JSON text --click_parse--> struct click --click_encode_body--> log entry
 *   record    --click_decode--> struct click
 *
 * Units    timestamp_ms, impression_ms: UTC milliseconds; received_us: microseconds;
 *          price_micros: millionths of the currency unit.
 * Memory   struct click borrows: its strings point into the JSON text itself, into the
 *          parser (what had escapes, the address) or into the record. Nothing is
 *          allocated per click.
 * Errors   A bad click is data: struct click_error, not enum err.
 * Threads  A click_parser belongs to one thread; the rest is pure.
 * Source   RFC 8259 (strict), RFC 9562 (UUID), RFC 3339, RFC 4291/5952, ISO 3166-1.
 */
#ifndef SCHEMA_CLICK_H
#define SCHEMA_CLICK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/str.h"

/* kind: UUID, TIME, TOKEN (printable ASCII without space, quote, backslash or
 * control), TEXT (UTF-8, no control characters but tab), IP, COUNTRY (two capitals),
 * DEVICE (of CLICK_DEVICES), MONEY, CURRENCY (ISO 4217), INTEGER, BOOL.
 * X(name, kind, required, min, max, prose): min..max are bytes of text, or the number's
 * range. */
#define CLICK_FIELDS(X)                                                            \
    X(event_id, UUID, 1, 36, 36,                                                   \
      "the click's id, drawn by the ad server; repeat it in retries")              \
    X(timestamp, TIME, 1, 20, 35, "when the user clicked")                         \
    X(campaign_id, TOKEN, 1, 1, 64, "the campaign that pays")                      \
    X(ad_id, TOKEN, 1, 1, 64, "the ad clicked")                                    \
    X(publisher_id, TOKEN, 1, 1, 64, "where the ad was shown")                     \
    X(user_id, TOKEN, 1, 1, 128, "the user, pseudonymous")                         \
    X(ip_address, IP, 1, 2, 45, "the user's address, v4 or v6")                    \
    X(user_agent, TEXT, 1, 0, 1024,                                                \
      "the browser's User-Agent; empty if it sent none")                           \
    X(referer, TEXT, 1, 0, 2048, "the page the click came from; empty if unknown") \
    X(device_type, DEVICE, 1, 2, 16, "desktop, mobile, tablet, tv or other")       \
    X(os, TEXT, 1, 0, 64, "the operating system")                                  \
    X(country, COUNTRY, 1, 2, 2,                                                   \
      "where the user is said to be, ISO 3166-1 alpha-2")                          \
    X(city, TEXT, 1, 0, 128, "the user's city; may be empty")                      \
    X(cost_per_click, MONEY, 1, 0, 1000000000000, "the price, at most 6 places")   \
    X(ad_group_id, TOKEN, 0, 1, 64, "the ad's group")                              \
    X(creative_id, TOKEN, 0, 1, 64, "the creative shown")                          \
    X(variant_id, TOKEN, 0, 1, 64, "the variant of a test")                        \
    X(click_x, INTEGER, 0, 0, 65535, "pixels from the ad's left edge")             \
    X(click_y, INTEGER, 0, 0, 65535, "pixels from the ad's top edge")              \
    X(impression_id, TOKEN, 0, 1, 64, "the impression clicked")                    \
    X(impression_ts, TIME, 0, 20, 35, "when the impression was shown")             \
    X(currency, CURRENCY, 0, 3, 3,                                                 \
      "the price's currency; the campaign's if absent")                            \
    X(test, BOOL, 0, 0, 1, "true: never billed")                                   \
    X(tcf, TOKEN, 0, 1, 4096, "IAB TCF consent string")                            \
    X(gpp, TOKEN, 0, 1, 4096, "IAB GPP consent string")                            \
    X(purpose, TOKEN, 0, 1, 32, "the request's Sec-Purpose, such as prefetch")

enum click_field {
#define X(name, kind, required, min, max, prose) CLICK_##name,
    CLICK_FIELDS(X)
#undef X
        CLICK_FIELDS_N
};

#define CLICK_DEVICES(X) X(desktop) X(mobile) X(tablet) X(tv) X(other)

enum click_device {
#define X(name) CLICK_DEVICE_##name,
    CLICK_DEVICES(X)
#undef X
        CLICK_DEVICES_N
};

enum {
    CLICK_VERSION = 2, /* of the record; 1 had no `purpose` */
    CLICK_VERSION_FIRST = 1,
    CLICK_BODY_MAX = 20480, /* bytes; the sum of all limits is below it */
};

enum click_signature {
    CLICK_SIGNATURE_NONE,
    CLICK_SIGNATURE_GOOD,
    CLICK_SIGNATURE_BAD
};

struct click {
    /* written by the log */
    uint64_t incarnation;
    uint32_t partition;
    uint64_t seq;
    int64_t received_us;
    /* added by ingest */
    uint32_t account;
    uint32_t key;      /* the API key's number */
    struct str remote; /* 4 or 16 bytes */
    uint8_t signature; /* enum click_signature */
    /* the event */
    uint8_t event_id[16];
    int64_t timestamp_ms;
    struct str campaign_id, ad_id, publisher_id, user_id;
    struct str ip; /* 4 or 16 bytes; v4-mapped v6 becomes v4 */
    struct str user_agent, referer;
    uint8_t device; /* enum click_device */
    struct str os, country, city;
    int64_t price_micros;
    /* optional: absent is n == 0, or the has_ flag */
    struct str ad_group_id, creative_id, variant_id, impression_id;
    struct str currency, tcf, gpp, purpose;
    int64_t impression_ms;
    uint16_t click_x, click_y;
    bool has_impression_ts, has_xy, test;
};

/* code is a stable word for machines: json, missing, type, length, characters, range,
 * value, duplicate_key, too_old, too_new, too_large. */
struct click_error {
    const char *code;
    const char *field; /* "" when it is about the whole click */
    char event_id[37]; /* "" when unreadable */
    char message[256]; /* names the field and the fix */
};

struct click_parser;

enum err click_parser_open(struct click_parser **out, size_t click_bytes_max,
                           struct why *why);
void click_parser_close(struct click_parser **parser);

struct click_limits {
    int64_t now_ms;
    int64_t future_ms_max, past_ms_max;
};

/* One JSON object, unpadded. Returns true and fills click, which borrows from json and,
 * until its next call, from the parser; or false and fills error. unknown gets the number
 * of unknown fields. */
bool click_parse(struct click_parser *parser, struct str json,
                 const struct click_limits *limits, struct click *click,
                 struct click_error *error, unsigned *unknown);

/* Splits a body: calls visit for each element's text. An object is one element, an array
 * its elements (strictly checked whole first: a malformed array visits nothing), anything
 * after a first line end that follows an object is NDJSON, one element a line, empty lines
 * passed over. Returns false and fills error if nothing can be visited. */
bool click_split(struct click_parser *parser, struct str body, unsigned clicks_max,
                 bool (*visit)(void *ctx, unsigned index, struct str json),
                 void *ctx, struct click_error *error);

/* The Avro record from `account` on. Returns bytes written (at most CLICK_BODY_MAX). */
size_t click_encode_body(const struct click *click, uint8_t out[CLICK_BODY_MAX]);
/* The four fields that the log writes; for tests and the archive. */
size_t click_encode_prefix(const struct click *click, uint8_t *out);
/* A whole record. ERR_CORRUPT if it does not decode; *used gets its length. */
enum err click_decode(struct click *out, const uint8_t *p, size_t n,
                      unsigned version, size_t *used, struct why *why);
/* The Avro schema (JSON text) of a version; NULL if unknown. And back: 0 if unknown. */
const char *click_schema(unsigned version);
unsigned click_schema_version(struct str schema_json);

/* Everything about the click as a JSON object, for people. */
void click_format_json(const struct click *click, struct buf *out);
const char *click_device_name(unsigned device);
/* The table as Markdown, for docs/api.md. */
void click_document(struct buf *out);

#endif

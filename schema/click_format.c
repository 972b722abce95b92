/* The click for people: as JSON, and its table as Markdown. */
#include "schema/click.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/clock.h"
#include "common/money.h"
#include "schema/text.h"

static const char *const device_names[CLICK_DEVICES_N] = {
#define X(name) #name,
    CLICK_DEVICES(X)
#undef X
};

const char *
click_device_name(unsigned device)
{
    return device < CLICK_DEVICES_N ? device_names[device] : "unknown";
}

static void
add_text(struct buf *out, const char *name, struct str value)
{
    buf_printf(out, ",\"%s\":", name);
    buf_add_json(out, value);
}

static void
add_optional(struct buf *out, const char *name, struct str value)
{
    if (value.n > 0)
        add_text(out, name, value);
}

static void
add_address(struct buf *out, const char *name, struct str ip)
{
    char text[IP_TEXT_SIZE];

    add_text(out, name, str_of(ip_format(ip, text)));
}

static void
add_time(struct buf *out, const char *name, int64_t ms)
{
    char text[CLOCK_TEXT_SIZE];

    add_text(out, name, str_of(clock_format_ms(ms, text)));
}

static void
add_server_part(struct buf *out, const struct click *c)
{
    static const char *const signatures[] = {"none", "good", "bad"};

    buf_printf(out,
               "\"incarnation\":\"%016" PRIx64 "\",\"partition\":%" PRIu32
               ",\"seq\":%" PRIu64,
               c->incarnation, c->partition, c->seq);
    add_time(out, "received_at", c->received_us / 1000);
    buf_printf(out, ",\"received_us\":%" PRId64, c->received_us);
    buf_printf(out, ",\"account\":%" PRIu32 ",\"key\":%" PRIu32, c->account,
               c->key);
    add_address(out, "remote", c->remote);
    add_text(out, "signature",
             str_of(c->signature <= CLICK_SIGNATURE_BAD ? signatures[c->signature]
                                                        : "unknown"));
}

static void
add_required(struct buf *out, const struct click *c)
{
    char id[UUID_TEXT_SIZE], price[MONEY_TEXT_SIZE];

    add_text(out, "event_id", str_of(uuid_format(c->event_id, id)));
    add_time(out, "timestamp", c->timestamp_ms);
    add_text(out, "campaign_id", c->campaign_id);
    add_text(out, "ad_id", c->ad_id);
    add_text(out, "publisher_id", c->publisher_id);
    add_text(out, "user_id", c->user_id);
    add_address(out, "ip_address", c->ip);
    add_text(out, "user_agent", c->user_agent);
    add_text(out, "referer", c->referer);
    add_text(out, "device_type", str_of(click_device_name(c->device)));
    add_text(out, "os", c->os);
    add_text(out, "country", c->country);
    add_text(out, "city", c->city);
    add_text(out, "cost_per_click",
             str_of(money_format(c->price_micros, MONEY_PLACES_MAX, price)));
}

static void
add_optionals(struct buf *out, const struct click *c)
{
    add_optional(out, "ad_group_id", c->ad_group_id);
    add_optional(out, "creative_id", c->creative_id);
    add_optional(out, "variant_id", c->variant_id);
    if (c->has_xy)
        buf_printf(out, ",\"click_x\":%u,\"click_y\":%u", c->click_x, c->click_y);
    add_optional(out, "impression_id", c->impression_id);
    if (c->has_impression_ts)
        add_time(out, "impression_ts", c->impression_ms);
    add_optional(out, "currency", c->currency);
    if (c->test)
        buf_add_text(out, ",\"test\":true");
    add_optional(out, "tcf", c->tcf);
    add_optional(out, "gpp", c->gpp);
    add_optional(out, "purpose", c->purpose);
}

void
click_format_json(const struct click *click, struct buf *out)
{
    buf_add_text(out, "{");
    add_server_part(out, click);
    add_required(out, click);
    add_optionals(out, click);
    buf_add_text(out, "}");
}

/* ---- the table ---- */

#define WORDS_UUID     "UUID"
#define WORDS_TIME     "RFC 3339 time with zone"
#define WORDS_TOKEN    "printable ASCII without space, quote, backslash"
#define WORDS_TEXT     "UTF-8 without control characters but tab"
#define WORDS_IP       "IPv4 or IPv6 address"
#define WORDS_COUNTRY  "two capitals of ISO 3166-1"
#define WORDS_DEVICE   "one of the names"
#define WORDS_MONEY    "decimal, number or string"
#define WORDS_CURRENCY "three capitals of ISO 4217"
#define WORDS_INTEGER  "integer"
#define WORDS_BOOL     "true or false"

#define UNIT_UUID     "bytes"
#define UNIT_TIME     "bytes"
#define UNIT_TOKEN    "bytes"
#define UNIT_TEXT     "bytes"
#define UNIT_IP       "bytes"
#define UNIT_COUNTRY  "bytes"
#define UNIT_DEVICE   "bytes"
#define UNIT_MONEY    "micros"
#define UNIT_CURRENCY "bytes"
#define UNIT_INTEGER  "value"
#define UNIT_BOOL     "value"

void
click_document(struct buf *out)
{
    static const struct {
        const char *name, *words, *unit, *prose;
        bool required;
        int64_t min, max;
    } rows[] = {
#define X(name, kind, required, min, max, prose) \
    {#name, WORDS_##kind, UNIT_##kind, prose, required, min, max},
        CLICK_FIELDS(X)
#undef X
    };

    buf_add_text(out, "| field | required | what | limit | meaning |\n"
                      "|---|---|---|---|---|\n");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        buf_printf(out, "| `%s` | %s | %s | %" PRId64 "..%" PRId64 " %s | %s |\n",
                   rows[i].name, rows[i].required ? "yes" : "no", rows[i].words,
                   rows[i].min, rows[i].max, rows[i].unit, rows[i].prose);
}

/* A click that is accepted is within every limit: it fits into its record, and comes back
 * from it; shown as JSON and parsed again, it is the same record. A body is split into
 * texts that lie within it, in order. */
#include <string.h>

#include "schema/click.h"
#include "tests/fuzz/fuzz.h"

enum { CLICK_BYTES_MAX = 32768, CLICKS_MAX = 50 };

#define ALL                                                                       \
    "{\"event_id\":\"0d9e3f6a-52c1-4b7e-9a40-6c1f2e8b7d55\",\"timestamp\":"       \
    "\"2026-11-21T09:08:07.123Z\",\"campaign_id\":\"c1\",\"ad_id\":\"a1\","       \
    "\"publisher_id\":\"p1\",\"user_id\":\"u1\",\"ip_address\":\"203.0.113.7\","  \
    "\"user_agent\":\"Mozilla\\u002f5.0\",\"referer\":\"\",\"device_type\":"      \
    "\"tv\","                                                                     \
    "\"os\":\"\",\"country\":\"DE\",\"city\":\"K\xc3\xb6ln\",\"cost_per_click\":" \
    "0.25"

const char *const fuzz_seeds[] = {
    ALL "}",
    ALL ",\"click_x\":1,\"click_y\":65535,\"test\":true,\"currency\":\"EUR\"}",
    ALL ",\"zz\":{\"a\":[1,2.5e-3,null,\"\\ud83d\\ude00\"]},\"tcf\":null}",
    "[" ALL "}," ALL "}]",
    ALL "}\n" ALL "}\n",
    "[{},[],\"\\n\",true,-0.1E+2]",
    NULL};

struct seen {
    struct click_parser *parser;
    const char *next, *end;
    unsigned index;
};

static const struct click_limits limits = {INT64_C(1795252087123), INT64_C(1) << 40,
                                           INT64_C(1) << 42};

static void
check_again(struct click_parser *parser, const struct click *click,
            const uint8_t *body, size_t n)
{
    static uint8_t again[CLICK_BODY_MAX];
    struct buf json = BUF_MAX(1 << 20);
    struct click_error error;
    struct click other;
    unsigned unknown;

    click_format_json(click, &json);
    FUZZ_CHECK(!json.failed);
    FUZZ_CHECK(click_parse(parser, (struct str){(char *)json.p, (uint32_t)json.n},
                           &limits, &other, &error, &unknown));
    FUZZ_CHECK(unknown == 9); /* what the server adds */
    FUZZ_CHECK(click_encode_body(&other, again) == n);
    FUZZ_CHECK(memcmp(again, body, n) == 0);
    buf_free(&json);
}

static void
check_one(struct click_parser *parser, struct str json)
{
    static uint8_t record[CLICK_BODY_MAX + 64], again[CLICK_BODY_MAX];
    struct click_error error = {0};
    struct click click, back;
    unsigned unknown;
    size_t prefix, n, used;

    if (!click_parse(parser, json, &limits, &click, &error, &unknown)) {
        FUZZ_CHECK(error.code != NULL && error.field != NULL &&
                   error.message[0] != 0);
        return;
    }
    prefix = click_encode_prefix(&click, record);
    n = click_encode_body(&click, record + prefix);
    FUZZ_CHECK(click_decode(&back, record, prefix + n, CLICK_VERSION, &used,
                            NULL) == ERR_OK);
    FUZZ_CHECK(used == prefix + n);
    FUZZ_CHECK(click_encode_body(&back, again) == n);
    FUZZ_CHECK(memcmp(again, record + prefix, n) == 0);
    check_again(parser, &back, record + prefix, n);
}

static bool
visit(void *ctx, unsigned index, struct str json)
{
    struct seen *seen = ctx;
    struct click_error error;
    struct click click;

    FUZZ_CHECK(index == seen->index++);
    FUZZ_CHECK(index < CLICKS_MAX);
    FUZZ_CHECK(json.p >= seen->next && json.p + json.n <= seen->end && json.n > 0);
    seen->next = json.p + json.n;
    (void)click_parse(seen->parser, json, &limits, &click, &error, NULL);
    return true;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct click_parser *parser;
    struct str json = {(const char *)data, (uint32_t)size};
    struct seen seen = {NULL, json.p, json.p + size, 0};
    struct click_error error;

    if (parser == NULL)
        FUZZ_CHECK(click_parser_open(&parser, CLICK_BYTES_MAX, NULL) == ERR_OK);
    seen.parser = parser;
    check_one(parser, json);
    FUZZ_CHECK(click_split(parser, json, CLICKS_MAX, visit, &seen, &error) ==
               (seen.index > 0));
    return 0;
}

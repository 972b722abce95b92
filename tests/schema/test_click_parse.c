/* The click from JSON: a table of inputs with the code and field that each must give,
 * then every field and every limit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "schema/click.h"
#include "schema/text.h"

#define ROWS(table) (sizeof(table) / sizeof((table)[0]))
#define NOW_MS      INT64_C(1795252087123) /* 2026-11-21T09:08:07.123Z */

enum { CLICK_BYTES_MAX = 32768, TEXT_MAX = 131072 };

static const struct click_limits limits = {NOW_MS, 5 * INT64_C(60000),
                                           7 * INT64_C(86400000)};

#define EVENT_ID "\"event_id\":\"0d9e3f6a-52c1-4b7e-9a40-6c1f2e8b7d55\""
#define TIME     "\"timestamp\":\"2026-11-21T09:08:07.123Z\""
#define CAMPAIGN "\"campaign_id\":\"c1\""
#define REST                                                                      \
    "\"ad_id\":\"a1\",\"publisher_id\":\"p1\",\"user_id\":\"u1\",\"user_agent\":" \
    "\"Mozilla/"                                                                  \
    "5.0\",\"referer\":\"\",\"device_type\":\"mobile\",\"os\":\"\",\"city\":\"\""
#define IP      "\"ip_address\":\"203.0.113.7\""
#define COUNTRY "\"country\":\"DE\""
#define COST    "\"cost_per_click\":0.25"
/* All that is required but one field, which the row gives. */
#define NO_COST     "{" EVENT_ID "," TIME "," CAMPAIGN "," REST "," IP "," COUNTRY
#define NO_TIME     "{" EVENT_ID "," CAMPAIGN "," REST "," IP "," COUNTRY "," COST
#define NO_CAMPAIGN "{" EVENT_ID "," TIME "," REST "," IP "," COUNTRY "," COST
#define NO_IP       "{" EVENT_ID "," TIME "," CAMPAIGN "," REST "," COUNTRY "," COST
#define NO_COUNTRY  "{" EVENT_ID "," TIME "," CAMPAIGN "," REST "," IP "," COST
#define NO_EVENT_ID "{" TIME "," CAMPAIGN "," REST "," IP "," COUNTRY "," COST
#define ALL         NO_COST "," COST

static const struct {
    const char *json, *code, *field; /* code NULL: good */
} rows[] = {
    {ALL "}", NULL, NULL},
    {" \n" ALL " }\r\n ", NULL, NULL},
    /* objects */
    {"", "json", ""},
    {"  ", "json", ""},
    {"{}", "missing", "event_id"},
    {"[]", "type", ""},
    {"5", "type", ""},
    {"\"x\"", "type", ""},
    {ALL, "json", ""},
    {ALL ",}", "json", ""},
    {ALL "}}", "json", ""},
    {ALL "} {}", "json", ""},
    {ALL "]", "json", ""},
    {ALL ",\"x\":1 \"y\":2}", "json", ""},
    {ALL ",\"x\" 1}", "json", ""},
    {ALL ",x:1}", "json", ""},
    {ALL ",\"x\"}", "json", ""},
    {ALL ",\"os\"}", "json", "os"},
    {ALL ",\"test\":}", "json", "test"},
    {ALL ",\"test\":", "json", "test"},
    {"{\"os\":\"abc}", "json", "os"},
    /* missing, null, twice */
    {NO_COST "}", "missing", "cost_per_click"},
    {NO_CAMPAIGN "}", "missing", "campaign_id"},
    {NO_CAMPAIGN ",\"campaign_id\":null}", "type", "campaign_id"},
    {ALL ",\"tcf\":null,\"click_x\":null,\"test\":null,\"impression_ts\":null}",
     NULL, NULL},
    {ALL "," COST "}", "duplicate_key", "cost_per_click"},
    {ALL ",\"tcf\":null,\"tcf\":\"x\"}", "duplicate_key", "tcf"},
    {ALL ",\"cost\\u005fper_click\":1}", "duplicate_key", "cost_per_click"},
    {ALL ",\"zz\":1,\"zy\":2,\"zz\":3}", "duplicate_key", ""},
    {ALL ",\"zz\":1,\"\\u007az\":3}", "duplicate_key", ""},
    /* money */
    {NO_COST ",\"cost_per_click\":\"0.25\"}", NULL, NULL},
    {NO_COST ",\"cost_per_click\":1000000 }", NULL, NULL},
    {NO_COST ",\"cost_per_click\":1000000.000001}", "range", "cost_per_click"},
    {NO_COST ",\"cost_per_click\":\"99999999999999999999\"}", "value",
     "cost_per_click"},
    {NO_COST ",\"cost_per_click\":0.0000001}", "value", "cost_per_click"},
    {NO_COST ",\"cost_per_click\":1e2}", "value", "cost_per_click"},
    {NO_COST ",\"cost_per_click\":-1}", "range", "cost_per_click"},
    {NO_COST ",\"cost_per_click\":\"-1\"}", "range", "cost_per_click"},
    {NO_COST ",\"cost_per_click\":\"\"}", "value", "cost_per_click"},
    {NO_COST ",\"cost_per_click\":\"1,5\"}", "value", "cost_per_click"},
    {NO_COST ",\"cost_per_click\":01}", "json", "cost_per_click"},
    {NO_COST ",\"cost_per_click\":1.}", "json", "cost_per_click"},
    {NO_COST ",\"cost_per_click\":.5}", "json", "cost_per_click"},
    {NO_COST ",\"cost_per_click\":+1}", "json", "cost_per_click"},
    {NO_COST ",\"cost_per_click\":NaN}", "json", "cost_per_click"},
    {NO_COST ",\"cost_per_click\":1e999}", "value", "cost_per_click"},
    {NO_COST ",\"cost_per_click\":true}", "type", "cost_per_click"},
    {NO_COST ",\"cost_per_click\":[1]}", "type", "cost_per_click"},
    {NO_COST ",\"cost_per_click\":[1}", "json", "cost_per_click"},
    /* texts */
    {NO_CAMPAIGN ",\"campaign_id\":\"\"}", "length", "campaign_id"},
    {NO_CAMPAIGN ",\"campaign_id\":\"a b\"}", "characters", "campaign_id"},
    {NO_CAMPAIGN ",\"campaign_id\":\"a\\\"b\"}", "characters", "campaign_id"},
    {NO_CAMPAIGN ",\"campaign_id\":\"abcdefghi\\\\b\"}", "characters",
     "campaign_id"},
    {NO_CAMPAIGN ",\"campaign_id\":\"abcdefgh\x7f\"}", "characters", "campaign_id"},
    {NO_CAMPAIGN ",\"campaign_id\":\"abcdefghijklm o\"}", "characters",
     "campaign_id"},
    {NO_CAMPAIGN ",\"campaign_id\":\"gr\xc3\xbc\xc3\x9f"
                 "e-aus-hamburg\"}",
     "characters", "campaign_id"},
    {NO_CAMPAIGN ",\"campaign_id\":\"\\u0000\"}", "characters", "campaign_id"},
    {NO_CAMPAIGN ",\"campaign_id\":7}", "type", "campaign_id"},
    {NO_CAMPAIGN ",\"campaign_id\":{\"a\":1}}", "type", "campaign_id"},
    {NO_CAMPAIGN ",\"campaign_id\":\"\\u0041\\/\\u007e\"}", NULL, NULL},
    {ALL ",\"ad_group_id\":\"\"}", "length", "ad_group_id"},
    {ALL ",\"purpose\":\"prefetch;prerender\"}", NULL, NULL},
    {ALL ",\"purpose\":\"prefetch prerender\"}", "characters", "purpose"},
    /* strings that JSON does not have */
    {NO_COST ",\"cost_per_click\":0.25,\"tcf\":\"a\xff\"}", "json", "tcf"},
    {NO_COST ",\"cost_per_click\":0.25,\"tcf\":\"a\xed\xa0\x80\"}", "json", "tcf"},
    {NO_COST ",\"cost_per_click\":0.25,\"tcf\":\"a\xc0\xaf\"}", "json", "tcf"},
    {NO_COST ",\"cost_per_click\":0.25,\"tcf\":\"a\tb\"}", "json", "tcf"},
    {NO_COST ",\"cost_per_click\":0.25,\"tcf\":\"\\ud800\"}", "json", "tcf"},
    {NO_COST ",\"cost_per_click\":0.25,\"tcf\":\"\\udc00\\udc01\"}", "json", "tcf"},
    {NO_COST ",\"cost_per_click\":0.25,\"tcf\":\"\\udc00\\ud800\"}", "json", "tcf"},
    {NO_COST ",\"cost_per_click\":0.25,\"tcf\":\"\\ud800\\u0041\"}", "json", "tcf"},
    {NO_COST ",\"cost_per_click\":0.25,\"tcf\":\"\\x41\"}", "json", "tcf"},
    {NO_COST ",\"cost_per_click\":0.25,\"tcf\":\"\\u00g1\"}", "json", "tcf"},
    {NO_COST ",\"cost_per_click\":0.25,\"zz\":\"\xff\"}", "json", ""},
    {NO_COST ",\"cost_per_click\":0.25,\"zz\":\"\\ud800\"}", "json", ""},
    {NO_COST ",\"cost_per_click\":0.25,\"zz\":[\"\\ud83d\\ude00\"]}", NULL, NULL},
    /* the other kinds */
    {NO_EVENT_ID ",\"event_id\":\"0d9e3f6a\"}", "value", "event_id"},
    {NO_EVENT_ID ",\"event_id\":\"00000000-0000-0000-0000-000000000000\"}", "value",
     "event_id"},
    {NO_TIME ",\"timestamp\":\"2026-11-21\"}", "value", "timestamp"},
    {NO_TIME ",\"timestamp\":1795252087123}", "type", "timestamp"},
    {NO_TIME ",\"timestamp\":\"2026-11-21T09:13:07.123Z\"}", NULL, NULL},
    {NO_TIME ",\"timestamp\":\"2026-11-21T09:13:07.124Z\"}", "too_new",
     "timestamp"},
    {NO_TIME ",\"timestamp\":\"2026-11-14T09:08:07.123Z\"}", NULL, NULL},
    {NO_TIME ",\"timestamp\":\"2026-11-14T09:08:07.122Z\"}", "too_old",
     "timestamp"},
    {NO_IP ",\"ip_address\":\"2001:db8::1\"}", NULL, NULL},
    {NO_IP ",\"ip_address\":\"1.2.3\"}", "value", "ip_address"},
    {NO_COUNTRY ",\"country\":\"de\"}", "value", "country"},
    {NO_COUNTRY ",\"country\":\"UK\"}", "value", "country"},
    {NO_COUNTRY ",\"country\":\"D\"}", "length", "country"},
    {ALL ",\"currency\":\"EUR\"}", NULL, NULL},
    {ALL ",\"currency\":\"XXX\"}", "value", "currency"},
    {ALL ",\"currency\":\"EURO\"}", "length", "currency"},
    {ALL ",\"test\":true}", NULL, NULL},
    {ALL ",\"test\":\"true\"}", "type", "test"},
    {ALL ",\"test\":1}", "type", "test"},
    {ALL ",\"test\":tru}", "json", "test"},
    {ALL ",\"test\":truee}", "json", "test"},
    {ALL ",\"test\":true false}", "json", ""},
    {ALL ",\"click_x\":0,\"click_y\":65535}", NULL, NULL},
    {ALL ",\"click_x\":0}", "missing", "click_y"},
    {ALL ",\"click_y\":0,\"click_x\":null}", "missing", "click_x"},
    {ALL ",\"click_x\":0,\"click_y\":65536}", "range", "click_y"},
    {ALL ",\"click_x\":-1,\"click_y\":5}", "range", "click_x"},
    {ALL ",\"click_x\":1.0,\"click_y\":5}", "type", "click_x"},
    {ALL ",\"click_x\":1e1,\"click_y\":5}", "type", "click_x"},
    {ALL ",\"click_x\":\"1\",\"click_y\":5}", "type", "click_x"},
    {ALL ",\"click_x\":99999999999999999999999,\"click_y\":5}", "range", "click_x"},
    {ALL ",\"impression_ts\":\"2026-11-21T09:08:07Z\"}", NULL, NULL},
    {ALL ",\"impression_ts\":\"yesterday\"}", "value", "impression_ts"},
    /* unknown values are checked to their end */
    {ALL ",\"zz\":{\"a\":[1,2,{\"b\":null}],\"c\":\"\\n\"}}", NULL, NULL},
    {ALL ",\"zz\":tru}", "json", ""},
    {ALL ",\"zz\":1e308}", "json", ""},
    {ALL ",\"zz\":1e307}", NULL, NULL},
    {ALL ",\"zz\":-1e99999999999999999999}", "json", ""},
    {ALL ",\"zz\":[1,]}", "json", ""},
    {ALL ",\"zz\":{\"a\":1,}}", "json", ""},
    {ALL ",\"zz\":{\"a\"}}", "json", ""},
    {ALL ",\"zz\":\"\\q\"}", "json", ""},
    {ALL ",\"\":1}", NULL, NULL},
};

struct fixture {
    struct click_parser *parser;
    struct click click;
    struct click_error error;
    unsigned unknown;
    char *kept; /* the click borrows from it */
};

static int
setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    *state = f;
    return f == NULL ||
           click_parser_open(&f->parser, CLICK_BYTES_MAX, NULL) != ERR_OK;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;

    click_parser_close(&f->parser);
    assert_null(f->parser);
    free(f->kept);
    free(f);
    return 0;
}

/* In memory of its own length, so that a sanitizer sees one byte read too far. */
static bool
parse(struct fixture *f, const char *json, size_t n)
{
    free(f->kept);
    f->kept = malloc(n + (n == 0));
    assert_non_null(f->kept);
    memcpy(f->kept, json, n);
    return click_parse(f->parser, (struct str){f->kept, (uint32_t)n}, &limits,
                       &f->click, &f->error, &f->unknown);
}

static void
each_input_gives_its_code_and_field(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i < ROWS(rows); i++) {
        bool good = parse(f, rows[i].json, strlen(rows[i].json));

        if (good != (rows[i].code == NULL))
            fail_msg("%s: %s", rows[i].json, good ? "good" : f->error.message);
        if (good)
            continue;
        if (strcmp(f->error.code, rows[i].code) != 0 ||
            strcmp(f->error.field, rows[i].field) != 0)
            fail_msg("%s: code %s field %s: %s", rows[i].json, f->error.code,
                     f->error.field, f->error.message);
        assert_true(strlen(f->error.message) > 0);
        if (f->error.field[0] != '\0')
            assert_memory_equal(f->error.message, f->error.field,
                                strlen(f->error.field));
    }
}

static void
every_field_arrives_in_the_click(void **state)
{
    static const char json[] =
        "{\"event_id\":\"0D9E3F6A-52c1-4b7e-9a40-6c1f2e8b7d55\",\"timestamp\":"
        "\"2026-11-21T10:08:07.123+01:00\",\"campaign_id\":\"camp\",\"ad_id\":"
        "\"ad\","
        "\"publisher_id\":\"pub\",\"user_id\":\"user\",\"ip_address\":"
        "\"::ffff:203.0.113.7\",\"user_agent\":\"Mozilla \\u00fc\\t\",\"referer\":"
        "\"https:\\/\\/"
        "x\",\"device_type\":\"tv\",\"os\":\"Linux\",\"country\":\"DE\","
        "\"city\":\"K\xc3\xb6ln\",\"cost_per_click\" : 1.000001 "
        ",\"ad_group_id\":\"g\","
        "\"creative_id\":\"cr\",\"variant_id\":\"v\",\"click_x\":12,\"click_y\":34,"
        "\"impression_id\":\"i\",\"impression_ts\":\"2026-11-21T09:00:00Z\","
        "\"currency\":\"EUR\",\"test\":true,\"tcf\":\"t\",\"gpp\":\"gp\","
        "\"purpose\":"
        "\"prefetch\",\"more\":{},\"and\":[]}";
    struct fixture *f = *state;
    struct click *c = &f->click;
    char text[UUID_TEXT_SIZE];

    assert_true(parse(f, json, sizeof(json) - 1));
    assert_int_equal(f->unknown, 2);
    assert_string_equal(uuid_format(c->event_id, text),
                        "0d9e3f6a-52c1-4b7e-9a40-6c1f2e8b7d55");
    assert_int_equal(c->timestamp_ms, NOW_MS);
    assert_true(str_equal(c->campaign_id, STR("camp")));
    assert_true(str_equal(c->ad_id, STR("ad")));
    assert_true(str_equal(c->publisher_id, STR("pub")));
    assert_true(str_equal(c->user_id, STR("user")));
    assert_true(str_equal(c->ip, STR("\xcb\x00\x71\x07")));
    assert_true(str_equal(c->user_agent, STR("Mozilla \xc3\xbc\t")));
    assert_true(str_equal(c->referer, STR("https://x")));
    assert_int_equal(c->device, CLICK_DEVICE_tv);
    assert_true(str_equal(c->os, STR("Linux")));
    assert_true(str_equal(c->country, STR("DE")));
    assert_true(str_equal(c->city, STR("K\xc3\xb6ln")));
    assert_int_equal(c->price_micros, 1000001);
    assert_true(str_equal(c->ad_group_id, STR("g")));
    assert_true(str_equal(c->creative_id, STR("cr")));
    assert_true(str_equal(c->variant_id, STR("v")));
    assert_true(c->has_xy);
    assert_int_equal(c->click_x, 12);
    assert_int_equal(c->click_y, 34);
    assert_true(str_equal(c->impression_id, STR("i")));
    assert_true(c->has_impression_ts);
    assert_int_equal(c->impression_ms, INT64_C(1795251600000));
    assert_true(str_equal(c->currency, STR("EUR")));
    assert_true(c->test);
    assert_true(str_equal(c->tcf, STR("t")));
    assert_true(str_equal(c->gpp, STR("gp")));
    assert_true(str_equal(c->purpose, STR("prefetch")));
}

static void
a_refused_click_names_its_event_id_if_it_can_be_read(void **state)
{
    struct fixture *f = *state;
    const char *json = "{\"zz\":{\"event_id\":1},\"country\":\"??\"," EVENT_ID "}";

    assert_false(parse(f, json, strlen(json)));
    assert_string_equal(f->error.event_id, "0d9e3f6a-52c1-4b7e-9a40-6c1f2e8b7d55");
    json = "{\"country\":\"??\",\"event_id\":7}";
    assert_false(parse(f, json, strlen(json)));
    assert_string_equal(f->error.event_id, "");
}

/* ---- limits ---- */

static const struct {
    const char *name;
    unsigned max;
} lengths[] = {
    {"ad_group_id", 64},   {"creative_id", 64}, {"variant_id", 64},
    {"impression_id", 64}, {"tcf", 4096},       {"gpp", 4096},
    {"purpose", 32},
};

static void
a_text_may_have_its_limit_and_no_byte_more(void **state)
{
    struct fixture *f = *state;
    char *json = malloc(TEXT_MAX);
    char want[64];

    assert_non_null(json);
    for (size_t i = 0; i < ROWS(lengths); i++) {
        for (unsigned extra = 0; extra <= 1; extra++) {
            size_t n =
                (size_t)snprintf(json, TEXT_MAX, ALL ",\"%s\":\"", lengths[i].name);

            memset(json + n, 'x', lengths[i].max + extra);
            n += lengths[i].max + extra;
            memcpy(json + n, "\"}", 2);
            assert_int_equal(parse(f, json, n + 2), extra == 0);
            if (extra == 0)
                continue;
            assert_string_equal(f->error.code, "length");
            (void)snprintf(want, sizeof(want),
                           "%s: %u bytes, at most %u: shorten it", lengths[i].name,
                           lengths[i].max + 1, lengths[i].max);
            assert_string_equal(f->error.message, want);
        }
    }
    free(json);
}

static void
depth_unknown_fields_and_bytes_have_their_limits(void **state)
{
    struct fixture *f = *state;
    char *json = calloc(1, TEXT_MAX);
    size_t n;

    assert_non_null(json);
    for (int depth = 63; depth <= 64; depth++) { /* and the click itself */
        n = (size_t)snprintf(json, TEXT_MAX, ALL ",\"zz\":");
        memset(json + n, '[', (size_t)depth);
        memset(json + n + depth, ']', (size_t)depth);
        json[n + 2 * (size_t)depth] = '}';
        assert_int_equal(parse(f, json, n + 2 * (size_t)depth + 1), depth == 63);
    }
    for (int unknown = 64; unknown <= 65; unknown++) {
        n = (size_t)snprintf(json, TEXT_MAX, ALL);
        for (int i = 0; i < unknown; i++)
            n += (size_t)snprintf(json + n, TEXT_MAX - n, ",\"z%d\":%d", i, i);
        json[n++] = '}';
        assert_int_equal(parse(f, json, n), unknown == 64);
    }
    assert_string_equal(f->error.code, "too_large");
    for (int extra = 0; extra <= 1; extra++) {
        n = (size_t)snprintf(json, TEXT_MAX, ALL "}");
        memset(json + n, ' ', TEXT_MAX - n);
        assert_int_equal(parse(f, json, CLICK_BYTES_MAX + (size_t)extra),
                         extra == 0);
    }
    assert_string_equal(f->error.code, "too_large");
    free(json);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(each_input_gives_its_code_and_field),
        TEST(every_field_arrives_in_the_click),
        TEST(a_refused_click_names_its_event_id_if_it_can_be_read),
        TEST(a_text_may_have_its_limit_and_no_byte_more),
        TEST(depth_unknown_fields_and_bytes_have_their_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

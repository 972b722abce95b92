/* The hand-tuned record against the Avro C library, both ways, field by field, on random
 * clicks; a container file of the older schema; and records that are damaged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <avro.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "schema/avrofile.h"
#include "schema/click.h"

enum { CLICKS = 3000, RECORD_MAX = CLICK_BODY_MAX + 64, POOL = 8192 };

static uint64_t
draw(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

static int64_t
draw_long(uint64_t *seed)
{
    return (int64_t)((draw(seed) << 32 ^ draw(seed)) << (draw(seed) % 3) >>
                     (draw(seed) % 62));
}

/* ---- random clicks ---- */

static char pool[POOL];

static struct str
draw_str(uint64_t *seed, uint32_t min, uint32_t max)
{
    uint32_t n = draw(seed) % 8 == 0 ? max
                 : draw(seed) % 8 == 0
                     ? min
                     : min + (uint32_t)(draw(seed) % (max - min + 1));

    return (struct str){pool + draw(seed) % (POOL - max + 1), n};
}

static struct str
draw_optional(uint64_t *seed, uint32_t max)
{
    return draw(seed) % 2 == 0 ? (struct str){NULL, 0} : draw_str(seed, 1, max);
}

static void
draw_required(uint64_t *seed, struct click *c)
{
    c->incarnation = draw(seed) << 40 ^ draw(seed);
    c->partition = (uint32_t)(draw(seed) % 256);
    c->seq = draw(seed) % 3 == 0 ? draw(seed) << 20 : draw(seed) % 100;
    c->received_us = draw_long(seed);
    c->account = draw(seed) % 4 == 0 ? UINT32_MAX : (uint32_t)(draw(seed) % 1000);
    c->key = (uint32_t)draw(seed);
    c->remote = draw_str(seed, 4, 4);
    c->signature = (uint8_t)(draw(seed) % 3);
    memcpy(c->event_id, pool + draw(seed) % 1000, 16);
    c->timestamp_ms = draw_long(seed);
    c->campaign_id = draw_str(seed, 1, 64);
    c->ad_id = draw_str(seed, 1, 64);
    c->publisher_id = draw_str(seed, 1, 64);
    c->user_id = draw_str(seed, 1, 128);
    c->ip = draw(seed) % 2 == 0 ? draw_str(seed, 4, 4) : draw_str(seed, 16, 16);
    c->user_agent = draw_str(seed, 0, 1024);
    c->referer = draw_str(seed, 0, 2048);
    c->device = (uint8_t)(draw(seed) % CLICK_DEVICES_N);
    c->os = draw_str(seed, 0, 64);
    c->country = draw_str(seed, 2, 2);
    c->city = draw_str(seed, 0, 128);
    c->price_micros = (int64_t)(draw(seed) * draw(seed) % UINT64_C(1000000000001));
}

static struct click
draw_click(uint64_t *seed)
{
    struct click c = {0};

    draw_required(seed, &c);
    c.ad_group_id = draw_optional(seed, 64);
    c.creative_id = draw_optional(seed, 64);
    c.variant_id = draw_optional(seed, 64);
    c.has_xy = draw(seed) % 2 == 0;
    if (c.has_xy) {
        c.click_x = (uint16_t)draw(seed);
        c.click_y = (uint16_t)draw(seed);
    }
    c.impression_id = draw_optional(seed, 64);
    c.has_impression_ts = draw(seed) % 2 == 0;
    if (c.has_impression_ts)
        c.impression_ms = draw_long(seed);
    if (draw(seed) % 2 == 0)
        c.currency = draw_str(seed, 3, 3);
    c.test = draw(seed) % 2 == 0;
    c.tcf = draw_optional(seed, 4096);
    c.gpp = draw_optional(seed, 4096);
    c.purpose = draw_optional(seed, 32);
    return c;
}

static void
assert_same_str(struct str a, struct str b)
{
    assert_true(str_equal(a, b));
}

static void
assert_same(const struct click *a, const struct click *b)
{
    assert_int_equal(a->incarnation, b->incarnation);
    assert_int_equal(a->partition, b->partition);
    assert_int_equal(a->seq, b->seq);
    assert_int_equal(a->received_us, b->received_us);
    assert_int_equal(a->account, b->account);
    assert_int_equal(a->key, b->key);
    assert_same_str(a->remote, b->remote);
    assert_int_equal(a->signature, b->signature);
    assert_memory_equal(a->event_id, b->event_id, 16);
    assert_int_equal(a->timestamp_ms, b->timestamp_ms);
    assert_same_str(a->campaign_id, b->campaign_id);
    assert_same_str(a->ad_id, b->ad_id);
    assert_same_str(a->publisher_id, b->publisher_id);
    assert_same_str(a->user_id, b->user_id);
    assert_same_str(a->ip, b->ip);
    assert_same_str(a->user_agent, b->user_agent);
    assert_same_str(a->referer, b->referer);
    assert_int_equal(a->device, b->device);
    assert_same_str(a->os, b->os);
    assert_same_str(a->country, b->country);
    assert_same_str(a->city, b->city);
    assert_int_equal(a->price_micros, b->price_micros);
    assert_same_str(a->ad_group_id, b->ad_group_id);
    assert_same_str(a->creative_id, b->creative_id);
    assert_same_str(a->variant_id, b->variant_id);
    assert_int_equal(a->has_xy, b->has_xy);
    assert_int_equal(a->click_x, b->click_x);
    assert_int_equal(a->click_y, b->click_y);
    assert_same_str(a->impression_id, b->impression_id);
    assert_int_equal(a->has_impression_ts, b->has_impression_ts);
    assert_int_equal(a->impression_ms, b->impression_ms);
    assert_same_str(a->currency, b->currency);
    assert_int_equal(a->test, b->test);
    assert_same_str(a->tcf, b->tcf);
    assert_same_str(a->gpp, b->gpp);
    assert_same_str(a->purpose, b->purpose);
}

/* ---- libavro's view: fields by name ---- */

static avro_value_t
field(const avro_value_t *record, const char *name)
{
    avro_value_t value;

    assert_int_equal(avro_value_get_by_name(record, name, &value, NULL), 0);
    return value;
}

static void
set_text(const avro_value_t *to, struct str s)
{
    char *text = malloc(s.n + 1);
    avro_value_t value = *to;

    assert_non_null(text);
    if (s.n > 0)
        memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    assert_int_equal(avro_value_set_string_len(&value, text, s.n + 1), 0);
    free(text);
}

static void
set_str(const avro_value_t *record, const char *name, struct str s)
{
    avro_value_t value = field(record, name);

    set_text(&value, s);
}

static void
set_bytes(const avro_value_t *record, const char *name, struct str s)
{
    avro_value_t value = field(record, name);
    char copy[16];

    memcpy(copy, s.p, s.n);
    assert_int_equal(avro_value_set_bytes(&value, copy, s.n), 0);
}

static void
set_long(const avro_value_t *record, const char *name, int64_t number)
{
    avro_value_t value = field(record, name);

    assert_int_equal(avro_value_set_long(&value, number), 0);
}

static void
set_fixed(const avro_value_t *record, const char *name, const void *p, size_t n)
{
    avro_value_t value = field(record, name);
    char copy[16];

    memcpy(copy, p, n);
    assert_int_equal(avro_value_set_fixed(&value, copy, n), 0);
}

static avro_value_t
branch(const avro_value_t *record, const char *name, bool present)
{
    avro_value_t value = field(record, name), inside;

    assert_int_equal(avro_value_set_branch(&value, present, &inside), 0);
    if (!present)
        assert_int_equal(avro_value_set_null(&inside), 0);
    return inside;
}

static void
set_optional(const avro_value_t *record, const char *name, struct str s)
{
    avro_value_t inside = branch(record, name, s.n > 0);

    if (s.n > 0)
        set_text(&inside, s);
}

static void
set_head(const avro_value_t *r, const struct click *c)
{
    uint64_t incarnation = __builtin_bswap64(c->incarnation);
    avro_value_t value;

    set_fixed(r, "incarnation", &incarnation, 8);
    value = field(r, "partition");
    assert_int_equal(avro_value_set_int(&value, (int32_t)c->partition), 0);
    set_long(r, "seq", (int64_t)c->seq);
    set_long(r, "received_at", c->received_us);
    set_long(r, "account", c->account);
    set_long(r, "key", c->key);
    set_bytes(r, "remote", c->remote);
    value = field(r, "signature");
    assert_int_equal(avro_value_set_enum(&value, c->signature), 0);
    set_fixed(r, "event_id", c->event_id, 16);
    set_long(r, "timestamp", c->timestamp_ms);
    set_str(r, "campaign_id", c->campaign_id);
    set_str(r, "ad_id", c->ad_id);
    set_str(r, "publisher_id", c->publisher_id);
    set_str(r, "user_id", c->user_id);
    set_bytes(r, "ip_address", c->ip);
    set_str(r, "user_agent", c->user_agent);
    set_str(r, "referer", c->referer);
    value = field(r, "device_type");
    assert_int_equal(avro_value_set_enum(&value, c->device), 0);
    set_str(r, "os", c->os);
    set_str(r, "country", c->country);
    set_str(r, "city", c->city);
    set_long(r, "cost_per_click", c->price_micros);
}

static void
set_click(const avro_value_t *r, const struct click *c, unsigned version)
{
    avro_value_t value;

    set_head(r, c);
    set_optional(r, "ad_group_id", c->ad_group_id);
    set_optional(r, "creative_id", c->creative_id);
    set_optional(r, "variant_id", c->variant_id);
    value = branch(r, "click_x", c->has_xy);
    if (c->has_xy)
        assert_int_equal(avro_value_set_int(&value, c->click_x), 0);
    value = branch(r, "click_y", c->has_xy);
    if (c->has_xy)
        assert_int_equal(avro_value_set_int(&value, c->click_y), 0);
    set_optional(r, "impression_id", c->impression_id);
    value = branch(r, "impression_ts", c->has_impression_ts);
    if (c->has_impression_ts)
        assert_int_equal(avro_value_set_long(&value, c->impression_ms), 0);
    set_optional(r, "currency", c->currency);
    value = field(r, "test");
    assert_int_equal(avro_value_set_boolean(&value, c->test), 0);
    set_optional(r, "tcf", c->tcf);
    set_optional(r, "gpp", c->gpp);
    if (version >= 2)
        set_optional(r, "purpose", c->purpose);
}

/* ---- both ways ---- */

struct avro {
    avro_schema_t schema;
    avro_value_iface_t *iface;
    avro_value_t value, other;
};

static struct avro
avro_make(unsigned version)
{
    const char *json = click_schema(version);
    struct avro a;

    assert_non_null(json);
    assert_int_equal(avro_schema_from_json_length(json, strlen(json), &a.schema),
                     0);
    a.iface = avro_generic_class_from_schema(a.schema);
    assert_int_equal(avro_generic_value_new(a.iface, &a.value), 0);
    assert_int_equal(avro_generic_value_new(a.iface, &a.other), 0);
    return a;
}

static void
avro_drop(struct avro *a)
{
    avro_value_decref(&a->value);
    avro_value_decref(&a->other);
    avro_value_iface_decref(a->iface);
    avro_schema_decref(a->schema);
}

static size_t
encode(const struct click *click, uint8_t *out)
{
    size_t n = click_encode_prefix(click, out);

    return n + click_encode_body(click, out + n);
}

static size_t
avro_encode(avro_value_t *value, uint8_t *out)
{
    avro_writer_t writer = avro_writer_memory((char *)out, RECORD_MAX);
    int64_t n;

    assert_int_equal(avro_value_write(writer, value), 0);
    n = avro_writer_tell(writer);
    avro_writer_free(writer);
    return (size_t)n;
}

static void
pool_fill(void)
{
    uint64_t seed = 5;

    for (size_t i = 0; i < POOL; i++)
        pool[i] = (char)('!' + draw(&seed) % 94);
}

/* The same bytes come from both encoders; the library reads ours as the value that was
 * set field by field; we read the library's as the click. */
static void
our_records_are_the_avro_librarys_byte_for_byte(void **state)
{
    struct avro a = avro_make(CLICK_VERSION);
    static uint8_t ours[RECORD_MAX], theirs[RECORD_MAX];
    uint64_t seed = 6;

    (void)state;
    for (int i = 0; i < CLICKS; i++) {
        struct click click = draw_click(&seed), back;
        size_t n = encode(&click, ours), used = 0;
        avro_reader_t reader = avro_reader_memory((char *)ours, (int64_t)n);

        assert_int_equal(avro_value_reset(&a.value), 0);
        set_click(&a.value, &click, CLICK_VERSION);
        assert_int_equal(avro_value_read(reader, &a.other), 0);
        assert_true(avro_value_equal_fast(&a.value, &a.other));
        avro_reader_free(reader);
        assert_int_equal(avro_encode(&a.value, theirs), n);
        assert_memory_equal(ours, theirs, n);
        memset(&back, 0xEE, sizeof(back));
        assert_int_equal(click_decode(&back, theirs, n, CLICK_VERSION, &used, NULL),
                         ERR_OK);
        assert_int_equal(used, n);
        assert_same(&click, &back);
    }
    avro_drop(&a);
}

static void
a_file_of_the_older_schema_stays_readable(void **state)
{
    char path[] = "/tmp/clickledger-test-v1-XXXXXX";
    struct avro a = avro_make(1);
    avro_file_writer_t writer;
    uint64_t seed = 7, again = 7, records;
    struct avrofile_reader *reader;
    struct str block;
    struct why why;
    int fd = mkstemp(path), read = 0;

    (void)state;
    assert_true(fd >= 0 && close(fd) == 0 && unlink(path) == 0);
    assert_int_equal(avro_file_writer_create(path, a.schema, &writer), 0);
    for (int i = 0; i < CLICKS; i++) {
        struct click click = draw_click(&seed);

        assert_int_equal(avro_value_reset(&a.value), 0);
        set_click(&a.value, &click, 1);
        assert_int_equal(avro_file_writer_append_value(writer, &a.value), 0);
    }
    assert_int_equal(avro_file_writer_close(writer), 0);
    assert_int_equal(avrofile_open(&reader, path, &why), ERR_OK);
    assert_int_equal(click_schema_version(avrofile_schema(reader)), 1);
    while (avrofile_block(reader, &block, &records, &why) == ERR_OK) {
        for (; records > 0; records--, read++) {
            struct click want = draw_click(&again), got;
            size_t used;

            want.purpose = (struct str){NULL, 0};
            assert_int_equal(click_decode(&got, (const uint8_t *)block.p, block.n,
                                          1, &used, &why),
                             ERR_OK);
            assert_same(&want, &got);
            block.p += used;
            block.n -= (uint32_t)used;
        }
        assert_int_equal(block.n, 0);
    }
    assert_int_equal(read, CLICKS);
    avrofile_close(&reader);
    assert_int_equal(unlink(path), 0);
    avro_drop(&a);
}

/* ---- damage ---- */

static void
every_cut_record_is_refused(void **state)
{
    static uint8_t record[RECORD_MAX];
    uint64_t seed = 8;

    (void)state;
    for (int i = 0; i < 30; i++) {
        struct click click = draw_click(&seed), back;
        size_t n = encode(&click, record);

        for (size_t cut = 0; cut < n; cut++) {
            uint8_t *copy = malloc(cut + 1);
            struct why why = {""};

            assert_non_null(copy);
            memcpy(copy, record, cut);
            if (click_decode(&back, copy, cut, CLICK_VERSION, NULL, &why) !=
                ERR_CORRUPT)
                fail_msg("%zu of %zu bytes decoded", cut, n);
            assert_true(why.text[0] != '\0');
            free(copy);
        }
    }
}

static void
a_damaged_record_decodes_within_its_bytes_or_not_at_all(void **state)
{
    static uint8_t record[RECORD_MAX], again[RECORD_MAX];
    uint64_t seed = 9;
    int decoded = 0;

    (void)state;
    for (int i = 0; i < 20000; i++) {
        struct click click = draw_click(&seed), back;
        size_t n = encode(&click, record), used = 0;
        uint8_t *copy = malloc(n);

        assert_non_null(copy);
        memcpy(copy, record, n);
        for (uint64_t flips = 1 + draw(&seed) % 4; flips > 0; flips--)
            copy[draw(&seed) % n] ^= (uint8_t)(1 + draw(&seed) % 255);
        if (click_decode(&back, copy, n, CLICK_VERSION, &used, NULL) == ERR_OK) {
            assert_true(used <= n);
            assert_true(encode(&back, again) <= RECORD_MAX);
            decoded++;
        }
        free(copy);
    }
    assert_true(decoded > 100);
}

static void
unknown_versions_are_refused(void **state)
{
    struct click click;
    uint8_t byte = 0;

    (void)state;
    assert_int_equal(click_decode(&click, &byte, 1, 0, NULL, NULL), ERR_CORRUPT);
    assert_int_equal(click_decode(&click, &byte, 1, CLICK_VERSION + 1, NULL, NULL),
                     ERR_CORRUPT);
}

static void
the_largest_click_fits(void **state)
{
    static uint8_t record[RECORD_MAX];
    struct click c = {
        .signature = 2, .device = CLICK_DEVICES_N - 1, .has_xy = true};
    struct click back;
    size_t n;

    (void)state;
    c.seq = UINT64_MAX;
    c.received_us = c.timestamp_ms = c.price_micros = c.impression_ms = INT64_MIN;
    c.account = c.key = UINT32_MAX;
    c.click_x = c.click_y = UINT16_MAX;
    c.has_impression_ts = c.test = true;
    c.remote = c.ip = (struct str){pool, 16};
    c.campaign_id = c.ad_id = c.publisher_id = c.ad_group_id = c.creative_id =
        c.variant_id = c.impression_id = c.os = (struct str){pool, 64};
    c.user_id = c.city = (struct str){pool, 128};
    c.user_agent = (struct str){pool, 1024};
    c.referer = (struct str){pool, 2048};
    c.country = (struct str){pool, 2};
    c.currency = (struct str){pool, 3};
    c.tcf = c.gpp = (struct str){pool, 4096};
    c.purpose = (struct str){pool, 32};
    n = encode(&c, record);
    assert_true(n <= CLICK_BODY_MAX);
    assert_int_equal(click_decode(&back, record, n, CLICK_VERSION, NULL, NULL),
                     ERR_OK);
    assert_same(&c, &back);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(our_records_are_the_avro_librarys_byte_for_byte),
        cmocka_unit_test(a_file_of_the_older_schema_stays_readable),
        cmocka_unit_test(every_cut_record_is_refused),
        cmocka_unit_test(a_damaged_record_decodes_within_its_bytes_or_not_at_all),
        cmocka_unit_test(unknown_versions_are_refused),
        cmocka_unit_test(the_largest_click_fits),
    };

    pool_fill();
    return cmocka_run_group_tests(tests, NULL, NULL);
}

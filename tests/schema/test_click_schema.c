/* The schemas as text, their versions told apart, and the click and its table for people. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <avro.h>
#include <stdio.h>
#include <stdlib.h>

#include "schema/click.h"

static void
the_schemas_are_those_of_the_files(void **state)
{
    static const char *const files[] = {"schema/click_v1.avsc",
                                        "schema/click.avsc"};
    static char text[65536];

    (void)state;
    for (unsigned version = 1; version <= CLICK_VERSION; version++) {
        FILE *file = fopen(files[version - 1], "r");
        size_t n;

        assert_non_null(file);
        n = fread(text, 1, sizeof(text), file);
        assert_int_equal(fclose(file), 0);
        assert_int_equal(n, strlen(click_schema(version)));
        assert_memory_equal(text, click_schema(version), n);
        assert_int_equal(click_schema_version((struct str){text, (uint32_t)n}),
                         version);
    }
    assert_null(click_schema(0));
    assert_null(click_schema(CLICK_VERSION + 1));
}

static void
a_schema_is_known_by_its_meaning(void **state)
{
    static char text[65536];
    avro_writer_t writer = avro_writer_memory(text, sizeof(text));
    avro_schema_t schema;

    (void)state;
    assert_int_equal(avro_schema_from_json_length(click_schema(2),
                                                  strlen(click_schema(2)), &schema),
                     0);
    assert_int_equal(avro_schema_to_json(schema, writer), 0);
    assert_int_equal(click_schema_version(
                         (struct str){text, (uint32_t)avro_writer_tell(writer)}),
                     2);
    avro_writer_free(writer);
    avro_schema_decref(schema);
    assert_int_equal(click_schema_version(STR("")), 0);
    assert_int_equal(click_schema_version(STR("{")), 0);
    assert_int_equal(click_schema_version(STR("\"long\"")), 0);
    assert_int_equal(click_schema_version(STR(
                         "{\"type\":\"record\",\"name\":\"click\",\"fields\":[]}")),
                     0);
}

static void
a_click_is_shown_as_json(void **state)
{
    struct buf out = BUF_MAX(1 << 20);
    struct click click = {.ip = STR("\xcb\x00\x71\x07"), .event_id = {1}};

    (void)state;
    click.campaign_id = STR("c1");
    click.user_agent = STR("a \"quoted\" agent");
    click.timestamp_ms = INT64_C(1795252087123);
    click.received_us = INT64_C(1795252087123456);
    click.price_micros = 250000;
    click.device = CLICK_DEVICE_tablet;
    click_format_json(&click, &out);
    buf_add(&out, "", 1);
    assert_false(out.failed);
    assert_int_equal(out.p[0], '{');
    assert_non_null(
        strstr((char *)out.p, "\"user_agent\":\"a \\\"quoted\\\" agent\""));
    assert_non_null(
        strstr((char *)out.p, "\"timestamp\":\"2026-11-21T09:08:07.123Z\""));
    assert_non_null(strstr((char *)out.p, "\"cost_per_click\":\"0.250000\""));
    assert_non_null(strstr((char *)out.p, "\"device_type\":\"tablet\""));
    assert_non_null(strstr((char *)out.p, "\"ip_address\":\"203.0.113.7\""));
    assert_non_null(strstr((char *)out.p, "\"campaign_id\":\"c1\""));
    assert_null(strstr((char *)out.p, "click_x"));
    buf_free(&out);
    assert_string_equal(click_device_name(99), "unknown");
}

static void
the_table_is_written_as_markdown(void **state)
{
    struct buf out = BUF_MAX(65536);

    (void)state;
    click_document(&out);
    buf_add(&out, "", 1);
    assert_false(out.failed);
    assert_non_null(strstr((char *)out.p, "| `campaign_id` | yes | "));
    assert_non_null(strstr((char *)out.p, "1..64 bytes"));
    assert_non_null(strstr((char *)out.p, "| `purpose` | no | "));
    buf_free(&out);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_schemas_are_those_of_the_files),
        cmocka_unit_test(a_schema_is_known_by_its_meaning),
        cmocka_unit_test(a_click_is_shown_as_json),
        cmocka_unit_test(the_table_is_written_as_markdown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* A growing buffer against a plain array, and its JSON strings against a table. */
#include "common/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define CASE(in, want)               \
    {                                \
        (in), sizeof(in) - 1, (want) \
    }

static void
json_strings_are_escaped_and_always_utf8(void **state)
{
    static const struct {
        const char *in;
        size_t n;
        const char *want;
    } cases[] = {
        CASE("", "\"\""),
        CASE("plain", "\"plain\""),
        CASE("a\"b\\c/", "\"a\\\"b\\\\c/\""),
        CASE("\b\t\n\f\r", "\"\\b\\t\\n\\f\\r\""),
        CASE("\0\x01\x1f\x7f", "\"\\u0000\\u0001\\u001f\x7f\""),
        CASE("Zürich 漢 😀", "\"Zürich 漢 😀\""),
        CASE("\xff", "\"\xEF\xBF\xBD\""),
        CASE("a\xC3", "\"a\xEF\xBF\xBD\""),
        CASE("\xC0\x80", "\"\xEF\xBF\xBD\xEF\xBF\xBD\""),
        CASE("\xED\xA0\x80", "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""),
        CASE("\xF4\x90\x80\x80x",
             "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDx\""),
        CASE("\xF4\x8F\xBF\xBF", "\"\xF4\x8F\xBF\xBF\""),
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf buf = BUF_MAX(1000);

        buf_add_json(&buf, (struct str){cases[i].in, (uint32_t)cases[i].n});
        assert_false(buf.failed);
        assert_int_equal(buf.n, strlen(cases[i].want));
        assert_memory_equal(buf.p, cases[i].want, buf.n);
        buf_free(&buf);
    }
}

static void
it_agrees_with_an_array_for_random_appends(void **state)
{
    static char model[100000];
    struct buf buf = BUF_MAX(sizeof(model));
    size_t n = 0;

    (void)state;
    srand(1);
    while (n < sizeof(model) - 64) {
        char piece[32];
        int length = rand() % 32;

        for (int i = 0; i < length; i++)
            piece[i] = (char)('a' + rand() % 26);
        memcpy(model + n, piece, (size_t)length);
        n += (size_t)length;
        if (rand() % 2 == 0)
            buf_add(&buf, piece, (size_t)length);
        else
            buf_printf(&buf, "%.*s", length, piece);
        assert_false(buf.failed);
        assert_int_equal(buf.n, n);
    }
    assert_memory_equal(buf.p, model, n);
    buf_free(&buf);
}

static void
at_its_maximum_it_fails_and_keeps_what_it_has(void **state)
{
    struct buf buf = BUF_MAX(5);

    (void)state;
    buf_printf(&buf, "%s", "12345");
    assert_false(buf.failed);
    assert_int_equal(buf.cap, 5);
    buf_add_text(&buf, "");
    assert_false(buf.failed);
    buf_add_text(&buf, "6");
    assert_true(buf.failed);
    buf_printf(&buf, "%d", 7);
    assert_null(buf_room(&buf, 0));
    assert_int_equal(buf.n, 5);
    assert_memory_equal(buf.p, "12345", 5);
    buf_reset(&buf);
    assert_false(buf.failed);
    buf_printf(&buf, "%d", 123456);
    assert_true(buf.failed);
    assert_int_equal(buf.n, 0);
    buf_free(&buf);
    assert_int_equal(buf.max, 5);
}

static void
nothing_and_too_much_are_both_allowed_to_ask_for(void **state)
{
    struct buf buf = BUF_MAX(0);

    (void)state;
    buf_add(&buf, NULL, 0);
    buf_add_str(&buf, (struct str){NULL, 0});
    assert_false(buf.failed);
    assert_non_null(buf_room(&buf, 0));
    assert_null(buf_room(&buf, SIZE_MAX));
    assert_true(buf.failed);
    buf_free(&buf);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_strings_are_escaped_and_always_utf8),
        cmocka_unit_test(it_agrees_with_an_array_for_random_appends),
        cmocka_unit_test(at_its_maximum_it_fails_and_keeps_what_it_has),
        cmocka_unit_test(nothing_and_too_much_are_both_allowed_to_ask_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

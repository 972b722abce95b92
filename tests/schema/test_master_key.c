#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "schema/master_key.h"

#include <stdio.h>

#include "schema/master.h"

static void
scopes_are_read_and_written(void **state)
{
    static const struct {
        const char *text;
        uint32_t scopes;
    } table[] = {
        {"ingest", MASTER_INGEST},
        {"ingest,read", MASTER_INGEST | MASTER_READ},
        {"read, ingest", MASTER_INGEST | MASTER_READ},
        {"admin,billing,read,ingest", 15},
        {"read,read", MASTER_READ},
        {"", 0},
        {"ingest,", 0},
        {"Ingest", 0},
        {"write", 0},
        {"ingest read", 0},
    };
    char text[MASTER_SCOPES_TEXT_SIZE];
    struct why why;

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
        uint32_t scopes = 99;
        enum err err = master_scopes_parse(str_of(table[i].text), &scopes, &why);

        assert_int_equal(err, table[i].scopes == 0 ? ERR_INVALID : ERR_OK);
        assert_int_equal(scopes, table[i].scopes == 0 ? 99 : table[i].scopes);
    }
    assert_string_equal(master_scopes_format(15, text),
                        "ingest,read,billing,admin");
    assert_string_equal(master_scopes_format(MASTER_READ, text), "read");
    assert_string_equal(master_scopes_format(0, text), "");
}

static void
only_a_text_of_a_keys_form_is_hashed(void **state)
{
    static const char good[] =
        "ck_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    char text[sizeof(good)];
    uint8_t sha[32];

    (void)state;
    assert_true(master_key_hash(str_of(good), sha));
    assert_false(master_key_hash((struct str){good, sizeof(good) - 2}, sha));
    assert_false(master_key_hash((struct str){good, sizeof(good)}, sha));
    for (size_t i = 0; i + 1 < sizeof(good); i++) {
        memcpy(text, good, sizeof(good));
        text[i] = 'G';
        assert_false(master_key_hash(str_of(text), sha));
    }
    assert_false(master_key_hash(STR(""), sha));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scopes_are_read_and_written),
        cmocka_unit_test(only_a_text_of_a_keys_form_is_hashed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

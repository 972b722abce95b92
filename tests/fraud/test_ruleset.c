/* In a folder of its own, removed at the end. */

#include "fraud/ruleset.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/file.h"
#include "fraud/ruleset_load.h"
#include "tests/fraud/fraud_fixture.h"

struct room {
    char root[64], dir[128], data[128];
    struct ruleset_source *source;
};

static const char *
path_in(const char *dir, const char *name)
{
    static char path[FILE_PATH_MAX];

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void
put(const char *dir, const char *name, const char *text)
{
    struct why why;

    assert_int_equal(file_write(path_in(dir, name), text, strlen(text), &why),
                     ERR_OK);
}

static int
room_make(void **state)
{
    struct room *room = calloc(1, sizeof(*room));
    struct why why;

    assert_non_null(room);
    (void)snprintf(room->root, sizeof(room->root),
                   "/tmp/clickledger-ruleset-XXXXXX");
    assert_non_null(mkdtemp(room->root));
    (void)snprintf(room->dir, sizeof(room->dir), "%s/rules", room->root);
    (void)snprintf(room->data, sizeof(room->data), "%s/data", room->root);
    assert_int_equal(file_mkdirs(room->dir, &why), ERR_OK);
    assert_int_equal(file_mkdirs(room->data, &why), ERR_OK);
    *state = room;
    return 0;
}

static void
tree_remove(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        char inner[FILE_PATH_MAX];

        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        (void)snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name);
        tree_remove(inner);
    }
    if (dir != NULL)
        (void)closedir(dir);
    (void)remove(path);
}

static int
room_remove(void **state)
{
    struct room *room = *state;

    ruleset_close(&room->source);
    tree_remove(room->root);
    free(room);
    return 0;
}

static uint16_t
number_of(struct ruleset_source *source)
{
    const struct ruleset *set = ruleset_take(source);
    uint16_t number = ruleset_number(set);

    assert_int_not_equal(number, 0);
    ruleset_drop(source, set);
    return number;
}

/* Returns the set's number. */
static uint16_t
source_open(struct room *room)
{
    struct why why;

    ruleset_close(&room->source);
    assert_int_equal(ruleset_open(&room->source, room->dir, room->data, &why),
                     ERR_OK);
    return number_of(room->source);
}

static bool
is_bad(struct room *room, struct str ip)
{
    const struct ruleset *set = ruleset_take(room->source);
    bool bad = ruleset_address_bad(set, ip);

    ruleset_drop(room->source, set);
    return bad;
}

static void
the_built_in_set_has_the_documented_thresholds_and_keeps_its_number(void **state)
{
    struct room *room = *state;
    struct why why;
    uint16_t number = 0;

    for (int again = 0; again < 2; again++) {
        assert_int_equal(ruleset_open(&room->source, NULL, room->data, &why),
                         ERR_OK);
        const struct ruleset *set = ruleset_take(room->source);

        if (again == 0)
            number = ruleset_number(set);
        assert_int_equal(ruleset_number(set), number);
        assert_memory_equal(ruleset_limits(set), &DEFAULTS, sizeof(DEFAULTS));
        assert_false(ruleset_address_bad(set, STR("\1\2\3\4")));
        assert_true(ruleset_honeypot(set, STR("honeypot")));
        assert_true(ruleset_honeypot(set, STR("honeypot-7")));
        assert_false(ruleset_honeypot(set, STR("honeypo")));
        assert_false(ruleset_honeypot(set, STR("my-honeypot")));
        ruleset_drop(room->source, set);
        ruleset_close(&room->source);
    }
}

static void
a_changed_file_swaps_in_a_new_set_with_another_number(void **state)
{
    struct room *room = *state;
    struct why why;
    bool changed;

    put(room->dir, "addresses.txt",
        "# bad\n\n  192.0.2.1 \r\n2001:db8::1\n::ffff:192.0.2.9\n");
    put(room->dir, "honeypots.txt", "trap-1\ntrap-2");
    put(room->dir, "rules.json", "{\"address_second_max\": 5}");
    uint16_t first = source_open(room);
    assert_true(is_bad(room, STR("\xc0\0\2\1")));
    assert_true(is_bad(room, STR("\xc0\0\2\x09")));
    assert_true(is_bad(room, STR("\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1")));
    assert_false(is_bad(room, STR("\xc0\0\2\2")));
    assert_int_equal(ruleset_poll(room->source, &changed, &why), ERR_OK);
    assert_false(changed);

    const struct ruleset *old = ruleset_take(room->source);

    put(room->dir, "addresses.txt", "192.0.2.2\n");
    assert_int_equal(ruleset_poll(room->source, &changed, &why), ERR_OK);
    assert_true(changed);
    assert_false(is_bad(room, STR("\xc0\0\2\1")));
    assert_true(is_bad(room, STR("\xc0\0\2\2")));
    assert_true(
        ruleset_address_bad(old, STR("\xc0\0\2\1"))); /* who holds it keeps it */
    assert_int_equal(ruleset_number(old), first);
    assert_int_equal(ruleset_limits(old)->address_second_max, 5);
    assert_true(ruleset_honeypot(old, STR("trap-2")));
    ruleset_drop(room->source, old);
    assert_int_not_equal(source_open(room), first);
}

static void
the_same_files_have_the_same_number_again_also_as_a_kept_copy(void **state)
{
    struct room *room = *state;
    struct ruleset_source *copy;
    struct why why;
    bool changed;

    put(room->dir, "bots.txt", "one\n");
    uint16_t one = source_open(room);
    put(room->dir, "bots.txt", "two\n");
    assert_int_equal(ruleset_poll(room->source, &changed, &why), ERR_OK);
    assert_true(changed);
    uint16_t two = number_of(room->source);
    char kept[32];

    (void)snprintf(kept, sizeof(kept), "rulesets/%u", two);
    put(room->dir, "bots.txt", "one\n");
    assert_int_equal(ruleset_poll(room->source, &changed, &why), ERR_OK);
    assert_true(changed);
    assert_int_equal(source_open(room), one);
    assert_int_equal(
        ruleset_open(&copy, path_in(room->data, kept), room->data, &why), ERR_OK);
    assert_int_equal(number_of(copy), two);
    ruleset_close(&copy);
    /* Touched, not changed. */
    put(room->dir, "bots.txt", "one\n");
    assert_int_equal(ruleset_poll(room->source, &changed, &why), ERR_OK);
    assert_false(changed);
}

static void
a_bad_file_is_named_with_its_line_and_the_old_set_stays(void **state)
{
    struct room *room = *state;
    static const struct {
        const char *file, *text, *named;
    } bad[] = {
        {"addresses.txt", "192.0.2.1\n\n192.0.2.0/24\n", "addresses.txt line 3"},
        {"addresses.txt", "192.0.2.1x", "addresses.txt line 1"},
        {"bots.txt", "# a\nfoo\n/(/\n", "bots.txt line 3"},
        {"rules.json", "{\"double_click_ms\": 10,}", "rules.json"},
        {"rules.json", "{\"double_clicks_ms\": 10}", "double_clicks_ms"},
        {"rules.json", "{\"Double_click_ms\": 10}", "Double_click_ms"},
        {"rules.json", "{\"double_click_ms\": 1.5}", "double_click_ms"},
        {"rules.json", "{\"double_click_ms\": -1}", "double_click_ms"},
        {"rules.json", "{\"double_click_ms\": \"10\"}", "double_click_ms"},
        {"rules.json", "{\"repeat_click_ms\": 3600001}", "repeat_click_ms"},
        {"rules.json", "{\"address_minute_max\": 4001}", "address_minute_max"},
        {"rules.json", "{\"address_second_max\": 0}", "address_second_max"},
        {"rules.json", "{\"address_second_max\": 1, \"address_second_max\": 2}",
         "twice"},
        {"rules.json", "{\"shadow\": [\"no_rule\"]}", "no_rule"},
        {"rules.json", "{\"shadow\": [1]}", "shadow"},
        {"rules.json", "{\"shadow\": \"honeypot\"}", "shadow"},
        {"rules.json", "{\"shadow\": [\"duplicate\"]}", "duplicate"},
        {"rules.json", "{\"shadow\": [\"unknown_campaign\"]}", "unknown_campaign"},
        {"rules.json", "{\"shadow\": [\"over_budget\"]}", "over_budget"},
        {"rules.json", "{\"shadow\": [\"none\"]}", "none"},
        {"rules.json", "{} {}", "rules.json"},
        {"rules.json", "[]", "rules.json"},
        {"rules.json", "", "rules.json"},
    };

    put(room->dir, "addresses.txt", "192.0.2.1\n");
    (void)source_open(room);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct why why = {{0}};
        bool changed = true;

        put(room->dir, "addresses.txt", "192.0.2.1\n");
        put(room->dir, bad[i].file, bad[i].text);
        for (int again = 0; again < 2; again++) {
            assert_int_equal(ruleset_poll(room->source, &changed, &why),
                             ERR_INVALID);
            assert_non_null(strstr(why.text, bad[i].named));
            assert_false(changed);
        }
        assert_true(is_bad(room, STR("\xc0\0\2\1")));
        assert_int_equal(ruleset_open(&(struct ruleset_source *){0}, room->dir,
                                      room->data, &why),
                         ERR_INVALID);
        assert_int_equal(unlink(path_in(room->dir, bad[i].file)), 0);
    }
    put(room->dir, "addresses.txt", "192.0.2.1\n");
    bool changed;
    struct why why;

    assert_int_equal(ruleset_poll(room->source, &changed, &why),
                     ERR_OK); /* as before */
    assert_false(changed);
    put(room->dir, "addresses.txt", "192.0.2.3\n");
    assert_int_equal(ruleset_poll(room->source, &changed, &why), ERR_OK);
    assert_true(changed);
    uint16_t number = number_of(room->source);
    assert_int_equal(source_open(room), number);
}

static void
names_that_no_rule_set_has_and_folders_that_are_not_there_are_refused(void **state)
{
    struct room *room = *state;
    struct ruleset_source *source;
    struct why why;

    put(room->dir, "adresses.txt", "192.0.2.1\n");
    assert_int_equal(ruleset_open(&source, room->dir, room->data, &why),
                     ERR_INVALID);
    assert_non_null(strstr(why.text, "adresses.txt"));
    assert_null(source);
    assert_int_equal(
        ruleset_open(&source, path_in(room->root, "nowhere"), room->data, &why),
        ERR_INVALID);
    assert_non_null(strstr(why.text, "nowhere"));
}

static void
long_lines_and_large_files_are_read_in_pieces(void **state)
{
    struct room *room = *state;
    struct buf text = BUF_MAX(16 << 20);
    struct ruleset_source *source;
    struct why why;

    for (int i = 0; i < 200000; i++)
        buf_printf(&text, "10.%d.%d.%d\n", i >> 16, i >> 8 & 255, i & 255);
    assert_int_equal(
        file_write(path_in(room->dir, "addresses.txt"), text.p, text.n, &why),
        ERR_OK);
    (void)source_open(room);
    for (int i = 0; i < 200000; i++) {
        uint8_t ip[4] = {10, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i};

        if (i % 97 == 0)
            assert_true(is_bad(room, (struct str){(const char *)ip, 4}));
    }
    for (int i = 0; i < 200000; i++)
        buf_add_text(&text, "xxxxxxxx");
    assert_int_equal(
        file_write(path_in(room->dir, "addresses.txt"), text.p, text.n, &why),
        ERR_OK);
    assert_int_equal(ruleset_open(&source, room->dir, room->data, &why),
                     ERR_INVALID);
    assert_non_null(strstr(why.text, "addresses.txt line 200001"));
    buf_free(&text);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, room_make, room_remove)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_built_in_set_has_the_documented_thresholds_and_keeps_its_number),
        TEST(a_changed_file_swaps_in_a_new_set_with_another_number),
        TEST(the_same_files_have_the_same_number_again_also_as_a_kept_copy),
        TEST(a_bad_file_is_named_with_its_line_and_the_old_set_stays),
        TEST(names_that_no_rule_set_has_and_folders_that_are_not_there_are_refused),
        TEST(long_lines_and_large_files_are_read_in_pieces),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

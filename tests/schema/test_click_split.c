/* Bodies into clicks, and the JSON test suite as values of a field nobody knows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "schema/click.h"

#define ROWS(table) (sizeof(table) / sizeof((table)[0]))
#define NOW_MS      INT64_C(1795252087123) /* 2026-11-21T09:08:07.123Z */

enum { CLICK_BYTES_MAX = 32768, TEXT_MAX = 131072 };

static const struct click_limits limits = {NOW_MS, 5 * INT64_C(60000),
                                           7 * INT64_C(86400000)};

#define FIELDS                                                                   \
    "\"event_id\":\"0d9e3f6a-52c1-4b7e-9a40-6c1f2e8b7d55\",\"timestamp\":"       \
    "\"2026-11-21T09:08:07.123Z\",\"campaign_id\":\"c1\",\"ad_id\":\"a1\","      \
    "\"publisher_id\":\"p1\",\"user_id\":\"u1\",\"ip_address\":\"203.0.113.7\"," \
    "\"user_agent\":\"Mozilla/5.0\",\"referer\":\"\",\"device_type\":\"tv\","    \
    "\"os\":\"\",\"country\":\"DE\",\"city\":\"\",\"cost_per_click\":0.25"
#define ALL      "{" FIELDS
#define EVENT_ID "\"event_id\":\"0d9e3f6a-52c1-4b7e-9a40-6c1f2e8b7d55\""

struct fixture {
    struct click_parser *parser;
    struct click click;
    struct click_error error;
    unsigned unknown, visited;
    char order[64];
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

static bool
visit(void *ctx, unsigned index, struct str json)
{
    struct fixture *f = ctx;
    struct click_error error;
    struct click click;
    bool good = click_parse(f->parser, json, &limits, &click, &error, NULL);

    assert_int_equal(index, f->visited);
    f->order[f->visited++] = good ? 'g' : 'b';
    f->order[f->visited] = '\0';
    return true;
}

#define GOOD ALL "}"

static void
bodies_are_split_into_their_clicks(void **state)
{
    static const struct {
        const char *body, *want; /* NULL: refused, nothing visited */
    } bodies[] = {
        {GOOD, "g"},
        {" " GOOD " \n", "g"},
        {"{", "b"},
        {"{\n}", "b"},
        {"{\n" FIELDS ",\n\"zz\": 1\n}\n", "g"},
        {ALL ",\"zz\":[{}\n,\n{}]}", "g"},
        {ALL ",\"zz\":[\n{}]}", "g"},
        {ALL ",\"zz\":{}\n}", "g"},
        {"[" GOOD "]", "g"},
        {"[" GOOD "," GOOD "]", "gg"},
        {" [ " GOOD " , " GOOD " ] ", "gg"},
        {"[\n" GOOD ",\n{},\n" GOOD "\n]\n", "gbg"},
        {"[" GOOD ",5,\"x\",null,[]," GOOD "]", "gbbbbg"},
        {"[" GOOD ",{\"tcf\":\"\\n\"}," ALL ",\"tcf\":\"\\u0041\"}]", "gbg"},
        {GOOD "\n" GOOD, "gg"},
        {GOOD "\r\n\r\n  \n" GOOD "\r\n", "gg"},
        {GOOD "\n{\"broken\n" GOOD "\n", "gbg"},
        {"{\"broken\n" GOOD "\n", "bg"},
        {"{\"broken\":\"\n" GOOD "\n" GOOD, "bgg"},
        {"garbage\n" GOOD "\n", "bg"},
        {GOOD "\n]\n" GOOD "\n", "gbg"},
        {GOOD "\n\xff\n" GOOD "\n", "gbg"},
        {GOOD " " GOOD, "b"},
        {"", NULL},
        {" \n\t ", NULL},
        {"[]", NULL},
        {"[", NULL},
        {"]", NULL},
        {"5", NULL},
        {"[" GOOD, NULL},
        {"[" GOOD ",]", NULL},
        {"[" GOOD " " GOOD "]", NULL},
        {"[" GOOD "]]", NULL},
        {"[" GOOD "]\n" GOOD, NULL},
        {"[" GOOD ",tru]", NULL},
        {"[" GOOD ",{\"a\":01}]", NULL},
        {"[" GOOD ",{\"a\":\"\\x\"}]", NULL},
        {"[" GOOD ",{\"a\":\"\\ud800\"}]", NULL},
        {"[" GOOD ",{\"tcf\":\"\xff\"}]", NULL},
        {"[" GOOD ",{\"tcf\":\"\n\"}]", NULL},
        {"[" GOOD ",{\"tcf\":\"]", NULL},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < ROWS(bodies); i++) {
        size_t n = strlen(bodies[i].body);
        char *body = malloc(n + 1);
        bool good;

        assert_non_null(body);
        memcpy(body, bodies[i].body, n);
        f->visited = 0;
        f->order[0] = '\0';
        good = click_split(f->parser, (struct str){body, (uint32_t)n}, 8, visit, f,
                           &f->error);
        if (good != (bodies[i].want != NULL) ||
            strcmp(f->order, good ? bodies[i].want : "") != 0)
            fail_msg("%s: %d, %s", bodies[i].body, good, f->order);
        free(body);
    }
}

static void
a_broken_array_names_the_field_at_fault(void **state)
{
    struct fixture *f = *state;

    assert_false(click_split(f->parser, STR("[{\"os\":\"x\",\"tcf\":\"\xff\"}]"), 8,
                             visit, f, &f->error));
    assert_string_equal(f->error.field, "tcf");
}

static bool
stop(void *ctx, unsigned index, struct str json)
{
    (void)json;
    (void)index;
    ++*(int *)ctx;
    return false;
}

static void
too_many_clicks_are_refused_and_a_visitor_may_stop(void **state)
{
    const struct str bodies[] = {STR("[{},{},{},{},{},{},{},{},{}]"),
                                 STR("{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n")};
    struct fixture *f = *state;
    int visits = 0;

    for (size_t i = 0; i < ROWS(bodies); i++) {
        f->visited = 0;
        assert_false(click_split(f->parser, bodies[i], 8, visit, f, &f->error));
        assert_string_equal(f->error.code, "too_large");
        assert_int_equal(f->visited, 0);
        assert_true(click_split(f->parser, bodies[i], 9, visit, f, &f->error));
        assert_int_equal(f->visited, 9);
        assert_true(click_split(f->parser, bodies[i], 9, stop, &visits, &f->error));
    }
    assert_int_equal(visits, 2);
}

/* The marks of a body must not outlive it: another text may come to lie in its place. */
static void
a_body_is_forgotten_after_its_split(void **state)
{
    struct fixture *f = *state;
    char body[] = "[" ALL ",\"test\":true}]";
    struct str element = {body + 1, sizeof(body) - 3};

    assert_true(click_split(f->parser, (struct str){body, sizeof(body) - 1}, 8,
                            visit, f, &f->error));
    assert_string_equal(f->order, "g");
    memcpy(strstr(body, "test"), "tesu", 4);
    memcpy(strstr(body, ":true"), ":tru ", 5);
    assert_false(click_parse(f->parser, element, &limits, &f->click, &f->error,
                             &f->unknown));
    memcpy(strstr(body, ":tru "), ":[1] ", 5);
    assert_true(click_parse(f->parser, element, &limits, &f->click, &f->error,
                            &f->unknown));
    assert_int_equal(f->unknown, 1);
}

/* ---- the suite ---- */

#define SUITE "../shared/data/json-test-suite/test_parsing"

/* A text of the suite as the value of an unknown field, last and first, as an array's
 * element and alone. */
static void
suite_run(struct fixture *f, const char *name, const char *value, size_t n)
{
    static const struct {
        const char *before, *after;
    } places[] = {{ALL ",\"zz\":", "}"},
                  {"{\"zz\":", "," EVENT_ID "}"},
                  {"[", "]"},
                  {"", ""}};
    char *json = malloc(n + 2048);

    assert_non_null(json);
    for (size_t i = 0; i < ROWS(places); i++) {
        size_t from = strlen(places[i].before), to = strlen(places[i].after);
        bool good;

        memcpy(json, places[i].before, from);
        memcpy(json + from, value, n);
        memcpy(json + from + n, places[i].after, to);
        f->visited = 0;
        if (i == 2 && name[0] == 'n') {
            good = click_split(f->parser,
                               (struct str){json, (uint32_t)(from + n + to)}, 60,
                               visit, f, &f->error);
            if (good)
                fail_msg("%s in an array was split", name);
            continue;
        }
        good = parse(f, json, from + n + to);
        if (good != (name[0] == 'y' && i == 0))
            fail_msg("%s, place %zu: %s", name, i,
                     good ? "good" : f->error.message);
        if (i == 1 && name[0] == 'y')
            assert_string_equal(f->error.code, "missing");
    }
    free(json);
}

static void
the_json_test_suite_is_told_apart(void **state)
{
    struct fixture *f = *state;
    DIR *dir = opendir(SUITE);
    struct dirent *entry;
    int files = 0;

    if (dir == NULL) {
        print_message("skipped: no shared data\n");
        return;
    }
    while ((entry = readdir(dir)) != NULL) {
        char path[512], *text = malloc(TEXT_MAX * 4);
        FILE *file;
        size_t n;

        if (entry->d_name[0] == 'y' || entry->d_name[0] == 'n') {
            (void)snprintf(path, sizeof(path), SUITE "/%s", entry->d_name);
            file = fopen(path, "rb");
            assert_non_null(file);
            n = fread(text, 1, TEXT_MAX * 4, file);
            assert_int_equal(fclose(file), 0);
            suite_run(f, entry->d_name, text, n);
            files++;
        }
        free(text);
    }
    assert_int_equal(closedir(dir), 0);
    assert_true(files > 250);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bodies_are_split_into_their_clicks),
        TEST(a_broken_array_names_the_field_at_fault),
        TEST(too_many_clicks_are_refused_and_a_visitor_may_stop),
        TEST(a_body_is_forgotten_after_its_split),
        TEST(the_json_test_suite_is_told_apart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

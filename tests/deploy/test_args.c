/* Options taken out of a command line, in any order and in both ways to write them. */
#include "deploy/command.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { WORDS_MAX = 16 };

static struct args
args_of(char *words[WORDS_MAX], const char *line, char text[256])
{
    struct args args = {.words = words, .n = 0};
    char *at = text;

    (void)snprintf(text, 256, "%s", line);
    while (*at != '\0') {
        char *end = strchr(at, '|');
        assert_true(args.n < WORDS_MAX);
        words[args.n++] = at;
        if (end == NULL)
            break;
        *end = '\0';
        at = end + 1;
    }
    return args;
}

/* standard error is not what is tested here */
static bool
done_quietly(struct args *args)
{
    static const struct command command = {.name = "test"};
    int kept = dup(STDERR_FILENO);
    FILE *none = freopen("/dev/null", "w", stderr);

    assert_non_null(none);
    bool done = args_done(args, &command);
    (void)fflush(stderr);
    assert_true(dup2(kept, STDERR_FILENO) >= 0);
    (void)close(kept);
    return done;
}

static void
a_text_is_the_next_word_or_stands_after_an_equals_sign(void **state)
{
    static const struct {
        const char *line, *value;
        int left;
        bool done;
    } table[] = {
        {"--day|2026-11-20", "2026-11-20", 0, true},
        {"--day=2026-11-20", "2026-11-20", 0, true},
        {"a|--day|x|b", "x", 2, false},
        {"--day=", "", 0, true},
        {"--day|--json", "--json", 0, true}, /* a value may look like a flag */
        {"--days|3", NULL, 2, false},
        {"--day", NULL, 0, false},
        {"", NULL, 0, true},
        {"--da=3", NULL, 1, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        char *words[WORDS_MAX], text[256];
        struct args args = args_of(words, table[i].line, text);
        const char *value = args_text(&args, "--day");
        if (table[i].value == NULL)
            assert_null(value);
        else
            assert_string_equal(value, table[i].value);
        assert_int_equal(args.n, table[i].left);
        assert_int_equal(done_quietly(&args), table[i].done);
    }
}

static void
a_number_has_bounds_and_says_them(void **state)
{
    static const struct {
        const char *line;
        int64_t value;
        bool good;
    } table[] = {
        {"", 7, true},
        {"--limit|1", 1, true},
        {"--limit=100", 100, true},
        {"--limit|0", 7, false},
        {"--limit|101", 7, false},
        {"--limit|-1", 7, false},
        {"--limit=", 7, false},
        {"--limit|1x", 7, false},
        {"--limit|1.5", 7, false},
        {"--limit|99999999999999999999", 7, false},
        {"--limit", 7, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        char *words[WORDS_MAX], text[256];
        struct args args = args_of(words, table[i].line, text);
        assert_int_equal(args_number(&args, "--limit", 1, 100, 7), table[i].value);
        assert_int_equal(args.error[0] == '\0', table[i].good);
        if (!table[i].good)
            assert_true(strstr(args.error, "1..100") != NULL ||
                        strstr(args.error, "needs a value") != NULL);
        assert_int_equal(done_quietly(&args), table[i].good);
    }
}

static void
flags_and_words_are_taken_once_in_order(void **state)
{
    char *words[WORDS_MAX], text[256];
    struct args args = args_of(words, "import|--dry-run|a.csv|--json", text);

    (void)state;
    assert_true(args_flag(&args, "--dry-run"));
    assert_false(args_flag(&args, "--dry-run"));
    assert_false(args_flag(&args, "--jso"));
    assert_string_equal(args_word(&args), "import");
    assert_string_equal(args_word(&args), "a.csv");
    assert_null(args_word(&args));
    assert_false(done_quietly(&args)); /* --json is left */
    assert_true(args_flag(&args, "--json"));
}

static void
what_is_left_over_is_named(void **state)
{
    char *words[WORDS_MAX], text[256];
    struct args args = args_of(words, "--nonsense", text);

    (void)state;
    assert_false(done_quietly(&args));
    assert_non_null(strstr(args.error, "--nonsense"));
}

static void
a_day_is_a_date_or_yesterday(void **state)
{
    static const struct {
        const char *line;
        int32_t day;
        bool good;
    } table[] = {
        {"--day|1970-01-02", 1, true},  {"--day=2026-11-21", 20778, true},
        {"--day|2026-02-29", 0, false}, {"--day|today", 0, false},
        {"--day|20261121", 0, false},   {"", 0, false},
        {"--day|2026-13-01", 0, false}, {"--day|2024-02-29", 19782, true},
    };
    char *words[WORDS_MAX], text[256];

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct args args = args_of(words, table[i].line, text);
        int32_t day = args_day(&args, "--day");
        if (table[i].good)
            assert_int_equal(day, table[i].day);
        assert_int_equal(done_quietly(&args), table[i].good);
    }
    struct args args = args_of(words, "--day|yesterday", text);
    assert_true(args_day(&args, "--day") > 20000);
    assert_true(done_quietly(&args));
}

/* The table of commands is what the help shows: each is whole. */
static void
every_command_has_a_summary_and_a_usage_with_an_example(void **state)
{
    (void)state;
    assert_true(commands_n > 10);
    for (unsigned i = 0; i < commands_n; i++) {
        const struct command *c = &commands[i];
        char usage[64];
        (void)snprintf(usage, sizeof(usage), "Usage: clickledger %s", c->name);
        assert_non_null(c->run);
        assert_true(strlen(c->summary) > 10);
        assert_int_equal(strncmp(c->usage, usage, strlen(usage)), 0);
        assert_non_null(strstr(c->usage, "Example: clickledger "));
        for (unsigned k = 0; k < i; k++)
            assert_string_not_equal(c->name, commands[k].name);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_is_the_next_word_or_stands_after_an_equals_sign),
        cmocka_unit_test(a_number_has_bounds_and_says_them),
        cmocka_unit_test(flags_and_words_are_taken_once_in_order),
        cmocka_unit_test(what_is_left_over_is_named),
        cmocka_unit_test(a_day_is_a_date_or_yesterday),
        cmocka_unit_test(every_command_has_a_summary_and_a_usage_with_an_example),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

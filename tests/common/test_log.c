/* Lines as they leave: standard error is a pipe here. */
#include "common/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

static char line[2 * LOG_LINE_MAX];

static void
emit(enum log_level level, const struct log_field *fields, int count)
{
    int ends[2], saved = dup(STDERR_FILENO);
    ssize_t n;

    assert_int_equal(pipe(ends), 0);
    (void)dup2(ends[1], STDERR_FILENO);
    (void)close(ends[1]);
    log_write(level, "thing_done", fields, count);
    (void)dup2(saved, STDERR_FILENO);
    (void)close(saved);
    n = read(ends[0], line, sizeof(line) - 1);
    (void)close(ends[0]);
    assert_true(n >= 0);
    line[n] = '\0';
}

/* What follows "event=thing_done ". */
static const char *
fields_of_line(void)
{
    const char *at = strstr(line, " event=thing_done ");

    assert_non_null(at);
    return at + strlen(" event=thing_done ");
}

static void
logfmt_quotes_only_what_needs_it(void **state)
{
    static const struct {
        const char *value;
        const char *want;
    } cases[] = {
        {"plain", "k=plain n=7\n"},
        {"", "k=\"\" n=7\n"},
        {"two words", "k=\"two words\" n=7\n"},
        {"a=b", "k=\"a=b\" n=7\n"},
        {"x\nlevel=error event=forged", "k=\"x\\nlevel=error event=forged\" n=7\n"},
        {"\"\\", "k=\"\\\"\\\\\" n=7\n"},
        {"\x1b[31m\x7f", "k=\"\\u001b[31m\\u007f\" n=7\n"},
        {"\xC2\x9b", "k=\"\\u009b\" n=7\n"},
        {"\xff", "k=\"\xEF\xBF\xBD\" n=7\n"},
        {"é", "k=\"é\" n=7\n"},
        {NULL, "k=\"\" n=7\n"},
    };

    (void)state;
    log_setup(LOG_INFO, LOG_LOGFMT);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct log_field fields[] = {LOG_TEXT("k", cases[i].value),
                                           LOG_NUMBER("n", 7)};

        emit(LOG_WARN, fields, 2);
        assert_int_equal(strncmp(line, "time=2", 6), 0);
        assert_non_null(strstr(line, "Z level=warn event="));
        assert_string_equal(fields_of_line(), cases[i].want);
    }
}

static void
levels_below_the_lowest_are_silent(void **state)
{
    const struct log_field field = LOG_NUMBER("n", INT64_MIN);

    (void)state;
    log_setup(LOG_WARN, LOG_LOGFMT);
    emit(LOG_INFO, &field, 1);
    assert_string_equal(line, "");
    emit(LOG_WARN, &field, 1);
    assert_string_equal(fields_of_line(), "n=-9223372036854775808\n");
}

static void
long_values_are_cut_and_the_line_stays_whole(void **state)
{
    static char huge[3 * LOG_LINE_MAX];

    (void)state;
    memset(huge, '\n', sizeof(huge) - 1);
    for (int format = LOG_LOGFMT; format <= LOG_JSON; format++) {
        struct log_field fields[200];

        log_setup(LOG_INFO, (enum log_format)format);
        for (int count = 1; count <= 200; count += count < 10 ? 1 : 19) {
            for (int i = 0; i < count; i++)
                fields[i] = LOG_TEXT("name", huge + rand() % (int)sizeof(huge));
            fields[0] = LOG_TEXT("name", huge);
            emit(LOG_ERROR, fields, count);
            assert_true(strlen(line) <= LOG_LINE_MAX);
            assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
            if (count < 50)
                assert_non_null(strstr(line, "...\""));
            cJSON *json = cJSON_Parse(line);
            assert_int_equal(json != NULL, format == LOG_JSON);
            cJSON_Delete(json);
        }
    }
}

static void
json_lines_parse_back_to_their_values(void **state)
{
    const char *value = "a \"q\" \\ \n\t é 😀";
    const struct log_field fields[] = {LOG_TEXT("k", value), LOG_NUMBER("n", -42)};

    (void)state;
    log_setup(LOG_INFO, LOG_JSON);
    emit(LOG_INFO, fields, 2);
    cJSON *json = cJSON_Parse(line);
    assert_non_null(json);
    assert_string_equal(cJSON_GetObjectItem(json, "k")->valuestring, value);
    assert_int_equal(cJSON_GetObjectItem(json, "n")->valueint, -42);
    assert_string_equal(cJSON_GetObjectItem(json, "level")->valuestring, "info");
    cJSON_Delete(json);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logfmt_quotes_only_what_needs_it),
        cmocka_unit_test(levels_below_the_lowest_are_silent),
        cmocka_unit_test(long_values_are_cut_and_the_line_stays_whole),
        cmocka_unit_test(json_lines_parse_back_to_their_values),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

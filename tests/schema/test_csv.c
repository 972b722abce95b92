/* RFC 4180 by table, then the csv-spectrum files where they are at hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "schema/csv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/file.h"

enum { FIELDS_MAX = 16 };

/* All records as "a|b;c|d;", or the error's line:column. */
static void
read_all(struct str text, char *out, size_t size)
{
    struct csv_field fields[FIELDS_MAX], at;
    struct csv *csv = NULL;
    struct why why;
    uint32_t n;
    size_t used = 0;
    enum err err;

    assert_int_equal(csv_open(&csv, text, &why), ERR_OK);
    while ((err = csv_next(csv, fields, FIELDS_MAX, &n, &at, &why)) == ERR_OK)
        for (uint32_t i = 0; i < n; i++)
            used += (size_t)snprintf(out + used, size - used, "%.*s%s",
                                     (int)fields[i].text.n, fields[i].text.p,
                                     i + 1 < n ? "|" : ";");
    if (err != ERR_AGAIN)
        (void)snprintf(out + used, size - used, "!%u:%u", at.line, at.column);
    else
        out[used] = '\0';
    if (err != ERR_AGAIN) /* and stays at its end */
        assert_int_equal(csv_next(csv, fields, FIELDS_MAX, &n, &at, &why),
                         ERR_AGAIN);
    csv_close(&csv);
}

static void
records_are_read_as_the_rfc_says(void **state)
{
    static const struct {
        const char *csv, *want;
    } table[] = {
        {"", ""},
        {"a,b\r\nc,d\r\n", "a|b;c|d;"},
        {"a,b\nc,d", "a|b;c|d;"},
        {"\xEF\xBB\xBF"
         "a,b\n",
         "a|b;"},
        {"\n\r\na\n\n", "a;"},
        {",\n", "|;"},
        {"a,\n", "a|;"},
        {"\"\",\"\"\n", "|;"},
        {"\"a,b\",\"c\"\"d\"\n", "a,b|c\"d;"},
        {"\"a\nb\",\"c\r\nd\"\n", "a\nb|c\r\nd;"},
        {"\"\"\"\"\n", "\";"},
        {"a b , c\n", "a b | c;"},
        {"\"a\"b\n", "!1:4"},
        {"\"a\" ,b\n", "!1:4"},
        {"a\"b\n", "!1:2"},
        {"x\n\"a\nbc", "x;!3:3"},
        {"a\rb\n", "!1:2"},
        {"\xC3\xA4,\xFF\n", "!1:3"},
        {"a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q\n", "!1:33"},
    };
    char out[256];

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
        read_all(str_of(table[i].csv), out, sizeof(out));
        if (strcmp(out, table[i].want) != 0)
            fprintf(stderr, "row %zu\n", i);
        assert_string_equal(out, table[i].want);
    }
    read_all((struct str){"a\0b", 3}, out, sizeof(out));
    assert_string_equal(out, "!1:2");
}

static void
what_is_written_is_read_back(void **state)
{
    static const char *const texts[] = {
        "", "plain", "a,b", "\"", "\"\"", "a\nb", "\r\n", " x ", "\xC3\xA4\"", ","};
    enum { N = sizeof(texts) / sizeof(*texts) };
    struct csv_field fields[FIELDS_MAX], at;
    struct buf buf = BUF_MAX(4096);
    struct csv *csv = NULL;
    struct why why;
    uint32_t n;

    (void)state;
    for (int i = 0; i < N; i++) {
        buf_add_text(&buf, i == 0 ? "" : ",");
        csv_add(&buf, str_of(texts[i]));
    }
    assert_int_equal(
        csv_open(&csv, (struct str){(const char *)buf.p, (uint32_t)buf.n}, &why),
        ERR_OK);
    assert_int_equal(csv_next(csv, fields, FIELDS_MAX, &n, &at, &why), ERR_OK);
    assert_int_equal(n, N);
    for (uint32_t i = 0; i < n; i++)
        assert_true(str_equal(fields[i].text, str_of(texts[i])));
    csv_close(&csv);
    buf_free(&buf);
}

/* The folder of csv-spectrum beside the project, or NULL. */
static const char *
spectrum(void)
{
    static const char *const places[] = {"../shared/data/csv-spectrum/csvs",
                                         "../../shared/data/csv-spectrum/csvs",
                                         "../../../shared/data/csv-spectrum/csvs"};
    const char *given = getenv("CLICKLEDGER_SHARED_DATA");
    static char path[512];
    struct stat st;

    if (given != NULL) {
        (void)snprintf(path, sizeof(path), "%s/csv-spectrum/csvs", given);
        return stat(path, &st) == 0 ? path : NULL;
    }
    for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++)
        if (stat(places[i], &st) == 0)
            return places[i];
    return NULL;
}

static void
the_csv_spectrum_is_read(void **state)
{
    static const struct {
        const char *file, *want;
    } table[] = {
        {"simple.csv", "a|b|c;1|2|3;"},
        {"simple_crlf.csv", "a|b|c;1|2|3;"},
        {"empty.csv", "a|b|c;1||;2|3|4;"},
        {"empty_crlf.csv", "a|b|c;1||;2|3|4;"},
        {"escaped_quotes.csv", "a|b;1|ha \"ha\" ha;3|4;"},
        {"newlines.csv", "a|b|c;1|2|3;Once upon \na time|5|6;7|8|9;"},
        {"newlines_crlf.csv", "a|b|c;1|2|3;Once upon \r\na time|5|6;7|8|9;"},
        {"quotes_and_newlines.csv", "a|b;1|ha \n\"ha\" \nha;3|4;"},
        {"utf8.csv", "a|b|c;1|2|3;4|5|\xCA\xA4;"},
        {"json.csv",
         "key|val;1|{\"type\": \"Point\", \"coordinates\": [102.0, 0.5]};"},
        {"comma_in_quotes.csv", "first|last|address|city|zip;"
                                "John|Doe|120 any st.|Anytown, WW|08123;"},
    };
    const char *folder = spectrum();
    char path[600], out[1024];

    (void)state;
    if (folder == NULL) {
        printf("skipped: no shared data\n");
        skip();
    }
    for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
        struct buf buf = BUF_MAX(1 << 16);
        struct why why;

        (void)snprintf(path, sizeof(path), "%s/%s", folder, table[i].file);
        assert_int_equal(file_read(path, &buf, &why), ERR_OK);
        read_all((struct str){(const char *)buf.p, (uint32_t)buf.n}, out,
                 sizeof(out));
        assert_string_equal(out, table[i].want);
        buf_free(&buf);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_are_read_as_the_rfc_says),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(the_csv_spectrum_is_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

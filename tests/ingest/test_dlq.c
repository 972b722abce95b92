#include "ingest/dlq.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/file.h"
#include "ingest/dlq_files.h"
#include "ingest/ingest.h"

struct fixture {
    char dir[64];
    char dlq_dir[80];
};

static int
setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/clickledger-dlq-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->dlq_dir, sizeof(f->dlq_dir), "%s/dlq", f->dir);
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;

    dlq_files_trim(f->dlq_dir, 0, false);
    (void)rmdir(f->dlq_dir);
    (void)rmdir(f->dir);
    free(f);
    return 0;
}

static void
add(struct dlq *dlq, const char *event_id, struct str raw)
{
    dlq_add(dlq, &(struct dlq_entry){.time_ms = 0,
                                     .key = 3,
                                     .account = 4,
                                     .remote = {"\x7F\0\0\1", 4},
                                     .code = "missing",
                                     .field = "ad_id",
                                     .event_id = event_id,
                                     .message = "ad_id: missing",
                                     .raw = raw});
}

static struct buf
all(const struct fixture *f)
{
    struct buf text = BUF_MAX(64 << 20);
    struct dlq_files files;
    char path[400];

    assert_int_equal(dlq_files_list(f->dlq_dir, &files, NULL), ERR_OK);
    for (size_t i = 0; i < files.n; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", f->dlq_dir, files.names[i]);
        assert_int_equal(file_read(path, &text, NULL), ERR_OK);
    }
    dlq_files_free(&files);
    buf_add(&text, "", 1);
    return text;
}

static void
test_a_line_says_all_and_escapes_what_was_sent(void **state)
{
    struct fixture *f = *state;
    struct dlq *dlq;
    struct buf text;

    assert_int_equal(dlq_open(&dlq, f->dir, 1 << 20, NULL), ERR_OK);
    add(dlq, "", STR("{\"a\":\"\n\xFF\"}"));
    dlq_close(&dlq);
    assert_null(dlq);
    text = all(f);
    assert_string_equal(
        (char *)text.p,
        "{\"time\":\"1970-01-01T00:00:00.000Z\",\"key\":3,\"account\":4,"
        "\"remote\":\"127.0.0.1\",\"code\":\"missing\",\"field\":\"ad_id\","
        "\"event_id\":\"\",\"message\":\"ad_id: missing\","
        "\"raw\":\"{\\\"a\\\":\\\"\\n\xEF\xBF\xBD\\\"}\",\"cut\":false}\n");
    buf_free(&text);
}

static void
test_long_clicks_are_cut_between_characters(void **state)
{
    struct fixture *f = *state;
    char *raw = malloc(DLQ_RAW_MAX + 10);
    struct dlq *dlq;
    struct buf text;

    memset(raw, 'x', DLQ_RAW_MAX + 10);
    memcpy(raw + DLQ_RAW_MAX - 1, "\xC3\xA9", 2); /* over the cut */
    assert_int_equal(dlq_open(&dlq, f->dir, 1 << 20, NULL), ERR_OK);
    add(dlq, "", (struct str){raw, DLQ_RAW_MAX + 10});
    dlq_close(&dlq);
    text = all(f);
    assert_non_null(strstr((char *)text.p, "xxx\",\"cut\":true}"));
    assert_null(strstr((char *)text.p, "\xEF\xBF\xBD"));
    buf_free(&text);
    free(raw);
}

static uint64_t
bytes_on_disk(const struct fixture *f)
{
    struct buf text = all(f);
    uint64_t n = text.n - 1;

    buf_free(&text);
    return n;
}

static void
test_the_oldest_go_when_the_limit_is_reached(void **state)
{
    enum { LIMIT = 65536, LINES = 2000 };
    struct fixture *f = *state;
    struct dlq *dlq;
    struct buf text;
    char id[16], *last;
    uint64_t dropped = 0;

    for (int i = 0; i < LINES; i++) {
        if (i % 20 == 0) /* closing writes all: nothing is dropped for speed */
            assert_int_equal(dlq_open(&dlq, f->dir, LIMIT, NULL), ERR_OK);
        (void)snprintf(id, sizeof(id), "id-%d", i);
        add(dlq, id, STR("{}"));
        if (i % 20 == 19) {
            dropped += dlq_dropped(dlq);
            dlq_close(&dlq);
            assert_true(bytes_on_disk(f) <= LIMIT);
        }
    }
    assert_int_equal(dropped, 0);
    assert_true(bytes_on_disk(f) > LIMIT / 2);
    text = all(f);
    last = strstr((char *)text.p, "id-1999");
    assert_non_null(last);
    assert_null(strstr((char *)text.p, "\"id-0\""));
    assert_non_null(strstr((char *)text.p, "\"id-1900\""));
    buf_free(&text);
}

static void
test_what_does_not_fit_the_queue_is_counted_not_waited_for(void **state)
{
    enum { LINES = 20000 };
    struct fixture *f = *state;
    struct dlq *dlq;
    struct buf text;
    uint64_t written = 0, dropped;

    assert_int_equal(dlq_open(&dlq, f->dir, 1 << 30, NULL), ERR_OK);
    for (int i = 0; i < LINES; i++)
        add(dlq, "id",
            (struct str){"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 48});
    dropped = dlq_dropped(dlq);
    dlq_close(&dlq);
    text = all(f);
    for (const char *p = (char *)text.p; (p = strchr(p, '\n')) != NULL; p++)
        written++;
    assert_int_equal(written + dropped, LINES);
    buf_free(&text);
}

static void
test_listing_takes_the_last_and_needs_no_folder(void **state)
{
    struct fixture *f = *state;
    char out[100], line[1024];
    struct dlq *dlq;
    FILE *saved = stdout, *file;
    int n = 0;

    assert_int_equal(dlq_list(f->dir, 0, true, NULL),
                     ERR_OK); /* nothing there yet */
    assert_int_equal(dlq_open(&dlq, f->dir, 1 << 20, NULL), ERR_OK);
    for (int i = 0; i < 10; i++)
        add(dlq, i < 7 ? "old" : "new", STR("{}"));
    dlq_close(&dlq);
    (void)snprintf(out, sizeof(out), "%s/out", f->dir);
    (void)fflush(stdout);
    stdout = fopen(out, "w+");
    assert_int_equal(dlq_list(f->dir, 3, true, NULL), ERR_OK);
    file = stdout;
    stdout = saved;
    rewind(file);
    while (fgets(line, sizeof(line), file) != NULL) {
        n++;
        assert_non_null(strstr(line, "\"event_id\":\"new\""));
    }
    assert_int_equal(n, 3);
    (void)fclose(file);
    (void)unlink(out);
}

int
main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_a_line_says_all_and_escapes_what_was_sent),
        TEST(test_long_clicks_are_cut_between_characters),
        TEST(test_the_oldest_go_when_the_limit_is_reached),
        TEST(test_what_does_not_fit_the_queue_is_counted_not_waited_for),
        TEST(test_listing_takes_the_last_and_needs_no_folder),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}

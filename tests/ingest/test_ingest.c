/* The whole stage in one process: real sockets, a real click log in a temporary folder,
 * keys made in memory. Every answer stands in a table; then what was answered 202 is
 * looked for in the log, and nothing else may be there. */
#include "tests/ingest/ingest_fixture.h"

#include <pthread.h>
#include <zlib.h>
#include <zstd.h>

#include "common/file.h"
#include "ingest/dlq_files.h"

/* --- packing --- */

static struct buf
gzip_of(const struct buf *plain)
{
    struct buf out = BUF_MAX(8 << 20);
    z_stream z = {0};

    assert_int_equal(
        deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = plain->p;
    z.avail_in = (uInt)plain->n;
    z.next_out = buf_room(&out, plain->n + 1000);
    z.avail_out = (uInt)plain->n + 1000;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    out.n = z.total_out;
    (void)deflateEnd(&z);
    return out;
}

static struct buf
zstd_of(const struct buf *plain)
{
    struct buf out = BUF_MAX(8 << 20);
    size_t cap = ZSTD_compressBound(plain->n);

    out.n = ZSTD_compress(buf_room(&out, cap), cap, plain->p, plain->n, 3);
    return out;
}

/* --- tests --- */

/* Everything that does not depend on what is in the clicks. */
static void
test_each_request_gets_its_answer(void **state)
{
    static const struct {
        const char *method, *path, *headers, *body;
        int status;
        const char *says; /* in the body */
    } table[] = {
        {"GET", "/livez", "", "", 200, "alive"},
        {"GET", "/readyz", "", "", 200, "ready"},
        {"GET", "/metrics", "", "", 200, "clickledger_ingest_requests_total"},
        {"GET", "/", "", "", 404, "\"code\":\"path\""},
        {"POST", "/v1/click", AUTH, "{}", 404, "\"code\":\"path\""},
        {"GET", "/v1/clicks", AUTH, "", 405, "takes POST"},
        {"POST", "/livez", "", "", 405, "takes GET, HEAD"},
        {"POST", "/v1/clicks", "", "{}", 401, "\"code\":\"no_key\""},
        {"POST", "/v1/clicks", "Authorization: Basic cG9zdGVy\r\n", "{}", 401,
         "no_key"},
        {"POST", "/v1/clicks", "Authorization: Bearer nobody\r\n", "{}", 401,
         "unknown_key"},
        {"POST", "/v1/clicks", "Authorization: Bearer gone\r\n", "{}", 401,
         "unknown_key"},
        {"POST", "/v1/clicks", "Authorization: Bearer reader\r\n", "{}", 403,
         "scope"},
        {"POST", "/v1/clicks", AUTH "Content-Type: image/png\r\n", "{}", 415,
         "content_type"},
        {"POST", "/v1/clicks", AUTH "Content-Encoding: br\r\n", "{}", 415,
         "content_encoding"},
        {"POST", "/v1/clicks", AUTH "Content-Encoding: gzip\r\n", "{}", 400,
         "encoding"},
        {"POST", "/v1/clicks", AUTH "Content-Encoding: zstd\r\n", "{}", 400,
         "encoding"},
        {"POST", "/v1/clicks?dry_run=maybe", AUTH, "{}", 400, "dry_run"},
        {"POST", "/v1/clicks", AUTH, "", 400, "empty"},
        {"POST", "/v1/clicks", AUTH, "[]", 400, "empty"},
        {"POST", "/v1/clicks", AUTH, "17", 400, "json"},
        {"POST", "/v1/clicks", AUTH, "{}", 400, "\"code\":\"all_rejected\""},
        {"POST", "/v1/clicks", AUTH, "{}", 400, "\"accepted\":0,\"rejected\":1"},
        {"POST", "/v1/clicks", AUTH, "[{},", 400, "\"code\":\"json\""},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct client_answer a =
            client_ask(f->port, table[i].method, table[i].path, table[i].headers,
                       table[i].body, strlen(table[i].body));

        if (a.status != table[i].status || strstr(a.body, table[i].says) == NULL)
            fail_msg("row %zu %s %s: want %d %s, got\n%s", i, table[i].method,
                     table[i].path, table[i].status, table[i].says, a.text);
        client_free(&a);
    }
    assert_int_equal(log_records(f), 0);
}

static void
expect(struct fixture *f, const char *path, const char *headers, struct buf body,
       int status, const char *says)
{
    struct client_answer a = post(f, path, headers, &body);

    if (a.status != status || strstr(a.body, says) == NULL)
        fail_msg("want %d %s, got\n%s", status, says, a.text);
    client_free(&a);
    buf_free(&body);
}

static struct buf
packed(struct buf (*pack)(const struct buf *), struct buf plain)
{
    struct buf out = pack(&plain);

    buf_free(&plain);
    return out;
}

static void
test_every_shape_and_encoding_lands(void **state)
{
    struct fixture *f = *state;

    expect(f, "/v1/clicks", AUTH, batch(f, LINES, 1, 0), 202,
           "{\"accepted\":1,\"rejected\":0,\"errors\":[]}");
    expect(f, "/v1/clicks", AUTH, batch(f, ARRAY, 50, 0), 202, "\"accepted\":50");
    expect(f, "/v1/clicks", AUTH, batch(f, LINES, 50, 0), 202, "\"accepted\":50");
    expect(f, "/v1/clicks", AUTH "Content-Encoding: gzip\r\n",
           packed(gzip_of, batch(f, ARRAY, 20, 0)), 202, "\"accepted\":20");
    expect(f, "/v1/clicks", AUTH "Content-Encoding: zstd\r\n",
           packed(zstd_of, batch(f, LINES, 20, 0)), 202, "\"accepted\":20");
    expect(f, "/v1/clicks",
           AUTH "Content-Type: application/x-ndjson; charset=utf-8\r\n",
           batch(f, LINES, 3, 0), 202, "\"accepted\":3");
    assert_int_equal(log_records(f), 144);
    assert_int_equal(seen_count(f), 144);
}

/* Lines of the dead-letter log with text in them. */
static unsigned
dead_letters(const struct fixture *f, const char *text)
{
    struct buf all = BUF_MAX(8 << 20);
    struct dlq_files files;
    char dir[PATH_SIZE], path[PATH_SIZE * 4];
    unsigned n = 0;

    (void)snprintf(dir, sizeof(dir), "%s/dlq", f->dir);
    assert_int_equal(dlq_files_list(dir, &files, NULL), ERR_OK);
    for (size_t i = 0; i < files.n; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", dir, files.names[i]);
        assert_int_equal(file_read(path, &all, NULL), ERR_OK);
    }
    buf_add(&all, "", 1);
    for (const char *p = (char *)all.p; (p = strstr(p, text)) != NULL; p++)
        n++;
    buf_free(&all);
    dlq_files_free(&files);
    return n;
}

static void
test_good_clicks_land_and_bad_ones_are_named(void **state)
{
    struct fixture *f = *state;

    expect(
        f, "/v1/clicks", AUTH, batch(f, ARRAY, 5, 2), 202,
        "{\"accepted\":3,\"rejected\":2,\"errors\":[{\"index\":0,\"event_id\":"
        "\"00000000-0000-4000-8000-000000000001\",\"code\":\"missing\",\"field\":"
        "\"ad_id\",\"message\":");
    expect(f, "/v1/clicks", AUTH, batch(f, LINES, 3, 1), 202, "\"index\":0");
    expect(f, "/v1/clicks", AUTH, batch(f, ARRAY, 50, 50), 400, "\"index\":49");
    assert_int_equal(log_records(f), 5);
    ingest_stop(&f->ingest); /* writes the dead letters */
    assert_int_equal(dead_letters(f, "\"field\":\"ad_id\""), 53);
}

static void
test_a_dry_run_and_a_malformed_array_store_nothing(void **state)
{
    struct fixture *f = *state;
    struct buf cut = batch(f, ARRAY, 5, 0);

    expect(f, "/v1/clicks?dry_run=1", AUTH, batch(f, ARRAY, 5, 2), 200,
           "\"accepted\":3,\"rejected\":2");
    expect(f, "/v1/clicks?dry_run=1", AUTH, batch(f, ARRAY, 5, 0), 200,
           "\"accepted\":5,\"rejected\":0,\"errors\":[],\"dry_run\":true");
    cut.n--;
    expect(f, "/v1/clicks", AUTH, cut, 400, "\"code\":\"json\"");
    expect(f, "/v1/clicks?dry_run=0", AUTH, batch(f, ARRAY, 1, 0), 202,
           "\"accepted\":1");
    assert_int_equal(log_records(f), 1);
}

static void
test_limits_of_body_clicks_and_bombs_answer_413(void **state)
{
    struct fixture *f = *state;
    struct buf large = BUF_MAX(8 << 20), bomb;
    char *blanks = calloc(1, 4 << 20);

    memset(blanks, ' ', 4 << 20);
    buf_add(&large, blanks, BODY_MAX + 1);
    expect(f, "/v1/clicks", AUTH, large, 413, "body_too_large");
    expect(f, "/v1/clicks", AUTH, batch(f, ARRAY, CLICKS_MAX + 1, 0), 413,
           "too_large");
    expect(f, "/v1/clicks", AUTH, batch(f, LINES, CLICKS_MAX + 1, 0), 413,
           "too_large");
    bomb = BUF_MAX(8 << 20);
    buf_add(&bomb, blanks, 4 << 20);
    expect(f, "/v1/clicks", AUTH "Content-Encoding: gzip\r\n",
           packed(gzip_of, bomb), 413, "body_too_large");
    bomb = BUF_MAX(8 << 20);
    buf_add(&bomb, blanks, 4 << 20);
    expect(f, "/v1/clicks", AUTH "Content-Encoding: zstd\r\n",
           packed(zstd_of, bomb), 413, "body_too_large");
    free(blanks);
    assert_int_equal(log_records(f), 0);
}

static void
test_the_rate_is_per_key_and_address_and_all_or_nothing(void **state)
{
    struct fixture *f = *state;
    struct buf body;
    struct client_answer a;

    expect(f, "/v1/clicks", AUTH_SLOW, batch(f, ARRAY, 21, 0), 413, "over_burst");
    expect(f, "/v1/clicks", AUTH_SLOW, batch(f, ARRAY, 15, 0), 202,
           "\"accepted\":15");
    body = batch(f, ARRAY, 20, 0);
    a = post(f, "/v1/clicks", AUTH_SLOW, &body);
    assert_int_equal(a.status, 429);
    assert_in_range(strtol(client_header(&a, "Retry-After"), NULL, 10), 1, 2);
    client_free(&a);
    buf_free(&body);
    expect(f, "/v1/clicks", AUTH_SLOW, batch(f, ARRAY, 5, 0), 202,
           "\"accepted\":5");
    /* Another client behind the trusted proxy has its own; what the client itself wrote
     * to the left does not count. */
    expect(f, "/v1/clicks",
           AUTH_SLOW "X-Forwarded-For: 1.1.1.1, 5.6.7.8, 10.0.0.9\r\n",
           batch(f, ARRAY, 20, 0), 202, "\"accepted\":20");
    expect(f, "/v1/clicks", AUTH_SLOW "X-Forwarded-For: 2.2.2.2, 5.6.7.8\r\n",
           batch(f, ARRAY, 20, 0), 429, "\"code\":\"rate\"");
    expect(f, "/v1/clicks", AUTH, batch(f, ARRAY, 50, 0), 202, "\"accepted\":50");
    assert_int_equal(log_records(f), 90);
    assert_int_equal(seen_count(f), 90);
}

/* Posts until refused; returns how many clicks were answered 202. */
static uint64_t
fill(struct fixture *f)
{
    uint64_t accepted = 0;

    for (int i = 0; i < 2000; i++) {
        struct buf body = batch(f, ARRAY, 5, 0);
        struct client_answer a = post(f, "/v1/clicks", AUTH, &body);
        int status = a.status;

        if (status == 503) {
            assert_non_null(strstr(a.body, "\"code\":\"log_full\""));
            assert_non_null(client_header(&a, "Retry-After"));
        }
        client_free(&a);
        buf_free(&body);
        if (status != 202) {
            assert_int_equal(status, 503);
            return accepted;
        }
        accepted += 5;
    }
    fail_msg("the log never filled");
    return 0;
}

static void
test_a_full_log_answers_503_and_takes_again_after_a_trim(void **state)
{
    struct fixture *f = *state;
    uint64_t accepted = fill(f), first, next;
    struct ingest_trim trim = {.received_drop_us = 0};
    struct clicklog_stats before, after;

    assert_true(accepted > 0);
    assert_int_equal(log_records(f), accepted);
    assert_int_equal(seen_count(f), accepted);
    expect(f, "/readyz", "", (struct buf){0}, 405, "takes GET");
    for (uint32_t p = 0; p < 4; p++) {
        assert_int_equal(clicklog_range(f->log, p, &first, &next, NULL), ERR_OK);
        trim.below[p] = next;
    }
    clicklog_stats_get(f->log, &before);
    ingest_trim_request(f->ingest, &trim);
    for (int i = 0; i < 500; i++) {
        clicklog_stats_get(f->log, &after);
        if (log_records(f) == 0)
            break;
        clock_sleep_us(10000);
    }
    assert_true(after.bytes_used < before.bytes_used);
    expect(f, "/v1/clicks", AUTH, batch(f, ARRAY, 1, 0), 202, "\"accepted\":1");
}

struct poster {
    struct fixture *f;
    struct buf *bodies;
    unsigned n;
    uint64_t accepted;
};

static void *
poster_main(void *arg)
{
    struct poster *poster = arg;
    int fd = client_open(poster->f->port);

    for (unsigned i = 0; i < poster->n; i++) {
        struct client_answer a =
            client_ask_on(fd, "POST", "/v1/clicks", AUTH, poster->bodies[i].p,
                          poster->bodies[i].n);

        if (a.status == 202)
            poster->accepted += strtoul(strstr(a.body, ":") + 1, NULL, 10);
        client_free(&a);
        if (a.status == 0 && i % 2 == 0) {
            (void)close(fd);
            fd = client_open(poster->f->port);
        }
    }
    if (fd >= 0)
        (void)close(fd);
    return NULL;
}

/* Many senders, and the stage stops in the middle: every 202 is in the log, once. What
 * the log has beyond them was answered, but the sender's socket was closed already. */
static void
test_what_was_202_is_in_the_log_also_when_the_stage_stops(void **state)
{
    enum { POSTERS = 8, REQUESTS = 60, CLICKS = 7 };
    struct fixture *f = *state;
    struct poster posters[POSTERS];
    pthread_t threads[POSTERS];
    uint64_t accepted = 0;

    for (int t = 0; t < POSTERS; t++) {
        posters[t] = (struct poster){
            .f = f, .n = REQUESTS, .bodies = calloc(REQUESTS, sizeof(struct buf))};
        for (int i = 0; i < REQUESTS; i++)
            posters[t].bodies[i] = batch(f, i % 2 == 0 ? ARRAY : LINES, CLICKS, 0);
    }
    for (int t = 0; t < POSTERS; t++)
        assert_int_equal(
            pthread_create(&threads[t], NULL, poster_main, &posters[t]), 0);
    clock_sleep_us(60000);
    ingest_stop(&f->ingest);
    for (int t = 0; t < POSTERS; t++) {
        (void)pthread_join(threads[t], NULL);
        accepted += posters[t].accepted;
        for (int i = 0; i < REQUESTS; i++)
            buf_free(&posters[t].bodies[i]);
        free(posters[t].bodies);
    }
    assert_true(accepted > 0);
    assert_int_equal(seen_count(f), accepted);
}

/* Without clicks the floor moves on, so that archives of a quiet hour can close. */
static void
test_an_idle_stage_moves_the_floor(void **state)
{
    struct fixture *f = *state;
    struct clicklog_stats before, after;

    clicklog_stats_get(f->log, &before);
    for (int i = 0; i < 400; i++) {
        clicklog_stats_get(f->log, &after);
        if (after.floor_us > before.floor_us + CLOCK_SECOND_US)
            return;
        clock_sleep_us(10000);
    }
    fail_msg("no heartbeat within 4 s");
}

int
main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_each_request_gets_its_answer),
        TEST(test_every_shape_and_encoding_lands),
        TEST(test_good_clicks_land_and_bad_ones_are_named),
        TEST(test_a_dry_run_and_a_malformed_array_store_nothing),
        TEST(test_limits_of_body_clicks_and_bombs_answer_413),
        TEST(test_the_rate_is_per_key_and_address_and_all_or_nothing),
        cmocka_unit_test_setup_teardown(
            test_a_full_log_answers_503_and_takes_again_after_a_trim, setup_small,
            teardown),
        TEST(test_what_was_202_is_in_the_log_also_when_the_stage_stops),
        TEST(test_an_idle_stage_moves_the_floor),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}

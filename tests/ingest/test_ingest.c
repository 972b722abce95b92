/* The whole stage in one process: real sockets, a real click log in a temporary folder,
 * keys made in memory. Every answer stands in a table; then what was answered 202 is
 * looked for in the log, and nothing else may be there. */
#include "ingest/ingest.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>
#include <zlib.h>
#include <zstd.h>

#include "common/clock.h"
#include "common/hash.h"
#include "schema/click.h"
#include "schema/text.h"
#include "tests/http_client.h"

enum { BODY_MAX = 200000, CLICKS_MAX = 50, PATH_SIZE = 128, IDS_MAX = 20000 };

#define AUTH      "Authorization: Bearer poster\r\n"
#define AUTH_SLOW "Authorization: Bearer slow\r\n"

struct fixture {
    char dir[64];
    struct config config;
    struct clicklog *log;
    struct master_source *master;
    struct ingest *ingest;
    uint16_t port;
    unsigned serial; /* of event ids */
};

static struct master_key
key_of(uint32_t id, const char *text, uint32_t scopes, uint32_t rate, bool revoked)
{
    struct master_key key = {.id = id,
                             .account = 10 + id,
                             .scopes = scopes,
                             .rate_clicks_per_s = rate,
                             .revoked = revoked};

    hash_sha256_of(text, strlen(text), key.sha256);
    return key;
}

static void
log_start(struct fixture *f, uint64_t bytes_max)
{
    char path[PATH_SIZE];
    const struct clicklog_config cfg = {.dir = path,
                                        .partitions = 4,
                                        .map_bytes = UINT64_C(1) << 30,
                                        .bytes_max = bytes_max,
                                        .no_sync = true};
    struct why why = {{0}};

    (void)snprintf(path, sizeof(path), "%s/log", f->dir);
    if (clicklog_open(&f->log, &cfg, &why) != ERR_OK)
        fail_msg("%s", why.text);
}

static void
stage_start(struct fixture *f)
{
    struct why why = {{0}};

    if (ingest_start(&f->ingest, &f->config, f->log, f->master, &why) != ERR_OK)
        fail_msg("%s", why.text);
    f->port = ingest_port(f->ingest);
}

static int
setup_log(void **state, uint64_t log_bytes_max)
{
    struct fixture *f = calloc(1, sizeof(*f));
    const struct master_key keys[] = {
        key_of(1, "poster", MASTER_INGEST, 1000000, false),
        key_of(2, "reader", MASTER_READ, 0, false),
        key_of(3, "gone", MASTER_INGEST, 0, true),
        key_of(4, "slow", MASTER_INGEST, 0, false),
    };
    char name[] = "test", dir_flag[80];
    char proxies[] = "--ingest.trusted_proxies=127.0.0.1, 10.0.0.9";
    char *argv[] = {name, dir_flag, proxies, NULL};
    int argc = 3;
    struct why why = {{0}};

    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/clickledger-ingest-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(dir_flag, sizeof(dir_flag), "--data.dir=%s", f->dir);
    if (config_load(&f->config, NULL, &argc, argv, &why) != ERR_OK)
        fail_msg("%s", why.text);
    f->config.ingest_port = 0;
    f->config.ingest_body_bytes_max = BODY_MAX;
    f->config.ingest_clicks_max = CLICKS_MAX;
    f->config.ingest_rate_clicks_per_s = 10;
    f->config.ingest_rate_burst_clicks = 20;
    f->master = master_fixed(NULL, 0, keys, 4);
    assert_non_null(f->master);
    log_start(f, log_bytes_max);
    stage_start(f);
    *state = f;
    return 0;
}

static int
setup(void **state)
{
    return setup_log(state, UINT64_C(1) << 29);
}

static int
setup_small(void **state)
{
    return setup_log(state, 400000);
}

static int
teardown(void **state)
{
    struct fixture *f = *state;
    char command[PATH_SIZE];

    ingest_stop(&f->ingest);
    clicklog_close(&f->log);
    master_close(&f->master);
    config_free(&f->config);
    (void)snprintf(command, sizeof(command), "rm -r '%s'", f->dir);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

/* --- clicks --- */

/* Appends one click's JSON; ad NULL leaves the required ad_id out. */
static void
click_add(struct fixture *f, struct buf *out, const char *ad)
{
    char time[CLOCK_TEXT_SIZE];

    f->serial++;
    buf_printf(
        out,
        "{\"event_id\":\"00000000-0000-4000-8000-%012x\",\"timestamp\":\"%s\","
        "\"campaign_id\":\"c%u\",\"publisher_id\":\"p\",\"user_id\":\"u\","
        "\"ip_address\":\"9.8.7.6\",\"user_agent\":\"Mozilla/"
        "5.0\",\"referer\":\"\","
        "\"device_type\":\"mobile\",\"os\":\"\",\"country\":\"DE\",\"city\":\"\","
        "\"cost_per_click\":\"0.5\"",
        f->serial, clock_format_ms(clock_now_us() / 1000, time), f->serial % 7);
    if (ad != NULL)
        buf_printf(out, ",\"ad_id\":\"%s\"", ad);
    buf_add_text(out, "}");
}

enum shape { ARRAY, LINES };

/* bad of the n clicks, the first ones, lack a field. */
static struct buf
batch(struct fixture *f, enum shape shape, unsigned n, unsigned bad)
{
    struct buf out = BUF_MAX(8 << 20);

    if (shape == ARRAY)
        buf_add_text(&out, "[");
    for (unsigned i = 0; i < n; i++) {
        if (i > 0)
            buf_add_text(&out, shape == ARRAY ? "," : "\n");
        click_add(f, &out, i < bad ? NULL : "a");
    }
    if (shape == ARRAY)
        buf_add_text(&out, "]");
    return out;
}

static struct client_answer
post(const struct fixture *f, const char *path, const char *headers,
     const struct buf *body)
{
    return client_ask(f->port, "POST", path, headers, body->p, body->n);
}

static uint64_t
log_records(struct fixture *f)
{
    uint64_t records = 0, first, next;

    for (uint32_t p = 0; p < clicklog_partitions(f->log); p++) {
        assert_int_equal(clicklog_range(f->log, p, &first, &next, NULL), ERR_OK);
        records += next - first;
    }
    return records;
}

/* Sets seen[serial] for every record, and checks the fields that ingest adds. */
static void
log_read(struct fixture *f, uint8_t *seen, struct click *last)
{
    struct clicklog_reader *reader;
    struct clicklog_record record;

    assert_int_equal(clicklog_reader_open(&reader, f->log, NULL), ERR_OK);
    for (uint32_t p = 0; p < clicklog_partitions(f->log); p++) {
        assert_int_equal(clicklog_seek(reader, p, 0, NULL), ERR_OK);
        while (clicklog_next(reader, &record, NULL) == ERR_OK) {
            char id[UUID_TEXT_SIZE];
            struct click click;
            size_t used;

            assert_int_equal(click_decode(&click, record.p, record.n,
                                          record.version, &used, NULL),
                             ERR_OK);
            assert_int_equal(
                hash_partition(click.campaign_id.p, click.campaign_id.n, 4), p);
            assert_int_equal(click.account, 10 + click.key);
            (void)uuid_format(click.event_id, id);
            seen[strtoul(id + 24, NULL, 16) % IDS_MAX]++;
            *last = click;
            if (last->remote.n == 4 && memcmp(last->remote.p, "\x7F\0\0\1", 4) != 0)
                assert_memory_equal(last->remote.p, "\x05\x06\x07\x08", 4);
        }
        clicklog_release(reader);
    }
    clicklog_reader_close(&reader);
}

static uint64_t
seen_count(struct fixture *f)
{
    uint8_t *seen = calloc(1, IDS_MAX);
    struct click last;
    uint64_t n = 0;

    log_read(f, seen, &last);
    for (int i = 0; i < IDS_MAX; i++) {
        assert_true(seen[i] <= 1);
        n += seen[i];
    }
    free(seen);
    return n;
}

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
    {
        char command[PATH_SIZE * 2];

        (void)snprintf(
            command, sizeof(command),
            "test $(cat '%s'/dlq/*.ndjson | grep -c '\"field\":\"ad_id\"') = 53",
            f->dir);
        assert_int_equal(system(command), 0);
    }
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

/* ingest.ack: replicated, over the whole stage and a cursor that the test moves: answers
 * come when the cursor has reached the clicks, and not before; late ones open the breaker,
 * and then nothing is appended. */
#include "tests/ingest/ingest_fixture.h"

#include <poll.h>
#include <zlib.h>

#include "common/file.h"
#include "ingest/ack.h"
#include "ingest/breaker.h"
#include "ingest/relay_impl.h"

enum { LATE_MS = 400, WAITING_MAX = 64 };

static void
text_set(char **text, const char *value)
{
    free(*text);
    *text = strdup(value);
    assert_non_null(*text);
}

static struct relay_cursor *
cursor_of(struct fixture *f)
{
    struct relay_cursor *cursor;
    char dir[FILE_PATH_MAX];

    relay_dir(&f->config, dir);
    assert_int_equal(relay_cursor_open(&cursor, dir, f->log, NULL), ERR_OK);
    return cursor;
}

static int
setup_replicated(void **state)
{
    struct fixture *f;

    (void)setup(state);
    f = *state;
    ingest_stop(&f->ingest);
    text_set(&f->config.kafka_brokers, "127.0.0.1:1");
    f->config.ingest_ack_ms_max = LATE_MS;
    f->config.ingest_rate_clicks_per_s = 1000000;
    f->config.ingest_rate_burst_clicks = 1000000;
    stage_start(f);
    return 0;
}

/* One click posted, its answer not yet read. */
static int
post_begin(struct fixture *f, unsigned clicks)
{
    struct buf body = batch(f, LINES, clicks, 0);
    char head[256];
    int fd = client_open(f->port);
    int n = snprintf(head, sizeof(head),
                     "POST /v1/clicks HTTP/1.1\r\nHost: t\r\n" AUTH
                     "Content-Length: %zu\r\n\r\n",
                     body.n);

    assert_true(fd >= 0);
    assert_true(client_send(fd, head, (size_t)n));
    assert_true(client_send(fd, body.p, body.n));
    buf_free(&body);
    return fd;
}

static bool
answer_within(int fd, int ms)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};

    return poll(&wait, 1, ms) == 1;
}

static void
answer_take(int fd, int status, const char *says)
{
    struct client_answer a = client_read(fd);

    if (a.status != status || strstr(a.text, says) == NULL)
        fail_msg("want %d %s, got\n%s", status, says, a.text);
    client_free(&a);
    (void)close(fd);
}

static void
records_await(struct fixture *f, uint64_t n)
{
    for (int i = 0; i < 2000 && log_records(f) < n; i++)
        clock_sleep_us(1000);
    assert_int_equal(log_records(f), n);
}

static void
cursor_to_end(struct fixture *f, struct relay_cursor *cursor)
{
    for (uint32_t p = 0; p < clicklog_partitions(f->log); p++) {
        uint64_t first, next;

        assert_int_equal(clicklog_range(f->log, p, &first, &next, NULL), ERR_OK);
        relay_cursor_raise(cursor, p, next);
    }
}

static void
ready_expect(struct fixture *f, int status, const char *says)
{
    struct client_answer a = client_ask(f->port, "GET", "/readyz", "", "", 0);

    if (a.status != status || strstr(a.text, says) == NULL)
        fail_msg("want %d %s, got\n%s", status, says, a.text);
    client_free(&a);
}

static int
metric_of(struct fixture *f, const char *line)
{
    struct client_answer a = client_ask(f->port, "GET", "/metrics", "", "", 0);
    const char *at = strstr(a.body, line);
    int value = at == NULL ? -1 : (int)strtol(at + strlen(line), NULL, 10);

    client_free(&a);
    return value;
}

#define BREAKER "\nclickledger_ack_breaker "
#define WAITING "\nclickledger_ack_waiting_clicks "

static void
breaker_await(struct fixture *f, int state)
{
    for (int i = 0; i < 500 && metric_of(f, BREAKER) != state; i++)
        clock_sleep_us(4000);
    assert_int_equal(metric_of(f, BREAKER), state);
}

/* --- tests --- */

static void
test_an_answer_comes_when_the_cursor_has_reached_the_clicks(void **state)
{
    struct fixture *f = *state;
    struct relay_cursor *cursor = cursor_of(f);

    for (unsigned i = 0; i < 5; i++) {
        int fd = post_begin(f, 10);

        records_await(f, 10 * (i + 1));
        assert_false(answer_within(fd, 60));
        assert_int_equal(metric_of(f, WAITING), 10);
        cursor_to_end(f, cursor);
        assert_true(answer_within(fd, LATE_MS / 2));
        answer_take(fd, 202, "\"accepted\":10");
    }
    assert_int_equal(metric_of(f, WAITING), 0);
    assert_int_equal(metric_of(f, "\nclickledger_ack_seconds_count "), 5);
    relay_cursor_close(&cursor);
}

/* Most of the clicks' partitions are not enough. */
static void
test_every_partition_must_be_reached(void **state)
{
    struct fixture *f = *state;
    struct relay_cursor *cursor = cursor_of(f);
    int fd = post_begin(f, 40);
    uint32_t last = 0;

    records_await(f, 40);
    for (uint32_t p = 0; p < 4; p++) {
        uint64_t first, next;

        assert_int_equal(clicklog_range(f->log, p, &first, &next, NULL), ERR_OK);
        if (next == 0)
            continue;
        relay_cursor_raise(cursor, p, next - 1);
        last = p;
    }
    for (uint32_t p = 0; p < last; p++)
        relay_cursor_raise(cursor, p, 40);
    assert_false(answer_within(fd, 60));
    relay_cursor_raise(cursor, last, 40);
    answer_take(fd, 202, "\"accepted\":40");
    relay_cursor_close(&cursor);
}

static void
test_the_committer_goes_on_while_groups_wait(void **state)
{
    struct fixture *f = *state;
    struct relay_cursor *cursor = cursor_of(f);
    int fds[WAITING_MAX];

    for (unsigned i = 0; i < WAITING_MAX; i++) {
        fds[i] = post_begin(f, 1);
        records_await(f, i + 1); /* a group each */
    }
    cursor_to_end(f, cursor);
    for (int i = 0; i < WAITING_MAX; i++)
        answer_take(fds[i], 202, "\"accepted\":1");
    relay_cursor_close(&cursor);
}

static void
test_late_clicks_get_503_and_open_the_breaker(void **state)
{
    struct fixture *f = *state;
    struct relay_cursor *cursor = cursor_of(f);
    int first = post_begin(f, 3), second;
    int64_t began_us = clock_mono_us();
    struct buf body;

    records_await(f, 3);
    clock_sleep_us(LATE_MS * 500);
    second = post_begin(f, 2);
    records_await(f, 5);
    answer_take(first, 503, "\"code\":\"kafka_away\"");
    assert_true(clock_mono_us() - began_us >= LATE_MS * 1000);
    assert_true(answer_within(second, LATE_MS / 4)); /* all that wait */
    answer_take(second, 503, "Retry-After: 5");
    breaker_await(f, BREAKER_OPEN);
    ready_expect(f, 503, "kafka_away");

    /* Open: an answer at once, and the log stays as it is. */
    for (int i = 0; i < 20; i++) {
        int fd = post_begin(f, 5);

        assert_true(answer_within(fd, LATE_MS / 2));
        answer_take(fd, 503, "nothing was stored");
    }
    assert_int_equal(log_records(f), 5);
    body = batch(f, LINES, 1, 0);
    struct client_answer dry = post(f, "/v1/clicks?dry_run=1", AUTH, &body);
    assert_int_equal(dry.status, 200); /* stores nothing anyway */
    client_free(&dry);
    buf_free(&body);

    /* Half open by itself; one group goes through as the probe. */
    cursor_to_end(f, cursor);
    breaker_await(f, BREAKER_HALF_OPEN);
    ready_expect(f, 200, "ready");
    first = post_begin(f, 1);
    records_await(f, 6);
    second = post_begin(f, 1);
    answer_take(second, 503, "kafka_away");
    assert_int_equal(log_records(f), 6);
    cursor_to_end(f, cursor);
    answer_take(first, 202, "\"accepted\":1");
    breaker_await(f, BREAKER_CLOSED);
    relay_cursor_close(&cursor);
}

static void
test_a_probe_that_is_late_opens_the_breaker_again(void **state)
{
    struct fixture *f = *state;
    struct relay_cursor *cursor = cursor_of(f);

    for (int round = 0; round < 3; round++) {
        int fd = post_begin(f, 1);

        answer_take(fd, 503, "kafka_away");
        breaker_await(f, BREAKER_OPEN);
        assert_int_equal(log_records(f), round + 1);
        cursor_to_end(f, cursor);
        breaker_await(f, BREAKER_HALF_OPEN);
    }
    relay_cursor_close(&cursor);
}

/* A rewind sets the cursor back: what waits goes on waiting, and is not answered early. */
static void
test_a_cursor_set_back_answers_nobody(void **state)
{
    struct fixture *f = *state;
    struct relay_cursor *cursor = cursor_of(f);
    int fd = post_begin(f, 20);

    records_await(f, 20);
    cursor_to_end(f, cursor);
    answer_take(fd, 202, "\"accepted\":20");
    for (uint32_t p = 0; p < 4; p++)
        relay_cursor_lower(cursor, p, 0);
    fd = post_begin(f, 20);
    records_await(f, 40);
    assert_false(answer_within(fd, 60));
    cursor_to_end(f, cursor);
    answer_take(fd, 202, "\"accepted\":20");
    relay_cursor_close(&cursor);
}

static void *
stop_main(void *arg)
{
    struct fixture *f = arg;

    ingest_stop(&f->ingest);
    return NULL;
}

static void
test_a_stop_waits_for_kafka_and_then_says_503(void **state)
{
    struct fixture *f = *state;
    struct relay_cursor *cursor = cursor_of(f);

    for (int acknowledged = 1; acknowledged >= 0; acknowledged--) {
        uint64_t before = log_records(f);
        int fd = post_begin(f, 5);
        pthread_t stopper;

        records_await(f, before + 5);
        assert_int_equal(pthread_create(&stopper, NULL, stop_main, f), 0);
        clock_sleep_us(30000);
        if (acknowledged)
            cursor_to_end(f, cursor);
        answer_take(fd, acknowledged ? 202 : 503, acknowledged ? "" : "kafka_away");
        assert_int_equal(pthread_join(stopper, NULL), 0);
        stage_start(f);
    }
    relay_cursor_close(&cursor);
}

static int
post_packed(struct fixture *f, unsigned clicks)
{
    static uint8_t packed[BODY_MAX];
    struct buf body = batch(f, LINES, clicks, 0);
    z_stream z = {.next_in = body.p, .avail_in = (uInt)body.n};
    char head[256];
    int fd = client_open(f->port), n;

    z.next_out = packed;
    z.avail_out = sizeof(packed);
    assert_int_equal(
        deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    n = snprintf(head, sizeof(head),
                 "POST /v1/clicks HTTP/1.1\r\nHost: t\r\n" AUTH
                 "Content-Encoding: gzip\r\nContent-Length: %lu\r\n\r\n",
                 z.total_out);
    assert_true(client_send(fd, head, (size_t)n));
    assert_true(client_send(fd, packed, z.total_out));
    (void)deflateEnd(&z);
    buf_free(&body);
    return fd;
}

/* Clicks that wait for Kafka keep their memory, however well they were packed: past the
 * budget a request gets 503 at once, and nothing of it is stored; when they have their
 * answer there is room again. */
static void
test_bytes_that_wait_are_within_the_budget(void **state)
{
    struct fixture *f = *state;
    struct relay_cursor *cursor = cursor_of(f);
    int fds[WAITING_MAX];

    ingest_stop(&f->ingest);
    f->config.ingest_in_flight_bytes_max = 50000;
    f->config.ingest_ack_ms_max = 10000;
    stage_start(f);
    for (unsigned round = 0; round < 3; round++) {
        uint64_t before = log_records(f);
        unsigned n = 0;
        int fd = post_packed(f, 40);

        while (!answer_within(fd, 200)) {
            assert_true(n < WAITING_MAX);
            fds[n++] = fd;
            records_await(f, before + UINT64_C(40) * n);
            fd = post_packed(f, 40);
        }
        answer_take(fd, 503, "\"code\":\"queue_full\"");
        assert_in_range(n, 2, WAITING_MAX - 1);
        assert_int_equal(metric_of(f, WAITING), 40 * n);
        assert_int_equal(log_records(f), before + UINT64_C(40) * n);
        cursor_to_end(f, cursor);
        for (unsigned i = 0; i < n; i++)
            answer_take(fds[i], 202, "\"accepted\":40");
    }
    relay_cursor_close(&cursor);
}

/* Without jobs, whose answers would need their requests. */
static void
test_clicks_that_wait_have_a_maximum(void **state)
{
    struct fixture *f = *state;
    struct relay_cursor *cursor = cursor_of(f);
    const struct reply_counts counts = {0};
    const struct clicklog_entry entries[60] = {0};
    const struct ack_config cfg = {.cursor = cursor,
                                   .log = f->log,
                                   .counts = &counts,
                                   .us_max = 60 * CLOCK_SECOND_US,
                                   .clicks_max = 100,
                                   .bytes_max = 1000};
    struct why why = {{0}};
    struct ack *ack;

    ingest_stop(&f->ingest);
    assert_int_equal(ack_open(&ack, &cfg, &why), ERR_OK);
    assert_true(ack_has_room(ack, 100, 1000));
    assert_false(ack_has_room(ack, 101, 0));
    assert_false(ack_has_room(ack, 1, 1001));
    assert_true(ack_admit(ack));
    ack_put(ack, NULL, entries, 60); /* all of partition 0 */
    assert_true(ack_has_room(ack, 40, 0));
    assert_false(ack_has_room(ack, 41, 0));
    ack_put(ack, NULL, entries, 40);
    assert_true(ack_has_room(ack, 0, 0));
    assert_false(ack_has_room(ack, 1, 0));
    relay_cursor_raise(cursor, 0, 60); /* the first of the two */
    for (int i = 0; i < 2000 && !ack_has_room(ack, 60, 0); i++)
        clock_sleep_us(1000);
    assert_true(ack_has_room(ack, 60, 0));
    assert_false(ack_has_room(ack, 61, 0));
    relay_cursor_raise(cursor, 0, 100);
    ack_close(&ack);
    relay_cursor_close(&cursor);
}

static void
test_what_ingest_ack_may_be(void **state)
{
    static const struct {
        const char *ack, *brokers;
        enum err err;
        bool replicated;
        const char *says;
    } table[] = {
        {"", "", ERR_OK, false, ""},
        {"", "b:1", ERR_OK, true, ""},
        {"local", "", ERR_OK, false, ""},
        {"local", "b:1", ERR_OK, false, ""},
        {"replicated", "b:1", ERR_OK, true, ""},
        {"replicated", "", ERR_INVALID, false, "kafka.brokers is empty"},
        {"all", "b:1", ERR_INVALID, false, "ingest.ack is \"all\""},
        {"Local", "", ERR_INVALID, false, "ingest.ack"},
    };
    struct fixture *f = *state;

    ingest_stop(&f->ingest);
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        bool replicated = false;
        struct why why = {{0}};

        text_set(&f->config.ingest_ack, table[i].ack);
        text_set(&f->config.kafka_brokers, table[i].brokers);
        assert_int_equal(ack_replicated(&f->config, &replicated, &why),
                         table[i].err);
        assert_non_null(strstr(why.text, table[i].says));
        if (table[i].err == ERR_OK)
            assert_int_equal(replicated, table[i].replicated);
        assert_int_equal(
            ingest_start(&f->ingest, &f->config, f->log, f->master, &why),
            table[i].err);
        ingest_stop(&f->ingest);
    }
}

int
main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, setup_replicated, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_an_answer_comes_when_the_cursor_has_reached_the_clicks),
        TEST(test_every_partition_must_be_reached),
        TEST(test_the_committer_goes_on_while_groups_wait),
        TEST(test_late_clicks_get_503_and_open_the_breaker),
        TEST(test_a_probe_that_is_late_opens_the_breaker_again),
        TEST(test_a_cursor_set_back_answers_nobody),
        TEST(test_a_stop_waits_for_kafka_and_then_says_503),
        TEST(test_bytes_that_wait_are_within_the_budget),
        TEST(test_clicks_that_wait_have_a_maximum),
        TEST(test_what_ingest_ack_may_be),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Real sockets in one process. The server's handler answers by the path: /now at once,
 * /later from another thread, /echo with the body's size, /hold when the test says so. */
#include "common/http.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/resource.h>

#include "common/clock.h"
#include "tests/http_client.h"

enum {
    BODY_MAX = 100000,
    IN_FLIGHT_MAX = 150000,
    REQUEST_US = 400000,
    IDLE_US = 2000000,
    PATIENT_US = 30000000,
    KEEP_ALIVE = 1000,
    QUEUE_MAX = 4096,
};

struct later {
    pthread_mutex_t mutex;
    pthread_cond_t ready;
    pthread_t thread;
    struct http_request *queue[QUEUE_MAX];
    unsigned n;
    bool ending, held;
};

struct fixture {
    struct http_server *server;
    struct later later;
    uint16_t port;
};

static const struct http_answer ANSWER_OK = {
    .status = 200, .content_type = "text/plain", .body = {"later\n", 6}};

static void *
later_main(void *arg)
{
    struct later *later = arg;

    (void)pthread_mutex_lock(&later->mutex);
    while (!later->ending || later->n > 0) {
        if (later->n == 0 || later->held) {
            (void)pthread_cond_wait(&later->ready, &later->mutex);
            continue;
        }
        http_respond(later->queue[--later->n], &ANSWER_OK);
    }
    (void)pthread_mutex_unlock(&later->mutex);
    return NULL;
}

static void
later_add(struct later *later, struct http_request *request)
{
    (void)pthread_mutex_lock(&later->mutex);
    assert_true(later->n < QUEUE_MAX);
    later->queue[later->n++] = request;
    (void)pthread_cond_signal(&later->ready);
    (void)pthread_mutex_unlock(&later->mutex);
}

static void
later_hold(struct later *later, bool held)
{
    (void)pthread_mutex_lock(&later->mutex);
    later->held = held;
    (void)pthread_cond_signal(&later->ready);
    (void)pthread_mutex_unlock(&later->mutex);
}

static void
handle(void *ctx, struct http_request *request)
{
    struct fixture *f = ctx;
    struct str path = http_path(request);
    char text[64];

    if (str_equal(path, STR("/now"))) {
        http_respond(request, &(struct http_answer){.status = 200,
                                                    .content_type = "text/plain",
                                                    .body = STR("now\n")});
    } else if (str_equal(path, STR("/echo"))) {
        int n = snprintf(text, sizeof(text), "%u", http_body(request).n);

        http_respond(request, &(struct http_answer){.status = 200,
                                                    .content_type = "text/plain",
                                                    .body = {text, (uint32_t)n}});
    } else if (str_equal(path, STR("/later"))) {
        later_add(&f->later, request);
    } else {
        http_problem(request, 404, "path", "Nothing \"is\" here.", NULL, 7);
    }
}

static int
setup_with(void **state, int64_t request_us, int64_t idle_us)
{
    struct fixture *f = calloc(1, sizeof(*f));
    const struct http_config cfg = {
        .address = "127.0.0.1",
        .threads = 2,
        .connections_max = KEEP_ALIVE + 50,
        .body_max = BODY_MAX,
        .in_flight_max = IN_FLIGHT_MAX,
        .request_us_max = request_us,
        .idle_us_max = idle_us,
        .handle = handle,
        .ctx = f,
    };
    struct why why;

    (void)pthread_mutex_init(&f->later.mutex, NULL);
    (void)pthread_cond_init(&f->later.ready, NULL);
    assert_int_equal(pthread_create(&f->later.thread, NULL, later_main, &f->later),
                     0);
    assert_int_equal(http_start(&f->server, &cfg, &why), ERR_OK);
    f->port = http_port(f->server);
    *state = f;
    return 0;
}

static int
setup(void **state)
{
    return setup_with(state, REQUEST_US, IDLE_US);
}

/* For tests of many connections: a busy machine is no slow sender. */
static int
setup_patient(void **state)
{
    return setup_with(state, PATIENT_US, PATIENT_US);
}

static int
teardown(void **state)
{
    struct fixture *f = *state;

    later_hold(&f->later, false);
    http_stop(&f->server);
    (void)pthread_mutex_lock(&f->later.mutex);
    f->later.ending = true;
    (void)pthread_cond_signal(&f->later.ready);
    (void)pthread_mutex_unlock(&f->later.mutex);
    (void)pthread_join(f->later.thread, NULL);
    (void)pthread_cond_destroy(&f->later.ready);
    (void)pthread_mutex_destroy(&f->later.mutex);
    free(f);
    return 0;
}

static void
test_answers_come_at_once_or_from_another_thread(void **state)
{
    struct fixture *f = *state;
    int fd = client_open(f->port);

    for (int i = 0; i < 200; i++) {
        const char *path = i % 2 == 0 ? "/now" : "/later";
        struct client_answer a = client_ask_on(fd, "POST", path, "", "abc", 3);

        assert_int_equal(a.status, 200);
        assert_string_equal(a.body, i % 2 == 0 ? "now\n" : "later\n");
        client_free(&a);
    }
    (void)close(fd);
}

static void
test_problems_are_rfc_9457_and_escaped(void **state)
{
    struct fixture *f = *state;
    struct client_answer a = client_ask(f->port, "GET", "/none", "", NULL, 0);

    assert_int_equal(a.status, 404);
    assert_memory_equal(client_header(&a, "Content-Type"),
                        "application/problem+json", 24);
    assert_memory_equal(client_header(&a, "Retry-After"), "7\r", 2);
    assert_string_equal(
        a.body, "{\"type\":\"about:blank\",\"title\":\"Not Found\",\"status\":404,"
                "\"code\":\"path\",\"detail\":\"Nothing \\\"is\\\" here.\"}\n");
    client_free(&a);
}

/* What a sender says, and the status it gets; 0: cut off. */
static void
test_each_doubtful_request_is_refused(void **state)
{
    static const struct {
        const char *text;
        int want;
    } table[] = {
        {"POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
         "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         400},
        {"POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: "
         "2\r\n"
         "\r\nab",
         400},
        {"POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: "
         "1\r\n"
         "\r\na",
         400},
        {"POST /now HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501},
        {"POST /now HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
         "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         400},
        {"BREW /now HTTP/1.1\r\nHost: x\r\n\r\n", 501},
        {"POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: "
         "99999999999999999999\r\n\r\n",
         413},
        {"POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400},
        {"POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n", 413},
        {"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
         "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
         200},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        int fd = client_open(f->port);
        struct client_answer a;

        assert_true(client_send(fd, table[i].text, strlen(table[i].text)));
        a = client_read(fd);
        if (a.status != table[i].want)
            print_message("row %zu: %s", i, table[i].text);
        assert_int_equal(a.status, table[i].want);
        client_free(&a);
        (void)close(fd);
    }
}

static void
test_a_body_at_the_limit_passes_and_one_byte_more_gets_413(void **state)
{
    struct fixture *f = *state;
    char *body = calloc(1, BODY_MAX + 1);
    int fd = client_open(f->port);
    struct client_answer a = client_ask_on(fd, "POST", "/echo", "", body, BODY_MAX);

    assert_int_equal(a.status, 200);
    assert_string_equal(a.body, "100000");
    client_free(&a);
    a = client_ask_on(fd, "POST", "/echo", "", body, BODY_MAX + 1);
    assert_int_equal(a.status, 413);
    client_free(&a);
    a = client_ask_on(fd, "POST", "/echo", "", body,
                      10); /* the connection lives on */
    assert_int_equal(a.status, 200);
    client_free(&a);
    (void)close(fd);
    free(body);
}

static void
test_a_chunked_body_over_the_limit_gets_413(void **state)
{
    struct fixture *f = *state;
    static const char head[] =
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    char chunk[5 + 2 + 10000 + 2];
    int fd = client_open(f->port);
    struct client_answer a;

    (void)snprintf(chunk, sizeof(chunk), "%x\r\n", 10000);
    memset(chunk + 6, 'x', 10000);
    memcpy(chunk + 6 + 10000, "\r\n", 2);
    assert_true(client_send(fd, head, sizeof(head) - 1));
    for (int i = 0; i < 11; i++)
        (void)client_send(fd, chunk, 6 + 10000 + 2);
    (void)client_send(fd, "0\r\n\r\n", 5);
    a = client_read(fd);
    assert_int_equal(a.status, 413);
    client_free(&a);
    (void)close(fd);
}

static void
test_too_many_header_bytes_get_431(void **state)
{
    struct fixture *f = *state;
    char head[40000];
    int n = snprintf(head, sizeof(head),
                     "GET /now HTTP/1.1\r\nHost: x\r\nX-Long: %036000d", 0);
    int fd = client_open(f->port);
    struct client_answer a;

    (void)client_send(fd, head, (size_t)n);
    (void)client_send(fd, "\r\n\r\n", 4);
    a = client_read(fd);
    assert_true(a.status == 431 ||
                a.status == 0); /* answered, or cut while sending */
    client_free(&a);
    (void)close(fd);
    a = client_ask(f->port, "GET", "/now", "", NULL, 0);
    assert_int_equal(a.status, 200);
    client_free(&a);
}

static void
test_bodies_over_the_budget_get_503_until_there_is_room(void **state)
{
    struct fixture *f = *state;
    char *body = calloc(1, BODY_MAX);
    int fd = client_open(f->port);
    char head[128];
    struct http_stats stats;
    struct client_answer a;
    int n = snprintf(
        head, sizeof(head),
        "POST /later HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", BODY_MAX);

    later_hold(&f->later, true);
    assert_true(client_send(fd, head, (size_t)n) &&
                client_send(fd, body, BODY_MAX));
    do
        http_stats_get(f->server, &stats);
    while (stats.in_flight_bytes < BODY_MAX);
    a = client_ask(f->port, "POST", "/echo", "", body, BODY_MAX);
    assert_int_equal(a.status, 503);
    assert_memory_equal(client_header(&a, "Retry-After"), "1\r", 2);
    client_free(&a);
    later_hold(&f->later, false);
    a = client_read(fd);
    assert_int_equal(a.status, 200);
    client_free(&a);
    do
        http_stats_get(f->server, &stats);
    while (stats.in_flight_bytes > 0);
    a = client_ask(f->port, "POST", "/echo", "", body, BODY_MAX);
    assert_int_equal(a.status, 200);
    client_free(&a);
    (void)close(fd);
    free(body);
}

/* Sends a byte every 50 ms, so no time-out for inactivity would ever strike. Returns ms
 * until the server cut it off. */
static int64_t
dribble(uint16_t port, const char *text)
{
    int fd = client_open(port);
    int64_t began_us = clock_mono_us();
    bool open = true;

    for (size_t i = 0; open && clock_mono_us() - began_us < 5 * CLOCK_SECOND_US;
         i++) {
        char byte = text[i] == 0 ? 'x' : text[i];
        char got;

        i -= text[i] == 0 ? 1 : 0;
        open = client_send(fd, &byte, 1);
        clock_sleep_us(50000);
        open = open && recv(fd, &got, 1, MSG_DONTWAIT) != 0;
    }
    (void)close(fd);
    return (clock_mono_us() - began_us) / 1000;
}

static void
test_slow_senders_are_cut_off_in_line_headers_and_body(void **state)
{
    static const char *const texts[] = {
        "GET /now",
        "GET /now HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        "POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
    };
    struct fixture *f = *state;

    /* The line needs about a second itself; its clock starts with its first byte. */
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        int64_t ms = dribble(f->port, texts[i]);

        assert_true(ms >= REQUEST_US / 1000);
        assert_true(ms < 3000);
    }
}

static void
test_an_idle_connection_is_closed_after_its_limit(void **state)
{
    struct fixture *f = *state;
    int fd = client_open(f->port);
    int64_t began_us = clock_mono_us();
    struct client_answer a = client_ask_on(fd, "GET", "/now", "", NULL, 0);
    char byte;

    assert_int_equal(a.status, 200);
    client_free(&a);
    assert_int_equal(recv(fd, &byte, 1, 0), 0);
    assert_in_range((clock_mono_us() - began_us) / 1000, IDLE_US / 1000,
                    PATIENT_US / 1000);
    (void)close(fd);
}

/* All send at once, several times: libmicrohttpd's own loop would hang at 128. */
static void
test_a_thousand_keep_alive_connections_do_not_stall(void **state)
{
    static const char request[] = "POST /later HTTP/1.1\r\nHost: x\r\n"
                                  "Content-Length: 2\r\n\r\nab";
    struct fixture *f = *state;
    static int fds[KEEP_ALIVE];
    int64_t began_us;

    for (int i = 0; i < KEEP_ALIVE; i++) {
        fds[i] = client_open(f->port);
        assert_true(fds[i] >= 0);
    }
    for (int active = 64; active <= KEEP_ALIVE; active += active < 160 ? 32 : 168) {
        began_us = clock_mono_us();
        for (int i = 0; i < active; i++)
            assert_true(client_send(fds[i], request, sizeof(request) - 1));
        for (int i = 0; i < active; i++) {
            struct client_answer a = client_read(fds[i]);

            assert_int_equal(a.status, 200);
            client_free(&a);
        }
        assert_true(clock_mono_us() - began_us < PATIENT_US);
    }
    for (int i = 0; i < KEEP_ALIVE; i++)
        (void)close(fds[i]);
}

static void
test_connections_over_the_limit_are_told_so(void **state)
{
    struct fixture *f = *state;
    static int fds[KEEP_ALIVE + 50];
    struct client_answer a;
    int fd;

    for (int i = 0; i < KEEP_ALIVE + 50; i++)
        fds[i] = client_open(f->port);
    fd = client_open(f->port);
    a = client_read(fd);
    assert_int_equal(a.status, 503);
    client_free(&a);
    (void)close(fd);
    for (int i = 0; i < KEEP_ALIVE + 50; i++)
        (void)close(fds[i]);
}

static void *
stop_main(void *arg)
{
    struct fixture *f = arg;

    http_stop(&f->server);
    return NULL;
}

static void
test_stopping_finishes_what_is_in_flight_and_refuses_new(void **state)
{
    static const char request[] = "POST /later HTTP/1.1\r\nHost: x\r\n"
                                  "Content-Length: 2\r\n\r\nab";
    struct fixture *f = *state;
    int waiting = client_open(f->port), idle = client_open(f->port), late;
    struct http_stats stats;
    struct client_answer a = client_ask_on(idle, "GET", "/now", "", NULL, 0);
    pthread_t stopper;

    client_free(&a);
    later_hold(&f->later, true);
    assert_true(client_send(waiting, request, sizeof(request) - 1));
    do
        http_stats_get(f->server, &stats);
    while (stats.requests == 0);
    assert_int_equal(pthread_create(&stopper, NULL, stop_main, f), 0);
    do { /* until the door is shut */
        late = client_open(f->port);
        if (late >= 0)
            (void)close(late);
    } while (late >= 0);
    clock_sleep_us(20000);
    a = client_ask_on(idle, "POST", "/now", "", "ab", 2);
    assert_int_equal(a.status, 503);
    client_free(&a);
    later_hold(&f->later, false);
    a = client_read(waiting);
    assert_int_equal(a.status, 200);
    assert_string_equal(a.body, "later\n");
    client_free(&a);
    (void)pthread_join(stopper, NULL);
    (void)close(waiting);
    (void)close(idle);
}

static void
test_a_client_that_leaves_before_its_answer_harms_nobody(void **state)
{
    static const char request[] = "POST /later HTTP/1.1\r\nHost: x\r\n"
                                  "Content-Length: 2\r\n\r\nab";
    struct fixture *f = *state;
    struct http_stats stats;
    struct client_answer a;

    later_hold(&f->later, true);
    for (int i = 0; i < 50; i++) {
        int fd = client_open(f->port);

        assert_true(client_send(fd, request, sizeof(request) - 1));
        do
            http_stats_get(f->server, &stats);
        while (stats.requests < (unsigned)i + 1);
        (void)close(fd);
    }
    later_hold(&f->later, false);
    do
        http_stats_get(f->server, &stats);
    while (stats.requests > 0);
    a = client_ask(f->port, "GET", "/now", "", NULL, 0);
    assert_int_equal(a.status, 200);
    client_free(&a);
}

static void
test_a_port_in_use_is_named(void **state)
{
    struct fixture *f = *state;
    const struct http_config cfg = {.address = "127.0.0.1",
                                    .port = f->port,
                                    .threads = 1,
                                    .connections_max = 1,
                                    .handle = handle};
    struct http_server *other;
    struct why why = {{0}};

    assert_int_equal(http_start(&other, &cfg, &why), ERR_INVALID);
    assert_null(other);
    assert_non_null(strstr(why.text, "stop what uses it"));
}

int
main(void)
{
#define TEST(f)    cmocka_unit_test_setup_teardown(f, setup, teardown)
#define PATIENT(f) cmocka_unit_test_setup_teardown(f, setup_patient, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_answers_come_at_once_or_from_another_thread),
        TEST(test_problems_are_rfc_9457_and_escaped),
        TEST(test_each_doubtful_request_is_refused),
        TEST(test_a_body_at_the_limit_passes_and_one_byte_more_gets_413),
        TEST(test_a_chunked_body_over_the_limit_gets_413),
        TEST(test_too_many_header_bytes_get_431),
        TEST(test_bodies_over_the_budget_get_503_until_there_is_room),
        TEST(test_slow_senders_are_cut_off_in_line_headers_and_body),
        TEST(test_an_idle_connection_is_closed_after_its_limit),
        PATIENT(test_a_thousand_keep_alive_connections_do_not_stall),
        PATIENT(test_connections_over_the_limit_are_told_so),
        TEST(test_stopping_finishes_what_is_in_flight_and_refuses_new),
        TEST(test_a_client_that_leaves_before_its_answer_harms_nobody),
        TEST(test_a_port_in_use_is_named),
    };
#undef TEST
    struct rlimit files = {.rlim_cur = 0};

    /* Both ends of every connection are in this process. */
    (void)getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max < 4096 ? files.rlim_max : 4096;
    (void)setrlimit(RLIMIT_NOFILE, &files);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

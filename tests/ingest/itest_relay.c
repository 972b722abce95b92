/* Ingest, relay and a real broker: what the spool has arrives in Kafka, in order, however
 * often it takes, and 202 waits for it. The broker is one of our own, since it is killed
 * and stopped; CLICKLEDGER_TEST_KAFKA_DIR names one that runs already (deploy/kafka). */
#include "tests/ingest/relay_fixture.h"

#include <poll.h>
#include <pthread.h>

/* --- posting --- */

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

    assert_true(client_send(fd, head, (size_t)n));
    assert_true(client_send(fd, body.p, body.n));
    buf_free(&body);
    return fd;
}

static int
answer_take(int fd)
{
    struct client_answer a = client_read(fd);
    int status = a.status;

    if (status == 503)
        assert_non_null(strstr(a.body, "kafka_away"));
    client_free(&a);
    (void)close(fd);
    return status;
}

static bool
answer_within(int fd, int ms)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};

    return poll(&wait, 1, ms) == 1;
}

/* --- tests --- */

static void
last_check(const struct clicklog_last *last, uint64_t incarnation, uint64_t count)
{
    assert_int_equal(last->incarnation, incarnation);
    assert_int_equal(last->count, count);
}

static void
test_everything_in_the_spool_arrives_once_and_in_order(void **state)
{
    struct world *w = *state;
    struct control_spool spool;
    struct clicklog_stats stats;
    struct heard *h;

    spool_fill(w, 20000);
    relay_begin(w);
    cursor_await(w);
    spool_fill(w, 5000); /* while it runs */
    cursor_await(w);
    relay_stop(&w->relay);
    h = kafka_hear(w);
    assert_int_equal(h->repeats, 0);
    clicklog_stats_get(w->f->log, &stats);
    MUST(control_sync(w->control, 10 * CLOCK_SECOND_US, why));
    MUST(control_spool_get(w->control, &spool, why));
    assert_int_equal(spool.spool_id, stats.spool_id);
    assert_int_equal(spool.mark.incarnation, stats.incarnation);
    assert_true(spool.closed);
    assert_int_equal(spool.mark.floor_us, stats.floor_us);
    for (uint32_t p = 0; p < P; p++)
        last_check(&spool.mark.last[p], stats.incarnation, h->accepted[p]);
    free(h);

    /* The next run, with a new incarnation, goes on where this one ended. */
    clicklog_close(&w->f->log);
    log_start(w->f, UINT64_C(1) << 29);
    relay_begin(w);
    spool_fill(w, 1000);
    cursor_await(w);
    relay_stop(&w->relay);
    h = kafka_hear(w);
    assert_int_equal(h->repeats, 0);
    assert_int_equal(h->incarnation[2], 0);
    free(h);
}

static void
test_another_spool_is_refused_until_the_first_is_forgotten(void **state)
{
    struct world *w = *state;
    struct clicklog_stats stats;
    struct clicklog *first = w->f->log;
    struct why said = {{0}};
    char dir[FILE_PATH_MAX];
    char was[64];

    relay_begin(w);
    relay_stop(&w->relay);
    clicklog_stats_get(first, &stats);
    (void)snprintf(was, sizeof(was), "%s", w->f->dir);
    (void)snprintf(w->f->dir, sizeof(w->f->dir), "%.50s/2", was);
    (void)snprintf(dir, sizeof(dir), "%s/relay", w->f->dir);
    log_start(w->f, UINT64_C(1) << 29);
    assert_int_equal(
        relay_start(&w->relay, &w->f->config, w->f->log, w->control, dir, &said),
        ERR_CONFLICT);
    assert_null(w->relay);
    assert_non_null(strstr(said.text, "forget"));
    MUST(control_spool_forget(w->control, stats.spool_id, why));
    spool_fill(w, 100);
    MUST(relay_start(&w->relay, &w->f->config, w->f->log, w->control, dir, why));
    (void)snprintf(w->dir, sizeof(w->dir), "%s", dir);
    cursor_await(w);
    relay_stop(&w->relay);
    free(kafka_hear(w));
    clicklog_close(&w->f->log);
    (void)snprintf(w->f->dir, sizeof(w->f->dir), "%s", was);
    w->f->log = first;
}

/* An empty data directory in the place of the one that is lost. */
static struct clicklog *
spool_replace(struct world *w)
{
    struct clicklog *lost = w->f->log;
    char was[64];

    (void)snprintf(was, sizeof(was), "%s", w->f->dir);
    (void)snprintf(w->f->dir, sizeof(w->f->dir), "%.50s/2", was);
    log_start(w->f, UINT64_C(1) << 29);
    (void)snprintf(w->dir, sizeof(w->dir), "%s/relay", w->f->dir);
    (void)snprintf(w->f->dir, sizeof(w->f->dir), "%s", was);
    return lost;
}

/* Offsets begin at 0 again, and nothing that was said of the lost one means the new one. */
static void
test_a_spool_that_replaces_a_lost_one_says_its_own_marks(void **state)
{
    struct world *w = *state;
    struct clicklog_stats lost_stats, stats;
    struct clicklog_mark lost_mark;
    struct control_spool spool;
    struct clicklog *lost;
    struct heard *h;
    uint64_t offset;

    spool_fill(w, 3000);
    relay_begin(w);
    cursor_await(w);
    relay_stop(&w->relay);
    clicklog_stats_get(w->f->log, &lost_stats);
    MUST(clicklog_mark_get(w->f->log, &lost_mark, why));
    MUST(control_archived_put(w->control, lost_mark.last, why));
    lost = spool_replace(w);
    MUST(control_spool_forget(w->control, lost_stats.spool_id, why));
    spool_fill(w, 1000);
    relay_begin(w);
    cursor_await(w);
    relay_stop(&w->relay);
    clicklog_stats_get(w->f->log, &stats);
    h = kafka_take(w);
    assert_int_equal(h->repeats, 0);
    assert_int_equal(h->incarnation[0], lost_stats.incarnation);
    assert_int_equal(h->incarnation[1], stats.incarnation);
    MUST(control_sync(w->control, 10 * CLOCK_SECOND_US, why));
    MUST(control_spool_get(w->control, &spool, why));
    assert_int_equal(spool.spool_id, stats.spool_id);
    for (uint32_t p = 0; p < P; p++) {
        last_check(&spool.mark.last[p], stats.incarnation, h->next[1][p]);
        last_check(&spool.mark.before[p], 0, 0);
        assert_int_equal(
            clicklog_offset_of(w->f->log, p, lost_mark.last[p], &offset, NULL),
            ERR_NOTFOUND);
        MUST(clicklog_offset_of(w->f->log, p, spool.mark.last[p], &offset, why));
        assert_int_equal(offset, h->next[1][p]);
    }
    free(h);
    clicklog_close(&w->f->log);
    w->f->log = lost;
}

static void
file_copy(const char *from, const char *to)
{
    struct buf bytes = BUF_MAX(UINT64_C(1) << 30);
    FILE *out = fopen(to, "wb");

    assert_non_null(out);
    MUST(file_read(from, &bytes, why));
    assert_int_equal(fwrite(bytes.p, 1, bytes.n, out), bytes.n);
    assert_int_equal(fclose(out), 0);
    buf_free(&bytes);
}

/* The disk image has 1000 clicks of the 3000 that were sent. The cursor is newer than it, and in the
 * middle of what the restored spool has taken before its relay runs. */
static void
test_a_spool_set_back_to_an_older_image_goes_on_without_a_gap(void **state)
{
    struct world *w = *state;
    char data[FILE_PATH_MAX], image[FILE_PATH_MAX];
    struct clicklog_mark sent, restored;
    struct clicklog_stats stats;
    struct heard *h;
    uint64_t offset;

    (void)snprintf(data, sizeof(data), "%s/log/data.mdb", w->f->dir);
    (void)snprintf(image, sizeof(image), "%s/image", w->f->dir);
    spool_fill(w, 1000);
    MUST(clicklog_mark_get(w->f->log, &restored, why));
    file_copy(data, image);
    relay_begin(w);
    spool_fill(w, 2000);
    cursor_await(w);
    relay_stop(&w->relay);
    MUST(clicklog_mark_get(w->f->log, &sent, why));
    clicklog_close(&w->f->log);
    file_copy(image, data);
    log_start(w->f, UINT64_C(1) << 29);
    for (uint32_t p = 0; p < P; p++) {
        /* All of the image is archived, where more of that incarnation is. */
        MUST(clicklog_offset_of(w->f->log, p, sent.last[p], &offset, why));
        assert_int_equal(offset, restored.next[p]);
    }
    spool_fill(w, 3000);
    relay_begin(w);
    spool_fill(w, 500);
    cursor_await(w);
    relay_stop(&w->relay);
    h = kafka_take(w);
    assert_int_equal(h->repeats, 0); /* from the image's end on */
    clicklog_stats_get(w->f->log, &stats);
    assert_int_equal(h->incarnation[1], stats.incarnation);
    MUST(clicklog_mark_get(w->f->log, &restored, why));
    for (uint32_t p = 0; p < P; p++) {
        assert_int_equal(h->next[0][p], sent.last[p].count);
        last_check(&restored.last[p], stats.incarnation, h->next[1][p]);
        assert_int_equal(restored.before[p].incarnation, sent.incarnation);
        assert_true(restored.before[p].count < sent.last[p].count);
    }
    free(h);
}

static void
test_a_running_relay_sends_again_from_where_it_is_asked(void **state)
{
    struct world *w = *state;
    uint64_t from, first, next;
    struct heard *h = NULL;

    spool_fill(w, 3000);
    relay_begin(w);
    cursor_await(w);
    MUST(clicklog_range(w->f->log, 2, &first, &next, why));
    MUST(relay_rewind(w->dir, w->f->log, 2, next - 100, &from, why));
    assert_int_equal(from, next - 100);
    clock_sleep_us(CLOCK_SECOND_US); /* it is taken within a second */
    cursor_await(w);
    h = kafka_hear(w);
    assert_int_equal(h->repeats, 100);
    free(h);
}

/* Posts until told to stop, again and again the same until 202. */
struct poster {
    struct fixture *f;
    atomic_bool stop;
    atomic_uint answered; /* 202 */
    unsigned requests, refused;
};

static void *
post_main(void *arg)
{
    struct poster *poster = arg;

    while (!atomic_load(&poster->stop)) {
        struct buf body = batch(poster->f, LINES, 20, 0);
        int status = 0;

        while (status != 202) {
            struct client_answer a = post(poster->f, "/v1/clicks", AUTH, &body);

            status = a.status;
            client_free(&a);
            poster->requests++;
            if (status == 202) {
                atomic_fetch_add(&poster->answered, 1);
                break;
            }
            assert_int_equal(status, 503);
            poster->refused++;
            clock_sleep_us(50000);
        }
        buf_free(&body);
    }
    return NULL;
}

static void
answered_await(struct poster *poster)
{
    int64_t until_us = clock_mono_us() + WAIT_S * CLOCK_SECOND_US;
    unsigned was = atomic_load(&poster->answered);

    while (atomic_load(&poster->answered) < was + 20) {
        assert_true(clock_mono_us() < until_us);
        clock_sleep_us(5000);
    }
}

/* Killed, then stopped for longer than a delivery may take: what was under way when it
 * stopped may be written after all, and comes a second time. */
static void
test_a_killed_broker_loses_nothing_that_was_answered_202(void **state)
{
    struct world *w = *state;
    struct poster poster = {.f = w->f};
    struct heard *h;
    pthread_t thread;

    relay_begin(w);
    stage_start(w->f);
    assert_int_equal(pthread_create(&thread, NULL, post_main, &poster), 0);
    answered_await(&poster);
    own_kafka_signal(1, SIGKILL);
    clock_sleep_us(CLOCK_SECOND_US);
    own_kafka_again(1);
    answered_await(&poster);
    for (int round = 0; round < 3; round++) {
        own_kafka_signal(1, SIGSTOP);
        clock_sleep_us(w->f->config.kafka_delivery_ms_max * 1000 + CLOCK_SECOND_US);
        own_kafka_signal(1, SIGCONT);
        answered_await(&poster);
    }
    atomic_store(&poster.stop, true);
    (void)pthread_join(thread, NULL);
    cursor_await(w);
    h = kafka_hear(w);
    print_message("%u requests, %u refused, %u repeats\n", poster.requests,
                  poster.refused, (unsigned)h->repeats);
    assert_true(poster.refused > 0);
    /* Every click was answered 202 in the end; a refused one may be there twice. */
    for (unsigned i = 1; i <= w->f->serial && i < IDS_MAX; i++)
        if (h->seen[i] == 0)
            fail_msg("click %u was answered 202 and is not there", i);
    free(h);
}

static void
test_202_waits_for_the_broker_and_the_breaker_follows_it(void **state)
{
    struct world *w = *state;
    uint64_t records;
    int fd, status = 0;
    int64_t began_us;

    relay_begin(w);
    stage_start(w->f);
    fd = post_begin(w->f, 3);
    assert_int_equal(answer_take(fd), 202);

    own_kafka_signal(1, SIGSTOP);
    clock_sleep_us(100000); /* all of its threads */
    began_us = clock_mono_us();
    fd = post_begin(w->f, 3);
    if (answer_within(fd, ACK_MS - 300))
        fail_msg("answered already: %d", answer_take(fd));
    assert_int_equal(answer_take(fd), 503);
    assert_true(clock_mono_us() - began_us >= ACK_MS * 1000);

    records = log_records(w->f);
    assert_int_equal(records, 6);
    for (int i = 0; i < 10; i++) {
        fd = post_begin(w->f, 3);
        assert_true(answer_within(fd, 500));
        assert_int_equal(answer_take(fd), 503);
    }
    assert_int_equal(log_records(w->f), records);
    struct client_answer ready =
        client_ask(w->f->port, "GET", "/readyz", "", "", 0);
    assert_int_equal(ready.status, 503);
    client_free(&ready);

    own_kafka_signal(1, SIGCONT);
    for (int i = 0; i < 600 && status != 202; i++) {
        fd = post_begin(w->f, 1);
        status = answer_take(fd);
        clock_sleep_us(50000);
    }
    assert_int_equal(status, 202);
    for (int i = 0; i < 20; i++)
        assert_int_equal(answer_take(post_begin(w->f, 2)), 202);
    ready = client_ask(w->f->port, "GET", "/readyz", "", "", 0);
    assert_int_equal(ready.status, 200);
    client_free(&ready);
    cursor_await(w);
    free(kafka_hear(w));
}

/* Away from the start: clicks are kept, and go when it comes. */
static void
test_brokers_that_are_away_at_the_start_are_waited_for(void **state)
{
    struct world *w = *state;

    text_set(&w->f->config.ingest_ack, "local");
    own_kafka_signal(1, SIGSTOP);
    spool_fill(w, 500);
    relay_begin(w);
    stage_start(w->f);
    assert_int_equal(answer_take(post_begin(w->f, 5)), 202);
    own_kafka_signal(1, SIGCONT);
    cursor_await(w);
    free(kafka_hear(w));
}

static void
relay_apart(struct world *w, int order)
{
    char path[FILE_PATH_MAX], byte;
    const struct clicklog_config cfg = {.dir = path,
                                        .partitions = P,
                                        .map_bytes = UINT64_C(1) << 30,
                                        .bytes_max = UINT64_C(1) << 29,
                                        .read_only = true};
    struct clicklog *log;
    struct relay *relay;

    (void)snprintf(path, sizeof(path), "%s/log", w->f->dir);
    if (clicklog_open(&log, &cfg, NULL) != ERR_OK ||
        relay_start(&relay, &w->f->config, log, NULL, w->dir, NULL) != ERR_OK)
        _exit(1);
    (void)!read(order, &byte, 1); /* until the pipe closes */
    relay_stop(&relay);
    clicklog_close(&log);
    _exit(0);
}

static void
test_a_relay_in_a_process_of_its_own_moves_ingests_cursor(void **state)
{
    struct world *w = *state;
    int order[2], status;
    pid_t child;

    control_close(&w->control); /* nothing of Kafka's may cross the fork */
    clicklog_close(&w->f->log);
    log_start(w->f, UINT64_C(1) << 29);
    assert_int_equal(pipe(order), 0);
    child = fork();
    if (child == 0) {
        (void)close(order[1]);
        w->f->log = NULL; /* the parent's */
        relay_apart(w, order[0]);
    }
    (void)close(order[0]);
    stage_start(w->f);
    for (int i = 0; i < 50; i++) {
        status = answer_take(post_begin(w->f, 20));
        if (i > 5)
            assert_int_equal(status, 202);
    }
    (void)close(order[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    ingest_stop(&w->f->ingest);
    free(kafka_hear(w));
}

int
main(int argc, char **argv)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, world_make, world_free)
    const struct CMUnitTest tests[] = {
        TEST(test_a_relay_in_a_process_of_its_own_moves_ingests_cursor),
        TEST(test_everything_in_the_spool_arrives_once_and_in_order),
        TEST(test_another_spool_is_refused_until_the_first_is_forgotten),
        TEST(test_a_spool_that_replaces_a_lost_one_says_its_own_marks),
        TEST(test_a_spool_set_back_to_an_older_image_goes_on_without_a_gap),
        TEST(test_a_running_relay_sends_again_from_where_it_is_asked),
        TEST(test_202_waits_for_the_broker_and_the_breaker_follows_it),
        TEST(test_brokers_that_are_away_at_the_start_are_waited_for),
        TEST(test_a_killed_broker_loses_nothing_that_was_answered_202),
    };

    if (argc > 1) /* one of them, by a pattern */
        cmocka_set_test_filter(argv[1]);
    own_kafka_start(1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

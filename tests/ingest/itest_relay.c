/* Ingest, relay and a real broker: what the spool has arrives in Kafka, in order, however
 * often it takes, and 202 waits for it. The broker is one of our own, since it is killed
 * and stopped; CLICKLEDGER_TEST_KAFKA_DIR names one that runs already (deploy/kafka). */
#include "tests/ingest/ingest_fixture.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include "common/file.h"
#include "common/kafka.h"
#include "ingest/relay_impl.h"
#include "schema/topics.h"

enum { P = 4, ACK_MS = 1500, INCARNATIONS_MAX = 16, WAIT_S = 90 };

static char broker_dir[256], brokers[64];

/* --- the broker --- */

static int
kafka_run(const char *verb, const char *third, const char *fourth)
{
    pid_t pid = fork();
    int status = -1;

    if (pid == 0) {
        (void)execl("deploy/kafka", "kafka", verb, broker_dir, third, fourth,
                    (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void
broker_signal(int signal)
{
    struct buf text = BUF_MAX(64);
    char path[300];

    (void)snprintf(path, sizeof(path), "%s/kafka/1/pid", broker_dir);
    assert_int_equal(file_read(path, &text, NULL), ERR_OK);
    buf_add(&text, "", 1);
    assert_int_equal(kill((pid_t)strtol((char *)text.p, NULL, 10), signal), 0);
    buf_free(&text);
}

static bool
broker_start(void)
{
    const char *given = getenv("CLICKLEDGER_TEST_KAFKA_DIR");
    struct buf text = BUF_MAX(4096);
    char path[300], port[16], *at;

    (void)snprintf(broker_dir, sizeof(broker_dir), "%s",
                   given != NULL ? given : "/tmp/clickledger-relay-XXXXXX");
    if (given == NULL)
        assert_non_null(mkdtemp(broker_dir));
    for (int i = 0; given == NULL && i < 5; i++) {
        (void)snprintf(port, sizeof(port), "%d",
                       33000 + (int)(hash_random_u64() % 200) * 5);
        if (kafka_run("start", "--port", port) == 0)
            break;
    }
    (void)snprintf(path, sizeof(path), "%s/kafka.env", broker_dir);
    if (file_read(path, &text, NULL) != ERR_OK)
        return false;
    buf_add(&text, "", 1);
    at = strstr((char *)text.p, "127.0.0.1:");
    if (at != NULL)
        (void)snprintf(brokers, sizeof(brokers), "%.*s", (int)strcspn(at, ",\"\n"),
                       at);
    buf_free(&text);
    return at != NULL;
}

/* --- the stages --- */

struct world {
    struct fixture *f;
    struct control *control;
    struct relay *relay;
    char dir[FILE_PATH_MAX];
};

static void
text_set(char **text, const char *value)
{
    free(*text);
    *text = strdup(value);
    assert_non_null(*text);
}

#define MUST(call)                                                    \
    do {                                                              \
        struct why why_ = {{0}}, *why = &why_;                        \
        enum err err_ = (call);                                       \
        if (err_ != ERR_OK)                                           \
            fail_msg("%s: %s: %s", #call, err_name(err_), why_.text); \
    } while (0)

static void
relay_begin(struct world *w)
{
    MUST(relay_start(&w->relay, &w->f->config, w->f->log, w->control, w->dir, why));
}

static int
world_make(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct buf report = BUF_MAX(1 << 16);
    struct config *config;
    char prefix[32];

    (void)setup((void **)&w->f);
    ingest_stop(&w->f->ingest);
    config = &w->f->config;
    (void)snprintf(prefix, sizeof(prefix), "r%016llx_",
                   (unsigned long long)hash_random_u64());
    text_set(&config->kafka_brokers, brokers);
    text_set(&config->kafka_topic_prefix, prefix);
    config->clicklog_partitions = P;
    config->kafka_replication = config->kafka_min_insync = 1;
    config->kafka_delivery_ms_max = 2000;
    config->ingest_ack_ms_max = ACK_MS;
    config->ingest_rate_clicks_per_s = config->ingest_rate_burst_clicks = 1000000;
    MUST(topics_create(config, &report, why));
    buf_free(&report);
    MUST(control_open(&w->control, config, P, why));
    relay_dir(config, w->dir);
    *state = w;
    return 0;
}

static int
world_free(void **state)
{
    struct world *w = *state;

    broker_signal(SIGCONT); /* whatever the test ended with */
    ingest_stop(&w->f->ingest);
    relay_stop(&w->relay);
    control_close(&w->control);
    (void)teardown((void **)&w->f);
    free(w);
    return 0;
}

/* Clicks straight into the spool, n in groups of up to 1000. */
static void
spool_fill(struct world *w, unsigned n)
{
    static uint8_t bodies[1000][256];
    struct clicklog_entry *entries = calloc(1000, sizeof(*entries));

    for (unsigned done = 0; done < n;) {
        unsigned count = n - done < 1000 ? n - done : 1000;

        for (unsigned i = 0; i < count; i++) {
            char campaign[16];
            struct click click = {.account = 1, .timestamp_ms = 1};
            size_t size;

            (void)snprintf(campaign, sizeof(campaign), "c%u", (done + i) % 50);
            click.remote = click.ip = STR("\1\2\3\4");
            click.campaign_id = str_of(campaign);
            click.ad_id = click.publisher_id = click.user_id = STR("x");
            size = click_encode_body(&click, bodies[i]);
            entries[i] = (struct clicklog_entry){
                .account = 1,
                .campaign = STR("c"),
                .partition = hash_partition(campaign, strlen(campaign), P),
                .version = CLICK_VERSION,
                .body = {(const char *)bodies[i], (uint32_t)size}};
        }
        MUST(clicklog_append(w->f->log, entries, count, clock_now_us(), NULL, why));
        done += count;
    }
    free(entries);
}

static void
cursor_await(struct world *w)
{
    int64_t until_us = clock_mono_us() + WAIT_S * CLOCK_SECOND_US;
    struct relay_cursor *cursor;

    MUST(relay_cursor_open(&cursor, w->dir, w->f->log, why));
    for (uint32_t p = 0; p < P; p++) {
        uint64_t first, next;

        MUST(clicklog_range(w->f->log, p, &first, &next, why));
        while (relay_cursor_get(cursor, p) < next) {
            assert_true(clock_mono_us() < until_us);
            clock_sleep_us(5000);
        }
    }
    relay_cursor_close(&cursor);
}

/* --- what Kafka has --- */

struct heard {
    uint64_t accepted[P], repeats;
    uint64_t incarnation[INCARNATIONS_MAX]; /* in the order of their coming */
    uint64_t next[INCARNATIONS_MAX][P];
    int64_t received_us[P];
    uint8_t seen[IDS_MAX]; /* by the number in the event id */
};

static void
message_take(struct heard *h, const struct kafka_message *m)
{
    struct str record;
    struct click click;
    uint32_t id;
    size_t used;
    int i = 0;

    assert_true(wire_read(m->value, &id, &record));
    MUST(click_decode(&click, (const uint8_t *)record.p, record.n, id, &used, why));
    assert_int_equal(click.partition, m->partition);
    assert_true(str_equal(m->key, click.campaign_id));
    assert_int_equal(m->timestamp_ms, click.received_us / 1000);
    while (i < INCARNATIONS_MAX && h->incarnation[i] != 0 &&
           h->incarnation[i] != click.incarnation)
        i++;
    assert_true(i < INCARNATIONS_MAX);
    h->incarnation[i] = click.incarnation;
    if (click.seq < h->next[i][m->partition]) {
        h->repeats++;
        return;
    }
    assert_int_equal(click.seq, h->next[i][m->partition]); /* no gap */
    h->next[i][m->partition]++;
    assert_true(click.received_us >= h->received_us[m->partition]);
    h->received_us[m->partition] = click.received_us;
    h->accepted[m->partition]++;
    char text[UUID_TEXT_SIZE];
    (void)uuid_format(click.event_id, text);
    h->seen[strtoul(text + 24, NULL, 16) % IDS_MAX]++;
}

/* All of the topic, which must be all of the spool. */
static struct heard *
kafka_hear(struct world *w)
{
    struct heard *h = calloc(1, sizeof(*h));
    struct kafka_consumer *consumer;
    char topic[KAFKA_NAME_MAX + 1];
    uint64_t left = 0, first, next;

    kafka_topic_name(&w->f->config, "raw_clicks", topic);
    MUST(kafka_consumer_open(&consumer, &w->f->config, topic, "test", why));
    for (int32_t p = 0; p < P; p++) {
        MUST(kafka_consumer_range(consumer, p, &first, &next, why));
        left += next - first;
        MUST(kafka_consumer_follow(consumer, p, first, why));
    }
    while (left > 0) {
        struct kafka_message m;

        MUST(kafka_consumer_next(consumer, 20 * CLOCK_SECOND_US, &m, why));
        message_take(h, &m);
        left--;
    }
    kafka_consumer_close(&consumer);
    for (uint32_t p = 0; p < P; p++) {
        MUST(clicklog_range(w->f->log, p, &first, &next, why));
        assert_int_equal(h->accepted[p], next);
    }
    return h;
}

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
    assert_int_equal(spool.incarnation, stats.incarnation);
    assert_true(spool.closed);
    assert_int_equal(spool.mark.floor_us, stats.floor_us);
    for (uint32_t p = 0; p < P; p++)
        assert_int_equal(spool.mark.next[p], h->accepted[p]);
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
    broker_signal(SIGKILL);
    clock_sleep_us(CLOCK_SECOND_US);
    assert_int_equal(kafka_run("broker", "1", NULL), 0);
    answered_await(&poster);
    for (int round = 0; round < 3; round++) {
        broker_signal(SIGSTOP);
        clock_sleep_us(w->f->config.kafka_delivery_ms_max * 1000 + CLOCK_SECOND_US);
        broker_signal(SIGCONT);
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

    broker_signal(SIGSTOP);
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

    broker_signal(SIGCONT);
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
    broker_signal(SIGSTOP);
    spool_fill(w, 500);
    relay_begin(w);
    stage_start(w->f);
    assert_int_equal(answer_take(post_begin(w->f, 5)), 202);
    broker_signal(SIGCONT);
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
main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, world_make, world_free)
    const struct CMUnitTest tests[] = {
        TEST(test_a_relay_in_a_process_of_its_own_moves_ingests_cursor),
        TEST(test_everything_in_the_spool_arrives_once_and_in_order),
        TEST(test_another_spool_is_refused_until_the_first_is_forgotten),
        TEST(test_a_running_relay_sends_again_from_where_it_is_asked),
        TEST(test_202_waits_for_the_broker_and_the_breaker_follows_it),
        TEST(test_brokers_that_are_away_at_the_start_are_waited_for),
        TEST(test_a_killed_broker_loses_nothing_that_was_answered_202),
    };
    int failures;

    if (getenv("CLICKLEDGER_TEST_KAFKA") == NULL) {
        printf("skipped: no brokers (CLICKLEDGER_TEST_KAFKA is not set)\n");
        return 77;
    }
    if (!broker_start())
        return 1;
    failures = cmocka_run_group_tests(tests, NULL, NULL);
    if (getenv("CLICKLEDGER_TEST_KAFKA_DIR") == NULL) {
        (void)kafka_run("stop", NULL, NULL);
        tree_remove(broker_dir);
    }
    return failures;
}

/* What librdkafka says, as events: once an outage, whoever of a name says it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/kafka_impl.h"
#include "common/log.h"
#include "tests/common/kafka_fixture.h"

#define SECOND INT64_C(1000000)

enum { LEVEL_ERROR = 3, LEVEL_WARNING = 4, TEXT_MAX = 1 << 16 };

static const char loads[] =
    "[thrd:main]: Failed to acquire idempotence PID from broker 127.0.0.1:9092/1: "
    "Broker: Coordinator load in progress: retrying";

static char said[TEXT_MAX];
static int saved, ends[2];

static void
hear_begin(void)
{
    saved = dup(STDERR_FILENO);
    assert_int_equal(pipe(ends), 0);
    (void)dup2(ends[1], STDERR_FILENO);
    (void)close(ends[1]);
}

static void
hear_end(void)
{
    size_t n = 0;
    ssize_t got;

    (void)dup2(saved, STDERR_FILENO);
    (void)close(saved);
    while ((got = read(ends[0], said + n, sizeof(said) - 1 - n)) > 0)
        n += (size_t)got;
    (void)close(ends[0]);
    said[n] = '\0';
}

static int
times(const char *word)
{
    int n = 0;

    for (const char *at = said; (at = strstr(at, word)) != NULL; at++)
        n++;
    return n;
}

/* A handle as the relay opens them one after another; names are of a test each. */
static struct kafka_watch
watch_make(const char *name)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    struct kafka_watch watch;

    kafka_watch_begin(&watch, name, conf);
    rd_kafka_conf_destroy(conf);
    return watch;
}

static void
an_outage_is_told_once_however_many_handles_it_takes(void **state)
{
    int64_t now = 1000 * SECOND;
    struct kafka_watch watch;

    (void)state;
    hear_begin();
    for (int i = 0; i < 50; i++, now += 10 * SECOND) { /* 500 s */
        watch = watch_make("outage");
        kafka_watch_line(&watch, LEVEL_ERROR, "FAIL", "connection refused", now);
        kafka_watch_line(&watch, LEVEL_ERROR, "ERROR", "all down", now);
    }
    watch = watch_make("outage");
    kafka_watch_ok(&watch);
    kafka_watch_ok(&watch);
    hear_end();
    assert_int_equal(times("event=kafka_trouble"), 1);
    assert_int_equal(times("connection refused"), 1);
    assert_int_equal(times("event=kafka_back client=clickledger-outage"), 1);
}

static void
a_long_outage_is_told_again_and_a_second_one_too(void **state)
{
    struct kafka_watch watch = watch_make("long"), other = watch_make("other");
    int64_t now = 1000 * SECOND;

    (void)state;
    hear_begin();
    kafka_watch_line(&watch, LEVEL_ERROR, "FAIL", "first", now);
    kafka_watch_line(&other, LEVEL_ERROR, "FAIL", "another's", now);
    now += KAFKA_SAID_AGAIN_US;
    kafka_watch_line(&watch, LEVEL_ERROR, "FAIL", "still", now);
    kafka_watch_ok(&watch);
    kafka_watch_line(&watch, LEVEL_ERROR, "FAIL", "at once", now + SECOND);
    kafka_watch_ok(&watch);
    kafka_watch_line(&watch, LEVEL_ERROR, "FAIL", "later", now + KAFKA_SAID_US);
    hear_end();
    assert_int_equal(times("text=first"), 1);
    assert_int_equal(times("another's"), 1);
    assert_int_equal(times("text=still"), 1);
    assert_int_equal(times("at once"), 0);
    assert_int_equal(times("text=later"), 1);
    assert_non_null(strstr(said, "text=later unsaid=1"));
    assert_int_equal(times("event=kafka_back"), 1); /* the other was never told */
}

static void
a_loading_coordinator_is_told_only_when_it_lasts(void **state)
{
    struct kafka_watch watch = watch_make("loads");
    int64_t now = 1000 * SECOND;

    (void)state;
    hear_begin();
    kafka_watch_line(&watch, LEVEL_WARNING, "GETPID", loads, now);
    kafka_watch_line(&watch, LEVEL_WARNING, "GETPID", loads, now + 5 * SECOND);
    kafka_watch_ok(&watch); /* it had loaded; the next time counts anew */
    kafka_watch_line(&watch, LEVEL_WARNING, "GETPID", loads, now + 11 * SECOND);
    watch = watch_make("loads");
    kafka_watch_line(&watch, LEVEL_WARNING, "GETPID", loads, now + 20 * SECOND);
    hear_end();
    assert_int_equal(times("event="), 0);
    hear_begin();
    kafka_watch_line(&watch, LEVEL_WARNING, "GETPID", loads, now + 21 * SECOND);
    kafka_watch_line(&watch, LEVEL_WARNING, "GETPID", loads, now + 22 * SECOND);
    kafka_watch_ok(&watch);
    hear_end();
    assert_int_equal(times("event=kafka_trouble"), 1);
    assert_int_equal(times("unsaid=0"), 1); /* those passed over are no trouble */
    assert_int_equal(times("event=kafka_back"), 1);
    hear_begin();
    kafka_watch_line(&watch, LEVEL_WARNING, "GETPID",
                     "Failed to acquire idempotence PID: Broker: Cluster "
                     "authorization failed",
                     now + 200 * SECOND);
    hear_end();
    assert_int_equal(times("event=kafka_trouble"), 1);
}

static void
a_quiet_handle_says_nothing_but_keeps_the_cause(void **state)
{
    struct kafka_watch watch = watch_make("quiet");
    struct why why = {""};

    (void)state;
    kafka_watch_quiet(&watch, true);
    hear_begin();
    kafka_watch_line(&watch, LEVEL_ERROR, "FAIL", "[thrd:x]: 1.2.3.4:5: refused",
                     1);
    hear_end();
    assert_string_equal(said, "");
    assert_int_equal(kafka_watch_error(RD_KAFKA_RESP_ERR__TIMED_OUT, &watch,
                                       "topic", "asked", &why),
                     ERR_AGAIN);
    assert_non_null(strstr(why.text, "1.2.3.4:5: refused"));
}

/* More names than there are places: none is lost, the last ones share. */
static void
names_have_a_limit(void **state)
{
    char name[32];
    struct kafka_watch watch;

    (void)state;
    hear_begin();
    for (int i = 0; i < 3 * KAFKA_KINDS_MAX; i++) {
        (void)snprintf(name, sizeof(name), "name-%d", i);
        watch = watch_make(name);
        kafka_watch_line(&watch, LEVEL_ERROR, "FAIL", "gone", 1 + i);
    }
    hear_end();
    assert_in_range(times("event=kafka_trouble"), 1, KAFKA_KINDS_MAX);
    assert_int_equal(times("client=clickledger-name-0 "), 1);
}

/* librdkafka itself, towards a port where nobody listens. */
static void
handles_that_follow_each_other_say_it_once(void **state)
{
    struct config config;
    struct why why = {""};

    (void)state;
    fixture_config(&config, "127.0.0.1:1");
    hear_begin();
    for (int i = 0; i < 3; i++) {
        struct kafka_watch watch;
        rd_kafka_conf_t *conf;
        rd_kafka_t *rk = NULL;

        if (kafka_conf(&conf, &config, "nobody", &watch, NULL, 0, &why) != ERR_OK ||
            kafka_new(&rk, RD_KAFKA_PRODUCER, conf, &why) != ERR_OK)
            exit(1);
        for (int n = 0; n < 30; n++)
            (void)rd_kafka_poll(rk, 10);
        rd_kafka_destroy(rk);
    }
    hear_end();
    config_free(&config);
    assert_int_equal(times("event=kafka_trouble"), 1);
    assert_int_equal(times("client=clickledger-nobody"), 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_outage_is_told_once_however_many_handles_it_takes),
        cmocka_unit_test(a_long_outage_is_told_again_and_a_second_one_too),
        cmocka_unit_test(a_loading_coordinator_is_told_only_when_it_lasts),
        cmocka_unit_test(a_quiet_handle_says_nothing_but_keeps_the_cause),
        cmocka_unit_test(handles_that_follow_each_other_say_it_once),
        cmocka_unit_test(names_have_a_limit),
    };

    log_setup(LOG_INFO, LOG_LOGFMT);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

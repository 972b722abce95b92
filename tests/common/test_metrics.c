/* The whole exposition as text, and counting from many threads. */
#include "common/metrics.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { THREADS = 4, ROUNDS = 50000 };

static void
the_exposition_groups_by_name_and_accumulates_buckets(void **state)
{
    static const char want[] = "# HELP clicks_total Clicks \\\\ by\\nreason.\n"
                               "# TYPE clicks_total counter\n"
                               "clicks_total{reason=\"a\"} 3\n"
                               "clicks_total{reason=\"b\"} 1\n"
                               "# HELP depth Depth.\n"
                               "# TYPE depth gauge\n"
                               "depth -5\n"
                               "# HELP wait_seconds Wait.\n"
                               "# TYPE wait_seconds histogram\n"
                               "wait_seconds_bucket{le=\"0.0001\"} 3\n";
    struct metric *a =
        metric_counter("clicks_total", "reason=\"a\"", "Clicks \\ by\nreason.");
    struct metric *depth = metric_gauge("depth", NULL, "Depth.");
    struct metric *wait = metric_histogram("wait_seconds", NULL, "Wait.");
    struct metric *b = metric_counter("clicks_total", "reason=\"b\"", "");
    struct buf out = BUF_MAX(100000);

    (void)state;
    metric_add(a, 2);
    metric_add(metric_counter("clicks_total", "reason=\"a\"", ""), 1);
    metric_add(b, 1);
    metric_set(depth, 7);
    metric_set(depth, -5);
    metric_observe_us(wait, 100);
    metric_observe_us(wait, -3); /* a clock that ran backwards counts as 0 */
    metric_observe_us(wait, 150);
    metric_observe_us(wait, 10000000);
    metric_observe_us(wait, 10000000);
    metric_observe_us(wait, 0);
    assert_int_equal(metric_value(wait), 6);
    metrics_format(&out);
    buf_add(&out, "", 1);
    assert_int_equal(strncmp((char *)out.p, want, strlen(want)), 0);
    assert_non_null(
        strstr((char *)out.p, "wait_seconds_bucket{le=\"0.00025\"} 4\n"));
    assert_non_null(strstr((char *)out.p, "wait_seconds_bucket{le=\"5\"} 4\n"));
    assert_non_null(strstr((char *)out.p, "wait_seconds_bucket{le=\"10\"} 6\n"
                                          "wait_seconds_bucket{le=\"+Inf\"} 6\n"
                                          "wait_seconds_sum 20.000250\n"
                                          "wait_seconds_count 6\n"));
    buf_free(&out);
}

static void
labelled_histograms_keep_their_labels_everywhere(void **state)
{
    struct metric *wait =
        metric_histogram("by_route_seconds", "route=\"/x\"", "Wait.");
    struct buf out = BUF_MAX(100000);

    (void)state;
    metric_observe_us(wait, 20000000);
    metrics_format(&out);
    buf_add(&out, "", 1);
    assert_non_null(strstr((char *)out.p,
                           "by_route_seconds_bucket{route=\"/x\",le=\"10\"} 0\n"
                           "by_route_seconds_bucket{route=\"/x\",le=\"+Inf\"} 1\n"
                           "by_route_seconds_sum{route=\"/x\"} 20.000000\n"
                           "by_route_seconds_count{route=\"/x\"} 1\n"));
    buf_free(&out);
}

static void *
count(void *metric)
{
    for (int i = 0; i < ROUNDS; i++)
        metric_add(metric, 1);
    return NULL;
}

static void
no_count_is_lost_between_threads(void **state)
{
    struct metric *metric = metric_counter("threads_total", NULL, "Shared.");
    pthread_t threads[THREADS];

    (void)state;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count, metric), 0);
    for (int i = 0; i < THREADS; i++)
        (void)pthread_join(threads[i], NULL);
    assert_int_equal(metric_value(metric), THREADS * ROUNDS);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_exposition_groups_by_name_and_accumulates_buckets),
        cmocka_unit_test(labelled_histograms_keep_their_labels_everywhere),
        cmocka_unit_test(no_count_is_lost_between_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

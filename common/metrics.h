/* common/metrics.h - counters, gauges and histograms for Prometheus.
 *
 * A metric is declared by whoever counts it, once at start, and lives until
 * exit. The text format is version 0.0.4.
 *
 * Units    As in the metric's name (_total, _seconds, _bytes).
 * Threads  Adding is any thread's (relaxed atomics); declaring is start-up's.
 */
#ifndef COMMON_METRICS_H
#define COMMON_METRICS_H

#include <stdint.h>

#include "common/buf.h"

struct metric;

enum { METRICS_MAX = 1024 };

/* labels is NULL or text such as reason="duplicate"; the same (name, labels) gives
 * the same metric. Never NULL: past METRICS_MAX it aborts. */
struct metric *metric_counter(const char *name, const char *labels,
                              const char *help);
struct metric *metric_gauge(const char *name, const char *labels, const char *help);
/* Seconds; buckets 0.1 ms to 10 s. */
struct metric *metric_histogram(const char *name, const char *labels,
                                const char *help);

void metric_add(struct metric *metric, int64_t n);
void metric_set(struct metric *metric, int64_t value);
void metric_observe_us(struct metric *metric, int64_t us);
int64_t metric_value(const struct metric *metric);

/* Appends the whole exposition. */
void metrics_format(struct buf *out);

#endif

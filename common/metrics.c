#include "common/metrics.h"

#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { CACHE_LINE = 64, BUCKETS = 16 };

enum kind { COUNTER, GAUGE, HISTOGRAM };

static const struct {
    int64_t us; /* inclusive */
    const char *seconds;
} bounds[BUCKETS] = {
    {100, "0.0001"},  {250, "0.00025"}, {500, "0.0005"},  {1000, "0.001"},
    {2500, "0.0025"}, {5000, "0.005"},  {10000, "0.01"},  {25000, "0.025"},
    {50000, "0.05"},  {100000, "0.1"},  {250000, "0.25"}, {500000, "0.5"},
    {1000000, "1"},   {2500000, "2.5"}, {5000000, "5"},   {10000000, "10"},
};

/* A line of the cache each, so that threads that count different things do not meet. */
struct metric {
    alignas(CACHE_LINE) atomic_int_least64_t value; /* histogram: sum of us */
    atomic_int_least64_t *buckets;                  /* BUCKETS + 1, or NULL */
    char *name;
    char *labels; /* "" for none */
    char *help;
    enum kind kind;
};

/* Written at start only; metrics live until exit. */
static struct {
    pthread_mutex_t lock;
    int n;
    struct metric all[METRICS_MAX];
} registry = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void *
must(void *p)
{
    if (p == NULL)
        abort();
    return p;
}

static struct metric *
find(const char *name, const char *labels)
{
    for (int i = 0; i < registry.n; i++)
        if (strcmp(registry.all[i].name, name) == 0 &&
            strcmp(registry.all[i].labels, labels) == 0)
            return &registry.all[i];
    return NULL;
}

static struct metric *
add(const char *name, const char *labels, const char *help, enum kind kind)
{
    struct metric *metric;

    if (registry.n == METRICS_MAX)
        abort();
    metric = &registry.all[registry.n];
    metric->name = must(strdup(name));
    metric->labels = must(strdup(labels));
    metric->help = must(strdup(help));
    metric->kind = kind;
    if (kind == HISTOGRAM)
        metric->buckets = must(calloc(BUCKETS + 1, sizeof(*metric->buckets)));
    registry.n++;
    return metric;
}

static struct metric *
declare(const char *name, const char *labels, const char *help, enum kind kind)
{
    struct metric *metric;

    assert(name != NULL);
    assert(help != NULL);
    labels = labels == NULL ? "" : labels;
    (void)pthread_mutex_lock(&registry.lock);
    metric = find(name, labels);
    if (metric == NULL)
        metric = add(name, labels, help, kind);
    (void)pthread_mutex_unlock(&registry.lock);
    assert(metric->kind == kind);
    return metric;
}

struct metric *
metric_counter(const char *name, const char *labels, const char *help)
{
    return declare(name, labels, help, COUNTER);
}

struct metric *
metric_gauge(const char *name, const char *labels, const char *help)
{
    return declare(name, labels, help, GAUGE);
}

struct metric *
metric_histogram(const char *name, const char *labels, const char *help)
{
    return declare(name, labels, help, HISTOGRAM);
}

void
metric_add(struct metric *metric, int64_t n)
{
    assert(metric->kind != HISTOGRAM);
    (void)atomic_fetch_add_explicit(&metric->value, n, memory_order_relaxed);
}

void
metric_set(struct metric *metric, int64_t value)
{
    assert(metric->kind == GAUGE);
    atomic_store_explicit(&metric->value, value, memory_order_relaxed);
}

void
metric_observe_us(struct metric *metric, int64_t us)
{
    int i = 0;

    assert(metric->kind == HISTOGRAM);
    us = us < 0 ? 0 : us; /* two clocks may disagree */
    while (i < BUCKETS && us > bounds[i].us)
        i++;
    (void)atomic_fetch_add_explicit(&metric->buckets[i], 1, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&metric->value, us, memory_order_relaxed);
}

/* Of a histogram: how many observations. */
int64_t
metric_value(const struct metric *metric)
{
    int64_t sum = 0;

    if (metric->kind != HISTOGRAM)
        return atomic_load_explicit(&metric->value, memory_order_relaxed);
    for (int i = 0; i <= BUCKETS; i++)
        sum += atomic_load_explicit(&metric->buckets[i], memory_order_relaxed);
    return sum;
}

static void
format_histogram(const struct metric *metric, struct buf *out)
{
    const char *labels = metric->labels, *comma = labels[0] == '\0' ? "" : ",";
    const char *open = labels[0] == '\0' ? "" : "{",
               *close = labels[0] == '\0' ? "" : "}";
    int64_t us = atomic_load_explicit(&metric->value, memory_order_relaxed);
    int64_t count = 0;

    for (int i = 0; i <= BUCKETS; i++) {
        count += atomic_load_explicit(&metric->buckets[i], memory_order_relaxed);
        buf_printf(out, "%s_bucket{%s%sle=\"%s\"} %" PRId64 "\n", metric->name,
                   labels, comma, i < BUCKETS ? bounds[i].seconds : "+Inf", count);
    }
    buf_printf(out, "%s_sum%s%s%s %" PRId64 ".%06" PRId64 "\n", metric->name, open,
               labels, close, us / 1000000, us % 1000000);
    buf_printf(out, "%s_count%s%s%s %" PRId64 "\n", metric->name, open, labels,
               close, count);
}

static void
format_metric(const struct metric *metric, struct buf *out)
{
    if (metric->kind == HISTOGRAM)
        format_histogram(metric, out);
    else if (metric->labels[0] == '\0')
        buf_printf(out, "%s %" PRId64 "\n", metric->name, metric_value(metric));
    else
        buf_printf(out, "%s{%s} %" PRId64 "\n", metric->name, metric->labels,
                   metric_value(metric));
}

static void
format_head(const struct metric *metric, struct buf *out)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};

    buf_printf(out, "# HELP %s ", metric->name);
    for (const char *p = metric->help; *p != '\0'; p++) {
        if (*p == '\n')
            buf_add_text(out, "\\n");
        else if (*p == '\\')
            buf_add_text(out, "\\\\");
        else
            buf_add(out, p, 1);
    }
    buf_printf(out, "\n# TYPE %s %s\n", metric->name, kinds[metric->kind]);
}

/* The first metric of a name brings all others of that name with it: the format wants
 * them together under one head. */
void
metrics_format(struct buf *out)
{
    (void)pthread_mutex_lock(&registry.lock);
    for (int i = 0; i < registry.n; i++) {
        const struct metric *metric = &registry.all[i];
        bool first = true;

        for (int j = 0; j < i && first; j++)
            first = strcmp(registry.all[j].name, metric->name) != 0;
        if (!first)
            continue;
        format_head(metric, out);
        for (int j = i; j < registry.n; j++)
            if (strcmp(registry.all[j].name, metric->name) == 0)
                format_metric(&registry.all[j], out);
    }
    (void)pthread_mutex_unlock(&registry.lock);
}

#include "aggregate/aggregate.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "aggregate/worker.h"
#include "common/file.h"

enum { LAG_METRICS_MAX = 64 };

struct aggregate {
    struct shared shared;
    struct worker **workers;
    uint32_t workers_n;
};

static void
metrics_declare(struct shared *s)
{
    s->metrics.clicks = metric_counter("clickledger_aggregate_clicks_total", NULL,
                                       "clicks counted by the live path");
    s->metrics.unknown =
        metric_counter("clickledger_aggregate_unknown_campaign_total", NULL,
                       "clicks of unknown campaigns, which have no row");
    s->metrics.expired = metric_counter("clickledger_aggregate_expired_total", NULL,
                                        "clicks of which every window had expired");
    s->metrics.rebuilds = metric_counter("clickledger_aggregate_rebuilds_total",
                                         NULL, "generations built anew");
    s->metrics.rolled_back =
        metric_counter("clickledger_aggregate_rolled_back_total", NULL,
                       "times that Redis had lost writes");
    s->metrics.fenced = metric_counter("clickledger_aggregate_fenced_total", NULL,
                                       "partitions that another owner took");
    s->metrics.gaps = metric_counter("clickledger_aggregate_gaps_total", NULL,
                                     "gaps in a partition's sequence that stayed");
    s->metrics.stalled = metric_gauge("clickledger_aggregate_stalled_partitions",
                                      NULL, "partitions that stand still at a gap");
    s->metrics.repeats = metric_counter("clickledger_aggregate_repeats_total", NULL,
                                        "records dropped because they came before");
    s->metrics.recorded = metric_counter("clickledger_aggregate_verdicts_total",
                                         NULL, "verdicts recorded");
    s->metrics.users_sent = metric_counter("clickledger_aggregate_users_sent_total",
                                           NULL, "user ids sent to a HyperLogLog");
    s->metrics.users_skipped =
        metric_counter("clickledger_aggregate_users_skipped_total", NULL,
                       "user ids that could raise no register");
    s->metrics.flushes = metric_counter("clickledger_aggregate_flushes_total", NULL,
                                        "flushes of a partition that landed");
    s->metrics.flush_errors = metric_counter(
        "clickledger_aggregate_flush_errors_total", NULL, "flushes that did not");
    s->metrics.flush_seconds = metric_histogram(
        "clickledger_aggregate_flush_seconds", NULL,
        "recording verdicts and flushing all partitions of a worker");
    s->metrics.forgotten =
        metric_gauge("clickledger_aggregate_addresses_forgotten", NULL,
                     "addresses pushed out of a full table");
}

void
part_lag_declare(struct part *part)
{
    char labels[32];

    if (part->shared->partitions > LAG_METRICS_MAX)
        return;
    (void)snprintf(labels, sizeof(labels), "partition=\"%u\"", part->partition);
    part->lag.records = metric_gauge("clickledger_aggregate_lag_records", labels,
                                     "clicks in the log that are not in Redis");
    part->lag.seconds =
        metric_gauge("clickledger_aggregate_lag_seconds", labels,
                     "age by receipt of the oldest click that is not in Redis");
}

static enum err
shared_open(struct shared *s, struct why *why)
{
    char dir[FILE_PATH_MAX];
    struct clicklog_stats stats;
    enum err err;
    int n = snprintf(dir, sizeof(dir), "%s/aggregate", s->config->data_dir);

    if (n < 0 || (size_t)n >= sizeof(dir))
        return err_set(why, ERR_INVALID, "data.dir: the path is too long");
    err = events_open(&s->events, dir, why);
    if (err == ERR_OK)
        err = fraud_addresses_open(&s->addresses,
                                   (size_t)s->config->fraud_live_addresses_max,
                                   (uint32_t)s->config->aggregate_threads, why);
    if (err != ERR_OK)
        return err;
    clicklog_stats_get(s->deps.log, &stats);
    s->spool_id = stats.spool_id;
    s->partitions = clicklog_partitions(s->deps.log);
    metrics_declare(s);
    return ERR_OK;
}

/* With Kafka an address's clicks are spread over processes. */
static enum err
hot_start(struct shared *s, uint32_t threads, struct why *why)
{
    enum err err;

    if (!clicklog_is_kafka(s->deps.log))
        return ERR_OK;
    err = fraud_hot_open(&s->hot, why);
    if (err == ERR_OK)
        err = hotstage_start(&s->hotstage, s->config, s->deps.log, s->deps.rules,
                             s->hot, threads, why);
    return err;
}

enum err
aggregate_start(struct aggregate **out, const struct config *config,
                const struct aggregate_deps *deps, struct why *why)
{
    struct aggregate *a = calloc(1, sizeof(*a));
    uint32_t threads = (uint32_t)config->aggregate_threads;
    enum err err;

    assert(deps->log != NULL && deps->verdicts != NULL);
    *out = NULL;
    if (a == NULL)
        return err_set(why, ERR_NOMEM, "aggregate: no memory");
    a->shared.config = config;
    a->shared.deps = *deps;
    err = shared_open(&a->shared, why);
    if (err == ERR_OK && threads > a->shared.partitions)
        threads = a->shared.partitions;
    if (err == ERR_OK)
        err = hot_start(&a->shared, threads, why);
    a->workers = calloc(threads, sizeof(struct worker *));
    if (err == ERR_OK && a->workers == NULL)
        err = err_set(why, ERR_NOMEM, "aggregate: no memory");
    for (uint32_t i = 0; err == ERR_OK && i < threads; i++) {
        err = worker_start(&a->workers[i], &a->shared, i, threads, why);
        a->workers_n = i + 1;
    }
    if (err != ERR_OK) {
        aggregate_stop(&a);
        return err;
    }
    *out = a;
    return ERR_OK;
}

void
aggregate_stop(struct aggregate **aggregate)
{
    struct aggregate *a = *aggregate;

    if (a == NULL)
        return;
    for (uint32_t i = 0; i < a->workers_n; i++)
        worker_stop(&a->workers[i]);
    free(a->workers);
    hotstage_stop(&a->shared.hotstage);
    fraud_hot_close(&a->shared.hot);
    fraud_addresses_close(&a->shared.addresses);
    events_close(&a->shared.events);
    free(a);
    *aggregate = NULL;
}

uint64_t
aggregate_flushed(const struct aggregate *aggregate, uint32_t partition)
{
    assert(partition < aggregate->shared.partitions);
    return worker_flushed(aggregate->workers[partition % aggregate->workers_n],
                          partition);
}

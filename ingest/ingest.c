#include "ingest/ingest.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/file.h"
#include "common/hash.h"
#include "common/log.h"
#include "ingest/ack.h"
#include "ingest/breaker.h"
#include "ingest/worker.h"

enum {
    RATE_KEYS = 1 << 18, /* (key, address) pairs limited at a time: 4 MiB */
    METRICS_BYTES_MAX = 4 << 20,
};

struct ingest {
    struct ingest_shared shared;
    struct clicklog *log;
    struct http_server *http;
    struct relay_cursor *cursor; /* NULL: ingest.ack is local */
    pthread_key_t worker_key;    /* each HTTP thread's struct worker */
    bool key_made;
    pthread_mutex_t mutex;
    struct worker *workers; /* all of them, under mutex */
    struct metric *connections, *in_flight, *dlq_dropped, *forgotten;
};

static void
metrics_declare(struct ingest *ingest)
{
    static const char *const codes[] = {
#define X(code) "code=\"" #code "\"",
        WORKER_CODES(X)
#undef X
    };
    struct ingest_shared *shared = &ingest->shared;

    reply_counts_open(&shared->counts);
    shared->accepted = metric_counter("clickledger_ingest_clicks_accepted_total",
                                      NULL, "Clicks handed to the committer");
    for (int i = 0; i < WORKER_CODES_N; i++)
        shared->rejected[i] =
            metric_counter("clickledger_ingest_clicks_rejected_total", codes[i],
                           "Clicks refused, by reason");
    shared->unknown_fields =
        metric_counter("clickledger_ingest_unknown_fields_total", NULL,
                       "Fields that no click has");
    shared->rate_limited = metric_counter("clickledger_ingest_clicks_limited_total",
                                          NULL, "Clicks over their key's rate");
    ingest->connections =
        metric_gauge("clickledger_ingest_connections", NULL, "Open connections");
    ingest->in_flight = metric_gauge("clickledger_ingest_in_flight_bytes", NULL,
                                     "Bodies of requests without an answer yet");
    ingest->dlq_dropped =
        metric_gauge("clickledger_ingest_dlq_dropped", NULL,
                     "Refused clicks that the dead-letter log had no room for");
    ingest->forgotten = metric_gauge("clickledger_ingest_rate_forgotten", NULL,
                                     "Limited senders forgotten for others");
}

/* --- routes --- */

static struct worker *
worker_mine(struct ingest *ingest)
{
    struct worker *worker = pthread_getspecific(ingest->worker_key);
    struct why why;

    if (worker != NULL)
        return worker;
    if (worker_open(&worker, &ingest->shared, &why) != ERR_OK)
        return NULL;
    (void)pthread_mutex_lock(&ingest->mutex);
    worker->next = ingest->workers;
    ingest->workers = worker;
    (void)pthread_mutex_unlock(&ingest->mutex);
    (void)pthread_setspecific(ingest->worker_key, worker);
    return worker;
}

static void
serve_clicks(struct ingest *ingest, struct http_request *request)
{
    struct worker *worker = worker_mine(ingest);

    if (worker == NULL)
        reply_problem(&ingest->shared.counts, request, 503, "busy",
                      "No memory for it; send the same again later.", NULL,
                      REPLY_RETRY_BUSY_S);
    else
        clicks_post(worker, request);
}

static void
serve_livez(struct ingest *ingest, struct http_request *request)
{
    reply_text(&ingest->shared.counts, request, "text/plain", STR("alive\n"));
}

static bool
master_loaded(struct master_source *source)
{
    const struct master *master = master_take(source);
    bool loaded = master != NULL && (master->version > 0 || master->keys_n > 0);

    if (master != NULL)
        master_drop(source, master);
    return loaded;
}

static void
serve_readyz(struct ingest *ingest, struct http_request *request)
{
    const struct reply_counts *counts = &ingest->shared.counts;

    if (!commit_healthy(ingest->shared.commit))
        reply_problem(counts, request, 503, "log_failed",
                      "The click log failed; restart to open it anew.", NULL,
                      REPLY_RETRY_FULL_S);
    else if (ingest->shared.ack != NULL &&
             ack_breaker(ingest->shared.ack) == BREAKER_OPEN)
        reply_problem(counts, request, 503, "kafka_away", REPLY_KAFKA_AWAY, NULL,
                      REPLY_RETRY_KAFKA_S);
    else if (!master_loaded(ingest->shared.master))
        reply_problem(counts, request, 503, "not_ready",
                      "Keys and campaigns are not loaded yet.", NULL,
                      REPLY_RETRY_BUSY_S);
    else
        reply_text(counts, request, "text/plain", STR("ready\n"));
}

static void
serve_metrics(struct ingest *ingest, struct http_request *request)
{
    struct buf text = BUF_MAX(METRICS_BYTES_MAX);
    struct http_stats http;
    struct rate_stats rate;

    http_stats_get(ingest->http, &http);
    rate_stats_get(ingest->shared.rate, &rate);
    metric_set(ingest->connections, http.connections);
    metric_set(ingest->in_flight, (int64_t)http.in_flight_bytes);
    metric_set(ingest->dlq_dropped, (int64_t)dlq_dropped(ingest->shared.dlq));
    metric_set(ingest->forgotten, (int64_t)rate.forgotten);
    metrics_format(&text);
    reply_text(&ingest->shared.counts, request, "text/plain; version=0.0.4",
               (struct str){(const char *)text.p, (uint32_t)text.n});
    buf_free(&text);
}

static void
serve(void *ctx, struct http_request *request)
{
    static const struct {
        struct str path;
        bool posts;
        void (*serve)(struct ingest *ingest, struct http_request *request);
    } routes[] = {
        {{"/v1/clicks", 10}, true, serve_clicks},
        {{"/livez", 6}, false, serve_livez},
        {{"/readyz", 7}, false, serve_readyz},
        {{"/metrics", 8}, false, serve_metrics},
    };
    struct ingest *ingest = ctx;
    struct str path = http_path(request), method = http_method(request);

    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (!str_equal(path, routes[i].path))
            continue;
        if (routes[i].posts
                ? str_equal(method, STR("POST"))
                : str_equal(method, STR("GET")) || str_equal(method, STR("HEAD")))
            routes[i].serve(ingest, request);
        else
            reply_method(&ingest->shared.counts, request,
                         routes[i].posts ? "POST" : "GET, HEAD");
        return;
    }
    reply_problem(&ingest->shared.counts, request, 404, "path",
                  "Nothing is here; clicks go to POST /v1/clicks.", NULL, 0);
}

/* --- start and stop --- */

static enum err
acks_open(struct ingest *ingest, const struct config *config, struct why *why)
{
    struct ack_config ack = {
        .log = ingest->log,
        .counts = &ingest->shared.counts,
        .us_max = config->ingest_ack_ms_max * 1000,
        .clicks_max = ACK_CLICKS_MAX,
        .bytes_max = (size_t)config->ingest_in_flight_bytes_max,
    };
    char dir[FILE_PATH_MAX];
    bool replicated;
    enum err err = ack_replicated(config, &replicated, why);

    if (err != ERR_OK || !replicated)
        return err;
    relay_dir(config, dir);
    err = relay_cursor_open(&ingest->cursor, dir, ingest->log, why);
    ack.cursor = ingest->cursor;
    return err == ERR_OK ? ack_open(&ingest->shared.ack, &ack, why) : err;
}

static enum err
parts_open(struct ingest *ingest, const struct config *config, struct why *why)
{
    struct ingest_shared *shared = &ingest->shared;
    struct commit_config commit = {
        .log = ingest->log,
        .counts = &shared->counts,
        .group_clicks_max = (unsigned)config->ingest_group_clicks_max,
        .group_wait_us = config->ingest_group_wait_us,
        .queue_bytes_max = (size_t)config->ingest_in_flight_bytes_max,
    };
    enum err err =
        client_proxies_parse(&shared->proxies, config->ingest_trusted_proxies, why);

    if (err == ERR_OK)
        err = rate_open(&shared->rate, RATE_KEYS, why);
    if (err == ERR_OK)
        err = dlq_open(&shared->dlq, config->data_dir,
                       (uint64_t)config->ingest_dlq_bytes_max, why);
    if (err == ERR_OK)
        err = acks_open(ingest, config, why);
    commit.ack = shared->ack;
    if (err == ERR_OK)
        err = commit_open(&shared->commit, &commit, why);
    return err;
}

static enum err
http_open(struct ingest *ingest, const struct config *config, struct why *why)
{
    const struct http_config http = {
        .address = config->ingest_address,
        .port = (uint16_t)config->ingest_port,
        .threads = (unsigned)config->ingest_threads,
        .connections_max = (unsigned)config->ingest_connections_max,
        .body_max = (size_t)config->ingest_body_bytes_max,
        .in_flight_max = (size_t)config->ingest_in_flight_bytes_max,
        .request_us_max = config->ingest_request_ms_max * 1000,
        .idle_us_max = config->ingest_idle_ms_max * 1000,
        .handle = serve,
        .ctx = ingest,
    };

    return http_start(&ingest->http, &http, why);
}

enum err
ingest_start(struct ingest **out, const struct config *config, struct clicklog *log,
             struct master_source *master, struct why *why)
{
    struct ingest *ingest = calloc(1, sizeof(*ingest));
    enum err err = ERR_OK;

    assert(config != NULL && log != NULL && master != NULL);
    *out = NULL;
    if (ingest == NULL)
        return err_set(why, ERR_NOMEM, "ingest: no memory");
    ingest->log = log;
    ingest->shared.config = config;
    ingest->shared.master = master;
    ingest->shared.rate_seed = hash_random_u64();
    ingest->shared.partitions = clicklog_partitions(log);
    (void)pthread_mutex_init(&ingest->mutex, NULL);
    metrics_declare(ingest);
    ingest->key_made = pthread_key_create(&ingest->worker_key, NULL) == 0;
    if (!ingest->key_made)
        err = err_set(why, ERR_FATAL, "ingest: no thread-specific key left");
    if (err == ERR_OK)
        err = parts_open(ingest, config, why);
    if (err == ERR_OK)
        err = http_open(ingest, config, why);
    *out = ingest;
    if (err != ERR_OK)
        ingest_stop(out);
    return err;
}

uint16_t
ingest_port(const struct ingest *ingest)
{
    return http_port(ingest->http);
}

void
ingest_stop(struct ingest **ingest)
{
    struct ingest *in = *ingest;

    *ingest = NULL;
    if (in == NULL)
        return;
    if (in->http != NULL)
        http_stop(&in->http); /* the committer still answers what is in flight */
    commit_close(&in->shared.commit);
    ack_close(&in->shared.ack);
    relay_cursor_close(&in->cursor);
    dlq_close(&in->shared.dlq);
    rate_close(&in->shared.rate);
    while (in->workers != NULL) {
        struct worker *next = in->workers->next;

        worker_close(&in->workers);
        in->workers = next;
    }
    if (in->key_made)
        (void)pthread_key_delete(in->worker_key);
    (void)pthread_mutex_destroy(&in->mutex);
    free(in);
}

void
ingest_trim_request(struct ingest *ingest, const struct ingest_trim *trim)
{
    commit_trim_request(ingest->shared.commit, trim);
}

#include "dashboard/dashboard.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/clicklog.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/pg.h"
#include "common/redis.h"
#include "dashboard/call.h"
#include "schema/master_key.h"

enum {
    QUEUE_MAX = 4096,
    WORKERS_MAX = 64,
    CONNECTIONS_MAX = 4000,
    BODY_MAX = 65536,
};

#define REQUEST_US_MAX (10 * CLOCK_SECOND_US)
#define IDLE_US_MAX    (60 * CLOCK_SECOND_US)

const struct dashboard_route dashboard_routes[] = {
    {"GET", "/livez", 0, false, "The process runs."},
    {"GET", "/readyz", 0, false, "What can be answered now."},
    {"GET", "/metrics", 0, false, "Metrics for Prometheus."},
    {"GET", "/v1/campaigns/{id}/stats", MASTER_READ, true,
     "Clicks and cost of a campaign by 5 minutes, hour or day."},
    {"GET", "/v1/campaigns/{id}/live", MASTER_READ, true,
     "The last 5 minutes in steps of 10 seconds."},
    {"GET", "/v1/clicks/{event_id}", MASTER_READ, false,
     "A click with its live and final verdict."},
    {"GET", "/openapi.json", 0, false, "This description."},
    {"GET", "/schemas/ids/{id}", 0, false, "The Avro schema of a record."},
    {"GET", "/schemas/schemas/ids/{id}", 0, false,
     "The same, for clients whose registry is /schemas."},
    {"GET", "/schemas/subjects", 0, false, "Subjects that have schemas."},
    {"GET", "/schemas/subjects/{subject}/versions", 0, false,
     "The versions of a subject's schema."},
    {"GET", "/schemas/subjects/{subject}/versions/{version}", 0, false,
     "One of them, by number or as latest."},
};
const unsigned dashboard_routes_n =
    sizeof(dashboard_routes) / sizeof(dashboard_routes[0]);

enum {
    ROUTE_LIVEZ,
    ROUTE_READYZ,
    ROUTE_METRICS,
    ROUTE_STATS,
    ROUTE_LIVE,
    ROUTE_CLICK,
    ROUTE_OPENAPI,
    ROUTE_SCHEMA,
    ROUTE_SCHEMA_BELOW,
    ROUTE_SUBJECTS,
    ROUTE_VERSIONS,
    ROUTE_VERSION,
    ROUTES_N
};

_Static_assert(sizeof(dashboard_routes) / sizeof(dashboard_routes[0]) == ROUTES_N,
               "a route and its number");

static enum err (*const serve[])(struct call *, struct why *) = {
    [ROUTE_LIVEZ] = NULL,
    [ROUTE_READYZ] = serve_ready,
    [ROUTE_METRICS] = serve_metrics,
    [ROUTE_STATS] = serve_stats,
    [ROUTE_LIVE] = serve_live,
    [ROUTE_CLICK] = serve_click,
    [ROUTE_OPENAPI] = serve_openapi,
    [ROUTE_SCHEMA] = serve_schema,
    [ROUTE_SCHEMA_BELOW] = serve_schema,
    [ROUTE_SUBJECTS] = serve_subjects,
    [ROUTE_VERSIONS] = serve_versions,
    [ROUTE_VERSION] = serve_version,
};

struct worker {
    struct dashboard *dashboard;
    pthread_t thread;
    struct redis *redis;
    struct pg *pg;
};

struct dashboard {
    const struct config *config;
    struct master_source *master;
    struct http_server *http;
    struct away redis_away[1 + CLICKLOG_PARTITIONS_MAX], postgres_away;
    struct metric *answers[ROUTES_N], *seconds[ROUTES_N];
    pthread_mutex_t lock; /* of the queue */
    pthread_cond_t filled;
    struct call *queue[QUEUE_MAX]; /* a ring: first, n */
    unsigned first, n;
    bool stop;
    struct worker workers[WORKERS_MAX];
    unsigned workers_n;
};

bool
call_may_read(const struct master_key *key, const struct master_campaign *campaign)
{
    return campaign != NULL && campaign->account == key->account &&
           (key->advertiser.n == 0 ||
            str_equal(key->advertiser, campaign->advertiser));
}

bool
call_master_loaded(const struct call *call)
{
    return call->master != NULL &&
           (call->master->version > 0 || call->master->keys_n > 0);
}

enum err
call_invalid(struct call *call, const char *field, const char *rule,
             struct why *why)
{
    call->field = field;
    return err_set(why, ERR_INVALID, "%s %s", field, rule);
}

/* Does path fit pattern, whose {part} takes all between? An id may hold a slash. Where there
 * are two, id is all from the first to the end: the route takes it apart. */
static bool
path_fits(const char *pattern, struct str path, struct str *id)
{
    const char *open = strchr(pattern, '{');

    if (open == NULL)
        return str_equal(path, str_of(pattern));
    uint32_t head_n = (uint32_t)(open - pattern);
    struct str tail = str_of(strchr(strrchr(pattern, '{'), '}') + 1);
    if (path.n <= head_n + tail.n || memcmp(path.p, pattern, head_n) != 0 ||
        memcmp(path.p + path.n - tail.n, tail.p, tail.n) != 0)
        return false;
    *id = (struct str){path.p + head_n, path.n - head_n - tail.n};
    return true;
}

static void
call_free(struct dashboard *dashboard, struct call *call)
{
    if (call->master != NULL)
        master_drop(dashboard->master, call->master);
    buf_free(&call->out);
    free(call);
}

static void
problem(struct http_request *request, int status, const char *code,
        const char *detail)
{
    http_problem(request, status, code, detail, NULL, status == 503 ? 1 : 0);
}

static const struct master_key *
key_find(const struct call *call)
{
    struct str header = http_header(call->request, "Authorization");
    uint8_t sha256[32];

    if (header.n <= 7 || strncasecmp(header.p, "Bearer ", 7) != 0 ||
        !master_key_hash((struct str){header.p + 7, header.n - 7}, sha256))
        return NULL;
    const struct master_key *key = master_key_find(call->master, sha256);
    return key == NULL || key->revoked ? NULL : key;
}

/* Answers and returns false if the key is none, or not good for the route. What a key may
 * not see does not exist for it: 404, so that names cannot be tried out. */
static bool
call_allowed(struct call *call)
{
    const struct dashboard_route *route = &dashboard_routes[call->route];

    if (route->scope == 0)
        return true;
    if (!call_master_loaded(call)) {
        problem(call->request, 503, "not_ready", "the keys are not loaded yet");
        return false;
    }
    call->key = key_find(call);
    if (call->key == NULL) {
        problem(call->request, 401, "unauthorized",
                "send a valid API key: Authorization: Bearer ck_...");
        return false;
    }
    if ((call->key->scopes & route->scope) == 0) {
        problem(call->request, 403, "forbidden", "the API key has no scope read");
        return false;
    }
    if (!route->of_campaign)
        return true;
    call->campaign = master_campaign_find(call->master, call->id);
    if (!call_may_read(call->key, call->campaign)) {
        problem(call->request, 404, "not_found", "no such campaign");
        return false;
    }
    return true;
}

static bool
queue_put(struct dashboard *dashboard, struct call *call)
{
    (void)pthread_mutex_lock(&dashboard->lock);
    bool fits = dashboard->n < QUEUE_MAX && !dashboard->stop;
    if (fits) {
        dashboard->queue[(dashboard->first + dashboard->n++) % QUEUE_MAX] = call;
        (void)pthread_cond_signal(&dashboard->filled);
    }
    (void)pthread_mutex_unlock(&dashboard->lock);
    return fits;
}

static bool
route_find(struct http_request *request, unsigned *route, struct str *id)
{
    bool path_known = false;
    struct str method = http_method(request);

    for (unsigned i = 0; i < dashboard_routes_n; i++) {
        if (!path_fits(dashboard_routes[i].path, http_path(request), id))
            continue;
        path_known = true;
        *route = i;
        if (str_equal(method, str_of(dashboard_routes[i].method)) ||
            str_equal(method, STR("HEAD")))
            return true;
    }
    if (path_known)
        http_method_refuse(request, "GET, HEAD");
    else
        problem(request, 404, "not_found", "no such resource; see docs/api.md");
    return false;
}

static void
handle(void *ctx, struct http_request *request)
{
    struct dashboard *dashboard = ctx;
    struct str id = {0};
    unsigned route = 0;

    if (!route_find(request, &route, &id))
        return;
    if (route == ROUTE_LIVEZ) {
        http_respond(request,
                     &(struct http_answer){.status = 200,
                                           .content_type = "application/json",
                                           .body = STR("{\"live\":true}\n")});
        return;
    }
    struct call *call = calloc(1, sizeof(*call));
    if (call == NULL) {
        problem(request, 503, "no_memory", "out of memory: try again");
        return;
    }
    *call = (struct call){
        .request = request,
        .route = route,
        .id = id,
        .master = master_take(dashboard->master),
        .began_us = clock_mono_us(),
        .config = dashboard->config,
        .redis_away = dashboard->redis_away,
        .postgres_away = &dashboard->postgres_away,
        .out = BUF_MAX(ANSWER_BYTES_MAX),
        .content_type = "application/json",
    };
    if (!call_allowed(call)) {
        call_free(dashboard, call);
    } else if (!queue_put(dashboard, call)) {
        problem(request, 503, "busy", "too many requests are waiting: try again");
        call_free(dashboard, call);
    }
}

static void
call_refuse(struct call *call, enum err err, const struct why *why)
{
    char field[64];

    if (err == ERR_INVALID) {
        (void)snprintf(field, sizeof(field), "\"field\":\"%s\"",
                       call->field == NULL ? "" : call->field);
        http_problem(call->request, 400, "invalid", why->text, field, 0);
    } else if (err == ERR_NOTFOUND) {
        http_problem(call->request, 404, "not_found", why->text, call->extra, 0);
    } else if (err == ERR_AGAIN) {
        problem(call->request, 503, "unavailable", why->text);
    } else {
        problem(call->request, 500, "internal",
                "an internal error; the log says more");
        log_event(LOG_ERROR, "dashboard_failed",
                  LOG_TEXT("route", dashboard_routes[call->route].path),
                  LOG_TEXT("why", why->text));
    }
}

static void
call_answer(struct dashboard *dashboard, struct call *call, enum err err,
            const struct why *why)
{
    if (err != ERR_OK)
        call_refuse(call, err, why);
    else if (call->out.failed)
        problem(call->request, 400, "too_large",
                "the answer is over 64 MiB: ask for a shorter time, a coarser "
                "granularity, or without group_by");
    else
        http_respond(call->request,
                     &(struct http_answer){
                         .status = 200,
                         .content_type = call->content_type,
                         .body = {(const char *)call->out.p, (uint32_t)call->out.n},
                     });
    metric_add(dashboard->answers[call->route], 1);
    metric_observe_us(dashboard->seconds[call->route],
                      clock_mono_us() - call->began_us);
}

static void *
worker_run(void *ctx)
{
    struct worker *worker = ctx;
    struct dashboard *dashboard = worker->dashboard;

    for (;;) {
        (void)pthread_mutex_lock(&dashboard->lock);
        while (dashboard->n == 0 && !dashboard->stop)
            (void)pthread_cond_wait(&dashboard->filled, &dashboard->lock);
        if (dashboard->n == 0) {
            (void)pthread_mutex_unlock(&dashboard->lock);
            return NULL;
        }
        struct call *call = dashboard->queue[dashboard->first];
        dashboard->first = (dashboard->first + 1) % QUEUE_MAX;
        dashboard->n--;
        (void)pthread_mutex_unlock(&dashboard->lock);
        struct why why = {{0}};
        call->redis = worker->redis;
        call->pg = worker->pg;
        enum err err = serve[call->route](call, &why);
        call_answer(dashboard, call, err, &why);
        call_free(dashboard, call);
    }
}

/* A worker must not wait for minutes: what conninfo leaves open is bounded here. A URL
 * takes its parameters in another form. */
static enum err
conninfo_bound(const char *conninfo, char out[PG_CONNINFO_MAX], struct why *why)
{
    static const struct {
        const char *name, *value, *url_value;
    } bounds[] = {
        {"connect_timeout", "2", "2"},
        {"tcp_user_timeout", "5000", "5000"},
        {"options", "'-c statement_timeout=5000'", "-c%20statement_timeout%3D5000"},
    };
    struct buf text = BUF_MAX(PG_CONNINFO_MAX - 1);
    bool url = strstr(conninfo, "://") != NULL;
    bool first = strchr(conninfo, '?') == NULL;

    buf_add_text(&text, conninfo);
    for (size_t i = 0; i < sizeof(bounds) / sizeof(bounds[0]); i++) {
        if (strstr(conninfo, bounds[i].name) != NULL)
            continue;
        buf_printf(&text, "%s%s=%s",
                   !url    ? " "
                   : first ? "?"
                           : "&",
                   bounds[i].name, url ? bounds[i].url_value : bounds[i].value);
        first = false;
    }
    enum err err = text.failed ? err_set(why, ERR_INVALID,
                                         "postgres.conninfo is over %d bytes",
                                         PG_CONNINFO_MAX - 128)
                               : ERR_OK;
    if (err == ERR_OK) {
        memcpy(out, text.p, text.n);
        out[text.n] = '\0';
    }
    buf_free(&text);
    return err;
}

static enum err
workers_start(struct dashboard *dashboard, struct why *why)
{
    const struct config *config = dashboard->config;
    char plain[PG_CONNINFO_MAX], conninfo[PG_CONNINFO_MAX];

    enum err err = pg_conninfo(config->postgres_conninfo,
                               config->postgres_password_file, plain, why);
    if (err == ERR_OK)
        err = conninfo_bound(plain, conninfo, why);
    if (err != ERR_OK)
        return err;
    for (unsigned i = 0; i < (unsigned)config->dashboard_threads && i < WORKERS_MAX;
         i++) {
        struct worker *worker = &dashboard->workers[i];
        worker->dashboard = dashboard;
        err = redis_open(&worker->redis, config->redis_address,
                         config->redis_timeout_ms * 1000, why);
        if (err == ERR_OK)
            err = pg_open(&worker->pg, conninfo, why);
        if (err == ERR_OK &&
            pthread_create(&worker->thread, NULL, worker_run, worker) != 0)
            err = err_set(why, ERR_FATAL, "dashboard: cannot start a thread");
        if (err != ERR_OK) {
            redis_close(&worker->redis);
            pg_close(&worker->pg);
            return err;
        }
        dashboard->workers_n++;
    }
    return err;
}

static void
metrics_declare(struct dashboard *dashboard)
{
    char labels[128];

    for (unsigned i = 0; i < dashboard_routes_n; i++) {
        (void)snprintf(labels, sizeof(labels), "route=\"%s\"",
                       dashboard_routes[i].path);
        dashboard->answers[i] =
            metric_counter("clickledger_dashboard_answers_total", labels,
                           "Answers of the dashboard API, by route.");
        dashboard->seconds[i] =
            metric_histogram("clickledger_dashboard_seconds", labels,
                             "From request to answer, by route.");
    }
}

enum err
dashboard_start(struct dashboard **out, const struct config *config,
                struct master_source *master, struct why *why)
{
    struct dashboard *dashboard = calloc(1, sizeof(*dashboard));

    assert(master != NULL);
    *out = NULL;
    if (dashboard == NULL)
        return err_set(why, ERR_NOMEM, "dashboard: no memory");
    dashboard->config = config;
    dashboard->master = master;
    for (size_t i = 0; i <= CLICKLOG_PARTITIONS_MAX; i++)
        dashboard->redis_away[i].name = "redis";
    dashboard->postgres_away.name = "postgres";
    (void)pthread_mutex_init(&dashboard->lock, NULL);
    (void)pthread_cond_init(&dashboard->filled, NULL);
    metrics_declare(dashboard);
    const struct http_config http = {
        .address = config->dashboard_address,
        .port = (uint16_t)config->dashboard_port,
        .threads = (unsigned)config->dashboard_threads,
        .connections_max = CONNECTIONS_MAX,
        .body_max = BODY_MAX,
        .in_flight_max = (size_t)BODY_MAX * CONNECTIONS_MAX,
        .request_us_max = REQUEST_US_MAX,
        .idle_us_max = IDLE_US_MAX,
        .handle = handle,
        .ctx = dashboard,
    };
    enum err err = workers_start(dashboard, why);
    if (err == ERR_OK)
        err = http_start(&dashboard->http, &http, why);
    if (err != ERR_OK) {
        dashboard_stop(&dashboard);
        return err;
    }
    *out = dashboard;
    return ERR_OK;
}

uint16_t
dashboard_port(const struct dashboard *dashboard)
{
    return http_port(dashboard->http);
}

void
dashboard_stop(struct dashboard **out)
{
    struct dashboard *dashboard = *out;

    if (dashboard == NULL)
        return;
    /* Workers go on until the server has no request left. */
    if (dashboard->http != NULL)
        http_stop(&dashboard->http);
    (void)pthread_mutex_lock(&dashboard->lock);
    dashboard->stop = true;
    (void)pthread_cond_broadcast(&dashboard->filled);
    (void)pthread_mutex_unlock(&dashboard->lock);
    for (unsigned i = 0; i < dashboard->workers_n; i++) {
        (void)pthread_join(dashboard->workers[i].thread, NULL);
        redis_close(&dashboard->workers[i].redis);
        pg_close(&dashboard->workers[i].pg);
    }
    (void)pthread_mutex_destroy(&dashboard->lock);
    (void)pthread_cond_destroy(&dashboard->filled);
    free(dashboard);
    *out = NULL;
}

/* POST /v1/clicks, from headers to a job for the committer. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "common/clock.h"
#include "common/hash.h"
#include "ingest/ack.h"
#include "ingest/job.h"
#include "ingest/worker.h"

enum { ERROR_JSON_MAX = 2048 };

/* One request on its way through this file. */
struct post {
    struct worker *worker;
    struct http_request *request;
    struct auth_who who;
    struct client_address remote;
    struct click_limits limits;
    struct str text; /* the body, decompressed */
    struct job *job;
    int64_t now_us;
    unsigned clicks, unknown;
    bool dry_run, no_memory;
};

enum err
worker_open(struct worker **out, struct ingest_shared *shared, struct why *why)
{
    const struct config *config = shared->config;
    struct worker *worker = calloc(1, sizeof(*worker));
    enum err err;

    *out = NULL;
    if (worker == NULL)
        return err_set(why, ERR_NOMEM, "ingest: no memory");
    worker->shared = shared;
    worker->plain = BUF_MAX((size_t)config->ingest_body_bytes_max);
    worker->bad =
        BUF_MAX((size_t)config->ingest_clicks_max * sizeof(struct worker_bad));
    worker->errors =
        BUF_MAX((size_t)config->ingest_clicks_max * ERROR_JSON_MAX + 4096);
    err = auth_open(&worker->auth, shared->master, why);
    if (err == ERR_OK)
        err = inflate_open(&worker->inflate, why);
    if (err == ERR_OK)
        err = click_parser_open(&worker->parser,
                                (size_t)config->ingest_click_bytes_max, why);
    *out = worker;
    if (err != ERR_OK)
        worker_close(out);
    return err;
}

void
worker_close(struct worker **worker)
{
    struct worker *w = *worker;

    *worker = NULL;
    if (w == NULL)
        return;
    auth_close(&w->auth);
    inflate_close(&w->inflate);
    if (w->parser != NULL)
        click_parser_close(&w->parser);
    buf_free(&w->plain);
    buf_free(&w->bad);
    buf_free(&w->errors);
    free(w);
}

static bool
refuse(const struct post *post, int status, const char *code, const char *detail,
       int retry_after_s)
{
    reply_problem(&post->worker->shared->counts, post->request, status, code,
                  detail, NULL, retry_after_s);
    return false;
}

/* --- headers --- */

static bool
key_check(struct post *post)
{
    struct str header = http_header(post->request, "Authorization");

    switch (auth_check(post->worker->auth, header, MASTER_INGEST, &post->who)) {
    case AUTH_OK:
        return true;
    case AUTH_MISSING:
        return refuse(post, 401, "no_key",
                      "Send the header Authorization: Bearer KEY.", 0);
    case AUTH_UNKNOWN:
        return refuse(post, 401, "unknown_key", "This key is unknown or revoked.",
                      0);
    case AUTH_SCOPE:
        return refuse(post, 403, "scope", "This key has not the scope ingest.", 0);
    case AUTH_NOT_READY:
        break;
    }
    return refuse(post, 503, "not_ready", "The keys are not loaded yet.",
                  REPLY_RETRY_BUSY_S);
}

/* JSON of some name, or nothing said. */
static bool
type_known(struct str type)
{
    static const char *const known[] = {"application/json", "application/x-ndjson",
                                        "application/ndjson", "application/jsonl",
                                        "text/plain"};
    const char *end = type.n == 0 ? NULL : memchr(type.p, ';', type.n);

    if (end != NULL)
        type.n = (uint32_t)(end - type.p);
    while (type.n > 0 && type.p[type.n - 1] == ' ')
        type.n--;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (type.n == strlen(known[i]) &&
            strncasecmp(type.p, known[i], type.n) == 0)
            return true;
    return type.n == 0;
}

static bool
head_check(struct post *post)
{
    struct str dry_run = http_query(post->request, "dry_run");
    const struct ack *ack = post->worker->shared->ack;

    if (!key_check(post))
        return false;
    if (!type_known(http_header(post->request, "Content-Type")))
        return refuse(
            post, 415, "content_type",
            "Send Content-Type: application/json or application/x-ndjson.", 0);
    post->dry_run = str_equal(dry_run, STR("1")) || str_equal(dry_run, STR("true"));
    if (dry_run.p != NULL && !post->dry_run && !str_equal(dry_run, STR("0")) &&
        !str_equal(dry_run, STR("false")))
        return refuse(post, 400, "dry_run", "dry_run is 1 or 0.", 0);
    if (!post->dry_run && ack != NULL && !ack_takes(ack))
        return refuse(post, 503, "kafka_away", REPLY_KAFKA_AWAY,
                      REPLY_RETRY_KAFKA_S);
    return true;
}

static bool
inflate_refuse(const struct post *post, enum inflate_result result)
{
    char detail[96];

    switch (result) {
    case INFLATE_TOO_LARGE:
        (void)snprintf(detail, sizeof(detail),
                       "The body is over the limit of %zu bytes, decompressed.",
                       post->worker->plain.max);
        return refuse(post, 413, "body_too_large", detail, 0);
    case INFLATE_WINDOW:
        return refuse(post, 413, "window_too_large",
                      "The zstd window is over 8 MiB; compress without --long.", 0);
    case INFLATE_NOMEM:
        return refuse(post, 503, "busy",
                      "No memory for it; send the same again later.",
                      REPLY_RETRY_BUSY_S);
    case INFLATE_OK:
    case INFLATE_BAD:
        break;
    }
    return refuse(post, 400, "encoding",
                  "The body is not what Content-Encoding says, or it is cut short.",
                  0);
}

static bool
body_open(struct post *post)
{
    enum inflate_coding coding =
        inflate_coding_of(http_header(post->request, "Content-Encoding"));
    struct worker *worker = post->worker;
    enum inflate_result result;

    post->text = http_body(post->request);
    if (coding == INFLATE_UNKNOWN)
        return refuse(post, 415, "content_encoding",
                      "Of the encodings only gzip and zstd are known.", 0);
    if (coding == INFLATE_IDENTITY)
        return true;
    buf_reset(&worker->plain);
    result = inflate_body(worker->inflate, coding, post->text, &worker->plain);
    if (result != INFLATE_OK)
        return inflate_refuse(post, result);
    post->text =
        (struct str){(const char *)worker->plain.p, (uint32_t)worker->plain.n};
    return true;
}

/* --- clicks --- */

static bool
bad_keep(struct post *post, unsigned index, struct str json,
         const struct click_error *error)
{
    struct worker_bad bad = {.index = index, .raw = json, .error = *error};

    buf_add(&post->worker->bad, &bad, sizeof(bad));
    return !post->worker->bad.failed;
}

static bool
good_keep(struct post *post, struct click *click)
{
    struct worker *worker = post->worker;
    struct str campaign = click->campaign_id;
    struct str record = {(const char *)worker->record, 0};

    click->account = post->who.account;
    click->key = post->who.key;
    click->remote = (struct str){(const char *)post->remote.bytes, post->remote.n};
    click->signature = CLICK_SIGNATURE_NONE;
    record.n = (uint32_t)click_encode_body(click, worker->record);
    return job_add(
        post->job, click, record,
        hash_partition(campaign.p, campaign.n, worker->shared->partitions));
}

static bool
click_visit(void *ctx, unsigned index, struct str json)
{
    struct post *post = ctx;
    struct click_error error;
    struct click click; /* zeroed by click_parse */
    unsigned unknown = 0;
    bool kept;

    post->clicks++;
    if (click_parse(post->worker->parser, json, &post->limits, &click, &error,
                    &unknown))
        kept = good_keep(post, &click);
    else
        kept = bad_keep(post, index, json, &error);
    post->unknown += unknown;
    post->no_memory = !kept;
    return kept;
}

static bool
clicks_read(struct post *post)
{
    const struct config *config = post->worker->shared->config;
    /* A click is seldom shorter; a wrong guess costs one more allocation. */
    unsigned guess = post->text.n / 384 + 1;
    struct click_error error;

    post->now_us = clock_now_us();
    post->limits =
        (struct click_limits){.now_ms = post->now_us / 1000,
                              .future_ms_max = config->ingest_future_ms_max,
                              .past_ms_max = config->ingest_past_ms_max};
    buf_reset(&post->worker->bad);
    post->job = job_new(post->text.n, guess);
    if (post->job == NULL)
        return refuse(post, 503, "busy",
                      "No memory for it; send the same again later.",
                      REPLY_RETRY_BUSY_S);
    http_context_set(post->request, post->job, job_free);
    post->job->commit.request = post->request;
    if (!click_split(post->worker->parser, post->text,
                     (unsigned)config->ingest_clicks_max, click_visit, post,
                     &error)) {
        bool too_large = strcmp(error.code, "too_large") == 0;

        return refuse(post, too_large ? 413 : 400, error.code, error.message, 0);
    }
    if (post->no_memory)
        return refuse(post, 503, "busy",
                      "No memory for it; send the same again later.",
                      REPLY_RETRY_BUSY_S);
    assert(post->clicks > 0);
    return true;
}

/* --- the rate --- */

static struct rate_limit
limit_of(const struct post *post)
{
    const struct config *config = post->worker->shared->config;
    uint64_t rate = (uint64_t)config->ingest_rate_clicks_per_s;
    uint64_t burst = (uint64_t)config->ingest_rate_burst_clicks;

    if (post->who.rate_clicks_per_s != 0) {
        /* A key with a higher limit has as many seconds' worth of burst. */
        uint64_t scaled = burst * post->who.rate_clicks_per_s / rate;

        rate = post->who.rate_clicks_per_s;
        burst = scaled > burst ? scaled : burst;
    }
    if (rate > RATE_CLICKS_PER_S_MAX)
        rate = RATE_CLICKS_PER_S_MAX;
    if (burst > RATE_BURST_MAX)
        burst = RATE_BURST_MAX;
    return (struct rate_limit){(uint32_t)rate, (uint32_t)burst};
}

/* A v6 sender has its whole /64. */
static uint64_t
rate_key(const struct post *post)
{
    uint8_t bytes[4 + 8] = {0};
    size_t n = post->remote.n == 16 ? 8 : post->remote.n;

    memcpy(bytes, &post->who.key, 4);
    memcpy(bytes + 4, post->remote.bytes, n);
    return hash64(bytes, 4 + n, post->worker->shared->rate_seed);
}

static bool
rate_pass(struct post *post)
{
    struct ingest_shared *shared = post->worker->shared;
    struct rate_limit limit = limit_of(post);
    int64_t wait_us;
    enum rate_verdict verdict = rate_check(shared->rate, rate_key(post), &limit,
                                           post->clicks, post->now_us, &wait_us);
    char detail[128];

    if (verdict == RATE_PASS)
        return true;
    metric_add(shared->rate_limited, post->clicks);
    if (verdict == RATE_NEVER) {
        (void)snprintf(
            detail, sizeof(detail),
            "More clicks than the key's burst of %u: send smaller batches.",
            limit.burst);
        return refuse(post, 413, "over_burst", detail, 0);
    }
    (void)snprintf(detail, sizeof(detail),
                   "Over this key's %u clicks a second; send the same again later.",
                   limit.clicks_per_s);
    return refuse(post, 429, "rate", detail,
                  (int)((wait_us + CLOCK_SECOND_US - 1) / CLOCK_SECOND_US));
}

/* --- the answer --- */

static const struct worker_bad *
bad_at(const struct worker *worker, unsigned i)
{
    return (const struct worker_bad *)(const void *)(worker->bad.p) + i;
}

static unsigned
code_index(const char *code)
{
    static const char *const names[] = {
#define X(code) #code,
        WORKER_CODES(X)
#undef X
    };
    unsigned i = 0;

    while (i < WORKER_CODE_other && strcmp(names[i], code) != 0)
        i++;
    return i;
}

static void
bad_report(const struct post *post, const struct worker_bad *bad)
{
    struct ingest_shared *shared = post->worker->shared;

    metric_add(shared->rejected[code_index(bad->error.code)], 1);
    dlq_add(shared->dlq,
            &(struct dlq_entry){
                .time_ms = post->now_us / 1000,
                .key = post->who.key,
                .account = post->who.account,
                .remote = {(const char *)post->remote.bytes, post->remote.n},
                .code = bad->error.code,
                .field = bad->error.field,
                .event_id = bad->error.event_id,
                .message = bad->error.message,
                .raw = bad->raw,
            });
}

static void
bad_format(struct buf *json, const struct worker_bad *bad)
{
    buf_printf(json, "{\"index\":%u,\"event_id\":", bad->index);
    buf_add_json(json, str_of(bad->error.event_id));
    buf_add_text(json, ",\"code\":");
    buf_add_json(json, str_of(bad->error.code));
    buf_add_text(json, ",\"field\":");
    buf_add_json(json, str_of(bad->error.field));
    buf_add_text(json, ",\"message\":");
    buf_add_json(json, str_of(bad->error.message));
    buf_add_text(json, "}");
}

/* The members "accepted", "rejected", "errors" without braces. */
static struct str
members_format(struct post *post, unsigned bad_n)
{
    struct buf *json = &post->worker->errors;

    buf_reset(json);
    buf_printf(json, "\"accepted\":%u,\"rejected\":%u,\"errors\":[",
               post->clicks - bad_n, bad_n);
    for (unsigned i = 0; i < bad_n; i++) {
        if (i > 0)
            buf_add_text(json, ",");
        bad_format(json, bad_at(post->worker, i));
    }
    buf_add_text(json, "]");
    buf_add(json, "", 1);
    return json->failed
               ? STR("\"errors\":[]")
               : (struct str){(const char *)json->p, (uint32_t)json->n - 1};
}

/* All good is by far the commonest: no buffer, no loop. */
static struct str
answer_format(struct post *post, unsigned bad_n, char small[64], struct buf *large)
{
    if (bad_n == 0 && !post->dry_run) {
        int n =
            snprintf(small, 64, "{\"accepted\":%u,\"rejected\":0,\"errors\":[]}\n",
                     post->clicks);

        return (struct str){small, (uint32_t)n};
    }
    buf_add_text(large, "{");
    buf_add_str(large, members_format(post, bad_n));
    buf_add_text(large, post->dry_run ? ",\"dry_run\":true}\n" : "}\n");
    return (struct str){(const char *)large->p, (uint32_t)large->n};
}

static void
answer_good(struct post *post, unsigned bad_n)
{
    struct ingest_shared *shared = post->worker->shared;
    struct buf large = BUF_MAX(post->worker->errors.max + 64);
    char small[64];
    struct str json = answer_format(post, bad_n, small, &large);
    unsigned good_n = post->clicks - bad_n;

    if (large.failed || !job_answer(post->job, json)) {
        (void)refuse(post, 503, "busy",
                     "No memory for it; send the same again later.",
                     REPLY_RETRY_BUSY_S);
    } else if (post->dry_run) {
        reply_json(&shared->counts, post->request, 200, json);
    } else if (commit_submit(shared->commit, &post->job->commit)) {
        /* Job and body live on until this thread's loop ends the request. */
        metric_add(shared->accepted, good_n);
    } else {
        (void)refuse(
            post, 503, "queue_full",
            "Too many clicks wait to be stored; send the same again later.",
            REPLY_RETRY_BUSY_S);
    }
    buf_free(&large);
}

void
clicks_post(struct worker *worker, struct http_request *request)
{
    struct ingest_shared *shared = worker->shared;
    struct post post = {.worker = worker, .request = request};
    unsigned bad_n;

    client_address_of(&shared->proxies, http_peer(request),
                      shared->proxies.n == 0
                          ? STR("")
                          : http_header_last(request, "X-Forwarded-For"),
                      &post.remote);
    if (!head_check(&post) || !body_open(&post) || !clicks_read(&post) ||
        !rate_pass(&post))
        return;
    bad_n = (unsigned)(worker->bad.n / sizeof(struct worker_bad));
    if (post.unknown > 0)
        metric_add(shared->unknown_fields, post.unknown);
    if (bad_n == post.clicks) {
        reply_problem(&shared->counts, request, 400, "all_rejected",
                      "No click of this request is good; see errors.",
                      members_format(&post, bad_n).p, 0);
    } else {
        answer_good(&post, bad_n);
    }
    for (unsigned i = 0; i < bad_n && !post.dry_run; i++)
        bad_report(&post, bad_at(worker, i));
}

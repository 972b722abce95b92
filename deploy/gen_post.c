#include "deploy/gen.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "deploy/command.h"

enum {
    ANSWER_BYTES_MAX = 16 << 20,
    BODY_BYTES_MAX = 64 << 20,
    TRIES_MAX = 300,
    RETRY_US = 200000,
    TIMEOUT_S = 60,
    CONNECTIONS_MAX = 256,
    BATCH_MAX = 2000,
};

struct poster {
    const struct gen_plan *plan;
    const struct gen_post *post;
    pthread_mutex_t lock; /* of all below */
    uint32_t next;        /* click to post next */
    uint64_t request;
    FILE *truth;
    struct gen_result result;
    struct progress progress;
    bool failed;
    struct why why;
};

/* One request's worth of clicks, as text and as places in it. */
struct load {
    uint32_t first, n;
    uint64_t request;
    struct buf body;
    uint32_t *at; /* n + 1 places: click i is body[at[i] .. at[i + 1] - 2] */
    bool *rejected;
    struct buf answer;
};

static size_t
answer_take(char *data, size_t size, size_t n, void *ctx)
{
    buf_add(ctx, data, size * n);
    return size * n;
}

static bool
load_take(struct poster *poster, struct load *load)
{
    (void)pthread_mutex_lock(&poster->lock);
    uint32_t left = gen_clicks(poster->plan) - poster->next;
    load->first = poster->next;
    load->n = left < poster->post->batch ? left : poster->post->batch;
    load->request = poster->request;
    poster->next += load->n;
    poster->request++;
    bool more = load->n > 0 && !poster->failed;
    (void)pthread_mutex_unlock(&poster->lock);
    return more;
}

/* Arrays and NDJSON in turn, a bare object for one click: all that ingest takes. */
static void
load_render(const struct gen_plan *plan, struct load *load)
{
    bool array = load->n > 1 && load->request % 2 == 0;

    buf_reset(&load->body);
    if (array)
        buf_add_text(&load->body, "[");
    for (uint32_t i = 0; i < load->n; i++) {
        load->at[i] = (uint32_t)load->body.n;
        load->rejected[i] = false;
        gen_click_json(plan, load->first + i, &load->body);
        buf_add_text(&load->body, array ? (i + 1 < load->n ? "," : "]") : "\n");
    }
    load->at[load->n] = (uint32_t)load->body.n;
}

static void
rejected_mark(struct load *load)
{
    cJSON *json =
        cJSON_ParseWithLength((const char *)load->answer.p, load->answer.n);
    const cJSON *errors = cJSON_GetObjectItemCaseSensitive(json, "errors");
    const cJSON *error;

    cJSON_ArrayForEach(error, errors)
    {
        const cJSON *index = cJSON_GetObjectItemCaseSensitive(error, "index");
        if (cJSON_IsNumber(index) && index->valueint >= 0 &&
            (uint32_t)index->valueint < load->n)
            load->rejected[index->valueint] = true;
    }
    cJSON_Delete(json);
}

static enum err
load_post(struct poster *poster, CURL *curl, struct load *load, struct why *why)
{
    long status = 0;

    for (int try = 0; try < TRIES_MAX; try++) {
        buf_reset(&load->answer);
        (void)curl_easy_setopt(curl, CURLOPT_POSTFIELDS, load->body.p);
        (void)curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE,
                               (curl_off_t)load->body.n);
        CURLcode code = curl_easy_perform(curl);
        status = 0;
        (void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
        if (code == CURLE_OK && (status == 202 || status == 400)) {
            rejected_mark(load);
            return ERR_OK;
        }
        if (code == CURLE_OK && status != 503 && status != 429)
            return err_set(why, ERR_INVALID, "gen: %s answered %ld: %.*s",
                           poster->post->url, status, (int)load->answer.n,
                           (const char *)load->answer.p);
        /* The same event ids again: what landed before counts once. */
        (void)pthread_mutex_lock(&poster->lock);
        poster->result.retried++;
        (void)pthread_mutex_unlock(&poster->lock);
        clock_sleep_us(RETRY_US);
    }
    return err_set(why, ERR_AGAIN, "gen: %s does not answer (last status %ld)",
                   poster->post->url, status);
}

static void
load_note(struct poster *poster, const struct load *load)
{
    (void)pthread_mutex_lock(&poster->lock);
    poster->result.requests++;
    for (uint32_t i = 0; i < load->n; i++) {
        poster->result.rejected += load->rejected[i];
        poster->result.accepted += !load->rejected[i];
        if (poster->truth == NULL)
            continue;
        fprintf(
            poster->truth,
            "{\"request\":%llu,\"index\":%u,\"status\":\"%s\",\"pattern\":\"%s\","
            "\"click\":%.*s}\n",
            (unsigned long long)load->request, i,
            load->rejected[i] ? "rejected" : "accepted",
            gen_pattern_name(poster->plan, load->first + i),
            (int)(load->at[i + 1] - load->at[i] - 1),
            (const char *)load->body.p + load->at[i]);
    }
    progress_show(&poster->progress,
                  poster->result.accepted + poster->result.rejected,
                  gen_clicks(poster->plan));
    (void)pthread_mutex_unlock(&poster->lock);
}

static void
poster_fail(struct poster *poster, const struct why *why)
{
    (void)pthread_mutex_lock(&poster->lock);
    if (!poster->failed)
        poster->why = *why;
    poster->failed = true;
    (void)pthread_mutex_unlock(&poster->lock);
}

static void *
connection_run(void *ctx)
{
    struct poster *poster = ctx;
    uint32_t batch = poster->post->batch;
    struct load load = {.body = BUF_MAX(BODY_BYTES_MAX),
                        .answer = BUF_MAX(ANSWER_BYTES_MAX)};
    struct curl_slist *headers = NULL;
    char url[512], bearer[256];
    struct why why = {{0}};

    CURL *curl = curl_easy_init();
    load.at = calloc(batch + 1u, sizeof(*load.at));
    load.rejected = calloc(batch, sizeof(*load.rejected));
    (void)snprintf(url, sizeof(url), "%s/v1/clicks", poster->post->url);
    (void)snprintf(bearer, sizeof(bearer), "Authorization: Bearer %s",
                   poster->post->key);
    headers = curl_slist_append(headers, bearer);
    headers = curl_slist_append(headers, "Content-Type: application/json");
    headers = curl_slist_append(headers, "Expect:");
    if (curl == NULL || load.at == NULL || load.rejected == NULL) {
        (void)err_set(&why, ERR_NOMEM, "gen: no memory for a connection");
        poster_fail(poster, &why);
        goto done;
    }
    (void)curl_easy_setopt(curl, CURLOPT_URL, url);
    (void)curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, answer_take);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, &load.answer);
    (void)curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)TIMEOUT_S);
    (void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    while (load_take(poster, &load)) {
        load_render(poster->plan, &load);
        if (load_post(poster, curl, &load, &why) != ERR_OK) {
            poster_fail(poster, &why);
            break;
        }
        load_note(poster, &load);
    }
done:
    curl_slist_free_all(headers);
    if (curl != NULL)
        curl_easy_cleanup(curl);
    free(load.at);
    free(load.rejected);
    buf_free(&load.body);
    buf_free(&load.answer);
    return NULL;
}

static enum err
post_check(const struct gen_post *post, struct why *why)
{
    if (post->batch < 1 || post->batch > BATCH_MAX)
        return err_set(why, ERR_INVALID, "gen: --batch is not in 1..%d", BATCH_MAX);
    if (post->connections < 1 || post->connections > CONNECTIONS_MAX)
        return err_set(why, ERR_INVALID, "gen: --connections is not in 1..%d",
                       CONNECTIONS_MAX);
    return ERR_OK;
}

enum err
gen_post(const struct gen_plan *plan, const struct gen_post *post,
         struct gen_result *out, struct why *why)
{
    pthread_t threads[CONNECTIONS_MAX];
    uint32_t started = 0;
    struct poster poster = {
        .plan = plan, .post = post, .progress = {.what = "post"}, .next = 0};

    assert(plan != NULL);
    enum err err = post_check(post, why);
    if (err != ERR_OK)
        return err;
    if (post->truth_path != NULL &&
        (poster.truth = fopen(post->truth_path, "w")) == NULL)
        return err_set(why, ERR_INVALID, "gen: cannot write %s", post->truth_path);
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
    (void)pthread_mutex_init(&poster.lock, NULL);
    while (started < post->connections &&
           pthread_create(&threads[started], NULL, connection_run, &poster) == 0)
        started++;
    for (uint32_t i = 0; i < started; i++)
        (void)pthread_join(threads[i], NULL);
    progress_end(&poster.progress);
    (void)pthread_mutex_destroy(&poster.lock);
    curl_global_cleanup();
    if (poster.truth != NULL && fclose(poster.truth) != 0 && !poster.failed)
        err = err_set(why, ERR_FULL, "gen: cannot write %s", post->truth_path);
    *out = poster.result;
    if (poster.failed || started == 0)
        return err_set(why, ERR_AGAIN, "%s",
                       started == 0 ? "gen: no thread" : poster.why.text);
    return err;
}

#include <assert.h>
#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "schema/click.h"
#include "schema/topics.h"

enum {
    URL_MAX = 2048,
    BODY_MAX = 1 << 18,
    ANSWER_MAX = 1 << 20,
    WORDS_MAX = 120, /* of the registry's own, in a message */
    CONNECT_S = 5,
    TIMEOUT_S = 15,
};

#define MEDIA "application/vnd.schemaregistry.v1+json"

/* --- the wire format --- */

void
wire_head(uint32_t schema_id, uint8_t out[WIRE_HEAD])
{
    out[0] = 0;
    out[1] = (uint8_t)(schema_id >> 24);
    out[2] = (uint8_t)(schema_id >> 16);
    out[3] = (uint8_t)(schema_id >> 8);
    out[4] = (uint8_t)schema_id;
}

bool
wire_read(struct str value, uint32_t *schema_id, struct str *record)
{
    const uint8_t *p = (const uint8_t *)value.p;

    if (value.n < WIRE_HEAD || p[0] != 0)
        return false;
    *schema_id =
        (uint32_t)p[1] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 8 | p[4];
    *record = (struct str){value.p + WIRE_HEAD, value.n - WIRE_HEAD};
    return true;
}

/* --- the registry: one request after another over one connection --- */

struct registry {
    CURL *curl;
    struct curl_slist *headers;
    char base[URL_MAX];  /* without a slash at the end */
    char shown[URL_MAX]; /* the same without user and password */
    struct buf answer;
    char error[CURL_ERROR_SIZE];
};

static size_t
answer_take(char *data, size_t size, size_t n, void *ctx)
{
    struct buf *answer = ctx;

    buf_add(answer, data, size * n);
    return answer->failed ? 0 : size * n;
}

/* Secrets may stand before an @; messages do not show them. */
static enum err
base_set(struct registry *registry, const char *url, struct why *why)
{
    const char *rest = strstr(url, "://");
    size_t n = strlen(url);

    if ((strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0) ||
        n + 300 >= URL_MAX)
        return err_set(why, ERR_INVALID,
                       "kafka.schema_registry: an http:// or https:// URL of at "
                       "most %d bytes is needed",
                       URL_MAX - 300);
    while (url[n - 1] == '/')
        n--;
    (void)snprintf(registry->base, URL_MAX, "%.*s", (int)n, url);
    rest = registry->base + (rest + 3 - url);
    const char *at = strchr(rest, '@'), *slash = strchr(rest, '/');
    if (at == NULL || (slash != NULL && slash < at))
        at = rest - 1;
    (void)snprintf(registry->shown, URL_MAX, "%.*s%s", (int)(rest - registry->base),
                   registry->base, at + 1);
    return ERR_OK;
}

static enum err
registry_open(struct registry *registry, const char *url, struct why *why)
{
    *registry = (struct registry){.answer = BUF_MAX(ANSWER_MAX)};
    enum err err = base_set(registry, url, why);
    if (err != ERR_OK)
        return err;
    registry->curl = curl_easy_init();
    registry->headers = curl_slist_append(NULL, "Content-Type: " MEDIA);
    if (registry->curl == NULL || registry->headers == NULL)
        return err_set(why, ERR_NOMEM, "out of memory");
    CURL *curl = registry->curl;
    (void)curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(curl, CURLOPT_HTTPHEADER, registry->headers);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, answer_take);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, &registry->answer);
    (void)curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, registry->error);
    (void)curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    (void)curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)TIMEOUT_S);
    (void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    return ERR_OK;
}

static void
registry_close(struct registry *registry)
{
    curl_easy_cleanup(registry->curl);
    curl_slist_free_all(registry->headers);
    buf_free(&registry->answer);
}

static enum err
status_refuse(const struct registry *registry, long status, struct why *why)
{
    cJSON *json =
        cJSON_ParseWithLength((const char *)registry->answer.p, registry->answer.n);
    const cJSON *words = cJSON_GetObjectItemCaseSensitive(json, "message");
    const char *said = cJSON_IsString(words) ? words->valuestring : "no reason";
    enum err err = ERR_FATAL;
    const char *fix = "is kafka.schema_registry a registry's URL?";

    if (status == 409) {
        err = ERR_CONFLICT;
        fix = "the subject has other schemas: delete them, or its compatibility "
              "level";
    } else if (status == 401 || status == 403) {
        err = ERR_INVALID;
        fix = "kafka.schema_registry needs user and password: "
              "http://USER:PASSWORD@...";
    } else if (status >= 500 || status == 429 || status == 408) {
        err = ERR_AGAIN;
        fix = "tried again";
    }
    (void)err_set(why, err, "schema registry at %.90s: status %ld, %.*s (%s)",
                  registry->shown, status, WORDS_MAX, said, fix);
    cJSON_Delete(json);
    return err;
}

/* A request with body (NULL: GET); its answer, status 200, stays until the next. */
static enum err
registry_ask(struct registry *registry, const char *path, const struct buf *body,
             struct why *why)
{
    char url[URL_MAX];
    long status = 0;
    CURL *curl = registry->curl;

    (void)snprintf(url, sizeof(url), "%s%s", registry->base, path);
    buf_reset(&registry->answer);
    registry->error[0] = '\0';
    (void)curl_easy_setopt(curl, CURLOPT_URL, url);
    if (body == NULL) {
        (void)curl_easy_setopt(curl, CURLOPT_HTTPGET, 1L);
    } else {
        (void)curl_easy_setopt(curl, CURLOPT_POST, 1L);
        (void)curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body->p);
        (void)curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE,
                               (curl_off_t)body->n);
    }
    CURLcode code = curl_easy_perform(curl);
    if (registry->answer.failed)
        return err_set(why, ERR_FATAL,
                       "schema registry at %.120s: its answer is over %d bytes",
                       registry->shown, ANSWER_MAX);
    if (code != CURLE_OK)
        return err_set(why, ERR_AGAIN, "schema registry at %.90s: %.140s",
                       registry->shown,
                       registry->error[0] != '\0' ? registry->error
                                                  : curl_easy_strerror(code));
    (void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    return status == 200 ? ERR_OK : status_refuse(registry, status, why);
}

/* The id of the answer {"id": N}; it is in four bytes of each message. */
static enum err
id_read(const struct registry *registry, uint32_t *id, struct why *why)
{
    cJSON *json =
        cJSON_ParseWithLength((const char *)registry->answer.p, registry->answer.n);
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, "id");
    double number = cJSON_IsNumber(item) ? item->valuedouble : -1;
    bool good =
        number >= 1 && number <= INT32_MAX && number == (double)(int32_t)number;

    if (good)
        *id = (uint32_t)number;
    cJSON_Delete(json);
    return good ? ERR_OK
                : err_set(why, ERR_FATAL,
                          "schema registry at %.120s: it answered no id; is it "
                          "Confluent's API?",
                          registry->shown);
}

/* What readers will get for the id must be what the record is written with. */
static enum err
id_confirm(struct registry *registry, uint32_t id, unsigned version,
           struct why *why)
{
    char path[64];

    (void)snprintf(path, sizeof(path), "/schemas/ids/%u", id);
    enum err err = registry_ask(registry, path, NULL, why);
    if (err != ERR_OK)
        return err;
    cJSON *json =
        cJSON_ParseWithLength((const char *)registry->answer.p, registry->answer.n);
    const cJSON *schema = cJSON_GetObjectItemCaseSensitive(json, "schema");
    bool same = cJSON_IsString(schema) &&
                click_schema_version(str_of(schema->valuestring)) == version;
    cJSON_Delete(json);
    return same ? ERR_OK
                : err_set(why, ERR_CONFLICT,
                          "schema registry at %.90s: under id %u it has another "
                          "schema than version %u of ours",
                          registry->shown, id, version);
}

static enum err
version_register(struct registry *registry, const char *topic, unsigned version,
                 uint32_t *id, struct why *why)
{
    struct buf body = BUF_MAX(BODY_MAX);
    char path[320];

    /* A topic's name has no character that a path would read otherwise. */
    (void)snprintf(path, sizeof(path), "/subjects/%s-value/versions", topic);
    buf_add_text(&body, "{\"schemaType\":\"AVRO\",\"schema\":");
    buf_add_json(&body, str_of(click_schema(version)));
    buf_add_text(&body, "}");
    enum err err = body.failed ? err_set(why, ERR_NOMEM, "out of memory")
                               : registry_ask(registry, path, &body, why);
    buf_free(&body);
    if (err == ERR_OK)
        err = id_read(registry, id, why);
    if (err == ERR_OK)
        err = id_confirm(registry, *id, version, why);
    return err;
}

enum err
registry_register(const struct config *config, const char *topic, uint32_t *ids,
                  struct why *why)
{
    struct registry registry;

    assert(strlen(topic) < 250);
    ids[0] = 0;
    for (unsigned v = CLICK_VERSION_FIRST; v <= CLICK_VERSION; v++)
        ids[v] = v;
    if (config->kafka_schema_registry[0] == '\0')
        return ERR_OK;
    enum err err = registry_open(&registry, config->kafka_schema_registry, why);
    for (unsigned v = CLICK_VERSION_FIRST; err == ERR_OK && v <= CLICK_VERSION; v++)
        err = version_register(&registry, topic, v, &ids[v], why);
    registry_close(&registry);
    return err;
}

/* The wire format, and a registry that keeps Confluent's API, or breaks it. */
#include "schema/topics.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <cjson/cJSON.h>

#include "common/http.h"
#include "schema/click.h"

enum { IDS_MAX = CLICK_VERSION + 1, FIRST_ID = 70001, PATH_MAX_BYTES = 400 };

/* What the registry answers; NULL: what it should. */
struct fixture {
    struct http_server *server;
    struct config config;
    char url[128];
    int status;
    const char *posted, *got;
    char *schemas[8]; /* id FIRST_ID + i */
    unsigned schemas_n, posts, gets;
    char path[PATH_MAX_BYTES], type[80], authorization[80];
};

static void
copy(char *out, size_t size, struct str s)
{
    (void)snprintf(out, size, "%.*s", (int)s.n, s.p == NULL ? "" : s.p);
}

static void
answer(struct http_request *request, int status, const char *text)
{
    http_respond(request,
                 &(struct http_answer){.status = status,
                                       .content_type =
                                           "application/vnd.schemaregistry.v1+json",
                                       .body = str_of(text)});
}

static void
post_handle(struct fixture *f, struct http_request *request)
{
    struct str body = http_body(request);
    cJSON *json = cJSON_ParseWithLength(body.p, body.n);
    const cJSON *schema = cJSON_GetObjectItemCaseSensitive(json, "schema");
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(json, "schemaType");
    char text[64];

    copy(f->path, sizeof(f->path), http_path(request));
    copy(f->type, sizeof(f->type), http_header(request, "Content-Type"));
    copy(f->authorization, sizeof(f->authorization),
         http_header(request, "Authorization"));
    f->posts++;
    if (f->posted != NULL || f->status != 200) {
        answer(request, f->status, f->posted != NULL ? f->posted : "{}");
    } else if (!cJSON_IsString(schema) || !cJSON_IsString(type) ||
               strcmp(type->valuestring, "AVRO") != 0 || f->schemas_n >= 8) {
        answer(request, 422, "{\"error_code\":42201,\"message\":\"bad schema\"}");
    } else {
        f->schemas[f->schemas_n++] = strdup(schema->valuestring);
        (void)snprintf(text, sizeof(text), "{\"id\":%u}",
                       FIRST_ID + f->schemas_n - 1);
        answer(request, 200, text);
    }
    cJSON_Delete(json);
}

static void
get_handle(struct fixture *f, struct http_request *request)
{
    char path[PATH_MAX_BYTES];
    unsigned id = 0;

    copy(path, sizeof(path), http_path(request));
    f->gets++;
    if (f->got != NULL) {
        answer(request, 200, f->got);
    } else if (strncmp(path, "/api/schemas/ids/", 17) != 0 ||
               (id = (unsigned)strtoul(path + 17, NULL, 10)) < FIRST_ID ||
               id >= FIRST_ID + f->schemas_n) {
        answer(request, 404, "{\"message\":\"not found\"}");
    } else {
        cJSON *json = cJSON_CreateObject();
        (void)cJSON_AddStringToObject(json, "schema", f->schemas[id - FIRST_ID]);
        char *text = cJSON_PrintUnformatted(json);
        answer(request, 200, text);
        free(text);
        cJSON_Delete(json);
    }
}

static void
handle(void *ctx, struct http_request *request)
{
    if (str_equal(http_method(request), STR("POST")))
        post_handle(ctx, request);
    else
        get_handle(ctx, request);
}

static void
url_set(struct fixture *f, const char *user)
{
    free(f->config.kafka_schema_registry);
    (void)snprintf(f->url, sizeof(f->url), "http://%s127.0.0.1:%u/api/", user,
                   http_port(f->server));
    f->config.kafka_schema_registry = strdup(f->url);
}

static int
setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    const struct http_config cfg = {
        .address = "127.0.0.1",
        .threads = 1,
        .connections_max = 10,
        .body_max = 100000,
        .in_flight_max = 1000000,
        .request_us_max = 5000000,
        .idle_us_max = 5000000,
        .handle = handle,
        .ctx = f,
    };

    f->status = 200;
    assert_int_equal(config_load(&f->config, NULL, NULL, NULL, NULL), ERR_OK);
    assert_int_equal(http_start(&f->server, &cfg, NULL), ERR_OK);
    url_set(f, "");
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;

    http_stop(&f->server);
    for (unsigned i = 0; i < f->schemas_n; i++)
        free(f->schemas[i]);
    config_free(&f->config);
    free(f);
    return 0;
}

static void
a_message_begins_with_zero_and_the_id_in_big_endian(void **state)
{
    static const uint32_t ids[] = {0,   1,     2,          255,
                                   256, 70001, 0x01020304, UINT32_MAX};
    uint8_t message[WIRE_HEAD + 3] = {0};
    struct str record;
    uint32_t id;

    (void)state;
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        memcpy(message + WIRE_HEAD, "abc", 3);
        wire_head(ids[i], message);
        assert_true(wire_read((struct str){(const char *)message, sizeof(message)},
                              &id, &record));
        assert_int_equal(id, ids[i]);
        assert_true(str_equal(record, STR("abc")));
    }
    wire_head(0x01020304, message);
    assert_memory_equal(message, "\0\1\2\3\4abc", sizeof(message));
}

static void
what_has_another_magic_or_no_head_is_no_message(void **state)
{
    struct str record;
    uint32_t id;

    (void)state;
    assert_false(wire_read((struct str){NULL, 0}, &id, &record));
    assert_false(wire_read((struct str){"\0\0\0\0", 4}, &id, &record));
    assert_false(wire_read((struct str){"\1\0\0\0\1x", 6}, &id, &record));
    assert_true(wire_read((struct str){"\0\0\0\0\1", 5}, &id, &record));
    assert_int_equal(record.n, 0);
}

static void
without_a_registry_ids_are_versions(void **state)
{
    struct fixture *f = *state;
    uint32_t ids[IDS_MAX] = {99, 99};

    f->config.kafka_schema_registry[0] = '\0';
    assert_int_equal(registry_register(&f->config, "raw_clicks", ids, NULL),
                     ERR_OK);
    for (unsigned v = CLICK_VERSION_FIRST; v <= CLICK_VERSION; v++)
        assert_int_equal(ids[v], v);
    assert_int_equal(f->posts, 0);
}

static void
each_version_is_posted_oldest_first_and_its_id_confirmed(void **state)
{
    struct fixture *f = *state;
    uint32_t ids[IDS_MAX];
    struct why why = {""};

    assert_int_equal(registry_register(&f->config, "x.raw_clicks", ids, &why),
                     ERR_OK);
    assert_int_equal(f->posts, CLICK_VERSION);
    assert_int_equal(f->gets, CLICK_VERSION);
    assert_string_equal(f->path, "/api/subjects/x.raw_clicks-value/versions");
    assert_string_equal(f->type, "application/vnd.schemaregistry.v1+json");
    assert_string_equal(f->authorization, "");
    for (unsigned v = CLICK_VERSION_FIRST; v <= CLICK_VERSION; v++) {
        assert_int_equal(ids[v], FIRST_ID + v - 1);
        assert_string_equal(f->schemas[v - 1], click_schema(v));
    }
}

static void
user_and_password_are_sent_and_not_shown(void **state)
{
    struct fixture *f = *state;
    uint32_t ids[IDS_MAX];
    struct why why = {""};

    url_set(f, "ann:hunter2@");
    assert_int_equal(registry_register(&f->config, "t", ids, &why), ERR_OK);
    assert_string_equal(f->authorization, "Basic YW5uOmh1bnRlcjI=");
    f->status = 401;
    assert_int_equal(registry_register(&f->config, "t", ids, &why), ERR_INVALID);
    assert_null(strstr(why.text, "hunter2"));
    assert_non_null(strstr(why.text, "http://127.0.0.1:"));
}

static void
bad_answers_say_what_is_wrong(void **state)
{
    static const struct {
        int status;
        const char *posted, *got;
        enum err err;
        const char *said;
    } cases[] = {
        {409, "{\"error_code\":409,\"message\":\"incompatible\"}", NULL,
         ERR_CONFLICT, "incompatible"},
        {422, "{\"message\":\"no Avro\"}", NULL, ERR_FATAL, "status 422, no Avro"},
        {404, "<html>", NULL, ERR_FATAL,
         "is kafka.schema_registry a registry's URL"},
        {403, "{}", NULL, ERR_INVALID, "user and password"},
        {500, "{}", NULL, ERR_AGAIN, "status 500"},
        {503, "", NULL, ERR_AGAIN, "status 503"},
        {429, "", NULL, ERR_AGAIN, "status 429"},
        {302, "", NULL, ERR_FATAL, "status 302"},
        {200, "", NULL, ERR_FATAL, "answered no id"},
        {200, "[]", NULL, ERR_FATAL, "answered no id"},
        {200, "{\"id\":\"7\"}", NULL, ERR_FATAL, "answered no id"},
        {200, "{\"id\":0}", NULL, ERR_FATAL, "answered no id"},
        {200, "{\"id\":-3}", NULL, ERR_FATAL, "answered no id"},
        {200, "{\"id\":1.5}", NULL, ERR_FATAL, "answered no id"},
        {200, "{\"id\":1e300}", NULL, ERR_FATAL, "answered no id"},
        {200, "{\"id\":7}", NULL, ERR_FATAL, "status 404"},
        {200, "{\"id\":7}", "{}", ERR_CONFLICT, "under id 7"},
        {200, "{\"id\":7}", "{\"schema\":3}", ERR_CONFLICT, "under id 7"},
        {200, "{\"id\":7}", "{\"schema\":\"\\\"string\\\"\"}", ERR_CONFLICT,
         "version 1"},
    };
    struct fixture *f = *state;
    uint32_t ids[IDS_MAX];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct why why = {""};

        f->status = cases[i].status;
        f->posted = cases[i].posted;
        f->got = cases[i].got;
        assert_int_equal(registry_register(&f->config, "t", ids, &why),
                         cases[i].err);
        if (strstr(why.text, cases[i].said) == NULL)
            fail_msg("case %zu: '%s' does not say '%s'", i, why.text,
                     cases[i].said);
    }
}

static void
an_answer_without_end_is_cut_off(void **state)
{
    struct fixture *f = *state;
    uint32_t ids[IDS_MAX];
    struct why why = {""};
    size_t n = (size_t)2 << 20;
    char *text = malloc(n);

    assert_non_null(text);
    memset(text, ' ', n - 1);
    text[n - 1] = '\0';
    f->posted = text;
    assert_int_equal(registry_register(&f->config, "t", ids, &why), ERR_FATAL);
    assert_non_null(strstr(why.text, "over"));
    free(text);
}

static void
a_registry_that_is_away_is_asked_again_later(void **state)
{
    struct fixture *f = *state;
    uint32_t ids[IDS_MAX];
    struct why why = {""};

    free(f->config.kafka_schema_registry);
    f->config.kafka_schema_registry = strdup("http://127.0.0.1:1/");
    assert_int_equal(registry_register(&f->config, "t", ids, &why), ERR_AGAIN);
    assert_non_null(strstr(why.text, "http://127.0.0.1:1:"));
}

static void
what_is_no_url_is_refused(void **state)
{
    static const char *const urls[] = {"registry:8081", "ftp://x/", "file:///etc/x",
                                       "http:/x"};
    struct fixture *f = *state;
    uint32_t ids[IDS_MAX];

    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        struct why why = {""};

        free(f->config.kafka_schema_registry);
        f->config.kafka_schema_registry = strdup(urls[i]);
        assert_int_equal(registry_register(&f->config, "t", ids, &why),
                         ERR_INVALID);
        assert_non_null(strstr(why.text, "kafka.schema_registry"));
    }
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_begins_with_zero_and_the_id_in_big_endian),
        cmocka_unit_test(what_has_another_magic_or_no_head_is_no_message),
        T(without_a_registry_ids_are_versions),
        T(each_version_is_posted_oldest_first_and_its_id_confirmed),
        T(user_and_password_are_sent_and_not_shown),
        T(bad_answers_say_what_is_wrong),
        T(an_answer_without_end_is_cut_off),
        T(a_registry_that_is_away_is_asked_again_later),
        T(what_is_no_url_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Who may see what: a walk over the route table; and one click. */
#include "schema/click.h"
#include "tests/dashboard/dashboard_fixture.h"

#include "common/metrics.h"

static struct rig rig;

/* The event ids of the clicks that are archived: 1, 2, ... */
static const char *const owned[] = {"shoes", "hats", "bagels"};

static char *
click_id(uint64_t number, char text[UUID_TEXT_SIZE])
{
    uint8_t id[16] = {0};

    memcpy(id, &number, sizeof(number));
    return uuid_format(id, text);
}

static int
start(void **state)
{
    struct archiver archiver;

    (void)state;
    rig_open(&rig);
    archiver_open(&archiver, rig.billing.archive);
    for (uint64_t i = 0; i < 3; i++) {
        struct click click = fixture_click(i + 1, T0_US + (int64_t)i * SECOND);
        click.campaign_id = str_of(owned[i]);
        click.account = i == 2 ? 2 : 1;
        archiver_add(&archiver, &click);
    }
    archiver_roll(&archiver, T0_US + HOUR);
    archiver_close(&archiver);
    (void)fixture_judge(&rig.billing, T0_US + HOUR, true);
    for (int i = 0; i < 3; i++)
        owner_put(&rig, owned[i], rig.generation, "0");
    return 0;
}

static int
stop(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        owner_drop(&rig, owned[i]);
    rig_close(&rig);
    return 0;
}

/* The route's path with what belongs to campaign in its place; it fails for a route that
 * this test does not know how to try. */
static void
path_of(const struct dashboard_route *route, unsigned campaign,
        char path[PATH_TEXT])
{
    const char *open = strchr(route->path, '{');
    char id[UUID_TEXT_SIZE];
    const char *value = campaign < 3 ? owned[campaign] : "nobodys";

    if (open == NULL) {
        (void)snprintf(path, PATH_TEXT, "%s", route->path);
        return;
    }
    if (strncmp(route->path, "/schemas/", 9) == 0) { /* shows the same to all */
        bool by_id = strstr(route->path, "{id}") != NULL;
        bool version = strstr(route->path, "{version}") != NULL;
        (void)snprintf(path, PATH_TEXT, "%.*s%s%s", (int)(open - route->path),
                       route->path,
                       by_id     ? "2"
                       : version ? "raw_clicks-value/versions/latest"
                                 : "raw_clicks-value",
                       version ? "" : strchr(open, '}') + 1);
        return;
    }
    if (strncmp(route->path, "/v1/clicks/", 11) == 0)
        value = click_id(campaign + 1, id);
    else if (!route->of_campaign)
        fail_msg("%s shows something of someone, and is not covered here",
                 route->path);
    (void)snprintf(path, PATH_TEXT, "%.*s%s%s", (int)(open - route->path),
                   route->path, value, strchr(open, '}') + 1);
}

static void
status_is(const char *key, const char *path, int status)
{
    struct client_answer answer = ask_as(rig.port, key, "GET", path);

    if (answer.status != status)
        fail_msg("%s with %s: %d, not %d\n%s", path, key == NULL ? "no key" : key,
                 answer.status, status, answer.text);
    if (strcmp(path, "/metrics") != 0)
        cJSON_Delete(json_of(&answer));
    if (status == 401)
        assert_memory_equal(client_header(&answer, "WWW-Authenticate"), "Bearer",
                            6);
    client_free(&answer);
}

static void
no_route_answers_without_a_good_key(void **state)
{
    static const char *const bad[] = {
        NULL,       KEY_UNKNOWN,           KEY_REVOKED,      "", "ck_", "x",
        KEY_A1 "0", "ck_0000000000000000", KEY_A1 " " KEY_A1};
    char path[PATH_TEXT];

    (void)state;
    for (unsigned i = 0; i < dashboard_routes_n; i++) {
        path_of(&dashboard_routes[i], 0, path);
        bool open = dashboard_routes[i].scope == 0;
        if (!open && strncmp(path, "/v1/", 4) != 0)
            fail_msg("%s has a scope: it belongs below /v1/", path);
        if (open && strncmp(path, "/v1/", 4) == 0)
            fail_msg("%s is open to all", path);
        for (size_t j = 0; j < sizeof(bad) / sizeof(bad[0]); j++)
            status_is(bad[j], path, open ? 200 : 401);
        status_is(KEY_INGEST, path, open ? 200 : 403);
    }
}

static void
what_a_key_may_not_see_does_not_exist_for_it(void **state)
{
    /* shoes (a1), hats (a2), bagels (account 2), nobody's */
    static const struct {
        const char *key;
        int status[4];
    } rows[] = {
        {KEY_A1, {200, 404, 404, 404}},
        {KEY_ACCOUNT, {200, 200, 404, 404}},
        {KEY_B, {404, 404, 200, 404}},
    };
    char path[PATH_TEXT];
    int tried = 0;

    (void)state;
    for (unsigned i = 0; i < dashboard_routes_n; i++) {
        if (strchr(dashboard_routes[i].path, '{') == NULL ||
            dashboard_routes[i].scope == 0) {
            assert_false(dashboard_routes[i].of_campaign);
            continue;
        }
        for (size_t j = 0; j < sizeof(rows) / sizeof(rows[0]); j++)
            for (unsigned c = 0; c < 4; c++, tried++) {
                path_of(&dashboard_routes[i], c, path);
                status_is(rows[j].key, path, rows[j].status[c]);
            }
    }
    assert_true(tried >= 3 * 12);
}

/* Else the difference would tell that it exists. */
static void
anothers_campaign_and_no_campaign_answer_the_same(void **state)
{
    char path[PATH_TEXT];

    (void)state;
    for (unsigned i = 0; i < dashboard_routes_n; i++) {
        if (strchr(dashboard_routes[i].path, '{') == NULL)
            continue;
        path_of(&dashboard_routes[i], 2, path);
        struct client_answer theirs = ask_as(rig.port, KEY_A1, "GET", path);
        path_of(&dashboard_routes[i], 3, path);
        struct client_answer nobodys = ask_as(rig.port, KEY_A1, "GET", path);
        assert_string_equal(theirs.body, nobodys.body);
        client_free(&theirs);
        client_free(&nobodys);
    }
}

static void
head_answers_without_a_body_and_other_methods_are_refused(void **state)
{
    char path[PATH_TEXT], request[1024];

    (void)state;
    for (unsigned i = 0; i < dashboard_routes_n; i++) {
        path_of(&dashboard_routes[i], 0, path);
        int n = snprintf(request, sizeof(request),
                         "HEAD %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n"
                         "Authorization: Bearer " KEY_A1 "\r\n\r\n",
                         path);
        int fd = client_open(rig.port);
        assert_true(client_send(fd, request, (size_t)n));
        struct client_answer head = client_read(fd); /* to its end: no body comes */
        (void)close(fd);
        assert_memory_equal(head.text, "HTTP/1.1 200", 12);
        assert_ptr_not_equal(head.body, head.text);
        assert_string_equal(head.body, "");
        client_free(&head);

        struct client_answer post = ask_as(rig.port, KEY_A1, "POST", path);
        assert_int_equal(post.status, 405);
        assert_memory_equal(client_header(&post, "Allow"), "GET, HEAD", 9);
        cJSON_Delete(json_of(&post));
        client_free(&post);
    }
}

static void
paths_that_are_none_are_not_found(void **state)
{
    static const char *const paths[] = {"/",
                                        "/v1",
                                        "/v1/campaigns",
                                        "/v1/campaigns/",
                                        "/v1/campaigns//stats",
                                        "/v1/campaigns/shoes",
                                        "/v1/campaigns/shoes/statsx",
                                        "/v1/campaigns/stats",
                                        "/v1/clicks",
                                        "/v1/clicks/",
                                        "/livez/",
                                        "/livezz",
                                        "/Livez",
                                        "//livez",
                                        "/v1/campaigns/shoes%00/stats",
                                        "/v1/campaigns/%ff%fe/stats"};

    (void)state;
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
        status_is(KEY_A1, paths[i], 404);
}

static void
a_campaigns_name_may_hold_a_slash(void **state)
{
    (void)state;
    status_is(KEY_A1, "/v1/campaigns/spring%2F2026/stats", 200);
    status_is(KEY_A1, "/v1/campaigns/spring/2026/stats", 200);
    status_is(KEY_B, "/v1/campaigns/spring%2F2026/stats", 404);
}

static void
the_scheme_is_read_in_any_case(void **state)
{
    struct client_answer answer =
        client_ask(rig.port, "GET", "/v1/campaigns/shoes/stats",
                   "authorization: bearer " KEY_A1 "\r\n", NULL, 0);

    (void)state;
    assert_int_equal(answer.status, 200);
    client_free(&answer);
}

static void
a_click_shows_its_verdicts(void **state)
{
    char path[PATH_TEXT], id[UUID_TEXT_SIZE];
    int n = snprintf(path, sizeof(path), "/v1/clicks/%s", click_id(1, id));

    (void)state;
    assert_true(n > 0);
    cJSON *json = ask_json(rig.port, KEY_A1, path, 200);
    assert_int_equal(cJSON_GetArraySize(json), 1);
    const cJSON *found = cJSON_GetArrayItem(json, 0);
    text_is(member(found, "click"), "event_id", id);
    text_is(member(found, "click"), "campaign_id", "shoes");
    text_is(member(found, "final"), "verdict", "billable");
    text_is(member(found, "final"), "price", "0.250000");
    assert_true(cJSON_IsNull(member(found, "live")));
    text_is(member(found, "click"), "user_id", "hidden");
    cJSON_Delete(json);
    json = ask_json(rig.port, KEY_ACCOUNT, path, 200);
    found = member(cJSON_GetArrayItem(json, 0), "click");
    assert_string_not_equal(member(found, "user_id")->valuestring, "hidden");
    cJSON_Delete(json);
    json = ask_json(rig.port, KEY_A1, "/v1/clicks/no-uuid", 400);
    text_is(json, "field", "event_id");
    cJSON_Delete(json);
}

static void
a_confluent_client_finds_the_schemas(void **state)
{
    static const char *const paths[] = {"/schemas/ids/%u",
                                        "/schemas/schemas/ids/%u",
                                        "/schemas/schemas/ids/%u?subject=x"};
    char path[PATH_TEXT];

    (void)state;
    for (unsigned v = CLICK_VERSION_FIRST; v <= CLICK_VERSION; v++) {
        for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
            const char *format = paths[i], *mark = strchr(format, '%');
            (void)snprintf(path, sizeof(path), "%.*s%u%s", (int)(mark - format),
                           format, v, mark + 2);
            cJSON *json = ask_json(rig.port, NULL, path, 200);
            text_is(json, "schema", click_schema(v));
            cJSON_Delete(json);
        }
    }
    cJSON *json = ask_json(rig.port, NULL, "/schemas/subjects", 200);
    assert_int_equal(cJSON_GetArraySize(json), 1);
    assert_string_equal(cJSON_GetArrayItem(json, 0)->valuestring,
                        "raw_clicks-value");
    cJSON_Delete(json);
    json = ask_json(rig.port, NULL, "/schemas/subjects/raw_clicks-value/versions",
                    200);
    assert_int_equal(cJSON_GetArraySize(json), CLICK_VERSION);
    cJSON_Delete(json);
    json = ask_json(rig.port, NULL,
                    "/schemas/subjects/raw_clicks-value/versions/latest", 200);
    text_is(json, "subject", "raw_clicks-value");
    text_is(json, "schema", click_schema(CLICK_VERSION));
    assert_int_equal(member(json, "id")->valueint, CLICK_VERSION);
    assert_int_equal(member(json, "version")->valueint, CLICK_VERSION);
    cJSON_Delete(json);
    json = ask_json(rig.port, NULL, "/schemas/subjects/raw_clicks-value/versions/1",
                    200);
    assert_int_equal(member(json, "id")->valueint, 1);
    cJSON_Delete(json);
}

static void
a_schema_that_is_none_has_the_registrys_error_code(void **state)
{
    static const struct {
        const char *path;
        int code;
    } rows[] = {
        {"/schemas/ids/0", 40403},
        {"/schemas/ids/3", 40403},
        {"/schemas/ids/-1", 40403},
        {"/schemas/ids/1x", 40403},
        {"/schemas/ids/4294967297", 40403},
        {"/schemas/schemas/ids/99", 40403},
        {"/schemas/subjects/other-value/versions", 40401},
        {"/schemas/subjects/raw_clicks/versions/1", 40401},
        {"/schemas/subjects/other/x", 40401},
        {"/schemas/subjects/raw_clicks-value/versions/0", 40402},
        {"/schemas/subjects/raw_clicks-value/versions/3", 40402},
        {"/schemas/subjects/raw_clicks-value/versions/-1", 40402},
        {"/schemas/subjects/raw_clicks-value/versions/", 40402},
        {"/schemas/subjects/raw_clicks-value/versions/1/schema", 40402},
        {"/schemas/subjects/raw_clicks-value/v", 40402},
        {"/schemas/subjects/raw_clicks-value/visions!/1", 40402},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cJSON *json = ask_json(rig.port, NULL, rows[i].path, 404);
        if (member(json, "error_code")->valueint != rows[i].code)
            fail_msg("%s: %d", rows[i].path, member(json, "error_code")->valueint);
        assert_true(cJSON_IsString(member(json, "message")));
        text_is(json, "code", "not_found");
        cJSON_Delete(json);
    }
    status_is(NULL, "/schemas", 404);
    status_is(NULL, "/schemas/ids/", 404);
}

static void
metrics_count_the_answers(void **state)
{
    struct client_answer answer = ask_as(rig.port, NULL, "GET", "/metrics");

    (void)state;
    assert_int_equal(answer.status, 200);
    assert_memory_equal(client_header(&answer, "Content-Type"), "text/plain; ver",
                        15);
    for (unsigned i = 0; i < dashboard_routes_n; i++) {
        char line[160];
        (void)snprintf(line, sizeof(line),
                       "clickledger_dashboard_answers_total{route=\"%s\"}",
                       dashboard_routes[i].path);
        if (strstr(answer.body, line) == NULL)
            fail_msg("%s is missing", line);
    }
    client_free(&answer);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_route_answers_without_a_good_key),
        cmocka_unit_test(what_a_key_may_not_see_does_not_exist_for_it),
        cmocka_unit_test(anothers_campaign_and_no_campaign_answer_the_same),
        cmocka_unit_test(head_answers_without_a_body_and_other_methods_are_refused),
        cmocka_unit_test(paths_that_are_none_are_not_found),
        cmocka_unit_test(a_campaigns_name_may_hold_a_slash),
        cmocka_unit_test(the_scheme_is_read_in_any_case),
        cmocka_unit_test(a_click_shows_its_verdicts),
        cmocka_unit_test(a_confluent_client_finds_the_schemas),
        cmocka_unit_test(a_schema_that_is_none_has_the_registrys_error_code),
        cmocka_unit_test(metrics_count_the_answers),
    };

    (void)itest_server("CLICKLEDGER_TEST_PG");
    (void)itest_server("CLICKLEDGER_TEST_REDIS");
    return cmocka_run_group_tests(tests, start, stop);
}

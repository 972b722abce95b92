/* The API's description is JSON and holds what the code has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dashboard/openapi.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

#include "common/file.h"
#include "dashboard/dashboard.h"
#include "schema/click.h"

static struct config config;

static cJSON *
document(void)
{
    struct buf out = BUF_MAX(1 << 20);

    config.ingest_port = 8080;
    openapi_format(&config, &out);
    buf_add(&out, "", 1);
    assert_false(out.failed);
    cJSON *json = cJSON_Parse((const char *)out.p);
    assert_non_null(json);
    buf_free(&out);
    return json;
}

static const cJSON *
at(const cJSON *json, const char *name)
{
    const cJSON *found = cJSON_GetObjectItemCaseSensitive(json, name);

    if (found == NULL)
        fail_msg("%s is missing", name);
    return found;
}

static void
parameter_is_there(const cJSON *operation, const char *name)
{
    const cJSON *one;

    cJSON_ArrayForEach(one, at(operation, "parameters"))
    {
        if (strcmp(at(one, "name")->valuestring, name) == 0) {
            assert_true(cJSON_IsTrue(at(one, "required")));
            return;
        }
    }
    fail_msg("parameter %s is missing", name);
}

static void
every_route_is_in_it_with_its_parameters(void **state)
{
    cJSON *json = document();
    const cJSON *paths = at(json, "paths");

    (void)state;
    for (unsigned i = 0; i < dashboard_routes_n; i++) {
        const struct dashboard_route *route = &dashboard_routes[i];
        const cJSON *get = at(at(paths, route->path), "get");
        const char *open = strchr(route->path, '{');
        assert_string_equal(at(get, "summary")->valuestring, route->summary);
        assert_int_equal(cJSON_GetArraySize(at(get, "security")),
                         route->scope == 0 ? 0 : 1);
        assert_non_null(at(at(get, "responses"), "200"));
        if (open != NULL) {
            char name[32];
            int n = (int)(strchr(open, '}') - open) - 1;
            (void)snprintf(name, sizeof(name), "%.*s", n, open + 1);
            parameter_is_there(get, name);
        }
    }
    assert_int_equal(cJSON_GetArraySize(paths), (int)dashboard_routes_n + 1);
    cJSON_Delete(json);
}

static void
the_click_has_every_field_of_the_table(void **state)
{
    static const struct {
        const char *name;
        bool required;
    } fields[] = {
#define X(name, kind, required, min, max, prose) {#name, required},
        CLICK_FIELDS(X)
#undef X
    };
    cJSON *json = document();
    const cJSON *click = at(at(at(json, "components"), "schemas"), "Click");
    int required = 0;

    (void)state;
    assert_non_null(at(at(at(json, "paths"), "/v1/clicks"), "post"));
    for (int i = 0; i < CLICK_FIELDS_N; i++) {
        assert_non_null(at(at(at(click, "properties"), fields[i].name), "type"));
        required += fields[i].required;
    }
    assert_int_equal(cJSON_GetArraySize(at(click, "properties")), CLICK_FIELDS_N);
    assert_int_equal(cJSON_GetArraySize(at(click, "required")), required);
    cJSON_Delete(json);
}

static void
the_page_for_people_names_every_route(void **state)
{
    struct buf page = BUF_MAX(1 << 20);
    struct why why = {""};

    (void)state;
    if (file_read("docs/api.md", &page, &why) != ERR_OK)
        fail_msg("%s", why.text);
    buf_add(&page, "", 1);
    for (unsigned i = 0; i < dashboard_routes_n; i++) {
        if (strstr((const char *)page.p, dashboard_routes[i].path) == NULL)
            fail_msg("docs/api.md has no %s", dashboard_routes[i].path);
    }
    buf_free(&page);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_route_is_in_it_with_its_parameters),
        cmocka_unit_test(the_click_has_every_field_of_the_table),
        cmocka_unit_test(the_page_for_people_names_every_route),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

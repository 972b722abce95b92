#include "dashboard/openapi.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "dashboard/call.h"
#include "dashboard/stats.h"
#include "schema/click.h"
#include "schema/rediskeys.h"

#define SCHEMA_ID "{\"type\":\"integer\",\"minimum\":1}"
#define SUBJECT   "{\"type\":\"string\"}"
#define REGISTRY  "application/vnd.schemaregistry.v1+json"
#define SCHEMA                                                        \
    "{\"type\":\"object\",\"required\":[\"schema\"],\"properties\":{" \
    "\"schema\":{\"type\":\"string\"}}}"

/* Of which route, in what, and the schema as JSON. */
static const struct {
    const char *path, *name, *in, *schema, *prose;
} parameters[] = {
    {"/v1/campaigns/{id}/stats", "id", "path", "{\"type\":\"string\"}",
     "The campaign."},
    {"/v1/campaigns/{id}/stats", "from", "query",
     "{\"type\":\"string\",\"format\":\"date-time\"}",
     "The first row is the window that holds this time. Default: 24 hours before "
     "to."},
    {"/v1/campaigns/{id}/stats", "to", "query",
     "{\"type\":\"string\",\"format\":\"date-time\"}",
     "Rows begin before this time. Default: now."},
    {"/v1/campaigns/{id}/stats", "granularity", "query",
     "{\"type\":\"string\",\"enum\":[\"5m\",\"1h\",\"1d\"],\"default\":\"1h\"}",
     "The length of a row's window; hours and days are local, in the campaign's "
     "time "
     "zone."},
    {"/v1/campaigns/{id}/stats", "group_by", "query",
     "{\"type\":\"string\",\"enum\":[\"ad_id\",\"ad_group_id\",\"creative_id\","
     "\"variant_id\",\"country\",\"device_type\",\"publisher_id\"]}",
     "Breaks each row down by the values of this field."},
    {"/v1/campaigns/{id}/live", "id", "path", "{\"type\":\"string\"}",
     "The campaign."},
    {"/v1/clicks/{event_id}", "event_id", "path",
     "{\"type\":\"string\",\"format\":\"uuid\"}", "The click's id."},
    {"/schemas/ids/{id}", "id", "path", SCHEMA_ID, "As a message begins with."},
    {"/schemas/schemas/ids/{id}", "id", "path", SCHEMA_ID,
     "As a message begins with."},
    {"/schemas/subjects/{subject}/versions", "subject", "path", SUBJECT,
     "TOPIC-value."},
    {"/schemas/subjects/{subject}/versions/{version}", "subject", "path", SUBJECT,
     "TOPIC-value."},
    {"/schemas/subjects/{subject}/versions/{version}", "version", "path",
     "{\"type\":\"string\",\"pattern\":\"^([0-9]{1,6}|latest)$\"}",
     "A number, or latest."},
};

/* What an answer 200 holds; routes that are not here: any JSON object. */
static const struct {
    const char *path, *type, *schema;
} answers[] = {
    {"/metrics", "text/plain", "{\"type\":\"string\"}"},
    {"/v1/campaigns/{id}/stats", "application/json",
     "{\"$ref\":\"#/components/schemas/Stats\"}"},
    {"/v1/campaigns/{id}/live", "application/json",
     "{\"$ref\":\"#/components/schemas/Live\"}"},
    {"/v1/clicks/{event_id}", "application/json",
     "{\"type\":\"array\",\"items\":{\"$ref\":\"#/components/schemas/Found\"}}"},
    {"/schemas/ids/{id}", REGISTRY, SCHEMA},
    {"/schemas/schemas/ids/{id}", REGISTRY, SCHEMA},
    {"/schemas/subjects", REGISTRY,
     "{\"type\":\"array\",\"items\":{\"type\":\"string\"}}"},
    {"/schemas/subjects/{subject}/versions", REGISTRY,
     "{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}"},
    {"/schemas/subjects/{subject}/versions/{version}", REGISTRY,
     "{\"type\":\"object\",\"required\":[\"subject\",\"version\",\"id\","
     "\"schema\"],\"properties\":{\"subject\":{\"type\":\"string\"},\"version\":{"
     "\"type\":\"integer\"},\"id\":{\"type\":\"integer\"},\"schema\":{\"type\":"
     "\"string\"}}}"},
};

#define COUNT "{\"type\":\"integer\",\"minimum\":0}"
#define TIME  "{\"type\":\"string\",\"format\":\"date-time\"}"
#define MONEY "{\"type\":\"string\",\"pattern\":\"^-?[0-9]+\\\\.[0-9]{6}$\"}"
#define CELL                                                     \
    "\"clicks\":" COUNT ",\"cost\":" MONEY ",\"flagged\":" COUNT \
    ",\"invalid\":" COUNT
#define AWAY "{\"enum\":[\"ok\",\"away\"]}"
#define VERDICT                                                              \
    "{\"type\":[\"object\",\"null\"],\"properties\":{\"verdict\":{\"type\":" \
    "\"string\"},\"reason\":{\"type\":\"string\"},\"score\":{\"type\":"      \
    "\"number\"},\"ruleset\":{\"type\":\"integer\"},\"price\":" MONEY "}}"

/* C99 compilers take 4,095 bytes of a literal: so pieces. */
static const char *const schemas[] = {
    "\"Problem\":{\"type\":\"object\",\"description\":\"RFC 9457\",\"required\":"
    "[\"type\",\"title\",\"status\",\"code\",\"detail\"],\"properties\":{\"type\":{"
    "\"type\":\"string\"},\"title\":{\"type\":\"string\"},\"status\":{\"type\":"
    "\"integer\"},\"code\":{\"type\":\"string\",\"description\":\"A stable word "
    "for "
    "machines.\"},\"detail\":{\"type\":\"string\"},\"field\":{\"type\":\"string\"}}"
    "}",
    ",\"Cell\":{\"type\":\"object\",\"properties\":{\"value\":{\"type\":\"string\"}"
    "," CELL "}}",
    ",\"Row\":{\"type\":\"object\",\"required\":[\"start\",\"end\",\"state\"],"
    "\"properties\":{\"start\":" TIME ",\"end\":" TIME ",\"state\":{\"enum\":["
    "\"unavailable\",\"provisional\",\"final\"]}," CELL ",\"duplicate\":" COUNT
    ",\"quarantined\":" COUNT ",\"over_budget\":" COUNT ",\"unique_users\":" COUNT
    ",\"reasons\":{\"type\":\"object\",\"additionalProperties\":" COUNT
    "},\"groups\":{\"type\":\"array\",\"items\":{\"$ref\":"
    "\"#/components/schemas/Cell\"}}}}",
    ",\"Stats\":{\"type\":\"object\",\"required\":[\"campaign_id\",\"source\","
    "\"as_of\",\"rows\"],\"properties\":{\"campaign_id\":{\"type\":\"string\"},"
    "\"granularity\":{\"type\":\"string\"},\"time_zone\":{\"type\":\"string\"},"
    "\"currency\":{\"type\":\"string\"},\"group_by\":{\"type\":\"string\"},"
    "\"source\":{\"enum\":[\"redis\",\"postgres\",\"redis,postgres\",\"none\"]},"
    "\"as_of\":" TIME ",\"rebuilding\":{\"type\":\"boolean\"},\"redis\":" AWAY
    ",\"postgres\":" AWAY ",\"rows\":{\"type\":\"array\",\"items\":{\"$ref\":"
    "\"#/components/schemas/Row\"}}}}",
    ",\"Live\":{\"type\":\"object\",\"required\":[\"campaign_id\",\"as_of\","
    "\"steps\"],\"properties\":{\"campaign_id\":{\"type\":\"string\"},\"source\":{"
    "\"const\":\"redis\"},\"as_of\":" TIME ",\"rebuilding\":{\"type\":\"boolean\"},"
    "\"step_s\":{\"const\":10},\"steps\":{\"type\":\"array\",\"items\":{\"type\":"
    "\"object\",\"properties\":{\"start\":" TIME ",\"clicks\":" COUNT
    ",\"cost\":" MONEY "}}}}}",
    ",\"Found\":{\"type\":\"object\",\"properties\":{\"click\":{\"type\":"
    "\"object\"},"
    "\"live\":" VERDICT ",\"final\":" VERDICT "}}",
    ",\"Posted\":{\"type\":\"object\",\"required\":[\"accepted\",\"rejected\","
    "\"errors\"],\"properties\":{\"accepted\":" COUNT ",\"rejected\":" COUNT
    ",\"dry_run\":{\"const\":true},\"errors\":{\"type\":\"array\",\"items\":{"
    "\"type\":\"object\",\"properties\":{\"index\":" COUNT
    ",\"event_id\":{\"type\":"
    "\"string\"},\"code\":{\"type\":\"string\"},\"field\":{\"type\":\"string\"},"
    "\"message\":{\"type\":\"string\"}}}}}}",
};

/* --- the click, from CLICK_FIELDS --- */

enum kind {
    KIND_UUID,
    KIND_TIME,
    KIND_TOKEN,
    KIND_TEXT,
    KIND_IP,
    KIND_COUNTRY,
    KIND_DEVICE,
    KIND_MONEY,
    KIND_CURRENCY,
    KIND_INTEGER,
    KIND_BOOL
};

struct field {
    const char *name, *prose;
    enum kind kind;
    bool required;
    int64_t min, max;
};

static void
kind_format(const struct field *field, struct buf *out)
{
    switch (field->kind) {
    case KIND_UUID:
        buf_add_text(out, "\"type\":\"string\",\"format\":\"uuid\"");
        return;
    case KIND_TIME:
        buf_add_text(out, "\"type\":\"string\",\"format\":\"date-time\"");
        return;
    case KIND_COUNTRY:
        buf_add_text(out, "\"type\":\"string\",\"pattern\":\"^[A-Z]{2}$\"");
        return;
    case KIND_CURRENCY:
        buf_add_text(out, "\"type\":\"string\",\"pattern\":\"^[A-Z]{3}$\"");
        return;
    case KIND_DEVICE:
        buf_add_text(out, "\"type\":\"string\",\"enum\":[");
        for (unsigned i = 0; i < CLICK_DEVICES_N; i++)
            buf_printf(out, "%s\"%s\"", i == 0 ? "" : ",", click_device_name(i));
        buf_add_text(out, "]");
        return;
    case KIND_MONEY:
        buf_printf(out,
                   "\"type\":[\"string\",\"number\"],\"minimum\":%" PRId64
                   ",\"maximum\":%" PRId64,
                   field->min / MONEY_MICROS, field->max / MONEY_MICROS);
        return;
    case KIND_INTEGER:
        buf_printf(out,
                   "\"type\":\"integer\",\"minimum\":%" PRId64
                   ",\"maximum\":%" PRId64,
                   field->min, field->max);
        return;
    case KIND_BOOL:
        buf_add_text(out, "\"type\":\"boolean\"");
        return;
    case KIND_TOKEN:
    case KIND_TEXT:
    case KIND_IP:
        break;
    }
    buf_printf(
        out, "\"type\":\"string\",\"minLength\":%" PRId64 ",\"maxLength\":%" PRId64,
        field->min, field->max);
}

static void
click_format(struct buf *out)
{
    static const struct field fields[] = {
#define X(name, kind, required, min, max, prose) \
    {#name, prose, KIND_##kind, required, min, max},
        CLICK_FIELDS(X)
#undef X
    };
    bool first = true;

    buf_add_text(out, ",\"Click\":{\"type\":\"object\",\"required\":[");
    for (int i = 0; i < CLICK_FIELDS_N; i++) {
        if (fields[i].required)
            buf_printf(out, "%s\"%s\"", first ? "" : ",", fields[i].name);
        first = first && !fields[i].required;
    }
    buf_add_text(out, "],\"properties\":{");
    for (int i = 0; i < CLICK_FIELDS_N; i++) {
        buf_printf(out, "%s\"%s\":{\"description\":", i == 0 ? "" : ",",
                   fields[i].name);
        buf_add_json(out, str_of(fields[i].prose));
        buf_add_text(out, ",");
        kind_format(&fields[i], out);
        buf_add_text(out, "}");
    }
    buf_add_text(out, "}}");
}

/* --- paths --- */

/* "/v1/campaigns/{id}/stats" as "get_v1_campaigns_id_stats". */
static void
operation_format(const char *method, const char *path, struct buf *out)
{
    buf_printf(out, "\"operationId\":\"%s",
               strcmp(method, "GET") == 0 ? "get" : "post");
    for (const char *p = path; *p != '\0'; p++) {
        if (*p == '/' || *p == '.')
            buf_add_text(out, "_");
        else if (*p != '{' && *p != '}')
            buf_add(out, p, 1);
    }
    buf_add_text(out, "\"");
}

static void
problem_format(const char *status, const char *prose, struct buf *out)
{
    buf_printf(out,
               ",\"%s\":{\"description\":\"%s\",\"content\":{"
               "\"application/problem+json\":{\"schema\":{\"$ref\":"
               "\"#/components/schemas/Problem\"}}}}",
               status, prose);
}

static void
parameters_format(const char *path, struct buf *out)
{
    bool first = true;

    buf_add_text(out, ",\"parameters\":[");
    for (size_t i = 0; i < sizeof(parameters) / sizeof(parameters[0]); i++) {
        if (strcmp(parameters[i].path, path) != 0)
            continue;
        buf_printf(out,
                   "%s{\"name\":\"%s\",\"in\":\"%s\",\"required\":%s,"
                   "\"schema\":%s,\"description\":",
                   first ? "" : ",", parameters[i].name, parameters[i].in,
                   strcmp(parameters[i].in, "path") == 0 ? "true" : "false",
                   parameters[i].schema);
        buf_add_json(out, str_of(parameters[i].prose));
        buf_add_text(out, "}");
        first = false;
    }
    buf_add_text(out, "]");
}

static void
route_format(const struct dashboard_route *route, struct buf *out)
{
    const char *type = "application/json", *schema = "{\"type\":\"object\"}";

    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        if (strcmp(answers[i].path, route->path) == 0) {
            type = answers[i].type;
            schema = answers[i].schema;
        }
    }
    buf_printf(out, "\"%s\":{\"get\":{", route->path);
    assert(strcmp(route->method, "GET") == 0);
    operation_format(route->method, route->path, out);
    buf_add_text(out, ",\"summary\":");
    buf_add_json(out, str_of(route->summary));
    parameters_format(route->path, out);
    buf_printf(out,
               ",\"security\":[%s],\"responses\":{\"200\":{\"description\":\"As "
               "asked.\",\"content\":{\"%s\":{\"schema\":%s}}}",
               route->scope == 0 ? "" : "{\"key\":[]}", type, schema);
    if (route->scope != 0) {
        problem_format("400", "A parameter is wrong; field names it.", out);
        problem_format("401", "No key, or an unknown or revoked one.", out);
        problem_format("403", "The key has not the scope read.", out);
        problem_format("404", "There is no such thing, for this key.", out);
    } else if (strchr(route->path, '{') != NULL) {
        problem_format("404", "There is no such thing.", out);
    }
    problem_format("503", "Not now: try again after Retry-After seconds.", out);
    buf_add_text(out, "}}}");
}

static void
ingest_format(const struct config *config, struct buf *out)
{
    static const char request[] =
        "{\"content\":{\"application/json\":{\"schema\":{\"oneOf\":[{\"$ref\":"
        "\"#/components/schemas/Click\"},{\"type\":\"array\",\"items\":{\"$ref\":"
        "\"#/components/schemas/Click\"}}]}},\"application/x-ndjson\":{\"schema\":{"
        "\"type\":\"string\",\"description\":\"One click a line.\"}}},\"required\":"
        "true}";
    static const char posted[] =
        "\"content\":{\"application/json\":{\"schema\":{\"$ref\":"
        "\"#/components/schemas/Posted\"}}}";

    buf_add_text(out, "\"/v1/clicks\":{\"servers\":[{\"description\":\"ingest\","
                      "\"url\":\"http://{host}:{port}\",\"variables\":{\"host\":{"
                      "\"default\":\"127.0.0.1\"},\"port\":{\"default\":");
    buf_printf(out, "\"%" PRId64 "\"}}}],\"post\":{", config->ingest_port);
    operation_format("POST", "/v1/clicks", out);
    buf_printf(
        out,
        ",\"summary\":\"Stores clicks: 202 means durable.\",\"security\":[{"
        "\"key\":[]}],\"parameters\":[{\"name\":\"dry_run\",\"in\":\"query\","
        "\"schema\":{\"enum\":[\"0\",\"1\",\"false\",\"true\"]},"
        "\"description\":\"1: "
        "checks, stores nothing.\"},{\"name\":\"Content-Encoding\",\"in\":"
        "\"header\",\"schema\":{\"enum\":[\"gzip\",\"zstd\",\"identity\"]}}],"
        "\"requestBody\":%s,\"responses\":{\"202\":{\"description\":"
        "\"Accepted clicks are on disk.\",%s},\"200\":{\"description\":"
        "\"The answer to a dry run.\",%s}",
        request, posted, posted);
    problem_format("400", "No click is good, or the body is malformed.", out);
    problem_format("401", "No key, or an unknown or revoked one.", out);
    problem_format("403", "The key has not the scope ingest.", out);
    problem_format("413", "The body is over a limit.", out);
    problem_format("415", "Content-Type or Content-Encoding is unknown.", out);
    problem_format("429", "Over the key's rate: wait Retry-After seconds.", out);
    problem_format("503", "Not stored: send the same again later.", out);
    buf_add_text(out, "}}}");
}

void
openapi_format(const struct config *config, struct buf *out)
{
    buf_add_text(out,
                 "{\"openapi\":\"3.1.0\",\"info\":{\"title\":\"clickledger\","
                 "\"version\":\"" CLICKLEDGER_VERSION "\",\"license\":{\"name\":"
                 "\"Apache-2.0\",\"identifier\":\"Apache-2.0\"}},\"servers\":[{"
                 "\"url\":\"/\",\"description\":\"dashboard\"}],\"paths\":{");
    for (unsigned i = 0; i < dashboard_routes_n; i++) {
        route_format(&dashboard_routes[i], out);
        buf_add_text(out, ",\n");
    }
    ingest_format(config, out);
    buf_add_text(out, "},\n\"components\":{\"securitySchemes\":{\"key\":{\"type\":"
                      "\"http\",\"scheme\":\"bearer\",\"description\":\"An API "
                      "key: ck_ and 64 hex digits.\"}},\"schemas\":{");
    for (size_t i = 0; i < sizeof(schemas) / sizeof(schemas[0]); i++)
        buf_add_text(out, schemas[i]);
    click_format(out);
    buf_add_text(out, "}}}\n");
}

enum err
serve_openapi(struct call *call, struct why *why)
{
    (void)why;
    openapi_format(call->config, &call->out);
    return ERR_OK;
}

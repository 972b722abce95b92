/* The record's Avro schemas as text. The source of truth are click.avsc and
 * click_v1.avsc: tests/schema/test_click_codec.c shows that these are the same bytes. */
#include "schema/click.h"

#include <cjson/cJSON.h>
#include <stdlib.h>

enum { CANONICAL_MAX = 65536, DEPTH_MAX = 16 };

/* clang-format off */
static const char schema_1[] =
    "{\"type\": \"record\", \"name\": \"click\", \"fields\": [\n"
    "    {\"name\": \"incarnation\", \"type\": {\"type\": \"fixed\", \"name\": \"incarnation\", \"size\": 8}, \"doc\": \"random, big endian, drawn at each start of ingest\"},\n"
    "    {\"name\": \"partition\", \"type\": \"int\"},\n"
    "    {\"name\": \"seq\", \"type\": \"long\", \"doc\": \"counts from 0 per incarnation and partition\"},\n"
    "    {\"name\": \"received_at\", \"type\": {\"type\": \"long\", \"logicalType\": \"timestamp-micros\"}},\n"
    "    {\"name\": \"account\", \"type\": \"long\"},\n"
    "    {\"name\": \"key\", \"type\": \"long\"},\n"
    "    {\"name\": \"remote\", \"type\": \"bytes\", \"doc\": \"4 or 16 bytes\"},\n"
    "    {\"name\": \"signature\", \"type\": {\"type\": \"enum\", \"name\": \"signature\", \"symbols\": [\"none\", \"good\", \"bad\"]}},\n"
    "    {\"name\": \"event_id\", \"type\": {\"type\": \"fixed\", \"name\": \"uuid\", \"size\": 16}},\n"
    "    {\"name\": \"timestamp\", \"type\": {\"type\": \"long\", \"logicalType\": \"timestamp-millis\"}},\n"
    "    {\"name\": \"campaign_id\", \"type\": \"string\"},\n"
    "    {\"name\": \"ad_id\", \"type\": \"string\"},\n"
    "    {\"name\": \"publisher_id\", \"type\": \"string\"},\n"
    "    {\"name\": \"user_id\", \"type\": \"string\"},\n"
    "    {\"name\": \"ip_address\", \"type\": \"bytes\", \"doc\": \"4 or 16 bytes\"},\n"
    "    {\"name\": \"user_agent\", \"type\": \"string\"},\n"
    "    {\"name\": \"referer\", \"type\": \"string\"},\n"
    "    {\"name\": \"device_type\", \"type\": {\"type\": \"enum\", \"name\": \"device_type\", \"symbols\": [\"desktop\", \"mobile\", \"tablet\", \"tv\", \"other\"]}},\n"
    "    {\"name\": \"os\", \"type\": \"string\"},\n"
    "    {\"name\": \"country\", \"type\": \"string\"},\n"
    "    {\"name\": \"city\", \"type\": \"string\"},\n"
    "    {\"name\": \"cost_per_click\", \"type\": \"long\", \"doc\": \"millionths of the currency unit\"},\n"
    "    {\"name\": \"ad_group_id\", \"type\": [\"null\", \"string\"], \"default\": null},\n"
    "    {\"name\": \"creative_id\", \"type\": [\"null\", \"string\"], \"default\": null},\n"
    "    {\"name\": \"variant_id\", \"type\": [\"null\", \"string\"], \"default\": null},\n"
    "    {\"name\": \"click_x\", \"type\": [\"null\", \"int\"], \"default\": null},\n"
    "    {\"name\": \"click_y\", \"type\": [\"null\", \"int\"], \"default\": null},\n"
    "    {\"name\": \"impression_id\", \"type\": [\"null\", \"string\"], \"default\": null},\n"
    "    {\"name\": \"impression_ts\", \"type\": [\"null\", {\"type\": \"long\", \"logicalType\": \"timestamp-millis\"}], \"default\": null},\n"
    "    {\"name\": \"currency\", \"type\": [\"null\", \"string\"], \"default\": null},\n"
    "    {\"name\": \"test\", \"type\": \"boolean\", \"default\": false},\n"
    "    {\"name\": \"tcf\", \"type\": [\"null\", \"string\"], \"default\": null},\n"
    "    {\"name\": \"gpp\", \"type\": [\"null\", \"string\"], \"default\": null}\n"
    "]}\n";

static const char schema_2[] =
    "{\"type\": \"record\", \"name\": \"click\", \"fields\": [\n"
    "    {\"name\": \"incarnation\", \"type\": {\"type\": \"fixed\", \"name\": \"incarnation\", \"size\": 8}, \"doc\": \"random, big endian, drawn at each start of ingest\"},\n"
    "    {\"name\": \"partition\", \"type\": \"int\"},\n"
    "    {\"name\": \"seq\", \"type\": \"long\", \"doc\": \"counts from 0 per incarnation and partition\"},\n"
    "    {\"name\": \"received_at\", \"type\": {\"type\": \"long\", \"logicalType\": \"timestamp-micros\"}},\n"
    "    {\"name\": \"account\", \"type\": \"long\"},\n"
    "    {\"name\": \"key\", \"type\": \"long\"},\n"
    "    {\"name\": \"remote\", \"type\": \"bytes\", \"doc\": \"4 or 16 bytes\"},\n"
    "    {\"name\": \"signature\", \"type\": {\"type\": \"enum\", \"name\": \"signature\", \"symbols\": [\"none\", \"good\", \"bad\"]}},\n"
    "    {\"name\": \"event_id\", \"type\": {\"type\": \"fixed\", \"name\": \"uuid\", \"size\": 16}},\n"
    "    {\"name\": \"timestamp\", \"type\": {\"type\": \"long\", \"logicalType\": \"timestamp-millis\"}},\n"
    "    {\"name\": \"campaign_id\", \"type\": \"string\"},\n"
    "    {\"name\": \"ad_id\", \"type\": \"string\"},\n"
    "    {\"name\": \"publisher_id\", \"type\": \"string\"},\n"
    "    {\"name\": \"user_id\", \"type\": \"string\"},\n"
    "    {\"name\": \"ip_address\", \"type\": \"bytes\", \"doc\": \"4 or 16 bytes\"},\n"
    "    {\"name\": \"user_agent\", \"type\": \"string\"},\n"
    "    {\"name\": \"referer\", \"type\": \"string\"},\n"
    "    {\"name\": \"device_type\", \"type\": {\"type\": \"enum\", \"name\": \"device_type\", \"symbols\": [\"desktop\", \"mobile\", \"tablet\", \"tv\", \"other\"]}},\n"
    "    {\"name\": \"os\", \"type\": \"string\"},\n"
    "    {\"name\": \"country\", \"type\": \"string\"},\n"
    "    {\"name\": \"city\", \"type\": \"string\"},\n"
    "    {\"name\": \"cost_per_click\", \"type\": \"long\", \"doc\": \"millionths of the currency unit\"},\n"
    "    {\"name\": \"ad_group_id\", \"type\": [\"null\", \"string\"], \"default\": null},\n"
    "    {\"name\": \"creative_id\", \"type\": [\"null\", \"string\"], \"default\": null},\n"
    "    {\"name\": \"variant_id\", \"type\": [\"null\", \"string\"], \"default\": null},\n"
    "    {\"name\": \"click_x\", \"type\": [\"null\", \"int\"], \"default\": null},\n"
    "    {\"name\": \"click_y\", \"type\": [\"null\", \"int\"], \"default\": null},\n"
    "    {\"name\": \"impression_id\", \"type\": [\"null\", \"string\"], \"default\": null},\n"
    "    {\"name\": \"impression_ts\", \"type\": [\"null\", {\"type\": \"long\", \"logicalType\": \"timestamp-millis\"}], \"default\": null},\n"
    "    {\"name\": \"currency\", \"type\": [\"null\", \"string\"], \"default\": null},\n"
    "    {\"name\": \"test\", \"type\": \"boolean\", \"default\": false},\n"
    "    {\"name\": \"tcf\", \"type\": [\"null\", \"string\"], \"default\": null},\n"
    "    {\"name\": \"gpp\", \"type\": [\"null\", \"string\"], \"default\": null},\n"
    "    {\"name\": \"purpose\", \"type\": [\"null\", \"string\"], \"default\": null}\n"
    "]}\n";
/* clang-format on */

const char *
click_schema(unsigned version)
{
    switch (version) {
    case 1:
        return schema_1;
    case 2:
        return schema_2;
    default:
        return NULL;
    }
}

static void canonical_add(struct buf *out, const cJSON *schema, int depth);

static void
canonical_list(struct buf *out, const cJSON *list, int depth)
{
    const cJSON *item;

    buf_add_text(out, "[");
    cJSON_ArrayForEach(item, list)
    {
        if (item != list->child)
            buf_add_text(out, ",");
        canonical_add(out, item, depth);
    }
    buf_add_text(out, "]");
}

/* Names, types, fields, symbols, sizes, in this order; docs, defaults, logical types
 * and layout are not part of what the bytes mean. */
static void
canonical_object(struct buf *out, const cJSON *schema, int depth)
{
    static const char *const keys[] = {"name",    "type",  "fields",
                                       "symbols", "items", "values"};
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(schema, "type");
    const cJSON *size = cJSON_GetObjectItemCaseSensitive(schema, "size");

    if (cJSON_IsString(type) && cJSON_GetArraySize(schema) <= 2 &&
        cJSON_GetObjectItemCaseSensitive(schema, "name") == NULL) {
        canonical_add(out, type, depth); /* {"type": "long"} is "long" */
        return;
    }
    buf_add_text(out, "{");
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(schema, keys[i]);

        if (item == NULL)
            continue;
        buf_printf(out, "\"%s\":", keys[i]);
        canonical_add(out, item, depth);
        buf_add_text(out, ",");
    }
    if (cJSON_IsNumber(size))
        buf_printf(out, "\"size\":%d", size->valueint);
    buf_add_text(out, "}");
}

static void
canonical_add(struct buf *out, const cJSON *schema, int depth)
{
    if (depth == DEPTH_MAX)
        return;
    if (cJSON_IsString(schema))
        buf_add_json(out, str_of(schema->valuestring));
    else if (cJSON_IsArray(schema))
        canonical_list(out, schema, depth + 1);
    else if (cJSON_IsObject(schema))
        canonical_object(out, schema, depth + 1);
}

static struct buf
canonical(struct str json)
{
    struct buf out = BUF_MAX(CANONICAL_MAX);
    cJSON *schema = cJSON_ParseWithLength(json.p, json.n);

    canonical_add(&out, schema, 0);
    cJSON_Delete(schema);
    return out;
}

unsigned
click_schema_version(struct str schema_json)
{
    struct buf wanted = canonical(schema_json);
    unsigned found = 0;

    for (unsigned v = CLICK_VERSION; v >= CLICK_VERSION_FIRST && found == 0; v--) {
        struct buf known = canonical(str_of(click_schema(v)));

        if (wanted.n > 0 && !wanted.failed && known.n == wanted.n &&
            memcmp(known.p, wanted.p, known.n) == 0)
            found = v;
        buf_free(&known);
    }
    buf_free(&wanted);
    return found;
}

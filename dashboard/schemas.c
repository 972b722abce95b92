/* The record's schemas for Confluent clients, which read as much of a registry as this:
 * GET /schemas/ids/{id}, /subjects, /subjects/{subject}/versions[/{version}], below the URL
 * that they are given, http://DASHBOARD/schemas. Ids are versions of schema/click.h, as in
 * messages that no registry gave an id.
 *
 * Source  Confluent Schema Registry API, schemas and subjects; errors are problem+json with
 *         its error_code and message beside. */
#include "dashboard/call.h"

#include <stdio.h>

#include "common/kafka.h"
#include "schema/click.h"

enum { DIGITS_MAX = 6, SUBJECT_MAX = KAFKA_NAME_MAX + 8 };

#define MEDIA            "application/vnd.schemaregistry.v1+json"
#define NO_SUBJECT       "\"error_code\":40401,\"message\":\"Subject not found\""
#define NO_VERSION       "\"error_code\":40402,\"message\":\"Version not found\""
#define NO_SCHEMA        "\"error_code\":40403,\"message\":\"Schema not found\""
#define VERSIONS_BETWEEN "/versions/"

/* The number that text is; 0 if it is none, or too long. */
static unsigned
number_of(struct str text)
{
    unsigned number = 0;

    if (text.n > DIGITS_MAX)
        return 0;
    for (uint32_t i = 0; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9')
            return 0;
        number = number * 10 + (unsigned)(text.p[i] - '0');
    }
    return number;
}

static void
subject_of(const struct call *call, char out[SUBJECT_MAX])
{
    char topic[KAFKA_NAME_MAX + 1];

    kafka_topic_name(call->config, "raw_clicks", topic);
    (void)snprintf(out, SUBJECT_MAX, "%s-value", topic);
}

static enum err
unknown(struct call *call, const char *extra, const char *what, struct why *why)
{
    call->extra = extra;
    return err_set(why, ERR_NOTFOUND, "no such %s; GET /schemas/subjects names all",
                   what);
}

static enum err
subject_check(struct call *call, struct str subject, struct why *why)
{
    char ours[SUBJECT_MAX];

    subject_of(call, ours);
    call->content_type = MEDIA;
    return str_equal(subject, str_of(ours))
               ? ERR_OK
               : unknown(call, NO_SUBJECT, "subject", why);
}

enum err
serve_schema(struct call *call, struct why *why)
{
    const char *schema = click_schema(number_of(call->id));

    if (schema == NULL)
        return unknown(call, NO_SCHEMA, "schema", why);
    call->content_type = MEDIA;
    buf_add_text(&call->out, "{\"schema\":");
    buf_add_json(&call->out, str_of(schema));
    buf_add_text(&call->out, "}\n");
    return ERR_OK;
}

enum err
serve_subjects(struct call *call, struct why *why)
{
    char subject[SUBJECT_MAX];

    (void)why;
    subject_of(call, subject);
    call->content_type = MEDIA;
    buf_add_text(&call->out, "[");
    buf_add_json(&call->out, str_of(subject));
    buf_add_text(&call->out, "]\n");
    return ERR_OK;
}

enum err
serve_versions(struct call *call, struct why *why)
{
    enum err err = subject_check(call, call->id, why);

    if (err != ERR_OK)
        return err;
    for (unsigned v = CLICK_VERSION_FIRST; v <= CLICK_VERSION; v++)
        buf_printf(&call->out, "%s%u", v == CLICK_VERSION_FIRST ? "[" : ",", v);
    buf_add_text(&call->out, "]\n");
    return ERR_OK;
}

/* The id is "SUBJECT/versions/VERSION"; a topic's name has no slash. */
enum err
serve_version(struct call *call, struct why *why)
{
    const struct str between = STR(VERSIONS_BETWEEN);
    const char *slash = memchr(call->id.p, '/', call->id.n);
    struct str subject = {
        call->id.p, slash == NULL ? call->id.n : (uint32_t)(slash - call->id.p)};
    struct str rest = {subject.p + subject.n, call->id.n - subject.n};

    enum err err = subject_check(call, subject, why);
    if (err != ERR_OK)
        return err;
    struct str word = {rest.p + between.n,
                       rest.n > between.n ? rest.n - between.n : 0};
    unsigned version =
        str_equal(word, STR("latest")) ? CLICK_VERSION : number_of(word);
    const char *schema = click_schema(version);
    if (word.n == 0 || memcmp(rest.p, between.p, between.n) != 0 || schema == NULL)
        return unknown(call, NO_VERSION, "version", why);
    buf_add_text(&call->out, "{\"subject\":");
    buf_add_json(&call->out, subject);
    buf_printf(&call->out, ",\"version\":%u,\"id\":%u,\"schema\":", version,
               version);
    buf_add_json(&call->out, str_of(schema));
    buf_add_text(&call->out, "}\n");
    return ERR_OK;
}

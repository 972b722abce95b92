#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/kafka.h"
#include "common/kafka_impl.h"

enum { APPEAR_EVERY_US = 50000, NUMBER_SIZE = 24, TEXT_SIZE = 200 };

/* --- what is there --- */

static enum err
metadata_take(const rd_kafka_metadata_t *metadata, struct kafka_topic *topic,
              struct why *why)
{
    const rd_kafka_metadata_topic_t *t = metadata->topics;

    if (metadata->topic_cnt != 1)
        return err_set(why, ERR_NOTFOUND, "kafka: %s: no such topic", topic->name);
    if (t->err != RD_KAFKA_RESP_ERR_NO_ERROR)
        return kafka_error(t->err, topic->name, "cannot be described", why);
    topic->partitions = t->partition_cnt;
    topic->replication = INT32_MAX;
    for (int i = 0; i < t->partition_cnt; i++) {
        if (t->partitions[i].leader < 0)
            return err_set(why, ERR_AGAIN, "kafka: %s: partition %d has no leader",
                           topic->name, t->partitions[i].id);
        if (t->partitions[i].replica_cnt < topic->replication)
            topic->replication = t->partitions[i].replica_cnt;
    }
    return ERR_OK;
}

/* Partitions and copies. */
static enum err
metadata_ask(rd_kafka_t *rk, struct kafka_topic *topic, struct why *why)
{
    rd_kafka_topic_t *rkt = rd_kafka_topic_new(rk, topic->name, NULL);
    const rd_kafka_metadata_t *metadata = NULL;
    rd_kafka_resp_err_t code;
    enum err err;

    if (rkt == NULL)
        return kafka_error(rd_kafka_last_error(), topic->name, "bad name", why);
    code = rd_kafka_metadata(rk, 0, rkt, &metadata, KAFKA_ASK_MS);
    err = code != RD_KAFKA_RESP_ERR_NO_ERROR
              ? kafka_watch_error(code, rd_kafka_opaque(rk), topic->name,
                                  "no broker answers", why)
              : metadata_take(metadata, topic, why);
    if (metadata != NULL)
        rd_kafka_metadata_destroy(metadata);
    rd_kafka_topic_destroy(rkt);
    return err;
}

static bool
number_take(const char *text, int64_t *out)
{
    char *end;
    long long number;

    errno = 0;
    number = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0)
        return false;
    *out = number;
    return true;
}

static enum err
entry_take(const char *name, const char *value, struct kafka_topic *topic,
           struct why *why)
{
    const struct {
        const char *name;
        int64_t *number;
        char *text;
        size_t size;
    } known[] = {
        {"retention.ms", &topic->retention_ms, NULL, 0},
        {"retention.bytes", &topic->retention_bytes, NULL, 0},
        {"min.insync.replicas", &topic->min_insync, NULL, 0},
        {"max.message.bytes", &topic->max_message_bytes, NULL, 0},
        {"cleanup.policy", NULL, topic->cleanup_policy,
         sizeof(topic->cleanup_policy)},
        {"compression.type", NULL, topic->compression, sizeof(topic->compression)},
        {"message.timestamp.type", NULL, topic->timestamp_type,
         sizeof(topic->timestamp_type)},
    };

    if (name == NULL || value == NULL)
        return ERR_OK;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(known[i].name, name) != 0)
            continue;
        if (known[i].number == NULL)
            (void)snprintf(known[i].text, known[i].size, "%s", value);
        else if (!number_take(value, known[i].number))
            return err_set(why, ERR_FATAL, "kafka: %s: %s is not a number",
                           topic->name, name);
    }
    return ERR_OK;
}

static enum err
entries_take(const rd_kafka_ConfigResource_t *resource, struct kafka_topic *topic,
             struct why *why)
{
    rd_kafka_resp_err_t code = rd_kafka_ConfigResource_error(resource);
    const rd_kafka_ConfigEntry_t **entries;
    enum err err =
        kafka_error(code, topic->name, "its settings cannot be read", why);
    size_t n = 0;

    entries = rd_kafka_ConfigResource_configs(resource, &n);
    for (size_t i = 0; i < n && err == ERR_OK; i++)
        err = entry_take(rd_kafka_ConfigEntry_name(entries[i]),
                         rd_kafka_ConfigEntry_value(entries[i]), topic, why);
    return err;
}

/* The result of one question of the Admin API. */
static enum err
admin_wait(rd_kafka_queue_t *queue, const char *name, const char *doing,
           rd_kafka_event_t **out, struct why *why)
{
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, KAFKA_ASK_MS + 1000);
    enum err err;

    *out = NULL;
    if (event == NULL)
        return err_set(why, ERR_AGAIN, "kafka: %s: %s: no broker answers", name,
                       doing);
    err = kafka_error(rd_kafka_event_error(event), name, doing, why);
    if (err != ERR_OK)
        rd_kafka_event_destroy(event);
    else
        *out = event;
    return err;
}

static rd_kafka_AdminOptions_t *
admin_options(rd_kafka_t *rk, rd_kafka_admin_op_t op)
{
    rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(rk, op);
    char text[TEXT_SIZE];

    (void)rd_kafka_AdminOptions_set_request_timeout(options, KAFKA_ASK_MS, text,
                                                    sizeof(text));
    return options;
}

static enum err
settings_ask(rd_kafka_t *rk, struct kafka_topic *topic, struct why *why)
{
    rd_kafka_ConfigResource_t *resource =
        rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic->name);
    rd_kafka_AdminOptions_t *options =
        admin_options(rk, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    const rd_kafka_ConfigResource_t **found;
    rd_kafka_event_t *event;
    enum err err;
    size_t n = 0;

    rd_kafka_DescribeConfigs(rk, &resource, 1, options, queue);
    err =
        admin_wait(queue, topic->name, "its settings cannot be read", &event, why);
    if (err == ERR_OK) {
        found = rd_kafka_DescribeConfigs_result_resources(
            rd_kafka_event_DescribeConfigs_result(event), &n);
        for (size_t i = 0; i < n && err == ERR_OK; i++)
            err = entries_take(found[i], topic, why);
        rd_kafka_event_destroy(event);
    }
    rd_kafka_queue_destroy(queue);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_ConfigResource_destroy(resource);
    return err;
}

enum err
kafka_topic_read(const struct config *config, const char *name,
                 struct kafka_topic *out, struct why *why)
{
    struct kafka_watch watch;
    rd_kafka_t *rk;
    enum err err = kafka_asker(&rk, config, &watch, why);

    *out = (struct kafka_topic){0};
    if (err != ERR_OK)
        return err;
    if (snprintf(out->name, sizeof(out->name), "%s", name) > KAFKA_NAME_MAX)
        err = err_set(why, ERR_INVALID, "kafka: a topic's name of more than %d",
                      KAFKA_NAME_MAX);
    if (err == ERR_OK)
        err = metadata_ask(rk, out, why);
    if (err == ERR_OK)
        err = settings_ask(rk, out, why);
    rd_kafka_destroy(rk);
    return err;
}

/* --- a new one --- */

/* A number where the topic says one: 0 (but for retention: -1 is a value) and "" leave
 * the broker's default. */
static enum err
settings_put(rd_kafka_NewTopic_t *fresh, const struct kafka_topic *topic,
             struct why *why)
{
    const struct {
        const char *name;
        int64_t number;
        const char *text;
    } settings[] = {
        {"retention.ms", topic->retention_ms, NULL},
        {"retention.bytes", topic->retention_bytes, NULL},
        {"min.insync.replicas", topic->min_insync, NULL},
        {"max.message.bytes", topic->max_message_bytes, NULL},
        {"cleanup.policy", 0, topic->cleanup_policy},
        {"compression.type", 0, topic->compression},
        {"message.timestamp.type", 0, topic->timestamp_type},
    };

    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        char number[NUMBER_SIZE];
        const char *value = settings[i].text;

        if (value == NULL) {
            (void)snprintf(number, sizeof(number), "%" PRId64, settings[i].number);
            value = settings[i].number == 0 ? "" : number;
        }
        if (*value != '\0' &&
            rd_kafka_NewTopic_set_config(fresh, settings[i].name, value) !=
                RD_KAFKA_RESP_ERR_NO_ERROR)
            return err_set(why, ERR_INVALID, "kafka: %s: %s=%s", topic->name,
                           settings[i].name, value);
    }
    return ERR_OK;
}

static enum err
created_take(rd_kafka_event_t *event, const char *name, struct why *why)
{
    const rd_kafka_CreateTopics_result_t *result =
        rd_kafka_event_CreateTopics_result(event);
    size_t n = 0;
    const rd_kafka_topic_result_t **topics =
        rd_kafka_CreateTopics_result_topics(result, &n);
    rd_kafka_resp_err_t code;
    const char *text;

    if (n != 1)
        return err_set(why, ERR_FATAL, "kafka: %s: no result", name);
    code = rd_kafka_topic_result_error(topics[0]);
    text = rd_kafka_topic_result_error_string(topics[0]);
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
        return ERR_OK;
    return err_set(why, kafka_code(code), "kafka: %s: cannot be made: %s", name,
                   text == NULL ? rd_kafka_err2str(code) : text);
}

static enum err
create_ask(rd_kafka_t *rk, rd_kafka_NewTopic_t *fresh, const char *name,
           struct why *why)
{
    rd_kafka_AdminOptions_t *options =
        admin_options(rk, RD_KAFKA_ADMIN_OP_CREATETOPICS);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    rd_kafka_event_t *event;
    enum err err;

    rd_kafka_CreateTopics(rk, &fresh, 1, options, queue);
    err = admin_wait(queue, name, "cannot be made", &event, why);
    if (err == ERR_OK) {
        err = created_take(event, name, why);
        rd_kafka_event_destroy(event);
    }
    rd_kafka_queue_destroy(queue);
    rd_kafka_AdminOptions_destroy(options);
    return err;
}

/* The brokers hear of a new topic one after another. */
static enum err
appear_wait(rd_kafka_t *rk, const struct kafka_topic *topic, struct why *why)
{
    int64_t until = clock_mono_us() + KAFKA_ASK_MS * INT64_C(1000);
    struct kafka_topic seen = {0};
    enum err err;

    memcpy(seen.name, topic->name, sizeof(seen.name));
    for (;;) {
        err = metadata_ask(rk, &seen, why);
        if ((err != ERR_NOTFOUND && err != ERR_AGAIN) || clock_mono_us() > until)
            return err;
        clock_sleep_us(APPEAR_EVERY_US);
    }
}

enum err
kafka_topic_create(const struct config *config, const struct kafka_topic *topic,
                   struct why *why)
{
    struct kafka_watch watch;
    rd_kafka_t *rk;
    rd_kafka_NewTopic_t *fresh;
    char text[TEXT_SIZE];
    enum err err = kafka_asker(&rk, config, &watch, why);

    if (err != ERR_OK)
        return err;
    fresh = rd_kafka_NewTopic_new(topic->name, topic->partitions,
                                  topic->replication, text, sizeof(text));
    if (fresh == NULL) {
        rd_kafka_destroy(rk);
        return err_set(why, ERR_INVALID, "kafka: %s: %s", topic->name, text);
    }
    err = settings_put(fresh, topic, why);
    if (err == ERR_OK)
        err = create_ask(rk, fresh, topic->name, why);
    if (err == ERR_OK)
        err = appear_wait(rk, topic, why);
    rd_kafka_NewTopic_destroy(fresh);
    rd_kafka_destroy(rk);
    return err;
}

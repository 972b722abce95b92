#include "schema/topics.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/kafka.h"

enum {
    /* A batch of one message of KAFKA_MESSAGE_MAX has a head; the broker's default too
     * leaves this room. */
    BATCH_ROOM = 48588,
    BATCH_HEAD = 512,
    FIX_MAX = 640,
    FAULT_MAX = 400,
};

#define HOUR_MS INT64_C(3600000)

static const struct plan {
    const char *name;
    int partitions; /* 0: clicklog.partitions */
    const char *cleanup;
    int hours; /* 0: kafka.retention_h */
} plans[] = {
#define X(name, partitions, cleanup, hours, text) \
    {#name, partitions, cleanup, hours},
    TOPIC_MAP(X)
#undef X
};

static int64_t
batch_bytes_max(const struct config *config)
{
    return config->kafka_batch_bytes > KAFKA_MESSAGE_MAX ? config->kafka_batch_bytes
                                                         : KAFKA_MESSAGE_MAX;
}

/* A topic as we make it. A compacted one keeps the last record of each key for ever. */
static struct kafka_topic
planned(const struct config *config, enum topic which)
{
    const struct plan *plan = &plans[which];
    bool compacted = strcmp(plan->cleanup, "compact") == 0;
    struct kafka_topic topic = {
        .partitions = plan->partitions > 0 ? plan->partitions
                                           : (int32_t)config->clicklog_partitions,
        .replication = (int32_t)config->kafka_replication,
        .retention_ms =
            (plan->hours > 0 ? plan->hours : config->kafka_retention_h) * HOUR_MS,
        .retention_bytes = -1,
        .min_insync = config->kafka_min_insync,
        .max_message_bytes = batch_bytes_max(config) + BATCH_ROOM,
    };

    if (compacted)
        topic.retention_ms = -1;
    kafka_topic_name(config, plan->name, topic.name);
    (void)snprintf(topic.cleanup_policy, sizeof(topic.cleanup_policy), "%s",
                   plan->cleanup);
    /* As the relay's producer: the broker stores its batches as they are. */
    (void)snprintf(topic.compression, sizeof(topic.compression), "%s",
                   which == TOPIC_raw_clicks ? "lz4" : "producer");
    (void)snprintf(topic.timestamp_type, sizeof(topic.timestamp_type),
                   "CreateTime");
    return topic;
}

static enum err
config_check(const struct config *config, struct why *why)
{
    if (!kafka_wanted(config))
        return err_set(why, ERR_INVALID,
                       "kafka.brokers is empty: there are no topics without Kafka");
    if (config->kafka_min_insync > config->kafka_replication)
        return err_set(
            why, ERR_INVALID,
            "kafka.min_insync is %" PRId64 ", over kafka.replication, %" PRId64
            ": no click could ever be acknowledged; lower it, or raise replication",
            config->kafka_min_insync, config->kafka_replication);
    return ERR_OK;
}

/* --- create --- */

static enum err
topic_make(const struct config *config, enum topic which, struct buf *report,
           struct why *why)
{
    struct kafka_topic topic = planned(config, which), there;

    /* Asked first: a cluster may allow describing but not creating. */
    enum err err = kafka_topic_read(config, topic.name, &there, why);
    if (err == ERR_NOTFOUND)
        err = kafka_topic_create(config, &topic, why);
    else if (err == ERR_OK)
        err = ERR_CONFLICT;
    if (err == ERR_CONFLICT) { /* another process may have been quicker */
        buf_printf(report, "%s: is there already, left as it is\n", topic.name);
        return ERR_OK;
    }
    if (err != ERR_OK)
        return err;
    buf_printf(report,
               "%s: made, %" PRId32 " partition%s, replication %" PRId32
               ", min.insync.replicas %" PRId64 ", cleanup.policy %s",
               topic.name, topic.partitions, topic.partitions == 1 ? "" : "s",
               topic.replication, topic.min_insync, topic.cleanup_policy);
    if (topic.retention_ms > 0)
        buf_printf(report, ", %" PRId64 " hours", topic.retention_ms / HOUR_MS);
    buf_add_text(report, "\n");
    return ERR_OK;
}

enum err
topics_create(const struct config *config, struct buf *report, struct why *why)
{
    enum err err = config_check(config, why);

    for (unsigned i = 0; err == ERR_OK && i < TOPICS_N; i++)
        err = topic_make(config, (enum topic)i, report, why);
    return err;
}

/* --- check --- */

struct check {
    const struct config *config;
    const struct kafka_topic *want, *have;
    struct buf *report;
    bool json;
    unsigned faults;
    struct why first;
};

__attribute__((format(printf, 3, 4))) static void
fault(struct check *check, const char *fix, const char *format, ...)
{
    char text[FAULT_MAX];
    va_list list;

    va_start(list, format);
    (void)vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    if (check->faults++ == 0)
        (void)err_set(&check->first, ERR_INVALID, "%s: %s", check->want->name,
                      text);
    if (!check->json) {
        buf_printf(check->report, "%s: %s; fix: %s\n", check->want->name, text,
                   fix);
        return;
    }
    buf_add_text(check->report,
                 check->faults == 1 ? "{\"topic\":" : ",{\"topic\":");
    buf_add_json(check->report, str_of(check->want->name));
    buf_add_text(check->report, ",\"fault\":");
    buf_add_json(check->report, str_of(text));
    buf_add_text(check->report, ",\"fix\":");
    buf_add_json(check->report, str_of(fix));
    buf_add_text(check->report, "}");
}

/* The command that sets one setting as it should be. */
static const char *
alter(const struct check *check, const char *key, const char *value,
      char out[FIX_MAX])
{
    (void)snprintf(out, FIX_MAX,
                   "kafka-configs.sh --bootstrap-server %s --alter --entity-type "
                   "topics --entity-name %s --add-config %s=%s",
                   check->config->kafka_brokers, check->want->name, key, value);
    return out;
}

static const char *
alter_number(const struct check *check, const char *key, int64_t value,
             char out[FIX_MAX])
{
    char text[24];

    (void)snprintf(text, sizeof(text), "%" PRId64, value);
    return alter(check, key, text, out);
}

static void
partitions_check(struct check *check)
{
    const struct kafka_topic *want = check->want, *have = check->have;
    char fix[FIX_MAX];

    if (have->partitions == want->partitions)
        return;
    if (have->partitions < want->partitions)
        (void)snprintf(fix, sizeof(fix),
                       "kafka-topics.sh --bootstrap-server %s --alter --topic %s "
                       "--partitions %" PRId32,
                       check->config->kafka_brokers, want->name, want->partitions);
    else
        (void)snprintf(fix, sizeof(fix),
                       "partitions cannot be taken away: set kafka.topic_prefix to "
                       "a new name and run clickledger topics create");
    fault(
        check, fix,
        "has %" PRId32 " partition%s, and %" PRId32
        " are needed%s: the owner of a partition must have it in every topic, and "
        "a click's partition is part of its identity",
        have->partitions, have->partitions == 1 ? "" : "s", want->partitions,
        want->partitions == 1 ? "" : " (clicklog.partitions)");
}

static void
copies_check(struct check *check)
{
    const struct kafka_topic *want = check->want, *have = check->have;
    char fix[FIX_MAX];

    if (have->replication < want->replication) {
        (void)snprintf(
            fix, sizeof(fix),
            "kafka-reassign-partitions.sh --bootstrap-server %s "
            "--reassignment-json-file FILE --execute, FILE naming %" PRId32
            " replicas of each partition; or lower kafka.replication",
            check->config->kafka_brokers, want->replication);
        fault(check, fix,
              "has %" PRId32 " replica%s, kafka.replication is %" PRId32
              ": the loss of a machine may lose what was acknowledged",
              have->replication, have->replication == 1 ? "" : "s",
              want->replication);
    }
    if (have->min_insync < want->min_insync)
        fault(check,
              alter_number(check, "min.insync.replicas", want->min_insync, fix),
              "min.insync.replicas is %" PRId64 ", kafka.min_insync is %" PRId64
              ": an acknowledged click might have fewer copies than were promised",
              have->min_insync, want->min_insync);
    if (have->min_insync > have->replication)
        fault(check,
              alter_number(check, "min.insync.replicas", want->min_insync, fix),
              "min.insync.replicas is %" PRId64 ", with replication %" PRId32
              ": nothing can ever be acknowledged",
              have->min_insync, have->replication);
}

static void
retention_check(struct check *check)
{
    const struct kafka_topic *want = check->want, *have = check->have;
    char fix[FIX_MAX];

    if (strcmp(have->cleanup_policy, want->cleanup_policy) != 0)
        fault(check, alter(check, "cleanup.policy", want->cleanup_policy, fix),
              "cleanup.policy is %s, not %s: %s", have->cleanup_policy,
              want->cleanup_policy,
              strcmp(want->cleanup_policy, "delete") == 0
                  ? "of all clicks of a campaign only the last would stay"
                  : "the last mark of each key would be forgotten");
    if (want->retention_ms < 0) /* compacted: no retention applies */
        return;
    if (have->retention_ms >= 0 && have->retention_ms < want->retention_ms)
        fault(check, alter_number(check, "retention.ms", want->retention_ms, fix),
              "retention.ms is %" PRId64 " (%" PRId64 " hours), and %" PRId64
              " hours are needed: records would be gone before a reader that lags "
              "has them",
              have->retention_ms, have->retention_ms / HOUR_MS,
              want->retention_ms / HOUR_MS);
    if (have->retention_bytes >= 0)
        fault(check, alter_number(check, "retention.bytes", -1, fix),
              "retention.bytes is %" PRId64
              ", not -1: busy hours would delete records before their time",
              have->retention_bytes);
}

static void
message_check(struct check *check)
{
    const struct kafka_topic *want = check->want, *have = check->have;
    int64_t needed = batch_bytes_max(check->config) + BATCH_HEAD;
    char fix[FIX_MAX];

    if (strcmp(have->timestamp_type, want->timestamp_type) != 0)
        fault(check,
              alter(check, "message.timestamp.type", want->timestamp_type, fix),
              "message.timestamp.type is %s, not %s: offsets are found by the "
              "click's time of receipt",
              have->timestamp_type, want->timestamp_type);
    if (have->max_message_bytes >= needed)
        return;
    (void)alter_number(check, "max.message.bytes", want->max_message_bytes, fix);
    if (check->config->kafka_batch_bytes > KAFKA_MESSAGE_MAX) {
        size_t n = strlen(fix);

        (void)snprintf(fix + n, sizeof(fix) - n, "; or set kafka.batch_bytes to %d",
                       KAFKA_MESSAGE_MAX);
    }
    fault(check, fix,
          "max.message.bytes is %" PRId64 ", and %" PRId64
          " are needed: the broker would refuse a full batch",
          have->max_message_bytes, needed);
}

static enum err
topic_check(struct check *check, enum topic which, struct why *why)
{
    struct kafka_topic want = planned(check->config, which), have = {0};
    enum err err = kafka_topic_read(check->config, want.name, &have, why);

    check->want = &want;
    check->have = &have;
    if (err == ERR_NOTFOUND) {
        fault(check, "clickledger topics create", "there is no such topic");
    } else if (err == ERR_OK) {
        partitions_check(check);
        copies_check(check);
        retention_check(check);
        message_check(check);
    }
    check->want = check->have = NULL;
    return err == ERR_NOTFOUND ? ERR_OK : err;
}

enum err
topics_check(const struct config *config, bool json, struct buf *report,
             struct why *why)
{
    struct check check = {.config = config, .report = report, .json = json};
    enum err err = config_check(config, why);

    if (json)
        buf_add_text(report, "[");
    for (unsigned i = 0; err == ERR_OK && i < TOPICS_N; i++)
        err = topic_check(&check, (enum topic)i, why);
    if (json)
        buf_add_text(report, "]\n");
    if (err != ERR_OK || check.faults == 0)
        return err;
    if (check.faults == 1)
        return err_set(why, ERR_INVALID, "%s", check.first.text);
    return err_set(why, ERR_INVALID, "%u faults, see clickledger topics check: %s",
                   check.faults, check.first.text);
}

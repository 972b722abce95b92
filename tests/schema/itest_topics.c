/* Topics on a real broker of Kafka: made as planned, and every fault is named. */
#include "schema/topics.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <cjson/cJSON.h>

#include "common/kafka.h"
#include "tests/itest.h"

enum { PARTITIONS = 4, REPORT_MAX = 1 << 16 };

static void
text_set(char **key, const char *value)
{
    free(*key);
    *key = strdup(value);
    assert_non_null(*key);
}

/* A prefix of its own, so that tests share the broker. */
static void
config_make(struct config *config)
{
    char prefix[32];

    assert_int_equal(config_load(config, NULL, NULL, NULL, NULL), ERR_OK);
    (void)snprintf(prefix, sizeof(prefix), "t%016" PRIx64 ".", hash_random_u64());
    text_set(&config->kafka_brokers, itest_server("CLICKLEDGER_TEST_KAFKA"));
    text_set(&config->kafka_topic_prefix, prefix);
    config->clicklog_partitions = PARTITIONS;
    config->kafka_replication = 1;
    config->kafka_min_insync = 1;
}

static char *
text_of(struct buf *report)
{
    buf_add(report, "", 1);
    assert_false(report->failed);
    return (char *)report->p;
}

static void
made_topics_are_as_planned_and_pass_the_check(void **state)
{
    struct config config;
    struct buf report = BUF_MAX(REPORT_MAX);
    struct kafka_topic topic;
    struct why why = {""};
    char name[KAFKA_NAME_MAX + 1];

    (void)state;
    config_make(&config);
    itest_need(topics_create(&config, &report, &why), "create", &why);
    assert_non_null(strstr(text_of(&report), "raw_clicks: made, 4 partitions"));
    buf_reset(&report);
    itest_need(topics_check(&config, false, &report, &why), "check", &why);
    assert_int_equal(report.n, 0);
    kafka_topic_name(&config, "raw_clicks", name);
    itest_need(kafka_topic_read(&config, name, &topic, &why), "read", &why);
    assert_int_equal(topic.partitions, PARTITIONS);
    assert_int_equal(topic.retention_ms, INT64_C(168) * 3600000);
    assert_int_equal(topic.retention_bytes, -1);
    assert_string_equal(topic.compression, "lz4");
    assert_string_equal(topic.cleanup_policy, "delete");
    assert_string_equal(topic.timestamp_type, "CreateTime");
    kafka_topic_name(&config, "click_control", name);
    itest_need(kafka_topic_read(&config, name, &topic, &why), "read", &why);
    assert_int_equal(topic.partitions, 1);
    assert_string_equal(topic.cleanup_policy, "compact");
    buf_free(&report);
    config_free(&config);
}

static void
a_second_create_leaves_all_as_it_is(void **state)
{
    struct config config;
    struct buf report = BUF_MAX(REPORT_MAX);
    struct why why = {""};

    (void)state;
    config_make(&config);
    itest_need(topics_create(&config, &report, &why), "create", &why);
    buf_reset(&report);
    config.clicklog_partitions = 2 * PARTITIONS;
    itest_need(topics_create(&config, &report, &why), "create", &why);
    assert_null(strstr(text_of(&report), "made"));
    assert_non_null(strstr((char *)report.p, "left as it is"));
    buf_reset(&report);
    assert_int_equal(topics_check(&config, false, &report, &why), ERR_INVALID);
    /* The three with P, and the control topic not. */
    assert_non_null(strstr(why.text, "3 faults"));
    buf_free(&report);
    config_free(&config);
}

/* raw_clicks as planned, but for one thing. */
struct bad {
    const char *key, *fault, *fix;
};

static const struct bad bads[] = {
    {"partitions-few", "has 3 partitions, and 4 are needed", "--partitions 4"},
    {"partitions-many", "has 5 partitions, and 4 are needed", "kafka.topic_prefix"},
    {"retention", "retention.ms is 3600000 (1 hours), and 168 hours",
     "retention.ms=604800000"},
    {"bytes", "retention.bytes is 1000000, not -1", "retention.bytes=-1"},
    {"compact", "cleanup.policy is compact, not delete", "cleanup.policy=delete"},
    {"both", "not delete: of all clicks", "cleanup.policy=delete"},
    {"stamp", "message.timestamp.type is LogAppendTime",
     "message.timestamp.type=CreateTime"},
    {"message", "max.message.bytes is 500000", "max.message.bytes=1048588"},
    {"insync", "min.insync.replicas is 2, with replication 1",
     "min.insync.replicas=1"},
};

static void
spoil(struct kafka_topic *topic, const char *key)
{
    if (strcmp(key, "partitions-few") == 0)
        topic->partitions = 3;
    else if (strcmp(key, "partitions-many") == 0)
        topic->partitions = 5;
    else if (strcmp(key, "retention") == 0)
        topic->retention_ms = 3600000;
    else if (strcmp(key, "bytes") == 0)
        topic->retention_bytes = 1000000;
    else if (strcmp(key, "compact") == 0)
        (void)snprintf(topic->cleanup_policy, sizeof(topic->cleanup_policy),
                       "compact");
    else if (strcmp(key, "both") == 0)
        (void)snprintf(topic->cleanup_policy, sizeof(topic->cleanup_policy),
                       "compact,delete");
    else if (strcmp(key, "stamp") == 0)
        (void)snprintf(topic->timestamp_type, sizeof(topic->timestamp_type),
                       "LogAppendTime");
    else if (strcmp(key, "message") == 0)
        topic->max_message_bytes = 500000;
    else if (strcmp(key, "insync") == 0)
        topic->min_insync = 2;
    else
        fail();
}

static struct kafka_topic
raw_clicks(const struct config *config)
{
    struct kafka_topic topic = {.partitions = PARTITIONS,
                                .replication = 1,
                                .retention_ms = INT64_C(168) * 3600000,
                                .retention_bytes = -1,
                                .min_insync = 1,
                                .max_message_bytes = 1048588,
                                .cleanup_policy = "delete",
                                .compression = "lz4",
                                .timestamp_type = "CreateTime"};

    kafka_topic_name(config, "raw_clicks", topic.name);
    return topic;
}

static void
each_setting_that_breaks_the_promise_is_named_with_its_fix(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bads) / sizeof(bads[0]); i++) {
        struct config config;
        struct buf report = BUF_MAX(REPORT_MAX);
        struct why why = {""};

        config_make(&config);
        struct kafka_topic topic = raw_clicks(&config);
        spoil(&topic, bads[i].key);
        itest_need(kafka_topic_create(&config, &topic, &why), bads[i].key, &why);
        assert_int_equal(topics_check(&config, false, &report, &why), ERR_INVALID);
        char *line = text_of(&report), *end = strchr(line, '\n');
        assert_non_null(end);
        *end = '\0'; /* the others are missing, and say so in lines of their own */
        if (strstr(line, bads[i].fault) == NULL ||
            strstr(line, bads[i].fix) == NULL || strstr(line, topic.name) == NULL)
            fail_msg("%s: %s", bads[i].key, line);
        assert_non_null(strstr(end + 1, "there is no such topic; fix: clickledger "
                                        "topics create"));
        buf_free(&report);
        config_free(&config);
    }
}

static void
fewer_copies_than_configured_are_a_fault(void **state)
{
    struct config config;
    struct buf report = BUF_MAX(REPORT_MAX);
    struct why why = {""};

    (void)state;
    config_make(&config);
    itest_need(topics_create(&config, &report, &why), "create", &why);
    buf_reset(&report);
    config.kafka_replication = 3;
    config.kafka_min_insync = 2;
    assert_int_equal(topics_check(&config, false, &report, &why), ERR_INVALID);
    assert_non_null(
        strstr(text_of(&report), "has 1 replica, kafka.replication is 3"));
    assert_non_null(strstr((char *)report.p, "kafka.min_insync is 2"));
    buf_free(&report);
    config_free(&config);
}

/* Topics made for smaller batches than kafka.batch_bytes allows. */
static void
a_batch_larger_than_a_topic_takes_is_a_fault(void **state)
{
    struct config config;
    struct buf report = BUF_MAX(REPORT_MAX);
    struct why why = {""};

    (void)state;
    config_make(&config);
    itest_need(topics_create(&config, &report, &why), "create", &why);
    buf_reset(&report);
    config.kafka_batch_bytes = 4000000;
    assert_int_equal(topics_check(&config, false, &report, &why), ERR_INVALID);
    assert_non_null(strstr(text_of(&report), "max.message.bytes is 1048588, and "
                                             "4000512 are needed"));
    assert_non_null(strstr((char *)report.p, "max.message.bytes=4048588"));
    assert_non_null(
        strstr((char *)report.p, "or set kafka.batch_bytes to 1000000"));
    buf_free(&report);
    config_free(&config);
}

static void
more_copies_than_brokers_cannot_be_made(void **state)
{
    struct config config;
    struct buf report = BUF_MAX(REPORT_MAX);
    struct why why = {""};

    (void)state;
    config_make(&config);
    config.kafka_replication = 9;
    assert_int_not_equal(topics_create(&config, &report, &why), ERR_OK);
    if (strstr(why.text, "eplication") == NULL)
        fail_msg("%s", why.text);
    buf_free(&report);
    config_free(&config);
}

static void
the_report_as_json_is_an_array_of_topic_fault_and_fix(void **state)
{
    struct config config;
    struct buf report = BUF_MAX(REPORT_MAX);
    struct why why = {""};

    (void)state;
    config_make(&config);
    assert_int_equal(topics_check(&config, true, &report, &why), ERR_INVALID);
    cJSON *json = cJSON_Parse(text_of(&report));
    assert_int_equal(cJSON_GetArraySize(json), TOPICS_N);
    const cJSON *item;
    cJSON_ArrayForEach(item, json)
    {
        assert_true(cJSON_IsString(cJSON_GetObjectItem(item, "topic")));
        assert_true(cJSON_IsString(cJSON_GetObjectItem(item, "fault")));
        assert_true(cJSON_IsString(cJSON_GetObjectItem(item, "fix")));
    }
    cJSON_Delete(json);
    itest_need(topics_create(&config, &report, &why), "create", &why);
    buf_reset(&report);
    itest_need(topics_check(&config, true, &report, &why), "check", &why);
    assert_string_equal(text_of(&report), "[]\n");
    buf_free(&report);
    config_free(&config);
}

static void
a_configuration_that_cannot_work_is_refused(void **state)
{
    struct config config;
    struct buf report = BUF_MAX(REPORT_MAX);
    struct why why = {""};

    (void)state;
    config_make(&config);
    config.kafka_min_insync = 2;
    assert_int_equal(topics_create(&config, &report, &why), ERR_INVALID);
    assert_non_null(
        strstr(why.text, "kafka.min_insync is 2, over kafka.replication"));
    assert_int_equal(topics_check(&config, false, &report, &why), ERR_INVALID);
    text_set(&config.kafka_brokers, "");
    assert_int_equal(topics_create(&config, &report, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "kafka.brokers"));
    assert_int_equal(report.n, 0);
    buf_free(&report);
    config_free(&config);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(made_topics_are_as_planned_and_pass_the_check),
        cmocka_unit_test(a_second_create_leaves_all_as_it_is),
        cmocka_unit_test(
            each_setting_that_breaks_the_promise_is_named_with_its_fix),
        cmocka_unit_test(fewer_copies_than_configured_are_a_fault),
        cmocka_unit_test(a_batch_larger_than_a_topic_takes_is_a_fault),
        cmocka_unit_test(more_copies_than_brokers_cannot_be_made),
        cmocka_unit_test(the_report_as_json_is_an_array_of_topic_fault_and_fix),
        cmocka_unit_test(a_configuration_that_cannot_work_is_refused),
    };

    (void)itest_server("CLICKLEDGER_TEST_KAFKA");
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* tests/common/kafka_fixture.h - a configuration for the brokers of CLICKLEDGER_TEST_KAFKA
 * with a topic prefix of its own, so that tests share them.
 *
 * Threads  One. */
#ifndef TESTS_COMMON_KAFKA_FIXTURE_H
#define TESTS_COMMON_KAFKA_FIXTURE_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config.h"
#include "common/hash.h"
#include "common/kafka.h"

/* The brokers, or the end of the test ("skipped"). */
static inline const char *
fixture_brokers(void)
{
    const char *brokers = getenv("CLICKLEDGER_TEST_KAFKA");

    if (brokers != NULL && brokers[0] != '\0')
        return brokers;
    printf("skipped: no broker (CLICKLEDGER_TEST_KAFKA is not set)\n");
    exit(77);
}

static inline void
fixture_set(char **key, const char *value)
{
    free(*key);
    *key = strdup(value);
    if (*key == NULL)
        exit(1);
}

static inline void
fixture_config(struct config *config, const char *brokers)
{
    char name[] = "test", *argv[] = {name, NULL}, prefix[32];
    struct why why = {""};
    int argc = 1;

    if (config_load(config, NULL, &argc, argv, &why) != ERR_OK) {
        fprintf(stderr, "%s\n", why.text);
        exit(1);
    }
    (void)snprintf(prefix, sizeof(prefix), "t%016" PRIx64 "_", hash_random_u64());
    fixture_set(&config->kafka_brokers, brokers);
    fixture_set(&config->kafka_topic_prefix, prefix);
    config->kafka_replication = 1;
    config->kafka_min_insync = 1;
}

/* Makes prefix + name and gives its whole name. */
static inline void
fixture_topic(const struct config *config, const char *name, int32_t partitions,
              const char *cleanup, char out[KAFKA_NAME_MAX + 1])
{
    struct kafka_topic topic = {
        .partitions = partitions, .replication = 1, .retention_ms = -1};
    struct why why = {""};

    kafka_topic_name(config, name, out);
    (void)snprintf(topic.name, sizeof(topic.name), "%s", out);
    (void)snprintf(topic.cleanup_policy, sizeof(topic.cleanup_policy), "%s",
                   cleanup);
    if (kafka_topic_create(config, &topic, &why) != ERR_OK) {
        fprintf(stderr, "%s\n", why.text);
        exit(1);
    }
}

#endif

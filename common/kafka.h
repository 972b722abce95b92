/* common/kafka.h - Kafka: with the click log's Kafka reader the only user of librdkafka.
 *
 *   kafka_topic_*      one topic's settings, read and made
 *   kafka_producer     idempotent, acks=all, in order per partition; what was acknowledged
 *                      is a prefix of what was sent, which is all that a relay must know
 *   kafka_consumer     follows partitions that its user names, from offsets it names; the
 *                      group's consumer is common/clicklog.h's
 *
 * Settings come from the section kafka of the configuration, on top of them whatever
 * kafka.properties_file holds (key=value lines of librdkafka: TLS, SASL, secrets).
 *
 * Units    Milliseconds of message time, microseconds of waiting.
 * Memory   Values are copied when sent; a message taken is valid until the next take.
 * Errors   ERR_AGAIN: broker away, time-out, leader election: the same may work later.
 *          ERR_NOTFOUND: no such topic, or an offset that is not held any more.
 *          ERR_FULL: the producer's queue. ERR_INVALID: a setting. ERR_FATAL: the rest.
 * Threads  Producer: kafka_send, kafka_room one thread; the rest any. Consumer: one, but for
 *          kafka_consumer_range and _since: any.
 * Source   librdkafka 2.0.2, CONFIGURATION.md; broker 4.1.0 and 3.9.1.
 */
#ifndef COMMON_KAFKA_H
#define COMMON_KAFKA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/config.h"
#include "common/err.h"
#include "common/str.h"

enum {
    KAFKA_NAME_MAX = 249,       /* a topic's name */
    KAFKA_PARTITIONS_MAX = 256, /* as the click log's */
    KAFKA_MESSAGE_MAX =
        1000000, /* bytes; the broker's default limit is 1,048,588 */
};

/* kafka.brokers is set. */
bool kafka_wanted(const struct config *config);
/* What can be said of the section without asking a broker: the brokers' addresses, the
 * prefix, every line of kafka.properties_file. ERR_OK without Kafka. */
enum err kafka_settings_check(const struct config *config, struct why *why);
/* kafka.topic_prefix and name. */
void kafka_topic_name(const struct config *config, const char *name,
                      char out[KAFKA_NAME_MAX + 1]);
/* A number for this cluster and topic: offsets of another say nothing. Asks the broker. */
enum err kafka_log_id(const struct config *config, const char *topic, uint64_t *out,
                      struct why *why);

/* --- topics --- */

struct kafka_topic {
    char name[KAFKA_NAME_MAX + 1];
    int32_t partitions, replication;
    int64_t retention_ms;    /* -1: for ever */
    int64_t retention_bytes; /* -1: no limit */
    int64_t min_insync, max_message_bytes;
    char cleanup_policy[64]; /* delete, compact, or both by comma */
    char compression[32];    /* producer, lz4, ... */
    char timestamp_type[32]; /* CreateTime or LogAppendTime */
};

enum err kafka_topic_read(const struct config *config, const char *name,
                          struct kafka_topic *out, struct why *why);
/* ERR_CONFLICT: it is there already. */
enum err kafka_topic_create(const struct config *config,
                            const struct kafka_topic *topic, struct why *why);

/* --- producer --- */

struct kafka_producer;

/* One topic each. name is for the log and client.id. linger_ms < 0: kafka.linger_ms. */
enum err kafka_producer_open(struct kafka_producer **out,
                             const struct config *config, const char *topic,
                             const char *name, int64_t linger_ms, struct why *why);
/* Throws away what is not acknowledged: it may or may not arrive. */
void kafka_producer_close(struct kafka_producer **producer);

struct kafka_item {
    struct str key, value;
    int64_t timestamp_ms;
};

/* Queues the first *sent of n, in order, for a partition (0 <= *sent <= n: the queue's
 * limits are kafka.queue_bytes_max, of which each partition has an equal share so that one
 * without a leader stops no other, and a number of messages). ERR_AGAIN or ERR_FATAL: the
 * producer has failed. */
enum err kafka_send(struct kafka_producer *producer, int32_t partition,
                    const struct kafka_item *items, size_t n, size_t *sent,
                    struct why *why);
/* Bytes of its share that a partition has left; the sender's. */
uint64_t kafka_room(const struct kafka_producer *producer, int32_t partition);
/* Takes delivery reports, waiting up to timeout_us for the first. After a failed delivery,
 * or kafka.delivery_ms_max (at least 1 s) with messages in flight and no report at all:
 * ERR_AGAIN with its cause, for good: acknowledgements before it stand; close it, and send
 * again from there with another. */
enum err kafka_poll(struct kafka_producer *producer, int64_t timeout_us,
                    struct why *why);
/* Messages of a partition acknowledged since the open: the first so many of those sent. */
uint64_t kafka_acked(const struct kafka_producer *producer, int32_t partition);
/* Sent and not acknowledged, over all partitions. */
uint64_t kafka_in_flight(const struct kafka_producer *producer);
/* Polls until nothing is in flight. ERR_AGAIN: failed, or timeout_us is over. */
enum err kafka_flush(struct kafka_producer *producer, int64_t timeout_us,
                     struct why *why);

/* --- consumer without a group --- */

struct kafka_consumer;

struct kafka_message {
    int32_t partition;
    uint64_t offset;
    int64_t timestamp_ms;
    struct str key, value;
};

enum err kafka_consumer_open(struct kafka_consumer **out,
                             const struct config *config, const char *topic,
                             const char *name, struct why *why);
void kafka_consumer_close(struct kafka_consumer **consumer);
/* Of the topic, as of the open. */
uint32_t kafka_consumer_partitions(const struct kafka_consumer *consumer);
/* Follows partition from offset on; again: from there. */
enum err kafka_consumer_follow(struct kafka_consumer *consumer, int32_t partition,
                               uint64_t offset, struct why *why);
void kafka_consumer_leave(struct kafka_consumer *consumer, int32_t partition);
/* The next message of any partition followed. ERR_AGAIN: none within timeout_us.
 * ERR_NOTFOUND: out->partition's offset is no longer held; it is not followed any more. */
enum err kafka_consumer_next(struct kafka_consumer *consumer, int64_t timeout_us,
                             struct kafka_message *out, struct why *why);
/* All of a followed partition below it was taken or is nothing: at the end, it is that of
 * kafka_consumer_range, also where compaction has removed the last messages. */
uint64_t kafka_consumer_at(const struct kafka_consumer *consumer,
                           int32_t partition);
/* First offset held and the one after the last; asks the broker. */
enum err kafka_consumer_range(struct kafka_consumer *consumer, int32_t partition,
                              uint64_t *first, uint64_t *next, struct why *why);
/* The first offset whose message time is at or after since_ms; the end if there is none. */
enum err kafka_consumer_since(struct kafka_consumer *consumer, int32_t partition,
                              int64_t since_ms, uint64_t *offset, struct why *why);

#endif

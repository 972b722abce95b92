/* common/kafka_impl.h - what all users of librdkafka share: settings, errors, its log.
 *
 * Settings, later ones win: ours for every handle, the caller's, kafka.properties_file.
 * What the promise rests on (idempotence, acknowledgements, offsets, group) and what has a
 * key of its own in the configuration is refused in that file.
 *
 * librdkafka's lines become events: "kafka_trouble" once an outage and name, in a process,
 * however many handles of that name it takes, and "kafka_back" when one works again. An
 * outage that lasts is told again every KAFKA_SAID_AGAIN_US, and those that follow each other
 * at most every KAFKA_SAID_US. Not told: that the coordinator of producers loads, as it does
 * just after a broker's start, unless that lasts for KAFKA_LOADS_US.
 *
 * Memory   The watch is the caller's, and outlives the handle. What is told of a name is the
 *          process's, for KAFKA_KINDS_MAX names; further ones share one place.
 * Errors   Of the file: ERR_INVALID with its name, line and key; never a value.
 * Threads  kafka_watch_*: any.
 */
#ifndef COMMON_KAFKA_IMPL_H
#define COMMON_KAFKA_IMPL_H

#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/err.h"
#include "common/kafka.h"

enum {
    KAFKA_ASK_MS = 10000,           /* one question to the brokers */
    KAFKA_PROPERTIES_MAX = 1 << 16, /* bytes of the file */
    KAFKA_TEXT_SIZE = 64,
    KAFKA_LAST_SIZE = 160,
    KAFKA_KINDS_MAX = 64,
};

#define KAFKA_SAID_US       (INT64_C(60) * 1000000)
#define KAFKA_SAID_AGAIN_US (INT64_C(600) * 1000000)
#define KAFKA_LOADS_US      (INT64_C(10) * 1000000)

struct kafka_kind;

/* The opaque of each handle: a caller with more of its own has it as the first member. */
struct kafka_watch {
    char name[KAFKA_TEXT_SIZE];
    struct kafka_kind *kind; /* of all that have its name */
    atomic_bool quiet;       /* nothing is logged: the caller says it, in its why */
    pthread_mutex_t mutex;   /* guards last */
    char last[KAFKA_LAST_SIZE];
};

struct kafka_setting {
    const char *key, *value;
};

/* A configuration for rd_kafka_new; the caller's until that took it. watch is set up. */
enum err kafka_conf(rd_kafka_conf_t **out, const struct config *config,
                    const char *name, struct kafka_watch *watch,
                    const struct kafka_setting *own, size_t n, struct why *why);
/* rd_kafka_new that takes conf in any case. */
enum err kafka_new(rd_kafka_t **out, rd_kafka_type_t type, rd_kafka_conf_t *conf,
                   struct why *why);
/* A handle to ask with, a producer that sends nothing. */
enum err kafka_asker(rd_kafka_t **out, const struct config *config,
                     struct kafka_watch *watch, struct why *why);

/* Questions about one topic, from any thread; zeroed at first, and never moved. */
struct kafka_ask {
    struct kafka_watch watch; /* first: the handle's opaque */
    rd_kafka_t *rk;
    rd_kafka_topic_t *topic;
};
/* What was made stays the caller's on failure. */
enum err kafka_ask_open(struct kafka_ask *ask, const struct config *config,
                        const char *topic, struct why *why);
/* The question itself, with any handle. rd_kafka_query_watermark_offsets never returns while
 * a broker is away (librdkafka 2.0.2); this one keeps its time. */
rd_kafka_resp_err_t kafka_offset_get(rd_kafka_t *rk, const char *topic,
                                     int32_t partition, int64_t when,
                                     int timeout_ms, int64_t *offset);
void kafka_ask_close(struct kafka_ask *ask);
/* The first offset whose message time, in milliseconds, is `when` or later (-1: none), or
 * RD_KAFKA_OFFSET_BEGINNING, RD_KAFKA_OFFSET_END. */
enum err kafka_ask_offset(struct kafka_ask *ask, int32_t partition, int64_t when,
                          int timeout_ms, int64_t *offset, struct why *why);

enum err kafka_code(rd_kafka_resp_err_t code);
/* "what: doing: librdkafka's words" with kafka_code's code; ERR_OK for no error. */
enum err kafka_error(rd_kafka_resp_err_t code, const char *what, const char *doing,
                     struct why *why);

/* Sets a watch up, for the handle that conf makes. */
void kafka_watch_begin(struct kafka_watch *watch, const char *name,
                       rd_kafka_conf_t *conf);
/* A line of librdkafka's, at a time of clock_mono_us; level as of syslog(3). */
void kafka_watch_line(struct kafka_watch *watch, int level, const char *what,
                      const char *text, int64_t now_us);
/* Something works: says so if it did not before. */
void kafka_watch_ok(struct kafka_watch *watch);
/* Quiet while a handle is opened, which those who try for ever do each second. */
void kafka_watch_quiet(struct kafka_watch *watch, bool quiet);
/* As kafka_error, with the last trouble that librdkafka told, if any. */
enum err kafka_watch_error(rd_kafka_resp_err_t code, struct kafka_watch *watch,
                           const char *what, const char *doing, struct why *why);

#endif

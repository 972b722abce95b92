/* common/config.h - configuration: one YAML file, every key with a default.
 *
 * CONFIG_MAP is the only list of keys: defaults, limits, --help, `config show` and
 * docs/configuration.md come from it. Order: default < file < environment
 * (CLICKLEDGER_INGEST_PORT) < flag (--ingest.port=8080).
 *
 * Memory   Strings belong to the struct, freed by config_free.
 * Errors   ERR_INVALID names key, line where there is one, value, and what is allowed.
 *          An unknown key is an error.
 * Threads  Read-only after start.
 */
#ifndef COMMON_CONFIG_H
#define COMMON_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

/* TEXT(section, key, default, prose)    NUMBER(section, key, default, min, max, prose) */
#define CONFIG_MAP(TEXT, NUMBER)                                                   \
    TEXT(data, dir, "data", "where the log, archive and state live")               \
    TEXT(log, level, "info", "debug, info, warn or error")                         \
    TEXT(log, format, "logfmt", "logfmt or json")                                  \
    TEXT(ingest, address, "127.0.0.1", "address to listen on")                     \
    NUMBER(ingest, port, 8080, 0, 65535, "port; 0 takes a free one")               \
    NUMBER(ingest, threads, 2, 1, 64, "HTTP threads")                              \
    NUMBER(ingest, connections_max, 2000, 1, 100000, "open connections")           \
    NUMBER(ingest, clicks_max, 2000, 1, 10000, "clicks in one request")            \
    NUMBER(ingest, body_bytes_max, 5242880, 1024, 67108864, "body, decompressed")  \
    NUMBER(ingest, click_bytes_max, 32768, 1024, 65536, "one click's JSON")        \
    NUMBER(ingest, in_flight_bytes_max, 268435456, 1048576, 17179869184,           \
           "all bodies in flight")                                                 \
    NUMBER(ingest, request_ms_max, 10000, 100, 600000,                             \
           "a request must arrive whole within")                                   \
    NUMBER(ingest, idle_ms_max, 60000, 100, 600000,                                \
           "an idle connection is closed after")                                   \
    NUMBER(ingest, rate_clicks_per_s, 1000, 1, 1000000,                            \
           "per key and client address")                                           \
    NUMBER(ingest, rate_burst_clicks, 2000, 1, 1000000, "that may come at once")   \
    NUMBER(ingest, group_clicks_max, 16384, 1, 65536, "clicks in one commit")      \
    NUMBER(ingest, group_wait_us, 500, 0, 100000,                                  \
           "wait for more clicks before a commit")                                 \
    NUMBER(ingest, dlq_bytes_max, 268435456, 65536, 1099511627776,                 \
           "dead-letter log")                                                      \
    NUMBER(ingest, future_ms_max, 300000, 0, 86400000,                             \
           "event time ahead of the server")                                       \
    NUMBER(ingest, past_ms_max, 604800000, 0, 2592000000,                          \
           "event time behind the server")                                         \
    TEXT(ingest, ack, "",                                                          \
         "local (202 after fsync), replicated (after Kafka has it too) or empty "  \
         "(replicated with Kafka)")                                                \
    NUMBER(ingest, ack_ms_max, 10000, 100, 600000,                                 \
           "without Kafka's acknowledgement: 503, and the breaker opens")          \
    TEXT(ingest, trusted_proxies, "",                                              \
         "addresses whose X-Forwarded-For counts, by comma")                       \
    NUMBER(clicklog, partitions, 16, 1, 256,                                       \
           "fixed when the data directory is made")                                \
    NUMBER(clicklog, map_bytes, 1099511627776, 1048576, 17592186044416,            \
           "address space")                                                        \
    NUMBER(clicklog, bytes_max, 17179869184, 1048576, 17592186044416,              \
           "disk for the log")                                                     \
    NUMBER(clicklog, keep_bytes, 4294967296, 0, 17592186044416,                    \
           "archived clicks kept beside")                                          \
    NUMBER(clicklog, no_sync, 0, 0, 1, "1: no fsync; loses clicks at a power cut") \
    TEXT(kafka, brokers, "", "host:port by comma; empty: no Kafka, one machine")   \
    TEXT(kafka, topic_prefix, "", "before the name of each topic")                 \
    TEXT(kafka, group, "clickledger", "consumer groups are named GROUP-STAGE")     \
    TEXT(kafka, instance_id, "",                                                   \
         "static member of the groups; empty: a dynamic one")                      \
    TEXT(kafka, properties_file, "",                                               \
         "librdkafka properties, key=value a line: TLS, SASL, secrets")            \
    TEXT(kafka, schema_registry, "", "URL to register the schema at; empty: none") \
    NUMBER(kafka, replication, 3, 1, 9, "copies, of topics that we create")        \
    NUMBER(kafka, min_insync, 2, 1, 9, "copies that must have a click")            \
    NUMBER(kafka, retention_h, 168, 24, 87600, "hours that topics keep clicks")    \
    NUMBER(kafka, session_ms, 10000, 1000, 600000,                                 \
           "a silent member of a group is replaced after")                         \
    NUMBER(kafka, linger_ms, 10, 0, 1000, "the relay waits for fuller batches")    \
    NUMBER(kafka, batch_bytes, 1000000, 1024, 16777216, "of one partition")        \
    NUMBER(kafka, queue_bytes_max, 134217728, 1048576, 4294967296,                 \
           "sent and not acknowledged; a partition has an equal share")            \
    NUMBER(kafka, delivery_ms_max, 5000, 100, 600000,                              \
           "without an acknowledgement: sent again from the cursor")               \
    NUMBER(kafka, fetch_bytes_max, 67108864, 1048576, 4294967296,                  \
           "fetched ahead by a consumer")                                          \
    TEXT(redis, address, "127.0.0.1:6379",                                         \
         "host:port, unix:/path, or cluster:host:port,host:port")                  \
    NUMBER(redis, timeout_ms, 2000, 10, 600000, "of one command")                  \
    TEXT(postgres, conninfo, "dbname=clickledger", "libpq connection string")      \
    TEXT(postgres, password_file, "", "file with the password, if any")            \
    NUMBER(aggregate, threads, 1, 1, 64,                                           \
           "workers; each owns its share of partitions")                           \
    NUMBER(aggregate, flush_ms, 250, 10, 10000, "between flushes to Redis")        \
    NUMBER(aggregate, flush_ms_max, 1000, 10, 60000,                               \
           "when many campaigns are touched")                                      \
    NUMBER(aggregate, flush_fields, 5000, 1, 1000000,                              \
           "changed fields that cause a flush")                                    \
    NUMBER(aggregate, dimension_values_max, 1000, 1, 100000, "then __other__")     \
    NUMBER(aggregate, live_rows_max, 4000000, 1, 100000000,                        \
           "open windows in memory")                                               \
    NUMBER(fraud, live_dedup_ids_max, 50000000, 1024, 1000000000,                  \
           "event ids of the last hour")                                           \
    NUMBER(fraud, live_users_max, 20000000, 1024, 1000000000,                      \
           "(user, ad) pairs remembered")                                          \
    NUMBER(fraud, live_addresses_max, 4000000, 1024, 1000000000,                   \
           "addresses counted")                                                    \
    NUMBER(fraud, reload_s, 3600, 1, 86400,                                        \
           "between looks at the rule set's lists")                                \
    TEXT(fraud, ruleset_dir, "", "rules and lists; empty: the built-in rule set")  \
    NUMBER(archive, roll_s, 300, 1, 3600, "age at which a file is closed")         \
    NUMBER(archive, roll_bytes, 67108864, 4096, 4294967296,                        \
           "size at which a file is closed")                                       \
    NUMBER(billing, dedup_days, 35, 1, 400, "event ids kept")                      \
    NUMBER(billing, grace_s, 21600, 0, 604800,                                     \
           "after a day's end before it closes")                                   \
    NUMBER(billing, judge_clicks_max, 1750000, 1000, 100000000,                    \
           "clicks judged in memory")                                              \
    NUMBER(billing, schedule, 1, 0, 1,                                             \
           "1: judge and close by themselves inside run")                          \
    NUMBER(billing, invoice_grace_s, 259200, 0, 2592000,                           \
           "after a month before finalise")                                        \
    TEXT(dashboard, address, "127.0.0.1", "address to listen on")                  \
    NUMBER(dashboard, port, 8081, 0, 65535, "port; 0 takes a free one")            \
    NUMBER(dashboard, threads, 2, 1, 64, "HTTP threads")                           \
    TEXT(metrics, address, "127.0.0.1", "address to listen on")                    \
    NUMBER(metrics, port, 0, 0, 65535,                                             \
           "of processes without ingest and dashboard; 0: none")                   \
    NUMBER(master, poll_ms, 1000, 50, 600000,                                      \
           "between looks for changed master data")

struct config {
#define TEXT(section, key, fallback, prose)             char *section##_##key;
#define NUMBER(section, key, fallback, min, max, prose) int64_t section##_##key;
    CONFIG_MAP(TEXT, NUMBER)
#undef TEXT
#undef NUMBER
};

/* Defaults, then the file (NULL: none), then the environment, then each flag of argv that
 * looks like --section.key=value; those are removed from argv and *argc. */
enum err config_load(struct config *out, const char *path, int *argc, char **argv,
                     struct why *why);
void config_free(struct config *config);
/* As YAML with the prose as comments; secrets are files, so nothing is hidden. */
void config_show(const struct config *config, struct buf *out);
/* As a Markdown table of key, default, allowed, meaning. */
void config_document(struct buf *out);

#endif

/* schema/topics.h - every Kafka topic, written down once.
 *
 *   raw_clicks       P partitions   a click a message: key campaign_id, our own partition
 *                                   number (murmur2 as Java clients), message time =
 *                                   received_at, value in Confluent's wire format: 0, schema
 *                                   id (u32 big endian), Avro record
 *   click_verdicts   P              recorded live verdicts (common/verdictlog.h)
 *   click_addresses  P              packed clicks by address (aggregate/hotstage.h)
 *   click_hot        1              addresses past a limit, for every process
 *   click_control    1, compacted   common/control.h
 *
 * The three with P have the same P: the owner of a partition has it in all of them.
 *
 * Errors   topics_check: ERR_INVALID, one line a fault with its fix, in report.
 * Threads  Any.
 */
#ifndef SCHEMA_TOPICS_H
#define SCHEMA_TOPICS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/err.h"
#include "common/str.h"

/* X(name, partitions (0: P), cleanup, retention in hours (0: kafka.retention_h), text) */
#define TOPIC_MAP(X)                                                   \
    X(raw_clicks, 0, "delete", 0, "accepted clicks")                   \
    X(click_verdicts, 0, "delete", 0, "recorded live verdicts")        \
    X(click_addresses, 0, "delete", 2, "clicks by address, for rates") \
    X(click_hot, 1, "delete", 2, "addresses past a limit")             \
    X(click_control, 1, "compact", 0, "how far the spool and the archive are")

enum topic {
#define X(name, partitions, cleanup, hours, text) TOPIC_##name,
    TOPIC_MAP(X)
#undef X
        TOPICS_N
};

/* Makes those that are missing; the others are left as they are. report gets a line each. */
enum err topics_create(const struct config *config, struct buf *report,
                       struct why *why);
/* Partition count, retention, cleanup policy, time stamps, min.insync.replicas against the
 * promise and the configuration. json: an array of {topic, fault, fix}. */
enum err topics_check(const struct config *config, bool json, struct buf *report,
                      struct why *why);

enum { WIRE_HEAD = 5 }; /* magic and schema id */
/* Schema ids: the version of schema/click.h, unless a registry gave others. */
void wire_head(uint32_t schema_id, uint8_t out[WIRE_HEAD]);
/* False if it is no such message. */
bool wire_read(struct str value, uint32_t *schema_id, struct str *record);

/* Registers the record's schemas (all versions, oldest first) at kafka.schema_registry;
 * ids[version] gets each one's id; without a registry the version itself. */
enum err registry_register(const struct config *config, const char *topic,
                           uint32_t *ids, struct why *why);

#endif

/* aggregate/hotstage.h - address rates over all processes, by Kafka.
 *
 *   each owner: judged clicks --hotstage_add, _send--> click_addresses, by address
 *   the owner of an address's partition counts them --past a limit--> click_hot
 *   every process: click_hot --> fraud_hot, which its workers ask
 *
 *   click_addresses  value: u32 magic "CLA1", u32 count, u32 partition, u32 zero, u64 base
 *                    offset, count x { u64 address key, i64 event ms }; message time = receipt
 *   click_hot        value: u32 magic "CLH1", u32 count, count x { u64 address key,
 *                    i64 event ms, u32 reasons, u32 zero }; little endian
 *
 * Live only, and only ever a help: what comes late or is lost makes live verdicts differ
 * from the judge's by rate_across_campaigns. A partition newly owned counts from 2 minutes
 * before. While this process owns every partition nothing is sent: its own table knows all.
 *
 * Threads  hotstage_start makes one. _add and _send: each worker its own lane.
 */
#ifndef AGGREGATE_HOTSTAGE_H
#define AGGREGATE_HOTSTAGE_H

#include <stdint.h>

#include "common/clicklog.h"
#include "common/config.h"
#include "common/err.h"
#include "fraud/hot.h"
#include "fraud/ruleset.h"

struct hotstage;

enum err hotstage_start(struct hotstage **out, const struct config *config,
                        struct clicklog *log, struct ruleset_source *rules,
                        struct fraud_hot *hot, uint32_t lanes, struct why *why);
void hotstage_stop(struct hotstage **stage);
/* A click that feeds the counters, judged just now. Never waits; drops (and counts) when
 * the lane is full. */
void hotstage_add(struct hotstage *stage, uint32_t lane, uint32_t partition,
                  uint64_t offset, uint64_t address_key, int64_t event_ms,
                  int64_t received_us);
/* Hands the lane over; now and then. */
void hotstage_send(struct hotstage *stage, uint32_t lane);

#endif

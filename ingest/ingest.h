/* ingest/ingest.h - HTTP -> click log.
 *
 *   POST /v1/clicks            object, array or NDJSON; gzip, zstd; ?dry_run=1
 *   GET  /livez /readyz /metrics
 *
 * HTTP threads parse and encode; one committer thread appends whole groups with one sync
 * and then answers; it also trims the log and sends heartbeats when asked.
 *
 * ingest.ack: replicated: 202 once the relay's cursor (DATA/relay, ingest/relay.h), of this
 * process or another, is past a request's clicks; local: after the sync.
 *
 * Errors   docs/api.md lists status, code and text of each.
 * Threads  ingest_start makes its own.
 */
#ifndef INGEST_INGEST_H
#define INGEST_INGEST_H

#include <stdbool.h>
#include <stdint.h>

#include "common/clicklog.h"
#include "common/config.h"
#include "common/err.h"
#include "schema/master.h"

struct ingest;

enum err ingest_start(struct ingest **out, const struct config *config,
                      struct clicklog *log, struct master_source *master,
                      struct why *why);
uint16_t ingest_port(const struct ingest *ingest);
/* Finishes what is in flight, refuses new (503), closes. What waits for Kafka waits for up
 * to ingest.ack_ms_max, so the relay is stopped after it. */
void ingest_stop(struct ingest **ingest);

/* Work for the log's only writer; runs in the committer thread soon after. */
struct ingest_trim {
    uint64_t below[CLICKLOG_PARTITIONS_MAX]; /* offsets; 0: nothing */
    int64_t received_drop_us; /* hours before it are stored; 0: nothing */
};
void ingest_trim_request(struct ingest *ingest, const struct ingest_trim *trim);

/* clickledger dlq list [--json] [--limit N]; prints to stdout. */
enum err dlq_list(const char *data_dir, int limit, bool json, struct why *why);

#endif

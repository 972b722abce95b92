/* schema/master.h - master data as one immutable snapshot: who may send, who pays, how
 * much, when.
 *
 * A snapshot is loaded whole from PostgreSQL when master_version there has grown, or from
 * the copy in the data directory while PostgreSQL is away, and swapped in one step.
 * Stages take a reference for a batch and drop it.
 *
 * Units    Micros; ms of event time for valid_from; local days for budgets.
 * Memory   Reference counted; all strings belong to the snapshot.
 * Errors   master_poll: ERR_AGAIN while PostgreSQL is away (the old snapshot stays).
 * Threads  master_take/drop any; master_poll one.
 */
#ifndef SCHEMA_MASTER_H
#define SCHEMA_MASTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/str.h"

struct pg;
struct zone;

enum master_scope {
    MASTER_INGEST = 1,
    MASTER_READ = 2,
    MASTER_BILLING = 4,
    MASTER_ADMIN = 8,
};

struct master_key {
    uint32_t id;
    uint32_t account;
    uint8_t sha256[32];
    uint32_t scopes;            /* bits of master_scope */
    struct str advertiser;      /* read keys of one advertiser; else empty */
    uint32_t rate_clicks_per_s; /* 0: the configured default */
    bool revoked;
};

struct master_rate { /* sorted by valid_from_ms */
    int64_t valid_from_ms;
    int64_t
        micros; /* a click's price; MASTER_EVENT_PRICE: the event's, up to the cap */
};

struct master_budget { /* sorted by valid_from_day */
    int32_t valid_from_day;
    int64_t daily_micros; /* MASTER_NO_BUDGET */
};

struct master_status { /* sorted by valid_from_ms */
    int64_t valid_from_ms;
    bool active;
};

#define MASTER_EVENT_PRICE INT64_C(-1)
#define MASTER_NO_BUDGET   INT64_C(-1)

struct master_campaign {
    struct str id;
    uint32_t index; /* 0..campaigns_n-1, this snapshot's */
    uint32_t account;
    struct str advertiser;
    struct str currency; /* ISO 4217 */
    uint16_t zone_index; /* of master_zones */
    const struct zone *zone;
    int64_t
        price_cap_micros; /* for event prices; also for a fixed rate: no effect */
    const struct master_rate *rates;
    const struct master_budget *budgets;
    const struct master_status *statuses;
    uint16_t rates_n, budgets_n, statuses_n;
};

struct master {
    uint64_t version;
    const struct master_campaign *campaigns;
    uint32_t campaigns_n;
    const struct master_key *keys;
    uint32_t keys_n;
    const struct zone *const *zones;
    uint16_t zones_n;
};

struct master_source;

/* data_dir holds the copy (master.cache); NULL: no copy. conninfo NULL: the copy only.
 * ERR_AGAIN: PostgreSQL is away and there is no copy. */
enum err master_open(struct master_source **out, const char *data_dir,
                     const char *conninfo, struct why *why);
void master_close(struct master_source **source);
/* Looks for a newer version; *changed tells whether a snapshot was swapped in. */
enum err master_poll(struct master_source *source, bool *changed, struct why *why);
const struct master *master_take(struct master_source *source);
void master_drop(struct master_source *source, const struct master *master);
/* A snapshot made in memory for tests and benchmarks: copies everything, sets index and
 * zone_index; zone NULL is UTC. NULL without memory, or if an id is there twice. */
struct master_source *master_fixed(const struct master_campaign *campaigns,
                                   uint32_t campaigns_n,
                                   const struct master_key *keys, uint32_t keys_n);

/* NULL if unknown. One hash and one compare. */
const struct master_campaign *master_campaign_find(const struct master *master,
                                                   struct str id);
const struct master_key *master_key_find(const struct master *master,
                                         const uint8_t sha256[32]);
bool master_campaign_active(const struct master_campaign *campaign,
                            int64_t event_ms);
/* The price of a click at event time: the campaign's rate, or the event's own price up to
 * the cap. A click before the first rate is priced by the first; 0 if there is none. */
int64_t master_price(const struct master_campaign *campaign, int64_t event_ms,
                     int64_t event_price_micros);
/* MASTER_NO_BUDGET, or the budget of a local day. */
int64_t master_budget(const struct master_campaign *campaign, int32_t day);

#endif

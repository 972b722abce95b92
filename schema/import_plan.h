/* schema/import_plan.h - what an import would change: the file's rows held against what is
 * there. For master_import.c and its parts only.
 *
 *   rows + what is there --import_plan--> errors, or the rows to write --import_apply--> SQL
 *
 * Memory   The plan borrows texts from the import, the snapshot and the results.
 * Errors   What the file gets wrong is added to the import's errors.
 * Threads  None.
 */
#ifndef SCHEMA_IMPORT_PLAN_H
#define SCHEMA_IMPORT_PLAN_H

#include <stdint.h>

#include "common/err.h"
#include "schema/import_rows.h"
#include "schema/master.h"

struct pg;
struct pg_result;
struct snapshot;

/* A day that is billed: nothing of its campaigns may change any more. */
struct closed_day {
    const struct zone *zone;
    int32_t day;
};

/* What is there, all as of one transaction. */
struct import_there {
    struct snapshot *snapshot;
    struct pg_result *campaigns;   /* id, name: by id */
    struct pg_result *advertisers; /* id, account's name, name: by id */
    struct closed_day *closed;
    int closed_n;
};

struct planned_advertiser {
    struct str id, account, name, time_zone, currency;
};

struct planned_campaign {
    struct str id, advertiser, name, time_zone, currency;
    int64_t cap_micros;
};

struct planned_step {
    struct str campaign;
    int64_t from, value;
};

struct import_plan {
    struct planned_advertiser *advertisers;
    struct planned_campaign *campaigns;
    struct planned_step *rates, *budgets, *statuses;
    uint32_t advertisers_n, campaigns_n, rates_n, budgets_n, statuses_n;
    uint32_t campaigns_new, campaigns_changed, campaigns_same;
};

enum err import_there_load(struct import_there *out, struct pg *pg,
                           struct why *why);
void import_there_free(struct import_there *there);
enum err import_plan(struct import_plan *out, struct import *import,
                     const struct import_there *there, int64_t now_ms,
                     struct why *why);
void import_plan_free(struct import_plan *plan);
/* Writes the plan in the transaction that is open. */
enum err import_apply(const struct import_plan *plan, struct pg *pg,
                      struct why *why);

#endif

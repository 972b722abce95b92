/* dashboard/dashboard.h - the JSON API that advertisers and operators read.
 *
 *   GET /v1/campaigns/{id}/stats?from&to&granularity=5m|1h|1d&group_by=DIMENSION
 *   GET /v1/campaigns/{id}/live          last 5 minutes in 10 s steps
 *   GET /v1/clicks/{event_id}            live and final verdict
 *   GET /livez /readyz /metrics /openapi.json
 *   GET /schemas/...                     the record's Avro schemas, for Confluent clients
 *
 * Keys need scope `read`; a key of one advertiser gets 404 for another's campaign. Rows
 * say provisional or final, each answer says `source` (redis, postgres) and `as_of`.
 * Redis away or a window gone: said so, answered from PostgreSQL what it can.
 *
 * Threads  dashboard_start makes its own; one Redis and one PostgreSQL connection each.
 */
#ifndef DASHBOARD_DASHBOARD_H
#define DASHBOARD_DASHBOARD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/err.h"
#include "common/str.h"
#include "schema/master.h"

struct dashboard;

enum err dashboard_start(struct dashboard **out, const struct config *config,
                         struct master_source *master, struct why *why);
uint16_t dashboard_port(const struct dashboard *dashboard);
void dashboard_stop(struct dashboard **dashboard);

/* The route table, for the API's documents and the test that walks it. */
struct dashboard_route {
    const char *method;
    const char *path; /* with {id} */
    uint32_t scope;   /* enum master_scope, 0: open to all */
    bool of_campaign; /* {id} is a campaign that the key must own */
    const char *summary;
};
extern const struct dashboard_route dashboard_routes[];
extern const unsigned dashboard_routes_n;

#endif

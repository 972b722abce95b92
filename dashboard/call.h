/* dashboard/call.h - one request on its way to an answer.
 *
 * A call is made by an HTTP thread, which has found the route and the key, and is served by
 * a worker, which owns one connection to Redis and one to PostgreSQL.
 *
 * Errors   What serve returns becomes a problem: ERR_INVALID 400 (field says which
 *          parameter), ERR_NOTFOUND 404, ERR_AGAIN 503, with why as its detail; the rest
 *          500, and why goes to the log.
 * Threads  One at a time.
 */
#ifndef DASHBOARD_CALL_H
#define DASHBOARD_CALL_H

#include <stdint.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/err.h"
#include "common/http.h"
#include "common/str.h"
#include "dashboard/away.h"
#include "dashboard/dashboard.h"
#include "schema/master.h"

struct pg;
struct redis;

enum { ANSWER_BYTES_MAX = 64 << 20 };

struct call {
    struct http_request *request;
    unsigned route; /* of dashboard_routes */
    struct str id;  /* what stands for {id} or its like; borrowed from request */
    const struct master *master;            /* may be NULL on open routes */
    const struct master_key *key;           /* NULL for open routes */
    const struct master_campaign *campaign; /* of of_campaign routes */
    int64_t began_us;
    const struct config *config;
    struct redis *redis; /* ask only if away_ask says so, and report */
    struct pg *pg;
    struct away
        *redis_away; /* [0]: the server; on a cluster [1 + p]: partition p's */
    struct away *postgres_away;
    struct buf out;
    const char *content_type;
    const char *field; /* of ERR_INVALID */
    const char *extra; /* of ERR_NOTFOUND: more members of the answer, or NULL */
};

/* Whether the key may read the campaign at all: its account's, and its advertiser's. */
bool call_may_read(const struct master_key *key,
                   const struct master_campaign *campaign);

bool call_master_loaded(const struct call *call);
/* ERR_INVALID, with "FIELD RULE" as why. */
enum err call_invalid(struct call *call, const char *field, const char *rule,
                      struct why *why);

/* One a route. */
enum err serve_stats(struct call *call, struct why *why);
enum err serve_live(struct call *call, struct why *why);
enum err serve_click(struct call *call, struct why *why);
enum err serve_ready(struct call *call, struct why *why);
enum err serve_metrics(struct call *call, struct why *why);
enum err serve_openapi(struct call *call, struct why *why);
enum err serve_schema(struct call *call, struct why *why);
enum err serve_subjects(struct call *call, struct why *why);
enum err serve_versions(struct call *call, struct why *why);
enum err serve_version(struct call *call, struct why *why);

#endif

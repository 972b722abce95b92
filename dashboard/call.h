/* dashboard/call.h - one request on its way to an answer.
 *
 * A call is made by an HTTP thread, which has found the route and the key, and is served by
 * a worker, which owns one connection to Redis and one to PostgreSQL.
 *
 * Errors   What serve returns becomes a problem: ERR_INVALID 400, ERR_NOTFOUND 404, ERR_AGAIN
 *          503, the rest 500, with why as its detail.
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
#include "dashboard/dashboard.h"
#include "schema/master.h"

struct pg;
struct redis;

enum { ANSWER_BYTES_MAX = 64 << 20 };

struct call {
    struct http_request *request;
    unsigned route; /* of dashboard_routes */
    struct str id;  /* what stands for {id} or {event_id}; borrowed from request */
    const struct master *master;
    const struct master_key *key;           /* NULL for open routes */
    const struct master_campaign *campaign; /* of of_campaign routes */
    int64_t began_us;
    const struct config *config;
    struct redis *redis;
    struct pg *pg;
    struct buf out;
    const char *content_type;
};

/* Whether the key may read the campaign at all: its account's, and its advertiser's. */
bool call_may_read(const struct master_key *key,
                   const struct master_campaign *campaign);

/* One a route. */
enum err serve_stats(struct call *call, struct why *why);
enum err serve_live(struct call *call, struct why *why);
enum err serve_click(struct call *call, struct why *why);
enum err serve_ready(struct call *call, struct why *why);
enum err serve_metrics(struct call *call, struct why *why);

#endif

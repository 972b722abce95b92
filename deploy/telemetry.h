/* deploy/telemetry.h - /livez and /metrics of a process that serves no other HTTP: relay,
 * aggregate and archive when they run alone (metrics.port).
 *
 * Errors   docs/api.md.
 * Threads  Makes one.
 */
#ifndef DEPLOY_TELEMETRY_H
#define DEPLOY_TELEMETRY_H

#include "common/config.h"
#include "common/err.h"
#include "common/http.h"

/* *out is NULL when metrics.port is 0. */
enum err telemetry_start(struct http_server **out, const struct config *config,
                         struct why *why);

#endif

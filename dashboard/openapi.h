/* dashboard/openapi.h - the HTTP API as an OpenAPI 3.1 document, made from dashboard_routes,
 * CLICK_FIELDS and one table of parameters, so it cannot fall behind them.
 *
 * Threads  Pure.
 * Source   OpenAPI Specification 3.1.0.
 */
#ifndef DASHBOARD_OPENAPI_H
#define DASHBOARD_OPENAPI_H

#include "common/buf.h"
#include "common/config.h"

void openapi_format(const struct config *config, struct buf *out);

#endif

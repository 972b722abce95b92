/* fraud/honeypots.h - an exact set of ad ids.
 *
 * Memory   The ids' bytes and 16 to 24 an id.
 * Errors   ERR_FULL over RULESET_HONEYPOTS_MAX, ERR_NOMEM.
 * Threads  Building one; honeypots_has any, after honeypots_finish.
 */
#ifndef FRAUD_HONEYPOTS_H
#define FRAUD_HONEYPOTS_H

#include <stdbool.h>

#include "common/err.h"
#include "common/str.h"

struct honeypots;

enum err honeypots_open(struct honeypots **out, struct why *why);
void honeypots_close(struct honeypots **set);
enum err honeypots_add(struct honeypots *set, struct str ad_id, struct why *why);
enum err honeypots_finish(struct honeypots *set, struct why *why);
bool honeypots_has(const struct honeypots *set, struct str ad_id);

#endif

/* deploy/forget.h - `clickledger relay forget SPOOL`: a log whose machine is gone for good.
 *
 *   1. PostgreSQL   the log is lost: days do not wait for it, and what it had not told is
 *                   counted from the archive (billing/recount.h)
 *   2. Kafka        its word on click_control is taken back: another log may take over
 *
 * In this order, so that one that failed half-way is run again. Refused, unless forced, while
 * the log lives: it was heard within RECEIVED_QUIET_S, by either.
 *
 * Errors   ERR_CONFLICT: it lives. ERR_NOTFOUND: nobody knows it. ERR_AGAIN: one of the two
 *          is away; why says what is done and what is not.
 */
#ifndef DEPLOY_FORGET_H
#define DEPLOY_FORGET_H

#include <stdbool.h>

#include "common/config.h"
#include "common/err.h"

struct forget {
    const char *spool; /* 16 hexadecimal digits; NULL is an error */
    bool force, json;
};

enum err spool_forget(const struct config *config, const struct forget *forget,
                      struct why *why);

#endif

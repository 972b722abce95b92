/* dashboard/away.h - a server that does not answer is asked seldom, by one thread.
 *
 * A worker that waits for a dead server's time-out serves nobody meanwhile. So after a
 * failure all others pass it by, and one asks again when AWAY_FACTOR times what the failure
 * took is over: a refused connection is tried again soon, a time-out of 2 s after 8 s.
 *
 * Units    Microseconds of clock_mono_us.
 * Memory   None.
 * Threads  Any.
 */
#ifndef DASHBOARD_AWAY_H
#define DASHBOARD_AWAY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

#define AWAY_FACTOR INT64_C(4)
#define AWAY_MIN_US INT64_C(100000)
#define AWAY_MAX_US INT64_C(30000000)
#define AWAY_ASK_US INT64_C(30000000) /* one thread's turn at most */

struct away {
    const char *name;
    _Atomic int64_t until_us; /* 0: it answers */
};

/* Whether the caller may ask; if so it must report what came of it. */
bool away_ask(struct away *away, int64_t now_us);
/* ERR_AGAIN: no answer. Anything else is one. */
void away_report(struct away *away, enum err err, int64_t began_us, int64_t now_us,
                 const struct why *why);

#endif

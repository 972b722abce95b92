/* ingest/breaker.h - whether clicks are taken while Kafka does not acknowledge them.
 *
 *   closed     groups are appended and wait for their acknowledgement
 *   open       nothing is appended: 503 at once
 *   half open  one group is let through, the probe; others as when open
 *
 *              late                   caught up
 *   closed ----------> open <==================> half open ---probe acknowledged--> closed
 *                                     late
 *
 *   event        when                                        closed  half open  open
 *   admit        a group is about to be appended             yes     if none is under way:
 *                                                                    yes, the probe   no
 *   failed       the log refused the admitted group          -       probe is free    -
 *   acknowledged a group's clicks are with Kafka             -       probe: closed    -
 *   late         the oldest group that waits has waited for  open    open             -
 *                ingest.ack_ms_max; all that wait get 503
 *   caught up    Kafka has everything that was appended      -       -        half open
 *
 * So a breaker opens only after ingest.ack_ms_max without an acknowledgement, and closes
 * only after Kafka has all of the spool and one more group in time.
 *
 * Threads  The caller's lock.
 */
#ifndef INGEST_BREAKER_H
#define INGEST_BREAKER_H

#include <stdbool.h>

enum breaker_state {
    BREAKER_CLOSED = 0, /* the numbers of clickledger_ack_breaker */
    BREAKER_HALF_OPEN = 1,
    BREAKER_OPEN = 2,
};

struct breaker {
    enum breaker_state state;
    bool probing; /* half open: the probe is under way */
};

/* *probe: the group is the probe, and this must be said of it later. */
bool breaker_admit(struct breaker *breaker, bool *probe);
/* What breaker_admit would say. */
bool breaker_would_admit(const struct breaker *breaker);
void breaker_failed(struct breaker *breaker, bool probe);
/* true: it has closed. */
bool breaker_acknowledged(struct breaker *breaker, bool probe);
/* true: it has opened. */
bool breaker_late(struct breaker *breaker);
/* true: it is half open now. */
bool breaker_caught_up(struct breaker *breaker);

#endif

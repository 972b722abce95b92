/* billing/judge_state.h - what the stateful rules remember, in memory of a fixed size.
 *
 *   as long as users and addresses of two hours fit into bytes_max:
 *       clicks --in order--> fraud_window
 *   else, for each of k shards by key:
 *       spilled shard of the hour before and of this hour --> fraud_window
 *       the piece's clicks of that shard, in order        --> fraud_window
 *       fraud_window --> the new spill of this hour
 *
 * What a click sees depends only on fed clicks with its own user or address, so shards may
 * be taken one after the other, and k changes no result. k doubles when a shard does not fit;
 * when an hour begins and the one before fits again, it comes back into memory. A piece is
 * a batch's clicks of one slice: each costs one read of two hours' shards and one write.
 *
 * Units    Microseconds of receipt; ms of event time.
 * Memory   bytes_max, and 4 bytes a click of the piece while shards are in use.
 * Errors   ERR_FULL: it does not fit with FRAUD_SHARDS shards either, or the disk is full.
 * Threads  None.
 */
#ifndef BILLING_JUDGE_STATE_H
#define BILLING_JUDGE_STATE_H

#include <stdint.h>

#include "common/err.h"
#include "fraud/ruleset.h"

struct judged;
struct state;

/* Spills are files of judge_dir without a name. */
enum err state_open(struct state **out, const char *judge_dir, uint64_t bytes_max,
                    struct why *why);
void state_close(struct state **state);
/* Enters an hour of receipt: see fraud_window_hour. */
enum err state_hour(struct state *state, int64_t hour_us, struct why *why);
/* Adds the stateful reasons to those of the next clicks that feed; *done tells how many of
 * the n it took, at least one. */
enum err state_feed(struct state *state, const struct ruleset_limits *limits,
                    struct judged *clicks, uint64_t n, uint64_t *done,
                    struct why *why);
/* How many shards there are: 1 in memory. */
uint32_t state_shards(const struct state *state);

#endif

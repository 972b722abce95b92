/* aggregate/gap.h - a hole in a partition's sequence: how long to wait, what to skip.
 *
 *   ... L | s > L + 1 ...   read again some times, then stand still and tell. While it
 *   stands still the log is searched further on: after `clickledger relay rewind` the
 *   missing records come once more, and all after them:
 *
 *   ... L | L+5 L+6 L+7 | L+1 L+2 ... L+7 L+8
 *           dropped       counted
 *
 *   found at Y: records of that incarnation past L + 1 and before Y are dropped, since
 *   each of them comes again after Y.
 *
 * Not kept anywhere: a new owner finds the same hole, and the same Y.
 *
 * Units    Offsets of the log.
 * Threads  None.
 */
#ifndef AGGREGATE_GAP_H
#define AGGREGATE_GAP_H

#include <stdbool.h>
#include <stdint.h>

enum { GAP_SKIPS_MAX = 4 }; /* incarnations with a hole at the same time */

struct gap_skip {
    uint64_t incarnation;
    uint64_t expected; /* the first seq that is missing */
    uint64_t until;    /* where it is; 0: unused */
};

struct gap {
    struct gap_skip skips[GAP_SKIPS_MAX];
    uint32_t tries;  /* re-reads */
    int64_t find_us; /* when to look further on again */
};

/* Missing from expected on, found again at until. Takes the place of another one of the
 * incarnation, or of the one that ends first. */
void gap_skip_add(struct gap *gap, struct gap_skip skip);
/* This record, in front of which others are missing, comes again later. */
bool gap_skips(const struct gap *gap, uint64_t offset, uint64_t incarnation,
               uint64_t seq);

#endif

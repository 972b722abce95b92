/* billing/close_run.h - one run of one (time zone, day): what it sums and what it posts.
 *
 * Threads  None.
 */
#ifndef BILLING_CLOSE_RUN_H
#define BILLING_CLOSE_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "billing/close.h"
#include "billing/close_rows.h"
#include "billing/judge.h"
#include "common/hash.h"

/* Times in texts are microseconds, so that a cut inside a second stays exact. */
enum { RUN_TIME_SIZE = 40, RUN_DIFFERENCES_MAX = 20 };

struct close_run {
    const struct close_input *in;
    const char *zone_name;
    const struct zone *zone;
    int64_t day_from_ms, day_to_ms;
    int64_t after_us, until_us; /* slices with after_us < to_us <= until_us */
    int32_t sequence;           /* 0: regular; more: late */
    struct close_rows rows;
    uint8_t input_hash[HASH_SHA256_SIZE];
    char differences[1024]; /* "" when the identity holds */
    char forced[512];
};

/* Adds ingest's counts to rows.campaigns: hours of receipt before until_us, all of them. */
enum err close_received(struct close_run *run, struct why *why);
/* The clicks that earlier runs of this day posted, by campaign. */
enum err close_posted(struct close_run *run, struct close_rows *all,
                      struct why *why);
/* Writes the run: statistics, ledger, certificate; or, if differences are named, the
 * blocked run alone. Inside the caller's transaction. */
enum err close_post(struct close_run *run, struct why *why);

char *close_time(int64_t us, char text[RUN_TIME_SIZE]);

#endif

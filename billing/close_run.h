/* billing/close_run.h - one run of one (time zone, day): what it sums and what it posts.
 *
 *   close.c            which runs: zones, what is due, what stands already
 *   close_rows.c       slices' sums into rows
 *   close_identity.c   received against judged
 *   close_post.c       statistics, ledger, certificate
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
#include "billing/recount.h"
#include "common/hash.h"

/* Times in texts are microseconds, so that a cut inside a second stays exact. */
enum { RUN_TIME_SIZE = 40, RUN_DIFFERENCES_MAX = 20 };

/* A campaign is *moved* when clicks of it were judged in another time zone than it has now:
 * they came before it was known, so their days are UTC's. Which of its received counts
 * belong to which zone's day nobody can tell; so for it the identity is the sum over whole
 * hours of receipt, from from_us on: all that was received of it against all that was judged.
 * Account 0 stands for "this campaign is moved". */
struct close_moved {
    int64_t from_us;
    bool known; /* the rest is filled */
    struct close_rows totals;
};

/* Clicks of the day so far whose counts went with a lost log, less those that the day's earlier
 * runs have named: a log may be lost after a run that it still counted for. */
struct close_recounted {
    uint64_t spool;
    int64_t clicks;
};

struct close_run {
    const struct close_input *in;
    const struct judge_slice *slices;
    uint32_t slices_n;
    struct close_moved *moved; /* shared by the zones of a day */
    int64_t stored_below_us; /* hours of in->log before it are in received_count */
    const char *zone_name;
    const struct zone *zone;
    int64_t day_from_ms, day_to_ms;
    int64_t after_us, until_us; /* slices with after_us < to_us <= until_us */
    int32_t sequence;           /* 0: regular; more: late */
    struct close_rows rows;
    bool any_lost; /* some log is: billing/recount.h */
    struct close_recounted recounted[RECOUNT_SPOOLS_MAX];
    uint32_t recounted_n;
    bool summed;    /* anything judged is new */
    bool rows_full; /* rows holds totals only: there are too many to hold at once */
    uint8_t input_hash[HASH_SHA256_SIZE];
    char id[24];            /* of billing_run, while it is posted */
    uint64_t written;       /* rows copied */
    char differences[1024]; /* "" when the identity holds */
    char forced[512];
};

/* Each of the slices' sums of this run. */
enum err close_sums_each(struct close_run *run,
                         enum err (*add)(struct close_run *run,
                                         const struct sums_row *row,
                                         struct why *why),
                         struct why *why);
/* Compares, campaign by campaign, what was received so far for the day with what was judged
 * so far; names differences. Leaves the run's own part of received in rows.campaigns: what
 * earlier runs posted is theirs. ERR_AGAIN: the cut is inside an hour of receipt whose
 * counts can no longer be told apart, or not yet. */
enum err close_identity(struct close_run *run, struct why *why);
/* Whether anything may have been received for the day since the run before, or without its
 * knowledge: then the identity is looked at although nothing new is judged. */
enum err close_received_since(struct close_run *run, bool *any, struct why *why);
/* Takes a blocked run of this day away: it posted nothing. */
enum err close_unblock(struct close_run *run, struct why *why);
/* Writes the run: statistics, ledger, certificate; or, if differences are named, the
 * blocked run alone. Inside the caller's transaction. */
enum err close_post(struct close_run *run, struct why *why);

char *close_time(int64_t us, char text[RUN_TIME_SIZE]);

#endif

/* billing/judge.h - the exact, final verdict of each click, once.
 *
 *   archive files of one slice --decode--> clicks in order of receipt
 *     -> dedup against the id runs of 35 days -> fraud rules -> price -> daily budget
 *     -> verdict file beside each archive file, id run, sums, spend; listed in judged.log
 *
 * A slice is [from_us, to_us) of receipt, normally one UTC hour; a forced one ends
 * earlier and the next goes on from there. Order of receipt: (received_us, incarnation,
 * partition, seq). A slice is judged once: judged.log lists it when all its files are on
 * disk, and what is listed is frozen. Half-made files of an unlisted slice are overwritten.
 *
 *   DIR/judge/judged.log            one line a slice: from to clicks duplicates conflicts
 *                                   ruleset master files-sha256 checksum
 *   DIR/judge/ids/<from>-<to>.ids   id run: sorted hashes, then details (billing/idrun.h)
 *   DIR/judge/sums/<to_us>.avro     clicks and money per (campaign, local day, ad, country,
 *                                   device, publisher, unit price, reason, kind)
 *   DIR/judge/spend/<to_us>.avro    spent per (campaign, local day), last 9 days
 *
 * Rules look back one hour: the state for hour H holds the fed clicks received in H - 1 and
 * H so far, so the result does not depend on where slices were cut or a run was killed.
 * First received wins; the same id with another payload is counted as a conflict.
 * A forced cut that would go through an archive file moves on to the archive's `through`:
 * judged_until_us tells where it is.
 * An id counts as seen if it was received within billing.dedup_days, by hours of receipt.
 * Budget: the first click that does not fit, and all after it that local day, are
 * over_budget at price 0.
 *
 * Units    Micros; microseconds of receipt; local days.
 * Memory   billing.judge_clicks_max times about 150 bytes, whatever the day's size, and
 *          window_bytes_max for users and addresses of two hours of receipt: what does not
 *          fit is spilled to DIR/judge and judged in shards (billing/judge_state.h).
 * Errors   ERR_AGAIN: the archive has not everything up to to_us. ERR_CORRUPT names the file.
 * Threads  None; one judge at a time (DIR/judge/lock).
 */
#ifndef BILLING_JUDGE_H
#define BILLING_JUDGE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/err.h"
#include "fraud/ruleset.h"
#include "schema/master.h"

struct judge_input {
    const struct config *config;
    const char *archive_dir; /* DATA/archive */
    const char *judge_dir;   /* DATA/judge */
    const struct master *master;
    const struct ruleset *rules;
    int64_t until_us; /* judge every whole hour that ended at or before it ... */
    bool forced;      /* ... or exactly up to it */
    uint64_t window_bytes_max; /* of the rules' state; 0: JUDGE_WINDOW_BYTES_MAX */
    void (*progress)(void *ctx, uint64_t done, uint64_t total); /* may be NULL */
    void *progress_ctx;
};

struct judge_result {
    uint64_t slices, clicks, duplicates, conflicts;
    int64_t judged_until_us; /* what is judged now, all in all */
};

enum err judge_run(const struct judge_input *in, struct judge_result *out,
                   struct why *why);

/* Slices on record, oldest first. */
struct judge_slice {
    int64_t from_us, to_us;
    uint64_t clicks;
    uint16_t ruleset, master;
    uint8_t files_sha256[32]; /* of the archive files' sha256, in order */
};
enum err judge_slices(const char *judge_dir, struct judge_slice **out, uint32_t *n,
                      struct why *why);

/* One click by its event id (any account): where it is, and its verdicts. */
struct judge_found {
    char archive_path[256];
    uint64_t offset, row;
    bool judged;
};
enum err judge_find(const char *archive_dir, const char *judge_dir,
                    const uint8_t event_id[16], struct judge_found *out,
                    uint32_t max, uint32_t *n, struct why *why);

#endif

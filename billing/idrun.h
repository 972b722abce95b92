/* billing/idrun.h - id runs: every judged click's (account, event id), sorted by hash.
 *
 * A slice leaves one run; the runs of a finished UTC day of receipt are merged into one
 * (merged, never sorted again). The judge streams the hashes of 35 days past a batch of new
 * clicks; what is equal in 64 bits is confirmed exactly in the details.
 *
 *   DIR/ids/<from_us>-<to_us>.ids       receipt [from, to); little-endian:
 *     header    128 bytes: magic, version, counts, bounds, offsets, checksums
 *     hashes    count x u64, ascending; equal ones in order of receipt
 *     details   count x struct idrun_detail, in the same order
 *     tables    archive files, zones, accounts that the details point to
 *
 * A run inside the bounds of another one is a leftover of a merge, and is passed over.
 * A run past the last slice of judged.log is of a run that was killed: overwritten.
 *
 * Checksums are XXH3, chained over chunks of IDRUN_CHUNK entries; checked by whatever reads
 * a run from end to end, the header's at each open.
 *
 * Units    Microseconds of receipt; local days since 1970-01-01.
 * Memory   Chunks of IDRUN_CHUNK entries read with pread: a run is never mapped, so
 *          resident memory does not grow with the days kept.
 * Errors   ERR_CORRUPT names the file.
 * Threads  None. Runs are immutable; readers any, any process.
 */
#ifndef BILLING_IDRUN_H
#define BILLING_IDRUN_H

#include <stdbool.h>
#include <stdint.h>

#include "billing/publish.h"
#include "common/err.h"
#include "common/str.h"

enum { IDRUN_CHUNK = 32768, IDRUN_RUNS_MAX = 4096, IDRUN_ZONES_MAX = 4096 };

/* One click; file, zone are places in the run's tables. 40 bytes, as stored. */
struct idrun_detail {
    uint8_t event_id[16];
    uint32_t account;
    uint32_t payload; /* low half of XXH3 of the event as sent */
    uint32_t row;     /* in the archive file */
    uint32_t file;
    int32_t day; /* local, of the event time */
    uint16_t zone;
    uint8_t kind; /* enum verdict_kind */
    uint8_t flags;
};

/* One archive file of a run, as stored. */
struct idrun_file {
    int64_t hour_us;     /* of receipt */
    int64_t slice_to_us; /* the slice that judged it */
    uint64_t base;       /* offset of row 0 */
    uint32_t partition;
    uint32_t path_at; /* in the run's text */
};

struct idrun;

enum err idrun_open(struct idrun **out, const char *path, struct why *why);
void idrun_close(struct idrun **run);
uint64_t idrun_count(const struct idrun *run);
int64_t idrun_from_us(const struct idrun *run);
int64_t idrun_to_us(const struct idrun *run);
const struct idrun_file *idrun_file(const struct idrun *run, uint32_t file);
/* Path of the archive file, relative to the archive's folder. */
const char *idrun_file_path(const struct idrun *run, uint32_t file);
/* "" past the table. */
struct str idrun_zone(const struct idrun *run, uint16_t zone);
const uint32_t *idrun_accounts(const struct idrun *run, uint32_t *n);
enum err idrun_detail_read(struct idrun *run, uint64_t index,
                           struct idrun_detail *out, struct why *why);
/* Calls visit for each place whose hash is `hash`. */
enum err idrun_find(struct idrun *run, uint64_t hash,
                    enum err (*visit)(void *ctx, uint64_t index, struct why *why),
                    void *ctx, struct why *why);

/* Every kept run whose receipt lies in [since_us, until_us) at least partly, by time. */
struct idruns {
    struct idrun **runs;
    uint32_t n;
};
enum err idruns_open(struct idruns *out, const char *judge_dir, int64_t since_us,
                     int64_t until_us, struct why *why);
void idruns_close(struct idruns *runs);

/* Makes DIR/ids/<from>-<to>.ids; add in order of (hash, receipt), `count` times. */
struct idrun_writer;
struct idrun_tables {
    const struct idrun_file *files; /* path_at into text */
    uint32_t files_n;
    const char *text; /* NUL-terminated paths */
    uint32_t text_n;
    const struct str *zones;
    uint32_t zones_n;
    const uint32_t *accounts;
    uint32_t accounts_n;
};
enum err idrun_create(struct idrun_writer **out, const char *path, int64_t from_us,
                      int64_t to_us, uint64_t count, struct why *why);
enum err idrun_add(struct idrun_writer *writer, uint64_t hash,
                   const struct idrun_detail *detail, struct why *why);
/* publish NULL: durable on return. Frees the writer, also on failure. */
enum err idrun_finish(struct idrun_writer **writer,
                      const struct idrun_tables *tables, struct publish *publish,
                      struct why *why);
void idrun_abort(struct idrun_writer **writer);

/* The path of a run. */
void idrun_path(char *out, size_t size, const char *judge_dir, int64_t from_us,
                int64_t to_us);
/* Merges runs (ordered by receipt) into a new one at path, which may replace one of them. */
enum err idrun_merge(struct idrun *const *runs, uint32_t n, const char *path,
                     int64_t from_us, int64_t to_us, struct why *why);
/* Removes runs that ended at or before forget_us; merges the runs of each UTC day that
 * ended at or before judged_us; removes what a merge replaced. */
enum err idruns_tidy(const char *judge_dir, int64_t forget_us, int64_t judged_us,
                     struct why *why);

/* A click that was billed (billable or suspicious). */
struct idrun_billed {
    uint64_t hash; /* fraud_id_hash(account, event_id) */
    uint8_t event_id[16];
    uint32_t account;
    int64_t slice_to_us;
};
struct idrun_filter {
    int64_t after_us, until_us; /* slices with after_us < to_us <= until_us */
    struct str zone;            /* of the campaign; "UTC" for unknown ones */
    int32_t day;
};
/* Visits the billed clicks of a local day in ascending order of (hash, receipt), over all
 * runs: the leaves of the certificate's Merkle tree. visit returns false to stop. */
enum err idrun_billed_each(const char *judge_dir, const struct idrun_filter *filter,
                           bool (*visit)(void *ctx,
                                         const struct idrun_billed *billed),
                           void *ctx, struct why *why);

#endif

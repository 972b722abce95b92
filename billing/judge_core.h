/* billing/judge_core.h - the inside of the judge, shared by its files.
 *
 *   judge.c        which slices, in which batches; the lock; start and end
 *   judge_plan.c   where slices begin and end
 *   judge_batch.c  clicks into memory; repeats, against the batch and the id runs
 *   judge_slice.c  in order of receipt: rules, price, budget; what a slice leaves
 *   judge_state.c  users and addresses, in bounded memory
 *   judge_replay.c what they knew before the first slice
 *   judge_sums.c   clicks and money by key
 *   judge_log.c    judged.log
 *   judge_find.c   one click by its id
 *
 * A batch is as many whole slices as fit billing.judge_clicks_max clicks, or a piece of a
 * slice that does not fit. State carries over, so where a batch ends changes no result.
 *
 * Units    Microseconds of receipt; micros.
 * Memory   struct judged is 112 bytes a click, sorting takes 32 more.
 * Errors   As billing/judge.h.
 * Threads  None.
 */
#ifndef BILLING_JUDGE_CORE_H
#define BILLING_JUDGE_CORE_H

#include "billing/dims.h"
#include "billing/final.h"
#include "billing/idrun.h"
#include "billing/judge.h"
#include "billing/judge_state.h"
#include "billing/judge_stream.h"
#include "billing/publish.h"
#include "billing/spend.h"
#include "billing/sums.h"
#include "common/file.h"
#include "fraud/fraud.h"
#include "schema/manifest.h"

enum { BATCH_SLICES_MAX = 256, JUDGE_ACCOUNTS_MAX = 1 << 20 };

/* Users and addresses of two hours; past it, shard by shard. */
#define JUDGE_WINDOW_BYTES_MAX (UINT64_C(72) << 20)
#define JUDGE_NO_CAMPAIGN      UINT32_MAX

/* One click in memory. */
struct judged {
    uint64_t id_hash;
    uint8_t event_id[16];
    uint64_t user_key, address_key;
    int64_t event_ms;
    int64_t hour_us; /* of receipt */
    int64_t list_micros;
    uint64_t seq;
    uint32_t account, payload;
    uint32_t reasons;
    uint32_t file, row; /* file: place in its slice */
    uint32_t dims;
    uint32_t campaign; /* master's index, or JUDGE_NO_CAMPAIGN */
    int32_t day;
    uint16_t zone;
    uint8_t flags; /* FINAL_CONFLICT */
    uint8_t kind;
};

struct sorted {
    uint64_t hash;
    uint64_t at; /* click of the batch */
};

/* A slice at work. */
struct slice {
    int64_t from_us, to_us;
    const struct manifest_file *files;
    uint32_t files_n;
    uint64_t clicks;     /* by the manifest */
    uint64_t first, end; /* its clicks of this batch */
    bool ends;           /* in this batch */
    uint64_t done;       /* clicks judged, of all batches */
    uint64_t duplicates, conflicts;
    struct final_writer **finals; /* a file */
    uint64_t *finals_done;        /* rows a file */
    struct sums_writer *sums;
    uint32_t parts_n; /* id runs of its earlier batches */
    struct idrun_file *id_files;
    char *id_text;
    uint32_t id_text_n;
};

struct sums_table;

struct sum_key {
    uint32_t dims;
    uint8_t kind, reason;
    int64_t price_micros; /* billed for one click */
};

struct judge {
    const struct judge_input *in;
    int64_t dedup_us;
    int lock_fd;
    struct manifest manifest;
    int64_t judged_us; /* slices on record end here */
    int64_t spend_us;  /* the last one with clicks: its spend file is in force */
    struct judge_slice *record;
    uint32_t record_n;
    struct idruns runs; /* grows; runs.n at most IDRUN_RUNS_MAX */
    struct spend *spend;
    struct state *state;
    struct agent_cache *agents;
    struct str zones[IDRUN_ZONES_MAX]; /* [0] is UTC */
    uint32_t zones_n;
    uint16_t *zone_of;  /* by master's campaign index */
    uint32_t *accounts; /* ascending, of the slice */
    uint32_t accounts_n, accounts_cap;
    struct dims *dims;
    struct sums_table *sums;
    struct publish publish; /* files of slices that are not on record yet */

    struct judged *clicks; /* the batch, in order of receipt */
    struct sorted *sorted, *spare;
    uint64_t clicks_n, clicks_cap;
    uint64_t done, total; /* for progress */
    struct judge_result result;
};

/* judge_plan.c */
/* The first file received at or after us. */
uint32_t judge_file_after(const struct judge *judge, int64_t us);
/* How far this run goes. A forced cut that goes through a file moves to the next place where
 * all partitions were rolled together: the archive's `through`. */
enum err judge_limit(const struct judge *judge, int64_t *limit_us, struct why *why);
/* The next slice: the rest of an hour, or all hours up to the next click. */
void slice_next(const struct judge *judge, int64_t from_us, int64_t limit_us,
                struct slice *out);

/* judge_log.c */
enum err judge_log_append(const char *judge_dir, const struct judge_slice *slice,
                          uint64_t duplicates, uint64_t conflicts, struct why *why);
/* Cuts a torn end; for the one who holds the lock. */
enum err judge_log_mend(const char *judge_dir, struct why *why);

/* judge_batch.c */
enum err batch_add(struct judge *judge, const struct stream_click *in,
                   struct why *why);
bool batch_full(const struct judge *judge);
/* Marks repeats (and conflicts) in the whole batch; leaves `sorted` by (hash, receipt). */
enum err batch_dedup(struct judge *judge, struct why *why);
/* Reorders `sorted` so that each slice's clicks stand together, still sorted. */
void batch_split(struct judge *judge, const struct slice *slices, uint32_t n);
/* (hash, receipt) order. */
void judge_sort(struct sorted *sorted, struct sorted *spare, uint64_t n);

/* judge_slice.c */
enum err slice_begin(struct judge *judge, struct slice *slice, struct why *why);
/* Judges the batch's clicks of the slice. */
enum err slice_judge(struct judge *judge, struct slice *slice, struct why *why);
/* Makes what the slices that ended have left durable, then puts them on record. */
enum err slices_commit(struct judge *judge, const struct slice *slices, uint32_t n,
                       struct why *why);
void slice_free(struct slice *slice);
/* judge_replay.c */
/* How many clicks slice_replay will read. */
uint64_t slice_replay_clicks(const struct judge *judge, int64_t from_us);
/* Feeds the rules' state with what was judged in the hour before from_us and in its hour. */
enum err slice_replay(struct judge *judge, int64_t from_us, struct why *why);

/* judge_sums.c */
enum err sums_table_open(struct sums_table **out, struct why *why);
void sums_table_close(struct sums_table **table);
enum err sums_table_add(struct sums_table *table, const struct sum_key *key,
                        int64_t list_micros, bool conflict, struct why *why);
/* Fetches the memory that adding key will touch: its slot, and later, with row, its row. */
void sums_table_prefetch(const struct sums_table *table, const struct sum_key *key,
                         bool row);
/* Writes the rows into the slice's file and empties the table. */
enum err sums_table_flush(struct judge *judge, struct slice *slice,
                          struct why *why);

#endif

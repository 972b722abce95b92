/* billing/close.h - local days into PostgreSQL: aggregates, ledger, certificate, once.
 *
 * close_day(D) closes day D of every time zone that has clicks of D (or of one zone):
 * one transaction per zone claims billing_run (unique by zone, day, kind, input hash), COPYs
 * campaign_daily_stats, posts the double-entry ledger, stores the certificate:
 *   received (counted by ingest) = archived = billable + over_budget + invalid + duplicate +
 *   quarantined, per campaign; Merkle root over blocks of 4,096 billed ids sorted by hash;
 *   chained to the run before.
 * The same input again: no-op. Clicks judged since the day's run post as a `late` run. Other
 * changes of a closed day: ERR_CONFLICT, nothing written.
 * Clicks of unknown campaigns close with the days of UTC.
 * If the identity does not hold the run is stored as `blocked`, posts nothing, and blocks
 * invoices; the next attempt takes its place.
 *
 * A log that is lost (`clickledger relay forget`) took the counts of its last hours with it: they
 * are counted from the archive (billing/recount.h), are part of received, and stand in the
 * certificate by log. Only then has its line ` recounted=SPOOL:N,...` before ` merkle=`.
 *
 * certificate.hash is the SHA-256 of one line of text without a line end, and the chain is
 * made of the certificates of posted runs, by run number; previous is the hash before (hex), or
 * nothing for the first:
 *   run=ID zone=ZONE day=YYYY-MM-DD sequence=N input=HEX received=N archived=N billable=N
 *   suspicious=N over_budget=N invalid=N duplicate=N quarantined=N conflicts=N merkle=HEX
 *   previous=HEX
 * (here folded; there with one blank between words).
 *
 * Units    Micros; local days (days since 1970-01-01).
 * Errors   ERR_AGAIN: too early (grace), not judged far enough, PostgreSQL away; `force`
 *          names what it overrides in the run.
 * Threads  One; two processes: the second waits for an advisory lock, then finds a no-op.
 */
#ifndef BILLING_CLOSE_H
#define BILLING_CLOSE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/err.h"
#include "schema/master.h"

struct clicklog;
struct pg;

struct close_input {
    const struct config *config;
    const char *archive_dir;
    const char *judge_dir;
    const struct master *master;
    struct pg *pg;
    struct clicklog
        *log;        /* this machine's, for its *received* counts; may be NULL */
    int64_t sent_us; /* with Kafka: the brokers have what log received before it; 0:
                      * there is no Kafka */
    int32_t day;
    const char *zone; /* NULL: all */
    int64_t now_us;
    uint32_t rows_max; /* held at once; 0: CLOSE_ROWS_MAX */
    bool force;        /* grace and unheard-of ingest processes */
    void (*progress)(void *ctx, uint64_t done, uint64_t total);
    void *progress_ctx;
};

struct close_result {
    uint32_t runs_new, runs_same, runs_late, runs_blocked;
    uint32_t runs_early; /* time zones whose day (or its grace) is not over */
    uint64_t clicks, billable;
    uint64_t
        recounted; /* of clicks: counted from the archive, since their log is lost */
};

enum err close_day(const struct close_input *in, struct close_result *out,
                   struct why *why);

/* Stores *received* counts of finished hours from the click log: received_count in
 * PostgreSQL, a no-op for what is there. Returns the hour below which the log may forget. */
enum err received_store(struct clicklog *log, struct pg *pg,
                        int64_t *stored_below_us, struct why *why);
/* Only hours that ended by below_us. With Kafka: that the brokers have all clicks of. A count
 * that outlived its clicks would block its day for ever. ERR_CONFLICT: the log was given up. */
enum err received_store_below(struct clicklog *log, struct pg *pg, int64_t below_us,
                              int64_t *stored_below_us, struct why *why);

enum { RECEIVED_QUIET_S = 120 /* a log that lives tells its counts every 30 s */ };

struct received_lost {
    bool known;       /* it had told counts before, or was given up before */
    char lost_at[40]; /* as PostgreSQL writes it */
    char told_to[40]; /* its counts are known up to here */
};

/* Gives a log up as lost with its machine: what it received since it told its counts last is
 * counted from the archive (billing/recount.h), and days do not wait for it. Once given up it
 * stays so; again is a no-op. Unless forced, ERR_CONFLICT: it told its counts within
 * RECEIVED_QUIET_S; ERR_NOTFOUND: it is not known here and `known` is false. */
enum err received_lose(struct pg *pg, uint64_t spool, bool known, bool force,
                       struct received_lost *out, struct why *why);

#endif

#include "schema/master_import.h"

#include <assert.h>

#include "common/clock.h"
#include "common/file.h"
#include "common/pg.h"
#include "schema/import_plan.h"
#include "schema/import_rows.h"

/* Imports wait for each other; closing a day waits for an import, so that a day cannot
 * close between the look at what is closed and the commit. */
static const char lock_sql[] = "SELECT pg_advisory_xact_lock(4856072202); LOCK "
                               "TABLE billing_run IN SHARE MODE";

static enum err
refused(struct import *import, struct buf *report, struct why *why)
{
    uint32_t n = import->errors_n + import->errors_more;

    import_errors_format(import, report);
    return err_set(why, ERR_INVALID, "%u error%s in the file: nothing was imported",
                   n, n == 1 ? "" : "s");
}

static void
report_done(const struct import_plan *plan, bool dry_run, struct buf *report)
{
    buf_printf(report,
               "%scampaigns: %u new, %u changed, %u as they were; "
               "rates %u, budgets %u, statuses %u\n",
               dry_run ? "dry run, nothing written: " : "", plan->campaigns_new,
               plan->campaigns_changed, plan->campaigns_same, plan->rates_n,
               plan->budgets_n, plan->statuses_n);
}

/* In the transaction: look, plan, write. */
static enum err
plan_and_apply(struct pg *pg, struct import *import, bool dry_run, int64_t now_ms,
               struct buf *report, struct why *why)
{
    struct import_there there;
    struct import_plan plan;
    enum err err = pg_exec(pg, lock_sql, NULL, 0, NULL, why);

    if (err == ERR_OK)
        err = import_there_load(&there, pg, why);
    if (err != ERR_OK)
        return err;
    err = import_plan(&plan, import, &there, now_ms, why);
    if (err == ERR_OK) {
        if (import->errors_n > 0)
            err = refused(import, report, why);
        if (err == ERR_OK && !dry_run)
            err = import_apply(&plan, pg, why);
        if (err == ERR_OK)
            report_done(&plan, dry_run, report);
        import_plan_free(&plan);
    }
    import_there_free(&there);
    return err;
}

enum err
master_import_text(struct pg *pg, struct str csv, bool dry_run, int64_t now_ms,
                   struct buf *report, struct why *why)
{
    struct import import;
    enum err err = import_parse(&import, csv, why);

    if (err == ERR_OK && (err = pg_begin(pg, why)) == ERR_OK) {
        err = plan_and_apply(pg, &import, dry_run, now_ms, report, why);
        if (err == ERR_OK && !dry_run)
            err = pg_commit(pg, why);
        if (err != ERR_OK || dry_run)
            pg_rollback(pg);
    }
    import_free(&import);
    return err;
}

enum err
master_import(struct pg *pg, const char *path, bool dry_run, struct buf *report,
              struct why *why)
{
    struct buf csv = BUF_MAX(IMPORT_BYTES_MAX);
    enum err err = file_read(path, &csv, why);

    if (err == ERR_OK)
        err = master_import_text(pg,
                                 (struct str){(const char *)csv.p, (uint32_t)csv.n},
                                 dry_run, clock_now_us() / 1000, report, why);
    buf_free(&csv);
    return err;
}

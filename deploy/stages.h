/* deploy/stages.h - the stages of one process: opened in the order in which clicks travel,
 * stopped in the same order, so that nothing accepted is left behind.
 *
 *   click log -> ingest -> aggregate -> archive -> dashboard; keeper; scheduler
 *
 * The keeper follows master data and rule sets, stores *received* counts and trims the log.
 * The scheduler judges each finished hour and closes days whose grace is over.
 *
 * Threads  stages_start and stages_stop from main; the rest run by themselves.
 */
#ifndef DEPLOY_STAGES_H
#define DEPLOY_STAGES_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "aggregate/aggregate.h"
#include "billing/archive.h"
#include "common/clicklog.h"
#include "common/config.h"
#include "common/err.h"
#include "common/verdictlog.h"
#include "dashboard/dashboard.h"
#include "fraud/ruleset.h"
#include "ingest/ingest.h"
#include "schema/master.h"

enum stage {
    STAGE_INGEST = 1,
    STAGE_AGGREGATE = 2,
    STAGE_ARCHIVE = 4,
    STAGE_DASHBOARD = 8,
    STAGE_SCHEDULER = 16,
    STAGE_ALL = 31,
};

struct pg;

struct stages {
    const struct config *config;
    unsigned which; /* bits of enum stage */
    char archive_dir[1024];
    char judge_dir[1024];
    int ingest_fd, archive_fd; /* locks: one writer each a data directory */
    struct clicklog *log;
    struct verdictlog *verdicts;
    struct master_source *master;
    struct ruleset_source *rules;
    struct ingest *ingest;
    struct aggregate *aggregate;
    struct archive *archive;
    struct dashboard *dashboard;
    pthread_t keeper, scheduler;
    bool keeper_runs, scheduler_runs;
    atomic_bool stop;
};

enum err stages_start(struct stages *stages, const struct config *config,
                      unsigned which, struct why *why);
void stages_stop(struct stages *stages);

/* The two threads' bodies (deploy/keeper.c, deploy/scheduler.c); ctx is struct stages. */
void *stages_keeper(void *ctx);
void *stages_scheduler(void *ctx);
/* One look of the scheduler: judges and closes what is due, if no other process is at it
 * (ERR_AGAIN). *judged_us is how far it saw things judged before: 0 at first. */
enum err stages_look(struct stages *stages, struct pg *pg, int64_t *judged_us,
                     struct why *why);
/* Sleeps up to us, less when stopping. Returns false when stopping. */
bool stages_sleep(struct stages *stages, int64_t us);

#endif

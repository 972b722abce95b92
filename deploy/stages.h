/* deploy/stages.h - the stages of one process: opened in the order in which clicks travel,
 * stopped in the same order, so that nothing accepted is left behind.
 *
 *   click log -> ingest -> (relay) -> aggregate -> archive -> dashboard; keeper; scheduler
 *
 * With Kafka (kafka.brokers) the log is the spool that the relay sends from, and aggregate
 * and archive each read a Kafka view of their own; a process without ingest and relay then
 * needs no spool. Without Kafka there is no relay, and all read the log itself.
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
#include "common/control.h"
#include "common/err.h"
#include "common/file.h"
#include "common/http.h"
#include "common/verdictlog.h"
#include "dashboard/dashboard.h"
#include "fraud/ruleset.h"
#include "ingest/ingest.h"
#include "ingest/relay.h"
#include "schema/master.h"

enum stage {
    STAGE_INGEST = 1,
    STAGE_AGGREGATE = 2,
    STAGE_ARCHIVE = 4,
    STAGE_DASHBOARD = 8,
    STAGE_SCHEDULER = 16,
    STAGE_RELAY = 32,
    STAGE_ALL = 63,
};

enum { STAGES_N = 6 };

/* Waiting for brokers that are away when a process starts. */
enum { STAGES_KAFKA_WAIT_S = 30 };

struct pg;

struct stages {
    const struct config *config;
    unsigned which; /* bits of enum stage */
    char archive_dir[1024];
    char judge_dir[1024];
    char relay_dir[FILE_PATH_MAX];
    int locks[STAGES_N];  /* one process a stage and data directory; -1: not held */
    struct clicklog *log; /* the spool; NULL: not needed here */
    struct clicklog *aggregate_log,
        *archive_log; /* Kafka views, or the log itself */
    struct verdictlog *verdicts;
    struct control *control; /* with Kafka */
    struct relay *relay;
    struct master_source *master;
    struct ruleset_source *rules;
    struct ingest *ingest;
    struct aggregate *aggregate;
    struct archive *archive;
    struct dashboard *dashboard;
    struct http_server *telemetry; /* of a process without either */
    pthread_t keeper, scheduler;
    bool keeper_runs, scheduler_runs;
    atomic_bool stop;
};

enum err stages_start(struct stages *stages, const struct config *config,
                      unsigned which, struct why *why);
void stages_stop(struct stages *stages);

/* The stage of a command's name; 0: none. */
unsigned stage_of(const char *name);

/* DATA/log as the configuration has it; commands read it, ingest alone writes. */
enum err stages_spool_open(const struct config *config, bool read_only,
                           struct clicklog **out, struct why *why);
/* The log and what reads it, of LMDB or of Kafka (deploy/stages_log.c). */
enum err stages_log_open(struct stages *stages, struct why *why);
void stages_log_close(struct stages *stages);

/* The brokers have what the spool received before *sent_us, at least 1; INT64_MAX without
 * Kafka. */
enum err stages_sent(const struct stages *stages, int64_t *sent_us,
                     struct why *why);

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

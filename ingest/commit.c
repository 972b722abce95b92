#include "ingest/commit.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "common/clock.h"
#include "common/log.h"
#include "ingest/ack.h"

struct commit {
    struct commit_config cfg;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t ready;
    /* under mutex */
    struct commit_job *head, **tail;
    unsigned clicks; /* queued */
    size_t bytes;
    struct ingest_trim trim;
    bool trim_asked, ending;
    unsigned wake_clicks; /* the committer sleeps until so many wait; 0: awake */
    /* the committer's */
    struct clicklog_entry *entries;
    unsigned last_clicks; /* of the group before */
    int64_t complain_us;
    atomic_bool broken;
    struct metric *groups, *clicks_total, *group_clicks, *seconds, *failed;
};

static void
metrics_declare(struct commit *commit)
{
    commit->groups = metric_counter("clickledger_commits_total", NULL,
                                    "Groups appended to the click log");
    commit->clicks_total = metric_counter("clickledger_committed_clicks_total",
                                          NULL, "Clicks appended to the click log");
    commit->group_clicks = metric_gauge("clickledger_commit_group_clicks", NULL,
                                        "Clicks in the last group");
    commit->failed = metric_counter("clickledger_commits_failed_total", NULL,
                                    "Groups that the click log refused");
    commit->seconds = metric_histogram("clickledger_commit_seconds", NULL,
                                       "One append with its sync");
}

/* Sleeps until so many clicks wait, or a signal, or at_us (monotone). */
static void
wait_until(struct commit *commit, unsigned clicks, int64_t at_us)
{
    struct timespec at = {.tv_sec = at_us / CLOCK_SECOND_US,
                          .tv_nsec = at_us % CLOCK_SECOND_US * 1000};

    commit->wake_clicks = clicks;
    (void)pthread_cond_timedwait(&commit->ready, &commit->mutex, &at);
    commit->wake_clicks = 0;
}

/* Whole jobs, at least one, at most group_clicks_max clicks. */
static struct commit_job *
group_take(struct commit *commit, unsigned *clicks)
{
    struct commit_job *first = commit->head, **link = &commit->head;

    *clicks = 0;
    while (*link != NULL && (*clicks == 0 || *clicks + (*link)->entries_n <=
                                                 commit->cfg.group_clicks_max)) {
        *clicks += (*link)->entries_n;
        commit->bytes -= (*link)->bytes;
        link = &(*link)->next;
    }
    commit->clicks -= *clicks;
    commit->head = *link;
    *link = NULL;
    if (commit->head == NULL)
        commit->tail = &commit->head;
    return *clicks == 0 ? NULL : first;
}

/* Sleeps until there is work or the heartbeat is due. When far fewer clicks wait than the
 * last group had, its senders are just about to come again: a moment's patience saves
 * syncs. A lone sender never waits. Returns the group, NULL for none; mutex held. */
static struct commit_job *
group_wait(struct commit *commit, unsigned *clicks)
{
    int64_t now_us = clock_mono_us(), until_us = now_us + COMMIT_HEARTBEAT_US;

    while (commit->head == NULL && !commit->trim_asked && !commit->ending &&
           now_us < until_us) {
        wait_until(commit, 1, until_us);
        now_us = clock_mono_us();
    }
    until_us = now_us + commit->cfg.group_wait_us;
    while (commit->head != NULL && commit->clicks < commit->last_clicks / 2 &&
           !commit->ending && now_us < until_us) {
        wait_until(commit, commit->last_clicks / 2, until_us);
        now_us = clock_mono_us();
    }
    return group_take(commit, clicks);
}

static void
group_refuse(struct commit *commit, struct commit_job *job, enum err err,
             const char *why)
{
    /* Both are ERR_FULL; only our own limit names its key. */
    bool own_limit = strstr(why, "clicklog.bytes_max") != NULL;
    const char *code = err != ERR_FULL ? "log_failed"
                       : own_limit     ? "log_full"
                                       : "disk_full";
    const char *detail =
        err != ERR_FULL
            ? "The click log failed; nothing was stored. Send the same again."
        : own_limit
            ? "The click log is full until clicks are archived; nothing was "
              "stored. Send the same again later."
            : "The disk is full; nothing was stored. Send the same again later.";

    while (job != NULL) {
        struct commit_job *next = job->next;

        reply_problem(commit->cfg.counts, job->request, 503, code, detail, NULL,
                      REPLY_RETRY_FULL_S);
        job = next;
    }
}

static void
complain(struct commit *commit, enum err err, const struct why *why)
{
    struct clicklog_stats stats;

    metric_add(commit->failed, 1);
    clicklog_stats_get(commit->cfg.log, &stats);
    if (err == ERR_FATAL || stats.broken)
        atomic_store(&commit->broken, true);
    if (clock_mono_us() < commit->complain_us)
        return;
    commit->complain_us = clock_mono_us() + 10 * CLOCK_SECOND_US;
    log_event(LOG_ERROR, "commit_refused", LOG_TEXT("error", err_name(err)),
              LOG_TEXT("why", why->text));
}

/* Takes the jobs. */
static void
group_answer(struct commit *commit, struct commit_job *job, unsigned n)
{
    if (commit->cfg.ack != NULL) {
        ack_put(commit->cfg.ack, job, commit->entries, n);
        return;
    }
    while (job != NULL) {
        struct commit_job *next = job->next; /* the job dies with its answer */

        reply_json(commit->cfg.counts, job->request, 202, job->answer);
        job = next;
    }
}

static void
group_commit(struct commit *commit, struct commit_job *job, unsigned clicks)
{
    int64_t began_us = clock_mono_us();
    struct why why = {{0}};
    unsigned n = 0;
    enum err err;

    if (commit->cfg.ack != NULL && !ack_admit(commit->cfg.ack)) {
        ack_refuse(commit->cfg.counts, job);
        return;
    }
    for (const struct commit_job *j = job; j != NULL; j = j->next) {
        memcpy(commit->entries + n, j->entries, j->entries_n * sizeof(*j->entries));
        n += j->entries_n;
    }
    assert(n == clicks);
    err = clicklog_append(commit->cfg.log, commit->entries, n, clock_now_us(), NULL,
                          &why);
    if (err != ERR_OK) {
        complain(commit, err, &why);
        if (commit->cfg.ack != NULL)
            ack_failed(commit->cfg.ack);
        group_refuse(commit, job, err, why.text);
        return;
    }
    metric_observe_us(commit->seconds, clock_mono_us() - began_us);
    metric_add(commit->groups, 1);
    metric_add(commit->clicks_total, clicks);
    metric_set(commit->group_clicks, clicks);
    group_answer(commit, job, n);
}

static void
heartbeat(struct commit *commit)
{
    struct why why = {{0}};
    enum err err =
        clicklog_append(commit->cfg.log, NULL, 0, clock_now_us(), NULL, &why);

    if (err != ERR_OK)
        complain(commit, err, &why);
}

static void
trim_run(struct commit *commit, const struct ingest_trim *trim)
{
    struct clicklog *log = commit->cfg.log;
    struct why why = {{0}};
    enum err err = ERR_OK;

    for (uint32_t p = 0; p < clicklog_partitions(log) && err == ERR_OK; p++)
        if (trim->below[p] > 0)
            err = clicklog_trim(log, p, trim->below[p], &why);
    if (err == ERR_OK && trim->received_drop_us > 0)
        err = clicklog_received_drop(log, trim->received_drop_us, &why);
    if (err != ERR_OK)
        complain(commit, err, &why);
}

static void *
commit_main(void *arg)
{
    struct commit *commit = arg;
    int64_t beat_us = clock_mono_us();
    bool ended = false;

    while (!ended) {
        struct ingest_trim trim;
        struct commit_job *group;
        unsigned clicks;
        bool trims;

        (void)pthread_mutex_lock(&commit->mutex);
        group = group_wait(commit, &clicks);
        trims = commit->trim_asked;
        trim = commit->trim;
        commit->trim_asked = false;
        commit->trim = (struct ingest_trim){0};
        ended = commit->ending && commit->head == NULL;
        (void)pthread_mutex_unlock(&commit->mutex);
        if (group != NULL) {
            commit->last_clicks = clicks;
            group_commit(commit, group, clicks);
            beat_us = clock_mono_us();
        } else if (clock_mono_us() - beat_us >= COMMIT_HEARTBEAT_US / 2) {
            commit->last_clicks = 0;
            heartbeat(commit);
            beat_us = clock_mono_us();
        }
        if (trims)
            trim_run(commit, &trim);
    }
    return NULL;
}

enum err
commit_open(struct commit **out, const struct commit_config *cfg, struct why *why)
{
    struct commit *commit = calloc(1, sizeof(*commit));
    pthread_condattr_t monotone;
    int rc;

    *out = NULL;
    if (commit == NULL)
        return err_set(why, ERR_NOMEM, "commit: no memory");
    commit->cfg = *cfg;
    commit->tail = &commit->head;
    /* A group is group_clicks_max clicks, or one request that has more. */
    commit->entries = calloc(CLICKLOG_GROUP_MAX, sizeof(*commit->entries));
    if (commit->entries == NULL) {
        free(commit);
        return err_set(why, ERR_NOMEM, "commit: no memory");
    }
    metrics_declare(commit);
    (void)pthread_mutex_init(&commit->mutex, NULL);
    (void)pthread_condattr_init(&monotone);
    (void)pthread_condattr_setclock(&monotone, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&commit->ready, &monotone);
    (void)pthread_condattr_destroy(&monotone);
    rc = pthread_create(&commit->thread, NULL, commit_main, commit);
    if (rc != 0) {
        free(commit->entries);
        free(commit);
        return err_set(why, ERR_FATAL, "commit: no thread: %s", strerror(rc));
    }
    *out = commit;
    return ERR_OK;
}

/* Beside the queue's own limits: what waits for Kafka counts as well. */
static bool
ack_room(const struct commit *commit, const struct commit_job *job)
{
    return commit->cfg.ack == NULL ||
           ack_has_room(commit->cfg.ack, (uint64_t)commit->clicks + job->entries_n,
                        commit->bytes + job->bytes);
}

bool
commit_submit(struct commit *commit, struct commit_job *job)
{
    bool room;

    assert(job->entries_n > 0 && job->entries_n <= CLICKLOG_GROUP_MAX);
    (void)pthread_mutex_lock(&commit->mutex);
    room = !commit->ending &&
           job->entries_n <= COMMIT_QUEUE_CLICKS_MAX - commit->clicks &&
           commit->bytes + job->bytes <= commit->cfg.queue_bytes_max &&
           ack_room(commit, job);
    if (room) {
        job->next = NULL;
        *commit->tail = job;
        commit->tail = &job->next;
        commit->clicks += job->entries_n;
        commit->bytes += job->bytes;
        if (commit->wake_clicks > 0 && commit->clicks >= commit->wake_clicks)
            (void)pthread_cond_signal(&commit->ready);
    }
    (void)pthread_mutex_unlock(&commit->mutex);
    return room;
}

void
commit_trim_request(struct commit *commit, const struct ingest_trim *trim)
{
    (void)pthread_mutex_lock(&commit->mutex);
    for (int p = 0; p < CLICKLOG_PARTITIONS_MAX; p++)
        if (trim->below[p] > commit->trim.below[p])
            commit->trim.below[p] = trim->below[p];
    if (trim->received_drop_us > commit->trim.received_drop_us)
        commit->trim.received_drop_us = trim->received_drop_us;
    commit->trim_asked = true;
    (void)pthread_cond_signal(&commit->ready);
    (void)pthread_mutex_unlock(&commit->mutex);
}

bool
commit_healthy(const struct commit *commit)
{
    return !atomic_load(&commit->broken);
}

void
commit_close(struct commit **commit)
{
    struct commit *c = *commit;

    *commit = NULL;
    if (c == NULL)
        return;
    (void)pthread_mutex_lock(&c->mutex);
    c->ending = true;
    (void)pthread_cond_signal(&c->ready);
    (void)pthread_mutex_unlock(&c->mutex);
    (void)pthread_join(c->thread, NULL);
    assert(c->head == NULL);
    (void)pthread_cond_destroy(&c->ready);
    (void)pthread_mutex_destroy(&c->mutex);
    free(c->entries);
    free(c);
}

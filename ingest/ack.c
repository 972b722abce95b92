#include "ingest/ack.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/kafka.h"
#include "common/log.h"
#include "ingest/breaker.h"

/* Appended, not acknowledged. */
struct group {
    struct group *next;
    struct commit_job *jobs;
    unsigned clicks;
    size_t bytes;
    int64_t put_us;
    bool probe;
    uint32_t marks_n;
    struct group_mark {
        uint32_t partition;
        uint64_t next; /* acknowledged once the cursor is there */
    } marks[];
};

struct ack {
    struct ack_config cfg;
    uint32_t partitions;
    pthread_t thread;
    bool thread_runs;
    pthread_mutex_t mutex;
    pthread_cond_t put;
    /* under mutex */
    struct group *head, **tail;
    struct breaker breaker;
    uint64_t end[CLICKLOG_PARTITIONS_MAX]; /* the spool's */
    bool ending;
    /* the committer's */
    uint64_t next[CLICKLOG_PARTITIONS_MAX];
    bool probe; /* what ack_admit said of the group under way */
    /* written under mutex, read by all */
    atomic_bool takes;
    atomic_int state;
    _Atomic unsigned clicks;
    _Atomic size_t bytes;
    struct metric *gauge, *waiting, *seconds;
};

enum err
ack_replicated(const struct config *config, bool *out, struct why *why)
{
    const char *ack = config->ingest_ack;
    bool kafka = kafka_wanted(config);

    *out = strcmp(ack, "replicated") == 0 || (ack[0] == '\0' && kafka);
    if (ack[0] != '\0' && strcmp(ack, "local") != 0 &&
        strcmp(ack, "replicated") != 0)
        return err_set(why, ERR_INVALID,
                       "ingest.ack is \"%s\"; allowed is local, replicated, or "
                       "nothing (replicated when kafka.brokers is set)",
                       ack);
    if (*out && !kafka)
        return err_set(why, ERR_INVALID,
                       "ingest.ack is replicated, but kafka.brokers is empty: set "
                       "it, or ingest.ack: local");
    return ERR_OK;
}

/* --- answers --- */

static void
jobs_problem(const struct reply_counts *counts, struct commit_job *job,
             const char *detail)
{
    while (job != NULL) {
        struct commit_job *next = job->next; /* the job dies with its answer */

        reply_problem(counts, job->request, 503, "kafka_away", detail, NULL,
                      REPLY_RETRY_KAFKA_S);
        job = next;
    }
}

void
ack_refuse(const struct reply_counts *counts, struct commit_job *jobs)
{
    jobs_problem(counts, jobs, REPLY_KAFKA_AWAY);
}

static void
group_answer(struct ack *ack, struct group *group, bool acknowledged)
{
    struct commit_job *job = group->jobs;

    if (acknowledged)
        metric_observe_us(ack->seconds, clock_mono_us() - group->put_us);
    else
        jobs_problem(ack->cfg.counts, job,
                     "Kafka did not acknowledge in time. Send the same again with "
                     "the same event_ids: what has arrived counts once.");
    while (acknowledged && job != NULL) {
        struct commit_job *next = job->next;

        reply_json(ack->cfg.counts, job->request, 202, job->answer);
        job = next;
    }
    free(group);
}

/* --- state, under mutex --- */

static void
state_show(struct ack *ack)
{
    atomic_store(&ack->takes, breaker_would_admit(&ack->breaker));
    atomic_store(&ack->state, (int)ack->breaker.state);
    metric_set(ack->gauge, ack->breaker.state);
    metric_set(ack->waiting, atomic_load(&ack->clicks));
}

static void
group_unlink(struct ack *ack, struct group **link)
{
    struct group *group = *link;

    *link = group->next;
    if (*link == NULL)
        ack->tail = link;
    group->next = NULL;
    atomic_fetch_sub(&ack->clicks, group->clicks);
    atomic_fetch_sub(&ack->bytes, group->bytes);
}

static bool
group_reached(const struct ack *ack, const struct group *group)
{
    for (uint32_t i = 0; i < group->marks_n; i++)
        if (relay_cursor_get(ack->cfg.cursor, group->marks[i].partition) <
            group->marks[i].next)
            return false;
    return true;
}

static bool
all_reached(const struct ack *ack)
{
    for (uint32_t p = 0; p < ack->partitions; p++)
        if (relay_cursor_get(ack->cfg.cursor, p) < ack->end[p])
            return false;
    return true;
}

/* Moves those that are acknowledged to *done. */
static void
reached_take(struct ack *ack, struct group **done)
{
    struct group **link = &ack->head;

    for (int i = 0; i < ACK_LOOK_GROUPS && *link != NULL; i++) {
        struct group *group = *link;

        if (!group_reached(ack, group)) {
            link = &group->next;
            continue;
        }
        group_unlink(ack, link);
        if (breaker_acknowledged(&ack->breaker, group->probe))
            log_event(LOG_INFO, "ack_breaker_closed",
                      LOG_TEXT("why", "Kafka acknowledges in time again"));
        *done = group;
        done = &group->next;
        i = -1; /* only those that are passed over count */
    }
}

/* Opens the breaker if the oldest has waited too long; then all get their answer. */
static void
late_take(struct ack *ack, struct group **done, struct group **late)
{
    if (ack->head == NULL || clock_mono_us() - ack->head->put_us < ack->cfg.us_max)
        return;
    if (breaker_late(&ack->breaker))
        log_event(LOG_WARN, "ack_breaker_open",
                  LOG_NUMBER("waited_us", clock_mono_us() - ack->head->put_us),
                  LOG_NUMBER("clicks", atomic_load(&ack->clicks)),
                  LOG_TEXT("effect", "503 until Kafka has all of the spool"));
    while (*done != NULL)
        done = &(*done)->next;
    while (ack->head != NULL) {
        struct group *group = ack->head;
        struct group ***to = group_reached(ack, group) ? &done : &late;

        group_unlink(ack, &ack->head);
        **to = group;
        *to = &group->next;
    }
}

/* --- the acker --- */

/* Sleeps until there may be something to do; mutex held. */
static void
nap(struct ack *ack)
{
    int64_t at_us =
        clock_mono_us() + (ack->head != NULL ? ACK_POLL_US : ACK_AWAY_POLL_US);
    struct timespec at = {.tv_sec = at_us / CLOCK_SECOND_US,
                          .tv_nsec = at_us % CLOCK_SECOND_US * 1000};

    if (ack->head == NULL && ack->breaker.state != BREAKER_OPEN) {
        (void)pthread_cond_wait(&ack->put, &ack->mutex);
        return;
    }
    (void)pthread_mutex_unlock(&ack->mutex);
    (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
    (void)pthread_mutex_lock(&ack->mutex);
}

static void
groups_answer(struct ack *ack, struct group *group, bool acknowledged)
{
    while (group != NULL) {
        struct group *next = group->next;

        group_answer(ack, group, acknowledged);
        group = next;
    }
}

static void *
ack_main(void *arg)
{
    struct ack *ack = arg;

    (void)pthread_mutex_lock(&ack->mutex);
    while (!ack->ending || ack->head != NULL) {
        struct group *done = NULL, *late = NULL;

        nap(ack);
        reached_take(ack, &done);
        late_take(ack, &done, &late);
        if (ack->breaker.state == BREAKER_OPEN && all_reached(ack))
            (void)breaker_caught_up(&ack->breaker);
        state_show(ack);
        (void)pthread_mutex_unlock(&ack->mutex);
        groups_answer(ack, done, true);
        groups_answer(ack, late, false);
        (void)pthread_mutex_lock(&ack->mutex);
    }
    (void)pthread_mutex_unlock(&ack->mutex);
    return NULL;
}

/* --- the committer's side --- */

bool
ack_admit(struct ack *ack)
{
    bool admitted;

    (void)pthread_mutex_lock(&ack->mutex);
    admitted = breaker_admit(&ack->breaker, &ack->probe);
    state_show(ack);
    (void)pthread_mutex_unlock(&ack->mutex);
    return admitted;
}

void
ack_failed(struct ack *ack)
{
    (void)pthread_mutex_lock(&ack->mutex);
    breaker_failed(&ack->breaker, ack->probe);
    state_show(ack);
    (void)pthread_mutex_unlock(&ack->mutex);
}

/* Counts the entries on ack->next; NULL: no memory. */
static struct group *
group_make(struct ack *ack, struct commit_job *jobs,
           const struct clicklog_entry *entries, unsigned n)
{
    uint64_t touched[CLICKLOG_PARTITIONS_MAX / 64] = {0};
    struct group *group;
    uint32_t marks = 0;

    for (unsigned i = 0; i < n; i++) {
        uint32_t p = entries[i].partition;

        ack->next[p]++;
        touched[p / 64] |= UINT64_C(1) << p % 64;
    }
    for (int i = 0; i < CLICKLOG_PARTITIONS_MAX / 64; i++)
        marks += (uint32_t)__builtin_popcountll(touched[i]);
    group = calloc(1, sizeof(*group) + marks * sizeof(group->marks[0]));
    if (group == NULL)
        return NULL;
    for (uint32_t p = 0; p < ack->partitions; p++)
        if ((touched[p / 64] >> p % 64 & 1) != 0)
            group->marks[group->marks_n++] = (struct group_mark){p, ack->next[p]};
    assert(group->marks_n == marks);
    group->jobs = jobs;
    group->clicks = n;
    for (const struct commit_job *job = jobs; job != NULL; job = job->next)
        group->bytes += job->bytes;
    group->put_us = clock_mono_us();
    group->probe = ack->probe;
    return group;
}

/* A group that was admitted before the breaker opened waits like any other: it is the
 * oldest for at most another ingest.ack_ms_max. */
void
ack_put(struct ack *ack, struct commit_job *jobs,
        const struct clicklog_entry *entries, unsigned n)
{
    struct group *group = group_make(ack, jobs, entries, n);

    (void)pthread_mutex_lock(&ack->mutex);
    memcpy(ack->end, ack->next, ack->partitions * sizeof(ack->end[0]));
    if (group != NULL) {
        *ack->tail = group;
        ack->tail = &group->next;
        atomic_fetch_add(&ack->clicks, group->clicks);
        atomic_fetch_add(&ack->bytes, group->bytes);
        (void)pthread_cond_signal(&ack->put);
    } else {
        breaker_failed(&ack->breaker, ack->probe);
    }
    state_show(ack);
    (void)pthread_mutex_unlock(&ack->mutex);
    if (group == NULL)
        jobs_problem(ack->cfg.counts, jobs,
                     "No memory to wait for Kafka. Send the same again with the "
                     "same event_ids: what has arrived counts once.");
}

/* --- any thread --- */

bool
ack_takes(const struct ack *ack)
{
    return atomic_load_explicit(&ack->takes, memory_order_relaxed);
}

int
ack_breaker(const struct ack *ack)
{
    return atomic_load(&ack->state);
}

bool
ack_has_room(const struct ack *ack, uint64_t clicks, size_t bytes)
{
    return atomic_load_explicit(&ack->clicks, memory_order_relaxed) + clicks <=
               ack->cfg.clicks_max &&
           atomic_load_explicit(&ack->bytes, memory_order_relaxed) + bytes <=
               ack->cfg.bytes_max;
}

/* --- open and close --- */

static enum err
end_load(struct ack *ack, struct why *why)
{
    enum err err = ERR_OK;
    uint64_t first;

    for (uint32_t p = 0; p < ack->partitions && err == ERR_OK; p++)
        err = clicklog_range(ack->cfg.log, p, &first, &ack->next[p], why);
    memcpy(ack->end, ack->next, sizeof(ack->end));
    return err;
}

enum err
ack_open(struct ack **out, const struct ack_config *cfg, struct why *why)
{
    struct ack *ack = calloc(1, sizeof(*ack));
    enum err err;

    assert(cfg->cursor != NULL && cfg->us_max > 0);
    assert(cfg->clicks_max > 0 && cfg->bytes_max > 0);
    *out = NULL;
    if (ack == NULL)
        return err_set(why, ERR_NOMEM, "ack: no memory");
    ack->cfg = *cfg;
    ack->tail = &ack->head;
    ack->partitions = clicklog_partitions(cfg->log);
    ack->gauge = metric_gauge("clickledger_ack_breaker", NULL,
                              "0 closed, 1 half open, 2 open: clicks get 503");
    ack->waiting = metric_gauge("clickledger_ack_waiting_clicks", NULL,
                                "In the spool, and waiting for Kafka");
    ack->seconds = metric_histogram("clickledger_ack_seconds", NULL,
                                    "From the append to Kafka's acknowledgement");
    (void)pthread_mutex_init(&ack->mutex, NULL);
    (void)pthread_cond_init(&ack->put, NULL);
    state_show(ack);
    err = end_load(ack, why);
    ack->thread_runs =
        err == ERR_OK && pthread_create(&ack->thread, NULL, ack_main, ack) == 0;
    if (err == ERR_OK && !ack->thread_runs)
        err = err_set(why, ERR_FATAL, "ack: no thread");
    *out = ack;
    if (err != ERR_OK)
        ack_close(out);
    return err;
}

void
ack_close(struct ack **ack)
{
    struct ack *a = *ack;

    *ack = NULL;
    if (a == NULL)
        return;
    (void)pthread_mutex_lock(&a->mutex);
    a->ending = true;
    (void)pthread_cond_signal(&a->put);
    (void)pthread_mutex_unlock(&a->mutex);
    if (a->thread_runs)
        (void)pthread_join(a->thread, NULL);
    assert(a->head == NULL);
    (void)pthread_cond_destroy(&a->put);
    (void)pthread_mutex_destroy(&a->mutex);
    free(a);
}

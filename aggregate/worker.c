#include "aggregate/worker.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "aggregate/bench.h"
#include "aggregate/flush.h"
#include "aggregate/tenure.h"
#include "common/clock.h"

enum {
    BATCHES_A_TURN = 16,
    IDLE_US = 20000,        /* longest sleep: another process may write the log */
    HEARTBEAT_US = 1000000, /* an idle partition looks whether Redis is as it was */
    HOUSE_US = 1000000,     /* metrics */
    EVICT_US = 10000000,    /* between looks for idle rows */
    EVICT_IDLE_US = 600000000, /* a row is idle after */
    RECORD_RETRY_US = 200000,
    BLOCKS_MAX = 4096, /* of verdicts in one transaction */
    STOP_TRIES = 20,   /* turns to flush at stop */
    EASE_PARTS = 5,    /* at ease: one part of its time and less is work */
    SHARES = 4,        /* of the partitions, flushed in turn */
};

/* Partitions that are recorded and flushed together, parts[from] to parts[end - 1]. While
 * Redis writes those of one share, the clicks of the others need not wait behind it. */
struct share {
    uint32_t from, end;
    int64_t flushed_us;
    int64_t work_us; /* the worker's, since then */
};

struct worker {
    struct shared *shared;
    struct tools tools;
    struct part *parts;
    struct flush *flush;
    struct part **sent;
    struct verdictlog_block *blocks;
    uint32_t parts_n, index, workers;
    struct share shares[SHARES];
    uint64_t seen; /* of clicklog_wait */
    int64_t house_us, told_us, record_retry_us;
    char record_trouble[256];
    struct metric *rows, *lag_seconds;
    pthread_t thread;
    bool started;
    atomic_bool stop;
};

/* --- verdicts --- */

static bool
record_failed(struct worker *w, const struct why *why)
{
    w->record_retry_us = w->tools.now_us + RECORD_RETRY_US;
    if (strncmp(w->record_trouble, why->text, sizeof(w->record_trouble)) != 0) {
        memcpy(w->record_trouble, why->text, sizeof(w->record_trouble));
        events_add(w->shared->events, LOG_ERROR, w->parts[0].partition, "record",
                   "%s", why->text);
    }
    return false;
}

/* All verdicts of a share not on record, durable. False: not yet, and nothing of it may be
 * flushed. */
static bool
record(struct worker *w, const struct share *share)
{
    size_t n = 0;
    int64_t verdicts = 0;
    struct why why;

    if (w->tools.now_us < w->record_retry_us)
        return false;
    for (uint32_t i = share->from; i < share->end; i++) {
        n += part_blocks(&w->parts[i], w->blocks + n, BLOCKS_MAX - n);
        verdicts += w->parts[i].judged_n - w->parts[i].judged_done;
    }
    /* More holes than blocks: the rest would be taken for recorded. */
    if (n == BLOCKS_MAX) {
        (void)err_set(&why, ERR_FULL, "verdicts in more than %d pieces",
                      BLOCKS_MAX);
        return record_failed(w, &why);
    }
    if (n > 0 &&
        verdictlog_append(w->shared->deps.verdicts, w->blocks, n, &why) != ERR_OK)
        return record_failed(w, &why);
    w->record_trouble[0] = '\0';
    for (uint32_t i = share->from; i < share->end; i++)
        part_recorded(&w->parts[i]);
    metric_add(w->shared->metrics.recorded, verdicts);
    return true;
}

/* --- flushing --- */

static bool
wants_flush(const struct worker *w, const struct part *part)
{
    int64_t now_us = w->tools.now_us;

    if (part->state != PART_RUN || now_us < part->flush_retry_us)
        return false;
    return part->read_next > part->flushed || part->inflight > part->flushed ||
           now_us - part->last_flush_us >= HEARTBEAT_US;
}

static int64_t
flush_interval_us(const struct worker *w, const struct share *share)
{
    const struct config *config = w->shared->config;
    int64_t shortest = config->aggregate_flush_ms * 1000;
    int64_t longest = config->aggregate_flush_ms_max * 1000, fields = 0, us;

    for (uint32_t i = share->from; i < share->end; i++) {
        int64_t changed = (int64_t)windows_changed(w->parts[i].windows);

        if (w->parts[i].read_next - w->parts[i].flushed >= PART_UNFLUSHED_MAX)
            return shortest;
        fields = changed > fields ? changed : fields;
    }
    /* Longer is for throughput: a worker at ease need not. */
    if (fields <= config->aggregate_flush_fields ||
        EASE_PARTS * share->work_us <= w->tools.now_us - share->flushed_us)
        return shortest;
    us = shortest * fields / config->aggregate_flush_fields;
    if (longest < shortest)
        longest = shortest;
    return us > longest ? longest : us;
}

static void
evict_if_due(struct worker *w, struct part *part)
{
    uint64_t rows_max = (uint64_t)w->shared->config->aggregate_live_rows_max /
                            w->shared->partitions +
                        1;
    struct windows_stats stats;

    windows_stats_get(part->windows, &stats);
    if (windows_loads(part->windows) > 0 ||
        (stats.rows <= rows_max &&
         w->tools.now_us - part->last_evict_us < EVICT_US))
        return;
    part->last_evict_us = w->tools.now_us;
    windows_evict(part->windows, w->tools.now_us, EVICT_IDLE_US, rows_max);
}

/* While Redis writes one, the next is built. */
static uint32_t
flush_each(struct worker *w, const struct share *share)
{
    struct part *under_way = NULL;
    uint32_t sent = 0;
    struct why why, lost;

    for (uint32_t i = share->from; i < share->end; i++) {
        struct part *part = &w->parts[i];
        enum err err;

        if (!wants_flush(w, part))
            continue;
        err = flush_build(w->flush, part, &w->tools, &why);
        if (under_way != NULL)
            (void)flush_receive(under_way, &w->tools, &lost);
        under_way = NULL;
        if (err == ERR_OK)
            err = flush_send(part, &w->tools, &why);
        if (err == ERR_OK) {
            w->sent[sent++] = under_way = part;
            continue;
        }
        if (err == ERR_CONFLICT)
            continue; /* it is dealt with */
        part_trouble(part, TROUBLE_FLUSH, "flush", &why);
        part->flush_retry_us = w->tools.now_us + RECORD_RETRY_US;
        if (err == ERR_AGAIN && !redis_is_cluster(w->tools.redis))
            break; /* it would be the same for all */
    }
    if (under_way != NULL)
        (void)flush_receive(under_way, &w->tools, &lost);
    return sent;
}

/* True if nothing of it is left to flush. */
static bool
share_flush(struct worker *w, struct share *share)
{
    int64_t began_us = clock_mono_us();
    uint32_t sent;
    bool whole = true;

    share->flushed_us = w->tools.now_us;
    share->work_us = 0;
    if (!record(w, share))
        return false;
    sent = flush_each(w, share);
    for (uint32_t i = 0; i < sent; i++) {
        struct part *part = w->sent[i];

        part_built(part, &w->tools);
        if (part->state == PART_RUN && part->flushed == part->read_next)
            evict_if_due(w, part);
    }
    for (uint32_t i = share->from; i < share->end; i++) {
        struct part *part = &w->parts[i];

        if (windows_failed(part->windows)) {
            events_add(w->shared->events, LOG_ERROR, part->partition, "nomem",
                       "no memory for windows: rows are dropped and read again");
            part_reset(part);
        }
        whole =
            whole && (part->state != PART_RUN || part->read_next == part->flushed);
    }
    if (sent > 0)
        metric_observe_us(w->shared->metrics.flush_seconds,
                          clock_mono_us() - began_us);
    return whole;
}

/* True if nothing is left to flush. */
static bool
flush_all(struct worker *w)
{
    bool whole = true;

    for (uint32_t i = 0; i < SHARES; i++)
        whole = share_flush(w, &w->shares[i]) && whole;
    return whole;
}

static bool
flush_due(const struct worker *w, const struct share *share)
{
    if (w->tools.now_us - share->flushed_us < flush_interval_us(w, share))
        return false;
    for (uint32_t i = share->from; i < share->end; i++)
        if (wants_flush(w, &w->parts[i]) || windows_failed(w->parts[i].windows))
            return true;
    return false;
}

/* --- the turn --- */

/* Whose partition it is now: if the other has been silent for PART_LOST_S, ours. */
static void
lost_look(struct worker *w, struct part *part)
{
    struct owner_state state;

    if (w->tools.now_us < part->retry_us)
        return;
    part->retry_us = w->tools.now_us + CLOCK_SECOND_US;
    if (owner_read(w->tools.redis, part->partition, &state, NULL) != ERR_OK)
        return;
    if (w->tools.now_us - state.updated_us < PART_LOST_S * CLOCK_SECOND_US)
        return;
    part->state = PART_CLAIM;
    part->retry_us = 0;
}

/* The log has taken the partition from us. */
static void
leave(struct worker *w, struct share *share, struct part *part)
{
    int64_t now_us = w->tools.now_us;
    int64_t until_us = tenure_leave_until_us(part, now_us);

    if (!tenure_settled(part) && now_us < until_us)
        (void)share_flush(w, share);
    if (tenure_settled(part) || now_us >= until_us)
        tenure_end(part, now_us);
}

/* True while the partition is ours to read. */
static bool
tenure_look(struct worker *w, struct share *share, struct part *part)
{
    uint64_t owned = clicklog_owned(w->shared->deps.log, part->partition);
    enum tenure tenure = tenure_of(part->state, part->taken, owned);

    if (tenure == TENURE_LEAVE)
        leave(w, share, part);
    if (tenure == TENURE_AGAIN) {
        (void)record(w, share);
        tenure_end(part, w->tools.now_us);
        tenure = TENURE_TAKE;
    }
    if (tenure == TENURE_TAKE)
        tenure_take(part, owned);
    return tenure == TENURE_TAKE || tenure == TENURE_HOLD;
}

static size_t
part_turn(struct worker *w, struct part *part)
{
    size_t all = 0;

    if (part->state == PART_LOST)
        lost_look(w, part);
    if (part->state == PART_CLAIM)
        part_claim(part, &w->tools);
    for (int i = 0; i < BATCHES_A_TURN; i++) {
        size_t n = 0;

        if (part->state == PART_WARM)
            n = part_warm(part, &w->tools);
        if (part->state == PART_RUN)
            n += part_read(part, &w->tools);
        all += n;
        if (n < PART_BATCH)
            break;
    }
    return all;
}

static void
house_keep(struct worker *w)
{
    int64_t lag_us = 0;
    uint64_t rows = 0;

    if (w->tools.now_us - w->house_us < HOUSE_US)
        return;
    w->house_us = w->tools.now_us;
    for (uint32_t i = 0; i < w->parts_n; i++) {
        struct part *part = &w->parts[i];
        struct windows_stats stats;
        int64_t late_us =
            part_lag_us(part, clicklog_end(w->shared->deps.log, part->partition),
                        w->tools.now_us);

        windows_stats_get(part->windows, &stats);
        rows += stats.rows;
        lag_us = late_us > lag_us ? late_us : lag_us;
        part_metrics(part, &stats);
        tenure_rest(part, w->tools.now_us);
        if (part->sweep_us > 0 && part->state == PART_RUN)
            part_sweep(part, &w->tools);
    }
    metric_set(w->lag_seconds, lag_us / CLOCK_SECOND_US);
    metric_set(w->rows, (int64_t)rows);
    metric_set(w->shared->metrics.forgotten,
               (int64_t)fraud_addresses_forgotten(w->shared->addresses));
}

/* Master data that was never loaded would make every campaign unknown. */
static bool
master_ready(const struct master *master)
{
    return master != NULL && (master->campaigns_n > 0 || master->keys_n > 0);
}

/* Reads what is new of a share, and flushes it if that is due. */
static size_t
share_turn(struct worker *w, struct share *share)
{
    struct tools *t = &w->tools;
    int64_t began_us = clock_mono_us(), work_us;
    size_t n = 0;

    for (uint32_t i = share->from; i < share->end; i++)
        if (tenure_look(w, share, &w->parts[i]) && master_ready(t->master))
            n += part_turn(w, &w->parts[i]);
    work_us = clock_mono_us() - began_us;
    for (uint32_t i = 0; i < SHARES; i++)
        w->shares[i].work_us += work_us;
    t->now_us = clock_now_us();
    if (flush_due(w, share))
        (void)share_flush(w, share);
    return n;
}

/* Addresses go to the other processes once for all shares: the fuller the messages, the
 * fewer. */
static void
addresses_send(struct worker *w)
{
    int64_t pause_us = w->shared->config->aggregate_flush_ms * 1000;

    if (w->shared->hotstage == NULL || w->tools.now_us - w->told_us < pause_us)
        return;
    w->told_us = w->tools.now_us;
    hotstage_send(w->shared->hotstage, w->index);
}

static size_t
turn(struct worker *w)
{
    struct tools *t = &w->tools;
    size_t n = 0;

    t->now_us = clock_now_us();
    t->master = master_take(w->shared->deps.master);
    t->rules = ruleset_take(w->shared->deps.rules);
    for (uint32_t i = 0; i < SHARES; i++)
        n += share_turn(w, &w->shares[i]);
    addresses_send(w);
    house_keep(w);
    master_drop(w->shared->deps.master, t->master);
    ruleset_drop(w->shared->deps.rules, t->rules);
    t->master = NULL;
    t->rules = NULL;
    return n;
}

static void *
run(void *arg)
{
    struct worker *w = arg;

    while (!atomic_load_explicit(&w->stop, memory_order_acquire))
        if (turn(w) == 0)
            clicklog_wait(w->shared->deps.log, &w->seen, IDLE_US);
    for (int i = 0; i < STOP_TRIES; i++) {
        w->tools.now_us = clock_now_us();
        if (flush_all(w))
            break;
        clock_sleep_us(RECORD_RETRY_US / 4);
    }
    for (uint32_t i = 0; i < w->parts_n; i++)
        if (w->parts[i].state != PART_IDLE &&
            clicklog_is_kafka(w->shared->deps.log))
            tenure_end(&w->parts[i], w->tools.now_us);
    return NULL;
}

/* --- start and stop --- */

static enum err
tools_open(struct worker *w, struct why *why)
{
    const struct config *config = w->shared->config;
    struct tools *t = &w->tools;
    size_t ids = (size_t)config->fraud_live_dedup_ids_max / w->workers;
    size_t users = (size_t)config->fraud_live_users_max / w->workers;
    enum err err = redis_open(&t->redis, config->redis_address,
                              config->redis_timeout_ms * 1000, why);

    if (err == ERR_OK)
        err = clicklog_reader_open(&t->reader, w->shared->deps.log, why);
    if (err == ERR_OK)
        err =
            fraud_live_open(&t->live, ids < 1024 ? 1024 : ids,
                            users < 1024 ? 1024 : users, w->shared->addresses, why);
    if (err == ERR_OK)
        fraud_live_hot(t->live, w->shared->hot);
    t->lane = w->index;
    if (err == ERR_OK)
        err = flush_open(&w->flush, why);
    if (err != ERR_OK)
        return err;
    t->agents = agent_cache_new();
    t->bench = calloc(1, sizeof(*t->bench));
    w->blocks = calloc(BLOCKS_MAX, sizeof(*w->blocks));
    if (t->agents == NULL || t->bench == NULL || w->blocks == NULL)
        return err_set(why, ERR_NOMEM, "aggregate: no memory for a worker");
    return ERR_OK;
}

/* Their first flushes are spread over the time between two. */
static void
shares_lay_out(struct worker *w)
{
    int64_t now_us = clock_now_us();
    int64_t apart_us = w->shared->config->aggregate_flush_ms * 1000 / SHARES;

    for (uint32_t i = 0; i < SHARES; i++)
        w->shares[i] = (struct share){
            .from = w->parts_n * i / SHARES,
            .end = w->parts_n * (i + 1) / SHARES,
            .flushed_us = now_us - apart_us * (int64_t)i,
        };
}

static enum err
parts_open(struct worker *w, struct why *why)
{
    uint32_t all = w->shared->partitions, n = 0;
    enum err err = ERR_OK;

    w->parts = calloc(all, sizeof(*w->parts));
    w->sent = calloc(all, sizeof(struct part *));
    if (w->parts == NULL || w->sent == NULL)
        return err_set(why, ERR_NOMEM, "aggregate: no memory for %u partitions",
                       all);
    for (uint32_t p = w->index; p < all && err == ERR_OK; p += w->workers) {
        err = part_open(&w->parts[n], w->shared, p, why);
        w->parts_n = ++n;
    }
    shares_lay_out(w);
    return err;
}

static void
worker_free(struct worker *w)
{
    for (uint32_t i = 0; i < w->parts_n; i++)
        part_close(&w->parts[i]);
    free(w->parts);
    free(w->sent);
    free(w->blocks);
    free(w->tools.bench);
    agent_cache_free(&w->tools.agents);
    flush_close(&w->flush);
    fraud_live_close(&w->tools.live);
    clicklog_reader_close(&w->tools.reader);
    redis_close(&w->tools.redis);
    free(w);
}

static void
metrics_declare(struct worker *w)
{
    char labels[32];

    (void)snprintf(labels, sizeof(labels), "worker=\"%u\"", w->index);
    w->rows = metric_gauge("clickledger_aggregate_rows", labels,
                           "open windows in memory");
    w->lag_seconds =
        metric_gauge("clickledger_aggregate_lag_seconds", labels,
                     "age by receipt of the oldest click that is not in Redis");
}

enum err
worker_start(struct worker **out, struct shared *shared, uint32_t index,
             uint32_t workers, struct why *why)
{
    struct worker *w = calloc(1, sizeof(*w));
    enum err err;

    *out = NULL;
    if (w == NULL)
        return err_set(why, ERR_NOMEM, "aggregate: no memory for a worker");
    w->shared = shared;
    w->index = index;
    w->workers = workers;
    metrics_declare(w);
    err = tools_open(w, why);
    if (err == ERR_OK)
        err = parts_open(w, why);
    if (err == ERR_OK && pthread_create(&w->thread, NULL, run, w) != 0)
        err = err_set(why, ERR_FATAL, "aggregate: no thread");
    if (err != ERR_OK) {
        worker_free(w);
        return err;
    }
    w->started = true;
    *out = w;
    return ERR_OK;
}

void
worker_stop(struct worker **worker)
{
    if (*worker == NULL)
        return;
    atomic_store_explicit(&(*worker)->stop, true, memory_order_release);
    clicklog_wake((*worker)->shared->deps.log);
    (void)pthread_join((*worker)->thread, NULL);
    worker_free(*worker);
    *worker = NULL;
}

uint64_t
worker_flushed(const struct worker *worker, uint32_t partition)
{
    uint32_t i = (partition - worker->index) / worker->workers;

    assert(i < worker->parts_n && worker->parts[i].partition == partition);
    return atomic_load_explicit(&worker->parts[i].flushed_shared,
                                memory_order_acquire);
}

#include "common/clicklog_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "common/clicklog_kafka.h"
#include "common/clock.h"

enum {
    NODE_BYTES_MAX = 2000, /* larger values get pages of their own */
    PAGE_BYTES = 4096,
    PAGE_HEADER = 16,
    WAIT_POLL_US = 20000, /* another process commits: look this often */
    COMMIT_SLACK = 1 << 20,
};

static MDB_val
val(const void *data, size_t n)
{
    union {
        const void *in;
        void *out;
    } alias = {data}; /* LMDB does not write through what mdb_put is given */

    return (MDB_val){n, alias.out};
}

static size_t
state_size(const struct clicklog *log)
{
    return offsetof(struct state, next) + log->partitions * sizeof(uint64_t);
}

uint64_t
value_cost(size_t key, size_t value)
{
    if (value <= NODE_BYTES_MAX)
        return key + value + 8;
    return (value + PAGE_HEADER + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

enum err
state_read(struct clicklog *log, MDB_txn *txn, struct state *out, struct why *why)
{
    MDB_val key = val("state", 5), value;
    int rc = mdb_get(txn, log->env.tables[TABLE_META], &key, &value);

    *out = (struct state){0};
    if (rc == MDB_NOTFOUND)
        return ERR_OK; /* made, and nothing appended yet */
    if (rc != 0)
        return lmdbenv_error(rc, "cannot read state", log->env.dir, why);
    if (value.mv_size != state_size(log))
        return err_set(why, ERR_CORRUPT, "%s: state has %zu bytes, not %zu",
                       log->env.dir, value.mv_size, state_size(log));
    memcpy(out, value.mv_data, value.mv_size);
    return ERR_OK;
}

enum err
change_error(struct clicklog *log, int rc, const char *doing, struct why *why)
{
    enum err err = lmdbenv_error(rc, doing, log->env.dir, why);

    /* Full and out of memory leave the old state whole; anything else is not ours to
     * judge while the environment is open. */
    if (err == ERR_OK || err == ERR_FULL || err == ERR_NOMEM || err == ERR_AGAIN)
        return err;
    log->broken = true;
    (void)pthread_mutex_lock(&log->mutex);
    log->stats.broken = true;
    (void)pthread_mutex_unlock(&log->mutex);
    return err;
}

enum err
change_begin(struct clicklog *log, struct change *change, struct why *why)
{
    int rc;

    assert(!log->read_only);
    if (log->broken)
        return err_set(
            why, ERR_FATAL,
            "%s: an earlier write failed and the state on disk is unknown: "
            "restart to open the log anew",
            log->env.dir);
    rc = mdb_txn_begin(log->env.env, NULL, 0, &change->txn);
    change->state = log->state;
    change->fold = log->fold;
    return change_error(log, rc, "cannot begin to write", why);
}

void
change_abort(struct change *change)
{
    mdb_txn_abort(change->txn);
    change->txn = NULL;
}

static void
change_publish(struct clicklog *log, const struct change *change)
{
    log->state = change->state;
    log->fold = change->fold;
    (void)pthread_mutex_lock(&log->mutex);
    log->stats.bytes_used = log->state.bytes_used;
    log->stats.groups = log->state.groups;
    log->stats.records = log->state.records;
    log->stats.floor_us = log->state.floor_us;
    log->generation++;
    (void)pthread_cond_broadcast(&log->changed);
    (void)pthread_mutex_unlock(&log->mutex);
}

enum err
change_commit(struct clicklog *log, struct change *change, struct why *why)
{
    MDB_val key = val("state", 5), value = val(&change->state, state_size(log));
    uint64_t grown = change->state.bytes_used > log->state.bytes_used
                         ? change->state.bytes_used - log->state.bytes_used
                         : 0;
    int rc = mdb_put(change->txn, log->env.tables[TABLE_META], &key, &value, 0);

    if (rc != 0) {
        change_abort(change);
        return change_error(log, rc, "cannot write state", why);
    }
    rc = mdb_txn_commit(change->txn);
    change->txn = NULL;
    /* A full disk cuts a write short, and LMDB calls that EIO. Either way the old meta
     * page stands and the pages of this transaction are free. */
    if (rc == EIO && lmdbenv_disk_is_full(&log->env, grown + COMMIT_SLACK))
        rc = ENOSPC;
    if (rc != 0 && lmdbenv_is_dead(&log->env))
        rc = MDB_PANIC; /* it was the meta page that failed */
    if (rc != 0)
        return change_error(log, rc, "cannot commit", why);
    change_publish(log, change);
    return ERR_OK;
}

/* In another process than the writer's, what the newest commit says. */
static void
stats_refresh(struct clicklog *log)
{
    MDB_txn *txn = NULL;
    struct state state;

    if (lmdbenv_read_begin(&log->env, &txn, NULL) != ERR_OK)
        return;
    if (state_read(log, txn, &state, NULL) == ERR_OK) {
        (void)pthread_mutex_lock(&log->mutex);
        if (state.groups >= log->stats.groups &&
            state.floor_us >= log->stats.floor_us) {
            log->stats.bytes_used = state.bytes_used;
            log->stats.groups = state.groups;
            log->stats.records = state.records;
            log->stats.floor_us = state.floor_us;
        }
        (void)pthread_mutex_unlock(&log->mutex);
    }
    lmdbenv_read_end(&log->env, &txn);
}

void
clicklog_stats_get(struct clicklog *log, struct clicklog_stats *out)
{
    if (log->kafka != NULL) {
        clicklog_kafka_stats(log->kafka, out);
        return;
    }
    if (log->read_only)
        stats_refresh(log);
    (void)pthread_mutex_lock(&log->mutex);
    *out = log->stats;
    (void)pthread_mutex_unlock(&log->mutex);
}

/* What *seen of clicklog_wait is compared with; a committed transaction changes it. */
static uint64_t
generation_now(struct clicklog *log)
{
    MDB_envinfo info;

    if (!log->read_only || mdb_env_info(log->env.env, &info) != 0)
        return log->generation;
    return log->generation + info.me_last_txnid;
}

static struct timespec
deadline(int64_t us)
{
    return (struct timespec){.tv_sec = (time_t)(us / CLOCK_SECOND_US),
                             .tv_nsec = (long)(us % CLOCK_SECOND_US * 1000)};
}

void
clicklog_wait(struct clicklog *log, uint64_t *seen, int64_t timeout_us)
{
    int64_t now = clock_mono_us(), end = now + (timeout_us > 0 ? timeout_us : 0);

    if (log->kafka != NULL) {
        clicklog_kafka_wait(log->kafka, seen, timeout_us);
        return;
    }
    (void)pthread_mutex_lock(&log->mutex);
    while (generation_now(log) == *seen && now < end) {
        bool poll = log->read_only && end - now > WAIT_POLL_US;
        struct timespec until = deadline(poll ? now + WAIT_POLL_US : end);

        (void)pthread_cond_timedwait(&log->changed, &log->mutex, &until);
        now = clock_mono_us();
    }
    *seen = generation_now(log);
    (void)pthread_mutex_unlock(&log->mutex);
}

void
clicklog_wake(struct clicklog *log)
{
    if (log->kafka != NULL) {
        clicklog_kafka_wake(log->kafka);
        return;
    }
    (void)pthread_mutex_lock(&log->mutex);
    log->generation++;
    (void)pthread_cond_broadcast(&log->changed);
    (void)pthread_mutex_unlock(&log->mutex);
}

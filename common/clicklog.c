#include "common/clicklog_impl.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "common/clicklog_kafka.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/hash.h"
#include "common/log.h"

enum {
    FORMAT = 1,
};

/* meta "format": fixed when the directory is made. */
struct format {
    uint32_t format;
    uint32_t partitions;
    uint64_t spool_id;
};

static_assert(sizeof(struct block_header) == 48, "no padding: it is hashed");
static_assert(sizeof(struct received_header) == 32, "no padding");
static_assert(sizeof(struct format) == 16, "no padding");

static MDB_val
val(const void *data, size_t n)
{
    union {
        const void *in;
        void *out;
    } alias = {data}; /* LMDB does not write through what mdb_put is given */

    return (MDB_val){n, alias.out};
}

static enum err
lock_refused(int fd, const char *path, struct why *why)
{
    char pid[24] = {0};
    ssize_t n = pread(fd, pid, sizeof(pid) - 1, 0);

    if (n > 0 && pid[n - 1] == '\n')
        pid[n - 1] = '\0';
    return err_set(
        why, ERR_CONFLICT,
        "%s is held by process %s: only one process may write the click log", path,
        n > 0 ? pid : "(unknown)");
}

/* Held until the descriptor closes, so a killed holder lets go by itself. */
static enum err
lock_take(struct clicklog *log, const char *dir, struct why *why)
{
    char path[FILE_PATH_MAX + 16], pid[24];
    int fd, n;

    (void)snprintf(path, sizeof(path), "%s/writer.lock", dir);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0)
        return lmdbenv_error(errno, "cannot open writer.lock", dir, why);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        enum err err =
            errno == EWOULDBLOCK
                ? lock_refused(fd, path, why)
                : lmdbenv_error(errno, "cannot lock writer.lock", dir, why);
        (void)close(fd);
        return err;
    }
    n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
    /* The number is for people: without it (a full disk) the lock holds all the same. */
    if (ftruncate(fd, 0) != 0 || pwrite(fd, pid, (size_t)n, 0) != n)
        log_event(LOG_WARN, "lock_without_pid", LOG_TEXT("path", path));
    log->lock_fd = fd;
    return ERR_OK;
}

static enum err
format_check(struct clicklog *log, const MDB_val *value, uint32_t partitions,
             struct why *why)
{
    struct format format;

    if (value->mv_size != sizeof(format))
        return err_set(why, ERR_CORRUPT, "%s: format is damaged", log->env.dir);
    memcpy(&format, value->mv_data, sizeof(format));
    if (format.format != FORMAT)
        return err_set(why, ERR_INVALID, "%s: format %u, this program reads %d",
                       log->env.dir, format.format, FORMAT);
    if (format.partitions < 1 || format.partitions > CLICKLOG_PARTITIONS_MAX)
        return err_set(why, ERR_CORRUPT, "%s: format names %u partitions",
                       log->env.dir, format.partitions);
    if (partitions != 0 && partitions != format.partitions)
        return err_set(
            why, ERR_INVALID,
            "clicklog.partitions is %u, but %s was made with %u: it is fixed "
            "when the directory is made",
            partitions, log->env.dir, format.partitions);
    log->partitions = format.partitions;
    log->spool_id = format.spool_id;
    return ERR_OK;
}

static enum err
format_load(struct clicklog *log, MDB_txn *txn, const struct clicklog_config *cfg,
            struct why *why)
{
    MDB_dbi meta = log->env.tables[TABLE_META];
    MDB_val key = val("format", 6), value;
    struct format format = {FORMAT, cfg->partitions, 0};
    int rc = mdb_get(txn, meta, &key, &value);

    if (rc == 0)
        return format_check(log, &value, cfg->partitions, why);
    if (rc != MDB_NOTFOUND)
        return lmdbenv_error(rc, "cannot read format", cfg->dir, why);
    if (cfg->read_only)
        return err_set(why, ERR_NOTFOUND, "%s: nothing has been written here",
                       cfg->dir);
    if (cfg->partitions < 1 || cfg->partitions > CLICKLOG_PARTITIONS_MAX)
        return err_set(why, ERR_INVALID, "clicklog.partitions is %u, not in 1..%d",
                       cfg->partitions, CLICKLOG_PARTITIONS_MAX);
    format.spool_id = hash_random_u64();
    value = val(&format, sizeof(format));
    rc = mdb_put(txn, meta, &key, &value, 0);
    if (rc != 0)
        return lmdbenv_error(rc, "cannot write format", cfg->dir, why);
    log->partitions = format.partitions;
    log->spool_id = format.spool_id;
    return ERR_OK;
}

/* The newest incarnation's key ("i", ordinal u32), or ordinal 0 if there is none. */
static int
incarnation_newest(MDB_txn *txn, MDB_dbi meta, uint8_t key[5],
                   struct incarnation *last)
{
    MDB_val k, v;
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(txn, meta, &cursor);

    if (rc != 0)
        return rc;
    rc = incarnation_seek(cursor, &k, &v);
    *last = (struct incarnation){0};
    memcpy(key, "i\0\0\0\0", 5);
    if (rc == 0 && v.mv_size <= sizeof(*last)) {
        memcpy(key, k.mv_data, 5);
        memcpy(last, v.mv_data, v.mv_size);
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static void
ordinal_add(uint8_t key[5])
{
    for (int i = 4; i > 0 && ++key[i] == 0; i--)
        ;
}

/* Writes the closing record of the incarnation before, and the first of ours. */
static enum err
incarnation_begin(struct clicklog *log, MDB_txn *txn, struct why *why)
{
    MDB_dbi meta = log->env.tables[TABLE_META];
    size_t size =
        offsetof(struct incarnation, start) + log->partitions * sizeof(uint64_t);
    struct incarnation last, ours = {0};
    uint8_t key[5];
    MDB_val k = {sizeof(key), key}, v = {size, &last};
    int rc = incarnation_newest(txn, meta, key, &last);

    if (rc == 0 && last.incarnation != 0) {
        last.closed = 1;
        for (uint32_t i = 0; i < log->partitions; i++)
            last.start[i] = log->state.next[i] - last.start[i]; /* counts now */
        rc = mdb_put(txn, meta, &k, &v, 0);
    }
    do
        log->incarnation = hash_random_u64();
    while (log->incarnation == 0 || log->incarnation == last.incarnation);
    ours.incarnation = log->incarnation;
    memcpy(ours.start, log->state.next, log->partitions * sizeof(uint64_t));
    memcpy(log->start, ours.start, sizeof(log->start));
    ordinal_add(key);
    v.mv_data = &ours;
    if (rc == 0)
        rc = mdb_put(txn, meta, &k, &v, 0);
    return lmdbenv_error(rc, "cannot write the incarnation", log->env.dir, why);
}

static enum err
meta_load(struct clicklog *log, const struct clicklog_config *cfg, struct why *why)
{
    MDB_txn *txn = NULL;
    enum err err;
    int rc =
        mdb_txn_begin(log->env.env, NULL, cfg->read_only ? MDB_RDONLY : 0, &txn);

    if (rc != 0)
        return lmdbenv_error(rc, "cannot begin", cfg->dir, why);
    err = format_load(log, txn, cfg, why);
    if (err == ERR_OK)
        err = state_read(log, txn, &log->state, why);
    if (err == ERR_OK && !cfg->read_only)
        err = incarnation_begin(log, txn, why);
    if (err != ERR_OK || cfg->read_only) {
        mdb_txn_abort(txn);
        return err;
    }
    return lmdbenv_error(mdb_txn_commit(txn), "cannot commit", cfg->dir, why);
}

static void
sync_init(struct clicklog *log)
{
    pthread_condattr_t attr;

    if (pthread_mutex_init(&log->mutex, NULL) != 0 ||
        pthread_condattr_init(&attr) != 0 ||
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) != 0 ||
        pthread_cond_init(&log->changed, &attr) != 0)
        abort();
    (void)pthread_condattr_destroy(&attr);
}

enum err
clicklog_open(struct clicklog **out, const struct clicklog_config *cfg,
              struct why *why)
{
    static const char *const tables[TABLES_N] = {"blocks", "received", "meta"};
    struct lmdbenv_config env = {cfg->dir, cfg->map_bytes, tables,
                                 TABLES_N, cfg->read_only, cfg->no_sync};
    struct clicklog *log = calloc(1, sizeof(*log));
    enum err err = ERR_OK;

    *out = NULL;
    if (log == NULL)
        return err_set(why, ERR_NOMEM, "clicklog: no memory");
    sync_init(log);
    log->lock_fd = -1;
    log->read_only = cfg->read_only;
    log->bytes_max = cfg->bytes_max;
    if (!cfg->read_only) {
        log->order = malloc(CLICKLOG_GROUP_MAX * sizeof(*log->order));
        if (log->order == NULL)
            err = err_set(why, ERR_NOMEM, "clicklog: no memory");
        if (err == ERR_OK)
            err = file_mkdirs(cfg->dir, why);
        if (err == ERR_OK)
            err = lock_take(log, cfg->dir, why);
    }
    if (err == ERR_OK)
        err = lmdbenv_open(&log->env, &env, why);
    if (err == ERR_OK)
        err = meta_load(log, cfg, why);
    if (err != ERR_OK) {
        clicklog_close(&log);
        return err;
    }
    log->stats = (struct clicklog_stats){
        .spool_id = log->spool_id,
        .incarnation = log->incarnation,
        .bytes_used = log->state.bytes_used,
        .groups = log->state.groups,
        .records = log->state.records,
        .floor_us = log->state.floor_us,
    };
    *out = log;
    return ERR_OK;
}

enum err
clicklog_open_kafka(struct clicklog **out, const struct clicklog_kafka_config *cfg,
                    struct why *why)
{
    struct clicklog *log = calloc(1, sizeof(*log));
    enum err err;

    *out = NULL;
    if (log == NULL)
        return err_set(why, ERR_NOMEM, "clicklog: no memory");
    sync_init(log);
    log->lock_fd = -1;
    log->read_only = true;
    err = clicklog_kafka_open(&log->kafka, cfg, why);
    if (err != ERR_OK) {
        clicklog_close(&log);
        return err;
    }
    log->partitions = clicklog_kafka_partitions(log->kafka);
    *out = log;
    return ERR_OK;
}

void
clicklog_close(struct clicklog **log)
{
    if (*log == NULL)
        return;
    clicklog_kafka_close(&(*log)->kafka);
    lmdbenv_close(&(*log)->env);
    tally_free(&(*log)->tally);
    free((*log)->order);
    if ((*log)->lock_fd >= 0)
        (void)close((*log)->lock_fd); /* last: nobody writes before we are out */
    (void)pthread_cond_destroy(&(*log)->changed);
    (void)pthread_mutex_destroy(&(*log)->mutex);
    free(*log);
    *log = NULL;
}

uint32_t
clicklog_partitions(const struct clicklog *log)
{
    return log->partitions;
}

#include "common/lmdbenv.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/file.h"

enum { FILE_MODE = 0640, MAP_STEP = 65536 };

enum err
lmdbenv_error(int rc, const char *doing, const char *dir, struct why *why)
{
    enum err code = ERR_FATAL;

    switch (rc) {
    case 0:
        return ERR_OK;
    case MDB_MAP_FULL:
    case MDB_TXN_FULL:
    case ENOSPC:
    case EDQUOT:
        code = ERR_FULL;
        break;
    case ENOMEM:
        code = ERR_NOMEM;
        break;
    case MDB_READERS_FULL:
    case MDB_MAP_RESIZED:
    case EAGAIN:
        code = ERR_AGAIN;
        break;
    case MDB_NOTFOUND:
    case ENOENT:
        code = ERR_NOTFOUND;
        break;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
    case MDB_INCOMPATIBLE:
    case MDB_KEYEXIST:
        code = ERR_CORRUPT;
        break;
    default:
        break;
    }
    return err_set(why, code, "%s: %s: %s", dir, doing, mdb_strerror(rc));
}

bool
lmdbenv_disk_is_full(const struct lmdbenv *env, uint64_t bytes)
{
    struct statvfs fs;

    if (statvfs(env->dir, &fs) != 0)
        return false;
    return (uint64_t)fs.f_bavail * fs.f_frsize < bytes;
}

bool
lmdbenv_is_dead(struct lmdbenv *env)
{
    MDB_txn *txn = NULL;
    int rc = mdb_txn_begin(env->env, NULL, MDB_RDONLY, &txn);

    if (rc == 0)
        mdb_txn_abort(txn);
    return rc == MDB_PANIC;
}

static int
tables_open(MDB_env *env, const struct lmdbenv_config *cfg, MDB_dbi *tables)
{
    MDB_txn *txn = NULL;
    int rc = mdb_txn_begin(env, NULL, cfg->read_only ? MDB_RDONLY : 0, &txn);

    if (rc != 0)
        return rc;
    for (uint32_t i = 0; rc == 0 && i < cfg->tables_n; i++)
        rc = mdb_dbi_open(txn, cfg->tables[i], cfg->read_only ? 0 : MDB_CREATE,
                          &tables[i]);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    return mdb_txn_commit(txn);
}

/* Opens the environment at path, which exists or is made, with its tables. */
static int
env_open(MDB_env **out, const char *path, const struct lmdbenv_config *cfg,
         MDB_dbi *tables)
{
    unsigned flags = MDB_NOTLS;
    int dead = 0, rc = mdb_env_create(out);

    if (rc != 0)
        return rc;
    if (cfg->read_only)
        flags |= MDB_RDONLY;
    if (cfg->no_sync)
        flags |= MDB_NOSYNC;
    if (cfg->map_bytes != 0)
        rc = mdb_env_set_mapsize(*out, cfg->map_bytes / MAP_STEP * MAP_STEP);
    if (rc == 0)
        rc = mdb_env_set_maxdbs(*out, LMDBENV_TABLES_MAX);
    if (rc == 0)
        rc = mdb_env_set_maxreaders(*out, LMDBENV_READERS_MAX);
    if (rc == 0)
        rc = mdb_env_open(*out, path, flags, FILE_MODE);
    if (rc == 0) /* slots of readers that were killed pin pages */
        rc = mdb_reader_check(*out, &dead);
    if (rc == 0)
        rc = tables_open(*out, cfg, tables);
    if (rc != 0) {
        mdb_env_close(*out);
        *out = NULL;
    }
    return rc;
}

static void
made_remove(const char *make)
{
    char path[FILE_PATH_MAX + 16];

    (void)snprintf(path, sizeof(path), "%s/data.mdb", make);
    (void)unlink(path);
    (void)snprintf(path, sizeof(path), "%s/lock.mdb", make);
    (void)unlink(path);
    (void)rmdir(make);
}

/* Builds DIR/make.tmp/data.mdb and renames it to data. */
static enum err
env_build(const struct lmdbenv_config *cfg, const char *data, struct why *why)
{
    char make[FILE_PATH_MAX], built[FILE_PATH_MAX + 16];
    MDB_dbi tables[LMDBENV_TABLES_MAX];
    MDB_env *env = NULL;
    enum err err;
    int rc;

    (void)snprintf(make, sizeof(make), "%s/make.tmp", cfg->dir);
    (void)snprintf(built, sizeof(built), "%s/data.mdb", make);
    made_remove(make); /* what a killed first start left */
    err = file_mkdirs(make, why);
    if (err != ERR_OK)
        return err;
    rc = env_open(&env, make, cfg, tables);
    if (rc == 0)
        rc = mdb_env_sync(env, 1);
    if (env != NULL)
        mdb_env_close(env);
    err = rc != 0 ? lmdbenv_error(rc, "cannot make the log", cfg->dir, why)
                  : file_publish(built, data, why);
    made_remove(make);
    return err;
}

/* Makes the environment's file if it is missing; two processes agree by a lock. */
static enum err
env_ensure(const struct lmdbenv_config *cfg, struct why *why)
{
    char data[FILE_PATH_MAX], lock[FILE_PATH_MAX];
    struct stat st;
    enum err err;
    int fd;

    (void)snprintf(data, sizeof(data), "%s/data.mdb", cfg->dir);
    (void)snprintf(lock, sizeof(lock), "%s/make.lock", cfg->dir);
    if (stat(data, &st) == 0)
        return ERR_OK;
    if (cfg->read_only)
        return err_set(why, ERR_NOTFOUND, "%s: there is no log here", cfg->dir);
    err = file_mkdirs(cfg->dir, why);
    if (err != ERR_OK)
        return err;
    fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, FILE_MODE);
    if (fd < 0 || flock(fd, LOCK_EX) != 0)
        err = lmdbenv_error(errno, "cannot lock make.lock", cfg->dir, why);
    else if (stat(data, &st) != 0)
        err = env_build(cfg, data, why);
    if (fd >= 0)
        (void)close(fd);
    return err;
}

enum err
lmdbenv_open(struct lmdbenv *env, const struct lmdbenv_config *cfg, struct why *why)
{
    enum err err;
    int rc;

    assert(cfg->tables_n <= LMDBENV_TABLES_MAX);
    *env = (struct lmdbenv){0};
    if (strlen(cfg->dir) > FILE_PATH_MAX - 64)
        return err_set(why, ERR_INVALID, "the log's directory name is too long");
    err = env_ensure(cfg, why);
    if (err != ERR_OK)
        return err;
    env->dir = strdup(cfg->dir);
    if (env->dir == NULL)
        return err_set(why, ERR_NOMEM, "%s: no memory", cfg->dir);
    if (pthread_mutex_init(&env->mutex, NULL) != 0)
        abort();
    rc = env_open(&env->env, cfg->dir, cfg, env->tables);
    if (rc != 0) {
        err = lmdbenv_error(rc, "cannot open the log", cfg->dir, why);
        (void)pthread_mutex_destroy(&env->mutex);
        free(env->dir);
        *env = (struct lmdbenv){0};
    }
    return err;
}

void
lmdbenv_close(struct lmdbenv *env)
{
    if (env->env == NULL)
        return;
    assert(env->active == 0);
    mdb_env_close(env->env);
    (void)pthread_mutex_destroy(&env->mutex);
    free(env->dir);
    *env = (struct lmdbenv){0};
}

static int
snapshot_take(struct lmdbenv *env, MDB_txn **txn)
{
    if (*txn != NULL)
        return mdb_txn_renew(*txn);
    return mdb_txn_begin(env->env, NULL, MDB_RDONLY, txn);
}

enum err
lmdbenv_read_begin(struct lmdbenv *env, MDB_txn **txn, struct why *why)
{
    int rc;

    (void)pthread_mutex_lock(&env->mutex);
    rc = snapshot_take(env, txn);
    /* Another process has opened it with a larger map: follow, but only while no
     * snapshot of ours points into the old one. */
    if (rc == MDB_MAP_RESIZED && env->active == 0) {
        rc = mdb_env_set_mapsize(env->env, 0);
        if (rc == 0)
            rc = snapshot_take(env, txn);
    }
    if (rc == 0)
        env->active++;
    (void)pthread_mutex_unlock(&env->mutex);
    return lmdbenv_error(rc, "cannot read", env->dir, why);
}

static void
snapshot_gone(struct lmdbenv *env)
{
    (void)pthread_mutex_lock(&env->mutex);
    assert(env->active > 0);
    env->active--;
    (void)pthread_mutex_unlock(&env->mutex);
}

void
lmdbenv_read_reset(struct lmdbenv *env, MDB_txn *txn)
{
    mdb_txn_reset(txn);
    snapshot_gone(env);
}

void
lmdbenv_read_end(struct lmdbenv *env, MDB_txn **txn)
{
    if (*txn == NULL)
        return;
    mdb_txn_abort(*txn);
    *txn = NULL;
    snapshot_gone(env);
}

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "common/file.h"
#include "common/hash.h"
#include "common/verdictlog_impl.h"

enum { EMPTY_BLOCKS = 4096, BOOT_SIZE = 64, LOCK_MODE = 0640 };
#define MAGIC UINT32_C(0x31564c43) /* "CLV1", little endian */

/* --- opening --- */

static enum err
dir_lock(const char *dir, int *out, struct why *why)
{
    char path[FILE_PATH_MAX];
    enum err err = file_mkdirs(dir, why);
    int fd;

    *out = -1;
    if (err != ERR_OK)
        return err;
    (void)snprintf(path, sizeof(path), "%s/copy.lock", dir);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, LOCK_MODE);
    if (fd < 0)
        return err_set(why, ERR_FATAL, "%s: %s", path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        (void)close(fd);
        return err_set(why, ERR_CONFLICT,
                       "%s: another process has this copy open; give each its own "
                       "data.dir",
                       dir);
    }
    *out = fd;
    return ERR_OK;
}

/* What the kernel calls this start of the machine; empty where it does not say. */
static void
boot_read(struct buf *out)
{
    *out = BUF_MAX(BOOT_SIZE);
    if (file_read("/proc/sys/kernel/random/boot_id", out, NULL) != ERR_OK)
        buf_reset(out);
}

static void
copy_remove(const char *dir)
{
    static const char *const names[] = {"data.mdb", "lock.mdb"};
    char path[FILE_PATH_MAX];

    for (int i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        (void)unlink(path);
    }
}

/* Throws the copy away unless it was made since the machine's start. */
static enum err
boot_check(const char *dir, struct why *why)
{
    struct buf now, then = BUF_MAX(BOOT_SIZE);
    char path[FILE_PATH_MAX];
    enum err err = ERR_OK;

    (void)snprintf(path, sizeof(path), "%s/boot", dir);
    boot_read(&now);
    if (file_read(path, &then, NULL) != ERR_OK || now.n == 0 || then.n != now.n ||
        memcmp(then.p, now.p, now.n) != 0) {
        copy_remove(dir);
        err = file_write(path, now.p, now.n, why);
    }
    buf_free(&now);
    buf_free(&then);
    return err;
}

/* Empties a copy of another log, and says whose it is now. */
static enum err
whose(struct verdictlog *log, uint64_t id, struct why *why)
{
    uint8_t name[] = "log";
    MDB_val key = {sizeof(name), name}, value;
    MDB_txn *txn = NULL;
    uint64_t stored = 0;
    int rc = mdb_txn_begin(log->env.env, NULL, 0, &txn);

    if (rc != 0)
        return lmdbenv_error(rc, "cannot begin to write", log->env.dir, why);
    rc = mdb_get(txn, log->env.tables[VERDICTLOG_COPIED], &key, &value);
    if (rc == 0 && value.mv_size == sizeof(stored))
        memcpy(&stored, value.mv_data, sizeof(stored));
    if (rc == 0 && value.mv_size == sizeof(stored) && stored == id) {
        mdb_txn_abort(txn);
        return ERR_OK;
    }
    rc = rc == MDB_NOTFOUND ? 0 : rc;
    for (int i = 0; i < VERDICTLOG_TABLES && rc == 0; i++)
        rc = mdb_drop(txn, log->env.tables[i], 0);
    value = (MDB_val){sizeof(id), &id};
    if (rc == 0)
        rc = mdb_put(txn, log->env.tables[VERDICTLOG_COPIED], &key, &value, 0);
    if (rc == 0)
        return verdictlog_commit(log, txn, 0, why);
    mdb_txn_abort(txn);
    return lmdbenv_error(rc, "cannot empty the copy", log->env.dir, why);
}

enum err
copy_open(struct verdictlog *log, const char *dir, uint64_t map_bytes, uint64_t id,
          int *lock, struct why *why)
{
    static const char *const tables[VERDICTLOG_TABLES] = {"blocks", "partitions",
                                                          "copied"};
    struct lmdbenv_config cfg = {dir,   map_bytes, tables, VERDICTLOG_TABLES,
                                 false, true};
    enum err err;

    if (strlen(dir) > FILE_PATH_MAX - 64)
        return err_set(why, ERR_INVALID, "the copy's directory name is too long");
    err = dir_lock(dir, lock, why);
    if (err == ERR_OK)
        err = boot_check(dir, why);
    if (err == ERR_OK)
        err = lmdbenv_open(&log->env, &cfg, why);
    if (err == ERR_CORRUPT) { /* it is a copy: a new one */
        copy_remove(dir);
        err = lmdbenv_open(&log->env, &cfg, why);
    }
    return err != ERR_OK ? err : whose(log, id, why);
}

/* --- which messages are in it --- */

static void
copied_key(uint32_t partition, uint8_t out[2])
{
    out[0] = (uint8_t)(partition >> 8);
    out[1] = (uint8_t)partition;
}

enum err
copy_copied(struct verdictlog *log, uint32_t partition, struct copied *out,
            bool *known, struct why *why)
{
    uint8_t id[2];
    MDB_val key = {sizeof(id), id}, value;
    MDB_txn *txn = NULL;
    enum err err = lmdbenv_read_begin(&log->env, &txn, why);
    int rc;

    *known = false;
    if (err != ERR_OK)
        return err;
    copied_key(partition, id);
    rc = mdb_get(txn, log->env.tables[VERDICTLOG_COPIED], &key, &value);
    if (rc == 0 && value.mv_size == sizeof(*out)) {
        memcpy(out, value.mv_data, sizeof(*out));
        *known = true;
    }
    lmdbenv_read_end(&log->env, &txn);
    return lmdbenv_error(rc == MDB_NOTFOUND ? 0 : rc, "cannot read", log->env.dir,
                         why);
}

int
copy_copied_put(struct verdictlog *log, MDB_txn *txn, uint32_t partition,
                const struct copied *copied)
{
    uint8_t id[2];
    struct copied stored = *copied;
    MDB_val key = {sizeof(id), id}, value = {sizeof(stored), &stored};

    copied_key(partition, id);
    return mdb_put(txn, log->env.tables[VERDICTLOG_COPIED], &key, &value, 0);
}

/* Deletes up to EMPTY_BLOCKS; before the first, that any message is in the copy. */
static int
empty_some(struct verdictlog *log, MDB_txn *txn, uint32_t partition,
           unsigned *deleted)
{
    uint8_t id[2];
    MDB_cursor *cursor = NULL;
    MDB_val key = {sizeof(id), id}, value;
    int rc;

    copied_key(partition, id);
    rc = mdb_del(txn, log->env.tables[VERDICTLOG_COPIED], &key, NULL);
    if (rc == 0 || rc == MDB_NOTFOUND)
        rc = mdb_cursor_open(txn, log->env.tables[VERDICTLOG_BLOCKS], &cursor);
    for (*deleted = 0; rc == 0 && *deleted < EMPTY_BLOCKS; (*deleted)++) {
        key = (MDB_val){sizeof(id), id};
        rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
        if (rc == 0 && (key.mv_size < 2 || memcmp(key.mv_data, id, 2) != 0))
            break;
        if (rc == 0)
            rc = mdb_cursor_del(cursor, 0);
        if (rc != 0)
            break;
    }
    if (cursor != NULL)
        mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

enum err
copy_empty(struct verdictlog *log, uint32_t partition, struct why *why)
{
    unsigned deleted = EMPTY_BLOCKS;
    enum err err = ERR_OK;

    while (err == ERR_OK && deleted == EMPTY_BLOCKS) {
        MDB_txn *txn = NULL;
        int rc = mdb_txn_begin(log->env.env, NULL, 0, &txn);

        if (rc == 0)
            rc = empty_some(log, txn, partition, &deleted);
        if (rc == 0)
            err = verdictlog_commit(log, txn, 0, why);
        else {
            if (txn != NULL)
                mdb_txn_abort(txn);
            err = lmdbenv_error(rc, "cannot empty the copy", log->env.dir, why);
        }
    }
    return err;
}

/* --- the wire --- */

static void
le_put(uint8_t *out, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        out[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t
le_get(const uint8_t *p, int bytes)
{
    uint64_t v = 0;

    for (int i = bytes - 1; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

/* Of the verdicts, seeded with what stands before the check. */
static uint64_t
wire_check(const uint8_t *block, size_t verdicts)
{
    return hash64(block + WIRE_BLOCK_HEAD, verdicts * 8, hash64(block, 24, 0));
}

void
wire_block_make(const struct verdictlog_block *block, uint8_t *out)
{
    le_put(out, MAGIC, 4);
    le_put(out + 4, block->count, 4);
    le_put(out + 8, block->base, 8);
    le_put(out + 16, block->epoch, 8);
    for (uint32_t i = 0; i < block->count; i++)
        le_put(out + WIRE_BLOCK_HEAD + 8 * (size_t)i, block->verdicts[i], 8);
    le_put(out + 24, wire_check(out, block->count), 8);
}

bool
wire_block_read(struct str value, uint32_t partition, uint64_t *verdicts,
                struct verdictlog_block *out)
{
    const uint8_t *p = (const uint8_t *)value.p;

    if (value.n < WIRE_BLOCK_HEAD || le_get(p, 4) != MAGIC)
        return false;
    *out = (struct verdictlog_block){partition, le_get(p + 8, 8), le_get(p + 16, 8),
                                     verdicts, (uint32_t)le_get(p + 4, 4)};
    if (verdictlog_block_valid(out, NULL) != ERR_OK ||
        value.n != WIRE_BLOCK_HEAD + 8 * (uint64_t)out->count ||
        le_get(p + 24, 8) != wire_check(p, out->count))
        return false;
    for (uint32_t i = 0; i < out->count; i++)
        verdicts[i] = le_get(p + WIRE_BLOCK_HEAD + 8 * (size_t)i, 8);
    return true;
}

#include "common/verdictlog.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"
#include "common/verdictlog_impl.h"

enum { KEY_SIZE = 18, TRIM_BLOCKS = 4096 };

/* Key: partition u16, base u64, epoch u64, big endian. */
struct key {
    uint8_t b[KEY_SIZE];
};

struct header {
    uint32_t count;
    uint32_t zero;
    uint64_t check; /* hash64 of the verdicts, seeded with the key */
};

/* What table "partitions" knows of one; trimming does not change it. */
struct partition {
    uint64_t epoch; /* the highest ever recorded */
    uint64_t next;  /* the offset after the last verdict */
};

static struct key
key_make(uint32_t partition, uint64_t base, uint64_t epoch)
{
    struct key key = {{(uint8_t)(partition >> 8), (uint8_t)partition}};

    for (int i = 0; i < 8; i++) {
        key.b[2 + i] = (uint8_t)(base >> (56 - 8 * i));
        key.b[10 + i] = (uint8_t)(epoch >> (56 - 8 * i));
    }
    return key;
}

static uint64_t
big_endian(const uint8_t *p)
{
    uint64_t v = 0;

    for (int i = 0; i < 8; i++)
        v = v << 8 | p[i];
    return v;
}

/* A key's parts; false if it is not of this partition. */
static bool
key_read(const MDB_val *key, uint32_t partition, uint64_t *base, uint64_t *epoch)
{
    const uint8_t *p = key->mv_data;

    if (key->mv_size != KEY_SIZE || ((uint32_t)p[0] << 8 | p[1]) != partition)
        return false;
    *base = big_endian(p + 2);
    *epoch = big_endian(p + 10);
    return true;
}

static uint64_t
check_of(const struct key *key, const uint8_t *verdicts, size_t n)
{
    return hash64(verdicts, n * 8, hash64(key->b, KEY_SIZE, 0));
}

/* How many verdicts a block of this size holds, without reading its pages. */
static uint64_t
count_of(const MDB_val *value)
{
    return value->mv_size < sizeof(struct header)
               ? 0
               : (value->mv_size - sizeof(struct header)) / 8;
}

enum err
verdictlog_open(struct verdictlog **out, const char *dir, uint64_t map_bytes,
                bool read_only, struct why *why)
{
    static const char *const tables[] = {"blocks", "partitions"};
    struct lmdbenv_config cfg = {dir, map_bytes, tables, 2, read_only, false};
    struct verdictlog *log = calloc(1, sizeof(*log));
    enum err err;

    *out = NULL;
    if (log == NULL)
        return err_set(why, ERR_NOMEM, "verdictlog: no memory");
    log->read_only = read_only;
    err = lmdbenv_open(&log->env, &cfg, why);
    if (err != ERR_OK) {
        free(log);
        return err;
    }
    *out = log;
    return ERR_OK;
}

void
verdictlog_close(struct verdictlog **log)
{
    if (*log == NULL)
        return;
    verdictlog_kafka_close(*log);
    lmdbenv_close(&(*log)->env);
    free(*log);
    *log = NULL;
}

static int
partition_get(struct verdictlog *log, MDB_txn *txn, uint32_t partition,
              struct partition *out)
{
    uint8_t id[2] = {(uint8_t)(partition >> 8), (uint8_t)partition};
    MDB_val key = {sizeof(id), id}, value;
    int rc = mdb_get(txn, log->env.tables[VERDICTLOG_PARTITIONS], &key, &value);

    *out = (struct partition){0};
    if (rc == MDB_NOTFOUND)
        return 0;
    if (rc == 0 && value.mv_size != sizeof(*out))
        return MDB_CORRUPTED;
    if (rc == 0)
        memcpy(out, value.mv_data, sizeof(*out));
    return rc;
}

static int
partition_put(struct verdictlog *log, MDB_txn *txn,
              const struct verdictlog_block *block)
{
    uint8_t id[2] = {(uint8_t)(block->partition >> 8), (uint8_t)block->partition};
    struct partition now;
    MDB_val key = {sizeof(id), id}, value = {sizeof(now), &now};
    uint64_t next = block->base + block->count;
    int rc = partition_get(log, txn, block->partition, &now);

    if (rc != 0 || (now.epoch >= block->epoch && now.next >= next))
        return rc;
    now.epoch = now.epoch > block->epoch ? now.epoch : block->epoch;
    now.next = now.next > next ? now.next : next;
    return mdb_put(txn, log->env.tables[VERDICTLOG_PARTITIONS], &key, &value, 0);
}

/* A block is a fact: the same again is no change, another one is refused. *replace: it is
 * the same with more at its end, and that is allowed. */
static enum err
block_same(const struct verdictlog *log, const struct verdictlog_block *block,
           const MDB_val *stored, bool longer, bool *replace, struct why *why)
{
    size_t bytes = (size_t)block->count * 8, old = 0;
    const uint8_t *p = stored->mv_data;
    bool same;

    *replace = false;
    if (stored->mv_size >= sizeof(struct header))
        old = stored->mv_size - sizeof(struct header);
    same = (longer || old == bytes) &&
           memcmp(p + sizeof(struct header), block->verdicts,
                  old < bytes ? old : bytes) == 0;
    *replace = same && old < bytes;
    if (same)
        return ERR_OK;
    return err_set(why, ERR_CONFLICT,
                   "%s: partition %u, offset %" PRIu64 ", epoch %" PRIu64
                   ": other verdicts are on record",
                   log->env.dir, block->partition, block->base, block->epoch);
}

enum err
verdictlog_block_put(struct verdictlog *log, MDB_txn *txn,
                     const struct verdictlog_block *block, bool longer,
                     struct why *why)
{
    struct key id = key_make(block->partition, block->base, block->epoch);
    struct header header = {block->count, 0, 0};
    size_t bytes = (size_t)block->count * 8;
    MDB_val key = {sizeof(id.b), id.b}, value = {sizeof(header) + bytes, NULL};
    MDB_dbi blocks = log->env.tables[VERDICTLOG_BLOCKS];
    uint8_t *out;
    int rc = mdb_put(txn, blocks, &key, &value, MDB_RESERVE | MDB_NOOVERWRITE);

    if (rc == MDB_KEYEXIST) {
        bool replace;
        enum err err = block_same(log, block, &value, longer, &replace, why);

        if (!replace)
            return err;
        value = (MDB_val){sizeof(header) + bytes, NULL};
        rc = mdb_put(txn, blocks, &key, &value, MDB_RESERVE);
    }
    if (rc != 0)
        return lmdbenv_error(rc, "cannot write verdicts", log->env.dir, why);
    out = value.mv_data;
    memcpy(out + sizeof(header), block->verdicts, bytes);
    header.check = check_of(&id, out + sizeof(header), block->count);
    memcpy(out, &header, sizeof(header));
    rc = partition_put(log, txn, block);
    return lmdbenv_error(rc, "cannot write verdicts", log->env.dir, why);
}

enum err
verdictlog_block_valid(const struct verdictlog_block *block, struct why *why)
{
    if (block->count < 1 || block->count > VERDICTLOG_BLOCK_MAX)
        return err_set(why, ERR_INVALID, "verdictlog: a block of %u, not 1..%d",
                       block->count, VERDICTLOG_BLOCK_MAX);
    if (block->partition > UINT16_MAX)
        return err_set(why, ERR_INVALID, "verdictlog: partition %u",
                       block->partition);
    if (block->base > UINT64_MAX - block->count)
        return err_set(why, ERR_INVALID, "verdictlog: offset %" PRIu64,
                       block->base);
    return ERR_OK;
}

enum err
verdictlog_commit(struct verdictlog *log, MDB_txn *txn, uint64_t bytes,
                  struct why *why)
{
    int rc = mdb_txn_commit(txn);

    if (rc == EIO && lmdbenv_disk_is_full(&log->env, bytes + (1 << 20)))
        rc = ENOSPC; /* LMDB's word for a write cut short */
    if (rc != 0 && lmdbenv_is_dead(&log->env))
        rc = MDB_PANIC; /* it was the meta page that failed */
    return lmdbenv_error(rc, "cannot commit", log->env.dir, why);
}

enum err
verdictlog_append(struct verdictlog *log, const struct verdictlog_block *blocks,
                  size_t n, struct why *why)
{
    MDB_txn *txn = NULL;
    uint64_t bytes = 0;
    enum err err = ERR_OK;
    int rc;

    assert(!log->read_only);
    for (size_t i = 0; i < n && err == ERR_OK; i++)
        err = verdictlog_block_valid(&blocks[i], why);
    if (err != ERR_OK || n == 0)
        return err;
    if (log->kafka != NULL)
        return verdictlog_kafka_append(log, blocks, n, why);
    rc = mdb_txn_begin(log->env.env, NULL, 0, &txn);
    if (rc != 0)
        return lmdbenv_error(rc, "cannot begin to write", log->env.dir, why);
    for (size_t i = 0; i < n && err == ERR_OK; i++) {
        err = verdictlog_block_put(log, txn, &blocks[i], false, why);
        bytes += (uint64_t)blocks[i].count * 8;
    }
    if (err != ERR_OK) {
        mdb_txn_abort(txn);
        return err;
    }
    return verdictlog_commit(log, txn, bytes, why);
}

/* A span of offsets that is being read, with the epoch that has won each so far. */
struct span {
    uint32_t partition;
    uint64_t from;
    size_t n;
    uint64_t *out;
    uint64_t *epochs;
};

/* Lays one block over the span where its epoch is higher than what is there. */
static enum err
block_lay(struct verdictlog *log, struct span *span, uint64_t base, uint64_t epoch,
          const MDB_val *value, struct why *why)
{
    struct key id = key_make(span->partition, base, epoch);
    const uint8_t *verdicts =
        (const uint8_t *)value->mv_data + sizeof(struct header);
    uint64_t count = count_of(value), lo, hi;
    struct header header = {0};

    if (count > 0)
        memcpy(&header, value->mv_data, sizeof(header));
    if (count == 0 || header.count != count ||
        header.check != check_of(&id, verdicts, count))
        return err_set(why, ERR_CORRUPT,
                       "%s: partition %u, offset %" PRIu64
                       ": the block's checksum is wrong",
                       log->env.dir, span->partition, base);
    lo = base > span->from ? base : span->from;
    hi = base + count < span->from + span->n ? base + count : span->from + span->n;
    for (uint64_t o = lo; o < hi; o++) {
        size_t i = (size_t)(o - span->from);

        if (span->out[i] != 0 && span->epochs[i] >= epoch)
            continue;
        memcpy(&span->out[i], verdicts + (o - base) * 8, 8);
        span->epochs[i] = epoch;
    }
    return ERR_OK;
}

static enum err
span_read(struct verdictlog *log, MDB_cursor *cursor, struct span *span,
          struct why *why)
{
    /* The longest block that can reach into the span begins here. */
    uint64_t reach = VERDICTLOG_BLOCK_MAX - 1, base, epoch;
    struct key id =
        key_make(span->partition, span->from > reach ? span->from - reach : 0, 0);
    MDB_val key = {sizeof(id.b), id.b}, value;
    int rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);

    while (rc == 0 && key_read(&key, span->partition, &base, &epoch) &&
           base < span->from + span->n) {
        if (base + count_of(&value) > span->from) {
            enum err err = block_lay(log, span, base, epoch, &value, why);

            if (err != ERR_OK)
                return err;
        }
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    return lmdbenv_error(rc == MDB_NOTFOUND ? 0 : rc, "cannot read verdicts",
                         log->env.dir, why);
}

enum err
verdictlog_read(struct verdictlog *log, uint32_t partition, uint64_t from, size_t n,
                uint64_t *out, struct why *why)
{
    struct span span = {partition, from, n, out, NULL};
    MDB_cursor *cursor = NULL;
    MDB_txn *txn = NULL;
    enum err err;

    if (n == 0)
        return ERR_OK;
    if (partition > UINT16_MAX || from > UINT64_MAX - n)
        return err_set(why, ERR_INVALID,
                       "verdictlog: partition %u, offset %" PRIu64, partition,
                       from);
    span.epochs = calloc(n, sizeof(*span.epochs));
    if (span.epochs == NULL)
        return err_set(why, ERR_NOMEM, "verdictlog: no memory to read %zu", n);
    memset(out, 0, n * sizeof(*out));
    err = lmdbenv_read_begin(&log->env, &txn, why);
    if (err == ERR_OK)
        err = lmdbenv_error(
            mdb_cursor_open(txn, log->env.tables[VERDICTLOG_BLOCKS], &cursor),
            "cannot read verdicts", log->env.dir, why);
    if (err == ERR_OK)
        err = span_read(log, cursor, &span, why);
    if (cursor != NULL)
        mdb_cursor_close(cursor);
    lmdbenv_read_end(&log->env, &txn);
    free(span.epochs);
    return err;
}

enum err
verdictlog_last(struct verdictlog *log, uint32_t partition, uint64_t *epoch,
                uint64_t *next, struct why *why)
{
    struct partition now = {0};
    MDB_txn *txn = NULL;
    enum err err = lmdbenv_read_begin(&log->env, &txn, why);
    int rc;

    if (err != ERR_OK)
        return err;
    rc = partition_get(log, txn, partition, &now);
    lmdbenv_read_end(&log->env, &txn);
    *epoch = now.epoch;
    *next = now.next;
    return lmdbenv_error(rc, "cannot read the last verdict", log->env.dir, why);
}

/* Deletes up to TRIM_BLOCKS of what lies below offset, one transaction. Blocks overlap,
 * so one that reaches past offset is passed over, and *from says where to go on. */
static int
trim_some(struct verdictlog *log, MDB_txn *txn, uint32_t partition, uint64_t offset,
          struct key *from, unsigned *deleted)
{
    MDB_cursor *cursor;
    MDB_val key = {sizeof(from->b), from->b}, value;
    uint64_t base, epoch;
    int rc = mdb_cursor_open(txn, log->env.tables[VERDICTLOG_BLOCKS], &cursor);

    *deleted = 0;
    if (rc != 0)
        return rc;
    rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    while (rc == 0 && *deleted < TRIM_BLOCKS &&
           key_read(&key, partition, &base, &epoch) && base < offset) {
        memcpy(from->b, key.mv_data, KEY_SIZE);
        if (base + count_of(&value) <= offset) {
            rc = mdb_cursor_del(cursor, 0);
            *deleted += rc == 0;
        }
        if (rc == 0) { /* after a deletion NEXT stays: so by key, past this one */
            key = (MDB_val){sizeof(from->b), from->b};
            rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
            if (rc == 0 && memcmp(key.mv_data, from->b, KEY_SIZE) == 0)
                rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
        }
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

enum err
verdictlog_trim(struct verdictlog *log, uint32_t partition, uint64_t offset,
                struct why *why)
{
    struct key from = key_make(partition, 0, 0);
    unsigned deleted = TRIM_BLOCKS;
    enum err err = ERR_OK;

    assert(!log->read_only);
    while (err == ERR_OK && deleted == TRIM_BLOCKS) {
        MDB_txn *txn = NULL;
        int rc = mdb_txn_begin(log->env.env, NULL, 0, &txn);

        if (rc != 0)
            return lmdbenv_error(rc, "cannot begin to trim", log->env.dir, why);
        rc = trim_some(log, txn, partition, offset, &from, &deleted);
        if (rc != 0 || deleted == 0) {
            mdb_txn_abort(txn);
            return lmdbenv_error(rc, "cannot trim", log->env.dir, why);
        }
        err = verdictlog_commit(log, txn, 0, why);
    }
    return err;
}

#include "common/clicklog_impl.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/clicklog_kafka.h"

enum { LENGTH_BYTES = 4 };

struct clicklog_reader {
    struct clicklog *log;
    struct clicklog_kafka_reader *kafka; /* then the rest is unused */
    MDB_txn *txn;                        /* kept, reset, between snapshots */
    MDB_cursor *cursor;
    bool held; /* the snapshot is taken */
    uint32_t partition;
    uint64_t offset; /* of the record that comes next */
    uint64_t next;   /* the snapshot's end */
    struct block_header block;
    const uint8_t *at, *end; /* what is left of the block */
    uint64_t block_base;
};

uint32_t
block_key_partition(const MDB_val *key)
{
    const uint8_t *p = key->mv_data;

    return key->mv_size == sizeof(struct block_key) ? (uint32_t)p[0] << 8 | p[1]
                                                    : UINT32_MAX;
}

uint64_t
block_key_base(const MDB_val *key)
{
    const uint8_t *p = key->mv_data;
    uint64_t base = 0;

    for (int i = 2; i < 10; i++)
        base = base << 8 | p[i];
    return base;
}

static enum err
damaged(const struct clicklog *log, uint32_t partition, uint64_t offset,
        const char *what, struct why *why)
{
    return err_set(why, ERR_CORRUPT, "%s: partition %u, offset %" PRIu64 ": %s",
                   log->env.dir, partition, offset, what);
}

/* Reads a block's header and holds it against the block's size. */
static bool
header_read(const MDB_val *value, struct block_header *header)
{
    if (value->mv_size < sizeof(*header))
        return false;
    memcpy(header, value->mv_data, sizeof(*header));
    return header->magic == BLOCK_MAGIC && header->count > 0 &&
           header->bytes == value->mv_size - sizeof(*header);
}

/* The first key of partition at or after base; MDB_NOTFOUND if there is none. */
static int
block_at_or_after(MDB_cursor *cursor, uint32_t partition, uint64_t base,
                  MDB_val *key, MDB_val *value)
{
    struct block_key bytes = block_key(partition, base);
    int rc;

    *key = (MDB_val){sizeof(bytes.b), bytes.b};
    rc = mdb_cursor_get(cursor, key, value, MDB_SET_RANGE);
    if (rc == 0 && block_key_partition(key) != partition)
        return MDB_NOTFOUND;
    return rc;
}

enum err
clicklog_range(struct clicklog *log, uint32_t partition, uint64_t *first,
               uint64_t *next, struct why *why)
{
    MDB_txn *txn = NULL;
    MDB_cursor *cursor = NULL;
    MDB_val key, value;
    struct state state;
    enum err err;
    int rc;

    if (partition >= log->partitions)
        return err_set(why, ERR_INVALID, "clicklog: partition %u of %u", partition,
                       log->partitions);
    if (log->kafka != NULL)
        return clicklog_kafka_range(log->kafka, partition, first, next, why);
    err = lmdbenv_read_begin(&log->env, &txn, why);
    if (err != ERR_OK)
        return err;
    err = state_read(log, txn, &state, why);
    if (err == ERR_OK) {
        rc = mdb_cursor_open(txn, log->env.tables[TABLE_BLOCKS], &cursor);
        if (rc == 0)
            rc = block_at_or_after(cursor, partition, 0, &key, &value);
        *next = state.next[partition];
        *first = rc == 0 ? block_key_base(&key) : *next;
        if (rc != MDB_NOTFOUND)
            err = lmdbenv_error(rc, "cannot read the range", log->env.dir, why);
    }
    if (cursor != NULL)
        mdb_cursor_close(cursor);
    lmdbenv_read_end(&log->env, &txn);
    return err;
}

/* Deletes up to TRIM_BLOCKS blocks that end at or below offset; *more: there may be
 * others. */
static enum err
trim_some(struct clicklog *log, struct change *change, uint32_t partition,
          uint64_t offset, bool *more, struct why *why)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    struct block_header header;
    int deleted = 0;
    int rc = mdb_cursor_open(change->txn, log->env.tables[TABLE_BLOCKS], &cursor);

    if (rc != 0)
        return change_error(log, rc, "cannot trim", why);
    while (deleted < TRIM_BLOCKS) {
        rc = block_at_or_after(cursor, partition, 0, &key, &value);
        if (rc != 0)
            break;
        uint64_t base = block_key_base(&key);
        if (!header_read(&value, &header)) {
            mdb_cursor_close(cursor);
            return damaged(log, partition, base, "the block's header is damaged",
                           why);
        }
        if (base + header.count > offset)
            break;
        change->state.bytes_used -= value_cost(key.mv_size, value.mv_size);
        rc = mdb_cursor_del(cursor, 0);
        if (rc != 0)
            break;
        deleted++;
    }
    mdb_cursor_close(cursor);
    *more = deleted == TRIM_BLOCKS;
    if (rc == MDB_NOTFOUND)
        rc = 0;
    if (rc == 0 && deleted == 0)
        return ERR_AGAIN; /* nothing to commit */
    return change_error(log, rc, "cannot trim", why);
}

enum err
clicklog_trim(struct clicklog *log, uint32_t partition, uint64_t offset,
              struct why *why)
{
    struct change change;
    bool more = true;
    enum err err = ERR_OK;

    assert(!log->read_only);
    if (partition >= log->partitions)
        return err_set(why, ERR_INVALID, "clicklog: partition %u of %u", partition,
                       log->partitions);
    while (more && err == ERR_OK) {
        enum err step;

        err = change_begin(log, &change, why);
        if (err != ERR_OK)
            return err;
        more = false;
        step = trim_some(log, &change, partition, offset, &more, why);
        if (step == ERR_OK) {
            err = change_commit(log, &change, why);
        } else {
            change_abort(&change);
            err = step == ERR_AGAIN ? ERR_OK : step;
        }
    }
    return err;
}

enum err
clicklog_reader_open(struct clicklog_reader **out, struct clicklog *log,
                     struct why *why)
{
    struct clicklog_reader *reader = calloc(1, sizeof(*reader));

    *out = reader;
    if (reader == NULL)
        return err_set(why, ERR_NOMEM, "clicklog: no memory for a reader");
    reader->log = log;
    if (log->kafka != NULL) {
        enum err err = clicklog_kafka_reader_open(&reader->kafka, log->kafka, why);

        if (err != ERR_OK)
            clicklog_reader_close(out);
        return err;
    }
    return ERR_OK;
}

struct clicklog_kafka_reader *
clicklog_reader_kafka(const struct clicklog_reader *reader)
{
    return reader->kafka;
}

struct clicklog *
clicklog_reader_log(const struct clicklog_reader *reader)
{
    return reader->log;
}

void
clicklog_release(struct clicklog_reader *reader)
{
    reader->at = reader->end = NULL;
    if (reader->kafka != NULL)
        clicklog_kafka_release(reader->kafka);
    if (!reader->held)
        return;
    reader->held = false;
    lmdbenv_read_reset(&reader->log->env, reader->txn);
}

void
clicklog_reader_close(struct clicklog_reader **reader)
{
    if (*reader == NULL)
        return;
    clicklog_release(*reader);
    clicklog_kafka_reader_close(&(*reader)->kafka);
    if ((*reader)->cursor != NULL)
        mdb_cursor_close((*reader)->cursor);
    if ((*reader)->txn != NULL)
        mdb_txn_abort((*reader)->txn);
    free(*reader);
    *reader = NULL;
}

static enum err
snapshot_take(struct clicklog_reader *reader, struct why *why)
{
    struct lmdbenv *env = &reader->log->env;
    enum err err = lmdbenv_read_begin(env, &reader->txn, why);
    int rc;

    if (err != ERR_OK)
        return err;
    reader->held = true;
    rc = reader->cursor == NULL
             ? mdb_cursor_open(reader->txn, env->tables[TABLE_BLOCKS],
                               &reader->cursor)
             : mdb_cursor_renew(reader->txn, reader->cursor);
    return lmdbenv_error(rc, "cannot open a cursor", env->dir, why);
}

/* Takes a block, whose checksum must be right, as the one to read from. */
static enum err
block_enter(struct clicklog_reader *reader, const MDB_val *key,
            const MDB_val *value, struct why *why)
{
    const uint8_t *p = value->mv_data;
    uint64_t base = block_key_base(key);

    reader->at = reader->end = NULL;
    if (!header_read(value, &reader->block))
        return damaged(reader->log, reader->partition, base,
                       "the block's header is damaged", why);
    if (block_check(&reader->block, p, reader->partition, base) !=
        reader->block.check)
        return damaged(reader->log, reader->partition, base,
                       "the block's checksum is wrong", why);
    reader->block_base = base;
    reader->at = p + sizeof(reader->block);
    reader->end = p + value->mv_size;
    return ERR_OK;
}

/* The length of the record at `at`; false if it passes the block's end. */
static bool
record_length(const struct clicklog_reader *reader, uint32_t *n)
{
    size_t left = (size_t)(reader->end - reader->at);

    if (left < LENGTH_BYTES)
        return false;
    memcpy(n, reader->at, LENGTH_BYTES);
    return *n <= left - LENGTH_BYTES;
}

static enum err
block_skip_to(struct clicklog_reader *reader, uint64_t offset, struct why *why)
{
    uint32_t n;

    for (uint64_t o = reader->block_base; o < offset; o++) {
        if (!record_length(reader, &n))
            return damaged(reader->log, reader->partition, o,
                           "a record passes its block's end", why);
        reader->at += LENGTH_BYTES + n;
    }
    return ERR_OK;
}

/* Finds the block that holds offset: the last one with base <= offset. */
static enum err
block_find(struct clicklog_reader *reader, uint64_t offset, struct why *why)
{
    MDB_val key, value;
    enum err err;
    int rc =
        block_at_or_after(reader->cursor, reader->partition, offset, &key, &value);

    if (rc != 0 && rc != MDB_NOTFOUND)
        return lmdbenv_error(rc, "cannot seek", reader->log->env.dir, why);
    if (rc == MDB_NOTFOUND || block_key_base(&key) != offset) {
        /* The cursor stands behind it; at the table's end it does not stand at all. */
        struct block_key past = block_key(reader->partition, offset);

        key = (MDB_val){sizeof(past.b), past.b};
        rc = mdb_cursor_get(reader->cursor, &key, &value, MDB_SET_RANGE);
        rc = mdb_cursor_get(reader->cursor, &key, &value,
                            rc == MDB_NOTFOUND ? MDB_LAST : MDB_PREV);
    }
    if (rc == MDB_NOTFOUND ||
        (rc == 0 && block_key_partition(&key) != reader->partition))
        return err_set(why, ERR_NOTFOUND,
                       "%s: partition %u, offset %" PRIu64 " is no longer held",
                       reader->log->env.dir, reader->partition, offset);
    if (rc != 0)
        return lmdbenv_error(rc, "cannot seek", reader->log->env.dir, why);
    err = block_enter(reader, &key, &value, why);
    if (err == ERR_OK && offset - reader->block_base >= reader->block.count)
        return damaged(reader->log, reader->partition, offset, "a block is missing",
                       why);
    return err == ERR_OK ? block_skip_to(reader, offset, why) : err;
}

enum err
clicklog_seek(struct clicklog_reader *reader, uint32_t partition, uint64_t offset,
              struct why *why)
{
    struct clicklog *log = reader->log;
    struct state state;
    enum err err;

    if (partition >= log->partitions)
        return err_set(why, ERR_INVALID, "clicklog: partition %u of %u", partition,
                       log->partitions);
    if (reader->kafka != NULL)
        return clicklog_kafka_seek(reader->kafka, partition, offset, why);
    clicklog_release(reader);
    err = snapshot_take(reader, why);
    if (err == ERR_OK)
        err = state_read(log, reader->txn, &state, why);
    if (err != ERR_OK)
        goto release;
    reader->partition = partition;
    reader->offset = offset;
    reader->next = state.next[partition];
    if (offset > reader->next) {
        err =
            err_set(why, ERR_NOTFOUND,
                    "%s: partition %u ends at offset %" PRIu64 ", before %" PRIu64,
                    log->env.dir, partition, reader->next, offset);
        goto release;
    }
    if (offset == reader->next)
        return ERR_OK;
    err = block_find(reader, offset, why);
    if (err == ERR_OK)
        return ERR_OK;

release:
    clicklog_release(reader);
    return err;
}

static enum err
block_next(struct clicklog_reader *reader, struct why *why)
{
    MDB_val key, value;
    int rc = mdb_cursor_get(reader->cursor, &key, &value, MDB_NEXT);

    if (rc != 0 && rc != MDB_NOTFOUND)
        return lmdbenv_error(rc, "cannot read on", reader->log->env.dir, why);
    if (rc == MDB_NOTFOUND || block_key_partition(&key) != reader->partition ||
        block_key_base(&key) != reader->offset)
        return damaged(reader->log, reader->partition, reader->offset,
                       "a block is missing", why);
    return block_enter(reader, &key, &value, why);
}

enum err
clicklog_next(struct clicklog_reader *reader, struct clicklog_record *out,
              struct why *why)
{
    uint32_t n;

    if (reader->kafka != NULL)
        return clicklog_kafka_next(reader->kafka, out, why);
    if (!reader->held || reader->offset == reader->next)
        return ERR_AGAIN;
    if (reader->at == reader->end) {
        enum err err = block_next(reader, why);

        if (err != ERR_OK)
            return err;
    }
    if (!record_length(reader, &n) ||
        reader->offset - reader->block_base >= reader->block.count)
        return damaged(reader->log, reader->partition, reader->offset,
                       "a record passes its block's end", why);
    *out = (struct clicklog_record){
        .offset = reader->offset,
        .received_us = reader->block.received_us,
        .incarnation = reader->block.incarnation,
        .seq = reader->block.first_seq + (reader->offset - reader->block_base),
        .version = reader->block.version,
        .p = reader->at + LENGTH_BYTES,
        .n = n,
    };
    reader->at += LENGTH_BYTES + n;
    reader->offset++;
    return ERR_OK;
}

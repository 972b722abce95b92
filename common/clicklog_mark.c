/* How far each incarnation came in each partition. The records of incarnations say so without
 * a look at any block: they are written by the transaction that begins the next one. */
#include "common/clicklog_impl.h"
#include "common/clicklog_kafka.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

/* Incarnations, from the newest on back: [start, end) are the offsets of each. */
struct walk {
    struct clicklog *log;
    MDB_txn *txn;
    MDB_cursor *cursor;
    uint64_t incarnation; /* 0: not begun, or behind the oldest */
    uint64_t start[CLICKLOG_PARTITIONS_MAX], end[CLICKLOG_PARTITIONS_MAX];
};

static bool
is_incarnation(const MDB_val *key)
{
    return key->mv_size == 5 && *(const uint8_t *)key->mv_data == 'i';
}

int
incarnation_seek(MDB_cursor *cursor, MDB_val *key, MDB_val *value)
{
    char past[] = "j"; /* the first key behind all of them */
    int rc;

    *key = (MDB_val){1, past};
    rc = mdb_cursor_get(cursor, key, value, MDB_SET_RANGE);
    rc = mdb_cursor_get(cursor, key, value,
                        rc == MDB_NOTFOUND ? MDB_LAST : MDB_PREV);
    return rc == 0 && !is_incarnation(key) ? MDB_NOTFOUND : rc;
}

static enum err
walk_begin(struct walk *walk, struct clicklog *log, struct state *state,
           struct why *why)
{
    enum err err;

    *walk = (struct walk){.log = log};
    err = lmdbenv_read_begin(&log->env, &walk->txn, why);
    if (err == ERR_OK)
        err = state_read(log, walk->txn, state, why);
    if (err == ERR_OK)
        err = lmdbenv_error(
            mdb_cursor_open(walk->txn, log->env.tables[TABLE_META], &walk->cursor),
            "cannot open a cursor", log->env.dir, why);
    memcpy(walk->start, state->next, sizeof(walk->start));
    return err;
}

static void
walk_end(struct walk *walk)
{
    if (walk->cursor != NULL)
        mdb_cursor_close(walk->cursor);
    if (walk->txn != NULL)
        lmdbenv_read_end(&walk->log->env, &walk->txn);
}

static enum err
incarnation_take(struct walk *walk, const MDB_val *value, struct why *why)
{
    uint32_t partitions = walk->log->partitions;
    struct incarnation one;

    if (value->mv_size !=
        offsetof(struct incarnation, start) + partitions * sizeof(uint64_t))
        return err_set(why, ERR_CORRUPT, "%s: an incarnation has %zu bytes",
                       walk->log->env.dir, value->mv_size);
    memcpy(&one, value->mv_data, value->mv_size);
    for (uint32_t p = 0; p < partitions; p++) {
        walk->end[p] = walk->start[p];
        walk->start[p] = one.closed ? walk->end[p] - one.start[p] : one.start[p];
        if (walk->start[p] > walk->end[p])
            return err_set(why, ERR_CORRUPT,
                           "%s: incarnation %016" PRIx64
                           " has more clicks than partition %u",
                           walk->log->env.dir, one.incarnation, p);
    }
    walk->incarnation = one.incarnation;
    return ERR_OK;
}

/* The next older one; walk->incarnation is 0 behind the oldest. */
static enum err
walk_next(struct walk *walk, struct why *why)
{
    MDB_val key, value;
    int rc = walk->incarnation == 0
                 ? incarnation_seek(walk->cursor, &key, &value)
                 : mdb_cursor_get(walk->cursor, &key, &value, MDB_PREV);

    walk->incarnation = 0;
    if (rc == MDB_NOTFOUND || (rc == 0 && !is_incarnation(&key)))
        return ERR_OK;
    if (rc != 0)
        return lmdbenv_error(rc, "cannot read incarnations", walk->log->env.dir,
                             why);
    return incarnation_take(walk, &value, why);
}

/* Takes what is new of the incarnation that the walk is at. False: older ones would add
 * nothing. */
static bool
mark_add(const struct walk *walk, struct clicklog_mark *out)
{
    bool more = false;

    if (out->incarnation == 0)
        out->incarnation = walk->incarnation;
    for (uint32_t p = 0; p < walk->log->partitions; p++) {
        struct clicklog_last one = {walk->incarnation,
                                    walk->end[p] - walk->start[p]};

        if (one.count > 0 && out->last[p].count == 0)
            out->last[p] = one;
        else if (one.count > 0 && out->before[p].count == 0)
            out->before[p] = one;
        more = more || (walk->start[p] > 0 && out->before[p].count == 0);
    }
    return more;
}

enum err
clicklog_mark_get(struct clicklog *log, struct clicklog_mark *out, struct why *why)
{
    struct state state;
    struct walk walk;
    enum err err;

    memset(out, 0, sizeof(*out));
    if (log->kafka != NULL)
        return clicklog_kafka_mark(log->kafka, out, why);
    err = walk_begin(&walk, log, &state, why);
    if (err == ERR_OK) {
        out->spool_id = log->spool_id;
        out->floor_us = state.floor_us;
        memcpy(out->next, state.next, sizeof(out->next));
        do
            err = walk_next(&walk, why);
        while (err == ERR_OK && walk.incarnation != 0 && mark_add(&walk, out));
    }
    walk_end(&walk);
    return err;
}

enum err
clicklog_ends(struct clicklog *log, uint64_t next[CLICKLOG_PARTITIONS_MAX],
              struct why *why)
{
    MDB_txn *txn = NULL;
    struct state state;
    enum err err;

    assert(log->kafka == NULL);
    err = lmdbenv_read_begin(&log->env, &txn, why);
    if (err != ERR_OK)
        return err;
    err = state_read(log, txn, &state, why);
    lmdbenv_read_end(&log->env, &txn);
    if (err == ERR_OK)
        memcpy(next, state.next, sizeof(state.next));
    return err;
}

enum err
clicklog_offset_of(struct clicklog *log, uint32_t partition,
                   struct clicklog_last last, uint64_t *offset, struct why *why)
{
    struct state state;
    struct walk walk;
    enum err err;

    assert(log->kafka == NULL && partition < log->partitions);
    err = walk_begin(&walk, log, &state, why);
    if (err == ERR_OK)
        do
            err = walk_next(&walk, why);
        while (err == ERR_OK && walk.incarnation != 0 &&
               walk.incarnation != last.incarnation);
    if (err == ERR_OK && walk.incarnation == 0)
        err = err_set(why, ERR_NOTFOUND,
                      "%s: incarnation %016" PRIx64 " is not of this spool",
                      log->env.dir, last.incarnation);
    if (err == ERR_OK) {
        uint64_t count = walk.end[partition] - walk.start[partition];

        *offset = walk.start[partition] + (last.count < count ? last.count : count);
    }
    walk_end(&walk);
    return err;
}

/* The *received* counts: a block a group, folded so that an hour stays small.
 *
 *   (hour, incarnation, group)   rows as they came          waiting
 *   (hour, incarnation, group)   rows in order, flag sorted folded
 *
 * When 4,096 groups wait, or 8 MiB of them (more where the folded block is larger, so that
 * rewriting it costs at most as much again), the next append replaces them and the open
 * folded block by one sorted block under the first group's key. A folded block past
 * 32 MiB is left alone and a new one begins. Telling merges the sorted blocks of an hour,
 * whatever their number, with one sorted table of what waits, so memory is bounded by
 * what may wait.
 */
#include "common/clicklog_impl.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/hash.h"

/* Sorted rows that take part in a merge. */
struct source {
    const uint8_t *at, *end;
    struct tally_row head; /* valid while at is not NULL */
};

struct merge {
    struct source *sources;
    size_t n, cap;
    int64_t until_us;     /* groups received from it on are left out */
    struct tally waiting; /* rows of the blocks that are not sorted */
    uint8_t *waiting_bytes;
};

static struct received_key
received_key(int64_t hour, uint64_t incarnation, uint64_t group)
{
    struct received_key key;

    assert(hour >= 0 && hour <= UINT32_MAX);
    for (int i = 0; i < 4; i++)
        key.b[i] = (uint8_t)(hour >> (24 - 8 * i));
    for (int i = 0; i < 8; i++) {
        key.b[4 + i] = (uint8_t)(incarnation >> (56 - 8 * i));
        key.b[12 + i] = (uint8_t)(group >> (56 - 8 * i));
    }
    return key;
}

static uint64_t
big_endian(const uint8_t *p, int n)
{
    uint64_t v = 0;

    for (int i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

static bool
same_hour(const MDB_val *key, const struct received_key *want)
{
    return key->mv_size == sizeof(want->b) &&
           memcmp(key->mv_data, want->b, 12) == 0;
}

/* Checks a stored block; *rows and *end are what it holds. */
static enum err
counts_open(struct clicklog *log, const MDB_val *value,
            struct received_header *header, const uint8_t **rows,
            const uint8_t **end, struct why *why)
{
    const uint8_t *p = value->mv_data;

    if (value->mv_size >= sizeof(*header)) {
        memcpy(header, p, sizeof(*header));
        *rows = p + sizeof(*header);
        *end = p + value->mv_size;
        if (header->magic == RECEIVED_MAGIC &&
            header->check == hash64(*rows, (size_t)(*end - *rows),
                                    (uint64_t)header->sorted << 32 | header->count))
            return ERR_OK;
    }
    return err_set(why, ERR_CORRUPT, "%s: a block of received counts is damaged",
                   log->env.dir);
}

/* Adds a block's rows, whose campaigns stay where they are. */
static enum err
counts_add(struct clicklog *log, struct tally *tally, const uint8_t *p,
           const uint8_t *end, struct why *why)
{
    struct tally_row row;

    while (p < end) {
        size_t n = tally_row_read(p, end, &row);

        if (n == 0)
            return err_set(why, ERR_CORRUPT, "%s: a received count is damaged",
                           log->env.dir);
        if (!tally_add(tally, row.account, row.campaign, row.quarter, row.clicks))
            return err_set(why, ERR_NOMEM, "clicklog: no memory to fold counts");
        p += n;
    }
    return ERR_OK;
}

static enum err
counts_put(struct clicklog *log, struct change *change, struct received_key id,
           const struct tally *tally, int64_t last_us, uint32_t sorted,
           uint64_t *cost, struct why *why)
{
    struct received_header header = {RECEIVED_MAGIC, sorted, 0,
                                     tally->rows_n,  0,      last_us};
    size_t rows = tally_size(tally);
    MDB_val key = {sizeof(id.b), id.b}, value = {sizeof(header) + rows, NULL};
    int rc = mdb_put(change->txn, log->env.tables[TABLE_RECEIVED], &key, &value,
                     MDB_RESERVE | MDB_NOOVERWRITE);
    uint8_t *out = value.mv_data;

    if (rc != 0)
        return change_error(log, rc, "cannot write received counts", why);
    tally_write(tally, out + sizeof(header));
    header.check =
        hash64(out + sizeof(header), rows, (uint64_t)sorted << 32 | header.count);
    memcpy(out, &header, sizeof(header));
    *cost = value_cost(sizeof(id.b), sizeof(header) + rows);
    change->state.bytes_used += *cost;
    return ERR_OK;
}

enum err
received_put(struct clicklog *log, struct change *change, int64_t received_us,
             struct why *why)
{
    int64_t hour = received_us / CLOCK_HOUR_US;
    uint64_t group = change->state.groups, cost;
    enum err err =
        counts_put(log, change, received_key(hour, log->incarnation, group),
                   &log->tally, received_us, 0, &cost, why);

    if (err != ERR_OK)
        return err;
    if (change->fold.hour !=
        hour) /* what waits of the hour before stays as it is */
        change->fold = (struct fold){.hour = hour, .first = group};
    change->fold.blocks++;
    change->fold.bytes += cost;
    return ERR_OK;
}

/* Reads every block from fold.first on into the tally; *last_us is the newest's. */
static enum err
fold_read(struct clicklog *log, struct change *change, struct received_key first,
          int64_t *last_us, struct why *why)
{
    MDB_val key = {sizeof(first.b), first.b}, value;
    struct received_header header;
    const uint8_t *rows, *end;
    MDB_cursor *cursor;
    enum err err = ERR_OK;
    int rc = mdb_cursor_open(change->txn, log->env.tables[TABLE_RECEIVED], &cursor);

    if (rc != 0)
        return change_error(log, rc, "cannot fold counts", why);
    tally_reset(&log->tally);
    rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    while (rc == 0 && err == ERR_OK && same_hour(&key, &first)) {
        err = counts_open(log, &value, &header, &rows, &end, why);
        if (err == ERR_OK)
            err = counts_add(log, &log->tally, rows, end, why);
        if (err == ERR_OK && header.last_us > *last_us)
            *last_us = header.last_us;
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    if (err == ERR_OK && rc != 0 && rc != MDB_NOTFOUND)
        return change_error(log, rc, "cannot fold counts", why);
    return err;
}

/* Deletes every block of first's hour and incarnation from first on. */
static enum err
fold_delete(struct clicklog *log, struct change *change, struct received_key first,
            struct why *why)
{
    MDB_val key, value;
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(change->txn, log->env.tables[TABLE_RECEIVED], &cursor);

    if (rc != 0)
        return change_error(log, rc, "cannot fold counts", why);
    for (;;) {
        key = (MDB_val){sizeof(first.b), first.b};
        rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
        if (rc != 0 || !same_hour(&key, &first))
            break;
        change->state.bytes_used -= value_cost(key.mv_size, value.mv_size);
        rc = mdb_cursor_del(cursor, 0);
        if (rc != 0)
            break;
    }
    mdb_cursor_close(cursor);
    return change_error(log, rc == MDB_NOTFOUND ? 0 : rc, "cannot fold counts",
                        why);
}

static bool
fold_is_due(const struct fold *fold, int64_t hour)
{
    uint64_t bytes_max =
        fold->folded_bytes > FOLD_BYTES ? fold->folded_bytes : FOLD_BYTES;

    return fold->hour == hour &&
           (fold->blocks >= FOLD_BLOCKS || fold->bytes >= bytes_max);
}

/* The campaigns in the tally point into the map, whose pages stay while the transaction
 * that frees them is open; but not into leaves that it rewrites. So they are copied. */
static enum err
fold_write(struct clicklog *log, struct change *change, struct received_key first,
           int64_t last_us, struct why *why)
{
    size_t size = tally_size(&log->tally);
    uint8_t *copy = malloc(size), *p = copy;
    uint64_t cost = 0;
    enum err err;

    if (copy == NULL)
        return err_set(why, ERR_NOMEM, "clicklog: no memory to fold counts");
    tally_sort(&log->tally);
    tally_write(&log->tally, copy);
    for (uint32_t i = 0; i < log->tally.rows_n; i++)
        p += tally_row_read(p, copy + size, &log->tally.rows[i]);
    assert(p == copy + size);
    err = fold_delete(log, change, first, why);
    if (err == ERR_OK)
        err = counts_put(log, change, first, &log->tally, last_us, 1, &cost, why);
    free(copy);
    if (err != ERR_OK)
        return err;
    change->fold.blocks = 0;
    change->fold.bytes = 0;
    change->fold.folded_bytes = cost;
    if (cost > FOLD_BYTES_MAX) {
        change->fold.first = change->state.groups;
        change->fold.folded_bytes = 0;
    }
    return ERR_OK;
}

enum err
received_fold(struct clicklog *log, struct change *change, int64_t hour,
              struct why *why)
{
    struct received_key first;
    int64_t last_us = 0;
    enum err err;

    if (!fold_is_due(&change->fold, hour))
        return ERR_OK;
    first = received_key(hour, log->incarnation, change->fold.first);
    err = fold_read(log, change, first, &last_us, why);
    return err == ERR_OK ? fold_write(log, change, first, last_us, why) : err;
}

static void
merge_free(struct merge *merge)
{
    free(merge->sources);
    free(merge->waiting_bytes);
    tally_free(&merge->waiting);
    *merge = (struct merge){0};
}

/* Reads the source's next row; at NULL: it is at its end. */
static bool
source_advance(struct source *source)
{
    size_t n;

    if (source->at == source->end) {
        source->at = NULL;
        return true;
    }
    n = tally_row_read(source->at, source->end, &source->head);
    source->at += n;
    return n != 0;
}

static enum err
merge_add(struct merge *merge, const uint8_t *rows, const uint8_t *end,
          struct why *why)
{
    if (merge->n == merge->cap) {
        size_t cap = merge->cap == 0 ? 16 : merge->cap * 2;
        struct source *sources = realloc(merge->sources, cap * sizeof(*sources));

        if (sources == NULL)
            return err_set(why, ERR_NOMEM, "clicklog: no memory to merge counts");
        merge->sources = sources;
        merge->cap = cap;
    }
    merge->sources[merge->n] = (struct source){.at = rows, .end = end};
    if (!source_advance(&merge->sources[merge->n]))
        return err_set(why, ERR_CORRUPT, "clicklog: a received count is damaged");
    merge->n++;
    return ERR_OK;
}

/* Collects the blocks of one (hour, incarnation), where the cursor stands. */
static enum err
merge_collect(struct clicklog *log, struct merge *merge, MDB_cursor *cursor,
              struct received_key hour, MDB_val value, struct why *why)
{
    struct received_header header;
    const uint8_t *rows, *end;
    MDB_val key;
    enum err err = ERR_OK;
    int rc = 0;

    do {
        err = counts_open(log, &value, &header, &rows, &end, why);
        bool before = header.last_us < merge->until_us;
        if (err == ERR_OK && header.sorted == 1)
            err =
                before
                    ? merge_add(merge, rows, end, why)
                    : err_set(
                          why, ERR_AGAIN,
                          "clicklog: so much is posted that counts up to a moment "
                          "ago are folded with later ones: try again");
        else if (err == ERR_OK && before)
            err = counts_add(log, &merge->waiting, rows, end, why);
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    } while (rc == 0 && err == ERR_OK && same_hour(&key, &hour));
    if (err != ERR_OK)
        return err;
    if (rc != 0 && rc != MDB_NOTFOUND)
        return lmdbenv_error(rc, "cannot read received counts", log->env.dir, why);
    if (merge->waiting.rows_n == 0)
        return ERR_OK;
    size_t size = tally_size(&merge->waiting);
    merge->waiting_bytes = malloc(size);
    if (merge->waiting_bytes == NULL)
        return err_set(why, ERR_NOMEM, "clicklog: no memory to merge counts");
    tally_sort(&merge->waiting);
    tally_write(&merge->waiting, merge->waiting_bytes);
    return merge_add(merge, merge->waiting_bytes, merge->waiting_bytes + size, why);
}

/* The smallest row of all sources, summed over them; false when all are at their end or
 * *err is set. */
static bool
merge_next(struct merge *merge, struct tally_row *out, enum err *err,
           struct why *why)
{
    bool found = false;

    for (size_t i = 0; i < merge->n; i++) {
        const struct source *source = &merge->sources[i];

        if (source->at != NULL &&
            (!found || tally_row_compare(&source->head, out) < 0)) {
            *out = source->head;
            found = true;
        }
    }
    if (!found)
        return false;
    out->clicks = 0;
    for (size_t i = 0; i < merge->n; i++) {
        struct source *source = &merge->sources[i];

        if (source->at == NULL || tally_row_compare(&source->head, out) != 0)
            continue;
        out->clicks += source->head.clicks;
        if (!source_advance(source)) {
            *err =
                err_set(why, ERR_CORRUPT, "clicklog: a received count is damaged");
            return false;
        }
    }
    return true;
}

/* Tells one (hour, incarnation) as it was at until_us, or, if whole, only when its end is
 * past; *id is its key and becomes the key of what follows. */
static enum err
hour_tell(struct clicklog *log, MDB_txn *txn, struct received_key *id, bool *more,
          int64_t until_us, bool whole,
          bool (*visit)(void *ctx, const struct clicklog_received *row), void *ctx,
          struct why *why)
{
    struct merge merge = {.until_us = until_us, .waiting = {.round = 1}};
    MDB_val key = {sizeof(id->b), id->b}, value;
    struct clicklog_received row;
    struct tally_row sum;
    struct state state;
    MDB_cursor *cursor = NULL;
    enum err err = state_read(log, txn, &state, why);
    int rc = mdb_cursor_open(txn, log->env.tables[TABLE_RECEIVED], &cursor);

    *more = false;
    if (rc == 0)
        rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    if (err != ERR_OK || rc != 0)
        goto close;
    memcpy(id->b, key.mv_data, sizeof(id->b));
    row.hour_us = (int64_t)big_endian(id->b, 4) * CLOCK_HOUR_US;
    row.incarnation = big_endian(id->b + 4, 8);
    if (whole ? row.hour_us + CLOCK_HOUR_US > state.floor_us
              : row.hour_us >= until_us)
        goto close;
    err = merge_collect(log, &merge, cursor, *id, value, why);
    *more = err == ERR_OK;
    while (*more && merge_next(&merge, &sum, &err, why)) {
        row.account = sum.account;
        row.campaign = sum.campaign;
        row.quarter_ms = sum.quarter * QUARTER_MS;
        row.clicks = sum.clicks;
        *more = visit(ctx, &row);
    }
    *more = *more && err == ERR_OK;
    memset(id->b + 12, 0xff, 8); /* past the last group */

close:
    if (cursor != NULL)
        mdb_cursor_close(cursor);
    merge_free(&merge);
    if (rc != 0 && rc != MDB_NOTFOUND)
        return lmdbenv_error(rc, "cannot read received counts", log->env.dir, why);
    return err;
}

static enum err
hours_tell(struct clicklog *log, int64_t until_us, bool whole,
           bool (*visit)(void *ctx, const struct clicklog_received *row), void *ctx,
           struct why *why)
{
    struct received_key id = received_key(0, 0, 0);
    bool more = true;
    enum err err = ERR_OK;

    assert(log->kafka == NULL);     /* ingest counts, in its spool */
    while (more && err == ERR_OK) { /* a snapshot each: visit may be slow */
        MDB_txn *txn = NULL;

        err = lmdbenv_read_begin(&log->env, &txn, why);
        if (err != ERR_OK)
            return err;
        err = hour_tell(log, txn, &id, &more, until_us, whole, visit, ctx, why);
        lmdbenv_read_end(&log->env, &txn);
    }
    return err;
}

enum err
clicklog_received_each(struct clicklog *log,
                       bool (*visit)(void *ctx,
                                     const struct clicklog_received *row),
                       void *ctx, struct why *why)
{
    return hours_tell(log, INT64_MAX, true, visit, ctx, why);
}

enum err
clicklog_received_all(struct clicklog *log, int64_t until_us,
                      bool (*visit)(void *ctx, const struct clicklog_received *row),
                      void *ctx, struct why *why)
{
    return hours_tell(log, until_us, false, visit, ctx, why);
}

enum err
clicklog_received_drop(struct clicklog *log, int64_t hour_us, struct why *why)
{
    int64_t hour = hour_us / CLOCK_HOUR_US;
    struct change change;
    MDB_cursor *cursor = NULL;
    MDB_val key, value;
    uint64_t dropped = 0;
    enum err err = change_begin(log, &change, why);
    int rc;

    if (err != ERR_OK)
        return err;
    rc = mdb_cursor_open(change.txn, log->env.tables[TABLE_RECEIVED], &cursor);
    while (rc == 0) {
        rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
        if (rc != 0 || (int64_t)big_endian(key.mv_data, 4) >= hour)
            break;
        change.state.bytes_used -= value_cost(key.mv_size, value.mv_size);
        rc = mdb_cursor_del(cursor, 0);
        dropped++;
    }
    if (cursor != NULL)
        mdb_cursor_close(cursor);
    if (change.fold.hour < hour)
        change.fold = (struct fold){0};
    err = change_error(log, rc == MDB_NOTFOUND ? 0 : rc, "cannot drop counts", why);
    if (err == ERR_OK && dropped > 0)
        return change_commit(log, &change, why);
    change_abort(&change);
    return err;
}

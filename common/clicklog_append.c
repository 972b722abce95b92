#include "common/clicklog_impl.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "common/clock.h"
#include "common/hash.h"

enum { VARINT_MAX = 10, LENGTH_BYTES = 4 };

/* What all records of a partition in a group share. */
struct prefix {
    uint8_t head[8 + VARINT_MAX]; /* incarnation, partition */
    uint8_t tail[VARINT_MAX];     /* received_at */
    uint32_t head_n, tail_n;
};

/* A run of entries that becomes one block: order[from .. to - 1]. */
struct run {
    uint32_t from, to;
    uint32_t bytes;
    uint16_t version;
};

static uint32_t
varint_size(uint64_t v)
{
    uint32_t n = 1;

    for (; v >= 0x80; v >>= 7)
        n++;
    return n;
}

static uint32_t
varint_put(uint8_t *out, uint64_t v)
{
    uint32_t n = 0;

    for (; v >= 0x80; v >>= 7)
        out[n++] = (uint8_t)(v | 0x80);
    out[n++] = (uint8_t)v;
    return n;
}

/* Avro's zigzag of a number that is not negative. */
static uint64_t
zigzag(uint64_t v)
{
    assert(v <= INT64_MAX);
    return v << 1;
}

static struct prefix
prefix_of(uint64_t incarnation, uint32_t partition, int64_t received_us)
{
    struct prefix prefix;

    for (int i = 0; i < 8; i++)
        prefix.head[i] = (uint8_t)(incarnation >> (56 - 8 * i));
    prefix.head_n = 8 + varint_put(prefix.head + 8, zigzag(partition));
    prefix.tail_n = varint_put(prefix.tail, zigzag((uint64_t)received_us));
    return prefix;
}

struct block_key
block_key(uint32_t partition, uint64_t base)
{
    struct block_key key = {{(uint8_t)(partition >> 8), (uint8_t)partition}};

    for (int i = 0; i < 8; i++)
        key.b[2 + i] = (uint8_t)(base >> (56 - 8 * i));
    return key;
}

/* A block under another key, or of another schema version, does not pass either. */
uint64_t
block_check(const struct block_header *header, const uint8_t *value,
            uint32_t partition, uint64_t base)
{
    uint64_t seed =
        base ^ (uint64_t)partition << 48 ^ (uint64_t)header->version << 32;
    size_t skip = offsetof(struct block_header, count);

    return hash64(value + skip, sizeof(*header) - skip + header->bytes, seed);
}

static enum err
entry_check(const struct clicklog *log, const struct clicklog_entry *entry,
            size_t i, struct why *why)
{
    if (entry->partition >= log->partitions)
        return err_set(why, ERR_INVALID, "clicklog: entry %zu: partition %u of %u",
                       i, entry->partition, log->partitions);
    if (entry->body.n > CLICKLOG_RECORD_MAX - CLICKLOG_PREFIX_MAX)
        return err_set(why, ERR_INVALID,
                       "clicklog: entry %zu: body of %u bytes, not %d", i,
                       entry->body.n, CLICKLOG_RECORD_MAX - CLICKLOG_PREFIX_MAX);
    if (entry->campaign.n > CAMPAIGN_BYTES_MAX)
        return err_set(why, ERR_INVALID,
                       "clicklog: entry %zu: campaign of %u bytes, not %d", i,
                       entry->campaign.n, CAMPAIGN_BYTES_MAX);
    if (entry->event_ms / QUARTER_MS > INT32_MAX - 1 ||
        entry->event_ms / QUARTER_MS < INT32_MIN + 1)
        return err_set(why, ERR_INVALID, "clicklog: entry %zu: event_ms %" PRId64,
                       i, entry->event_ms);
    return ERR_OK;
}

/* Sorts entry numbers by partition, keeping their order: starts[p] .. starts[p + 1]. */
static enum err
order_make(struct clicklog *log, const struct clicklog_entry *entries, size_t n,
           uint32_t starts[CLICKLOG_PARTITIONS_MAX + 1], struct why *why)
{
    uint32_t at[CLICKLOG_PARTITIONS_MAX] = {0};
    uint64_t bytes = 0;

    for (size_t i = 0; i < n; i++) {
        enum err err = entry_check(log, &entries[i], i, why);

        if (err != ERR_OK)
            return err;
        at[entries[i].partition]++;
        bytes += entries[i].body.n;
    }
    if (n > 0 && log->state.bytes_used + bytes > log->bytes_max)
        return err_set(why, ERR_FULL,
                       "%s holds %" PRIu64 " of %" PRIu64
                       " bytes (clicklog.bytes_max): clicks wait to be archived",
                       log->env.dir, log->state.bytes_used, log->bytes_max);
    starts[0] = 0;
    for (uint32_t p = 0; p < log->partitions; p++) {
        starts[p + 1] = starts[p] + at[p];
        at[p] = starts[p];
    }
    for (size_t i = 0; i < n; i++)
        log->order[at[entries[i].partition]++] = (uint32_t)i;
    return ERR_OK;
}

/* The longest run from `from` on that fits a block: one schema version, BLOCK_BYTES. */
static struct run
run_cut(const struct clicklog *log, const struct clicklog_entry *entries,
        uint32_t from, uint32_t end, const struct prefix *prefix, uint64_t seq)
{
    struct run run = {from, from, 0, entries[log->order[from]].version};
    uint32_t fixed = LENGTH_BYTES + prefix->head_n + prefix->tail_n;

    while (run.to < end && run.bytes < BLOCK_BYTES) {
        const struct clicklog_entry *entry = &entries[log->order[run.to]];

        if (entry->version != run.version)
            break;
        run.bytes +=
            fixed + varint_size(zigzag(seq + (run.to - from))) + entry->body.n;
        run.to++;
    }
    return run;
}

static uint8_t *
record_put(uint8_t *out, const struct prefix *prefix, uint64_t seq, struct str body)
{
    uint8_t *length = out;
    uint32_t n;

    out += LENGTH_BYTES;
    memcpy(out, prefix->head, prefix->head_n);
    out += prefix->head_n;
    out += varint_put(out, zigzag(seq));
    memcpy(out, prefix->tail, prefix->tail_n);
    out += prefix->tail_n;
    if (body.n > 0)
        memcpy(out, body.p, body.n);
    out += body.n;
    n = (uint32_t)(out - length - LENGTH_BYTES);
    memcpy(length, &n, LENGTH_BYTES);
    return out;
}

static enum err
block_put(struct clicklog *log, struct change *change,
          const struct clicklog_entry *entries, uint32_t partition,
          int64_t received_us, const struct prefix *prefix, const struct run *run,
          struct why *why)
{
    uint64_t base = change->state.next[partition];
    struct block_header header = {
        .magic = BLOCK_MAGIC,
        .version = run->version,
        .count = run->to - run->from,
        .bytes = run->bytes,
        .incarnation = log->incarnation,
        .first_seq = base - log->start[partition],
        .received_us = received_us,
    };
    struct block_key bytes = block_key(partition, base);
    MDB_val key = {sizeof(bytes.b), bytes.b};
    MDB_val value = {sizeof(header) + run->bytes, NULL};
    int rc = mdb_put(change->txn, log->env.tables[TABLE_BLOCKS], &key, &value,
                     MDB_RESERVE | MDB_NOOVERWRITE);
    uint8_t *start = value.mv_data, *out;

    if (rc != 0)
        return change_error(log, rc, "cannot write a block", why);
    out = start + sizeof(header);
    for (uint32_t i = run->from; i < run->to; i++)
        out = record_put(out, prefix, header.first_seq + (i - run->from),
                         entries[log->order[i]].body);
    assert(out == start + sizeof(header) + run->bytes);
    memcpy(start, &header, sizeof(header));
    header.check = block_check(&header, start, partition, base);
    memcpy(start, &header, sizeof(header));
    change->state.next[partition] += header.count;
    change->state.bytes_used +=
        value_cost(sizeof(bytes.b), sizeof(header) + run->bytes);
    return ERR_OK;
}

static enum err
partition_put(struct clicklog *log, struct change *change,
              const struct clicklog_entry *entries, uint32_t partition,
              uint32_t from, uint32_t end, int64_t received_us, struct why *why)
{
    struct prefix prefix = prefix_of(log->incarnation, partition, received_us);
    enum err err = ERR_OK;

    while (err == ERR_OK && from < end) {
        uint64_t seq = change->state.next[partition] - log->start[partition];
        struct run run = run_cut(log, entries, from, end, &prefix, seq);

        err = block_put(log, change, entries, partition, received_us, &prefix, &run,
                        why);
        from = run.to;
    }
    return err;
}

static enum err
received_count(struct clicklog *log, const struct clicklog_entry *entries, size_t n,
               struct why *why)
{
    tally_reset(&log->tally);
    for (size_t i = 0; i < n; i++) {
        int64_t quarter = clock_floor(entries[i].event_ms, QUARTER_MS) / QUARTER_MS;

        if (!tally_add(&log->tally, entries[i].account, entries[i].campaign,
                       (int32_t)quarter, 1))
            return err_set(why, ERR_NOMEM,
                           "clicklog: no memory for received counts");
    }
    return ERR_OK;
}

/* Everything of a group that is not empty, inside the change. */
static enum err
group_put(struct clicklog *log, struct change *change,
          const struct clicklog_entry *entries, size_t n, const uint32_t *starts,
          int64_t received_us, struct why *why)
{
    int64_t hour = received_us / CLOCK_HOUR_US;
    enum err err;

    change->state.groups++;
    change->state.records += n;
    err = received_fold(log, change, hour, why);
    if (err == ERR_OK)
        err = received_count(log, entries, n, why);
    if (err == ERR_OK)
        err = received_put(log, change, received_us, why);
    for (uint32_t p = 0; err == ERR_OK && p < log->partitions; p++)
        err = partition_put(log, change, entries, p, starts[p], starts[p + 1],
                            received_us, why);
    if (err == ERR_OK && change->state.bytes_used > log->bytes_max)
        err = err_set(why, ERR_FULL,
                      "%s: %zu clicks more would pass %" PRIu64
                      " bytes (clicklog.bytes_max): clicks wait to be archived",
                      log->env.dir, n, log->bytes_max);
    return err;
}

enum err
clicklog_append(struct clicklog *log, const struct clicklog_entry *entries,
                size_t n, int64_t now_us, int64_t *received_us, struct why *why)
{
    uint32_t starts[CLICKLOG_PARTITIONS_MAX + 1];
    int64_t time_us = now_us > log->state.floor_us ? now_us : log->state.floor_us;
    struct change change;
    enum err err;

    assert(!log->read_only);
    assert(now_us >= 0 && now_us < INT64_MAX / 4);
    if (n > CLICKLOG_GROUP_MAX)
        return err_set(why, ERR_INVALID, "clicklog: a group of %zu, not %d", n,
                       CLICKLOG_GROUP_MAX);
    err = order_make(log, entries, n, starts, why);
    if (err == ERR_OK)
        err = change_begin(log, &change, why);
    if (err != ERR_OK)
        return err;
    change.state.floor_us = time_us + (n > 0 ? 1 : 0);
    if (n > 0)
        err = group_put(log, &change, entries, n, starts, time_us, why);
    if (err != ERR_OK) {
        change_abort(&change);
        return err;
    }
    err = change_commit(log, &change, why);
    if (err == ERR_OK && received_us != NULL)
        *received_us = time_us;
    return err;
}

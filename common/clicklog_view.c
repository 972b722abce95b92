/* What readers may ask of the log beside its records: where a time begins, whose a
 * partition is. */
#include "common/clicklog_impl.h"
#include "common/clicklog_kafka.h"

#include <inttypes.h>
#include <string.h>

static enum err
received_at(struct clicklog_reader *reader, uint32_t partition, uint64_t offset,
            int64_t *received_us, struct why *why)
{
    struct clicklog_record record;
    enum err err = clicklog_seek(reader, partition, offset, why);

    if (err == ERR_OK)
        err = clicklog_next(reader, &record, why);
    if (err == ERR_OK)
        *received_us = record.received_us;
    clicklog_release(reader);
    return err;
}

enum err
clicklog_since(struct clicklog_reader *reader, uint32_t partition, int64_t since_us,
               uint64_t *offset, int64_t *received_us, struct why *why)
{
    uint64_t low, high;
    enum err err;

    if (clicklog_reader_kafka(reader) != NULL)
        return clicklog_kafka_since(clicklog_reader_kafka(reader), partition,
                                    since_us, offset, received_us, why);
    err = clicklog_range(clicklog_reader_log(reader), partition, &low, &high, why);
    if (err != ERR_OK)
        return err;
    *received_us = INT64_MAX;
    /* Times of receipt only grow with offsets. */
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        int64_t us = INT64_MIN;

        err = received_at(reader, partition, middle, &us, why);
        if (err != ERR_OK && err != ERR_NOTFOUND) /* trimmed meanwhile: too old */
            return err;
        if (us < since_us || err == ERR_NOTFOUND) {
            low = middle + 1;
        } else {
            high = middle;
            *received_us = us;
        }
    }
    *offset = low;
    return ERR_OK;
}

bool
clicklog_is_kafka(const struct clicklog *log)
{
    return log->kafka != NULL;
}

void
clicklog_schema_ids(struct clicklog *log, const uint32_t *ids, uint32_t n)
{
    if (log->kafka != NULL)
        clicklog_kafka_schema_ids(log->kafka, ids, n);
}

uint64_t
clicklog_owned(const struct clicklog *log, uint32_t partition)
{
    if (log->kafka != NULL)
        return clicklog_kafka_owned(log->kafka, partition);
    return partition < log->partitions;
}

void
clicklog_let_go(struct clicklog *log, uint32_t partition)
{
    if (log->kafka != NULL)
        clicklog_kafka_let_go(log->kafka, partition);
}

uint64_t
clicklog_end(struct clicklog *log, uint32_t partition)
{
    uint64_t next[CLICKLOG_PARTITIONS_MAX];

    if (partition >= log->partitions)
        return 0;
    if (log->kafka != NULL)
        return clicklog_kafka_end(log->kafka, partition);
    return clicklog_ends(log, next, NULL) == ERR_OK ? next[partition] : 0;
}

enum err
clicklog_find(struct clicklog *log, uint32_t partition, uint64_t from,
              uint64_t incarnation, uint64_t seq, uint64_t *offset, struct why *why)
{
    if (log->kafka != NULL)
        return clicklog_kafka_find(log->kafka, partition, from, incarnation, seq,
                                   offset, why);
    return err_set(why, ERR_NOTFOUND,
                   "%s: partition %u has no gaps: nothing to look for from "
                   "%" PRIu64 " on",
                   log->env.dir, partition, from);
}

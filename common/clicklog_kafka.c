#include "common/clicklog_kafka.h"

#include <string.h>

/* Being built: a log that cannot be opened. */
enum err
clicklog_kafka_open(struct clicklog_kafka **out,
                    const struct clicklog_kafka_config *cfg, struct why *why)
{
    (void)cfg;
    *out = NULL;
    return err_set(why, ERR_INVALID,
                   "kafka.brokers: the reader is not built in yet");
}
void
clicklog_kafka_close(struct clicklog_kafka **kafka)
{
    *kafka = NULL;
}
uint32_t
clicklog_kafka_partitions(const struct clicklog_kafka *kafka)
{
    return kafka != NULL;
}
void
clicklog_kafka_stats(struct clicklog_kafka *kafka, struct clicklog_stats *out)
{
    (void)kafka;
    memset(out, 0, sizeof(*out));
}
enum err
clicklog_kafka_range(struct clicklog_kafka *kafka, uint32_t partition,
                     uint64_t *first, uint64_t *next, struct why *why)
{
    (void)kafka;
    (void)partition;
    (void)first;
    (void)next;
    return err_set(why, ERR_INVALID, "kafka");
}
void
clicklog_kafka_wait(struct clicklog_kafka *kafka, uint64_t *seen,
                    int64_t timeout_us)
{
    (void)kafka;
    (void)seen;
    (void)timeout_us;
}
void
clicklog_kafka_wake(struct clicklog_kafka *kafka)
{
    (void)kafka;
}
enum err
clicklog_kafka_reader_open(struct clicklog_kafka_reader **out,
                           struct clicklog_kafka *kafka, struct why *why)
{
    (void)kafka;
    *out = NULL;
    return err_set(why, ERR_INVALID, "kafka");
}
void
clicklog_kafka_reader_close(struct clicklog_kafka_reader **reader)
{
    *reader = NULL;
}
enum err
clicklog_kafka_seek(struct clicklog_kafka_reader *reader, uint32_t partition,
                    uint64_t offset, struct why *why)
{
    (void)reader;
    (void)partition;
    (void)offset;
    return err_set(why, ERR_INVALID, "kafka");
}
enum err
clicklog_kafka_next(struct clicklog_kafka_reader *reader,
                    struct clicklog_record *out, struct why *why)
{
    (void)reader;
    (void)out;
    return err_set(why, ERR_INVALID, "kafka");
}
void
clicklog_kafka_release(struct clicklog_kafka_reader *reader)
{
    (void)reader;
}
enum err
clicklog_kafka_since(struct clicklog_kafka_reader *reader, uint32_t partition,
                     int64_t since_us, uint64_t *offset, int64_t *received_us,
                     struct why *why)
{
    (void)reader;
    (void)partition;
    (void)since_us;
    (void)offset;
    (void)received_us;
    return err_set(why, ERR_INVALID, "kafka");
}
enum err
clicklog_kafka_mark(struct clicklog_kafka *kafka, struct clicklog_mark *out,
                    struct why *why)
{
    (void)kafka;
    (void)out;
    return err_set(why, ERR_INVALID, "kafka");
}
uint64_t
clicklog_kafka_owned(const struct clicklog_kafka *kafka, uint32_t partition)
{
    (void)kafka;
    (void)partition;
    return 0;
}
void
clicklog_kafka_let_go(struct clicklog_kafka *kafka, uint32_t partition)
{
    (void)kafka;
    (void)partition;
}
uint64_t
clicklog_kafka_end(struct clicklog_kafka *kafka, uint32_t partition)
{
    (void)kafka;
    (void)partition;
    return 0;
}
enum err
clicklog_kafka_find(struct clicklog_kafka *kafka, uint32_t partition, uint64_t from,
                    uint64_t incarnation, uint64_t seq, uint64_t *offset,
                    struct why *why)
{
    (void)kafka;
    (void)partition;
    (void)from;
    (void)incarnation;
    (void)seq;
    (void)offset;
    return err_set(why, ERR_INVALID, "kafka");
}

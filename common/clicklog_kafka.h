/* common/clicklog_kafka.h - the click log's Kafka reader, behind common/clicklog.h's
 * functions of the same names, which say what each does; not for others.
 *
 *   clicklog_kafka.c         open, close, the keeper's thread, statistics, waiting
 *   clicklog_kafka_group.c   who owns what: the member of the consumer group, its thread
 *   clicklog_kafka_fetch.c   a partition's messages, from the offset asked for
 *   clicklog_kafka_read.c    messages -> records; ranges, times, one record found again
 */
#ifndef COMMON_CLICKLOG_KAFKA_H
#define COMMON_CLICKLOG_KAFKA_H

#include "common/clicklog.h"

struct clicklog_kafka;
struct clicklog_kafka_reader;

enum err clicklog_kafka_open(struct clicklog_kafka **out,
                             const struct clicklog_kafka_config *cfg,
                             struct why *why);
void clicklog_kafka_close(struct clicklog_kafka **kafka);
uint32_t clicklog_kafka_partitions(const struct clicklog_kafka *kafka);
void clicklog_kafka_stats(struct clicklog_kafka *kafka, struct clicklog_stats *out);
enum err clicklog_kafka_range(struct clicklog_kafka *kafka, uint32_t partition,
                              uint64_t *first, uint64_t *next, struct why *why);
void clicklog_kafka_wait(struct clicklog_kafka *kafka, uint64_t *seen,
                         int64_t timeout_us);
void clicklog_kafka_wake(struct clicklog_kafka *kafka);

enum err clicklog_kafka_reader_open(struct clicklog_kafka_reader **out,
                                    struct clicklog_kafka *kafka, struct why *why);
void clicklog_kafka_reader_close(struct clicklog_kafka_reader **reader);
enum err clicklog_kafka_seek(struct clicklog_kafka_reader *reader,
                             uint32_t partition, uint64_t offset, struct why *why);
enum err clicklog_kafka_next(struct clicklog_kafka_reader *reader,
                             struct clicklog_record *out, struct why *why);
void clicklog_kafka_release(struct clicklog_kafka_reader *reader);
enum err clicklog_kafka_since(struct clicklog_kafka_reader *reader,
                              uint32_t partition, int64_t since_us,
                              uint64_t *offset, int64_t *received_us,
                              struct why *why);

enum err clicklog_kafka_mark(struct clicklog_kafka *kafka,
                             struct clicklog_mark *out, struct why *why);
uint64_t clicklog_kafka_owned(const struct clicklog_kafka *kafka,
                              uint32_t partition);
void clicklog_kafka_let_go(struct clicklog_kafka *kafka, uint32_t partition);
uint64_t clicklog_kafka_end(struct clicklog_kafka *kafka, uint32_t partition);
enum err clicklog_kafka_find(struct clicklog_kafka *kafka, uint32_t partition,
                             uint64_t from, uint64_t incarnation, uint64_t seq,
                             uint64_t *offset, struct why *why);

void clicklog_kafka_schema_ids(struct clicklog_kafka *kafka, const uint32_t *ids,
                               uint32_t n);

/* What reader reads; NULL: LMDB. */
struct clicklog_kafka_reader *
clicklog_reader_kafka(const struct clicklog_reader *reader);
struct clicklog *clicklog_reader_log(const struct clicklog_reader *reader);

#endif

#include <stdint.h>
#include <string.h>

#include "common/clock.h"
#include "common/kafka.h"
#include "common/log.h"
#include "common/verdictlog_impl.h"

enum {
    GROUP_MESSAGES = 256,  /* in one transaction of the copy */
    GROUP_BYTES = 8 << 20, /* and at most so much */
    NEXT_US = 10000,       /* orders are looked at so often */
    AGAIN_US = 500000,     /* after an error */
};

/* --- orders --- */

/* Where to go on, given what the copy has and what is wanted:
 *
 *     from ......... next            since here: go on from next
 *   since here: again from since     since here: what lies between was not asked for, and
 *                                    what was copied could have been overruled in it, so
 *                                    that is forgotten
 *   next past the topic's end: it is another topic of that name
 */
static enum err
place(struct verdictlog *log, uint32_t partition, uint64_t since,
      struct copied *copied, struct why *why)
{
    uint64_t first, end;
    bool known;
    enum err err = copy_copied(log, partition, copied, &known, why);

    if (err == ERR_OK)
        err = kafka_consumer_range(log->kafka->consumer, (int32_t)partition, &first,
                                   &end, why);
    if (err != ERR_OK)
        return err;
    if (known && copied->next <= end && since >= copied->from &&
        since <= copied->next)
        return ERR_OK;
    if (known && (since > copied->next || copied->next > end))
        err = copy_empty(log, partition, why);
    *copied = (struct copied){since, since};
    return err;
}

static enum err
order_follow(struct verdictlog *log, uint32_t partition, uint64_t since,
             struct why *why)
{
    struct verdictlog_kafka *kafka = log->kafka;
    struct copied copied;
    enum err err = place(log, partition, since, &copied, why);

    if (err == ERR_OK)
        err = kafka_consumer_follow(kafka->consumer, (int32_t)partition,
                                    copied.next, why);
    if (err != ERR_OK)
        return err;
    (void)pthread_mutex_lock(&kafka->mutex);
    kafka->slots[partition].followed = true;
    kafka->slots[partition].copied = copied;
    (void)pthread_mutex_unlock(&kafka->mutex);
    return ERR_OK;
}

/* Carries out what was asked for; an order that fails stays. */
static enum err
orders(struct verdictlog *log, struct why *why)
{
    struct verdictlog_kafka *kafka = log->kafka;

    for (uint32_t p = 0; p < kafka->partitions; p++) {
        struct slot slot;
        enum err err = ERR_OK;

        (void)pthread_mutex_lock(&kafka->mutex);
        slot = kafka->slots[p];
        if (slot.order == ORDER_LEAVE)
            kafka->slots[p].followed = false;
        (void)pthread_mutex_unlock(&kafka->mutex);
        if (slot.order == ORDER_NONE)
            continue;
        if (slot.order == ORDER_LEAVE) {
            kafka_consumer_leave(kafka->consumer, (int32_t)p);
            kafka->redo[p] = REDO_NONE;
        } else if (!slot.followed || slot.since < slot.copied.from)
            err = order_follow(log, p, slot.since, why);
        if (err != ERR_OK)
            return err;
        (void)pthread_mutex_lock(&kafka->mutex);
        if (kafka->slots[p].order == slot.order &&
            kafka->slots[p].since == slot.since)
            kafka->slots[p].order = ORDER_NONE;
        (void)pthread_cond_broadcast(&kafka->cond);
        (void)pthread_mutex_unlock(&kafka->mutex);
    }
    return ERR_OK;
}

/* The messages that come next are gone: by retention, or the topic is another. */
static enum err
jump(struct verdictlog *log, uint32_t partition, struct why *why)
{
    struct verdictlog_kafka *kafka = log->kafka;
    uint64_t first = 0, next = 0;
    enum err err = kafka_consumer_range(kafka->consumer, (int32_t)partition, &first,
                                        &next, why);

    if (err == ERR_OK)
        err = copy_empty(log, partition, why);
    if (err == ERR_OK)
        err = order_follow(log, partition, first, why);
    if (err == ERR_OK)
        log_event(LOG_WARN, "verdicts_lost", LOG_TEXT("topic", kafka->topic),
                  LOG_NUMBER("partition", partition), LOG_NUMBER("now_at", first));
    return err;
}

/* What was taken and not written comes again, what is lost is passed over. */
static enum err
redo(struct verdictlog *log, struct why *why)
{
    struct verdictlog_kafka *kafka = log->kafka;

    for (uint32_t p = 0; p < kafka->partitions; p++) {
        enum err err = ERR_OK;

        if (kafka->redo[p] == REDO_LOST)
            err = jump(log, p, why);
        else if (kafka->redo[p] == REDO_AGAIN)
            err = kafka_consumer_follow(kafka->consumer, (int32_t)p,
                                        kafka->slots[p].copied.next, why);
        if (err != ERR_OK)
            return err;
        kafka->redo[p] = REDO_NONE;
    }
    return ERR_OK;
}

/* --- messages --- */

/* Puts one message. A block that contradicts one on record is skipped as a damaged one is:
 * the first is the fact. */
static enum err
message_put(struct verdictlog *log, MDB_txn *txn,
            const struct kafka_message *message, struct why *why)
{
    struct verdictlog_kafka *kafka = log->kafka;
    struct verdictlog_block block;
    enum err err = ERR_CONFLICT;

    if (wire_block_read(message->value, (uint32_t)message->partition,
                        kafka->verdicts, &block))
        err = verdictlog_block_put(log, txn, &block, true, why);
    if (err != ERR_CONFLICT)
        return err;
    if (kafka->skipped++ == 0)
        log_event(LOG_ERROR, "verdicts_skipped", LOG_TEXT("topic", kafka->topic),
                  LOG_NUMBER("partition", message->partition),
                  LOG_NUMBER("offset", message->offset));
    return ERR_OK;
}

/* Writes down how far the partitions are, and says so once it is committed. */
static enum err
group_end(struct verdictlog *log, MDB_txn *txn, uint64_t bytes, struct why *why)
{
    struct verdictlog_kafka *kafka = log->kafka;
    enum err err = ERR_OK;

    for (uint32_t p = 0; p < kafka->partitions && err == ERR_OK; p++) {
        struct copied copied = {kafka->slots[p].copied.from, kafka->group[p].next};

        if (kafka->group[p].touched)
            err = lmdbenv_error(copy_copied_put(log, txn, p, &copied),
                                "cannot write", log->env.dir, why);
    }
    if (err != ERR_OK) {
        mdb_txn_abort(txn);
        return err;
    }
    err = verdictlog_commit(log, txn, bytes, why);
    if (err != ERR_OK)
        return err;
    (void)pthread_mutex_lock(&kafka->mutex);
    for (uint32_t p = 0; p < kafka->partitions; p++)
        if (kafka->group[p].touched)
            kafka->slots[p].copied.next = kafka->group[p].next;
    (void)pthread_cond_broadcast(&kafka->cond);
    (void)pthread_mutex_unlock(&kafka->mutex);
    return ERR_OK;
}

/* Takes what is there, first and all that follows at once, in one transaction. */
static enum err
group_take(struct verdictlog *log, struct kafka_message *message, enum err *end,
           struct why *why)
{
    struct verdictlog_kafka *kafka = log->kafka;
    MDB_txn *txn = NULL;
    uint64_t bytes = 0;
    int rc = mdb_txn_begin(log->env.env, NULL, 0, &txn);
    enum err err = lmdbenv_error(rc, "cannot begin to write", log->env.dir, why);

    if (err != ERR_OK)
        return err;
    memset(kafka->group, 0, sizeof(kafka->group));
    *end = ERR_OK;
    for (int n = 0; err == ERR_OK && *end == ERR_OK; n++) {
        err = message_put(log, txn, message, why);
        kafka->group[message->partition].touched = true;
        kafka->group[message->partition].next = message->offset + 1;
        bytes += message->value.n;
        if (n + 1 == GROUP_MESSAGES || bytes > GROUP_BYTES)
            break;
        if (err == ERR_OK)
            *end = kafka_consumer_next(kafka->consumer, 0, message, why);
    }
    if (err == ERR_OK)
        return group_end(log, txn, bytes, why);
    mdb_txn_abort(txn);
    return err;
}

/* At the end of a partition the place may be past its last message. */
static void
ends(struct verdictlog_kafka *kafka)
{
    (void)pthread_mutex_lock(&kafka->mutex);
    for (uint32_t p = 0; p < kafka->partitions; p++) {
        struct slot *slot = &kafka->slots[p];
        uint64_t at = kafka_consumer_at(kafka->consumer, (int32_t)p);

        if (slot->followed && at > slot->copied.next) {
            slot->copied.next = at;
            (void)pthread_cond_broadcast(&kafka->cond);
        }
    }
    (void)pthread_mutex_unlock(&kafka->mutex);
}

static enum err
turn(struct verdictlog *log, struct why *why)
{
    struct verdictlog_kafka *kafka = log->kafka;
    struct kafka_message message;
    enum err err = orders(log, why), end;

    if (err == ERR_OK)
        err = redo(log, why);
    if (err != ERR_OK)
        return err;
    end = kafka_consumer_next(kafka->consumer, NEXT_US, &message, why);
    if (end == ERR_OK)
        err = group_take(log, &message, &end, why);
    if (end == ERR_NOTFOUND)
        kafka->redo[message.partition] = REDO_LOST;
    if (err == ERR_OK) {
        ends(kafka);
        return end == ERR_AGAIN || end == ERR_NOTFOUND ? ERR_OK : end;
    }
    for (uint32_t p = 0; p < kafka->partitions; p++)
        if (kafka->slots[p].followed && kafka->redo[p] == REDO_NONE)
            kafka->redo[p] = REDO_AGAIN;
    return err;
}

static void
trouble_say(struct verdictlog_kafka *kafka, enum err err, const struct why *why,
            bool *said)
{
    (void)pthread_mutex_lock(&kafka->mutex);
    kafka->trouble = *why;
    (void)pthread_mutex_unlock(&kafka->mutex);
    if (!*said)
        log_event(LOG_ERROR, "verdicts_follow", LOG_TEXT("error", err_name(err)),
                  LOG_TEXT("text", why->text));
    *said = true;
}

void *
verdictlog_follower(void *arg)
{
    struct verdictlog *log = arg;
    struct verdictlog_kafka *kafka = log->kafka;
    bool said = false;

    for (;;) {
        struct why why = {""};
        bool stop;
        enum err err;

        (void)pthread_mutex_lock(&kafka->mutex);
        stop = kafka->stop;
        (void)pthread_mutex_unlock(&kafka->mutex);
        if (stop)
            return NULL;
        err = turn(log, &why);
        if (err != ERR_OK) {
            trouble_say(kafka, err, &why, &said);
            clock_sleep_us(AGAIN_US);
        } else
            said = false;
    }
}

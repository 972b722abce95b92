/* Questions to a partition's leader, with a handle that does nothing else.
 *
 * A broker answers a connection's requests in turn: behind a fetch that waits for messages
 * a question would take a tenth of a second. And a handle that neither sends nor fetches
 * does not notice by itself that leaders have moved: an answer that says so makes us look
 * for them. rd_kafka_query_watermark_offsets may wait for ever while a broker is away. */
#include "common/kafka.h"
#include "common/kafka_impl.h"

enum err
kafka_ask_open(struct kafka_ask *ask, const struct config *config,
               const char *topic, struct why *why)
{
    enum err err = kafka_asker(&ask->rk, config, &ask->watch, why);

    if (err != ERR_OK)
        return err;
    ask->topic = rd_kafka_topic_new(ask->rk, topic, NULL);
    if (ask->topic == NULL)
        return kafka_error(rd_kafka_last_error(), topic, "cannot be used", why);
    return ERR_OK;
}

void
kafka_ask_close(struct kafka_ask *ask)
{
    if (ask->topic != NULL)
        rd_kafka_topic_destroy(ask->topic);
    if (ask->rk != NULL)
        rd_kafka_destroy(ask->rk);
    ask->topic = NULL;
    ask->rk = NULL;
}

rd_kafka_resp_err_t
kafka_offset_get(rd_kafka_t *rk, const char *topic, int32_t partition, int64_t when,
                 int timeout_ms, int64_t *offset)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_t *asked =
        rd_kafka_topic_partition_list_add(list, topic, partition);
    rd_kafka_resp_err_t code;

    asked->offset = when;
    code = rd_kafka_offsets_for_times(rk, list, timeout_ms);
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
        code = asked->err;
    *offset = asked->offset;
    rd_kafka_topic_partition_list_destroy(list);
    return code;
}

static bool
leader_moved(rd_kafka_resp_err_t code)
{
    return code == RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION ||
           code == RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE ||
           code == RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE ||
           code == RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH ||
           code == RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH ||
           code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART ||
           code == RD_KAFKA_RESP_ERR__TRANSPORT;
}

enum err
kafka_ask_offset(struct kafka_ask *ask, int32_t partition, int64_t when,
                 int timeout_ms, int64_t *offset, struct why *why)
{
    const char *topic = rd_kafka_topic_name(ask->topic);
    const rd_kafka_metadata_t *metadata = NULL;
    rd_kafka_resp_err_t code =
        kafka_offset_get(ask->rk, topic, partition, when, timeout_ms, offset);

    (void)rd_kafka_poll(ask->rk, 0); /* errors */
    if (leader_moved(code) &&
        rd_kafka_metadata(ask->rk, 0, ask->topic, &metadata, timeout_ms) ==
            RD_KAFKA_RESP_ERR_NO_ERROR) {
        rd_kafka_metadata_destroy(metadata);
        code =
            kafka_offset_get(ask->rk, topic, partition, when, timeout_ms, offset);
    }
    return kafka_error(code, topic, "cannot ask for an offset", why);
}

#include "ingest/relay.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "ingest/relay_impl.h"

static void
metrics_declare(struct relay *relay)
{
    relay->backlog = metric_gauge("clickledger_relay_backlog_records", NULL,
                                  "Clicks of the spool that Kafka has not "
                                  "acknowledged");
    relay->acked_total = metric_counter("clickledger_relay_acked_total", NULL,
                                        "Clicks that Kafka acknowledged");
    relay->resends =
        metric_counter("clickledger_relay_resends_total", NULL,
                       "Times that sending went back to what was acknowledged");
    relay->marks = metric_counter("clickledger_relay_marks_total", NULL,
                                  "Times that click_control was told of the spool");
}

/* Says that the topics are ours, as far as was said before. */
static enum err
topics_claim(struct relay *relay, int64_t timeout_us, struct why *why)
{
    struct control_spool *spool = calloc(1, sizeof(*spool));
    enum err err;

    if (spool == NULL)
        return err_set(why, ERR_NOMEM, "relay: no memory");
    err = control_sync(relay->control, timeout_us, why);
    if (err == ERR_OK) {
        err = control_spool_get(relay->control, spool, NULL);
        if (err == ERR_NOTFOUND)
            *spool = (struct control_spool){.spool_id = relay->spool_id};
        else if (err == ERR_OK && spool->spool_id != relay->spool_id)
            err = err_set(
                why, ERR_CONFLICT,
                "the topics belong to spool %016" PRIx64
                ", and this is spool %016" PRIx64
                ": set another kafka.topic_prefix, or, if that spool is gone for "
                "ever, `clickledger relay forget %016" PRIx64 "`",
                spool->spool_id, relay->spool_id, spool->spool_id);
        if (err == ERR_OK || err == ERR_NOTFOUND) {
            spool->closed = false;
            relay->said = spool->mark;
            err = control_spool_put(relay->control, spool, why);
        }
    }
    free(spool);
    return err;
}

enum err
relay_claim(struct relay *relay, int64_t timeout_us, struct why *why)
{
    uint32_t ids[CLICK_VERSION + 1] = {0};
    enum err err = registry_register(relay->config, relay->topic, ids, why);

    if (err == ERR_OK && relay->control != NULL)
        err = topics_claim(relay, timeout_us, why);
    if (err != ERR_OK)
        return err;
    for (unsigned v = CLICK_VERSION_FIRST; v <= CLICK_VERSION; v++)
        wire_head(ids[v], relay->heads[v]);
    atomic_store(&relay->claimed, true);
    return ERR_OK;
}

static enum err
parts_open(struct relay *relay, struct why *why)
{
    enum err err = relay_cursor_open(&relay->cursor, relay->dir, relay->log, why);

    if (err == ERR_OK)
        err = relay_lock(relay->dir, &relay->lock_fd, why);
    if (err == ERR_OK)
        err = clicklog_reader_open(&relay->reader, relay->log, why);
    relay->items = calloc(RELAY_BATCH, sizeof(*relay->items));
    relay->bytes = malloc(RELAY_BATCH_BYTES);
    if (err == ERR_OK && (relay->items == NULL || relay->bytes == NULL))
        err = err_set(why, ERR_NOMEM, "relay: no memory");
    return err;
}

/* Brokers that are away are no reason not to start: clicks go to the spool meanwhile. */
static enum err
first_claim(struct relay *relay, struct why *why)
{
    enum err err = relay_claim(relay, RELAY_CLAIM_US, why);

    if (err != ERR_AGAIN)
        return err;
    log_event(
        LOG_WARN, "relay_waits", LOG_TEXT("why", why->text),
        LOG_TEXT("effect", "clicks are kept in the spool until Kafka is there"));
    return ERR_OK;
}

enum err
relay_start(struct relay **out, const struct config *config, struct clicklog *log,
            struct control *control, const char *dir, struct why *why)
{
    struct relay *relay = calloc(1, sizeof(*relay));
    struct clicklog_stats stats;
    enum err err;

    assert(config != NULL && log != NULL && dir != NULL);
    *out = NULL;
    if (relay == NULL)
        return err_set(why, ERR_NOMEM, "relay: no memory");
    clicklog_stats_get(log, &stats);
    relay->config = config;
    relay->log = log;
    relay->control = control;
    relay->lock_fd = -1;
    relay->partitions = clicklog_partitions(log);
    relay->spool_id = stats.spool_id;
    relay->wait_us = RELAY_WAIT_US_MIN;
    (void)snprintf(relay->dir, sizeof(relay->dir), "%s", dir);
    kafka_topic_name(config, "raw_clicks", relay->topic);
    metrics_declare(relay);
    err = parts_open(relay, why);
    if (err == ERR_OK)
        err = first_claim(relay, why);
    if (err == ERR_OK) {
        relay->sender_runs =
            pthread_create(&relay->sender, NULL, relay_send_main, relay) == 0;
        relay->teller_runs =
            pthread_create(&relay->teller, NULL, relay_mark_main, relay) == 0;
        if (!relay->sender_runs || !relay->teller_runs)
            err = err_set(why, ERR_FATAL, "relay: cannot start its threads");
    }
    *out = relay;
    if (err != ERR_OK)
        relay_stop(out);
    return err;
}

void
relay_stop(struct relay **relay)
{
    struct relay *r = *relay;

    *relay = NULL;
    if (r == NULL)
        return;
    atomic_store(&r->stop, true);
    clicklog_wake(r->log);
    if (r->sender_runs)
        (void)pthread_join(r->sender, NULL);
    atomic_store(&r->tell_last, true);
    if (r->teller_runs)
        (void)pthread_join(r->teller, NULL);
    clicklog_reader_close(&r->reader);
    relay_cursor_close(&r->cursor);
    if (r->lock_fd >= 0)
        (void)close(r->lock_fd);
    free(r->items);
    free(r->bytes);
    free(r);
}

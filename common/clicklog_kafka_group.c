#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/buf.h"
#include "common/clicklog_kafka_impl.h"
#include "common/clock.h"
#include "common/log.h"

enum {
    POLL_MS = 100,
    LIST_MAX = 512,
    POLL_INTERVAL_MS = 300000,
    HEARTBEAT_MS_MAX = 1000, /* a member hears of a rebalance by its heartbeats */
    PAUSE_S_MAX = 300,       /* of a member that is fenced again and again */
};

static struct timespec
timespec_of(int64_t us)
{
    return (struct timespec){.tv_sec = (time_t)(us / CLOCK_SECOND_US),
                             .tv_nsec = (long)(us % CLOCK_SECOND_US * 1000)};
}

/* "0-3,7" of the partitions that are marked. */
static void
list_text(const bool *marked, uint32_t n, char text[LIST_MAX])
{
    size_t used = 0;

    text[0] = '\0';
    for (uint32_t p = 0; p < n && used < LIST_MAX - 24; p++) {
        uint32_t last = p;
        int wrote;

        if (!marked[p])
            continue;
        while (last + 1 < n && marked[last + 1])
            last++;
        wrote = last == p ? snprintf(text + used, LIST_MAX - used, "%s%u",
                                     used > 0 ? "," : "", p)
                          : snprintf(text + used, LIST_MAX - used, "%s%u-%u",
                                     used > 0 ? "," : "", p, last);
        used += wrote > 0 ? (size_t)wrote : 0;
        p = last;
    }
}

static void
group_log(struct group *group, const char *event, const bool *marked, uint32_t n)
{
    char text[LIST_MAX];

    list_text(marked, group->kafka->partitions, text);
    log_event(LOG_INFO, event, LOG_TEXT("group", group->name),
              LOG_NUMBER("partitions", n), LOG_TEXT("list", text));
}

static void
assigned(struct group *group, const rd_kafka_topic_partition_list_t *list)
{
    struct clicklog_kafka *kafka = group->kafka;
    bool marked[CLICKLOG_PARTITIONS_MAX] = {false};
    uint32_t n = 0;
    uint64_t generation = ++group->generation;

    for (int i = 0; i < list->cnt; i++) {
        int32_t p = list->elems[i].partition;

        if (strcmp(list->elems[i].topic, kafka->topic) != 0 || p < 0 ||
            (uint32_t)p >= kafka->partitions)
            continue; /* partitions added while we run are for the next start */
        struct part *part = &kafka->parts[p];
        atomic_store(&part->let_go, false);
        atomic_store(&part->touched, false);
        atomic_store(&part->owned, generation);
        n += !marked[p];
        marked[p] = true;
    }
    metric_add(group->rebalances, 1);
    metric_set(group->partitions_owned, n);
    group_log(group, "kafka_assigned", marked, n);
    kafka_watch_ok(&group->watch);
    kafka_changed(kafka);
}

static uint32_t
still_held(struct clicklog_kafka *kafka, const bool *marked)
{
    uint32_t n = 0;

    for (uint32_t p = 0; p < kafka->partitions; p++)
        n += marked[p] && atomic_load(&kafka->parts[p].touched) &&
             !atomic_load(&kafka->parts[p].let_go);
    return n;
}

/* Until every worker has flushed and let go, or half a session is over. */
static void
let_go_wait(struct group *group, const bool *marked)
{
    struct clicklog_kafka *kafka = group->kafka;
    int64_t start = clock_mono_us();
    int64_t end = start + kafka->config->kafka_session_ms * 1000 / 2;
    struct timespec until = timespec_of(end);
    uint32_t held;

    (void)pthread_mutex_lock(&kafka->mutex);
    while ((held = still_held(kafka, marked)) > 0 && !atomic_load(&kafka->stop) &&
           clock_mono_us() < end)
        (void)pthread_cond_timedwait(&kafka->changed, &kafka->mutex, &until);
    (void)pthread_mutex_unlock(&kafka->mutex);
    if (held > 0 && !atomic_load(&kafka->stop))
        log_event(LOG_WARN, "kafka_let_go_late", LOG_TEXT("group", group->name),
                  LOG_NUMBER("partitions", held),
                  LOG_NUMBER("waited_ms", (clock_mono_us() - start) / 1000));
}

/* All that we own; with this assignor it is always all. */
static void
revoked(struct group *group, bool lost)
{
    struct clicklog_kafka *kafka = group->kafka;
    bool marked[CLICKLOG_PARTITIONS_MAX] = {false};
    uint32_t n = 0;

    for (uint32_t p = 0; p < kafka->partitions; p++) {
        struct part *part = &kafka->parts[p];

        if (atomic_load(&part->owned) == 0)
            continue;
        atomic_store(&part->let_go, false);
        atomic_store(&part->owned, 0);
        marked[p] = true;
        n++;
    }
    metric_set(group->partitions_owned, 0);
    if (n == 0)
        return;
    kafka_changed(kafka);
    if (!lost)
        let_go_wait(group, marked);
    group_log(group, lost ? "kafka_lost" : "kafka_revoked", marked, n);
}

static void
assign(struct group *group, const rd_kafka_topic_partition_list_t *list)
{
    rd_kafka_resp_err_t code = rd_kafka_assign(group->rk, list);

    if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
        log_event(LOG_ERROR, "kafka_assign_failed", LOG_TEXT("group", group->name),
                  LOG_TEXT("why", rd_kafka_err2str(code)));
}

/* The member itself fetches nothing, so what it is assigned is an empty list. */
static void
rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t code,
          rd_kafka_topic_partition_list_t *list, void *opaque)
{
    struct group *group = opaque;
    rd_kafka_topic_partition_list_t *none;

    if (code != RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
        revoked(group, rd_kafka_assignment_lost(rk) != 0);
        assign(group, NULL);
        return;
    }
    none = rd_kafka_topic_partition_list_new(0);
    assign(group, none);
    rd_kafka_topic_partition_list_destroy(none);
    assigned(group, list);
}

/* Our own request to join may come twice, late, when a broker or the network stood still,
 * and the second fences the first: so we come again. Two processes of one name would take
 * turns: each time we stay away for longer. */
static void
fence(struct group *group)
{
    int64_t session_us = group->kafka->config->kafka_session_ms * 1000;
    int64_t now_us = clock_mono_us(), most_us = PAUSE_S_MAX * CLOCK_SECOND_US;
    char text[256];
    rd_kafka_resp_err_t code = rd_kafka_fatal_error(group->rk, text, sizeof(text));
    bool again = group->pause_us > 0 && now_us - group->fenced_us < 2 * most_us;

    if (group->fenced)
        return;
    group->pause_us = again ? 2 * group->pause_us : session_us;
    if (group->pause_us > most_us)
        group->pause_us = most_us;
    group->fenced_us = now_us;
    group->fenced = true;
    log_event(again ? LOG_ERROR : LOG_WARN, "kafka_member_fenced",
              LOG_TEXT("group", group->name),
              LOG_TEXT("why", rd_kafka_err2str(code)),
              LOG_NUMBER("joins_again_ms", group->pause_us / 1000),
              LOG_TEXT("fix", again ? "if another process has this "
                                      "kafka.instance_id: give each its own"
                                    : ""));
    revoked(group, true);
}

static void
message_take(struct group *group, rd_kafka_message_t *message)
{
    if (message->err == RD_KAFKA_RESP_ERR__FATAL)
        fence(group);
    rd_kafka_message_destroy(message);
}

static enum err member_make(struct group *group, struct why *why);

static void
join_again(struct group *group)
{
    int64_t until_us = group->fenced_us + group->pause_us;
    struct why why = {{0}};

    while (!atomic_load(&group->kafka->stop) && clock_mono_us() < until_us)
        clock_sleep_us(POLL_MS * 1000);
    if (atomic_load(&group->kafka->stop))
        return;
    if (group->rk != NULL)
        rd_kafka_destroy_flags(group->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    group->rk = NULL;
    if (member_make(group, &why) == ERR_OK) {
        group->fenced = false;
        return;
    }
    log_event(LOG_ERROR, "kafka_join_failed", LOG_TEXT("group", group->name),
              LOG_TEXT("why", why.text));
    group->fenced_us = clock_mono_us();
}

static void *
group_run(void *arg)
{
    struct group *group = arg;

    while (!atomic_load(&group->kafka->stop)) {
        rd_kafka_message_t *message;

        if (group->fenced) {
            join_again(group);
            continue;
        }
        message = rd_kafka_consumer_poll(group->rk, POLL_MS);
        if (message != NULL)
            message_take(group, message);
    }
    return NULL;
}

static enum err
conf_make(struct group *group, rd_kafka_conf_t **conf, struct why *why)
{
    const struct config *config = group->kafka->config;
    char session[24], heartbeat[24], interval[24], instance[300], client[80];
    int64_t session_ms = config->kafka_session_ms;
    struct kafka_setting own[] = {
        {"group.id", group->name},
        {"session.timeout.ms", session},
        {"heartbeat.interval.ms", heartbeat},
        {"max.poll.interval.ms", interval},
        {"partition.assignment.strategy", "range"},
        {"enable.auto.commit", "false"},
        {"enable.auto.offset.store", "false"},
        {"auto.offset.reset", "error"},
        {"group.instance.id", instance},
    };
    size_t n = sizeof(own) / sizeof(own[0]);
    enum err err;

    (void)snprintf(session, sizeof(session), "%" PRId64, session_ms);
    (void)snprintf(heartbeat, sizeof(heartbeat), "%" PRId64,
                   session_ms / 3 < HEARTBEAT_MS_MAX ? session_ms / 3
                                                     : HEARTBEAT_MS_MAX);
    (void)snprintf(interval, sizeof(interval), "%" PRId64,
                   session_ms > POLL_INTERVAL_MS ? session_ms : POLL_INTERVAL_MS);
    (void)snprintf(instance, sizeof(instance), "%s-%s", config->kafka_instance_id,
                   group->stage);
    (void)snprintf(client, sizeof(client), "%s-group", group->stage);
    if (config->kafka_instance_id[0] == '\0')
        n--;
    err = kafka_conf(conf, config, client, &group->watch, own, n, why);
    if (err == ERR_OK)
        rd_kafka_conf_set_rebalance_cb(*conf, rebalance);
    return err;
}

static void
metrics_make(struct group *group)
{
    char label[300];

    (void)snprintf(label, sizeof(label), "group=\"%s\"", group->name);
    group->rebalances =
        metric_counter("clickledger_kafka_rebalances_total", label,
                       "Times that partitions were assigned anew in a group");
    group->partitions_owned =
        metric_gauge("clickledger_kafka_partitions_owned", label,
                     "Partitions of raw_clicks that this process has in a group");
}

static enum err
subscribe(struct group *group, struct why *why)
{
    rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new(1);
    rd_kafka_resp_err_t code;

    (void)rd_kafka_topic_partition_list_add(topics, group->kafka->topic,
                                            RD_KAFKA_PARTITION_UA);
    code = rd_kafka_subscribe(group->rk, topics);
    rd_kafka_topic_partition_list_destroy(topics);
    return kafka_error(code, group->name, "join the group", why);
}

static enum err
member_make(struct group *group, struct why *why)
{
    rd_kafka_conf_t *conf;
    enum err err = conf_make(group, &conf, why);

    if (err == ERR_OK)
        err = kafka_new(&group->rk, RD_KAFKA_CONSUMER, conf, why);
    if (err != ERR_OK)
        return err;
    (void)rd_kafka_poll_set_consumer(group->rk);
    return subscribe(group, why);
}

enum err
group_join(struct group *group, struct clicklog_kafka *kafka, const char *stage,
           struct why *why)
{
    enum err err;
    int n;

    group->kafka = kafka;
    (void)snprintf(group->stage, sizeof(group->stage), "%s", stage);
    n = snprintf(group->name, sizeof(group->name), "%s-%s",
                 kafka->config->kafka_group, stage);
    if (n < 0 || (size_t)n >= sizeof(group->name))
        return err_set(why, ERR_INVALID, "kafka.group: longer than %zu bytes",
                       sizeof(group->name) - 1 - strlen(stage) - 1);
    metrics_make(group);
    err = member_make(group, why);
    if (err != ERR_OK)
        return err;
    if (pthread_create(&group->thread, NULL, group_run, group) != 0)
        return err_set(why, ERR_NOMEM, "kafka: no thread for %s", group->name);
    group->started = true;
    return ERR_OK;
}

void
group_leave(struct group *group)
{
    assert(group->rk == NULL || atomic_load(&group->kafka->stop));
    if (group->started)
        (void)pthread_join(group->thread, NULL);
    group->started = false;
    if (group->rk == NULL)
        return;
    (void)rd_kafka_consumer_close(group->rk);
    rd_kafka_destroy(group->rk);
    group->rk = NULL;
}

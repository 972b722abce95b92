/* One thread: lanes -> click_addresses; click_addresses of our partitions -> counts ->
 * click_hot; click_hot -> fraud_hot. It opens its four Kafka clients by itself and again
 * after trouble: nothing waits for it. */
#include "aggregate/hotstage.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "aggregate/hotlane.h"
#include "aggregate/hotwire.h"
#include "common/clock.h"
#include "common/kafka.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/prefetch.h"
#include "fraud/fraud.h"
#include "schema/topics.h"

enum {
    IDLE_US = 20000,
    BACK_MS = 120000,    /* what a newly owned partition, or process, begins with */
    RETRY_US = 5000000,  /* between attempts to reach Kafka */
    LOOK_US = 200000,    /* between looks at who owns what */
    MESSAGES_MAX = 1024, /* taken before the lanes are looked at again */
    LINGER_MS = 5,
    AHEAD = 16, /* clicks whose memory is on its way */
};

struct follow {
    uint64_t owned; /* generation that is followed; 0: none */
    int64_t retry_us;
};

struct hotstage {
    const struct config *config;
    struct clicklog *log;
    struct ruleset_source *rules;
    struct fraud_hot *hot;
    struct fraud_addresses *counts; /* of the addresses of our partitions */
    struct lane *lanes;
    uint32_t lanes_n, partitions;
    struct kafka_producer *to_addresses, *to_hot;
    struct kafka_consumer *addresses, *heard;
    struct follow follows[CLICKLOG_PARTITIONS_MAX];
    uint64_t *bases; /* [address partition][clicks' partition]: 1 + the last base */
    uint32_t *starts, *order; /* sorting a lane */
    struct hotwire_notice notices[HOTWIRE_NOTICES_MAX];
    uint32_t notices_n;
    struct buf message;
    int64_t open_us, look_us;
    bool failed; /* the clients are to be opened anew */
    bool told;   /* of trouble */
    struct metric *hot_total, *dropped, *refused;
    atomic_bool all_ours; /* nothing needs to be sent */
    pthread_t thread;
    bool started;
    atomic_bool stop;
};

/* --- Kafka, as long as it answers --- */

static void
clients_close(struct hotstage *s)
{
    kafka_producer_close(&s->to_addresses);
    kafka_producer_close(&s->to_hot);
    kafka_consumer_close(&s->addresses);
    kafka_consumer_close(&s->heard);
    memset(s->follows, 0, sizeof(s->follows));
}

static void
trouble(struct hotstage *s, const struct why *why)
{
    if (!s->told)
        log_event(LOG_WARN, "hot_addresses_away", LOG_TEXT("why", why->text),
                  LOG_TEXT("effect", "live verdicts know the rates of addresses in "
                                     "this process only"));
    s->told = true;
    s->failed = true; /* closed later: a message of theirs may be in hand */
}

static enum err
heard_follow(struct hotstage *s, struct why *why)
{
    uint64_t offset;
    enum err err = kafka_consumer_since(
        s->heard, 0, clock_now_us() / 1000 - BACK_MS, &offset, why);

    return err == ERR_OK ? kafka_consumer_follow(s->heard, 0, offset, why) : err;
}

static enum err
clients_open(struct hotstage *s, struct why *why)
{
    char addresses[KAFKA_NAME_MAX + 1], hot[KAFKA_NAME_MAX + 1];
    enum err err;

    kafka_topic_name(s->config, "click_addresses", addresses);
    kafka_topic_name(s->config, "click_hot", hot);
    err = kafka_producer_open(&s->to_addresses, s->config, addresses, "addresses",
                              LINGER_MS, why);
    if (err == ERR_OK)
        err = kafka_producer_open(&s->to_hot, s->config, hot, "hot", 0, why);
    if (err == ERR_OK)
        err = kafka_consumer_open(&s->addresses, s->config, addresses, "addresses",
                                  why);
    if (err == ERR_OK)
        err = kafka_consumer_open(&s->heard, s->config, hot, "hot", why);
    if (err == ERR_OK)
        err = heard_follow(s, why);
    return err;
}

static bool
clients_ready(struct hotstage *s)
{
    struct why why;

    if (s->failed) {
        clients_close(s);
        s->failed = false;
        s->open_us = clock_mono_us() + RETRY_US;
    }
    if (s->heard != NULL)
        return true;
    if (clock_mono_us() < s->open_us)
        return false;
    if (clients_open(s, &why) != ERR_OK) {
        trouble(s, &why);
        return false;
    }
    if (s->told)
        log_event(LOG_INFO, "hot_addresses_back", LOG_TEXT("why", "Kafka answers"));
    s->told = false;
    return true;
}

/* --- whose partitions --- */

static void
follow_look(struct hotstage *s, uint32_t p, uint64_t owned)
{
    struct follow *f = &s->follows[p];
    int64_t now_us = clock_mono_us();
    uint64_t offset;
    struct why why;

    if (f->owned == owned || now_us < f->retry_us)
        return;
    if (f->owned != 0)
        kafka_consumer_leave(s->addresses, (int32_t)p);
    f->owned = 0;
    if (owned == 0)
        return;
    if (kafka_consumer_since(s->addresses, (int32_t)p,
                             clock_now_us() / 1000 - BACK_MS, &offset,
                             &why) == ERR_OK &&
        kafka_consumer_follow(s->addresses, (int32_t)p, offset, &why) == ERR_OK)
        f->owned = owned;
    else
        f->retry_us = now_us + RETRY_US;
}

static void
owners_look(struct hotstage *s)
{
    uint64_t owned[CLICKLOG_PARTITIONS_MAX];
    bool all = true;

    if (clock_mono_us() < s->look_us)
        return;
    s->look_us = clock_mono_us() + LOOK_US;
    for (uint32_t p = 0; p < s->partitions; p++) {
        owned[p] = clicklog_owned(s->log, p);
        all = all && owned[p] != 0;
    }
    atomic_store_explicit(&s->all_ours, all, memory_order_relaxed);
    for (uint32_t p = 0; s->heard != NULL && p < s->partitions; p++)
        follow_look(s, p, all ? 0 : owned[p]);
}

/* --- lanes -> click_addresses --- */

/* Other bits of the key than the tables use, or each owner's tables would be used in part. */
static uint32_t
partition_of(const struct hotstage *s, uint64_t address_key)
{
    uint64_t mixed = address_key * UINT64_C(0xd6e8feb86659fd93);

    return (uint32_t)((mixed ^ mixed >> 32) % s->partitions);
}

static bool
clicks_send(struct hotstage *s, uint32_t to, const struct lane_click *clicks,
            const uint32_t *which, uint32_t n)
{
    const struct lane_click *first = &clicks[which[0]];
    struct kafka_item item = {.timestamp_ms =
                                  (int64_t)clicks[which[n - 1]].received_ms};
    size_t sent = 0;
    struct why why;

    hotwire_clicks_begin(&s->message, (uint32_t)first->partition, first->offset, n);
    for (uint32_t i = 0; i < n; i++) {
        if (i + AHEAD < n)
            prefetch(&clicks[which[i + AHEAD]]);
        hotwire_click_put(&s->message,
                          (struct hotwire_click){clicks[which[i]].address_key,
                                                 clicks[which[i]].event_ms});
    }
    if (s->message.failed)
        return false;
    item.value = (struct str){(const char *)s->message.p, (uint32_t)s->message.n};
    if (kafka_send(s->to_addresses, (int32_t)to, &item, 1, &sent, &why) != ERR_OK)
        trouble(s, &why);
    return sent == 1;
}

/* By (partition of the address, partition of the click), in order within. */
static void
lane_sort(struct hotstage *s, const struct lane_click *clicks, uint32_t n)
{
    uint32_t cells = s->partitions * s->partitions, at = 0;

    memset(s->starts, 0, (cells + 1) * sizeof(*s->starts));
    for (uint32_t i = 0; i < n; i++)
        s->starts[partition_of(s, clicks[i].address_key) * s->partitions +
                  (uint32_t)clicks[i].partition]++;
    for (uint32_t c = 0; c <= cells; c++) {
        uint32_t here = s->starts[c];

        s->starts[c] = at;
        at += here;
    }
    for (uint32_t i = 0; i < n; i++)
        s->order[s->starts[partition_of(s, clicks[i].address_key) * s->partitions +
                           (uint32_t)clicks[i].partition]++] = i;
}

/* After lane_sort starts[c] is the end of cell c. */
static void
lane_send(struct hotstage *s, struct lane *lane)
{
    uint32_t n = 0, from = 0;
    const struct lane_click *clicks = lane_take(lane, &n);

    if (clicks == NULL)
        return;
    lane_sort(s, clicks, n);
    for (uint32_t c = 0; c < s->partitions * s->partitions; c++) {
        while (from < s->starts[c]) {
            uint32_t left = s->starts[c] - from;
            uint32_t some = left < HOTWIRE_CLICKS_MAX ? left : HOTWIRE_CLICKS_MAX;

            if (s->heard == NULL || s->failed ||
                !clicks_send(s, c / s->partitions, clicks, s->order + from, some))
                metric_add(s->dropped, some);
            from += some;
        }
    }
    lane_done(lane);
}

/* --- click_addresses -> counts -> click_hot --- */

static void
notices_send(struct hotstage *s)
{
    struct kafka_item item = {.timestamp_ms = clock_now_us() / 1000};
    size_t sent = 0;
    struct why why;

    if (s->notices_n == 0)
        return;
    hotwire_notices_begin(&s->message, s->notices_n);
    for (uint32_t i = 0; i < s->notices_n; i++)
        hotwire_notice_put(&s->message, s->notices[i]);
    s->notices_n = 0;
    if (s->message.failed || s->failed)
        return;
    item.value = (struct str){(const char *)s->message.p, (uint32_t)s->message.n};
    if (kafka_send(s->to_hot, 0, &item, 1, &sent, &why) != ERR_OK)
        trouble(s, &why);
}

/* One more click of an address; past a limit it is told once a bucket. */
static void
click_count(struct hotstage *s, const struct ruleset_limits *limits,
            struct hotwire_click click, int64_t received_us)
{
    uint32_t reasons = fraud_addresses_seen(s->counts, limits, click.address_key,
                                            click.event_ms, received_us);

    if (reasons != 0)
        reasons &= ~fraud_hot_reasons(s->hot, click.address_key, click.event_ms);
    if (reasons == 0)
        return;
    fraud_hot_add(s->hot, click.address_key, click.event_ms, reasons);
    metric_add(s->hot_total, 1);
    if (s->notices_n == HOTWIRE_NOTICES_MAX)
        notices_send(s);
    s->notices[s->notices_n++] =
        (struct hotwire_notice){click.address_key, click.event_ms, reasons};
}

static void
clicks_take(struct hotstage *s, const struct ruleset_limits *limits,
            const struct kafka_message *message)
{
    int64_t received_us =
        message->timestamp_ms > 0 ? message->timestamp_ms * 1000 : 0;
    uint32_t partition, count;
    uint64_t base, *last;

    if (!hotwire_clicks_read(message->value, &partition, &base, &count) ||
        partition >= s->partitions || message->partition < 0 ||
        (uint32_t)message->partition >= s->partitions) {
        metric_add(s->refused, 1);
        return;
    }
    /* Read before, or judged before by another owner. */
    last = &s->bases[(uint32_t)message->partition * s->partitions + partition];
    if (base < *last)
        return;
    *last = base + 1;
    for (uint32_t i = 0; i < count; i++) {
        if (i + AHEAD < count) {
            struct hotwire_click later =
                hotwire_click_at(message->value, i + AHEAD);

            fraud_addresses_prefetch(s->counts, later.address_key, later.event_ms);
        }
        click_count(s, limits, hotwire_click_at(message->value, i), received_us);
    }
}

/* The next message, or false; what is not held any more is followed anew. */
static bool
message_next(struct hotstage *s, struct kafka_consumer *from, int64_t timeout_us,
             struct kafka_message *out)
{
    struct why why;
    enum err err = kafka_consumer_next(from, timeout_us, out, &why);

    if (err == ERR_NOTFOUND && from == s->addresses && out->partition >= 0 &&
        (uint32_t)out->partition < s->partitions)
        s->follows[out->partition].owned = 0;
    else if (err != ERR_OK && err != ERR_AGAIN)
        trouble(s, &why);
    return err == ERR_OK;
}

static uint32_t
addresses_take(struct hotstage *s, int64_t timeout_us)
{
    const struct ruleset *rules = ruleset_take(s->rules);
    struct kafka_message message;
    uint32_t n = 0;

    while (n < MESSAGES_MAX && !s->failed &&
           message_next(s, s->addresses, n == 0 ? timeout_us : 0, &message)) {
        clicks_take(s, ruleset_limits(rules), &message);
        n++;
    }
    ruleset_drop(s->rules, rules);
    return n;
}

/* --- click_hot -> fraud_hot --- */

static uint32_t
heard_take(struct hotstage *s)
{
    struct kafka_message message;
    uint32_t n = 0, count;

    while (n < MESSAGES_MAX && !s->failed &&
           message_next(s, s->heard, 0, &message)) {
        n++;
        if (!hotwire_notices_read(message.value, &count)) {
            metric_add(s->refused, 1);
            continue;
        }
        for (uint32_t i = 0; i < count; i++) {
            struct hotwire_notice notice = hotwire_notice_at(message.value, i);

            fraud_hot_add(s->hot, notice.address_key, notice.event_ms,
                          notice.reasons);
        }
    }
    return n;
}

/* --- the thread --- */

static void
producers_poll(struct hotstage *s)
{
    struct why why;

    if (kafka_poll(s->to_addresses, 0, &why) != ERR_OK ||
        kafka_poll(s->to_hot, 0, &why) != ERR_OK)
        trouble(s, &why);
}

static void *
run(void *arg)
{
    struct hotstage *s = arg;
    uint32_t took = 0;

    while (!atomic_load_explicit(&s->stop, memory_order_acquire)) {
        bool ready = clients_ready(s);

        owners_look(s);
        for (uint32_t i = 0; i < s->lanes_n; i++)
            lane_send(s, &s->lanes[i]);
        if (!ready) {
            clock_sleep_us(IDLE_US);
            continue;
        }
        took = addresses_take(s, took > 0 ? 0 : IDLE_US);
        took += heard_take(s);
        notices_send(s);
        producers_poll(s);
    }
    return NULL;
}

/* --- start and stop --- */

static void
metrics_declare(struct hotstage *s)
{
    s->hot_total =
        metric_counter("clickledger_hot_addresses_total", NULL,
                       "addresses found past a limit over all processes");
    s->dropped = metric_counter("clickledger_hot_clicks_dropped_total", NULL,
                                "clicks that the address stage did not get");
    s->refused = metric_counter("clickledger_hot_messages_refused_total", NULL,
                                "messages of the address stage that are none");
}

static enum err
memory_take(struct hotstage *s, struct why *why)
{
    size_t cells = (size_t)s->partitions * s->partitions;
    bool whole;

    s->message = BUF_MAX(KAFKA_MESSAGE_MAX);
    s->bases = calloc(cells, sizeof(*s->bases));
    s->starts = calloc(cells + 1, sizeof(*s->starts));
    s->order = calloc(LANE_MAX, sizeof(*s->order));
    s->lanes = calloc(s->lanes_n, sizeof(*s->lanes));
    whole = s->bases != NULL && s->starts != NULL && s->order != NULL &&
            s->lanes != NULL;
    for (uint32_t i = 0; whole && i < s->lanes_n; i++)
        whole = lane_open(&s->lanes[i]);
    if (!whole)
        return err_set(why, ERR_NOMEM,
                       "aggregate: no memory for the address stage");
    return fraud_addresses_open(
        &s->counts, (size_t)s->config->fraud_live_addresses_max, 1, why);
}

enum err
hotstage_start(struct hotstage **out, const struct config *config,
               struct clicklog *log, struct ruleset_source *rules,
               struct fraud_hot *hot, uint32_t lanes, struct why *why)
{
    struct hotstage *s = calloc(1, sizeof(*s));
    enum err err;

    *out = NULL;
    if (s == NULL)
        return err_set(why, ERR_NOMEM, "aggregate: no memory");
    s->config = config;
    s->log = log;
    s->rules = rules;
    s->hot = hot;
    s->lanes_n = lanes;
    s->partitions = clicklog_partitions(log);
    atomic_init(&s->all_ours, true);
    metrics_declare(s);
    err = memory_take(s, why);
    if (err == ERR_OK && pthread_create(&s->thread, NULL, run, s) != 0)
        err = err_set(why, ERR_FATAL, "aggregate: no thread");
    s->started = err == ERR_OK;
    *out = s;
    if (err != ERR_OK)
        hotstage_stop(out);
    return err;
}

void
hotstage_stop(struct hotstage **stage)
{
    struct hotstage *s = *stage;

    if (s == NULL)
        return;
    if (s->started) {
        atomic_store_explicit(&s->stop, true, memory_order_release);
        (void)pthread_join(s->thread, NULL);
    }
    clients_close(s);
    for (uint32_t i = 0; s->lanes != NULL && i < s->lanes_n; i++)
        lane_close(&s->lanes[i]);
    fraud_addresses_close(&s->counts);
    free(s->lanes);
    free(s->bases);
    free(s->starts);
    free(s->order);
    buf_free(&s->message);
    free(s);
    *stage = NULL;
}

void
hotstage_add(struct hotstage *s, uint32_t lane, uint32_t partition, uint64_t offset,
             uint64_t address_key, int64_t event_ms, int64_t received_us)
{
    if (atomic_load_explicit(&s->all_ours, memory_order_relaxed))
        return;
    if (!lane_add(
            &s->lanes[lane],
            (struct lane_click){.address_key = address_key,
                                .event_ms = event_ms,
                                .offset = offset,
                                .received_ms = (uint64_t)(received_us / 1000) &
                                               UINT64_C(0xffffffffffff),
                                .partition = (uint16_t)partition}))
        metric_add(s->dropped, 1);
}

void
hotstage_send(struct hotstage *s, uint32_t lane)
{
    lane_hand(&s->lanes[lane]);
}

/* tests/ingest/relay_fixture.h - ingest's stage over own_kafka's brokers: topics of a prefix
 * of their own, and all that Kafka has, held against all that the spool has.
 */
#ifndef TESTS_INGEST_RELAY_FIXTURE_H
#define TESTS_INGEST_RELAY_FIXTURE_H

#include "tests/ingest/ingest_fixture.h"

#include "common/file.h"
#include "common/kafka.h"
#include "ingest/relay_impl.h"
#include "schema/topics.h"
#include "tests/common/own_kafka.h"

enum { P = 4, ACK_MS = 1500, INCARNATIONS_MAX = 16, WAIT_S = 90 };

/* --- the stages --- */

struct world {
    struct fixture *f;
    struct control *control;
    struct relay *relay;
    char dir[FILE_PATH_MAX];
};

static inline void
text_set(char **text, const char *value)
{
    free(*text);
    *text = strdup(value);
    assert_non_null(*text);
}

#define MUST(call)                                                    \
    do {                                                              \
        struct why why_ = {{0}}, *why = &why_;                        \
        enum err err_ = (call);                                       \
        if (err_ != ERR_OK)                                           \
            fail_msg("%s: %s: %s", #call, err_name(err_), why_.text); \
    } while (0)

static inline void
relay_begin(struct world *w)
{
    MUST(relay_start(&w->relay, &w->f->config, w->f->log, w->control, w->dir, why));
}

static inline int
world_make(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct buf report = BUF_MAX(1 << 16);
    struct config *config;
    char prefix[32];

    (void)setup((void **)&w->f);
    ingest_stop(&w->f->ingest);
    config = &w->f->config;
    (void)snprintf(prefix, sizeof(prefix), "r%016llx_",
                   (unsigned long long)hash_random_u64());
    text_set(&config->kafka_brokers, own_kafka.brokers);
    text_set(&config->kafka_topic_prefix, prefix);
    config->clicklog_partitions = P;
    config->kafka_replication = config->kafka_min_insync = 1;
    config->kafka_delivery_ms_max = 2000;
    config->ingest_ack_ms_max = ACK_MS;
    config->ingest_rate_clicks_per_s = config->ingest_rate_burst_clicks = 1000000;
    MUST(topics_create(config, &report, why));
    buf_free(&report);
    MUST(control_open(&w->control, config, P, why));
    relay_dir(config, w->dir);
    *state = w;
    return 0;
}

static inline int
world_free(void **state)
{
    struct world *w = *state;

    own_kafka_signal(1, SIGCONT); /* whatever the test ended with */
    ingest_stop(&w->f->ingest);
    relay_stop(&w->relay);
    control_close(&w->control);
    (void)teardown((void **)&w->f);
    free(w);
    return 0;
}

/* Clicks straight into the spool, n in groups of up to 1000. */
static inline void
spool_fill(struct world *w, unsigned n)
{
    static uint8_t bodies[1000][256];
    struct clicklog_entry *entries = calloc(1000, sizeof(*entries));

    for (unsigned done = 0; done < n;) {
        unsigned count = n - done < 1000 ? n - done : 1000;

        for (unsigned i = 0; i < count; i++) {
            char campaign[16];
            struct click click = {.account = 1, .timestamp_ms = 1};
            size_t size;

            (void)snprintf(campaign, sizeof(campaign), "c%u", (done + i) % 50);
            click.remote = click.ip = STR("\1\2\3\4");
            click.campaign_id = str_of(campaign);
            click.ad_id = click.publisher_id = click.user_id = STR("x");
            size = click_encode_body(&click, bodies[i]);
            entries[i] = (struct clicklog_entry){
                .account = 1,
                .campaign = STR("c"),
                .partition = hash_partition(campaign, strlen(campaign), P),
                .version = CLICK_VERSION,
                .body = {(const char *)bodies[i], (uint32_t)size}};
        }
        MUST(clicklog_append(w->f->log, entries, count, clock_now_us(), NULL, why));
        done += count;
    }
    free(entries);
}

static inline void
cursor_await(struct world *w)
{
    int64_t until_us = clock_mono_us() + WAIT_S * CLOCK_SECOND_US;
    struct relay_cursor *cursor;

    MUST(relay_cursor_open(&cursor, w->dir, w->f->log, why));
    for (uint32_t p = 0; p < P; p++) {
        uint64_t first, next;

        MUST(clicklog_range(w->f->log, p, &first, &next, why));
        while (relay_cursor_get(cursor, p) < next) {
            assert_true(clock_mono_us() < until_us);
            clock_sleep_us(5000);
        }
    }
    relay_cursor_close(&cursor);
}

/* --- what Kafka has --- */

struct heard {
    uint64_t accepted[P], repeats;
    uint64_t incarnation[INCARNATIONS_MAX]; /* in the order of their coming */
    uint64_t next[INCARNATIONS_MAX][P];
    int64_t received_us[P];
    uint8_t seen[IDS_MAX]; /* by the number in the event id */
};

static inline void
message_take(struct heard *h, const struct kafka_message *m)
{
    struct str record;
    struct click click;
    uint32_t id;
    size_t used;
    int i = 0;

    assert_true(wire_read(m->value, &id, &record));
    MUST(click_decode(&click, (const uint8_t *)record.p, record.n, id, &used, why));
    assert_int_equal(click.partition, m->partition);
    assert_true(str_equal(m->key, click.campaign_id));
    assert_int_equal(m->timestamp_ms, click.received_us / 1000);
    while (i < INCARNATIONS_MAX && h->incarnation[i] != 0 &&
           h->incarnation[i] != click.incarnation)
        i++;
    assert_true(i < INCARNATIONS_MAX);
    h->incarnation[i] = click.incarnation;
    if (click.seq < h->next[i][m->partition]) {
        h->repeats++;
        return;
    }
    assert_int_equal(click.seq, h->next[i][m->partition]); /* no gap */
    h->next[i][m->partition]++;
    assert_true(click.received_us >= h->received_us[m->partition]);
    h->received_us[m->partition] = click.received_us;
    h->accepted[m->partition]++;
    char text[UUID_TEXT_SIZE];
    (void)uuid_format(click.event_id, text);
    h->seen[strtoul(text + 24, NULL, 16) % IDS_MAX]++;
}

/* All of the topic. */
static inline struct heard *
kafka_take(struct world *w)
{
    struct heard *h = calloc(1, sizeof(*h));
    struct kafka_consumer *consumer;
    char topic[KAFKA_NAME_MAX + 1];
    uint64_t left = 0, first, next;

    kafka_topic_name(&w->f->config, "raw_clicks", topic);
    MUST(kafka_consumer_open(&consumer, &w->f->config, topic, "test", why));
    for (int32_t p = 0; p < P; p++) {
        MUST(kafka_consumer_range(consumer, p, &first, &next, why));
        left += next - first;
        MUST(kafka_consumer_follow(consumer, p, first, why));
    }
    while (left > 0) {
        struct kafka_message m;

        MUST(kafka_consumer_next(consumer, 20 * CLOCK_SECOND_US, &m, why));
        message_take(h, &m);
        left--;
    }
    kafka_consumer_close(&consumer);
    return h;
}

/* All of the topic, which must be all of the spool. */
static inline struct heard *
kafka_hear(struct world *w)
{
    struct heard *h = kafka_take(w);
    uint64_t first, next;

    for (uint32_t p = 0; p < P; p++) {
        MUST(clicklog_range(w->f->log, p, &first, &next, why));
        assert_int_equal(h->accepted[p], next);
    }
    return h;
}

#endif

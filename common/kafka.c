#include "common/kafka.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/file.h"
#include "common/hash.h"
#include "common/kafka_impl.h"

enum { PREFIX_MAX = 200, KEY_MAX = 128, BROKER_SHOWN_MAX = 60 };

/* --- errors --- */

static const struct {
    rd_kafka_resp_err_t code;
    enum err err;
} codes[] = {
    {RD_KAFKA_RESP_ERR__TRANSPORT, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR__TIMED_OUT, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR__MSG_TIMED_OUT, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR__RESOLVE, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR__WAIT_COORD, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR__IN_PROGRESS, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR__PREV_IN_PROGRESS, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR__DESTROY, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR__PURGE_QUEUE, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR__PURGE_INFLIGHT, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR__RETRY, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR__STATE, ERR_AGAIN},
    /* of a producer: the next one begins anew */
    {RD_KAFKA_RESP_ERR__FATAL, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR__FENCED, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR_NOT_COORDINATOR, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR_NOT_CONTROLLER, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID, ERR_AGAIN},
    {RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, ERR_NOTFOUND},
    {RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC, ERR_NOTFOUND},
    {RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION, ERR_NOTFOUND},
    {RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE, ERR_NOTFOUND},
    {RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET, ERR_NOTFOUND},
    {RD_KAFKA_RESP_ERR__NO_OFFSET, ERR_NOTFOUND},
    {RD_KAFKA_RESP_ERR__QUEUE_FULL, ERR_FULL},
    {RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS, ERR_CONFLICT},
    {RD_KAFKA_RESP_ERR__INVALID_ARG, ERR_INVALID},
    {RD_KAFKA_RESP_ERR__CONFLICT, ERR_INVALID},
    {RD_KAFKA_RESP_ERR_INVALID_PARTITIONS, ERR_INVALID},
    {RD_KAFKA_RESP_ERR_INVALID_REPLICATION_FACTOR, ERR_INVALID},
    {RD_KAFKA_RESP_ERR_INVALID_CONFIG, ERR_INVALID},
    {RD_KAFKA_RESP_ERR_POLICY_VIOLATION, ERR_INVALID},
    {RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION, ERR_INVALID},
    {RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, ERR_INVALID},
};

enum err
kafka_code(rd_kafka_resp_err_t code)
{
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
        return ERR_OK;
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        if (codes[i].code == code)
            return codes[i].err;
    return ERR_FATAL;
}

enum err
kafka_error(rd_kafka_resp_err_t code, const char *what, const char *doing,
            struct why *why)
{
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
        return ERR_OK;
    return err_set(why, kafka_code(code), "kafka: %s: %s: %s", what, doing,
                   rd_kafka_err2str(code));
}

/* --- settings --- */

/* What the file may not say, and what says it instead. */
static const struct kafka_setting refused[] = {
    {"bootstrap.servers", "kafka.brokers"},
    {"metadata.broker.list", "kafka.brokers"},
    {"group.id", "kafka.group"},
    {"group.instance.id", "kafka.instance_id"},
    {"session.timeout.ms", "kafka.session_ms"},
    {"message.timeout.ms", "kafka.delivery_ms_max"},
    {"delivery.timeout.ms", "kafka.delivery_ms_max"},
    {"enable.idempotence", NULL},
    {"acks", NULL},
    {"request.required.acks", NULL},
    {"transactional.id", NULL},
    {"enable.auto.commit", NULL},
    {"enable.auto.offset.store", NULL},
    {"auto.commit.enable", NULL},
    {"auto.offset.reset", NULL},
    {"partition.assignment.strategy", NULL},
    {"max.in.flight", NULL},
    {"max.in.flight.requests.per.connection", NULL},
    {"message.max.bytes", NULL},
};

static enum err
file_may_say(const char *path, unsigned line, const char *key, struct why *why)
{
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        if (strcmp(refused[i].key, key) != 0)
            continue;
        if (refused[i].value != NULL)
            return err_set(why, ERR_INVALID, "%s:%u: %s: set %s instead", path,
                           line, key, refused[i].value);
        return err_set(why, ERR_INVALID,
                       "%s:%u: %s: not to be set: what we promise rests on it",
                       path, line, key);
    }
    return ERR_OK;
}

static char *
trim(char *text)
{
    size_t n;

    while (*text == ' ' || *text == '\t')
        text++;
    n = strlen(text);
    while (n > 0 &&
           (text[n - 1] == ' ' || text[n - 1] == '\t' || text[n - 1] == '\r'))
        text[--n] = '\0';
    return text;
}

/* One line of the file, without its end. librdkafka's own words would show the value. */
static enum err
file_line(rd_kafka_conf_t *conf, const char *path, unsigned line, char *text,
          struct why *why)
{
    char unused[512], *key = trim(text), *equals = strchr(key, '=');
    rd_kafka_conf_res_t res;
    enum err err;

    if (*key == '\0' || *key == '#')
        return ERR_OK;
    if (equals == NULL)
        return err_set(why, ERR_INVALID, "%s:%u: not key=value", path, line);
    *equals = '\0';
    key = trim(key);
    if (*key == '\0' || strlen(key) > KEY_MAX)
        return err_set(why, ERR_INVALID, "%s:%u: no key before =", path, line);
    err = file_may_say(path, line, key, why);
    if (err != ERR_OK)
        return err;
    res = rd_kafka_conf_set(conf, key, trim(equals + 1), unused, sizeof(unused));
    if (res == RD_KAFKA_CONF_UNKNOWN)
        return err_set(why, ERR_INVALID,
                       "%s:%u: %s: not a property of librdkafka %s", path, line,
                       key, rd_kafka_version_str());
    if (res != RD_KAFKA_CONF_OK)
        return err_set(why, ERR_INVALID,
                       "%s:%u: %s: its value is not one of those allowed", path,
                       line, key);
    return ERR_OK;
}

static enum err
file_apply(rd_kafka_conf_t *conf, const char *path, struct why *why)
{
    struct buf buf = BUF_MAX(KAFKA_PROPERTIES_MAX);
    enum err err = file_read(path, &buf, why);
    unsigned line = 1;
    char *p, *end;

    if (err == ERR_OK && buf.n > 0 && memchr(buf.p, 0, buf.n) != NULL)
        err = err_set(why, ERR_INVALID, "%s: not a text file", path);
    buf_add(&buf, "", 1);
    if (err == ERR_OK && buf.failed)
        err = err_set(why, ERR_INVALID, "%s: longer than %d bytes", path,
                      KAFKA_PROPERTIES_MAX - 1);
    for (p = (char *)buf.p; err == ERR_OK && p != NULL; p = end, line++) {
        end = strchr(p, '\n');
        if (end != NULL)
            *end++ = '\0';
        err = file_line(conf, path, line, p, why);
    }
    buf_free(&buf);
    return err;
}

static enum err
own_apply(rd_kafka_conf_t *conf, const struct kafka_setting *own, size_t n,
          struct why *why)
{
    char text[160];

    for (size_t i = 0; i < n; i++)
        if (rd_kafka_conf_set(conf, own[i].key, own[i].value, text, sizeof(text)) !=
            RD_KAFKA_CONF_OK)
            return err_set(why, ERR_INVALID, "kafka: %s", text);
    return ERR_OK;
}

static enum err
prefix_valid(const char *prefix, struct why *why)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz"
                                  "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

    if (prefix[strspn(prefix, allowed)] != '\0' || strlen(prefix) > PREFIX_MAX)
        return err_set(why, ERR_INVALID,
                       "kafka.topic_prefix: up to %d letters, digits, . _ -",
                       PREFIX_MAX);
    return ERR_OK;
}

/* One of kafka.brokers: [protocol://]host[:port]; an IPv6 address stands in brackets. */
static enum err
broker_valid(const char *p, size_t n, struct why *why)
{
    const char *colon = NULL;
    int64_t port = 0;

    for (size_t i = 0; i < n; i++)
        if (p[i] == ':' && !(i + 1 < n && p[i + 1] == '/'))
            colon = p + i;
        else if (p[i] == ']')
            colon = NULL;
    for (const char *c = colon; c != NULL && ++c < p + n;)
        port =
            *c < '0' || *c > '9' || port > UINT16_MAX ? -1 : port * 10 + *c - '0';
    if (n == 0 || colon == p || memchr(p, ' ', n) != NULL ||
        memchr(p, ';', n) != NULL ||
        (colon != NULL && (port < 1 || port > UINT16_MAX)))
        return err_set(why, ERR_INVALID,
                       "kafka.brokers has \"%.*s\"; allowed is host:port, by comma",
                       n < BROKER_SHOWN_MAX ? (int)n : BROKER_SHOWN_MAX, p);
    return ERR_OK;
}

enum err
kafka_settings_check(const struct config *config, struct why *why)
{
    struct kafka_watch watch;
    rd_kafka_conf_t *conf;
    enum err err = ERR_OK;

    if (!kafka_wanted(config))
        return ERR_OK;
    for (const char *p = config->kafka_brokers; p != NULL && err == ERR_OK;) {
        size_t n = strcspn(p, ",");

        err = broker_valid(p, n, why);
        p = p[n] == ',' ? p + n + 1 : NULL;
    }
    if (err == ERR_OK)
        err = kafka_conf(&conf, config, "check", &watch, NULL, 0, why);
    if (err == ERR_OK)
        rd_kafka_conf_destroy(conf);
    return err;
}

enum err
kafka_conf(rd_kafka_conf_t **out, const struct config *config, const char *name,
           struct kafka_watch *watch, const struct kafka_setting *own, size_t n,
           struct why *why)
{
    const struct kafka_setting base[] = {
        {"bootstrap.servers", config->kafka_brokers},
        {"client.id", watch->name},
        {"log.connection.close", "false"},
        {"socket.keepalive.enable", "true"},
        {"reconnect.backoff.ms", "50"},
        {"reconnect.backoff.max.ms", "1000"},
        {"allow.auto.create.topics", "false"},
        {"broker.address.family", "any"},
    };
    rd_kafka_conf_t *conf;
    enum err err = prefix_valid(config->kafka_topic_prefix, why);

    *out = NULL;
    if (err != ERR_OK)
        return err;
    if (!kafka_wanted(config))
        return err_set(why, ERR_INVALID, "kafka.brokers: not set");
    conf = rd_kafka_conf_new();
    kafka_watch_begin(watch, name, conf);
    err = own_apply(conf, base, sizeof(base) / sizeof(base[0]), why);
    if (err == ERR_OK)
        err = own_apply(conf, own, n, why);
    if (err == ERR_OK && config->kafka_properties_file[0] != '\0')
        err = file_apply(conf, config->kafka_properties_file, why);
    if (err != ERR_OK) {
        rd_kafka_conf_destroy(conf);
        return err;
    }
    *out = conf;
    return ERR_OK;
}

enum err
kafka_new(rd_kafka_t **out, rd_kafka_type_t type, rd_kafka_conf_t *conf,
          struct why *why)
{
    char text[200];

    *out = rd_kafka_new(type, conf, text, sizeof(text));
    if (*out != NULL)
        return ERR_OK;
    rd_kafka_conf_destroy(conf);
    return err_set(why, ERR_INVALID, "kafka: %s", text);
}

enum err
kafka_asker(rd_kafka_t **out, const struct config *config,
            struct kafka_watch *watch, struct why *why)
{
    rd_kafka_conf_t *conf;
    enum err err = kafka_conf(&conf, config, "ask", watch, NULL, 0, why);

    *out = NULL;
    kafka_watch_quiet(watch, true);
    return err != ERR_OK ? err : kafka_new(out, RD_KAFKA_PRODUCER, conf, why);
}

/* --- names --- */

bool
kafka_wanted(const struct config *config)
{
    return config->kafka_brokers != NULL && config->kafka_brokers[0] != '\0';
}

void
kafka_topic_name(const struct config *config, const char *name,
                 char out[KAFKA_NAME_MAX + 1])
{
    (void)snprintf(out, KAFKA_NAME_MAX + 1, "%s%s", config->kafka_topic_prefix,
                   name);
}

enum err
kafka_log_id(const struct config *config, const char *topic, uint64_t *out,
             struct why *why)
{
    struct kafka_watch watch;
    rd_kafka_t *rk;
    enum err err = kafka_asker(&rk, config, &watch, why);
    char *id;

    if (err != ERR_OK)
        return err;
    id = rd_kafka_clusterid(rk, KAFKA_ASK_MS);
    if (id == NULL)
        err = kafka_watch_error(RD_KAFKA_RESP_ERR__TIMED_OUT, &watch,
                                config->kafka_brokers, "no broker answers", why);
    else
        *out = hash64(topic, strlen(topic), hash64(id, strlen(id), 0));
    if (id != NULL)
        rd_kafka_mem_free(rk, id);
    rd_kafka_destroy(rk);
    return err;
}

/* librdkafka's log. The relay throws a producer away every few seconds while the brokers are
 * away: what was told is kept by name, not by handle. */
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/kafka_impl.h"
#include "common/log.h"

enum { LEVEL_WARNING = 4 };

struct kafka_kind {
    char name[KAFKA_TEXT_SIZE];
    atomic_bool trouble; /* there is something to take back */
    int64_t said_us;     /* 0: never */
    int64_t loads_us;    /* since when the coordinator loads; 0: it does not */
    bool away;           /* told, and not taken back */
    unsigned unsaid;     /* lines since then */
};

/* Of the process, as its log is. Entries are filled once and never freed. */
static struct {
    pthread_mutex_t mutex; /* guards all but trouble */
    struct kafka_kind of[KAFKA_KINDS_MAX];
} kinds = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static struct kafka_kind *
kind_of(const char *name)
{
    size_t i = 0;

    (void)pthread_mutex_lock(&kinds.mutex);
    while (i < KAFKA_KINDS_MAX - 1 && kinds.of[i].name[0] != '\0' &&
           strcmp(kinds.of[i].name, name) != 0)
        i++;
    if (kinds.of[i].name[0] == '\0')
        (void)snprintf(kinds.of[i].name, sizeof(kinds.of[i].name), "%s", name);
    (void)pthread_mutex_unlock(&kinds.mutex);
    return &kinds.of[i];
}

void
kafka_watch_ok(struct kafka_watch *watch)
{
    struct kafka_kind *kind = watch->kind;
    bool back;

    if (!atomic_load_explicit(&kind->trouble, memory_order_relaxed))
        return;
    (void)pthread_mutex_lock(&kinds.mutex);
    atomic_store(&kind->trouble, false);
    back = kind->away;
    kind->away = false;
    kind->loads_us = 0;
    (void)pthread_mutex_unlock(&kinds.mutex);
    if (back)
        log_event(LOG_INFO, "kafka_back", LOG_TEXT("client", watch->name));
}

void
kafka_watch_quiet(struct kafka_watch *watch, bool quiet)
{
    atomic_store(&watch->quiet, quiet);
}

/* "[thrd:...]: broker: words": the words, kept for kafka_watch_error. */
static void
watch_keep(struct kafka_watch *watch, const char *text)
{
    const char *words =
        strncmp(text, "[thrd:", 6) == 0 ? strstr(text, "]: ") : NULL;

    (void)pthread_mutex_lock(&watch->mutex);
    (void)snprintf(watch->last, sizeof(watch->last), "%s",
                   words == NULL ? text : words + 3);
    (void)pthread_mutex_unlock(&watch->mutex);
}

enum err
kafka_watch_error(rd_kafka_resp_err_t code, struct kafka_watch *watch,
                  const char *what, const char *doing, struct why *why)
{
    char last[KAFKA_LAST_SIZE];

    (void)pthread_mutex_lock(&watch->mutex);
    memcpy(last, watch->last, sizeof(last));
    (void)pthread_mutex_unlock(&watch->mutex);
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR || last[0] == '\0')
        return kafka_error(code, what, doing, why);
    return err_set(why, kafka_code(code), "kafka: %s: %s: %s (%s)", what, doing,
                   rd_kafka_err2str(code), last);
}

/* A producer asks for its number again until the coordinator of transactions has loaded. */
static bool
coordinator_loads(const char *text)
{
    return strstr(text, "idempotence PID") != NULL &&
           strstr(text, "Coordinator") != NULL;
}

/* Whether to tell now; *unsaid gets how many lines were not told before. */
static bool
trouble_tell(struct kafka_kind *kind, bool loads, int64_t now_us, unsigned *unsaid)
{
    int64_t again_us;
    bool tell;

    (void)pthread_mutex_lock(&kinds.mutex);
    atomic_store(&kind->trouble, true);
    if (loads && kind->loads_us == 0)
        kind->loads_us = now_us;
    again_us = kind->away ? KAFKA_SAID_AGAIN_US : KAFKA_SAID_US;
    tell = (kind->said_us == 0 || now_us - kind->said_us >= again_us) &&
           !(loads && now_us - kind->loads_us < KAFKA_LOADS_US);
    if (tell) {
        *unsaid = kind->unsaid;
        kind->unsaid = 0;
        kind->said_us = now_us;
        kind->away = true;
    } else if (!loads)
        kind->unsaid++;
    (void)pthread_mutex_unlock(&kinds.mutex);
    return tell;
}

static void
watch_trouble(struct kafka_watch *watch, const char *what, const char *text,
              int64_t now_us)
{
    unsigned unsaid = 0;

    if (strcmp(what, "FAIL") == 0) /* the others are consequences */
        watch_keep(watch, text);
    if (atomic_load(&watch->quiet) ||
        !trouble_tell(watch->kind, coordinator_loads(text), now_us, &unsaid))
        return;
    log_event(LOG_WARN, "kafka_trouble", LOG_TEXT("client", watch->name),
              LOG_TEXT("what", what), LOG_TEXT("text", text),
              LOG_NUMBER("unsaid", unsaid));
}

void
kafka_watch_line(struct kafka_watch *watch, int level, const char *what,
                 const char *text, int64_t now_us)
{
    if (strcmp(what, "CONFWARN") == 0) /* a consumer's setting in a producer */
        return;
    if (level <= LEVEL_WARNING && watch != NULL)
        watch_trouble(watch, what, text, now_us);
    else
        log_event(level <= LEVEL_WARNING ? LOG_WARN : LOG_DEBUG, "kafka",
                  LOG_TEXT("what", what), LOG_TEXT("text", text));
}

static void
log_line(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    kafka_watch_line(rk == NULL ? NULL : rd_kafka_opaque(rk), level, facility, text,
                     clock_mono_us());
}

/* Without this callback librdkafka prints errors in its own form. */
static void
error_line(rd_kafka_t *rk, int code, const char *text, void *opaque)
{
    (void)rk;
    watch_trouble(opaque, rd_kafka_err2name((rd_kafka_resp_err_t)code), text,
                  clock_mono_us());
}

void
kafka_watch_begin(struct kafka_watch *watch, const char *name,
                  rd_kafka_conf_t *conf)
{
    memset(watch, 0, sizeof(*watch));
    watch->mutex = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    (void)snprintf(watch->name, sizeof(watch->name), "clickledger-%s", name);
    watch->kind = kind_of(watch->name);
    rd_kafka_conf_set_opaque(conf, watch);
    rd_kafka_conf_set_log_cb(conf, log_line);
    rd_kafka_conf_set_error_cb(conf, error_line);
}

#include "common/control.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/kafka.h"
#include "common/log.h"

enum {
    SPOOLS_MAX = 8,      /* known at once: one, but for a race or a mistake */
    KEY_SIZE = 32,       /* "spool:" and 16 digits */
    VALUE_MAX = 1 << 15, /* 2 x 256 incarnations and counts */
    NEXT_US = 50000,     /* the follower looks at its orders so often */
    AGAIN_US = 500000,   /* after an error */
    SYNC_US = 10000000,  /* of a spool's first word */
    EXACT_BITS = 53,     /* a JSON number beyond is a string */
};

struct known {
    uint64_t id;     /* the key's */
    uint64_t offset; /* of the message that made it known: who was first */
    struct control_spool spool;
};

struct control {
    const struct config *config;
    uint32_t partitions;
    char topic[KAFKA_NAME_MAX + 1];
    pthread_t thread;
    struct kafka_consumer *consumer; /* the thread's */
    bool invalid_said;               /* the thread's */

    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t cond;
    bool stop;
    uint64_t asked, done; /* control_sync's tickets */
    struct why trouble;   /* the follower's last */
    struct known known[SPOOLS_MAX];
    size_t known_n;
    struct clicklog_last archived[CLICKLOG_PARTITIONS_MAX];

    pthread_mutex_t putting; /* guards these two; never taken inside mutex */
    struct kafka_producer *producer;
    uint64_t
        admitted; /* this spool's first word is in the topic, and no other's before */
    bool any_admitted;
};

/* --- JSON --- */

static void
lasts_add(struct buf *out, const char *name, const struct clicklog_last *lasts,
          uint32_t n)
{
    buf_printf(out, "\"%s\":[", name);
    for (uint32_t i = 0; i < n; i++) {
        const char *quote = lasts[i].count >> EXACT_BITS == 0 ? "" : "\"";

        buf_printf(out, "%s[\"%016" PRIx64 "\",%s%" PRIu64 "%s]", i == 0 ? "" : ",",
                   lasts[i].incarnation, quote, lasts[i].count, quote);
    }
    buf_add_text(out, "]");
}

static bool
text_take(const cJSON *item, int base, uint64_t *out)
{
    char *end;

    if (!cJSON_IsString(item) || item->valuestring[0] == '\0' ||
        item->valuestring[0] == '-')
        return false;
    errno = 0;
    *out = strtoull(item->valuestring, &end, base);
    return errno == 0 && *end == '\0';
}

static bool
number_take(const cJSON *item, uint64_t *out)
{
    if (!cJSON_IsNumber(item))
        return text_take(item, 10, out);
    if (!(item->valuedouble >= 0) ||
        item->valuedouble > (double)(UINT64_C(1) << EXACT_BITS))
        return false;
    *out = (uint64_t)item->valuedouble;
    return true;
}

static bool
lasts_take(const cJSON *object, const char *name, struct clicklog_last *out,
           uint32_t n)
{
    const cJSON *array = cJSON_GetObjectItemCaseSensitive(object, name), *item;
    uint32_t i = 0;

    if (!cJSON_IsArray(array) || cJSON_GetArraySize(array) != (int)n)
        return false;
    cJSON_ArrayForEach(item, array)
    {
        if (!cJSON_IsArray(item) || cJSON_GetArraySize(item) != 2 ||
            !text_take(cJSON_GetArrayItem(item, 0), 16, &out[i].incarnation) ||
            !number_take(cJSON_GetArrayItem(item, 1), &out[i].count) ||
            (out[i].incarnation == 0) != (out[i].count == 0))
            return false;
        i++;
    }
    return true;
}

static bool
spool_take(const cJSON *object, uint32_t partitions, struct control_spool *out)
{
    const cJSON *closed = cJSON_GetObjectItemCaseSensitive(object, "closed");
    uint64_t floor_us;

    if (!cJSON_IsBool(closed) ||
        !text_take(cJSON_GetObjectItemCaseSensitive(object, "incarnation"), 16,
                   &out->mark.incarnation) ||
        !number_take(cJSON_GetObjectItemCaseSensitive(object, "floor_us"),
                     &floor_us) ||
        floor_us > INT64_MAX ||
        !lasts_take(object, "last", out->mark.last, partitions) ||
        !lasts_take(object, "before", out->mark.before, partitions))
        return false;
    out->mark.floor_us = (int64_t)floor_us;
    out->closed = cJSON_IsTrue(closed);
    return true;
}

/* --- what the topic says --- */

static bool
key_spool(struct str key, uint64_t *id)
{
    char text[17], *end;

    if (key.n != 6 + 16 || memcmp(key.p, "spool:", 6) != 0)
        return false;
    memcpy(text, key.p + 6, 16);
    text[16] = '\0';
    if (strspn(text, "0123456789abcdef") != 16)
        return false;
    *id = strtoull(text, &end, 16);
    return true;
}

static void
known_set(struct control *control, uint64_t id, uint64_t offset,
          const struct control_spool *spool)
{
    size_t i = 0;

    while (i < control->known_n && control->known[i].id != id)
        i++;
    if (i == SPOOLS_MAX) {
        log_event(LOG_ERROR, "control_spools", LOG_TEXT("topic", control->topic),
                  LOG_NUMBER("known", SPOOLS_MAX));
        return;
    }
    if (i == control->known_n)
        control->known[control->known_n++] =
            (struct known){.id = id, .offset = offset};
    control->known[i].spool = *spool;
    control->known[i].spool.spool_id = control->known[i].spool.mark.spool_id = id;
}

static void
known_forget(struct control *control, uint64_t id)
{
    for (size_t i = 0; i < control->known_n; i++)
        if (control->known[i].id == id) {
            control->known_n--;
            memmove(&control->known[i], &control->known[i + 1],
                    (control->known_n - i) * sizeof(control->known[0]));
            return;
        }
}

/* False: it is not what we write. */
static bool
apply(struct control *control, const struct kafka_message *message)
{
    bool archive = str_equal(message->key, STR("archive")), ok = false;
    struct clicklog_last archived[CLICKLOG_PARTITIONS_MAX] = {{0, 0}};
    struct control_spool spool = {0};
    uint64_t id = 0;
    cJSON *object;

    if (!archive && !key_spool(message->key, &id))
        return false;
    object = cJSON_ParseWithLength(message->value.p, message->value.n);
    if (archive)
        ok = message->value.n == 0 ||
             lasts_take(object, "last", archived, control->partitions);
    else
        ok = message->value.n == 0 ||
             spool_take(object, control->partitions, &spool);
    cJSON_Delete(object);
    if (!ok)
        return false;
    (void)pthread_mutex_lock(&control->mutex);
    if (archive)
        memcpy(control->archived, archived, sizeof(archived));
    else if (message->value.n == 0)
        known_forget(control, id);
    else
        known_set(control, id, message->offset, &spool);
    (void)pthread_mutex_unlock(&control->mutex);
    return true;
}

/* --- the follower --- */

static void
trouble(struct control *control, const struct why *why)
{
    (void)pthread_mutex_lock(&control->mutex);
    control->trouble = *why;
    (void)pthread_mutex_unlock(&control->mutex);
}

static bool
stopping(struct control *control, uint64_t *asked)
{
    bool stop;

    (void)pthread_mutex_lock(&control->mutex);
    stop = control->stop;
    *asked = control->asked;
    (void)pthread_mutex_unlock(&control->mutex);
    return stop;
}

/* From the first message that is held. */
static enum err
begin(struct control *control, struct why *why)
{
    uint64_t first, next;
    enum err err = ERR_OK;

    if (control->consumer == NULL)
        err = kafka_consumer_open(&control->consumer, control->config,
                                  control->topic, "control", why);
    if (err == ERR_OK)
        err = kafka_consumer_range(control->consumer, 0, &first, &next, why);
    if (err == ERR_OK)
        err = kafka_consumer_follow(control->consumer, 0, first, why);
    return err;
}

static enum err
take_one(struct control *control, struct why *why)
{
    struct kafka_message message;
    enum err err = kafka_consumer_next(control->consumer, NEXT_US, &message, why);

    if (err != ERR_OK)
        return err;
    if (!apply(control, &message) && !control->invalid_said) {
        control->invalid_said = true;
        log_event(LOG_WARN, "control_invalid", LOG_TEXT("topic", control->topic),
                  LOG_NUMBER("offset", message.offset));
    }
    return ERR_OK;
}

/* Answers those who wait in control_sync: the end is asked for after they came. */
static enum err
sync_answer(struct control *control, uint64_t asked, uint64_t *ticket,
            uint64_t *end, struct why *why)
{
    uint64_t first;

    if (*ticket < asked) {
        enum err err = kafka_consumer_range(control->consumer, 0, &first, end, why);

        if (err != ERR_OK)
            return err;
        *ticket = asked;
    }
    if (kafka_consumer_at(control->consumer, 0) < *end)
        return ERR_OK;
    (void)pthread_mutex_lock(&control->mutex);
    control->done = *ticket;
    (void)pthread_cond_broadcast(&control->cond);
    (void)pthread_mutex_unlock(&control->mutex);
    return ERR_OK;
}

static void *
follow(void *arg)
{
    struct control *control = arg;
    uint64_t asked = 0, ticket = 0, end = 0;
    bool begun = false;

    while (!stopping(control, &asked)) {
        struct why why = {""};
        enum err err = begun ? ERR_OK : begin(control, &why);

        begun = begun || err == ERR_OK;
        if (err == ERR_OK && control->done < asked) /* done is set here only */
            err = sync_answer(control, asked, &ticket, &end, &why);
        if (err == ERR_OK) {
            err = take_one(control, &why);
            if (err == ERR_NOTFOUND) /* the topic is another: from its beginning */
                begun = false;
            else if (err == ERR_AGAIN)
                continue;
        }
        if (err != ERR_OK) {
            trouble(control, &why);
            clock_sleep_us(AGAIN_US);
        }
    }
    kafka_consumer_close(&control->consumer);
    return NULL;
}

enum err
control_open(struct control **out, const struct config *config, uint32_t partitions,
             struct why *why)
{
    struct control *control = calloc(1, sizeof(*control));
    pthread_condattr_t attr;

    assert(partitions >= 1 && partitions <= CLICKLOG_PARTITIONS_MAX);
    *out = NULL;
    if (control == NULL)
        return err_set(why, ERR_NOMEM, "control: no memory");
    control->config = config;
    control->partitions = partitions;
    kafka_topic_name(config, "click_control", control->topic);
    if (pthread_mutex_init(&control->mutex, NULL) != 0 ||
        pthread_mutex_init(&control->putting, NULL) != 0 ||
        pthread_condattr_init(&attr) != 0 ||
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) != 0 ||
        pthread_cond_init(&control->cond, &attr) != 0)
        abort();
    (void)pthread_condattr_destroy(&attr);
    if (pthread_create(&control->thread, NULL, follow, control) != 0) {
        (void)pthread_cond_destroy(&control->cond);
        (void)pthread_mutex_destroy(&control->mutex);
        (void)pthread_mutex_destroy(&control->putting);
        free(control);
        return err_set(why, ERR_AGAIN, "control: cannot make a thread");
    }
    *out = control;
    return ERR_OK;
}

void
control_close(struct control **control)
{
    struct control *c = *control;

    if (c == NULL)
        return;
    (void)pthread_mutex_lock(&c->mutex);
    c->stop = true;
    (void)pthread_mutex_unlock(&c->mutex);
    (void)pthread_join(c->thread, NULL);
    kafka_producer_close(&c->producer);
    (void)pthread_cond_destroy(&c->cond);
    (void)pthread_mutex_destroy(&c->mutex);
    (void)pthread_mutex_destroy(&c->putting);
    free(c);
    *control = NULL;
}

enum err
control_sync(struct control *control, int64_t timeout_us, struct why *why)
{
    int64_t until_us = clock_mono_us() + timeout_us;
    struct timespec until = {until_us / CLOCK_SECOND_US,
                             until_us % CLOCK_SECOND_US * 1000};
    enum err err = ERR_OK;
    uint64_t ticket;
    int rc = 0;

    (void)pthread_mutex_lock(&control->mutex);
    control->trouble.text[0] = '\0';
    ticket = ++control->asked;
    while (control->done < ticket && rc == 0)
        rc = pthread_cond_timedwait(&control->cond, &control->mutex, &until);
    if (control->done < ticket)
        err = err_set(
            why, ERR_AGAIN, "%s: not read to its end within %" PRId64 " ms%s%s",
            control->topic, timeout_us / 1000,
            control->trouble.text[0] == '\0' ? "" : ": ", control->trouble.text);
    (void)pthread_mutex_unlock(&control->mutex);
    return err;
}

/* --- saying something --- */

/* value.p NULL: a tombstone. Holds putting. */
static enum err
say(struct control *control, const char *key, struct str value, struct why *why)
{
    struct kafka_item item = {str_of(key), value, clock_now_us() / 1000};
    enum err err = ERR_OK;
    size_t sent = 0;

    if (control->producer == NULL)
        err = kafka_producer_open(&control->producer, control->config,
                                  control->topic, "control", 0, why);
    if (err == ERR_OK)
        err = kafka_send(control->producer, 0, &item, 1, &sent, why);
    if (err == ERR_OK && sent != 1)
        err = err_set(why, ERR_AGAIN, "%s: the queue is full", control->topic);
    if (err == ERR_OK)
        err = kafka_flush(control->producer,
                          control->config->kafka_delivery_ms_max * 1000, why);
    if (err != ERR_OK)
        kafka_producer_close(&control->producer);
    return err;
}

static void
spool_key(uint64_t id, char out[KEY_SIZE])
{
    (void)snprintf(out, KEY_SIZE, "spool:%016" PRIx64, id);
}

/* Another spool that is known, and was before ours. */
static enum err
conflict(struct control *control, uint64_t id, struct why *why)
{
    uint64_t ours = UINT64_MAX, other = 0, first = UINT64_MAX;

    (void)pthread_mutex_lock(&control->mutex);
    for (size_t i = 0; i < control->known_n; i++) {
        const struct known *known = &control->known[i];

        if (known->id == id)
            ours = known->offset;
        else if (known->offset < first) {
            first = known->offset;
            other = known->id;
        }
    }
    (void)pthread_mutex_unlock(&control->mutex);
    if (first >= ours || first == UINT64_MAX)
        return ERR_OK;
    return err_set(why, ERR_CONFLICT,
                   "%s: spool %016" PRIx64 " writes to these topics; if it is gone "
                   "for good: clickledger relay forget %016" PRIx64,
                   control->topic, other, other);
}

static enum err
spool_say(struct control *control, const struct control_spool *spool,
          struct why *why)
{
    struct buf buf = BUF_MAX(VALUE_MAX);
    char key[KEY_SIZE];
    enum err err;

    spool_key(spool->spool_id, key);
    buf_printf(&buf,
               "{\"incarnation\":\"%016" PRIx64 "\",\"floor_us\":%" PRId64 ",",
               spool->mark.incarnation, spool->mark.floor_us);
    lasts_add(&buf, "last", spool->mark.last, control->partitions);
    buf_add_text(&buf, ",");
    lasts_add(&buf, "before", spool->mark.before, control->partitions);
    buf_printf(&buf, ",\"closed\":%s}", spool->closed ? "true" : "false");
    err = buf.failed ? err_set(why, ERR_NOMEM, "control: no memory")
                     : say(control, key,
                           (struct str){(const char *)buf.p, (uint32_t)buf.n}, why);
    buf_free(&buf);
    return err;
}

/* A spool's first word: two that begin at once both see whose came first. */
static enum err
spool_admit(struct control *control, const struct control_spool *spool,
            struct why *why)
{
    char key[KEY_SIZE];
    enum err err = control_sync(control, SYNC_US, why);

    if (err == ERR_OK)
        err = conflict(control, spool->spool_id, why);
    if (err != ERR_OK)
        return err;
    err = spool_say(control, spool, why);
    if (err == ERR_OK)
        err = control_sync(control, SYNC_US, why);
    if (err != ERR_OK)
        return err;
    err = conflict(control, spool->spool_id, why);
    if (err == ERR_OK) {
        control->admitted = spool->spool_id;
        control->any_admitted = true;
    } else {
        spool_key(spool->spool_id, key);
        (void)say(control, key, (struct str){NULL, 0}, NULL);
    }
    return err;
}

enum err
control_spool_put(struct control *control, const struct control_spool *spool,
                  struct why *why)
{
    enum err err;

    assert(spool->mark.floor_us >= 0);
    (void)pthread_mutex_lock(&control->putting);
    if (control->any_admitted && control->admitted == spool->spool_id) {
        err = conflict(control, spool->spool_id, why);
        if (err == ERR_OK)
            err = spool_say(control, spool, why);
    } else
        err = spool_admit(control, spool, why);
    (void)pthread_mutex_unlock(&control->putting);
    return err;
}

enum err
control_spool_get(struct control *control, struct control_spool *out,
                  struct why *why)
{
    const struct known *first = NULL;

    (void)pthread_mutex_lock(&control->mutex);
    for (size_t i = 0; i < control->known_n; i++)
        if (first == NULL || control->known[i].offset < first->offset)
            first = &control->known[i];
    if (first != NULL)
        *out = first->spool;
    (void)pthread_mutex_unlock(&control->mutex);
    if (first == NULL)
        return err_set(why, ERR_NOTFOUND, "%s: no spool has said anything yet",
                       control->topic);
    return ERR_OK;
}

enum err
control_spool_forget(struct control *control, uint64_t spool_id, struct why *why)
{
    char key[KEY_SIZE];
    enum err err;

    spool_key(spool_id, key);
    (void)pthread_mutex_lock(&control->putting);
    if (control->any_admitted && control->admitted == spool_id)
        control->any_admitted = false;
    err = say(control, key, (struct str){NULL, 0}, why);
    (void)pthread_mutex_unlock(&control->putting);
    return err;
}

enum err
control_archived_put(struct control *control, const struct clicklog_last *archived,
                     struct why *why)
{
    struct buf buf = BUF_MAX(VALUE_MAX);
    enum err err;

    buf_add_text(&buf, "{");
    lasts_add(&buf, "last", archived, control->partitions);
    buf_add_text(&buf, "}");
    (void)pthread_mutex_lock(&control->putting);
    err = buf.failed ? err_set(why, ERR_NOMEM, "control: no memory")
                     : say(control, "archive",
                           (struct str){(const char *)buf.p, (uint32_t)buf.n}, why);
    (void)pthread_mutex_unlock(&control->putting);
    buf_free(&buf);
    return err;
}

void
control_archived_get(struct control *control, struct clicklog_last *archived)
{
    (void)pthread_mutex_lock(&control->mutex);
    memcpy(archived, control->archived, control->partitions * sizeof(*archived));
    (void)pthread_mutex_unlock(&control->mutex);
}

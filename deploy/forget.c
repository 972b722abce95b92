#include "deploy/forget.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "billing/close.h"
#include "common/clock.h"
#include "common/control.h"
#include "common/kafka.h"
#include "deploy/session.h"

enum { HEAR_US = 10000000, ID_DIGITS = 16 };

/* What the topic says of the log. */
struct heard {
    bool answers; /* the brokers */
    bool known;
    int64_t quiet_us; /* since its last word */
    bool closed;      /* it stopped in order */
    struct why away;
};

static enum err
id_read(const char *text, uint64_t *id, struct why *why)
{
    char *end = NULL;

    *id = 0;
    if (text != NULL && text[0] != '\0' && strlen(text) <= ID_DIGITS &&
        strspn(text, "0123456789abcdefABCDEF") == strlen(text))
        *id = strtoull(text, &end, 16);
    return *id != 0
               ? ERR_OK
               : err_set(why, ERR_INVALID,
                         "forget: name the log by its 16 hexadecimal digits, as "
                         "`clickledger relay status` there, or the refusal "
                         "here, did");
}

static void
topic_hear(struct control *control, uint64_t id, struct heard *heard)
{
    struct control_spool spool;

    *heard = (struct heard){.answers = false};
    heard->answers = control_sync(control, HEAR_US, &heard->away) == ERR_OK;
    heard->known =
        control_spool_get(control, &spool, NULL) == ERR_OK && spool.spool_id == id;
    if (heard->known) {
        heard->quiet_us = clock_now_us() - spool.mark.floor_us;
        heard->closed = spool.closed;
    }
}

static enum err
life_check(const struct heard *heard, uint64_t id, struct why *why)
{
    if (!heard->known || heard->closed ||
        heard->quiet_us >= RECEIVED_QUIET_S * CLOCK_SECOND_US)
        return ERR_OK;
    return err_set(
        why, ERR_CONFLICT,
        "the log %016" PRIx64 " told the topics %" PRId64
        " s ago how far it is: it is not lost. Stop its process and wait %d "
        "s; or --force, if you know that it is gone for good",
        id, heard->quiet_us / CLOCK_SECOND_US, RECEIVED_QUIET_S);
}

static enum err
database_tell(const struct config *config, uint64_t id, bool known, bool force,
              struct received_lost *lost, struct why *why)
{
    struct session session;
    struct why inner = {{0}};
    enum err err = session_open_database(&session, config, &inner);

    if (err == ERR_OK)
        err = received_lose(session.pg, id, known, force, lost, &inner);
    session_close(&session);
    if (err == ERR_CONFLICT || err == ERR_NOTFOUND)
        return err_set(why, err, "%s", inner.text);
    if (err != ERR_OK)
        return err_set(
            why, err,
            "nothing is done yet, run it again: PostgreSQL does not know "
            "that the log is lost: %.160s",
            inner.text);
    return ERR_OK;
}

static void
outcome_print(uint64_t id, const struct received_lost *lost, bool told, bool json)
{
    if (json)
        printf("{\"spool\":\"%016" PRIx64 "\",\"lost_at\":\"%s\",\"told_until\":"
               "\"%s\",\"kafka_told\":%s}\n",
               id, lost->lost_at, lost->told_to, told ? "true" : "false");
    else
        printf("log %016" PRIx64
               " is given up as lost since %s; it told its counts "
               "until %s, later clicks are counted from the archive\n%s",
               id, lost->lost_at, lost->told_to,
               told ? "the topics are free: another log may take over\n" : "");
}

static enum err
topic_tell(struct control *control, const struct heard *heard, uint64_t id,
           struct why *why)
{
    struct why inner = heard->away;
    enum err err =
        heard->answers ? control_spool_forget(control, id, &inner) : ERR_AGAIN;

    if (err == ERR_OK)
        return ERR_OK;
    return err_set(why, err,
                   "run it again: PostgreSQL knows that the log is lost, but Kafka "
                   "was not told, and no other log can take over: %.140s",
                   inner.text);
}

enum err
spool_forget(const struct config *config, const struct forget *forget,
             struct why *why)
{
    struct control *control = NULL;
    struct received_lost lost;
    struct heard heard;
    uint64_t id;
    enum err err = id_read(forget->spool, &id, why);

    if (err == ERR_OK && !kafka_wanted(config))
        err =
            err_set(why, ERR_INVALID,
                    "kafka.brokers is empty: without Kafka a lost log's clicks are "
                    "lost too, and there is nothing to take over");
    if (err == ERR_OK)
        err = control_open(&control, config, (uint32_t)config->clicklog_partitions,
                           why);
    if (err != ERR_OK)
        return err;
    topic_hear(control, id, &heard);
    if (!forget->force)
        err = life_check(&heard, id, why);
    if (err == ERR_OK)
        err = database_tell(config, id, heard.known, forget->force, &lost, why);
    if (err == ERR_OK) {
        err = topic_tell(control, &heard, id, why);
        outcome_print(id, &lost, err == ERR_OK, forget->json);
    }
    control_close(&control);
    return err;
}

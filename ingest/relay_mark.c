/* How far the spool is, on click_control: a snapshot is taken, and said once the brokers
 * have everything before it. Its own thread, since saying waits for the brokers. */
#include <string.h>

#include "common/log.h"
#include "ingest/relay_impl.h"

static bool
mark_reached(const struct relay *relay, const struct clicklog_mark *mark)
{
    for (uint32_t p = 0; p < relay->partitions; p++)
        if (relay_cursor_get(relay->cursor, p) < mark->next[p])
            return false;
    return true;
}

static bool
mark_same(const struct relay *relay, const struct clicklog_mark *a,
          const struct clicklog_mark *b)
{
    return a->floor_us == b->floor_us && a->incarnation == b->incarnation &&
           memcmp(a->last, b->last, relay->partitions * sizeof(a->last[0])) == 0;
}

static enum err
mark_say(struct relay *relay, const struct clicklog_mark *mark, bool closed)
{
    struct control_spool spool = {
        .spool_id = relay->spool_id,
        .mark = *mark,
        .closed = closed,
    };
    struct why why = {{0}};
    enum err err = control_spool_put(relay->control, &spool, &why);

    if (err == ERR_OK) {
        metric_add(relay->marks, 1);
        relay->said = *mark;
        relay->complained = false;
    } else if (!relay->complained) {
        relay->complained = true;
        log_event(err == ERR_CONFLICT ? LOG_ERROR : LOG_WARN, "relay_mark_failed",
                  LOG_TEXT("error", err_name(err)), LOG_TEXT("why", why.text));
    }
    return err;
}

/* Until the topics are known to be ours; false: stopped before. */
static bool
claim_wait(struct relay *relay)
{
    int64_t again_us = clock_mono_us() + RELAY_CLAIM_AGAIN_US;
    bool told = false;

    while (!atomic_load(&relay->claimed) && !atomic_load(&relay->tell_last)) {
        struct why why = {{0}};
        enum err err;

        clock_sleep_us(RELAY_MARK_POLL_US);
        if (clock_mono_us() < again_us)
            continue;
        err = relay_claim(relay, RELAY_CLAIM_US, &why);
        if (err != ERR_OK && !told)
            log_event(err == ERR_AGAIN ? LOG_WARN : LOG_ERROR, "relay_waits",
                      LOG_TEXT("error", err_name(err)), LOG_TEXT("why", why.text),
                      LOG_TEXT("effect", "nothing is sent; tries again"));
        told = told || err != ERR_OK;
        again_us = clock_mono_us() + RELAY_CLAIM_AGAIN_US;
    }
    return atomic_load(&relay->claimed);
}

/* The spool cannot be set back while it is open: a newer incarnation follows the one that the
 * cursor has been held against. */
static bool
mark_take(struct relay *relay, struct clicklog_mark *mark)
{
    if (clicklog_mark_get(relay->log, mark, NULL) != ERR_OK)
        return false;
    relay_cursor_stamp(relay->cursor, mark->incarnation);
    return true;
}

/* A mark once taken is said before a newer one is taken: it is reached first. Returns when
 * the topics have become another spool's, or at the end. */
static void
marks_say(struct relay *relay)
{
    struct clicklog_mark mark = {0};
    int64_t take_us = 0, say_us = 0;
    bool taken = false;

    while (!atomic_load(&relay->tell_last) && atomic_load(&relay->claimed)) {
        int64_t now_us = clock_mono_us();

        if (!taken && now_us >= take_us) {
            taken =
                mark_take(relay, &mark) && !mark_same(relay, &mark, &relay->said);
            take_us = now_us + RELAY_MARK_US;
        }
        if (taken && now_us >= say_us && mark_reached(relay, &mark)) {
            enum err err = mark_say(relay, &mark, false);

            taken = err != ERR_OK;
            say_us = taken ? clock_mono_us() + RELAY_CLAIM_AGAIN_US : 0;
            if (err == ERR_CONFLICT)
                atomic_store(&relay->claimed, false); /* sends no more */
        }
        clock_sleep_us(RELAY_MARK_POLL_US);
    }
}

void *
relay_mark_main(void *arg)
{
    struct relay *relay = arg;
    struct clicklog_mark mark = {0};

    do {
        if (!claim_wait(relay) || relay->control == NULL)
            return NULL;
        marks_say(relay);
    } while (!atomic_load(&relay->tell_last));
    /* The sender has ended. Only when all is sent is the last mark the spool's end. */
    if (atomic_load(&relay->claimed) &&
        clicklog_mark_get(relay->log, &mark, NULL) == ERR_OK &&
        mark_reached(relay, &mark))
        (void)mark_say(relay, &mark, true);
    return NULL;
}

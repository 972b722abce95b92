/* How far the brokers have the spool, as seen from outside the relay. */
#include "common/clock.h"
#include "ingest/relay.h"

enum { POLL_US = 10000, WAIT_US = 2000000 };

static bool
is_reached(const struct relay_cursor *cursor, const struct clicklog_mark *mark,
           uint32_t partitions)
{
    for (uint32_t p = 0; p < partitions; p++)
        if (relay_cursor_get(cursor, p) < mark->next[p])
            return false;
    return true;
}

enum err
relay_sent(const char *dir, struct clicklog *log, int64_t *sent_us, struct why *why)
{
    int64_t until_us = clock_mono_us() + WAIT_US;
    struct relay_cursor *cursor = NULL;
    struct clicklog_mark mark;
    enum err err = relay_cursor_open(&cursor, dir, log, why);

    *sent_us = 0;
    if (err == ERR_OK)
        err = clicklog_mark_get(log, &mark, why);
    /* Clicks go on coming: the cursor need only pass where their end was. */
    while (err == ERR_OK && *sent_us == 0 && clock_mono_us() < until_us) {
        if (is_reached(cursor, &mark, clicklog_partitions(log)))
            *sent_us = mark.floor_us;
        else
            clock_sleep_us(POLL_US);
    }
    relay_cursor_close(&cursor);
    return err;
}

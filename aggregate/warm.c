/* Feeding the fraud tables with what was counted before reading begins: by an earlier
 * process, or by another one while the partition was not ours. */
#include <assert.h>

#include "aggregate/bench.h"
#include "aggregate/part.h"
#include "common/clock.h"

/* The judge knows this hour of receipt and the one before; so should we, if that costs
 * no more than PART_WARM_CLICKS_MAX clicks. Else verdicts say that we are warming up. What
 * the tables have seen of this partition they keep while another owns it: that is not fed
 * twice. */
enum err
part_warm_plan(struct part *part, struct tools *tools, uint64_t log_first,
               struct why *why)
{
    int64_t since_us = clock_floor(tools->now_us, CLOCK_HOUR_US) - CLOCK_HOUR_US;
    uint64_t most = PART_WARM_CLICKS_MAX / part->shared->partitions, from = 0,
             end = part->recorded_next;
    int64_t received_us = INT64_MAX, started_us = since_us;
    enum err err;

    part->warm_next = part->warm_end = end;
    if (part->warm && part->fed_next >= end)
        return ERR_OK;
    err = clicklog_since(tools->reader, part->partition, since_us, &from,
                         &received_us, why);
    if (err != ERR_OK)
        return err;
    if (from == log_first && log_first > 0 && received_us > since_us)
        started_us = received_us == INT64_MAX ? tools->now_us : received_us;
    if (from > end)
        from = end;
    if (part->warm && part->fed_next > from) {
        from = part->fed_next;
        started_us = part->started_us;
    }
    if (end > from && end - from > most) {
        from = end - most;
        started_us = tools->now_us;
    }
    part->started_us = started_us;
    part->warm_next = from;
    part->warm = true;
    return ERR_OK;
}

static void
warm_end(struct part *part)
{
    if (part->warm_end > part->fed_next)
        part->fed_next = part->warm_end;
    part->state = PART_RUN;
}

size_t
part_warm(struct part *part, struct tools *tools)
{
    struct bench *b = tools->bench;
    uint64_t left = part->warm_end - part->warm_next;
    size_t n = 0;
    struct why why;
    enum err err;

    assert(part->state == PART_WARM && part->warm_next <= part->warm_end);
    if (left == 0) {
        warm_end(part);
        return 0;
    }
    if (tools->now_us < part->retry_us)
        return 0;
    err = source_read(part->source, tools->reader, part->warm_next, b->clicks,
                      left < PART_BATCH ? (size_t)left : PART_BATCH, &n, &why);
    if (err == ERR_OK)
        fraud_live_replay(tools->live, tools->rules, tools->master, b->clicks, n,
                          b->facts);
    source_release(part->source, tools->reader);
    if (err == ERR_NOTFOUND) { /* not held any more: cold, then */
        part->started_us = tools->now_us;
        warm_end(part);
        return 0;
    }
    if (err != ERR_OK) {
        part_trouble(part, TROUBLE_READ, "warm", &why);
        part->retry_us = tools->now_us + CLOCK_SECOND_US;
        return 0;
    }
    part->warm_next += n;
    if (part->warm_next > part->fed_next)
        part->fed_next = part->warm_next;
    if (part->warm_next == part->warm_end)
        warm_end(part);
    return n;
}

#include "aggregate/tenure.h"

#include <assert.h>
#include <inttypes.h>

#include "common/clock.h"

enum { LEAVE_MS_MAX = 5000 };

enum tenure
tenure_of(enum part_state state, uint64_t taken, uint64_t owned)
{
    if (state == PART_IDLE)
        return owned == 0 ? TENURE_NONE : TENURE_TAKE;
    if (owned == taken)
        return TENURE_HOLD;
    return owned == 0 ? TENURE_LEAVE : TENURE_AGAIN;
}

void
tenure_take(struct part *part, uint64_t owned)
{
    assert(part->state == PART_IDLE && owned != 0);
    part->state = PART_CLAIM;
    part->taken = owned;
    part->retry_us = part->flush_retry_us = part->leave_us = 0;
    part->claimed_before = false; /* what Redis had of us is another's now */
}

bool
tenure_settled(const struct part *part)
{
    return part->state != PART_RUN ||
           (part->judged_n == part->judged_done &&
            part->flushed == part->read_next && part->inflight == part->flushed);
}

int64_t
tenure_leave_until_us(struct part *part, int64_t now_us)
{
    /* The group waits half a session; some of it is for what comes after. */
    int64_t ms = part->shared->config->kafka_session_ms * 2 / 5;

    if (part->leave_us == 0)
        part->leave_us = now_us + (ms < LEAVE_MS_MAX ? ms : LEAVE_MS_MAX) * 1000;
    return part->leave_us;
}

void
tenure_end(struct part *part, int64_t now_us)
{
    bool settled = tenure_settled(part);

    if (part->state == PART_RUN || part->state == PART_WARM)
        events_add(part->shared->events, settled ? LOG_INFO : LOG_WARN,
                   part->partition, "let-go",
                   settled ? "whoever has it next counts on from offset %" PRIu64
                           : "not all could be flushed: whoever has it next counts "
                             "on from Redis's offset, %" PRIu64 " or later",
                   part->flushed);
    part->judged_n = part->judged_done =
        0; /* before fed_next: judged by the click alone, if again */
    part_moves(part);
    part->gap = (struct gap){0};
    for (int i = 0; i < TROUBLES_N; i++)
        part->trouble[i][0] = '\0';
    part_reset(part);
    part->state = PART_IDLE;
    part->taken = 0;
    part->building = false;
    part->read_next = part->flushed = part->inflight = part->sending = 0;
    part->sweep_us = 0;
    part->oldest_us = 0;
    (void)part_lag_us(part, 0, now_us);
    part->follow_until_us = now_us + PART_FOLLOW_S * CLOCK_SECOND_US;
    clicklog_let_go(part->shared->deps.log, part->partition);
}

/* The receipt of what was read is known; what is not read, since the partition stands still,
 * is late at least since it was seen. */
int64_t
part_lag_us(struct part *part, uint64_t end, int64_t now_us)
{
    uint64_t records =
        part->state != PART_IDLE && end > part->flushed ? end - part->flushed : 0;
    int64_t since_us = records == 0 ? 0 : part->oldest_us;

    if (records == 0 || part->flushed != part->lag.flushed)
        part->lag.since_us = 0;
    if (records > 0 && part->lag.since_us == 0)
        part->lag.since_us = now_us;
    part->lag.flushed = part->flushed;
    if (since_us == 0 || (records > 0 && part->lag.since_us < since_us))
        since_us = part->lag.since_us;
    if (part->lag.records != NULL) {
        metric_set(part->lag.records, (int64_t)records);
        metric_set(part->lag.seconds, since_us == 0 || since_us > now_us
                                          ? 0
                                          : (now_us - since_us) / CLOCK_SECOND_US);
    }
    return since_us == 0 || since_us > now_us ? 0 : now_us - since_us;
}

void
tenure_rest(struct part *part, int64_t now_us)
{
    if (part->state != PART_IDLE || part->follow_until_us == 0 ||
        now_us < part->follow_until_us)
        return;
    part->follow_until_us = 0;
    verdictlog_leave(part->shared->deps.verdicts, part->partition);
}

/* Taking a partition: from Redis's record and the verdict log to where reading begins. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "aggregate/bench.h"
#include "aggregate/part.h"
#include "common/clock.h"

enum { RETRY_US = 200000, SWEEP_AFTER_US = 5000000 };

static void
tell(struct part *part, enum log_level level, const char *what, const char *why)
{
    events_add(part->shared->events, level, part->partition, what, "%s", why);
}

/* Feeds the tables with clicks [from, end) of the log. */
static enum err
warm_feed(struct part *part, struct tools *tools, uint64_t from, uint64_t end,
          struct why *why)
{
    struct bench *b = tools->bench;
    enum err err = ERR_OK;
    size_t n = 1;

    while (from < end && n > 0 && err == ERR_OK) {
        size_t max = end - from < PART_BATCH ? (size_t)(end - from) : PART_BATCH;

        err =
            source_read(part->source, tools->reader, from, b->clicks, max, &n, why);
        for (size_t i = 0; err == ERR_OK && i < n; i++)
            fraud_live_replay(tools->live, tools->rules, tools->master,
                              &b->clicks[i], &b->facts[i]);
        source_release(part->source, tools->reader);
        from += n;
    }
    return err;
}

/* The judge knows this hour of receipt and the one before; so should we, if that costs
 * no more than PART_WARM_CLICKS_MAX clicks. Else verdicts say that we are warming up. */
static enum err
warm(struct part *part, struct tools *tools, uint64_t log_first, struct why *why)
{
    int64_t since_us = clock_floor(tools->now_us, CLOCK_HOUR_US) - CLOCK_HOUR_US;
    uint64_t most = PART_WARM_CLICKS_MAX / part->shared->partitions, from, end;
    int64_t received_us;
    enum err err = source_log_since(part->source, tools->reader, since_us,
                                    part->recorded_next, &from, &received_us, why);

    if (err != ERR_OK)
        return err;
    end = part->recorded_next;
    part->started_us = since_us;
    if (from == log_first && log_first > 0 && received_us > since_us)
        part->started_us = received_us == INT64_MAX ? tools->now_us : received_us;
    if (end > from && end - from > most) {
        from = end - most;
        part->started_us = tools->now_us;
    }
    err = warm_feed(part, tools, from, end, why);
    part->fed_next = end;
    part->warm = err == ERR_OK;
    return err;
}

/* Why the rows in Redis cannot be gone on with; NULL: they can. */
static const char *
rebuild_reason(const struct part *part, const struct owner_state *state,
               uint64_t log_next)
{
    uint64_t at = state->building != 0 ? state->build_offset : state->offset;

    if (!state->found)
        return "redis has no record of this partition (empty, or wiped)";
    if (state->log != part->shared->spool_id)
        return "redis was filled from another click log";
    if (state->dirty)
        return "a flush stopped half-way";
    if (at > log_next)
        return "redis is ahead of the click log";
    return NULL;
}

static void
start_at(struct part *part, uint64_t offset)
{
    part->read_next = part->flushed = part->inflight = part->sending = offset;
    part->baseline = part->seqs.n == 0 && offset > 0;
    part->oldest_us = 0;
    atomic_store_explicit(&part->flushed_shared, offset, memory_order_release);
}

static enum err
rebuild(struct part *part, struct tools *tools, const struct owner_state *state,
        const char *reason, struct why *why)
{
    uint32_t newest =
        state->generation > state->building ? state->generation : state->building;
    int64_t since_us = tools->now_us - PART_KEEP_S * CLOCK_SECOND_US;
    uint64_t offset = 0;
    enum err err =
        source_since(part->source, tools->reader, since_us, &offset, why);

    if (err != ERR_OK)
        return err;
    part->generation = newest + 1;
    err = owner_begin(tools->redis, part->partition, part->epoch, part->generation,
                      offset, part->shared->spool_id, tools->now_us, why);
    if (err != ERR_OK)
        return err;
    part->building = true;
    part->seqs = (struct seqs){0};
    part->event_ms = 0;
    start_at(part, offset);
    if (part->build_target == 0)
        return ERR_OK; /* a log that never held a click: nothing to tell */
    metric_add(part->shared->metrics.rebuilds, 1);
    events_add(part->shared->events,
               part->build_target > offset ? LOG_WARN : LOG_INFO, part->partition,
               "rebuild", "%s: generation %u is built from offset %llu to %llu",
               reason, part->generation, (unsigned long long)offset,
               (unsigned long long)part->build_target);
    return ERR_OK;
}

static void
resume(struct part *part, const struct owner_state *state)
{
    uint64_t offset = state->building != 0 ? state->build_offset : state->offset;
    char text[200];

    part->building = state->building != 0;
    part->generation = part->building ? state->building : state->generation;
    part->seqs = state->seqs;
    part->event_ms = state->event_ms;
    start_at(part, offset);
    if (part->claimed_before && offset < part->flushed_best) {
        metric_add(part->shared->metrics.rolled_back, 1);
        (void)snprintf(
            text, sizeof(text),
            "redis went back from offset %llu to %llu: rows are read again, "
            "clicks since are counted again from their recorded verdicts",
            (unsigned long long)part->flushed_best, (unsigned long long)offset);
        tell(part, LOG_WARN, "rolled-back", text);
        return;
    }
    (void)snprintf(
        text, sizeof(text),
        "generation %u%s from offset %llu; verdicts are on record up to %llu",
        part->generation, part->building ? " (under construction)" : "",
        (unsigned long long)offset, (unsigned long long)part->recorded_next);
    tell(part, LOG_INFO, "resume", text);
}

static enum err
claim(struct part *part, struct tools *tools, struct why *why)
{
    struct owner_state state;
    uint64_t epoch = 0, log_first = 0, log_next = 0;
    const char *reason;
    enum err err = verdictlog_last(part->shared->deps.verdicts, part->partition,
                                   &epoch, &part->recorded_next, why);

    if (err == ERR_OK)
        err = clicklog_range(part->shared->deps.log, part->partition, &log_first,
                             &log_next, why);
    if (err == ERR_OK)
        err = owner_claim(tools->redis, part->partition, epoch + 1, tools->now_us,
                          &state, why);
    if (err != ERR_OK)
        return err;
    part->epoch = state.epoch;
    if (part->recorded_next > log_next) {
        tell(part, LOG_WARN, "verdicts-ahead",
             "verdicts are recorded past the end of the click log, which must have "
             "lost "
             "clicks: those offsets are judged anew");
        part->recorded_next = log_next;
    }
    if (!part->warm)
        err = warm(part, tools, log_first, why);
    if (err != ERR_OK)
        return err;
    part->build_target = log_next;
    reason = rebuild_reason(part, &state, log_next);
    if (reason != NULL)
        return rebuild(part, tools, &state, reason, why);
    resume(part, &state);
    return ERR_OK;
}

void
part_claim(struct part *part, struct tools *tools)
{
    struct why why;

    if (tools->now_us < part->retry_us)
        return;
    if (claim(part, tools, &why) != ERR_OK) {
        part_trouble(part, TROUBLE_READ, "claim", &why);
        part->retry_us = tools->now_us + RETRY_US;
        return;
    }
    part->state = PART_RUN;
    part->claimed_before = true;
    part->retry_us = part->flush_retry_us = 0;
    part_fine(part, TROUBLE_READ);
    part_built(part, tools);
}

void
part_built(struct part *part, struct tools *tools)
{
    struct why why;

    if (part->state != PART_RUN || !part->building ||
        part->flushed < part->build_target || part->inflight != part->flushed)
        return;
    if (owner_switch(tools->redis, part->partition, part->epoch, part->flushed,
                     tools->now_us, &why) != ERR_OK)
        return; /* the next flush finds out what is wrong */
    part->building = false;
    if (part->generation > 1) {
        part->sweep_us = tools->now_us + SWEEP_AFTER_US;
        part->sweep_cursor = 0;
    }
    if (part->build_target > 0)
        events_add(part->shared->events, LOG_INFO, part->partition, "built",
                   "generation %u is whole at offset %llu", part->generation,
                   (unsigned long long)part->flushed);
}

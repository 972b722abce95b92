/* Taking a partition: from Redis's record and the verdict log to where reading begins. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "aggregate/part.h"
#include "common/clock.h"

enum { RETRY_US = 200000, SWEEP_AFTER_US = 5000000 };

static void
tell(struct part *part, enum log_level level, const char *what, const char *why)
{
    events_add(part->shared->events, level, part->partition, what, "%s", why);
}

/* Why the rows in Redis cannot be gone on with; NULL: they can. */
static const char *
rebuild_reason(const struct part *part, const struct owner_state *state,
               uint64_t log_first, uint64_t log_next)
{
    bool kafka = clicklog_is_kafka(part->shared->deps.log);
    uint64_t at = state->building != 0 ? state->build_offset : state->offset;

    if (!state->found)
        return "redis has no record of this partition (empty, or wiped)";
    if (state->log != part->shared->spool_id)
        return "redis was filled from another click log";
    if (state->dirty)
        return "it is marked dirty: a key was not as we write it";
    if (at > log_next)
        return "redis is ahead of the click log";
    if (kafka && state->building != 0 && at < log_first)
        return "what was under construction fell below the topic's first offset";
    return NULL;
}

static void
start_at(struct part *part, uint64_t offset)
{
    part->read_next = part->flushed = part->inflight = part->sending = offset;
    /* A topic may begin in the middle of a spool. */
    part->baseline = part->seqs.n == 0 &&
                     (offset > 0 || clicklog_is_kafka(part->shared->deps.log));
    part->began_us = 0;
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

/* What is known before the claim. */
struct before {
    uint64_t log_first, log_next;
    uint64_t epoch; /* the highest on record */
    int64_t since_us;
    struct owner_state state;
};

/* Where Redis's rows are built upon, verdicts are needed from a little before its last
 * flush on, else all of them. */
static int64_t
follow_since_us(const struct part *part, const struct owner_state *state,
                const struct before *before)
{
    int64_t us = state->updated_us - PART_VERDICTS_BACK_S * CLOCK_SECOND_US;

    if (rebuild_reason(part, state, before->log_first, before->log_next) != NULL)
        return 0;
    return us > 0 ? us : 0;
}

/* With Kafka: fetches the verdicts of other processes. A lag longer than what the topic
 * holds is never jumped over: whoever reads live counts would not know. */
static enum err
others_follow(struct part *part, struct tools *tools, struct before *before,
              struct why *why)
{
    const struct owner_state *state = &before->state;
    enum err err = owner_read(tools->redis, part->partition, &before->state, why);

    if (err != ERR_OK)
        return err;
    before->since_us = follow_since_us(part, state, before);
    if (state->building == 0 && state->offset < before->log_first &&
        rebuild_reason(part, state, before->log_first, before->log_next) == NULL)
        return source_gone(part->partition, state->offset, before->log_first,
                           before->log_next, why);
    return verdictlog_follow(part->shared->deps.verdicts, part->partition,
                             before->since_us, why);
}

/* What the owner before us recorded and flushed until our epoch stopped it. What it recorded
 * and could not flush any more is judged again, and nobody has seen the first answer. */
static enum err
others_end(struct part *part, const struct owner_state *state,
           const struct before *before, struct why *why)
{
    int64_t since_us = follow_since_us(part, state, before);
    uint64_t epoch;
    enum err err;

    if (since_us >= before->since_us && state->offset == before->state.offset &&
        state->build_offset == before->state.build_offset &&
        state->building == before->state.building)
        return ERR_OK;
    err = verdictlog_follow(
        part->shared->deps.verdicts, part->partition,
        since_us < before->since_us ? since_us : before->since_us, why);

    if (err == ERR_OK)
        err = verdictlog_last(part->shared->deps.verdicts, part->partition, &epoch,
                              &part->recorded_next, why);
    return err;
}

/* An epoch above every other. Redis may have lost a claim in a failover, before its owner
 * put anything on record: with more than one process it is also above what any could have
 * claimed before. Microseconds fit a double, which is what Lua counts in. */
static uint64_t
epoch_min(const struct part *part, const struct before *before, int64_t now_us)
{
    uint64_t least = before->epoch + 1;

    assert(now_us > 0 && now_us < INT64_C(1) << 53);
    return clicklog_is_kafka(part->shared->deps.log) && least < (uint64_t)now_us
               ? (uint64_t)now_us
               : least;
}

/* What came while we claimed: Redis or the verdicts may be past the end that we know. */
static enum err
end_again(const struct part *part, const struct owner_state *state,
          struct before *before, struct why *why)
{
    uint64_t at = state->building != 0 ? state->build_offset : state->offset;

    if (at <= before->log_next && part->recorded_next <= before->log_next)
        return ERR_OK;
    return clicklog_range(part->shared->deps.log, part->partition,
                          &before->log_first, &before->log_next, why);
}

static enum err
epoch_take(struct part *part, struct tools *tools, struct before *before,
           struct owner_state *state, struct why *why)
{
    struct verdictlog *verdicts = part->shared->deps.verdicts;
    bool kafka = clicklog_is_kafka(part->shared->deps.log);
    enum err err = clicklog_range(part->shared->deps.log, part->partition,
                                  &before->log_first, &before->log_next, why);

    if (err == ERR_OK && kafka)
        err = others_follow(part, tools, before, why);
    if (err == ERR_OK)
        err = verdictlog_last(verdicts, part->partition, &before->epoch,
                              &part->recorded_next, why);
    if (err == ERR_OK)
        err = owner_claim(tools->redis, part->partition,
                          epoch_min(part, before, tools->now_us), tools->now_us,
                          state, why);
    if (err == ERR_OK && kafka)
        err = others_end(part, state, before, why);
    if (err == ERR_OK)
        err = end_again(part, state, before, why);
    return err;
}

static enum err
claim(struct part *part, struct tools *tools, struct why *why)
{
    struct owner_state state;
    struct before before = {0};
    const char *reason;
    enum err err = epoch_take(part, tools, &before, &state, why);

    if (err != ERR_OK)
        return err;
    part->epoch = state.epoch;
    if (part->recorded_next > before.log_next) {
        tell(part, LOG_WARN, "verdicts-ahead",
             "verdicts are recorded past the end of the click log, which must have "
             "lost "
             "clicks: those offsets are judged anew");
        part->recorded_next = before.log_next;
    }
    err = part_warm_plan(part, tools, before.log_first, why);
    if (err != ERR_OK)
        return err;
    part->build_target = before.log_next;
    reason = rebuild_reason(part, &state, before.log_first, before.log_next);
    if (reason != NULL)
        return rebuild(part, tools, &state, reason, why);
    if (state.building == 0 && state.offset < before.log_first &&
        clicklog_is_kafka(part->shared->deps.log))
        return source_gone(part->partition, state.offset, before.log_first,
                           before.log_next, why);
    resume(part, &state);
    return ERR_OK;
}

void
part_claim(struct part *part, struct tools *tools)
{
    struct why why;
    enum err err;

    if (tools->now_us < part->retry_us)
        return;
    if (!part_mark(part, tools)) {
        part->retry_us = tools->now_us + RETRY_US;
        return;
    }
    err = claim(part, tools, &why);
    if (err == ERR_NOTFOUND && clicklog_is_kafka(part->shared->deps.log)) {
        part_stall(part, "retention", &why);
        part->retry_us = tools->now_us + CLOCK_SECOND_US;
        return;
    }
    if (err != ERR_OK) {
        part_trouble(part, TROUBLE_READ, "claim", &why);
        part->retry_us = tools->now_us + RETRY_US;
        return;
    }
    part->state = part->warm_next < part->warm_end ? PART_WARM : PART_RUN;
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

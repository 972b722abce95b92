/* Reading a partition: records -> verdicts -> windows. */
#include "aggregate/part.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "aggregate/bench.h"
#include "common/clock.h"
#include "schema/zone.h"

enum { RETRY_US = 200000 };

enum err
part_open(struct part *part, struct shared *shared, uint32_t partition,
          struct why *why)
{
    const struct config *config = shared->config;
    const struct windows_config cfg = {
        .values_max = (uint32_t)config->aggregate_dimension_values_max,
        .seed = shared->spool_id ^ (uint64_t)clock_mono_us(),
        .users_bytes_max = (size_t)BENCH_MIRROR_BYTES_MAX / shared->partitions,
    };
    enum err err;

    *part =
        (struct part){.shared = shared, .partition = partition, .state = PART_IDLE};
    part_lag_declare(part);
    part->judged = calloc(PART_UNFLUSHED_MAX + PART_BATCH, sizeof(uint64_t));
    if (part->judged == NULL)
        return err_set(why, ERR_NOMEM, "aggregate: no memory for partition %u",
                       partition);
    err = windows_open(&part->windows, &cfg, why);
    if (err == ERR_OK)
        err = source_open(&part->source, shared->deps.log, shared->deps.archive_dir,
                          partition, why);
    return err;
}

void
part_close(struct part *part)
{
    windows_close(&part->windows);
    source_close(&part->source);
    free(part->judged);
    part->judged = NULL;
}

void
part_reset(struct part *part)
{
    assert(part->judged_n == part->judged_done);
    part->judged_n = part->judged_done = 0;
    windows_clear(part->windows);
    part->state = PART_CLAIM;
    part->oldest_us = 0;
}

void
part_trouble(struct part *part, enum trouble slot, const char *what,
             const struct why *why)
{
    if (strncmp(part->trouble[slot], why->text, sizeof(part->trouble[slot])) == 0)
        return;
    memcpy(part->trouble[slot], why->text, sizeof(part->trouble[slot]));
    events_add(part->shared->events, LOG_WARN, part->partition, what, "%s",
               why->text);
}

void
part_fine(struct part *part, enum trouble slot)
{
    if (part->trouble[slot][0] == '\0')
        return;
    part->trouble[slot][0] = '\0';
    events_add(part->shared->events, LOG_INFO, part->partition, "fine",
               slot == TROUBLE_READ ? "reading goes on" : "flushing goes on");
}

void
part_metrics(struct part *part, const struct windows_stats *stats)
{
    struct shared *shared = part->shared;

    metric_add(shared->metrics.expired,
               (int64_t)(stats->expired - part->told.expired));
    metric_add(shared->metrics.users_sent,
               (int64_t)(stats->users_sent - part->told.users_sent));
    metric_add(shared->metrics.users_skipped,
               (int64_t)(stats->users_skipped - part->told.users_skipped));
    part->told = *stats;
}

/* --- which records are the next ones --- */

/* Where counting begins in the middle of a log, what is sent again of incarnations before
 * that is not ours: the others came before it. */
static bool
is_older(const struct part *part, const struct seqs *seqs,
         const struct click *click)
{
    return part->began_us > 0 && click->received_us < part->began_us &&
           !seqs_known(seqs, click->incarnation);
}

/* Marks what to drop; cuts the batch before a gap. seqs is moved on. */
static size_t
batch_check(struct part *part, struct tools *tools, struct seqs *seqs, size_t n)
{
    struct bench *b = tools->bench;

    for (size_t i = 0; i < n; i++) {
        const struct click *click = &b->clicks[i];
        bool first = part->baseline && i == 0;
        enum seq_answer answer =
            is_older(part, seqs, click)
                ? SEQ_AGAIN
                : seqs_take(seqs, click->incarnation, click->seq, first);

        if (first)
            part->began_us = click->received_us;
        if (answer == SEQ_GAP && click->partition == part->partition &&
            !gap_skips(&part->gap, part->read_next + i, click->incarnation,
                       click->seq)) {
            if (i == 0)
                part_gap(part, tools, click);
            return i;
        }
        b->drop[i] = answer != SEQ_NEXT;
        if (b->drop[i])
            metric_add(part->shared->metrics.repeats, 1);
    }
    return n;
}

/* --- verdicts --- */

/* Recorded ones: in the log, in the archive, or made by us and not durable yet. */
static enum err
verdicts_known(struct part *part, struct tools *tools, size_t n, struct why *why)
{
    struct bench *b = tools->bench;
    uint64_t from = part->read_next;

    memset(b->packed, 0, n * sizeof(b->packed[0]));
    if (from < part->recorded_next) {
        enum err err = verdictlog_read(part->shared->deps.verdicts, part->partition,
                                       from, n, b->packed, why);
        if (err != ERR_OK)
            return err;
    }
    for (size_t i = 0; i < n; i++) {
        uint64_t offset = from + i;

        if (part->judged_n > 0 && offset >= part->judged_base &&
            offset - part->judged_base < part->judged_n &&
            part->judged[offset - part->judged_base] != 0)
            b->packed[i] = part->judged[offset - part->judged_base];
        if (b->packed[i] == 0)
            b->packed[i] = source_verdict(part->source, offset);
    }
    return ERR_OK;
}

/* Remembers a verdict until it is durable; 0: it is already. */
static void
judged_add(struct part *part, uint64_t offset, uint64_t packed)
{
    if (part->judged_n == 0) {
        if (packed == 0)
            return;
        part->judged_base = offset;
    }
    if (offset < part->judged_base + part->judged_n)
        return; /* read again: it is here */
    assert(offset == part->judged_base + part->judged_n);
    assert(part->judged_n < PART_UNFLUSHED_MAX + PART_BATCH);
    part->judged[part->judged_n++] = packed;
}

static void
click_recorded(struct part *part, struct tools *tools, size_t i)
{
    struct bench *b = tools->bench;
    struct fraud_facts *facts = &b->facts[i];
    const struct click *click = &b->clicks[i];

    b->verdicts[i] = verdict_unpack(b->packed[i]);
    if (part->read_next + i >= part->fed_next) {
        fraud_live_replay(tools->live, tools->rules, tools->master, click, 1,
                          facts);
    } else {
        *facts = (struct fraud_facts){
            .campaign = master_campaign_find(tools->master, click->campaign_id)};
        if (facts->campaign != NULL)
            facts->price_micros = master_price(facts->campaign, click->timestamp_ms,
                                               click->price_micros);
    }
    judged_add(part, part->read_next + i, 0);
}

/* The tables have seen this click, but its verdict was never recorded: the state before
 * it is gone, so only the click itself is judged. */
static void
click_forgotten(struct part *part, struct tools *tools, size_t i)
{
    struct bench *b = tools->bench;

    fraud_examine(tools->rules, tools->master, tools->agents, &b->clicks[i],
                  &b->facts[i]);
    b->verdicts[i] = fraud_conclude(tools->rules, tools->master,
                                    b->facts[i].reasons, VERDICT_WARMING);
    judged_add(part, part->read_next + i, verdict_pack(&b->verdicts[i]));
}

static bool
is_new(const struct part *part, const struct bench *b, size_t i)
{
    return !b->drop[i] && b->packed[i] == 0 &&
           part->read_next + i >= part->fed_next;
}

/* What feeds the counters of addresses counts in other processes too. */
static void
addresses_tell(const struct part *part, const struct tools *tools, size_t from,
               size_t end)
{
    const struct bench *b = tools->bench;

    for (size_t i = from; i < end; i++)
        if (fraud_feeds(b->facts[i].reasons))
            hotstage_add(part->shared->hotstage, tools->lane, part->partition,
                         part->read_next + i, b->facts[i].address_key,
                         b->facts[i].event_ms, b->clicks[i].received_us);
}

static size_t
clicks_judge(struct part *part, struct tools *tools, size_t from, size_t n)
{
    struct bench *b = tools->bench;
    size_t end = from;

    while (end < n && is_new(part, b, end))
        end++;
    fraud_live_judge_batch(tools->live, tools->rules, tools->master,
                           &b->clicks[from], end - from, part->started_us,
                           &b->facts[from], &b->verdicts[from]);
    for (size_t i = from; i < end; i++)
        judged_add(part, part->read_next + i, verdict_pack(&b->verdicts[i]));
    if (part->shared->hotstage != NULL)
        addresses_tell(part, tools, from, end);
    return end;
}

static void
batch_judge(struct part *part, struct tools *tools, size_t n)
{
    struct bench *b = tools->bench;
    size_t i = 0;

    while (i < n) {
        if (is_new(part, b, i)) {
            i = clicks_judge(part, tools, i, n);
            continue;
        }
        if (b->drop[i])
            judged_add(part, part->read_next + i, 0);
        else if (b->packed[i] != 0)
            click_recorded(part, tools, i);
        else
            click_forgotten(part, tools, i);
        i++;
    }
    if (part->read_next + n > part->fed_next)
        part->fed_next = part->read_next + n;
}

/* --- windows --- */

static bool
is_unknown(const struct verdict *verdict)
{
    return verdict->kind == VERDICT_QUARANTINED &&
           verdict->reason == REASON_unknown_campaign;
}

/* The clicks that count in rows. False: one's campaign is not in our master data. */
static bool
batch_select(struct part *part, struct tools *tools, size_t n, size_t *selected)
{
    struct bench *b = tools->bench;
    struct why why;
    size_t k = 0;

    for (size_t i = 0; i < n; i++) {
        if (b->drop[i] || is_unknown(&b->verdicts[i]))
            continue;
        if (b->facts[i].campaign == NULL) {
            (void)err_set(
                &why, ERR_AGAIN,
                "campaign %.*s is judged but not in the master data here: "
                "waiting for it",
                (int)b->clicks[i].campaign_id.n, b->clicks[i].campaign_id.p);
            part_trouble(part, TROUBLE_READ, "master", &why);
            part->retry_us = tools->now_us + CLOCK_SECOND_US;
            return false;
        }
        if (b->verdicts[i].reason >= REASONS_N)
            b->verdicts[i].reason = REASON_none;
        b->counted[k++] = (struct window_click){
            .click = &b->clicks[i],
            .verdict = b->verdicts[i],
            .zone = b->facts[i].campaign->zone,
            .price_micros = b->facts[i].price_micros,
        };
    }
    *selected = k;
    return true;
}

static enum err
load_ask(struct part *part, struct tools *tools, uint32_t i, struct why *why)
{
    struct window_load load = windows_load_get(part->windows, i);
    char key[REDISKEY_MAX];
    struct str words[2] = {STR("HGETALL"), {key, 0}};
    enum err err;

    words[1].n =
        load.live
            ? rediskey_live(key, part->partition, part->generation, load.campaign)
            : rediskey_row(key, part->partition, part->generation, load.window,
                           load.campaign, load.start_ms);
    err = redis_queue(tools->redis, words, 2, why);
    if (err != ERR_OK || load.live)
        return err;
    words[0] = STR("GET");
    words[1].n = rediskey_users(key, part->partition, part->generation, load.window,
                                load.campaign, load.start_ms);
    err = redis_queue(tools->redis, words, 2, why);
    if (err != ERR_OK)
        (void)redis_reply_next(tools->redis, NULL, NULL); /* the row's */
    return err;
}

static enum err
fields_take(struct part *part, struct tools *tools, uint32_t i, struct why *why)
{
    struct redis_reply *reply = NULL;
    enum err err = redis_reply_next(tools->redis, &reply, why);

    for (size_t k = 0; err == ERR_OK && k + 1 < reply->count; k += 2)
        if (!windows_load_field(part->windows, i, reply->items[k]->text,
                                reply->items[k + 1]->text))
            err = err_set(why, ERR_CORRUPT, "redis: a row's field %.*s is not ours",
                          (int)reply->items[k]->text.n, reply->items[k]->text.p);
    redis_reply_free(&reply);
    return err;
}

static enum err
users_take(struct part *part, struct tools *tools, uint32_t i, struct why *why)
{
    struct redis_reply *reply = NULL;
    enum err err = redis_reply_next(tools->redis, &reply, why);

    if (err == ERR_OK &&
        !windows_load_users(part->windows, i,
                            reply->type == REDIS_TEXT ? reply->text : STR("")))
        err = err_set(why, ERR_CORRUPT, "redis: a row's users are no HyperLogLog");
    redis_reply_free(&reply);
    return err;
}

/* All its answers are taken, or they would answer the next question. */
static enum err
load_take(struct part *part, struct tools *tools, uint32_t i, struct why *why)
{
    bool live = windows_load_get(part->windows, i).live;
    enum err err = fields_take(part, tools, i, why);
    struct why own;

    if (live)
        return err;
    if (err == ERR_OK)
        return users_take(part, tools, i, why);
    (void)users_take(part, tools, i, &own);
    return err;
}

/* Rows seen for the first time, whole, in one round trip. */
static enum err
rows_load(struct part *part, struct tools *tools, struct why *why)
{
    uint32_t n = windows_loads(part->windows);
    enum err err = ERR_OK;

    for (uint32_t from = 0; from < n && err == ERR_OK; from += BENCH_LOADS_MAX) {
        uint32_t end = n - from < BENCH_LOADS_MAX ? n : from + BENCH_LOADS_MAX;
        uint32_t asked = from;

        for (; asked < end && err == ERR_OK; asked++)
            err = load_ask(part, tools, asked, why);
        uint32_t failed = err != ERR_OK;
        /* Each answer is taken, or it would answer the next question. */
        for (uint32_t i = from; i < asked - failed; i++) {
            struct why first;
            enum err one = load_take(part, tools, i, &first);

            if (one != ERR_OK && (err == ERR_OK || one == ERR_AGAIN)) {
                err = one;
                *why = first;
            }
        }
    }
    if (err == ERR_OK)
        windows_loads_done(part->windows);
    return err;
}

void
part_damaged(struct part *part, struct tools *tools, enum trouble slot,
             const struct why *why)
{
    part_trouble(part, slot, "damaged", why);
    part->retry_us = tools->now_us + RETRY_US;
    part->damaged = true;
    (void)part_mark(part, tools);
}

bool
part_mark(struct part *part, struct tools *tools)
{
    char key[REDISKEY_MAX];
    struct str words[4] = {STR("HSET"), {key, 0}, STR("dirty"), STR("1")};

    words[1].n = rediskey_owner(key, part->partition);
    if (part->damaged &&
        redis_command(tools->redis, words, 4, NULL, NULL) == ERR_OK)
        part->damaged = false;
    return !part->damaged;
}

static bool
batch_count(struct part *part, struct tools *tools, size_t n)
{
    struct bench *b = tools->bench;
    struct why why;
    enum err err = ERR_OK;
    size_t k;

    if (!batch_select(part, tools, n, &k))
        return false;
    windows_touch(part->windows, b->counted, k, tools->now_us);
    if (windows_failed(part->windows))
        return false;
    if (windows_loads(part->windows) > 0)
        err = rows_load(part, tools, &why);
    if (err == ERR_AGAIN || err == ERR_FULL || err == ERR_NOMEM) {
        part_trouble(part, TROUBLE_READ, "redis", &why);
        part->retry_us = tools->now_us + RETRY_US;
        return false;
    }
    if (err != ERR_OK) {
        part_damaged(part, tools, TROUBLE_READ, &why);
        return false;
    }
    windows_count(part->windows, b->counted, k, tools->now_us);
    return !windows_failed(part->windows);
}

static void
batch_done(struct part *part, const struct tools *tools, const struct seqs *seqs,
           size_t n)
{
    const struct bench *b = tools->bench;
    int64_t unknown = 0;

    for (size_t i = 0; i < n; i++) {
        if (b->clicks[i].timestamp_ms > part->event_ms)
            part->event_ms = b->clicks[i].timestamp_ms;
        unknown += is_unknown(&b->verdicts[i]) && !b->drop[i];
    }
    if (part->oldest_us == 0)
        part->oldest_us = b->clicks[0].received_us;
    part->seqs = *seqs;
    part->baseline = false;
    part->read_next += n;
    part_moves(part);
    metric_add(part->shared->metrics.clicks, (int64_t)n);
    if (unknown > 0)
        metric_add(part->shared->metrics.unknown, unknown);
}

size_t
part_read(struct part *part, struct tools *tools)
{
    struct seqs seqs = part->seqs;
    struct why why;
    bool counted = false;
    size_t n = 0;
    enum err err;

    assert(part->state == PART_RUN);
    if (part->read_next - part->flushed >= PART_UNFLUSHED_MAX ||
        tools->now_us < part->retry_us || windows_failed(part->windows))
        return 0;
    err = source_read(part->source, tools->reader, part->read_next,
                      tools->bench->clicks, PART_BATCH, &n, &why);
    if (err == ERR_OK && n > 0)
        n = batch_check(part, tools, &seqs, n);
    if (err == ERR_OK && n > 0)
        err = verdicts_known(part, tools, n, &why);
    if (err == ERR_OK && n > 0) {
        batch_judge(part, tools, n);
        counted = batch_count(part, tools, n);
    }
    if (counted)
        batch_done(part, tools, &seqs, n);
    source_release(part->source, tools->reader);
    if ((err == ERR_NOTFOUND || err == ERR_CORRUPT) &&
        clicklog_is_kafka(part->shared->deps.log)) {
        part_stall(part, err == ERR_NOTFOUND ? "retention" : "read", &why);
        part->retry_us = tools->now_us + CLOCK_SECOND_US;
    } else if (err != ERR_OK) {
        part_trouble(part, TROUBLE_READ, "read", &why);
        part->retry_us = tools->now_us + CLOCK_SECOND_US;
    } else if (counted) {
        part_fine(part, TROUBLE_READ);
    }
    return counted ? n : 0;
}

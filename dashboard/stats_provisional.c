/* Windows that are still open or young, from Redis. */
#include "dashboard/stats.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "aggregate/owner.h"
#include "common/clock.h"
#include "common/hash.h"
#include "common/redis.h"

enum { STEP_S = 10, STEPS = 30, RING = 64, NUMBERS_MAX = 6 };

enum err
stats_owner_read(struct call *call, uint32_t partition, struct stats_owner *out,
                 struct why *why)
{
    struct owner_state state;
    enum err err = owner_read(call->redis, partition, &state, why);

    *out = (struct stats_owner){0};
    if (err != ERR_OK)
        return err;
    out->generation = state.generation;
    out->rebuilding = state.building != 0 || state.dirty || !state.found;
    out->updated_us = state.updated_us;
    return ERR_OK;
}

static uint32_t
partition_of(const struct call *call)
{
    struct str id = call->campaign->id;

    return hash_partition(id.p, id.n, (uint32_t)call->config->clicklog_partitions);
}

/* "12,340000,1,0" into numbers; what is missing stays 0. */
static void
numbers_parse(struct str text, int64_t out[NUMBERS_MAX])
{
    const char *p = text.p, *end = text.p + text.n;

    memset(out, 0, NUMBERS_MAX * sizeof(*out));
    for (int i = 0; i < NUMBERS_MAX && p < end; i++) {
        bool negative = *p == '-';
        for (p += negative; p < end && *p >= '0' && *p <= '9'; p++)
            out[i] = out[i] * 10 + (*p - '0');
        out[i] = negative ? -out[i] : out[i];
        if (p < end && *p++ != ',')
            return;
    }
}

static void
field_take(const struct stats *stats, struct stats_row *row, struct str name,
           struct str value)
{
    int64_t n[NUMBERS_MAX];
    int group = stats->query.group_by;

    numbers_parse(value, n);
    const struct stats_cell cell = {
        .clicks = (uint64_t)n[0],
        .cost_micros = n[1],
        .flagged = (uint64_t)n[2],
        .invalid = (uint64_t)n[3],
    };
    if (str_equal(name, STR("t"))) {
        row->all = cell;
        row->duplicate = (uint64_t)n[4];
        row->quarantined = (uint64_t)n[5];
    } else if (name.n > 2 && name.p[0] == 'r' && name.p[1] == ':') {
        enum reason reason = reason_find((struct str){name.p + 2, name.n - 2});
        if (reason < REASONS_N)
            row->reasons[reason] = (uint64_t)n[0];
    } else if (group != STATS_NO_GROUP && name.n > 2 && name.p[1] == ':' &&
               name.p[0] == DIMENSION_LETTERS[group]) {
        stats_group_add(row, (struct str){name.p + 2, name.n - 2}, &cell);
    }
}

static bool
row_alive(const struct stats *stats, const struct stats_row *row, int64_t now_ms)
{
    return window_expiry_s(stats->query.window, row->end_ms) * 1000 > now_ms;
}

static enum err
row_queue(struct stats *stats, uint32_t partition, uint32_t generation,
          const struct stats_row *row, struct why *why)
{
    char hash[REDISKEY_MAX], users[REDISKEY_MAX];
    struct call *call = stats->call;
    const struct str get[] = {
        STR("HGETALL"),
        {hash, rediskey_row(hash, partition, generation, stats->query.window,
                            call->campaign->id, row->start_ms)}};
    const struct str count[] = {
        STR("PFCOUNT"),
        {users, rediskey_users(users, partition, generation, stats->query.window,
                               call->campaign->id, row->start_ms)}};
    enum err err = redis_queue(call->redis, get, 2, why);

    return err == ERR_OK ? redis_queue(call->redis, count, 2, why) : err;
}

static enum err
row_read(struct stats *stats, struct stats_row *row, struct why *why)
{
    struct redis_reply *hash = NULL, *users = NULL;
    enum err err = redis_reply_next(stats->call->redis, &hash, why);

    if (err == ERR_OK)
        err = redis_reply_next(stats->call->redis, &users, why);
    if (err == ERR_OK && row->state != STATS_FINAL) {
        row->state = STATS_PROVISIONAL;
        for (size_t i = 0; i + 1 < hash->count; i += 2)
            field_take(stats, row, hash->items[i]->text, hash->items[i + 1]->text);
    }
    if (err == ERR_OK) {
        row->users = (uint64_t)users->integer;
        row->has_users = true;
    }
    redis_reply_free(&hash);
    redis_reply_free(&users);
    return err;
}

static enum err
rows_read(struct stats *stats, struct why *why)
{
    uint32_t partition = partition_of(stats->call);
    struct stats_owner owner;
    int64_t now_ms = clock_now_us() / 1000;
    enum err err = stats_owner_read(stats->call, partition, &owner, why);

    if (err != ERR_OK)
        return err;
    stats->rebuilding = owner.rebuilding;
    stats->as_of_us = owner.updated_us;
    if (owner.generation == 0)
        return ERR_OK;
    for (uint32_t i = 0; err == ERR_OK && i < stats->n; i++) {
        if (row_alive(stats, &stats->rows[i], now_ms))
            err =
                row_queue(stats, partition, owner.generation, &stats->rows[i], why);
    }
    for (uint32_t i = 0; err == ERR_OK && i < stats->n; i++) {
        if (!row_alive(stats, &stats->rows[i], now_ms))
            continue;
        err = row_read(stats, &stats->rows[i], why);
        stats->redis_used = true;
    }
    return err;
}

void
stats_provisional(struct stats *stats)
{
    struct why why = {{0}};

    if (rows_read(stats, &why) == ERR_OK)
        return;
    stats->redis_away = true;
    stats->redis_used = false;
    for (uint32_t i = 0; i < stats->n; i++) {
        if (stats->rows[i].state == STATS_PROVISIONAL)
            stats->rows[i].state = STATS_UNAVAILABLE;
    }
}

/* The ring of 10 s steps; a step that no click touched is not in it, and is 0. */
static void
live_format(struct call *call, const struct redis_reply *hash,
            const struct stats_owner *owner)
{
    int64_t ring[RING][NUMBERS_MAX] = {{0}};
    char text[CLOCK_TEXT_SIZE], cost[MONEY_TEXT_SIZE];
    int64_t now_s = clock_now_us() / CLOCK_SECOND_US;
    int64_t last = clock_floor(now_s, STEP_S);

    for (size_t i = 0; i + 1 < hash->count; i += 2) {
        int64_t n[NUMBERS_MAX];
        numbers_parse(hash->items[i + 1]->text, n);
        memcpy(ring[(n[0] / STEP_S) % RING], n, sizeof(n));
    }
    buf_add_text(&call->out, "{\"campaign_id\":");
    buf_add_json(&call->out, call->campaign->id);
    buf_printf(
        &call->out,
        ",\"source\":\"redis\",\"as_of\":\"%s\",\"rebuilding\":%s,\"step_s\":%d,"
        "\"steps\":[",
        clock_format_ms(owner->updated_us / 1000, text),
        owner->rebuilding ? "true" : "false", STEP_S);
    for (int i = STEPS - 1; i >= 0; i--) {
        int64_t start = last - i * (int64_t)STEP_S;
        const int64_t *step = ring[(start / STEP_S) % RING];
        bool there = step[0] == start;
        buf_printf(&call->out,
                   "%s{\"start\":\"%s\",\"clicks\":%lld,\"cost\":\"%s\"}",
                   i == STEPS - 1 ? "" : ",", clock_format_ms(start * 1000, text),
                   (long long)(there ? step[1] : 0),
                   money_format(there ? step[2] : 0, MONEY_PLACES_MAX, cost));
    }
    buf_add_text(&call->out, "]}\n");
}

enum err
serve_live(struct call *call, struct why *why)
{
    char key[REDISKEY_MAX];
    uint32_t partition = partition_of(call);
    struct redis_reply *hash = NULL;
    struct stats_owner owner;
    enum err err = stats_owner_read(call, partition, &owner, why);

    if (err != ERR_OK)
        return err_set(why, ERR_AGAIN,
                       "live counts are unavailable: Redis does not answer");
    if (owner.generation == 0)
        return err_set(why, ERR_AGAIN,
                       "live counts are unavailable: they are being built");
    const struct str words[] = {
        STR("HGETALL"),
        {key, rediskey_live(key, partition, owner.generation, call->campaign->id)}};
    err = redis_command(call->redis, words, 2, &hash, why);
    if (err != ERR_OK)
        return err_set(why, ERR_AGAIN,
                       "live counts are unavailable: Redis does not answer");
    live_format(call, hash, &owner);
    redis_reply_free(&hash);
    return ERR_OK;
}

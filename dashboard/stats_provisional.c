/* Windows that are still open or young, from Redis. */
#include "dashboard/stats.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "aggregate/owner.h"
#include "common/clock.h"
#include "common/hash.h"
#include "common/log.h"
#include "common/redis.h"

enum {
    STEP_S = 10,
    STEPS = 30,
    RING = 64,
    NUMBERS_MAX = 6,
    DIGITS_MAX = 18,           /* of a number: fits an int64 */
    TRIES_MAX = 5,             /* the generation may change while we read it */
    SCAN_FIELDS_MAX = 1000000, /* a row whole in one HSCAN */
};

/* Where the fields of every row come first in a reply: the totals, then each reason. */
#define TOTALS_N (1 + REASONS_N)

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

/* "12,340000,1,0" into numbers; what is missing, or no number, stays 0. */
static void
numbers_parse(struct str text, int64_t out[NUMBERS_MAX])
{
    const char *p = text.p, *end = text.p + text.n;

    memset(out, 0, NUMBERS_MAX * sizeof(*out));
    for (int i = 0; i < NUMBERS_MAX && p < end; i++) {
        bool negative = *p == '-';
        int digits = 0;
        for (p += negative; p < end && *p >= '0' && *p <= '9'; p++)
            if (digits++ < DIGITS_MAX)
                out[i] = out[i] * 10 + (*p - '0');
        out[i] = negative ? -out[i] : out[i];
        if (p < end && *p++ != ',')
            return;
    }
}

static struct stats_cell
cell_of(const int64_t n[NUMBERS_MAX])
{
    return (struct stats_cell){
        .clicks = (uint64_t)n[0],
        .cost_micros = n[1],
        .flagged = (uint64_t)n[2],
        .invalid = (uint64_t)n[3],
    };
}

static bool
row_wanted(const struct stats *stats, const struct stats_row *row, int64_t now_ms)
{
    return window_expiry_s(stats->query.window, row->end_ms) * 1000 > now_ms;
}

/* HMGET KEY t r:REASON... : few fields of a row that may have thousands. */
static enum err
totals_queue(struct redis *redis, struct str key, struct why *why)
{
    char names[REASONS_N][40];
    struct str words[2 + TOTALS_N] = {STR("HMGET"), key, STR("t")};

    for (int i = 0; i < REASONS_N; i++) {
        int n = snprintf(names[i], sizeof(names[i]), "r:%s",
                         reason_info((enum reason)i)->name);
        assert(n > 0 && n < (int)sizeof(names[i]));
        words[3 + i] = (struct str){names[i], (uint32_t)n};
    }
    return redis_queue(redis, words, 2 + TOTALS_N, why);
}

static enum err
groups_queue(struct redis *redis, struct str key, int group, struct why *why)
{
    const char pattern[] = {DIMENSION_LETTERS[group], ':', '*'};
    char fields[24];
    int n = snprintf(fields, sizeof(fields), "%d", SCAN_FIELDS_MAX);
    const struct str words[] = {STR("HSCAN"),
                                key,
                                STR("0"),
                                STR("MATCH"),
                                {pattern, sizeof(pattern)},
                                STR("COUNT"),
                                {fields, (uint32_t)n}};

    return redis_queue(redis, words, sizeof(words) / sizeof(words[0]), why);
}

static enum err
row_queue(struct stats *stats, uint32_t partition, uint32_t generation,
          const struct stats_row *row, struct why *why)
{
    char hash[REDISKEY_MAX], users[REDISKEY_MAX];
    struct call *call = stats->call;
    struct str key = {hash,
                      rediskey_row(hash, partition, generation, stats->query.window,
                                   call->campaign->id, row->start_ms)};
    const struct str count[] = {
        STR("PFCOUNT"),
        {users, rediskey_users(users, partition, generation, stats->query.window,
                               call->campaign->id, row->start_ms)}};
    enum err err = ERR_OK;

    if (row->state != STATS_FINAL)
        err = totals_queue(call->redis, key, why);
    if (err == ERR_OK && row->state != STATS_FINAL &&
        stats->query.group_by != STATS_NO_GROUP)
        err = groups_queue(call->redis, key, stats->query.group_by, why);
    return err == ERR_OK ? redis_queue(call->redis, count, 2, why) : err;
}

static enum err
totals_read(struct redis *redis, struct stats_row *row, struct why *why)
{
    struct redis_reply *reply = NULL;
    int64_t n[NUMBERS_MAX];
    enum err err = redis_reply_next(redis, &reply, why);

    if (err == ERR_OK && reply->count != TOTALS_N)
        err = err_set(why, ERR_FATAL, "redis: a reply of the wrong shape");
    if (err == ERR_OK) {
        numbers_parse(reply->items[0]->text, n);
        row->all = cell_of(n);
        row->duplicate = (uint64_t)n[4];
        row->quarantined = (uint64_t)n[5];
        for (int i = 0; i < REASONS_N; i++) {
            numbers_parse(reply->items[1 + i]->text, n);
            row->reasons[i] = (uint64_t)n[0];
        }
    }
    redis_reply_free(&reply);
    return err;
}

static enum err
groups_read(struct stats *stats, struct stats_row *row, struct why *why)
{
    struct redis_reply *reply = NULL;
    enum err err = redis_reply_next(stats->call->redis, &reply, why);

    if (err == ERR_OK &&
        (reply->count != 2 || !str_equal(reply->items[0]->text, STR("0"))))
        err = err_set(why, ERR_FATAL, "redis: a row of over %d fields",
                      SCAN_FIELDS_MAX);
    if (err == ERR_OK) {
        const struct redis_reply *fields = reply->items[1];
        buf_reset(&row->groups);
        for (size_t i = 0; i + 1 < fields->count; i += 2) {
            struct str name = fields->items[i]->text;
            int64_t n[NUMBERS_MAX];
            numbers_parse(fields->items[i + 1]->text, n);
            struct stats_cell cell = cell_of(n);
            stats_group_add(stats, (struct str){name.p + 2, name.n - 2}, &cell);
        }
        stats_groups_end(stats, row);
    }
    redis_reply_free(&reply);
    return err;
}

static enum err
row_read(struct stats *stats, struct stats_row *row, struct why *why)
{
    struct redis_reply *users = NULL;
    enum err err = ERR_OK;

    if (row->state != STATS_FINAL) {
        err = totals_read(stats->call->redis, row, why);
        if (err == ERR_OK && stats->query.group_by != STATS_NO_GROUP)
            err = groups_read(stats, row, why);
        row->state = err == ERR_OK ? STATS_PROVISIONAL : STATS_UNAVAILABLE;
    }
    if (err == ERR_OK)
        err = redis_reply_next(stats->call->redis, &users, why);
    if (err == ERR_OK) {
        /* Clicks without a user do not exist: then the users are gone, not 0. */
        row->users = (uint64_t)users->integer;
        row->has_users = row->users > 0 || row->all.clicks == 0;
    }
    redis_reply_free(&users);
    return err;
}

static enum err
generation_read(struct stats *stats, const struct stats_owner *owner,
                struct why *why)
{
    uint32_t partition = partition_of(stats->call);
    int64_t now_ms = clock_now_us() / 1000;
    enum err err = ERR_OK;

    for (uint32_t i = 0; err == ERR_OK && i < stats->n; i++) {
        if (row_wanted(stats, &stats->rows[i], now_ms))
            err = row_queue(stats, partition, owner->generation, &stats->rows[i],
                            why);
    }
    for (uint32_t i = 0; err == ERR_OK && i < stats->n; i++) {
        if (row_wanted(stats, &stats->rows[i], now_ms)) {
            err = row_read(stats, &stats->rows[i], why);
            stats->redis_used = true;
        }
    }
    return err;
}

/* Provisional rows become unavailable; final ones keep what PostgreSQL said. */
static void
rows_forget(struct stats *stats)
{
    stats->redis_used = false;
    for (uint32_t i = 0; i < stats->n; i++) {
        if (stats->rows[i].state == STATS_PROVISIONAL)
            stats->rows[i].state = STATS_UNAVAILABLE;
        stats->rows[i].has_users = false;
    }
}

static enum err
rows_read(struct stats *stats, struct why *why)
{
    uint32_t partition = partition_of(stats->call);
    struct stats_owner owner, after;
    enum err err = stats_owner_read(stats->call, partition, &owner, why);

    /* A rebuild that ends now removes what we are reading: then it would look like 0. */
    for (int i = 0; err == ERR_OK && i < TRIES_MAX; i++) {
        stats->rebuilding = owner.rebuilding;
        stats->as_of_us = owner.updated_us;
        if (owner.generation == 0) {
            rows_forget(stats);
            return ERR_OK;
        }
        err = generation_read(stats, &owner, why);
        if (err == ERR_OK)
            err = stats_owner_read(stats->call, partition, &after, why);
        if (err == ERR_OK && after.generation == owner.generation)
            return ERR_OK;
        owner = after;
    }
    return err == ERR_OK
               ? err_set(why, ERR_AGAIN, "redis: counts are being rebuilt")
               : err;
}

void
stats_provisional(struct stats *stats)
{
    struct why why = {{0}};
    int64_t began_us = clock_mono_us();

    stats->redis_away = !away_ask(stats->call->redis_away, began_us);
    if (stats->redis_away)
        return;
    enum err err = rows_read(stats, &why);
    away_report(stats->call->redis_away, err, began_us, clock_mono_us(), &why);
    if (err == ERR_OK)
        return;
    rows_forget(stats);
    stats->redis_away = true;
    if (err != ERR_AGAIN)
        log_event(LOG_ERROR, "dashboard_redis", LOG_TEXT("why", why.text));
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
        if (n[0] > 0)
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

static enum err
live_read(struct call *call, struct redis_reply **hash, struct stats_owner *owner,
          struct why *why)
{
    char key[REDISKEY_MAX];
    uint32_t partition = partition_of(call);
    struct stats_owner after;
    enum err err = stats_owner_read(call, partition, owner, why);

    for (int i = 0; err == ERR_OK && owner->generation != 0 && i < TRIES_MAX; i++) {
        const struct str words[] = {
            STR("HGETALL"),
            {key,
             rediskey_live(key, partition, owner->generation, call->campaign->id)}};
        err = redis_command(call->redis, words, 2, hash, why);
        if (err == ERR_OK)
            err = stats_owner_read(call, partition, &after, why);
        if (err == ERR_OK && after.generation == owner->generation)
            return ERR_OK;
        redis_reply_free(hash);
        *owner = after;
    }
    return err == ERR_OK ? err_set(why, ERR_NOTFOUND, "no generation yet") : err;
}

enum err
serve_live(struct call *call, struct why *why)
{
    struct redis_reply *hash = NULL;
    struct stats_owner owner;
    int64_t began_us = clock_mono_us();
    enum err err = ERR_AGAIN;

    if (away_ask(call->redis_away, began_us)) {
        err = live_read(call, &hash, &owner, why);
        away_report(call->redis_away, err, began_us, clock_mono_us(), why);
    }
    if (err == ERR_OK)
        live_format(call, hash, &owner);
    else if (err == ERR_NOTFOUND)
        err = err_set(why, ERR_AGAIN,
                      "live counts are unavailable: they are being built");
    else
        err = err_set(why, ERR_AGAIN,
                      "live counts are unavailable: Redis does not answer");
    redis_reply_free(&hash);
    return err;
}

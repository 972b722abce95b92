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
#include "schema/click.h"
#include "schema/text.h"

enum {
    STEP_S = 10,
    STEPS = 30,
    RING = 64,
    NUMBERS_MAX = 6,
    DIGITS_MAX = 18,           /* of a number: fits an int64 */
    TRIES_MAX = 5,             /* the generation may change while we read it */
    SCAN_FIELDS_MAX = 1000000, /* a row whole in one HSCAN */
    FIELDS_MAX = 1 + REASONS_N + 26 * 26 + 1,
    FIELD_SIZE = 40,
};

/* How a row is read, by how many fields it has. Small hashes are lists to Redis: a look for
 * one field goes through all of them, so one HSCAN that goes through once is best. In a
 * large one (thousands of ads and publishers) looks are cheap and HMGET of the fields that
 * can be there passes the others by; only the values of an open dimension need a HSCAN.
 * Measured with 24 rows of 420 fields: 1.8 ms by HSCAN, 15 ms by HMGET. */
enum plan { PLAN_NONE, PLAN_SCAN, PLAN_GET, PLAN_GET_AND_SCAN };

enum { SMALL_FIELDS_MAX = 512 }; /* hash-max-listpack-entries */

/* The fields that HMGET asks for: totals, reasons, and the values of a dimension if they
 * can be listed. */
struct fields {
    char texts[FIELDS_MAX][FIELD_SIZE];
    struct str names[FIELDS_MAX];
    size_t n;
    bool all_groups;
    enum plan plans[STATS_ROWS_MAX];
};

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

/* A dead master of a cluster is nothing to the campaigns of the others. */
static struct away *
redis_away_of(const struct call *call)
{
    return call->redis_away +
           (redis_is_cluster(call->redis) ? 1 + partition_of(call) : 0);
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
row_alive(const struct stats *stats, const struct stats_row *row, int64_t now_ms)
{
    return window_expiry_s(stats->query.window, row->end_ms) * 1000 > now_ms;
}

static void
field_list(struct fields *fields, const char *prefix, const char *name)
{
    char *text = fields->texts[fields->n];
    int n = snprintf(text, FIELD_SIZE, "%s%s", prefix, name);

    assert(n > 0 && n < FIELD_SIZE && fields->n < FIELDS_MAX);
    fields->names[fields->n++] = (struct str){text, (uint32_t)n};
}

static void
fields_list(struct fields *fields, int group)
{
    fields->n = 0;
    fields->all_groups = true;
    field_list(fields, "t", "");
    for (int i = 0; i < REASONS_N; i++)
        field_list(fields, "r:", reason_info((enum reason)i)->name);
    if (group == DIMENSION_DEVICE) {
        for (unsigned i = 0; i < CLICK_DEVICES_N; i++)
            field_list(fields, "d:", click_device_name(i));
        field_list(fields, "d:", "__other__");
    } else if (group == DIMENSION_COUNTRY) {
        for (int i = 0; i < 26 * 26; i++) {
            const char code[] = {(char)('A' + i / 26), (char)('A' + i % 26), '\0'};
            if (country_known((struct str){code, 2}))
                field_list(fields, "n:", code);
        }
        field_list(fields, "n:", "__other__");
    } else {
        fields->all_groups = group == STATS_NO_GROUP;
    }
}

static struct str
row_key(const struct stats *stats, const struct stats_owner *owner,
        const struct stats_row *row, char key[REDISKEY_MAX])
{
    return (struct str){key,
                        rediskey_row(key, partition_of(stats->call),
                                     owner->generation, stats->query.window,
                                     stats->call->campaign->id, row->start_ms)};
}

/* How many fields each row has, and so how to read it. A final row needs its users only. */
static enum err
rows_plan(struct stats *stats, const struct stats_owner *owner,
          struct fields *fields, struct why *why)
{
    int64_t now_ms = clock_now_us() / 1000;
    struct redis *redis = stats->call->redis;
    enum err err = ERR_OK;

    for (uint32_t i = 0; err == ERR_OK && i < stats->n; i++) {
        char key[REDISKEY_MAX];
        const struct str words[] = {STR("HLEN"),
                                    row_key(stats, owner, &stats->rows[i], key)};
        stats->rows[i].wanted = row_alive(stats, &stats->rows[i], now_ms);
        if (stats->rows[i].wanted)
            err = redis_queue(redis, words, 2, why);
    }
    for (uint32_t i = 0; err == ERR_OK && i < stats->n; i++) {
        struct redis_reply *reply = NULL;
        if (!stats->rows[i].wanted)
            continue;
        err = redis_reply_next(redis, &reply, why);
        if (err == ERR_OK)
            fields->plans[i] = stats->rows[i].state == STATS_FINAL  ? PLAN_NONE
                               : reply->integer <= SMALL_FIELDS_MAX ? PLAN_SCAN
                               : fields->all_groups                 ? PLAN_GET
                                                    : PLAN_GET_AND_SCAN;
        redis_reply_free(&reply);
    }
    return err;
}

/* Fields whose name begins with one of letters. */
static enum err
scan_queue(struct redis *redis, struct str key, const char *letters,
           struct why *why)
{
    char pattern[16], count[16];
    const struct str words[] = {
        STR("HSCAN"),
        key,
        STR("0"),
        STR("MATCH"),
        {pattern, (uint32_t)snprintf(pattern, sizeof(pattern), "[%s]*", letters)},
        STR("COUNT"),
        {count, (uint32_t)snprintf(count, sizeof(count), "%d", SCAN_FIELDS_MAX)}};

    return redis_queue(redis, words, sizeof(words) / sizeof(words[0]), why);
}

static enum err
get_queue(struct redis *redis, struct str key, const struct fields *fields,
          struct why *why)
{
    struct str words[2 + FIELDS_MAX] = {STR("HMGET"), key};

    memcpy(words + 2, fields->names, fields->n * sizeof(*words));
    return redis_queue(redis, words, 2 + fields->n, why);
}

static enum err
row_queue(struct stats *stats, const struct stats_owner *owner,
          const struct stats_row *row, enum plan plan, const struct fields *fields,
          struct why *why)
{
    char hash[REDISKEY_MAX], users[REDISKEY_MAX];
    int group = stats->query.group_by;
    const char letters[] = {
        't', 'r', group == STATS_NO_GROUP ? '\0' : DIMENSION_LETTERS[group], '\0'};
    struct redis *redis = stats->call->redis;
    struct str key = row_key(stats, owner, row, hash);
    const struct str count[] = {
        STR("PFCOUNT"),
        {users, rediskey_users(users, partition_of(stats->call), owner->generation,
                               stats->query.window, stats->call->campaign->id,
                               row->start_ms)}};
    enum err err = ERR_OK;

    if (plan == PLAN_GET || plan == PLAN_GET_AND_SCAN)
        err = get_queue(redis, key, fields, why);
    if (err == ERR_OK && plan == PLAN_SCAN)
        err = scan_queue(redis, key, letters, why);
    if (err == ERR_OK && plan == PLAN_GET_AND_SCAN)
        err = scan_queue(redis, key, letters + 2, why);
    return err == ERR_OK ? redis_queue(redis, count, 2, why) : err;
}

static void
field_take(struct stats *stats, struct stats_row *row, struct str name,
           struct str value)
{
    int group = stats->query.group_by;
    int64_t n[NUMBERS_MAX];

    numbers_parse(value, n);
    struct stats_cell cell = cell_of(n);
    struct str rest = name.n < 2 ? STR("") : (struct str){name.p + 2, name.n - 2};
    if (str_equal(name, STR("t"))) {
        row->all = cell;
        row->duplicate = (uint64_t)n[4];
        row->quarantined = (uint64_t)n[5];
    } else if (name.n < 2 || name.p[1] != ':') {
        return;
    } else if (name.p[0] == 'r') {
        enum reason reason = reason_find(rest);
        if (reason < REASONS_N)
            row->reasons[reason] = (uint64_t)n[0];
    } else if (group != STATS_NO_GROUP && name.p[0] == DIMENSION_LETTERS[group]) {
        stats_group_add(stats, rest, &cell);
    }
}

/* A cursor, and fields with their values. */
static enum err
scan_read(struct stats *stats, struct stats_row *row, struct why *why)
{
    struct redis_reply *reply = NULL;
    enum err err = redis_reply_next(stats->call->redis, &reply, why);

    if (err == ERR_OK &&
        (reply->count != 2 || !str_equal(reply->items[0]->text, STR("0"))))
        err = err_set(why, ERR_FATAL, "redis: a row of over %d fields",
                      SCAN_FIELDS_MAX);
    if (err == ERR_OK) {
        const struct redis_reply *pairs = reply->items[1];
        for (size_t i = 0; i + 1 < pairs->count; i += 2)
            field_take(stats, row, pairs->items[i]->text,
                       pairs->items[i + 1]->text);
        stats_groups_end(stats, row);
    }
    redis_reply_free(&reply);
    return err;
}

static enum err
get_read(struct stats *stats, struct stats_row *row, const struct fields *fields,
         struct why *why)
{
    struct redis_reply *reply = NULL;
    enum err err = redis_reply_next(stats->call->redis, &reply, why);

    if (err == ERR_OK && reply->count != fields->n)
        err = err_set(why, ERR_FATAL, "redis: a reply of the wrong shape");
    if (err == ERR_OK) {
        for (size_t i = 0; i < fields->n; i++)
            if (reply->items[i]->type != REDIS_NIL)
                field_take(stats, row, fields->names[i], reply->items[i]->text);
        if (fields->all_groups)
            stats_groups_end(stats, row);
    }
    redis_reply_free(&reply);
    return err;
}

static enum err
row_read(struct stats *stats, struct stats_row *row, enum plan plan,
         const struct fields *fields, struct why *why)
{
    struct redis_reply *users = NULL;
    enum err err = ERR_OK;

    if (plan != PLAN_NONE)
        stats_row_clear(row);
    if (plan == PLAN_GET || plan == PLAN_GET_AND_SCAN)
        err = get_read(stats, row, fields, why);
    if (err == ERR_OK && (plan == PLAN_SCAN || plan == PLAN_GET_AND_SCAN))
        err = scan_read(stats, row, why);
    if (plan != PLAN_NONE)
        row->state = err == ERR_OK ? STATS_PROVISIONAL : STATS_UNAVAILABLE;
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
                struct fields *fields, struct why *why)
{
    enum err err = rows_plan(stats, owner, fields, why);

    for (uint32_t i = 0; err == ERR_OK && i < stats->n; i++) {
        if (stats->rows[i].wanted)
            err = row_queue(stats, owner, &stats->rows[i], fields->plans[i], fields,
                            why);
    }
    for (uint32_t i = 0; err == ERR_OK && i < stats->n; i++) {
        if (stats->rows[i].wanted) {
            err = row_read(stats, &stats->rows[i], fields->plans[i], fields, why);
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
    struct fields fields;
    enum err err = stats_owner_read(stats->call, partition, &owner, why);

    fields_list(&fields, stats->query.group_by);
    /* A rebuild that ends now removes what we are reading: then it would look like 0. */
    for (int i = 0; err == ERR_OK && i < TRIES_MAX; i++) {
        stats->rebuilding = owner.rebuilding;
        stats->as_of_us = owner.updated_us;
        if (owner.generation == 0) {
            rows_forget(stats);
            return ERR_OK;
        }
        err = generation_read(stats, &owner, &fields, why);
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
    struct away *away = redis_away_of(stats->call);

    stats->redis_away = !away_ask(away, began_us);
    if (stats->redis_away)
        return;
    enum err err = rows_read(stats, &why);
    away_report(away, err, began_us, clock_mono_us(), &why);
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

    if (away_ask(redis_away_of(call), began_us)) {
        err = live_read(call, &hash, &owner, why);
        away_report(redis_away_of(call), err, began_us, clock_mono_us(), why);
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

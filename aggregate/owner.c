#include "aggregate/owner.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "schema/rediskeys.h"

enum { NUMBER_MAX = 24 };

/* ARGV: least epoch, now. Returns the record as it was, and the new epoch. */
static const char claim_script[] =
    "local was = redis.call('HGETALL', KEYS[1])\n"
    "local had = tonumber(redis.call('HGET', KEYS[1], 'epoch') or '0') or 0\n"
    "local epoch = tonumber(ARGV[1])\n"
    "if had >= epoch then epoch = had + 1 end\n"
    "local text = string.format('%.0f', epoch)\n"
    "redis.call('HSET', KEYS[1], 'epoch', text)\n"
    "return {text, was}\n";

/* ARGV: epoch, generation, offset, log, now. The old generation's offset goes: should Redis
 * forget the switch, in a failover, no flush of what is built may be taken for one of the
 * old generation. */
static const char begin_script[] =
    "local epoch = redis.call('HGET', KEYS[1], 'epoch')\n"
    "if epoch ~= ARGV[1] then return redis.error_reply('EPOCH ' .. "
    "tostring(epoch)) end\n"
    "redis.call('HSET', KEYS[1], 'building', ARGV[2], 'build_offset', ARGV[3],\n"
    "  'offset', '',\n"
    "  'log', ARGV[4], 'dirty', '0', 'seqs', '',\n"
    "  'updated_us', ARGV[5])\n"
    "return 1\n";

/* ARGV: epoch, offset, now */
static const char switch_script[] =
    "local o = redis.call('HMGET', KEYS[1], 'epoch', 'build_offset', 'dirty', "
    "'building')\n"
    "if o[1] ~= ARGV[1] then return redis.error_reply('EPOCH ' .. tostring(o[1])) "
    "end\n"
    "if o[2] ~= ARGV[2] then return redis.error_reply('OFFSET ' .. tostring(o[2])) "
    "end\n"
    "if o[3] ~= '0' then return redis.error_reply('DIRTY ' .. tostring(o[3])) end\n"
    "redis.call('HSET', KEYS[1], 'generation', o[4], 'offset', o[2], 'building', "
    "'',\n"
    "  'updated_us', ARGV[3])\n"
    "return 1\n";

static struct seqs
seqs_push(struct seqs seqs, uint64_t incarnation, uint64_t last)
{
    if (seqs.n == SEQS_MAX) {
        for (uint32_t i = 1; i < SEQS_MAX; i++)
            seqs.of[i - 1] = seqs.of[i];
        seqs.n--;
    }
    seqs.of[seqs.n].incarnation = incarnation;
    seqs.of[seqs.n].last = last;
    seqs.n++;
    return seqs;
}

enum seq_answer
seqs_take(struct seqs *seqs, uint64_t incarnation, uint64_t seq, bool baseline)
{
    for (uint32_t i = seqs->n; i-- > 0;) {
        if (seqs->of[i].incarnation != incarnation)
            continue;
        if (seq <= seqs->of[i].last)
            return SEQ_AGAIN;
        if (seq != seqs->of[i].last + 1)
            return SEQ_GAP;
        seqs->of[i].last = seq;
        return SEQ_NEXT;
    }
    if (seq != 0 && !baseline)
        return SEQ_GAP;
    *seqs = seqs_push(*seqs, incarnation, seq);
    return SEQ_NEXT;
}

bool
seqs_known(const struct seqs *seqs, uint64_t incarnation)
{
    for (uint32_t i = 0; i < seqs->n; i++)
        if (seqs->of[i].incarnation == incarnation)
            return true;
    return false;
}

uint64_t
seqs_expected(const struct seqs *seqs, uint64_t incarnation)
{
    for (uint32_t i = 0; i < seqs->n; i++)
        if (seqs->of[i].incarnation == incarnation)
            return seqs->of[i].last + 1;
    return 0;
}

static uint64_t
number_of(struct str text)
{
    uint64_t v = 0;

    for (uint32_t i = 0; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9')
            return 0;
        v = v * 10 + (uint64_t)(text.p[i] - '0');
    }
    return v;
}

uint32_t
seqs_format(const struct seqs *seqs, char *text)
{
    uint32_t at = 0;

    text[0] = '\0';
    for (uint32_t i = 0; i < seqs->n; i++)
        at += (uint32_t)snprintf(text + at, SEQS_TEXT_MAX - at,
                                 "%s%" PRIx64 ":%" PRIu64, i == 0 ? "" : ",",
                                 seqs->of[i].incarnation, seqs->of[i].last);
    return at;
}

/* What does not parse ends the list: then the next record is a gap, and an alarm. */
static struct seqs
seqs_parse(struct str value)
{
    char text[SEQS_TEXT_MAX], *p = text;
    struct seqs seqs = {0};

    if (value.n >= sizeof(text))
        return seqs;
    memcpy(text, value.p, value.n);
    text[value.n] = '\0';
    while (*p != '\0') {
        uint64_t incarnation = strtoull(p, &p, 16);

        if (*p++ != ':')
            break;
        seqs = seqs_push(seqs, incarnation, strtoull(p, &p, 10));
        if (*p != ',')
            break;
        p++;
    }
    return seqs;
}

static void
field_take(struct owner_state *state, struct str field, struct str value,
           unsigned *seen)
{
    uint64_t v = number_of(value);

    if (str_equal(field, STR("epoch")))
        state->epoch = v;
    else if (str_equal(field, STR("offset")))
        state->offset = v;
    else if (str_equal(field, STR("generation")))
        state->generation = (uint32_t)v;
    else if (str_equal(field, STR("building")))
        state->building = (uint32_t)v;
    else if (str_equal(field, STR("build_offset")))
        state->build_offset = v;
    else if (str_equal(field, STR("updated_us")))
        state->updated_us = (int64_t)v;
    else if (str_equal(field, STR("event_ms")))
        state->event_ms = (int64_t)v;
    else if (str_equal(field, STR("dirty"))) {
        state->dirty = v != 0;
        *seen |= 1;
    } else if (str_equal(field, STR("log"))) {
        state->log = v;
        *seen |= 2;
    } else if (str_equal(field, STR("seqs")))
        state->seqs = seqs_parse(value);
}

static void
state_fill(struct owner_state *out, const struct redis_reply *hash)
{
    unsigned seen = 0;

    *out = (struct owner_state){0};
    if (hash->type != REDIS_ARRAY)
        return;
    for (size_t i = 0; i + 1 < hash->count; i += 2)
        field_take(out, hash->items[i]->text, hash->items[i + 1]->text, &seen);
    out->found = seen == 3 && (out->generation != 0 || out->building != 0);
}

static struct str
number_text(char out[NUMBER_MAX], uint64_t v)
{
    int n = snprintf(out, NUMBER_MAX, "%" PRIu64, v);

    return (struct str){out, (uint32_t)n};
}

static enum err
eval(struct redis *redis, const char *script, uint32_t partition,
     const uint64_t *numbers, size_t n, struct redis_reply **out, struct why *why)
{
    char key[REDISKEY_MAX], sha[41], text[5][NUMBER_MAX];
    struct str keys[1], args[5];

    assert(n <= 5);
    keys[0] = (struct str){key, rediskey_owner(key, partition)};
    for (size_t i = 0; i < n; i++)
        args[i] = number_text(text[i], numbers[i]);
    redis_script_sha(script, sha);
    return redis_eval(redis, script, sha, keys, 1, args, n, out, why);
}

enum err
owner_claim(struct redis *redis, uint32_t partition, uint64_t epoch_min,
            int64_t now_us, struct owner_state *out, struct why *why)
{
    const uint64_t numbers[] = {epoch_min, (uint64_t)now_us};
    struct redis_reply *reply = NULL;
    enum err err = eval(redis, claim_script, partition, numbers, 2, &reply, why);

    if (err != ERR_OK)
        return err;
    if (reply->type != REDIS_ARRAY || reply->count != 2)
        err = err_set(why, ERR_FATAL,
                      "redis: an answer of the wrong shape to a claim");
    else {
        state_fill(out, reply->items[1]);
        out->epoch = number_of(reply->items[0]->text);
    }
    redis_reply_free(&reply);
    return err;
}

enum err
owner_read(struct redis *redis, uint32_t partition, struct owner_state *out,
           struct why *why)
{
    char key[REDISKEY_MAX];
    struct str words[2] = {STR("HGETALL"), {key, 0}};
    struct redis_reply *reply = NULL;
    enum err err;

    words[1].n = rediskey_owner(key, partition);
    err = redis_command(redis, words, 2, &reply, why);
    if (err != ERR_OK)
        return err;
    state_fill(out, reply);
    redis_reply_free(&reply);
    return ERR_OK;
}

enum err
owner_begin(struct redis *redis, uint32_t partition, uint64_t epoch,
            uint32_t generation, uint64_t offset, uint64_t log, int64_t now_us,
            struct why *why)
{
    const uint64_t numbers[] = {epoch, generation, offset, log, (uint64_t)now_us};

    return eval(redis, begin_script, partition, numbers, 5, NULL, why);
}

enum err
owner_switch(struct redis *redis, uint32_t partition, uint64_t epoch,
             uint64_t offset, int64_t now_us, struct why *why)
{
    const uint64_t numbers[] = {epoch, offset, (uint64_t)now_us};

    return eval(redis, switch_script, partition, numbers, 3, NULL, why);
}

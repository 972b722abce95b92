/* WATCH, a look, then MULTI and EXEC in one write; see redis.h. A script would do the same
 * in one step, but Redis spends most of a script's time on turning its arguments into Lua's
 * strings and back. */
#include <assert.h>

#include "common/clock.h"
#include "common/redis_impl.h"

enum { WATCH_TRIES = 4 }; /* the slot may have moved */

static const struct str multi[] = {{"MULTI", 5}}, exec[] = {{"EXEC", 4}};

void
redis_transaction_free(struct redis_transaction *t)
{
    buf_free(&t->commands);
}

void
redis_add_reset(struct redis *redis)
{
    buf_reset(&redis->transaction.commands);
    redis->transaction.n = 0;
}

enum err
redis_add(struct redis *redis, const struct str *words, size_t n, struct why *why)
{
    struct redis_transaction *t = &redis->transaction;
    const struct redis_words run = {words, n}, first = {multi, 1};
    enum err err = ERR_OK;

    assert(n > 0);
    if (t->commands.max == 0)
        t->commands = BUF_MAX(REDIS_COMMAND_BYTES_MAX);
    if (t->n == 0)
        err = redis_words_put(&t->commands, &first, 1, why);
    if (err == ERR_OK)
        err = redis_words_put(&t->commands, &run, 1, why);
    t->n++;
    if (err != ERR_OK)
        redis_add_reset(redis);
    return err;
}

/* The link is gone. */
static enum err
failed(struct redis *redis, int64_t began_us, const struct why *why)
{
    struct redis_transaction *t = &redis->transaction;

    if (redis->cluster != NULL)
        cluster_link_failed(redis->cluster, t->node, why, began_us);
    t->link = NULL;
    t->due = 0;
    return ERR_AGAIN;
}

static enum err
reply_read(struct redis *redis, redisReply **raw, struct why *why)
{
    int64_t began_us = clock_mono_us();
    struct why own;

    if (why == NULL)
        why = &own;
    if (redis_link_read(redis->transaction.link, raw, why) != ERR_OK)
        return failed(redis, began_us, why);
    return ERR_OK;
}

static enum err
bytes_send(struct redis *redis, const struct buf *bytes, struct why *why)
{
    int64_t began_us = clock_mono_us();
    struct why own;

    if (why == NULL)
        why = &own;
    if (redis_link_write(redis->transaction.link, bytes->p, bytes->n, why) !=
        ERR_OK)
        return failed(redis, began_us, why);
    return ERR_OK;
}

static enum err
link_open(struct redis *redis, struct str key, struct why *why)
{
    struct redis_transaction *t = &redis->transaction;
    enum err err;

    if (redis->cluster != NULL) {
        t->link = cluster_link(redis->cluster, key, &t->node, why);
        return t->link == NULL ? ERR_AGAIN : ERR_OK;
    }
    while (redis->link.replies_due > 0)
        (void)redis_reply_next(redis, NULL, NULL);
    err = redis_link_connect(&redis->link, why);
    t->link = err == ERR_OK ? &redis->link : NULL;
    return err;
}

/* A reply that stands; *moved: its slot is at another node, which is known now. */
static enum err
answer_take(struct redis *redis, redisReply *raw, struct redis_reply **out,
            bool *moved, struct why *why)
{
    enum link_answer answer =
        redis->cluster == NULL
            ? LINK_STANDS
            : cluster_link_answer(redis->cluster, redis->transaction.node, raw);

    if (answer == LINK_STANDS)
        return redis_reply_take(raw, out, why);
    *moved = *moved || answer == LINK_MOVED;
    (void)err_set(why, ERR_AGAIN, "redis: %s", raw->str);
    freeReplyObject(raw);
    return ERR_AGAIN;
}

/* All at once; what a watch before this one left is forgotten. */
static enum err
watch_once(struct redis *redis, struct str key, const struct str *words, size_t n,
           struct redis_reply **out, bool *moved, struct why *why)
{
    enum { COMMANDS = 3, LAST = COMMANDS - 1 };
    const struct str unwatch[] = {STR("UNWATCH")}, watch[] = {STR("WATCH"), key};
    const struct redis_words runs[COMMANDS] = {
        {unwatch, 1}, {watch, 2}, {words, n}};
    struct buf bytes = BUF_MAX(REDIS_COMMAND_BYTES_MAX);
    enum err err = link_open(redis, key, why);

    *moved = false;
    for (int i = 0; i < COMMANDS && err == ERR_OK; i++)
        err = redis_words_put(&bytes, &runs[i], 1, why);
    if (err == ERR_OK)
        err = bytes_send(redis, &bytes, why);
    bool sent = err == ERR_OK;
    buf_free(&bytes);
    for (int i = 0; sent && i < COMMANDS && redis->transaction.link != NULL; i++) {
        redisReply *raw = NULL;
        struct why each;
        enum err one = reply_read(redis, &raw, &each);

        if (raw != NULL)
            one = answer_take(redis, raw, i == LAST ? out : NULL, moved, &each);
        if (err == ERR_OK && one != ERR_OK && why != NULL)
            *why = each;
        if (err == ERR_OK)
            err = one;
    }
    if (err != ERR_OK) {
        redis_reply_free(out);
        redis->transaction.link = NULL;
    }
    return err;
}

enum err
redis_watch(struct redis *redis, struct str key, const struct str *words, size_t n,
            struct redis_reply **out, struct why *why)
{
    enum err err;
    bool moved;
    int tries = 0;

    assert(n > 0 && redis->transaction.due == 0);
    *out = NULL;
    do
        err = watch_once(redis, key, words, n, out, &moved, why);
    while (err != ERR_OK && moved && ++tries < WATCH_TRIES);
    return err;
}

enum err
redis_exec_send(struct redis *redis, struct why *why)
{
    struct redis_transaction *t = &redis->transaction;
    const struct redis_words last = {exec, 1};
    enum err err;

    assert(t->n > 0 && t->due == 0);
    if (t->link == NULL || t->link->context == NULL)
        err = err_set(why, ERR_AGAIN, "redis: the connection does not watch");
    else
        err = redis_words_put(&t->commands, &last, 1, why);
    if (err == ERR_OK)
        err = bytes_send(redis, &t->commands, why);
    if (err == ERR_OK)
        t->due = t->n + 2;
    redis_add_reset(redis);
    return err;
}

/* "EXECABORT Transaction discarded because of: OOM ...": of the server's state changing
 * between the commands and EXEC. What follows the colon is an error like others. */
static void
reason_bare(redisReply *raw)
{
    static const char head[] = "EXECABORT Transaction discarded because of: ";
    size_t n = sizeof(head) - 1;

    if (raw->len <= n || strncmp(raw->str, head, n) != 0)
        return;
    raw->len -= n;
    memmove(raw->str, raw->str + n, raw->len + 1);
}

/* EXEC's own reply. queued: what a command was refused with before, if any was. */
static enum err
result_take(struct redis *redis, redisReply *raw, enum err queued, struct why *why)
{
    bool ran = raw->type == REDIS_REPLY_ARRAY,
         changed = raw->type == REDIS_REPLY_NIL, moved = false;
    enum err err;

    if (queued != ERR_OK) {
        freeReplyObject(raw);
        return queued;
    }
    if (raw->type == REDIS_REPLY_ERROR) {
        reason_bare(raw);
        return answer_take(redis, raw, NULL, &moved, why);
    }
    err = redis_reply_take(raw, NULL, why);
    if (changed)
        return err_set(why, ERR_CONFLICT,
                       "redis: a watched key was written to by somebody else");
    return err != ERR_OK && ran ? ERR_CORRUPT : err;
}

enum err
redis_exec_end(struct redis *redis, struct why *why)
{
    struct redis_transaction *t = &redis->transaction;
    enum err queued = ERR_OK;
    bool moved = false;

    assert(t->due > 0);
    while (t->due > 0) {
        redisReply *raw = NULL;
        enum err err = reply_read(redis, &raw, why);

        if (err != ERR_OK)
            return err;
        if (--t->due == 0) {
            t->link = NULL;
            return result_take(redis, raw, queued, why);
        }
        if (raw->type == REDIS_REPLY_ERROR && queued == ERR_OK)
            queued = answer_take(redis, raw, NULL, &moved, why);
        else
            freeReplyObject(raw);
    }
    return queued;
}

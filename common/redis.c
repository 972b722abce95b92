#include "common/redis.h"

#include <assert.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/hash.h"
#include "common/redis_impl.h"

enum { COUNT_TEXT_MAX = 24 };

static enum err
address_read(struct redis *redis, const char *address, int64_t timeout_us,
             struct why *why)
{
    static const char prefix[] = "cluster:";

    if (strncmp(address, prefix, sizeof(prefix) - 1) == 0)
        return cluster_open(&redis->cluster, address + sizeof(prefix) - 1,
                            timeout_us, why);
    if (redis_link_init(&redis->link, address, timeout_us))
        return ERR_OK;
    return err_set(
        why, ERR_INVALID,
        "redis address \"%s\": write host:port or unix:/path (at most 107 bytes), "
        "or cluster:host:port,host:port",
        address);
}

enum err
redis_open(struct redis **out, const char *address, int64_t timeout_us,
           struct why *why)
{
    assert(out != NULL);
    assert(timeout_us > 0);
    *out = NULL;

    struct redis *redis = calloc(1, sizeof(*redis));
    if (redis == NULL)
        return err_set(why, ERR_NOMEM, "redis: no memory");
    enum err err = address_read(redis, address, timeout_us, why);
    if (err != ERR_OK)
        redis_close(&redis);
    *out = redis;
    return err;
}

void
redis_close(struct redis **redis)
{
    assert(redis != NULL);
    if (*redis == NULL)
        return;
    redis_transaction_free(&(*redis)->transaction);
    redis_link_free(&(*redis)->link);
    cluster_close(&(*redis)->cluster);
    free(*redis);
    *redis = NULL;
}

bool
redis_is_cluster(const struct redis *redis)
{
    return redis->cluster != NULL;
}

enum err
redis_queue(struct redis *redis, const struct str *words, size_t n, struct why *why)
{
    const struct redis_words run = {words, n};

    assert(redis != NULL);
    assert(n > 0 && redis->transaction.due == 0);
    redis->transaction.link = NULL;
    return redis->cluster == NULL
               ? redis_link_queue(&redis->link, &run, 1, why)
               : cluster_queue(redis->cluster, NULL, &run, 1, why);
}

enum err
redis_reply_next(struct redis *redis, struct redis_reply **out, struct why *why)
{
    redisReply *raw = NULL;
    enum err err;

    assert(redis != NULL);
    if (out != NULL)
        *out = NULL;
    if (redis->cluster != NULL)
        return cluster_next(redis->cluster, out, why);
    if (redis->link.replies_due == 0)
        return err_set(why, ERR_AGAIN,
                       "redis: the connection was lost before the reply");
    err = redis_link_read(&redis->link, &raw, why);
    return err == ERR_OK ? redis_reply_take(raw, out, why) : err;
}

/* Replies that a caller left behind would answer the wrong command. */
static void
drain(struct redis *redis)
{
    while (redis->link.replies_due > 0)
        (void)redis_reply_next(redis, NULL, NULL);
}

static enum err
command(struct redis *redis, const struct str *key, const struct redis_words *runs,
        size_t runs_n, struct redis_reply **out, struct why *why)
{
    enum err err;

    assert(redis->transaction.due == 0);
    redis->transaction.link = NULL;
    if (out != NULL)
        *out = NULL;
    if (redis->cluster != NULL)
        return cluster_command(redis->cluster, key, runs, runs_n, out, why);
    drain(redis);
    err = redis_link_queue(&redis->link, runs, runs_n, why);
    return err == ERR_OK ? redis_reply_next(redis, out, why) : err;
}

enum err
redis_command(struct redis *redis, const struct str *words, size_t n,
              struct redis_reply **out, struct why *why)
{
    assert(redis != NULL);
    assert(n > 0);
    return command(redis, NULL, &(struct redis_words){words, n}, 1, out, why);
}

enum err
redis_command_at(struct redis *redis, struct str key, const struct str *words,
                 size_t n, struct redis_reply **out, struct why *why)
{
    assert(redis != NULL);
    assert(n > 0);
    return command(redis, &key, &(struct redis_words){words, n}, 1, out, why);
}

enum err
redis_eval(struct redis *redis, const char *script, const char *sha,
           const struct str *keys, size_t keys_n, const struct str *args,
           size_t args_n, struct redis_reply **out, struct why *why)
{
    char count[COUNT_TEXT_MAX];
    struct str head[3] = {STR("EVALSHA"), str_of(sha), {count, 0}};
    const struct redis_words runs[] = {{head, 3}, {keys, keys_n}, {args, args_n}};
    enum err err;

    assert(redis != NULL);
    head[2].n = (uint32_t)snprintf(count, sizeof(count), "%zu", keys_n);
    err = command(redis, NULL, runs, 3, out, why);
    if (err != ERR_NOTFOUND)
        return err;
    head[0] = STR("EVAL");
    head[1] = str_of(script);
    return command(redis, NULL, runs, 3, out, why);
}

void
redis_script_sha(const char *script, char sha[41])
{
    uint8_t digest[EVP_MAX_MD_SIZE];

    if (EVP_Digest(script, strlen(script), digest, NULL, EVP_sha1(), NULL) != 1)
        abort();
    hash_hex(digest, 20, sha);
}

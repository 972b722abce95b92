#include "common/redis.h"

#include <assert.h>
#include <errno.h>
#include <hiredis/hiredis.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/hash.h"

enum {
    HOST_MAX = 256,
    PATH_MAX_UNIX = 107, /* sockaddr_un, without its terminator */
    FLUSH_BYTES =
        65536, /* queued bytes that are sent before a reply is asked for */
    COMMAND_BYTES_MAX = 1 << 29, /* Redis's own limit of a word */
    LENGTH_TEXT_MAX = 24,        /* '*' or '$', digits of a size_t, CR LF */
};

struct redis {
    redisContext *context; /* NULL: not connected */
    struct timeval timeout;
    int port; /* 0: host is the path of a Unix socket */
    char host[HOST_MAX];
    struct buf out;     /* commands not sent yet */
    size_t replies_due; /* queued commands whose reply is not taken yet */
};

static enum err
bad_address(const char *address, struct why *why)
{
    return err_set(
        why, ERR_INVALID,
        "redis address \"%s\": write host:port or unix:/path (at most %d bytes)",
        address, PATH_MAX_UNIX);
}

/* host:port, where host may be an IPv6 address in brackets. */
static bool
split_host(struct redis *redis, const char *address)
{
    const char *colon = strrchr(address, ':');
    size_t n = colon == NULL ? 0 : (size_t)(colon - address);
    int port = 0;

    if (n > 2 && address[0] == '[' && address[n - 1] == ']') {
        address++;
        n -= 2;
    }
    if (n == 0 || n >= HOST_MAX || colon[1] == '\0' || strlen(colon + 1) > 5)
        return false;
    for (const char *p = colon + 1; *p != '\0'; p++) {
        if (*p < '0' || *p > '9')
            return false;
        port = port * 10 + (*p - '0');
    }
    memcpy(redis->host, address, n);
    redis->host[n] = '\0';
    redis->port = port;
    return port > 0 && port <= 65535;
}

static bool
split_address(struct redis *redis, const char *address)
{
    static const char prefix[] = "unix:";
    size_t n = strlen(address);

    if (strncmp(address, prefix, sizeof(prefix) - 1) != 0)
        return split_host(redis, address);
    n -= sizeof(prefix) - 1;
    if (n == 0 || n > PATH_MAX_UNIX)
        return false;
    memcpy(redis->host, address + sizeof(prefix) - 1, n + 1);
    redis->port = 0;
    return true;
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
    redis->timeout = (struct timeval){.tv_sec = timeout_us / 1000000,
                                      .tv_usec = timeout_us % 1000000};
    redis->out = BUF_MAX(COMMAND_BYTES_MAX);
    if (!split_address(redis, address)) {
        redis_close(&redis);
        return bad_address(address, why);
    }
    *out = redis;
    return ERR_OK;
}

/* Throws the connection away with all that was queued on it. */
static void
disconnect(struct redis *redis)
{
    if (redis->context != NULL)
        redisFree(redis->context);
    redis->context = NULL;
    redis->replies_due = 0;
    buf_reset(&redis->out);
}

void
redis_close(struct redis **redis)
{
    assert(redis != NULL);
    if (*redis == NULL)
        return;
    disconnect(*redis);
    buf_free(&(*redis)->out);
    free(*redis);
    *redis = NULL;
}

static enum err
lost(struct redis *redis, const char *reason, struct why *why)
{
    enum err err = redis->port == 0 ? err_set(why, ERR_AGAIN, "redis at %s: %s",
                                              redis->host, reason)
                                    : err_set(why, ERR_AGAIN, "redis at %s:%d: %s",
                                              redis->host, redis->port, reason);

    disconnect(redis);
    return err;
}

static enum err
connect_if_needed(struct redis *redis, struct why *why)
{
    redisContext *context;

    if (redis->context != NULL)
        return ERR_OK;
    context =
        redis->port == 0
            ? redisConnectUnixWithTimeout(redis->host, redis->timeout)
            : redisConnectWithTimeout(redis->host, redis->port, redis->timeout);
    redis->context = context;
    if (context == NULL)
        return lost(redis, "no memory", why);
    if (context->err != 0)
        return lost(redis, context->errstr, why);
    if (redisSetTimeout(context, redis->timeout) != REDIS_OK)
        return lost(redis, "its time-out cannot be set", why);
    return ERR_OK;
}

/* Sends what is queued. We write to the socket ourselves: hiredis would copy each
 * command twice more on its way through its own buffer. */
static enum err
flush(struct redis *redis, struct why *why)
{
    struct buf *out = &redis->out;
    size_t done = 0;

    while (done < out->n) {
        ssize_t n = write(redis->context->fd, out->p + done, out->n - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return lost(redis, "time-out while sending", why);
        if (n < 0)
            return lost(redis, strerror(errno), why);
        done += (size_t)n;
    }
    buf_reset(out);
    return ERR_OK;
}

/* "*3\r\n" or "$12\r\n" at to. */
static uint8_t *
put_length(uint8_t *to, char mark, size_t n)
{
    char digits[LENGTH_TEXT_MAX];
    int i = 0;

    do {
        digits[i++] = (char)('0' + n % 10);
        n /= 10;
    } while (n > 0);
    *to++ = (uint8_t)mark;
    while (i > 0)
        *to++ = (uint8_t)digits[--i];
    *to++ = '\r';
    *to++ = '\n';
    return to;
}

static uint8_t *
put_words(uint8_t *to, const struct str *words, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        to = put_length(to, '$', words[i].n);
        if (words[i].n > 0)
            memcpy(to, words[i].p, words[i].n);
        to += words[i].n;
        *to++ = '\r';
        *to++ = '\n';
    }
    return to;
}

struct words {
    const struct str *p;
    size_t n;
};

/* One command from several runs of words, so that nobody has to join arrays. */
static enum err
queue(struct redis *redis, const struct words *runs, size_t runs_n, struct why *why)
{
    size_t total = 0, room = LENGTH_TEXT_MAX;
    enum err err = connect_if_needed(redis, why);

    if (err != ERR_OK)
        return err;
    for (size_t i = 0; i < runs_n; i++) {
        total += runs[i].n;
        for (size_t j = 0; j < runs[i].n; j++)
            room += runs[i].p[j].n + LENGTH_TEXT_MAX + 2;
    }
    assert(total > 0);

    uint8_t *to = buf_room(&redis->out, room);
    if (to == NULL) {
        redis->out.failed = false;
        return err_set(why, room > COMMAND_BYTES_MAX / 2 ? ERR_INVALID : ERR_NOMEM,
                       "redis: no room for a command of %zu bytes", room);
    }
    to = put_length(to, '*', total);
    for (size_t i = 0; i < runs_n; i++)
        to = put_words(to, runs[i].p, runs[i].n);
    redis->out.n = (size_t)(to - redis->out.p);
    redis->replies_due++;
    return redis->out.n >= FLUSH_BYTES ? flush(redis, why) : ERR_OK;
}

enum err
redis_queue(struct redis *redis, const struct str *words, size_t n, struct why *why)
{
    assert(redis != NULL);
    assert(n > 0);
    return queue(redis, &(struct words){words, n}, 1, why);
}

static const struct {
    const char *prefix;
    enum err code;
} error_codes[] = {
    {"LOADING", ERR_AGAIN},     {"BUSY", ERR_AGAIN},       {"TRYAGAIN", ERR_AGAIN},
    {"CLUSTERDOWN", ERR_AGAIN}, {"MASTERDOWN", ERR_AGAIN}, {"READONLY", ERR_AGAIN},
    {"NOREPLICAS", ERR_AGAIN},  {"OOM", ERR_FULL},         {"MISCONF", ERR_FULL},
    {"EPOCH", ERR_CONFLICT},    {"OFFSET", ERR_CONFLICT},  {"DIRTY", ERR_CONFLICT},
    {"NOSCRIPT", ERR_NOTFOUND},
};

static enum err
error_reply(const redisReply *reply, struct why *why)
{
    static const char generic[] = "ERR ";
    enum err code = ERR_FATAL;
    const char *name = reply->str;
    size_t word;

    /* Redis 7 puts it before a script's error of one word. */
    if (strncmp(name, generic, sizeof(generic) - 1) == 0)
        name += sizeof(generic) - 1;
    word = strcspn(name, " ");
    for (size_t i = 0; i < sizeof(error_codes) / sizeof(error_codes[0]); i++)
        if (strlen(error_codes[i].prefix) == word &&
            memcmp(error_codes[i].prefix, name, word) == 0)
            code = error_codes[i].code;
    return err_set(why, code, "redis: %s", reply->str);
}

/* The first error in reply, which may be an array that holds one, or NULL. Counts
 * nodes on the way. hiredis bounds the depth (7), so recursion ends. */
static const redisReply *
find_error(const redisReply *reply, size_t *nodes)
{
    const redisReply *error = reply->type == REDIS_REPLY_ERROR ? reply : NULL;

    (*nodes)++;
    if (reply->type != REDIS_REPLY_ARRAY)
        return error;
    for (size_t i = 0; i < reply->elements && error == NULL; i++)
        error = find_error(reply->element[i], nodes);
    return error;
}

/* All nodes and all lists of children of a reply in one block: a reply of 100,000
 * fields costs one malloc here. */
struct tree {
    struct redis_reply *node;
    struct redis_reply **items;
};

static struct redis_reply *
mirror(const redisReply *from, struct tree *tree)
{
    struct redis_reply *to = tree->node++;

    *to = (struct redis_reply){.integer = from->integer};
    if (from->type == REDIS_REPLY_STRING || from->type == REDIS_REPLY_STATUS) {
        to->type = REDIS_TEXT;
        to->text = (struct str){from->str, (uint32_t)from->len};
    } else if (from->type == REDIS_REPLY_INTEGER) {
        to->type = REDIS_INTEGER;
    } else if (from->type == REDIS_REPLY_ARRAY) {
        to->type = REDIS_ARRAY;
        to->count = from->elements;
        to->items = tree->items;
        tree->items += from->elements;
        for (size_t i = 0; i < from->elements; i++)
            to->items[i] = mirror(from->element[i], tree);
    } else {
        to->type = REDIS_NIL;
    }
    return to;
}

/* Takes raw. */
static enum err
reply_take(redisReply *raw, struct redis_reply **out, struct why *why)
{
    size_t nodes = 0;
    const redisReply *error = find_error(raw, &nodes);
    enum err err = error == NULL ? ERR_OK : error_reply(error, why);

    if (err == ERR_OK && out != NULL) {
        struct redis_reply *root = malloc(
            nodes * (sizeof(struct redis_reply) + sizeof(struct redis_reply *)));

        if (root != NULL) {
            struct tree tree = {root,
                                (struct redis_reply **)(void *)(root + nodes)};

            *out = mirror(raw, &tree);
            (*out)->impl = raw;
            return ERR_OK;
        }
        err = err_set(why, ERR_NOMEM, "redis: no memory for a reply of %zu parts",
                      nodes);
    }
    freeReplyObject(raw);
    return err;
}

enum err
redis_reply_next(struct redis *redis, struct redis_reply **out, struct why *why)
{
    void *raw = NULL;
    enum err err;

    assert(redis != NULL);
    if (out != NULL)
        *out = NULL;
    if (redis->replies_due == 0)
        return err_set(why, ERR_AGAIN,
                       "redis: the connection was lost before the reply");
    err = flush(redis, why);
    if (err != ERR_OK)
        return err;
    if (redisGetReply(redis->context, &raw) != REDIS_OK) {
        bool late = redis->context->err == REDIS_ERR_IO &&
                    (errno == EAGAIN || errno == EWOULDBLOCK);

        return lost(redis, late ? "time-out" : redis->context->errstr, why);
    }
    redis->replies_due--;
    return reply_take(raw, out, why);
}

/* Replies that a caller left behind would answer the wrong command. */
static void
drain(struct redis *redis)
{
    while (redis->replies_due > 0)
        (void)redis_reply_next(redis, NULL, NULL);
}

static enum err
command(struct redis *redis, const struct words *runs, size_t runs_n,
        struct redis_reply **out, struct why *why)
{
    enum err err;

    if (out != NULL)
        *out = NULL;
    drain(redis);
    err = queue(redis, runs, runs_n, why);
    return err == ERR_OK ? redis_reply_next(redis, out, why) : err;
}

enum err
redis_command(struct redis *redis, const struct str *words, size_t n,
              struct redis_reply **out, struct why *why)
{
    assert(redis != NULL);
    assert(n > 0);
    return command(redis, &(struct words){words, n}, 1, out, why);
}

enum err
redis_eval(struct redis *redis, const char *script, const char *sha,
           const struct str *keys, size_t keys_n, const struct str *args,
           size_t args_n, struct redis_reply **out, struct why *why)
{
    char count[LENGTH_TEXT_MAX];
    struct str head[3] = {STR("EVALSHA"), str_of(sha), {count, 0}};
    const struct words runs[] = {{head, 3}, {keys, keys_n}, {args, args_n}};
    enum err err;

    assert(redis != NULL);
    head[2].n = (uint32_t)snprintf(count, sizeof(count), "%zu", keys_n);
    err = command(redis, runs, 3, out, why);
    if (err != ERR_NOTFOUND)
        return err;
    head[0] = STR("EVAL");
    head[1] = str_of(script);
    return command(redis, runs, 3, out, why);
}

void
redis_script_sha(const char *script, char sha[41])
{
    uint8_t digest[EVP_MAX_MD_SIZE];

    if (EVP_Digest(script, strlen(script), digest, NULL, EVP_sha1(), NULL) != 1)
        abort();
    hash_hex(digest, 20, sha);
}

void
redis_reply_free(struct redis_reply **reply)
{
    assert(reply != NULL);
    if (*reply == NULL)
        return;
    assert((*reply)->impl != NULL); /* a child is freed with its root */
    freeReplyObject((*reply)->impl);
    free(*reply);
    *reply = NULL;
}

/* From hiredis's replies to ours, and from error replies to codes. */
#include "common/redis_impl.h"

#include <assert.h>
#include <stdlib.h>

static const struct {
    const char *prefix;
    enum err code;
} error_codes[] = {
    {"LOADING", ERR_AGAIN},     {"BUSY", ERR_AGAIN},        {"TRYAGAIN", ERR_AGAIN},
    {"CLUSTERDOWN", ERR_AGAIN}, {"MASTERDOWN", ERR_AGAIN},  {"READONLY", ERR_AGAIN},
    {"NOREPLICAS", ERR_AGAIN},  {"OOM", ERR_FULL},          {"MISCONF", ERR_FULL},
    {"EPOCH", ERR_CONFLICT},    {"OFFSET", ERR_CONFLICT},   {"DIRTY", ERR_CONFLICT},
    {"NOSCRIPT", ERR_NOTFOUND}, {"CROSSSLOT", ERR_INVALID},
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
    if (word == 5 && memcmp(name, "MOVED", word) == 0)
        return err_set(why, code,
                       "redis: %s: this server is a node of a cluster, write "
                       "redis.address as cluster:host:port,...",
                       reply->str);
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

enum err
redis_reply_take(redisReply *raw, struct redis_reply **out, struct why *why)
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

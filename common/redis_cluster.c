/* Redis Cluster: one queue of commands for all nodes.
 *
 * The queue is in the order of queueing. Each command's bytes stay in the out buffer of its
 * node until its reply is taken, so that a redirected one can be sent to another node. A
 * node answers in the order of what was sent to it, which after a redirect is not the
 * queue's order: node->first is who is owed the node's next reply, and replies that come
 * before their turn wait in their pending.
 *
 *   queued --sent, answered--> answered --MOVED, ASK, TRYAGAIN--> queued
 *     |--connection lost after its first byte was sent--> lost: perhaps done: ERR_AGAIN
 *     `--never sent (refused, or lost before)--> unsent --another master--> queued
 *                                                   `--the same, or none--> ERR_AGAIN
 *
 * So no command runs twice by itself. */
#include "common/redis_nodes.h"

#include <assert.h>
#include <stdlib.h>
#include <strings.h>

#include "common/clock.h"

enum {
    TRIES_MAX = 8,   /* redirects and repetitions of one command */
    PAUSE_US = 2000, /* the first, before a command is repeated; then doubled */
};

static const char asking[] = "*1\r\n$6\r\nASKING\r\n";

struct cluster {
    struct nodes nodes;
    struct pending *first, *last, *spare;
};

static struct pending *
pending_new(struct cluster *cluster)
{
    struct pending *p = cluster->spare;

    if (p == NULL)
        return calloc(1, sizeof(*p));
    cluster->spare = p->next;
    *p = (struct pending){0};
    return p;
}

/* The queue's first, whose reply is taken. */
static void
pending_done(struct cluster *cluster)
{
    struct pending *p = cluster->first;

    assert(p->state != PENDING_QUEUED);
    node_release(p);
    if (p->raw != NULL)
        freeReplyObject(p->raw);
    cluster->first = p->next;
    if (cluster->first == NULL)
        cluster->last = NULL;
    p->next = cluster->spare;
    cluster->spare = p;
}

static enum err
queue(struct cluster *cluster, struct node *node, unsigned slot,
      const struct redis_words *runs, size_t runs_n, struct why *why)
{
    struct pending *p = pending_new(cluster);
    enum err err;

    if (p == NULL)
        return err_set(why, ERR_NOMEM, "redis: no memory");
    p->at = node->link.out.n;
    err = redis_link_queue(&node->link, runs, runs_n, why);
    if (err != ERR_OK) {
        p->next = cluster->spare;
        cluster->spare = p;
        return err;
    }
    p->n = node->link.out.n - p->at;
    p->slot = slot;
    node_owe(&cluster->nodes, node, p);
    if (cluster->last == NULL)
        cluster->first = p;
    else
        cluster->last->next = p;
    cluster->last = p;
    if (node->link.out.n - node->link.sent >= REDIS_FLUSH_BYTES)
        node_flush(&cluster->nodes, node);
    return ERR_OK;
}

enum err
cluster_queue(struct cluster *cluster, const struct str *key,
              const struct redis_words *runs, size_t runs_n, struct why *why)
{
    struct str own;
    unsigned slot = SLOT_ANY;

    if (key != NULL)
        slot = redis_slot(*key);
    else if (redis_key_of(runs, runs_n, &own))
        slot = redis_slot(own);
    if (cluster->nodes.stale && cluster->first == NULL)
        nodes_refresh(&cluster->nodes);
    return queue(cluster, nodes_of_slot(&cluster->nodes, slot), slot, runs, runs_n,
                 why);
}

/* Sends p to node (again). */
static enum err
resend(struct cluster *cluster, struct pending *p, struct node *node, bool ask,
       struct why *why)
{
    size_t head = ask ? sizeof(asking) - 1 : 0;
    uint8_t *to = buf_room(&node->link.out, head + p->n);

    assert(p->state != PENDING_QUEUED && p->state != PENDING_LOST);
    if (to == NULL) {
        node->link.out.failed = false;
        return err_set(why, ERR_AGAIN, "redis: no memory to send a command again");
    }
    memcpy(to, asking, head);
    memcpy(to + head, p->node->link.out.p + p->at, p->n);
    if (p->raw != NULL)
        freeReplyObject(p->raw);
    p->raw = NULL;
    struct pending old = *p;
    p->asking = ask;
    p->at = node->link.out.n + head;
    node->link.out.n += head + p->n;
    node_owe(&cluster->nodes, node, p);
    node_release(&old);
    return ERR_OK;
}

static bool
error_is(const redisReply *raw, const char *name)
{
    size_t n = strlen(name);

    return raw->type == REDIS_REPLY_ERROR && strncmp(raw->str, name, n) == 0 &&
           (raw->str[n] == ' ' || raw->str[n] == '\0');
}

/* The node does not serve our slot now, though it should. */
static bool
is_elsewhere(const redisReply *raw)
{
    return error_is(raw, "CLUSTERDOWN") || error_is(raw, "LOADING") ||
           error_is(raw, "MASTERDOWN") || error_is(raw, "READONLY");
}

/* Where the queue's first command is sent next; NULL: its answer stands. */
static struct node *
node_next(struct cluster *cluster, struct pending *p, bool *ask)
{
    struct node *node;

    *ask = false;
    if (p->slot == SLOT_NONE)
        return NULL;
    if (p->state == PENDING_ANSWERED) {
        node = nodes_redirect(&cluster->nodes, p->node, p->raw, ask);
        if (node != NULL)
            return node;
        if (error_is(p->raw, "TRYAGAIN")) {
            clock_sleep_us(PAUSE_US << p->tries);
            return nodes_of_slot(&cluster->nodes, p->slot);
        }
        if (!is_elsewhere(p->raw))
            return NULL;
    }
    nodes_refresh(&cluster->nodes);
    node = nodes_of_slot(&cluster->nodes, p->slot);
    if (nodes_is_away(&cluster->nodes, node))
        return NULL;
    return p->state == PENDING_ANSWERED && node == p->node ? NULL : node;
}

/* Until the queue's first has an answer that stands, or none. */
static enum err
settle(struct cluster *cluster, struct pending *p, struct why *why)
{
    int64_t due_us = clock_mono_us() + cluster->nodes.timeout_us;
    enum err err = ERR_OK;

    while (err == ERR_OK) {
        struct node *node = NULL;
        bool ask = false;

        if (p->state == PENDING_QUEUED)
            nodes_flush(&cluster->nodes);
        if (p->state == PENDING_QUEUED) {
            node_read(&cluster->nodes, p->node);
            continue;
        }
        if (p->state != PENDING_LOST && p->tries++ < TRIES_MAX &&
            clock_mono_us() < due_us)
            node = node_next(cluster, p, &ask);
        if (node == NULL)
            break;
        err = resend(cluster, p, node, ask, why);
    }
    return err;
}

enum err
cluster_next(struct cluster *cluster, struct redis_reply **out, struct why *why)
{
    struct pending *p = cluster->first;
    redisReply *raw;
    enum err err;
    bool ask;

    if (p == NULL)
        return err_set(why, ERR_AGAIN, "redis: no reply is due");
    err = settle(cluster, p, why);
    raw = p->raw;
    p->raw = NULL;
    if (err == ERR_OK && p->state != PENDING_ANSWERED) {
        err = err_set(why, ERR_AGAIN, "%s", p->node->why.text);
    } else if (err == ERR_OK && raw->type == REDIS_REPLY_ERROR &&
               redis_redirect_read(raw->str, "-", &ask, &(struct redis_range){0})) {
        err = err_set(why, ERR_AGAIN, "redis: sent on without end: %s", raw->str);
    } else if (err == ERR_OK) {
        err = redis_reply_take(raw, out, why);
        raw = NULL;
    }
    if (raw != NULL)
        freeReplyObject(raw);
    pending_done(cluster);
    return err;
}

/* --- commands --- */

/* Replies that a caller left behind: what was queued runs, and its answer is dropped. */
static void
drain(struct cluster *cluster)
{
    nodes_flush(&cluster->nodes);
    while (cluster->first != NULL) {
        if (cluster->first->state == PENDING_QUEUED)
            node_read(&cluster->nodes, cluster->first->node);
        else
            pending_done(cluster);
    }
}

static bool
is_for_all(const struct redis_words *run)
{
    static const char *const names[] = {"SCRIPT", "FLUSHALL", "FLUSHDB"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (run->p[0].n == strlen(names[i]) &&
            strncasecmp(run->p[0].p, names[i], run->p[0].n) == 0)
            return true;
    return false;
}

/* SCRIPT EXISTS: on all of them. */
static void
replies_merge(struct redis_reply *into, const struct redis_reply *from)
{
    for (size_t i = 0; into->type == REDIS_ARRAY && i < into->count; i++)
        if (i < from->count && from->items[i]->type == REDIS_INTEGER)
            into->items[i]->integer &= from->items[i]->integer;
}

/* The first error stands, after all have been asked. */
static enum err
command_all(struct cluster *cluster, const struct redis_words *runs, size_t runs_n,
            struct redis_reply **out, struct why *why)
{
    struct redis_reply *all = NULL;
    enum err err = ERR_OK;
    size_t asked = 0;

    if (cluster->nodes.stale)
        nodes_refresh(&cluster->nodes);
    for (size_t i = NODES_NOBODY + 1; i < cluster->nodes.n && err == ERR_OK; i++) {
        struct node *node = cluster->nodes.of[i];

        if (node == NULL || !node->master)
            continue;
        err = queue(cluster, node, SLOT_NONE, runs, runs_n, why);
        asked += err == ERR_OK;
    }
    if (asked == 0 && err == ERR_OK)
        err = err_set(why, ERR_AGAIN, "%s",
                      cluster->nodes.of[NODES_NOBODY]->why.text);
    for (; asked > 0; asked--) {
        struct redis_reply *reply = NULL;
        struct why each;
        enum err one = cluster_next(cluster, &reply, &each);

        if (one != ERR_OK && err == ERR_OK) {
            err = one;
            if (why != NULL)
                *why = each;
        }
        if (reply != NULL && all != NULL)
            replies_merge(all, reply);
        if (all != NULL)
            redis_reply_free(&reply);
        else
            all = reply;
    }
    if (err != ERR_OK || out == NULL)
        redis_reply_free(&all);
    else
        *out = all;
    return err;
}

enum err
cluster_command(struct cluster *cluster, const struct str *key,
                const struct redis_words *runs, size_t runs_n,
                struct redis_reply **out, struct why *why)
{
    enum err err;

    drain(cluster);
    if (key == NULL && is_for_all(runs))
        return command_all(cluster, runs, runs_n, out, why);
    err = cluster_queue(cluster, key, runs, runs_n, why);
    return err == ERR_OK ? cluster_next(cluster, out, why) : err;
}

struct redis_link *
cluster_link(struct cluster *cluster, struct str key, struct node **out,
             struct why *why)
{
    struct nodes *nodes = &cluster->nodes;
    int64_t began_us = clock_mono_us();
    struct node *node;

    drain(cluster);
    if (nodes->stale)
        nodes_refresh(nodes);
    *out = node = nodes_of_slot(nodes, redis_slot(key));
    if (nodes_is_away(nodes, node)) {
        (void)err_set(why, ERR_AGAIN, "%s", node->why.text);
        return NULL;
    }
    if (redis_link_connect(&node->link, why) != ERR_OK) {
        node_fail(nodes, node, true, why, began_us);
        return NULL;
    }
    node->away_until_us = 0;
    node->link.replies_due = 0; /* of commands given up before they were sent */
    return &node->link;
}

void
cluster_link_failed(struct cluster *cluster, struct node *node,
                    const struct why *why, int64_t began_us)
{
    node_fail(&cluster->nodes, node, false, why, began_us);
}

enum link_answer
cluster_link_answer(struct cluster *cluster, const struct node *node,
                    const redisReply *raw)
{
    bool ask = false;

    if (nodes_redirect(&cluster->nodes, node, raw, &ask) != NULL)
        return ask ? LINK_LATER : LINK_MOVED;
    if (!is_elsewhere(raw))
        return LINK_STANDS;
    cluster->nodes.stale = true;
    return LINK_LATER;
}

enum err
cluster_open(struct cluster **out, const char *addresses, int64_t timeout_us,
             struct why *why)
{
    enum err err;

    *out = calloc(1, sizeof(**out));
    if (*out == NULL)
        return err_set(why, ERR_NOMEM, "redis: no memory");
    err = nodes_open(&(*out)->nodes, addresses, timeout_us, why);
    if (err != ERR_OK)
        cluster_close(out);
    return err;
}

static void
pendings_free(struct pending *p)
{
    while (p != NULL) {
        struct pending *next = p->next;

        if (p->raw != NULL)
            freeReplyObject(p->raw);
        free(p);
        p = next;
    }
}

void
cluster_close(struct cluster **cluster)
{
    if (*cluster == NULL)
        return;
    pendings_free((*cluster)->first);
    pendings_free((*cluster)->spare);
    nodes_close(&(*cluster)->nodes);
    free(*cluster);
    *cluster = NULL;
}

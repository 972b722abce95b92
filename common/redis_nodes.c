/* Who serves which slot, and the connections to them. A node that was away is left alone for
 * as long as finding that out took: partitions on the others have at least half of our
 * time. */
#include "common/redis_nodes.h"

#include <assert.h>
#include <stdlib.h>

#include "common/clock.h"

enum {
    REFRESH_MIN_US = 50000, /* between two looks at the map */
    AWAY_MIN_US = 100000,
    AWAY_MAX_US = 1000000,
    ASK_TIMEOUT_MIN_US = 50000,
};

static size_t
node_slot_free(struct nodes *nodes)
{
    if (nodes->n < NODES_MAX)
        return nodes->n++;
    for (size_t i = NODES_NOBODY + 1; i < NODES_MAX; i++) {
        struct node *node = nodes->of[i];

        if (node != NULL && (node->master || node->holds > 0))
            continue;
        if (node != NULL)
            redis_link_free(&node->link);
        free(node);
        nodes->of[i] = NULL;
        return i;
    }
    return NODES_NOBODY;
}

/* The index of the node at address, made if it is new; NODES_NOBODY: it cannot be. */
static uint16_t
node_get(struct nodes *nodes, const char *address)
{
    struct node *node;
    size_t i;

    for (i = NODES_NOBODY + 1; i < nodes->n; i++)
        if (nodes->of[i] != NULL && strcmp(nodes->of[i]->address, address) == 0)
            return (uint16_t)i;
    node = calloc(1, sizeof(*node));
    if (node == NULL || !redis_link_init(&node->link, address, nodes->timeout_us)) {
        free(node);
        return NODES_NOBODY;
    }
    node->link.keeps = true;
    memcpy(node->address, address, strlen(address) + 1);
    i = node_slot_free(nodes);
    if (i == NODES_NOBODY)
        free(node);
    else
        nodes->of[i] = node;
    return (uint16_t)i;
}

static bool
node_is_away(const struct node *node)
{
    return node->away_until_us > 0 && clock_mono_us() < node->away_until_us;
}

bool
nodes_is_away(const struct nodes *nodes, const struct node *node)
{
    return node == nodes->of[NODES_NOBODY] || node_is_away(node);
}

/* There is no connection any more, or none could be made: whose bytes went out may have
 * run. A server that hangs up at once may be there again at once. */
void
node_fail(struct nodes *nodes, struct node *node, bool refused,
          const struct why *why, int64_t began_us)
{
    int64_t now_us = clock_mono_us(), took_us = now_us - began_us;

    for (struct pending *p = node->first; p != NULL; p = p->next_of_node)
        p->state = p->at >= node->link.sent ? PENDING_UNSENT : PENDING_LOST;
    node->first = node->last = NULL;
    node->link.sent = node->link.out.n;
    if (node == nodes->of[NODES_NOBODY])
        return;
    node->why = *why;
    nodes->stale = true;
    if (refused || took_us > AWAY_MIN_US)
        node->away_until_us = now_us + (took_us < AWAY_MIN_US   ? AWAY_MIN_US
                                        : took_us > AWAY_MAX_US ? AWAY_MAX_US
                                                                : took_us);
}

void
node_flush(struct nodes *nodes, struct node *node)
{
    int64_t began_us = clock_mono_us();
    struct why why = node->why;

    if (node->link.sent == node->link.out.n)
        return;
    if (nodes_is_away(nodes, node)) {
        node_fail(nodes, node, false, &why, began_us);
        return;
    }
    if (redis_link_connect(&node->link, &why) != ERR_OK) {
        node_fail(nodes, node, true, &why, began_us);
        return;
    }
    node->away_until_us = 0;
    if (redis_link_flush(&node->link, &why) != ERR_OK)
        node_fail(nodes, node, false, &why, began_us);
}

void
nodes_flush(struct nodes *nodes)
{
    if (!nodes->unsent)
        return;
    nodes->unsent = false;
    for (size_t i = 0; i < nodes->n; i++)
        if (nodes->of[i] != NULL)
            node_flush(nodes, nodes->of[i]);
}

/* One reply, to whom it is owed. */
void
node_read(struct nodes *nodes, struct node *node)
{
    struct pending *p = node->first;
    int64_t began_us = clock_mono_us();
    redisReply *raw = NULL;
    struct why why;

    assert(p != NULL && p->state == PENDING_QUEUED);
    if (redis_link_read(&node->link, &raw, &why) != ERR_OK) {
        node_fail(nodes, node, false, &why, began_us);
        return;
    }
    if (p->asking) {
        p->asking = false;
        freeReplyObject(raw);
        return;
    }
    node->first = p->next_of_node;
    if (node->first == NULL)
        node->last = NULL;
    p->raw = raw;
    p->state = PENDING_ANSWERED;
}

void
node_owe(struct nodes *nodes, struct node *node, struct pending *p)
{
    p->node = node;
    p->state = PENDING_QUEUED;
    p->next_of_node = NULL;
    if (node->last == NULL)
        node->first = p;
    else
        node->last->next_of_node = p;
    node->last = p;
    node->holds++;
    nodes->unsent = true;
}

void
node_release(struct pending *p)
{
    struct node *node = p->node;

    assert(node->holds > 0);
    if (--node->holds > 0)
        return;
    assert(node->first == NULL && node->link.sent == node->link.out.n);
    buf_reset(&node->link.out);
    node->link.sent = 0;
}

/* --- the map --- */

static void
map_clear(struct nodes *nodes)
{
    memset(nodes->map, 0, sizeof(nodes->map));
    for (size_t i = 0; i < nodes->n; i++)
        if (nodes->of[i] != NULL)
            nodes->of[i]->master = false;
}

static void
map_set(struct nodes *nodes, const struct redis_range *range)
{
    uint16_t index = node_get(nodes, range->address);

    for (unsigned slot = range->from; slot <= range->to; slot++)
        nodes->map[slot] = index;
    nodes->of[index]->master = index != NODES_NOBODY;
}

static enum err
map_take(struct nodes *nodes, const struct redis_reply *slots, const char *asked,
         struct why *why)
{
    struct redis_range range;
    enum err err = ERR_OK;

    if (slots->type != REDIS_ARRAY || slots->count == 0)
        return err_set(why, ERR_AGAIN, "redis at %s: no slot has a master", asked);
    for (size_t i = 0; i < slots->count && err == ERR_OK; i++)
        err = redis_range_read(slots, i, asked, &range, why);
    if (err != ERR_OK)
        return err;
    map_clear(nodes);
    for (size_t i = 0; i < slots->count; i++)
        if (redis_range_read(slots, i, asked, &range, why) == ERR_OK)
            map_set(nodes, &range);
    for (size_t i = NODES_NOBODY + 1; i < nodes->n; i++) {
        struct node *node = nodes->of[i];

        if (node != NULL && !node->master && node->holds == 0)
            redis_link_drop(&node->link);
    }
    return ERR_OK;
}

/* On a connection of its own: those of the nodes may be full of commands. */
static enum err
map_ask(struct nodes *nodes, const char *address, struct why *why)
{
    const struct str words[2] = {STR("CLUSTER"), STR("SLOTS")};
    int64_t timeout_us = nodes->timeout_us / 4;
    struct redis_reply *slots = NULL;
    struct redis_link link;
    redisReply *raw = NULL;
    enum err err;

    if (!redis_link_init(&link, address,
                         timeout_us < ASK_TIMEOUT_MIN_US ? ASK_TIMEOUT_MIN_US
                                                         : timeout_us))
        return err_set(why, ERR_INVALID, "redis: no address: %s", address);
    err = redis_link_queue(&link, &(struct redis_words){words, 2}, 1, why);
    if (err == ERR_OK)
        err = redis_link_read(&link, &raw, why);
    if (err == ERR_OK)
        err = redis_reply_take(raw, &slots, why);
    if (err == ERR_OK)
        err = map_take(nodes, slots, link.host, why);
    redis_reply_free(&slots);
    redis_link_free(&link);
    return err;
}

/* Whom to ask, most likely alive first: connected nodes, those not known to be away, seeds.
 * NULL: nobody is left. */
static const char *
candidate(const struct nodes *nodes, size_t i)
{
    size_t n = nodes->n;

    if (i >= 2 * n)
        return i - 2 * n < nodes->seeds_n ? nodes->seeds[i - 2 * n] : NULL;
    const struct node *node = nodes->of[i % n];
    if (i % n == NODES_NOBODY || node == NULL ||
        (node->link.context != NULL) != (i < n) || node_is_away(node))
        return "";
    return node->address;
}

void
nodes_refresh(struct nodes *nodes)
{
    struct node *nobody = nodes->of[NODES_NOBODY];
    int64_t began_us = clock_mono_us();
    const char *address;

    if (nodes->refreshed_us > 0 && began_us - nodes->refreshed_us < REFRESH_MIN_US)
        return;
    for (size_t i = 0; (address = candidate(nodes, i)) != NULL; i++) {
        if (address[0] == '\0')
            continue;
        if (map_ask(nodes, address, &nobody->why) == ERR_OK) {
            nodes->stale = false;
            (void)err_set(&nobody->why, ERR_AGAIN,
                          "redis: no master serves this slot now");
            break;
        }
        if (clock_mono_us() - began_us > nodes->timeout_us)
            break;
    }
    nodes->refreshed_us = clock_mono_us();
}

struct node *
nodes_of_slot(const struct nodes *nodes, unsigned slot)
{
    struct node *away = nodes->of[NODES_NOBODY];

    if (slot < REDIS_SLOTS)
        return nodes->of[nodes->map[slot]];
    for (size_t i = NODES_NOBODY + 1; i < nodes->n; i++) {
        struct node *node = nodes->of[i];

        if (node == NULL || !node->master)
            continue;
        if (!node_is_away(node))
            return node;
        away = node;
    }
    return away;
}

struct node *
nodes_redirect(struct nodes *nodes, const struct node *from, const redisReply *raw,
               bool *ask)
{
    struct redis_range range;
    uint16_t index;

    if (raw->type != REDIS_REPLY_ERROR ||
        !redis_redirect_read(raw->str, from->link.host, ask, &range))
        return NULL;
    index = node_get(nodes, range.address);
    if (index != NODES_NOBODY && !*ask) {
        map_set(nodes, &range);
        nodes->stale = true; /* others have moved too, perhaps */
    }
    return index == NODES_NOBODY ? NULL : nodes->of[index];
}

static enum err
seeds_read(struct nodes *nodes, const char *addresses, struct why *why)
{
    while (*addresses != '\0') {
        size_t n = strcspn(addresses, ",");
        struct redis_link link;
        char *seed = nodes->seeds[nodes->seeds_n];

        if (nodes->seeds_n == NODES_SEEDS_MAX)
            return err_set(why, ERR_INVALID,
                           "redis address: at most %d nodes of a cluster",
                           NODES_SEEDS_MAX);
        if (n >= REDIS_ADDRESS_MAX)
            break;
        memcpy(seed, addresses, n);
        seed[n] = '\0';
        if (!redis_link_init(&link, seed, nodes->timeout_us) || link.port == 0)
            break;
        nodes->seeds_n++;
        addresses += n;
        if (*addresses == ',' && addresses[1] != '\0')
            addresses++;
    }
    return *addresses == '\0' && nodes->seeds_n > 0
               ? ERR_OK
               : err_set(why, ERR_INVALID,
                         "redis address \"cluster:...%s\": write "
                         "cluster:host:port,host:port",
                         addresses);
}

enum err
nodes_open(struct nodes *nodes, const char *addresses, int64_t timeout_us,
           struct why *why)
{
    struct node *nobody = calloc(1, sizeof(*nobody));

    if (nobody == NULL)
        return err_set(why, ERR_NOMEM, "redis: no memory");
    nodes->timeout_us = timeout_us;
    nodes->stale = true;
    (void)redis_link_init(&nobody->link, "nobody:1", timeout_us);
    nobody->link.keeps = true;
    nodes->of[nodes->n++] = nobody;
    return seeds_read(nodes, addresses, why);
}

void
nodes_close(struct nodes *nodes)
{
    for (size_t i = 0; i < nodes->n; i++) {
        if (nodes->of[i] != NULL)
            redis_link_free(&nodes->of[i]->link);
        free(nodes->of[i]);
    }
    nodes->n = 0;
}

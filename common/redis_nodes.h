/* common/redis_nodes.h - the masters of a Redis Cluster and who serves which slot; only for
 * common/redis_cluster.c, which says how a command travels.
 *
 * Units    Microseconds of clock_mono_us.
 * Memory   A node's out holds the bytes of its commands until the last of them is released.
 * Errors   What became of a command is its state.
 * Threads  None.
 */
#ifndef COMMON_REDIS_NODES_H
#define COMMON_REDIS_NODES_H

#include "common/redis_impl.h"

enum {
    NODES_SEEDS_MAX = 64,
    NODES_MAX = 1024,       /* Redis's own limit is about 1,000 */
    NODES_NOBODY = 0,       /* the node of slots that nobody serves */
    SLOT_ANY = REDIS_SLOTS, /* of a command without a key: any master */
    SLOT_NONE,              /* only this node */
};

enum pending_state {
    PENDING_QUEUED,
    PENDING_ANSWERED,
    PENDING_LOST,
    PENDING_UNSENT
};

/* A command whose reply is not taken yet. */
struct pending {
    struct pending *next;         /* of the queue */
    struct pending *next_of_node; /* while queued */
    struct node *node;            /* its out holds our bytes */
    size_t at, n;
    redisReply *raw; /* answered */
    enum pending_state state;
    unsigned slot, tries;
    bool asking; /* the answer to ASKING comes first */
};

struct node {
    struct redis_link link;
    char address[REDIS_ADDRESS_MAX];
    struct pending *first, *last; /* owed a reply, in the order of sending */
    size_t holds;                 /* commands whose bytes are in out */
    int64_t away_until_us;
    struct why why; /* of being away */
    bool master;    /* of at least one slot */
};

struct nodes {
    int64_t timeout_us, refreshed_us;
    struct node *of[NODES_MAX]; /* may have holes */
    size_t n;
    uint16_t map[REDIS_SLOTS]; /* index of nodes */
    char seeds[NODES_SEEDS_MAX][REDIS_ADDRESS_MAX];
    size_t seeds_n;
    bool stale;  /* look at the map before the next command */
    bool unsent; /* some node has bytes to send */
};

/* addresses: host:port,host:port,... */
enum err nodes_open(struct nodes *nodes, const char *addresses, int64_t timeout_us,
                    struct why *why);
void nodes_close(struct nodes *nodes);
/* Asks for the map, unless that was just done. */
void nodes_refresh(struct nodes *nodes);
/* The master of a slot; that of slots that nobody serves is always away. */
struct node *nodes_of_slot(const struct nodes *nodes, unsigned slot);
bool nodes_is_away(const struct nodes *nodes, const struct node *node);
/* Where raw, an answer of from, sends its command; NULL: it does not. */
struct node *nodes_redirect(struct nodes *nodes, const struct node *from,
                            const redisReply *raw, bool *ask);
/* node has p's bytes at its out's end, and owes its reply. */
void node_owe(struct nodes *nodes, struct node *node, struct pending *p);
/* p no longer needs its bytes. */
void node_release(struct pending *p);
void node_flush(struct nodes *nodes, struct node *node);
void nodes_flush(struct nodes *nodes);
/* Its connection is gone, or (refused) none could be made, which took from began_us on. */
void node_fail(struct nodes *nodes, struct node *node, bool refused,
               const struct why *why, int64_t began_us);
/* One reply, to the pending that is owed it. */
void node_read(struct nodes *nodes, struct node *node);

#endif

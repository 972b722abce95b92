/* common/redis_impl.h - the parts of common/redis*.c: a connection, a reply, a map of slots.
 *
 * Memory   A link's out holds what is queued. An ordinary link forgets bytes once they are
 *          sent; one that keeps (a cluster's) holds them, [0, sent) sent already, until
 *          its owner drops them: a command that was redirected is sent again.
 * Errors   See redis.h.
 * Threads  None.
 */
#ifndef COMMON_REDIS_IMPL_H
#define COMMON_REDIS_IMPL_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/time.h>

#include "common/buf.h"
#include "common/redis.h"

enum {
    REDIS_HOST_MAX = 256,
    REDIS_FLUSH_BYTES =
        65536, /* queued bytes that are sent before a reply is asked for */
    REDIS_COMMAND_BYTES_MAX = 1 << 29, /* Redis's own limit of a word */
    REDIS_SLOTS = 16384,
    REDIS_ADDRESS_MAX = REDIS_HOST_MAX + 8, /* host:port, its terminator */
};

/* --- redis_link.c: one connection --- */

struct redis_words {
    const struct str *p;
    size_t n;
};

struct redis_link {
    redisContext *context; /* NULL: not connected */
    struct timeval timeout;
    int port; /* 0: host is the path of a Unix socket */
    char host[REDIS_HOST_MAX];
    bool keeps;
    struct buf out; /* commands not sent yet; if it keeps, also those before sent */
    size_t sent;
    size_t replies_due; /* queued commands whose reply is not taken yet */
};

/* Prepares a link for host:port or unix:/path; false: no such address. */
bool redis_link_init(struct redis_link *link, const char *address,
                     int64_t timeout_us);
/* Throws the connection away with all that was queued on it; a link that keeps keeps its
 * bytes, and sent says how far they went. */
void redis_link_drop(struct redis_link *link);
void redis_link_free(struct redis_link *link);
/* A link that was not connected is as before when this fails. */
enum err redis_link_connect(struct redis_link *link, struct why *why);
/* The following throw the connection away when they fail with ERR_AGAIN. */
/* One command from several runs of words, so that nobody has to join arrays. Only a link
 * that does not keep connects for it and sends early. */
enum err redis_link_queue(struct redis_link *link, const struct redis_words *runs,
                          size_t runs_n, struct why *why);
enum err redis_link_flush(struct redis_link *link, struct why *why);
/* Bytes of our own: nothing may be queued. */
enum err redis_link_write(struct redis_link *link, const uint8_t *p, size_t n,
                          struct why *why);
/* One command in Redis's protocol at the end of out. */
enum err redis_words_put(struct buf *out, const struct redis_words *runs,
                         size_t runs_n, struct why *why);
/* Sends what is queued and reads one reply; freeReplyObject. */
enum err redis_link_read(struct redis_link *link, redisReply **raw,
                         struct why *why);

/* --- redis_reply.c --- */

/* Takes raw; *out mirrors it unless it is an error. */
enum err redis_reply_take(redisReply *raw, struct redis_reply **out,
                          struct why *why);

/* --- redis_slots.c --- */

/* CRC16 (XMODEM) of what is between the first '{' and the next '}', if that is not empty,
 * else of the whole key; modulo REDIS_SLOTS. */
unsigned redis_slot(struct str key);
/* The key of a command; false: it has none. */
bool redis_key_of(const struct redis_words *runs, size_t runs_n, struct str *key);

/* Slots [from, to] have their master at host:port. */
struct redis_range {
    unsigned from, to;
    char address[REDIS_ADDRESS_MAX];
};
/* Reads range i of an answer to CLUSTER SLOTS by asked (a host). */
enum err redis_range_read(const struct redis_reply *slots, size_t i,
                          const char *asked, struct redis_range *out,
                          struct why *why);
/* "MOVED 3999 127.0.0.1:6381" or "ASK ...", told by asked (a host). False: it is not. */
bool redis_redirect_read(const char *text, const char *asked, bool *ask,
                         struct redis_range *out);

/* --- redis.c, redis_transaction.c --- */

struct cluster;
struct node;

struct redis_transaction {
    struct buf commands;     /* MULTI and what was added */
    size_t n;                /* commands added */
    struct redis_link *link; /* that watches, or NULL */
    struct node *node;       /* of a cluster: link's */
    size_t due;              /* replies, once sent */
};

struct redis {
    struct redis_link link;
    struct cluster *cluster; /* NULL: link is the server */
    struct redis_transaction transaction;
};

void redis_transaction_free(struct redis_transaction *transaction);

/* --- redis_cluster.c --- */

enum err cluster_open(struct cluster **out, const char *addresses,
                      int64_t timeout_us, struct why *why);
void cluster_close(struct cluster **cluster);
/* key NULL: the command's own. */
enum err cluster_queue(struct cluster *cluster, const struct str *key,
                       const struct redis_words *runs, size_t runs_n,
                       struct why *why);
enum err cluster_next(struct cluster *cluster, struct redis_reply **out,
                      struct why *why);
/* One command and its reply; replies left behind are dropped first. */
enum err cluster_command(struct cluster *cluster, const struct str *key,
                         const struct redis_words *runs, size_t runs_n,
                         struct redis_reply **out, struct why *why);
/* For a transaction: the link of the node of key's slot, connected, with nothing queued;
 * NULL: ERR_AGAIN in why. */
struct redis_link *cluster_link(struct cluster *cluster, struct str key,
                                struct node **node, struct why *why);
/* That link failed, and is dropped. */
void cluster_link_failed(struct cluster *cluster, struct node *node,
                         const struct why *why, int64_t began_us);
/* Whether raw, an answer of node, stands; LINK_MOVED: the slot's node is another, and known
 * now; LINK_LATER: it is on its way, or nobody's. */
enum link_answer { LINK_STANDS, LINK_MOVED, LINK_LATER };
enum link_answer cluster_link_answer(struct cluster *cluster,
                                     const struct node *node,
                                     const redisReply *raw);

#endif

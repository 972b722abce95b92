/* common/redis.h - Redis: the only user of hiredis.
 *
 * One struct redis is one connection, by Unix socket or TCP; after any error the context is
 * thrown away and the next call connects anew (hiredis 0.14 contexts do not recover).
 * SIGPIPE must be ignored by the process.
 *
 * Memory   A reply is the caller's, freed by redis_reply_free.
 * Errors   ERR_AGAIN: away, loading, time-out; ERR_FULL: OOM or MISCONF (disk);
 *          ERR_CONFLICT: an error reply of our own scripts ("EPOCH ...", "OFFSET ...",
 *          "DIRTY ..."); ERR_NOTFOUND: NOSCRIPT, for those who queue EVALSHA themselves;
 *          ERR_FATAL: other error replies. An error inside an array makes the whole
 *          reply that error. After an error reply the connection stays; after ERR_AGAIN
 *          from it, every queued command is gone and each of its replies is ERR_AGAIN.
 * Threads  None: one connection, one thread.
 */
#ifndef COMMON_REDIS_H
#define COMMON_REDIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/str.h"

struct redis;

enum redis_type { REDIS_NIL, REDIS_TEXT, REDIS_INTEGER, REDIS_ARRAY };

/* Mirrors hiredis's reply; borrowed children. */
struct redis_reply {
    enum redis_type type;
    int64_t integer;
    struct str text;
    size_t count;
    struct redis_reply **items;
    void *impl; /* root only */
};

/* address: "unix:/path", "host:port", or "cluster:host:port,host:port,...": any nodes of a
 * Redis Cluster. Then each command goes to the master of its key's slot (the key is the
 * second word; the first of EVAL and EVALSHA's keys), MOVED and ASK are followed, and the
 * slots are read again when a node is away; SCRIPT goes to every master. All keys of one
 * command share a slot (schema/rediskeys.h sees to that), or it is ERR_INVALID. Queued
 * commands to different nodes may run in any order; their replies come in the order of
 * queueing, and ERR_AGAIN is one command's alone: queueing never gives it, and the other
 * replies are still to be taken. FLUSHALL and FLUSHDB go to every master too; a command
 * without a key to any. Never run twice by itself: a command whose answer was lost is
 * ERR_AGAIN.
 * Does not connect yet. */
enum err redis_open(struct redis **out, const char *address, int64_t timeout_us,
                    struct why *why);
void redis_close(struct redis **redis);
/* Whether one key's server may be away while another's answers. */
bool redis_is_cluster(const struct redis *redis);
/* One command as binary-safe words. *out may be NULL. */
enum err redis_command(struct redis *redis, const struct str *words, size_t n,
                       struct redis_reply **out, struct why *why);
/* The same for a command without a key of its own, such as SCAN: on the node of key's slot.
 * Without a cluster key says nothing. */
enum err redis_command_at(struct redis *redis, struct str key,
                          const struct str *words, size_t n,
                          struct redis_reply **out, struct why *why);
/* Pipelining: queue any number, then one redis_reply_next for each, in order. */
enum err redis_queue(struct redis *redis, const struct str *words, size_t n,
                     struct why *why);
enum err redis_reply_next(struct redis *redis, struct redis_reply **out,
                          struct why *why);
/* EVALSHA with EVAL as fallback. words: keys, then arguments. sha is 40 hex digits that
 * redis_script_sha made. */
enum err redis_eval(struct redis *redis, const char *script, const char *sha,
                    const struct str *keys, size_t keys_n, const struct str *args,
                    size_t args_n, struct redis_reply **out, struct why *why);
void redis_script_sha(const char *script, char sha[41]);

/* Optimistic transactions: look, then write all or nothing, unless somebody wrote meanwhile.
 *
 *   redis_add each command (kept here) -> redis_watch -> redis_exec_send -> redis_exec_end
 *
 * Commands of the next may be added while one is under way; nothing else may be asked of
 * redis between redis_watch and redis_exec_end. All keys share key's slot. */
enum err redis_add(struct redis *redis, const struct str *words, size_t n,
                   struct why *why);
/* Forgets what was added. */
void redis_add_reset(struct redis *redis);
/* WATCH key, and one command that reads it: *out is its reply. */
enum err redis_watch(struct redis *redis, struct str key, const struct str *words,
                     size_t n, struct redis_reply **out, struct why *why);
/* MULTI, what was added, EXEC; only on the connection that watches: ERR_AGAIN. */
enum err redis_exec_send(struct redis *redis, struct why *why);
/* ERR_CONFLICT: key was written to since redis_watch, nothing was done. ERR_CORRUPT: a
 * command failed when it ran (its key is of another type), and the others were done.
 * ERR_AGAIN: the answer was lost: done or not. Others: refused, nothing was done. */
enum err redis_exec_end(struct redis *redis, struct why *why);
void redis_reply_free(struct redis_reply **reply);

#endif

/* common/lmdbenv.h - an LMDB environment as both logs use it: made whole or not at all,
 * one table of errors, read transactions that follow a map grown by another process.
 *
 * A new environment is built in DIR/make.tmp and its file renamed into DIR, so that a
 * power cut during the first start leaves no half-written header behind. Without
 * MDB_WRITEMAP: a commit writes its pages, syncs, then writes one meta page on a
 * descriptor that is synchronous.
 *
 * Units    Bytes.
 * Memory   map_bytes of address space, sparse.
 * Errors   lmdbenv_error maps LMDB's and errno's codes: ERR_FULL (map, disk, quota),
 *          ERR_CORRUPT (not LMDB's file, damaged), ERR_AGAIN, ERR_NOMEM, ERR_FATAL.
 * Threads  Readers any; one environment is opened once a process (LMDB's own rule).
 * Source   LMDB 0.9.24, lmdb.h.
 */
#ifndef COMMON_LMDBENV_H
#define COMMON_LMDBENV_H

#include <lmdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

enum { LMDBENV_TABLES_MAX = 4, LMDBENV_READERS_MAX = 510 };

struct lmdbenv_config {
    const char *dir;
    uint64_t map_bytes;        /* 0: what the file says */
    const char *const *tables; /* named databases, made if they are missing */
    uint32_t tables_n;
    bool read_only;
    bool no_sync;
};

struct lmdbenv {
    MDB_env *env;
    MDB_dbi tables[LMDBENV_TABLES_MAX];
    pthread_mutex_t mutex; /* guards active: the map moves only while it is 0 */
    unsigned active;       /* read transactions open in this process */
    char *dir;
};

enum err lmdbenv_open(struct lmdbenv *env, const struct lmdbenv_config *cfg,
                      struct why *why);
/* Also for one that is zeroed or half open. */
void lmdbenv_close(struct lmdbenv *env);

/* Takes a snapshot: *txn NULL begins one, else a reset one is renewed. */
enum err lmdbenv_read_begin(struct lmdbenv *env, MDB_txn **txn, struct why *why);
/* Lets the snapshot go, keeps the handle for the next lmdbenv_read_begin. */
void lmdbenv_read_reset(struct lmdbenv *env, MDB_txn *txn);
/* Lets the snapshot go and frees the handle. */
void lmdbenv_read_end(struct lmdbenv *env, MDB_txn **txn);

enum err lmdbenv_error(int rc, const char *doing, const char *dir, struct why *why);
/* Whether the file system that holds the environment has less than bytes free. */
bool lmdbenv_disk_is_full(const struct lmdbenv *env, uint64_t bytes);

/* Whether LMDB has given the environment up: a meta page could not be written. */
bool lmdbenv_is_dead(struct lmdbenv *env);

#endif

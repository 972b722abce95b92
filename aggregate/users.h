/* aggregate/users.h - which user ids are worth a PFADD?
 *
 * Redis's HyperLogLog keeps 2^14 registers; a user id changes one of them, and only if its
 * rank is higher than what is there. A mirror keeps the same registers by the same hash,
 * so an id that raises none need not be sent: the count cannot change. It begins with what
 * Redis has (users_load); where memory for it ends it stays below Redis's registers, and the
 * only cost of not knowing is an id sent twice.
 *
 *   small: open addressing of (index, rank), 4 bytes each, up to 1,024 registers
 *   large: one byte a register, 16 KiB
 *
 * Memory   Up to 16 KiB a mirror. Without memory an id counts as new.
 * Threads  None.
 * Source   Redis 7 hyperloglog.c (hllPatLen): MurmurHash64A by Austin Appleby, seed
 *          0xadc83b19, index the low 14 bits, rank the run of zeros above, plus one; dense
 *          form: "HYLL", encoding, 3 unused, cached count (top bit: stale), 6-bit registers;
 *          sparse form: runs of zeros (00nnnnnn, 01nnnnnn nnnnnnnn) and of a rank (1rrrrrnn),
 *          each number one less than what it means.
 */
#ifndef AGGREGATE_USERS_H
#define AGGREGATE_USERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/str.h"

enum {
    USERS_REGISTERS = 1 << 14,
    USERS_DENSE_BYTES = 16 + USERS_REGISTERS * 6 / 8, /* Redis's dense form */
};

struct users;

/* A user id as the registers see it. */
struct user_mark {
    uint16_t index;
    uint8_t rank;
};

struct user_mark users_mark(struct str user_id);

enum user_answer {
    USER_KNOWN,  /* raises nothing */
    USER_NEW,    /* raised a register, which the mirror now has */
    USER_UNSURE, /* the mirror could not keep it: it no longer has everything */
    USER_DAMAGED,
};

/* Makes *users if NULL and *bytes, the memory of all mirrors, is below bytes_max. */
enum user_answer users_raise(struct users **users, struct user_mark mark,
                             size_t *bytes, size_t bytes_max);
/* The whole as Redis keeps a dense HyperLogLog: a string that SET may write where a mirror
 * has seen every id since the key was empty. */
void users_format(const struct users *users, uint8_t out[USERS_DENSE_BYTES]);
/* Raises what Redis's string has, "" nothing. USER_UNSURE: not all of it could be kept.
 * USER_DAMAGED: it is no HyperLogLog. */
enum user_answer users_load(struct users **users, struct str text, size_t *bytes,
                            size_t bytes_max);
/* Fetches what users_raise will look at. */
void users_prefetch(const struct users *users, struct user_mark mark);
void users_free(struct users **users, size_t *bytes);

#endif

/* ingest/auth.h - whose key is it, and may it post clicks?
 *
 *   Authorization: Bearer KEY -> SHA-256 -> master_key_find -> who
 *
 * Keys that were found are kept in a small cache by their text, valid for one version of
 * the master data, so a key that posts all day is hashed once a change.
 *
 * Memory   One array of AUTH_SLOTS, taken at open.
 * Threads  A struct auth belongs to one thread.
 */
#ifndef INGEST_AUTH_H
#define INGEST_AUTH_H

#include <stdint.h>

#include "common/err.h"
#include "common/str.h"
#include "schema/master.h"

enum { AUTH_SLOTS = 256, AUTH_KEY_BYTES_MAX = 128 };

struct auth;

struct auth_who {
    uint32_t key, account;
    uint32_t rate_clicks_per_s; /* 0: the default */
};

enum auth_result {
    AUTH_OK,
    AUTH_MISSING,   /* no Authorization: Bearer KEY */
    AUTH_UNKNOWN,   /* no such key, or revoked */
    AUTH_SCOPE,     /* a key for something else */
    AUTH_NOT_READY, /* no master data yet */
};

enum err auth_open(struct auth **out, struct master_source *master,
                   struct why *why);
void auth_close(struct auth **auth);
/* header is the value of Authorization. */
enum auth_result auth_check(struct auth *auth, struct str header, uint32_t scope,
                            struct auth_who *who);

#endif

/* schema/master_key.h - API keys: made, listed, revoked.
 *
 * A key is `ck_` and 64 hex digits of 32 random bytes. Only the SHA-256 of that whole text is
 * stored; the text itself is shown once, when it is made.
 *
 * Units    Clicks per second.
 * Memory   Into the caller's.
 * Errors   ERR_INVALID (a name, scopes), ERR_NOTFOUND (no such account, advertiser, key),
 *          ERR_CONFLICT (the advertiser is another account's), ERR_AGAIN PostgreSQL away.
 * Threads  One connection, one thread; the rest is pure.
 */
#ifndef SCHEMA_MASTER_KEY_H
#define SCHEMA_MASTER_KEY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/str.h"

enum { MASTER_KEY_TEXT_SIZE = 68, MASTER_SCOPES_TEXT_SIZE = 32 };

struct pg;

struct master_key_new {
    const char *account;        /* its name */
    bool make_account;          /* if there is none of that name */
    const char *name;           /* what the key is for, for people */
    uint32_t scopes;            /* bits of enum master_scope */
    const char *advertiser;     /* id; NULL or "": all of the account */
    uint32_t rate_clicks_per_s; /* 0: the configured default */
};

/* text gets the key: print it, then forget it. id may be NULL. */
enum err master_key_create(struct pg *pg, const struct master_key_new *key,
                           char text[MASTER_KEY_TEXT_SIZE], uint32_t *id,
                           struct why *why);
/* A table for people, or JSON. Never a key's text. */
enum err master_key_list(struct pg *pg, bool json, struct buf *out,
                         struct why *why);
/* Running stages notice within master.poll_ms. Revoking a revoked key changes nothing. */
enum err master_key_revoke(struct pg *pg, uint32_t id, struct why *why);

/* What master_key_find looks for. false: text is not of a key's form. */
bool master_key_hash(struct str text, uint8_t sha256[32]);

/* "ingest,read" to bits: names by comma, blanks around them allowed. */
enum err master_scopes_parse(struct str text, uint32_t *scopes, struct why *why);
char *master_scopes_format(uint32_t scopes, char text[MASTER_SCOPES_TEXT_SIZE]);

#endif

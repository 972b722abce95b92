#include "ingest/auth.h"

#include <stdlib.h>
#include <strings.h>

#include "common/hash.h"

struct slot {
    uint64_t hash;
    uint64_t version; /* of the master data */
    uint32_t text_n;  /* 0: empty */
    uint32_t scopes;
    struct auth_who who;
    char text[AUTH_KEY_BYTES_MAX];
};

struct auth {
    struct master_source *master;
    uint64_t seed; /* so that nobody can choose slots */
    struct slot slots[AUTH_SLOTS];
};

enum err
auth_open(struct auth **out, struct master_source *master, struct why *why)
{
    struct auth *auth = calloc(1, sizeof(*auth));

    *out = auth;
    if (auth == NULL)
        return err_set(why, ERR_NOMEM, "auth: no memory");
    auth->master = master;
    auth->seed = hash_random_u64();
    return ERR_OK;
}

void
auth_close(struct auth **auth)
{
    free(*auth);
    *auth = NULL;
}

static struct str
bearer_text(struct str header)
{
    static const char scheme[] = "Bearer ";
    const uint32_t n = sizeof(scheme) - 1;

    if (header.n <= n || strncasecmp(header.p, scheme, n) != 0)
        return (struct str){NULL, 0};
    header.p += n;
    header.n -= n;
    while (header.n > 0 && header.p[0] == ' ')
        header.p++, header.n--;
    while (header.n > 0 && header.p[header.n - 1] == ' ')
        header.n--;
    return header;
}

static bool
slot_fill(struct slot *slot, const struct master *master, struct str text,
          uint64_t hash)
{
    uint8_t sha256[HASH_SHA256_SIZE];
    const struct master_key *key;

    hash_sha256_of(text.p, text.n, sha256);
    key = master_key_find(master, sha256);
    if (key == NULL || key->revoked)
        return false;
    *slot = (struct slot){
        .hash = hash,
        .version = master->version,
        .text_n = text.n,
        .scopes = key->scopes,
        .who = {key->id, key->account, key->rate_clicks_per_s},
    };
    memcpy(slot->text, text.p, text.n);
    return true;
}

enum auth_result
auth_check(struct auth *auth, struct str header, uint32_t scope,
           struct auth_who *who)
{
    struct str text = bearer_text(header);
    const struct master *master;
    struct slot *slot;
    uint64_t hash;
    bool known, loaded;

    if (text.n == 0)
        return AUTH_MISSING;
    if (text.n > AUTH_KEY_BYTES_MAX)
        return AUTH_UNKNOWN;
    master = master_take(auth->master);
    if (master == NULL)
        return AUTH_NOT_READY;
    hash = hash64(text.p, text.n, auth->seed);
    slot = &auth->slots[hash % AUTH_SLOTS];
    known = slot->text_n == text.n && slot->hash == hash &&
            slot->version == master->version &&
            memcmp(slot->text, text.p, text.n) == 0;
    if (!known)
        known = slot_fill(slot, master, text, hash);
    loaded = master->version > 0 || master->keys_n > 0;
    master_drop(auth->master, master);
    if (!known)
        return loaded ? AUTH_UNKNOWN : AUTH_NOT_READY;
    *who = slot->who;
    return (slot->scopes & scope) == scope ? AUTH_OK : AUTH_SCOPE;
}

#include "schema/snapshot.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "common/hash.h"
#include "schema/zone.h"

/* Open addressing, at most half full; `tag` is the hash's upper half, so that a slot of
 * another campaign costs no look at its name. */
struct slot {
    uint32_t tag;
    uint32_t at; /* index + 1; 0: free */
};

struct table {
    struct slot *slots;
    uint32_t mask;
};

struct snapshot {
    struct master master; /* first: a master is found back as its snapshot */
    atomic_uint refs;
    struct table by_id, by_sha;
    struct master_campaign *campaigns;
    struct master_key *keys;
    struct master_rate *rates;
    struct master_budget *budgets;
    struct master_status *statuses;
    const struct zone **zones;
    char *text;
};

/* What the arrays of a snapshot must hold. */
struct sizes {
    size_t rates, budgets, statuses, text;
};

static const struct snapshot *
snapshot_of(const struct master *master)
{
    return (const struct snapshot *)(const void *)master;
}

static struct sizes
sizes_of(const struct master_campaign *campaigns, uint32_t campaigns_n,
         const struct master_key *keys, uint32_t keys_n)
{
    struct sizes sizes = {0, 0, 0, 0};

    for (uint32_t i = 0; i < campaigns_n; i++) {
        const struct master_campaign *c = &campaigns[i];

        sizes.rates += c->rates_n;
        sizes.budgets += c->budgets_n;
        sizes.statuses += c->statuses_n;
        sizes.text += (size_t)c->id.n + c->advertiser.n + c->currency.n;
    }
    for (uint32_t i = 0; i < keys_n; i++)
        sizes.text += keys[i].advertiser.n;
    return sizes;
}

static bool
table_make(struct table *table, uint32_t n)
{
    uint32_t slots = 8;

    while (slots < 2 * n)
        slots *= 2;
    table->slots = calloc(slots, sizeof(*table->slots));
    table->mask = slots - 1;
    return table->slots != NULL;
}

static void
table_put(struct table *table, uint64_t hash, uint32_t index)
{
    uint32_t at = (uint32_t)hash & table->mask;

    while (table->slots[at].at != 0)
        at = (at + 1) & table->mask;
    table->slots[at] = (struct slot){(uint32_t)(hash >> 32), index + 1};
}

static uint64_t
sha_hash(const uint8_t sha256[32])
{
    uint64_t hash;

    memcpy(&hash, sha256, sizeof(hash));
    return hash;
}

static struct str
text_copy(char **text, struct str s)
{
    struct str copy = {*text, s.n};

    if (s.n > 0)
        memcpy(*text, s.p, s.n);
    *text += s.n;
    return copy;
}

/* Rates, budgets and statuses must rise strictly in time. */
static const char *
campaign_wrong(const struct master_campaign *c)
{
    for (uint32_t i = 1; i < c->rates_n; i++)
        if (c->rates[i].valid_from_ms <= c->rates[i - 1].valid_from_ms)
            return "its rates are not in order of time";
    for (uint32_t i = 1; i < c->budgets_n; i++)
        if (c->budgets[i].valid_from_day <= c->budgets[i - 1].valid_from_day)
            return "its budgets are not in order of time";
    for (uint32_t i = 1; i < c->statuses_n; i++)
        if (c->statuses[i].valid_from_ms <= c->statuses[i - 1].valid_from_ms)
            return "its statuses are not in order of time";
    return c->id.n == 0 ? "it has no id" : NULL;
}

static bool
zone_set(struct snapshot *snapshot, struct master_campaign *c)
{
    uint16_t i = 0;

    if (c->zone == NULL)
        c->zone = zone_find(STR("UTC"));
    while (i < snapshot->master.zones_n && snapshot->zones[i] != c->zone)
        i++;
    if (i == ZONES_MAX || c->zone == NULL)
        return false;
    if (i == snapshot->master.zones_n)
        snapshot->zones[snapshot->master.zones_n++] = c->zone;
    c->zone_index = i;
    return true;
}

/* Where the copies go. */
struct cursors {
    struct master_rate *rates;
    struct master_budget *budgets;
    struct master_status *statuses;
    char *text;
};

static void
steps_copy(struct cursors *to, struct master_campaign *c)
{
    if (c->rates_n > 0)
        memcpy(to->rates, c->rates, c->rates_n * sizeof(*c->rates));
    if (c->budgets_n > 0)
        memcpy(to->budgets, c->budgets, c->budgets_n * sizeof(*c->budgets));
    if (c->statuses_n > 0)
        memcpy(to->statuses, c->statuses, c->statuses_n * sizeof(*c->statuses));
    c->rates = to->rates;
    c->budgets = to->budgets;
    c->statuses = to->statuses;
    to->rates += c->rates_n;
    to->budgets += c->budgets_n;
    to->statuses += c->statuses_n;
}

static enum err
campaign_put(struct snapshot *snapshot, struct cursors *to,
             const struct master_campaign *from, uint32_t index, struct why *why)
{
    struct master_campaign *c = &snapshot->campaigns[index];
    const char *wrong = campaign_wrong(from);

    if (wrong == NULL && master_campaign_find(&snapshot->master, from->id) != NULL)
        wrong = "it is there twice";
    *c = *from;
    c->index = index;
    if (wrong == NULL && !zone_set(snapshot, c))
        wrong = "too many time zones";
    if (wrong != NULL)
        return err_set(why, ERR_INVALID, "campaign %.*s: %s",
                       from->id.n > 64 ? 64 : (int)from->id.n, from->id.p, wrong);
    steps_copy(to, c);
    c->id = text_copy(&to->text, from->id);
    c->advertiser = text_copy(&to->text, from->advertiser);
    c->currency = text_copy(&to->text, from->currency);
    table_put(&snapshot->by_id, hash64(c->id.p, c->id.n, 0), index);
    return ERR_OK;
}

static enum err
snapshot_fill(struct snapshot *snapshot, const struct master_campaign *campaigns,
              uint32_t campaigns_n, const struct master_key *keys, uint32_t keys_n,
              struct why *why)
{
    struct cursors to = {snapshot->rates, snapshot->budgets, snapshot->statuses,
                         snapshot->text};

    for (uint32_t i = 0; i < campaigns_n; i++) {
        enum err err = campaign_put(snapshot, &to, &campaigns[i], i, why);

        if (err != ERR_OK)
            return err;
    }
    for (uint32_t i = 0; i < keys_n; i++) {
        snapshot->keys[i] = keys[i];
        snapshot->keys[i].advertiser = text_copy(&to.text, keys[i].advertiser);
        table_put(&snapshot->by_sha, sha_hash(keys[i].sha256), i);
    }
    snapshot->master.campaigns_n = campaigns_n;
    snapshot->master.keys_n = keys_n;
    return ERR_OK;
}

static bool
snapshot_reserve(struct snapshot *s, uint32_t campaigns_n, uint32_t keys_n,
                 const struct sizes *sizes)
{
    s->campaigns = calloc((size_t)campaigns_n + 1, sizeof(*s->campaigns));
    s->keys = calloc((size_t)keys_n + 1, sizeof(*s->keys));
    s->rates = calloc(sizes->rates + 1, sizeof(*s->rates));
    s->budgets = calloc(sizes->budgets + 1, sizeof(*s->budgets));
    s->statuses = calloc(sizes->statuses + 1, sizeof(*s->statuses));
    s->zones = calloc(ZONES_MAX, sizeof(*s->zones));
    s->text = malloc(sizes->text + 1);
    s->master.campaigns = s->campaigns;
    s->master.keys = s->keys;
    s->master.zones = s->zones;
    return table_make(&s->by_id, campaigns_n) && table_make(&s->by_sha, keys_n) &&
           s->campaigns != NULL && s->keys != NULL && s->rates != NULL &&
           s->budgets != NULL && s->statuses != NULL && s->zones != NULL &&
           s->text != NULL;
}

enum err
snapshot_make(struct snapshot **out, uint64_t version,
              const struct master_campaign *campaigns, uint32_t campaigns_n,
              const struct master_key *keys, uint32_t keys_n, struct why *why)
{
    struct sizes sizes = sizes_of(campaigns, campaigns_n, keys, keys_n);
    struct snapshot *snapshot;
    enum err err;

    *out = NULL;
    if (campaigns_n > SNAPSHOT_CAMPAIGNS_MAX || keys_n > SNAPSHOT_KEYS_MAX)
        return err_set(why, ERR_FULL, "at most %d campaigns and %d keys",
                       SNAPSHOT_CAMPAIGNS_MAX, SNAPSHOT_KEYS_MAX);
    snapshot = calloc(1, sizeof(*snapshot));
    if (snapshot == NULL)
        return err_set(why, ERR_NOMEM, "master data: no memory");
    atomic_init(&snapshot->refs, 1);
    snapshot->master.version = version;
    if (!snapshot_reserve(snapshot, campaigns_n, keys_n, &sizes))
        err = err_set(why, ERR_NOMEM, "master data: no memory");
    else
        err = snapshot_fill(snapshot, campaigns, campaigns_n, keys, keys_n, why);
    if (err == ERR_OK)
        *out = snapshot;
    else
        snapshot_drop(snapshot);
    return err;
}

const struct master *
snapshot_master(const struct snapshot *snapshot)
{
    return &snapshot->master;
}

void
snapshot_take(struct snapshot *snapshot)
{
    (void)atomic_fetch_add_explicit(&snapshot->refs, 1, memory_order_relaxed);
}

void
snapshot_drop(const struct snapshot *constant)
{
    union {
        const struct snapshot *in;
        struct snapshot *out;
    } cast = {constant}; /* only the count and the last free write to it */
    struct snapshot *snapshot = cast.out;

    if (snapshot == NULL ||
        atomic_fetch_sub_explicit(&snapshot->refs, 1, memory_order_acq_rel) != 1)
        return;
    free(snapshot->by_id.slots);
    free(snapshot->by_sha.slots);
    free(snapshot->campaigns);
    free(snapshot->keys);
    free(snapshot->rates);
    free(snapshot->budgets);
    free(snapshot->statuses);
    free(snapshot->zones);
    free(snapshot->text);
    free(snapshot);
}

const struct master_campaign *
master_campaign_find(const struct master *master, struct str id)
{
    const struct snapshot *snapshot = snapshot_of(master);
    uint64_t hash = hash64(id.p, id.n, 0);
    uint32_t mask = snapshot->by_id.mask, tag = (uint32_t)(hash >> 32);

    for (uint32_t at = (uint32_t)hash & mask;; at = (at + 1) & mask) {
        const struct slot *slot = &snapshot->by_id.slots[at];

        if (slot->at == 0)
            return NULL;
        if (slot->tag == tag && str_equal(snapshot->campaigns[slot->at - 1].id, id))
            return &snapshot->campaigns[slot->at - 1];
    }
}

const struct master_key *
master_key_find(const struct master *master, const uint8_t sha256[32])
{
    const struct snapshot *snapshot = snapshot_of(master);
    uint64_t hash = sha_hash(sha256);
    uint32_t mask = snapshot->by_sha.mask;

    for (uint32_t at = (uint32_t)hash & mask;; at = (at + 1) & mask) {
        const struct slot *slot = &snapshot->by_sha.slots[at];

        if (slot->at == 0)
            return NULL;
        if (memcmp(snapshot->keys[slot->at - 1].sha256, sha256, 32) == 0)
            return &snapshot->keys[slot->at - 1];
    }
}

#include "billing/dims.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"
#include "common/prefetch.h"

enum {
    SLOTS_MIN = 4096,
    LENGTH = 2,
    FIXED = 4 + 4 + 2 + 1 + 4,
    KEY_MAX = FIXED + 4 * DIMS_NAME_MAX
};

struct slot {
    uint32_t at; /* key's place in the arena + 1; 0: empty */
    uint32_t hash;
};

/* A key whose slot is on its way into the cache. */
struct pending {
    uint32_t *number;
    uint32_t hash;
    uint16_t n;
    uint8_t key[KEY_MAX];
};

/* The arena holds keys, each: length 2; account 4, day 4, zone 2, device 1, four lengths of
 * 1, then the four strings. A key's place is its number: two cache lines a look. */
struct dims {
    struct slot *slots;
    uint32_t slots_n, n;
    uint8_t *arena;
    uint32_t arena_n, arena_cap;
    struct pending ring[DIMS_AHEAD];
    uint32_t ring_first, ring_n;
};

enum err
dims_open(struct dims **out, struct why *why)
{
    struct dims *dims = calloc(1, sizeof(*dims));

    *out = dims;
    if (dims != NULL) {
        dims->slots_n = SLOTS_MIN;
        dims->slots = calloc(dims->slots_n, sizeof(*dims->slots));
    }
    if (dims == NULL || dims->slots == NULL) {
        dims_close(out);
        return err_set(why, ERR_NOMEM, "judge: no memory");
    }
    return ERR_OK;
}

void
dims_close(struct dims **dims)
{
    if (*dims == NULL)
        return;
    free((*dims)->slots);
    free((*dims)->arena);
    free(*dims);
    *dims = NULL;
}

void
dims_clear(struct dims *dims)
{
    memset(dims->slots, 0, dims->slots_n * sizeof(*dims->slots));
    dims->n = 0;
    dims->arena_n = 0;
    dims->ring_n = 0;
}

bool
dims_full(const struct dims *dims)
{
    return dims->arena_n >= DIMS_BYTES_MAX;
}

static uint32_t
key_make(uint8_t key[KEY_MAX], const struct click *click, int32_t day,
         uint16_t zone)
{
    const struct str *parts[4] = {&click->campaign_id, &click->ad_id,
                                  &click->country, &click->publisher_id};
    uint32_t n = FIXED;

    memcpy(key, &click->account, 4);
    memcpy(key + 4, &day, 4);
    memcpy(key + 8, &zone, 2);
    key[10] = click->device;
    for (int i = 0; i < 4; i++) {
        assert(parts[i]->n <= DIMS_NAME_MAX);
        key[11 + i] = (uint8_t)parts[i]->n;
        if (parts[i]->n > 0)
            memcpy(key + n, parts[i]->p, parts[i]->n);
        n += parts[i]->n;
    }
    return n;
}

static enum err
slots_grow(struct dims *dims, struct why *why)
{
    uint32_t n = dims->slots_n * 2;
    struct slot *slots = calloc(n, sizeof(*slots));

    if (slots == NULL)
        return err_set(why, ERR_NOMEM, "judge: no memory");
    for (uint32_t i = 0; i < dims->slots_n; i++) {
        uint32_t at = dims->slots[i].hash & (n - 1);

        if (dims->slots[i].at == 0)
            continue;
        while (slots[at].at != 0)
            at = (at + 1) & (n - 1);
        slots[at] = dims->slots[i];
    }
    free(dims->slots);
    dims->slots = slots;
    dims->slots_n = n;
    return ERR_OK;
}

static enum err
room(struct dims *dims, uint32_t bytes, struct why *why)
{
    if (dims->arena_n + bytes > dims->arena_cap) {
        uint32_t cap = dims->arena_cap == 0 ? 1 << 20 : dims->arena_cap * 2;
        uint8_t *arena = realloc(dims->arena, cap);

        if (arena == NULL)
            return err_set(why, ERR_NOMEM, "judge: no memory");
        dims->arena = arena;
        dims->arena_cap = cap;
    }
    return dims->n * 2 >= dims->slots_n ? slots_grow(dims, why) : ERR_OK;
}

static bool
same(const struct dims *dims, uint32_t at, const uint8_t *key, uint32_t n)
{
    uint16_t length;

    memcpy(&length, dims->arena + at, sizeof(length));
    return length == n && memcmp(dims->arena + at + LENGTH, key, n) == 0;
}

/* Finds or adds the oldest pending key. */
static enum err
settle_one(struct dims *dims, struct why *why)
{
    const struct pending *p = &dims->ring[dims->ring_first];
    enum err err = room(dims, LENGTH + p->n, why);
    uint32_t at = p->hash & (dims->slots_n - 1);

    if (err != ERR_OK)
        return err;
    dims->ring_first = (dims->ring_first + 1) % DIMS_AHEAD;
    dims->ring_n--;
    for (; dims->slots[at].at != 0; at = (at + 1) & (dims->slots_n - 1)) {
        *p->number = dims->slots[at].at - 1;
        if (dims->slots[at].hash == p->hash && same(dims, *p->number, p->key, p->n))
            return ERR_OK;
    }
    *p->number = dims->arena_n;
    dims->n++;
    dims->slots[at] = (struct slot){dims->arena_n + 1, p->hash};
    memcpy(dims->arena + dims->arena_n, &p->n, sizeof(p->n));
    memcpy(dims->arena + dims->arena_n + LENGTH, p->key, p->n);
    dims->arena_n += LENGTH + p->n;
    return ERR_OK;
}

/* Half-way, the slot is there: it tells where the key is. */
static void
arena_prefetch(const struct dims *dims)
{
    const struct pending *p =
        &dims->ring[(dims->ring_first + DIMS_AHEAD / 2) % DIMS_AHEAD];
    uint32_t at = dims->slots[p->hash & (dims->slots_n - 1)].at;

    if (at != 0)
        prefetch(dims->arena + at - 1);
}

enum err
dims_number(struct dims *dims, const struct click *click, int32_t day,
            uint16_t zone, uint32_t *number, struct why *why)
{
    enum err err = ERR_OK;
    struct pending *p;

    if (dims->ring_n == DIMS_AHEAD) {
        arena_prefetch(dims);
        err = settle_one(dims, why);
    }
    if (err != ERR_OK)
        return err;
    p = &dims->ring[(dims->ring_first + dims->ring_n++) % DIMS_AHEAD];
    p->number = number;
    p->n = (uint16_t)key_make(p->key, click, day, zone);
    p->hash = (uint32_t)hash64(p->key, p->n, 0);
    prefetch(&dims->slots[p->hash & (dims->slots_n - 1)]);
    return ERR_OK;
}

enum err
dims_settle(struct dims *dims, struct why *why)
{
    enum err err = ERR_OK;

    while (dims->ring_n > 0 && err == ERR_OK)
        err = settle_one(dims, why);
    return err;
}

void
dims_get(const struct dims *dims, uint32_t number, struct dims_row *out)
{
    const uint8_t *key = dims->arena + number + LENGTH;
    struct str *parts[4] = {&out->campaign, &out->ad, &out->country,
                            &out->publisher};
    const char *p = (const char *)key + FIXED;

    assert(number < dims->arena_n);
    memcpy(&out->account, key, 4);
    memcpy(&out->day, key + 4, 4);
    memcpy(&out->zone, key + 8, 2);
    out->device = key[10];
    for (int i = 0; i < 4; i++) {
        *parts[i] = (struct str){p, key[11 + i]};
        p += key[11 + i];
    }
}

#include "aggregate/users.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/prefetch.h"

enum {
    SMALL_SLOTS_MIN = 16,
    SMALL_SLOTS_MAX = 2048, /* half full: 1,024 registers */
    RANK_BITS = 8,
    INDEX_BITS = 14,
    HLL_HEAD = 16,
};

#define HLL_SEED UINT64_C(0xadc83b19)
#define MURMUR_M UINT64_C(0xc6a4a7935bd1e995)

struct users {
    uint32_t slots; /* of the small form; 0: large */
    uint32_t used;
    uint32_t words
        []; /* small: (index + 1) << 8 | rank, 0: free; large: a byte a register */
};

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "numbers are loaded and stored as Redis's are");

/* The large form's registers; bytes may alias words. */
static uint8_t *
registers(struct users *users)
{
    return (uint8_t *)users->words;
}

/* n is at most 8. */
static uint64_t
load_le(const unsigned char *p, size_t n)
{
    uint64_t k = 0;

    memcpy(&k, p, n);
    return k;
}

/* Little endian, as Redis computes it on every machine. */
static uint64_t
murmur64a(const unsigned char *p, size_t n)
{
    uint64_t h = HLL_SEED ^ (n * MURMUR_M);

    for (; n >= 8; p += 8, n -= 8) {
        uint64_t k = load_le(p, 8);

        k *= MURMUR_M;
        k ^= k >> 47;
        k *= MURMUR_M;
        h ^= k;
        h *= MURMUR_M;
    }
    if (n > 0) {
        h ^= load_le(p, n);
        h *= MURMUR_M;
    }
    h ^= h >> 47;
    h *= MURMUR_M;
    h ^= h >> 47;
    return h;
}

struct user_mark
users_mark(struct str user_id)
{
    uint64_t h = murmur64a((const unsigned char *)user_id.p, user_id.n);
    uint64_t rest = h >> INDEX_BITS | UINT64_C(1) << (64 - INDEX_BITS);

    return (struct user_mark){
        .index = (uint16_t)(h & (USERS_REGISTERS - 1)),
        .rank = (uint8_t)(__builtin_ctzll(rest) + 1),
    };
}

static size_t
size_of(const struct users *users)
{
    if (users->slots == 0)
        return sizeof(struct users) + USERS_REGISTERS;
    return sizeof(struct users) + users->slots * sizeof(uint32_t);
}

static struct users *
small_new(uint32_t slots, size_t *bytes)
{
    size_t size = sizeof(struct users) + slots * sizeof(uint32_t);
    struct users *users = calloc(1, size);

    if (users != NULL) {
        users->slots = slots;
        *bytes += size;
    }
    return users;
}

static uint32_t
small_home(const struct users *users, uint32_t index)
{
    return index * UINT32_C(2654435761) >> 16 & (users->slots - 1);
}

static uint32_t *
small_slot(struct users *users, uint32_t index)
{
    uint32_t mask = users->slots - 1, i = small_home(users, index);
    uint32_t *slots = users->words;

    while (slots[i] != 0 && slots[i] >> RANK_BITS != index + 1)
        i = (i + 1) & mask;
    return &slots[i];
}

void
users_prefetch(const struct users *users, struct user_mark mark)
{
    if (users == NULL)
        return;
    if (users->slots == 0)
        prefetch_write((const uint8_t *)users->words + mark.index);
    else
        prefetch_write(&users->words[small_home(users, mark.index)]);
}

static struct users *
large_of(struct users *small, size_t *bytes)
{
    size_t size = sizeof(struct users) + USERS_REGISTERS;
    struct users *large = calloc(1, size);

    if (large == NULL)
        return NULL;
    *bytes += size;
    for (uint32_t i = 0; i < small->slots; i++) {
        uint32_t slot = small->words[i];

        if (slot != 0)
            registers(large)[(slot >> RANK_BITS) - 1] = (uint8_t)(slot & 0xff);
    }
    return large;
}

/* A bigger one with the same registers, or false: then nothing has changed. */
static bool
grow(struct users **users, size_t *bytes)
{
    struct users *old = *users, *bigger;

    if (old->slots >= SMALL_SLOTS_MAX) {
        bigger = large_of(old, bytes);
    } else {
        bigger = small_new(old->slots * 2, bytes);
        for (uint32_t i = 0; bigger != NULL && i < old->slots; i++)
            if (old->words[i] != 0) {
                *small_slot(bigger, (old->words[i] >> RANK_BITS) - 1) =
                    old->words[i];
                bigger->used++;
            }
    }
    if (bigger == NULL)
        return false;
    users_free(users, bytes);
    *users = bigger;
    return true;
}

static enum user_answer
large_raise(struct users *users, struct user_mark mark)
{
    if (registers(users)[mark.index] >= mark.rank)
        return USER_KNOWN;
    registers(users)[mark.index] = mark.rank;
    return USER_NEW;
}

enum user_answer
users_raise(struct users **users, struct user_mark mark, size_t *bytes,
            size_t bytes_max)
{
    assert(mark.index < USERS_REGISTERS && mark.rank > 0);
    if (*users == NULL && *bytes < bytes_max)
        *users = small_new(SMALL_SLOTS_MIN, bytes);
    if (*users == NULL)
        return USER_UNSURE;
    if ((*users)->slots == 0)
        return large_raise(*users, mark);

    uint32_t *slot = small_slot(*users, mark.index);
    if ((*slot & 0xff) >= mark.rank)
        return USER_KNOWN;
    if (*slot == 0) {
        if (((*users)->used + 1) * 2 > (*users)->slots) {
            if (*bytes >= bytes_max || !grow(users, bytes))
                return USER_UNSURE;
            return users_raise(users, mark, bytes, bytes_max);
        }
        (*users)->used++;
    }
    *slot = ((uint32_t)mark.index + 1) << RANK_BITS | mark.rank;
    return USER_NEW;
}

static void
register_put(uint8_t *registers, uint32_t index, uint32_t rank)
{
    uint32_t at = index * 6 / 8, shift = index * 6 % 8;

    registers[at] = (uint8_t)(registers[at] | rank << shift);
    if (shift > 2)
        registers[at + 1] = (uint8_t)(registers[at + 1] | rank >> (8 - shift));
}

/* Eight registers of a byte each, the first lowest, as 48 bits. */
static uint64_t
registers_pack(uint64_t x)
{
    x = (x & UINT64_C(0x003f003f003f003f)) |
        (x & UINT64_C(0x3f003f003f003f00)) >> 2;
    x = (x & UINT64_C(0x00000fff00000fff)) |
        (x & UINT64_C(0x0fff00000fff0000)) >> 4;
    return (x & UINT64_C(0xffffff)) | x >> 32 << 24;
}

static void
large_format(const uint8_t registers[USERS_REGISTERS], uint8_t *out)
{
    for (uint32_t i = 0; i < USERS_REGISTERS; i += 8, out += 6) {
        uint64_t packed = registers_pack(load_le(registers + i, 8));

        memcpy(out, &packed, 6);
    }
}

void
users_format(const struct users *users, uint8_t out[USERS_DENSE_BYTES])
{
    static const char magic[4] = {'H', 'Y', 'L', 'L'};

    memset(out, 0, USERS_DENSE_BYTES);
    memcpy(out, magic, sizeof(magic));
    out[15] = 0x80;
    if (users->slots == 0)
        large_format((const uint8_t *)users->words, out + 16);
    for (uint32_t i = 0; i < users->slots; i++)
        if (users->words[i] != 0)
            register_put(out + 16, (users->words[i] >> RANK_BITS) - 1,
                         users->words[i] & 0xff);
}

/* --- from Redis --- */

struct loading {
    struct users **users;
    size_t *bytes, bytes_max;
    bool unsure;
};

static void
register_load(struct loading *loading, uint32_t index, uint32_t rank)
{
    const struct user_mark mark = {(uint16_t)index, (uint8_t)rank};

    if (rank > 0 && users_raise(loading->users, mark, loading->bytes,
                                loading->bytes_max) == USER_UNSURE)
        loading->unsure = true;
}

static bool
dense_load(struct loading *loading, const uint8_t *p, size_t n)
{
    if (n != USERS_REGISTERS * 6 / 8)
        return false;
    for (uint32_t i = 0; i < USERS_REGISTERS; i++) {
        uint32_t at = i * 6 / 8, shift = i * 6 % 8, rank = p[at] >> shift;

        if (shift > 2)
            rank |= (uint32_t)p[at + 1] << (8 - shift);
        register_load(loading, i, rank & 0x3f);
    }
    return true;
}

static bool
sparse_load(struct loading *loading, const uint8_t *p, size_t n)
{
    uint32_t index = 0;

    for (size_t at = 0; at < n; at++) {
        uint32_t rank = 0, run = (p[at] & 0x3fU) + 1;

        if ((p[at] & 0x80) != 0) {
            rank = (p[at] >> 2 & 0x1fU) + 1;
            run = (p[at] & 3U) + 1;
        } else if ((p[at] & 0x40) != 0) {
            if (at + 1 == n)
                return false;
            run = ((p[at] & 0x3fU) << 8 | p[at + 1]) + 1;
            at++;
        }
        if (run > USERS_REGISTERS - index)
            return false;
        for (; run > 0; run--, index++)
            register_load(loading, index, rank);
    }
    return index == USERS_REGISTERS;
}

enum user_answer
users_load(struct users **users, struct str text, size_t *bytes, size_t bytes_max)
{
    struct loading loading = {users, bytes, bytes_max, false};
    const uint8_t *p = (const uint8_t *)text.p;
    bool whole = false;

    if (text.n == 0)
        return USER_KNOWN;
    if (text.n >= HLL_HEAD && memcmp(p, "HYLL", 4) == 0 && p[4] <= 1)
        whole = p[4] == 0 ? dense_load(&loading, p + HLL_HEAD, text.n - HLL_HEAD)
                          : sparse_load(&loading, p + HLL_HEAD, text.n - HLL_HEAD);
    if (!whole)
        return USER_DAMAGED;
    return loading.unsure ? USER_UNSURE : USER_KNOWN;
}

void
users_free(struct users **users, size_t *bytes)
{
    if (*users == NULL)
        return;
    assert(*bytes >= size_of(*users));
    *bytes -= size_of(*users);
    free(*users);
    *users = NULL;
}

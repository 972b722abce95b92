#include "fraud/blocklist.h"

#include <assert.h>
#include <bloom.h>
#include <stdlib.h>

#include "fraud/ruleset.h"

enum { V4_SIZE = 4, V6_SIZE = 16, FIRST = 1024, BLOOM_ENTRIES_MIN = 1000 };

#define BLOOM_ERROR 0.001

static_assert(RULESET_ADDRESSES_MAX < 149000000,
              "libbloom counts its bits in an int");

struct v6 {
    uint8_t p[V6_SIZE];
};

struct blocklist {
    uint32_t *v4; /* as numbers, sorted */
    struct v6 *v6;
    uint64_t v4_n, v4_cap, v6_n, v6_cap;
    struct bloom *bloom; /* NULL while building, or when the set is empty */
};

static uint32_t
v4_number(const void *ip)
{
    const uint8_t *p = ip;

    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static int
v6_compare(const void *a, const void *b)
{
    return memcmp(a, b, V6_SIZE);
}

enum err
blocklist_open(struct blocklist **out, struct why *why)
{
    *out = calloc(1, sizeof(**out));
    return *out != NULL ? ERR_OK
                        : err_set(why, ERR_NOMEM, "no memory for addresses");
}

void
blocklist_close(struct blocklist **list)
{
    if (*list == NULL)
        return;
    if ((*list)->bloom != NULL)
        bloom_free((*list)->bloom);
    free((*list)->bloom);
    free((*list)->v4);
    free((*list)->v6);
    free(*list);
    *list = NULL;
}

/* Room for one more of size bytes in an array that doubles. */
static void *
room(void *array, uint64_t n, uint64_t *cap, size_t size)
{
    if (n < *cap)
        return array;
    uint64_t more = *cap == 0 ? FIRST : 2 * *cap;
    void *grown = realloc(array, more * size);

    if (grown != NULL)
        *cap = more;
    return grown;
}

enum err
blocklist_add(struct blocklist *list, struct str ip, struct why *why)
{
    assert(list->bloom == NULL && (ip.n == V4_SIZE || ip.n == V6_SIZE));
    if (list->v4_n + list->v6_n == RULESET_ADDRESSES_MAX)
        return err_set(why, ERR_FULL, "more than %d addresses",
                       RULESET_ADDRESSES_MAX);
    if (ip.n == V4_SIZE) {
        uint32_t *v4 = room(list->v4, list->v4_n, &list->v4_cap, sizeof(*v4));

        if (v4 == NULL)
            return err_set(why, ERR_NOMEM, "no memory for addresses");
        list->v4 = v4;
        v4[list->v4_n++] = v4_number(ip.p);
        return ERR_OK;
    }
    struct v6 *v6 = room(list->v6, list->v6_n, &list->v6_cap, sizeof(*v6));

    if (v6 == NULL)
        return err_set(why, ERR_NOMEM, "no memory for addresses");
    list->v6 = v6;
    memcpy(v6[list->v6_n++].p, ip.p, V6_SIZE);
    return ERR_OK;
}

/* Byte by byte from the lowest, as a hundred million of them want it. */
static enum err
v4_sort(struct blocklist *list, struct why *why)
{
    uint64_t n = list->v4_n, kept = 0;
    uint32_t *other = malloc((n + 1) * sizeof(*other)), *from = list->v4,
             *to = other;

    if (other == NULL)
        return err_set(why, ERR_NOMEM, "no memory to sort addresses");
    for (int shift = 0; shift < 32; shift += 8) {
        uint64_t start[257] = {0};

        for (uint64_t i = 0; i < n; i++)
            start[(from[i] >> shift & 0xff) + 1]++;
        for (int i = 0; i < 256; i++)
            start[i + 1] += start[i];
        for (uint64_t i = 0; i < n; i++)
            to[start[from[i] >> shift & 0xff]++] = from[i];
        uint32_t *swap = from;
        from = to;
        to = swap;
    }
    assert(from == list->v4); /* four passes: back where they began */
    free(other);
    for (uint64_t i = 0; i < n; i++)
        if (i == 0 || list->v4[i] != list->v4[i - 1])
            list->v4[kept++] = list->v4[i];
    list->v4_n = kept;
    return ERR_OK;
}

static void
v6_sort(struct blocklist *list)
{
    uint64_t kept = 0;

    if (list->v6_n == 0)
        return;
    qsort(list->v6, list->v6_n, sizeof(struct v6), v6_compare);
    for (uint64_t i = 0; i < list->v6_n; i++)
        if (i == 0 || v6_compare(&list->v6[i], &list->v6[i - 1]) != 0)
            list->v6[kept++] = list->v6[i];
    list->v6_n = kept;
}

static void
v4_bytes(uint32_t number, uint8_t out[V4_SIZE])
{
    out[0] = (uint8_t)(number >> 24);
    out[1] = (uint8_t)(number >> 16);
    out[2] = (uint8_t)(number >> 8);
    out[3] = (uint8_t)number;
}

static enum err
bloom_fill(struct blocklist *list, struct why *why)
{
    uint64_t n = list->v4_n + list->v6_n;
    int entries = n < BLOOM_ENTRIES_MIN ? BLOOM_ENTRIES_MIN : (int)n;
    struct bloom *bloom = calloc(1, sizeof(*bloom));

    if (bloom == NULL || bloom_init(bloom, entries, BLOOM_ERROR) != 0) {
        free(bloom);
        return err_set(why, ERR_NOMEM, "no memory for the filter of addresses");
    }
    for (uint64_t i = 0; i < list->v4_n; i++) {
        uint8_t ip[V4_SIZE];

        v4_bytes(list->v4[i], ip);
        (void)bloom_add(bloom, ip, V4_SIZE);
    }
    for (uint64_t i = 0; i < list->v6_n; i++)
        (void)bloom_add(bloom, list->v6[i].p, V6_SIZE);
    list->bloom = bloom;
    return ERR_OK;
}

enum err
blocklist_finish(struct blocklist *list, struct why *why)
{
    assert(list->bloom == NULL);
    if (list->v4_n + list->v6_n == 0)
        return ERR_OK;
    enum err err = list->v4_n == 0 ? ERR_OK : v4_sort(list, why);
    if (err != ERR_OK)
        return err;
    v6_sort(list);
    return bloom_fill(list, why);
}

bool
blocklist_maybe(const struct blocklist *list, struct str ip)
{
    return list->bloom != NULL && bloom_check(list->bloom, ip.p, (int)ip.n) == 1;
}

bool
blocklist_has(const struct blocklist *list, struct str ip)
{
    if (!blocklist_maybe(list, ip))
        return false;
    if (ip.n == V6_SIZE)
        return list->v6_n > 0 && bsearch(ip.p, list->v6, list->v6_n,
                                         sizeof(struct v6), v6_compare) != NULL;
    if (ip.n != V4_SIZE)
        return false;
    uint32_t number = v4_number(ip.p);
    uint64_t low = 0, high = list->v4_n;

    while (low < high) {
        uint64_t middle = low + (high - low) / 2;

        if (list->v4[middle] == number)
            return true;
        if (list->v4[middle] < number)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

void
blocklist_stats_get(const struct blocklist *list, struct blocklist_stats *out)
{
    out->addresses = list->v4_n + list->v6_n;
    out->bytes = list->v4_cap * sizeof(uint32_t) +
                 list->v6_cap * sizeof(struct v6) +
                 (list->bloom == NULL ? 0 : (uint64_t)list->bloom->bytes);
}

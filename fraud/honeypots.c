#include "fraud/honeypots.h"

#include <assert.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/hash.h"
#include "fraud/ruleset.h"

struct entry {
    uint32_t at, n; /* bytes of text */
};

struct honeypots {
    struct buf text;
    struct buf entries;
    uint32_t *slots; /* number of the entry + 1, 0: free; at most half are taken */
    uint32_t count, slots_n;
};

enum err
honeypots_open(struct honeypots **out, struct why *why)
{
    struct honeypots *set = calloc(1, sizeof(*set));

    *out = set;
    if (set == NULL)
        return err_set(why, ERR_NOMEM, "no memory for honeypots");
    set->text = BUF_MAX((size_t)RULESET_HONEYPOTS_MAX * RULESET_LINE_MAX);
    set->entries = BUF_MAX((size_t)RULESET_HONEYPOTS_MAX * sizeof(struct entry));
    return ERR_OK;
}

void
honeypots_close(struct honeypots **set)
{
    if (*set == NULL)
        return;
    buf_free(&(*set)->text);
    buf_free(&(*set)->entries);
    free((*set)->slots);
    free(*set);
    *set = NULL;
}

enum err
honeypots_add(struct honeypots *set, struct str ad_id, struct why *why)
{
    struct entry entry = {(uint32_t)set->text.n, ad_id.n};

    if (set->count == RULESET_HONEYPOTS_MAX)
        return err_set(why, ERR_FULL, "more than %d ad ids", RULESET_HONEYPOTS_MAX);
    buf_add_str(&set->text, ad_id);
    buf_add(&set->entries, &entry, sizeof(entry));
    if (set->text.failed || set->entries.failed)
        return err_set(why, ERR_NOMEM, "no memory for honeypots");
    set->count++;
    return ERR_OK;
}

static struct str
text_of(const struct honeypots *set, uint32_t i)
{
    struct entry entry;

    memcpy(&entry, set->entries.p + i * sizeof(entry), sizeof(entry));
    return (struct str){(const char *)set->text.p + entry.at, entry.n};
}

/* The slot of ad_id, or the free one where it belongs. */
static uint32_t *
slot_find(const struct honeypots *set, struct str ad_id)
{
    uint32_t mask = set->slots_n - 1,
             i = (uint32_t)hash64(ad_id.p, ad_id.n, 0) & mask;

    while (set->slots[i] != 0 && !str_equal(text_of(set, set->slots[i] - 1), ad_id))
        i = (i + 1) & mask;
    return &set->slots[i];
}

enum err
honeypots_finish(struct honeypots *set, struct why *why)
{
    if (set->count == 0)
        return ERR_OK;
    for (set->slots_n = 16; set->slots_n < 2 * set->count;)
        set->slots_n *= 2;
    set->slots = calloc(set->slots_n, sizeof(*set->slots));
    if (set->slots == NULL)
        return err_set(why, ERR_NOMEM, "no memory for honeypots");
    for (uint32_t i = 0; i < set->count; i++)
        *slot_find(set, text_of(set, i)) = i + 1;
    return ERR_OK;
}

bool
honeypots_has(const struct honeypots *set, struct str ad_id)
{
    assert(set->count == 0 || set->slots != NULL);
    return set->count > 0 && *slot_find(set, ad_id) != 0;
}

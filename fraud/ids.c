/* A line is 8 words: tag, LINE_USED and the time of receipt in units of 2 s. */

#include <assert.h>
#include <stdlib.h>

#include "common/prefetch.h"
#include "fraud/fraud.h"
#include "fraud/line.h"
#include "fraud/live.h"

enum { WAYS = 8, WAYS_FULL = 5, UNIT_S = 2, LIVE_UNITS = 3600 / UNIT_S };

struct line {
    uint64_t words[WAYS];
};

static_assert(sizeof(struct line) == LINE_SIZE, "a set is one cache line");

struct fraud_ids {
    struct line *lines;
    uint64_t lines_n;
    uint64_t forgotten;
};

enum err
fraud_ids_open(struct fraud_ids **out, size_t ids_max, struct why *why)
{
    void *lines;
    enum err err = fraud_size_check("ids_max", ids_max, why);

    *out = NULL;
    if (err != ERR_OK)
        return err;
    struct fraud_ids *ids = calloc(1, sizeof(*ids));
    if (ids == NULL)
        return err_set(why, ERR_NOMEM, "fraud: no memory for event ids");
    ids->lines_n =
        ids_max / WAYS_FULL < LINES_MIN ? LINES_MIN : ids_max / WAYS_FULL;
    err = line_map(&lines, ids->lines_n, "event ids (ids_max)", why);
    ids->lines = lines;
    if (err != ERR_OK)
        fraud_ids_close(&ids);
    *out = ids;
    return err;
}

void
fraud_ids_close(struct fraud_ids **ids)
{
    if (*ids == NULL)
        return;
    line_unmap((*ids)->lines, (*ids)->lines_n);
    free(*ids);
    *ids = NULL;
}

void
fraud_ids_prefetch(const struct fraud_ids *ids, uint64_t id_hash)
{
    prefetch_write(&ids->lines[line_of(id_hash, ids->lines_n)]);
}

static int32_t
age_of(uint64_t word, uint32_t now)
{
    return line_age(now, (uint32_t)word & LINE_STAMP_MASK);
}

/* The free word, or the stalest; counts what is lost with it. */
static uint64_t *
word_take(struct fraud_ids *ids, struct line *line, uint32_t now)
{
    int stalest = 0;

    for (int i = 0; i < WAYS; i++) {
        if (line->words[i] == 0)
            return &line->words[i];
        if (age_of(line->words[i], now) > age_of(line->words[stalest], now))
            stalest = i;
    }
    if (age_of(line->words[stalest], now) <= LIVE_UNITS)
        ids->forgotten++;
    return &line->words[stalest];
}

bool
fraud_ids_seen(struct fraud_ids *ids, uint64_t id_hash, int64_t received_us)
{
    assert(received_us >= 0);
    struct line *line = &ids->lines[line_of(id_hash, ids->lines_n)];
    uint32_t now =
        (uint32_t)(received_us / (UNIT_S * CLOCK_SECOND_US)) & LINE_STAMP_MASK;
    uint64_t tag = line_tag(id_hash), *word = NULL;

    for (int i = 0; i < WAYS && word == NULL; i++)
        if ((line->words[i] & LINE_TAG_MASK) == tag && line->words[i] != 0)
            word = &line->words[i];
    if (word != NULL && age_of(*word, now) <= LIVE_UNITS)
        return true;
    if (word == NULL)
        word = word_take(ids, line, now);
    *word = tag | LINE_USED | now;
    return false;
}

uint64_t
fraud_ids_forgotten(const struct fraud_ids *ids)
{
    return ids->forgotten;
}

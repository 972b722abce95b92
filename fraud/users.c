/* A line is 5 entries: a word of tag, LINE_USED and line_stamp, and the last click's event
 * time modulo 2^32 ms. Differences of the event times of two clicks received within two
 * hours are far below 2^31 ms (24 days), so they come out exact. */

#include <assert.h>
#include <stdlib.h>

#include "common/prefetch.h"
#include "fraud/fraud.h"
#include "fraud/line.h"
#include "fraud/live.h"

enum { WAYS = 5, WAYS_FULL = 3 };

struct line {
    uint64_t words[WAYS];
    uint32_t last_ms[WAYS];
    uint32_t unused;
};

static_assert(sizeof(struct line) == LINE_SIZE, "a set is one cache line");

struct fraud_users {
    struct line *lines;
    uint64_t lines_n;
    uint64_t forgotten;
};

enum err
fraud_users_open(struct fraud_users **out, size_t users_max, struct why *why)
{
    void *lines;
    enum err err = fraud_size_check("users_max", users_max, why);

    *out = NULL;
    if (err != ERR_OK)
        return err;
    struct fraud_users *users = calloc(1, sizeof(*users));
    if (users == NULL)
        return err_set(why, ERR_NOMEM, "fraud: no memory for users");
    users->lines_n =
        users_max / WAYS_FULL < LINES_MIN ? LINES_MIN : users_max / WAYS_FULL;
    err = line_map(&lines, users->lines_n, "users (users_max)", why);
    users->lines = lines;
    if (err != ERR_OK)
        fraud_users_close(&users);
    *out = users;
    return err;
}

void
fraud_users_close(struct fraud_users **users)
{
    if (*users == NULL)
        return;
    line_unmap((*users)->lines, (*users)->lines_n);
    free(*users);
    *users = NULL;
}

void
fraud_users_prefetch(const struct fraud_users *users, uint64_t user_key)
{
    prefetch_write(&users->lines[line_of(user_key, users->lines_n)]);
}

static int
way_take(struct fraud_users *users, const struct line *line, uint32_t now)
{
    int stalest = 0;

    for (int i = 0; i < WAYS; i++) {
        if (line->words[i] == 0)
            return i;
        if (line_age(now, (uint32_t)line->words[i]) >
            line_age(now, (uint32_t)line->words[stalest]))
            stalest = i;
    }
    if (line_hours(now, (uint32_t)line->words[stalest]) <= 1)
        users->forgotten++;
    return stalest;
}

uint32_t
fraud_users_seen(struct fraud_users *users, const struct ruleset_limits *limits,
                 uint64_t user_key, int64_t event_ms, int64_t received_us)
{
    assert(received_us >= 0);
    struct line *line = &users->lines[line_of(user_key, users->lines_n)];
    uint64_t tag = line_tag(user_key);
    uint32_t now = line_stamp(received_us), reasons = 0;
    int way = 0;

    while (way < WAYS &&
           ((line->words[way] & LINE_TAG_MASK) != tag || line->words[way] == 0))
        way++;
    if (way == WAYS)
        way = way_take(users, line, now);
    else if (line_hours(now, (uint32_t)line->words[way]) <= 1)
        reasons = fraud_click_reason(
            limits, (int32_t)((uint32_t)event_ms - line->last_ms[way]));
    line->words[way] = tag | LINE_USED | now;
    line->last_ms[way] = (uint32_t)event_ms;
    return reasons;
}

uint64_t
fraud_users_forgotten(const struct fraud_users *users)
{
    return users->forgotten;
}

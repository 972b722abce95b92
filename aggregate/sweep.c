/* Removing what older generations left in Redis. They would expire by themselves, but a
 * day row only after nine days, and twice the memory for so long is too much. A sweep that
 * a failover interrupts goes on at the other node, and may miss rows: they expire. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "aggregate/part.h"
#include "common/clock.h"
#include "schema/rediskeys.h"

enum { SCAN_COUNT = 5000, WORDS_MAX = 1000, PATTERN_MAX = 32 };

/* The generation in "{p7}:3:5m:..."; 0 if the key has none. */
static uint32_t
generation_of(struct str key)
{
    uint32_t generation = 0, i = 0;

    while (i < key.n && key.p[i] != ':')
        i++;
    for (i++; i < key.n && key.p[i] >= '0' && key.p[i] <= '9'; i++)
        generation = generation * 10 + (uint32_t)(key.p[i] - '0');
    return i < key.n && key.p[i] == ':' ? generation : 0;
}

static enum err
unlink_old(struct part *part, struct tools *tools, const struct redis_reply *keys,
           struct why *why)
{
    struct str words[WORDS_MAX] = {STR("UNLINK")};
    size_t n = 1;
    enum err err = ERR_OK;

    for (size_t i = 0; i < keys->count && err == ERR_OK; i++) {
        uint32_t generation = generation_of(keys->items[i]->text);

        if (generation == 0 || generation >= part->generation)
            continue;
        words[n++] = keys->items[i]->text;
        if (n == WORDS_MAX) {
            err = redis_command(tools->redis, words, n, NULL, why);
            n = 1;
        }
    }
    if (err == ERR_OK && n > 1)
        err = redis_command(tools->redis, words, n, NULL, why);
    return err;
}

void
part_sweep(struct part *part, struct tools *tools)
{
    char pattern[PATTERN_MAX], cursor[24], count[24], owner[REDISKEY_MAX];
    struct str words[6] = {STR("SCAN"),  {cursor, 0},  STR("MATCH"),
                           {pattern, 0}, STR("COUNT"), {count, 0}};
    struct redis_reply *reply = NULL;
    struct why why;

    if (tools->now_us < part->sweep_us || part->building)
        return;
    words[1].n =
        (uint32_t)snprintf(cursor, sizeof(cursor), "%" PRIu64, part->sweep_cursor);
    words[3].n =
        (uint32_t)snprintf(pattern, sizeof(pattern), "{p%u}:*", part->partition);
    words[5].n = (uint32_t)snprintf(count, sizeof(count), "%d", SCAN_COUNT);
    /* A cursor is one node's: all our keys are on that of our owner record. */
    struct str key = {owner, rediskey_owner(owner, part->partition)};
    if (redis_command_at(tools->redis, key, words, 6, &reply, &why) != ERR_OK)
        return; /* the same step again, next time */
    if (reply->type == REDIS_ARRAY && reply->count == 2 &&
        unlink_old(part, tools, reply->items[1], &why) == ERR_OK) {
        (void)snprintf(cursor, sizeof(cursor), "%.*s", (int)reply->items[0]->text.n,
                       reply->items[0]->text.p);
        part->sweep_cursor = strtoull(cursor, NULL, 10);
        if (part->sweep_cursor == 0)
            part->sweep_us = 0;
    }
    redis_reply_free(&reply);
}

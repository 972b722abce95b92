/* Which slot a key has, and who serves which slots. Source: the Redis Cluster
 * specification, "Key distribution model" and "Redirection". */
#include "common/redis_impl.h"

#include <assert.h>
#include <stdio.h>
#include <strings.h>

/* CRC16/XMODEM: polynomial 0x1021, from 0, nothing reflected; four bits a step. */
static uint16_t
crc16(const char *p, size_t n)
{
    static const uint16_t table[16] = {
        0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7,
        0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef,
    };
    unsigned crc = 0;

    for (size_t i = 0; i < n; i++) {
        unsigned byte = (uint8_t)p[i];

        crc = (crc << 4 & 0xffff) ^ table[(crc >> 12 ^ byte >> 4) & 15];
        crc = (crc << 4 & 0xffff) ^ table[(crc >> 12 ^ byte) & 15];
    }
    return (uint16_t)crc;
}

unsigned
redis_slot(struct str key)
{
    const char *open = key.n == 0 ? NULL : memchr(key.p, '{', key.n);

    if (open != NULL) {
        size_t rest = key.n - (size_t)(++open - key.p);
        const char *close = rest == 0 ? NULL : memchr(open, '}', rest);

        if (close != NULL && close > open)
            return crc16(open, (size_t)(close - open)) % REDIS_SLOTS;
    }
    return crc16(key.p, key.n) % REDIS_SLOTS;
}

static bool
word_get(const struct redis_words *runs, size_t runs_n, size_t at, struct str *word)
{
    for (size_t i = 0; i < runs_n; at -= runs[i++].n) {
        if (at < runs[i].n) {
            *word = runs[i].p[at];
            return true;
        }
    }
    return false;
}

static bool
word_is(struct str word, const char *name)
{
    return word.n == strlen(name) && strncasecmp(word.p, name, word.n) == 0;
}

bool
redis_key_of(const struct redis_words *runs, size_t runs_n, struct str *key)
{
    static const char *const keyless[] = {
        "SCRIPT", "CLUSTER", "CONFIG", "CLIENT",   "INFO",
        "PING",   "ECHO",    "SCAN",   "KEYS",     "WAIT",
        "DEBUG",  "TIME",    "ACL",    "FLUSHALL", "FLUSHDB",
    };
    struct str name, count;

    if (!word_get(runs, runs_n, 0, &name))
        return false;
    for (size_t i = 0; i < sizeof(keyless) / sizeof(keyless[0]); i++)
        if (word_is(name, keyless[i]))
            return false;
    if (!word_is(name, "EVALSHA") && !word_is(name, "EVAL"))
        return word_get(runs, runs_n, 1, key);
    return word_get(runs, runs_n, 2, &count) && !str_equal(count, STR("0")) &&
           word_get(runs, runs_n, 3, key);
}

/* A host that a node does not name is the one where we asked. */
static bool
address_put(char out[REDIS_ADDRESS_MAX], struct str host, const char *asked,
            int64_t port)
{
    int n;

    if (host.n == 0)
        host = str_of(asked);
    if (host.n == 0 || host.n >= REDIS_HOST_MAX || str_equal(host, STR("?")) ||
        port <= 0 || port > 65535)
        return false;
    n = snprintf(out, REDIS_ADDRESS_MAX, "%.*s:%d", (int)host.n, host.p, (int)port);
    return n > 0 && n < REDIS_ADDRESS_MAX;
}

static bool
slots_valid(const struct redis_reply *from, const struct redis_reply *to)
{
    return from->type == REDIS_INTEGER && to->type == REDIS_INTEGER &&
           from->integer >= 0 && from->integer <= to->integer &&
           to->integer < REDIS_SLOTS;
}

enum err
redis_range_read(const struct redis_reply *slots, size_t i, const char *asked,
                 struct redis_range *out, struct why *why)
{
    const struct redis_reply *range, *master;

    assert(slots->type == REDIS_ARRAY && i < slots->count);
    range = slots->items[i];
    if (range->type != REDIS_ARRAY || range->count < 3 ||
        !slots_valid(range->items[0], range->items[1]))
        return err_set(why, ERR_FATAL,
                       "redis: range %zu of CLUSTER SLOTS is not one", i);
    master = range->items[2];
    if (master->type != REDIS_ARRAY || master->count < 2 ||
        master->items[1]->type != REDIS_INTEGER ||
        !address_put(out->address, master->items[0]->text, asked,
                     master->items[1]->integer))
        return err_set(why, ERR_FATAL,
                       "redis: range %zu of CLUSTER SLOTS has no address", i);
    out->from = (unsigned)range->items[0]->integer;
    out->to = (unsigned)range->items[1]->integer;
    return ERR_OK;
}

/* Decimal digits up to end; -1: something else. */
static int64_t
number_read(const char *p, const char *end)
{
    int64_t n = 0;

    if (p == end || end - p > 5)
        return -1;
    for (; p < end; p++) {
        if (*p < '0' || *p > '9')
            return -1;
        n = n * 10 + (*p - '0');
    }
    return n;
}

bool
redis_redirect_read(const char *text, const char *asked, bool *ask,
                    struct redis_range *out)
{
    const char *space, *colon, *end = text + strlen(text);
    int64_t slot;

    *ask = strncmp(text, "ASK ", 4) == 0;
    if (!*ask && strncmp(text, "MOVED ", 6) != 0)
        return false;
    text += *ask ? 4 : 6;
    space = strchr(text, ' ');
    colon = strrchr(text, ':');
    if (space == NULL || colon == NULL || colon < space)
        return false;
    slot = number_read(text, space++);
    if (slot < 0 || slot >= REDIS_SLOTS)
        return false;
    out->from = out->to = (unsigned)slot;
    return address_put(out->address, (struct str){space, (uint32_t)(colon - space)},
                       asked, number_read(colon + 1, end));
}

/* The copy of a snapshot in the data directory.
 *
 *   "clmaster" 1 | version | campaigns | keys | XXH3 of all before it
 *
 * All numbers are little-endian 64 bits, all texts a number and their bytes: simple, and
 * small beside the time it takes to load the tables. */
#include <assert.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/file.h"
#include "common/hash.h"
#include "schema/snapshot.h"
#include "schema/zone.h"

enum { MAGIC_SIZE = 9, NUMBER_SIZE = 8, KEY_SIZE_MIN = 32 + 6 * NUMBER_SIZE };

static const char magic[MAGIC_SIZE + 1] = "clmaster\x01";
static const size_t copy_bytes_max = (size_t)2 << 30;

static void
put_number(struct buf *buf, int64_t value)
{
    uint8_t bytes[NUMBER_SIZE];

    for (int i = 0; i < NUMBER_SIZE; i++)
        bytes[i] = (uint8_t)((uint64_t)value >> (8 * i));
    buf_add(buf, bytes, sizeof(bytes));
}

static void
put_text(struct buf *buf, struct str text)
{
    put_number(buf, text.n);
    buf_add_str(buf, text);
}

static void
put_campaign(struct buf *buf, const struct master_campaign *c)
{
    put_text(buf, c->id);
    put_number(buf, c->account);
    put_text(buf, c->advertiser);
    put_text(buf, c->currency);
    put_text(buf, zone_name(c->zone));
    put_number(buf, c->price_cap_micros);
    put_number(buf, c->rates_n);
    for (uint32_t i = 0; i < c->rates_n; i++) {
        put_number(buf, c->rates[i].valid_from_ms);
        put_number(buf, c->rates[i].micros);
    }
    put_number(buf, c->budgets_n);
    for (uint32_t i = 0; i < c->budgets_n; i++) {
        put_number(buf, c->budgets[i].valid_from_day);
        put_number(buf, c->budgets[i].daily_micros);
    }
    put_number(buf, c->statuses_n);
    for (uint32_t i = 0; i < c->statuses_n; i++) {
        put_number(buf, c->statuses[i].valid_from_ms);
        put_number(buf, c->statuses[i].active);
    }
}

static void
put_key(struct buf *buf, const struct master_key *key)
{
    put_number(buf, key->id);
    put_number(buf, key->account);
    buf_add(buf, key->sha256, sizeof(key->sha256));
    put_number(buf, key->scopes);
    put_text(buf, key->advertiser);
    put_number(buf, key->rate_clicks_per_s);
    put_number(buf, key->revoked);
}

enum err
snapshot_to_file(const struct master *master, const char *path, struct why *why)
{
    struct buf buf = BUF_MAX(copy_bytes_max);
    enum err err;

    buf_add(&buf, magic, MAGIC_SIZE);
    put_number(&buf, (int64_t)master->version);
    put_number(&buf, master->campaigns_n);
    for (uint32_t i = 0; i < master->campaigns_n; i++)
        put_campaign(&buf, &master->campaigns[i]);
    put_number(&buf, master->keys_n);
    for (uint32_t i = 0; i < master->keys_n; i++)
        put_key(&buf, &master->keys[i]);
    if (!buf.failed)
        put_number(&buf, (int64_t)hash64(buf.p, buf.n, 0));
    if (buf.failed)
        err = err_set(why, ERR_NOMEM, "%s: no memory", path);
    else
        err = file_write(path, buf.p, buf.n, why);
    buf_free(&buf);
    return err;
}

/* The bytes still to read; `bad` turns true when they end too soon, and stays. */
struct source {
    const uint8_t *p, *end;
    bool bad;
};

/* A number in 0..max, or -1..max where below is -1. */
static int64_t
get_number(struct source *source, int64_t below, int64_t max)
{
    uint64_t value = 0;

    if (source->end - source->p < NUMBER_SIZE)
        source->bad = true;
    if (source->bad)
        return 0;
    for (int i = 0; i < NUMBER_SIZE; i++)
        value |= (uint64_t)source->p[i] << (8 * i);
    source->p += NUMBER_SIZE;
    if ((int64_t)value < below || (int64_t)value > max)
        source->bad = true;
    return source->bad ? 0 : (int64_t)value;
}

static struct str
get_text(struct source *source)
{
    int64_t n = get_number(source, 0, UINT32_MAX);

    if (n > source->end - source->p)
        source->bad = true;
    if (source->bad)
        return (struct str){NULL, 0};

    struct str text = {(const char *)source->p, (uint32_t)n};
    source->p += n;
    return text;
}

/* Room for the steps of all campaigns: the file has 16 bytes for each, so its size bounds
 * them. */
struct room {
    struct master_campaign *campaigns;
    struct master_key *keys;
    struct master_rate *rates;
    struct master_budget *budgets;
    struct master_status *statuses;
};

static struct room
room_make(size_t bytes)
{
    size_t steps = bytes / (2 * NUMBER_SIZE) + 1;

    return (struct room){
        calloc(bytes / (8 * NUMBER_SIZE) + 1, sizeof(struct master_campaign)),
        calloc(bytes / KEY_SIZE_MIN + 1, sizeof(struct master_key)),
        calloc(steps, sizeof(struct master_rate)),
        calloc(steps, sizeof(struct master_budget)),
        calloc(steps, sizeof(struct master_status)),
    };
}

static void
room_free(struct room *room)
{
    free(room->campaigns);
    free(room->keys);
    free(room->rates);
    free(room->budgets);
    free(room->statuses);
}

static uint16_t
get_steps_n(struct source *source)
{
    int64_t n = get_number(source, 0, SNAPSHOT_STEPS_MAX);

    if (n * 2 * NUMBER_SIZE > source->end - source->p)
        source->bad = true;
    return source->bad ? 0 : (uint16_t)n;
}

/* The steps go to *to, which moves on. */
static void
get_steps(struct source *source, struct master_campaign *c, struct room *to)
{
    c->rates = to->rates;
    c->rates_n = get_steps_n(source);
    for (uint32_t i = 0; i < c->rates_n; i++, to->rates++) {
        to->rates->valid_from_ms = get_number(source, INT64_MIN, INT64_MAX);
        to->rates->micros = get_number(source, MASTER_EVENT_PRICE, INT64_MAX);
    }
    c->budgets = to->budgets;
    c->budgets_n = get_steps_n(source);
    for (uint32_t i = 0; i < c->budgets_n; i++, to->budgets++) {
        to->budgets->valid_from_day =
            (int32_t)get_number(source, INT32_MIN, INT32_MAX);
        to->budgets->daily_micros = get_number(source, MASTER_NO_BUDGET, INT64_MAX);
    }
    c->statuses = to->statuses;
    c->statuses_n = get_steps_n(source);
    for (uint32_t i = 0; i < c->statuses_n; i++, to->statuses++) {
        to->statuses->valid_from_ms = get_number(source, INT64_MIN, INT64_MAX);
        to->statuses->active = get_number(source, 0, 1) != 0;
    }
}

static void
get_campaign(struct source *source, struct master_campaign *c, struct room *to)
{
    c->id = get_text(source);
    c->account = (uint32_t)get_number(source, 0, UINT32_MAX);
    c->advertiser = get_text(source);
    c->currency = get_text(source);
    c->zone = zone_find(get_text(source));
    if (c->zone == NULL)
        source->bad = true;
    c->price_cap_micros = get_number(source, 0, INT64_MAX);
    get_steps(source, c, to);
}

static void
get_key(struct source *source, struct master_key *key)
{
    key->id = (uint32_t)get_number(source, 0, UINT32_MAX);
    key->account = (uint32_t)get_number(source, 0, UINT32_MAX);
    if (source->end - source->p < (ptrdiff_t)sizeof(key->sha256))
        source->bad = true;
    if (source->bad)
        return;
    memcpy(key->sha256, source->p, sizeof(key->sha256));
    source->p += sizeof(key->sha256);
    key->scopes = (uint32_t)get_number(source, 0, UINT32_MAX);
    key->advertiser = get_text(source);
    key->rate_clicks_per_s = (uint32_t)get_number(source, 0, UINT32_MAX);
    key->revoked = get_number(source, 0, 1) != 0;
}

static enum err
parse(struct snapshot **out, const struct buf *buf, const char *path,
      struct why *why)
{
    struct source source = {buf->p + MAGIC_SIZE, buf->p + buf->n - NUMBER_SIZE,
                            false};
    struct room room = room_make(buf->n), to = room;
    enum err err = ERR_NOMEM;

    if (room.campaigns == NULL || room.keys == NULL || room.rates == NULL ||
        room.budgets == NULL || room.statuses == NULL) {
        (void)err_set(why, ERR_NOMEM, "%s: no memory", path);
        goto done;
    }
    uint64_t version = (uint64_t)get_number(&source, INT64_MIN, INT64_MAX);
    uint32_t campaigns_n =
        (uint32_t)get_number(&source, 0, (int64_t)(buf->n / (8 * NUMBER_SIZE)));
    for (uint32_t i = 0; i < campaigns_n && !source.bad; i++)
        get_campaign(&source, &room.campaigns[i], &to);
    uint32_t keys_n =
        (uint32_t)get_number(&source, 0, (int64_t)(buf->n / KEY_SIZE_MIN));
    for (uint32_t i = 0; i < keys_n && !source.bad; i++)
        get_key(&source, &room.keys[i]);
    if (source.bad || source.p != source.end)
        err = err_set(why, ERR_CORRUPT, "%s: damaged, or of another version", path);
    else
        err = snapshot_make(out, version, room.campaigns, campaigns_n, room.keys,
                            keys_n, why);
done:
    room_free(&room);
    return err;
}

enum err
snapshot_from_file(struct snapshot **out, const char *path, struct why *why)
{
    struct buf buf = BUF_MAX(copy_bytes_max);
    enum err err = file_read(path, &buf, why);
    uint64_t sum = 0;

    *out = NULL;
    if (err == ERR_OK && (buf.n < MAGIC_SIZE + 4 * NUMBER_SIZE ||
                          memcmp(buf.p, magic, MAGIC_SIZE) != 0))
        err = err_set(why, ERR_CORRUPT, "%s: no copy of master data", path);
    for (int i = 0; err == ERR_OK && i < NUMBER_SIZE; i++)
        sum |= (uint64_t)buf.p[buf.n - NUMBER_SIZE + (size_t)i] << (8 * i);
    if (err == ERR_OK && hash64(buf.p, buf.n - NUMBER_SIZE, 0) != sum)
        err = err_set(why, ERR_CORRUPT, "%s: its checksum does not match", path);
    if (err == ERR_OK)
        err = parse(out, &buf, path, why);
    buf_free(&buf);
    return err;
}

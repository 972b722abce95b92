/* Open addressing with linear probing, at most 5/8 full, doubling; key 0 is an empty slot.
 * A generation is one hour of receipt. Looking back into the previous one for an address's
 * minute or second is skipped when nothing that late was received in it, so in a steady
 * flow it costs nothing but for a few minutes after the hour. */

#include <assert.h>
#include <stdlib.h>

#include "common/prefetch.h"
#include "fraud/fraud.h"
#include "fraud/line.h"
#include "fraud/live.h"

enum { SLOTS_MIN = 1024, SLOTS_A_LINE = 4, SHARD_SHIFT = 56 };

#define SHARD_MASK (UINT64_MAX << SHARD_SHIFT)

/* A slot's value: of users the event time of the last click; of addresses see minute_clicks.
 * The keys of an address's minute and of its seconds have their top bits, the shard, in
 * common. */

static_assert(sizeof(struct fraud_entry) * SLOTS_A_LINE == LINE_SIZE,
              "slots fill lines");

struct table {
    struct fraud_entry *slots;
    uint64_t slots_n; /* a power of two, or 0 */
    uint64_t used;
};

struct generation {
    struct table users, addresses;
    int64_t event_ms_max; /* of all clicks fed */
};

struct fraud_window {
    struct generation current, previous;
    int64_t hour_us; /* -1: none entered yet */
    uint64_t bytes, bytes_max;
};

static uint64_t
key_of(uint64_t hash)
{
    return hash == 0 ? 1 : hash;
}

static uint64_t
minute_key_of(uint64_t address_key, int64_t event_ms)
{
    return key_of(fraud_bucket_key(address_key, event_ms, CLOCK_MINUTE_MS));
}

static uint64_t
second_key_of(uint64_t address_key, int64_t event_ms, uint64_t minute_key)
{
    return key_of((fraud_bucket_key(address_key, event_ms, 1000) & ~SHARD_MASK) |
                  (minute_key & SHARD_MASK));
}

/* The slot of key, or the free one where it belongs. The table has a free slot. */
static struct fraud_entry *
table_find(const struct table *table, uint64_t key)
{
    uint64_t mask = table->slots_n - 1, i = key >> 7 & mask;

    while (table->slots[i].key != key && table->slots[i].key != 0)
        i = (i + 1) & mask;
    return &table->slots[i];
}

static int64_t
table_get(const struct table *table, uint64_t key, int64_t absent)
{
    if (table->used == 0)
        return absent;
    const struct fraud_entry *slot = table_find(table, key);

    return slot->key == key ? slot->value : absent;
}

/* Large tables lie on huge pages: a random touch then misses no page table. */
static enum err
slots_make(struct table *table, struct why *why)
{
    uint64_t lines = table->slots_n / SLOTS_A_LINE;
    void *slots = NULL;
    enum err err = ERR_OK;

    if (lines >= LINES_MIN)
        err = line_map(&slots, lines, "users or addresses", why);
    else if ((slots = calloc(table->slots_n, sizeof(struct fraud_entry))) == NULL)
        err = err_set(why, ERR_NOMEM, "fraud: no memory for users or addresses");
    table->slots = slots;
    return err;
}

static void
table_clear(struct fraud_window *window, struct table *table)
{
    if (table->slots_n / SLOTS_A_LINE >= LINES_MIN)
        line_unmap(table->slots, table->slots_n / SLOTS_A_LINE);
    else
        free(table->slots);
    window->bytes -= table->slots_n * sizeof(struct fraud_entry);
    *table = (struct table){0};
}

/* Room for n more keys. Old and new slots stand side by side while they are moved. */
static enum err
table_room(struct fraud_window *window, struct table *table, uint64_t n,
           struct why *why)
{
    if (table->used + n <= table->slots_n / 8 * 5)
        return ERR_OK;
    struct table grown = {.slots_n =
                              table->slots_n == 0 ? SLOTS_MIN : 2 * table->slots_n,
                          .used = table->used};
    uint64_t bytes = grown.slots_n * sizeof(struct fraud_entry);

    if (window->bytes + bytes > window->bytes_max)
        return err_set(
            why, ERR_FULL,
            "fraud: users and addresses of two hours need more than %llu bytes: "
            "raise the judge's limit",
            (unsigned long long)window->bytes_max);
    enum err err = slots_make(&grown, why);

    if (err != ERR_OK)
        return err;
    for (uint64_t i = 0; i < table->slots_n; i++)
        if (table->slots[i].key != 0)
            *table_find(&grown, table->slots[i].key) = table->slots[i];
    table_clear(window, table);
    window->bytes += bytes;
    *table = grown;
    return ERR_OK;
}

/* The value of key, made with fresh if it is not there. There is room. */
static int64_t *
table_put(struct table *table, uint64_t key, int64_t fresh)
{
    struct fraud_entry *slot = table_find(table, key);

    if (slot->key == 0) {
        *slot = (struct fraud_entry){key, fresh};
        table->used++;
    }
    return &slot->value;
}

static void
generation_clear(struct fraud_window *window, struct generation *generation)
{
    table_clear(window, &generation->users);
    table_clear(window, &generation->addresses);
    generation->event_ms_max = INT64_MIN;
}

enum err
fraud_window_open(struct fraud_window **out, uint64_t bytes_max, struct why *why)
{
    *out = NULL;
    if (bytes_max < FRAUD_WINDOW_BYTES_MIN)
        return err_set(why, ERR_INVALID,
                       "fraud: the window's limit is under %d bytes",
                       FRAUD_WINDOW_BYTES_MIN);
    struct fraud_window *window = calloc(1, sizeof(*window));
    if (window == NULL)
        return err_set(why, ERR_NOMEM, "fraud: no memory for a window");
    window->bytes_max = bytes_max;
    window->hour_us = -1;
    window->current.event_ms_max = window->previous.event_ms_max = INT64_MIN;
    *out = window;
    return ERR_OK;
}

void
fraud_window_close(struct fraud_window **window)
{
    if (*window == NULL)
        return;
    generation_clear(*window, &(*window)->current);
    generation_clear(*window, &(*window)->previous);
    assert((*window)->bytes == 0);
    free(*window);
    *window = NULL;
}

void
fraud_window_hour(struct fraud_window *window, int64_t hour_us)
{
    assert(hour_us % CLOCK_HOUR_US == 0);
    assert(hour_us >= window->hour_us);
    if (hour_us == window->hour_us)
        return;
    generation_clear(window, &window->previous);
    if (window->hour_us >= 0 && hour_us == window->hour_us + CLOCK_HOUR_US) {
        window->previous = window->current;
        window->current = (struct generation){.event_ms_max = INT64_MIN};
    } else {
        generation_clear(window, &window->current);
    }
    window->hour_us = hour_us;
}

static uint32_t
user_seen(struct fraud_window *window, const struct ruleset_limits *limits,
          uint64_t key, int64_t event_ms)
{
    int64_t *last = table_put(&window->current.users, key, INT64_MIN);
    int64_t last_ms = *last;

    *last = event_ms;
    if (last_ms == INT64_MIN)
        last_ms = table_get(&window->previous.users, key, INT64_MIN);
    return last_ms == INT64_MIN ? 0
                                : fraud_click_reason(limits, event_ms - last_ms);
}

/* A minute's value is its clicks, or -1 - second of the minute while it has one only: its
 * seconds are not in the table yet. */
static int64_t
minute_clicks(int64_t value)
{
    return value < 0 ? 1 : value;
}

/* Clicks of one second in a generation whose minute has this value. */
static int64_t
second_clicks(const struct table *table, int64_t minute_value, uint64_t second_key,
              int64_t second)
{
    if (minute_value < 0)
        return minute_value == -1 - second;
    return minute_value == 0 ? 0 : table_get(table, second_key, 0);
}

/* Counts the click in the current generation; returns the minute's new value. There is room
 * for 3 keys. */
static int64_t
click_count(struct fraud_window *window, uint64_t address_key, int64_t event_ms,
            uint64_t minute_key, uint64_t second_key)
{
    struct table *table = &window->current.addresses;
    int64_t second = fraud_second(event_ms),
            *minute = table_put(table, minute_key, 0);

    if (*minute == 0)
        return *minute = -1 - second;
    if (*minute < 0) {
        int64_t first_ms =
            clock_floor(event_ms, CLOCK_MINUTE_MS) + (-1 - *minute) * 1000;

        *minute = 1;
        ++*table_put(table, second_key_of(address_key, first_ms, minute_key), 0);
    }
    ++*table_put(table, second_key, 0);
    return ++*minute;
}

static uint32_t
address_seen(struct fraud_window *window, const struct ruleset_limits *limits,
             uint64_t address_key, int64_t event_ms)
{
    const struct generation *previous = &window->previous;
    uint64_t minute_key = minute_key_of(address_key, event_ms);
    uint64_t second_key = second_key_of(address_key, event_ms, minute_key);
    int64_t second = fraud_second(event_ms), before = 0;
    int64_t now =
        click_count(window, address_key, event_ms, minute_key, second_key);

    if (clock_floor(event_ms, CLOCK_MINUTE_MS) <= previous->event_ms_max)
        before = table_get(&previous->addresses, minute_key, 0);
    int64_t in_minute = minute_clicks(now) + minute_clicks(before);
    int64_t in_second =
        second_clicks(&window->current.addresses, now, second_key, second) +
        second_clicks(&previous->addresses, before, second_key, second);

    return (in_minute > limits->address_minute_max ? REASON_BIT(address_minute_rate)
                                                   : 0) |
           (in_second > limits->address_second_max ? REASON_BIT(address_second_rate)
                                                   : 0);
}

enum err
fraud_window_seen(struct fraud_window *window, const struct ruleset_limits *limits,
                  uint64_t user_key, uint64_t address_key, int64_t event_ms,
                  uint32_t *reasons, struct why *why)
{
    assert(window->hour_us >= 0);
    enum err err = table_room(window, &window->current.users, 1, why);

    *reasons = 0;
    if (err == ERR_OK)
        err = table_room(window, &window->current.addresses, 3, why);
    if (err != ERR_OK)
        return err;
    *reasons = user_seen(window, limits, key_of(user_key), event_ms);
    *reasons |= address_seen(window, limits, address_key, event_ms);
    if (event_ms > window->current.event_ms_max)
        window->current.event_ms_max = event_ms;
    return ERR_OK;
}

enum err
fraud_window_user(struct fraud_window *window, const struct ruleset_limits *limits,
                  uint64_t user_key, int64_t event_ms, uint32_t *reasons,
                  struct why *why)
{
    enum err err = table_room(window, &window->current.users, 1, why);

    *reasons =
        err == ERR_OK ? user_seen(window, limits, key_of(user_key), event_ms) : 0;
    return err;
}

enum err
fraud_window_address(struct fraud_window *window,
                     const struct ruleset_limits *limits, uint64_t address_key,
                     int64_t event_ms, uint32_t *reasons, struct why *why)
{
    enum err err = table_room(window, &window->current.addresses, 3, why);

    *reasons =
        err == ERR_OK ? address_seen(window, limits, address_key, event_ms) : 0;
    return err;
}

static void
table_prefetch(const struct table *table, uint64_t key)
{
    if (table->slots_n > 0)
        prefetch_write(&table->slots[key >> 7 & (table->slots_n - 1)]);
}

void
fraud_window_prefetch(const struct fraud_window *window, uint64_t user_key,
                      uint64_t address_key, int64_t event_ms)
{
    uint64_t minute = fraud_bucket_key(address_key, event_ms, CLOCK_MINUTE_MS);

    table_prefetch(&window->current.users, key_of(user_key));
    table_prefetch(&window->previous.users, key_of(user_key));
    table_prefetch(&window->current.addresses, key_of(minute));
}

uint64_t
fraud_window_bytes(const struct fraud_window *window)
{
    return window->bytes;
}

uint32_t
fraud_shard(uint64_t key)
{
    return (uint32_t)(key >> SHARD_SHIFT);
}

uint32_t
fraud_user_shard(uint64_t user_key)
{
    return fraud_shard(key_of(user_key));
}

uint32_t
fraud_address_shard(uint64_t address_key, int64_t event_ms)
{
    return fraud_shard(minute_key_of(address_key, event_ms));
}

static struct table *
table_of(struct generation *generation, enum fraud_part part)
{
    return part == FRAUD_USERS ? &generation->users : &generation->addresses;
}

const struct fraud_entry *
fraud_window_entries(const struct fraud_window *window, bool previous,
                     enum fraud_part part, uint64_t *n)
{
    const struct generation *g = previous ? &window->previous : &window->current;
    const struct table *table = part == FRAUD_USERS ? &g->users : &g->addresses;

    *n = table->slots_n;
    return table->slots;
}

int64_t
fraud_window_latest(const struct fraud_window *window, bool previous)
{
    return previous ? window->previous.event_ms_max : window->current.event_ms_max;
}

void
fraud_window_empty(struct fraud_window *window)
{
    generation_clear(window, &window->current);
    generation_clear(window, &window->previous);
}

enum err
fraud_window_restore(struct fraud_window *window, bool previous,
                     enum fraud_part part, const struct fraud_entry *entry,
                     struct why *why)
{
    struct table *table =
        table_of(previous ? &window->previous : &window->current, part);
    enum err err = table_room(window, table, 1, why);

    assert(entry->key != 0);
    if (err == ERR_OK)
        *table_put(table, entry->key, 0) = entry->value;
    return err;
}

void
fraud_window_restore_latest(struct fraud_window *window, bool previous,
                            int64_t latest_ms)
{
    if (previous)
        window->previous.event_ms_max = latest_ms;
    else
        window->current.event_ms_max = latest_ms;
}

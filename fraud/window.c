/* Open addressing with linear probing, at most 5/8 full, doubling; key 0 is an empty slot.
 * A generation is one hour of receipt. Looking back into the previous one for an address's
 * minute or second is skipped when nothing that late was received in it, so in a steady
 * flow it costs nothing but for a few minutes after the hour. */

#include <assert.h>
#include <stdlib.h>

#include "fraud/fraud.h"
#include "fraud/live.h"

enum { SLOTS_MIN = 1024 };

struct slot {
    uint64_t key;
    int64_t value; /* users: event time of the last click; addresses: clicks */
};

struct table {
    struct slot *slots;
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

/* The slot of key, or the free one where it belongs. The table has a free slot. */
static struct slot *
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
    const struct slot *slot = table_find(table, key);

    return slot->key == key ? slot->value : absent;
}

static void
table_clear(struct fraud_window *window, struct table *table)
{
    free(table->slots);
    window->bytes -= table->slots_n * sizeof(struct slot);
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
    uint64_t bytes = grown.slots_n * sizeof(struct slot);

    if (window->bytes + bytes > window->bytes_max)
        return err_set(
            why, ERR_FULL,
            "fraud: users and addresses of two hours need more than %llu bytes: "
            "raise the judge's limit",
            (unsigned long long)window->bytes_max);
    grown.slots = calloc(grown.slots_n, sizeof(struct slot));
    if (grown.slots == NULL)
        return err_set(why, ERR_NOMEM,
                       "fraud: no memory for %llu bytes of users or addresses",
                       (unsigned long long)bytes);
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
    struct slot *slot = table_find(table, key);

    if (slot->key == 0) {
        *slot = (struct slot){key, fresh};
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

static int64_t
bucket_count(struct fraud_window *window, uint64_t address_key, int64_t event_ms,
             int64_t unit_ms)
{
    uint64_t key = key_of(fraud_bucket_key(address_key, event_ms, unit_ms));
    int64_t count = ++*table_put(&window->current.addresses, key, 0);

    if (clock_floor(event_ms, unit_ms) <= window->previous.event_ms_max)
        count += table_get(&window->previous.addresses, key, 0);
    return count;
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
        err = table_room(window, &window->current.addresses, 2, why);
    if (err != ERR_OK)
        return err;
    *reasons = user_seen(window, limits, key_of(user_key), event_ms);
    if (bucket_count(window, address_key, event_ms, CLOCK_MINUTE_MS) >
        limits->address_minute_max)
        *reasons |= REASON_BIT(address_minute_rate);
    if (bucket_count(window, address_key, event_ms, 1000) >
        limits->address_second_max)
        *reasons |= REASON_BIT(address_second_rate);
    if (event_ms > window->current.event_ms_max)
        window->current.event_ms_max = event_ms;
    return ERR_OK;
}

static void
table_prefetch(const struct table *table, uint64_t key)
{
    if (table->slots_n > 0)
        __builtin_prefetch(&table->slots[key >> 7 & (table->slots_n - 1)], 1);
}

void
fraud_window_prefetch(const struct fraud_window *window, uint64_t user_key,
                      uint64_t address_key, int64_t event_ms)
{
    uint64_t minute = fraud_bucket_key(address_key, event_ms, CLOCK_MINUTE_MS);
    uint64_t second = fraud_bucket_key(address_key, event_ms, 1000);

    table_prefetch(&window->current.users, key_of(user_key));
    table_prefetch(&window->previous.users, key_of(user_key));
    table_prefetch(&window->current.addresses, key_of(minute));
    table_prefetch(&window->current.addresses, key_of(second));
}

uint64_t
fraud_window_bytes(const struct fraud_window *window)
{
    return window->bytes;
}

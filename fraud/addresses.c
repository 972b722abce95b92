/* A line is 5 entries, one for each (address, minute) and (address, second), and a lock. An
 * entry is a word of tag, LINE_USED and line_stamp, and
 *     bits 20..31  clicks received in the stamp's hour, at most COUNT_MAX
 *     bits  8..19  clicks received in the hour before
 *     bits  0..7   8 more bits of the stamp, so that the stalest is found to 55 ms
 * Most addresses click once a minute. Such a minute is kept as "single": no clicks in the
 * stamp's hour, and in bits 8..19 the click's second of the minute + 1. Entries of seconds
 * are made with the minute's second click, the first one's too; so one click is one entry,
 * and one line. A minute's seconds are in its page: only the first look at an address pays
 * for finding a page. There the tag alone tells two seconds apart, which errs once in 10^13
 * looks. What was touched within the last LIVE_FINE units counts as forgotten when
 * it is pushed out; older entries matter only to clicks that come that late. */

#include <assert.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/prefetch.h"
#include "fraud/fraud.h"
#include "fraud/line.h"
#include "fraud/live.h"

enum {
    WAYS = 5,
    WAYS_FULL = 3,
    COUNT_MAX = 4095,
    LIVE_FINE = 65536 / 120, /* 30 s in 1/65536 hours */
    SPINS_MAX = 100,
    PAGE_LINES = 64,
};

static_assert((int)RULESET_RATE_MAX < (int)COUNT_MAX,
              "a count can pass every limit");

struct line {
    uint64_t words[WAYS];
    uint32_t counts[WAYS];
    atomic_uint lock;
};

static_assert(sizeof(struct line) == LINE_SIZE, "a set is one cache line");

struct fraud_addresses {
    struct line *lines;
    uint64_t lines_n;
    bool shared; /* lines are locked */
    atomic_uint_fast64_t forgotten;
};

/* Receipt time as 7 bits of hour and 16 of its fraction: line_stamp << 8 and more. */
static uint32_t
fine_stamp(int64_t received_us)
{
    int64_t hour = received_us / CLOCK_HOUR_US, rest = received_us % CLOCK_HOUR_US;

    return (uint32_t)(hour << 16 | rest * 65536 / CLOCK_HOUR_US) & 0x7fffff;
}

static uint32_t
way_stamp(const struct line *line, int way)
{
    return ((uint32_t)line->words[way] & LINE_STAMP_MASK) << 8 |
           (line->counts[way] & 0xff);
}

static int32_t
fine_age(const struct line *line, int way, uint32_t now)
{
    uint32_t d = (now - way_stamp(line, way)) & 0x7fffff;

    return (int32_t)d - (d & 0x400000 ? 0x800000 : 0);
}

enum err
fraud_addresses_open(struct fraud_addresses **out, size_t addresses_max,
                     uint32_t threads, struct why *why)
{
    void *lines;
    enum err err = fraud_size_check("addresses_max", addresses_max, why);

    *out = NULL;
    if (err != ERR_OK)
        return err;
    struct fraud_addresses *addresses = calloc(1, sizeof(*addresses));
    if (addresses == NULL)
        return err_set(why, ERR_NOMEM, "fraud: no memory for addresses");
    addresses->shared = threads > 1;
    addresses->lines_n = addresses_max * 2 / WAYS_FULL / PAGE_LINES * PAGE_LINES;
    if (addresses->lines_n < LINES_MIN)
        addresses->lines_n = LINES_MIN;
    err = line_map(&lines, addresses->lines_n, "addresses (addresses_max)", why);
    addresses->lines = lines;
    if (err != ERR_OK)
        fraud_addresses_close(&addresses);
    *out = addresses;
    return err;
}

void
fraud_addresses_close(struct fraud_addresses **addresses)
{
    if (*addresses == NULL)
        return;
    line_unmap((*addresses)->lines, (*addresses)->lines_n);
    free(*addresses);
    *addresses = NULL;
}

static struct line *
minute_line(const struct fraud_addresses *addresses, uint64_t minute)
{
    return &addresses->lines[line_of(minute, addresses->lines_n)];
}

static struct line *
second_line(const struct fraud_addresses *addresses, uint64_t minute,
            uint64_t second)
{
    uint64_t at = line_of(minute, addresses->lines_n);

    return &addresses->lines[at - at % PAGE_LINES + (second >> 32) % PAGE_LINES];
}

void
fraud_addresses_prefetch(const struct fraud_addresses *addresses,
                         uint64_t address_key, int64_t event_ms)
{
    uint64_t minute = fraud_bucket_key(address_key, event_ms, CLOCK_MINUTE_MS);
    uint64_t second = fraud_bucket_key(address_key, event_ms, 1000);

    prefetch_write(minute_line(addresses, minute));
    prefetch_write(second_line(addresses, minute, second));
}

static void
line_lock(const struct fraud_addresses *addresses, struct line *line)
{
    for (int spins = 0;
         addresses->shared &&
         atomic_exchange_explicit(&line->lock, 1, memory_order_acquire) != 0;
         spins++)
        if (spins > SPINS_MAX)
            (void)sched_yield();
}

static void
line_unlock(const struct fraud_addresses *addresses, struct line *line)
{
    if (addresses->shared)
        atomic_store_explicit(&line->lock, 0, memory_order_release);
}

static int
way_take(struct fraud_addresses *addresses, struct line *line, uint32_t now)
{
    int stalest = 0;

    for (int i = 0; i < WAYS; i++) {
        if (line->words[i] == 0)
            return i;
        if (fine_age(line, i, now) > fine_age(line, stalest, now))
            stalest = i;
    }
    if (fine_age(line, stalest, now) <= LIVE_FINE)
        (void)atomic_fetch_add_explicit(&addresses->forgotten, 1,
                                        memory_order_relaxed);
    line->counts[stalest] = 0;
    line->words[stalest] = 0;
    return stalest;
}

/* The way of key in its line, which it locks; made empty if it was not there. */
static int
way_lock(struct fraud_addresses *addresses, struct line *line, uint64_t key,
         uint32_t now)
{
    uint64_t tag = line_tag(key);
    int way = 0;

    line_lock(addresses, line);
    while (way < WAYS &&
           ((line->words[way] & LINE_TAG_MASK) != tag || line->words[way] == 0))
        way++;
    return way < WAYS ? way : way_take(addresses, line, now);
}

/* Hours of receipt since the way was touched; 2 and more: it says nothing any more. */
static int32_t
way_hours(const struct line *line, int way, uint32_t now)
{
    return line->words[way] == 0 ? 2
                                 : line_hours(now >> 8, (uint32_t)line->words[way]);
}

static void
way_set(struct line *line, int way, uint64_t key, uint32_t now, uint32_t current,
        uint32_t before)
{
    line->words[way] = line_tag(key) | LINE_USED | now >> 8;
    line->counts[way] = current << 20 | before << 8 | (now & 0xff);
}

/* One click more in a way that had current and before, hours ago. Returns them all. */
static uint32_t
way_count(struct line *line, int way, uint64_t key, uint32_t now, uint32_t current,
          uint32_t before)
{
    int32_t hours = way_hours(line, way, now);

    if (hours >= 1) {
        before = hours == 1 ? current : 0;
        current = 0;
    } else if (hours < 0) {
        now = way_stamp(line, way); /* a partition that lags: counts as now */
    }
    if (current < COUNT_MAX)
        current++;
    way_set(line, way, key, now, current, before);
    return current + before;
}

static uint32_t
second_count(struct fraud_addresses *addresses, uint64_t address_key,
             int64_t event_ms, uint32_t now)
{
    uint64_t minute = fraud_bucket_key(address_key, event_ms, CLOCK_MINUTE_MS);
    uint64_t key = fraud_bucket_key(address_key, event_ms, 1000);
    struct line *line = second_line(addresses, minute, key);
    int way = way_lock(addresses, line, key, now);
    uint32_t count = way_count(line, way, key, now, line->counts[way] >> 20,
                               line->counts[way] >> 8 & 0xfff);

    line_unlock(addresses, line);
    return count;
}

/* What the minute was when a click came; count is with it. */
struct minute {
    uint32_t count;
    bool was_single;
    uint32_t single_second, single_stamp;
};

static struct minute
minute_count(struct fraud_addresses *addresses, uint64_t address_key,
             int64_t event_ms, uint32_t now)
{
    uint64_t key = fraud_bucket_key(address_key, event_ms, CLOCK_MINUTE_MS);
    uint32_t second = (uint32_t)fraud_second(event_ms);
    struct line *line = minute_line(addresses, key);
    int way = way_lock(addresses, line, key, now);
    uint32_t current = line->counts[way] >> 20,
             before = line->counts[way] >> 8 & 0xfff;
    struct minute minute = {.count = 1};

    if (way_hours(line, way, now) >= 2) {
        way_set(line, way, key, now, 0, second + 1);
    } else {
        if (current == 0) {
            minute.was_single = true;
            minute.single_second = before - 1;
            minute.single_stamp = way_stamp(line, way);
            current = 1;
            before = 0;
        }
        minute.count = way_count(line, way, key, now, current, before);
    }
    line_unlock(addresses, line);
    return minute;
}

uint32_t
fraud_addresses_seen(struct fraud_addresses *addresses,
                     const struct ruleset_limits *limits, uint64_t address_key,
                     int64_t event_ms, int64_t received_us)
{
    assert(received_us >= 0);
    uint32_t now = fine_stamp(received_us), reasons = 0;
    struct minute minute = minute_count(addresses, address_key, event_ms, now);

    if (minute.count == 1)
        return 0; /* limits are at least 1 */
    if (minute.was_single) {
        int64_t at_ms = clock_floor(event_ms, CLOCK_MINUTE_MS) +
                        (int64_t)minute.single_second * 1000;

        (void)second_count(addresses, address_key, at_ms, minute.single_stamp);
    }
    if (minute.count > limits->address_minute_max)
        reasons |= REASON_BIT(address_minute_rate);
    if (second_count(addresses, address_key, event_ms, now) >
        limits->address_second_max)
        reasons |= REASON_BIT(address_second_rate);
    return reasons;
}

uint64_t
fraud_addresses_forgotten(const struct fraud_addresses *addresses)
{
    return atomic_load_explicit(&addresses->forgotten, memory_order_relaxed);
}

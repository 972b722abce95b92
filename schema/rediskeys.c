#include "schema/rediskeys.h"

#include <assert.h>

#include "common/clock.h"
#include "schema/zone.h"

enum { CAMPAIGN_BYTES_MAX = 64 };

#define WINDOW_5M_MS      (5 * CLOCK_MINUTE_MS)
#define WINDOW_5M_KEEP_S  INT64_C(86400)
#define WINDOW_DAY_KEEP_S (9 * INT64_C(86400))

/* Keys are written a flush at a time, so without printf. The longest is
 * "{p4294967295}:4294967295:hll:5m:" + 64 + ":" + 20 bytes: below REDISKEY_MAX. */
struct writer {
    char *p;
    uint32_t n;
};

static void
add_text(struct writer *writer, const char *text, uint32_t n)
{
    assert(writer->n + n <= REDISKEY_MAX);
    if (n > 0)
        memcpy(writer->p + writer->n, text, n);
    writer->n += n;
}

static void
add_number(struct writer *writer, int64_t value)
{
    char digits[20];
    uint32_t n = sizeof(digits);
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;

    do {
        digits[--n] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest > 0);
    if (value < 0)
        add_text(writer, "-", 1);
    add_text(writer, digits + n, (uint32_t)sizeof(digits) - n);
}

static struct writer
begin(char *out, uint32_t partition)
{
    struct writer writer = {out, 0};

    add_text(&writer, "{p", 2);
    add_number(&writer, partition);
    add_text(&writer, "}:", 2);
    return writer;
}

static void
add_window(struct writer *writer, enum window window, struct str campaign,
           int64_t start_ms)
{
    static const char *const names[] = WINDOW_NAMES;

    assert(window < WINDOWS_N);
    assert(campaign.n <= CAMPAIGN_BYTES_MAX);
    add_text(writer, names[window], 2);
    add_text(writer, ":", 1);
    add_text(writer, campaign.p, campaign.n);
    add_text(writer, ":", 1);
    add_number(writer, clock_floor(start_ms, 1000) / 1000);
}

uint32_t
rediskey_owner(char out[REDISKEY_MAX], uint32_t partition)
{
    struct writer writer = begin(out, partition);

    add_text(&writer, "owner", 5);
    return writer.n;
}

uint32_t
rediskey_row(char out[REDISKEY_MAX], uint32_t partition, uint32_t generation,
             enum window window, struct str campaign, int64_t start_ms)
{
    struct writer writer = begin(out, partition);

    add_number(&writer, generation);
    add_text(&writer, ":", 1);
    add_window(&writer, window, campaign, start_ms);
    return writer.n;
}

uint32_t
rediskey_users(char out[REDISKEY_MAX], uint32_t partition, uint32_t generation,
               enum window window, struct str campaign, int64_t start_ms)
{
    struct writer writer = begin(out, partition);

    add_number(&writer, generation);
    add_text(&writer, ":hll:", 5);
    add_window(&writer, window, campaign, start_ms);
    return writer.n;
}

uint32_t
rediskey_live(char out[REDISKEY_MAX], uint32_t partition, uint32_t generation,
              struct str campaign)
{
    struct writer writer = begin(out, partition);

    assert(campaign.n <= CAMPAIGN_BYTES_MAX);
    add_number(&writer, generation);
    add_text(&writer, ":live:", 6);
    add_text(&writer, campaign.p, campaign.n);
    return writer.n;
}

/* The zone's full hour that holds the instant, cut where the offset changes, so that
 * hours stay disjoint in zones that move their clock by half an hour. */
static void
hour_bounds(const struct zone *zone, int64_t ms, int64_t *from_ms, int64_t *to_ms)
{
    int64_t span_from_ms = INT64_MIN, span_to_ms = INT64_MAX, offset_ms = 0;

    if (zone != NULL)
        offset_ms = zone_offset_ms(zone, ms, &span_from_ms, &span_to_ms);

    int64_t start_ms = clock_floor(ms + offset_ms, CLOCK_HOUR_MS) - offset_ms;
    int64_t end_ms = start_ms + CLOCK_HOUR_MS;
    *from_ms = start_ms > span_from_ms ? start_ms : span_from_ms;
    *to_ms = end_ms < span_to_ms ? end_ms : span_to_ms;
}

static void
day_bounds(const struct zone *zone, int64_t ms, int64_t *from_ms, int64_t *to_ms)
{
    if (zone != NULL) {
        zone_day_bounds(zone, zone_day(zone, ms), from_ms, to_ms);
        return;
    }
    *from_ms = clock_floor(ms, CLOCK_DAY_MS);
    *to_ms = *from_ms + CLOCK_DAY_MS;
}

static void
bounds(enum window window, const struct zone *zone, int64_t ms, int64_t *from_ms,
       int64_t *to_ms)
{
    assert(window < WINDOWS_N);
    if (window == WINDOW_1D) {
        day_bounds(zone, ms, from_ms, to_ms);
    } else if (window == WINDOW_1H) {
        hour_bounds(zone, ms, from_ms, to_ms);
    } else {
        *from_ms = clock_floor(ms, WINDOW_5M_MS);
        *to_ms = *from_ms + WINDOW_5M_MS;
    }
}

int64_t
window_start(enum window window, const struct zone *zone, int64_t event_ms)
{
    int64_t from_ms, to_ms;

    bounds(window, zone, event_ms, &from_ms, &to_ms);
    return from_ms;
}

int64_t
window_end(enum window window, const struct zone *zone, int64_t start_ms)
{
    int64_t from_ms, to_ms;

    bounds(window, zone, start_ms, &from_ms, &to_ms);
    return to_ms;
}

int64_t
window_expiry_s(enum window window, int64_t end_ms)
{
    return clock_floor(end_ms + 999, 1000) / 1000 +
           (window == WINDOW_5M ? WINDOW_5M_KEEP_S : WINDOW_DAY_KEEP_S);
}

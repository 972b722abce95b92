#include "schema/zone.h"

#include <assert.h>
#include <glib.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"

#define ZONE_FROM_S INT64_C(0)
#define ZONE_TO_S   INT64_C(9214646400) /* 2262-01-01 */

/* An index entry stands for 2^INDEX_SHIFT ms. No zone changes its offset so often that
 * walking on from an entry takes more than a few steps. */
enum { SPANS_MAX = 2048, INDEX_SHIFT = 32 };
enum { INDEX_N = (int)((ZONE_TO_S * 1000) >> INDEX_SHIFT) + 1 };

struct span {
    int64_t from_ms; /* the first's is INT64_MIN */
    int64_t offset_ms;
    int32_t day_min; /* the latest day reached before it */
};

struct zone {
    char name[ZONE_NAME_MAX + 1];
    uint32_t name_n;
    uint32_t spans_n;
    struct span *spans; /* one more than spans_n: the last begins at INT64_MAX */
    uint16_t index[INDEX_N];
};

/* The cache that zone_find documents: filled once a name, never emptied. */
static pthread_mutex_t cache_lock = PTHREAD_MUTEX_INITIALIZER;
static struct zone *cache[ZONES_MAX];
static uint32_t cache_n;

static int32_t
day_of(int64_t local_ms)
{
    int64_t rest = local_ms % CLOCK_DAY_MS;

    return (int32_t)(local_ms / CLOCK_DAY_MS - (rest < 0));
}

/* The span that holds the instant. */
static inline const struct span *
span_find(const struct zone *zone, int64_t ms)
{
    uint64_t slot = ms < 0 ? 0 : (uint64_t)ms >> INDEX_SHIFT;
    const struct span *span =
        &zone->spans[zone->index[slot < INDEX_N ? slot : INDEX_N - 1]];

    while (span[1].from_ms <= ms)
        span++;
    return span;
}

static void
span_add(struct zone *zone, int64_t from_ms, int64_t offset_ms)
{
    struct span *last = &zone->spans[zone->spans_n - 1];
    int32_t before;

    if (last->offset_ms == offset_ms)
        return;
    before = day_of(from_ms - 1 + last->offset_ms);
    assert(zone->spans_n < SPANS_MAX);
    zone->spans[zone->spans_n++] = (struct span){
        from_ms, offset_ms, before > last->day_min ? before : last->day_min};
}

/* GLib numbers its intervals in order of time, so that halving finds every change. */
static void
spans_between(struct zone *zone, GTimeZone *tz, int64_t from_s, int from_id,
              int64_t to_s, int to_id)
{
    if (from_id == to_id)
        return;
    if (to_s - from_s == 1) {
        span_add(zone, to_s * 1000,
                 (int64_t)g_time_zone_get_offset(tz, to_id) * 1000);
        return;
    }

    int64_t middle_s = from_s + (to_s - from_s) / 2;
    int id = g_time_zone_find_interval(tz, G_TIME_TYPE_UNIVERSAL, middle_s);
    spans_between(zone, tz, from_s, from_id, middle_s, id);
    spans_between(zone, tz, middle_s, id, to_s, to_id);
}

static void
index_fill(struct zone *zone)
{
    uint16_t at = 0;

    zone->spans[zone->spans_n] = (struct span){INT64_MAX, 0, 0};
    for (int slot = 0; slot < INDEX_N; slot++) {
        int64_t start_ms = (int64_t)slot << INDEX_SHIFT;

        while (zone->spans[at + 1].from_ms <= start_ms)
            at++;
        zone->index[slot] = at;
    }
}

/* tz NULL: UTC. */
static struct zone *
zone_new(struct str name, GTimeZone *tz)
{
    struct zone *zone = calloc(1, sizeof(*zone));

    if (zone == NULL)
        return NULL;
    zone->spans = calloc(SPANS_MAX + 1, sizeof(*zone->spans));
    if (zone->spans == NULL)
        goto nomem;
    memcpy(zone->name, name.p, name.n);
    zone->name_n = name.n;
    zone->spans[0] = (struct span){INT64_MIN, 0, INT32_MIN};
    zone->spans_n = 1;
    if (tz != NULL) {
        int first =
            g_time_zone_find_interval(tz, G_TIME_TYPE_UNIVERSAL, ZONE_FROM_S);
        int last = g_time_zone_find_interval(tz, G_TIME_TYPE_UNIVERSAL, ZONE_TO_S);

        zone->spans[0].offset_ms =
            (int64_t)g_time_zone_get_offset(tz, first) * 1000;
        spans_between(zone, tz, ZONE_FROM_S, first, ZONE_TO_S, last);
    }
    index_fill(zone);

    struct span *fitted =
        realloc(zone->spans, (zone->spans_n + 1) * sizeof(*zone->spans));
    if (fitted != NULL)
        zone->spans = fitted;
    return zone;

nomem:
    free(zone);
    return NULL;
}

/* Only names of files in tzdata: GLib itself would take "+02:00" or a POSIX rule too. Not
 * `right/`, which counts leap seconds, nor what depends on the machine. */
static bool
name_allowed(struct str name)
{
    char path[256];
    const char *folder = getenv("TZDIR");
    static const char *const refused[] = {"right/", "posix/", "localtime",
                                          "posixrules"};

    if (name.n == 0 || name.n > ZONE_NAME_MAX || !g_ascii_isalpha(name.p[0]))
        return false;
    for (uint32_t i = 0; i < name.n; i++)
        if (!g_ascii_isalnum(name.p[i]) && memchr("_+-/", name.p[i], 4) == NULL)
            return false;
    for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++)
        if (name.n >= strlen(refused[i]) &&
            memcmp(name.p, refused[i], strlen(refused[i])) == 0)
            return false;
    int n = snprintf(path, sizeof(path), "%s/%.*s",
                     folder == NULL ? "/usr/share/zoneinfo" : folder, (int)name.n,
                     name.p);
    return n > 0 && (size_t)n < sizeof(path) && access(path, R_OK) == 0;
}

static struct zone *
zone_load(struct str name)
{
    char text[ZONE_NAME_MAX + 1] = {0};
    struct zone *zone;
    GTimeZone *tz;

    if (str_equal(name, STR("UTC")))
        return zone_new(name, NULL);
    if (!name_allowed(name))
        return NULL;
    memcpy(text, name.p, name.n);
    tz = g_time_zone_new_identifier(text);
    if (tz == NULL)
        return NULL;
    zone = zone_new(name, tz);
    g_time_zone_unref(tz);
    return zone;
}

const struct zone *
zone_find(struct str name)
{
    struct zone *zone = NULL;

    (void)pthread_mutex_lock(&cache_lock);
    for (uint32_t i = 0; i < cache_n && zone == NULL; i++)
        if (str_equal(zone_name(cache[i]), name))
            zone = cache[i];
    if (zone == NULL && cache_n < ZONES_MAX && (zone = zone_load(name)) != NULL)
        cache[cache_n++] = zone;
    (void)pthread_mutex_unlock(&cache_lock);
    return zone;
}

struct str
zone_name(const struct zone *zone)
{
    return (struct str){zone->name, zone->name_n};
}

int32_t
zone_day(const struct zone *zone, int64_t ms)
{
    const struct span *span = span_find(zone, ms);
    int32_t day = day_of(ms + span->offset_ms);

    return day > span->day_min ? day : span->day_min;
}

/* The first instant of a day, or of the first after it that exists. */
static int64_t
day_start(const struct zone *zone, int32_t day)
{
    int64_t midnight_ms = (int64_t)day * CLOCK_DAY_MS;
    const struct span *span = span_find(zone, midnight_ms - 2 * CLOCK_DAY_MS);

    while (midnight_ms - span->offset_ms >= span[1].from_ms)
        span++;

    int64_t start_ms = midnight_ms - span->offset_ms;
    return start_ms > span->from_ms ? start_ms : span->from_ms;
}

void
zone_day_bounds(const struct zone *zone, int32_t day, int64_t *from_ms,
                int64_t *to_ms)
{
    assert(day < INT32_MAX);
    *from_ms = day_start(zone, day);
    *to_ms = day_start(zone, day + 1);
    assert(*from_ms <= *to_ms);
}

int64_t
zone_offset_ms(const struct zone *zone, int64_t ms, int64_t *from_ms,
               int64_t *to_ms)
{
    const struct span *span = span_find(zone, ms);

    *from_ms = span->from_ms;
    *to_ms = span[1].from_ms;
    return span->offset_ms;
}

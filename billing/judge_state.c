#include "billing/judge_state.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "billing/judge_core.h"
#include "common/clock.h"
#include "common/file.h"

enum {
    BLOCK = 512, /* clicks at a time while all is in memory */
    AHEAD = 12,
    ENTRIES = 8192, /* read or written at a time */
    NO_SHARD = UINT16_MAX,
    BACK_BYTES = 128 /* an entry's share of bytes_max to come back into memory */
};

/* Entries of one part of one hour, shard by shard: shard s of n is [first[s], first[s + 1]). */
struct spill {
    int fd; /* -1: empty */
    uint32_t shards;
    uint64_t first[FRAUD_SHARDS + 1];
};

struct state {
    char judge_dir[FILE_PATH_MAX - 16];
    uint64_t bytes_max;
    struct fraud_window *window;
    uint32_t shards; /* 1: all is in window */
    int64_t hour_us;
    struct spill current[FRAUD_PARTS_N], previous[FRAUD_PARTS_N];
    int64_t current_latest,
        previous_latest; /* event time; see fraud_window_latest */
    struct fraud_entry *entries;
};

/* The shards of a piece's clicks; NO_SHARD: it does not feed. */
struct places {
    uint16_t user, address;
};

static void
spills_init(struct spill spills[FRAUD_PARTS_N])
{
    for (int part = 0; part < FRAUD_PARTS_N; part++)
        spills[part] = (struct spill){.fd = -1, .shards = 1};
}

static void
spills_close(struct spill spills[FRAUD_PARTS_N])
{
    for (int part = 0; part < FRAUD_PARTS_N; part++)
        if (spills[part].fd >= 0)
            (void)close(spills[part].fd);
    spills_init(spills);
}

enum err
state_open(struct state **out, const char *judge_dir, uint64_t bytes_max,
           struct why *why)
{
    struct state *state = calloc(1, sizeof(*state));
    enum err err;

    *out = state;
    if (state == NULL)
        return err_set(why, ERR_NOMEM, "judge: no memory");
    spills_init(state->current);
    spills_init(state->previous);
    state->shards = 1;
    state->hour_us = -1;
    state->bytes_max = bytes_max;
    (void)snprintf(state->judge_dir, sizeof(state->judge_dir), "%s", judge_dir);
    state->entries = malloc(ENTRIES * sizeof(*state->entries));
    err = state->entries == NULL
              ? err_set(why, ERR_NOMEM, "judge: no memory")
              : fraud_window_open(&state->window, bytes_max, why);
    if (err != ERR_OK)
        state_close(out);
    return err;
}

void
state_close(struct state **state)
{
    if (*state == NULL)
        return;
    spills_close((*state)->current);
    spills_close((*state)->previous);
    fraud_window_close(&(*state)->window);
    free((*state)->entries);
    free(*state);
    *state = NULL;
}

uint32_t
state_shards(const struct state *state)
{
    return state->shards;
}

/* ---- spills ---- */

static enum err
spill_create(const struct state *state, struct spill *spill, uint32_t shards,
             struct why *why)
{
    char path[FILE_PATH_MAX];

    *spill = (struct spill){.fd = -1, .shards = shards};
    (void)snprintf(path, sizeof(path), "%s/spill.tmp", state->judge_dir);
    spill->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (spill->fd < 0)
        return err_set(why, errno == ENOSPC ? ERR_FULL : ERR_FATAL, "create %s: %s",
                       path, strerror(errno));
    (void)unlink(path);
    return ERR_OK;
}

static uint32_t
shard_of(const struct state *state, uint32_t place)
{
    return place * state->shards / FRAUD_SHARDS;
}

/* Adds the window's entries as the next shard. */
static enum err
spill_add(struct state *state, struct spill *spill, uint32_t shard, bool previous,
          enum fraud_part part, struct why *why)
{
    uint64_t slots_n, total = spill->first[shard];
    const struct fraud_entry *slots =
        fraud_window_entries(state->window, previous, part, &slots_n);
    size_t n = 0;
    enum err err = ERR_OK;

    for (uint64_t i = 0; i <= slots_n && err == ERR_OK; i++) {
        if (i < slots_n && slots[i].key != 0)
            state->entries[n++] = slots[i];
        if (n == ENTRIES || i == slots_n) {
            err = file_write_all(spill->fd, state->entries,
                                 n * sizeof(*state->entries), "the judge's spill",
                                 why);
            total += n;
            n = 0;
        }
    }
    spill->first[shard + 1] = total;
    return err;
}

static enum err
spill_read(struct state *state, const struct spill *spill, uint64_t at, uint64_t n,
           struct why *why)
{
    uint8_t *p = (uint8_t *)state->entries;
    size_t left = n * sizeof(*state->entries);
    uint64_t from = at * sizeof(*state->entries);

    while (left > 0) {
        ssize_t got = pread(spill->fd, p, left, (off_t)from);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return err_set(why, ERR_FATAL, "read the judge's spill: %s",
                           got < 0 ? strerror(errno) : "it ends too early");
        p += got;
        from += (uint64_t)got;
        left -= (size_t)got;
    }
    return ERR_OK;
}

/* Into the window: those entries that belong to the shard, of the spill's shard around it. */
static enum err
spill_load(struct state *state, const struct spill *spill, uint32_t shard,
           bool previous, enum fraud_part part, struct why *why)
{
    uint32_t around = shard * spill->shards / state->shards;
    uint64_t at = spill->first[around], end = spill->first[around + 1];
    enum err err = ERR_OK;

    assert(spill->shards <= state->shards);
    while (at < end && err == ERR_OK) {
        uint64_t n = end - at < ENTRIES ? end - at : ENTRIES;

        err = spill_read(state, spill, at, n, why);
        for (uint64_t i = 0; i < n && err == ERR_OK; i++)
            if (shard_of(state, fraud_shard(state->entries[i].key)) == shard)
                err = fraud_window_restore(state->window, previous, part,
                                           &state->entries[i], why);
        at += n;
    }
    return err;
}

static enum err
shard_load(struct state *state, uint32_t shard, struct why *why)
{
    enum err err = ERR_OK;

    fraud_window_empty(state->window);
    for (int part = 0; part < FRAUD_PARTS_N && err == ERR_OK; part++) {
        err = spill_load(state, &state->previous[part], shard, true,
                         (enum fraud_part)part, why);
        if (err == ERR_OK)
            err = spill_load(state, &state->current[part], shard, false,
                             (enum fraud_part)part, why);
    }
    fraud_window_restore_latest(state->window, true, state->previous_latest);
    fraud_window_restore_latest(state->window, false, state->current_latest);
    return err;
}

/* The window is full: what it holds becomes one shard around all. */
static enum err
window_spill(struct state *state, struct why *why)
{
    enum err err = ERR_OK;

    assert(state->shards == 1);
    state->current_latest = fraud_window_latest(state->window, false);
    state->previous_latest = fraud_window_latest(state->window, true);
    for (int part = 0; part < FRAUD_PARTS_N && err == ERR_OK; part++) {
        struct spill *spills[2] = {&state->current[part], &state->previous[part]};

        for (int previous = 0; previous < 2 && err == ERR_OK; previous++) {
            err = spill_create(state, spills[previous], 1, why);
            if (err == ERR_OK)
                err = spill_add(state, spills[previous], 0, previous != 0,
                                (enum fraud_part)part, why);
        }
    }
    fraud_window_empty(state->window);
    state->shards = 2;
    return err;
}

/* ---- a piece, shard by shard ---- */

static struct places *
places_make(const struct judged *clicks, uint64_t n)
{
    struct places *places = malloc((n + 1) * sizeof(*places));

    for (uint64_t i = 0; i < n && places != NULL; i++) {
        places[i] = (struct places){NO_SHARD, NO_SHARD};
        if (!fraud_feeds(clicks[i].reasons))
            continue;
        places[i].user = (uint16_t)fraud_user_shard(clicks[i].user_key);
        places[i].address = (uint16_t)fraud_address_shard(clicks[i].address_key,
                                                          clicks[i].event_ms);
    }
    return places;
}

static bool
in_shard(const struct state *state, uint16_t place, uint32_t shard)
{
    return place != NO_SHARD && shard_of(state, place) == shard;
}

static enum err
shard_feed(struct state *state, const struct ruleset_limits *limits,
           struct judged *clicks, const struct places *places, uint64_t n,
           uint32_t shard, struct why *why)
{
    enum err err = ERR_OK;

    for (uint64_t i = 0; i < n && err == ERR_OK; i++) {
        struct judged *click = &clicks[i];
        uint32_t user = 0, address = 0;

        if (in_shard(state, places[i].user, shard))
            err = fraud_window_user(state->window, limits, click->user_key,
                                    click->event_ms, &user, why);
        if (err == ERR_OK && in_shard(state, places[i].address, shard))
            err = fraud_window_address(state->window, limits, click->address_key,
                                       click->event_ms, &address, why);
        click->reasons |= user | address;
    }
    return err;
}

static enum err
shards_feed_once(struct state *state, const struct ruleset_limits *limits,
                 struct judged *clicks, const struct places *places, uint64_t n,
                 struct spill next[FRAUD_PARTS_N], struct why *why)
{
    enum err err = ERR_OK;

    for (int part = 0; part < FRAUD_PARTS_N && err == ERR_OK; part++)
        err = spill_create(state, &next[part], state->shards, why);
    for (uint32_t s = 0; s < state->shards && err == ERR_OK; s++) {
        err = shard_load(state, s, why);
        if (err == ERR_OK)
            err = shard_feed(state, limits, clicks, places, n, s, why);
        for (int part = 0; part < FRAUD_PARTS_N && err == ERR_OK; part++)
            err =
                spill_add(state, &next[part], s, false, (enum fraud_part)part, why);
    }
    fraud_window_empty(state->window);
    return err;
}

/* A shard that does not fit: all again in twice as many. The reasons found so far are those
 * that will be found again. */
static enum err
shards_feed(struct state *state, const struct ruleset_limits *limits,
            struct judged *clicks, uint64_t n, struct why *why)
{
    struct spill next[FRAUD_PARTS_N];
    struct places *places = places_make(clicks, n);
    enum err err;

    if (places == NULL)
        return err_set(why, ERR_NOMEM, "judge: no memory");
    spills_init(next);
    while ((err = shards_feed_once(state, limits, clicks, places, n, next, why)) ==
               ERR_FULL &&
           state->shards < FRAUD_SHARDS) {
        spills_close(next);
        state->shards *= 2;
    }
    for (uint64_t i = 0; i < n && err == ERR_OK; i++)
        if (places[i].user != NO_SHARD &&
            clicks[i].event_ms > state->current_latest)
            state->current_latest = clicks[i].event_ms;
    free(places);
    if (err != ERR_OK) {
        spills_close(next);
        return err;
    }
    spills_close(state->current);
    memcpy(state->current, next, sizeof(next));
    return ERR_OK;
}

/* ---- all of it ---- */

static enum err
memory_feed(struct state *state, const struct ruleset_limits *limits,
            struct judged *clicks, uint64_t n, uint64_t *done, struct why *why)
{
    uint64_t end = n < BLOCK ? n : BLOCK;
    enum err err = ERR_OK;

    for (*done = 0; *done < end; ++*done) {
        struct judged *click = &clicks[*done];
        uint32_t reasons = 0;

        if (*done + AHEAD < n)
            fraud_window_prefetch(state->window, click[AHEAD].user_key,
                                  click[AHEAD].address_key, click[AHEAD].event_ms);
        if (!fraud_feeds(click->reasons))
            continue;
        err = fraud_window_seen(state->window, limits, click->user_key,
                                click->address_key, click->event_ms, &reasons, why);
        if (err != ERR_OK)
            break;
        click->reasons |= reasons;
    }
    return err;
}

enum err
state_feed(struct state *state, const struct ruleset_limits *limits,
           struct judged *clicks, uint64_t n, uint64_t *done, struct why *why)
{
    enum err err;

    assert(n > 0 && state->hour_us >= 0);
    *done = 0;
    if (state->shards == 1) {
        err = memory_feed(state, limits, clicks, n, done, why);
        if (err != ERR_FULL)
            return err;
        err = window_spill(state, why);
        if (err != ERR_OK)
            return err;
    }
    err = shards_feed(state, limits, clicks + *done, n - *done, why);
    *done = n;
    return err;
}

static uint64_t
spills_entries(const struct spill spills[FRAUD_PARTS_N])
{
    uint64_t n = 0;

    for (int part = 0; part < FRAUD_PARTS_N; part++)
        n += spills[part].first[spills[part].shards];
    return n;
}

/* The hour has no clicks yet; the one before comes back into memory if it takes little. */
static enum err
memory_return(struct state *state, struct why *why)
{
    enum err err = ERR_OK;

    if (spills_entries(state->previous) > state->bytes_max / BACK_BYTES)
        return ERR_OK;
    fraud_window_hour(state->window, state->hour_us);
    for (int part = 0; part < FRAUD_PARTS_N; part++)
        for (uint32_t s = 0; s < state->shards && err == ERR_OK; s++)
            err = spill_load(state, &state->previous[part], s, true,
                             (enum fraud_part)part, why);
    if (err == ERR_FULL) { /* goes on as it was */
        fraud_window_empty(state->window);
        return ERR_OK;
    }
    fraud_window_restore_latest(state->window, true, state->previous_latest);
    spills_close(state->current);
    spills_close(state->previous);
    state->shards = 1;
    return err;
}

enum err
state_hour(struct state *state, int64_t hour_us, struct why *why)
{
    bool next = hour_us == state->hour_us + CLOCK_HOUR_US;

    assert(hour_us >= state->hour_us);
    if (hour_us == state->hour_us)
        return ERR_OK;
    state->hour_us = hour_us;
    if (state->shards == 1) {
        fraud_window_hour(state->window, hour_us);
        return ERR_OK;
    }
    spills_close(state->previous);
    if (next)
        memcpy(state->previous, state->current, sizeof(state->current));
    else
        spills_close(state->current);
    spills_init(state->current);
    state->previous_latest = next ? state->current_latest : INT64_MIN;
    state->current_latest = INT64_MIN;
    return memory_return(state, why);
}

#include "aggregate/flush.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

enum {
    NUMBERS_TEXT_MAX = WINDOW_TOTALS_N * 21,
    META_WORDS = 12,
    ROW_WORDS = 4, /* command, key, totals */
    RETRY_US = 200000,
    TEXT_BYTES_MAX = 1 << 30,
    /* New ids of a row from which on one SET of its whole HyperLogLog (12 KB) costs Redis
     * less than PFADD of each (0.5 to 1.5 us). */
    USERS_WHOLE_MIN = 48,
};

/* One command at a time. */
struct flush {
    struct buf text; /* what words point into: room for all is taken first */
    struct str *words;
    size_t words_n, words_cap;
};

enum err
flush_open(struct flush **out, struct why *why)
{
    struct flush *flush = calloc(1, sizeof(*flush));

    *out = flush;
    if (flush == NULL)
        return err_set(why, ERR_NOMEM, "aggregate: no memory for flushes");
    flush->text = BUF_MAX(TEXT_BYTES_MAX);
    return ERR_OK;
}

void
flush_close(struct flush **flush)
{
    if (*flush == NULL)
        return;
    buf_free(&(*flush)->text);
    free((*flush)->words);
    free(*flush);
    *flush = NULL;
}

size_t
part_blocks(const struct part *part, struct verdictlog_block *blocks, size_t max)
{
    size_t n = 0;

    for (uint32_t i = part->judged_done; i < part->judged_n && n < max;) {
        uint32_t from = i;

        while (i < part->judged_n && part->judged[i] != 0 &&
               i - from < VERDICTLOG_BLOCK_MAX)
            i++;
        if (i > from)
            blocks[n++] =
                (struct verdictlog_block){.partition = part->partition,
                                          .base = part->judged_base + from,
                                          .epoch = part->epoch,
                                          .verdicts = part->judged + from,
                                          .count = i - from};
        else
            i++;
    }
    return n;
}

void
part_recorded(struct part *part)
{
    uint64_t next = part->judged_base + part->judged_n;
    uint32_t counted = part->judged_n;

    if (part->judged_n > 0 && next > part->recorded_next)
        part->recorded_next = next;
    if (next > part->read_next)
        counted = part->read_next > part->judged_base
                      ? (uint32_t)(part->read_next - part->judged_base)
                      : 0;
    /* A batch that waits for Redis is read again, and must find its own verdicts. */
    part->judged_n -= counted;
    part->judged_base += counted;
    memmove(part->judged, part->judged + counted,
            part->judged_n * sizeof(part->judged[0]));
    part->judged_done = part->judged_n;
}

/* --- the command --- */

static void
word(struct flush *f, struct str text)
{
    assert(f->words_n < f->words_cap);
    f->words[f->words_n++] = text;
}

/* Text made by us: the buffer has room, so it does not move. */
static struct str
text_take(struct flush *f, uint32_t n)
{
    struct str text = {(const char *)f->text.p + f->text.n, n};

    f->text.n += n;
    assert(f->text.n <= f->text.cap);
    return text;
}

static char *
text_at(struct flush *f)
{
    return (char *)f->text.p + f->text.n;
}

static struct str
numbers_text(struct flush *f, const int64_t *numbers, unsigned n)
{
    return text_take(f, numbers_format(text_at(f), numbers, n));
}

static struct str
number_text(struct flush *f, uint64_t number)
{
    int64_t one = (int64_t)number;

    assert(one >= 0);
    return numbers_text(f, &one, 1);
}

/* Room for a command of so many words, with so many bytes of our own. */
static enum err
command_begin(struct flush *f, size_t words, size_t bytes, struct why *why)
{
    buf_reset(&f->text);
    f->words_n = 0;
    if (words > f->words_cap) {
        struct str *bigger = realloc(f->words, words * sizeof(*bigger));

        if (bigger == NULL)
            return err_set(why, ERR_NOMEM, "aggregate: no memory for a flush");
        f->words = bigger;
        f->words_cap = words;
    }
    if (buf_room(&f->text, bytes) == NULL) {
        f->text.failed = false;
        return err_set(why, ERR_NOMEM,
                       "aggregate: no memory for a flush of %zu bytes", bytes);
    }
    return ERR_OK;
}

/* The command, and when its key expires. */
static enum err
command_end(struct flush *f, struct redis *redis, int64_t expiry_s, struct why *why)
{
    char digits[24];
    const struct str expire[] = {STR("EXPIREAT"),
                                 f->words[1],
                                 {digits, numbers_format(digits, &expiry_s, 1)}};
    enum err err = redis_add(redis, f->words, f->words_n, why);

    return err == ERR_OK ? redis_add(redis, expire, 3, why) : err;
}

static enum err
row_add(struct flush *f, const struct part *part, const struct window_dirty *dirty,
        struct redis *redis, struct why *why)
{
    size_t cells = dirty->cells_n;
    enum err err = command_begin(
        f, ROW_WORDS + cells * 2,
        REDISKEY_MAX + NUMBERS_TEXT_MAX + cells * WINDOW_CELL_N * 21, why);

    if (err != ERR_OK)
        return err;
    word(f, STR("HSET"));
    word(f, text_take(f, rediskey_row(text_at(f), part->partition, part->generation,
                                      dirty->window, dirty->campaign,
                                      dirty->start_ms)));
    word(f, STR("t"));
    word(f, numbers_text(f, dirty->totals, WINDOW_TOTALS_N));
    for (uint32_t i = 0; i < dirty->cells_n; i++) {
        int64_t numbers[WINDOW_CELL_N];
        struct str field;
        unsigned n = windows_cell(part->windows, dirty->cells[i], &field, numbers);

        word(f, field);
        word(f, numbers_text(f, numbers, n));
    }
    return command_end(f, redis, dirty->expiry_s, why);
}

static enum err
users_add(struct flush *f, const struct part *part,
          const struct window_dirty *dirty, struct redis *redis, struct why *why)
{
    bool whole = dirty->whole != NULL && dirty->users_n >= USERS_WHOLE_MIN;
    enum err err = command_begin(
        f, 2 + dirty->users_n, REDISKEY_MAX + (whole ? USERS_DENSE_BYTES : 0), why);

    if (err != ERR_OK)
        return err;
    word(f, whole ? STR("SET") : STR("PFADD"));
    word(f, text_take(f, rediskey_users(text_at(f), part->partition,
                                        part->generation, dirty->window,
                                        dirty->campaign, dirty->start_ms)));
    if (whole) {
        users_format(dirty->whole, (uint8_t *)text_at(f));
        word(f, text_take(f, USERS_DENSE_BYTES));
    }
    for (uint32_t i = 0; !whole && i < dirty->users_n; i++)
        word(f, windows_user(part->windows, dirty->users[i]));
    return command_end(f, redis, dirty->expiry_s, why);
}

static enum err
live_add(struct flush *f, const struct part *part, uint32_t i,
         const struct tools *t, struct why *why)
{
    struct str campaign;
    const struct live *live = windows_live_get(part->windows, i, &campaign);
    enum err err =
        command_begin(f, 2 + LIVE_STEPS * 2,
                      REDISKEY_MAX + LIVE_STEPS * (LIVE_TEXT_MAX + 4), why);

    if (err != ERR_OK)
        return err;
    word(f, STR("HSET"));
    word(f, text_take(f, rediskey_live(text_at(f), part->partition,
                                       part->generation, campaign)));
    for (unsigned k = 0; k < LIVE_STEPS; k++) {
        if ((live->dirty >> k & 1) == 0)
            continue;
        word(f, number_text(f, k));
        word(f, text_take(f, live_format(live, k, text_at(f))));
    }
    return command_end(f, t->redis, t->now_us / CLOCK_SECOND_US + LIVE_EXPIRE_S,
                       why);
}

static struct str
offset_field(const struct part *part)
{
    return part->building ? STR("build_offset") : STR("offset");
}

static enum err
owner_add(struct flush *f, const struct part *part, const struct tools *t,
          struct why *why)
{
    enum err err =
        command_begin(f, META_WORDS, REDISKEY_MAX + 3 * 24 + SEQS_TEXT_MAX, why);

    if (err != ERR_OK)
        return err;
    word(f, STR("HSET"));
    word(f, text_take(f, rediskey_owner(text_at(f), part->partition)));
    word(f, offset_field(part));
    word(f, number_text(f, part->read_next));
    word(f, STR("event_ms"));
    word(f, number_text(f, (uint64_t)part->event_ms));
    word(f, STR("updated_us"));
    word(f, number_text(f, (uint64_t)t->now_us));
    word(f, STR("seqs"));
    word(f, text_take(f, seqs_format(&part->seqs, text_at(f))));
    return redis_add(t->redis, f->words, f->words_n, why);
}

enum err
flush_build(struct flush *f, struct part *part, struct tools *tools,
            struct why *why)
{
    const struct windows *w = part->windows;
    enum err err = ERR_OK;

    assert(part->state == PART_RUN && part->judged_n == part->judged_done);
    windows_derive(part->windows);
    if (windows_failed(w))
        return err_set(why, ERR_NOMEM, "aggregate: no memory for windows");
    for (uint32_t i = 0; i < windows_dirty(w) && err == ERR_OK; i++) {
        struct window_dirty dirty;

        windows_dirty_get(w, i, &dirty);
        err = row_add(f, part, &dirty, tools->redis, why);
        if (err == ERR_OK && dirty.users_n > 0)
            err = users_add(f, part, &dirty, tools->redis, why);
    }
    for (uint32_t i = 0; i < windows_lives(w) && err == ERR_OK; i++)
        err = live_add(f, part, i, tools, why);
    if (err == ERR_OK)
        err = owner_add(f, part, tools, why);
    part->sending = part->read_next;
    if (err != ERR_OK)
        redis_add_reset(tools->redis);
    return err;
}

/* --- whose it is --- */

static void
lose(struct part *part, uint64_t epoch, int64_t now_us)
{
    events_add(part->shared->events, LOG_ERROR, part->partition, "fenced",
               "another process owns this partition: its epoch is %" PRIu64
               ", ours was %" PRIu64,
               epoch, part->epoch);
    metric_add(part->shared->metrics.fenced, 1);
    part_reset(part);
    part->state = PART_LOST;
    part->retry_us = now_us + PART_LOST_S * CLOCK_SECOND_US;
}

/* A decimal number of at most 19 digits; false: it is none. */
static bool
number_read(const struct redis_reply *reply, uint64_t *out)
{
    *out = 0;
    if (reply->type != REDIS_TEXT || reply->text.n < 1 || reply->text.n > 19)
        return false;
    for (uint32_t i = 0; i < reply->text.n; i++) {
        unsigned digit = (unsigned)(reply->text.p[i] - '0');

        if (digit > 9)
            return false;
        *out = *out * 10 + digit;
    }
    return true;
}

/* epoch, offset, dirty: as we left them? */
static enum err
owner_check(struct part *part, const struct redis_reply *owner, struct why *why)
{
    static const char *const names[] = {"EPOCH", "OFFSET", "DIRTY"};
    const uint64_t wanted[] = {part->epoch, part->flushed, 0};

    if (owner->type != REDIS_ARRAY || owner->count != 3)
        return err_set(why, ERR_CONFLICT, "redis: an owner of the wrong shape");
    for (int i = 0; i < 3; i++) {
        uint64_t number;
        bool is = number_read(owner->items[i], &number);

        /* A flush whose answer was lost had landed; ours brings what came since, and all
         * of it again. */
        if (i == 1 && is && number > part->flushed && number <= part->inflight)
            part->flushed = number;
        else if (!is || number != wanted[i])
            return err_set(why, ERR_CONFLICT, "redis: %s %.*s", names[i],
                           (int)owner->items[i]->text.n, owner->items[i]->text.p);
    }
    return ERR_OK;
}

static void
refused(struct part *part, const struct redis_reply *owner,
        const struct tools *tools, const struct why *why)
{
    uint64_t epoch;

    metric_add(part->shared->metrics.flush_errors, 1);
    if (owner->type == REDIS_ARRAY && owner->count > 0 &&
        number_read(owner->items[0], &epoch) && epoch > part->epoch) {
        lose(part, epoch, tools->now_us);
        return;
    }
    part_trouble(part, TROUBLE_FLUSH, "refused", why);
    part_reset(part);
}

enum err
flush_send(struct part *part, struct tools *tools, struct why *why)
{
    char key[REDISKEY_MAX];
    struct str words[] = {STR("HMGET"),
                          {key, rediskey_owner(key, part->partition)},
                          STR("epoch"),
                          offset_field(part),
                          STR("dirty")};
    struct redis_reply *owner = NULL;
    enum err err = redis_watch(tools->redis, words[1], words, 5, &owner, why);

    if (err == ERR_OK) {
        err = owner_check(part, owner, why);
        if (err != ERR_OK)
            refused(part, owner, tools, why);
        else
            err = redis_exec_send(tools->redis, why);
    }
    redis_reply_free(&owner);
    redis_add_reset(tools->redis);
    return err;
}

/* --- the answer --- */

static void
landed(struct part *part, const struct tools *tools)
{
    part->flushed = part->inflight = part->sending;
    if (part->flushed > part->flushed_best)
        part->flushed_best = part->flushed;
    part->oldest_us = 0;
    part->last_flush_us = tools->now_us;
    part->flush_retry_us = 0;
    atomic_store_explicit(&part->flushed_shared, part->flushed,
                          memory_order_release);
    windows_clean(part->windows);
    part_fine(part, TROUBLE_FLUSH);
    metric_add(part->shared->metrics.flushes, 1);
}

enum err
flush_receive(struct part *part, struct tools *tools, struct why *why)
{
    enum err err = redis_exec_end(tools->redis, why);

    if (err == ERR_OK) {
        landed(part, tools);
        return ERR_OK;
    }
    metric_add(part->shared->metrics.flush_errors, 1);
    if (err == ERR_CORRUPT) {
        part_damaged(part, tools, TROUBLE_FLUSH, why);
        part_reset(part);
        return err;
    }
    if (err == ERR_CONFLICT)
        return err; /* the next flush finds whose it is now */
    if (part->sending > part->inflight)
        part->inflight = part->sending;
    part_trouble(part, TROUBLE_FLUSH, "flush", why);
    part->flush_retry_us = tools->now_us + RETRY_US;
    return err;
}

#include "aggregate/flush.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

enum {
    NUMBERS_TEXT_MAX = WINDOW_TOTALS_N * 21,
    HEAD_ARGS = 5, /* epoch, offset's field, from, to, number of words of meta */
    META_WORDS = 6,
    ROW_WORDS = 3, /* command, expiry, number of words */
    RETRY_US = 200000,
    TEXT_BYTES_MAX = 1 << 30,
    /* New ids of a row from which on one SET of its whole HyperLogLog (12 KB) costs Redis
     * less than PFADD of each (0.5 to 1.5 us). */
    USERS_WHOLE_MIN = 48,
};

static const char flush_script[] =
    "local o = redis.call('HMGET', KEYS[1], 'epoch', ARGV[2], 'dirty')\n"
    "if o[1] ~= ARGV[1] then return redis.error_reply('EPOCH ' .. tostring(o[1])) "
    "end\n"
    "if o[2] ~= ARGV[3] then return redis.error_reply('OFFSET ' .. tostring(o[2])) "
    "end\n"
    "if o[3] ~= '0' then return redis.error_reply('DIRTY ' .. tostring(o[3])) end\n"
    "if #KEYS > 1 then redis.call('HSET', KEYS[1], 'dirty', '1') end\n"
    "local meta = tonumber(ARGV[5])\n"
    "local a = 6 + meta\n"
    "for k = 2, #KEYS do\n"
    "  local command, key, last = ARGV[a], KEYS[k], a + 2 + tonumber(ARGV[a + 2])\n"
    "  for i = a + 3, last, 4000 do\n"
    "    redis.call(command, key, unpack(ARGV, i, math.min(i + 3999, last)))\n"
    "  end\n"
    "  redis.call('EXPIREAT', key, ARGV[a + 1])\n"
    "  a = last + 1\n"
    "end\n"
    "redis.call('HSET', KEYS[1], ARGV[2], ARGV[4], 'dirty', '0', unpack(ARGV, 6, 5 "
    "+ meta))\n"
    "return 1\n";

struct flush {
    struct buf text; /* what words point into: room for all is taken first */
    struct str *words;
    size_t words_n, words_cap;
    size_t keys_at; /* the next key's place */
    char sha[41];
};

enum err
flush_open(struct flush **out, struct why *why)
{
    struct flush *flush = calloc(1, sizeof(*flush));

    static_assert(FLUSH_UNPACK_MAX == 4000,
                  "as in the script; even, so no pair is cut");
    *out = flush;
    if (flush == NULL)
        return err_set(why, ERR_NOMEM, "aggregate: no memory for flushes");
    flush->text = BUF_MAX(TEXT_BYTES_MAX);
    redis_script_sha(flush_script, flush->sha);
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

enum err
flush_prepare(struct redis *redis, struct why *why)
{
    const struct str words[3] = {STR("SCRIPT"), STR("LOAD"), STR(flush_script)};
    struct redis_reply *reply = NULL;
    enum err err = redis_command(redis, words, 3, &reply, why);

    redis_reply_free(&reply);
    return err;
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

static void
key_word(struct flush *f, uint32_t n)
{
    f->words[f->keys_at++] = text_take(f, n);
}

static bool
is_whole(const struct window_dirty *dirty)
{
    return dirty->whole != NULL && dirty->users_n >= USERS_WHOLE_MIN;
}

/* Room for all words and texts of what is dirty: counted first, so that nothing moves. */
static enum err
room_take(struct flush *f, const struct windows *w, size_t *keys, struct why *why)
{
    size_t rows = windows_dirty(w), lives = windows_lives(w), cells = 0, users = 0,
           wholes = 0;
    size_t words, bytes;

    *keys = 1 + rows + lives;
    for (uint32_t i = 0; i < rows; i++) {
        struct window_dirty dirty;

        windows_dirty_get(w, i, &dirty);
        cells += dirty.cells_n;
        users += dirty.users_n;
        *keys += dirty.users_n > 0;
        wholes += is_whole(&dirty);
    }
    words = 3 + HEAD_ARGS + META_WORDS + *keys * (1 + ROW_WORDS) + rows * 2 +
            cells * 2 + users + lives * LIVE_STEPS * 2;
    bytes = SEQS_TEXT_MAX + 32 * 24 + *keys * (REDISKEY_MAX + 2 * 24) +
            rows * NUMBERS_TEXT_MAX + cells * WINDOW_CELL_N * 21 +
            lives * LIVE_STEPS * (LIVE_TEXT_MAX + 4) + wholes * USERS_DENSE_BYTES;
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

static void
head_put(struct flush *f, const struct part *part, size_t keys, int64_t now_us)
{
    word(f, STR("EVALSHA"));
    word(f, (struct str){f->sha, 40});
    word(f, number_text(f, keys));
    f->keys_at = f->words_n;
    f->words_n += keys;
    key_word(f, rediskey_owner(text_at(f), part->partition));
    word(f, number_text(f, part->epoch));
    word(f, part->building ? STR("build_offset") : STR("offset"));
    word(f, number_text(f, part->flushed));
    word(f, number_text(f, part->read_next));
    word(f, number_text(f, META_WORDS));
    word(f, STR("event_ms"));
    word(f, number_text(f, (uint64_t)part->event_ms));
    word(f, STR("updated_us"));
    word(f, number_text(f, (uint64_t)now_us));
    word(f, STR("seqs"));
    word(f, text_take(f, seqs_format(&part->seqs, text_at(f))));
}

static void
row_put(struct flush *f, const struct part *part, const struct window_dirty *dirty)
{
    key_word(f, rediskey_row(text_at(f), part->partition, part->generation,
                             dirty->window, dirty->campaign, dirty->start_ms));
    word(f, STR("HSET"));
    word(f, number_text(f, (uint64_t)dirty->expiry_s));
    word(f, number_text(f, 2 + (uint64_t)dirty->cells_n * 2));
    word(f, STR("t"));
    word(f, numbers_text(f, dirty->totals, WINDOW_TOTALS_N));
    for (uint32_t i = 0; i < dirty->cells_n; i++) {
        int64_t numbers[WINDOW_CELL_N];
        struct str field;
        unsigned n = windows_cell(part->windows, dirty->cells[i], &field, numbers);

        word(f, field);
        word(f, numbers_text(f, numbers, n));
    }
}

static void
users_put(struct flush *f, const struct part *part,
          const struct window_dirty *dirty)
{
    bool whole = is_whole(dirty);

    key_word(f, rediskey_users(text_at(f), part->partition, part->generation,
                               dirty->window, dirty->campaign, dirty->start_ms));
    word(f, whole ? STR("SET") : STR("PFADD"));
    word(f, number_text(f, (uint64_t)dirty->expiry_s));
    if (whole) {
        word(f, STR("1"));
        users_format(dirty->whole, (uint8_t *)text_at(f));
        word(f, text_take(f, USERS_DENSE_BYTES));
        return;
    }
    word(f, number_text(f, dirty->users_n));
    for (uint32_t i = 0; i < dirty->users_n; i++)
        word(f, windows_user(part->windows, dirty->users[i]));
}

static void
live_put(struct flush *f, const struct part *part, uint32_t i, int64_t now_us)
{
    struct str campaign;
    const struct live *live = windows_live_get(part->windows, i, &campaign);

    key_word(
        f, rediskey_live(text_at(f), part->partition, part->generation, campaign));
    word(f, STR("HSET"));
    word(f, number_text(f, (uint64_t)(now_us / CLOCK_SECOND_US + LIVE_EXPIRE_S)));
    word(f, number_text(f, 2 * (uint64_t)__builtin_popcountll(live->dirty)));
    for (unsigned k = 0; k < LIVE_STEPS; k++) {
        if ((live->dirty >> k & 1) == 0)
            continue;
        word(f, number_text(f, k));
        word(f, text_take(f, live_format(live, k, text_at(f))));
    }
}

enum err
flush_send(struct flush *f, struct part *part, struct tools *tools, struct why *why)
{
    const struct windows *w = part->windows;
    size_t keys;
    enum err err;

    assert(part->state == PART_RUN && part->judged_n == part->judged_done);
    windows_derive(part->windows);
    if (windows_failed(w))
        return err_set(why, ERR_NOMEM, "aggregate: no memory for windows");
    err = room_take(f, w, &keys, why);
    if (err != ERR_OK)
        return err;
    head_put(f, part, keys, tools->now_us);
    for (uint32_t i = 0; i < windows_dirty(w); i++) {
        struct window_dirty dirty;

        windows_dirty_get(w, i, &dirty);
        row_put(f, part, &dirty);
        if (dirty.users_n > 0)
            users_put(f, part, &dirty);
    }
    for (uint32_t i = 0; i < windows_lives(w); i++)
        live_put(f, part, i, tools->now_us);
    assert(f->keys_at == 3 + keys);
    part->sending = part->read_next;
    return redis_queue(tools->redis, f->words, f->words_n, why);
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

/* The number after a word of an error reply; false if there is none. */
static bool
reply_number(const struct why *why, const char *name, uint64_t *out)
{
    const char *at = strstr(why->text, name);
    char *end;

    if (at == NULL)
        return false;
    at += strlen(name);
    *out = strtoull(at, &end, 10);
    return end != at;
}

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

static void
refused(struct part *part, const struct tools *tools, const struct why *why)
{
    uint64_t number;

    metric_add(part->shared->metrics.flush_errors, 1);
    if (reply_number(why, "OFFSET ", &number) && number >= part->flushed &&
        number <= part->inflight) {
        /* A flush whose answer was lost had landed; ours brings what came since, and
         * all of it again. */
        part->flushed = number;
        return;
    }
    if (reply_number(why, "EPOCH ", &number) && number > part->epoch) {
        lose(part, number, tools->now_us);
        return;
    }
    part_trouble(part, TROUBLE_FLUSH, "refused", why);
    part_reset(part);
}

enum err
flush_receive(struct part *part, struct tools *tools, struct why *why)
{
    enum err err = redis_reply_next(tools->redis, NULL, why);

    if (err == ERR_OK) {
        landed(part, tools);
        return ERR_OK;
    }
    if (err == ERR_CONFLICT) {
        refused(part, tools, why);
        return err;
    }
    metric_add(part->shared->metrics.flush_errors, 1);
    if (part->sending > part->inflight)
        part->inflight = part->sending;
    if (err == ERR_NOTFOUND) {
        tools->script_loaded = false; /* SCRIPT FLUSH, or another Redis */
        return err;
    }
    part_trouble(part, TROUBLE_FLUSH, "flush", why);
    part->flush_retry_us = tools->now_us + RETRY_US;
    return err;
}

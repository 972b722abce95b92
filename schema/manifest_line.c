#include "schema/manifest_line.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/hash.h"

enum { CRC_DIGITS = 16, WORDS_MAX = 11 };

static bool
digits_parse(struct str word, uint64_t *out)
{
    uint64_t value = 0;

    if (word.n == 0 || word.n > 20)
        return false;
    for (uint32_t i = 0; i < word.n; i++) {
        unsigned digit = (unsigned)(word.p[i] - '0');

        if (digit > 9 || value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *out = value;
    return true;
}

static bool
time_parse(struct str word, int64_t *out)
{
    uint64_t value;

    if (!digits_parse(word, &value) || value > INT64_MAX)
        return false;
    *out = (int64_t)value;
    return true;
}

static int
hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool
hex_parse(struct str word, uint8_t *out, uint32_t size)
{
    if (word.n != 2 * size)
        return false;
    for (uint32_t i = 0; i < size; i++) {
        int high = hex_digit(word.p[2 * i]), low = hex_digit(word.p[2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static uint32_t
words_split(struct str line, struct str words[WORDS_MAX])
{
    uint32_t n = 0, from = 0;

    for (uint32_t i = 0; i <= line.n; i++) {
        if (i < line.n && line.p[i] != ' ')
            continue;
        if (n == WORDS_MAX)
            return 0;
        words[n++] = (struct str){line.p + from, i - from};
        from = i + 1;
    }
    return n;
}

/* Inside DIR, whatever was written to the list. */
static bool
path_good(struct str path)
{
    if (path.n == 0 || path.n >= MANIFEST_PATH_MAX || path.p[0] == '/')
        return false;
    for (uint32_t i = 0; i < path.n; i++)
        if ((unsigned char)path.p[i] <= ' ' ||
            (path.p[i] == '.' && i + 1 < path.n && path.p[i + 1] == '.'))
            return false;
    return true;
}

static bool
file_parse(const struct str words[WORDS_MAX], struct manifest_line *line)
{
    struct manifest_file *file = &line->file;

    if (!path_good(words[1]))
        return false;
    memset(file, 0, sizeof(*file));
    memcpy(file->path, words[1].p, words[1].n);
    line->is_file = true;
    line->incs = str_equal(words[9], STR("-")) ? (struct str){NULL, 0} : words[9];
    return digits_parse(words[2], &file->base) &&
           digits_parse(words[3], &file->last) &&
           time_parse(words[4], &file->first_received_us) &&
           time_parse(words[5], &file->last_received_us) &&
           digits_parse(words[6], &file->clicks) &&
           digits_parse(words[7], &file->bytes) &&
           hex_parse(words[8], file->sha256, sizeof(file->sha256)) &&
           words[9].n > 0 && line->incs.n < MANIFEST_INCS_MAX;
}

static bool
line_parse(struct str text, struct manifest_line *line)
{
    struct str words[WORDS_MAX];
    uint32_t n = words_split(text, words);
    uint8_t crc[CRC_DIGITS / 2];
    uint64_t want = 0;

    if (n < 2 || !hex_parse(words[n - 1], crc, sizeof(crc)))
        return false;
    for (size_t i = 0; i < sizeof(crc); i++)
        want = want << 8 | crc[i];
    if (hash64(text.p, text.n - CRC_DIGITS - 1, 0) != want)
        return false;
    if (n == 11 && str_equal(words[0], STR("file")))
        return file_parse(words, line);
    line->is_file = false;
    return n == 3 && str_equal(words[0], STR("through")) &&
           time_parse(words[1], &line->through_us);
}

enum manifest_step
manifest_line_next(struct str text, uint32_t *at, struct manifest_line *line)
{
    const char *from = text.p + *at, *end;
    uint32_t left = text.n - *at;

    if (left == 0)
        return MANIFEST_END;
    end = memchr(from, '\n', left);
    if (end == NULL)
        return MANIFEST_TORN;

    struct str one = {from, (uint32_t)(end - from)};
    bool last = one.n + 1 == left;
    if (!line_parse(one, line))
        return last && memchr(from, '\0', one.n) != NULL ? MANIFEST_TORN
                                                         : MANIFEST_DAMAGED;
    *at += one.n + 1;
    return MANIFEST_LINE;
}

static void
line_end(struct buf *out, size_t from)
{
    if (!out->failed)
        buf_printf(out, " %016" PRIx64 "\n",
                   hash64(out->p + from, out->n - from, 0));
}

void
manifest_line_add_file(struct buf *out, const struct manifest_file *file,
                       struct str incs)
{
    size_t from = out->n;
    char sha[HASH_SHA256_HEX_SIZE];

    hash_hex(file->sha256, sizeof(file->sha256), sha);
    buf_printf(out,
               "file %s %" PRIu64 " %" PRIu64 " %" PRId64 " %" PRId64 " %" PRIu64
               " %" PRIu64 " %s ",
               file->path, file->base, file->last, file->first_received_us,
               file->last_received_us, file->clicks, file->bytes, sha);
    buf_add_str(out, incs.n == 0 ? STR("-") : incs);
    line_end(out, from);
}

void
manifest_line_add_through(struct buf *out, int64_t through_us)
{
    size_t from = out->n;

    buf_printf(out, "through %" PRId64, through_us);
    line_end(out, from);
}

const char *
manifest_line_follow(struct manifest_state *state, const struct manifest_line *line)
{
    const struct manifest_file *file = &line->file;

    if (!line->is_file) {
        if (line->through_us < state->through_us)
            return "a `through` before an earlier one";
        state->through_us = line->through_us;
        return NULL;
    }
    if (file->base != state->next)
        return "its base does not follow the last offset listed";
    if (file->last < file->base || file->last == UINT64_MAX ||
        file->clicks != file->last - file->base + 1)
        return "its offsets and its number of clicks contradict each other";
    if (file->last_received_us < file->first_received_us)
        return "it ends before it begins";
    if (file->first_received_us < state->through_us)
        return "it holds clicks received before what is already complete";
    state->next = file->last + 1;
    state->through_us = file->last_received_us;
    return NULL;
}

enum err
manifest_list_path(const char *dir, uint32_t partition, char *path, size_t size,
                   struct why *why)
{
    int n = snprintf(path, size, "%s/manifest/p%02u.log", dir, partition);

    if (n < 0 || (size_t)n >= size)
        return err_set(why, ERR_INVALID, "path %.80s...: too long", dir);
    return ERR_OK;
}

#include "billing/sums.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "fraud/verdict.h"
#include "schema/avrofile.h"
#include "schema/click.h"

enum {
    WIDE_SIZE = 16,
    TEXT_MAX = 256,
    RECORD_MAX = 6 * (TEXT_MAX + 5) + 8 * 10 + 32
};

#define WIDE(name)                                                           \
    "{\"type\":\"fixed\",\"name\":\"" name "\",\"size\":16,\"logicalType\":" \
    "\"decimal\",\"precision\":38,\"scale\":6}"

const char sums_schema[] =
    "{\"type\":\"record\",\"name\":\"judged_sum\",\"namespace\":\"clickledger\","
    "\"fields\":["
    "{\"name\":\"account\",\"type\":\"long\"},"
    "{\"name\":\"campaign_id\",\"type\":\"string\"},"
    "{\"name\":\"zone\",\"type\":\"string\"},"
    "{\"name\":\"day\",\"type\":{\"type\":\"int\",\"logicalType\":\"date\"}},"
    "{\"name\":\"ad_id\",\"type\":\"string\"},"
    "{\"name\":\"country\",\"type\":\"string\"},"
    "{\"name\":\"publisher_id\",\"type\":\"string\"},"
    "{\"name\":\"device\",\"type\":\"int\"},"
    "{\"name\":\"kind\",\"type\":\"int\"},"
    "{\"name\":\"reason\",\"type\":\"int\"},"
    "{\"name\":\"unit_price_micros\",\"type\":\"long\"},"
    "{\"name\":\"clicks\",\"type\":\"long\"},"
    "{\"name\":\"conflicts\",\"type\":\"long\"},"
    "{\"name\":\"cost\",\"type\":" WIDE(
        "cost_decimal") "},"
                        "{\"name\":\"list\",\"type\":" WIDE("list_decimal") "}]}";

struct sums_writer {
    struct avrofile_writer *avro;
    char path[FILE_PATH_MAX];
};

static enum err
path_of(char out[FILE_PATH_MAX], const char *judge_dir, int64_t to_us,
        struct why *why)
{
    int n =
        snprintf(out, FILE_PATH_MAX, "%s/sums/%" PRId64 ".avro", judge_dir, to_us);

    if (n < 0 || n >= FILE_PATH_MAX)
        return err_set(why, ERR_INVALID, "path %.80s...: too long", judge_dir);
    return ERR_OK;
}

enum err
sums_create(struct sums_writer **out, const char *judge_dir, int64_t to_us,
            struct why *why)
{
    struct sums_writer *writer = calloc(1, sizeof(*writer));
    enum err err;

    *out = NULL;
    if (writer == NULL)
        return err_set(why, ERR_NOMEM, "sums: no memory");
    err = path_of(writer->path, judge_dir, to_us, why);
    if (err == ERR_OK)
        err = avrofile_create(&writer->avro, writer->path, sums_schema,
                              AVROFILE_SNAPPY, NULL, 0, why);
    if (err != ERR_OK) {
        free(writer);
        return err;
    }
    *out = writer;
    return ERR_OK;
}

static unsigned
text_put(uint8_t *out, struct str s)
{
    unsigned n = avro_long_put(out, s.n);

    assert(s.n <= TEXT_MAX);
    if (s.n > 0)
        memcpy(out + n, s.p, s.n);
    return n + s.n;
}

/* Big-endian two's complement, as Avro's decimal has it. */
static unsigned
wide_put(uint8_t *out, money_wide value)
{
    for (int i = WIDE_SIZE - 1; i >= 0; i--, value >>= 8)
        out[i] = (uint8_t)(value & 0xFF);
    return WIDE_SIZE;
}

enum err
sums_add(struct sums_writer *writer, const struct sums_row *row, struct why *why)
{
    uint8_t record[RECORD_MAX];
    unsigned n = 0;

    assert(row->clicks > 0 && row->conflicts <= row->clicks);
    n += avro_long_put(record + n, row->account);
    n += text_put(record + n, row->campaign);
    n += text_put(record + n, row->zone);
    n += avro_long_put(record + n, row->day);
    n += text_put(record + n, row->ad);
    n += text_put(record + n, row->country);
    n += text_put(record + n, row->publisher);
    n += avro_long_put(record + n, row->device);
    n += avro_long_put(record + n, row->kind);
    n += avro_long_put(record + n, row->reason);
    n += avro_long_put(record + n, row->unit_price_micros);
    n += avro_long_put(record + n, (int64_t)row->clicks);
    n += avro_long_put(record + n, (int64_t)row->conflicts);
    n += wide_put(record + n, row->cost_micros);
    n += wide_put(record + n, row->list_micros);
    assert(n <= sizeof(record));
    return avrofile_add(writer->avro, record, n, why);
}

enum err
sums_finish(struct sums_writer **writer, struct publish *publish, struct why *why)
{
    enum err err = publish_avro(publish, &(*writer)->avro, (*writer)->path, why);

    free(*writer);
    *writer = NULL;
    return err;
}

void
sums_abort(struct sums_writer **writer)
{
    if (*writer == NULL)
        return;
    avrofile_abort(&(*writer)->avro);
    free(*writer);
    *writer = NULL;
}

/* A reader over one block; `bad` sticks. */
struct cursor {
    const uint8_t *p, *end;
    bool bad;
};

static int64_t
long_get(struct cursor *c, int64_t min, int64_t max)
{
    int64_t value = 0;
    unsigned n = c->bad ? 0 : avro_long_get(c->p, c->end, &value);

    if (n == 0 || value < min || value > max) {
        c->bad = true;
        return 0;
    }
    c->p += n;
    return value;
}

static struct str
text_get(struct cursor *c)
{
    int64_t n = long_get(c, 0, TEXT_MAX);
    struct str s = {(const char *)c->p, (uint32_t)n};

    if (c->bad || n > c->end - c->p) {
        c->bad = true;
        return STR("");
    }
    c->p += n;
    return s;
}

static money_wide
wide_get(struct cursor *c)
{
    __extension__ unsigned __int128 value = 0;

    if (c->bad || c->end - c->p < WIDE_SIZE) {
        c->bad = true;
        return 0;
    }
    for (int i = 0; i < WIDE_SIZE; i++)
        value = value << 8 | *c->p++;
    return (money_wide)value;
}

static bool
row_get(struct cursor *c, struct sums_row *row)
{
    row->account = (uint32_t)long_get(c, 0, UINT32_MAX);
    row->campaign = text_get(c);
    row->zone = text_get(c);
    row->day = (int32_t)long_get(c, INT32_MIN, INT32_MAX);
    row->ad = text_get(c);
    row->country = text_get(c);
    row->publisher = text_get(c);
    row->device = (uint8_t)long_get(c, 0, CLICK_DEVICES_N - 1);
    row->kind = (uint8_t)long_get(c, 0, VERDICT_KINDS_N - 1);
    row->reason = (uint8_t)long_get(c, 0, REASONS_N - 1);
    row->unit_price_micros = long_get(c, 0, INT64_MAX);
    row->clicks = (uint64_t)long_get(c, 1, INT64_MAX);
    row->conflicts = (uint64_t)long_get(c, 0, INT64_MAX);
    row->cost_micros = wide_get(c);
    row->list_micros = wide_get(c);
    return !c->bad;
}

static enum err
each_record(struct avrofile_reader *reader, const char *path,
            bool (*visit)(void *ctx, const struct sums_row *row), void *ctx,
            struct why *why)
{
    uint64_t records;
    struct str bytes;
    enum err err;

    while ((err = avrofile_block(reader, &bytes, &records, why)) == ERR_OK) {
        const uint8_t *p = (const uint8_t *)bytes.p;
        struct cursor cursor = {p, p + bytes.n, false};

        for (; records > 0; records--) {
            struct sums_row row;

            if (!row_get(&cursor, &row))
                return err_set(why, ERR_CORRUPT, "%s: a record is damaged", path);
            if (!visit(ctx, &row))
                return ERR_OK;
        }
    }
    return err == ERR_AGAIN ? ERR_OK : err;
}

enum err
sums_each(const char *judge_dir, int64_t to_us,
          bool (*visit)(void *ctx, const struct sums_row *row), void *ctx,
          struct why *why)
{
    struct avrofile_reader *reader = NULL;
    char path[FILE_PATH_MAX];
    enum err err = path_of(path, judge_dir, to_us, why);

    if (err == ERR_OK)
        err = avrofile_open(&reader, path, why);
    if (err != ERR_OK)
        return err;
    err = each_record(reader, path, visit, ctx, why);
    avrofile_close(&reader);
    return err;
}

#include "billing/spend.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "common/money.h"
#include "schema/avrofile.h"

enum {
    SLOTS_MIN = 1024,
    TEXT_MAX = 256,
    WIDE_SIZE = 16,
    RECORD_MAX = TEXT_MAX + 64
};

static const char spend_schema[] =
    "{\"type\":\"record\",\"name\":\"spend\",\"namespace\":\"clickledger\","
    "\"fields\":["
    "{\"name\":\"campaign_id\",\"type\":\"string\"},"
    "{\"name\":\"day\",\"type\":{\"type\":\"int\",\"logicalType\":\"date\"}},"
    "{\"name\":\"spent\",\"type\":{\"type\":\"fixed\",\"name\":\"spent_decimal\","
    "\"size\":16,\"logicalType\":\"decimal\",\"precision\":38,\"scale\":6}},"
    "{\"name\":\"exhausted\",\"type\":\"boolean\"}]}";

/* One (campaign, day). campaign is its index in master + 1, 0: an empty slot. */
struct row {
    money_wide spent_micros;
    uint32_t campaign;
    int32_t day;
    bool exhausted;
};

/* A row of a campaign that master no longer has: carried along untouched. */
struct orphan {
    char id[TEXT_MAX];
    uint32_t id_n;
    struct row row;
};

struct spend {
    const struct master *master;
    struct row *slots; /* open addressing, a power of two, at most half full */
    size_t slots_n, used;
    struct orphan *orphans;
    size_t orphans_n;
};

enum err
spend_open(struct spend **out, const struct master *master, struct why *why)
{
    struct spend *spend = calloc(1, sizeof(*spend));

    *out = NULL;
    if (spend != NULL)
        spend->slots = calloc(SLOTS_MIN, sizeof(*spend->slots));
    if (spend == NULL || spend->slots == NULL) {
        free(spend);
        return err_set(why, ERR_NOMEM, "spend: no memory");
    }
    spend->master = master;
    spend->slots_n = SLOTS_MIN;
    *out = spend;
    return ERR_OK;
}

void
spend_close(struct spend **spend)
{
    if (*spend == NULL)
        return;
    free((*spend)->slots);
    free((*spend)->orphans);
    free(*spend);
    *spend = NULL;
}

static struct row *
slot_of(struct row *slots, size_t slots_n, uint32_t campaign, int32_t day)
{
    uint64_t h = ((uint64_t)campaign << 16 ^ (uint32_t)day) * 0x9E3779B97F4A7C15u;
    size_t at = (size_t)(h >> 20) & (slots_n - 1);

    while (slots[at].campaign != 0 &&
           (slots[at].campaign != campaign || slots[at].day != day))
        at = (at + 1) & (slots_n - 1);
    return &slots[at];
}

static enum err
grow(struct spend *spend, struct why *why)
{
    size_t n = spend->slots_n * 2;
    struct row *slots;

    if (spend->used >= SPEND_ROWS_MAX)
        return err_set(why, ERR_FULL, "spend: more than %d campaign-days",
                       SPEND_ROWS_MAX);
    slots = calloc(n, sizeof(*slots));
    if (slots == NULL)
        return err_set(why, ERR_NOMEM, "spend: no memory");
    for (size_t i = 0; i < spend->slots_n; i++)
        if (spend->slots[i].campaign != 0)
            *slot_of(slots, n, spend->slots[i].campaign, spend->slots[i].day) =
                spend->slots[i];
    free(spend->slots);
    spend->slots = slots;
    spend->slots_n = n;
    return ERR_OK;
}

static enum err
row_get(struct spend *spend, uint32_t campaign, int32_t day, struct row **out,
        struct why *why)
{
    struct row *row = slot_of(spend->slots, spend->slots_n, campaign, day);

    if (row->campaign == 0 && spend->used * 2 >= spend->slots_n) {
        enum err err = grow(spend, why);

        if (err != ERR_OK)
            return err;
        row = slot_of(spend->slots, spend->slots_n, campaign, day);
    }
    if (row->campaign == 0) {
        spend->used++;
        *row = (struct row){.campaign = campaign, .day = day};
    }
    *out = row;
    return ERR_OK;
}

enum err
spend_take(struct spend *spend, const struct master_campaign *campaign, int32_t day,
           int64_t price_micros, bool *fits, struct why *why)
{
    int64_t budget = master_budget(campaign, day);
    struct row *row;
    enum err err = row_get(spend, campaign->index + 1, day, &row, why);

    if (err != ERR_OK)
        return err;
    assert(price_micros >= 0);
    if (budget != MASTER_NO_BUDGET && row->spent_micros + price_micros > budget)
        row->exhausted = true;
    *fits = !row->exhausted;
    if (*fits)
        row->spent_micros += price_micros;
    return ERR_OK;
}

static enum err
path_of(char out[FILE_PATH_MAX], const char *judge_dir, int64_t to_us,
        struct why *why)
{
    int n =
        snprintf(out, FILE_PATH_MAX, "%s/spend/%" PRId64 ".avro", judge_dir, to_us);

    if (n < 0 || n >= FILE_PATH_MAX)
        return err_set(why, ERR_INVALID, "path %.80s...: too long", judge_dir);
    return ERR_OK;
}

static enum err
orphan_add(struct spend *spend, struct str id, const struct row *row,
           struct why *why)
{
    struct orphan *orphans =
        realloc(spend->orphans, (spend->orphans_n + 1) * sizeof(*orphans));

    if (orphans == NULL)
        return err_set(why, ERR_NOMEM, "spend: no memory");
    spend->orphans = orphans;
    orphans[spend->orphans_n] = (struct orphan){.id_n = id.n, .row = *row};
    memcpy(orphans[spend->orphans_n].id, id.p, id.n);
    spend->orphans_n++;
    return ERR_OK;
}

static bool
record_get(const uint8_t **p, const uint8_t *end, struct str *id, struct row *row)
{
    __extension__ unsigned __int128 spent = 0;
    int64_t n = 0, day = 0;
    unsigned used = avro_long_get(*p, end, &n);

    if (used == 0 || n < 0 || n > TEXT_MAX || n > end - *p - (int64_t)used)
        return false;
    *id = (struct str){(const char *)*p + used, (uint32_t)n};
    *p += used + (uint32_t)n;
    used = avro_long_get(*p, end, &day);
    if (used == 0 || day < INT32_MIN || day > INT32_MAX ||
        end - *p < (int64_t)used + WIDE_SIZE + 1)
        return false;
    *p += used;
    for (int i = 0; i < WIDE_SIZE; i++)
        spent = spent << 8 | *(*p)++;
    *row = (struct row){.spent_micros = (money_wide)spent, .day = (int32_t)day};
    row->exhausted = *(*p)++ != 0;
    return row->spent_micros >= 0;
}

static enum err
record_load(struct spend *spend, struct str id, const struct row *from,
            struct why *why)
{
    const struct master_campaign *campaign =
        master_campaign_find(spend->master, id);
    struct row *row;
    enum err err;

    if (campaign == NULL)
        return orphan_add(spend, id, from, why);
    err = row_get(spend, campaign->index + 1, from->day, &row, why);
    if (err == ERR_OK) {
        row->spent_micros = from->spent_micros;
        row->exhausted = from->exhausted;
    }
    return err;
}

enum err
spend_load(struct spend *spend, const char *judge_dir, int64_t to_us,
           struct why *why)
{
    struct avrofile_reader *reader = NULL;
    char path[FILE_PATH_MAX];
    struct str bytes, id;
    uint64_t records;
    struct row row;
    enum err err = path_of(path, judge_dir, to_us, why);

    if (err == ERR_OK)
        err = avrofile_open(&reader, path, why);
    while (err == ERR_OK &&
           (err = avrofile_block(reader, &bytes, &records, why)) == ERR_OK) {
        const uint8_t *p = (const uint8_t *)bytes.p, *end = p + bytes.n;

        for (; records > 0 && err == ERR_OK; records--)
            err = record_get(&p, end, &id, &row)
                      ? record_load(spend, id, &row, why)
                      : err_set(why, ERR_CORRUPT, "%s: a record is damaged", path);
    }
    avrofile_close(&reader);
    return err == ERR_AGAIN ? ERR_OK : err;
}

static enum err
record_put(struct avrofile_writer *avro, struct str id, const struct row *row,
           struct why *why)
{
    uint8_t record[RECORD_MAX];
    money_wide spent = row->spent_micros;
    unsigned n = avro_long_put(record, id.n);

    assert(id.n <= TEXT_MAX);
    memcpy(record + n, id.p, id.n);
    n += id.n;
    n += avro_long_put(record + n, row->day);
    for (int i = WIDE_SIZE - 1; i >= 0; i--, spent >>= 8)
        record[n + (unsigned)i] = (uint8_t)(spent & 0xFF);
    n += WIDE_SIZE;
    record[n++] = row->exhausted;
    return avrofile_add(avro, record, n, why);
}

enum err
spend_save(const struct spend *spend, const char *judge_dir, int64_t to_us,
           int32_t from_day, struct publish *publish, struct why *why)
{
    struct avrofile_writer *avro = NULL;
    char path[FILE_PATH_MAX];
    enum err err = path_of(path, judge_dir, to_us, why);

    if (err == ERR_OK)
        err = avrofile_create(&avro, path, spend_schema, AVROFILE_SNAPPY, NULL, 0,
                              why);
    if (err != ERR_OK)
        return err;
    for (size_t i = 0; i < spend->slots_n && err == ERR_OK; i++) {
        const struct row *row = &spend->slots[i];

        if (row->campaign != 0 && row->day >= from_day)
            err = record_put(avro, spend->master->campaigns[row->campaign - 1].id,
                             row, why);
    }
    for (size_t i = 0; i < spend->orphans_n && err == ERR_OK; i++) {
        const struct orphan *o = &spend->orphans[i];

        if (o->row.day >= from_day)
            err = record_put(avro, (struct str){o->id, o->id_n}, &o->row, why);
    }
    if (err == ERR_OK)
        return publish_avro(publish, &avro, path, why);
    avrofile_abort(&avro);
    return err;
}

#include "billing/final.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "schema/avrofile.h"

enum { RECORD_MAX = 10 + 1 + 2 + 5 + 3 + 10 + 3 + 3 + 2 };

#define X(name, verdict, scope, class, feeds, text) "\"" #name "\","
const char final_schema[] =
    "{\"type\":\"record\",\"name\":\"final_verdict\",\"namespace\":\"clickledger\","
    "\"fields\":["
    "{\"name\":\"seq\",\"type\":\"long\"},"
    "{\"name\":\"verdict\",\"type\":{\"type\":\"enum\",\"name\":\"verdict_kind\","
    "\"symbols\":[\"none\",\"billable\",\"suspicious\",\"invalid\",\"duplicate\","
    "\"quarantined\",\"over_budget\"]}},"
    "{\"name\":\"reason\",\"type\":{\"type\":\"enum\",\"name\":\"reason\","
    "\"symbols\":[" REASON_MAP(X) "\"reserved\"]}},"
                                  "{\"name\":\"reasons\",\"type\":\"int\"},"
                                  "{\"name\":\"score\",\"type\":\"int\"},"
                                  "{\"name\":\"price\",\"type\":\"long\"},"
                                  "{\"name\":\"ruleset\",\"type\":\"int\"},"
                                  "{\"name\":\"master\",\"type\":\"int\"},"
                                  "{\"name\":\"flags\",\"type\":\"int\"}]}";
#undef X

struct final_writer {
    struct avrofile_writer *avro;
    uint64_t base, clicks, added;
    char path[FILE_PATH_MAX];
};

static enum err
path_of(char out[FILE_PATH_MAX], const char *archive_dir,
        const struct manifest_file *file, struct why *why)
{
    char beside[MANIFEST_PATH_MAX + 8];
    int n;

    manifest_beside(file, "final", beside);
    n = snprintf(out, FILE_PATH_MAX, "%s/%s", archive_dir, beside);
    if (n < 0 || n >= FILE_PATH_MAX)
        return err_set(why, ERR_INVALID, "path %.80s...: too long", archive_dir);
    return ERR_OK;
}

enum err
final_create(struct final_writer **out, const char *archive_dir,
             const struct manifest_file *file, struct why *why)
{
    struct final_writer *writer = calloc(1, sizeof(*writer));
    enum err err;

    *out = NULL;
    if (writer == NULL)
        return err_set(why, ERR_NOMEM, "verdict file: no memory");
    writer->base = file->base;
    writer->clicks = file->clicks;
    err = path_of(writer->path, archive_dir, file, why);
    if (err == ERR_OK)
        err = avrofile_create(&writer->avro, writer->path, final_schema,
                              AVROFILE_SNAPPY, NULL, 0, why);
    if (err != ERR_OK) {
        free(writer);
        return err;
    }
    *out = writer;
    return ERR_OK;
}

enum err
final_add(struct final_writer *writer, const struct final_row *row, struct why *why)
{
    const struct verdict *v = &row->verdict;
    uint8_t record[RECORD_MAX];
    unsigned n = 0;

    assert(writer->added < writer->clicks && v->kind < VERDICT_KINDS_N);
    writer->added++;
    n += avro_long_put(record + n, (int64_t)row->seq);
    n += avro_long_put(record + n, v->kind);
    n += avro_long_put(record + n, v->reason);
    n += avro_long_put(record + n, (int32_t)v->reasons);
    n += avro_long_put(record + n, v->score);
    n += avro_long_put(record + n, row->price_micros);
    n += avro_long_put(record + n, v->ruleset);
    n += avro_long_put(record + n, v->master);
    n += avro_long_put(record + n, row->flags);
    assert(n <= sizeof(record));
    return avrofile_add(writer->avro, record, n, why);
}

enum err
final_finish(struct final_writer **writer, struct publish *publish, struct why *why)
{
    struct final_writer *w = *writer;
    enum err err;

    *writer = NULL;
    if (w->added != w->clicks) {
        err = err_set(
            why, ERR_CORRUPT,
            "%s: %llu verdicts for %llu clicks; the archive file does not "
            "hold what the manifest says",
            w->path, (unsigned long long)w->added, (unsigned long long)w->clicks);
        avrofile_abort(&w->avro);
    } else {
        err = publish_avro(publish, &w->avro, w->path, why);
    }
    free(w);
    return err;
}

void
final_abort(struct final_writer **writer)
{
    if (*writer == NULL)
        return;
    avrofile_abort(&(*writer)->avro);
    free(*writer);
    *writer = NULL;
}

/* One record; false if it is not one. */
static bool
row_get(const uint8_t **p, const uint8_t *end, struct final_row *row)
{
    int64_t v[9];

    for (int i = 0; i < 9; i++) {
        unsigned n = avro_long_get(*p, end, &v[i]);

        if (n == 0)
            return false;
        *p += n;
    }
    if (v[1] < 0 || v[1] >= VERDICT_KINDS_N || v[2] < 0 || v[2] >= REASONS_N ||
        v[3] < INT32_MIN || v[3] > INT32_MAX || v[4] < 0 || v[4] > UINT16_MAX ||
        v[6] < 0 || v[6] > UINT16_MAX || v[7] < 0 || v[7] > UINT16_MAX ||
        v[8] < 0 || v[8] > UINT8_MAX)
        return false;
    *row = (struct final_row){
        .seq = (uint64_t)v[0],
        .verdict = {.kind = (uint8_t)v[1],
                    .reason = (uint8_t)v[2],
                    .reasons = (uint32_t)(int32_t)v[3],
                    .score = (uint16_t)v[4],
                    .ruleset = (uint16_t)v[6],
                    .master = (uint16_t)v[7]},
        .price_micros = v[5],
        .flags = (uint8_t)v[8],
    };
    return true;
}

static enum err
read_rows(struct avrofile_reader *reader, const char *path, uint64_t clicks,
          struct final_row *rows, struct why *why)
{
    uint64_t done = 0, records;
    struct str bytes;
    enum err err;

    while ((err = avrofile_block(reader, &bytes, &records, why)) == ERR_OK) {
        const uint8_t *p = (const uint8_t *)bytes.p, *end = p + bytes.n;

        if (records > clicks - done)
            return err_set(why, ERR_CORRUPT, "%s: more verdicts than clicks", path);
        for (; records > 0; records--)
            if (!row_get(&p, end, &rows[done++]))
                return err_set(why, ERR_CORRUPT, "%s: record %llu is damaged", path,
                               (unsigned long long)(done - 1));
    }
    if (err != ERR_AGAIN)
        return err;
    if (done != clicks)
        return err_set(why, ERR_CORRUPT, "%s: fewer verdicts than clicks", path);
    return ERR_OK;
}

enum err
final_read(const char *archive_dir, const struct manifest_file *file,
           struct final_row *rows, struct why *why)
{
    struct avrofile_reader *reader = NULL;
    char path[FILE_PATH_MAX];
    enum err err = path_of(path, archive_dir, file, why);

    if (err == ERR_OK)
        err = avrofile_open(&reader, path, why);
    if (err != ERR_OK)
        return err;
    err = read_rows(reader, path, file->clicks, rows, why);
    avrofile_close(&reader);
    return err;
}

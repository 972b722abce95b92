#include "billing/judge_stream.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "common/hash.h"
#include "schema/avrofile.h"

struct lane {
    uint32_t *places; /* of its files */
    uint32_t places_n, at;
    struct avrofile_reader *reader;
    unsigned version;
    const uint8_t *p, *end; /* what is left of the block, behind the head */
    const uint8_t *record;  /* the head's bytes */
    uint64_t left;          /* records of the block, behind the head */
    uint64_t row;           /* of the head */
    struct click click;     /* the head */
};

struct stream {
    const char *archive_dir;
    const struct manifest_file *files;
    struct lane lanes[MANIFEST_PARTITIONS_MAX];
    uint32_t *places;
    uint16_t heap[MANIFEST_PARTITIONS_MAX]; /* lanes with a head, least first */
    uint32_t heap_n;
    bool given; /* the head of heap[0] was handed out */
};

static const struct manifest_file *
file_of(const struct stream *stream, const struct lane *lane)
{
    return &stream->files[lane->places[lane->at]];
}

static enum err
damaged(const struct stream *stream, const struct lane *lane, const char *what,
        struct why *why)
{
    return err_set(why, ERR_CORRUPT, "%s/%s: row %llu: %s", stream->archive_dir,
                   file_of(stream, lane)->path, (unsigned long long)lane->row,
                   what);
}

static enum err
file_enter(struct stream *stream, struct lane *lane, struct why *why)
{
    char path[FILE_PATH_MAX];
    int n = snprintf(path, sizeof(path), "%s/%s", stream->archive_dir,
                     file_of(stream, lane)->path);
    enum err err;

    if (n < 0 || (size_t)n >= sizeof(path))
        return err_set(why, ERR_INVALID, "path %.80s...: too long", path);
    err = avrofile_open(&lane->reader, path, why);
    if (err == ERR_NOTFOUND)
        return err_set(why, ERR_CORRUPT, "%s: it is listed, but not there", path);
    if (err != ERR_OK)
        return err;
    lane->version = click_schema_version(avrofile_schema(lane->reader));
    if (lane->version == 0)
        return err_set(why, ERR_CORRUPT,
                       "%s: not a schema of clicks that is known here", path);
    lane->row = UINT64_MAX; /* before the first */
    lane->left = 0;
    return ERR_OK;
}

/* Makes the next block of the lane's files current; ERR_AGAIN behind the last file. */
static enum err
block_enter(struct stream *stream, struct lane *lane, struct why *why)
{
    while (lane->left == 0) {
        struct str bytes;
        enum err err;

        if (lane->at == lane->places_n)
            return ERR_AGAIN;
        if (lane->reader == NULL) {
            err = file_enter(stream, lane, why);
            if (err != ERR_OK)
                return err;
        }
        err = avrofile_block(lane->reader, &bytes, &lane->left, why);
        if (err == ERR_AGAIN) {
            if (lane->row + 1 != file_of(stream, lane)->clicks)
                return damaged(stream, lane,
                               "the manifest has another number of clicks", why);
            avrofile_close(&lane->reader);
            lane->at++;
            lane->left = 0;
            continue;
        }
        if (err != ERR_OK)
            return err;
        lane->p = (const uint8_t *)bytes.p;
        lane->end = lane->p + bytes.n;
    }
    return ERR_OK;
}

/* Decodes the lane's next click into its head. */
static enum err
lane_next(struct stream *stream, struct lane *lane, struct why *why)
{
    int64_t before_us = lane->click.received_us;
    size_t used = 0;
    enum err err = ERR_OK;

    if (lane->left == 0)
        err = block_enter(stream, lane, why);
    if (err != ERR_OK)
        return err;
    lane->row++;
    lane->record = lane->p;
    err = click_decode(&lane->click, lane->p, (size_t)(lane->end - lane->p),
                       lane->version, &used, why);
    if (err != ERR_OK)
        return err;
    lane->p += used;
    lane->left--;
    if (lane->click.received_us < before_us ||
        lane->click.partition != file_of(stream, lane)->partition)
        return damaged(stream, lane, "it is out of order", why);
    return ERR_OK;
}

static bool
less(const struct stream *stream, uint16_t a, uint16_t b)
{
    const struct click *x = &stream->lanes[a].click, *y = &stream->lanes[b].click;

    if (x->received_us != y->received_us)
        return x->received_us < y->received_us;
    if (x->incarnation != y->incarnation)
        return x->incarnation < y->incarnation;
    return a < b;
}

static void
sift_down(struct stream *stream, uint32_t at)
{
    uint16_t *heap = stream->heap;

    for (;;) {
        uint32_t child = 2 * at + 1;

        if (child >= stream->heap_n)
            return;
        if (child + 1 < stream->heap_n &&
            less(stream, heap[child + 1], heap[child]))
            child++;
        if (!less(stream, heap[child], heap[at]))
            return;
        uint16_t moved = heap[at];
        heap[at] = heap[child];
        heap[child] = moved;
        at = child;
    }
}

static enum err
lanes_begin(struct stream *stream, struct why *why)
{
    for (uint16_t p = 0; p < MANIFEST_PARTITIONS_MAX; p++) {
        enum err err;

        if (stream->lanes[p].places_n == 0)
            continue;
        stream->lanes[p].click.received_us = INT64_MIN;
        err = lane_next(stream, &stream->lanes[p], why);
        if (err == ERR_OK)
            stream->heap[stream->heap_n++] = p;
        else if (err != ERR_AGAIN)
            return err;
    }
    for (uint32_t i = stream->heap_n / 2; i-- > 0;)
        sift_down(stream, i);
    return ERR_OK;
}

enum err
stream_open(struct stream **out, const char *archive_dir,
            const struct manifest_file *files, uint32_t files_n, struct why *why)
{
    struct stream *stream = calloc(1, sizeof(*stream));
    uint32_t counts[MANIFEST_PARTITIONS_MAX] = {0}, at = 0;
    enum err err;

    *out = NULL;
    if (stream != NULL)
        stream->places = calloc((size_t)files_n + 1, sizeof(*stream->places));
    if (stream == NULL || stream->places == NULL) {
        free(stream);
        return err_set(why, ERR_NOMEM, "judge: no memory");
    }
    stream->archive_dir = archive_dir;
    stream->files = files;
    for (uint32_t i = 0; i < files_n; i++)
        counts[files[i].partition]++;
    for (uint32_t p = 0; p < MANIFEST_PARTITIONS_MAX; at += counts[p++])
        stream->lanes[p].places = stream->places + at;
    for (uint32_t i = 0; i < files_n; i++) {
        struct lane *lane = &stream->lanes[files[i].partition];

        lane->places[lane->places_n++] = i;
    }
    err = lanes_begin(stream, why);
    if (err != ERR_OK)
        stream_close(&stream);
    *out = stream;
    return err;
}

void
stream_close(struct stream **stream)
{
    if (*stream == NULL)
        return;
    for (uint32_t p = 0; p < MANIFEST_PARTITIONS_MAX; p++)
        if ((*stream)->lanes[p].reader != NULL)
            avrofile_close(&(*stream)->lanes[p].reader);
    free((*stream)->places);
    free(*stream);
    *stream = NULL;
}

/* The event part, which begins with event_id and timestamp and ends with the record. Version
 * 2 added `purpose` at its end: absent, it is left out, so that both versions agree. */
static uint32_t
payload_of(const struct lane *lane)
{
    const struct click *click = &lane->click;
    const uint8_t *from = (const uint8_t *)click->campaign_id.p, *end = lane->p;

    if (lane->version >= 2 && click->purpose.n == 0)
        end--;
    assert(from > lane->record && from < end);
    return (uint32_t)hash64(from, (size_t)(end - from),
                            (uint64_t)click->timestamp_ms);
}

enum err
stream_next(struct stream *stream, struct stream_click *out, struct why *why)
{
    struct lane *lane;

    if (stream->heap_n == 0)
        return ERR_AGAIN;
    lane = &stream->lanes[stream->heap[0]];
    if (stream->given) {
        int64_t received_us = lane->click.received_us;
        enum err err = lane_next(stream, lane, why);

        if (err == ERR_AGAIN) {
            stream->heap[0] = stream->heap[--stream->heap_n];
            if (stream->heap_n == 0)
                return ERR_AGAIN;
        } else if (err != ERR_OK) {
            return err;
        }
        /* Of the same group it is still the least. */
        if (err == ERR_AGAIN || lane->click.received_us != received_us)
            sift_down(stream, 0);
        lane = &stream->lanes[stream->heap[0]];
    }
    stream->given = true;
    *out = (struct stream_click){
        .click = &lane->click,
        .file = lane->places[lane->at],
        .row = (uint32_t)lane->row,
        .payload = payload_of(lane),
    };
    return ERR_OK;
}

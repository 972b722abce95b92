/* The writer; schema/avroread.c is the reader. */
#include "schema/avrofile.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <snappy-c.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <zstd.h>

#include "common/buf.h"
#include "common/file.h"
#include "common/hash.h"
#include "schema/crc32.h"

enum {
    SYNC_SIZE = 16,
    CRC_SIZE = 4,
    FRAME_SIZE = 2 * AVRO_LONG_SIZE_MAX, /* count and size before a block */
    ZSTD_LEVEL = 3,
};

struct avrofile_writer {
    int fd;
    enum avrofile_codec codec;
    bool failed; /* a write failed: the file cannot be finished */
    uint8_t sync[SYNC_SIZE];
    uint8_t *raw; /* AVROFILE_BLOCK_SIZE + AVROFILE_RECORD_MAX */
    size_t raw_n;
    uint64_t records;
    uint8_t *packed; /* frame, packed block, CRC, sync */
    size_t packed_cap;
    ZSTD_CCtx *zstd;
    uint64_t written;
    struct hash_sha256 *sha;
    char path[FILE_PATH_MAX];
    char tmp[FILE_PATH_MAX + 4];
};

unsigned
avro_long_put(uint8_t *out, int64_t value)
{
    uint64_t rest = ((uint64_t)value << 1) ^ (uint64_t)(value >> 63);
    unsigned n = 0;

    while (rest > 0x7f) {
        out[n++] = (uint8_t)(rest | 0x80);
        rest >>= 7;
    }
    out[n++] = (uint8_t)rest;
    return n;
}

unsigned
avro_long_get(const uint8_t *p, const uint8_t *end, int64_t *value)
{
    uint64_t bits = 0;

    for (unsigned n = 0; n < AVRO_LONG_SIZE_MAX && p + n < end; n++) {
        if (n == AVRO_LONG_SIZE_MAX - 1 && p[n] > 1)
            return 0; /* past 64 bits */
        bits |= (uint64_t)(p[n] & 0x7f) << (7 * n);
        if ((p[n] & 0x80) == 0) {
            *value = (int64_t)(bits >> 1) ^ -(int64_t)(bits & 1);
            return n + 1;
        }
    }
    return 0;
}

static enum err
writer_put(struct avrofile_writer *writer, const void *data, size_t n,
           struct why *why)
{
    enum err err = file_write_all(writer->fd, data, n, writer->tmp, why);

    if (err != ERR_OK) {
        writer->failed = true;
        return err;
    }
    hash_sha256_add(writer->sha, data, n);
    writer->written += n;
    return ERR_OK;
}

static void
add_long(struct buf *buf, int64_t value)
{
    uint8_t bytes[AVRO_LONG_SIZE_MAX];

    buf_add(buf, bytes, avro_long_put(bytes, value));
}

static void
add_entry(struct buf *buf, const char *name, struct str value)
{
    struct str key = str_of(name);

    add_long(buf, key.n);
    buf_add_str(buf, key);
    add_long(buf, value.n);
    buf_add_str(buf, value);
}

static enum err
header_put(struct avrofile_writer *writer, const char *schema_json,
           const struct avrofile_meta *meta, int meta_n, struct why *why)
{
    static const char *const codecs[] = {"null", "snappy", "zstandard"};
    struct buf header = BUF_MAX(AVROFILE_HEADER_MAX);
    enum err err;

    buf_add(&header, "Obj\x01", 4);
    add_long(&header, 2 + meta_n);
    add_entry(&header, "avro.schema", str_of(schema_json));
    add_entry(&header, "avro.codec", str_of(codecs[writer->codec]));
    for (int i = 0; i < meta_n; i++)
        add_entry(&header, meta[i].name, meta[i].value);
    add_long(&header, 0);
    buf_add(&header, writer->sync, SYNC_SIZE);
    if (header.failed)
        err = err_set(why, ERR_INVALID, "%s: a header over %d bytes", writer->path,
                      AVROFILE_HEADER_MAX);
    else
        err = writer_put(writer, header.p, header.n, why);
    buf_free(&header);
    return err;
}

static size_t
packed_max(const struct avrofile_writer *writer, size_t raw_n)
{
    switch (writer->codec) {
    case AVROFILE_SNAPPY:
        return snappy_max_compressed_length(raw_n) + CRC_SIZE;
    case AVROFILE_ZSTD:
        return ZSTD_compressBound(raw_n);
    case AVROFILE_NULL:
    default:
        return raw_n;
    }
}

/* The packed buffer grows only for a block that one huge record made huge. */
static enum err
packed_reserve(struct avrofile_writer *writer, size_t raw_n, struct why *why)
{
    size_t need = FRAME_SIZE + packed_max(writer, raw_n) + SYNC_SIZE;

    if (need <= writer->packed_cap)
        return ERR_OK;

    uint8_t *grown = realloc(writer->packed, need);
    if (grown == NULL)
        return err_set(why, ERR_NOMEM, "%s: no memory for %zu bytes", writer->path,
                       need);
    writer->packed = grown;
    writer->packed_cap = need;
    return ERR_OK;
}

static size_t
pack_snappy(const struct avrofile_writer *writer, uint8_t *to)
{
    size_t n = snappy_max_compressed_length(writer->raw_n);
    uint32_t crc = crc32_of(writer->raw, writer->raw_n);
    snappy_status status =
        snappy_compress((const char *)writer->raw, writer->raw_n, (char *)to, &n);

    assert(status == SNAPPY_OK); /* it fails only for want of room */
    for (int i = 0; i < CRC_SIZE; i++)
        to[n + (size_t)i] = (uint8_t)(crc >> (8 * (CRC_SIZE - 1 - i)));
    return n + CRC_SIZE;
}

/* Packs the block in hand to `to`; 0 on failure (never for a good block of records). */
static size_t
pack(struct avrofile_writer *writer, uint8_t *to)
{
    if (writer->codec == AVROFILE_SNAPPY)
        return pack_snappy(writer, to);
    if (writer->codec == AVROFILE_ZSTD) {
        size_t n =
            ZSTD_compressCCtx(writer->zstd, to, ZSTD_compressBound(writer->raw_n),
                              writer->raw, writer->raw_n, ZSTD_LEVEL);
        return ZSTD_isError(n) ? 0 : n;
    }
    memcpy(to, writer->raw, writer->raw_n);
    return writer->raw_n;
}

static enum err
block_put(struct avrofile_writer *writer, struct why *why)
{
    uint8_t frame[FRAME_SIZE];
    enum err err = packed_reserve(writer, writer->raw_n, why);

    if (writer->records == 0 || err != ERR_OK)
        return err;

    uint8_t *body = writer->packed + FRAME_SIZE;
    size_t n = pack(writer, body);
    if (n == 0 && writer->raw_n > 0) {
        writer->failed = true;
        return err_set(why, ERR_NOMEM, "%s: a block cannot be packed",
                       writer->path);
    }

    unsigned frame_n = avro_long_put(frame, (int64_t)writer->records);
    frame_n += avro_long_put(frame + frame_n, (int64_t)n);
    memcpy(body - frame_n, frame, frame_n);
    memcpy(body + n, writer->sync, SYNC_SIZE);
    err = writer_put(writer, body - frame_n, frame_n + n + SYNC_SIZE, why);
    writer->raw_n = 0;
    writer->records = 0;
    return err;
}

static void
writer_free(struct avrofile_writer *writer)
{
    uint8_t unused[HASH_SHA256_SIZE];

    if (writer->fd >= 0)
        (void)close(writer->fd);
    if (writer->sha != NULL)
        hash_sha256_end(writer->sha, unused);
    (void)ZSTD_freeCCtx(writer->zstd);
    free(writer->raw);
    free(writer->packed);
    free(writer);
}

static enum err
writer_file(struct avrofile_writer *writer, struct why *why)
{
    writer->fd = open(writer->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (writer->fd >= 0)
        return ERR_OK;
    return err_set(why,
                   errno == ENOSPC || errno == EDQUOT ? ERR_FULL
                   : errno == ENOENT                  ? ERR_NOTFOUND
                                                      : ERR_FATAL,
                   "create %s: %s", writer->tmp, strerror(errno));
}

enum err
avrofile_create(struct avrofile_writer **out, const char *path,
                const char *schema_json, enum avrofile_codec codec,
                const struct avrofile_meta *meta, int meta_n, struct why *why)
{
    struct avrofile_writer *writer;
    enum err err = ERR_NOMEM;
    size_t path_n = strlen(path);

    *out = NULL;
    if (path_n == 0 || path_n >= FILE_PATH_MAX - 4)
        return err_set(why, ERR_INVALID, "path %.80s: empty or too long", path);
    writer = calloc(1, sizeof(*writer));
    if (writer == NULL)
        return err_set(why, ERR_NOMEM, "%s: no memory", path);
    writer->fd = -1;
    writer->codec = codec;
    memcpy(writer->path, path, path_n);
    memcpy(writer->tmp, path, path_n);
    memcpy(writer->tmp + path_n, ".tmp", 5);
    hash_random_bytes(writer->sync, SYNC_SIZE);
    writer->raw = malloc(AVROFILE_BLOCK_SIZE + AVROFILE_RECORD_MAX);
    writer->sha = hash_sha256_new();
    writer->zstd = codec == AVROFILE_ZSTD ? ZSTD_createCCtx() : NULL;
    if (writer->raw == NULL || writer->sha == NULL ||
        (codec == AVROFILE_ZSTD && writer->zstd == NULL))
        (void)err_set(why, ERR_NOMEM, "%s: no memory", path);
    else if ((err = packed_reserve(writer, AVROFILE_BLOCK_SIZE, why)) == ERR_OK)
        err = writer_file(writer, why);
    if (err == ERR_OK)
        err = header_put(writer, schema_json, meta, meta_n, why);
    if (err == ERR_OK)
        *out = writer;
    else
        avrofile_abort(&writer);
    return err;
}

enum err
avrofile_add(struct avrofile_writer *writer, const void *record, size_t n,
             struct why *why)
{
    if (n > AVROFILE_RECORD_MAX)
        return err_set(why, ERR_INVALID, "%s: a record of %zu bytes, at most %d",
                       writer->path, n, AVROFILE_RECORD_MAX);
    if (writer->failed)
        return err_set(why, ERR_FATAL, "%s: an earlier write failed", writer->path);
    assert(writer->raw_n < AVROFILE_BLOCK_SIZE);
    if (n > 0)
        memcpy(writer->raw + writer->raw_n, record, n);
    writer->raw_n += n;
    writer->records++;
    if (writer->raw_n < AVROFILE_BLOCK_SIZE &&
        writer->records < AVROFILE_BLOCK_SIZE)
        return ERR_OK;
    return block_put(writer, why);
}

uint64_t
avrofile_bytes(const struct avrofile_writer *writer)
{
    return writer->written + writer->raw_n;
}

enum err
avrofile_finish(struct avrofile_writer **writer_p, const char *path,
                uint8_t sha256[32], struct why *why)
{
    struct avrofile_writer *writer = *writer_p;
    uint8_t digest[HASH_SHA256_SIZE];
    enum err err = ERR_OK;

    assert(writer != NULL);
    if (writer->failed)
        err = err_set(why, ERR_FATAL, "%s: an earlier write failed", writer->path);
    if (err == ERR_OK)
        err = block_put(writer, why);
    if (err == ERR_OK && fsync(writer->fd) != 0)
        err =
            err_set(why, errno == ENOSPC || errno == EDQUOT ? ERR_FULL : ERR_FATAL,
                    "sync %s: %s", writer->tmp, strerror(errno));
    if (err == ERR_OK)
        err = file_publish(writer->tmp, path == NULL ? writer->path : path, why);
    if (err != ERR_OK) {
        avrofile_abort(writer_p);
        return err;
    }
    hash_sha256_end(writer->sha, digest);
    writer->sha = NULL;
    if (sha256 != NULL)
        memcpy(sha256, digest, sizeof(digest));
    writer_free(writer);
    *writer_p = NULL;
    return ERR_OK;
}

enum err
avrofile_finish_unsynced(struct avrofile_writer **writer, struct why *why)
{
    enum err err = ERR_OK;

    if ((*writer)->failed)
        err =
            err_set(why, ERR_FATAL, "%s: an earlier write failed", (*writer)->path);
    if (err == ERR_OK)
        err = block_put(*writer, why);
    if (err != ERR_OK) {
        avrofile_abort(writer);
        return err;
    }
    writer_free(*writer);
    *writer = NULL;
    return ERR_OK;
}

void
avrofile_abort(struct avrofile_writer **writer)
{
    if (*writer == NULL)
        return;
    if ((*writer)->fd >= 0)
        (void)unlink((*writer)->tmp);
    writer_free(*writer);
    *writer = NULL;
}

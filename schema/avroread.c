/* The reader of schema/avrofile.h. Nothing in the file is believed: each length is held
 * against its limit and against what is left before a byte is touched. */
#include "schema/avrofile.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <snappy-c.h>
#include <stdlib.h>
#include <unistd.h>
#include <zstd.h>

#include "common/buf.h"
#include "common/file.h"
#include "schema/crc32.h"

enum {
    MAGIC_SIZE = 4,
    SYNC_SIZE = 16,
    CRC_SIZE = 4,
    META_MAX = 256,
    READ_SIZE = 262144, /* bytes asked from the kernel at a time */
    /* Snappy's worst case on a full block, its CRC, the frame and the sync marker. */
    PACKED_MAX = AVROFILE_BLOCK_MAX + AVROFILE_BLOCK_MAX / 6 + 128,
    ZSTD_WINDOW_LOG_MAX = 24,
};

struct entry {
    struct str name, value;
};

struct avrofile_reader {
    int fd;
    bool at_end; /* of the file: nothing more to read */
    enum avrofile_codec codec;
    uint8_t sync[SYNC_SIZE];
    struct buf in; /* [at, n) is not consumed */
    size_t at;
    struct buf header; /* what the entries point into */
    struct entry meta[META_MAX];
    int meta_n;
    struct buf out; /* the block, unpacked */
    ZSTD_DCtx *zstd;
    char path[FILE_PATH_MAX];
};

static enum err
corrupt(const struct avrofile_reader *reader, const char *what, struct why *why)
{
    return err_set(why, ERR_CORRUPT, "%s: %s", reader->path, what);
}

/* Makes need bytes available at `at` if the file has them; fewer at its end. */
static enum err
fill(struct avrofile_reader *reader, size_t need, struct why *why)
{
    struct buf *in = &reader->in;

    if (in->n - reader->at >= need || reader->at_end)
        return ERR_OK;
    if (reader->at > 0) {
        memmove(in->p, in->p + reader->at, in->n - reader->at);
        in->n -= reader->at;
        reader->at = 0;
    }
    while (in->n < need && !reader->at_end) {
        size_t room = need - in->n < READ_SIZE ? READ_SIZE : need - in->n;
        uint8_t *to = buf_room(in, room);

        if (to == NULL)
            return err_set(why, ERR_NOMEM, "read %s: no memory", reader->path);
        ssize_t n = read(reader->fd, to, room);
        if (n < 0 && errno != EINTR)
            return err_set(why, ERR_FATAL, "read %s: %s", reader->path,
                           strerror(errno));
        in->n += n > 0 ? (size_t)n : 0;
        reader->at_end = n == 0;
    }
    return ERR_OK;
}

static size_t
left(const struct avrofile_reader *reader)
{
    return reader->in.n - reader->at;
}

/* A cursor over the header's bytes. */
struct cursor {
    const uint8_t *p, *end;
};

static bool
take_long(struct cursor *cursor, int64_t *value)
{
    unsigned n = avro_long_get(cursor->p, cursor->end, value);

    cursor->p += n;
    return n > 0;
}

static bool
take_text(struct cursor *cursor, struct str *text)
{
    int64_t n;

    if (!take_long(cursor, &n) || n < 0 || n > cursor->end - cursor->p)
        return false;
    *text = (struct str){(const char *)cursor->p, (uint32_t)n};
    cursor->p += n;
    return true;
}

/* The map of metadata: blocks of entries, ended by an empty one; a negative count is
 * followed by the block's bytes. */
static bool
take_meta(struct avrofile_reader *reader, struct cursor *cursor)
{
    for (;;) {
        int64_t count, bytes;

        if (!take_long(cursor, &count))
            return false;
        if (count == 0)
            return true;
        if (count < 0 && (count == INT64_MIN || !take_long(cursor, &bytes)))
            return false;
        if (count < 0)
            count = -count;
        for (; count > 0; count--) {
            struct entry *entry = &reader->meta[reader->meta_n];

            if (reader->meta_n == META_MAX || !take_text(cursor, &entry->name) ||
                !take_text(cursor, &entry->value))
                return false;
            reader->meta_n++;
        }
    }
}

static enum err
header_codec(struct avrofile_reader *reader, struct why *why)
{
    struct str codec = avrofile_meta_get(reader, "avro.codec");

    if (codec.n == 0 || str_equal(codec, STR("null")))
        reader->codec = AVROFILE_NULL;
    else if (str_equal(codec, STR("snappy")))
        reader->codec = AVROFILE_SNAPPY;
    else if (str_equal(codec, STR("zstandard")))
        reader->codec = AVROFILE_ZSTD;
    else
        return err_set(why, ERR_CORRUPT,
                       "%s: codec %.*s is none of null, snappy and zstandard",
                       reader->path, codec.n > 32 ? 32 : (int)codec.n, codec.p);
    if (avrofile_schema(reader).n == 0)
        return corrupt(reader, "no avro.schema in the header", why);
    return ERR_OK;
}

/* Parses the header in the first n bytes of `in`; *used gets its length. */
static bool
header_parse(struct avrofile_reader *reader, const uint8_t *p, size_t n,
             size_t *used)
{
    struct cursor cursor = {p + MAGIC_SIZE, p + n};

    reader->meta_n = 0;
    if (!take_meta(reader, &cursor) || cursor.end - cursor.p < SYNC_SIZE)
        return false;
    memcpy(reader->sync, cursor.p, SYNC_SIZE);
    *used = (size_t)(cursor.p - p) + SYNC_SIZE;
    return true;
}

/* Most headers are in the first read; only a long one asks for more. Parsed once for its
 * length, and again over a copy that stays. */
static enum err
header_read(struct avrofile_reader *reader, struct why *why)
{
    size_t used = 0;
    bool good = false;

    for (size_t n = READ_SIZE; !good && n <= AVROFILE_HEADER_MAX; n *= 8) {
        enum err err = fill(reader, n, why);

        if (err != ERR_OK)
            return err;
        n = left(reader) < n ? left(reader) : n;
        if (n < MAGIC_SIZE || memcmp(reader->in.p, "Obj\x01", MAGIC_SIZE) != 0)
            return corrupt(reader, "not an Avro object container file", why);
        good = header_parse(reader, reader->in.p, n, &used);
        if (reader->at_end)
            break;
    }
    if (!good)
        return corrupt(reader, "the header is cut off, damaged or too long", why);
    buf_add(&reader->header, reader->in.p, used);
    if (reader->header.failed)
        return err_set(why, ERR_NOMEM, "read %s: no memory", reader->path);
    reader->at = used;
    good = header_parse(reader, reader->header.p, used, &used);
    assert(good);
    return header_codec(reader, why);
}

enum err
avrofile_open(struct avrofile_reader **out, const char *path, struct why *why)
{
    struct avrofile_reader *reader;
    size_t path_n = strlen(path);
    enum err err = ERR_OK;

    *out = NULL;
    if (path_n >= FILE_PATH_MAX)
        return err_set(why, ERR_INVALID, "path %.80s...: too long", path);
    reader = calloc(1, sizeof(*reader));
    if (reader == NULL)
        return err_set(why, ERR_NOMEM, "%s: no memory", path);
    memcpy(reader->path, path, path_n);
    reader->in = BUF_MAX(PACKED_MAX + READ_SIZE);
    reader->header = BUF_MAX(AVROFILE_HEADER_MAX);
    reader->out = BUF_MAX(AVROFILE_BLOCK_MAX);
    reader->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (reader->fd < 0)
        err = err_set(why, errno == ENOENT ? ERR_NOTFOUND : ERR_FATAL,
                      "open %s: %s", path, strerror(errno));
    if (err == ERR_OK)
        err = header_read(reader, why);
    if (err == ERR_OK)
        *out = reader;
    else
        avrofile_close(&reader);
    return err;
}

struct str
avrofile_schema(const struct avrofile_reader *reader)
{
    return avrofile_meta_get(reader, "avro.schema");
}

struct str
avrofile_meta_get(const struct avrofile_reader *reader, const char *name)
{
    struct str wanted = str_of(name);

    for (int i = 0; i < reader->meta_n; i++)
        if (str_equal(reader->meta[i].name, wanted))
            return reader->meta[i].value;
    return (struct str){NULL, 0};
}

static enum err
unpack_snappy(struct avrofile_reader *reader, const uint8_t *p, size_t n,
              struct why *why)
{
    size_t raw_n;
    uint32_t crc = 0;

    if (n < CRC_SIZE || snappy_uncompressed_length((const char *)p, n - CRC_SIZE,
                                                   &raw_n) != SNAPPY_OK)
        return corrupt(reader, "a snappy block has no length", why);
    if (raw_n > AVROFILE_BLOCK_MAX)
        return corrupt(reader, "a block unpacks to more than allowed", why);
    uint8_t *to = buf_room(&reader->out, raw_n == 0 ? 1 : raw_n);
    if (to == NULL)
        return err_set(why, ERR_NOMEM, "read %s: no memory", reader->path);
    if (snappy_uncompress((const char *)p, n - CRC_SIZE, (char *)to, &raw_n) !=
        SNAPPY_OK)
        return corrupt(reader, "a snappy block is damaged", why);
    for (size_t i = n - CRC_SIZE; i < n; i++)
        crc = crc << 8 | p[i];
    if (crc32_of(to, raw_n) != crc)
        return corrupt(reader, "a block does not match its CRC", why);
    reader->out.n = raw_n;
    return ERR_OK;
}

/* Streaming, because other writers leave the unpacked size out of the frame. */
static enum err
unpack_zstd(struct avrofile_reader *reader, const uint8_t *p, size_t n,
            struct why *why)
{
    ZSTD_inBuffer in = {p, n, 0};
    size_t more = 1;

    if (reader->zstd == NULL && (reader->zstd = ZSTD_createDCtx()) == NULL)
        return err_set(why, ERR_NOMEM, "read %s: no memory", reader->path);
    (void)ZSTD_DCtx_reset(reader->zstd, ZSTD_reset_session_only);
    (void)ZSTD_DCtx_setParameter(reader->zstd, ZSTD_d_windowLogMax,
                                 ZSTD_WINDOW_LOG_MAX);
    while (more != 0) {
        size_t room = AVROFILE_BLOCK_MAX - reader->out.n;
        if (room > READ_SIZE)
            room = READ_SIZE;
        uint8_t *to = room == 0 ? NULL : buf_room(&reader->out, room);
        if (to == NULL)
            return corrupt(reader, "a block unpacks to more than allowed", why);

        ZSTD_outBuffer part = {to, room, 0};
        more = ZSTD_decompressStream(reader->zstd, &part, &in);
        if (ZSTD_isError(more) || (more != 0 && part.pos == 0 && in.pos == in.size))
            return corrupt(reader, "a zstandard block is damaged", why);
        reader->out.n += part.pos;
    }
    return in.pos == in.size
               ? ERR_OK
               : corrupt(reader, "bytes follow a zstandard frame", why);
}

static enum err
unpack(struct avrofile_reader *reader, const uint8_t *p, size_t n,
       struct str *bytes, struct why *why)
{
    enum err err = ERR_OK;

    buf_reset(&reader->out);
    if (reader->codec == AVROFILE_NULL) {
        *bytes = (struct str){(const char *)p, (uint32_t)n};
        return ERR_OK;
    }
    err = reader->codec == AVROFILE_SNAPPY ? unpack_snappy(reader, p, n, why)
                                           : unpack_zstd(reader, p, n, why);
    *bytes = (struct str){(const char *)reader->out.p, (uint32_t)reader->out.n};
    return err;
}

enum err
avrofile_block(struct avrofile_reader *reader, struct str *bytes, uint64_t *records,
               struct why *why)
{
    int64_t count, size;
    enum err err = fill(reader, 2 * AVRO_LONG_SIZE_MAX, why);

    if (err != ERR_OK)
        return err;
    if (left(reader) == 0)
        return ERR_AGAIN;

    struct cursor cursor = {reader->in.p + reader->at, reader->in.p + reader->in.n};
    if (!take_long(&cursor, &count) || !take_long(&cursor, &size))
        return corrupt(reader, "a block's head is cut off or damaged", why);
    if (count < 0 || size < 0 || size > PACKED_MAX - SYNC_SIZE ||
        (reader->codec == AVROFILE_NULL && size > AVROFILE_BLOCK_MAX))
        return corrupt(reader, "a block's count or size is out of range", why);
    reader->at = (size_t)(cursor.p - reader->in.p);
    err = fill(reader, (size_t)size + SYNC_SIZE, why);
    if (err != ERR_OK)
        return err;
    if (left(reader) < (size_t)size + SYNC_SIZE)
        return corrupt(reader, "the last block is cut off", why);

    const uint8_t *body = reader->in.p + reader->at;
    if (memcmp(body + size, reader->sync, SYNC_SIZE) != 0)
        return corrupt(reader, "a block does not end in the file's sync marker",
                       why);
    reader->at += (size_t)size + SYNC_SIZE;
    *records = (uint64_t)count;
    return unpack(reader, body, (size_t)size, bytes, why);
}

void
avrofile_close(struct avrofile_reader **reader_p)
{
    struct avrofile_reader *reader = *reader_p;

    if (reader == NULL)
        return;
    if (reader->fd >= 0)
        (void)close(reader->fd);
    (void)ZSTD_freeDCtx(reader->zstd);
    buf_free(&reader->in);
    buf_free(&reader->header);
    buf_free(&reader->out);
    free(reader);
    *reader_p = NULL;
}

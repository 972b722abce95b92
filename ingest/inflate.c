#include "ingest/inflate.h"

#include <assert.h>
#include <stdlib.h>
#include <strings.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

enum {
    STEP_BYTES = 64 * 1024, /* of output asked for at a time */
    GZIP_WINDOW_BITS = 15 + 16,
};

struct inflate {
    z_stream gzip;
    bool gzip_open;
    ZSTD_DCtx *zstd;
};

enum err
inflate_open(struct inflate **out, struct why *why)
{
    struct inflate *inflate = calloc(1, sizeof(*inflate));

    *out = NULL;
    if (inflate == NULL)
        return err_set(why, ERR_NOMEM, "inflate: no memory");
    inflate->zstd = ZSTD_createDCtx();
    inflate->gzip_open = inflateInit2(&inflate->gzip, GZIP_WINDOW_BITS) == Z_OK;
    if (inflate->zstd == NULL || !inflate->gzip_open ||
        ZSTD_isError(ZSTD_DCtx_setParameter(inflate->zstd, ZSTD_d_windowLogMax,
                                            INFLATE_WINDOW_LOG_MAX))) {
        inflate_close(&inflate);
        return err_set(why, ERR_NOMEM, "inflate: no memory");
    }
    *out = inflate;
    return ERR_OK;
}

void
inflate_close(struct inflate **inflate)
{
    if (*inflate == NULL)
        return;
    if ((*inflate)->gzip_open)
        (void)inflateEnd(&(*inflate)->gzip);
    (void)ZSTD_freeDCtx((*inflate)->zstd);
    free(*inflate);
    *inflate = NULL;
}

static bool
is(struct str value, const char *name)
{
    return value.n == strlen(name) && strncasecmp(value.p, name, value.n) == 0;
}

enum inflate_coding
inflate_coding_of(struct str value)
{
    if (value.n == 0 || is(value, "identity"))
        return INFLATE_IDENTITY;
    if (is(value, "gzip") || is(value, "x-gzip"))
        return INFLATE_GZIP;
    return is(value, "zstd") ? INFLATE_ZSTD : INFLATE_UNKNOWN;
}

/* Room for the next step: as much as is left below the maximum. *n is 0 at the maximum:
 * then one byte on the stack tells an exact fit from too much. */
static uint8_t *
step_room(struct buf *out, size_t *n)
{
    *n = out->max - out->n < STEP_BYTES ? out->max - out->n : STEP_BYTES;
    return *n == 0 ? NULL : buf_room(out, *n);
}

/* One member. Its end is Z_STREAM_END. */
static enum inflate_result
gzip_member(z_stream *z, struct buf *out)
{
    for (;;) {
        uint8_t spill;
        size_t n;
        uint8_t *p = step_room(out, &n);
        int rc;

        if (n > 0 && p == NULL)
            return INFLATE_NOMEM;
        z->next_out = n > 0 ? p : &spill;
        z->avail_out = n > 0 ? (uInt)n : 1;
        rc = inflate(z, Z_NO_FLUSH);
        if (n == 0 && z->avail_out == 0)
            return INFLATE_TOO_LARGE;
        if (n > 0)
            out->n += n - z->avail_out;
        if (rc == Z_STREAM_END)
            return INFLATE_OK;
        if (rc == Z_MEM_ERROR)
            return INFLATE_NOMEM;
        if (rc != Z_OK || (z->avail_in == 0 && z->avail_out > 0))
            return INFLATE_BAD;
    }
}

static enum inflate_result
gzip_all(z_stream *z, struct str in, struct buf *out)
{
    union {
        const char *in;
        Bytef *z;
    } bytes = {.in = in.p}; /* zlib reads only, but its field is not const */
    enum inflate_result result = INFLATE_BAD;

    z->next_in = bytes.z;
    z->avail_in = in.n;
    while (z->avail_in > 0) {
        if (inflateReset(z) != Z_OK)
            return INFLATE_NOMEM;
        result = gzip_member(z, out);
        if (result != INFLATE_OK)
            return result;
    }
    return result;
}

static enum inflate_result
zstd_error(size_t rc)
{
    switch ((int)ZSTD_getErrorCode(rc)) {
    case ZSTD_error_frameParameter_windowTooLarge:
        return INFLATE_WINDOW;
    case ZSTD_error_memory_allocation:
        return INFLATE_NOMEM;
    default:
        return INFLATE_BAD;
    }
}

static enum inflate_result
zstd_all(ZSTD_DCtx *zstd, struct str in, struct buf *out)
{
    ZSTD_inBuffer from = {.src = in.p, .size = in.n};
    size_t rc = 1;

    (void)ZSTD_DCtx_reset(zstd, ZSTD_reset_session_only);
    for (;;) {
        uint8_t spill;
        size_t n;
        uint8_t *p = step_room(out, &n);
        ZSTD_outBuffer to = {.dst = n > 0 ? p : &spill, .size = n > 0 ? n : 1};

        if (n > 0 && p == NULL)
            return INFLATE_NOMEM;
        rc = ZSTD_decompressStream(zstd, &to, &from);
        if (ZSTD_isError(rc))
            return zstd_error(rc);
        if (n == 0 && to.pos > 0)
            return INFLATE_TOO_LARGE;
        if (n > 0)
            out->n += to.pos;
        if (from.pos == from.size && to.pos < to.size)
            return rc == 0 ? INFLATE_OK
                           : INFLATE_BAD; /* else a frame is cut short */
        if (rc == 0 && from.pos == from.size)
            return INFLATE_OK;
    }
}

enum inflate_result
inflate_body(struct inflate *inflate, enum inflate_coding coding, struct str in,
             struct buf *out)
{
    assert(coding == INFLATE_GZIP || coding == INFLATE_ZSTD);
    if (in.n == 0)
        return INFLATE_BAD;
    return coding == INFLATE_GZIP ? gzip_all(&inflate->gzip, in, out)
                                  : zstd_all(inflate->zstd, in, out);
}

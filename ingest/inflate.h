/* ingest/inflate.h - a compressed body, whole, into a buffer with a maximum.
 *
 *   gzip   one or more members (RFC 1952)
 *   zstd   one or more frames (RFC 8878), window at most 8 MiB
 *
 * Memory   The contexts of both live as long as the struct: 32 KiB for gzip; for zstd its
 *          window, 8 MiB at most. Output goes no further than out->max.
 * Errors   Data, not enum err: what the sender did wrong.
 * Threads  One struct inflate belongs to one thread.
 */
#ifndef INGEST_INFLATE_H
#define INGEST_INFLATE_H

#include "common/buf.h"
#include "common/err.h"
#include "common/str.h"

enum { INFLATE_WINDOW_LOG_MAX = 23 };

enum inflate_coding {
    INFLATE_IDENTITY,
    INFLATE_GZIP,
    INFLATE_ZSTD,
    INFLATE_UNKNOWN
};

enum inflate_result {
    INFLATE_OK,
    INFLATE_BAD, /* not such data, damaged, cut short, or bytes after its end */
    INFLATE_TOO_LARGE, /* would pass out->max */
    INFLATE_WINDOW,    /* zstd: a larger window than allowed */
    INFLATE_NOMEM,
};

struct inflate;

enum err inflate_open(struct inflate **out, struct why *why);
void inflate_close(struct inflate **inflate);
/* The value of Content-Encoding; absent is identity. */
enum inflate_coding inflate_coding_of(struct str value);
/* Appends the plain bytes to out; coding is GZIP or ZSTD. */
enum inflate_result inflate_body(struct inflate *inflate,
                                 enum inflate_coding coding, struct str in,
                                 struct buf *out);

#endif

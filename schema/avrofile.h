/* schema/avrofile.h - Avro object container files: writer and reader of raw records.
 *
 * The records are bytes that the caller encoded; blocks of about 64 KiB, codec null,
 * snappy (with its CRC-32) or zstandard. The writer makes PATH.tmp; finishing syncs,
 * renames and syncs the folder.
 *
 * Units    Bytes. A block holds at most AVROFILE_BLOCK_MAX unpacked, a record
 *          AVROFILE_RECORD_MAX, a header AVROFILE_HEADER_MAX.
 * Memory   One block each, twice (raw and packed).
 * Errors   ERR_FULL disk full, ERR_CORRUPT (magic, codec, sync marker, CRC, lengths),
 *          ERR_NOTFOUND no such file, ERR_INVALID a record or path too long, ERR_FATAL.
 * Threads  None.
 * Source   Apache Avro 1.11 specification, "Object Container Files".
 */
#ifndef SCHEMA_AVROFILE_H
#define SCHEMA_AVROFILE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/str.h"

enum {
    AVROFILE_BLOCK_SIZE = 65536, /* at which the writer closes a block */
    AVROFILE_BLOCK_MAX = 16777216,
    AVROFILE_RECORD_MAX = 1048576,
    AVROFILE_HEADER_MAX = 2097152,
    AVRO_LONG_SIZE_MAX = 10,
};

enum avrofile_codec { AVROFILE_NULL, AVROFILE_SNAPPY, AVROFILE_ZSTD };

struct avrofile_writer;
struct avrofile_reader;

struct avrofile_meta {
    const char *name;
    struct str value;
};

enum err avrofile_create(struct avrofile_writer **out, const char *path,
                         const char *schema_json, enum avrofile_codec codec,
                         const struct avrofile_meta *meta, int meta_n,
                         struct why *why);
enum err avrofile_add(struct avrofile_writer *writer, const void *record, size_t n,
                      struct why *why);
/* Bytes so far, the block in hand included unpacked. */
uint64_t avrofile_bytes(const struct avrofile_writer *writer);
/* Syncs, then renames to path (NULL: the path given at creation). Frees the writer, also
 * on failure (then the temporary file is removed). sha256 may be NULL. */
enum err avrofile_finish(struct avrofile_writer **writer, const char *path,
                         uint8_t sha256[32], struct why *why);
/* Writes the rest to PATH.tmp and closes it: syncing and renaming are left to the caller. */
enum err avrofile_finish_unsynced(struct avrofile_writer **writer, struct why *why);
void avrofile_abort(struct avrofile_writer **writer);

enum err avrofile_open(struct avrofile_reader **out, const char *path,
                       struct why *why);
struct str avrofile_schema(const struct avrofile_reader *reader);
struct str avrofile_meta_get(const struct avrofile_reader *reader,
                             const char *name);
/* The next block, unpacked: its bytes (borrowed until the next call) and the number of
 * records in it. ERR_AGAIN at the end. */
enum err avrofile_block(struct avrofile_reader *reader, struct str *bytes,
                        uint64_t *records, struct why *why);
void avrofile_close(struct avrofile_reader **reader);

/* Avro's zigzag varint; returns bytes written (at most 10), or bytes read (0: broken). */
unsigned avro_long_put(uint8_t *out, int64_t value);
unsigned avro_long_get(const uint8_t *p, const uint8_t *end, int64_t *value);

#endif

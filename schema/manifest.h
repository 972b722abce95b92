/* schema/manifest.h - the archive's layout and its list of files.
 *
 *   DIR/date=YYYY-MM-DD/hour=HH/part-7-<base>-<last>.avro       clicks (click.avsc)
 *   DIR/date=YYYY-MM-DD/hour=HH/part-7-<base>-<last>.live.avro  recorded live verdicts
 *   DIR/date=YYYY-MM-DD/hour=HH/part-7-<base>-<last>.final.avro the judge's verdicts
 *   DIR/manifest/p07.log    one line a file, appended and synced after the file's rename:
 *       file path base last first_received_us last_received_us clicks bytes sha256 incs crc
 *     or, when a partition was quiet: `through received_us crc` (nothing more before it)
 *     incs: INCARNATION:LASTSEQ,... (hex:decimal) - L per incarnation after this file; `-`
 *     if there is none
 *     crc: XXH3 of the line up to the blank before it, 16 hex digits
 *
 * An unlisted file does not exist; a line that does not follow the one before (base =
 * last + 1, the first 0; nothing received before an earlier `through`) cannot be listed.
 * A last line without its end, or with zeros in it, was torn by a power cut: readers
 * ignore it, the writer cuts it. Any other line that does not match its crc is damage.
 * The lists of all partitions are made (empty) when an archive starts, so that
 * through_us, the least of them, never speaks for a partition that is not there yet.
 *
 * Units    Offsets; microseconds of receipt. A list has at most MANIFEST_BYTES_MAX bytes.
 * Memory   A manifest read is one array, freed by manifest_free.
 * Errors   ERR_CORRUPT names the file and line; ERR_CONFLICT another writer has the list,
 *          or a line that does not follow; ERR_FULL the disk.
 * Threads  One writer a partition (held by flock); readers any, any process.
 */
#ifndef SCHEMA_MANIFEST_H
#define SCHEMA_MANIFEST_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

enum {
    MANIFEST_PARTITIONS_MAX = 256,
    MANIFEST_PATH_MAX = 128,
    MANIFEST_INCS_MAX = 4096,
    MANIFEST_BYTES_MAX = 1 << 30
};

/* One listed file. path is relative to DIR. */
struct manifest_file {
    char path[MANIFEST_PATH_MAX];
    uint32_t partition;
    uint64_t base, last;
    int64_t first_received_us, last_received_us;
    uint64_t clicks, bytes;
    uint8_t sha256[32];
};

struct manifest {
    struct manifest_file
        *files; /* of all partitions, by (first_received_us, partition) */
    uint32_t files_n;
    uint32_t partitions;
    int64_t through_us; /* every click received before it is listed */
    uint64_t next[MANIFEST_PARTITIONS_MAX];
};

/* Reads the manifests of dir; files with last_received_us >= since_us only. */
enum err manifest_read(struct manifest *out, const char *dir, int64_t since_us,
                       struct why *why);
void manifest_free(struct manifest *manifest);
/* Asks the running archive to roll now, and waits until the manifests say through_us >=
 * until_us. ERR_AGAIN after timeout_us. */
enum err manifest_roll_wait(const char *dir, int64_t until_us, int64_t timeout_us,
                            struct why *why);

/* The live verdicts beside a file: verdicts[i] of offset base + i, 0 where there is none.
 * ERR_NOTFOUND: not written yet. */
enum err manifest_live_read(const char *dir, const struct manifest_file *file,
                            uint64_t *verdicts, struct why *why);

struct manifest_writer;

/* Opens (and mends the torn end of) one partition's list. *next is the offset that the
 * next file must begin with; incs gets the last line's L per incarnation (text). */
enum err manifest_writer_open(struct manifest_writer **out, const char *dir,
                              uint32_t partition, uint64_t *next,
                              char incs[MANIFEST_INCS_MAX], struct why *why);
void manifest_writer_close(struct manifest_writer **writer);
/* Every click of the partition received before it is listed; 0: none is. */
int64_t manifest_writer_through(const struct manifest_writer *writer);
/* The last file listed; NULL: none is. */
const struct manifest_file *
manifest_writer_last(const struct manifest_writer *writer);
/* ERR_CONFLICT if file->base is not the expected next. Durable on return. */
enum err manifest_add(struct manifest_writer *writer,
                      const struct manifest_file *file, const char *incs,
                      struct why *why);
enum err manifest_through(struct manifest_writer *writer, int64_t received_us,
                          struct why *why);

/* The path of a file's companion: kind is "live" or "final". */
void manifest_beside(const struct manifest_file *file, const char *kind,
                     char path[MANIFEST_PATH_MAX + 8]);
/* Avro schema of a .live.avro: one record {verdict: long} a click, verdict_pack's bits. */
extern const char manifest_live_schema[];

#endif

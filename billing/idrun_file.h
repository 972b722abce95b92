/* billing/idrun_file.h - the inside of an id run, shared by its reader, writer and merge.
 *
 * Memory   A cursor holds one chunk of hashes, and of details if asked.
 * Errors   ERR_CORRUPT names the file.
 * Threads  None.
 */
#ifndef BILLING_IDRUN_FILE_H
#define BILLING_IDRUN_FILE_H

#include "billing/idrun.h"
#include "common/file.h"

#define IDRUN_MAGIC "CLKIDRUN"
enum { IDRUN_VERSION = 1, IDRUN_FILES_MAX = 1 << 24, IDRUN_TABLES_MAX = 1 << 30 };

/* As stored, little-endian; sum is the XXH3 of what stands before it. */
struct idrun_header {
    char magic[8];
    uint32_t version, chunk;
    uint64_t count;
    int64_t from_us, to_us;
    uint64_t hashes_at, details_at, tables_at, tables_n;
    uint64_t hashes_sum, details_sum, tables_sum;
    uint32_t files_n, zones_n, accounts_n, text_n;
    uint64_t reserved;
    uint64_t sum;
};

_Static_assert(sizeof(struct idrun_header) == 128, "the header is 128 bytes");
_Static_assert(sizeof(struct idrun_detail) == 40, "a detail is 40 bytes");
_Static_assert(sizeof(struct idrun_file) == 32, "a file's row is 32 bytes");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "id runs are little-endian");

/* tables: files, zone_at (u32 each), accounts (u32 each), text. */
struct idrun {
    int fd;
    struct idrun_header header;
    void *tables;
    const struct idrun_file *files;
    const uint32_t *zone_at;
    const uint32_t *accounts;
    const char *text;
    char path[FILE_PATH_MAX];
};

/* A walk over a run from end to end. */
struct idrun_cursor {
    struct idrun *run;
    uint64_t *hashes;             /* of this chunk */
    struct idrun_detail *details; /* of this chunk; NULL unless asked */
    uint64_t base;                /* index of hashes[0] */
    uint32_t n;                   /* in this chunk */
    uint32_t at;                  /* for the caller */
    uint64_t hashes_sum, details_sum;
};

enum err idrun_cursor_open(struct idrun_cursor *cursor, struct idrun *run,
                           bool details, struct why *why);
void idrun_cursor_close(struct idrun_cursor *cursor);
/* The next chunk; ERR_AGAIN at the end, when the checksums have been compared. */
enum err idrun_cursor_chunk(struct idrun_cursor *cursor, struct why *why);

/* Many cursors as one, by (hash, place of the run). */
struct idrun_merge {
    struct idrun_cursor *cursors;
    uint32_t n;
    uint64_t last_hash;
    struct idrun_head *heap; /* of the runs that have more, least first */
    uint32_t heap_n;
    bool given; /* the head of heap[0] was handed out */
};

struct idrun_head {
    uint64_t hash;
    uint32_t run;
};
enum err idrun_merge_open(struct idrun_merge *merge, struct idrun *const *runs,
                          uint32_t n, struct why *why);
void idrun_merge_close(struct idrun_merge *merge);
/* The next entry, borrowed until the next call; ERR_AGAIN at the end. */
enum err idrun_merge_next(struct idrun_merge *merge, uint32_t *run, uint64_t *hash,
                          const struct idrun_detail **detail, struct why *why);

#endif

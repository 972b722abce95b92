/* ingest/dlq_files.h - the dead-letter log's segment files: which there are, oldest first.
 *
 * Memory   dlq_files_list allocates; dlq_files_free frees.
 * Threads  The caller's; another process may remove files meanwhile.
 */
#ifndef INGEST_DLQ_FILES_H
#define INGEST_DLQ_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define DLQ_SUFFIX ".ndjson"

struct dlq_files {
    char **names; /* sorted: oldest first */
    size_t n;
};

enum err dlq_files_list(const char *dir, struct dlq_files *out, struct why *why);
void dlq_files_free(struct dlq_files *files);
/* Removes oldest files until all that is left has at most bytes; with keep_newest the
 * newest file stays in any case. */
void dlq_files_trim(const char *dir, uint64_t bytes, bool keep_newest);

#endif

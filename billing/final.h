/* billing/final.h - the verdict file beside an archive file: row i is the click of offset
 * base + i. Avro: seq long, verdict enum, reason enum, reasons int, score int, price long
 * (micros, after the budget), ruleset int, master int, flags int (1: conflict).
 *
 * Errors   ERR_NOTFOUND: not judged yet.
 * Threads  None.
 */
#ifndef BILLING_FINAL_H
#define BILLING_FINAL_H

#include <stdint.h>

#include "billing/publish.h"
#include "common/err.h"
#include "fraud/verdict.h"
#include "schema/manifest.h"

enum { FINAL_CONFLICT = 1 };

struct final_row {
    uint64_t seq;
    struct verdict verdict;
    int64_t price_micros;
    uint8_t flags;
};

extern const char final_schema[];

struct final_writer;
enum err final_create(struct final_writer **out, const char *archive_dir,
                      const struct manifest_file *file, struct why *why);
enum err final_add(struct final_writer *writer, const struct final_row *row,
                   struct why *why);
/* publish NULL: durable on return. */
enum err final_finish(struct final_writer **writer, struct publish *publish,
                      struct why *why);
void final_abort(struct final_writer **writer);
/* Fills rows[0 .. clicks - 1]. */
enum err final_read(const char *archive_dir, const struct manifest_file *file,
                    struct final_row *rows, struct why *why);

#endif

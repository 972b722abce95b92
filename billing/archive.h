/* billing/archive.h - the log as Avro files by hour of receipt, with a manifest.
 *
 * Format and manifest: schema/manifest.h. A file holds clicks of one hour of receipt; it is
 * rolled by age, by size, at the hour's end, and when DIR/roll-requested is touched. The
 * live verdicts of a listed file are written beside it once all are recorded. The archive
 * starts from its manifest; what is unlisted is removed.
 *
 * Units    Offsets; microseconds of receipt.
 * Errors   ERR_FULL: waits and tries again, the log keeps the clicks.
 * Threads  archive_start makes one.
 */
#ifndef BILLING_ARCHIVE_H
#define BILLING_ARCHIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/clicklog.h"
#include "common/config.h"
#include "common/err.h"
#include "common/verdictlog.h"

struct archive;

enum err archive_start(struct archive **out, const struct config *config,
                       const char *dir, struct clicklog *log,
                       struct verdictlog *verdicts, struct why *why);
/* Rolls what it has, then stops. */
void archive_stop(struct archive **archive);
/* The offset below which clicks (and their live verdicts) are archived. */
uint64_t archive_listed(const struct archive *archive, uint32_t partition);
uint64_t archive_live_listed(const struct archive *archive, uint32_t partition);

#endif

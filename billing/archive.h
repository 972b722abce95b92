/* billing/archive.h - the log as Avro files by hour of receipt, with a manifest.
 *
 * Format and manifest: schema/manifest.h. A file holds clicks of one hour of receipt; it is
 * rolled by age, by size, at the hour's end, and when DIR/roll-requested is touched. The
 * live verdicts of a listed file are written beside it once all are recorded. The archive
 * starts from its manifest; what is unlisted is removed.
 *
 * Cuts (a full hour, a roll) are where the spool's marks are, so that the same clicks make
 * the same rows whichever way they came; a cut waits until all partitions have got there.
 * Over Kafka only partitions that clicklog_owned gives are touched; a list that another
 * archive holds still is waited for. A gap stops its partition alone, until what is missing
 * was sent again.
 *
 * Units    Ordinals (schema/manifest.h); microseconds of receipt.
 * Errors   ERR_FULL: waits and tries again, the log keeps the clicks.
 * Threads  archive_start makes one, and with Kafka or control another (archive_side.h).
 */
#ifndef BILLING_ARCHIVE_H
#define BILLING_ARCHIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/clicklog.h"
#include "common/config.h"
#include "common/control.h"
#include "common/err.h"
#include "common/verdictlog.h"

struct archive;

/* control may be NULL; else it is told what is listed. */
enum err archive_start(struct archive **out, const struct config *config,
                       const char *dir, struct clicklog *log,
                       struct verdictlog *verdicts, struct control *control,
                       struct why *why);
/* Rolls what it has, then stops. */
void archive_stop(struct archive **archive);
/* The ordinal below which clicks are archived, and the offset of the log (over LMDB the
 * same) below which their live verdicts are, or will never be; 0 while that is unknown. */
uint64_t archive_listed(const struct archive *archive, uint32_t partition);
uint64_t archive_live_listed(const struct archive *archive, uint32_t partition);

#endif

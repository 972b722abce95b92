/* billing/archive_clean.h - what an archive does with the folder of partitions that it takes
 * over: removes what is unlisted, queues what lacks live verdicts.
 *
 * Errors   As schema/manifest.h; what cannot be removed is left.
 * Threads  The archive's, which holds the partitions' lists.
 */
#ifndef BILLING_ARCHIVE_CLEAN_H
#define BILLING_ARCHIVE_CLEAN_H

#include "billing/archive_part.h"

/* For parts[p] with `fresh` whose list is held (not `down`); fresh is taken back; the others' files are left alone. */
enum err archive_clean(const char *dir, struct part *parts, uint32_t parts_n,
                       struct why *why);

#endif

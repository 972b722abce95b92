/* billing/click_file.h - the clicks of one listed archive file, in their order.
 *
 * Memory   One Avro block; a click borrows from it until the next call.
 * Errors   ERR_CORRUPT: damaged, or more or fewer clicks than its list says.
 * Threads  None.
 */
#ifndef BILLING_CLICK_FILE_H
#define BILLING_CLICK_FILE_H

#include "common/err.h"
#include "schema/click.h"
#include "schema/manifest.h"

struct click_file;

/* file must stay until the close. */
enum err click_file_open(struct click_file **out, const char *archive_dir,
                         const struct manifest_file *file, struct why *why);
/* ERR_AGAIN: that was the last. */
enum err click_file_next(struct click_file *in, struct click *click,
                         struct why *why);
void click_file_close(struct click_file **in);

#endif

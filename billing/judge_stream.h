/* billing/judge_stream.h - archive files of all partitions as one stream of clicks in order
 * of receipt: (received_us, incarnation, partition, seq).
 *
 * Within a partition the order of offsets is the order of receipt, so this is a merge of
 * one lane a partition, each walking its files.
 *
 * Memory   One reader a partition. A click is borrowed until the next call.
 * Errors   ERR_CORRUPT names the file: a record, the order or the number of clicks is wrong.
 * Threads  None.
 */
#ifndef BILLING_JUDGE_STREAM_H
#define BILLING_JUDGE_STREAM_H

#include <stdint.h>

#include "common/err.h"
#include "schema/click.h"
#include "schema/manifest.h"

struct stream;

struct stream_click {
    const struct click *click;
    uint32_t file; /* place in the files given */
    uint32_t row;
    uint32_t payload; /* low half of the XXH3 of the event as sent */
};

/* files must stay until the stream is closed; of a partition they are in order of base. */
enum err stream_open(struct stream **out, const char *archive_dir,
                     const struct manifest_file *files, uint32_t files_n,
                     struct why *why);
void stream_close(struct stream **stream);
/* ERR_AGAIN at the end. */
enum err stream_next(struct stream *stream, struct stream_click *out,
                     struct why *why);

#endif

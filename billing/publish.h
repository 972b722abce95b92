/* billing/publish.h - many new files made durable at once.
 *
 * A file that is synced by itself costs a commit of the file system's journal; a batch of
 * the judge leaves some thousand. Here each is written as PATH.tmp and closed unsynced;
 * then one syncfs makes all their bytes durable, each is renamed to PATH, and each folder
 * is synced. (Up to PUBLISH_EACH_MAX files are synced one by one: a syncfs also writes what
 * others have left unwritten.) What file_publish promises holds: no file has its name before its bytes are
 * on disk, and when publish_all returns, all have both.
 *
 * Memory   The paths, in one buffer of at most PUBLISH_BYTES_MAX.
 * Errors   ERR_FULL disk full, or too many files; ERR_FATAL; what has no name yet has none.
 *          A syncfs reports failed writes since Linux 5.8.
 * Threads  None.
 */
#ifndef BILLING_PUBLISH_H
#define BILLING_PUBLISH_H

#include "common/buf.h"
#include "common/err.h"
#include "schema/avrofile.h"

enum { PUBLISH_BYTES_MAX = 256 << 20, PUBLISH_EACH_MAX = 32 };

struct publish {
    struct buf paths; /* NUL-terminated, one behind the other */
    uint32_t files;
};

void publish_init(struct publish *publish);
/* PATH.tmp is complete. */
enum err publish_add(struct publish *publish, const char *path, struct why *why);
/* Finishes the file and adds it; without publish it is durable on return. */
enum err publish_avro(struct publish *publish, struct avrofile_writer **writer,
                      const char *path, struct why *why);
enum err publish_all(struct publish *publish, struct why *why);
/* Removes the temporary files of what has not been published. */
void publish_free(struct publish *publish);

#endif

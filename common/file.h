/* common/file.h - files that survive a power cut: write under a temporary name,
 * fsync, rename, fsync the folder.
 *
 * Errors   ERR_FULL for ENOSPC and EDQUOT, ERR_NOTFOUND for ENOENT, ERR_FATAL for the
 *          rest, with the path and strerror in why.
 * Threads  Any.
 */
#ifndef COMMON_FILE_H
#define COMMON_FILE_H

#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

enum { FILE_PATH_MAX = 1024 };

/* mkdir -p, mode 0750; each folder made is synced into its parent. */
enum err file_mkdirs(const char *path, struct why *why);
/* Appends the file's bytes to out. */
enum err file_read(const char *path, struct buf *out, struct why *why);
/* Replaces path whole, durably. */
enum err file_write(const char *path, const void *data, size_t size,
                    struct why *why);
/* write() until all is written. */
enum err file_write_all(int fd, const void *data, size_t size, const char *path,
                        struct why *why);
/* fsync(fd of tmp) has been called by the writer; renames and syncs the folder. */
enum err file_publish(const char *tmp, const char *path, struct why *why);
enum err file_sync_folder_of(const char *path, struct why *why);

#endif

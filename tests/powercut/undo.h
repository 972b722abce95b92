/* tests/powercut/undo.h - what a power cut would take away: pages written and not synced,
 * sizes, and changes of folders whose folder was not synced.
 *
 * A page's bytes are kept as they were before the first write since its last sync; so
 * memory is bounded by what is dirty. Removed and replaced files stay alive under a second
 * name in the graveyard, a folder beside the tracked one.
 *
 * Errors   Anything that would make the simulation untrue aborts with a line on stderr.
 * Threads  All under one lock, held by the caller (powercut.c).
 */
#ifndef TESTS_POWERCUT_UNDO_H
#define TESTS_POWERCUT_UNDO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { UNDO_PATH_MAX = 4096, UNDO_PAGE = 4096 };

/* The tracked folder, resolved; false: nothing is tracked. */
bool undo_start(const char *dir);
/* Forgets everything without reverting it: after fork, in the child. */
void undo_forget(void);
bool undo_tracks(const char *path);
/* The path of a descriptor; false if it is not a tracked file or folder. */
bool undo_path_of_fd(int fd, char path[UNDO_PATH_MAX]);
/* dirfd and path as an absolute name whose folder is resolved; false: not tracked. */
bool undo_path_of(int dirfd, const char *path, char out[UNDO_PATH_MAX]);

/* Before a write of n bytes at `at`, or a cut to `at` (n is then what is cut off). */
void undo_before_write(int fd, off_t at, uint64_t n);
/* After a write on a descriptor that syncs by itself (O_SYNC, O_DSYNC). */
void undo_after_synced_write(int fd, off_t at, uint64_t n);
/* fsync and fdatasync, of a file or a folder. */
void undo_synced(int fd);
void undo_all_synced(void);

/* Before the change, which is about to happen; cancel if it then failed. */
void undo_creates(const char *path);
void undo_makes_folder(const char *path);
void undo_unlinks(const char *path);
void undo_removes_folder(const char *path);
void undo_renames(const char *from, const char *to);
void undo_cancel(void);

struct undo_result {
    uint64_t files, pages, pages_lost, changes, changes_lost;
};

/* The cut. seed 0: everything unsynced is lost; else each page by a coin, and the newest
 * changes of folders from a random one on. */
void undo_revert(uint64_t seed, struct undo_result *out);

#endif

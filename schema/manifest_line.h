/* schema/manifest_line.h - one line of a partition's list, and the rules by which a line
 * follows the one before. For manifest.c and manifest_write.c only.
 *
 * Memory   A line borrows from the text it was parsed from.
 * Errors   false: not a line; a sentence: why it cannot follow.
 * Threads  Values.
 */
#ifndef SCHEMA_MANIFEST_LINE_H
#define SCHEMA_MANIFEST_LINE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/str.h"
#include "schema/manifest.h"

/* What a list says so far. */
struct manifest_state {
    uint64_t next;
    int64_t
        through_us; /* every click of the partition received before it is listed */
};

struct manifest_line {
    bool is_file; /* else: through */
    struct manifest_file file;
    struct str incs;
    int64_t through_us;
};

enum manifest_step { MANIFEST_LINE, MANIFEST_END, MANIFEST_TORN, MANIFEST_DAMAGED };

/* The line at text[*at], and *at moved behind it. */
enum manifest_step manifest_line_next(struct str text, uint32_t *at,
                                      struct manifest_line *line);
void manifest_line_add_file(struct buf *out, const struct manifest_file *file,
                            struct str incs);
void manifest_line_add_through(struct buf *out, int64_t through_us);
/* NULL, or why the line cannot follow; state moves on only with NULL. */
const char *manifest_line_follow(struct manifest_state *state,
                                 const struct manifest_line *line);
/* DIR/manifest/p07.log */
enum err manifest_list_path(const char *dir, uint32_t partition, char *path,
                            size_t size, struct why *why);

#endif

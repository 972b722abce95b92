/* billing/archive_seqs.h - which click of an incarnation comes next, in one partition.
 *
 * L is the last seq taken of an incarnation: L + 1 is next, what is at or below L is a
 * repeat, the rest is a gap, and so is an unknown incarnation that does not begin with 0.
 * Older incarnations than these cannot come back but as repeats, long after; as long as there
 * is room, none was forgotten.
 *
 * Text     "1f00:41,2a01:7": incarnation in hex, L in decimal, oldest first.
 * Threads  A value.
 */
#ifndef BILLING_ARCHIVE_SEQS_H
#define BILLING_ARCHIVE_SEQS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/clicklog.h"
#include "schema/manifest.h"

enum { ARCHIVE_SEQS_MAX = 16 };

struct archive_last {
    uint64_t incarnation, seq;
};

struct archive_seqs {
    struct archive_last lasts[ARCHIVE_SEQS_MAX];
    uint32_t n;
};

enum archive_seq { ARCHIVE_SEQ_NEXT, ARCHIVE_SEQ_REPEAT, ARCHIVE_SEQ_GAP };

/* False if it is no such text. */
bool archive_seqs_parse(struct archive_seqs *seqs, const char *text);
void archive_seqs_format(const struct archive_seqs *seqs,
                         char text[MANIFEST_INCS_MAX]);
/* How many clicks of the incarnation are taken; 0 of one that is not known. */
uint64_t archive_seqs_count(const struct archive_seqs *seqs, uint64_t incarnation);
/* Where it has come to: {0, 0} at the beginning. */
struct clicklog_last archive_seqs_newest(const struct archive_seqs *seqs);
/* *expected gets the incarnation's next seq. */
enum archive_seq archive_seqs_look(const struct archive_seqs *seqs,
                                   uint64_t incarnation, uint64_t seq,
                                   uint64_t *expected);
/* Takes what archive_seqs_look called next; the oldest incarnation is forgotten for a
 * new one. */
void archive_seqs_take(struct archive_seqs *seqs, uint64_t incarnation,
                       uint64_t seq);

#endif

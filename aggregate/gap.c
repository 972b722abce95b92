#include "aggregate/gap.h"

#include <inttypes.h>

#include "aggregate/part.h"
#include "common/clock.h"

enum {
    RETRY_US = 200000,
    FIND_US = 3000000,
    FIND_REST = 10, /* a search rests so many times as long as it took */
};

void
gap_skip_add(struct gap *gap, struct gap_skip skip)
{
    struct gap_skip *place = &gap->skips[0];

    for (int i = 0; i < GAP_SKIPS_MAX; i++) {
        if (gap->skips[i].until > 0 &&
            gap->skips[i].incarnation == skip.incarnation) {
            place = &gap->skips[i];
            break;
        }
        if (gap->skips[i].until < place->until)
            place = &gap->skips[i];
    }
    *place = skip;
}

bool
gap_skips(const struct gap *gap, uint64_t offset, uint64_t incarnation,
          uint64_t seq)
{
    for (int i = 0; i < GAP_SKIPS_MAX; i++)
        if (offset < gap->skips[i].until &&
            gap->skips[i].incarnation == incarnation)
            return seq > gap->skips[i].expected;
    return false;
}

/* --- of a partition --- */

void
part_stall(struct part *part, const char *what, const struct why *why)
{
    if (!part->stalled) {
        part->stalled = true;
        metric_add(part->shared->metrics.gaps, 1);
        metric_add(part->shared->metrics.stalled, 1);
    }
    part_trouble(part, TROUBLE_READ, what, why);
}

void
part_moves(struct part *part)
{
    part->gap.tries = 0;
    if (!part->stalled)
        return;
    part->stalled = false;
    metric_add(part->shared->metrics.stalled, -1);
}

/* Looks whether what is missing comes later. It reads the log to its end, so not often. */
static bool
find(struct part *part, const struct click *click, int64_t now_us)
{
    struct gap_skip skip = {.incarnation = click->incarnation};
    int64_t began_us;

    if (now_us < part->gap.find_us)
        return false;
    skip.expected = seqs_expected(&part->seqs, click->incarnation);
    began_us = clock_mono_us();
    enum err err =
        clicklog_find(part->shared->deps.log, part->partition, part->read_next,
                      skip.incarnation, skip.expected, &skip.until, NULL);
    part->gap.find_us =
        now_us + FIND_US + (clock_mono_us() - began_us) * (FIND_REST + 1);
    if (err != ERR_OK || skip.until <= part->read_next)
        return false;
    gap_skip_add(&part->gap, skip);
    part->gap.find_us = 0;
    events_add(part->shared->events, LOG_WARN, part->partition, "gap-mended",
               "seq %" PRIu64 " of incarnation %" PRIx64
               ", missing at offset %" PRIu64 ", was sent again at offset %" PRIu64
               ": what is between comes again and is dropped",
               skip.expected, skip.incarnation, part->read_next, skip.until);
    return true;
}

void
part_gap(struct part *part, const struct tools *tools, const struct click *click)
{
    struct why why;

    part->retry_us = tools->now_us + RETRY_US;
    if (++part->gap.tries < PART_GAP_TRIES)
        return;
    if (find(part, click, tools->now_us)) {
        part->retry_us = 0;
        return;
    }
    (void)err_set(&why, ERR_CORRUPT,
                  "after offset %" PRIu64 " comes seq %" PRIu64
                  " of incarnation %" PRIx64
                  ": clicks are missing before it, from seq %" PRIu64
                  " on; counting of this partition stands still",
                  part->read_next, click->seq, click->incarnation,
                  seqs_expected(&part->seqs, click->incarnation));
    part_stall(part, "gap", &why);
    part->retry_us = tools->now_us + CLOCK_SECOND_US;
}

/* Whether a partition over Kafka has all that its spool received before a cut.
 *
 * A mark counts what its spool has in store, and is said after the brokers acknowledged that.
 * It does not know what others sent before its incarnation began: a spool that is lost, or this
 * one before it was set back to an older image. All of that lies in Kafka before the first click
 * of the incarnation, and below any end that is asked for once the incarnation is known. So a
 * partition is complete
 *   - when the mark's newest click there is of its incarnation, and is here: the rest came
 *     before it, in order;
 *   - else when its newest click, if there is one, is here, and all is read up to such an end.
 *
 * An incarnation that is not known never came, or was pushed out by ARCHIVE_SEQS_MAX newer ones, as
 * when a spool is set back to an image from before those. Which of the two cannot be told, so it
 * is not complete: the partition says so and waits for a click of a newer incarnation.
 */
#include "billing/archive_part.h"

#include <inttypes.h>

#include "common/clock.h"

static enum err
end_ask(const struct part *part, struct clicklog *log, uint64_t *end,
        struct why *why)
{
    uint64_t first;

    return clicklog_range(log, part->partition, &first, end, why);
}

/* Whether all that was sent before the mark's incarnation began is read. */
static bool
is_past_others(struct part *part, struct clicklog *log,
               const struct clicklog_mark *mark)
{
    struct part_began began = {mark->spool_id, mark->incarnation, 0};

    if (part->began.spool_id != began.spool_id ||
        part->began.incarnation != began.incarnation) {
        if (end_ask(part, log, &began.end, NULL) != ERR_OK)
            return false; /* broker away: the next pass asks again */
        part->began = began;
    }
    return part->log_next >= part->began.end;
}

/* Stops the partition at log_offset, where `last` should have come to its end. What is missing was
 * received before before_us. */
static enum err
missing(struct part *part, const struct clicklog_last *last, uint64_t log_offset,
        int64_t before_us, struct why *why)
{
    uint64_t taken = archive_seqs_count(&part->seqs, last->incarnation);

    /* Pushed out, it would be looked for in vain: the partition is read again and again. */
    part->stalled = taken > 0 || part->seqs.n < ARCHIVE_SEQS_MAX;
    part->gap =
        (struct part_gap){last->incarnation, taken, log_offset, before_us - 1};
    return err_set(why, ERR_CORRUPT,
                   "partition %u, offset %" PRIu64 ": incarnation %016" PRIx64
                   " ends with %" PRIu64 " clicks, the spool has %" PRIu64
                   "; lost, or older than the topic's retention: "
                   "`clickledger relay rewind` sends them again",
                   part->partition, log_offset, last->incarnation, taken,
                   last->count);
}

enum err
part_cut_look(struct part *part, struct clicklog *log,
              const struct clicklog_mark *mark, struct why *why)
{
    const struct clicklog_last *last = &mark->last[part->partition];
    int64_t now_us = clock_mono_us();
    uint64_t end;

    if (archive_seqs_count(&part->seqs, last->incarnation) >= last->count) {
        part->complete =
            (last->count > 0 && last->incarnation == mark->incarnation) ||
            is_past_others(part, log, mark);
        return ERR_OK;
    }
    if (part->still_next != part->log_next || part->still_mono_us == 0) {
        part->still_next = part->log_next;
        part->still_mono_us = now_us;
    }
    if (now_us - part->still_mono_us < PART_STILL_US)
        return ERR_OK;
    /* The end is asked for with the mark in hand: what that counts is below. */
    part->still_mono_us = now_us;
    if (end_ask(part, log, &end, NULL) != ERR_OK || part->log_next < end)
        return ERR_OK;
    return missing(part, last, part->log_next, mark->floor_us, why);
}

/* What is pushed out of the list cannot be told from what never came. */
static bool
is_short(const struct part *part, const struct clicklog_last *last)
{
    uint64_t taken = archive_seqs_count(&part->seqs, last->incarnation);

    return taken < last->count && (taken > 0 || part->seqs.n < ARCHIVE_SEQS_MAX);
}

enum err
part_cut_begin(struct part *part, const struct clicklog_mark *mark,
               const struct clicklog_record *record, struct why *why)
{
    const struct clicklog_last *last = &mark->last[part->partition];
    const struct clicklog_last *before = &mark->before[part->partition];

    /* Which of the two came before it; of one between older ones the mark says nothing. */
    bool later = record->received_us >= mark->floor_us;

    if ((later || record->incarnation == last->incarnation) &&
        is_short(part, before))
        return missing(part, before, record->offset, record->received_us, why);
    if (later && record->incarnation != last->incarnation && is_short(part, last))
        return missing(part, last, record->offset, record->received_us, why);
    return ERR_OK;
}

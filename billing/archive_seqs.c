#include "billing/archive_seqs.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool
archive_seqs_parse(struct archive_seqs *seqs, const char *text)
{
    seqs->n = 0;
    while (*text != '\0') {
        struct archive_last last;
        char *end;

        last.incarnation = strtoull(text, &end, 16);
        if (end == text || *end != ':' || seqs->n == ARCHIVE_SEQS_MAX)
            return false;
        text = end + 1;
        last.seq = strtoull(text, &end, 10);
        if (end == text || (*end != ',' && *end != '\0'))
            return false;
        seqs->lasts[seqs->n++] = last;
        text = *end == ',' ? end + 1 : end;
    }
    return true;
}

void
archive_seqs_format(const struct archive_seqs *seqs, char text[MANIFEST_INCS_MAX])
{
    size_t n = 0;

    text[0] = '\0';
    for (uint32_t i = 0; i < seqs->n; i++)
        n += (size_t)snprintf(text + n, MANIFEST_INCS_MAX - n,
                              "%s%016" PRIx64 ":%" PRIu64, i == 0 ? "" : ",",
                              seqs->lasts[i].incarnation, seqs->lasts[i].seq);
    assert(n < MANIFEST_INCS_MAX);
}

/* The newest is nearly always the one. */
static uint32_t
find(const struct archive_seqs *seqs, uint64_t incarnation)
{
    uint32_t i = seqs->n;

    while (i > 0 && seqs->lasts[i - 1].incarnation != incarnation)
        i--;
    return i == 0 ? seqs->n : i - 1;
}

uint64_t
archive_seqs_count(const struct archive_seqs *seqs, uint64_t incarnation)
{
    uint32_t i = find(seqs, incarnation);

    return i == seqs->n ? 0 : seqs->lasts[i].seq + 1;
}

struct clicklog_last
archive_seqs_newest(const struct archive_seqs *seqs)
{
    const struct archive_last *last;

    if (seqs->n == 0)
        return (struct clicklog_last){0, 0};
    last = &seqs->lasts[seqs->n - 1];
    return (struct clicklog_last){last->incarnation, last->seq + 1};
}

enum archive_seq
archive_seqs_look(const struct archive_seqs *seqs, uint64_t incarnation,
                  uint64_t seq, uint64_t *expected)
{
    *expected = archive_seqs_count(seqs, incarnation);
    if (seq == *expected)
        return ARCHIVE_SEQ_NEXT;
    return seq < *expected ? ARCHIVE_SEQ_REPEAT : ARCHIVE_SEQ_GAP;
}

void
archive_seqs_take(struct archive_seqs *seqs, uint64_t incarnation, uint64_t seq)
{
    uint32_t i = find(seqs, incarnation);

    assert(i == seqs->n ? seq == 0 : seq == seqs->lasts[i].seq + 1);
    if (i == ARCHIVE_SEQS_MAX) {
        memmove(seqs->lasts, seqs->lasts + 1,
                (ARCHIVE_SEQS_MAX - 1) * sizeof(*seqs->lasts));
        i = seqs->n = ARCHIVE_SEQS_MAX - 1;
    }
    seqs->lasts[i] = (struct archive_last){incarnation, seq};
    if (i == seqs->n)
        seqs->n++;
}

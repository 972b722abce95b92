/* Where slices begin and end. */
#include "billing/judge_core.h"
#include "common/clock.h"

uint32_t
judge_file_after(const struct judge *judge, int64_t us)
{
    uint32_t i = 0;

    while (i < judge->manifest.files_n &&
           judge->manifest.files[i].first_received_us < us)
        i++;
    return i;
}

/* No file holds clicks of both sides; else *before_us gets where the first such begins. */
static bool
cut_clean(const struct judge *judge, int64_t cut_us, int64_t *before_us)
{
    for (uint32_t i = 0; i < judge->manifest.files_n; i++) {
        const struct manifest_file *file = &judge->manifest.files[i];

        if (file->first_received_us < cut_us && file->last_received_us >= cut_us) {
            *before_us = file->first_received_us;
            return false;
        }
    }
    return true;
}

enum err
judge_limit(const struct judge *judge, int64_t *limit_us, struct why *why)
{
    const struct judge_input *in = judge->in;
    int64_t through_us = judge->manifest.through_us, unused;

    if (!in->forced) {
        int64_t until_us = in->until_us < through_us ? in->until_us : through_us;

        *limit_us = clock_floor(until_us, CLOCK_HOUR_US);
        return ERR_OK;
    }
    if (through_us < in->until_us)
        return err_set(
            why, ERR_AGAIN,
            "judge: the archive is not complete up to the cut; wait for it");
    *limit_us = in->until_us;
    if (cut_clean(judge, *limit_us, &unused))
        return ERR_OK;
    *limit_us = through_us;
    while (!cut_clean(judge, *limit_us, limit_us))
        ;
    if (*limit_us < in->until_us)
        return err_set(
            why, ERR_AGAIN,
            "judge: files cross the cut; ask the archive to roll, then again");
    return ERR_OK;
}

void
slice_next(const struct judge *judge, int64_t from_us, int64_t limit_us,
           struct slice *out)
{
    int64_t hour_us = clock_floor(from_us, CLOCK_HOUR_US) + CLOCK_HOUR_US;
    uint32_t first = judge_file_after(judge, from_us), end;

    *out = (struct slice){.from_us = from_us,
                          .to_us = hour_us < limit_us ? hour_us : limit_us,
                          .files = judge->manifest.files + first};
    end = judge_file_after(judge, out->to_us);
    if (first == end) {
        out->to_us = limit_us;
        if (end < judge->manifest.files_n) {
            int64_t next_us = clock_floor(
                judge->manifest.files[end].first_received_us, CLOCK_HOUR_US);

            out->to_us = next_us < limit_us ? next_us : limit_us;
        }
    }
    out->files_n = end - first;
    for (uint32_t i = 0; i < out->files_n; i++)
        out->clicks += out->files[i].clicks;
}

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "billing/judge_core.h"
#include "common/clock.h"
#include "common/hash.h"
#include "common/prefetch.h"

enum { AHEAD = 12 };

static enum err
id_tables_make(struct slice *slice, struct why *why)
{
    size_t text = 1;

    for (uint32_t i = 0; i < slice->files_n; i++)
        text += strlen(slice->files[i].path) + 1;
    slice->id_files = calloc((size_t)slice->files_n + 1, sizeof(*slice->id_files));
    slice->id_text = calloc(text, 1);
    if (slice->id_files == NULL || slice->id_text == NULL)
        return err_set(why, ERR_NOMEM, "judge: no memory");
    for (uint32_t i = 0; i < slice->files_n; i++) {
        const struct manifest_file *file = &slice->files[i];
        size_t n = strlen(file->path) + 1;

        slice->id_files[i] = (struct idrun_file){
            .hour_us = clock_floor(file->first_received_us, CLOCK_HOUR_US),
            .slice_to_us = slice->to_us,
            .base = file->base,
            .partition = file->partition,
            .path_at = slice->id_text_n,
        };
        memcpy(slice->id_text + slice->id_text_n, file->path, n);
        slice->id_text_n += (uint32_t)n;
    }
    return ERR_OK;
}

enum err
slice_begin(struct judge *judge, struct slice *slice, struct why *why)
{
    slice->finals = calloc((size_t)slice->files_n + 1, sizeof(*slice->finals));
    slice->finals_done =
        calloc((size_t)slice->files_n + 1, sizeof(*slice->finals_done));
    if (slice->finals == NULL || slice->finals_done == NULL)
        return err_set(why, ERR_NOMEM, "judge: no memory");
    enum err err = id_tables_make(slice, why);
    if (err == ERR_OK)
        err = sums_create(&slice->sums, judge->in->judge_dir, slice->to_us, why);
    return err;
}

void
slice_free(struct slice *slice)
{
    for (uint32_t i = 0; i < slice->files_n && slice->finals != NULL; i++)
        final_abort(&slice->finals[i]);
    sums_abort(&slice->sums);
    free(slice->finals);
    free(slice->finals_done);
    free(slice->id_files);
    free(slice->id_text);
    slice->finals = NULL;
    slice->finals_done = NULL;
    slice->id_files = NULL;
    slice->id_text = NULL;
}

static enum err
final_put(struct judge *judge, struct slice *slice, const struct judged *click,
          const struct verdict *verdict, int64_t price_micros, struct why *why)
{
    const struct manifest_file *file = &slice->files[click->file];
    struct final_writer **writer = &slice->finals[click->file];
    const struct final_row row = {.seq = click->seq,
                                  .verdict = *verdict,
                                  .price_micros = price_micros,
                                  .flags = click->flags};
    enum err err = ERR_OK;

    assert(click->row == slice->finals_done[click->file]);
    if (*writer == NULL)
        err = final_create(writer, judge->in->archive_dir, file, why);
    if (err == ERR_OK)
        err = final_add(*writer, &row, why);
    if (err == ERR_OK && ++slice->finals_done[click->file] == file->clicks)
        err = final_finish(writer, &judge->publish, why);
    return err;
}

/* The verdict, the price and the budget of the next click. */
static enum err
click_judge(struct judge *judge, struct slice *slice, struct judged *click,
            struct why *why)
{
    const struct judge_input *in = judge->in;
    struct sum_key key = {.dims = click->dims};
    struct verdict verdict;
    bool fits = true;
    enum err err = ERR_OK;

    verdict = fraud_conclude(in->rules, in->master, click->reasons, 0);
    if (err == ERR_OK && verdict_is_billable((enum verdict_kind)verdict.kind)) {
        assert(click->campaign != JUDGE_NO_CAMPAIGN);
        err = spend_take(judge->spend, &in->master->campaigns[click->campaign],
                         click->day, click->list_micros, &fits, why);
        if (fits) {
            key.price_micros = click->list_micros;
        } else {
            verdict.kind = VERDICT_OVER_BUDGET;
            verdict.reason = REASON_over_budget;
            verdict.reasons |= REASON_BIT(over_budget);
        }
    }
    if (err != ERR_OK)
        return err;
    click->kind = verdict.kind;
    slice->duplicates += verdict.kind == VERDICT_DUPLICATE;
    slice->conflicts += (click->flags & FINAL_CONFLICT) != 0;
    key.kind = verdict.kind;
    key.reason = verdict.reason;
    err = final_put(judge, slice, click, &verdict, key.price_micros, why);
    if (err == ERR_OK)
        err = sums_table_add(judge->sums, &key, click->list_micros,
                             (click->flags & FINAL_CONFLICT) != 0, why);
    return err;
}

/* ---- its id run ---- */

static enum err
runs_append(struct judge *judge, const char *path, struct why *why)
{
    if (judge->runs.n == IDRUN_RUNS_MAX)
        return err_set(why, ERR_FULL, "judge: more than %d id runs",
                       IDRUN_RUNS_MAX);
    enum err err = idrun_open(&judge->runs.runs[judge->runs.n], path, why);
    if (err == ERR_OK)
        judge->runs.n++;
    return err;
}

static enum err
ids_put(struct judge *judge, const struct slice *slice, const char *path,
        struct publish *publish, struct why *why)
{
    const struct idrun_tables tables = {
        .files = slice->id_files,
        .files_n = slice->files_n,
        .text = slice->id_text,
        .text_n = slice->id_text_n,
        .zones = judge->zones,
        .zones_n = judge->zones_n,
        .accounts = judge->accounts,
        .accounts_n = judge->accounts_n,
    };
    struct idrun_writer *writer = NULL;
    enum err err = idrun_create(&writer, path, slice->from_us, slice->to_us,
                                slice->end - slice->first, why);

    for (uint64_t i = slice->first; i < slice->end && err == ERR_OK; i++) {
        const struct judged *click = &judge->clicks[judge->sorted[i].at];
        struct idrun_detail detail = {
            .account = click->account,
            .payload = click->payload,
            .row = click->row,
            .file = click->file,
            .day = click->day,
            .zone = click->zone,
            .kind = click->kind,
            .flags = click->flags,
        };

        if (i + AHEAD < slice->end)
            prefetch(&judge->clicks[judge->sorted[i + AHEAD].at]);
        memcpy(detail.event_id, click->event_id, sizeof(detail.event_id));
        err = idrun_add(writer, click->id_hash, &detail, why);
    }
    if (err == ERR_OK)
        return idrun_finish(&writer, &tables, publish, why);
    idrun_abort(&writer);
    return err;
}

static void
part_path(char *out, size_t size, const struct judge *judge,
          const struct slice *slice, uint32_t part)
{
    (void)snprintf(out, size, "%s/ids/%" PRId64 "-%" PRId64 ".part-%u",
                   judge->in->judge_dir, slice->from_us, slice->to_us, part);
}

/* The pieces of a slice that did not fit one batch become its run. */
static enum err
parts_merge(struct judge *judge, struct slice *slice, const char *path,
            struct why *why)
{
    uint32_t first = judge->runs.n - slice->parts_n;
    enum err err = idrun_merge(judge->runs.runs + first, slice->parts_n, path,
                               slice->from_us, slice->to_us, why);

    if (err != ERR_OK)
        return err;
    while (judge->runs.n > first)
        idrun_close(&judge->runs.runs[--judge->runs.n]);
    for (uint32_t i = 0; i < slice->parts_n; i++) {
        char part[FILE_PATH_MAX];

        part_path(part, sizeof(part), judge, slice, i);
        (void)unlink(part);
    }
    return ERR_OK;
}

static enum err
ids_write(struct judge *judge, struct slice *slice, struct why *why)
{
    char path[FILE_PATH_MAX], part[FILE_PATH_MAX];
    enum err err;

    idrun_path(path, sizeof(path), judge->in->judge_dir, slice->from_us,
               slice->to_us);
    if (slice->ends && slice->parts_n == 0)
        return ids_put(judge, slice, path, &judge->publish, why);
    part_path(part, sizeof(part), judge, slice, slice->parts_n);
    err = ids_put(judge, slice, part, NULL, why);
    if (err == ERR_OK)
        err = runs_append(judge, part, why);
    if (err != ERR_OK)
        return err;
    slice->parts_n++;
    return slice->ends ? parts_merge(judge, slice, path, why) : ERR_OK;
}

/* ---- its end ---- */

static void
files_hash(const struct slice *slice, uint8_t out[32])
{
    struct hash_sha256 *sha = hash_sha256_new();

    for (uint32_t i = 0; i < slice->files_n; i++)
        hash_sha256_add(sha, slice->files[i].sha256,
                        sizeof(slice->files[i].sha256));
    hash_sha256_end(sha, out);
}

static enum err
slice_end(struct judge *judge, struct slice *slice, struct why *why)
{
    int32_t today =
        (int32_t)(clock_floor(slice->from_us, CLOCK_DAY_US) / CLOCK_DAY_US);
    enum err err;

    for (uint32_t i = 0; i < slice->files_n; i++)
        assert(slice->finals[i] == NULL &&
               slice->finals_done[i] == slice->files[i].clicks);
    assert(slice->done == slice->clicks);
    err = sums_finish(&slice->sums, &judge->publish, why);
    return err == ERR_OK
               ? spend_save(judge->spend, judge->in->judge_dir, slice->to_us,
                            today - SPEND_DAYS, &judge->publish, why)
               : err;
}

static enum err
slice_record(struct judge *judge, const struct slice *slice, struct why *why)
{
    const struct judge_input *in = judge->in;
    struct judge_slice line = {
        .from_us = slice->from_us,
        .to_us = slice->to_us,
        .clicks = slice->clicks,
        .ruleset = ruleset_number(in->rules),
        .master = (uint16_t)in->master->version,
    };
    char path[FILE_PATH_MAX];
    enum err err;

    files_hash(slice, line.files_sha256);
    err = judge_log_append(in->judge_dir, &line, slice->duplicates,
                           slice->conflicts, why);
    if (err != ERR_OK)
        return err;
    judge->judged_us = slice->to_us;
    judge->spend_us = slice->to_us;
    judge->result.slices++;
    judge->result.clicks += slice->clicks;
    judge->result.duplicates += slice->duplicates;
    judge->result.conflicts += slice->conflicts;
    idrun_path(path, sizeof(path), in->judge_dir, slice->from_us, slice->to_us);
    return runs_append(judge, path, why);
}

enum err
slices_commit(struct judge *judge, const struct slice *slices, uint32_t n,
              struct why *why)
{
    enum err err = ERR_OK;

    if (n == 0 || !slices[n - 1].ends)
        return ERR_OK;
    err = publish_all(&judge->publish, why);
    for (uint32_t s = 0; s < n && err == ERR_OK; s++)
        err = slice_record(judge, &slices[s], why);
    return err;
}

/* Most clicks are billable: what such a one will touch is fetched, far and near ahead. */
static void
click_prefetch(const struct judge *judge, const struct judged *far,
               const struct judged *near)
{
    const struct sum_key keys[2] = {
        {far->dims, VERDICT_BILLABLE, REASON_none, far->list_micros},
        {near->dims, VERDICT_BILLABLE, REASON_none, near->list_micros},
    };

    sums_table_prefetch(judge->sums, &keys[0], false);
    sums_table_prefetch(judge->sums, &keys[1], true);
}

enum err
slice_judge(struct judge *judge, struct slice *slice, struct why *why)
{
    const struct ruleset_limits *limits = ruleset_limits(judge->in->rules);
    uint64_t ready = slice->first, n;
    enum err err =
        state_hour(judge->state, clock_floor(slice->from_us, CLOCK_HOUR_US), why);

    for (uint64_t i = slice->first; i < slice->end && err == ERR_OK; i++) {
        if (i == ready) {
            err = state_feed(judge->state, limits, &judge->clicks[i],
                             slice->end - i, &n, why);
            ready += n;
            if (err != ERR_OK)
                break;
        }
        if (i + AHEAD < slice->end)
            click_prefetch(judge, &judge->clicks[i + AHEAD],
                           &judge->clicks[i + AHEAD / 2]);
        err = click_judge(judge, slice, &judge->clicks[i], why);
        slice->done++;
    }
    if (err == ERR_OK)
        err = sums_table_flush(judge, slice, why);
    if (err == ERR_OK)
        err = ids_write(judge, slice, why);
    if (err == ERR_OK && slice->ends)
        err = slice_end(judge, slice, why);
    return err;
}

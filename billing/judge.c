#define _DEFAULT_SOURCE /* flock */
#include "billing/judge.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "billing/judge_core.h"
#include "common/clock.h"
#include "schema/zone.h"

enum {
    SPEND_KEPT_HOURS = 48
}; /* before the one in force, if it must be judged again */

static enum err
lock_take(struct judge *judge, struct why *why)
{
    static const char *const folders[] = {"ids", "sums", "spend"};
    char path[FILE_PATH_MAX];
    enum err err = ERR_OK;

    for (size_t i = 0; i < 3 && err == ERR_OK; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", judge->in->judge_dir,
                       folders[i]);
        err = file_mkdirs(path, why);
    }
    if (err != ERR_OK)
        return err;
    (void)snprintf(path, sizeof(path), "%s/lock", judge->in->judge_dir);
    judge->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (judge->lock_fd < 0)
        return err_set(why, ERR_FATAL, "open %s: %s", path, strerror(errno));
    if (flock(judge->lock_fd, LOCK_EX | LOCK_NB) != 0)
        return err_set(why, ERR_AGAIN, "%s: another judge is at work; wait for it",
                       path);
    return ERR_OK;
}

/* Removes what a killed judge left behind, later than what is on record. With before_us:
 * what ended before it, too. Names begin with the end of their slice. */
static void
folder_clean(const char *judge_dir, const char *folder, int64_t judged_us,
             int64_t before_us)
{
    char path[FILE_PATH_MAX];
    const struct dirent *entry;
    DIR *dir;

    (void)snprintf(path, sizeof(path), "%s/%s", judge_dir, folder);
    dir = opendir(path);
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        int64_t to_us = strtoll(entry->d_name, NULL, 10);

        if (entry->d_name[0] == '.' || (to_us <= judged_us && to_us >= before_us))
            continue;
        if (snprintf(path, sizeof(path), "%s/%s/%s", judge_dir, folder,
                     entry->d_name) < FILE_PATH_MAX)
            (void)unlink(path);
    }
    if (dir != NULL)
        (void)closedir(dir);
}

/* Zones of campaigns by number; 0 is UTC, which clicks of unknown campaigns have. */
static enum err
zones_number(struct judge *judge, struct why *why)
{
    const struct master *master = judge->in->master;

    judge->zones[0] = STR("UTC");
    judge->zones_n = 1;
    judge->zone_of =
        calloc((size_t)master->campaigns_n + 1, sizeof(*judge->zone_of));
    if (judge->zone_of == NULL)
        return err_set(why, ERR_NOMEM, "judge: no memory");
    for (uint32_t c = 0; c < master->campaigns_n; c++) {
        struct str name = zone_name(master->campaigns[c].zone);
        uint32_t z = 0;

        while (z < judge->zones_n && !str_equal(judge->zones[z], name))
            z++;
        if (z == IDRUN_ZONES_MAX)
            return err_set(why, ERR_FULL, "judge: more than %d time zones",
                           IDRUN_ZONES_MAX);
        if (z == judge->zones_n)
            judge->zones[judge->zones_n++] = name;
        judge->zone_of[c] = (uint16_t)z;
    }
    return ERR_OK;
}

/* The state after the last slice on record. */
static enum err
state_load(struct judge *judge, struct why *why)
{
    const struct judge_input *in = judge->in;
    int64_t since_us = judge->judged_us - judge->dedup_us - CLOCK_DAY_US;
    uint32_t last = judge->record_n;
    enum err err = idruns_tidy(in->judge_dir, since_us, judge->judged_us, why);

    folder_clean(in->judge_dir, "sums", judge->judged_us, INT64_MIN);
    folder_clean(in->judge_dir, "spend", judge->judged_us, INT64_MIN);
    if (err == ERR_OK)
        err = idruns_open(&judge->runs, in->judge_dir, since_us, judge->judged_us,
                          why);
    if (err == ERR_OK)
        err = spend_open(&judge->spend, in->master, why);
    while (last > 0 && judge->record[last - 1].clicks == 0)
        last--;
    if (err == ERR_OK && last > 0)
        err = spend_load(judge->spend, in->judge_dir, judge->record[last - 1].to_us,
                         why);
    if (err == ERR_NOTFOUND)
        err = ERR_CORRUPT; /* on record, but not there */
    return err;
}

static enum err
record_load(struct judge *judge, struct why *why)
{
    enum err err = judge_log_mend(judge->in->judge_dir, why);

    if (err == ERR_OK)
        err = judge_slices(judge->in->judge_dir, &judge->record, &judge->record_n,
                           why);
    if (err == ERR_OK && judge->record_n > 0)
        judge->judged_us = judge->record[judge->record_n - 1].to_us;
    return err;
}

static enum err
judge_open(struct judge *judge, const struct judge_input *in, struct why *why)
{
    enum err err;

    *judge = (struct judge){.in = in, .lock_fd = -1};
    publish_init(&judge->publish);
    judge->dedup_us = in->config->billing_dedup_days * CLOCK_DAY_US;
    err = lock_take(judge, why);
    if (err == ERR_OK)
        err = record_load(judge, why);
    if (err == ERR_OK)
        err = manifest_read(
            &judge->manifest, in->archive_dir,
            clock_floor(judge->judged_us, CLOCK_HOUR_US) - CLOCK_HOUR_US, why);
    if (err == ERR_OK)
        err = zones_number(judge, why);
    if (err == ERR_OK)
        err = state_load(judge, why);
    if (err == ERR_OK)
        err = state_open(&judge->state, in->judge_dir,
                         in->window_bytes_max != 0 ? in->window_bytes_max
                                                   : JUDGE_WINDOW_BYTES_MAX,
                         why);
    if (err == ERR_OK)
        err = dims_open(&judge->dims, why);
    if (err == ERR_OK)
        err = sums_table_open(&judge->sums, why);
    judge->agents = agent_cache_new();
    if (err == ERR_OK && judge->agents == NULL)
        err = err_set(why, ERR_NOMEM, "judge: no memory");
    return err;
}

static void
judge_close(struct judge *judge)
{
    publish_free(&judge->publish);
    sums_table_close(&judge->sums);
    dims_close(&judge->dims);
    state_close(&judge->state);
    agent_cache_free(&judge->agents);
    spend_close(&judge->spend);
    idruns_close(&judge->runs);
    manifest_free(&judge->manifest);
    free(judge->record);
    free(judge->zone_of);
    free(judge->accounts);
    free(judge->clicks);
    free(judge->sorted);
    free(judge->spare);
    if (judge->lock_fd >= 0)
        (void)close(judge->lock_fd);
}

static enum err
empty_commit(struct judge *judge, const struct slice *slice, struct why *why)
{
    const struct judge_slice line = {
        .from_us = slice->from_us,
        .to_us = slice->to_us,
        .ruleset = ruleset_number(judge->in->rules),
        .master = (uint16_t)judge->in->master->version,
    };
    enum err err = judge_log_append(judge->in->judge_dir, &line, 0, 0, why);

    if (err == ERR_OK) {
        judge->judged_us = slice->to_us;
        judge->result.slices++;
    }
    return err;
}

static enum err
batch_alloc(struct judge *judge, uint64_t replay, struct why *why)
{
    uint64_t max = (uint64_t)judge->in->config->billing_judge_clicks_max;

    judge->clicks_cap = judge->total > replay ? judge->total : replay;
    if (judge->clicks_cap > max)
        judge->clicks_cap = max;
    judge->clicks = malloc((judge->clicks_cap + 1) * sizeof(*judge->clicks));
    judge->sorted = malloc((judge->clicks_cap + 1) * sizeof(*judge->sorted));
    judge->spare = malloc((judge->clicks_cap + 1) * sizeof(*judge->spare));
    if (judge->clicks == NULL || judge->sorted == NULL || judge->spare == NULL)
        return err_set(why, ERR_NOMEM,
                       "judge: no memory for %" PRIu64
                       " clicks; lower billing.judge_clicks_max",
                       judge->clicks_cap);
    return ERR_OK;
}

/* Judges the batch in memory and empties it. */
static enum err
batch_judge(struct judge *judge, struct slice *slices, uint32_t n, struct why *why)
{
    enum err err = batch_dedup(judge, why);

    if (err == ERR_OK)
        batch_split(judge, slices, n);
    for (uint32_t s = 0; s < n && err == ERR_OK; s++)
        err = slice_judge(judge, &slices[s], why);
    if (err == ERR_OK)
        err = slices_commit(judge, slices, n, why);
    judge->done += judge->clicks_n;
    judge->clicks_n = 0;
    judge->accounts_n = 0;
    dims_clear(judge->dims);
    if (err == ERR_OK && judge->in->progress != NULL)
        judge->in->progress(judge->in->progress_ctx, judge->done, judge->total);
    return err;
}

/* Reads on in a slice until its end (ends = true) or until the batch is full. */
static enum err
slice_read(struct judge *judge, struct slice *slice, struct stream *stream,
           struct why *why)
{
    struct stream_click click;
    enum err err = ERR_OK;

    slice->first = judge->clicks_n;
    slice->ends = false;
    while (!batch_full(judge) &&
           (err = stream_next(stream, &click, why)) == ERR_OK) {
        err = batch_add(judge, &click, why);
        if (err != ERR_OK)
            return err;
        if (slice->done + judge->clicks_n - slice->first == slice->clicks)
            break;
    }
    slice->end = judge->clicks_n;
    slice->ends = slice->done + slice->end - slice->first == slice->clicks;
    if (err == ERR_AGAIN && !slice->ends)
        err =
            err_set(why, ERR_CORRUPT, "judge: an archive file has too few clicks");
    return err == ERR_AGAIN ? ERR_OK : err;
}

/* At the end the stream itself compares its files with the manifest. */
static enum err
slice_read_end(struct stream *stream, struct why *why)
{
    struct stream_click click;
    enum err err = stream_next(stream, &click, why);

    if (err == ERR_OK)
        return err_set(why, ERR_CORRUPT,
                       "judge: an archive file has too many clicks");
    return err == ERR_AGAIN ? ERR_OK : err;
}

/* A slice that does not fit into one batch: piece by piece. */
static enum err
slice_by_pieces(struct judge *judge, struct slice *slice, struct why *why)
{
    struct stream *stream = NULL;
    enum err err = stream_open(&stream, judge->in->archive_dir, slice->files,
                               slice->files_n, why);

    while (err == ERR_OK && !slice->ends) {
        err = slice_read(judge, slice, stream, why);
        if (err == ERR_OK && slice->ends)
            err = slice_read_end(stream, why);
        if (err == ERR_OK)
            err = batch_judge(judge, slice, 1, why);
    }
    stream_close(&stream);
    return err;
}

/* A whole slice into the batch; *fits false: there was no room for its dimensions. */
static enum err
slice_whole(struct judge *judge, struct slice *slice, struct why *why)
{
    struct stream *stream = NULL;
    enum err err = stream_open(&stream, judge->in->archive_dir, slice->files,
                               slice->files_n, why);

    if (err == ERR_OK)
        err = slice_read(judge, slice, stream, why);
    if (err == ERR_OK && slice->ends)
        err = slice_read_end(stream, why);
    stream_close(&stream);
    return err;
}

/* Merges the id runs of days that are finished, and forgets old ones. */
static enum err
tidy(struct judge *judge, struct why *why)
{
    const char *dir = judge->in->judge_dir;
    int64_t since_us = judge->judged_us - judge->dedup_us - CLOCK_DAY_US;
    enum err err;

    idruns_close(&judge->runs);
    err = idruns_tidy(dir, since_us, judge->judged_us, why);
    if (err == ERR_OK)
        err = idruns_open(&judge->runs, dir, since_us, judge->judged_us, why);
    return err;
}

/* The next batch: slices that fit together. */
static enum err
batch_run(struct judge *judge, int64_t limit_us, struct slice *slices, uint32_t *n,
          struct why *why)
{
    int64_t at_us = judge->judged_us;
    enum err err = ERR_OK;

    for (*n = 0; *n < BATCH_SLICES_MAX && at_us < limit_us; (*n)++) {
        struct slice *slice = &slices[*n];

        slice_next(judge, at_us, limit_us, slice);
        if (slice->clicks == 0 ||
            slice->clicks > judge->clicks_cap - judge->clicks_n)
            break;
        uint64_t before = judge->clicks_n;
        err = slice_begin(judge, slice, why);
        if (err == ERR_OK)
            err = slice_whole(judge, slice, why);
        at_us = slice->to_us;
        if (err != ERR_OK || !slice->ends) {
            judge->clicks_n = before;
            slice_free(slice);
            break;
        }
    }
    if (err == ERR_OK && *n > 0)
        return batch_judge(judge, slices, *n, why);
    if (err != ERR_OK)
        return err;
    dims_clear(judge->dims);
    judge->accounts_n = 0;
    slice_next(judge, judge->judged_us, limit_us, &slices[0]);
    if (slices[0].clicks == 0)
        return empty_commit(judge, &slices[0], why);
    *n = 1;
    err = slice_begin(judge, &slices[0], why);
    return err == ERR_OK ? slice_by_pieces(judge, &slices[0], why) : err;
}

static enum err
slices_run(struct judge *judge, int64_t limit_us, struct why *why)
{
    struct slice *slices = calloc(BATCH_SLICES_MAX, sizeof(*slices));
    enum err err =
        slices == NULL ? err_set(why, ERR_NOMEM, "judge: no memory") : ERR_OK;
    int64_t tidied_us = clock_floor(judge->judged_us, CLOCK_DAY_US);

    while (err == ERR_OK && judge->judged_us < limit_us) {
        uint32_t n = 0;

        err = batch_run(judge, limit_us, slices, &n, why);
        for (uint32_t s = 0; s < n; s++)
            slice_free(&slices[s]);
        if (err == ERR_OK &&
            clock_floor(judge->judged_us, CLOCK_DAY_US) > tidied_us) {
            tidied_us = clock_floor(judge->judged_us, CLOCK_DAY_US);
            err = tidy(judge, why);
        }
    }
    free(slices);
    return err;
}

static enum err
run(struct judge *judge, struct why *why)
{
    const struct judge_input *in = judge->in;
    int64_t limit_us = 0;
    enum err err = judge_limit(judge, &limit_us, why);

    if (err != ERR_OK)
        return err;
    if (judge->record_n == 0)
        judge->judged_us = clock_floor(
            judge->manifest.files_n > 0 ? judge->manifest.files[0].first_received_us
                                        : limit_us,
            CLOCK_HOUR_US);
    for (uint32_t i = judge_file_after(judge, judge->judged_us);
         i < judge->manifest.files_n &&
         judge->manifest.files[i].first_received_us < limit_us;
         i++)
        judge->total += judge->manifest.files[i].clicks;
    err = batch_alloc(judge, slice_replay_clicks(judge, judge->judged_us), why);
    if (err == ERR_OK && judge->total > 0)
        err = slice_replay(judge, judge->judged_us, why);
    if (err == ERR_OK)
        err = slices_run(judge, limit_us, why);
    if (err != ERR_OK)
        return err;
    folder_clean(in->judge_dir, "spend", judge->judged_us,
                 judge->spend_us - SPEND_KEPT_HOURS * CLOCK_HOUR_US);
    if (!in->forced && limit_us < clock_floor(in->until_us, CLOCK_HOUR_US))
        return err_set(
            why, ERR_AGAIN,
            "judge: the archive is not complete up to the last whole hour");
    return ERR_OK;
}

enum err
judge_run(const struct judge_input *in, struct judge_result *out, struct why *why)
{
    struct judge *judge = calloc(1, sizeof(*judge));
    enum err err;

    *out = (struct judge_result){0};
    if (judge == NULL)
        return err_set(why, ERR_NOMEM, "judge: no memory");
    err = judge_open(judge, in, why);
    if (err == ERR_OK)
        err = run(judge, why);
    judge->result.judged_until_us = judge->judged_us;
    *out = judge->result;
    judge_close(judge);
    free(judge);
    return err;
}

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "billing/judge_core.h"

struct search {
    struct idrun *run;
    uint32_t account;
    const uint8_t *event_id;
    struct judge_found *out;
    uint32_t max, n;
};

static void
found(struct search *search, const char *path, uint64_t base, uint64_t row,
      bool judged)
{
    struct judge_found *out = &search->out[search->n];

    if (search->n == search->max)
        return;
    *out = (struct judge_found){.offset = base + row, .row = row, .judged = judged};
    (void)snprintf(out->archive_path, sizeof(out->archive_path), "%s", path);
    search->n++;
}

static enum err
entry_visit(void *ctx, uint64_t index, struct why *why)
{
    struct search *search = ctx;
    struct idrun_detail detail;
    enum err err = idrun_detail_read(search->run, index, &detail, why);

    if (err != ERR_OK || detail.account != search->account ||
        memcmp(detail.event_id, search->event_id, sizeof(detail.event_id)) != 0)
        return err;
    found(search, idrun_file_path(search->run, detail.file),
          idrun_file(search->run, detail.file)->base, detail.row, true);
    return ERR_OK;
}

static enum err
runs_search(struct search *search, const char *judge_dir, int64_t judged_us,
            struct why *why)
{
    struct idruns runs;
    enum err err = idruns_open(&runs, judge_dir, INT64_MIN, judged_us, why);

    if (err != ERR_OK)
        return err;
    for (uint32_t r = 0; r < runs.n && err == ERR_OK; r++) {
        uint32_t n;
        const uint32_t *accounts = idrun_accounts(runs.runs[r], &n);

        search->run = runs.runs[r];
        for (uint32_t a = 0; a < n && err == ERR_OK; a++) {
            search->account = accounts[a];
            err = idrun_find(search->run,
                             fraud_id_hash(accounts[a], search->event_id),
                             entry_visit, search, why);
        }
    }
    idruns_close(&runs);
    return err;
}

static enum err
files_search(struct search *search, const char *archive_dir, int64_t judged_us,
             struct why *why)
{
    struct manifest manifest;
    struct stream *stream = NULL;
    struct stream_click in;
    uint32_t kept = 0;
    enum err err = manifest_read(&manifest, archive_dir, judged_us, why);

    if (err != ERR_OK)
        return err;
    for (uint32_t i = 0; i < manifest.files_n; i++)
        if (manifest.files[i].first_received_us >= judged_us)
            manifest.files[kept++] = manifest.files[i];
    err = stream_open(&stream, archive_dir, manifest.files, kept, why);
    while (err == ERR_OK && search->n < search->max &&
           (err = stream_next(stream, &in, why)) == ERR_OK) {
        const struct manifest_file *file = &manifest.files[in.file];

        if (memcmp(in.click->event_id, search->event_id, 16) == 0)
            found(search, file->path, file->base, in.row, false);
    }
    stream_close(&stream);
    manifest_free(&manifest);
    return err == ERR_AGAIN ? ERR_OK : err;
}

enum err
judge_find(const char *archive_dir, const char *judge_dir,
           const uint8_t event_id[16], struct judge_found *out, uint32_t max,
           uint32_t *n, struct why *why)
{
    struct search search = {.event_id = event_id, .out = out, .max = max};
    struct judge_slice *slices = NULL;
    uint32_t slices_n = 0;
    int64_t judged_us;
    enum err err = judge_slices(judge_dir, &slices, &slices_n, why);

    *n = 0;
    if (err != ERR_OK)
        return err;
    judged_us = slices_n > 0 ? slices[slices_n - 1].to_us : 0;
    free(slices);
    err = runs_search(&search, judge_dir, judged_us, why);
    if (err == ERR_OK)
        err = files_search(&search, archive_dir, judged_us, why);
    *n = search.n;
    return err;
}

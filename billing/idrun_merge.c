#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "billing/idrun.h"
#include "billing/idrun_file.h"
#include "common/clock.h"
#include "fraud/verdict.h"

static bool
head_less(const struct idrun_head *a, const struct idrun_head *b)
{
    return a->hash != b->hash ? a->hash < b->hash : a->run < b->run;
}

static void
sift_down(struct idrun_merge *merge, uint32_t at)
{
    struct idrun_head *heap = merge->heap, moved = heap[at];

    for (uint32_t child; (child = 2 * at + 1) < merge->heap_n; at = child) {
        child +=
            child + 1 < merge->heap_n && head_less(&heap[child + 1], &heap[child]);
        if (!head_less(&heap[child], &moved))
            break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

enum err
idrun_merge_open(struct idrun_merge *merge, struct idrun *const *runs, uint32_t n,
                 struct why *why)
{
    enum err err = ERR_OK;

    *merge = (struct idrun_merge){.cursors = calloc(n + 1, sizeof(*merge->cursors)),
                                  .heap = calloc(n + 1, sizeof(*merge->heap))};
    if (merge->cursors == NULL || merge->heap == NULL) {
        idrun_merge_close(merge);
        return err_set(why, ERR_NOMEM, "merge of id runs: no memory");
    }
    for (; merge->n < n && err == ERR_OK; merge->n++) {
        struct idrun_cursor *cursor = &merge->cursors[merge->n];

        err = idrun_cursor_open(cursor, runs[merge->n], true, why);
        if (err == ERR_OK)
            err = idrun_cursor_chunk(cursor, why);
        if (err == ERR_OK)
            merge->heap[merge->heap_n++] =
                (struct idrun_head){cursor->hashes[0], merge->n};
        else if (err == ERR_AGAIN)
            err = ERR_OK;
    }
    for (uint32_t i = merge->heap_n / 2; i-- > 0;)
        sift_down(merge, i);
    if (err != ERR_OK)
        idrun_merge_close(merge);
    return err;
}

void
idrun_merge_close(struct idrun_merge *merge)
{
    for (uint32_t i = 0; i < merge->n; i++)
        idrun_cursor_close(&merge->cursors[i]);
    free(merge->cursors);
    free(merge->heap);
    *merge = (struct idrun_merge){0};
}

/* The run of heap[0] goes on. */
static enum err
head_next(struct idrun_merge *merge, struct why *why)
{
    struct idrun_cursor *cursor = &merge->cursors[merge->heap[0].run];
    enum err err = ERR_OK;

    if (++cursor->at == cursor->n)
        err = idrun_cursor_chunk(cursor, why);
    if (err == ERR_OK)
        merge->heap[0].hash = cursor->hashes[cursor->at];
    else if (err == ERR_AGAIN)
        merge->heap[0] = merge->heap[--merge->heap_n];
    else
        return err;
    if (merge->heap_n > 0)
        sift_down(merge, 0);
    return ERR_OK;
}

enum err
idrun_merge_next(struct idrun_merge *merge, uint32_t *run, uint64_t *hash,
                 const struct idrun_detail **detail, struct why *why)
{
    const struct idrun_cursor *best;
    enum err err = ERR_OK;

    if (merge->given)
        err = head_next(merge, why);
    merge->given = false;
    if (err != ERR_OK)
        return err;
    if (merge->heap_n == 0)
        return ERR_AGAIN;
    merge->given = true;
    *run = merge->heap[0].run;
    *hash = merge->heap[0].hash;
    best = &merge->cursors[*run];
    *detail = &best->details[best->at];
    if (*hash < merge->last_hash || (*detail)->file >= best->run->header.files_n)
        return err_set(why, ERR_CORRUPT, "%s: an entry is damaged",
                       best->run->path);
    merge->last_hash = *hash;
    return ERR_OK;
}

/* The tables of several runs as one, and where each run's places went. */
struct joined {
    struct idrun_tables tables;
    uint32_t *file_shift; /* a run */
    uint16_t *zone_map;   /* runs x IDRUN_ZONES_MAX */
    struct idrun_file *files;
    char *text;
    struct str *zones;
    uint32_t *accounts;
};

static void
joined_free(struct joined *j)
{
    free(j->file_shift);
    free(j->zone_map);
    free(j->files);
    free(j->text);
    free(j->zones);
    free(j->accounts);
}

static int
u32_compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static enum err
joined_alloc(struct joined *j, struct idrun *const *runs, uint32_t n,
             struct why *why)
{
    size_t files = 1, text = 1, accounts = 1;

    for (uint32_t i = 0; i < n; i++) {
        files += runs[i]->header.files_n;
        text += runs[i]->header.text_n;
        accounts += runs[i]->header.accounts_n;
    }
    if (files > IDRUN_FILES_MAX || text > IDRUN_TABLES_MAX)
        return err_set(why, ERR_FULL,
                       "merge of id runs: more than %d archive files",
                       IDRUN_FILES_MAX);
    j->file_shift = calloc(n + 1, sizeof(*j->file_shift));
    j->zone_map = calloc((size_t)(n + 1) * IDRUN_ZONES_MAX, sizeof(*j->zone_map));
    j->files = calloc(files, sizeof(*j->files));
    j->text = calloc(text, 1);
    j->zones = calloc(IDRUN_ZONES_MAX, sizeof(*j->zones));
    j->accounts = calloc(accounts, sizeof(*j->accounts));
    if (j->file_shift == NULL || j->zone_map == NULL || j->files == NULL ||
        j->text == NULL || j->zones == NULL || j->accounts == NULL)
        return err_set(why, ERR_NOMEM, "merge of id runs: no memory");
    return ERR_OK;
}

static enum err
zones_join(struct joined *j, const struct idrun *run, uint16_t *map,
           struct why *why)
{
    struct idrun_tables *t = &j->tables;

    for (uint16_t z = 0; z < run->header.zones_n; z++) {
        struct str name = idrun_zone(run, z);
        uint32_t at = 0;

        while (at < t->zones_n && !str_equal(j->zones[at], name))
            at++;
        if (at == IDRUN_ZONES_MAX)
            return err_set(why, ERR_FULL,
                           "merge of id runs: more than %d time zones",
                           IDRUN_ZONES_MAX);
        if (at == t->zones_n)
            j->zones[t->zones_n++] = name;
        map[z] = (uint16_t)at;
    }
    return ERR_OK;
}

static enum err
tables_join(struct joined *j, struct idrun *const *runs, uint32_t n,
            struct why *why)
{
    struct idrun_tables *t = &j->tables;
    enum err err = joined_alloc(j, runs, n, why);

    for (uint32_t i = 0; i < n && err == ERR_OK; i++) {
        const struct idrun_header *h = &runs[i]->header;

        j->file_shift[i] = t->files_n;
        for (uint32_t f = 0; f < h->files_n; f++) {
            const char *path = idrun_file_path(runs[i], f);
            size_t path_n = strlen(path) + 1;

            j->files[t->files_n] = runs[i]->files[f];
            j->files[t->files_n++].path_at = t->text_n;
            memcpy(j->text + t->text_n, path, path_n);
            t->text_n += (uint32_t)path_n;
        }
        memcpy(j->accounts + t->accounts_n, runs[i]->accounts, h->accounts_n * 4);
        t->accounts_n += h->accounts_n;
        err =
            zones_join(j, runs[i], j->zone_map + (size_t)i * IDRUN_ZONES_MAX, why);
    }
    if (err != ERR_OK)
        return err;
    qsort(j->accounts, t->accounts_n, sizeof(*j->accounts), u32_compare);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < t->accounts_n; i++)
        if (i == 0 || j->accounts[i] != j->accounts[i - 1])
            j->accounts[kept++] = j->accounts[i];
    t->accounts_n = kept;
    t->files = j->files;
    t->text = j->text;
    t->zones = j->zones;
    t->accounts = j->accounts;
    return ERR_OK;
}

static enum err
entries_join(struct idrun_writer *writer, const struct joined *j,
             struct idrun *const *runs, uint32_t n, struct why *why)
{
    struct idrun_merge merge;
    const struct idrun_detail *detail;
    uint64_t hash;
    uint32_t run;
    enum err err = idrun_merge_open(&merge, runs, n, why);

    if (err != ERR_OK)
        return err;
    while ((err = idrun_merge_next(&merge, &run, &hash, &detail, why)) == ERR_OK) {
        struct idrun_detail moved = *detail;

        if (moved.zone >= runs[run]->header.zones_n) {
            err = err_set(why, ERR_CORRUPT, "%s: an entry is damaged",
                          runs[run]->path);
            break;
        }
        moved.file += j->file_shift[run];
        moved.zone = j->zone_map[(size_t)run * IDRUN_ZONES_MAX + moved.zone];
        err = idrun_add(writer, hash, &moved, why);
        if (err != ERR_OK)
            break;
    }
    idrun_merge_close(&merge);
    return err == ERR_AGAIN ? ERR_OK : err;
}

enum err
idrun_merge(struct idrun *const *runs, uint32_t n, const char *path,
            int64_t from_us, int64_t to_us, struct why *why)
{
    struct idrun_writer *writer = NULL;
    struct joined joined = {0};
    uint64_t count = 0;
    enum err err = tables_join(&joined, runs, n, why);

    for (uint32_t i = 0; i < n; i++)
        count += idrun_count(runs[i]);
    if (err == ERR_OK)
        err = idrun_create(&writer, path, from_us, to_us, count, why);
    if (err == ERR_OK)
        err = entries_join(writer, &joined, runs, n, why);
    if (err == ERR_OK)
        err = idrun_finish(&writer, &joined.tables, NULL, why);
    idrun_abort(&writer);
    joined_free(&joined);
    return err;
}

/* Runs first..first+n-1 are the whole of a finished day: one takes their place. */
static enum err
day_merge(const char *judge_dir, struct idruns *set, uint32_t first, uint32_t n,
          int64_t day_us, struct why *why)
{
    char path[FILE_PATH_MAX];

    if (n == 1 && idrun_from_us(set->runs[first]) == day_us &&
        idrun_to_us(set->runs[first]) == day_us + CLOCK_DAY_US)
        return ERR_OK;
    idrun_path(path, sizeof(path), judge_dir, day_us, day_us + CLOCK_DAY_US);
    return idrun_merge(set->runs + first, n, path, day_us, day_us + CLOCK_DAY_US,
                       why);
}

static enum err
days_merge(const char *judge_dir, int64_t judged_us, struct why *why)
{
    struct idruns set;
    enum err err = idruns_open(&set, judge_dir, INT64_MIN, judged_us, why);

    for (uint32_t i = 0, n; i < set.n && err == ERR_OK; i += n) {
        int64_t day_us = clock_floor(idrun_from_us(set.runs[i]), CLOCK_DAY_US);

        for (n = 1; i + n < set.n &&
                    idrun_from_us(set.runs[i + n]) < day_us + CLOCK_DAY_US;)
            n++;
        if (day_us + CLOCK_DAY_US <= judged_us)
            err = day_merge(judge_dir, &set, i, n, day_us, why);
    }
    idruns_close(&set);
    return err;
}

/* True if a run of these bounds is in the set itself. */
static bool
in_set(const struct idruns *set, int64_t from_us, int64_t to_us)
{
    for (uint32_t i = 0; i < set->n; i++)
        if (idrun_from_us(set->runs[i]) == from_us &&
            idrun_to_us(set->runs[i]) == to_us)
            return true;
    return false;
}

/* Removes each file of DIR/ids that is no run of the set. */
static enum err
rest_remove(const char *judge_dir, const struct idruns *set, struct why *why)
{
    char folder[FILE_PATH_MAX - 256], path[FILE_PATH_MAX];
    const struct dirent *entry;
    DIR *dir;

    (void)snprintf(folder, sizeof(folder), "%s/ids", judge_dir);
    dir = opendir(folder);
    if (dir == NULL)
        return errno == ENOENT ? ERR_OK
                               : err_set(why, ERR_FATAL, "open %s: %s", folder,
                                         strerror(errno));
    while ((entry = readdir(dir)) != NULL) {
        char *end = NULL;
        int64_t from_us = strtoll(entry->d_name, &end, 10);
        int64_t to_us = *end == '-' ? strtoll(end + 1, &end, 10) : 0;

        if (entry->d_name[0] == '.' ||
            (strcmp(end, ".ids") == 0 && in_set(set, from_us, to_us)))
            continue;
        (void)snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        (void)unlink(path);
    }
    (void)closedir(dir);
    return ERR_OK;
}

enum err
idruns_tidy(const char *judge_dir, int64_t forget_us, int64_t judged_us,
            struct why *why)
{
    struct idruns set;
    enum err err = days_merge(judge_dir, judged_us, why);

    if (err == ERR_OK)
        err = idruns_open(&set, judge_dir, forget_us, judged_us, why);
    if (err != ERR_OK)
        return err;
    err = rest_remove(judge_dir, &set, why);
    idruns_close(&set);
    return err;
}

/* Whether an entry is a billed click of the filter's day; zone 0xFFFF: the run has none. */
static bool
wanted(const struct idrun *run, const struct idrun_filter *filter,
       const struct idrun_detail *detail, uint16_t zone)
{
    int64_t to_us = run->files[detail->file].slice_to_us;

    return detail->day == filter->day && detail->zone == zone &&
           verdict_is_billable((enum verdict_kind)detail->kind) &&
           to_us > filter->after_us && to_us <= filter->until_us;
}

static uint16_t
zone_in(const struct idrun *run, struct str name)
{
    for (uint16_t z = 0; z < run->header.zones_n; z++)
        if (str_equal(idrun_zone(run, z), name))
            return z;
    return UINT16_MAX;
}

static enum err
billed_of_set(const struct idruns *set, const uint16_t *zones,
              const struct idrun_filter *filter,
              bool (*visit)(void *ctx, const struct idrun_billed *billed),
              void *ctx, struct why *why)
{
    const struct idrun_detail *detail;
    struct idrun_merge merge;
    uint64_t hash;
    uint32_t run;
    enum err err = idrun_merge_open(&merge, set->runs, set->n, why);

    if (err != ERR_OK)
        return err;
    while ((err = idrun_merge_next(&merge, &run, &hash, &detail, why)) == ERR_OK) {
        struct idrun_billed billed = {.hash = hash, .account = detail->account};

        if (!wanted(set->runs[run], filter, detail, zones[run]))
            continue;
        memcpy(billed.event_id, detail->event_id, sizeof(billed.event_id));
        billed.slice_to_us = set->runs[run]->files[detail->file].slice_to_us;
        if (!visit(ctx, &billed))
            break;
    }
    idrun_merge_close(&merge);
    return err == ERR_AGAIN ? ERR_OK : err;
}

enum err
idrun_billed_each(const char *judge_dir, const struct idrun_filter *filter,
                  bool (*visit)(void *ctx, const struct idrun_billed *billed),
                  void *ctx, struct why *why)
{
    int64_t whole_us = clock_floor(filter->until_us, CLOCK_DAY_US) + CLOCK_DAY_US;
    struct idruns set;
    uint16_t *zones;
    enum err err = idruns_open(&set, judge_dir, filter->after_us, whole_us, why);

    if (err != ERR_OK)
        return err;
    zones = calloc(set.n + 1, sizeof(*zones));
    for (uint32_t i = 0; i < set.n && zones != NULL; i++)
        zones[i] = zone_in(set.runs[i], filter->zone);
    err = zones == NULL ? err_set(why, ERR_NOMEM, "billed ids: no memory")
                        : billed_of_set(&set, zones, filter, visit, ctx, why);
    free(zones);
    idruns_close(&set);
    return err;
}

#include "billing/idrun.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "billing/idrun_file.h"
#include "common/hash.h"

enum { OPEN_TRIES = 3 };

static enum err
read_at(const struct idrun *run, void *out, size_t n, uint64_t at, struct why *why)
{
    uint8_t *p = out;

    while (n > 0) {
        ssize_t got = pread(run->fd, p, n, (off_t)at);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_set(why, ERR_FATAL, "read %s: %s", run->path,
                           strerror(errno));
        if (got == 0)
            return err_set(why, ERR_CORRUPT, "%s: ends too early", run->path);
        p += got;
        at += (uint64_t)got;
        n -= (size_t)got;
    }
    return ERR_OK;
}

static bool
header_good(const struct idrun_header *h)
{
    const uint64_t count_max = UINT64_C(1) << 40;

    return memcmp(h->magic, IDRUN_MAGIC, 8) == 0 && h->version == IDRUN_VERSION &&
           h->chunk == IDRUN_CHUNK &&
           h->sum == hash64(h, offsetof(struct idrun_header, sum), 0) &&
           h->count < count_max && h->files_n <= IDRUN_FILES_MAX &&
           h->zones_n <= IDRUN_ZONES_MAX && h->tables_n <= IDRUN_TABLES_MAX &&
           h->tables_n == (uint64_t)h->files_n * sizeof(struct idrun_file) +
                              ((uint64_t)h->zones_n + h->accounts_n) * 4 +
                              h->text_n;
}

static enum err
tables_load(struct idrun *run, struct why *why)
{
    const struct idrun_header *h = &run->header;
    const uint8_t *p;
    enum err err;

    run->tables = malloc(h->tables_n + 1);
    if (run->tables == NULL)
        return err_set(why, ERR_NOMEM, "id run: no memory");
    err = read_at(run, run->tables, h->tables_n, h->tables_at, why);
    if (err != ERR_OK)
        return err;
    p = run->tables;
    run->files = run->tables;
    p += h->files_n * sizeof(struct idrun_file);
    run->zone_at = (const void *)p;
    run->accounts = run->zone_at + h->zones_n;
    run->text = (const char *)(run->accounts + h->accounts_n);
    ((uint8_t *)run->tables)[h->tables_n] = 0;
    if (hash64(run->tables, h->tables_n, 0) != h->tables_sum)
        return err_set(why, ERR_CORRUPT, "%s: its tables are damaged", run->path);
    return ERR_OK;
}

enum err
idrun_open(struct idrun **out, const char *path, struct why *why)
{
    struct idrun *run = calloc(1, sizeof(*run));
    enum err err = ERR_OK;

    *out = NULL;
    if (run == NULL)
        return err_set(why, ERR_NOMEM, "id run: no memory");
    (void)snprintf(run->path, sizeof(run->path), "%s", path);
    run->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (run->fd < 0)
        err = err_set(why, errno == ENOENT ? ERR_NOTFOUND : ERR_FATAL,
                      "open %s: %s", path, strerror(errno));
    if (err == ERR_OK)
        err = read_at(run, &run->header, sizeof(run->header), 0, why);
    if (err == ERR_OK && !header_good(&run->header))
        err = err_set(why, ERR_CORRUPT, "%s: not an id run, or damaged", path);
    if (err == ERR_OK)
        err = tables_load(run, why);
    if (err != ERR_OK)
        idrun_close(&run);
    *out = run;
    return err;
}

void
idrun_close(struct idrun **run)
{
    if (*run == NULL)
        return;
    if ((*run)->fd >= 0)
        (void)close((*run)->fd);
    free((*run)->tables);
    free(*run);
    *run = NULL;
}

uint64_t
idrun_count(const struct idrun *run)
{
    return run->header.count;
}

int64_t
idrun_from_us(const struct idrun *run)
{
    return run->header.from_us;
}

int64_t
idrun_to_us(const struct idrun *run)
{
    return run->header.to_us;
}

const struct idrun_file *
idrun_file(const struct idrun *run, uint32_t file)
{
    return file < run->header.files_n ? &run->files[file] : NULL;
}

const char *
idrun_file_path(const struct idrun *run, uint32_t file)
{
    uint32_t at =
        file < run->header.files_n ? run->files[file].path_at : UINT32_MAX;

    return at < run->header.text_n ? run->text + at : "";
}

struct str
idrun_zone(const struct idrun *run, uint16_t zone)
{
    uint32_t at = zone < run->header.zones_n ? run->zone_at[zone] : UINT32_MAX;

    return at < run->header.text_n ? str_of(run->text + at) : STR("");
}

const uint32_t *
idrun_accounts(const struct idrun *run, uint32_t *n)
{
    *n = run->header.accounts_n;
    return run->accounts;
}

enum err
idrun_detail_read(struct idrun *run, uint64_t index, struct idrun_detail *out,
                  struct why *why)
{
    enum err err = read_at(run, out, sizeof(*out),
                           run->header.details_at + index * sizeof(*out), why);

    if (err == ERR_OK && out->file >= run->header.files_n)
        err = err_set(why, ERR_CORRUPT, "%s: entry %" PRIu64 " is damaged",
                      run->path, index);
    return err;
}

static enum err
hash_at(struct idrun *run, uint64_t index, uint64_t *hash, struct why *why)
{
    return read_at(run, hash, sizeof(*hash), run->header.hashes_at + index * 8,
                   why);
}

enum err
idrun_find(struct idrun *run, uint64_t hash,
           enum err (*visit)(void *ctx, uint64_t index, struct why *why), void *ctx,
           struct why *why)
{
    uint64_t low = 0, high = run->header.count, here = 0;
    enum err err = ERR_OK;

    while (low < high && err == ERR_OK) {
        uint64_t middle = low + (high - low) / 2;

        err = hash_at(run, middle, &here, why);
        if (here < hash)
            low = middle + 1;
        else
            high = middle;
    }
    for (; err == ERR_OK && low < run->header.count; low++) {
        err = hash_at(run, low, &here, why);
        if (err != ERR_OK || here != hash)
            break;
        err = visit(ctx, low, why);
    }
    return err;
}

enum err
idrun_cursor_open(struct idrun_cursor *cursor, struct idrun *run, bool details,
                  struct why *why)
{
    *cursor = (struct idrun_cursor){.run = run};
    cursor->hashes = malloc(IDRUN_CHUNK * sizeof(*cursor->hashes));
    if (details)
        cursor->details = malloc(IDRUN_CHUNK * sizeof(*cursor->details));
    if (cursor->hashes == NULL || (details && cursor->details == NULL)) {
        idrun_cursor_close(cursor);
        return err_set(why, ERR_NOMEM, "id run: no memory");
    }
    return ERR_OK;
}

void
idrun_cursor_close(struct idrun_cursor *cursor)
{
    free(cursor->hashes);
    free(cursor->details);
    cursor->hashes = NULL;
    cursor->details = NULL;
}

static enum err
cursor_end(const struct idrun_cursor *cursor, struct why *why)
{
    const struct idrun_header *h = &cursor->run->header;

    if (cursor->hashes_sum != h->hashes_sum ||
        (cursor->details != NULL && cursor->details_sum != h->details_sum))
        return err_set(why, ERR_CORRUPT, "%s: its checksum is wrong",
                       cursor->run->path);
    return ERR_AGAIN;
}

enum err
idrun_cursor_chunk(struct idrun_cursor *cursor, struct why *why)
{
    const struct idrun_header *h = &cursor->run->header;
    uint64_t next = cursor->base + cursor->n, left = h->count - next;
    uint32_t n = left < IDRUN_CHUNK ? (uint32_t)left : IDRUN_CHUNK;
    enum err err;

    cursor->base = next;
    cursor->n = n;
    cursor->at = 0;
    if (n == 0)
        return cursor_end(cursor, why);
    err = read_at(cursor->run, cursor->hashes, n * sizeof(uint64_t),
                  h->hashes_at + next * sizeof(uint64_t), why);
    if (err != ERR_OK)
        return err;
    cursor->hashes_sum =
        hash64(cursor->hashes, n * sizeof(uint64_t), cursor->hashes_sum);
    if (cursor->details == NULL)
        return ERR_OK;
    err = read_at(cursor->run, cursor->details, n * sizeof(struct idrun_detail),
                  h->details_at + next * sizeof(struct idrun_detail), why);
    if (err == ERR_OK)
        cursor->details_sum = hash64(
            cursor->details, n * sizeof(struct idrun_detail), cursor->details_sum);
    return err;
}

/* The bounds that a run's name tells. */
struct named {
    int64_t from_us, to_us;
};

static bool
name_parse(const char *name, struct named *out)
{
    char again[64];
    char *end;

    out->from_us = strtoll(name, &end, 10);
    if (end == name || *end != '-')
        return false;
    out->to_us = strtoll(end + 1, NULL, 10);
    (void)snprintf(again, sizeof(again), "%" PRId64 "-%" PRId64 ".ids",
                   out->from_us, out->to_us);
    return strcmp(again, name) == 0;
}

/* By begin; the longer one of two first. */
static int
named_compare(const void *a, const void *b)
{
    const struct named *x = a, *y = b;

    if (x->from_us != y->from_us)
        return x->from_us < y->from_us ? -1 : 1;
    return x->to_us > y->to_us ? -1 : x->to_us < y->to_us;
}

/* The names of finished runs of [since, until), sorted. */
static enum err
names_read(const char *judge_dir, int64_t since_us, int64_t until_us,
           struct named *names, uint32_t *n, struct why *why)
{
    char folder[FILE_PATH_MAX];
    const struct dirent *entry;
    DIR *dir;

    *n = 0;
    (void)snprintf(folder, sizeof(folder), "%s/ids", judge_dir);
    dir = opendir(folder);
    if (dir == NULL && errno == ENOENT)
        return ERR_OK;
    if (dir == NULL)
        return err_set(why, ERR_FATAL, "open %s: %s", folder, strerror(errno));
    while ((entry = readdir(dir)) != NULL) {
        struct named named;

        if (!name_parse(entry->d_name, &named) || named.to_us > until_us ||
            named.to_us <= since_us)
            continue;
        if (*n == IDRUN_RUNS_MAX) {
            (void)closedir(dir);
            return err_set(why, ERR_FULL, "%s: more than %d runs", folder,
                           IDRUN_RUNS_MAX);
        }
        names[(*n)++] = named;
    }
    (void)closedir(dir);
    qsort(names, *n, sizeof(*names), named_compare);
    return ERR_OK;
}

void
idrun_path(char *out, size_t size, const char *judge_dir, int64_t from_us,
           int64_t to_us)
{
    (void)snprintf(out, size, "%s/ids/%" PRId64 "-%" PRId64 ".ids", judge_dir,
                   from_us, to_us);
}

static enum err
open_once(struct idruns *out, const char *judge_dir, int64_t since_us,
          int64_t until_us, struct why *why)
{
    struct named *names = malloc(IDRUN_RUNS_MAX * sizeof(*names));
    int64_t covered_us = INT64_MIN;
    uint32_t n = 0;
    enum err err;

    *out = (struct idruns){0};
    out->runs = calloc(IDRUN_RUNS_MAX, sizeof(struct idrun *));
    if (names == NULL || out->runs == NULL)
        err = err_set(why, ERR_NOMEM, "id runs: no memory");
    else
        err = names_read(judge_dir, since_us, until_us, names, &n, why);
    for (uint32_t i = 0; i < n && err == ERR_OK; i++) {
        char path[FILE_PATH_MAX];

        if (names[i].to_us <= covered_us)
            continue; /* a merge took it in */
        covered_us = names[i].to_us;
        idrun_path(path, sizeof(path), judge_dir, names[i].from_us, names[i].to_us);
        err = idrun_open(&out->runs[out->n], path, why);
        if (err == ERR_OK)
            out->n++;
    }
    free(names);
    if (err != ERR_OK)
        idruns_close(out);
    return err;
}

enum err
idruns_open(struct idruns *out, const char *judge_dir, int64_t since_us,
            int64_t until_us, struct why *why)
{
    enum err err = open_once(out, judge_dir, since_us, until_us, why);

    /* A merge may take a run away between the listing and the opening. */
    for (int i = 0; i < OPEN_TRIES && err == ERR_NOTFOUND; i++)
        err = open_once(out, judge_dir, since_us, until_us, why);
    return err;
}

void
idruns_close(struct idruns *runs)
{
    for (uint32_t i = 0; i < runs->n; i++)
        idrun_close(&runs->runs[i]);
    free(runs->runs);
    *runs = (struct idruns){0};
}

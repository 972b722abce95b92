#include "billing/archive_clean.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "schema/text.h"

#define LIVE_BACK_US (2 * CLOCK_DAY_US)

struct folder {
    const char *dir;
    struct part *parts;
    uint32_t parts_n;
    const char **listed; /* paths, in order */
    size_t listed_n;
};

static int
path_compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool
is_taken(const struct part *part)
{
    return part->fresh && !part->down;
}

/* Whether the archive made this file of that name, for a fresh partition; the judge's are
 * not its to remove. */
static bool
is_ours(const struct folder *folder, const char *name)
{
    char *end;
    unsigned long p;

    if (strncmp(name, "part-", 5) != 0 || strstr(name, ".final.avro") != NULL)
        return false;
    p = strtoul(name + 5, &end, 10);
    /* Nobody's are as if they were ours. */
    return *end != '-' || p >= folder->parts_n || is_taken(&folder->parts[p]);
}

/* The archive file that `name` is, or stands beside. */
static void
owner_of(const char *name, char *out, size_t size)
{
    const char *live = strstr(name, ".live.avro");

    if (live == NULL)
        (void)snprintf(out, size, "%s", name);
    else
        (void)snprintf(out, size, "%.*s.avro", (int)(live - name), name);
}

static void
hour_clean(const struct folder *in, const char *hour)
{
    char folder[FILE_PATH_MAX + 64], path[FILE_PATH_MAX + 512];
    const struct dirent *entry;
    DIR *stream;

    (void)snprintf(folder, sizeof(folder), "%s/%s", in->dir, hour);
    stream = opendir(folder);
    if (stream == NULL)
        return;
    while ((entry = readdir(stream)) != NULL) {
        char owner[256], relative[512];
        const char *key = relative;
        size_t length = strlen(entry->d_name);
        bool temporary =
            length > 4 && strcmp(entry->d_name + length - 4, ".tmp") == 0;

        if (!is_ours(in, entry->d_name))
            continue;
        owner_of(entry->d_name, owner, sizeof(owner));
        (void)snprintf(relative, sizeof(relative), "%s/%s", hour, owner);
        if (!temporary && bsearch(&key, in->listed, in->listed_n,
                                  sizeof(*in->listed), path_compare) != NULL)
            continue;
        (void)snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        (void)unlink(path);
        log_event(LOG_INFO, "archive_unlisted_removed", LOG_TEXT("path", path));
    }
    (void)closedir(stream);
}

/* Unlisted files are of hours that were not complete: none is older than since_day. */
static void
clean(struct folder *in, const struct manifest *manifest, int32_t since_day)
{
    const char **listed = calloc(manifest->files_n + 1, sizeof(*listed));
    const struct dirent *entry;
    DIR *stream = opendir(in->dir);

    for (uint32_t i = 0; i < manifest->files_n && listed != NULL; i++)
        listed[i] = manifest->files[i].path;
    if (listed != NULL)
        qsort(listed, manifest->files_n, sizeof(*listed), path_compare);
    in->listed = listed;
    in->listed_n = manifest->files_n;
    while (stream != NULL && listed != NULL && (entry = readdir(stream)) != NULL) {
        int32_t day;

        if (strncmp(entry->d_name, "date=", 5) != 0 ||
            !date_parse(str_of(entry->d_name + 5), &day) || day < since_day)
            continue;
        for (int hour = 0; hour < 24; hour++) {
            char name[64];

            (void)snprintf(name, sizeof(name), "date=%.10s/hour=%02d",
                           entry->d_name + 5, hour);
            hour_clean(in, name);
        }
    }
    if (stream != NULL)
        (void)closedir(stream);
    free(listed);
    in->listed = NULL;
    in->listed_n = 0;
}

static enum err
live_queue(const struct folder *in, const struct manifest *manifest,
           int64_t since_us, struct why *why)
{
    enum err err = ERR_OK;

    for (uint32_t i = 0; i < manifest->files_n && err == ERR_OK; i++) {
        const struct manifest_file *file = &manifest->files[i];
        char beside[MANIFEST_PATH_MAX + 8], path[FILE_PATH_MAX];

        manifest_beside(file, "live", beside);
        (void)snprintf(path, sizeof(path), "%s/%s", in->dir, beside);
        if (file->last_received_us >= since_us && file->partition < in->parts_n &&
            is_taken(&in->parts[file->partition]) && access(path, F_OK) != 0)
            err = part_live_add(&in->parts[file->partition], file, PART_LOG_UNKNOWN,
                                why);
    }
    return err;
}

enum err
archive_clean(const char *dir, struct part *parts, uint32_t parts_n,
              struct why *why)
{
    struct folder in = {.dir = dir, .parts = parts, .parts_n = parts_n};
    int64_t since_us = clock_now_us() - LIVE_BACK_US, clean_us;
    struct manifest manifest;
    enum err err = manifest_read(&manifest, dir, INT64_MAX, why);

    if (err != ERR_OK)
        return err;
    clean_us = clock_floor(manifest.through_us, CLOCK_DAY_US);
    manifest_free(&manifest);
    err = manifest_read(&manifest, dir, clean_us < since_us ? clean_us : since_us,
                        why);
    if (err != ERR_OK)
        return err;
    clean(&in, &manifest, (int32_t)(clean_us / CLOCK_DAY_US));
    for (uint32_t p = 0; p < parts_n; p++)
        if (is_taken(&parts[p]))
            parts[p].live_first = parts[p].live_n = 0;
    err = live_queue(&in, &manifest, since_us, why);
    manifest_free(&manifest);
    for (uint32_t p = 0; p < parts_n && err == ERR_OK; p++)
        if (is_taken(&parts[p]))
            parts[p].fresh = false;
    return err;
}

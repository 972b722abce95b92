#include "ingest/dlq_files.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"
#include "ingest/ingest.h"

static int
by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool
is_segment(const char *name)
{
    size_t n = strlen(name), suffix = strlen(DLQ_SUFFIX);

    return n > suffix && strcmp(name + n - suffix, DLQ_SUFFIX) == 0;
}

static bool
add(struct dlq_files *files, const char *name)
{
    char **names = realloc(files->names, (files->n + 1) * sizeof(*names));

    if (names == NULL)
        return false;
    files->names = names;
    names[files->n] = strdup(name);
    if (names[files->n] == NULL)
        return false;
    files->n++;
    return true;
}

enum err
dlq_files_list(const char *dir, struct dlq_files *out, struct why *why)
{
    DIR *d = opendir(dir);
    const struct dirent *entry;
    enum err err = ERR_OK;

    *out = (struct dlq_files){0};
    if (d == NULL)
        return err_set(why, errno == ENOENT ? ERR_NOTFOUND : ERR_FATAL, "%s: %s",
                       dir, strerror(errno));
    while (err == ERR_OK && (entry = readdir(d)) != NULL)
        if (is_segment(entry->d_name) && !add(out, entry->d_name))
            err = err_set(why, ERR_NOMEM, "dlq: no memory");
    (void)closedir(d);
    if (err != ERR_OK)
        dlq_files_free(out);
    else if (out->n > 0)
        qsort(out->names, out->n, sizeof(*out->names), by_name);
    return err;
}

void
dlq_files_free(struct dlq_files *files)
{
    for (size_t i = 0; i < files->n; i++)
        free(files->names[i]);
    free(files->names);
    *files = (struct dlq_files){0};
}

void
dlq_files_trim(const char *dir, uint64_t bytes, bool keep_newest)
{
    struct dlq_files files;
    uint64_t total = 0;

    if (dlq_files_list(dir, &files, NULL) != ERR_OK)
        return;
    for (size_t i = files.n; i-- > 0;) {
        char path[FILE_PATH_MAX + 300];
        struct stat st;

        (void)snprintf(path, sizeof(path), "%s/%s", dir, files.names[i]);
        if (stat(path, &st) != 0)
            continue;
        total += (uint64_t)st.st_size;
        if (total > bytes && !(keep_newest && i + 1 == files.n))
            (void)unlink(path);
    }
    dlq_files_free(&files);
}

/* --- clickledger dlq list --- */

struct listing {
    int64_t skip; /* lines before the last `limit` */
    bool json;
    bool counting;
    int64_t lines;
};

static const char *
text_of(const cJSON *object, const char *name)
{
    const char *text =
        cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));

    return text == NULL ? "" : text;
}

static void
line_print(const char *line, bool json)
{
    cJSON *object = json ? NULL : cJSON_Parse(line);

    if (json)
        (void)fputs(line, stdout);
    else if (object != NULL)
        (void)printf("%-24s  %-13s  %-16s  %-36s  %s\n", text_of(object, "time"),
                     text_of(object, "code"), text_of(object, "field"),
                     text_of(object, "event_id"), text_of(object, "message"));
    cJSON_Delete(object);
}

static void
segment_list(struct listing *listing, const char *path)
{
    FILE *file = fopen(path, "r"); /* removed meanwhile: nothing to show */
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;

    while (file != NULL && (n = getline(&line, &cap, file)) > 0) {
        if (line[n - 1] != '\n')
            break; /* cut short by a crash, or still being written */
        if (listing->counting)
            listing->lines++;
        else if (listing->skip > 0)
            listing->skip--;
        else
            line_print(line, listing->json);
    }
    free(line);
    if (file != NULL)
        (void)fclose(file);
}

static void
all_list(struct listing *listing, const char *dir, const struct dlq_files *files)
{
    char path[FILE_PATH_MAX + 300];

    for (size_t i = 0; i < files->n; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", dir, files->names[i]);
        segment_list(listing, path);
    }
}

enum err
dlq_list(const char *data_dir, int limit, bool json, struct why *why)
{
    struct listing listing = {.json = json, .counting = true};
    char dir[FILE_PATH_MAX + 8];
    struct dlq_files files;
    enum err err;

    (void)snprintf(dir, sizeof(dir), "%s/dlq", data_dir);
    err = dlq_files_list(dir, &files, why);
    if (err == ERR_NOTFOUND)
        return ERR_OK; /* nothing was ever refused */
    if (err != ERR_OK)
        return err;
    all_list(&listing, dir, &files);
    listing.counting = false;
    if (limit > 0 && listing.lines > limit)
        listing.skip = listing.lines - limit;
    if (!json && listing.lines > 0)
        (void)printf("%-24s  %-13s  %-16s  %-36s  %s\n", "TIME", "CODE", "FIELD",
                     "EVENT ID", "MESSAGE");
    all_list(&listing, dir, &files);
    dlq_files_free(&files);
    return ERR_OK;
}

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "billing/judge_core.h"
#include "common/buf.h"
#include "common/hash.h"

enum { LINE_MAX_BYTES = 512, LOG_BYTES_MAX = 1 << 28 };

/* "slice FROM TO CLICKS DUPLICATES CONFLICTS RULESET MASTER SHA256" and XXH3 of it. */
static bool
line_parse(const char *line, size_t n, struct judge_slice *out)
{
    uint64_t duplicates, conflicts, sum;
    char text[LINE_MAX_BYTES], hex[65] = "";
    int at = 0;

    if (n >= sizeof(text))
        return false;
    memcpy(text, line, n);
    text[n] = '\0';
    *out = (struct judge_slice){0};
    if (sscanf(text,
               "slice %" SCNd64 " %" SCNd64 " %" SCNu64 " %" SCNu64 " %" SCNu64
               " %" SCNu16 " %" SCNu16 " %64s%n %" SCNx64,
               &out->from_us, &out->to_us, &out->clicks, &duplicates, &conflicts,
               &out->ruleset, &out->master, hex, &at, &sum) != 9 ||
        strlen(hex) != 64 || hash64(text, (size_t)at, 0) != sum)
        return false;
    for (int i = 0; i < 32; i++) {
        char two[3] = {hex[2 * i], hex[2 * i + 1], '\0'};

        out->files_sha256[i] = (uint8_t)strtoul(two, NULL, 16);
    }
    return out->to_us > out->from_us;
}

static void
log_path(char out[FILE_PATH_MAX], const char *judge_dir)
{
    (void)snprintf(out, FILE_PATH_MAX, "%s/judged.log", judge_dir);
}

/* Reads whole lines; *good gets the bytes of the good ones. A damaged line that others
 * follow is damage; the last one is a torn write. */
static enum err
log_read(const char *judge_dir, struct judge_slice **out, uint32_t *n, size_t *good,
         struct why *why)
{
    struct buf text = BUF_MAX(LOG_BYTES_MAX);
    char path[FILE_PATH_MAX];
    uint32_t cap = 0;
    enum err err;

    *out = NULL;
    *n = 0;
    *good = 0;
    log_path(path, judge_dir);
    err = file_read(path, &text, why);
    while (err == ERR_OK && *good < text.n) {
        const char *line = (const char *)text.p + *good;
        const char *end = memchr(line, '\n', text.n - *good);
        struct judge_slice slice;

        if (end == NULL)
            break;
        if (!line_parse(line, (size_t)(end - line), &slice) ||
            (*n > 0 && slice.from_us != (*out)[*n - 1].to_us)) {
            if ((size_t)(end + 1 - (const char *)text.p) < text.n)
                err = err_set(why, ERR_CORRUPT, "%s: line %u is damaged", path,
                              *n + 1);
            break;
        }
        if (*n == cap) {
            struct judge_slice *grown =
                realloc(*out, (cap = cap * 2 + 64) * sizeof(*grown));

            if (grown == NULL) {
                err = err_set(why, ERR_NOMEM, "%s: no memory", path);
                break;
            }
            *out = grown;
        }
        (*out)[(*n)++] = slice;
        *good = (size_t)(end + 1 - (const char *)text.p);
    }
    buf_free(&text);
    if (err != ERR_OK) {
        free(*out);
        *out = NULL;
        *n = 0;
    }
    return err == ERR_NOTFOUND ? ERR_OK : err;
}

enum err
judge_slices(const char *judge_dir, struct judge_slice **out, uint32_t *n,
             struct why *why)
{
    size_t good;

    return log_read(judge_dir, out, n, &good, why);
}

enum err
judge_log_mend(const char *judge_dir, struct why *why)
{
    struct judge_slice *slices;
    char path[FILE_PATH_MAX];
    enum err err;
    uint32_t n;
    size_t good;
    int fd;

    log_path(path, judge_dir);
    err = log_read(judge_dir, &slices, &n, &good, why);
    if (err != ERR_OK)
        return err;
    free(slices);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0)
        return err_set(why, ERR_FATAL, "open %s: %s", path, strerror(errno));
    if (ftruncate(fd, (off_t)good) != 0 || fsync(fd) != 0)
        err = err_set(why, ERR_FATAL, "mend %s: %s", path, strerror(errno));
    (void)close(fd);
    return err == ERR_OK ? file_sync_folder_of(path, why) : err;
}

enum err
judge_log_append(const char *judge_dir, const struct judge_slice *slice,
                 uint64_t duplicates, uint64_t conflicts, struct why *why)
{
    char path[FILE_PATH_MAX], line[LINE_MAX_BYTES], hex[65];
    enum err err;
    int fd, n;

    hash_hex(slice->files_sha256, sizeof(slice->files_sha256), hex);
    n = snprintf(line, sizeof(line),
                 "slice %" PRId64 " %" PRId64 " %" PRIu64 " %" PRIu64 " %" PRIu64
                 " %u %u %s",
                 slice->from_us, slice->to_us, slice->clicks, duplicates, conflicts,
                 slice->ruleset, slice->master, hex);
    n += snprintf(line + n, sizeof(line) - (size_t)n, " %016" PRIx64 "\n",
                  hash64(line, (size_t)n, 0));
    log_path(path, judge_dir);
    fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0)
        return err_set(why, ERR_FATAL, "open %s: %s", path, strerror(errno));
    err = file_write_all(fd, line, (size_t)n, path, why);
    if (err == ERR_OK && fsync(fd) != 0)
        err = err_set(why, ERR_FATAL, "sync %s: %s", path, strerror(errno));
    (void)close(fd);
    return err;
}

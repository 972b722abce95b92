/* DATA/rulesets/N: rules.json, bots.txt, addresses.txt, honeypots.txt, and sha256 (hex). A
 * folder is filled under a name that starts with a dot, synced, then renamed: what has a
 * number is whole. Two processes that keep at once meet at the rename. */

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/file.h"
#include "fraud/ruleset_load.h"

enum { HEX_SIZE = HASH_SHA256_HEX_SIZE, TRIES_MAX = 100 };

struct copy {
    int fd;
    const char *path;
    struct hash_sha256 *sha;
};

static enum err
path_make(char path[FILE_PATH_MAX], const char *dir, const char *name,
          struct why *why)
{
    int n = snprintf(path, FILE_PATH_MAX, "%s/%s", dir, name);

    if (n < 0 || n >= FILE_PATH_MAX)
        return err_set(why, ERR_INVALID, "the path of %.64s is too long", name);
    return ERR_OK;
}

/* True if dir/name is a kept set; hex gets its hash. */
static bool
kept_read(const char *dir, const char *name, char hex[HEX_SIZE])
{
    char folder[FILE_PATH_MAX], path[FILE_PATH_MAX];
    struct buf text = BUF_MAX(HEX_SIZE);
    bool whole = path_make(folder, dir, name, NULL) == ERR_OK &&
                 path_make(path, folder, "sha256", NULL) == ERR_OK &&
                 file_read(path, &text, NULL) == ERR_OK && text.n >= HEX_SIZE - 1;

    if (whole) {
        memcpy(hex, text.p, HEX_SIZE - 1);
        hex[HEX_SIZE - 1] = '\0';
    }
    buf_free(&text);
    return whole;
}

/* *number: of the kept set with this hash, or 0. */
static enum err
kept_find(const char *dir, const char *want, uint16_t *number, struct why *why)
{
    DIR *listing = opendir(dir);
    struct dirent *entry;
    char hex[HEX_SIZE];

    *number = 0;
    if (listing == NULL)
        return err_set(why, ERR_FATAL, "%s: %s", dir, strerror(errno));
    while ((entry = readdir(listing)) != NULL) {
        char *end;
        unsigned long n = strtoul(entry->d_name, &end, 10);

        if (*end != '\0' || n < 1 || n > RULESET_NUMBER_MAX)
            continue;
        if (kept_read(dir, entry->d_name, hex) && strcmp(hex, want) == 0)
            *number = (uint16_t)n;
    }
    (void)closedir(listing);
    return ERR_OK;
}

static enum err
piece_copy(void *ctx, const char *p, size_t n, struct why *why)
{
    struct copy *copy = ctx;

    hash_sha256_add(copy->sha, p, n);
    return file_write_all(copy->fd, p, n, copy->path, why);
}

static enum err
file_copy(const char *tmp, const char *dir, enum ruleset_file file,
          struct hash_sha256 *all, struct why *why)
{
    const char *name = ruleset_file_name(file);
    char path[FILE_PATH_MAX];
    uint8_t sha256[HASH_SHA256_SIZE];
    enum err err = path_make(path, tmp, name, why);

    if (err != ERR_OK)
        return err;
    struct copy copy = {
        .fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640),
        .path = path};

    if (copy.fd < 0)
        return err_set(why, errno == ENOSPC ? ERR_FULL : ERR_FATAL, "%s: %s", path,
                       strerror(errno));
    copy.sha = hash_sha256_new();
    err = ruleset_file_read(dir, file, piece_copy, &copy, why);
    hash_sha256_end(copy.sha, sha256);
    hash_sha256_add(all, name, strlen(name) + 1);
    hash_sha256_add(all, sha256, sizeof(sha256));
    if (err == ERR_OK && fsync(copy.fd) != 0)
        err = err_set(why, ERR_FATAL, "%s: %s", path, strerror(errno));
    (void)close(copy.fd);
    return err;
}

static void
folder_remove(const char *tmp)
{
    char path[FILE_PATH_MAX];

    for (int file = 0; file < RULESET_FILES_N; file++)
        if (path_make(path, tmp, ruleset_file_name((enum ruleset_file)file),
                      NULL) == ERR_OK)
            (void)unlink(path);
    if (path_make(path, tmp, "sha256", NULL) == ERR_OK)
        (void)unlink(path);
    (void)rmdir(tmp);
}

/* Copies every file and the hash to tmp. */
static enum err
folder_fill(const char *tmp, const char *dir, const char *want, struct why *why)
{
    struct hash_sha256 *all = hash_sha256_new();
    uint8_t sha256[HASH_SHA256_SIZE];
    char hex[HEX_SIZE], path[FILE_PATH_MAX];
    enum err err = ERR_OK;

    for (int file = 0; file < RULESET_FILES_N && err == ERR_OK; file++)
        err = file_copy(tmp, dir, (enum ruleset_file)file, all, why);
    hash_sha256_end(all, sha256);
    hash_hex(sha256, sizeof(sha256), hex);
    if (err == ERR_OK && strcmp(hex, want) != 0)
        err = err_set(why, ERR_AGAIN,
                      "the rule set in %s changed while it was read", dir);
    if (err == ERR_OK)
        err = path_make(path, tmp, "sha256", why);
    hex[HEX_SIZE - 1] = '\n';
    return err != ERR_OK ? err : file_write(path, hex, HEX_SIZE, why);
}

uint16_t
ruleset_number_of(const uint8_t sha256[HASH_SHA256_SIZE])
{
    return (uint16_t)(((unsigned)sha256[0] << 8 | sha256[1]) % RULESET_NUMBER_MAX +
                      1);
}

/* Gives tmp the number of its hash, or the next one that is free. */
static enum err
folder_publish(const char *tmp, const char *root, const uint8_t *sha256,
               uint16_t *number, struct why *why)
{
    char name[16], path[FILE_PATH_MAX];
    enum err err = ERR_AGAIN;

    for (unsigned i = 0; i < TRIES_MAX && err == ERR_AGAIN; i++) {
        unsigned n = (ruleset_number_of(sha256) - 1u + i) % RULESET_NUMBER_MAX + 1;

        (void)snprintf(name, sizeof(name), "%u", n);
        err = path_make(path, root, name, why);
        if (err != ERR_OK)
            break;
        *number = (uint16_t)n;
        if (rename(tmp, path) != 0)
            err = err_set(
                why, errno == EEXIST || errno == ENOTEMPTY ? ERR_AGAIN : ERR_FATAL,
                "%s: %s", path, strerror(errno));
    }
    if (err == ERR_AGAIN)
        return err_set(why, ERR_FULL, "%s holds too many rule sets", root);
    return err != ERR_OK ? err : file_sync_folder_of(path, why);
}

enum err
ruleset_keep(const char *data_dir, const char *dir, const uint8_t sha256[32],
             uint16_t *number, struct why *why)
{
    char root[FILE_PATH_MAX], tmp[FILE_PATH_MAX], name[32], want[HEX_SIZE];
    enum err err = path_make(root, data_dir, "rulesets", why);

    hash_hex(sha256, HASH_SHA256_SIZE, want);
    if (err == ERR_OK)
        err = file_mkdirs(root, why);
    if (err == ERR_OK)
        err = kept_find(root, want, number, why);
    if (err != ERR_OK || *number != 0)
        return err;
    (void)snprintf(name, sizeof(name), ".new-%016llx",
                   (unsigned long long)hash_random_u64());
    err = path_make(tmp, root, name, why);
    if (err == ERR_OK)
        err = file_mkdirs(tmp, why);
    if (err != ERR_OK)
        return err;
    err = folder_fill(tmp, dir, want, why);
    if (err == ERR_OK)
        err = folder_publish(tmp, root, sha256, number, why);
    if (err != ERR_OK)
        folder_remove(tmp);
    return err;
}

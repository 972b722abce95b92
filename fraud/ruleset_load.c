#include "fraud/ruleset_load.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/file.h"
#include "fraud/builtin.h"
#include "schema/text.h"

enum { PIECE_SIZE = 65536 };

const char *
ruleset_file_name(enum ruleset_file file)
{
    static const char *const names[] = {
#define X(id, name) name,
        RULESET_FILES(X)
#undef X
    };

    assert(file < RULESET_FILES_N);
    return names[file];
}

static enum err
fd_read(int fd, const char *path,
        enum err (*visit)(void *ctx, const char *p, size_t n, struct why *why),
        void *ctx, struct why *why)
{
    char piece[PIECE_SIZE];
    enum err err = ERR_OK;

    while (err == ERR_OK) {
        ssize_t n = read(fd, piece, sizeof(piece));

        if (n == 0)
            break;
        if (n > 0)
            err = visit(ctx, piece, (size_t)n, why);
        else if (errno != EINTR)
            err = err_set(why, ERR_INVALID, "%s: %s", path, strerror(errno));
    }
    return err;
}

enum err
ruleset_file_read(const char *dir, enum ruleset_file file,
                  enum err (*visit)(void *ctx, const char *p, size_t n,
                                    struct why *why),
                  void *ctx, struct why *why)
{
    const char *name = ruleset_file_name(file), *text = builtin_text(name);
    char path[FILE_PATH_MAX];
    int n = snprintf(path, sizeof(path), "%s/%s", dir, name), fd = -1;
    enum err err;

    assert(text != NULL);
    if (n < 0 || (size_t)n >= sizeof(path))
        return err_set(why, ERR_INVALID, "the rule set's path is too long");
    if (dir[0] != '\0') {
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 && errno != ENOENT)
            return err_set(why, ERR_INVALID, "%s: %s", path, strerror(errno));
    }
    if (fd < 0)
        return visit(ctx, text, strlen(text), why);
    err = fd_read(fd, path, visit, ctx, why);
    (void)close(fd);
    return err;
}

/* One file on its way into the set: its hash, and the line that is not whole yet. */
struct intake {
    struct ruleset *set;
    enum ruleset_file file;
    struct hash_sha256 *sha;
    uint64_t line; /* number of the line being read */
    struct buf rest;
};

static enum err
line_add(struct intake *in, struct str line, struct why *why)
{
    uint8_t ip[IP_SIZE_MAX];
    uint32_t size;

    if (in->file == RULESET_FILE_bots)
        return agents_add(in->set->agents, line, why);
    if (in->file == RULESET_FILE_honeypots)
        return honeypots_add(in->set->honeypots, line, why);
    if (!ip_parse(line, ip, &size))
        return err_set(why, ERR_INVALID, "not a v4 or v6 address");
    return blocklist_add(in->set->addresses, (struct str){(const char *)ip, size},
                         why);
}

static bool
is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* A whole line, without its end. */
static enum err
line_take(struct intake *in, struct str line, struct why *why)
{
    struct why inner = {{0}};
    enum err err = ERR_OK;

    while (line.n > 0 && is_blank(line.p[line.n - 1]))
        line.n--;
    while (line.n > 0 && is_blank(line.p[0])) {
        line.p++;
        line.n--;
    }
    if (line.n > RULESET_LINE_MAX)
        err =
            err_set(&inner, ERR_INVALID, "longer than %d bytes", RULESET_LINE_MAX);
    else if (line.n > 0 && line.p[0] != '#')
        err = line_add(in, line, &inner);
    if (err != ERR_OK)
        (void)err_set(why, err, "%s line %llu: %.160s", ruleset_file_name(in->file),
                      (unsigned long long)in->line, inner.text);
    in->line++;
    return err;
}

static enum err
too_long(const struct intake *in, struct why *why)
{
    if (in->file == RULESET_FILE_rules)
        return err_set(why, ERR_INVALID, "rules.json: over %d bytes",
                       RULESET_JSON_MAX);
    return err_set(why, ERR_INVALID, "%s line %llu: over %d bytes",
                   ruleset_file_name(in->file), (unsigned long long)in->line,
                   RULESET_JSON_MAX);
}

static enum err
piece_take(void *ctx, const char *p, size_t n, struct why *why)
{
    struct intake *in = ctx;
    enum err err = ERR_OK;

    hash_sha256_add(in->sha, p, n);
    while (n > 0 && err == ERR_OK) {
        const char *end =
            in->file == RULESET_FILE_rules ? NULL : memchr(p, '\n', n);
        size_t part = end == NULL ? n : (size_t)(end - p);

        buf_add(&in->rest, p, part);
        if (in->rest.failed)
            return too_long(in, why);
        if (end == NULL)
            break;
        err = line_take(
            in, (struct str){(const char *)in->rest.p, (uint32_t)in->rest.n}, why);
        buf_reset(&in->rest);
        p += part + 1;
        n -= part + 1;
    }
    return err;
}

static enum err
rest_take(struct intake *in, struct why *why)
{
    if (in->file != RULESET_FILE_rules) {
        struct str line = {(const char *)in->rest.p, (uint32_t)in->rest.n};

        return line.n == 0 ? ERR_OK : line_take(in, line, why);
    }
    buf_add(&in->rest, "", 1);
    if (in->rest.failed)
        return too_long(in, why);
    if (strlen((const char *)in->rest.p) + 1 != in->rest.n)
        return err_set(why, ERR_INVALID, "rules.json: has a zero byte");
    return ruleset_rules_parse(&in->set->limits, (const char *)in->rest.p, why);
}

static enum err
file_take(struct ruleset *set, const char *dir, enum ruleset_file file,
          struct hash_sha256 *all, struct why *why)
{
    const char *name = ruleset_file_name(file);
    struct intake in = {.set = set,
                        .file = file,
                        .sha = hash_sha256_new(),
                        .line = 1,
                        .rest = BUF_MAX(RULESET_JSON_MAX)};
    uint8_t sha256[HASH_SHA256_SIZE];
    enum err err = ruleset_file_read(dir, file, piece_take, &in, why);

    if (err == ERR_OK)
        err = rest_take(&in, why);
    hash_sha256_end(in.sha, sha256);
    hash_sha256_add(all, name, strlen(name) + 1);
    hash_sha256_add(all, sha256, sizeof(sha256));
    buf_free(&in.rest);
    return err;
}

/* A misspelt file would silently leave the built-in in its place. */
static enum err
dir_check(const char *dir, struct why *why)
{
    enum err err = ERR_OK;
    struct dirent *entry;

    if (dir[0] == '\0')
        return ERR_OK;
    DIR *listing = opendir(dir);

    if (listing == NULL)
        return err_set(why, ERR_INVALID, "fraud.ruleset_dir: %s: %s", dir,
                       strerror(errno));
    while (err == ERR_OK && (entry = readdir(listing)) != NULL) {
        const char *dot = strrchr(entry->d_name, '.');

        if (entry->d_name[0] == '.' || dot == NULL ||
            builtin_text(entry->d_name) != NULL)
            continue;
        if (strcmp(dot, ".txt") == 0 || strcmp(dot, ".json") == 0)
            err = err_set(why, ERR_INVALID,
                          "%s/%s: no file of a rule set has this name", dir,
                          entry->d_name);
    }
    (void)closedir(listing);
    return err;
}

static enum err
set_new(struct ruleset **out, struct why *why)
{
    struct ruleset *set = calloc(1, sizeof(*set));
    enum err err = ERR_OK;

    if (set == NULL)
        return err_set(why, ERR_NOMEM, "no memory for a rule set");
    set->self = set;
    set->refs = 1;
    *out = set;
    err = agents_open(&set->agents, why);
    if (err == ERR_OK)
        err = blocklist_open(&set->addresses, why);
    if (err == ERR_OK)
        err = honeypots_open(&set->honeypots, why);
    return err;
}

enum err
ruleset_load(struct ruleset **out, const char *dir, struct why *why)
{
    struct ruleset *set = NULL;
    struct hash_sha256 *all = hash_sha256_new();
    enum err err = dir_check(dir, why);

    if (err == ERR_OK)
        err = set_new(&set, why);
    for (int file = 0; file < RULESET_FILES_N && err == ERR_OK; file++)
        err = file_take(set, dir, (enum ruleset_file)file, all, why);
    if (err == ERR_OK)
        err = agents_finish(set->agents, why);
    if (err == ERR_OK)
        err = blocklist_finish(set->addresses, why);
    if (err == ERR_OK)
        err = honeypots_finish(set->honeypots, why);
    uint8_t sha256[HASH_SHA256_SIZE];

    hash_sha256_end(all, sha256);
    if (err != ERR_OK)
        ruleset_free(&set);
    else
        memcpy(set->sha256, sha256, sizeof(sha256));
    *out = set;
    return err;
}

void
ruleset_free(struct ruleset **set)
{
    if (*set == NULL)
        return;
    agents_close(&(*set)->agents);
    blocklist_close(&(*set)->addresses);
    honeypots_close(&(*set)->honeypots);
    free(*set);
    *set = NULL;
}

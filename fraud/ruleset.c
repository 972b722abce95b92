#include "fraud/ruleset.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "common/file.h"
#include "fraud/ruleset_load.h"

/* What a file's state looks like from outside: all zero when it is absent. */
struct stamp {
    int64_t modified_ns, changed_ns, size;
    uint64_t inode;
};

struct ruleset_source {
    char dir[FILE_PATH_MAX];
    char data_dir[FILE_PATH_MAX];         /* "": sets are not kept */
    struct stamp stamps[RULESET_FILES_N]; /* of the files last tried */
    enum err tried;                       /* how that went, and why */
    struct why tried_why;
    pthread_mutex_t lock; /* of current and of all sets' refs */
    struct ruleset *current;
};

static int64_t
ns_of(struct timespec t)
{
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void
stamps_take(const char *dir, struct stamp out[RULESET_FILES_N])
{
    for (int i = 0; i < RULESET_FILES_N; i++) {
        const char *name = ruleset_file_name((enum ruleset_file)i);
        char path[FILE_PATH_MAX];
        struct stat st;
        int n = snprintf(path, sizeof(path), "%s/%s", dir, name);

        out[i] = (struct stamp){0};
        if (dir[0] != '\0' && n > 0 && (size_t)n < sizeof(path) &&
            stat(path, &st) == 0)
            out[i] = (struct stamp){ns_of(st.st_mtim), ns_of(st.st_ctim),
                                    (int64_t)st.st_size, (uint64_t)st.st_ino};
    }
}

/* Loads, and numbers it unless it is the current one; then *out is NULL. */
static enum err
set_load(struct ruleset_source *source, struct ruleset **out, struct why *why)
{
    struct ruleset *current = source->current, *set = NULL;
    enum err err = ruleset_load(&set, source->dir, why);

    *out = NULL;
    if (err != ERR_OK)
        return err;
    if (current != NULL &&
        memcmp(set->sha256, current->sha256, HASH_SHA256_SIZE) == 0) {
        ruleset_free(&set);
        return ERR_OK;
    }
    if (source->data_dir[0] != '\0')
        err = ruleset_keep(source->data_dir, source->dir, set->sha256, &set->number,
                           why);
    else
        set->number = ruleset_number_of(set->sha256);
    if (err != ERR_OK)
        ruleset_free(&set);
    *out = set;
    return err;
}

enum err
ruleset_open(struct ruleset_source **out, const char *dir, const char *data_dir,
             struct why *why)
{
    struct ruleset_source *source = calloc(1, sizeof(*source));
    enum err err = ERR_OK;

    *out = NULL;
    if (source == NULL)
        return err_set(why, ERR_NOMEM, "no memory for rule sets");
    dir = dir == NULL ? "" : dir;
    data_dir = data_dir == NULL ? "" : data_dir;
    (void)pthread_mutex_init(&source->lock, NULL);
    if (strlen(dir) >= FILE_PATH_MAX || strlen(data_dir) >= FILE_PATH_MAX)
        err = err_set(why, ERR_INVALID, "a path has more than %d bytes",
                      FILE_PATH_MAX);
    if (err == ERR_OK) {
        memcpy(source->dir, dir, strlen(dir) + 1);
        memcpy(source->data_dir, data_dir, strlen(data_dir) + 1);
        stamps_take(source->dir, source->stamps);
        err = set_load(source, &source->current, why);
    }
    if (err != ERR_OK)
        ruleset_close(&source);
    *out = source;
    return err;
}

void
ruleset_close(struct ruleset_source **source)
{
    if (*source == NULL)
        return;
    if ((*source)->current != NULL)
        assert((*source)->current->refs == 1); /* every ruleset_take had its drop */
    ruleset_free(&(*source)->current);
    (void)pthread_mutex_destroy(&(*source)->lock);
    free(*source);
    *source = NULL;
}

enum err
ruleset_poll(struct ruleset_source *source, bool *changed, struct why *why)
{
    struct stamp stamps[RULESET_FILES_N];
    struct ruleset *set = NULL;

    *changed = false;
    stamps_take(source->dir, stamps);
    /* A transient failure is tried again, a bad set only when its files change. */
    if (memcmp(stamps, source->stamps, sizeof(stamps)) == 0 &&
        (source->tried == ERR_OK || source->tried == ERR_INVALID))
        return source->tried == ERR_OK
                   ? ERR_OK
                   : err_set(why, source->tried, "%s", source->tried_why.text);
    memcpy(source->stamps, stamps, sizeof(stamps));
    source->tried = set_load(source, &set, &source->tried_why);
    if (source->tried != ERR_OK)
        return err_set(why, source->tried, "%s", source->tried_why.text);
    if (set == NULL)
        return ERR_OK;
    (void)pthread_mutex_lock(&source->lock);
    struct ruleset *before = source->current;

    source->current = set;
    (void)pthread_mutex_unlock(&source->lock);
    ruleset_drop(source, before);
    *changed = true;
    return ERR_OK;
}

const struct ruleset *
ruleset_take(struct ruleset_source *source)
{
    (void)pthread_mutex_lock(&source->lock);
    struct ruleset *set = source->current;

    set->refs++;
    (void)pthread_mutex_unlock(&source->lock);
    return set;
}

void
ruleset_drop(struct ruleset_source *source, const struct ruleset *set)
{
    struct ruleset *self = set->self;
    bool last;

    (void)pthread_mutex_lock(&source->lock);
    assert(self->refs > 0);
    last = --self->refs == 0;
    (void)pthread_mutex_unlock(&source->lock);
    if (last)
        ruleset_free(&self);
}

uint16_t
ruleset_number(const struct ruleset *set)
{
    return set->number;
}

const uint8_t *
ruleset_sha256(const struct ruleset *set)
{
    return set->sha256;
}

const struct ruleset_limits *
ruleset_limits(const struct ruleset *set)
{
    return &set->limits;
}

bool
ruleset_address_bad(const struct ruleset *set, struct str ip)
{
    return blocklist_has(set->addresses, ip);
}

bool
ruleset_honeypot(const struct ruleset *set, struct str ad_id)
{
    static const char word[] = "honeypot";

    return (ad_id.n >= sizeof(word) - 1 &&
            memcmp(ad_id.p, word, sizeof(word) - 1) == 0) ||
           honeypots_has(set->honeypots, ad_id);
}

/* tests/common/clicklog_fixture.h - a folder of its own for each test, entries from a
 * seed, and a reader of the four fields that the log writes. */
#ifndef TESTS_COMMON_CLICKLOG_FIXTURE_H
#define TESTS_COMMON_CLICKLOG_FIXTURE_H

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clicklog.h"

#define MUST(call)                                                            \
    do {                                                                      \
        struct why why_ = {{0}};                                              \
        struct why *why = &why_;                                              \
        enum err err_ = (call);                                               \
        if (err_ != ERR_OK) {                                                 \
            fprintf(stderr, "%s:%d: %s: %s: %s\n", __FILE__, __LINE__, #call, \
                    err_name(err_), why_.text);                               \
            exit(1);                                                          \
        }                                                                     \
    } while (0)

#define CHECK(condition)                                               \
    do {                                                               \
        if (!(condition)) {                                            \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, \
                    #condition);                                       \
            exit(1);                                                   \
        }                                                              \
    } while (0)

struct folder {
    char path[64];
};

static inline struct folder
folder_make(void)
{
    struct folder folder = {"/tmp/test_clicklog.XXXXXX"};

    if (mkdtemp(folder.path) == NULL)
        exit(1);
    return folder;
}

static inline void
path_remove(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    char child[1024];

    if (dir == NULL) {
        (void)unlink(path);
        return;
    }
    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (snprintf(child, sizeof(child), "%s/%s", path, entry->d_name) <
            (int)sizeof(child))
            path_remove(child);
    }
    (void)closedir(dir);
    (void)rmdir(path);
}

static inline void
folder_remove(const struct folder *folder)
{
    path_remove(folder->path);
}

/* splitmix64: a fixed seed makes a fixed test. */
static inline uint64_t
random_next(uint64_t *seed)
{
    uint64_t z = (*seed += 0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static inline uint64_t
zigzag_read(const uint8_t **p)
{
    uint64_t v = 0;
    int shift = 0;

    do
        v |= (uint64_t)(**p & 0x7f) << shift, shift += 7;
    while (*(*p)++ & 0x80);
    return v >> 1; /* none of these is negative */
}

/* The record must say what the log says of it; returns its body. */
static inline struct str
record_body(const struct clicklog_record *record, uint32_t partition)
{
    const uint8_t *p = record->p;
    uint64_t incarnation = 0;

    for (int i = 0; i < 8; i++)
        incarnation = incarnation << 8 | *p++;
    CHECK(incarnation == record->incarnation);
    CHECK(zigzag_read(&p) == partition);
    CHECK(zigzag_read(&p) == record->seq);
    CHECK(zigzag_read(&p) == (uint64_t)record->received_us);
    return (struct str){(const char *)p, record->n - (uint32_t)(p - record->p)};
}

static inline struct clicklog_config
config_of(const struct folder *folder, uint32_t partitions)
{
    return (struct clicklog_config){
        .dir = folder->path,
        .partitions = partitions,
        .map_bytes = UINT64_C(1) << 32,
        .bytes_max = UINT64_C(1) << 30,
        .no_sync = true,
    };
}

#endif

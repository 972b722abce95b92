/* common/config_keys.h - what config.c and config_file.c share: CONFIG_MAP as a table.
 * Nobody else includes it.
 *
 * Threads  Constants.
 */
#ifndef COMMON_CONFIG_KEYS_H
#define COMMON_CONFIG_KEYS_H

#include <stddef.h>

#include "common/config.h"

enum {
#define TEXT(section, key, fallback, prose) CONFIG_KEY_##section##_##key,
#define NUMBER(section, key, fallback, min, max, prose) \
    CONFIG_KEY_##section##_##key,
    CONFIG_MAP(TEXT, NUMBER)
#undef TEXT
#undef NUMBER
        CONFIG_KEYS_N
};

enum { CONFIG_TEXT_MAX = 4096 /* bytes of one value */ };

struct config_key {
    const char *section;
    const char *name;
    const char *prose;
    const char *fallback;
    int64_t min, max; /* numbers */
    size_t offset;    /* in struct config */
    bool number;
};

extern const struct config_key config_keys[CONFIG_KEYS_N];

/* Where a value came from, for the error. */
struct config_origin {
    const char *name; /* a file, a variable, "flag" */
    int line;         /* 0: none */
};

/* The only way into struct config: checks value and stores it. */
enum err config_key_set(struct config *config, const struct config_key *key,
                        const char *value, const struct config_origin *origin,
                        struct why *why);
enum err config_file_set(struct config *config, const char *path, struct why *why);

#endif

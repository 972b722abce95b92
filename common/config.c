#include "common/config_keys.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* POSIX has the program declare it. */
extern char **environ;

#define ENV_PREFIX "CLICKLEDGER_"

enum {
    VARIABLE_MAX = 64,
    TEXT_MAX = CONFIG_TEXT_MAX,
    SHOWN_MAX = 60, /* bytes of a value that an error quotes */
};

const struct config_key config_keys[CONFIG_KEYS_N] = {
#define TEXT(section, key, fallback, prose)    \
    {#section,                                 \
     #key,                                     \
     prose,                                    \
     fallback,                                 \
     0,                                        \
     0,                                        \
     offsetof(struct config, section##_##key), \
     false},
#define NUMBER(section, key, fallback, min, max, prose) \
    {#section,                                          \
     #key,                                              \
     prose,                                             \
     #fallback,                                         \
     min,                                               \
     max,                                               \
     offsetof(struct config, section##_##key),          \
     true},
    CONFIG_MAP(TEXT, NUMBER)
#undef TEXT
#undef NUMBER
};

/* Texts that may only be one of a few words. */
static const struct {
    int key;
    const char *words[5];
} choices[] = {
    {CONFIG_KEY_log_level, {"debug", "info", "warn", "error"}},
    {CONFIG_KEY_log_format, {"logfmt", "json"}},
    {CONFIG_KEY_ingest_ack, {"", "local", "replicated"}},
};

static char **
text_at(struct config *config, const struct config_key *key)
{
    return (char **)(void *)((char *)config + key->offset);
}

static int64_t *
number_at(struct config *config, const struct config_key *key)
{
    return (int64_t *)(void *)((char *)config + key->offset);
}

static const char *
text_of(const struct config *config, const struct config_key *key)
{
    return *(char *const *)(const void *)((const char *)config + key->offset);
}

static int64_t
number_of(const struct config *config, const struct config_key *key)
{
    return *(const int64_t *)(const void *)((const char *)config + key->offset);
}

static const struct config_key *
find(const char *section, size_t section_n, const char *name, size_t name_n)
{
    for (const struct config_key *key = config_keys;
         key < config_keys + CONFIG_KEYS_N; key++)
        if (strlen(key->section) == section_n && strlen(key->name) == name_n &&
            memcmp(key->section, section, section_n) == 0 &&
            memcmp(key->name, name, name_n) == 0)
            return key;
    return NULL;
}

static enum err
refuse(const struct config_key *key, const struct config_origin *origin,
       const char *value, const char *allowed, struct why *why)
{
    char line[32] = "";

    if (origin->line > 0)
        (void)snprintf(line, sizeof(line), " line %d", origin->line);
    return err_set(why, ERR_INVALID, "%s%s: %s.%s is \"%.*s\"; allowed is %s",
                   origin->name, line, key->section, key->name, SHOWN_MAX, value,
                   allowed);
}

static bool
parse_number(const char *text, int64_t *out)
{
    int64_t n = 0;

    if (text[0] == '\0')
        return false;
    for (; *text != '\0'; text++)
        if (*text < '0' || *text > '9' || __builtin_mul_overflow(n, 10, &n) ||
            __builtin_add_overflow(n, *text - '0', &n))
            return false;
    *out = n;
    return true;
}

static enum err
choice_check(const struct config_key *key, const char *value,
             const struct config_origin *origin, struct why *why)
{
    for (size_t i = 0; i < sizeof(choices) / sizeof(choices[0]); i++) {
        if (&config_keys[choices[i].key] != key)
            continue;
        for (size_t j = 0; choices[i].words[j] != NULL; j++)
            if (strcmp(choices[i].words[j], value) == 0)
                return ERR_OK;
        return refuse(key, origin, value, key->prose, why);
    }
    return ERR_OK;
}

enum err
config_key_set(struct config *config, const struct config_key *key,
               const char *value, const struct config_origin *origin,
               struct why *why)
{
    char allowed[80];
    int64_t n;
    enum err err;

    if (key->number) {
        if (parse_number(value, &n) && n >= key->min && n <= key->max) {
            *number_at(config, key) = n;
            return ERR_OK;
        }
        (void)snprintf(allowed, sizeof(allowed), "%" PRId64 " to %" PRId64,
                       key->min, key->max);
        return refuse(key, origin, value, allowed, why);
    }
    if (strlen(value) > TEXT_MAX)
        return refuse(key, origin, value, "a text of at most 4096 bytes", why);
    err = choice_check(key, value, origin, why);
    if (err != ERR_OK)
        return err;

    char *copy = strdup(value);
    if (copy == NULL)
        return err_set(why, ERR_NOMEM, "configuration: no memory");
    free(*text_at(config, key));
    *text_at(config, key) = copy;
    return ERR_OK;
}

static char
upper(char c)
{
    return (char)(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
}

/* "CLICKLEDGER_INGEST_PORT"; without a key "CLICKLEDGER_INGEST_". */
static void
env_name(const struct config_key *key, bool whole, char name[VARIABLE_MAX])
{
    (void)snprintf(name, VARIABLE_MAX, ENV_PREFIX "%s_%s", key->section,
                   whole ? key->name : "");
    for (char *p = name; *p != '\0'; p++)
        *p = upper(*p);
}

/* Our own prefix with a section's name, but no key of it: a slip of the pen. Other
 * variables with our prefix are not configuration. */
static enum err
env_check(const char *variable, struct why *why)
{
    size_t n = strcspn(variable, "=");
    bool ours = false;
    char name[VARIABLE_MAX];

    for (const struct config_key *key = config_keys;
         key < config_keys + CONFIG_KEYS_N; key++) {
        env_name(key, true, name);
        if (strlen(name) == n && memcmp(name, variable, n) == 0)
            return ERR_OK;
        env_name(key, false, name);
        ours =
            ours || (n > strlen(name) && memcmp(name, variable, strlen(name)) == 0);
    }
    return ours ? err_set(why, ERR_INVALID,
                          "environment: %.*s is no key; `clickledger config show` "
                          "lists all",
                          (int)(n < SHOWN_MAX ? n : SHOWN_MAX), variable)
                : ERR_OK;
}

static enum err
env_set(struct config *config, struct why *why)
{
    enum err err = ERR_OK;

    for (char **variable = environ; *variable != NULL && err == ERR_OK; variable++)
        if (strncmp(*variable, ENV_PREFIX, sizeof(ENV_PREFIX) - 1) == 0)
            err = env_check(*variable, why);
    for (const struct config_key *key = config_keys;
         key < config_keys + CONFIG_KEYS_N && err == ERR_OK; key++) {
        char name[VARIABLE_MAX];
        const char *value;

        env_name(key, true, name);
        value = getenv(name);
        if (value != NULL)
            err = config_key_set(config, key, value,
                                 &(struct config_origin){name, 0}, why);
    }
    return err;
}

/* Sets *ours when arg is --section.key=value, or should have been. */
static enum err
flag_set(struct config *config, const char *arg, bool *ours, struct why *why)
{
    size_t name_n, dot;
    const struct config_key *key;

    *ours = false;
    if (strncmp(arg, "--", 2) != 0)
        return ERR_OK;
    name_n = strcspn(arg + 2, "=");
    dot = strcspn(arg + 2, ".=");
    if (dot == name_n)
        return ERR_OK;
    key = find(arg + 2, dot, arg + 2 + dot + 1, name_n - dot - 1);
    if (arg[2 + name_n] == '\0')
        return key == NULL
                   ? ERR_OK
                   : err_set(why, ERR_INVALID, "flag %s: write %s=VALUE", arg, arg);
    *ours = true;
    if (key == NULL)
        return err_set(
            why, ERR_INVALID,
            "flag --%.*s: no such key; `clickledger config show` lists all",
            (int)(name_n < SHOWN_MAX ? name_n : SHOWN_MAX), arg + 2);
    return config_key_set(config, key, arg + 2 + name_n + 1,
                          &(struct config_origin){"flag", 0}, why);
}

static enum err
flags_set(struct config *config, int *argc, char **argv, struct why *why)
{
    int kept = 0, i = 0;
    enum err err = ERR_OK;

    for (; i < *argc && strcmp(argv[i], "--") != 0 && err == ERR_OK; i++) {
        bool ours = false;

        if (i > 0)
            err = flag_set(config, argv[i], &ours, why);
        if (!ours)
            argv[kept++] = argv[i];
    }
    while (i < *argc)
        argv[kept++] = argv[i++];
    if (kept < *argc)
        argv[kept] = NULL;
    *argc = kept;
    return err;
}

static enum err
defaults_set(struct config *config, struct why *why)
{
    enum err err = ERR_OK;

    for (const struct config_key *key = config_keys;
         key < config_keys + CONFIG_KEYS_N && err == ERR_OK; key++)
        err = config_key_set(config, key, key->fallback,
                             &(struct config_origin){"default", 0}, why);
    return err;
}

/* Without brokers nothing of it is used. */
static enum err
kafka_check(const struct config *config, struct why *why)
{
    bool kafka = config->kafka_brokers[0] != '\0';

    if (kafka && config->kafka_min_insync > config->kafka_replication)
        return err_set(
            why, ERR_INVALID,
            "kafka.min_insync is %" PRId64 ", over kafka.replication, %" PRId64
            ": no click could ever be acknowledged; lower it, or raise replication",
            config->kafka_min_insync, config->kafka_replication);
    if (kafka && config->kafka_group[0] == '\0')
        return err_set(why, ERR_INVALID,
                       "kafka.group is empty: the stages' groups are named by it");
    if (kafka && config->kafka_batch_bytes > config->kafka_queue_bytes_max)
        return err_set(why, ERR_INVALID,
                       "kafka.batch_bytes is %" PRId64
                       ", over kafka.queue_bytes_max, %" PRId64,
                       config->kafka_batch_bytes, config->kafka_queue_bytes_max);
    if (!kafka && strcmp(config->ingest_ack, "replicated") == 0)
        return err_set(why, ERR_INVALID,
                       "ingest.ack is replicated, but kafka.brokers is empty: set "
                       "it, or ingest.ack: local");
    return ERR_OK;
}

/* What no key can say alone. */
static enum err
together_check(const struct config *config, struct why *why)
{
    if (config->aggregate_flush_ms > config->aggregate_flush_ms_max)
        return err_set(why, ERR_INVALID,
                       "aggregate.flush_ms is %" PRId64
                       ", over aggregate.flush_ms_max, %" PRId64,
                       config->aggregate_flush_ms, config->aggregate_flush_ms_max);
    if (config->clicklog_keep_bytes >= config->clicklog_bytes_max)
        return err_set(why, ERR_INVALID,
                       "clicklog.keep_bytes is %" PRId64
                       ", not below clicklog.bytes_max, %" PRId64
                       ": the log would be full before it is trimmed",
                       config->clicklog_keep_bytes, config->clicklog_bytes_max);
    if (config->clicklog_bytes_max > config->clicklog_map_bytes)
        return err_set(why, ERR_INVALID,
                       "clicklog.bytes_max is %" PRId64
                       ", over clicklog.map_bytes, %" PRId64,
                       config->clicklog_bytes_max, config->clicklog_map_bytes);
    return kafka_check(config, why);
}

enum err
config_load(struct config *out, const char *path, int *argc, char **argv,
            struct why *why)
{
    enum err err;

    assert(out != NULL);
    assert(argc == NULL || argv != NULL);
    *out = (struct config){0};
    err = defaults_set(out, why);
    if (err == ERR_OK && path != NULL)
        err = config_file_set(out, path, why);
    if (err == ERR_OK)
        err = env_set(out, why);
    if (err == ERR_OK && argc != NULL)
        err = flags_set(out, argc, argv, why);
    if (err == ERR_OK)
        err = together_check(out, why);
    if (err != ERR_OK)
        config_free(out);
    return err;
}

void
config_free(struct config *config)
{
    assert(config != NULL);
    for (const struct config_key *key = config_keys;
         key < config_keys + CONFIG_KEYS_N; key++)
        if (!key->number)
            free(*text_at(config, key));
    *config = (struct config){0};
}

void
config_show(const struct config *config, struct buf *out)
{
    for (const struct config_key *key = config_keys;
         key < config_keys + CONFIG_KEYS_N; key++) {
        if (key == config_keys || strcmp(key->section, key[-1].section) != 0)
            buf_printf(out, "%s%s:\n", key == config_keys ? "" : "\n",
                       key->section);
        buf_printf(out, "  %s: ", key->name);
        if (key->number)
            buf_printf(out, "%" PRId64 "  # %s (%" PRId64 " to %" PRId64 ")\n",
                       number_of(config, key), key->prose, key->min, key->max);
        else {
            buf_add_json(out, str_of(text_of(config, key)));
            buf_printf(out, "  # %s\n", key->prose);
        }
    }
}

void
config_document(struct buf *out)
{
    buf_add_text(out, "| key | default | allowed | meaning |\n|---|---|---|---|\n");
    for (const struct config_key *key = config_keys;
         key < config_keys + CONFIG_KEYS_N; key++) {
        const char *tick = key->fallback[0] == '\0' ? "" : "`";

        buf_printf(out, "| `%s.%s` | %s%s%s | ", key->section, key->name, tick,
                   key->fallback, tick);
        if (key->number)
            buf_printf(out, "%" PRId64 " to %" PRId64, key->min, key->max);
        else
            buf_add_text(out, "text");
        buf_printf(out, " | %s |\n", key->prose);
    }
}

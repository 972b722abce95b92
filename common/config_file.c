#include "common/config_keys.h"

#include <cyaml/cyaml.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"

enum { SECTION_MAX = 64, FILE_BYTES_MAX = 1 << 20 };

/* Everything is read as text, by libcyaml from the file and by us from elsewhere, and
 * then set in one place. A section is a pointer so that an empty one is allowed. */
struct section_texts {
    char *value[CONFIG_KEYS_N];
};

struct file_texts {
    struct section_texts *section[CONFIG_KEYS_N]; /* by the section's first key */
};

struct schema {
    cyaml_schema_value_t top;
    cyaml_schema_field_t sections[CONFIG_KEYS_N + 1];
    cyaml_schema_field_t
        fields[2 * CONFIG_KEYS_N]; /* each section's, ended by an empty one */
};

/* libcyaml's schema from CONFIG_MAP, where the keys of a section stand together. */
static void
schema_make(struct schema *schema)
{
    cyaml_schema_field_t *section = schema->sections, *field = schema->fields;

    *schema = (struct schema){0};
    schema->top = (cyaml_schema_value_t){CYAML_VALUE_MAPPING(
        CYAML_FLAG_POINTER_NULL_STR, struct file_texts, schema->sections)};
    for (size_t i = 0; i < CONFIG_KEYS_N; i++) {
        if (i == 0 ||
            strcmp(config_keys[i].section, config_keys[i - 1].section) != 0) {
            field += i > 0;
            *section++ = (cyaml_schema_field_t){
                .key = config_keys[i].section,
                .data_offset = (uint32_t)(offsetof(struct file_texts, section) +
                                          i * sizeof(struct section_texts *)),
                .value = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER_NULL_STR |
                                                  CYAML_FLAG_OPTIONAL,
                                              struct section_texts, field)}};
        }
        *field++ = (cyaml_schema_field_t){
            .key = config_keys[i].name,
            .data_offset = (uint32_t)(offsetof(struct section_texts, value) +
                                      i * sizeof(char *)),
            .value = {CYAML_VALUE_STRING(CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                                         char *, 0, CONFIG_TEXT_MAX)}};
    }
}

/* What libcyaml says of an error, line by line: what it is, then where, innermost
 * first: "  in mapping field 'ingest' (line: 2, column: 3)". */
struct complaint {
    char what[160];
    char section[SECTION_MAX];
    int line;
};

static void complain(cyaml_log_t level, void *ctx, const char *fmt, va_list ap)
    __attribute__((format(printf, 3, 0)));

static void
complain(cyaml_log_t level, void *ctx, const char *fmt, va_list ap)
{
    static const char load[] = "Load: ", line[] = "(line: ",
                      in[] = "in mapping field '";
    struct complaint *complaint = ctx;
    char text[160];
    const char *at;

    if (level < CYAML_LOG_ERROR)
        return;
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    text[strcspn(text, "\n")] = '\0';
    if (complaint->what[0] == '\0') {
        at = strncmp(text, load, sizeof(load) - 1) == 0 ? text + sizeof(load) - 1
                                                        : text;
        (void)snprintf(complaint->what, sizeof(complaint->what), "%s", at);
        return;
    }
    at = strstr(text, line);
    if (at != NULL && complaint->line == 0)
        complaint->line = (int)strtol(at + sizeof(line) - 1, NULL, 10);
    at = strstr(text, in);
    if (at != NULL) {
        at += sizeof(in) - 1;
        (void)snprintf(complaint->section, sizeof(complaint->section), "%.*s",
                       (int)strcspn(at, "'"), at);
    }
}

/* The line of a key, for keys written in the usual way, a line each; else 0. section
 * is "" for a section itself. libcyaml gives a line only for what it refuses, and then
 * sometimes that of what stands before. */
static int
line_of(const char *text, const char *section, const char *name)
{
    size_t section_n = strlen(section), name_n = strlen(name);
    bool inside = false;

    for (int line = 1; *text != '\0'; line++) {
        const char *word = text + strspn(text, " \"'");
        bool outer = word == text;
        bool named =
            strncmp(word, name, name_n) == 0 && strspn(word + name_n, " \"':") > 0;

        if (named && (section_n == 0 ? outer : inside && !outer))
            return line;
        if (outer && *text != '#' && *text != '\n' && *text != '\r')
            inside =
                strncmp(text, section, section_n) == 0 && text[section_n] == ':';
        text += strcspn(text, "\n");
        text += *text == '\n';
    }
    return 0;
}

static enum err
syntax_error(const char *path, const char *text, struct complaint *complaint,
             struct why *why)
{
    static const char unknown[] = "Unexpected key: ";
    const char *section = complaint->section;
    const char *name = complaint->what + sizeof(unknown) - 1;
    int line;

    if (strncmp(complaint->what, unknown, sizeof(unknown) - 1) != 0)
        return err_set(why, ERR_INVALID, "%s line %d: %s%s%s%s", path,
                       complaint->line, complaint->what,
                       section[0] == '\0' ? "" : " (in ", section,
                       section[0] == '\0' ? "" : ")");
    line = line_of(text, section, name);
    return err_set(
        why, ERR_INVALID,
        "%s line %d: unknown key %s%s%s; `clickledger config show` lists all", path,
        line > 0 ? line : complaint->line, section, section[0] == '\0' ? "" : ".",
        name);
}

static enum err
texts_set(struct config *config, const struct file_texts *texts, const char *path,
          const char *text, struct why *why)
{
    for (size_t i = 0, first = 0; i < CONFIG_KEYS_N; i++) {
        if (strcmp(config_keys[i].section, config_keys[first].section) != 0)
            first = i;

        const struct section_texts *section = texts->section[first];
        if (section == NULL || section->value[i] == NULL)
            continue;

        const struct config_origin origin = {
            path, line_of(text, config_keys[i].section, config_keys[i].name)};
        enum err err = config_key_set(config, &config_keys[i], section->value[i],
                                      &origin, why);
        if (err != ERR_OK)
            return err;
    }
    return ERR_OK;
}

/* text ends in a terminator that n does not count. */
static enum err
yaml_set(struct config *config, const char *path, const struct buf *text,
         struct why *why)
{
    struct complaint complaint = {.line = 0};
    const cyaml_config_t yaml = {.log_fn = complain,
                                 .log_ctx = &complaint,
                                 .mem_fn = cyaml_mem,
                                 .log_level = CYAML_LOG_ERROR,
                                 .flags = CYAML_CFG_NO_ALIAS};
    struct file_texts *texts = NULL;
    struct schema schema;
    enum err err = ERR_OK;

    schema_make(&schema);
    cyaml_err_t rc = cyaml_load_data(text->p, text->n, &yaml, &schema.top,
                                     (cyaml_data_t **)&texts, NULL);
    if (rc == CYAML_ERR_OOM)
        return err_set(why, ERR_NOMEM, "%s: no memory", path);
    if (rc != CYAML_OK && complaint.what[0] == '\0')
        (void)snprintf(complaint.what, sizeof(complaint.what), "%s",
                       cyaml_strerror(rc));
    if (rc != CYAML_OK)
        return syntax_error(path, (const char *)text->p, &complaint, why);
    if (texts == NULL) /* nothing in it */
        return ERR_OK;
    err = texts_set(config, texts, path, (const char *)text->p, why);
    (void)cyaml_free(&yaml, &schema.top, texts, 0);
    return err;
}

enum err
config_file_set(struct config *config, const char *path, struct why *why)
{
    struct buf text = BUF_MAX(FILE_BYTES_MAX);
    enum err err = file_read(path, &text, why);

    if (err == ERR_OK && text.n > 0 && memchr(text.p, '\0', text.n) != NULL)
        err = err_set(why, ERR_INVALID, "%s: holds a zero byte", path);
    if (err == ERR_OK) {
        text.max++;
        buf_add(&text, "", 1);
        if (text.failed)
            err = err_set(why, ERR_NOMEM, "%s: no memory", path);
        else
            text.n--;
    }
    if (err == ERR_OK && text.n > 0)
        err = yaml_set(config, path, &text, why);
    buf_free(&text);
    return err;
}

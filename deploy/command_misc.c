#include "deploy/command.h"

#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/kafka.h"
#include "ingest/ingest.h"
#include "schema/click.h"

enum { TEXT_MAX = 1 << 20, DLQ_LIMIT = 100, DLQ_LIMIT_MAX = 1000000 };

static int
buf_print(struct buf *out)
{
    bool good = !out->failed && fwrite(out->p, 1, out->n, stdout) == out->n;

    buf_free(out);
    return good ? EXIT_GOOD : EXIT_FAILED;
}

int
command_dlq(const struct command *c, struct config *config, struct args *args)
{
    int64_t limit = args_number(args, "--limit", 1, DLQ_LIMIT_MAX, DLQ_LIMIT);
    bool json = args_flag(args, "--json");
    const char *verb = args_word(args);
    struct why why = {{0}};

    if (!args_done(args, c))
        return EXIT_USAGE;
    if (verb == NULL || strcmp(verb, "list") != 0) {
        fprintf(stderr, "clickledger dlq: say list\n");
        return EXIT_USAGE;
    }
    enum err err = dlq_list(config->data_dir, (int)limit, json, &why);
    return err == ERR_OK ? EXIT_GOOD : command_failed(c, err, &why);
}

int
command_config(const struct command *c, struct config *config, struct args *args)
{
    const char *verb = args_word(args);
    struct buf out = BUF_MAX(TEXT_MAX);

    if (!args_done(args, c))
        return EXIT_USAGE;
    if (verb != NULL && strcmp(verb, "check") == 0) {
        struct why why = {""};
        enum err err = kafka_settings_check(config, &why);

        if (err != ERR_OK) {
            fprintf(stderr, "clickledger: configuration: %s\n", why.text);
            return EXIT_CONFIG;
        }
        puts("configuration is good");
        return EXIT_GOOD;
    }
    if (verb != NULL && strcmp(verb, "show") == 0) {
        config_show(config, &out);
        return buf_print(&out);
    }
    if (verb != NULL && strcmp(verb, "document") == 0) {
        config_document(&out);
        return buf_print(&out);
    }
    fprintf(stderr, "clickledger config: say check, show or document\n");
    return EXIT_USAGE;
}

int
command_schema(const struct command *c, struct config *config, struct args *args)
{
    const char *verb = args_word(args);
    struct buf out = BUF_MAX(TEXT_MAX);

    (void)config;
    if (!args_done(args, c))
        return EXIT_USAGE;
    if (verb != NULL && strcmp(verb, "avro") == 0) {
        buf_add_text(&out, click_schema(CLICK_VERSION));
        return buf_print(&out);
    }
    if (verb != NULL && strcmp(verb, "fields") == 0) {
        click_document(&out);
        return buf_print(&out);
    }
    fprintf(stderr, "clickledger schema: say fields or avro\n");
    return EXIT_USAGE;
}

int
command_version(const struct command *c, struct config *config, struct args *args)
{
    (void)config;
    if (!args_done(args, c))
        return EXIT_USAGE;
    puts("clickledger " CLICKLEDGER_VERSION);
    return EXIT_GOOD;
}

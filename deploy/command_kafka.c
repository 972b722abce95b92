#include "deploy/command.h"

#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "schema/topics.h"

enum { REPORT_MAX = 1 << 18 };

static int
report_print(struct buf *report)
{
    bool good =
        !report->failed &&
        (report->n == 0 || fwrite(report->p, 1, report->n, stdout) == report->n);

    return good ? EXIT_GOOD : EXIT_FAILED;
}

/* The lines "TOPIC: what was done" as an array of objects. */
static void
lines_to_json(const struct buf *lines, struct buf *json)
{
    const char *at = (const char *)lines->p, *end = at;

    if (lines->n > 0)
        end += lines->n;
    buf_add_text(json, "[");
    while (at < end) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        const char *colon = memchr(at, ':', (size_t)(end - at));

        if (line_end == NULL || colon == NULL || colon + 2 > line_end)
            break;
        buf_add_text(json, json->n == 1 ? "{\"topic\":" : ",{\"topic\":");
        buf_add_json(json, (struct str){at, (uint32_t)(colon - at)});
        buf_add_text(json, ",\"done\":");
        buf_add_json(json,
                     (struct str){colon + 2, (uint32_t)(line_end - colon - 2)});
        buf_add_text(json, "}");
        at = line_end + 1;
    }
    buf_add_text(json, "]\n");
}

static int
topics_run(const struct command *c, const struct config *config, bool create,
           bool json)
{
    struct buf report = BUF_MAX(REPORT_MAX), made = BUF_MAX(REPORT_MAX);
    struct why why = {{0}};
    enum err err;

    if (create) {
        err = topics_create(config, json ? &made : &report, &why);
        if (json)
            lines_to_json(&made, &report);
    } else {
        err = topics_check(config, json, &report, &why);
        if (err == ERR_OK && !json)
            buf_add_text(&report, "topics are good\n");
    }
    int code = report_print(&report);
    if (err != ERR_OK) {
        code = command_failed(c, err, &why);
        /* What a topic has is no fault of the configuration; no report is "[]" at most. */
        if (err == ERR_INVALID)
            code = create || report.n <= 3 ? EXIT_CONFIG : EXIT_FAILED;
    }
    buf_free(&report);
    buf_free(&made);
    return code;
}

int
command_topics(const struct command *c, struct config *config, struct args *args)
{
    bool json = args_flag(args, "--json");
    const char *verb = args_word(args);

    if (!args_done(args, c))
        return EXIT_USAGE;
    bool create = verb != NULL && strcmp(verb, "create") == 0;
    if (!create && (verb == NULL || strcmp(verb, "check") != 0)) {
        fprintf(stderr, "clickledger topics: say create or check\n");
        return EXIT_USAGE;
    }
    return topics_run(c, config, create, json);
}

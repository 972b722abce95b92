/* clickledger relay: the stage itself, and looking at it, from any process. */
#include "deploy/command.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/kafka.h"
#include "deploy/forget.h"
#include "deploy/stages.h"

enum { TEXT_MAX = 1 << 20, HEAR_US = 10000000 };

struct relay_view {
    struct clicklog *log; /* the spool, read-only */
    struct relay_cursor *cursor;
    struct control *control;
    char dir[FILE_PATH_MAX];
};

static void
view_close(struct relay_view *view)
{
    control_close(&view->control);
    relay_cursor_close(&view->cursor);
    clicklog_close(&view->log);
}

static enum err
view_open(struct relay_view *view, const struct config *config, struct why *why)
{
    *view = (struct relay_view){0};
    if (!kafka_wanted(config))
        return err_set(why, ERR_INVALID,
                       "kafka.brokers is empty: there is nothing to relay to");
    relay_dir(config, view->dir);
    enum err err = stages_spool_open(config, true, &view->log, why);
    if (err == ERR_OK)
        err = relay_cursor_open(&view->cursor, view->dir, view->log, why);
    if (err == ERR_OK)
        err = control_open(&view->control, config, clicklog_partitions(view->log),
                           why);
    if (err != ERR_OK)
        view_close(view);
    return err;
}

/* What is archived of this spool; 0: nothing that it knows. */
static enum err
archived_get(struct relay_view *view, uint64_t *listed, struct why *why)
{
    struct clicklog_last archived[CLICKLOG_PARTITIONS_MAX] = {{0, 0}};
    enum err err = ERR_OK;

    control_archived_get(view->control, archived);
    for (uint32_t p = 0; err == ERR_OK && p < clicklog_partitions(view->log); p++) {
        listed[p] = 0;
        if (archived[p].count > 0)
            err = clicklog_offset_of(view->log, p, archived[p], &listed[p], why);
        if (err == ERR_NOTFOUND) /* it is of the one before this */
            err = ERR_OK;
    }
    return err;
}

struct row {
    uint64_t first, next, sent, archived;
};

static enum err
row_get(struct relay_view *view, uint32_t p, const uint64_t *listed,
        struct row *row, struct why *why)
{
    row->sent = relay_cursor_get(view->cursor, p);
    row->archived = listed[p];
    return clicklog_range(view->log, p, &row->first, &row->next, why);
}

static enum err
status_print(struct relay_view *view, bool json, struct buf *out, struct why *why)
{
    uint64_t listed[CLICKLOG_PARTITIONS_MAX] = {0}, backlog = 0;
    struct clicklog_stats stats;
    struct why unheard = {{0}};
    enum err err = ERR_OK;

    clicklog_stats_get(view->log, &stats);
    bool heard = control_sync(view->control, HEAR_US, &unheard) == ERR_OK;
    err = archived_get(view, listed, why);
    buf_printf(out,
               json ? "{\"spool\":\"%016" PRIx64 "\",\"partitions\":["
                    : "spool %016" PRIx64 "\n%9s %14s %14s %14s %14s\n",
               stats.spool_id, "partition", "first held", "next", "acknowledged",
               "archived");
    for (uint32_t p = 0; err == ERR_OK && p < clicklog_partitions(view->log); p++) {
        struct row row = {0};

        err = row_get(view, p, listed, &row, why);
        backlog += row.next > row.sent ? row.next - row.sent : 0;
        if (json)
            buf_printf(out,
                       "%s{\"partition\":%u,\"first\":%" PRIu64 ",\"next\":%" PRIu64
                       ",\"acknowledged\":%" PRIu64 ",\"archived\":%" PRIu64 "}",
                       p == 0 ? "" : ",", p, row.first, row.next, row.sent,
                       row.archived);
        else
            buf_printf(out,
                       "%9u %14" PRIu64 " %14" PRIu64 " %14" PRIu64 " %14" PRIu64
                       "\n",
                       p, row.first, row.next, row.sent, row.archived);
    }
    buf_printf(out,
               json ? "],\"backlog\":%" PRIu64 ",\"kafka\":\"%s\"}\n"
                    : "%" PRIu64 " clicks to send; Kafka %s\n",
               backlog, heard ? "answers" : "is away");
    return err;
}

static enum err
rewind_run(struct relay_view *view, int64_t partition, int64_t offset,
           struct why *why)
{
    uint64_t listed[CLICKLOG_PARTITIONS_MAX] = {0}, from = 0;
    enum err err = offset >= 0 ? ERR_OK : control_sync(view->control, HEAR_US, why);

    if (err == ERR_OK)
        err = archived_get(view, listed, why);
    for (uint32_t p = 0; err == ERR_OK && p < clicklog_partitions(view->log); p++) {
        uint64_t to = offset >= 0 ? (uint64_t)offset : listed[p];

        if (partition >= 0 && p != (uint32_t)partition)
            continue;
        err = relay_rewind(view->dir, view->log, p, to, &from, why);
        if (err == ERR_OK)
            printf("partition %u is sent again from offset %" PRIu64 "%s\n", p,
                   from, from > to ? " (the first that the log still holds)" : "");
    }
    return err;
}

static enum err
verb_run(const struct config *config, const char *verb, bool json,
         int64_t partition, int64_t offset, struct why *why)
{
    struct buf out = BUF_MAX(TEXT_MAX);
    struct relay_view view;
    enum err err = view_open(&view, config, why);

    if (err != ERR_OK)
        return err;
    if (strcmp(verb, "status") == 0)
        err = status_print(&view, json, &out, why);
    else
        err = rewind_run(&view, partition, offset, why);
    if (err == ERR_OK && out.n > 0)
        (void)fwrite(out.p, 1, out.n, stdout);
    buf_free(&out);
    view_close(&view);
    return err;
}

int
command_relay(const struct command *c, struct config *config, struct args *args)
{
    int64_t partition = args_number(args, "--partition", 0, INT32_MAX, -1);
    int64_t offset = args_number(args, "--offset", 0, INT64_MAX, -1);
    bool json = args_flag(args, "--json"), force = args_flag(args, "--force");
    const char *verb = args_word(args);
    bool forgets = verb != NULL && strcmp(verb, "forget") == 0;
    const struct forget forget = {forgets ? args_word(args) : NULL, force, json};
    struct why why = {{0}};

    if (verb == NULL && kafka_wanted(config))
        return command_run(c, config, args);
    if (!args_done(args, c))
        return EXIT_USAGE;
    if (verb == NULL) {
        fprintf(stderr, "clickledger relay: kafka.brokers is empty: without Kafka "
                        "there is no relay\n");
        return EXIT_CONFIG;
    }
    if (strcmp(verb, "status") != 0 && strcmp(verb, "rewind") != 0 &&
        strcmp(verb, "forget") != 0) {
        fprintf(stderr,
                "clickledger relay: say nothing, status, rewind or forget\n");
        return EXIT_USAGE;
    }
    enum err err = forgets ? spool_forget(config, &forget, &why)
                           : verb_run(config, verb, json, partition, offset, &why);
    return err == ERR_OK ? EXIT_GOOD : command_failed(c, err, &why);
}

#include "deploy/command.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "billing/close.h"
#include "billing/invoice.h"
#include "billing/judge.h"
#include "billing/reconcile.h"
#include "common/clicklog.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/kafka.h"
#include "deploy/session.h"
#include "deploy/stages.h"
#include "ingest/relay.h"
#include "schema/manifest.h"
#include "schema/text.h"

enum { ROLL_WAIT_S = 30, LIVE_WAIT_S = 5, OUT_BYTES_MAX = 1 << 30 };

static enum err
judge_until(struct session *session, int64_t until_us, bool forced,
            struct judge_result *result, struct why *why)
{
    struct progress progress = {.what = "judge"};
    enum err err = ERR_OK;

    /* Whatever came before this moment must be on file before it can be judged. */
    if (forced)
        err = manifest_roll_wait(session->archive_dir, until_us,
                                 ROLL_WAIT_S * CLOCK_SECOND_US, why);
    if (err != ERR_OK)
        return err;
    const struct judge_input in = {
        .config = session->config,
        .archive_dir = session->archive_dir,
        .judge_dir = session->judge_dir,
        .master = session->snapshot,
        .rules = session->rules,
        .until_us = until_us,
        .forced = forced,
        .progress = progress_show,
        .progress_ctx = &progress,
    };
    err = judge_run(&in, result, why);
    progress_end(&progress);
    return err;
}

int
command_judge(const struct command *c, struct config *config, struct args *args)
{
    const char *until = args_text(args, "--until");
    bool forced = args_flag(args, "--now"), json = args_flag(args, "--json");
    int64_t until_ms = clock_now_us() / 1000;
    struct judge_result result = {0};
    struct session session;
    struct why why = {{0}};
    char text[CLOCK_TEXT_SIZE];

    if (until != NULL && !rfc3339_parse(str_of(until), &until_ms)) {
        fprintf(stderr, "clickledger judge: --until '%s' is no RFC 3339 time\n",
                until);
        return EXIT_USAGE;
    }
    if (!args_done(args, c))
        return EXIT_USAGE;
    enum err err = session_open(&session, config, &why);
    if (err == ERR_OK)
        err = judge_until(&session, until_ms * 1000, forced, &result, &why);
    session_close(&session);
    if (err != ERR_OK)
        return command_failed(c, err, &why);
    printf(
        json ? "{\"slices\":%llu,\"clicks\":%llu,\"duplicates\":%llu,\"conflicts\":"
               "%llu,"
               "\"judged_until\":\"%s\"}\n"
             : "%llu slices, %llu clicks judged, %llu duplicates, %llu conflicts; "
               "judged until %s\n",
        (unsigned long long)result.slices, (unsigned long long)result.clicks,
        (unsigned long long)result.duplicates, (unsigned long long)result.conflicts,
        clock_format_ms(result.judged_until_us / 1000, text));
    return EXIT_GOOD;
}

/* The counts of this machine's log, if it has one: a running ingest may write on. */
static enum err
log_open(const struct config *config, struct clicklog **log, struct why *why)
{
    char dir[FILE_PATH_MAX];

    (void)snprintf(dir, sizeof(dir), "%s/log", config->data_dir);
    *log = NULL;
    if (access(dir, F_OK) != 0)
        return ERR_OK;
    return stages_spool_open(config, true, log, why);
}

/* With Kafka: how much of it the brokers have. */
static enum err
log_sent(const struct config *config, struct clicklog *log, int64_t *sent_us,
         struct why *why)
{
    char dir[FILE_PATH_MAX];

    if (log == NULL || !kafka_wanted(config))
        return ERR_OK;
    relay_dir(config, dir);
    enum err err = relay_sent(dir, log, sent_us, why);
    if (*sent_us == 0)
        *sent_us = 1; /* nothing */
    return err;
}

static enum err
day_close(struct session *session, int32_t day, const char *zone, bool force,
          struct close_result *result, struct why *why)
{
    struct progress progress = {.what = "close"};
    struct judge_result judged = {0};
    int64_t now_us = clock_now_us();
    int64_t until_us = force ? now_us : clock_floor(now_us, CLOCK_HOUR_US);
    int64_t sent_us = 0;
    struct clicklog *log = NULL;
    enum err err = judge_until(session, until_us, force, &judged, why);

    if (err == ERR_OK)
        err = log_open(session->config, &log, why);
    if (err == ERR_OK)
        err = log_sent(session->config, log, &sent_us, why);
    if (err != ERR_OK) {
        clicklog_close(&log);
        return err;
    }
    const struct close_input in = {
        .config = session->config,
        .archive_dir = session->archive_dir,
        .judge_dir = session->judge_dir,
        .master = session->snapshot,
        .pg = session->pg,
        .log = log,
        .sent_us = sent_us,
        .day = day,
        .zone = zone,
        .now_us = now_us,
        .force = force,
        .progress = progress_show,
        .progress_ctx = &progress,
    };
    err = close_day(&in, result, why);
    clicklog_close(&log);
    progress_end(&progress);
    return err;
}

int
command_close(const struct command *c, struct config *config, struct args *args)
{
    int32_t day = args_day(args, "--day");
    const char *zone = args_text(args, "--zone");
    bool force = args_flag(args, "--force"), json = args_flag(args, "--json");
    struct close_result result = {0};
    struct session session;
    struct why why = {{0}};
    char text[12];

    if (!args_done(args, c))
        return EXIT_USAGE;
    enum err err = session_open(&session, config, &why);
    if (err == ERR_OK)
        err = day_close(&session, day, zone, force, &result, &why);
    session_close(&session);
    if (err != ERR_OK)
        return command_failed(c, err, &why);
    printf(
        json ? "{\"day\":\"%s\",\"new\":%u,\"same\":%u,\"late\":%u,\"blocked\":%u,"
               "\"early\":%u,"
               "\"clicks\":%llu,\"billable\":%llu,\"recounted\":%llu}\n"
             : "%s: %u runs posted, %u unchanged, %u late, %u blocked, %u not yet "
               "due; "
               "%llu clicks, "
               "%llu billable\n",
        date_format(day, text), result.runs_new, result.runs_same, result.runs_late,
        result.runs_blocked, result.runs_early, (unsigned long long)result.clicks,
        (unsigned long long)result.billable, (unsigned long long)result.recounted);
    if (!json && result.recounted > 0)
        printf("%llu of them were counted from the archive: the ingest log that "
               "received them is lost (the certificates say which)\n",
               (unsigned long long)result.recounted);
    return result.runs_blocked > 0 ? EXIT_FAILED : EXIT_GOOD;
}

/* Live verdicts reach the archive a second or two after their clicks: waits that long. */
static enum err
day_reconcile(struct session *session, int32_t day, bool json, struct buf *out,
              struct reconcile_result *result, struct why *why)
{
    enum err err = ERR_OK;

    for (int try = 0; try < LIVE_WAIT_S; try++) {
        buf_reset(out);
        err = reconcile_day(session->archive_dir, session->snapshot, day, json, out,
                            result, why);
        if (err != ERR_OK || result->live_missing == 0)
            break;
        clock_sleep_us(CLOCK_SECOND_US);
    }
    return err;
}

int
command_reconcile(const struct command *c, struct config *config, struct args *args)
{
    int32_t day = args_day(args, "--day");
    bool json = args_flag(args, "--json");
    struct reconcile_result result = {0};
    struct buf out = BUF_MAX(OUT_BYTES_MAX);
    struct session session;
    struct why why = {{0}};

    if (!args_done(args, c))
        return EXIT_USAGE;
    enum err err = session_open(&session, config, &why);
    if (err == ERR_OK)
        err = day_reconcile(&session, day, json, &out, &result, &why);
    session_close(&session);
    if (err == ERR_OK)
        (void)fwrite(out.p, 1, out.n, stdout);
    buf_free(&out);
    if (err != ERR_OK)
        return command_failed(c, err, &why);
    return result.unexplained > 0 ? EXIT_FAILED : EXIT_GOOD;
}

struct invoice_options {
    const char *verb, *month, *advertiser, *number, *format, *out;
    bool partial, json;
};

static enum err
out_write(const char *path, const struct buf *out, struct why *why)
{
    if (path != NULL)
        return file_write(path, out->p, out->n, why);
    if (fwrite(out->p, 1, out->n, stdout) != out->n)
        return err_set(why, ERR_FATAL, "standard output cannot be written");
    return ERR_OK;
}

static enum err
invoice_act(struct session *session, const struct invoice_options *o,
            struct why *why)
{
    struct invoice_result result = {0};
    struct buf out = BUF_MAX(OUT_BYTES_MAX);
    struct progress progress = {.what = o->verb};
    const struct invoice_watch watch = {progress_show, &progress};
    enum err err;

    if (strcmp(o->verb, "draft") == 0) {
        err = invoice_draft(session->pg, o->month, o->advertiser, &watch, &result,
                            why);
    } else if (strcmp(o->verb, "finalise") == 0) {
        int64_t grace_us =
            session->config->billing_invoice_grace_s * CLOCK_SECOND_US;
        err = invoice_finalise(session->pg, o->month, o->advertiser, o->partial,
                               clock_now_us(), grace_us, &watch, &result, why);
    } else {
        err = strcmp(o->verb, "list") == 0
                  ? invoice_list(session->pg, o->month, o->json, &out, why)
                  : invoice_export_csv(session->pg, o->month, o->number, &out, why);
        if (err == ERR_OK)
            err = out_write(o->out, &out, why);
        buf_free(&out);
        return err;
    }
    progress_end(&progress);
    if (err == ERR_OK)
        printf("%s %s: %u invoices, %u lines\n", o->verb, o->month, result.invoices,
               result.lines);
    return err;
}

static bool
invoice_usage_good(const struct invoice_options *o)
{
    int32_t day;
    char first[16];
    static const char *const verbs[] = {"draft", "finalise", "list", "export"};
    bool known = false;

    for (int i = 0; i < 4; i++)
        known = known || (o->verb != NULL && strcmp(o->verb, verbs[i]) == 0);
    if (!known) {
        fprintf(stderr,
                "clickledger invoice: say draft, finalise, list or export\n");
        return false;
    }
    if (o->month == NULL || strlen(o->month) != 7 ||
        snprintf(first, sizeof(first), "%.7s-01", o->month) < 0 ||
        !date_parse(str_of(first), &day)) {
        fprintf(stderr,
                "clickledger invoice: --month needs a month such as 2026-11\n");
        return false;
    }
    if (o->format != NULL && strcmp(o->format, "csv") != 0) {
        fprintf(stderr,
                "clickledger invoice: --format '%s' is not known: use csv\n",
                o->format);
        return false;
    }
    return true;
}

int
command_invoice(const struct command *c, struct config *config, struct args *args)
{
    const struct invoice_options options = {
        .month = args_text(args, "--month"),
        .advertiser = args_text(args, "--advertiser"),
        .number = args_text(args, "--number"),
        .format = args_text(args, "--format"),
        .out = args_text(args, "--out"),
        .partial = args_flag(args, "--partial"),
        .json = args_flag(args, "--json"),
        .verb = args_word(args),
    };
    struct session session;
    struct why why = {{0}};

    if (!args_done(args, c) || !invoice_usage_good(&options))
        return EXIT_USAGE;
    enum err err = session_open(&session, config, &why);
    if (err == ERR_OK)
        err = invoice_act(&session, &options, &why);
    session_close(&session);
    return err == ERR_OK ? EXIT_GOOD : command_failed(c, err, &why);
}

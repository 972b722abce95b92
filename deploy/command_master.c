#include "deploy/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/file.h"
#include "deploy/session.h"
#include "schema/master_import.h"
#include "schema/master_key.h"

enum { REPORT_BYTES_MAX = 64 << 20, EXPORT_BYTES_MAX = 1 << 30 };

static int
campaign_import(const struct command *c, struct session *session, const char *path,
                bool dry_run)
{
    struct buf report = BUF_MAX(REPORT_BYTES_MAX);
    struct why why = {{0}};

    enum err err = master_import(session->pg, path, dry_run, &report, &why);
    (void)fwrite(report.p, 1, report.n, err == ERR_OK ? stdout : stderr);
    buf_free(&report);
    /* A file with errors is a failed job, not a wrong command line. */
    if (err == ERR_INVALID) {
        (void)command_failed(c, err, &why);
        return EXIT_FAILED;
    }
    return err == ERR_OK ? EXIT_GOOD : command_failed(c, err, &why);
}

static int
campaign_export(const struct command *c, struct session *session, const char *path)
{
    struct buf csv = BUF_MAX(EXPORT_BYTES_MAX);
    struct why why = {{0}};

    enum err err = master_export(session->pg, &csv, &why);
    if (err == ERR_OK && path != NULL)
        err = file_write(path, csv.p, csv.n, &why);
    else if (err == ERR_OK)
        (void)fwrite(csv.p, 1, csv.n, stdout);
    buf_free(&csv);
    return err == ERR_OK ? EXIT_GOOD : command_failed(c, err, &why);
}

int
command_campaign(const struct command *c, struct config *config, struct args *args)
{
    bool dry_run = args_flag(args, "--dry-run");
    const char *out = args_text(args, "--out");
    const char *verb = args_word(args), *file = args_word(args);
    struct session session;
    struct why why = {{0}};

    if (!args_done(args, c))
        return EXIT_USAGE;
    bool imports = verb != NULL && strcmp(verb, "import") == 0 && file != NULL;
    bool exports = verb != NULL && strcmp(verb, "export") == 0 && file == NULL;
    if (!imports && !exports) {
        fprintf(stderr, "clickledger campaign: say import FILE.csv, or export\n");
        return EXIT_USAGE;
    }
    enum err err = session_open_database(&session, config, &why);
    int code = err != ERR_OK ? command_failed(c, err, &why)
               : imports     ? campaign_import(c, &session, file, dry_run)
                             : campaign_export(c, &session, out);
    session_close(&session);
    return code;
}

struct key_options {
    const char *verb, *account, *scope, *name, *advertiser, *out, *id;
    int64_t rate;
    bool json;
};

static enum err
key_create(struct session *session, const struct key_options *o, struct why *why)
{
    char text[MASTER_KEY_TEXT_SIZE];
    uint32_t id = 0;
    struct master_key_new key = {
        .account = o->account,
        .make_account = true,
        .name = o->name != NULL ? o->name : "key",
        .advertiser = o->advertiser,
        .rate_clicks_per_s = (uint32_t)o->rate,
    };

    enum err err = master_scopes_parse(str_of(o->scope), &key.scopes, why);
    if (err == ERR_OK)
        err = master_key_create(session->pg, &key, text, &id, why);
    if (err != ERR_OK)
        return err;
    if (o->out == NULL) {
        puts(text);
        return ERR_OK;
    }
    err = file_write(o->out, text, strlen(text), why);
    if (err == ERR_OK)
        printf("key %u is in %s\n", id, o->out);
    return err;
}

static enum err
key_act(struct session *session, const struct key_options *o, struct why *why)
{
    struct buf out = BUF_MAX(REPORT_BYTES_MAX);

    if (strcmp(o->verb, "create") == 0)
        return key_create(session, o, why);
    if (strcmp(o->verb, "list") == 0) {
        enum err err = master_key_list(session->pg, o->json, &out, why);
        if (err == ERR_OK)
            (void)fwrite(out.p, 1, out.n, stdout);
        buf_free(&out);
        return err;
    }
    return master_key_revoke(session->pg, (uint32_t)strtoul(o->id, NULL, 10), why);
}

/* What can be known to be wrong before a database is asked; NULL: nothing. */
static const char *
key_usage_wrong(const struct key_options *o)
{
    char *end = NULL;
    bool create = o->verb != NULL && strcmp(o->verb, "create") == 0;
    bool revoke = o->verb != NULL && strcmp(o->verb, "revoke") == 0;

    if (!create && !revoke && (o->verb == NULL || strcmp(o->verb, "list") != 0))
        return "say create, list, or revoke ID";
    if (create && (o->account == NULL || o->scope == NULL))
        return "create needs --account NAME and --scope S";
    if (!revoke)
        return o->id != NULL ? "only revoke takes a number" : NULL;
    unsigned long id = o->id == NULL ? 0 : strtoul(o->id, &end, 10);
    return o->id == NULL || *end != '\0' || id == 0 || id > INT32_MAX
               ? "revoke needs the key's number; see key list"
               : NULL;
}

int
command_key(const struct command *c, struct config *config, struct args *args)
{
    struct key_options options = {
        .account = args_text(args, "--account"),
        .scope = args_text(args, "--scope"),
        .name = args_text(args, "--name"),
        .advertiser = args_text(args, "--advertiser"),
        .out = args_text(args, "--out"),
        .rate = args_number(args, "--rate", 0, 1000000000, 0),
        .json = args_flag(args, "--json"),
    };
    struct session session;
    struct why why = {{0}};

    options.verb = args_word(args);
    options.id = args_word(args);
    if (!args_done(args, c))
        return EXIT_USAGE;
    const char *wrong = key_usage_wrong(&options);
    if (wrong != NULL) {
        fprintf(stderr, "clickledger key: %s\n", wrong);
        return EXIT_USAGE;
    }
    (void)umask(077); /* --out holds a secret */
    enum err err = session_open_database(&session, config, &why);
    if (err == ERR_OK)
        err = key_act(&session, &options, &why);
    session_close(&session);
    return err == ERR_OK ? EXIT_GOOD : command_failed(c, err, &why);
}

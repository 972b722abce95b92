#include "deploy/command.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

#define RUN_USAGE                                                      \
    "Runs until SIGINT or SIGTERM, then finishes what is in flight.\n" \
    "\n"                                                               \
    "  --config FILE           YAML; see `clickledger config show`\n"  \
    "  --section.key=VALUE     overrides any key of it\n"              \
    "\n"                                                               \
    "Example: clickledger run --config /etc/clickledger.yaml --ingest.port=8080\n"

const struct command commands[] = {
    {"run", "every stage in one process",
     "Usage: clickledger run [--without STAGE[,STAGE]] [--config FILE]\n\n"
     "  --without STAGE         leaves out ingest, relay, aggregate, archive, "
     "dashboard or\n"
     "                          scheduler, which then runs elsewhere\n" RUN_USAGE,
     command_run},
    {"ingest", "only the HTTP API that takes clicks",
     "Usage: clickledger ingest [--config FILE]\n\n" RUN_USAGE, command_run},
    {"relay", "only the sending of the log to Kafka; status, rewind, forget",
     "Usage: clickledger relay [--config FILE]\n"
     "       clickledger relay status [--json]\n"
     "       clickledger relay rewind [--partition P] [--offset N]\n"
     "       clickledger relay forget SPOOL [--force] [--json]\n\n"
     "  status           how far the log is sent, and the archive\n"
     "  rewind           sends again what Kafka has lost: from offset N of the "
     "log\n"
     "                   on, or from the first click that is not archived; "
     "readers\n"
     "                   drop what they have\n"
     "  forget SPOOL     a log whose machine is gone for good: another may take "
     "over,\n"
     "                   and clicks whose counts went with it are counted from "
     "the\n"
     "                   archive (docs/runbook.md)\n"
     "  --force          although it was heard of within the last two minutes\n"
     "  --partition P    only this one (default: all)\n\n" RUN_USAGE,
     command_relay},
    {"aggregate", "only the fast path; with Kafka, one of several",
     "Usage: clickledger aggregate [--config FILE]\n\n" RUN_USAGE, command_run},
    {"archive", "only the archive's writer",
     "Usage: clickledger archive [--config FILE]\n\n" RUN_USAGE, command_run},
    {"dashboard", "only the API that advertisers read",
     "Usage: clickledger dashboard [--config FILE]\n\n" RUN_USAGE, command_run},
    {"judge", "final verdicts for the finished hours of receipt",
     "Usage: clickledger judge [--until TIME] [--now] [--json]\n\n"
     "Judges each hour of receipt that is over and archived, once.\n\n"
     "  --until TIME   RFC 3339; hours that ended by then (default: now)\n"
     "  --now          also the hour that is not over, up to this moment\n"
     "  --json         the result as JSON\n\n"
     "Example: clickledger judge --until 2026-11-21T00:00:00Z\n",
     command_judge},
    {"close", "close a local day: statistics, ledger, certificate",
     "Usage: clickledger close --day D [--zone ZONE] [--force] [--json]\n\n"
     "Judges what is due, then posts day D of each time zone, once. The same "
     "again\n"
     "changes nothing; clicks that came later post as a late run.\n\n"
     "  --day D        YYYY-MM-DD or yesterday\n"
     "  --zone ZONE    only this time zone\n"
     "  --force        do not wait for the grace, nor for the hour to end\n"
     "  --json         the result as JSON\n\n"
     "Example: clickledger close --day 2026-11-20\n",
     command_close},
    {"reconcile", "live against final verdicts, click by click",
     "Usage: clickledger reconcile --day D [--json]\n\n"
     "A table per campaign with each difference's reason. Exit code 1 when any\n"
     "difference is unexplained.\n\n"
     "Example: clickledger reconcile --day yesterday\n",
     command_reconcile},
    {"invoice", "draft, finalise, list and export invoices",
     "Usage: clickledger invoice draft|finalise|list|export --month M [options]\n\n"
     "  --month M            YYYY-MM\n"
     "  --advertiser ID      only this one\n"
     "  --partial            finalise a month that is not over\n"
     "  --format csv         of export\n"
     "  --number N           export this invoice only\n"
     "  --out FILE           of export; default: standard output\n"
     "  --json               of list\n\n"
     "Example: clickledger invoice finalise --month 2026-10\n"
     "         clickledger invoice export --month 2026-10 --format csv --out "
     "oct.csv\n",
     command_invoice},
    {"campaign", "import and export campaigns, rates and budgets",
     "Usage: clickledger campaign import FILE.csv [--dry-run]\n"
     "       clickledger campaign export [--out FILE.csv]\n\n"
     "Columns: campaign_id,name,account,advertiser_id,advertiser_name,currency,\n"
     "time_zone,status,cpc,cpc_from,price_cap,daily_budget,budget_from. Every "
     "error is\n"
     "listed as line:column; nothing is written when there is one.\n\n"
     "Example: clickledger campaign import campaigns.csv --dry-run\n",
     command_campaign},
    {"key", "create, list and revoke API keys",
     "Usage: clickledger key create --account NAME --scope S[,S] [options]\n"
     "       clickledger key list [--json]\n"
     "       clickledger key revoke ID\n\n"
     "  --scope S            ingest, read, billing, admin; several by comma\n"
     "  --name TEXT          what the key is for\n"
     "  --advertiser ID      read only this advertiser's campaigns\n"
     "  --rate N             clicks a second; default: ingest.rate_clicks_per_s\n"
     "  --out FILE           write the key there (mode 0600), print its number "
     "only\n\n"
     "The key is shown once; only its SHA-256 is stored.\n\n"
     "Example: clickledger key create --account acme --scope ingest --name "
     "adserver-1\n",
     command_key},
    {"click", "one click with its live and final verdict",
     "Usage: clickledger click show EVENT_ID [--json]\n\n"
     "Example: clickledger click show 0190163d-8694-739b-aea5-966c26f8ad91\n",
     command_click},
    {"dlq", "clicks that were refused, with the reason",
     "Usage: clickledger dlq list [--limit N] [--json]\n\n"
     "Example: clickledger dlq list --limit 20\n",
     command_dlq},
    {"doctor", "what is wrong, and what to do",
     "Usage: clickledger doctor [--json]\n\n"
     "Looks at the log, the archive, Redis, PostgreSQL and the judge; exit code 1 "
     "when\n"
     "something needs a person.\n\n"
     "Example: clickledger doctor --config /etc/clickledger.yaml\n",
     command_doctor},
    {"gen", "make and post seeded traffic, with the truth about it",
     "Usage: clickledger gen --seed S --days N --clicks C --campaigns K "
     "[options]\n\n"
     "  --end DATE           last day, YYYY-MM-DD (default: today)\n"
     "  --campaigns-out FILE write the campaigns as CSV for `campaign import`\n"
     "  --url URL            post to this ingest API\n"
     "  --key-file FILE      API key for it\n"
     "  --truth FILE         one JSON line a click posted\n"
     "  --batch N            clicks in a request (default 500)\n"
     "  --account NAME       owner of the campaigns (default demo)\n"
     "  --connections N      side by side (default 1: posting order is receipt "
     "order)\n\n"
     "Example: clickledger gen --seed 1 --days 2 --clicks 20000 --campaigns 50 \\\n"
     "             --campaigns-out c.csv --url http://127.0.0.1:8080 --key-file "
     "key\n",
     command_gen},
    {"topics", "Kafka's topics: make them, check their settings",
     "Usage: clickledger topics create|check [--json]\n\n"
     "  create   makes those that are missing, leaves the others as they are\n"
     "  check    partitions, copies, retention, cleanup policy, time stamps: each\n"
     "           fault with the command that mends it; exit code 1 when there is "
     "one\n"
     "  --json   the report as JSON\n\n"
     "Example: clickledger topics create --kafka.brokers=kafka-1:9092\n",
     command_topics},
    {"config", "check or show the configuration",
     "Usage: clickledger config check|show|document [--config FILE]\n\n"
     "Example: clickledger config show > clickledger.yaml\n",
     command_config},
    {"schema", "the click's fields, the record's Avro schema",
     "Usage: clickledger schema fields|avro\n\n"
     "Example: clickledger schema avro > click.avsc\n",
     command_schema},
    {"version", "print the version",
     "Usage: clickledger version\n\n"
     "Example: clickledger version\n",
     command_version},
};
const unsigned commands_n = sizeof(commands) / sizeof(commands[0]);

static void
help_print(FILE *to)
{
    fprintf(
        to,
        "clickledger: accepts ad clicks durably, filters fraud, shows live counts, "
        "bills each genuine click once.\n\nUsage: clickledger COMMAND "
        "[--config FILE] [--section.key=VALUE ...] [--help]\n\n");
    for (unsigned i = 0; i < commands_n; i++)
        fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fprintf(to, "\nExit codes: 0 good, 1 failed, 2 usage, 78 configuration.\n");
}

static bool
log_set(const struct config *config, struct why *why)
{
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    bool json = strcmp(config->log_format, "json") == 0;

    if (!json && strcmp(config->log_format, "logfmt") != 0) {
        (void)err_set(why, ERR_INVALID, "log.format is '%s': use logfmt or json",
                      config->log_format);
        return false;
    }
    for (unsigned i = 0; i < 4; i++) {
        if (strcmp(config->log_level, levels[i]) == 0) {
            log_setup((enum log_level)i, json ? LOG_JSON : LOG_LOGFMT);
            return true;
        }
    }
    (void)err_set(why, ERR_INVALID,
                  "log.level is '%s': use debug, info, warn or error",
                  config->log_level);
    return false;
}

/* Takes --config FILE out of the words; the environment's if absent. */
static const char *
config_path(int *argc, char **argv)
{
    struct args args = {.words = argv, .n = *argc};
    const char *path = args_text(&args, "--config");

    *argc = args.n;
    return path != NULL ? path : getenv("CLICKLEDGER_CONFIG");
}

static int
configured_run(const struct command *command, int argc, char **argv)
{
    struct config config;
    struct why why = {{0}};
    const char *path = config_path(&argc, argv);

    int words_n =
        argc + 1; /* argv[-1] is the command's name, which is passed over */
    if (config_load(&config, path, &words_n, argv - 1, &why) != ERR_OK) {
        fprintf(stderr, "clickledger: configuration: %s\n", why.text);
        return EXIT_CONFIG;
    }
    int code = EXIT_CONFIG;
    struct args args = {.words = argv, .n = words_n - 1};
    if (log_set(&config, &why))
        code = command->run(command, &config, &args);
    else
        fprintf(stderr, "clickledger: configuration: %s\n", why.text);
    config_free(&config);
    return code;
}

int
command_main(int argc, char **argv)
{
    assert(argc >= 1);
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        help_print(argc < 2 ? stderr : stdout);
        return argc < 2 ? EXIT_USAGE : EXIT_GOOD;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    const char *name = strcmp(argv[1], "--version") == 0 ? "version" : argv[1];
    for (unsigned i = 0; i < commands_n; i++) {
        if (strcmp(commands[i].name, name) != 0)
            continue;
        struct args args = {.words = argv + 2, .n = argc - 2};
        if (args_flag(&args, "--help") || args_flag(&args, "-h")) {
            fputs(commands[i].usage, stdout);
            return EXIT_GOOD;
        }
        return configured_run(&commands[i], args.n, args.words);
    }
    fprintf(stderr, "clickledger: no command '%s'; see clickledger --help\n",
            argv[1]);
    return EXIT_USAGE;
}

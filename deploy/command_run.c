#include "deploy/command.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "deploy/stages.h"

/* The stages of a command: one, or all but those named by --without; 0: wrong use. */
static unsigned
stages_of(const struct command *c, struct args *args)
{
    bool all = strcmp(c->name, "run") == 0;
    const char *without = all ? args_text(args, "--without") : NULL;
    unsigned which = all ? STAGE_ALL : stage_of(c->name);
    char name[32];

    while (without != NULL && *without != '\0') {
        size_t n = strcspn(without, ",");

        (void)snprintf(name, sizeof(name), "%.*s", (int)n, without);
        if (stage_of(name) == 0) {
            fprintf(stderr,
                    "clickledger run: --without %s: say ingest, relay, aggregate, "
                    "archive, dashboard or scheduler, several by comma\n",
                    name);
            return 0;
        }
        which &= ~stage_of(name);
        without += n + (without[n] == ',');
    }
    return which;
}

int
command_run(const struct command *c, struct config *config, struct args *args)
{
    struct stages stages;
    struct why why = {{0}};
    sigset_t signals;
    int got = 0;

    unsigned which = stages_of(c, args);
    if (!args_done(args, c) || which == 0)
        return EXIT_USAGE;
    /* Every thread inherits the mask, so that only this one takes the signals. */
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGTERM);
    (void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
    int64_t began_us = clock_mono_us();
    enum err err = stages_start(&stages, config, which, &why);
    if (err != ERR_OK)
        return command_failed(c, err, &why);
    log_event(
        LOG_INFO, "started", LOG_TEXT("version", CLICKLEDGER_VERSION),
        LOG_TEXT("stages", c->name),
        LOG_NUMBER("ingest_port", stages.ingest ? ingest_port(stages.ingest) : 0),
        LOG_NUMBER("dashboard_port",
                   stages.dashboard ? dashboard_port(stages.dashboard) : 0),
        LOG_NUMBER("took_us", clock_mono_us() - began_us));
    (void)sigwait(&signals, &got);
    log_event(LOG_INFO, "stopping",
              LOG_TEXT("signal", got == SIGINT ? "INT" : "TERM"));
    stages_stop(&stages);
    log_event(LOG_INFO, "stopped", LOG_TEXT("stages", c->name));
    return EXIT_GOOD;
}

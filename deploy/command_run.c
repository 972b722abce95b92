#include "deploy/command.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "deploy/stages.h"

static unsigned
stages_of(const char *name)
{
    static const struct {
        const char *name;
        unsigned which;
    } table[] = {
        {"run", STAGE_ALL},
        {"ingest", STAGE_INGEST},
        {"aggregate", STAGE_AGGREGATE},
        {"archive", STAGE_ARCHIVE},
        {"dashboard", STAGE_DASHBOARD},
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        if (strcmp(table[i].name, name) == 0)
            return table[i].which;
    }
    return STAGE_ALL;
}

int
command_run(const struct command *c, struct config *config, struct args *args)
{
    struct stages stages;
    struct why why = {{0}};
    sigset_t signals;
    int got = 0;

    if (!args_done(args, c))
        return EXIT_USAGE;
    /* Every thread inherits the mask, so that only this one takes the signals. */
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGTERM);
    (void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
    int64_t began_us = clock_mono_us();
    enum err err = stages_start(&stages, config, stages_of(c->name), &why);
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

/* deploy/command.h - the command line: one table of commands, each a thin front of a room.
 *
 * Errors   A command returns its exit code: EXIT_GOOD, EXIT_FAILED, EXIT_USAGE, EXIT_CONFIG;
 *          what went wrong is one sentence on standard error.
 * Threads  The main thread's.
 */
#ifndef DEPLOY_COMMAND_H
#define DEPLOY_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/err.h"

enum { EXIT_GOOD = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_CONFIG = 78 };

/* What is left of the command line; options are taken out as they are asked for. */
struct args {
    char **words;
    int n;
    char error[160]; /* the first wrong use, or "" */
};

struct command {
    const char *name;
    const char *summary; /* a line in `clickledger --help` */
    const char *usage;   /* whole text of --help, with an example */
    int (*run)(const struct command *command, struct config *config,
               struct args *args);
};

extern const struct command commands[];
extern const unsigned commands_n;

/* Finds and runs a command; the whole of main. */
int command_main(int argc, char **argv);

/* --name VALUE or --name=VALUE; NULL if absent. */
const char *args_text(struct args *args, const char *name);
/* As a number in min..max; fallback if absent. */
int64_t args_number(struct args *args, const char *name, int64_t min, int64_t max,
                    int64_t fallback);
bool args_flag(struct args *args, const char *name);
/* The next word that is no option; NULL if none is left. */
const char *args_word(struct args *args);
/* A day as YYYY-MM-DD or `yesterday`; required. Days since 1970-01-01. */
int32_t args_day(struct args *args, const char *name);
/* True when nothing is left over and nothing was wrong; else it has said so. */
bool args_done(struct args *args, const struct command *command);

/* Prints "clickledger NAME: why" and returns the exit code of err. */
int command_failed(const struct command *command, enum err err,
                   const struct why *why);

/* A progress bar on a terminal, nothing elsewhere: for judge_input.progress and its like. */
struct progress {
    const char *what;
    int64_t shown_us;
    bool drawn;
};
void progress_show(void *progress, uint64_t done, uint64_t total);
void progress_end(struct progress *progress);

/* The commands, by the room that they front. */
int command_run(const struct command *c, struct config *config, struct args *args);
int command_relay(const struct command *c, struct config *config,
                  struct args *args);
int command_campaign(const struct command *c, struct config *config,
                     struct args *args);
int command_key(const struct command *c, struct config *config, struct args *args);
int command_judge(const struct command *c, struct config *config,
                  struct args *args);
int command_close(const struct command *c, struct config *config,
                  struct args *args);
int command_reconcile(const struct command *c, struct config *config,
                      struct args *args);
int command_invoice(const struct command *c, struct config *config,
                    struct args *args);
int command_click(const struct command *c, struct config *config,
                  struct args *args);
int command_dlq(const struct command *c, struct config *config, struct args *args);
int command_doctor(const struct command *c, struct config *config,
                   struct args *args);
int command_gen(const struct command *c, struct config *config, struct args *args);
int command_topics(const struct command *c, struct config *config,
                   struct args *args);
int command_config(const struct command *c, struct config *config,
                   struct args *args);
int command_schema(const struct command *c, struct config *config,
                   struct args *args);
int command_version(const struct command *c, struct config *config,
                    struct args *args);

#endif

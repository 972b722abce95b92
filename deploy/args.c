#include "deploy/command.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "schema/text.h"

enum { BAR_CELLS = 40 };

static void
complain(struct args *args, const char *name, const char *what)
{
    if (args->error[0] == '\0')
        (void)snprintf(args->error, sizeof(args->error), "%s %s", name, what);
}

static void
words_remove(struct args *args, int at, int count)
{
    for (int i = at; i + count < args->n; i++)
        args->words[i] = args->words[i + count];
    args->n -= count;
}

const char *
args_text(struct args *args, const char *name)
{
    size_t size = strlen(name);

    for (int i = 0; i < args->n; i++) {
        const char *word = args->words[i];
        if (strncmp(word, name, size) != 0)
            continue;
        if (word[size] == '=') {
            words_remove(args, i, 1);
            return word + size + 1;
        }
        if (word[size] != '\0')
            continue;
        if (i + 1 >= args->n) {
            complain(args, name, "needs a value");
            words_remove(args, i, 1);
            return NULL;
        }
        const char *value = args->words[i + 1];
        words_remove(args, i, 2);
        return value;
    }
    return NULL;
}

int64_t
args_number(struct args *args, const char *name, int64_t min, int64_t max,
            int64_t fallback)
{
    const char *text = args_text(args, name);
    char what[96];
    char *end;

    if (text == NULL)
        return fallback;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno == 0 && end != text && *end == '\0' && value >= min && value <= max)
        return value;
    (void)snprintf(what, sizeof(what),
                   "is '%.24s': give a whole number in %lld..%lld", text,
                   (long long)min, (long long)max);
    complain(args, name, what);
    return fallback;
}

bool
args_flag(struct args *args, const char *name)
{
    for (int i = 0; i < args->n; i++) {
        if (strcmp(args->words[i], name) == 0) {
            words_remove(args, i, 1);
            return true;
        }
    }
    return false;
}

const char *
args_word(struct args *args)
{
    for (int i = 0; i < args->n; i++) {
        const char *word = args->words[i];
        if (word[0] != '-') {
            words_remove(args, i, 1);
            return word;
        }
    }
    return NULL;
}

int32_t
args_day(struct args *args, const char *name)
{
    const char *text = args_text(args, name);
    int32_t day = 0;

    if (text == NULL) {
        complain(args, name,
                 "is missing: give a day such as 2026-11-20, or yesterday");
    } else if (strcmp(text, "yesterday") == 0) {
        day = (int32_t)(clock_now_us() / CLOCK_DAY_US) - 1;
    } else if (!date_parse(str_of(text), &day)) {
        complain(args, name, "is no day: give YYYY-MM-DD, or yesterday");
    }
    return day;
}

bool
args_done(struct args *args, const struct command *command)
{
    if (args->error[0] == '\0' && args->n > 0)
        complain(args, args->words[0], "is not known here");
    if (args->error[0] == '\0')
        return true;
    fprintf(stderr, "clickledger %s: %s; see clickledger %s --help\n",
            command->name, args->error, command->name);
    return false;
}

int
command_failed(const struct command *command, enum err err, const struct why *why)
{
    assert(err != ERR_OK);
    fprintf(stderr, "clickledger %s: %s\n", command->name,
            why->text[0] != '\0' ? why->text : err_name(err));
    return err == ERR_INVALID ? EXIT_USAGE : EXIT_FAILED;
}

void
progress_show(void *ctx, uint64_t done, uint64_t total)
{
    struct progress *progress = ctx;
    int64_t now_us = clock_mono_us();
    char bar[BAR_CELLS + 1];

    if (!isatty(STDERR_FILENO) || total == 0)
        return;
    if (done < total && now_us - progress->shown_us < CLOCK_SECOND_US / 10)
        return;
    progress->shown_us = now_us;
    progress->drawn = true;
    int cells = (int)(done * BAR_CELLS / total);
    for (int i = 0; i < BAR_CELLS; i++)
        bar[i] = i < cells ? '#' : '.';
    bar[BAR_CELLS] = '\0';
    fprintf(stderr, "\r%s [%s] %3d %%  %llu of %llu ", progress->what, bar,
            (int)(done * 100 / total), (unsigned long long)done,
            (unsigned long long)total);
}

void
progress_end(struct progress *progress)
{
    if (progress->drawn)
        fputc('\n', stderr);
    progress->drawn = false;
}

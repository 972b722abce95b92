/* What the rules knew before the first slice of this run. */
#include <stdlib.h>
#include <string.h>

#include "billing/judge_core.h"
#include "common/clock.h"

struct replay {
    const struct manifest_file *files;
    uint32_t files_n;
    struct final_row **rows; /* a file, while it is read */
};

/* The files received in the hour before from_us and in its own. */
static void
files_find(const struct judge *judge, int64_t from_us, struct replay *out)
{
    int64_t since_us = clock_floor(from_us, CLOCK_HOUR_US) - CLOCK_HOUR_US;
    uint32_t first = judge_file_after(judge, since_us);

    *out = (struct replay){
        .files = judge->manifest.files + first,
        .files_n = judge_file_after(judge, from_us) - first,
    };
}

uint64_t
slice_replay_clicks(const struct judge *judge, int64_t from_us)
{
    struct replay replay;
    uint64_t n = 0;

    files_find(judge, from_us, &replay);
    for (uint32_t i = 0; i < replay.files_n; i++)
        n += replay.files[i].clicks;
    return n;
}

/* The batch's memory holds the clicks on their way into the state. */
static enum err
clicks_feed(struct judge *judge, struct why *why)
{
    const struct ruleset_limits *limits = ruleset_limits(judge->in->rules);
    uint64_t at = 0, n;
    enum err err = ERR_OK;

    if (judge->clicks_n > 0)
        err = state_hour(judge->state, judge->clicks[0].hour_us, why);
    for (; at < judge->clicks_n && err == ERR_OK; at += n)
        err = state_feed(judge->state, limits, judge->clicks + at,
                         judge->clicks_n - at, &n, why);
    judge->clicks_n = 0;
    return err;
}

static enum err
click_add(struct judge *judge, const struct click *click, struct why *why)
{
    int64_t hour_us = clock_floor(click->received_us, CLOCK_HOUR_US);
    struct fraud_facts facts;
    enum err err = ERR_OK;

    if (judge->clicks_n == judge->clicks_cap ||
        (judge->clicks_n > 0 && judge->clicks[0].hour_us != hour_us))
        err = clicks_feed(judge, why);
    if (err != ERR_OK)
        return err;
    fraud_examine(judge->in->rules, judge->in->master, judge->agents, click,
                  &facts);
    judge->clicks[judge->clicks_n++] = (struct judged){
        .user_key = facts.user_key,
        .address_key = facts.address_key,
        .event_ms = facts.event_ms,
        .hour_us = hour_us,
    };
    return ERR_OK;
}

static enum err
replay_click(struct judge *judge, struct replay *replay,
             const struct stream_click *in, struct why *why)
{
    const struct manifest_file *file = &replay->files[in->file];
    struct final_row **rows = &replay->rows[in->file];
    enum err err = ERR_OK;

    if (*rows == NULL) {
        *rows = malloc(file->clicks * sizeof(**rows));
        if (*rows == NULL)
            return err_set(why, ERR_NOMEM, "judge: no memory");
        err = final_read(judge->in->archive_dir, file, *rows, why);
        if (err != ERR_OK)
            return err == ERR_NOTFOUND ? ERR_CORRUPT : err;
    }
    if (fraud_feeds((*rows)[in->row].verdict.reasons))
        err = click_add(judge, in->click, why);
    if (in->row + 1 == file->clicks) {
        free(*rows);
        *rows = NULL;
    }
    return err;
}

enum err
slice_replay(struct judge *judge, int64_t from_us, struct why *why)
{
    struct stream *stream = NULL;
    struct stream_click click;
    struct replay replay;
    enum err err;

    files_find(judge, from_us, &replay);
    replay.rows = calloc((size_t)replay.files_n + 1, sizeof(*replay.rows));
    if (replay.rows == NULL)
        return err_set(why, ERR_NOMEM, "judge: no memory");
    err = stream_open(&stream, judge->in->archive_dir, replay.files, replay.files_n,
                      why);
    while (err == ERR_OK && (err = stream_next(stream, &click, why)) == ERR_OK)
        err = replay_click(judge, &replay, &click, why);
    stream_close(&stream);
    for (uint32_t i = 0; i < replay.files_n; i++)
        free(replay.rows[i]);
    free(replay.rows);
    if (err == ERR_AGAIN)
        err = clicks_feed(judge, why);
    return err;
}

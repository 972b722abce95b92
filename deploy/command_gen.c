#include "deploy/command.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/file.h"
#include "deploy/gen.h"
#include "schema/text.h"

enum { CSV_BYTES_MAX = 1 << 30, KEY_BYTES_MAX = 256 };

static enum err
campaigns_write(const struct gen_plan *plan, const char *path, struct why *why)
{
    struct buf csv = BUF_MAX(CSV_BYTES_MAX);

    gen_campaigns_csv(plan, &csv);
    enum err err = csv.failed
                       ? err_set(why, ERR_NOMEM, "gen: no memory for the campaigns")
                       : file_write(path, csv.p, csv.n, why);
    buf_free(&csv);
    return err;
}

static enum err
traffic_post(const struct gen_plan *plan, struct gen_post *post,
             const char *key_file, struct why *why)
{
    struct buf key = BUF_MAX(KEY_BYTES_MAX);
    struct gen_result result = {0};

    if (key_file == NULL)
        return err_set(why, ERR_INVALID,
                       "gen: --url needs --key-file with an API key");
    enum err err = file_read(key_file, &key, why);
    if (err == ERR_OK) {
        while (key.n > 0 && key.p[key.n - 1] == '\n')
            key.n--;
        buf_add(&key, "", 1);
        post->key = (const char *)key.p;
        err = gen_post(plan, post, &result, why);
    }
    buf_free(&key);
    if (err == ERR_OK)
        printf("%llu clicks in %llu requests: %llu accepted, %llu refused; %llu "
               "requests "
               "sent again\n",
               (unsigned long long)(result.accepted + result.rejected),
               (unsigned long long)result.requests,
               (unsigned long long)result.accepted,
               (unsigned long long)result.rejected,
               (unsigned long long)result.retried);
    return err;
}

int
command_gen(const struct command *c, struct config *config, struct args *args)
{
    int64_t now_ms = clock_now_us() / 1000;
    struct gen_options options = {
        .seed = (uint64_t)args_number(args, "--seed", 0, INT64_MAX, 1),
        .days = (uint32_t)args_number(args, "--days", 1, GEN_DAYS_MAX, 2),
        .clicks = (uint32_t)args_number(args, "--clicks", 1, GEN_CLICKS_MAX, 20000),
        .campaigns =
            (uint32_t)args_number(args, "--campaigns", 1, GEN_CAMPAIGNS_MAX, 50),
        .end_day = (int32_t)(now_ms / CLOCK_DAY_MS),
        .now_ms = now_ms,
        .account = "demo",
    };
    struct gen_post post = {
        .url = args_text(args, "--url"),
        .truth_path = args_text(args, "--truth"),
        .batch = (uint32_t)args_number(args, "--batch", 1, 2000, 500),
        .connections = (uint32_t)args_number(args, "--connections", 1, 256, 1),
    };
    const char *campaigns_out = args_text(args, "--campaigns-out");
    const char *key_file = args_text(args, "--key-file");
    const char *account = args_text(args, "--account");
    const char *end = args_text(args, "--end");
    struct gen_plan *plan = NULL;
    struct why why = {{0}};

    (void)config;
    if (!args_done(args, c))
        return EXIT_USAGE;
    if (end != NULL && !date_parse(str_of(end), &options.end_day)) {
        fprintf(stderr, "clickledger gen: --end '%s' is no day: give YYYY-MM-DD\n",
                end);
        return EXIT_USAGE;
    }
    if (account != NULL)
        options.account = account;
    enum err err = gen_plan_make(&plan, &options, &why);
    if (err == ERR_OK && campaigns_out != NULL)
        err = campaigns_write(plan, campaigns_out, &why);
    if (err == ERR_OK && post.url != NULL)
        err = traffic_post(plan, &post, key_file, &why);
    gen_plan_free(&plan);
    return err == ERR_OK ? EXIT_GOOD : command_failed(c, err, &why);
}

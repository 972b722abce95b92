#include "billing/click_find.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "billing/click_file.h"
#include "billing/final.h"
#include "billing/judge.h"
#include "common/clock.h"
#include "common/money.h"
#include "schema/click.h"
#include "schema/manifest.h"

/* Decodes rows up to the one wanted, which the file has by its list. */
static enum err
row_read(struct click_file *in, uint64_t wanted, struct click *click,
         struct why *why)
{
    enum err err = ERR_OK;

    for (uint64_t row = 0; err == ERR_OK && row <= wanted; row++)
        err = click_file_next(in, click, why);
    assert(err != ERR_AGAIN);
    return err;
}

static void
verdict_format(const char *name, const struct verdict *verdict,
               const int64_t *price, bool json, struct buf *out)
{
    char money[MONEY_TEXT_SIZE];
    const struct reason_info *reason = reason_info((enum reason)verdict->reason);
    const char *kind = verdict_name((enum verdict_kind)verdict->kind);

    if (verdict->kind == VERDICT_NONE) {
        buf_printf(out, json ? ",\"%s\":null" : "  %-6s not yet\n", name);
        return;
    }
    if (json)
        buf_printf(out,
                   ",\"%s\":{\"verdict\":\"%s\",\"reason\":\"%s\",\"score\":%.4f,"
                   "\"ruleset\":%u",
                   name, kind, reason->name, verdict->score / 10000.0,
                   verdict->ruleset);
    else
        buf_printf(out, "  %-6s %s, %s (%s), score %.2f, rule set %u", name, kind,
                   reason->name, reason->text, verdict->score / 10000.0,
                   verdict->ruleset);
    if (price != NULL)
        buf_printf(out, json ? ",\"price\":\"%s\"" : ", price %s",
                   money_format(*price, MONEY_PLACES_MAX, money));
    buf_add_text(out, json ? "}" : "\n");
}

static enum err
verdicts_add(const char *archive_dir, const struct manifest_file *file,
             uint64_t row, bool json, struct buf *out, struct why *why)
{
    uint64_t *live = calloc(file->clicks, sizeof(*live));
    struct final_row *final = calloc(file->clicks, sizeof(*final));
    struct verdict none = {0};
    enum err err = ERR_OK;

    if (live == NULL || final == NULL) {
        err = err_set(why, ERR_NOMEM, "click: no memory");
        goto done;
    }
    err = manifest_live_read(archive_dir, file, live, why);
    struct verdict was = err == ERR_OK ? verdict_unpack(live[row]) : none;
    if (err == ERR_OK || err == ERR_NOTFOUND)
        verdict_format("live", &was, NULL, json, out);
    else
        goto done;
    err = final_read(archive_dir, file, final, why);
    if (err == ERR_OK)
        verdict_format("final", &final[row].verdict, &final[row].price_micros, json,
                       out);
    else if (err == ERR_NOTFOUND)
        verdict_format("final", &none, NULL, json, out);
    if (err == ERR_NOTFOUND)
        err = ERR_OK;
done:
    free(live);
    free(final);
    return err;
}

static void
text_format(const struct click *click, const struct judge_found *at,
            struct buf *out)
{
    char received[CLOCK_TEXT_SIZE], clicked[CLOCK_TEXT_SIZE];

    buf_printf(out,
               "campaign %.*s, ad %.*s, publisher %.*s, user %.*s, account %u\n",
               (int)click->campaign_id.n, click->campaign_id.p, (int)click->ad_id.n,
               click->ad_id.p, (int)click->publisher_id.n, click->publisher_id.p,
               (int)click->user_id.n, click->user_id.p, click->account);
    buf_printf(out, "  clicked %s, received %s\n  file   %s, row %llu\n",
               clock_format_ms(click->timestamp_ms, clicked),
               clock_format_ms(click->received_us / 1000, received),
               at->archive_path, (unsigned long long)at->row);
}

/* What an advertiser needs not know: who the user is, and whose server posted it. Of the
 * address the first 24 bits stay (v6: 48). */
static void
hide(struct click *click, char ip[16])
{
    uint32_t kept = click->ip.n == 4 ? 3 : 6;

    memset(ip, 0, 16);
    memcpy(ip, click->ip.p, kept);
    click->ip.p = ip;
    click->user_id = STR("hidden");
    click->remote = (struct str){0};
    click->account = click->key = 0;
}

static const struct manifest_file *
file_listed(const struct manifest *manifest, const char *path)
{
    for (uint32_t i = 0; i < manifest->files_n; i++) {
        if (strcmp(manifest->files[i].path, path) == 0)
            return &manifest->files[i];
    }
    return NULL;
}

static enum err
one_format(const struct click_find *what, const struct manifest *manifest,
           const struct judge_found *at, struct buf *out, uint32_t *found,
           struct why *why)
{
    const struct manifest_file *file = file_listed(manifest, at->archive_path);
    struct click_file *in = NULL;
    struct click click;
    char ip[16];

    if (file == NULL || at->row >= file->clicks)
        return err_set(why, ERR_CORRUPT, "click: %s is not listed",
                       at->archive_path);
    enum err err = click_file_open(&in, what->archive_dir, file, why);
    if (err == ERR_OK)
        err = row_read(in, at->row, &click, why);
    if (err == ERR_OK &&
        (what->allowed == NULL || what->allowed(what->ctx, &click))) {
        if (what->discreet)
            hide(&click, ip);
        if (what->json) {
            buf_add_text(out, *found == 0 ? "{\"click\":" : ",{\"click\":");
            click_format_json(&click, out);
        } else {
            text_format(&click, at, out);
        }
        err = verdicts_add(what->archive_dir, file, at->row, what->json, out, why);
        buf_add_text(out, what->json ? "}" : "");
        (*found)++;
    }
    click_file_close(&in);
    return err;
}

enum err
click_find(const struct click_find *what, struct buf *out, uint32_t *found,
           struct why *why)
{
    struct judge_found *places = calloc(CLICK_FIND_MAX, sizeof(*places));
    struct manifest manifest = {0};
    uint32_t n = 0;

    assert(found != NULL);
    *found = 0;
    if (places == NULL)
        return err_set(why, ERR_NOMEM, "click: no memory");
    enum err err = judge_find(what->archive_dir, what->judge_dir, what->event_id,
                              places, CLICK_FIND_MAX, &n, why);
    if (err == ERR_OK && n > 0)
        err = manifest_read(&manifest, what->archive_dir, 0, why);
    if (what->json)
        buf_add_text(out, "[");
    for (uint32_t i = 0; err == ERR_OK && i < n; i++)
        err = one_format(what, &manifest, &places[i], out, found, why);
    if (what->json)
        buf_add_text(out, "]\n");
    manifest_free(&manifest);
    free(places);
    return err;
}

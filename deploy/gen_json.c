#include "deploy/gen.h"

#include <stdio.h>

#include "common/clock.h"
#include "common/money.h"
#include "deploy/gen_plan.h"
#include "schema/text.h"

enum { AGENTS = 8, BOTS = 4, PLACES = 6 };

static const struct {
    const char *agent, *os, *device;
} browsers[AGENTS] = {
    {"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like "
     "Gecko) "
     "Chrome/141.0.0.0 Safari/537.36",
     "Windows 10", "desktop"},
    {"Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:144.0) Gecko/20100101 "
     "Firefox/144.0",
     "Windows 10", "desktop"},
    {"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, "
     "like "
     "Gecko) Version/18.6 Safari/605.1.15",
     "macOS", "desktop"},
    {"Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 "
     "(KHTML, "
     "like Gecko) Version/18.6 Mobile/15E148 Safari/604.1",
     "iOS 18", "mobile"},
    {"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) "
     "Chrome/141.0.0.0 Mobile Safari/537.36",
     "Android", "mobile"},
    {"Mozilla/5.0 (iPad; CPU OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, "
     "like "
     "Gecko) Version/18.6 Mobile/15E148 Safari/604.1",
     "iPadOS 18", "tablet"},
    {"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
     "Chrome/141.0.0.0 Safari/537.36 Edg/141.0.0.0",
     "Linux", "desktop"},
    {"Mozilla/5.0 (SMART-TV; Linux; Tizen 8.0) AppleWebKit/537.36 (KHTML, like "
     "Gecko) "
     "Version/8.0 TV Safari/537.36",
     "Tizen", "tv"},
};

static const char *const bots[BOTS] = {
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
    "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)",
};

static const struct {
    const char *country, *city;
} places[PLACES] = {{"DE", "Berlin"}, {"IN", "Mumbai"}, {"JP", "Osaka"},
                    {"BH", "Manama"}, {"FR", "Lyon"},   {"US", "Columbus"}};

static void
id_add(const struct gen_plan *plan, uint32_t id, struct buf *out)
{
    uint64_t a = gen_hash(plan, 'i', id), b = gen_hash(plan, 'j', id);

    /* Version 4, variant 10 (RFC 9562). */
    buf_printf(
        out, "%08llx-%04llx-4%03llx-%04llx-%012llx", (unsigned long long)(a >> 32),
        (unsigned long long)(a >> 16 & 0xffff), (unsigned long long)(a & 0xfff),
        (unsigned long long)(0x8000 | (b >> 48 & 0x3fff)),
        (unsigned long long)(b & 0xffffffffffff));
}

/* One address in eight is v6; a flood's are apart from the users'. */
static void
address_add(const struct gen_plan *plan, uint32_t address, struct buf *out)
{
    uint64_t h = gen_hash(plan, 'a', address);

    if (h % 8 == 0)
        buf_printf(out, "2001:db8:%llx:%llx::%llx", (unsigned long long)(h >> 48),
                   (unsigned long long)(h >> 32 & 0xffff),
                   (unsigned long long)(h >> 16 & 0xffff) + 1);
    else
        buf_printf(out, "%llu.%llu.%llu.%llu",
                   (unsigned long long)(1 + (h >> 56) % 222),
                   (unsigned long long)(h >> 48 & 255),
                   (unsigned long long)(h >> 40 & 255),
                   (unsigned long long)(h >> 32 & 255));
}

static const char *
agent_of(const struct gen_shot *shot, uint64_t h)
{
    switch (shot->pattern) {
    case GEN_bot:
        return bots[h % BOTS];
    case GEN_script:
        return h % 2 == 0 ? "curl/8.5.0" : "python-requests/2.32.3";
    case GEN_no_agent:
        return "";
    default:
        return browsers[h % AGENTS].agent;
    }
}

static void
price_add(const struct gen_plan *plan, const struct gen_shot *shot, struct buf *out)
{
    const struct gen_campaign *campaign = &plan->campaigns[shot->campaign];
    int64_t micros = campaign->price_micros;
    char text[MONEY_TEXT_SIZE];

    /* Ten prices from half to twice and a third: over the cap now and then. */
    if (campaign->by_event)
        micros =
            micros / 2 + micros * (int64_t)(gen_hash(plan, 'p', shot->id) % 10) / 5;
    buf_printf(out, ",\"cost_per_click\":\"%s\"", money_format(micros, 6, text));
}

static void
optional_add(const struct gen_plan *plan, const struct gen_shot *shot,
             struct buf *out)
{
    const struct gen_campaign *campaign = &plan->campaigns[shot->campaign];
    uint64_t h = gen_hash(plan, 'o', shot->id);

    if (shot->pattern == GEN_wrong_currency)
        buf_add_text(out, ",\"currency\":\"USD\"");
    else if (h % 4 == 0)
        buf_printf(out, ",\"currency\":\"%s\"", campaign->currency);
    if (h % 2 == 0)
        buf_printf(out, ",\"ad_group_id\":\"g%u\",\"creative_id\":\"k%u\"",
                   shot->ad / 2u, shot->ad % 3u);
    if (h % 5 == 0)
        buf_printf(out, ",\"click_x\":%u,\"click_y\":%u", (unsigned)(h >> 8) % 300,
                   (unsigned)(h >> 20) % 250);
    if (shot->pattern == GEN_test)
        buf_add_text(out, ",\"test\":true");
    if (shot->pattern == GEN_prefetch)
        buf_add_text(out, ",\"purpose\":\"prefetch\"");
}

static void
names_add(const struct gen_plan *plan, const struct gen_shot *shot, struct buf *out)
{
    uint64_t h = gen_hash(plan, 'n', shot->user);

    if (shot->pattern == GEN_unknown_campaign)
        buf_printf(out, ",\"campaign_id\":\"nobody-%u\"", shot->campaign % 3);
    else if (shot->pattern == GEN_bad_field)
        buf_add_text(out, ",\"campaign_id\":\"two words\"");
    else
        buf_printf(out, ",\"campaign_id\":\"c%05u\"", shot->campaign);
    if (shot->pattern == GEN_honeypot)
        buf_printf(out, ",\"ad_id\":\"honeypot-%u\"", shot->ad);
    else
        buf_printf(out, ",\"ad_id\":\"ad%u\"", shot->ad);
    buf_printf(out, ",\"publisher_id\":\"pub%llu\",\"user_id\":\"u%llx\"",
               (unsigned long long)(h % 20), (unsigned long long)h);
}

void
gen_click_json(const struct gen_plan *plan, uint32_t i, struct buf *out)
{
    const struct gen_shot *shot = &plan->shots[i];
    uint64_t h = gen_hash(plan, 'n', shot->user) >> 8;
    char text[CLOCK_TEXT_SIZE];

    buf_add_text(out, "{\"event_id\":\"");
    id_add(plan, shot->id, out);
    buf_printf(out, "\",\"timestamp\":\"%s\"",
               clock_format_ms(shot->event_ms, text));
    names_add(plan, shot, out);
    buf_add_text(out, ",\"ip_address\":\"");
    address_add(plan, shot->address, out);
    buf_add_text(out, "\",\"user_agent\":");
    buf_add_json(out, str_of(agent_of(shot, h)));
    buf_printf(
        out,
        ",\"referer\":\"https://news%llu.example/%s\",\"device_type\":\"%s\","
        "\"os\":\"%s\",\"country\":\"%s\",\"city\":\"%s\"",
        (unsigned long long)(h % 20), shot->pattern == GEN_conflict ? "b" : "a",
        browsers[h % AGENTS].device, browsers[h % AGENTS].os,
        places[h / 16 % PLACES].country, places[h / 16 % PLACES].city);
    price_add(plan, shot, out);
    optional_add(plan, shot, out);
    buf_add_text(out, "}");
}

static void
campaign_row(const struct gen_plan *plan, uint32_t i, int64_t micros,
             const char *from, struct buf *out)
{
    const struct gen_campaign *campaign = &plan->campaigns[i];
    char price[MONEY_TEXT_SIZE], cap[MONEY_TEXT_SIZE], budget[MONEY_TEXT_SIZE] = "";

    if (campaign->budget_micros > 0)
        (void)money_format(campaign->budget_micros, 6, budget);
    buf_printf(
        out, "c%05u,Campaign %u,%s,adv%04u,Advertiser %u,%s,%s,%s,%s,%s,%s,%s,\r\n",
        i, i, plan->options.account, campaign->advertiser, campaign->advertiser,
        campaign->currency, campaign->zone, campaign->paused ? "paused" : "active",
        campaign->by_event ? "event" : money_format(micros, 6, price), from,
        money_format(campaign->cap_micros, 6, cap), budget);
}

void
gen_campaigns_csv(const struct gen_plan *plan, struct buf *out)
{
    char noon[CLOCK_TEXT_SIZE];
    int64_t noon_ms = plan->options.end_day * CLOCK_DAY_MS + CLOCK_DAY_MS / 2;

    (void)clock_format_ms(noon_ms, noon);
    buf_add_text(
        out,
        "campaign_id,name,account,advertiser_id,advertiser_name,currency,"
        "time_zone,status,cpc,cpc_from,price_cap,daily_budget,budget_from\r\n");
    for (uint32_t i = 0; i < plan->options.campaigns; i++) {
        const struct gen_campaign *campaign = &plan->campaigns[i];
        campaign_row(plan, i, campaign->price_micros, "", out);
        if (campaign->later_micros > 0 && !campaign->by_event)
            campaign_row(plan, i, campaign->later_micros, noon, out);
    }
}

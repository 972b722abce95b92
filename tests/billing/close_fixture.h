/* tests/billing/close_fixture.h - a house to close days in: PostgreSQL with master data,
 * a click log that counts, an archive and a judge; and a memory of every click. */
#ifndef TESTS_BILLING_CLOSE_FIXTURE_H
#define TESTS_BILLING_CLOSE_FIXTURE_H

#include "billing/close.h"
#include "common/clicklog.h"
#include "common/pg.h"
#include "schema/migrate.h"
#include "schema/text.h"
#include "tests/billing/billing_fixture.h"
#include "tests/itest.h"

enum { HOUSE_CLICKS_MAX = 20000 };

struct memory {
    char campaign[32];
    uint32_t account, partition;
    uint64_t seq;
    int64_t event_ms, received_us;
};

struct house {
    struct fixture f;
    char conninfo[ITEST_CONNINFO_MAX];
    struct pg *pg;
    struct clicklog *log;
    struct archiver archiver;
    int64_t hour_us; /* of the last click */
    struct memory *clicks;
    uint32_t n;
    uint64_t incarnation; /* of the next clicks; 0: the fixture's */
    bool lost;            /* no log here counts them */
};

static const char house_master_sql[] =
    "INSERT INTO account (id, name) VALUES (1, 'acme'), (2, 'beta');"
    "INSERT INTO advertiser (id, account_id, name, currency) VALUES "
    "('adv', 1, 'Adv, \"the\" one', 'EUR'), ('jp', 1, '=SUM(A1)', 'JPY'),"
    "('bh', 2, '@home', 'BHD');"
    "INSERT INTO campaign (id, advertiser_id, name, time_zone, currency, "
    "price_cap_micros) VALUES ('shoes', 'adv', 'Shoes', 'Europe/Berlin', 'EUR', "
    "1000000), ('small', 'adv', 'Small', 'Europe/Berlin', 'EUR', 1000000), "
    "('books', 'adv', 'Books', 'Asia/Kolkata', 'EUR', 1000000), "
    "('dinar', 'adv', 'Dinar', 'Europe/Berlin', 'BHD', 1000000), "
    "('yen', 'jp', 'Yen', 'Asia/Kolkata', 'JPY', 90000000), "
    "('fils', 'bh', 'Fils', 'America/New_York', 'BHD', 1000000);"
    "INSERT INTO campaign_rate (campaign_id, valid_from, micros) SELECT id, "
    "'epoch', "
    "CASE id WHEN 'shoes' THEN 250001 WHEN 'yen' THEN 12500000 WHEN 'fils' THEN "
    "1499 ELSE 333333 END FROM campaign;"
    "INSERT INTO campaign_status (campaign_id, valid_from, active) SELECT id, "
    "'epoch', true FROM campaign;"
    "INSERT INTO campaign_budget (campaign_id, valid_from, daily_micros) VALUES "
    "('small', '1970-01-01', 1000000)";

static inline void
house_sql(struct house *h, const char *sql)
{
    MUST(pg_exec(h->pg, sql, NULL, 0, NULL, why));
}

static inline int64_t
house_number(struct house *h, const char *sql)
{
    struct pg_result *result = NULL;

    MUST(pg_exec(h->pg, sql, NULL, 0, &result, why));
    CHECK(pg_rows(result) == 1);
    int64_t n = pg_i64(result, 0, 0);
    pg_result_free(&result);
    return n;
}

/* The first value; up to size - 1 bytes of it. */
static inline const char *
house_text(struct house *h, const char *sql, char *out, size_t size)
{
    struct pg_result *result = NULL;

    MUST(pg_exec(h->pg, sql, NULL, 0, &result, why));
    CHECK(pg_rows(result) >= 1);
    const char *value = pg_value(result, 0, 0);
    (void)snprintf(out, size, "%s", value == NULL ? "(null)" : value);
    pg_result_free(&result);
    return out;
}

/* Follows a change of the master data. */
static inline void
house_follow(struct house *h)
{
    bool changed;

    master_drop(h->f.master_source, h->f.master);
    MUST(master_poll(h->f.master_source, &changed, why));
    h->f.master = master_take(h->f.master_source);
}

static inline void
house_open(struct house *h)
{
    struct clicklog_config cfg = {.partitions = FIXTURE_PARTITIONS,
                                  .map_bytes = UINT64_C(1) << 30,
                                  .bytes_max = UINT64_C(1) << 28,
                                  .no_sync = true};
    char dir[PATH_SIZE];
    int applied;

    *h = (struct house){.n = 0};
    itest_database_make(h->conninfo);
    MUST(pg_open(&h->pg, h->conninfo, why));
    MUST(migrate(h->pg, &applied, why));
    house_sql(h, house_master_sql);
    fixture_open(&h->f);
    master_drop(h->f.master_source, h->f.master);
    master_close(&h->f.master_source);
    MUST(master_open(&h->f.master_source, NULL, h->conninfo, why));
    h->f.master = master_take(h->f.master_source);
    (void)snprintf(dir, sizeof(dir), "%s/log", h->f.dir);
    cfg.dir = dir;
    MUST(clicklog_open(&h->log, &cfg, why));
    archiver_open(&h->archiver, h->f.archive);
    h->clicks = calloc(HOUSE_CLICKS_MAX, sizeof(*h->clicks));
    CHECK(h->clicks != NULL);
}

static inline void
house_close(struct house *h)
{
    archiver_roll(&h->archiver, INT64_C(1) << 60); /* what is open is freed */
    archiver_close(&h->archiver);
    clicklog_close(&h->log);
    fixture_close(&h->f);
    pg_close(&h->pg);
    itest_database_drop(h->conninfo);
    free(h->clicks);
}

/* Counted by the log and archived, as ingest and archive do. */
static inline void
house_take(struct house *h, struct click *click)
{
    const uint8_t body[1] = {0};
    struct clicklog_entry entry = {.account = click->account,
                                   .campaign = click->campaign_id,
                                   .event_ms = click->timestamp_ms,
                                   .partition = hash_partition(click->campaign_id.p,
                                                               click->campaign_id.n,
                                                               FIXTURE_PARTITIONS),
                                   .version = CLICK_VERSION,
                                   .body = {(const char *)body, 1}};

    CHECK(h->n < HOUSE_CLICKS_MAX);
    if (h->incarnation != 0)
        click->incarnation = h->incarnation;
    if (!h->lost)
        MUST(clicklog_append(h->log, &entry, 1, click->received_us,
                             &click->received_us, why));
    /* A file holds clicks of one hour of receipt. */
    int64_t hour_us = clock_floor(click->received_us, HOUR);
    if (hour_us != h->hour_us)
        archiver_roll(&h->archiver, hour_us);
    h->hour_us = hour_us;
    archiver_add(&h->archiver, click);
    struct memory *memory = &h->clicks[h->n++];
    *memory = (struct memory){.account = click->account,
                              .partition = click->partition,
                              .seq = click->seq,
                              .event_ms = click->timestamp_ms,
                              .received_us = click->received_us};
    (void)snprintf(memory->campaign, sizeof(memory->campaign), "%.*s",
                   (int)click->campaign_id.n, click->campaign_id.p);
}

/* A click that no rule minds, of a user and an address of its own. */
static inline void
house_click(struct house *h, const char *campaign, int64_t event_ms,
            int64_t received_us)
{
    struct click click = fixture_click(h->n + 1, received_us);
    const struct master_campaign *known =
        master_campaign_find(h->f.master, str_of(campaign));
    char user[24];
    uint32_t address = 0x0b000000u + h->n;
    uint8_t ip[4] = {(uint8_t)(address >> 24), (uint8_t)(address >> 16),
                     (uint8_t)(address >> 8), (uint8_t)address};

    (void)snprintf(user, sizeof(user), "user%u", h->n);
    click.campaign_id = str_of(campaign);
    click.account = known != NULL ? known->account : 1;
    click.user_id = str_of(user);
    click.ip = (struct str){(const char *)ip, 4};
    click.timestamp_ms = event_ms;
    house_take(h, &click);
}

/* n clicks around us, a second apart. */
static inline void
house_clicks(struct house *h, const char *campaign, int n, int64_t us)
{
    for (int i = 0; i < n; i++)
        house_click(h, campaign, us / 1000 + i * 1000, us + i * SECOND);
}

/* All before us is archived, judged, and told by the log. */
static inline void
house_judge(struct house *h, int64_t us)
{
    MUST(clicklog_append(h->log, NULL, 0, us, NULL, why));
    archiver_roll(&h->archiver, us);
    (void)fixture_judge(&h->f, us, us % HOUR != 0);
}

static inline struct close_input
house_input(struct house *h, int32_t day, int64_t now_us)
{
    return (struct close_input){.config = &h->f.config,
                                .archive_dir = h->f.archive,
                                .judge_dir = h->f.judge,
                                .master = h->f.master,
                                .pg = h->pg,
                                .log = h->log,
                                .day = day,
                                .now_us = now_us};
}

static inline struct close_result
house_close_day(struct house *h, int32_t day, int64_t now_us)
{
    const struct close_input in = house_input(h, day, now_us);
    struct close_result result;

    MUST(close_day(&in, &result, why));
    return result;
}

static inline int64_t
at(const char *text)
{
    int64_t ms = 0;

    CHECK(rfc3339_parse(str_of(text), &ms));
    return ms * 1000;
}

static inline int32_t
day_of(const char *text)
{
    int32_t day = 0;

    CHECK(date_parse(str_of(text), &day));
    return day;
}

/* Two days of clicks of every campaign and of unknown ones, every hour. */
static inline void
house_traffic(struct house *h)
{
    static const char *const campaigns[] = {"shoes", "small", "books", "dinar",
                                            "yen",   "fils",  "nobody"};
    uint64_t seed = 4;

    for (int64_t us = at("2026-03-01T09:00:00Z"); us < at("2026-03-03T00:00:00Z");
         us += HOUR) {
        for (int i = 0; i < 20; i++) {
            int64_t received_us = us + i * 100 * SECOND;
            house_click(h, campaigns[random_below(&seed, 7)],
                        received_us / 1000 - (int64_t)random_below(&seed, 3600000),
                        received_us);
        }
    }
}

/* ---- what must hold at any time ---- */

/* The chain, from SQL alone: each hash is that of its line, each line names the one before. */
static inline void
house_check_chain(struct house *h)
{
    CHECK(
        house_number(
            h,
            "SELECT count(*) FROM (SELECT c.hash, c.previous_hash, lag(c.hash, 1, "
            "''::bytea) OVER (ORDER BY r.id) AS before, sha256(convert_to('run=' "
            "|| r.id || ' zone=' || r.time_zone || ' day=' || r.day || ' "
            "sequence=' "
            "|| r.sequence || ' input=' || encode(r.input_hash, 'hex') || "
            "' received=' || received || ' archived=' || archived || ' billable=' "
            "|| billable || ' suspicious=' || suspicious || ' over_budget=' || "
            "over_budget || ' invalid=' || invalid || ' duplicate=' || duplicate "
            "|| ' quarantined=' || quarantined || ' conflicts=' || conflicts || "
            "CASE recounted_spools WHEN '' THEN '' ELSE ' recounted=' || "
            "recounted_spools END || ' merkle=' || encode(merkle_root, 'hex') || ' "
            "previous=' || "
            "encode(previous_hash, 'hex'), 'UTF8')) AS line FROM certificate c "
            "JOIN "
            "billing_run r ON r.id = c.run_id WHERE r.status = 'posted') x "
            "WHERE hash <> line OR previous_hash <> before") == 0);
}

static inline void
house_check_money(struct house *h)
{
    CHECK(house_number(h,
                       "SELECT count(*) FROM (SELECT transaction_id, currency "
                       "FROM ledger_entry GROUP BY 1, 2 HAVING sum(micros) <> 0) "
                       "x") == 0);
    /* What is not invoiced yet and what is make up the revenue. */
    CHECK(house_number(
              h, "SELECT (SELECT coalesce(sum(cost_micros), 0) FROM "
                 "campaign_daily_stats) + (SELECT coalesce(sum(micros), 0) FROM "
                 "ledger_entry WHERE ledger_account LIKE 'revenue:%')") == 0);
    CHECK(house_number(
              h, "SELECT count(*) FROM certificate c JOIN billing_run r ON "
                 "r.id = c.run_id WHERE r.status = 'posted' AND (received "
                 "<> archived OR received <> billable + over_budget + "
                 "invalid + duplicate + quarantined OR differences <> '')") == 0);
}

/* Each posted day's statistics are the sums of the verdict files' rows. zone_of tells the
 * zone that a click was judged in; NULL: the campaign's now. */
static inline void
house_check_stats(struct house *h,
                  const struct zone *(*zone_of)(const struct memory *click))
{
    struct final_row *rows[FIXTURE_PARTITIONS];
    uint64_t posted = 0;

    finals_read(&h->f, rows);
    house_sql(h, "CREATE TEMP TABLE model (zone text, day date, campaign text, "
                 "verdict text, clicks bigint, cost bigint)");
    MUST(pg_copy_begin(h->pg, "COPY model FROM STDIN", why));
    for (uint32_t i = 0; i < h->n; i++) {
        const struct memory *click = &h->clicks[i];
        const struct final_row *row = &rows[click->partition][click->seq];
        const struct master_campaign *known =
            master_campaign_find(h->f.master, str_of(click->campaign));
        const struct zone *zone = zone_of != NULL ? zone_of(click) : NULL;
        char day[12], name[64];
        if (row->verdict.kind == VERDICT_NONE)
            continue;
        if (zone == NULL)
            zone = known != NULL ? known->zone : zone_find(STR("UTC"));
        (void)snprintf(name, sizeof(name), "%.*s", (int)zone_name(zone).n,
                       zone_name(zone).p);
        pg_copy_field(h->pg, name);
        pg_copy_field(h->pg, date_format(zone_day(zone, click->event_ms), day));
        pg_copy_field(h->pg, click->campaign);
        pg_copy_field(h->pg, verdict_name((enum verdict_kind)row->verdict.kind));
        pg_copy_i64(h->pg, 1);
        pg_copy_i64(h->pg, row->price_micros);
        MUST(pg_copy_row_end(h->pg, why));
        posted++;
    }
    int64_t copied;
    MUST(pg_copy_end(h->pg, &copied, why));
    CHECK(copied == (int64_t)posted);
    CHECK(house_number(
              h,
              "SELECT count(*) FROM (SELECT r.time_zone, s.day, s.campaign_id, "
              "s.verdict, sum(s.clicks) AS n, sum(s.cost_micros) AS cost FROM "
              "campaign_daily_stats s JOIN billing_run r ON r.id = s.run_id GROUP "
              "BY 1, 2, 3, 4) a FULL JOIN (SELECT zone, day, campaign, verdict, "
              "sum(clicks) AS n, sum(cost) AS cost FROM model m WHERE EXISTS "
              "(SELECT 1 FROM billing_run r WHERE r.time_zone = m.zone AND r.day = "
              "m.day AND r.status = 'posted') GROUP BY 1, 2, 3, 4) b ON "
              "a.time_zone = b.zone AND a.day = b.day AND a.campaign_id = "
              "b.campaign AND a.verdict = b.verdict WHERE a.n IS DISTINCT FROM b.n "
              "OR a.cost IS DISTINCT FROM b.cost") == 0);
    house_sql(h, "DROP TABLE model");
    for (uint32_t p = 0; p < FIXTURE_PARTITIONS; p++)
        free(rows[p]);
}

static inline void
house_check(struct house *h)
{
    house_check_chain(h);
    house_check_money(h);
    house_check_stats(h, NULL);
}

#endif

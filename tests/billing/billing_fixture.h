/* tests/billing/billing_fixture.h - a folder, campaigns, clicks, and an archive of them. */
#ifndef TESTS_BILLING_FIXTURE_H
#define TESTS_BILLING_FIXTURE_H

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "billing/final.h"
#include "billing/judge.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/hash.h"
#include "fraud/fraud.h"
#include "schema/avrofile.h"
#include "schema/manifest.h"
#include "schema/zone.h"

#define MUST(call)                                                            \
    do {                                                                      \
        struct why why_ = {{0}};                                              \
        struct why *why = &why_;                                              \
        enum err err_ = (call);                                               \
        if (err_ != ERR_OK) {                                                 \
            fprintf(stderr, "%s:%d: %s: %s: %s\n", __FILE__, __LINE__, #call, \
                    err_name(err_), why_.text);                               \
            exit(1);                                                          \
        }                                                                     \
    } while (0)

#define CHECK(condition)                                               \
    do {                                                               \
        if (!(condition)) {                                            \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, \
                    #condition);                                       \
            exit(1);                                                   \
        }                                                              \
    } while (0)

/* 2026-03-01T10:00:00Z */
#define T0_US  INT64_C(1772359200000000)
#define HOUR   CLOCK_HOUR_US
#define SECOND CLOCK_SECOND_US

enum { FIXTURE_PARTITIONS = 4, FIXTURE_CAMPAIGNS = 6, PATH_SIZE = 256 };

static inline uint64_t
random_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static inline uint64_t
random_below(uint64_t *state, uint64_t n)
{
    return random_next(state) % n;
}

static inline void
path_remove(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    char child[1024];

    if (dir == NULL) {
        (void)unlink(path);
        return;
    }
    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        (void)snprintf(child, sizeof(child), "%s/%s", path, entry->d_name);
        path_remove(child);
    }
    (void)closedir(dir);
    (void)rmdir(path);
}

/* A folder with archive/ and judge/ and the master data and rules to judge with. */
struct fixture {
    char dir[64], archive[PATH_SIZE], judge[PATH_SIZE];
    struct config config;
    struct master_source *master_source;
    const struct master *master;
    struct ruleset_source *rules_source;
    const struct ruleset *rules;
    uint64_t window_bytes; /* of the judge; 0: as it is */
};

static inline struct master_source *
fixture_master(void)
{
    static const struct master_rate quarter = {0, 250000};
    static const struct master_rate event = {0, MASTER_EVENT_PRICE};
    static const struct master_status active[] = {{0, true}},
                                      paused[] = {{0, false}};
    static const struct master_budget none = {0, MASTER_NO_BUDGET};
    static const struct master_budget small = {0, 5000000};
    const struct zone *berlin = zone_find(STR("Europe/Berlin"));
    const struct zone *kolkata = zone_find(STR("Asia/Kolkata"));
    struct master_campaign campaigns[FIXTURE_CAMPAIGNS] = {
        {.id = STR("shoes"), .zone = berlin, .rates = &quarter, .budgets = &none},
        {.id = STR("books"), .zone = kolkata, .rates = &event, .budgets = &none},
        {.id = STR("small"), .zone = berlin, .rates = &quarter, .budgets = &small},
        {.id = STR("tight"), .zone = kolkata, .rates = &event, .budgets = &small},
        {.id = STR("paused"), .zone = berlin, .rates = &quarter, .budgets = &none},
        {.id = STR("other"), .zone = berlin, .rates = &quarter, .budgets = &none},
    };

    for (int i = 0; i < FIXTURE_CAMPAIGNS; i++) {
        campaigns[i].account = i == 5 ? 2 : 1;
        campaigns[i].advertiser = STR("adv");
        campaigns[i].currency = STR("EUR");
        campaigns[i].price_cap_micros = 900000;
        campaigns[i].statuses = i == 4 ? paused : active;
        campaigns[i].rates_n = campaigns[i].budgets_n = campaigns[i].statuses_n = 1;
    }
    return master_fixed(campaigns, FIXTURE_CAMPAIGNS, NULL, 0);
}

static inline void
fixture_open(struct fixture *f)
{
    int argc = 0;
    char *argv[] = {NULL};

    *f = (struct fixture){.dir = "/tmp/test_billing.XXXXXX"};
    CHECK(mkdtemp(f->dir) != NULL);
    (void)snprintf(f->archive, sizeof(f->archive), "%s/archive", f->dir);
    (void)snprintf(f->judge, sizeof(f->judge), "%s/judge", f->dir);
    MUST(file_mkdirs(f->archive, why));
    MUST(file_mkdirs(f->judge, why));
    MUST(config_load(&f->config, NULL, &argc, argv, why));
    f->master_source = fixture_master();
    CHECK(f->master_source != NULL);
    f->master = master_take(f->master_source);
    MUST(ruleset_open(&f->rules_source, NULL, f->dir, why));
    f->rules = ruleset_take(f->rules_source);
}

static inline void
fixture_close(struct fixture *f)
{
    ruleset_drop(f->rules_source, f->rules);
    ruleset_close(&f->rules_source);
    master_drop(f->master_source, f->master);
    master_close(&f->master_source);
    config_free(&f->config);
    path_remove(f->dir);
}

/* A click that no rule minds; number makes it different from all others. */
static inline struct click
fixture_click(uint64_t number, int64_t received_us)
{
    static const char *const users[] = {"u0", "u1", "u2", "u3",
                                        "u4", "u5", "u6", "u7"};
    static const char *const ads[] = {"a0", "a1", "a2", "a3"};
    static const uint8_t ips[256][4] = {{10, 0, 0, 1}};
    struct click click = {
        .received_us = received_us,
        .incarnation = 77,
        .account = 1,
        .timestamp_ms = received_us / 1000 - 500,
        .campaign_id = STR("shoes"),
        .ad_id = str_of(ads[number % 4]),
        .publisher_id = STR("pub"),
        .user_id = str_of(users[number % 8]),
        .ip = {(const char *)ips[0], 4},
        .user_agent = STR("Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"),
        .country = STR("DE"),
        .price_micros = 300000,
    };

    memcpy(click.event_id, &number, sizeof(number));
    return click;
}

/* An archive written straight, with the files and lists that the archive stage makes. */
struct archiver {
    const char *dir;
    struct manifest_writer *lists[FIXTURE_PARTITIONS];
    struct avrofile_writer *files[FIXTURE_PARTITIONS];
    struct manifest_file open[FIXTURE_PARTITIONS];
    uint64_t next[FIXTURE_PARTITIONS];
};

static inline void
archiver_open(struct archiver *a, const char *dir)
{
    char incs[MANIFEST_INCS_MAX];

    *a = (struct archiver){.dir = dir};
    for (uint32_t p = 0; p < FIXTURE_PARTITIONS; p++)
        MUST(manifest_writer_open(&a->lists[p], dir, p, &a->next[p], incs, why));
}

/* click's partition and seq are set here. Clicks come in order of receipt. */
static inline void
archiver_add(struct archiver *a, struct click *click)
{
    uint32_t p = hash_partition(click->campaign_id.p, click->campaign_id.n,
                                FIXTURE_PARTITIONS);
    uint8_t record[CLICK_BODY_MAX + 64];
    struct manifest_file *open = &a->open[p];
    size_t n;

    click->partition = p;
    click->seq = a->next[p];
    if (a->files[p] == NULL) {
        char folder[64], path[PATH_SIZE];

        *open = (struct manifest_file){.partition = p, .base = a->next[p]};
        open->first_received_us = click->received_us;
        (void)snprintf(folder, sizeof(folder), "date=2026-01-01/hour=%02d",
                       (int)(click->received_us / HOUR % 24));
        (void)snprintf(path, sizeof(path), "%s/%s", a->dir, folder);
        MUST(file_mkdirs(path, why));
        (void)snprintf(open->path, sizeof(open->path), "%s/part-%u-%" PRIu64,
                       folder, p, open->base);
        (void)snprintf(path, sizeof(path), "%s/%s", a->dir, open->path);
        MUST(avrofile_create(&a->files[p], path, click_schema(CLICK_VERSION),
                             AVROFILE_SNAPPY, NULL, 0, why));
    }
    n = click_encode_prefix(click, record);
    n += click_encode_body(click, record + n);
    MUST(avrofile_add(a->files[p], record, n, why));
    open->last = a->next[p]++;
    open->last_received_us = click->received_us;
}

/* Everything open is listed; nothing more will be received before through_us. */
static inline void
archiver_roll(struct archiver *a, int64_t through_us)
{
    for (uint32_t p = 0; p < FIXTURE_PARTITIONS; p++) {
        struct manifest_file *open = &a->open[p];
        char path[2 * PATH_SIZE];
        size_t n = strlen(open->path);

        if (a->files[p] != NULL) {
            (void)snprintf(open->path + n, sizeof(open->path) - n,
                           "-%" PRIu64 ".avro", open->last);
            open->clicks = open->last - open->base + 1;
            open->bytes = avrofile_bytes(a->files[p]);
            (void)snprintf(path, sizeof(path), "%s/%s", a->dir, open->path);
            MUST(avrofile_finish(&a->files[p], path, open->sha256, why));
            MUST(manifest_add(a->lists[p], open, "000000000000004d:1", why));
        }
        MUST(manifest_through(a->lists[p], through_us, why));
    }
}

static inline void
archiver_close(struct archiver *a)
{
    for (uint32_t p = 0; p < FIXTURE_PARTITIONS; p++)
        manifest_writer_close(&a->lists[p]);
}

static inline struct judge_input
fixture_input(const struct fixture *f, int64_t until_us, bool forced)
{
    return (struct judge_input){
        .config = &f->config,
        .archive_dir = f->archive,
        .judge_dir = f->judge,
        .master = f->master,
        .rules = f->rules,
        .until_us = until_us,
        .forced = forced,
        .window_bytes_max = f->window_bytes,
    };
}

static inline struct judge_result
fixture_judge(const struct fixture *f, int64_t until_us, bool forced)
{
    const struct judge_input in = fixture_input(f, until_us, forced);
    struct judge_result result;

    MUST(judge_run(&in, &result, why));
    return result;
}

/* rows[offset] of each partition, from the verdict files of the whole archive. */
static inline void
finals_read(const struct fixture *f, struct final_row *rows[FIXTURE_PARTITIONS])
{
    struct manifest manifest;

    MUST(manifest_read(&manifest, f->archive, 0, why));
    for (uint32_t p = 0; p < FIXTURE_PARTITIONS; p++) {
        rows[p] = calloc(manifest.next[p] + 1, sizeof(**rows));
        CHECK(rows[p] != NULL);
    }
    for (uint32_t i = 0; i < manifest.files_n; i++) {
        const struct manifest_file *file = &manifest.files[i];

        MUST(final_read(f->archive, file, rows[file->partition] + file->base, why));
    }
    manifest_free(&manifest);
}

#endif

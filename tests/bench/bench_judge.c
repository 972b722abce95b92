/* The judge's speed: an archive of one day of N clicks, 35 id runs of N before it.
 *
 *   bench_judge [clicks [folder]]     default 1000000, a new folder in /tmp, removed after;
 *                                     a folder with an archive of so many is judged anew
 *
 * Prints one line of JSON: clicks/s, CPU ns a click (sys: the kernel's part of it), the
 * largest resident size. */
#define _DEFAULT_SOURCE
#define _XOPEN_SOURCE 700 /* nftw */
#include <ftw.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "billing/idrun.h"
#include "billing/judge.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/hash.h"
#include "fraud/verdict.h"
#include "schema/avrofile.h"
#include "schema/click.h"
#include "schema/manifest.h"
#include "schema/zone.h"

enum {
    PARTITIONS = 16,
    CAMPAIGNS = 1000,
    RUNS = 35,
    GROUP = 500,
    NAME = 16,
    ROLLS_A_DAY = 288 /* archive files are rolled every 5 minutes */
};

#define DAY_US (INT64_C(20513) * CLOCK_DAY_US) /* 2026-03-01 */

#define MUST(call)                                                             \
    do {                                                                       \
        struct why why_ = {{0}};                                               \
        struct why *why = &why_;                                               \
        enum err err_ = (call);                                                \
        if (err_ != ERR_OK) {                                                  \
            fprintf(stderr, "%s: %s: %s\n", #call, err_name(err_), why_.text); \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

static uint64_t
random_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* Popular things are low numbers: about Zipf. */
static uint32_t
zipf(uint64_t *state, uint32_t n)
{
    double u = (double)(random_next(state) >> 11) / 9007199254740992.0;

    return (uint32_t)(exp(u * log((double)n)) - 1.0) % n;
}

static struct master_source *
master_make(char names[CAMPAIGNS][NAME])
{
    static const struct master_rate rate = {0, 250000};
    static const struct master_status active = {0, true};
    static const struct master_budget budget = {0, INT64_C(1000000000)};
    static struct master_campaign campaigns[CAMPAIGNS];

    for (uint32_t i = 0; i < CAMPAIGNS; i++) {
        (void)snprintf(names[i], NAME, "campaign-%u", i);
        campaigns[i] = (struct master_campaign){
            .id = str_of(names[i]),
            .account = 1,
            .advertiser = STR("adv"),
            .currency = STR("EUR"),
            .zone = zone_find(i % 2 ? STR("Europe/Berlin") : STR("Asia/Kolkata")),
            .price_cap_micros = 1000000,
            .rates = &rate,
            .rates_n = 1,
            .budgets = &budget,
            .budgets_n = i % 10 == 0,
            .statuses = &active,
            .statuses_n = 1,
        };
    }
    return master_fixed(campaigns, CAMPAIGNS, NULL, 0);
}

struct lane {
    struct manifest_writer *list;
    struct avrofile_writer *file;
    struct manifest_file open;
    uint64_t next;
};

static void
lane_finish(const char *dir, struct lane *lane)
{
    char path[FILE_PATH_MAX];

    if (lane->file == NULL)
        return;
    lane->open.last = lane->next - 1;
    lane->open.clicks = lane->next - lane->open.base;
    lane->open.bytes = avrofile_bytes(lane->file);
    (void)snprintf(path, sizeof(path), "%s/%s", dir, lane->open.path);
    MUST(avrofile_finish(&lane->file, path, lane->open.sha256, why));
    MUST(manifest_add(lane->list, &lane->open, "1:1", why));
}

static void
lane_add(const char *dir, struct lane *lane, uint32_t partition,
         struct click *click)
{
    uint8_t record[CLICK_BODY_MAX + 64];
    size_t n;

    if (lane->file == NULL) {
        char path[FILE_PATH_MAX];
        int hour = (int)(click->received_us / CLOCK_HOUR_US % 24);

        lane->open =
            (struct manifest_file){.partition = partition, .base = lane->next};
        lane->open.first_received_us = click->received_us;
        (void)snprintf(lane->open.path, sizeof(lane->open.path),
                       "date=2026-03-01/hour=%02d/part-%u-%" PRIu64 ".avro", hour,
                       partition, lane->next);
        (void)snprintf(path, sizeof(path), "%s/date=2026-03-01/hour=%02d", dir,
                       hour);
        MUST(file_mkdirs(path, why));
        (void)snprintf(path, sizeof(path), "%s/%s", dir, lane->open.path);
        MUST(avrofile_create(&lane->file, path, click_schema(CLICK_VERSION),
                             AVROFILE_SNAPPY, NULL, 0, why));
    }
    click->partition = partition;
    click->seq = lane->next++;
    lane->open.last_received_us = click->received_us;
    n = click_encode_prefix(click, record);
    n += click_encode_body(click, record + n);
    MUST(avrofile_add(lane->file, record, n, why));
}

static void
archive_make(const char *dir, char names[CAMPAIGNS][NAME], uint64_t n)
{
    static struct lane lanes[PARTITIONS];
    static char users[100000][NAME], ads[100][NAME], pubs[200][NAME];
    char incs[MANIFEST_INCS_MAX];
    uint64_t seed = 1;
    int64_t rolled = 0;

    for (uint32_t i = 0; i < 100000; i++)
        (void)snprintf(users[i], NAME, "user-%07u", i);
    for (uint32_t i = 0; i < 200; i++) {
        (void)snprintf(ads[i % 100], NAME, "ad-%u", i % 100);
        (void)snprintf(pubs[i], NAME, "publisher-%u", i);
    }
    for (uint32_t p = 0; p < PARTITIONS; p++)
        MUST(manifest_writer_open(&lanes[p].list, dir, p, &lanes[p].next, incs,
                                  why));
    for (uint64_t i = 0; i < n; i++) {
        uint64_t group = i / GROUP;
        int64_t now_us =
            DAY_US +
            (int64_t)((double)(group * GROUP) / (double)n * (double)CLOCK_DAY_US) +
            1;
        uint64_t id[2] = {random_next(&seed), random_next(&seed)};
        uint32_t address = (uint32_t)random_next(&seed) % 1000000;
        uint32_t campaign = zipf(&seed, CAMPAIGNS);
        struct click click = {
            .received_us = now_us,
            .incarnation = 1,
            .account = 1,
            .key = 1,
            .remote = {"\x7f\0\0\1", 4},
            .timestamp_ms = now_us / 1000 - (int64_t)(random_next(&seed) % 3000),
            .campaign_id = str_of(names[campaign]),
            .ad_id = str_of(ads[(campaign + zipf(&seed, 5)) % 100]),
            .publisher_id = str_of(pubs[(campaign * 7 + zipf(&seed, 20)) % 200]),
            .user_id = str_of(users[random_next(&seed) % 100000]),
            .ip = {(const char *)&address, 4},
            .user_agent =
                STR("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 "
                    "(KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"),
            .referer = STR("https://www.example.com/articles/some-page"),
            .os = STR("Windows"),
            .country = STR("DE"),
            .city = STR("Berlin"),
            .price_micros = 250000,
        };

        if (i > 10 && random_next(&seed) % 50 == 0)
            id[0] = id[1] = 7; /* a repeat */
        memcpy(click.event_id, id, 16);
        if ((now_us - DAY_US) / (CLOCK_DAY_US / ROLLS_A_DAY) != rolled) {
            rolled = (now_us - DAY_US) / (CLOCK_DAY_US / ROLLS_A_DAY);
            for (uint32_t p = 0; p < PARTITIONS; p++)
                lane_finish(dir, &lanes[p]);
        }
        uint32_t p =
            hash_partition(click.campaign_id.p, click.campaign_id.n, PARTITIONS);
        lane_add(dir, &lanes[p], p, &click);
    }
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        lane_finish(dir, &lanes[p]);
        MUST(manifest_through(lanes[p].list, DAY_US + CLOCK_DAY_US, why));
        manifest_writer_close(&lanes[p].list);
    }
}

static void
runs_make(const char *judge, uint64_t n)
{
    static const uint32_t account = 1;
    static const struct str zone = {"UTC", 3};
    uint64_t seed = 9;
    char path[FILE_PATH_MAX];

    (void)snprintf(path, sizeof(path), "%s/ids", judge);
    MUST(file_mkdirs(path, why));
    for (int64_t day = RUNS; day > 0; day--) {
        int64_t from_us = DAY_US - day * CLOCK_DAY_US;
        const struct idrun_file file = {from_us, from_us + CLOCK_DAY_US, 0, 0, 0};
        const struct idrun_tables tables = {&file, 1, "x",      2,
                                            &zone, 1, &account, 1};
        uint64_t step = UINT64_MAX / (n + 1), hash = 0;
        struct idrun_writer *writer;

        idrun_path(path, sizeof(path), judge, from_us, from_us + CLOCK_DAY_US);
        MUST(idrun_create(&writer, path, from_us, from_us + CLOCK_DAY_US, n, why));
        for (uint64_t i = 0; i < n; i++) {
            struct idrun_detail detail = {.account = 1, .kind = VERDICT_BILLABLE};

            hash = i * step + random_next(&seed) % step;
            memcpy(detail.event_id, &hash, 8);
            MUST(idrun_add(writer, hash, &detail, why));
        }
        MUST(idrun_finish(&writer, &tables, NULL, why));
    }
}

/* The days of the runs are on record, so that they are kept. */
static void
record_make(const char *judge)
{
    char path[FILE_PATH_MAX], line[256];
    int n = snprintf(line, sizeof(line),
                     "slice %" PRId64 " %" PRId64 " 0 0 0 1 1 %064d",
                     DAY_US - RUNS * CLOCK_DAY_US, DAY_US, 0);

    n += snprintf(line + n, sizeof(line) - (size_t)n, " %016" PRIx64 "\n",
                  hash64(line, (size_t)n, 0));
    (void)snprintf(path, sizeof(path), "%s/judged.log", judge);
    MUST(file_write(path, line, (size_t)n, why));
}

static double
seconds_of(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static void
judge_measure(const char *archive, const char *judge, const char *dir,
              const struct master *master, uint64_t n)
{
    struct ruleset_source *source;
    struct config config;
    struct judge_result result;
    struct rusage usage;
    int argc = 0;
    char *argv[] = {NULL};
    int64_t start_us;
    double s, user, sys;

    MUST(config_load(&config, NULL, &argc, argv, why));
    MUST(ruleset_open(&source, NULL, dir, why));
    const struct judge_input in = {.config = &config,
                                   .archive_dir = archive,
                                   .judge_dir = judge,
                                   .master = master,
                                   .rules = ruleset_take(source),
                                   .until_us = DAY_US + CLOCK_DAY_US};
    start_us = clock_mono_us();
    MUST(judge_run(&in, &result, why));
    s = (double)(clock_mono_us() - start_us) / 1e6;
    (void)getrusage(RUSAGE_SELF, &usage);
    user = seconds_of(usage.ru_utime);
    sys = seconds_of(usage.ru_stime);
    printf("{\"clicks\":%" PRIu64 ",\"judge_per_s\":%.0f,"
           "\"judge_cpu_ns_per_click\":%.0f,\"judge_sys_ns_per_click\":%.0f,"
           "\"judge_rss_mb\":%ld,\"duplicates\":%" PRIu64 "}\n",
           result.clicks, (double)n / s, (user + sys) / (double)n * 1e9,
           sys / (double)n * 1e9, usage.ru_maxrss / 1024, result.duplicates);
}

static int
entry_remove(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

int
main(int argc, char **argv)
{
    static char names[CAMPAIGNS][NAME];
    uint64_t n = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
    char dir[256] = "/tmp/bench_judge.XXXXXX", archive[300], judge[300];
    struct master_source *master = master_make(names);
    pid_t pid;

    if (n < 1000 || master == NULL)
        return 2;
    if (argc > 2)
        (void)snprintf(dir, sizeof(dir), "%s", argv[2]);
    else if (mkdtemp(dir) == NULL)
        return 1;
    (void)snprintf(archive, sizeof(archive), "%s/archive", dir);
    (void)snprintf(judge, sizeof(judge), "%s/judge", dir);
    pid = fork(); /* what is made here must not count as the judge's memory */
    if (pid == 0) {
        if (access(archive, F_OK) != 0) {
            archive_make(archive, names, n);
            runs_make(judge, n);
        }
        record_make(judge);
        _exit(0);
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
        return 1;
    judge_measure(archive, judge, dir, master_take(master), n);
    return argc > 2 || nftw(dir, entry_remove, 16, FTW_DEPTH | FTW_PHYS) == 0 ? 0
                                                                              : 1;
}

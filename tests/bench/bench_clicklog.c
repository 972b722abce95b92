/* tests/bench/bench_clicklog.c [GROUPS] - appending to the click log beside a bare
 * LMDB append of the same bytes: one value a group, copied once, MDB_APPEND.
 *
 * CPU is the appending thread's, the kernel's share of write and sync included; the rows
 * "without sync" leave the disk out.
 */
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "common/clock.h"
#include "tests/common/clicklog_fixture.h"

enum {
    CLICKS = 5000,
    BODY = 250,
    PARTITIONS = 16,
    CAMPAIGNS = 1000,
    TRIM_EVERY = 200
};

struct result {
    double cpu_ns, clicks_per_s, mb_per_s;
};

struct timing {
    int64_t wall_us, cpu_ns;
};

static struct timing
timing_now(void)
{
    struct timespec t;

    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) != 0)
        exit(1);
    return (struct timing){clock_mono_us(),
                           t.tv_sec * INT64_C(1000000000) + t.tv_nsec};
}

static struct result
result_of(struct timing start, int groups)
{
    struct timing end = timing_now();
    double clicks = (double)groups * CLICKS;
    double seconds = (double)(end.wall_us - start.wall_us) / 1e6;

    return (struct result){(double)(end.cpu_ns - start.cpu_ns) / clicks,
                           clicks / seconds, clicks * BODY / seconds / 1e6};
}

static void
print(const char *name, struct result r)
{
    printf("%-34s %8.1f ns CPU a click %12.0f clicks/s %8.1f MB/s\n", name,
           r.cpu_ns, r.clicks_per_s, r.mb_per_s);
}

static void
lmdb_must(int rc)
{
    if (rc != 0) {
        fprintf(stderr, "lmdb: %s\n", mdb_strerror(rc));
        exit(1);
    }
}

static struct result
raw_run(const char *dir, const char *bodies, int groups, unsigned flags)
{
    struct timing start;
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;

    lmdb_must(mdb_env_create(&env));
    lmdb_must(mdb_env_set_mapsize(env, (size_t)1 << 36));
    lmdb_must(mdb_env_open(env, dir, flags, 0600));
    start = timing_now();
    for (int g = 0; g < groups; g++) {
        uint64_t id = __builtin_bswap64((uint64_t)g);
        MDB_val key = {sizeof(id), &id}, value = {(size_t)CLICKS * BODY, NULL};

        lmdb_must(mdb_txn_begin(env, NULL, 0, &txn));
        lmdb_must(mdb_dbi_open(txn, NULL, 0, &dbi));
        lmdb_must(mdb_put(txn, dbi, &key, &value, MDB_RESERVE | MDB_APPEND));
        memcpy(value.mv_data, bodies, value.mv_size);
        lmdb_must(mdb_txn_commit(txn));
    }
    struct result result = result_of(start, groups);
    mdb_env_close(env);
    return result;
}

/* Campaigns by Zipf's law, roughly: the rank is 1 / u. */
static void
entries_make(struct clicklog_entry *entries, char (*names)[16], const char *bodies)
{
    uint64_t seed = 1;

    for (int i = 0; i < CLICKS; i++) {
        double u = (double)(random_next(&seed) >> 11) / 9007199254740992.0;
        unsigned campaign = (unsigned)(1.0 / (u + 1.0 / CAMPAIGNS)) % CAMPAIGNS;

        (void)snprintf(names[i], sizeof(names[i]), "campaign-%u", campaign);
        entries[i] = (struct clicklog_entry){
            .account = 1,
            .campaign = str_of(names[i]),
            .event_ms = INT64_C(1795000000000),
            .partition = campaign * 2654435761u >> 28,
            .version = 2,
            .body = {bodies + (size_t)i * BODY, BODY},
        };
    }
}

static struct result
log_run(const char *dir, const struct clicklog_entry *entries, int groups,
        bool no_sync, bool trims)
{
    struct clicklog_config cfg = {.dir = dir,
                                  .partitions = PARTITIONS,
                                  .map_bytes = UINT64_C(1) << 36,
                                  .bytes_max = UINT64_C(1) << 36,
                                  .no_sync = no_sync};
    struct clicklog *log;
    struct timing start;
    uint64_t first, next;

    MUST(clicklog_open(&log, &cfg, why));
    start = timing_now();
    for (int g = 0; g < groups; g++) {
        MUST(clicklog_append(log, entries, CLICKS, clock_now_us(), NULL, why));
        for (uint32_t p = 0;
             trims && g % TRIM_EVERY == TRIM_EVERY - 1 && p < PARTITIONS; p++) {
            MUST(clicklog_range(log, p, &first, &next, why));
            MUST(clicklog_trim(log, p, first + (next - first) / 2, why));
        }
    }
    struct result result = result_of(start, groups);
    clicklog_close(&log);
    return result;
}

static struct result
read_run(const char *dir, int groups)
{
    struct clicklog_config cfg = {.dir = dir, .map_bytes = 0, .read_only = true};
    struct clicklog_reader *reader;
    struct clicklog_record record;
    struct timing start;
    struct clicklog *log;
    uint64_t first, next;

    MUST(clicklog_open(&log, &cfg, why));
    MUST(clicklog_reader_open(&reader, log, why));
    start = timing_now();
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        MUST(clicklog_range(log, p, &first, &next, why));
        MUST(clicklog_seek(reader, p, first, why));
        while (clicklog_next(reader, &record, NULL) == ERR_OK)
            ;
    }
    struct result result = result_of(start, groups);
    clicklog_reader_close(&reader);
    clicklog_close(&log);
    return result;
}

int
main(int argc, char **argv)
{
    int groups = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 400;
    struct clicklog_entry *entries = calloc(CLICKS, sizeof(*entries));
    char(*names)[16] = calloc(CLICKS, sizeof(*names));
    char *bodies = malloc((size_t)CLICKS * BODY), dir[128];
    struct folder folder = folder_make();

    if (entries == NULL || names == NULL || bodies == NULL || groups < 1)
        return 1;
    for (size_t i = 0; i < (size_t)CLICKS * BODY; i++)
        bodies[i] = (char)(i * 2654435761u >> 24);
    entries_make(entries, names, bodies);
    printf("%d groups of %d clicks, %d bytes each\n", groups, CLICKS, BODY);
    for (int i = 0; i < 5; i++) {
        static const char *const rows[5] = {
            "bare LMDB, sync", "click log, sync", "bare LMDB, without sync",
            "click log, without sync", "click log, without sync, trimmed"};

        (void)snprintf(dir, sizeof(dir), "%s/%d", folder.path, i);
        if (mkdir(dir, 0700) != 0)
            return 1;
        print(rows[i], i == 0 || i == 2
                           ? raw_run(dir, bodies, groups, i == 2 ? MDB_NOSYNC : 0)
                           : log_run(dir, entries, groups, i >= 3, i == 4));
        if (i == 3)
            print("click log, read", read_run(dir, groups));
        path_remove(dir);
    }
    folder_remove(&folder);
    free(entries);
    free(names);
    free(bodies);
    return 0;
}

/* The archive over a real broker: clicks of several hours that come again, are lost and come
 * later; marks by the control topic, verdicts by theirs; stopped, killed and started again. */
#include <signal.h>
#include <sys/wait.h>

#include "billing/archive.h"
#include "billing/judge_stream.h"
#include "common/control.h"
#include "common/verdictlog.h"
#include "schema/topics.h"
#include "tests/billing/billing_fixture.h"
#include "tests/common/kafka_fixture.h"

#define WAIT_US (60 * SECOND)

enum {
    P = FIXTURE_PARTITIONS,
    RECORDS_MAX = 8192,
    RECORD_MAX = 512,
    HOURS = 3,
};

#define AWAIT(condition)                                             \
    for (int64_t until_us = clock_mono_us() + WAIT_US; !(condition); \
         clock_sleep_us(20000))                                      \
    CHECK(clock_mono_us() < until_us)

/* What the spool has, and what was sent of it. */
struct spooled {
    uint64_t number, incarnation, seq;
    int64_t received_us;
    uint32_t n;
    char value[RECORD_MAX];
};

struct rig {
    struct fixture f;
    char verdicts_dir[PATH_SIZE];
    struct kafka_producer *producer;
    struct control *control;
    struct spooled *spool[P];
    uint64_t spool_n[P];
    uint64_t spool_id, incarnation;
    uint64_t spool_from[P];        /* what is below was another spool's */
    uint64_t sent[P][RECORDS_MAX]; /* ordinals, by the log's offset */
    uint64_t sent_n[P];
    uint64_t clicks;
};

/* One process' view. */
struct stage {
    struct clicklog *log;
    struct verdictlog *verdicts;
    struct control *control;
    struct archive *archive;
};

static void
stage_start(struct stage *stage, struct rig *rig)
{
    const struct config *config = &rig->f.config;

    MUST(control_open(&stage->control, config, P, why));
    const struct clicklog_kafka_config cfg = {config, "archive", stage->control};
    MUST(clicklog_open_kafka(&stage->log, &cfg, why));
    MUST(verdictlog_open_kafka(&stage->verdicts, config, rig->verdicts_dir, 1 << 28,
                               why));
    MUST(archive_start(&stage->archive, config, rig->f.archive, stage->log,
                       stage->verdicts, stage->control, why));
}

static void
stage_stop(struct stage *stage)
{
    archive_stop(&stage->archive);
    clicklog_close(&stage->log);
    verdictlog_close(&stage->verdicts);
    control_close(&stage->control);
}

static void
rig_config(struct rig *rig, const char *brokers, const char *prefix)
{
    struct config *config = &rig->f.config;

    fixture_set(&config->kafka_brokers, brokers);
    fixture_set(&config->kafka_topic_prefix, prefix);
    fixture_set(&config->kafka_group, prefix);
    config->clicklog_partitions = P;
    config->kafka_replication = config->kafka_min_insync = 1;
    config->kafka_session_ms = 6000;
    config->archive_roll_bytes = 32768;
}

static void
rig_open(struct rig *rig, const char *brokers)
{
    struct buf report = BUF_MAX(65536);
    char prefix[32], topic[KAFKA_NAME_MAX + 1];
    struct control_spool spool = {.spool_id = 1};

    memset(rig, 0, sizeof(*rig));
    rig->spool_id = 1;
    rig->incarnation = 0x5eed;
    fixture_open(&rig->f);
    (void)snprintf(prefix, sizeof(prefix), "t%016" PRIx64 "_", hash_random_u64());
    rig_config(rig, brokers, prefix);
    (void)snprintf(rig->verdicts_dir, sizeof(rig->verdicts_dir), "%s/verdicts",
                   rig->f.dir);
    MUST(file_mkdirs(rig->verdicts_dir, why));
    MUST(topics_create(&rig->f.config, &report, why));
    buf_free(&report);
    kafka_topic_name(&rig->f.config, "raw_clicks", topic);
    MUST(kafka_producer_open(&rig->producer, &rig->f.config, topic, "test", -1,
                             why));
    MUST(control_open(&rig->control, &rig->f.config, P, why));
    MUST(control_spool_put(rig->control, &spool, why));
    for (int p = 0; p < P; p++) {
        rig->spool[p] = calloc(RECORDS_MAX, sizeof(*rig->spool[p]));
        CHECK(rig->spool[p] != NULL);
    }
}

static void
rig_close(struct rig *rig)
{
    kafka_producer_close(&rig->producer);
    control_close(&rig->control);
    for (int p = 0; p < P; p++)
        free(rig->spool[p]);
    fixture_close(&rig->f);
}

/* A group of clicks, accepted at received_us. */
static void
group_spool(struct rig *rig, uint64_t n, int64_t received_us)
{
    static const char *const campaigns[] = {"shoes", "books", "small", "tight",
                                            "other"};

    for (uint64_t i = 0; i < n; i++) {
        uint64_t number = rig->clicks++;
        struct click click = fixture_click(number, received_us);
        uint8_t value[CLICK_BODY_MAX + 64];

        click.campaign_id = str_of(campaigns[number % 5]);
        click.partition =
            hash_partition(click.campaign_id.p, click.campaign_id.n, P);
        uint64_t at = rig->spool_n[click.partition]++;
        CHECK(at < RECORDS_MAX);
        struct spooled *to = &rig->spool[click.partition][at];
        click.incarnation = rig->incarnation;
        click.seq =
            at > 0 && to[-1].incarnation == rig->incarnation ? to[-1].seq + 1 : 0;
        wire_head(CLICK_VERSION, value);
        size_t size = WIRE_HEAD + click_encode_prefix(&click, value + WIRE_HEAD);
        size += click_encode_body(&click, value + size);
        CHECK(size <= RECORD_MAX);
        *to = (struct spooled){number,      click.incarnation, click.seq,
                               received_us, (uint32_t)size,    {0}};
        memcpy(to->value, value, size);
    }
}

/* Sends ordinals [from, to) of a partition. */
static void
send_range(struct rig *rig, uint32_t p, uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i++) {
        const struct spooled *one = &rig->spool[p][i];
        const struct kafka_item item = {
            STR("key"), {one->value, one->n}, one->received_us / 1000};
        size_t sent = 0;

        while (sent == 0) {
            MUST(kafka_send(rig->producer, (int32_t)p, &item, 1, &sent, why));
            if (sent == 0)
                MUST(kafka_poll(rig->producer, 10000, why));
        }
        CHECK(rig->sent_n[p] < RECORDS_MAX);
        rig->sent[p][rig->sent_n[p]++] = i;
    }
    MUST(kafka_flush(rig->producer, WAIT_US, why));
}

static void
send_rest(struct rig *rig, const uint64_t from[P])
{
    for (uint32_t p = 0; p < P; p++)
        send_range(rig, p, from[p], rig->spool_n[p]);
}

static void
mark(struct rig *rig, int64_t floor_us)
{
    struct control_spool spool = {
        .spool_id = rig->spool_id,
        .mark = {.incarnation = rig->incarnation, .floor_us = floor_us}};

    for (uint32_t p = 0; p < P; p++)
        for (uint64_t i = rig->spool_from[p]; i < rig->spool_n[p]; i++) {
            const struct spooled *one = &rig->spool[p][i];

            if (spool.mark.last[p].incarnation != one->incarnation)
                spool.mark.before[p] = spool.mark.last[p];
            spool.mark.last[p] =
                (struct clicklog_last){one->incarnation, one->seq + 1};
        }
    MUST(control_spool_put(rig->control, &spool, why));
}

/* The offsets of the first copies that came in order. */
static void
accepted(const struct rig *rig, uint32_t p, uint64_t *offsets)
{
    uint64_t next = 0;

    for (uint64_t i = 0; i < rig->sent_n[p]; i++)
        if (rig->sent[p][i] == next)
            offsets[next++] = i;
    CHECK(next == rig->spool_n[p]);
}

/* All files together hold each click once, at its ordinal, in the order of receipt. */
static void
archive_check(const struct rig *rig)
{
    uint8_t *seen = calloc(rig->clicks + 1, 1);
    struct manifest manifest;
    struct stream *stream;
    struct stream_click in;
    uint64_t clicks = 0;
    int64_t last_us = 0;

    CHECK(seen != NULL);
    MUST(manifest_read(&manifest, rig->f.archive, 0, why));
    MUST(stream_open(&stream, rig->f.archive, manifest.files, manifest.files_n,
                     why));
    while (stream_next(stream, &in, NULL) == ERR_OK) {
        const struct manifest_file *file = &manifest.files[in.file];
        const struct spooled *want =
            &rig->spool[file->partition][file->base + in.row];
        uint64_t number;

        memcpy(&number, in.click->event_id, sizeof(number));
        CHECK(number == want->number && !seen[number]);
        CHECK(in.click->received_us == want->received_us);
        CHECK(in.click->received_us >= last_us);
        CHECK(file->first_received_us / HOUR == file->last_received_us / HOUR);
        last_us = in.click->received_us;
        seen[number] = 1;
        clicks++;
    }
    CHECK(clicks == rig->clicks);
    for (uint32_t p = 0; p < P; p++)
        CHECK(manifest.next[p] == rig->spool_n[p]);
    stream_close(&stream);
    manifest_free(&manifest);
    free(seen);
}

static void
verdicts_append(const struct rig *rig, struct verdictlog *verdicts)
{
    static uint64_t packed[RECORDS_MAX];

    for (uint32_t p = 0; p < P; p++) {
        const struct verdictlog_block block = {p, 0, 1, packed,
                                               (uint32_t)rig->sent_n[p]};

        for (uint64_t i = 0; i < rig->sent_n[p]; i++)
            packed[i] = (uint64_t)p << 32 | (i + 1);
        if (block.count > 0)
            MUST(verdictlog_append(verdicts, &block, 1, why));
    }
}

static bool
live_there(const struct rig *rig)
{
    struct manifest manifest;
    bool there = true;

    MUST(manifest_read(&manifest, rig->f.archive, 0, why));
    for (uint32_t i = 0; i < manifest.files_n && there; i++) {
        char beside[MANIFEST_PATH_MAX + 8], path[2 * PATH_SIZE];

        manifest_beside(&manifest.files[i], "live", beside);
        (void)snprintf(path, sizeof(path), "%s/%s", rig->f.archive, beside);
        there = access(path, F_OK) == 0;
    }
    manifest_free(&manifest);
    return there;
}

static void
live_check(const struct rig *rig)
{
    static uint64_t offsets[P][RECORDS_MAX], live[RECORDS_MAX];
    struct manifest manifest;

    for (uint32_t p = 0; p < P; p++)
        accepted(rig, p, offsets[p]);
    MUST(manifest_read(&manifest, rig->f.archive, 0, why));
    for (uint32_t i = 0; i < manifest.files_n; i++) {
        const struct manifest_file *file = &manifest.files[i];

        MUST(manifest_live_read(rig->f.archive, file, live, why));
        for (uint64_t k = 0; k < file->clicks; k++)
            CHECK(live[k] == ((uint64_t)file->partition << 32 |
                              (offsets[file->partition][file->base + k] + 1)));
    }
    manifest_free(&manifest);
}

/* Hours of clicks, some sent twice, some of partition `lossy` not at all; returns how many
 * of it were sent before those. */
static uint64_t
hours_send(struct rig *rig, int64_t from_us, uint32_t lossy)
{
    uint64_t from[P], lost = 0;

    for (int g = 0; g < HOURS * 6; g++) {
        memcpy(from, rig->spool_n, sizeof(from));
        group_spool(rig, 60, from_us + g * (HOUR / 6) + g);
        for (uint32_t p = 0; p < P; p++)
            if (g % 4 == 3 && p != lossy)
                from[p] -= from[p] < 30 ? from[p] : 30;
        if (g == 9 && lossy < P) {
            lost = from[lossy];
            from[lossy] += 7;
        }
        send_rest(rig, from);
    }
    mark(rig, from_us + HOURS * HOUR);
    return lost;
}

static uint32_t
busiest(const struct rig *rig)
{
    uint32_t best = 0;

    for (uint32_t p = 1; p < P; p++)
        if (rig->spool_n[p] > rig->spool_n[best])
            best = p;
    return best;
}

/* The archive has said that it has all. */
static void
archived_check(struct rig *rig)
{
    struct clicklog_last archived[CLICKLOG_PARTITIONS_MAX];

    MUST(control_sync(rig->control, WAIT_US, why));
    control_archived_get(rig->control, archived);
    for (uint32_t p = 0; p < P; p++) {
        struct clicklog_last want = {0, 0}; /* a partition without clicks */

        if (rig->spool_n[p] > 0) {
            const struct spooled *newest = &rig->spool[p][rig->spool_n[p] - 1];

            want = (struct clicklog_last){newest->incarnation, newest->seq + 1};
        }
        CHECK(archived[p].incarnation == want.incarnation);
        CHECK(archived[p].count == want.count);
    }
}

static void
test_hours_with_repeats_a_gap_verdicts_and_restarts(struct rig *rig)
{
    int64_t from_us = clock_floor(clock_now_us(), HOUR) - HOURS * HOUR;
    uint64_t sent[P];
    struct stage stage, judge;
    uint32_t lossy;

    group_spool(rig, 60, from_us - HOUR);
    send_rest(rig, (uint64_t[P]){0});
    mark(rig, from_us - HOUR / 2);
    lossy = busiest(rig);
    stage_start(&stage, rig);
    MUST(manifest_roll_wait(rig->f.archive, from_us - HOUR / 2, WAIT_US, why));
    archive_check(rig);
    uint64_t lost = hours_send(rig, from_us, lossy);
    AWAIT(archive_listed(stage.archive, lossy) == lost);
    CHECK(manifest_roll_wait(rig->f.archive, from_us + HOURS * HOUR, SECOND,
                             NULL) == ERR_AGAIN);
    memcpy(sent, rig->spool_n, sizeof(sent));
    sent[lossy] = lost - 2;
    send_rest(rig, sent); /* rewound */
    MUST(manifest_roll_wait(rig->f.archive, from_us + HOURS * HOUR, WAIT_US, why));
    archive_check(rig);
    stage_stop(&stage);
    archived_check(rig);
    stage_start(&stage, rig); /* knows of its files what their metadata says */
    char other[PATH_SIZE + 16];
    (void)snprintf(other, sizeof(other), "%s/judge-verdicts", rig->f.dir);
    MUST(file_mkdirs(other, why));
    MUST(verdictlog_open_kafka(&judge.verdicts, &rig->f.config, other, 1 << 28,
                               why));
    verdicts_append(rig, judge.verdicts);
    AWAIT(live_there(rig));
    live_check(rig);
    verdictlog_close(&judge.verdicts);
    stage_stop(&stage);
    archive_check(rig);
}

/* The archive in a process that is killed: argv is brokers, prefix, folder. */
static int
child(char **argv)
{
    static struct rig rig;
    struct stage stage;

    fixture_open(&rig.f);
    rig_config(&rig, argv[0], argv[1]);
    (void)snprintf(rig.f.archive, sizeof(rig.f.archive), "%s/archive", argv[2]);
    (void)snprintf(rig.verdicts_dir, sizeof(rig.verdicts_dir), "%s/verdicts",
                   argv[2]);
    path_remove(rig.f.dir);
    stage_start(&stage, &rig);
    for (pid_t parent = getppid(); getppid() == parent;)
        clock_sleep_us(SECOND);
    return 1;
}

static pid_t
child_start(const struct rig *rig)
{
    const struct config *config = &rig->f.config;
    pid_t pid = fork();

    CHECK(pid >= 0);
    if (pid == 0) {
        char me[] = "/proc/self/exe", word[] = "child", dir[64];
        char *argv[] = {
            me, word, config->kafka_brokers, config->kafka_topic_prefix, dir, NULL};

        (void)snprintf(dir, sizeof(dir), "%s", rig->f.dir);
        (void)execv(me, argv);
        _exit(1);
    }
    return pid;
}

static void
test_a_kill_half_way_makes_the_same_rows(struct rig *rig)
{
    int64_t from_us = clock_floor(clock_now_us(), HOUR) - HOURS * HOUR;
    uint64_t seed = 5;
    struct stage stage;

    for (int round = 0; round < 5; round++) {
        pid_t pid = child_start(rig);
        int64_t at_us = from_us + round * (HOUR / 4);

        for (int g = 0; g < 10; g++) {
            uint64_t from[P];

            memcpy(from, rig->spool_n, sizeof(from));
            group_spool(rig, 40, at_us + g * SECOND);
            for (uint32_t p = 0; p < P; p++)
                from[p] -= random_below(&seed, from[p] < 9 ? from[p] + 1 : 9);
            send_rest(rig, from);
            mark(rig, at_us + g * SECOND + 1);
            clock_sleep_us((int64_t)random_below(&seed, 300000));
        }
        clock_sleep_us((int64_t)random_below(&seed, 5 * SECOND));
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
    }
    mark(rig, from_us + 2 * HOUR);
    stage_start(&stage, rig);
    MUST(manifest_roll_wait(rig->f.archive, from_us + 2 * HOUR, WAIT_US, why));
    stage_stop(&stage);
    archive_check(rig);
}

static int64_t
through(const struct rig *rig)
{
    struct manifest manifest;
    int64_t us;

    MUST(manifest_read(&manifest, rig->f.archive, INT64_MAX, why));
    us = manifest.through_us;
    manifest_free(&manifest);
    return us;
}

/* The machine with the spool is lost; another one begins with an empty spool, where the archive
 * goes on. */
static void
spool_replace(struct rig *rig)
{
    rig->incarnation++;
    MUST(control_spool_forget(rig->control, rig->spool_id, why));
    rig->spool_id++;
    memcpy(rig->spool_from, rig->spool_n, sizeof(rig->spool_n));
}

/* The clicks before are in Kafka, but not all are archived, when the new one says its first mark:
 * in every partition but one it has no click yet. */
static void
replaced(struct rig *rig, int64_t from_us, bool running)
{
    uint64_t from[P];
    struct stage stage = {0};

    memcpy(from, rig->spool_n, sizeof(from));
    group_spool(rig, 300, from_us);
    send_rest(rig, from);
    if (running) {
        stage_start(&stage, rig);
        mark(rig, from_us + SECOND);
        MUST(manifest_roll_wait(rig->f.archive, from_us + SECOND, WAIT_US, why));
    }
    memcpy(from, rig->spool_n, sizeof(from));
    group_spool(rig, 300, from_us + 2 * SECOND);
    send_rest(rig, from); /* no mark of these */
    spool_replace(rig);
    mark(rig, from_us + 3 * SECOND);
    memcpy(from, rig->spool_n, sizeof(from));
    group_spool(rig, 1, from_us + 4 * SECOND);
    send_rest(rig, from);
    mark(rig, from_us + 5 * SECOND);
    if (!running)
        stage_start(&stage, rig);
    MUST(manifest_roll_wait(rig->f.archive, from_us + 5 * SECOND, WAIT_US, why));
    archive_check(rig);
    memcpy(from, rig->spool_n, sizeof(from));
    group_spool(rig, 300, from_us + 6 * SECOND);
    mark(rig, from_us + 7 * SECOND); /* sooner than its clicks are there */
    clock_sleep_us(SECOND);
    CHECK(through(rig) <= from_us + 6 * SECOND);
    send_rest(rig, from);
    MUST(manifest_roll_wait(rig->f.archive, from_us + 7 * SECOND, WAIT_US, why));
    archive_check(rig);
    stage_stop(&stage);
    archived_check(rig);
}

static void
test_a_spool_that_replaces_a_lost_one_goes_on_in_the_same_lists(struct rig *rig)
{
    int64_t from_us = clock_floor(clock_now_us(), HOUR) - HOUR;

    replaced(rig, from_us, true);
    replaced(rig, from_us + 60 * SECOND, false);
    replaced(rig, from_us + 120 * SECOND, true);
}

int
main(int argc, char **argv)
{
    static void (*const tests[])(struct rig *) = {
        test_hours_with_repeats_a_gap_verdicts_and_restarts,
        test_a_kill_half_way_makes_the_same_rows,
        test_a_spool_that_replaces_a_lost_one_goes_on_in_the_same_lists,
    };
    static struct rig rig;

    if (argc == 5)
        return child(argv + 2);
    const char *brokers = fixture_brokers();
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        rig_open(&rig, brokers);
        tests[i](&rig);
        rig_close(&rig);
    }
    return 0;
}

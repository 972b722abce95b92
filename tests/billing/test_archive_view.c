/* The archive over such a log: cuts, gaps, owners, live verdicts. */
#include "billing/archive.h"
#include "tests/billing/view_fixture.h"

#define WAIT_US (20 * SECOND)

static struct archive *
start(struct view *v)
{
    struct archive *archive;

    MUST(archive_start(&archive, &v->f.config, v->f.archive, &v->log, v->verdicts,
                       (struct control *)&v->log, why));
    return archive;
}

#define AWAIT(condition)                                             \
    for (int64_t until_us = clock_mono_us() + WAIT_US; !(condition); \
         clock_sleep_us(10000))                                      \
    CHECK(clock_mono_us() < until_us)

static void
test_an_hour_ends_when_all_partitions_have_met_its_end(struct view *v)
{
    struct archive *archive;

    for (uint32_t p = 0; p < PARTS; p++) {
        spool(v, p, 7, 20, T0_US);
        spool(v, p, 7, 20, T0_US + HOUR + SECOND);
        send_range(v, p, 0, p == 1 ? 19 : 40);
    }
    mark(v, T0_US + HOUR + 2 * SECOND);
    archive = start(v);
    clock_sleep_us(SECOND / 2);
    CHECK(through(v) == 0 && archive_listed(archive, 2) == 0);
    send_range(v, 1, 19, 21); /* the last of the hour, and the next's first */
    AWAIT(through(v) == T0_US + HOUR);
    check(v, (uint64_t[]){20, 20, 20});
    send_range(v, 1, 21, 40);
    MUST(manifest_roll_wait(v->f.archive, T0_US + HOUR + 2 * SECOND, WAIT_US, why));
    check(v, (uint64_t[]){40, 40, 40});
    archive_stop(&archive);
    CHECK(v->log.archived[0].incarnation == 7 && v->log.archived[0].count == 40);
    CHECK(v->log.archived[2].incarnation == 7 && v->log.archived[2].count == 40);
    archive = start(v);
    archive_stop(&archive);
    check(v, (uint64_t[]){40, 40, 40});
}

static void
test_a_gap_stops_its_partition_alone_until_it_is_sent_again(struct view *v)
{
    struct archive *archive;

    for (uint32_t p = 0; p < PARTS; p++) {
        spool(v, p, 7, 20, T0_US);
        spool(v, p, 7, 20, T0_US + HOUR + SECOND);
    }
    send_range(v, 0, 0, 40);
    send_range(v, 2, 0, 40);
    send_range(v, 1, 0, 10);
    send_range(v, 1, 15, 30);
    mark(v, T0_US + HOUR + 2 * SECOND);
    archive = start(v);
    AWAIT(archive_listed(archive, 0) == 20 && archive_listed(archive, 1) == 10);
    CHECK(through(v) < T0_US + HOUR);
    CHECK(metric_value(metric_gauge("clickledger_archive_broken", "partition=\"1\"",
                                    "")) == 1);
    clock_sleep_us(2 * SECOND); /* nothing is found, nothing is taken */
    CHECK(archive_listed(archive, 1) == 10);
    send_range(v, 1, 8, 40);
    MUST(manifest_roll_wait(v->f.archive, T0_US + HOUR + 2 * SECOND, WAIT_US, why));
    CHECK(metric_value(metric_gauge("clickledger_archive_broken", "partition=\"1\"",
                                    "")) == 0);
    archive_stop(&archive);
    check(v, (uint64_t[]){40, 40, 40});
}

static void
owned_set(struct view *v, uint32_t p, uint64_t owned)
{
    (void)pthread_mutex_lock(&v->log.mutex);
    v->log.tracks[p].owned = owned;
    v->log.tracks[p].let_go = false;
    (void)pthread_mutex_unlock(&v->log.mutex);
}

static bool
was_let_go(struct view *v, uint32_t p)
{
    (void)pthread_mutex_lock(&v->log.mutex);
    bool let_go = v->log.tracks[p].let_go;
    (void)pthread_mutex_unlock(&v->log.mutex);
    return let_go;
}

static void
test_partitions_come_and_go_and_an_old_one_is_caught_up_with(struct view *v)
{
    struct archive *archive;
    uint64_t next;
    char incs[MANIFEST_INCS_MAX];
    struct manifest_writer *list;

    for (uint32_t p = 0; p < PARTS; p++) {
        spool(v, p, 7, 30, T0_US);
        spool(v, p, 7, 30, T0_US + 3 * HOUR);
        send_range(v, p, 0, 60);
    }
    mark(v, T0_US + 3 * HOUR + SECOND);
    owned_set(v, 1, 0);
    archive = start(v);
    AWAIT(archive_listed(archive, 0) == 30);
    CHECK(archive_listed(archive, 1) == 0 && through(v) == 0);
    owned_set(v, 1, 2);
    AWAIT(archive_listed(archive, 1) == 30);
    owned_set(v, 1, 0);
    AWAIT(was_let_go(v, 1));
    MUST(manifest_writer_open(&list, v->f.archive, 1, &next, incs, why));
    owned_set(v, 1, 3); /* its list is still another's: waits for it */
    clock_sleep_us(SECOND / 2);
    manifest_writer_close(&list);
    MUST(manifest_roll_wait(v->f.archive, T0_US + 3 * HOUR + SECOND, WAIT_US, why));
    archive_stop(&archive);
    check(v, (uint64_t[]){60, 60, 60});
}

static void
live_check(const struct view *v, const uint64_t *offsets)
{
    struct manifest manifest;

    MUST(manifest_read(&manifest, v->f.archive, 0, why));
    for (uint32_t i = 0; i < manifest.files_n; i++) {
        const struct manifest_file *file = &manifest.files[i];
        uint64_t live[64];

        CHECK(file->partition == 0 && file->clicks <= 64);
        MUST(manifest_live_read(v->f.archive, file, live, why));
        for (uint64_t k = 0; k < file->clicks; k++)
            CHECK(live[k] == 1000 + offsets[file->base + k]);
    }
    manifest_free(&manifest);
}

static void
test_live_verdicts_are_taken_by_the_logs_offsets_after_a_restart_too(struct view *v)
{
    static uint64_t offsets[SENT_MAX], packed[128];
    int64_t now_us = clock_floor(clock_now_us(), HOUR);
    struct archive *archive;
    uint64_t n = v->log.tracks[0].n;

    spool(v, 0, 7, 60, now_us);
    send_range(v, 0, 0, 20);
    send_range(v, 0, 10, 40);
    mark(v, now_us + 1);
    v->log.mark.last[0].count = 40;
    archive = start(v);
    MUST(manifest_roll_wait(v->f.archive, now_us + 1, WAIT_US, why));
    archive_stop(&archive);
    check(v, (uint64_t[]){40, 0, 0});
    n = v->log.tracks[0].n;
    CHECK(accepted(&v->log.tracks[0], offsets) == 40 && n == 50);
    for (uint64_t i = 0; i < n; i++)
        packed[i] = 1000 + i;
    archive = start(v);
    clock_sleep_us(SECOND / 2);
    CHECK(archive_live_listed(archive, 0) == 0);
    MUST(verdictlog_append(v->verdicts,
                           &(struct verdictlog_block){0, 0, 1, packed, (uint32_t)n},
                           1, why));
    AWAIT(archive_live_listed(archive, 0) >= 40);
    archive_stop(&archive);
    live_check(v, offsets);
}

int
main(void)
{
    static void (*const tests[])(struct view *) = {
        test_an_hour_ends_when_all_partitions_have_met_its_end,
        test_a_gap_stops_its_partition_alone_until_it_is_sent_again,
        test_partitions_come_and_go_and_an_old_one_is_caught_up_with,
        test_live_verdicts_are_taken_by_the_logs_offsets_after_a_restart_too,
    };

    views_run(tests, sizeof(tests) / sizeof(tests[0]));
    return 0;
}

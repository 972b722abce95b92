#include "common/verdictlog.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/common/clicklog_fixture.h"

static const uint64_t MAP = UINT64_C(1) << 30;

static struct verdictlog *
log_open(const struct folder *folder)
{
    struct verdictlog *log;

    MUST(verdictlog_open(&log, folder->path, MAP, false, why));
    return log;
}

static void
append(struct verdictlog *log, uint32_t partition, uint64_t base, uint64_t epoch,
       uint32_t count, uint64_t first)
{
    static uint64_t verdicts[VERDICTLOG_BLOCK_MAX];
    struct verdictlog_block block = {partition, base, epoch, verdicts, count};

    for (uint32_t i = 0; i < count; i++)
        verdicts[i] = first + i;
    MUST(verdictlog_append(log, &block, 1, why));
}

static void
the_highest_epoch_wins_offset_by_offset(void **unused)
{
    struct folder folder = folder_make();
    struct verdictlog *log = log_open(&folder);
    uint64_t got[12], epoch, next;
    const uint64_t want[12] = {0, 0, 102, 103, 504, 505, 506, 107, 108, 109, 0, 0};

    (void)unused;
    append(log, 3, 4, 9, 3, 504);
    append(log, 3, 2, 8, 8, 102); /* a zombie, later and longer */
    append(log, 4, 0, 1, 12, 900);
    MUST(verdictlog_read(log, 3, 0, 12, got, why));
    assert_memory_equal(got, want, sizeof(want));
    MUST(verdictlog_read(log, 3, 5, 2, got, why));
    assert_memory_equal(got, want + 5, 2 * sizeof(*want));
    MUST(verdictlog_last(log, 3, &epoch, &next, why));
    assert_int_equal(epoch, 9);
    assert_int_equal(next, 10);
    MUST(verdictlog_last(log, 5, &epoch, &next, why));
    assert_int_equal(epoch, 0);
    assert_int_equal(next, 0);
    verdictlog_close(&log);
    folder_remove(&folder);
}

static void
the_same_block_again_is_no_change_and_another_is_refused(void **unused)
{
    struct folder folder = folder_make();
    struct verdictlog *log = log_open(&folder);
    uint64_t verdicts[] = {1, 2, 4}, got[3];
    struct verdictlog_block blocks[] = {{0, 3, 1, verdicts, 3},
                                        {0, 0, 1, verdicts, 3}};

    (void)unused;
    append(log, 0, 0, 1, 3, 1);
    append(log, 0, 0, 1, 3, 1);
    assert_int_equal(verdictlog_append(log, blocks, 2, NULL), ERR_CONFLICT);
    MUST(verdictlog_read(log, 0, 3, 3, got, why)); /* all or none */
    assert_int_equal(got[0], 0);
    blocks[0].count = 0;
    assert_int_equal(verdictlog_append(log, blocks, 1, NULL), ERR_INVALID);
    blocks[0].count = VERDICTLOG_BLOCK_MAX + 1;
    assert_int_equal(verdictlog_append(log, blocks, 1, NULL), ERR_INVALID);
    verdictlog_close(&log);
    folder_remove(&folder);
}

static void
trimming_keeps_blocks_that_reach_past_the_offset_and_what_was_last(void **unused)
{
    struct folder folder = folder_make();
    struct verdictlog *log = log_open(&folder);
    static struct verdictlog_block blocks[5000];
    static uint64_t verdicts[5000];
    uint64_t got[5000], epoch, next;

    (void)unused;
    append(log, 0, 0, 2, 5000, 1); /* reaches past the trim */
    for (uint64_t i = 0; i < 5000; i++) {
        verdicts[i] = i + 100000;
        blocks[i] = (struct verdictlog_block){0, i, 7, &verdicts[i], 1};
    }
    MUST(verdictlog_append(log, blocks, 5000, why));
    append(log, 1, 0, 1, 1, 1);
    MUST(verdictlog_trim(log, 0, 4990, why));
    MUST(verdictlog_read(log, 0, 0, 5000, got, why));
    for (uint64_t i = 0; i < 5000; i++)
        assert_int_equal(got[i], i < 4990 ? i + 1 : i + 100000);
    MUST(verdictlog_trim(log, 0, 5000, why));
    MUST(verdictlog_read(log, 0, 0, 5000, got, why));
    for (uint64_t i = 0; i < 5000; i++)
        assert_int_equal(got[i], 0);
    verdictlog_close(&log);
    MUST(verdictlog_open(&log, folder.path, MAP, true, why));
    MUST(verdictlog_last(log, 0, &epoch, &next, why));
    assert_int_equal(epoch, 7);
    assert_int_equal(next, 5000);
    MUST(verdictlog_read(log, 1, 0, 1, got, why));
    assert_int_equal(got[0], 1);
    verdictlog_close(&log);
    folder_remove(&folder);
}

static void
random_blocks_agree_with_a_plain_model(void **unused)
{
    enum { N = 20000 };
    struct folder folder = folder_make();
    struct verdictlog *log = log_open(&folder);
    static uint64_t verdicts[N], epochs[N], got[N], block[3000];
    uint64_t seed = 7;

    (void)unused;
    for (int round = 0; round < 400; round++) {
        uint64_t base = random_next(&seed) % (N - 3000),
                 epoch = (uint64_t)round ^ 21;
        uint32_t count = (uint32_t)(random_next(&seed) % 3000 + 1);
        struct verdictlog_block b = {2, base, epoch, block, count};

        for (uint32_t i = 0; i < count; i++) {
            block[i] = random_next(&seed) | 1;
            if (verdicts[base + i] == 0 || epoch > epochs[base + i]) {
                verdicts[base + i] = block[i];
                epochs[base + i] = epoch;
            }
        }
        MUST(verdictlog_append(log, &b, 1, why));
        uint64_t from = random_next(&seed) % N,
                 n = random_next(&seed) % (N - from + 1);
        MUST(verdictlog_read(log, 2, from, n, got, why));
        assert_memory_equal(got, verdicts + from, n * sizeof(*got));
    }
    verdictlog_close(&log);
    folder_remove(&folder);
}

struct appender {
    struct verdictlog *log;
    uint32_t partition;
};

static void *
append_many(void *p)
{
    struct appender *appender = p;
    uint64_t one = 1;

    for (uint64_t i = 0; i < 100; i++) {
        struct verdictlog_block block = {appender->partition, i, 1, &one, 1};
        MUST(verdictlog_append(appender->log, &block, 1, why));
    }
    return NULL;
}

static void
several_threads_append_side_by_side(void **unused)
{
    struct folder folder = folder_make();
    struct verdictlog *log = log_open(&folder);
    struct appender appenders[4];
    pthread_t threads[4];
    uint64_t epoch, next;

    (void)unused;
    for (uint32_t i = 0; i < 4; i++) {
        appenders[i] = (struct appender){log, i};
        assert_int_equal(
            pthread_create(&threads[i], NULL, append_many, &appenders[i]), 0);
    }
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        MUST(verdictlog_last(log, i, &epoch, &next, why));
        assert_int_equal(next, 100);
    }
    verdictlog_close(&log);
    folder_remove(&folder);
}

static void
a_spoiled_block_is_reported(void **unused)
{
    struct folder folder = folder_make();
    struct verdictlog *log = log_open(&folder);
    const uint64_t mark = UINT64_C(0x5350304c4c4d4521);
    char path[128], *all;
    uint64_t got[1];
    struct why told;

    (void)unused;
    append(log, 6, 77, 1, 1, mark);
    verdictlog_close(&log);
    (void)snprintf(path, sizeof(path), "%s/data.mdb", folder.path);
    int fd = open(path, O_RDWR);
    off_t size = lseek(fd, 0, SEEK_END);
    all = malloc((size_t)size);
    assert_int_equal(pread(fd, all, (size_t)size, 0), size);
    for (off_t i = 0; i + 8 <= size; i++)
        if (memcmp(all + i, &mark, 8) == 0)
            assert_int_equal(pwrite(fd, "?", 1, i), 1);
    free(all);
    (void)close(fd);
    log = log_open(&folder);
    assert_int_equal(verdictlog_read(log, 6, 77, 1, got, &told), ERR_CORRUPT);
    assert_non_null(strstr(told.text, "partition 6, offset 77"));
    verdictlog_close(&log);
    assert_int_equal(verdictlog_open(&log, "/tmp/no such folder", MAP, true, NULL),
                     ERR_NOTFOUND);
    folder_remove(&folder);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_highest_epoch_wins_offset_by_offset),
        cmocka_unit_test(the_same_block_again_is_no_change_and_another_is_refused),
        cmocka_unit_test(
            trimming_keeps_blocks_that_reach_past_the_offset_and_what_was_last),
        cmocka_unit_test(random_blocks_agree_with_a_plain_model),
        cmocka_unit_test(several_threads_append_side_by_side),
        cmocka_unit_test(a_spoiled_block_is_reported),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Clicks on their way to the address stage: none is lost between the two threads while
 * there is room, none is made up; messages are read back as they were written. */
#include "aggregate/hotlane.h"
#include "aggregate/hotwire.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CLICKS = 3000000 };

static void
test_a_lane_refuses_what_has_no_room_and_keeps_the_rest(void **state)
{
    struct lane lane;
    const struct lane_click *clicks;
    uint32_t n;

    (void)state;
    assert_true(lane_open(&lane));
    assert_null(lane_take(&lane, &n));
    lane_hand(&lane); /* nothing */
    assert_null(lane_take(&lane, &n));
    for (uint64_t i = 0; i < 2 * LANE_MAX; i++)
        assert_true(lane_add(&lane, (struct lane_click){.offset = i}));
    assert_false(lane_add(&lane, (struct lane_click){.offset = 99}));
    clicks = lane_take(&lane, &n);
    assert_int_equal(n, LANE_MAX);
    assert_int_equal(clicks[0].offset, 0);
    lane_done(&lane);
    assert_true(lane_add(&lane, (struct lane_click){.offset = 2 * LANE_MAX}));
    clicks = lane_take(&lane, &n);
    assert_int_equal(clicks[n - 1].offset, 2 * LANE_MAX - 1);
    lane_close(&lane);
}

struct race {
    struct lane lane;
    atomic_bool over;
    uint64_t taken, wrong;
};

static void *
race_take(void *arg)
{
    struct race *race = arg;
    bool over;

    do {
        uint32_t n;

        over = atomic_load(&race->over);
        const struct lane_click *clicks = lane_take(&race->lane, &n);
        for (uint32_t i = 0; i < n; i++)
            race->wrong += clicks[i].offset != race->taken++;
        if (clicks != NULL)
            lane_done(&race->lane);
    } while (!over);
    return NULL;
}

static void
test_what_one_thread_adds_the_other_takes_in_order(void **state)
{
    struct race race = {.over = false};
    pthread_t thread;

    (void)state;
    assert_true(lane_open(&race.lane));
    assert_int_equal(pthread_create(&thread, NULL, race_take, &race), 0);
    for (uint64_t i = 0; i < CLICKS;) {
        i += lane_add(&race.lane, (struct lane_click){.offset = i});
        if (i % 1000 == 0)
            lane_hand(&race.lane);
    }
    while (race.lane.n > 0)
        lane_hand(&race.lane);
    atomic_store(&race.over, true);
    (void)pthread_join(thread, NULL);
    assert_int_equal(race.taken, CLICKS);
    assert_int_equal(race.wrong, 0);
    lane_close(&race.lane);
}

static void
test_messages_are_read_as_they_were_written(void **state)
{
    struct buf buf = BUF_MAX(1 << 20);
    uint32_t partition, count;
    uint64_t base;
    struct str value;

    (void)state;
    hotwire_clicks_begin(&buf, 255, UINT64_MAX - 1, 2);
    hotwire_click_put(&buf, (struct hotwire_click){UINT64_MAX, -5});
    hotwire_click_put(&buf, (struct hotwire_click){1, INT64_MAX});
    value = (struct str){(const char *)buf.p, (uint32_t)buf.n};
    assert_memory_equal(buf.p, "CLA1\2\0\0\0\xff\0\0\0\0\0\0\0", 16);
    assert_true(hotwire_clicks_read(value, &partition, &base, &count));
    assert_int_equal(partition, 255);
    assert_true(base == UINT64_MAX - 1);
    assert_int_equal(count, 2);
    assert_true(hotwire_click_at(value, 0).address_key == UINT64_MAX);
    assert_int_equal(hotwire_click_at(value, 0).event_ms, -5);
    assert_true(hotwire_click_at(value, 1).event_ms == INT64_MAX);
    assert_false(hotwire_notices_read(value, &count));
    for (value.n = 0; value.n < buf.n; value.n++)
        assert_false(hotwire_clicks_read(value, &partition, &base, &count));

    hotwire_notices_begin(&buf, 1);
    hotwire_notice_put(&buf, (struct hotwire_notice){7, -1, 3});
    value = (struct str){(const char *)buf.p, (uint32_t)buf.n};
    assert_true(hotwire_notices_read(value, &count));
    assert_int_equal(count, 1);
    assert_int_equal(hotwire_notice_at(value, 0).address_key, 7);
    assert_int_equal(hotwire_notice_at(value, 0).event_ms, -1);
    assert_int_equal(hotwire_notice_at(value, 0).reasons, 3);
    assert_false(hotwire_clicks_read(value, &partition, &base, &count));
    buf_free(&buf);
}

static void
test_a_count_that_is_not_the_messages_is_refused(void **state)
{
    struct buf buf = BUF_MAX(1 << 20);
    static const uint32_t counts[] = {0, 2, 0x10000001, UINT32_MAX};
    uint32_t partition, count;
    uint64_t base;

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct str value;

        hotwire_clicks_begin(&buf, 0, 0, counts[i]);
        hotwire_click_put(&buf, (struct hotwire_click){1, 1});
        value = (struct str){(const char *)buf.p, (uint32_t)buf.n};
        assert_false(hotwire_clicks_read(value, &partition, &base, &count));
        hotwire_notices_begin(&buf, counts[i]);
        hotwire_notice_put(&buf, (struct hotwire_notice){1, 1, 1});
        value = (struct str){(const char *)buf.p, (uint32_t)buf.n};
        assert_false(hotwire_notices_read(value, &count));
    }
    buf_free(&buf);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_lane_refuses_what_has_no_room_and_keeps_the_rest),
        cmocka_unit_test(test_what_one_thread_adds_the_other_takes_in_order),
        cmocka_unit_test(test_messages_are_read_as_they_were_written),
        cmocka_unit_test(test_a_count_that_is_not_the_messages_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

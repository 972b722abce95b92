/* How far the brokers are known to have the spool, from its cursor. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "ingest/relay_impl.h"
#include "tests/common/clicklog_fixture.h"

enum { PARTITIONS = 2, PATH_SIZE = 128 };

#define FIRST_US INT64_C(1700000000000000)

static void
take(struct clicklog *log, uint32_t partition, int64_t us)
{
    const struct clicklog_entry entry = {.account = 1,
                                         .campaign = STR("c"),
                                         .partition = partition,
                                         .version = CLICK_VERSION,
                                         .body = STR("body")};

    MUST(clicklog_append(log, &entry, 1, us, NULL, why));
}

static int64_t
sent(const char *dir, struct clicklog *log)
{
    int64_t us = -1;

    MUST(relay_sent(dir, log, &us, why));
    return us;
}

static void
test_sent_is_what_every_partition_has_acknowledged(void **state)
{
    struct folder folder = folder_make();
    char spool[PATH_SIZE], relay[PATH_SIZE];
    struct relay_cursor *cursor;
    struct clicklog *log;
    (void)state;

    (void)snprintf(spool, sizeof(spool), "%s/log", folder.path);
    (void)snprintf(relay, sizeof(relay), "%s/relay", folder.path);
    const struct clicklog_config cfg = {.dir = spool,
                                        .partitions = PARTITIONS,
                                        .map_bytes = UINT64_C(1) << 30,
                                        .bytes_max = UINT64_C(1) << 28,
                                        .no_sync = true};
    MUST(clicklog_open(&log, &cfg, why));
    take(log, 0, FIRST_US);
    take(log, 1, FIRST_US + 10);
    MUST(clicklog_append(log, NULL, 0, FIRST_US + 20, NULL, why));
    MUST(relay_cursor_open(&cursor, relay, log, why));
    assert_int_equal(sent(relay, log), 0);
    relay_cursor_raise(cursor, 0, 1); /* and the other partition waits */
    assert_int_equal(sent(relay, log), 0);
    relay_cursor_raise(cursor, 1, 1);
    int64_t all_us = sent(relay, log);
    assert_true(all_us > FIRST_US + 10 && all_us <= FIRST_US + 20);
    take(log, 0, FIRST_US + 30);
    assert_int_equal(sent(relay, log), 0);
    relay_cursor_close(&cursor);
    clicklog_close(&log);
    folder_remove(&folder);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sent_is_what_every_partition_has_acknowledged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

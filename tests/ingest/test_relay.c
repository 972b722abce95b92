/* The relay's cursor, its requests to send again, and the key of a record, over a real
 * spool in a temporary folder. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/file.h"
#include "ingest/relay_impl.h"
#include "tests/common/clicklog_fixture.h"

enum { PARTITIONS = 3, PATH_SIZE = 128 };

struct world {
    struct folder folder;
    char spool[PATH_SIZE], relay[PATH_SIZE], cursor[PATH_SIZE];
    struct clicklog *log;
};

static struct clicklog *
spool_open(const char *dir, uint32_t partitions)
{
    const struct clicklog_config cfg = {.dir = dir,
                                        .partitions = partitions,
                                        .map_bytes = UINT64_C(1) << 30,
                                        .bytes_max = UINT64_C(1) << 28,
                                        .no_sync = true};
    struct clicklog *log;

    MUST(clicklog_open(&log, &cfg, why));
    return log;
}

/* So many records to each partition, in one group. */
static void
spool_fill(struct clicklog *log, unsigned n)
{
    struct clicklog_entry entries[64];
    unsigned count = 0;

    for (uint32_t p = 0; p < clicklog_partitions(log); p++)
        for (unsigned i = 0; i < n; i++)
            entries[count++] = (struct clicklog_entry){.account = 1,
                                                       .campaign = STR("c"),
                                                       .partition = p,
                                                       .version = CLICK_VERSION,
                                                       .body = STR("body")};
    MUST(clicklog_append(log, entries, count, clock_now_us(), NULL, why));
}

static int
setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));

    w->folder = folder_make();
    (void)snprintf(w->spool, PATH_SIZE, "%s/log", w->folder.path);
    (void)snprintf(w->relay, PATH_SIZE, "%s/relay", w->folder.path);
    (void)snprintf(w->cursor, PATH_SIZE, "%s/relay/cursor", w->folder.path);
    w->log = spool_open(w->spool, PARTITIONS);
    spool_fill(w->log, 10);
    *state = w;
    return 0;
}

static int
teardown(void **state)
{
    struct world *w = *state;

    clicklog_close(&w->log);
    folder_remove(&w->folder);
    free(w);
    return 0;
}

static struct relay_cursor *
cursor_of(const struct world *w, struct clicklog *log)
{
    struct relay_cursor *cursor;

    MUST(relay_cursor_open(&cursor, w->relay, log, why));
    return cursor;
}

static void
expect(const struct relay_cursor *cursor, uint64_t a, uint64_t b, uint64_t c)
{
    assert_int_equal(relay_cursor_get(cursor, 0), a);
    assert_int_equal(relay_cursor_get(cursor, 1), b);
    assert_int_equal(relay_cursor_get(cursor, 2), c);
}

static void
test_a_cursor_is_shared_and_survives_its_users(void **state)
{
    struct world *w = *state;
    struct relay_cursor *mine = cursor_of(w, w->log), *others;

    expect(mine, 0, 0, 0);
    relay_cursor_raise(mine, 1, 7);
    relay_cursor_raise(mine, 1, 5); /* never back */
    others = cursor_of(w, w->log);
    expect(others, 0, 7, 0);
    relay_cursor_raise(mine, 2, 10);
    expect(others, 0, 7, 10);
    relay_cursor_lower(others, 2, 3);
    relay_cursor_lower(others, 2, 9); /* never on */
    expect(mine, 0, 7, 3);
    relay_cursor_close(&mine);
    relay_cursor_close(&others);
    mine = cursor_of(w, w->log);
    expect(mine, 0, 7, 3);
    relay_cursor_close(&mine);
}

static void
test_a_cursor_ahead_of_the_spool_is_set_back_to_its_end(void **state)
{
    struct world *w = *state;
    struct relay_cursor *cursor = cursor_of(w, w->log);

    relay_cursor_raise(cursor, 0, 10);
    relay_cursor_raise(cursor, 1, 1000);
    relay_cursor_close(&cursor);
    cursor = cursor_of(w, w->log);
    expect(cursor, 10, 10, 0);
    relay_cursor_close(&cursor);
}

static void
test_a_cursor_below_what_is_held_is_set_on_to_the_first(void **state)
{
    struct world *w = *state;
    struct relay_cursor *cursor = cursor_of(w, w->log);

    spool_fill(w->log, 10); /* a second block */
    MUST(clicklog_trim(w->log, 1, 10, why));
    relay_cursor_close(&cursor);
    cursor = cursor_of(w, w->log);
    expect(cursor, 0, 10, 0);
    relay_cursor_close(&cursor);
    assert_int_equal(unlink(w->cursor), 0); /* a lost one begins there too */
    cursor = cursor_of(w, w->log);
    expect(cursor, 0, 10, 0);
    relay_cursor_close(&cursor);
}

/* Whoever had it mapped goes on with what the next one makes of it. */
static void
test_a_damaged_cursor_begins_anew_in_place(void **state)
{
    static const struct {
        off_t at, cut; /* cut >= 0: the file ends there */
        const char *bytes;
    } damages[] = {
        {0, -1, "X"},     {8, -1, "another spool"},
        {16, -1, "\x63"}, {20, -1, "\x01"},
        {0, 0, ""},       {0, 40, ""},
        {0, 17, ""},
    };
    struct world *w = *state;

    for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
        struct relay_cursor *before = cursor_of(w, w->log), *after;
        int fd = open(w->cursor, O_RDWR);
        size_t n = strlen(damages[i].bytes);

        relay_cursor_raise(before, 2, 4);
        if (damages[i].cut >= 0)
            assert_int_equal(ftruncate(fd, damages[i].cut), 0);
        assert_int_equal(pwrite(fd, damages[i].bytes, n, damages[i].at), n);
        after = cursor_of(w, w->log);
        expect(after, 0, 0, 0);
        expect(before, 0, 0, 0);
        relay_cursor_raise(after, 0, 1);
        expect(before, 1, 0, 0);
        relay_cursor_lower(after, 0, 0);
        relay_cursor_close(&before);
        relay_cursor_close(&after);
        (void)close(fd);
    }
}

static void
test_the_cursor_of_another_spool_says_nothing(void **state)
{
    struct world *w = *state;
    struct relay_cursor *cursor = cursor_of(w, w->log);
    struct clicklog *other;
    char path[PATH_SIZE + 8];

    relay_cursor_raise(cursor, 0, 9);
    relay_cursor_close(&cursor);
    (void)snprintf(path, sizeof(path), "%s2", w->spool);
    other = spool_open(path, PARTITIONS);
    spool_fill(other, 20);
    cursor = cursor_of(w, other);
    expect(cursor, 0, 0, 0);
    relay_cursor_raise(cursor, 2, 20);
    relay_cursor_close(&cursor);
    clicklog_close(&other);
    (void)snprintf(path, sizeof(path), "%s3", w->spool);
    other = spool_open(path, 1); /* and of another number of partitions */
    cursor = cursor_of(w, other);
    assert_int_equal(relay_cursor_get(cursor, 0), 0);
    relay_cursor_close(&cursor);
    clicklog_close(&other);
}

static void
test_a_folder_that_cannot_be_is_an_error_that_names_it(void **state)
{
    struct world *w = *state;
    struct relay_cursor *cursor;
    char path[PATH_SIZE + 8];
    struct why fault = {{0}};

    (void)snprintf(path, sizeof(path), "%s/x", w->spool);
    MUST(file_write(path, "", 0, why));
    assert_int_not_equal(relay_cursor_open(&cursor, path, w->log, &fault), ERR_OK);
    assert_null(cursor);
    assert_non_null(strstr(fault.text, path));
}

/* --- to send again --- */

struct seen {
    int n;
    uint32_t partition;
    uint64_t offset;
};

static void
seen_add(void *ctx, uint32_t partition, uint64_t offset)
{
    struct seen *seen = ctx;

    seen->n++;
    seen->partition = partition;
    seen->offset = offset;
}

static void
test_a_rewind_without_a_relay_sets_the_cursor_back_and_never_on(void **state)
{
    struct world *w = *state;
    struct relay_cursor *cursor = cursor_of(w, w->log);
    uint64_t from;
    struct why fault;

    relay_cursor_raise(cursor, 1, 8);
    MUST(relay_rewind(w->relay, w->log, 1, 9, &from, why));
    assert_int_equal(from, 8);
    MUST(relay_rewind(w->relay, w->log, 1, 3, &from, why));
    assert_int_equal(from, 3);
    expect(cursor, 0, 3, 0);
    spool_fill(w->log, 1);
    relay_cursor_raise(cursor, 1, 11);
    MUST(clicklog_trim(w->log, 1, 10, why));
    MUST(relay_rewind(w->relay, w->log, 1, 3, &from, why));
    assert_int_equal(from, 10);
    expect(cursor, 0, 10, 0);
    assert_int_equal(relay_rewind(w->relay, w->log, 3, 0, &from, &fault),
                     ERR_INVALID);
    assert_non_null(strstr(fault.text, "0 to 2"));
    relay_cursor_close(&cursor);
}

static void
test_a_rewind_beside_a_relay_is_a_request_taken_once(void **state)
{
    struct world *w = *state;
    struct relay_cursor *cursor = cursor_of(w, w->log);
    struct seen seen = {0};
    uint64_t from;
    char path[PATH_SIZE + 32];
    int fd, other;
    struct why refused;

    MUST(relay_lock(w->relay, &fd, why));
    assert_int_equal(relay_lock(w->relay, &other, &refused), ERR_CONFLICT);
    relay_cursor_raise(cursor, 2, 6);
    MUST(relay_rewind(w->relay, w->log, 2, 4, &from, why));
    assert_int_equal(from, 4);
    expect(cursor, 0, 0, 6); /* the relay's to do */
    static const char *const strange[] = {"rewind-",    "rewind-1",    "rewind-1-",
                                          "rewind-1-x", "rewind-1-2x", "rewind-9-1",
                                          "rewind--1-2"};
    for (size_t i = 0; i < sizeof(strange) / sizeof(strange[0]); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", w->relay, strange[i]);
        MUST(file_write(path, "", 0, why));
    }
    relay_rewinds_each(w->relay, PARTITIONS, seen_add, &seen);
    assert_int_equal(seen.n, 1);
    assert_int_equal(seen.partition, 2);
    assert_int_equal(seen.offset, 4);
    relay_rewinds_each(w->relay, PARTITIONS, seen_add, &seen);
    assert_int_equal(seen.n, 1);
    (void)close(fd);
    relay_cursor_close(&cursor);
}

/* --- the key --- */

static void
test_the_key_of_every_record_is_its_campaign(void **state)
{
    uint64_t seed = 11;

    (void)state;
    for (int i = 0; i < 20000; i++) {
        char campaign[65], address[16] = {0};
        uint8_t record[CLICKLOG_PREFIX_MAX + CLICK_BODY_MAX];
        struct click click = {.partition = (uint32_t)random_next(&seed) % 256};
        struct str key;
        size_t n;

        click.incarnation = random_next(&seed);
        click.seq = random_next(&seed) >> (1 + random_next(&seed) % 62);
        click.received_us = (int64_t)(random_next(&seed) >> 2);
        click.account = (uint32_t)random_next(&seed);
        click.key = (uint32_t)random_next(&seed) % 200;
        click.timestamp_ms = (int64_t)(random_next(&seed) >> 20);
        click.remote = (struct str){address, random_next(&seed) % 2 ? 4 : 16};
        click.ip = click.remote;
        memset(campaign, 'a' + i % 26, sizeof(campaign));
        click.campaign_id =
            (struct str){campaign, 1 + (uint32_t)(random_next(&seed) % 64)};
        n = click_encode_prefix(&click, record);
        n += click_encode_body(&click, record + n);
        assert_true(relay_record_key(record, n, &key));
        assert_int_equal(key.n, click.campaign_id.n);
        assert_memory_equal(key.p, campaign, key.n);
        size_t ends = (size_t)((const uint8_t *)key.p - record) + key.n;
        uint8_t *cut = malloc(ends); /* for the sanitizer to see its end */
        memcpy(cut, record, ends);
        assert_true(relay_record_key(cut, ends, &key));
        free(cut);
        for (size_t less = 0; less < ends; less++) {
            cut = malloc(less + (less == 0));
            memcpy(cut, record, less);
            assert_false(relay_record_key(cut, less, &key));
            free(cut);
        }
        i += 199; /* cutting is slow */
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            test_a_cursor_is_shared_and_survives_its_users, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_a_cursor_ahead_of_the_spool_is_set_back_to_its_end, setup,
            teardown),
        cmocka_unit_test_setup_teardown(
            test_a_cursor_below_what_is_held_is_set_on_to_the_first, setup,
            teardown),
        cmocka_unit_test_setup_teardown(test_a_damaged_cursor_begins_anew_in_place,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_the_cursor_of_another_spool_says_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_a_folder_that_cannot_be_is_an_error_that_names_it, setup,
            teardown),
        cmocka_unit_test_setup_teardown(
            test_a_rewind_without_a_relay_sets_the_cursor_back_and_never_on, setup,
            teardown),
        cmocka_unit_test_setup_teardown(
            test_a_rewind_beside_a_relay_is_a_request_taken_once, setup, teardown),
        cmocka_unit_test(test_the_key_of_every_record_is_its_campaign),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

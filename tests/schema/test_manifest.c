/* Lists are written, torn, overlapped and broken; what is listed stays listed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "schema/manifest.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/file.h"
#include "schema/avrofile.h"

static char root[64];

static int
setup(void **state)
{
    (void)state;
    memcpy(root, "/tmp/clickledger-manifest-XXXXXX", 33);
    return mkdtemp(root) == NULL ? -1 : 0;
}

static int
teardown(void **state)
{
    static const char *const names[] = {
        "manifest/p00.log", "manifest/p01.log",         "manifest/p02.log",
        "roll-requested",   "part-0-0-99999.live.avro", "manifest"};
    char path[128];

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", root, names[i]);
        (void)remove(path);
    }
    return rmdir(root);
}

static struct manifest_file
file_of(uint64_t base, uint64_t last, int64_t from_us, int64_t to_us)
{
    struct manifest_file file = {.base = base,
                                 .last = last,
                                 .first_received_us = from_us,
                                 .last_received_us = to_us,
                                 .clicks = last - base + 1,
                                 .bytes = 1000};

    (void)snprintf(file.path, sizeof(file.path),
                   "date=2026-11-21/hour=09/part-0-%llu-%llu.avro",
                   (unsigned long long)base, (unsigned long long)last);
    for (size_t i = 0; i < 32; i++)
        file.sha256[i] = (uint8_t)(base + i);
    return file;
}

static struct manifest_writer *
writer_of(uint32_t partition, uint64_t *next, char incs[MANIFEST_INCS_MAX])
{
    struct manifest_writer *writer = NULL;
    struct why why = {""};

    if (manifest_writer_open(&writer, root, partition, next, incs, &why) != ERR_OK)
        fprintf(stderr, "%s\n", why.text);
    assert_non_null(writer);
    return writer;
}

static void
add(struct manifest_writer *writer, uint64_t base, uint64_t last, int64_t from_us,
    int64_t to_us, enum err want)
{
    struct manifest_file file = file_of(base, last, from_us, to_us);
    struct why why = {""};

    assert_int_equal(manifest_add(writer, &file, "1f:22,2a:0", &why), want);
}

static void
list_path(char path[128], int partition)
{
    (void)snprintf(path, 128, "%s/manifest/p%02d.log", root, partition);
}

static void
files_are_listed_in_order_of_receipt_over_partitions(void **state)
{
    char incs[MANIFEST_INCS_MAX];
    uint64_t next = 99;
    struct manifest_writer *a = writer_of(0, &next, incs);
    struct manifest_writer *b = writer_of(1, &next, incs);
    struct manifest manifest;
    struct why why;

    (void)state;
    assert_int_equal(next, 0);
    assert_string_equal(incs, "");
    add(a, 0, 9, 1000, 2000, ERR_OK);
    add(b, 0, 4, 1500, 1600, ERR_OK);
    add(a, 10, 10, 2001, 2001, ERR_OK);
    assert_int_equal(manifest_read(&manifest, root, 0, &why), ERR_OK);
    assert_int_equal(manifest.partitions, 2);
    assert_int_equal(manifest.files_n, 3);
    assert_int_equal(manifest.files[0].partition, 0);
    assert_int_equal(manifest.files[1].partition, 1);
    assert_int_equal(manifest.files[2].base, 10);
    assert_int_equal(manifest.files[2].sha256[31], 41);
    assert_string_equal(manifest.files[1].path,
                        "date=2026-11-21/hour=09/part-0-0-4.avro");
    assert_int_equal(manifest.next[0], 11);
    assert_int_equal(manifest.next[1], 5);
    assert_int_equal(manifest.through_us, 1600);
    manifest_free(&manifest);
    assert_int_equal(manifest_read(&manifest, root, 2001, &why), ERR_OK);
    assert_int_equal(manifest.files_n, 1);
    assert_int_equal(manifest.next[1], 5);
    manifest_free(&manifest);
    manifest_writer_close(&a);
    manifest_writer_close(&b);

    a = writer_of(0, &next, incs);
    assert_int_equal(next, 11);
    assert_string_equal(incs, "1f:22,2a:0");
    manifest_writer_close(&a);
}

static void
a_quiet_partition_says_through(void **state)
{
    char incs[MANIFEST_INCS_MAX];
    uint64_t next;
    struct manifest_writer *a = writer_of(0, &next, incs);
    struct manifest_writer *b = writer_of(1, &next, incs);
    struct manifest manifest;
    struct why why;
    struct stat before, after;
    char path[128];

    (void)state;
    add(a, 0, 9, 1000, 2000, ERR_OK);
    assert_int_equal(manifest_read(&manifest, root, 0, &why), ERR_OK);
    assert_int_equal(manifest.through_us, 0); /* partition 1 has said nothing */
    manifest_free(&manifest);
    assert_int_equal(manifest_through(b, 5000, &why), ERR_OK);
    assert_int_equal(manifest_through(a, 4000, &why), ERR_OK);
    assert_int_equal(manifest_read(&manifest, root, 0, &why), ERR_OK);
    assert_int_equal(manifest.through_us, 4000);
    manifest_free(&manifest);

    list_path(path, 1);
    assert_int_equal(stat(path, &before), 0);
    assert_int_equal(manifest_through(b, 5000, &why), ERR_OK);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(before.st_size, after.st_size);
    assert_int_equal(manifest_through(b, 4999, &why), ERR_CONFLICT);
    add(b, 0, 0, 4999, 6000, ERR_CONFLICT); /* before what is complete */
    add(b, 0, 0, 5000, 6000, ERR_OK);
    manifest_writer_close(&a);
    manifest_writer_close(&b);
}

static void
what_does_not_follow_is_refused(void **state)
{
    char incs[MANIFEST_INCS_MAX];
    uint64_t next;
    struct manifest_writer *writer = writer_of(0, &next, incs);
    struct manifest_file file = file_of(10, 19, 3000, 4000);
    struct why why;

    (void)state;
    add(writer, 1, 9, 1000, 2000, ERR_CONFLICT); /* the first is 0 */
    add(writer, 0, 9, 1000, 2000, ERR_OK);
    add(writer, 0, 9, 1000, 2000, ERR_CONFLICT);   /* again */
    add(writer, 9, 12, 2000, 3000, ERR_CONFLICT);  /* overlap */
    add(writer, 11, 12, 2000, 3000, ERR_CONFLICT); /* gap */
    add(writer, 10, 12, 1999, 3000, ERR_CONFLICT); /* earlier */
    add(writer, 10, 12, 3000, 2999, ERR_CONFLICT); /* ends before it begins */
    file.clicks = 9;
    assert_int_equal(manifest_add(writer, &file, "", &why), ERR_CONFLICT);
    file.clicks = 10;
    memcpy(file.path, "../../etc/x", 12);
    assert_int_equal(manifest_add(writer, &file, "", &why), ERR_INVALID);
    memcpy(file.path, "/etc/x", 7);
    assert_int_equal(manifest_add(writer, &file, "", &why), ERR_INVALID);
    memcpy(file.path, "a b", 4);
    assert_int_equal(manifest_add(writer, &file, "", &why), ERR_INVALID);
    memcpy(file.path, "good", 5);
    assert_int_equal(manifest_add(writer, &file, "a b", &why), ERR_INVALID);
    assert_int_equal(manifest_add(writer, &file, "", &why), ERR_OK);
    manifest_writer_close(&writer);
    writer = writer_of(0, &next, incs);
    assert_int_equal(next, 20);
    assert_string_equal(incs, "");
    manifest_writer_close(&writer);
}

static void
a_list_has_one_writer(void **state)
{
    char incs[MANIFEST_INCS_MAX];
    uint64_t next;
    struct manifest_writer *writer = writer_of(0, &next, incs), *second = NULL;
    struct manifest manifest;
    struct why why;

    (void)state;
    assert_int_equal(manifest_read(&manifest, root, 0, &why), ERR_OK);
    manifest_free(&manifest);
    assert_int_equal(manifest_writer_open(&second, root, 0, &next, incs, &why),
                     ERR_CONFLICT);
    assert_null(second);
    manifest_writer_close(&writer);
    writer = writer_of(0, &next, incs);
    manifest_writer_close(&writer);
}

/* Cuts the list at every length: the whole lines before the cut count, a line without its
 * end is ignored, mended and can be written again. */
static void
a_torn_last_line_is_ignored_and_mended(void **state)
{
    char incs[MANIFEST_INCS_MAX], path[128];
    uint64_t next;
    struct manifest_writer *writer = writer_of(0, &next, incs);
    struct buf text = BUF_MAX(1 << 16);
    struct why why;

    (void)state;
    add(writer, 0, 9, 1000, 2000, ERR_OK);
    add(writer, 10, 19, 2000, 3000, ERR_OK);
    assert_int_equal(manifest_through(writer, 4000, &why), ERR_OK);
    manifest_writer_close(&writer);
    list_path(path, 0);
    assert_int_equal(file_read(path, &text, &why), ERR_OK);
    for (size_t n = 0; n <= text.n; n++)
        for (int zeros = 0; zeros < 2; zeros++) {
            struct manifest manifest;
            uint64_t lines = 0;
            uint8_t zero[40] = {0};
            int fd = open(path, O_WRONLY | O_TRUNC);

            assert_true(fd >= 0);
            assert_int_equal(file_write_all(fd, text.p, n, path, &why), ERR_OK);
            if (zeros > 0) /* the size reached the disk, the bytes did not */
                assert_int_equal(file_write_all(fd, zero, sizeof(zero), path, &why),
                                 ERR_OK);
            assert_int_equal(close(fd), 0);
            for (size_t i = 0; i < n; i++)
                lines += text.p[i] == '\n';
            assert_int_equal(manifest_read(&manifest, root, 0, &why), ERR_OK);
            assert_int_equal(manifest.files_n, lines > 2 ? 2 : lines);
            manifest_free(&manifest);
            writer = writer_of(0, &next, incs);
            assert_int_equal(next, lines > 2 ? 20 : lines * 10);
            if (lines < 2)
                add(writer, next, next + 9, 3000, 3000, ERR_OK);
            manifest_writer_close(&writer);
            assert_int_equal(manifest_read(&manifest, root, 0, &why), ERR_OK);
            assert_int_equal(manifest.files_n, lines < 2 ? lines + 1 : 2);
            manifest_free(&manifest);
        }
    buf_free(&text);
}

static void
a_changed_byte_is_damage_with_file_and_line(void **state)
{
    char incs[MANIFEST_INCS_MAX], path[128];
    uint64_t next;
    struct manifest_writer *writer = writer_of(0, &next, incs);
    struct buf text = BUF_MAX(1 << 16);
    size_t first = 0; /* where the first line ends */
    struct why why;

    (void)state;
    add(writer, 0, 9, 1000, 2000, ERR_OK);
    add(writer, 10, 19, 2000, 3000, ERR_OK);
    manifest_writer_close(&writer);
    list_path(path, 0);
    assert_int_equal(file_read(path, &text, &why), ERR_OK);
    while (text.p[first] != '\n')
        first++;
    for (size_t i = 0; i + 1 < text.n; i++) {
        struct manifest manifest;

        text.p[i] ^= 1;
        assert_int_equal(file_write(path, text.p, text.n, &why), ERR_OK);
        text.p[i] ^= 1;
        assert_int_equal(manifest_read(&manifest, root, 0, &why), ERR_CORRUPT);
        assert_non_null(strstr(why.text, i <= first ? "p00.log:1" : "p00.log:2"));
        assert_null(manifest.files);
        assert_int_equal(manifest_writer_open(&writer, root, 0, &next, incs, &why),
                         ERR_CORRUPT);
    }
    buf_free(&text);
}

static void
a_list_that_is_missing_between_others_is_damage(void **state)
{
    char incs[MANIFEST_INCS_MAX], path[128];
    uint64_t next;
    struct manifest manifest;
    struct why why;

    (void)state;
    for (uint32_t p = 0; p < 3; p++) {
        struct manifest_writer *writer = writer_of(p, &next, incs);
        manifest_writer_close(&writer);
    }
    list_path(path, 1);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(manifest_read(&manifest, root, 0, &why), ERR_CORRUPT);
    list_path(path, 2);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(manifest_read(&manifest, root, 0, &why), ERR_OK);
    assert_int_equal(manifest.partitions, 1);
    manifest_free(&manifest);
}

static void
an_archive_that_is_not_there_yet_is_empty(void **state)
{
    struct manifest manifest;
    struct why why;

    (void)state;
    assert_int_equal(manifest_read(&manifest, root, 0, &why), ERR_OK);
    assert_int_equal(manifest.partitions, 0);
    assert_int_equal(manifest.through_us, 0);
    manifest_free(&manifest);
}

static void *
roll_when_asked(void *arg)
{
    struct manifest_writer *writer = arg;
    char path[128];
    struct stat st;
    struct why why;

    (void)snprintf(path, sizeof(path), "%s/roll-requested", root);
    while (stat(path, &st) != 0)
        clock_sleep_us(1000);
    return manifest_through(writer, 7000, &why) == ERR_OK ? NULL : arg;
}

static void
a_roll_is_asked_for_and_awaited(void **state)
{
    char incs[MANIFEST_INCS_MAX];
    uint64_t next;
    struct manifest_writer *writer = writer_of(0, &next, incs);
    pthread_t thread;
    struct why why;
    void *wrong = NULL;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, roll_when_asked, writer), 0);
    assert_int_equal(manifest_roll_wait(root, 7000, 30 * CLOCK_SECOND_US, &why),
                     ERR_OK);
    (void)pthread_join(thread, &wrong);
    assert_null(wrong);
    assert_int_equal(manifest_roll_wait(root, 7001, 100000, &why), ERR_AGAIN);
    assert_non_null(strstr(why.text, "start it"));
    manifest_writer_close(&writer);
}

static void
live_verdicts_come_back_in_order(void **state)
{
    struct manifest_file file = file_of(0, 99999, 1, 2);
    struct avrofile_writer *writer = NULL;
    uint64_t *verdicts = calloc(100001, sizeof(*verdicts));
    char beside[MANIFEST_PATH_MAX + 8], path[256];
    struct why why;

    (void)state;
    assert_non_null(verdicts);
    memcpy(file.path, "part-0-0-99999.avro", 20);
    manifest_beside(&file, "live", beside);
    assert_string_equal(beside, "part-0-0-99999.live.avro");
    assert_int_equal(manifest_live_read(root, &file, verdicts, &why), ERR_NOTFOUND);
    (void)snprintf(path, sizeof(path), "%s/%s", root, beside);
    assert_int_equal(avrofile_create(&writer, path, manifest_live_schema,
                                     AVROFILE_SNAPPY, NULL, 0, &why),
                     ERR_OK);
    for (uint64_t i = 0; i < 100000; i++) {
        uint8_t bytes[AVRO_LONG_SIZE_MAX];

        assert_int_equal(
            avrofile_add(writer, bytes,
                         avro_long_put(bytes, (int64_t)(i * i * i << 20)), &why),
            ERR_OK);
    }
    assert_int_equal(avrofile_finish(&writer, NULL, NULL, &why), ERR_OK);
    assert_int_equal(manifest_live_read(root, &file, verdicts, &why), ERR_OK);
    for (uint64_t i = 0; i < 100000; i++)
        assert_true(verdicts[i] == i * i * i << 20);
    file.clicks = 99999;
    assert_int_equal(manifest_live_read(root, &file, verdicts, &why), ERR_CORRUPT);
    file.clicks = 100001;
    assert_int_equal(manifest_live_read(root, &file, verdicts, &why), ERR_CORRUPT);
    free(verdicts);
}

int
main(void)
{
#define IN_A_FOLDER(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        IN_A_FOLDER(files_are_listed_in_order_of_receipt_over_partitions),
        IN_A_FOLDER(a_quiet_partition_says_through),
        IN_A_FOLDER(what_does_not_follow_is_refused),
        IN_A_FOLDER(a_list_has_one_writer),
        IN_A_FOLDER(a_torn_last_line_is_ignored_and_mended),
        IN_A_FOLDER(a_changed_byte_is_damage_with_file_and_line),
        IN_A_FOLDER(a_list_that_is_missing_between_others_is_damage),
        IN_A_FOLDER(an_archive_that_is_not_there_yet_is_empty),
        IN_A_FOLDER(a_roll_is_asked_for_and_awaited),
        IN_A_FOLDER(live_verdicts_come_back_in_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

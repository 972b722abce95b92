/* In a folder of its own, removed at the end. */
#include "common/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char root[] = "/tmp/clickledger-file-XXXXXX";

static int
make_root(void **state)
{
    (void)state;
    return mkdtemp(root) == NULL ? -1 : 0;
}

static const char *
in_root(const char *name)
{
    static char path[FILE_PATH_MAX];

    (void)snprintf(path, sizeof(path), "%s/%s", root, name);
    return path;
}

static int
files_in(const char *folder)
{
    DIR *dir = opendir(folder);
    int n = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL)
        n++;
    (void)closedir(dir);
    return n - 2;
}

static void
folders_are_made_to_any_depth_and_twice(void **state)
{
    struct stat st;

    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(file_mkdirs(in_root("a//b/c/"), NULL), ERR_OK);
        assert_int_equal(stat(in_root("a/b/c"), &st), 0);
        assert_true(S_ISDIR(st.st_mode));
        assert_int_equal(st.st_mode & 07, 0);
    }
    assert_int_equal(file_mkdirs("/", NULL), ERR_OK);
    assert_int_equal(file_mkdirs("", NULL), ERR_INVALID);
}

static void
a_written_file_reads_back_and_leaves_nothing_beside_it(void **state)
{
    static const size_t sizes[] = {0, 1, 65536, 65537, 300000};
    static uint8_t data[300000];

    (void)state;
    assert_int_equal(file_mkdirs(in_root("w"), NULL), ERR_OK);
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)rand();
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct buf back = BUF_MAX(sizeof(data));

        assert_int_equal(file_write(in_root("w/f"), data, sizes[i], NULL), ERR_OK);
        assert_int_equal(file_read(in_root("w/f"), &back, NULL), ERR_OK);
        assert_int_equal(back.n, sizes[i]);
        if (back.n > 0)
            assert_memory_equal(back.p, data, back.n);
        assert_int_equal(files_in(in_root("w")), 1);
        buf_free(&back);
    }
}

static void
reading_appends_and_respects_the_buffers_maximum(void **state)
{
    struct buf buf = BUF_MAX(8);
    struct why why;

    (void)state;
    assert_int_equal(file_write(in_root("four"), "1234", 4, NULL), ERR_OK);
    assert_int_equal(file_read(in_root("four"), &buf, NULL), ERR_OK);
    assert_int_equal(file_read(in_root("four"), &buf, NULL), ERR_OK);
    assert_memory_equal(buf.p, "12341234", 8);
    assert_int_equal(file_read(in_root("four"), &buf, &why), ERR_FULL);
    assert_non_null(strstr(why.text, "larger than the 8 bytes"));
    buf_free(&buf);
}

static void
failures_name_the_path_and_the_reason(void **state)
{
    struct buf buf = BUF_MAX(100);
    struct why why;
    char path[2 * FILE_PATH_MAX];

    (void)state;
    assert_int_equal(file_read(in_root("none"), &buf, &why), ERR_NOTFOUND);
    assert_non_null(strstr(why.text, in_root("none")));
    assert_int_equal(file_read(root, &buf, &why), ERR_FATAL);
    assert_int_equal(file_write(in_root("none/f"), "", 0, &why), ERR_NOTFOUND);
    assert_int_equal(file_publish(in_root("none"), in_root("x"), &why),
                     ERR_NOTFOUND);
    assert_int_equal(file_write(in_root("plain"), "x", 1, &why), ERR_OK);
    assert_int_equal(file_mkdirs(in_root("plain"), &why), ERR_FATAL);
    assert_int_equal(file_mkdirs(in_root("plain/below"), &why), ERR_FATAL);
    memset(path, 'a', sizeof(path));
    path[sizeof(path) - 1] = '\0';
    assert_int_equal(file_mkdirs(path, &why), ERR_INVALID);
    assert_int_equal(file_write(path, "", 0, &why), ERR_INVALID);
    assert_int_equal(file_sync_folder_of(path, &why), ERR_INVALID);
    assert_int_equal(file_sync_folder_of("relative", &why), ERR_OK);
    assert_int_equal(file_sync_folder_of("/at-root", &why), ERR_OK);
    buf_free(&buf);
}

static void
a_full_disk_is_full_and_not_fatal(void **state)
{
    int fd = open("/dev/full", O_WRONLY);
    struct why why;

    (void)state;
    if (fd < 0)
        skip();
    assert_int_equal(file_write_all(fd, "x", 1, "/dev/full", &why), ERR_FULL);
    assert_non_null(strstr(why.text, "/dev/full"));
    (void)close(fd);
}

static int
remove_root(void **state)
{
    static const char *const files[] = {"w/f", "four", "plain"};
    static const char *const folders[] = {"a/b/c", "a/b", "a", "w", ""};

    (void)state;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        (void)unlink(in_root(files[i]));
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++)
        (void)rmdir(in_root(folders[i]));
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders_are_made_to_any_depth_and_twice),
        cmocka_unit_test(a_written_file_reads_back_and_leaves_nothing_beside_it),
        cmocka_unit_test(reading_appends_and_respects_the_buffers_maximum),
        cmocka_unit_test(failures_name_the_path_and_the_reason),
        cmocka_unit_test(a_full_disk_is_full_and_not_fatal),
    };

    return cmocka_run_group_tests(tests, make_root, remove_root);
}

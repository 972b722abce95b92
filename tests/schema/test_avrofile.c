/* Files written here are read here and by the Avro C library, and the other way round;
 * then every byte is broken in turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "schema/avrofile.h"

#include <avro.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/file.h"
#include "common/hash.h"

static const char schema[] = "{\"type\":\"record\",\"name\":\"pair\",\"fields\":["
                             "{\"name\":\"n\",\"type\":\"long\"},"
                             "{\"name\":\"s\",\"type\":\"string\"}]}";
static const enum avrofile_codec codecs[] = {AVROFILE_NULL, AVROFILE_SNAPPY,
                                             AVROFILE_ZSTD};

static char root[] = "/tmp/clickledger-avro-XXXXXX";
static char path[64];

static int
setup(void **state)
{
    (void)state;
    if (mkdtemp(root) == NULL)
        return -1;
    (void)snprintf(path, sizeof(path), "%s/a.avro", root);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(root);
}

/* Record i, of a length that varies from block to block. */
static size_t
record_make(uint8_t *out, int64_t i)
{
    size_t text_n = (size_t)(i * 7919 % 300);
    size_t n = avro_long_put(out, i * i - 5);

    n += avro_long_put(out + n, (int64_t)text_n);
    for (size_t k = 0; k < text_n; k++)
        out[n++] = (uint8_t)('a' + (i + (int64_t)k / 9) % 26);
    return n;
}

static void
file_make(enum avrofile_codec codec, int64_t records, uint8_t sha256[32])
{
    const struct avrofile_meta meta[] = {{"clickledger.incs", STR("1f:22,2a:0")},
                                         {"empty", {NULL, 0}}};
    struct avrofile_writer *writer = NULL;
    uint8_t record[512];
    struct why why;

    assert_int_equal(avrofile_create(&writer, path, schema, codec, meta, 2, &why),
                     ERR_OK);
    for (int64_t i = 0; i < records; i++)
        assert_int_equal(avrofile_add(writer, record, record_make(record, i), &why),
                         ERR_OK);
    assert_int_equal(avrofile_finish(&writer, NULL, sha256, &why), ERR_OK);
    assert_null(writer);
}

/* Reads the whole file; returns the records whose bytes are right. */
static enum err
file_count(int64_t *records, struct why *why)
{
    struct avrofile_reader *reader = NULL;
    struct str bytes;
    uint64_t n;
    enum err err = avrofile_open(&reader, path, why);

    *records = 0;
    while (err == ERR_OK &&
           (err = avrofile_block(reader, &bytes, &n, why)) == ERR_OK) {
        const uint8_t *p = (const uint8_t *)bytes.p, *end = p + bytes.n;
        uint8_t want[512];

        for (; n > 0; n--) {
            size_t size = record_make(want, *records);
            if (size > (size_t)(end - p) || memcmp(p, want, size) != 0)
                break;
            p += size;
            ++*records;
        }
    }
    avrofile_close(&reader);
    return err == ERR_AGAIN ? ERR_OK : err;
}

static void
what_is_written_is_read_back(void **state)
{
    static const int64_t counts[] = {0, 1, 2, 400, 20000};

    (void)state;
    for (size_t c = 0; c < 3; c++)
        for (size_t k = 0; k < sizeof(counts) / sizeof(*counts); k++) {
            int64_t records;
            uint8_t sha256[32], want[32];
            struct buf bytes = BUF_MAX(1 << 24);
            struct why why;

            file_make(codecs[c], counts[k], sha256);
            assert_int_equal(file_count(&records, &why), ERR_OK);
            assert_int_equal(records, counts[k]);
            assert_int_equal(file_read(path, &bytes, &why), ERR_OK);
            hash_sha256_of(bytes.p, bytes.n, want);
            assert_memory_equal(sha256, want, 32);
            buf_free(&bytes);
        }
}

static void
schema_and_metadata_come_back(void **state)
{
    struct avrofile_reader *reader = NULL;
    struct why why;

    (void)state;
    file_make(AVROFILE_SNAPPY, 3, NULL);
    assert_int_equal(avrofile_open(&reader, path, &why), ERR_OK);
    assert_true(str_equal(avrofile_schema(reader), str_of(schema)));
    assert_true(str_equal(avrofile_meta_get(reader, "clickledger.incs"),
                          STR("1f:22,2a:0")));
    assert_true(str_equal(avrofile_meta_get(reader, "avro.codec"), STR("snappy")));
    assert_int_equal(avrofile_meta_get(reader, "empty").n, 0);
    assert_null(avrofile_meta_get(reader, "nothing").p);
    avrofile_close(&reader);
    assert_null(reader);
}

static void
blocks_are_about_64_kib(void **state)
{
    struct avrofile_reader *reader = NULL;
    struct str bytes;
    uint64_t n;
    struct why why;

    (void)state;
    file_make(AVROFILE_SNAPPY, 5000, NULL);
    assert_int_equal(avrofile_open(&reader, path, &why), ERR_OK);
    assert_int_equal(avrofile_block(reader, &bytes, &n, &why), ERR_OK);
    assert_in_range(bytes.n, AVROFILE_BLOCK_SIZE, AVROFILE_BLOCK_SIZE + 512);
    avrofile_close(&reader);
}

static void
a_huge_record_is_a_block_and_a_larger_one_is_refused(void **state)
{
    uint8_t *big = calloc(1, AVROFILE_RECORD_MAX + 1);

    (void)state;
    assert_non_null(big);
    for (size_t c = 0; c < 3; c++) {
        struct avrofile_writer *writer = NULL;
        struct avrofile_reader *reader = NULL;
        struct str bytes;
        uint64_t n;
        struct why why;

        assert_int_equal(
            avrofile_create(&writer, path, "\"bytes\"", codecs[c], NULL, 0, &why),
            ERR_OK);
        assert_int_equal(avrofile_add(writer, "x", 1, &why), ERR_OK);
        assert_int_equal(avrofile_add(writer, big, AVROFILE_RECORD_MAX, &why),
                         ERR_OK);
        assert_int_equal(avrofile_add(writer, big, AVROFILE_RECORD_MAX + 1, &why),
                         ERR_INVALID);
        assert_int_equal(avrofile_finish(&writer, NULL, NULL, &why), ERR_OK);
        assert_int_equal(avrofile_open(&reader, path, &why), ERR_OK);
        assert_int_equal(avrofile_block(reader, &bytes, &n, &why), ERR_OK);
        assert_int_equal(bytes.n, AVROFILE_RECORD_MAX + 1);
        assert_int_equal(n, 2);
        assert_int_equal(avrofile_block(reader, &bytes, &n, &why), ERR_AGAIN);
        avrofile_close(&reader);
    }
    free(big);
}

static void
the_file_appears_when_it_is_finished_under_the_name_then_given(void **state)
{
    struct avrofile_writer *writer = NULL;
    char other[80], tmp[80];
    struct stat st;
    struct why why;

    (void)state;
    (void)unlink(path);
    (void)snprintf(other, sizeof(other), "%s/b.avro", root);
    (void)snprintf(tmp, sizeof(tmp), "%s.tmp", path);
    assert_int_equal(
        avrofile_create(&writer, path, schema, AVROFILE_NULL, NULL, 0, &why),
        ERR_OK);
    assert_int_equal(stat(path, &st), -1);
    assert_int_equal(stat(tmp, &st), 0);
    assert_int_equal(avrofile_finish(&writer, other, NULL, &why), ERR_OK);
    assert_int_equal(stat(tmp, &st), -1);
    assert_int_equal(stat(path, &st), -1);
    assert_int_equal(unlink(other), 0);

    assert_int_equal(
        avrofile_create(&writer, path, schema, AVROFILE_NULL, NULL, 0, &why),
        ERR_OK);
    avrofile_abort(&writer);
    assert_null(writer);
    assert_int_equal(stat(tmp, &st), -1);
    assert_int_equal(avrofile_create(&writer, "/nonexistent/x", schema,
                                     AVROFILE_NULL, NULL, 0, &why),
                     ERR_NOTFOUND);
    assert_null(writer);
}

static void
no_file_and_no_avro_are_told_apart(void **state)
{
    struct avrofile_reader *reader = NULL;
    struct why why;

    (void)state;
    (void)unlink(path);
    assert_int_equal(avrofile_open(&reader, path, &why), ERR_NOTFOUND);
    assert_int_equal(file_write(path, "", 0, &why), ERR_OK);
    assert_int_equal(avrofile_open(&reader, path, &why), ERR_CORRUPT);
    assert_int_equal(file_write(path, "Obj\x01", 4, &why), ERR_OK);
    assert_int_equal(avrofile_open(&reader, path, &why), ERR_CORRUPT);
    assert_int_equal(file_write(path, "Obj\x02xxxxxxxxxxxxxxxxxxxxx", 24, &why),
                     ERR_OK);
    assert_int_equal(avrofile_open(&reader, path, &why), ERR_CORRUPT);
    assert_null(reader);
}

/* Cut at every length, and every byte changed: an error, or (where a byte carries no
 * check, as in the schema's text or a null block) wrong records, never more. */
static void
a_broken_file_is_never_more_than_an_error(void **state)
{
    (void)state;
    for (size_t c = 0; c < 3; c++) {
        struct buf good = BUF_MAX(1 << 20);
        struct why why;
        int64_t records;

        file_make(codecs[c], 12, NULL);
        assert_int_equal(file_read(path, &good, &why), ERR_OK);
        for (size_t i = 0; i < good.n; i++) {
            int fd = (int)(good.n - i); /* cut */
            enum err err;

            assert_int_equal(truncate(path, fd - 1), 0);
            err = file_count(&records, &why);
            assert_true(err == ERR_CORRUPT || (err == ERR_OK && records == 0));
        }
        for (size_t i = 0; i < good.n; i++)
            for (int bit = 0; bit < 8; bit += 3) {
                FILE *file = fopen(path, "wb");
                enum err err;

                assert_non_null(file);
                good.p[i] ^= (uint8_t)(1 << bit);
                assert_int_equal(fwrite(good.p, 1, good.n, file), good.n);
                assert_int_equal(fclose(file), 0);
                good.p[i] ^= (uint8_t)(1 << bit);
                err = file_count(&records, &why);
                assert_true(err == ERR_CORRUPT || err == ERR_OK);
                /* With a CRC, what unpacks is right or refused. */
                if (err == ERR_OK && codecs[c] == AVROFILE_SNAPPY && i > 300 &&
                    i + 16 < good.n)
                    assert_true(records <= 12);
            }
        buf_free(&good);
    }
}

static void
a_snappy_block_with_a_wrong_byte_is_refused(void **state)
{
    struct buf good = BUF_MAX(1 << 20);
    struct why why;
    int64_t records;
    size_t caught = 0, tried = 0;

    (void)state;
    file_make(AVROFILE_SNAPPY, 40, NULL);
    assert_int_equal(file_read(path, &good, &why), ERR_OK);
    for (size_t i = good.n - 16 - 200; i < good.n; i++, tried++) {
        FILE *file = fopen(path, "wb");

        assert_non_null(file);
        good.p[i] ^= 0x10;
        assert_int_equal(fwrite(good.p, 1, good.n, file), good.n);
        assert_int_equal(fclose(file), 0);
        good.p[i] ^= 0x10;
        caught += file_count(&records, &why) == ERR_CORRUPT;
    }
    assert_int_equal(caught, tried);
    buf_free(&good);
}

static void
lengths_that_lie_are_refused_before_memory_is_asked_for(void **state)
{
    struct why why;
    int64_t records;

    (void)state;
    for (size_t c = 0; c < 3; c++) {
        struct buf bytes = BUF_MAX(1 << 20);
        uint8_t frame[20], junk[64] = {0x7f};

        file_make(codecs[c], 0, NULL);
        assert_int_equal(file_read(path, &bytes, &why), ERR_OK);
        unsigned n = avro_long_put(frame, 1);
        n += avro_long_put(frame + n, INT64_MAX);
        buf_add(&bytes, frame, n);
        buf_add(&bytes, junk, sizeof(junk));
        assert_int_equal(file_write(path, bytes.p, bytes.n, &why), ERR_OK);
        assert_int_equal(file_count(&records, &why), ERR_CORRUPT);
        buf_free(&bytes);
    }
}

static void
varints_reach_both_ends(void **state)
{
    static const int64_t values[] = {0,         -1,        1,         63,
                                     64,        -64,       -65,       1 << 20,
                                     INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN};
    uint8_t bytes[AVRO_LONG_SIZE_MAX + 1];
    int64_t back;

    (void)state;
    for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
        unsigned n = avro_long_put(bytes, values[i]);

        assert_int_equal(avro_long_get(bytes, bytes + n, &back), n);
        assert_true(back == values[i]);
        for (unsigned k = 0; k < n; k++)
            assert_int_equal(avro_long_get(bytes, bytes + k, &back), 0);
    }
    memset(bytes, 0xff, sizeof(bytes));
    assert_int_equal(avro_long_get(bytes, bytes + sizeof(bytes), &back), 0);
}

static void
the_avro_c_library_reads_ours(void **state)
{
    (void)state;
    for (size_t c = 0; c < 2; c++) { /* it has no zstandard */
        avro_file_reader_t reader;
        avro_value_iface_t *iface;
        avro_value_t value, field;
        uint8_t want[512];
        int64_t n = 0;

        file_make(codecs[c], 3000, NULL);
        assert_int_equal(avro_file_reader(path, &reader), 0);
        avro_schema_t written = avro_file_reader_get_writer_schema(reader);
        iface = avro_generic_class_from_schema(written);
        assert_int_equal(avro_generic_value_new(iface, &value), 0);
        while (avro_file_reader_read_value(reader, &value) == 0) {
            const char *text;
            size_t size;
            int64_t number;

            assert_int_equal(avro_value_get_by_index(&value, 0, &field, NULL), 0);
            assert_int_equal(avro_value_get_long(&field, &number), 0);
            assert_true(number == n * n - 5);
            assert_int_equal(avro_value_get_by_index(&value, 1, &field, NULL), 0);
            assert_int_equal(avro_value_get_string(&field, &text, &size), 0);
            assert_int_equal(size - 1, n * 7919 % 300);
            size_t all = record_make(want, n);
            assert_memory_equal(text, want + all - (size - 1), size - 1);
            n++;
            avro_value_reset(&value);
        }
        assert_int_equal(n, 3000);
        avro_value_decref(&value);
        avro_value_iface_decref(iface);
        avro_schema_decref(written);
        assert_int_equal(avro_file_reader_close(reader), 0);
    }
}

static void
we_read_what_the_avro_c_library_wrote(void **state)
{
    static const char *const names[] = {"null", "snappy"};

    (void)state;
    for (int c = 0; c < 2; c++) {
        avro_file_writer_t writer;
        avro_schema_t parsed;
        avro_value_iface_t *iface;
        avro_value_t value, field;
        int64_t records;
        struct why why = {""};

        (void)unlink(path);
        assert_int_equal(
            avro_schema_from_json_length(schema, strlen(schema), &parsed), 0);
        assert_int_equal(
            avro_file_writer_create_with_codec(path, parsed, &writer, names[c], 0),
            0);
        iface = avro_generic_class_from_schema(parsed);
        assert_int_equal(avro_generic_value_new(iface, &value), 0);
        for (int64_t i = 0; i < 3000; i++) {
            uint8_t record[512];
            size_t text_n = (size_t)(i * 7919 % 300), n = record_make(record, i);

            assert_int_equal(avro_value_get_by_index(&value, 0, &field, NULL), 0);
            assert_int_equal(avro_value_set_long(&field, i * i - 5), 0);
            assert_int_equal(avro_value_get_by_index(&value, 1, &field, NULL), 0);
            record[n] = '\0';
            assert_int_equal(
                avro_value_set_string_len(&field, (const char *)record + n - text_n,
                                          text_n + 1),
                0);
            assert_int_equal(avro_file_writer_append_value(writer, &value), 0);
        }
        avro_value_decref(&value);
        avro_value_iface_decref(iface);
        assert_int_equal(avro_file_writer_close(writer), 0);
        avro_schema_decref(parsed);
        assert_int_equal(file_count(&records, &why), ERR_OK);
        assert_int_equal(records, 3000);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(schema_and_metadata_come_back),
        cmocka_unit_test(blocks_are_about_64_kib),
        cmocka_unit_test(a_huge_record_is_a_block_and_a_larger_one_is_refused),
        cmocka_unit_test(
            the_file_appears_when_it_is_finished_under_the_name_then_given),
        cmocka_unit_test(no_file_and_no_avro_are_told_apart),
        cmocka_unit_test(a_broken_file_is_never_more_than_an_error),
        cmocka_unit_test(a_snappy_block_with_a_wrong_byte_is_refused),
        cmocka_unit_test(lengths_that_lie_are_refused_before_memory_is_asked_for),
        cmocka_unit_test(varints_reach_both_ends),
        cmocka_unit_test(the_avro_c_library_reads_ours),
        cmocka_unit_test(we_read_what_the_avro_c_library_wrote),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}

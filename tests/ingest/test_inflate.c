#include "ingest/inflate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>
#include <zlib.h>
#include <zstd.h>

enum { PLAIN_MAX = 1 << 20, PACKED_MAX = 2 << 20 };

static struct str
gzip_of(const void *data, size_t n, char *out)
{
    z_stream z = {0};
    Bytef *copy = malloc(n + 1);

    memcpy(copy, data, n);
    assert_int_equal(
        deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = copy;
    z.avail_in = (uInt)n;
    z.next_out = (Bytef *)out;
    z.avail_out = PACKED_MAX;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    (void)deflateEnd(&z);
    free(copy);
    return (struct str){out, PACKED_MAX - z.avail_out};
}

static struct str
zstd_of(const void *data, size_t n, char *out)
{
    return (struct str){out, (uint32_t)ZSTD_compress(out, PACKED_MAX, data, n, 3)};
}

static struct str
packed(enum inflate_coding coding, const void *data, size_t n, char *out)
{
    return coding == INFLATE_GZIP ? gzip_of(data, n, out) : zstd_of(data, n, out);
}

struct fixture {
    struct inflate *inflate;
    char *plain, *out;
};

static int
setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_int_equal(inflate_open(&f->inflate, NULL), ERR_OK);
    f->plain = malloc(PLAIN_MAX + 1);
    f->out = malloc(PACKED_MAX);
    srand(1);
    for (int i = 0; i <= PLAIN_MAX; i++)
        f->plain[i] = (char)(rand() % 5 == 0 ? rand() : 'a');
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;

    inflate_close(&f->inflate);
    free(f->plain);
    free(f->out);
    free(f);
    return 0;
}

static const enum inflate_coding CODINGS[] = {INFLATE_GZIP, INFLATE_ZSTD};

static void
test_what_was_packed_comes_out_at_every_size_up_to_the_maximum(void **state)
{
    static const size_t sizes[] = {1,     2,     100,    65535,
                                   65536, 65537, 131072, PLAIN_MAX};
    struct fixture *f = *state;

    for (int c = 0; c < 2; c++)
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            struct buf out = BUF_MAX(PLAIN_MAX);
            struct str in = packed(CODINGS[c], f->plain, sizes[i], f->out);

            assert_int_equal(inflate_body(f->inflate, CODINGS[c], in, &out),
                             INFLATE_OK);
            assert_int_equal(out.n, sizes[i]);
            assert_memory_equal(out.p, f->plain, out.n);
            buf_free(&out);
        }
}

static void
test_one_byte_over_the_maximum_is_too_large(void **state)
{
    struct fixture *f = *state;

    for (int c = 0; c < 2; c++) {
        struct buf out = BUF_MAX(PLAIN_MAX);
        struct str in = packed(CODINGS[c], f->plain, PLAIN_MAX + 1, f->out);

        assert_int_equal(inflate_body(f->inflate, CODINGS[c], in, &out),
                         INFLATE_TOO_LARGE);
        assert_true(out.n <= PLAIN_MAX);
        buf_free(&out);
    }
}

static void
test_a_bomb_stops_at_the_maximum(void **state)
{
    struct fixture *f = *state;
    size_t n = (size_t)64 << 20;
    char *zeros = calloc(1, n);

    for (int c = 0; c < 2; c++) {
        struct buf out = BUF_MAX(100000);
        struct str in = packed(CODINGS[c], zeros, n, f->out);

        assert_true(in.n < 100000);
        assert_int_equal(inflate_body(f->inflate, CODINGS[c], in, &out),
                         INFLATE_TOO_LARGE);
        assert_true(out.cap <= 100000);
        buf_free(&out);
    }
    free(zeros);
}

static void
test_several_members_or_frames_are_one_body(void **state)
{
    struct fixture *f = *state;

    for (int c = 0; c < 2; c++) {
        struct buf out = BUF_MAX(PLAIN_MAX);
        struct str a = packed(CODINGS[c], f->plain, 1000, f->out);
        struct str b = packed(CODINGS[c], f->plain + 1000, 500, f->out + a.n);

        a.n += b.n;
        assert_int_equal(inflate_body(f->inflate, CODINGS[c], a, &out), INFLATE_OK);
        assert_int_equal(out.n, 1500);
        assert_memory_equal(out.p, f->plain, 1500);
        buf_free(&out);
    }
}

static void
test_every_cut_and_what_follows_the_end_is_bad(void **state)
{
    struct fixture *f = *state;

    for (int c = 0; c < 2; c++) {
        struct str in = packed(CODINGS[c], f->plain, 1000, f->out);
        struct buf out = BUF_MAX(PLAIN_MAX);

        for (uint32_t n = 0; n < in.n; n++) {
            buf_reset(&out);
            assert_int_equal(
                inflate_body(f->inflate, CODINGS[c], (struct str){in.p, n}, &out),
                INFLATE_BAD);
        }
        memcpy(f->out + in.n, "tail", 4);
        in.n += 4;
        buf_reset(&out);
        assert_int_equal(inflate_body(f->inflate, CODINGS[c], in, &out),
                         INFLATE_BAD);
        buf_reset(&out);
        assert_int_equal(
            inflate_body(f->inflate, CODINGS[c], STR("plain text"), &out),
            INFLATE_BAD);
        buf_free(&out);
    }
}

static void
test_a_zstd_window_over_8_mib_is_refused(void **state)
{
    struct fixture *f = *state;
    ZSTD_CCtx *zstd = ZSTD_createCCtx();
    size_t n = (size_t)20 << 20;
    char *data = calloc(1, n);
    ZSTD_inBuffer from = {data, n, 0};
    ZSTD_outBuffer to = {f->out, PACKED_MAX, 0};
    struct buf out = BUF_MAX(PLAIN_MAX);
    struct str in;

    (void)ZSTD_CCtx_setParameter(zstd, ZSTD_c_windowLog,
                                 INFLATE_WINDOW_LOG_MAX + 1);
    assert_int_equal(ZSTD_compressStream2(zstd, &to, &from, ZSTD_e_flush), 0);
    assert_int_equal(ZSTD_compressStream2(zstd, &to, &from, ZSTD_e_end), 0);
    in = (struct str){f->out, (uint32_t)to.pos};
    assert_int_equal(inflate_body(f->inflate, INFLATE_ZSTD, in, &out),
                     INFLATE_WINDOW);
    buf_free(&out);
    free(data);
    (void)ZSTD_freeCCtx(zstd);
}

static void
test_encodings_go_by_name_in_any_case(void **state)
{
    (void)state;
    assert_int_equal(inflate_coding_of((struct str){0}), INFLATE_IDENTITY);
    assert_int_equal(inflate_coding_of(STR("identity")), INFLATE_IDENTITY);
    assert_int_equal(inflate_coding_of(STR("GZip")), INFLATE_GZIP);
    assert_int_equal(inflate_coding_of(STR("zstd")), INFLATE_ZSTD);
    assert_int_equal(inflate_coding_of(STR("br")), INFLATE_UNKNOWN);
    assert_int_equal(inflate_coding_of(STR("gzip, zstd")), INFLATE_UNKNOWN);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            test_what_was_packed_comes_out_at_every_size_up_to_the_maximum),
        cmocka_unit_test(test_one_byte_over_the_maximum_is_too_large),
        cmocka_unit_test(test_a_bomb_stops_at_the_maximum),
        cmocka_unit_test(test_several_members_or_frames_are_one_body),
        cmocka_unit_test(test_every_cut_and_what_follows_the_end_is_bad),
        cmocka_unit_test(test_a_zstd_window_over_8_mib_is_refused),
        cmocka_unit_test(test_encodings_go_by_name_in_any_case),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}

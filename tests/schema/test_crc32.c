/* Known answers, then zlib as the plainer model at every length and alignment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "schema/crc32.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static void
known_texts_have_their_known_sums(void **state)
{
    (void)state;
    assert_int_equal(crc32_of("", 0), 0);
    assert_int_equal(crc32_of(NULL, 0), 0);
    assert_int_equal(crc32_of("123456789", 9), 0xCBF43926);
}

static void
every_length_and_alignment_agrees_with_zlib(void **state)
{
    enum { SIZE = 70000 };
    uint8_t *bytes = malloc(SIZE);
    uint64_t seed = 20261121;

    (void)state;
    assert_non_null(bytes);
    for (size_t i = 0; i < SIZE; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
        bytes[i] = (uint8_t)(seed >> 56);
    }
    for (size_t n = 0; n < 1200; n++)
        for (size_t from = 0; from < 17; from++)
            assert_int_equal(crc32_of(bytes + from, n),
                             crc32_z(0, bytes + from, n));
    for (size_t n = SIZE - 300; n < SIZE; n++)
        assert_int_equal(crc32_of(bytes, n), crc32_z(0, bytes, n));
    memset(bytes, 0, SIZE);
    assert_int_equal(crc32_of(bytes, SIZE), crc32_z(0, bytes, SIZE));
    free(bytes);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_texts_have_their_known_sums),
        cmocka_unit_test(every_length_and_alignment_agrees_with_zlib),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

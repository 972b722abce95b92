/* Against published vectors: Kafka's own tests, FIPS 180, XXH3 of the empty input. */
#include "common/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void
murmur2_is_the_one_of_kafkas_java_client(void **state)
{
    static const struct {
        const char *key;
        int32_t want;
    } cases[] = {
        {"21", -973932308},
        {"foobar", -790332482},
        {"a-little-bit-long-string", -985981536},
        {"a-little-bit-longer-string", -1486304829},
        {"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971},
        {"abc", 479470107},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t n = strlen(cases[i].key);
        uint32_t want = (uint32_t)cases[i].want;

        assert_int_equal(hash_murmur2(cases[i].key, n), want);
        assert_int_equal(hash_partition(cases[i].key, n, 16),
                         (want & 0x7fffffff) % 16);
        assert_int_equal(hash_partition(cases[i].key, n, 1), 0);
    }
}

static void
a_partition_is_always_below_their_number(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 10000; i++)
        assert_true(hash_partition(&i, sizeof(i), 1 + i % 256) < 1 + i % 256);
}

static void
hash64_is_xxh3(void **state)
{
    (void)state;
    assert_int_equal(hash64("", 0, 0), UINT64_C(0x2D06800538D394C2));
    assert_int_not_equal(hash64("abc", 3, 0), hash64("abc", 3, 1));
    assert_int_not_equal(hash64("abc", 3, 0), hash64("abd", 3, 0));
}

static void
sha256_in_any_pieces_is_the_same(void **state)
{
    static const char text[] =
        "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    uint8_t digest[HASH_SHA256_SIZE];
    char hex[HASH_SHA256_HEX_SIZE];

    (void)state;
    hash_sha256_of("", 0, digest);
    hash_hex(digest, sizeof(digest), hex);
    assert_string_equal(
        hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    for (size_t cut = 0; cut < sizeof(text); cut++) {
        struct hash_sha256 *sha = hash_sha256_new();

        hash_sha256_add(sha, text, cut);
        hash_sha256_add(sha, text + cut, sizeof(text) - 1 - cut);
        hash_sha256_end(sha, digest);
        hash_hex(digest, sizeof(digest), hex);
        assert_string_equal(
            hex,
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    }
}

static void
random_numbers_differ(void **state)
{
    (void)state;
    assert_int_not_equal(hash_random_u64(), hash_random_u64());
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(murmur2_is_the_one_of_kafkas_java_client),
        cmocka_unit_test(a_partition_is_always_below_their_number),
        cmocka_unit_test(hash64_is_xxh3),
        cmocka_unit_test(sha256_in_any_pieces_is_the_same),
        cmocka_unit_test(random_numbers_differ),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

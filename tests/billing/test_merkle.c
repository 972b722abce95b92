/* The root against a recursive model that keeps every id. */
#include "billing/merkle.h"

#include "tests/billing/billing_fixture.h"

struct id {
    uint8_t bytes[4 + 16];
};

static void
model_leaf(const struct id *ids, size_t n, uint8_t out[HASH_SHA256_SIZE])
{
    uint8_t *text = malloc(1 + n * sizeof(*ids));

    CHECK(text != NULL);
    text[0] = 0;
    memcpy(text + 1, ids, n * sizeof(*ids));
    hash_sha256_of(text, 1 + n * sizeof(*ids), out);
    free(text);
}

/* RFC 6962: split at the largest power of two of leaves that is less than their number. */
static void
model_root(const struct id *ids, size_t n, uint8_t out[HASH_SHA256_SIZE])
{
    size_t leaves = (n + MERKLE_BLOCK - 1) / MERKLE_BLOCK, left = 1;
    uint8_t both[1 + 2 * HASH_SHA256_SIZE] = {1};

    if (leaves <= 1) {
        if (n == 0)
            hash_sha256_of("", 0, out);
        else
            model_leaf(ids, n, out);
        return;
    }
    while (left * 2 < leaves)
        left *= 2;
    model_root(ids, left * MERKLE_BLOCK, both + 1);
    model_root(ids + left * MERKLE_BLOCK, n - left * MERKLE_BLOCK,
               both + 1 + HASH_SHA256_SIZE);
    hash_sha256_of(both, sizeof(both), out);
}

static void
root_of(const struct id *ids, size_t n, uint8_t out[HASH_SHA256_SIZE])
{
    struct merkle merkle;

    merkle_begin(&merkle);
    for (size_t i = 0; i < n; i++) {
        const uint8_t *a = ids[i].bytes;
        merkle_add(&merkle,
                   (uint32_t)a[0] << 24 | (uint32_t)a[1] << 16 |
                       (uint32_t)a[2] << 8 | a[3],
                   a + 4);
    }
    CHECK(merkle.ids == n);
    merkle_end(&merkle, out);
}

static struct id *
ids_random(size_t n, uint64_t seed)
{
    struct id *ids = calloc(n + 1, sizeof(*ids));

    CHECK(ids != NULL);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < sizeof(ids[i].bytes); k++)
            ids[i].bytes[k] = (uint8_t)random_next(&seed);
    return ids;
}

static void
test_the_root_is_the_models(void)
{
    static const size_t counts[] = {
        0,    1,    2,     4095,     4096,         4097,
        8192, 8193, 12288, 5 * 4096, 7 * 4096 + 1, 8 * 4096};
    uint64_t seed = 20261121;
    size_t n_max = 12 * MERKLE_BLOCK;
    struct id *ids = ids_random(n_max, 1);

    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]) + 60; i++) {
        uint8_t model[HASH_SHA256_SIZE], root[HASH_SHA256_SIZE];
        size_t n = i < sizeof(counts) / sizeof(counts[0])
                       ? counts[i]
                       : (size_t)random_below(&seed, n_max);
        model_root(ids, n, model);
        root_of(ids, n, root);
        CHECK(memcmp(model, root, sizeof(root)) == 0);
    }
    free(ids);
}

static void
test_the_empty_root_is_the_digest_of_nothing(void)
{
    uint8_t root[HASH_SHA256_SIZE];
    char hex[HASH_SHA256_HEX_SIZE];

    root_of(NULL, 0, root);
    hash_hex(root, sizeof(root), hex);
    CHECK(strcmp(hex, "e3b0c44298fc1c149afbf4c8996fb924"
                      "27ae41e4649b934ca495991b7852b855") == 0);
}

static void
test_any_bit_and_any_order_changes_the_root(void)
{
    size_t n = 2 * MERKLE_BLOCK + 5;
    struct id *ids = ids_random(n, 2);
    uint8_t was[HASH_SHA256_SIZE], is[HASH_SHA256_SIZE];
    uint64_t seed = 3;

    root_of(ids, n, was);
    for (int i = 0; i < 20; i++) {
        uint8_t *byte = &ids[random_below(&seed, n)].bytes[random_below(&seed, 20)];
        uint8_t bit = (uint8_t)(1u << random_below(&seed, 8));
        *byte ^= bit;
        root_of(ids, n, is);
        CHECK(memcmp(was, is, sizeof(is)) != 0);
        *byte ^= bit;
    }
    struct id first = ids[0];
    ids[0] = ids[1];
    ids[1] = first;
    root_of(ids, n, is);
    CHECK(memcmp(was, is, sizeof(is)) != 0);
    free(ids);
}

int
main(void)
{
    test_the_root_is_the_models();
    test_the_empty_root_is_the_digest_of_nothing();
    test_any_bit_and_any_order_changes_the_root();
    return 0;
}

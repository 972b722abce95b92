#include "common/hash.h"

#include <assert.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <sys/random.h>

/* Inlined here: short keys, the usual case, then cost no call inside the call. */
#define XXH_INLINE_ALL
#include <xxhash.h>

/* The running SHA-256 is libcrypto's context by another name. */

static EVP_MD_CTX *
context_of(struct hash_sha256 *sha)
{
    return (EVP_MD_CTX *)(void *)sha;
}

uint64_t
hash64(const void *data, size_t size, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, size, seed);
}

uint32_t
hash_murmur2(const void *data, size_t size)
{
    const uint32_t m = 0x5bd1e995, seed = 0x9747b28c;
    const uint8_t *p = data;
    uint32_t h = seed ^ (uint32_t)size;

    for (; size >= 4; p += 4, size -= 4) {
        uint32_t k = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
                     (uint32_t)p[3] << 24;

        k *= m;
        k ^= k >> 24;
        k *= m;
        h = (h * m) ^ k;
    }
    if (size >= 3)
        h ^= (uint32_t)p[2] << 16;
    if (size >= 2)
        h ^= (uint32_t)p[1] << 8;
    if (size >= 1)
        h = (h ^ p[0]) * m;
    h ^= h >> 13;
    h *= m;
    h ^= h >> 15;
    return h;
}

uint32_t
hash_partition(const void *key, size_t size, uint32_t partitions)
{
    assert(partitions > 0);
    return (hash_murmur2(key, size) & 0x7fffffff) % partitions;
}

/* libcrypto fails here only without memory or without its own provider. */
static void
must(int ok)
{
    if (ok != 1)
        abort();
}

void
hash_sha256_of(const void *data, size_t size, uint8_t out[HASH_SHA256_SIZE])
{
    must(EVP_Digest(data, size, out, NULL, EVP_sha256(), NULL));
}

struct hash_sha256 *
hash_sha256_new(void)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();

    must(context != NULL);
    must(EVP_DigestInit_ex(context, EVP_sha256(), NULL));
    return (struct hash_sha256 *)(void *)context;
}

void
hash_sha256_add(struct hash_sha256 *sha, const void *data, size_t size)
{
    must(EVP_DigestUpdate(context_of(sha), data, size));
}

void
hash_sha256_end(struct hash_sha256 *sha, uint8_t out[HASH_SHA256_SIZE])
{
    must(EVP_DigestFinal_ex(context_of(sha), out, NULL));
    EVP_MD_CTX_free(context_of(sha));
}

void
hash_hex(const void *data, size_t size, char *text)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *p = data;

    for (size_t i = 0; i < size; i++) {
        text[2 * i] = digits[p[i] >> 4];
        text[2 * i + 1] = digits[p[i] & 15];
    }
    text[2 * size] = '\0';
}

void
hash_random_bytes(void *out, size_t size)
{
    uint8_t *p = out;

    while (size > 0) {
        ssize_t n = getrandom(p, size, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            abort();
        p += n;
        size -= (size_t)n;
    }
}

uint64_t
hash_random_u64(void)
{
    uint64_t n;

    hash_random_bytes(&n, sizeof(n));
    return n;
}

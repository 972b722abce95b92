#include "schema/crc32.h"

#include <assert.h>
#include <zlib.h>

#if defined(__x86_64__)
#include <immintrin.h>

enum { LANE = 16, STEP = 4 * LANE, FOLD_MIN = 2 * STEP };

#define FOLDING __attribute__((target("pclmul,sse4.1")))

FOLDING static inline __m128i
load(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

/* lane * x^(the distance of by) + next */
FOLDING static inline __m128i
fold(__m128i lane, __m128i by, __m128i next)
{
    __m128i low = _mm_clmulepi64_si128(lane, by, 0x00);
    __m128i high = _mm_clmulepi64_si128(lane, by, 0x11);

    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

/* 128 bits to the CRC. */
FOLDING static uint32_t
reduce(__m128i lane)
{
    const __m128i fold_16 = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
    const __m128i fold_8 = _mm_set_epi64x(0, 0x0163cd6124);
    const __m128i barrett = _mm_set_epi64x(0x01f7011641, 0x01db710641);
    const __m128i low_32 = _mm_set_epi32(0, 0, 0, -1);
    __m128i t;

    t = _mm_clmulepi64_si128(lane, fold_16, 0x10);
    lane = _mm_xor_si128(_mm_srli_si128(lane, 8), t);
    t = _mm_srli_si128(lane, 4);
    lane = _mm_clmulepi64_si128(_mm_and_si128(lane, low_32), fold_8, 0x00);
    lane = _mm_xor_si128(lane, t);
    t = _mm_clmulepi64_si128(_mm_and_si128(lane, low_32), barrett, 0x10);
    t = _mm_clmulepi64_si128(_mm_and_si128(t, low_32), barrett, 0x00);
    lane = _mm_xor_si128(lane, t);
    return (uint32_t)_mm_extract_epi32(lane, 1);
}

/* n is a multiple of LANE, at least STEP; crc is inverted, as between zlib's calls it
 * is not. */
FOLDING static uint32_t
crc_fold(uint32_t crc, const uint8_t *p, size_t n)
{
    const __m128i fold_64 = _mm_set_epi64x(0x01c6e41596, 0x0154442bd4);
    const __m128i fold_16 = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
    __m128i a = _mm_xor_si128(load(p), _mm_cvtsi32_si128((int)crc));
    __m128i b = load(p + LANE), c = load(p + 2 * LANE), d = load(p + 3 * LANE);

    assert(n >= STEP && n % LANE == 0);
    for (p += STEP, n -= STEP; n >= STEP; p += STEP, n -= STEP) {
        a = fold(a, fold_64, load(p));
        b = fold(b, fold_64, load(p + LANE));
        c = fold(c, fold_64, load(p + 2 * LANE));
        d = fold(d, fold_64, load(p + 3 * LANE));
    }
    a = fold(a, fold_16, b);
    a = fold(a, fold_16, c);
    a = fold(a, fold_16, d);
    for (; n >= LANE; p += LANE, n -= LANE)
        a = fold(a, fold_16, load(p));
    return reduce(a);
}
#endif

uint32_t
crc32_of(const void *data, size_t n)
{
    const uint8_t *p = data;

#if defined(__x86_64__)
    if (n >= FOLD_MIN && __builtin_cpu_supports("pclmul") &&
        __builtin_cpu_supports("sse4.1")) {
        size_t whole = n - n % LANE;
        uint32_t crc = ~crc_fold(UINT32_MAX, p, whole);

        return (uint32_t)crc32_z(crc, p + whole, n - whole);
    }
#endif
    return n == 0 ? 0 : (uint32_t)crc32_z(0, p, n);
}

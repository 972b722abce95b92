/* tests/bench/load_text.h - the clicks that load.c sends: drawn and rendered once, then
 * patched in place.
 *
 * Memory   zipf_sums is the caller's to free, NULL without memory.
 * Threads  Pure.
 */
#ifndef TESTS_BENCH_LOAD_TEXT_H
#define TESTS_BENCH_LOAD_TEXT_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t
random_next(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);

    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

static double *
zipf_sums(int n)
{
    double *sums = malloc((size_t)n * sizeof(*sums)), total = 0;

    if (sums == NULL)
        return NULL;
    for (int i = 0; i < n; i++)
        sums[i] = total += 1.0 / (i + 1);
    return sums;
}

static int
zipf_draw(const double *sums, int n, uint64_t *state)
{
    double u =
        (double)(random_next(state) >> 11) / 9007199254740992.0 * sums[n - 1];
    int low = 0, high = n - 1;

    while (low < high) {
        int mid = (low + high) / 2;

        if (sums[mid] < u)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* Bytes written; 0 if it does not fit. */
static size_t
click_render(char *p, size_t size, int campaign, uint64_t *state)
{
    uint64_t r = random_next(state);
    int n = snprintf(
        p, size,
        "{\"event_id\":\"00000000-0000-4000-8000-000000000000\","
        "\"timestamp\":\"2026-01-01T00:00:00.000Z\",\"campaign_id\":\"c%05d\","
        "\"ad_id\":\"ad-%d-%u\",\"publisher_id\":\"pub-%u\",\"user_id\":\"u-"
        "00000000-a91c\",\"ip_address\":\"10.100.100.100\",\"user_agent\":"
        "\"Mozilla/5.0 (Windows NT "
        "10.0; "
        "Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 "
        "Safari/537.36\",\"referer\":\"https://news.example/"
        "%u\",\"device_type\":\"%s\","
        "\"os\":\"Windows\",\"country\":\"%s\",\"city\":\"Springfield\","
        "\"cost_per_click\":\"0.25\"}",
        campaign, campaign, (unsigned)(r & 7), (unsigned)(r >> 3 & 255),
        (unsigned)(r >> 42 & 1023), r >> 60 & 1 ? "mobile" : "desktop",
        r >> 61 & 1 ? "DE" : "US");

    return n < 0 || (size_t)n >= size ? 0 : (size_t)n;
}

/* 8 hex digits of v: spreads nibbles over bytes, then adds '0' or 'a' - 10. */
static void
hex8(char *to, uint32_t v)
{
    uint64_t x = v;

    x = (x << 16 | x) & UINT64_C(0x0000FFFF0000FFFF);
    x = (x << 8 | x) & UINT64_C(0x00FF00FF00FF00FF);
    x = (x << 4 | x) & UINT64_C(0x0F0F0F0F0F0F0F0F);
    uint64_t over =
        ((x + UINT64_C(0x0606060606060606)) >> 4) & UINT64_C(0x0101010101010101);
    x += UINT64_C(0x3030303030303030) + over * 39;
    x = __builtin_bswap64(x);
    memcpy(to, &x, 8);
}

static void
digits2(char *to, uint32_t v) /* 0..99 */
{
    to[0] = (char)('0' + v / 10);
    to[1] = (char)('0' + v % 10);
}

/* The user's number as 8 hex digits, and an address made from it: 10.1xx.1xx.1xx. */
static void
user_patch(char *to, uint32_t user)
{
    enum { OCTET_1 = 29 }; /* behind 00000000-a91c","ip_address":" */
    uint32_t mixed = user * 2654435761U;

    hex8(to, user);
    for (int i = 0; i < 3; i++) {
        digits2(to + OCTET_1 + 4 + 4 * i, mixed % 100);
        mixed /= 100;
    }
    digits2(to + OCTET_1, 10 + user % 90);
}

#endif

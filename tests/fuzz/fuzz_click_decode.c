/* Any bytes decode within their length or not at all; what decodes is encoded to a record
 * that decodes to the same. */
#include <string.h>

#include "schema/click.h"
#include "tests/fuzz/fuzz.h"

/* Text without zero bytes: 8 of incarnation, then partition, seq and so on as letters. */
const char *const fuzz_seeds[] = {"incarnat\x02\x04\x06\x08\x0a\x08"
                                  "abcd\x02"
                                  "0123456789abcdef\x82\x01"
                                  "\x04"
                                  "c1\x04"
                                  "a1\x04"
                                  "p1\x04"
                                  "u1\x08"
                                  "\xcb\x01\x71\x07\x16"
                                  "Mozilla/5.0\x02"
                                  "r\x02\x02"
                                  "o\x04"
                                  "DE\x02"
                                  "x\x90\xa1\x0f\x02\x04"
                                  "g1\x02\x04"
                                  "c1\x02\x04"
                                  "v1\x02\x18\x02\x18\x02\x04"
                                  "i1\x02\x82\x01\x02\x06"
                                  "EUR\x01\x02\x02"
                                  "t\x02\x02"
                                  "g\x02\x10"
                                  "prefetch",
                                  NULL};

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t record[CLICK_BODY_MAX + 64], again[CLICK_BODY_MAX + 64];

    for (unsigned version = 1; version <= CLICK_VERSION; version++) {
        struct click click, same;
        size_t used = 0, n, m;

        if (click_decode(&click, data, size, version, &used, NULL) != ERR_OK)
            continue;
        FUZZ_CHECK(used <= size);
        n = click_encode_prefix(&click, record);
        n += click_encode_body(&click, record + n);
        FUZZ_CHECK(click_decode(&same, record, n, CLICK_VERSION, &used, NULL) ==
                   ERR_OK);
        FUZZ_CHECK(used == n);
        m = click_encode_prefix(&same, again);
        m += click_encode_body(&same, again + m);
        FUZZ_CHECK(m == n && memcmp(again, record, n) == 0);
    }
    return 0;
}

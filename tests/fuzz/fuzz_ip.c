/* We read what inet_pton reads, as the same address, and our text reads back. */
#include <arpa/inet.h>
#include <string.h>

#include "schema/text.h"
#include "tests/fuzz/fuzz.h"

const char *const fuzz_seeds[] = {"0.0.0.0",
                                  "255.255.255.255",
                                  "203.0.113.77",
                                  "::",
                                  "::1",
                                  "2001:db8::a",
                                  "1:2:3:4:5:6:7:8",
                                  "::ffff:1.2.3.4",
                                  "1::",
                                  "64:ff9b::192.0.2.33",
                                  "2001:0DB8:0000:0001:0000:0000:0000:ABCD",
                                  "1:2:3:4:5:6:1.2.3.4",
                                  NULL};

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str s = {(const char *)data, (uint32_t)size};
    uint8_t ours[IP_SIZE_MAX], theirs[16] = {0}, again[IP_SIZE_MAX];
    char text[IP_TEXT_SIZE] = {0}, shown[IP_TEXT_SIZE];
    bool good, v6 = size > 0 && memchr(data, ':', size) != NULL;
    uint32_t n = 0, m = 0;

    good = ip_parse(s, ours, &n);
    if (size >= sizeof(text) || (size > 0 && memchr(data, 0, size) != NULL)) {
        FUZZ_CHECK(!good);
        return 0;
    }
    memcpy(text, data, size);
    FUZZ_CHECK(good == (inet_pton(v6 ? AF_INET6 : AF_INET, text, theirs) == 1));
    if (!good)
        return 0;
    FUZZ_CHECK(n == 4 || n == 16);
    FUZZ_CHECK(memcmp(ours, v6 && n == 4 ? theirs + 12 : theirs, n) == 0);
    ip_format((struct str){(const char *)ours, n}, shown);
    FUZZ_CHECK(ip_parse(str_of(shown), again, &m));
    FUZZ_CHECK(n == m && memcmp(ours, again, n) == 0);
    return 0;
}

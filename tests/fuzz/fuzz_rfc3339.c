/* A time that is read, written and read again is the same; so is a date. */
#include <string.h>

#include "common/clock.h"
#include "schema/text.h"
#include "tests/fuzz/fuzz.h"

const char *const fuzz_seeds[] = {"2026-11-21T09:08:07.123Z",
                                  "2026-11-21t09:08:07z",
                                  "2016-12-31T23:59:60Z",
                                  "2017-01-01T00:59:60.5+01:00",
                                  "2026-11-20T23:38:07.123-09:30",
                                  "1970-01-01T00:00:00.0019999999999999Z",
                                  "2261-12-31T23:59:59.999Z",
                                  "2024-02-29",
                                  "1969-12-31",
                                  NULL};

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str s = {(const char *)data, (uint32_t)size};
    char text[CLOCK_TEXT_SIZE], date[12];
    int64_t ms, again_ms;
    int32_t day, again_day;

    if (rfc3339_parse(s, &ms)) {
        FUZZ_CHECK(ms >= 0 && ms < INT64_C(9214646400000));
        FUZZ_CHECK(rfc3339_parse(str_of(clock_format_ms(ms, text)), &again_ms));
        FUZZ_CHECK(ms == again_ms);
        FUZZ_CHECK(date_parse((struct str){text, 10}, &day));
        FUZZ_CHECK(day == clock_floor(ms, CLOCK_DAY_MS) / CLOCK_DAY_MS);
    }
    if (date_parse(s, &day)) {
        FUZZ_CHECK(memcmp(date_format(day, date), data, size) == 0 && size == 10);
        FUZZ_CHECK(date_parse(str_of(date), &again_day) && day == again_day);
    }
    return 0;
}

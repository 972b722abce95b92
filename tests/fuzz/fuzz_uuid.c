/* What is read is 36 characters, and reads back from its own text. */
#include <ctype.h>
#include <string.h>

#include "schema/text.h"
#include "tests/fuzz/fuzz.h"

const char *const fuzz_seeds[] = {"0d9e3f6a-52c1-4b7e-9a40-6c1f2e8b7d55",
                                  "FFFFFFFF-ffff-FFFF-ffff-FFFFFFFFFFFF",
                                  "00000000-0000-0000-0000-000000000000",
                                  "00000000-0000-0000-0000-000000000001", NULL};

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t id[16], same[16];
    char text[UUID_TEXT_SIZE];

    if (!uuid_parse((struct str){(const char *)data, (uint32_t)size}, id))
        return 0;
    FUZZ_CHECK(size == UUID_TEXT_SIZE - 1);
    uuid_format(id, text);
    for (size_t i = 0; i < size; i++)
        FUZZ_CHECK(tolower(data[i]) == text[i]);
    FUZZ_CHECK(uuid_parse(str_of(text), same));
    FUZZ_CHECK(memcmp(id, same, sizeof(id)) == 0);
    return 0;
}

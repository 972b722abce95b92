/* Whatever money_parse takes, money_format writes back to the same number. */
#include <stdlib.h>

#include "common/money.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct str text = {(const char *)data, (uint32_t)size};
    int64_t micros = -1, back = -1;
    struct why why;
    char shown[MONEY_TEXT_SIZE];

    if (money_parse(text, &micros, &why) != ERR_OK) {
        if (micros != -1)
            abort();
        return 0;
    }
    (void)money_format(micros, MONEY_PLACES_MAX, shown);
    if (micros < 0 || money_parse(str_of(shown), &back, &why) != ERR_OK ||
        back != micros)
        abort();
    return 0;
}

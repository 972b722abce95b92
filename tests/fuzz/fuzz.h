/* tests/fuzz/fuzz.h - a fuzz target: one property, shown on any bytes.
 *
 * With clang and -DCLICKLEDGER_FUZZ=ON the targets link with libFuzzer; else
 * standalone.c runs each over its seeds and mutations of them from a fixed seed.
 */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* libFuzzer's name for the entry. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Inputs to begin with, ended by NULL. A target may leave them out. */
extern const char *const fuzz_seeds[] __attribute__((weak));

/* Not assert(): it must stay in every build, and abort for the fuzzer. */
#define FUZZ_CHECK(condition)                                          \
    do {                                                               \
        if (!(condition)) {                                            \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, \
                    #condition);                                       \
            abort();                                                   \
        }                                                              \
    } while (0)

#endif

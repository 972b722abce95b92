/* Runs a fuzz target without a fuzzer: its seeds, all their prefixes, then mutations from
 * a fixed seed. fuzz_X [ROUNDS [SEED]]; a FILE instead of ROUNDS runs that one input. */
#include <string.h>

#include "tests/fuzz/fuzz.h"

enum { ROUNDS = 200000, INPUT_MAX = 4096 };

static uint64_t
draw(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

/* In memory of its own length, so that a sanitizer sees one byte read too far. */
static void
run(const uint8_t *data, size_t n)
{
    uint8_t *copy = malloc(n == 0 ? 1 : n);

    if (copy == NULL)
        abort();
    memcpy(copy, data, n);
    (void)LLVMFuzzerTestOneInput(copy, n);
    free(copy);
}

static size_t
run_seeds(const char *const *seeds)
{
    size_t count = 0;

    for (; seeds[count] != NULL; count++)
        for (size_t n = 0; n <= strlen(seeds[count]); n++)
            run((const uint8_t *)seeds[count], n);
    return count;
}

static size_t
mutate(uint8_t *data, size_t n, const char *other, uint64_t *state)
{
    static const char telling[] =
        "0123456789abcdefxZT:.-+\"\\{}[],/ \n\xff\xc2\x80";
    size_t at = n == 0 ? 0 : draw(state) % n, m = strlen(other);
    size_t from = m == 0 ? 0 : draw(state) % m;
    size_t piece = m == 0 ? 0 : draw(state) % (m - from + 1);

    switch (draw(state) % 6) {
    case 0: /* flip */
        if (n > 0)
            data[at] ^= (uint8_t)(1U << draw(state) % 8);
        return n;
    case 1: /* replace */
        if (n > 0)
            data[at] = (uint8_t)telling[draw(state) % (sizeof(telling) - 1)];
        return n;
    case 2: /* drop */
        if (n > 0)
            memmove(data + at, data + at + 1, n - at - 1);
        return n > 0 ? n - 1 : 0;
    case 3: /* insert */
        if (n == INPUT_MAX)
            return n;
        memmove(data + at + 1, data + at, n - at);
        data[at] = (uint8_t)telling[draw(state) % (sizeof(telling) - 1)];
        return n + 1;
    case 4: /* a piece of another seed over it */
        if (piece > INPUT_MAX - at)
            piece = INPUT_MAX - at;
        memcpy(data + at, other + from, piece);
        return at + piece > n ? at + piece : n;
    default: /* any byte */
        if (n > 0)
            data[at] = (uint8_t)draw(state);
        return n;
    }
}

static void
run_mutations(const char *const *seeds, size_t count, unsigned long rounds,
              uint64_t state)
{
    static uint8_t data[INPUT_MAX];

    for (unsigned long i = 0; i < rounds; i++) {
        const char *seed = seeds[draw(&state) % count];
        size_t n = strlen(seed);

        memcpy(data, seed, n);
        for (uint64_t times = 1 + draw(&state) % 6; times > 0; times--)
            n = mutate(data, n, seeds[draw(&state) % count], &state);
        run(data, n);
    }
}

static int
run_file(const char *path)
{
    static uint8_t data[1 << 20];
    FILE *file = fopen(path, "rb");

    if (file == NULL)
        return 1;
    run(data, fread(data, 1, sizeof(data), file));
    return fclose(file) == 0 ? 0 : 1;
}

int
main(int argc, char **argv)
{
    static const char *const plain[] = {"0.25", "key: value\n", "{\"key\":[1]}",
                                        NULL};
    const char *const *seeds = fuzz_seeds != NULL ? fuzz_seeds : plain;
    uint64_t state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    char *end = NULL;
    unsigned long rounds = argc > 1 ? strtoul(argv[1], &end, 10) : ROUNDS;
    size_t count;

    if (end != NULL && *end != '\0')
        return run_file(argv[1]);
    count = run_seeds(seeds);
    run_mutations(seeds, count, rounds, state);
    printf("%zu seeds, %lu mutations\n", count, rounds);
    return 0;
}

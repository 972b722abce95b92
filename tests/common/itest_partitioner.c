/* hash_partition against the partitioner of Kafka's own Java client: 10,000 keys, as
 * campaigns are named and as they might be, over several counts of partitions. Skipped
 * without Java or the client's jars (deploy/kafka fetch). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/file.h"
#include "common/hash.h"

enum {
    KEYS_N = 10000,
    KEY_MAX = 64,
    OUT_MAX = 1 << 22,
    SKIPPED = 77,
    COUNTS_N = 6,
    WORDS_MAX = 16
};

static const uint32_t counts[COUNTS_N] = {1, 2, 7, 16, 100, 256};
static char folder[] = "/tmp/clickledger-partitions-XXXXXX";
static char jars[512]; /* LIBS with the wildcard */

struct key {
    uint8_t bytes[KEY_MAX];
    uint32_t n;
};

static uint64_t
random_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* One character of UTF-8 of 1 to 4 bytes; false if there is no room. */
static bool
letter_add(struct key *key, uint64_t draw, uint32_t n_max)
{
    static const char *const letters[] = {"a", "Z", "7",  "-",  "é", "ß",
                                          "ж", "क", "日", "한", "🎯", "𝛑"};
    const char *letter = letters[draw % (sizeof(letters) / sizeof(letters[0]))];
    size_t n = strlen(letter);

    if (key->n + n > n_max)
        return false;
    memcpy(key->bytes + key->n, letter, n);
    key->n += (uint32_t)n;
    return true;
}

static struct key
key_of(const char *text)
{
    struct key key = {.n = (uint32_t)strlen(text)};

    assert_true(key.n > 0 && key.n <= KEY_MAX);
    memcpy(key.bytes, text, key.n);
    return key;
}

/* The i-th key: names as they are given, then UTF-8, then any bytes, of every length. */
static struct key
key_make(uint32_t i, uint64_t *state)
{
    uint32_t a = (uint32_t)random_next(state), b = (uint32_t)random_next(state);
    struct key key = {.n = 0};
    char text[KEY_MAX + 1];

    switch (i % 8) {
    case 0:
        (void)snprintf(text, sizeof(text), "c%05u", i / 8);
        return key_of(text);
    case 1:
        (void)snprintf(text, sizeof(text), "campaign-%u-%u", a % 100000, b % 10);
        return key_of(text);
    case 2:
        (void)snprintf(text, sizeof(text), "cmp_2026q4_DE_%08x_%u", a, b % 100);
        return key_of(text);
    case 3:
        (void)snprintf(text, sizeof(text), "0190163d-8694-739b-%08x%08x", a, b);
        return key_of(text);
    case 4:
    case 5:
        while (letter_add(&key, random_next(state), 1 + i / 8 % KEY_MAX))
            continue;
        return key;
    default:
        for (key.n = 0; key.n < i / 8 % (KEY_MAX + 1); key.n++)
            key.bytes[key.n] = (uint8_t)random_next(state);
        return key;
    }
}

/* Runs a program with a file (NULL: nothing) as its input; its output as text. */
static int
run(const char *const argv[], size_t n, const char *input, struct buf *out)
{
    char chunk[4096], *words[WORDS_MAX] = {NULL};
    posix_spawn_file_actions_t actions;
    int pipe_fds[2], status = -1;
    extern char **environ;
    pid_t pid;

    assert_true(n < WORDS_MAX);
    memcpy(words, argv, n * sizeof(words[0])); /* posix_spawn's are not const */
    assert_int_equal(pipe(pipe_fds), 0);
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    (void)posix_spawn_file_actions_addopen(
        &actions, STDIN_FILENO, input == NULL ? "/dev/null" : input, O_RDONLY, 0);
    (void)posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], STDOUT_FILENO);
    (void)posix_spawn_file_actions_addclose(&actions, pipe_fds[0]);
    int code = posix_spawnp(&pid, words[0], &actions, NULL, words, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)close(pipe_fds[1]);
    for (ssize_t got = 1; code == 0 && got > 0;) {
        got = read(pipe_fds[0], chunk, sizeof(chunk));
        if (got > 0)
            buf_add(out, chunk, (size_t)got);
    }
    (void)close(pipe_fds[0]);
    if (code == 0)
        assert_int_equal(waitpid(pid, &status, 0), pid);
    buf_add(out, "", 1);
    assert_false(out->failed);
    return status;
}

/* False: no Java, or no jars. */
static bool
jars_find(void)
{
    const char *const version[] = {"java", "--version"};
    const char *const fetch[] = {"deploy/kafka", "fetch"};
    struct buf out = BUF_MAX(OUT_MAX);
    bool found = run(version, 2, NULL, &out) == 0;

    buf_reset(&out);
    found = found && run(fetch, 2, NULL, &out) == 0;
    if (found) {
        char *text = (char *)out.p;
        text[strcspn(text, "\n")] = '\0';
        int n = snprintf(jars, sizeof(jars), "%s/*", text);
        found = n > 2 && (size_t)n < sizeof(jars);
    }
    buf_free(&out);
    return found;
}

static void
ours_are_the_java_clients_partitions(void **state)
{
    static struct key keys[KEYS_N];
    char path[64], words[COUNTS_N][12];
    const char *java[5 + COUNTS_N] = {"java", "-XX:+UseSerialGC", "-cp", jars,
                                      "tests/common/Partitions.java"};
    struct buf lines = BUF_MAX(OUT_MAX), out = BUF_MAX(OUT_MAX);
    uint64_t seed = 20261121;

    (void)state;
    for (uint32_t i = 0; i < KEYS_N; i++) {
        keys[i] = key_make(i, &seed);
        for (uint32_t j = 0; j < keys[i].n; j++)
            buf_printf(&lines, "%02x", keys[i].bytes[j]);
        buf_add_text(&lines, "\n");
    }
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof(path), "%s/keys", folder);
    assert_int_equal(file_write(path, lines.p, lines.n, NULL), ERR_OK);
    for (int i = 0; i < COUNTS_N; i++) {
        (void)snprintf(words[i], sizeof(words[i]), "%u", counts[i]);
        java[5 + i] = words[i];
    }
    assert_int_equal(run(java, 5 + COUNTS_N, path, &out), 0);
    char *at = (char *)out.p;
    for (uint32_t i = 0; i < KEYS_N; i++)
        for (int c = 0; c < COUNTS_N; c++) {
            char *end = at;
            unsigned long theirs = strtoul(at, &end, 10);
            uint32_t ours = hash_partition(keys[i].bytes, keys[i].n, counts[c]);
            if (end == at || theirs != ours)
                fail_msg("key %u (%u bytes) of %u partitions: %u, Java %lu", i,
                         keys[i].n, counts[c], ours, theirs);
            at = end;
        }
    assert_int_equal(strspn(at, " \n"), strlen(at));
    buf_free(&lines);
    buf_free(&out);
    (void)unlink(path);
    (void)rmdir(folder);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ours_are_the_java_clients_partitions),
    };

    if (!jars_find()) {
        printf("skipped: no Java, or the Kafka client's jars cannot be fetched\n");
        return SKIPPED;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}

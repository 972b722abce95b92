/* tests/common/own_kafka.h - brokers of a test's own, by deploy/kafka in a directory of
 * their own, for tests that kill and stop them. They end with the program, however it
 * ends but by a signal.
 *
 *   CLICKLEDGER_TEST_KAFKA      not set: the test is skipped, there may be no jars
 *   CLICKLEDGER_TEST_KAFKA_DIR  one broker that runs already (deploy/kafka start DIR)
 *
 * Memory   One set of brokers a program.
 * Errors   A message, and the end of the test.
 * Threads  own_kafka_signal, own_kafka_again: any.
 */
#ifndef TESTS_COMMON_OWN_KAFKA_H
#define TESTS_COMMON_OWN_KAFKA_H

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/hash.h"

/* Ports below those that the system hands out; controllers are 100 above. */
enum { OWN_KAFKA_PORT = 23000, OWN_KAFKA_PORTS = 600, OWN_KAFKA_TRIES = 8 };

static struct {
    char dir[256], brokers[256];
    bool runs, given;
    pid_t owner; /* its children leave them alone */
} own_kafka;

/* The program's status. */
static inline int
own_kafka_run(const char *file, char *const argv[])
{
    pid_t pid = fork();
    int status = -1;

    if (pid == 0) {
        (void)execvp(file, argv);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        fprintf(stderr, "%s: cannot be run\n", file);
        exit(1);
    }
    return status;
}

static inline int
own_kafka_script(const char *verb, const char *a, const char *b, const char *c,
                 const char *d)
{
    const char *const words[] = {"kafka", verb, own_kafka.dir, a, b, c, d, NULL};
    char *argv[8] = {NULL};

    for (int i = 0; words[i] != NULL; i++)
        argv[i] = (char *)(uintptr_t)words[i];
    return own_kafka_run("deploy/kafka", argv);
}

static inline void
own_kafka_stop(void)
{
    char *argv[] = {(char[]){"rm"}, (char[]){"-rf"}, own_kafka.dir, NULL};

    if (!own_kafka.runs || own_kafka.given || own_kafka.owner != getpid())
        return;
    own_kafka.runs = false;
    (void)own_kafka_script("stop", NULL, NULL, NULL, NULL);
    (void)own_kafka_run("rm", argv);
}

/* What kafka.env says. */
static inline void
own_kafka_env(void)
{
    char path[300], line[512], *from, *to;
    FILE *file;

    (void)snprintf(path, sizeof(path), "%s/kafka.env", own_kafka.dir);
    file = fopen(path, "r");
    if (file == NULL || fgets(line, sizeof(line), file) == NULL ||
        (from = strchr(line, '"')) == NULL ||
        (to = strchr(from + 1, '"')) == NULL) {
        fprintf(stderr, "%s: says no brokers\n", path);
        exit(1);
    }
    (void)fclose(file);
    (void)snprintf(own_kafka.brokers, sizeof(own_kafka.brokers), "%.*s",
                   (int)(to - from - 1), from + 1);
}

/* Starts brokers 1 to count; own_kafka.brokers says where. */
static inline void
own_kafka_start(int count)
{
    const char *any = getenv("CLICKLEDGER_TEST_KAFKA");
    const char *given = getenv("CLICKLEDGER_TEST_KAFKA_DIR");
    char number[16], port[16];

    if (any == NULL || any[0] == '\0') {
        printf("skipped: no broker (CLICKLEDGER_TEST_KAFKA is not set)\n");
        exit(77);
    }
    own_kafka.given = given != NULL && count == 1;
    (void)snprintf(own_kafka.dir, sizeof(own_kafka.dir), "%s",
                   own_kafka.given ? given : "/tmp/clickledger-kafka-XXXXXX");
    if (!own_kafka.given && mkdtemp(own_kafka.dir) == NULL)
        exit(1);
    own_kafka.owner = getpid();
    own_kafka.runs = true;
    (void)atexit(own_kafka_stop);
    (void)snprintf(number, sizeof(number), "%d", count);
    for (int i = 0; !own_kafka.given; i++) { /* a port may be taken */
        (void)snprintf(port, sizeof(port), "%d",
                       OWN_KAFKA_PORT +
                           (int)(hash_random_u64() % OWN_KAFKA_PORTS) * 10);
        if (own_kafka_script("start", "--brokers", number, "--port", port) == 0)
            break;
        if (i == OWN_KAFKA_TRIES)
            exit(1);
    }
    own_kafka_env();
}

/* SIGKILL is a crash, SIGSTOP and SIGCONT a broker that answers nothing for a while. */
static inline void
own_kafka_signal(int number, int signal)
{
    char path[300], text[32] = "";
    FILE *file;
    long pid = 0;

    (void)snprintf(path, sizeof(path), "%s/kafka/%d/pid", own_kafka.dir, number);
    file = fopen(path, "r");
    if (file != NULL && fgets(text, sizeof(text), file) != NULL)
        pid = strtol(text, NULL, 10);
    if (file != NULL)
        (void)fclose(file);
    if (pid <= 1 || kill((pid_t)pid, signal) != 0) {
        fprintf(stderr, "%s: no broker for signal %d\n", path, signal);
        exit(1);
    }
}

/* Starts a killed one, and waits until it answers. */
static inline void
own_kafka_again(int number)
{
    char text[16];
    int status;

    (void)snprintf(text, sizeof(text), "%d", number);
    status = own_kafka_script("broker", text, NULL, NULL, NULL);
    if (status != 0) {
        fprintf(stderr, "deploy/kafka broker %s %s: status %d\n", own_kafka.dir,
                text, status);
        exit(1);
    }
}

#endif

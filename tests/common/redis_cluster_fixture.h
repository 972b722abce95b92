/* tests/common/redis_cluster_fixture.h - a Redis Cluster of our own, by deploy/redis-cluster.
 *
 * Environment  none; skipped (77) where redis-server is missing.
 * Memory       A guardian process stops the nodes and removes the directory when the pipe to
 *              it closes, so also after a crash.
 */
#ifndef TESTS_COMMON_REDIS_CLUSTER_FIXTURE_H
#define TESTS_COMMON_REDIS_CLUSTER_FIXTURE_H

#include <arpa/inet.h>
#include <assert.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/redis_impl.h"

enum { RIG_NODES = 6, RIG_PORTS = 16 };

struct rig {
    char dir[64], address[256];
    int port, guard;
    pid_t guardian;
    struct redis *node[RIG_NODES + 1]; /* each alone, from 1 */
};

static inline void
rig_exec(const char *const argv[])
{
    (void)execvp(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

static inline int
rig_run(const char *const argv[])
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0)
        rig_exec(argv);
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}

/* RIG_PORTS free ones in a row. */
static inline int
rig_ports(void)
{
    for (int try = 0; try < 100; try++) {
        int base = 20000 + (int)((getpid() * 131 + try * 997) % 12000), i = 0;

        for (bool free = true; free && i < RIG_PORTS; i += free) {
            struct sockaddr_in to = {.sin_family = AF_INET,
                                     .sin_port = htons((uint16_t)(base + i)),
                                     .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
            int fd = socket(AF_INET, SOCK_STREAM, 0);

            free = bind(fd, (struct sockaddr *)&to, sizeof(to)) == 0;
            (void)close(fd);
        }
        if (i == RIG_PORTS)
            return base;
    }
    return 0;
}

static inline void
rig_guard(struct rig *rig)
{
    int pipes[2];

    if (pipe(pipes) != 0)
        abort();
    rig->guardian = fork();
    if (rig->guardian == 0) {
        char byte;

        (void)close(pipes[1]);
        (void)setpgid(0,
                      0); /* a signal to the terminal's group is for the others */
        while (read(pipes[0], &byte, 1) > 0)
            ;
        (void)rig_run(
            (const char *[]){"deploy/redis-cluster", "stop", rig->dir, NULL});
        rig_exec((const char *[]){"rm", "-rf", rig->dir, NULL});
    }
    (void)close(pipes[0]);
    (void)fcntl(pipes[1], F_SETFD, FD_CLOEXEC);
    rig->guard = pipes[1];
}

static inline bool
rig_start(struct rig *rig)
{
    char port[8], one[32];
    int n;

    (void)snprintf(rig->dir, sizeof(rig->dir), "/tmp/clickledger-cluster-XXXXXX");
    rig->port = rig_ports();
    if (rig->port == 0 || mkdtemp(rig->dir) == NULL)
        return false;
    rig_guard(rig);
    (void)snprintf(port, sizeof(port), "%d", rig->port);
    if (rig_run((const char *[]){"deploy/redis-cluster", "start", rig->dir,
                                 "--port", port, NULL}) != 0)
        return false;
    n = snprintf(rig->address, sizeof(rig->address), "cluster:");
    for (int i = 1; i <= RIG_NODES; i++) {
        (void)snprintf(one, sizeof(one), "127.0.0.1:%d", rig->port + i - 1);
        if (redis_open(&rig->node[i], one, 2000000, NULL) != ERR_OK)
            return false;
        n += snprintf(rig->address + n, sizeof(rig->address) - (size_t)n, "%s%s",
                      i == 1 ? "" : ",", one);
    }
    return true;
}

static inline void
rig_stop(struct rig *rig)
{
    for (int i = 1; i <= RIG_NODES; i++)
        redis_close(&rig->node[i]);
    (void)close(rig->guard);
    (void)waitpid(rig->guardian, NULL, 0);
}

static inline bool
rig_node(const struct rig *rig, const char *verb, int node)
{
    char number[8];

    (void)snprintf(number, sizeof(number), "%d", node);
    return rig_run((const char *[]){"deploy/redis-cluster", verb, rig->dir, number,
                                    NULL}) == 0;
}

static inline pid_t
rig_pid(const struct rig *rig, int node)
{
    char path[128], text[16] = "";
    FILE *file;

    (void)snprintf(path, sizeof(path), "%s/redis-cluster/%d/pid", rig->dir, node);
    file = fopen(path, "r");
    if (file == NULL || fgets(text, sizeof(text), file) == NULL)
        abort();
    (void)fclose(file);
    return (pid_t)strtol(text, NULL, 10);
}

/* The node that is the master of a slot, as node `asked` sees it; 0: none. */
static inline int
rig_master(struct rig *rig, int asked, unsigned slot)
{
    const struct str words[] = {STR("CLUSTER"), STR("SLOTS")};
    struct redis_reply *slots = NULL;
    int found = 0;

    if (redis_command(rig->node[asked], words, 2, &slots, NULL) != ERR_OK)
        return 0;
    for (size_t i = 0; i < slots->count; i++) {
        const struct redis_reply *range = slots->items[i];

        if (slot >= (unsigned)range->items[0]->integer &&
            slot <= (unsigned)range->items[1]->integer)
            found = (int)range->items[2]->items[1]->integer - rig->port + 1;
    }
    redis_reply_free(&slots);
    return found;
}

enum { PARTITIONS = 16, TIMEOUT_US = 500000, PATIENCE_US = 30000000 };

/* Of the program's tests. */
static struct rig rig;
static struct redis *redis;

static inline int
open_all(void **state)
{
    (void)state;
    if (!rig_start(&rig))
        return 1;
    return redis_open(&redis, rig.address, TIMEOUT_US, NULL) != ERR_OK;
}

static inline int
close_all(void **state)
{
    (void)state;
    redis_close(&redis);
    rig_stop(&rig);
    return 0;
}

#define WORDS(...)                       \
    ((const struct str[]){__VA_ARGS__}), \
        sizeof((const struct str[]){__VA_ARGS__}) / sizeof(struct str)

static inline enum err
ask(struct redis *to, const struct str *words, size_t n, struct redis_reply **out)
{
    struct why why = {""};
    enum err err = redis_command(to, words, n, out, &why);

    if (err != ERR_OK)
        print_message("%.*s: %s\n", (int)words[0].n, words[0].p, why.text);
    return err;
}

static inline struct str
key_of(char out[32], unsigned partition, const char *rest)
{
    return (struct str){out,
                        (uint32_t)snprintf(out, 32, "{p%u}:%s", partition, rest)};
}

static inline struct str
number_of(char out[24], long long n)
{
    return (struct str){out, (uint32_t)snprintf(out, 24, "%lld", n)};
}

static inline int
master_of(unsigned partition)
{
    char text[32];
    unsigned slot = redis_slot(key_of(text, partition, ""));

    for (int i = 1; i <= RIG_NODES; i++) {
        int master = rig_master(&rig, i, slot);
        if (master != 0)
            return master;
    }
    return 0;
}

/* --- slots that move --- */

static inline struct str
id_of(int node, char out[64])
{
    struct redis_reply *reply;
    struct str id = {out, 0};

    assert_int_equal(
        ask(rig.node[node], WORDS(STR("CLUSTER"), STR("MYID")), &reply), ERR_OK);
    memcpy(out, reply->text.p, reply->text.n);
    id.n = reply->text.n;
    redis_reply_free(&reply);
    return id;
}

struct move {
    int from, to;
    char slot_text[24], from_text[64], to_text[64], port[24];
    struct str slot, from_id, to_id;
};

static inline void
setslot(int node, const struct move *m, const char *how, struct str id)
{
    assert_int_equal(
        ask(rig.node[node],
            WORDS(STR("CLUSTER"), STR("SETSLOT"), m->slot, str_of(how), id), NULL),
        ERR_OK);
}

/* m points into itself. */
static inline void
move_begin(struct move *m, unsigned partition)
{
    char text[32];

    *m = (struct move){.from = master_of(partition)};

    for (unsigned p = 0; p < PARTITIONS && m->to == 0; p++)
        if (master_of(p) != m->from)
            m->to = master_of(p);
    m->slot = number_of(m->slot_text, redis_slot(key_of(text, partition, "")));
    m->from_id = id_of(m->from, m->from_text);
    m->to_id = id_of(m->to, m->to_text);
    (void)number_of(m->port, rig.port + m->to - 1);
    setslot(m->to, m, "IMPORTING", m->from_id);
    setslot(m->from, m, "MIGRATING", m->to_id);
}

static inline void
move_key(const struct move *m, struct str key)
{
    assert_int_equal(ask(rig.node[m->from],
                         WORDS(STR("MIGRATE"), STR("127.0.0.1"), str_of(m->port),
                               key, STR("0"), STR("2000")),
                         NULL),
                     ERR_OK);
}

static inline void
move_rest(const struct move *m)
{
    struct redis_reply *keys;

    assert_int_equal(
        ask(rig.node[m->from],
            WORDS(STR("CLUSTER"), STR("GETKEYSINSLOT"), m->slot, STR("1000")),
            &keys),
        ERR_OK);
    for (size_t i = 0; i < keys->count; i++)
        move_key(m, keys->items[i]->text);
    redis_reply_free(&keys);
    setslot(m->to, m, "NODE", m->to_id);
    setslot(m->from, m, "NODE", m->to_id);
}

static inline int
rig_main(const struct CMUnitTest *tests, size_t n)
{
    const char *there[] = {"redis-server", "--version", NULL};

    (void)signal(SIGPIPE, SIG_IGN);
    if (rig_run(there) != 0) {
        (void)puts("skipped: no redis-server");
        return 77;
    }
    return _cmocka_run_group_tests("cluster", tests, n, open_all, close_all);
}

#endif

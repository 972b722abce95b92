/* What a stats query takes while Redis holds a million live counters.
 *
 * 100 campaigns of 24 hours by default, each hour with 420 counters: totals, 200 ads, 200
 * publishers, 14 countries, 5 devices. A dashboard in this process answers over
 * HTTP with keep-alive: 24 hours by country, another campaign each time.
 *
 *   bench_stats REDIS_ADDRESS [CAMPAIGNS [CLIENTS [SECONDS [VALUES]]]]
 *
 * VALUES is how many ads and how many publishers a row has (200): 2,000 with 10 campaigns
 * is a million counters in large rows.
 *
 * Prints one JSON object: p50, p99 and the longest in ms, queries a second, CPU a query of
 * this process (its clients included). The counters are of a random generation, and are
 * removed at the end.
 *
 * Threads  One a client, besides the dashboard's own.
 */
#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/hash.h"
#include "common/redis.h"
#include "dashboard/dashboard.h"
#include "fraud/verdict.h"
#include "schema/rediskeys.h"

#define KEY "ck_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

enum {
    HOURS = 24,
    USERS = 300, /* of a row */
    FIELDS_MAX = 8192,
    CAMPAIGNS_MAX = 100000,
    CLIENTS_MAX = 64,
    QUERIES_MAX = 1 << 20, /* of one client */
    ANSWER_MAX = 1 << 20,
    PARTITIONS = 16,
};

struct client {
    pthread_t thread;
    unsigned number, campaigns;
    uint16_t port;
    int64_t until_us;
    uint32_t *took_us;
    unsigned n;
};

static void
need(enum err err, const char *what, const struct why *why)
{
    if (err == ERR_OK)
        return;
    (void)fprintf(stderr, "bench_stats: %s: %s\n", what, why->text);
    exit(1);
}

static struct str
campaign_name(char out[16], unsigned i)
{
    return (struct str){out, (uint32_t)snprintf(out, 16, "c%05u", i)};
}

static uint32_t
partition_of(struct str campaign)
{
    return hash_partition(campaign.p, campaign.n, PARTITIONS);
}

/* --- the counters --- */

struct row {
    char texts[FIELDS_MAX][48];
    struct str words[2 + 2 * FIELDS_MAX];
    size_t n;
    unsigned texts_n;
};

static void
field_put(struct row *row, const char *prefix, unsigned number, const char *value)
{
    char *text = row->texts[row->texts_n++];
    int n = snprintf(text, sizeof(row->texts[0]), "%s%04u", prefix, number);

    row->words[row->n++] = (struct str){text, (uint32_t)n};
    row->words[row->n++] = str_of(value);
}

static void
row_fill(struct row *row, struct str key, unsigned values)
{
    static const char *const few[] = {
        "n:DE", "n:FR",      "n:IN",     "n:US",     "n:JP",   "n:BR", "n:GB",
        "n:ES", "n:IT",      "n:PL",     "n:NL",     "n:SE",   "n:CA", "n:AU",
        "d:tv", "d:desktop", "d:mobile", "d:tablet", "d:other"};

    row->words[0] = STR("HSET");
    row->words[1] = key;
    row->words[2] = STR("t");
    row->words[3] = STR("123456,30864000000,12,3456,789,10");
    row->n = 4;
    row->texts_n = 0;
    for (unsigned i = 0; i < values; i++)
        field_put(row, "a:ad-", i, "617,154250000,1,17");
    for (unsigned i = 0; i < values; i++)
        field_put(row, "p:publisher-", i, "617,154250000,1,17");
    for (size_t i = 0; i < sizeof(few) / sizeof(few[0]); i++) {
        row->words[row->n++] = str_of(few[i]);
        row->words[row->n++] = STR("8818,2204500000,1,246");
    }
}

/* PFADD of as many users. */
static void
users_queue(struct redis *redis, struct str key)
{
    char texts[USERS][16];
    struct str words[2 + USERS] = {STR("PFADD"), key};
    struct why why = {{0}};

    for (unsigned i = 0; i < USERS; i++)
        words[2 + i] =
            (struct str){texts[i], (uint32_t)snprintf(texts[i], sizeof(texts[i]),
                                                      "u%u", i * 2654435761U)};
    need(redis_queue(redis, words, 2 + USERS, &why), "PFADD", &why);
}

static uint64_t
rows_write(struct redis *redis, unsigned campaigns, unsigned values,
           uint32_t generation, int64_t now_ms)
{
    static struct row row;
    struct why why = {{0}};
    uint64_t counters = 0;

    for (unsigned c = 0; c < campaigns; c++) {
        char name[16], key[REDISKEY_MAX];
        struct str id = campaign_name(name, c);
        for (int h = 0; h < HOURS; h++) {
            int64_t start_ms =
                clock_floor(now_ms, CLOCK_HOUR_MS) - h * CLOCK_HOUR_MS;
            row_fill(
                &row,
                (struct str){key, rediskey_row(key, partition_of(id), generation,
                                               WINDOW_1H, id, start_ms)},
                values);
            need(redis_queue(redis, row.words, row.n, &why), "HSET", &why);
            counters += (row.n - 2) / 2;
            users_queue(
                redis,
                (struct str){key, rediskey_users(key, partition_of(id), generation,
                                                 WINDOW_1H, id, start_ms)});
        }
        for (int h = 0; h < 2 * HOURS; h++)
            need(redis_reply_next(redis, NULL, &why), "HSET", &why);
    }
    return counters;
}

static void
rows_remove(struct redis *redis, unsigned campaigns, uint32_t generation,
            int64_t now_ms)
{
    struct why why = {{0}};

    for (unsigned c = 0; c < campaigns; c++) {
        char name[16], key[REDISKEY_MAX], users[REDISKEY_MAX];
        struct str id = campaign_name(name, c);
        for (int h = 0; h < HOURS; h++) {
            int64_t start_ms =
                clock_floor(now_ms, CLOCK_HOUR_MS) - h * CLOCK_HOUR_MS;
            const struct str words[] = {
                STR("UNLINK"),
                {key, rediskey_row(key, partition_of(id), generation, WINDOW_1H, id,
                                   start_ms)},
                {users, rediskey_users(users, partition_of(id), generation,
                                       WINDOW_1H, id, start_ms)}};
            need(redis_command(redis, words, 3, NULL, &why), "UNLINK", &why);
        }
    }
}

/* Points every partition at our generation, or (0) at none. */
static void
owners_write(struct redis *redis, uint32_t generation)
{
    struct why why = {{0}};
    char number[16], updated[24];

    (void)snprintf(number, sizeof(number), "%" PRIu32, generation);
    (void)snprintf(updated, sizeof(updated), "%" PRId64, clock_now_us());
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        char key[REDISKEY_MAX];
        struct str words[] = {STR("HSET"),       {key, rediskey_owner(key, p)},
                              STR("generation"), str_of(number),
                              STR("dirty"),      STR("0"),
                              STR("log"),        STR("1"),
                              STR("updated_us"), str_of(updated)};
        if (generation == 0)
            words[0] = STR("DEL");
        need(redis_command(redis, words,
                           generation == 0 ? 2 : sizeof(words) / sizeof(words[0]),
                           NULL, &why),
             "owner", &why);
    }
}

/* --- the queries --- */

static int
client_connect(uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0) {
        perror("bench_stats: connect");
        exit(1);
    }
    return fd;
}

/* Reads one answer to its end; anything but 200 ends the program. */
static void
answer_read(int fd, char *text)
{
    size_t n = 0, want = ANSWER_MAX;

    while (n < want) {
        ssize_t got = recv(fd, text + n, ANSWER_MAX - 1 - n, 0);
        if (got <= 0)
            break;
        n += (size_t)got;
        text[n] = '\0';
        const char *end = strstr(text, "\r\n\r\n");
        const char *length = strstr(text, "Content-Length: ");
        if (want == ANSWER_MAX && end != NULL && length != NULL)
            want = (size_t)(end - text) + 4 + strtoul(length + 16, NULL, 10);
    }
    if (n != want || strncmp(text, "HTTP/1.1 200", 12) != 0 ||
        strstr(text, "\"source\":\"redis\"") == NULL ||
        strstr(text, "unavailable") != NULL) {
        (void)fprintf(stderr, "bench_stats: %.600s\n", text);
        exit(1);
    }
}

static void *
client_run(void *ctx)
{
    struct client *client = ctx;
    int fd = client_connect(client->port);
    char *text = malloc(ANSWER_MAX);

    while (text != NULL && client->n < QUERIES_MAX &&
           clock_mono_us() < client->until_us) {
        char request[256];
        unsigned c = (client->number * 7919 + client->n * 31) % client->campaigns;
        int n = snprintf(request, sizeof(request),
                         "GET /v1/campaigns/c%05u/stats?group_by=country HTTP/1.1"
                         "\r\nHost: bench\r\nAuthorization: Bearer " KEY "\r\n\r\n",
                         c);
        int64_t began_us = clock_mono_us();
        if (send(fd, request, (size_t)n, MSG_NOSIGNAL) != n)
            break;
        answer_read(fd, text);
        client->took_us[client->n++] = (uint32_t)(clock_mono_us() - began_us);
    }
    free(text);
    (void)close(fd);
    return NULL;
}

static int
less_first(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;

    return (a > b) - (a < b);
}

static int64_t
cpu_us(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void
measure(uint16_t port, unsigned campaigns, unsigned clients_n, double seconds,
        uint64_t counters)
{
    static struct client clients[CLIENTS_MAX];
    uint32_t *all = malloc((size_t)clients_n * QUERIES_MAX * sizeof(*all));
    int64_t began_us = clock_mono_us(), cpu_began_us = cpu_us();
    size_t n = 0;

    if (all == NULL)
        exit(1);
    for (unsigned i = 0; i < clients_n; i++) {
        clients[i] =
            (struct client){.number = i,
                            .campaigns = campaigns,
                            .port = port,
                            .until_us = began_us + (int64_t)(seconds * 1e6),
                            .took_us = all + (size_t)i * QUERIES_MAX};
        if (pthread_create(&clients[i].thread, NULL, client_run, &clients[i]) != 0)
            exit(1);
    }
    for (unsigned i = 0; i < clients_n; i++) {
        (void)pthread_join(clients[i].thread, NULL);
        memmove(all + n, clients[i].took_us, clients[i].n * sizeof(*all));
        n += clients[i].n;
    }
    double took_s = (double)(clock_mono_us() - began_us) / 1e6;
    double cpu = (double)(cpu_us() - cpu_began_us);
    if (n == 0)
        exit(1);
    qsort(all, n, sizeof(*all), less_first);
    printf("{\"counters\":%" PRIu64 ",\"clients\":%u,\"queries\":%zu,"
           "\"queries_per_s\":%.0f,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f,"
           "\"cpu_us_per_query\":%.0f}\n",
           counters, clients_n, n, (double)n / took_s, all[n / 2] / 1e3,
           all[n * 99 / 100] / 1e3, all[n - 1] / 1e3, cpu / (double)n);
    free(all);
}

static struct master_source *
master_make(unsigned campaigns)
{
    struct master_campaign *c = calloc(campaigns, sizeof(*c));
    char(*names)[16] = calloc(campaigns, sizeof(*names));
    struct master_key key = {.id = 1, .account = 1, .scopes = MASTER_READ};
    struct master_source *source = NULL;

    hash_sha256_of(KEY, sizeof(KEY) - 1, key.sha256);
    for (unsigned i = 0; c != NULL && names != NULL && i < campaigns; i++)
        c[i] = (struct master_campaign){.id = campaign_name(names[i], i),
                                        .account = 1,
                                        .advertiser = STR("a"),
                                        .currency = STR("EUR")};
    if (c != NULL && names != NULL)
        source = master_fixed(c, campaigns, &key, 1);
    free(c);
    free(names);
    return source;
}

static unsigned
argument(int argc, char **argv, int i, unsigned fallback, unsigned max)
{
    unsigned long value = argc > i ? strtoul(argv[i], NULL, 10) : fallback;

    if (value < 1 || value > max) {
        (void)fprintf(stderr, "bench_stats: %s is not 1 to %u\n", argv[i], max);
        exit(2);
    }
    return (unsigned)value;
}

int
main(int argc, char **argv)
{
    unsigned campaigns = argument(argc, argv, 2, 100, CAMPAIGNS_MAX);
    unsigned clients = argument(argc, argv, 3, 4, CLIENTS_MAX);
    unsigned seconds = argument(argc, argv, 4, 5, 3600);
    unsigned values = argument(argc, argv, 5, 200, FIELDS_MAX / 2 - 64);
    uint32_t generation = (uint32_t)(hash_random_u64() >> 33) | 1;
    int64_t now_ms = clock_now_us() / 1000;
    struct dashboard *dashboard = NULL;
    struct redis *redis = NULL;
    struct config config;
    struct why why = {{0}};
    int none = 1;

    if (argc < 2) {
        (void)fprintf(stderr,
                      "usage: bench_stats REDIS_ADDRESS [CAMPAIGNS [CLIENTS "
                      "[SECONDS [VALUES]]]]\n");
        return 2;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    need(config_load(&config, NULL, &none, argv, &why), "config", &why);
    free(config.redis_address);
    config.redis_address = strdup(argv[1]);
    config.dashboard_port = 0;
    config.clicklog_partitions = PARTITIONS;
    need(redis_open(&redis, argv[1], 10 * CLOCK_SECOND_US, &why), "redis", &why);
    uint64_t counters = rows_write(redis, campaigns, values, generation, now_ms);
    owners_write(redis, generation);
    struct master_source *master = master_make(campaigns);
    need(dashboard_start(&dashboard, &config, master, &why), "dashboard", &why);
    measure(dashboard_port(dashboard), campaigns, 1, seconds, counters);
    measure(dashboard_port(dashboard), campaigns, clients, seconds, counters);
    dashboard_stop(&dashboard);
    owners_write(redis, 0);
    rows_remove(redis, campaigns, generation, now_ms);
    redis_close(&redis);
    master_close(&master);
    config_free(&config);
    return 0;
}

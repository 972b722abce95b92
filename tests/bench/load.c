/* tests/bench/load.c - a cheap load generator: POST /v1/clicks on many connections.
 *
 *   load --port P --key K [--path /v1/clicks] [--connections 100] [--batch 100]
 *        [--seconds 5] [--rate CLICKS_PER_S] [--campaigns 1000] [--users 4000000]
 *        [--requests N] [--seed 1] [--ids FILE]
 *
 * Whole requests are rendered before the start; what changes from one sending to the next
 * (event id, timestamp, user and address) is patched in place, because a generator on
 * the same cores as the server must not be what is measured. Users are drawn evenly from
 * --users of them, each with an address of its own, so that nearly all clicks are
 * billable and the server's tables are as full as they would be. With --rate a request is
 * sent when it is due and its latency counts from then (so a stall is not hidden); without,
 * each connection sends again as soon as it has its answer.
 *
 * Prints one JSON object: clicks_per_s, requests_per_s, p50/p99/max in ms, errors by
 * kind, CPU a click. --ids writes the ids of clicks answered 202, one a line.
 *
 * Memory   requests * batch * about 450 bytes, and 4 bytes a latency.
 * Threads  One.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/load_text.h"

enum {
    CONNECTIONS_MAX = 20000,
    ANSWER_MAX = 4096,
    BUCKETS =
        200000, /* of latency: 10 us each, up to 2 s; the last holds the rest */
    BUCKET_US = 10,
    EVENTS = 256,
};

struct options {
    int port, connections, batch, campaigns, users, requests;
    double seconds, rate;
    uint64_t seed;
    const char *key, *path, *ids;
};

struct request {
    char *text;
    size_t n;
    uint32_t *id_at, *time_at; /* places of the batch's ids and times in text */
    uint32_t *user_at;         /* of "user_id":"u-, the address follows */
    uint64_t serial; /* number that its ids are made from; of this sending */
};

struct conn {
    int fd;
    struct request *request; /* being sent or answered; NULL: idle */
    size_t sent;
    int64_t since_us;
    char answer[ANSWER_MAX];
    size_t answer_n;
    struct conn *next; /* idle list */
};

struct load {
    struct options opt;
    int epoll_fd;
    struct conn *conns, *idle;
    struct request *spare; /* stack of request templates */
    struct request **free_requests;
    int free_n;
    uint64_t serial, random;
    char time_text[25];
    int64_t time_ms;
    FILE *ids;
    uint64_t answers, accepted, rejected, status[600], broken, sent_requests;
    uint32_t *buckets;
    int64_t latency_us_max;
};

static int64_t
now_us(clockid_t id)
{
    struct timespec t;

    (void)clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void
die(const char *what)
{
    (void)fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* --- rendering --- */

static void
request_render(struct load *load, struct request *request, const double *sums)
{
    const struct options *opt = &load->opt;
    size_t cap = 1024 + (size_t)opt->batch * 640, n = 0;
    char *body = malloc(cap), head[512];
    size_t batch = (size_t)opt->batch;

    request->id_at = calloc(batch, sizeof(uint32_t));
    request->time_at = calloc(batch, sizeof(uint32_t));
    request->user_at = calloc(batch, sizeof(uint32_t));
    if (body == NULL || request->id_at == NULL || request->time_at == NULL ||
        request->user_at == NULL)
        die("memory");
    if (opt->batch > 1)
        body[n++] = '[';
    for (size_t i = 0; i < batch; i++) {
        int campaign = zipf_draw(sums, opt->campaigns, &load->random);

        if (i > 0)
            body[n++] = ',';
        request->id_at[i] = (uint32_t)n + 13;   /* behind {"event_id":" */
        request->time_at[i] = (uint32_t)n + 64; /* behind ","timestamp":" */
        size_t made = click_render(body + n, cap - n, campaign, &load->random);

        if (made == 0)
            die("rendering");
        const char *user = strstr(body + n, "\"u-");
        request->user_at[i] = (uint32_t)(user - body) + 3;
        n += made;
    }
    if (opt->batch > 1)
        body[n++] = ']';
    int head_n =
        snprintf(head, sizeof(head),
                 "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                 "Authorization: Bearer %s\r\nContent-Type: application/json\r\n"
                 "Content-Length: %zu\r\n\r\n",
                 opt->path, opt->key, n);
    request->n = (size_t)head_n + n;
    request->text = malloc(request->n);
    if (request->text == NULL)
        die("memory");
    memcpy(request->text, head, (size_t)head_n);
    memcpy(request->text + head_n, body, n);
    free(body);
    for (size_t i = 0; i < batch; i++) {
        request->id_at[i] += (uint32_t)head_n;
        request->time_at[i] += (uint32_t)head_n;
        request->user_at[i] += (uint32_t)head_n;
    }
}

/* --- patching --- */

static void
time_render(struct load *load)
{
    int64_t ms = now_us(CLOCK_REALTIME) / 1000;
    time_t s = (time_t)(ms / 1000);
    struct tm tm;

    if (ms - load->time_ms < 5)
        return;
    load->time_ms = ms;
    (void)gmtime_r(&s, &tm);
    char text[64];
    int n = snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ",
                     tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
                     tm.tm_min, tm.tm_sec, (int)(ms % 1000));
    if (n != 24)
        die("time");
    memcpy(load->time_text, text, 24);
}

/* An id is the run's random word and a serial number: never twice in a run, and never in
 * another with another seed. */
static void
request_patch(struct load *load, struct request *request)
{
    uint32_t run = (uint32_t)(load->opt.seed * 2654435761U >> 8);

    request->serial = load->serial;
    for (int i = 0; i < load->opt.batch; i++) {
        char *id = request->text + request->id_at[i];
        uint64_t serial = load->serial++;

        hex8(id, run);
        hex8(id + 24,
             (uint32_t)(serial >> 16)); /* the last twelve digits are 48 bits */
        hex8(id + 28, (uint32_t)serial);
        memcpy(request->text + request->time_at[i], load->time_text, 24);
        user_patch(
            request->text + request->user_at[i],
            (uint32_t)(random_next(&load->random) % (uint32_t)load->opt.users));
    }
}

static void
ids_write(struct load *load, const struct request *request)
{
    if (load->ids == NULL)
        return;
    for (int i = 0; i < load->opt.batch; i++) {
        (void)fwrite(request->text + request->id_at[i], 1, 36, load->ids);
        (void)fputc('\n', load->ids);
    }
}

/* --- connections --- */

static void
conn_open(struct load *load, struct conn *conn)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)load->opt.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};
    int on = 1;

    conn->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (conn->fd < 0 || connect(conn->fd, (struct sockaddr *)&to, sizeof(to)) != 0)
        die("connect");
    (void)setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)fcntl(conn->fd, F_SETFL, O_NONBLOCK);
    if (epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, conn->fd, &event) != 0)
        die("epoll");
    conn->answer_n = 0;
}

static void
request_give(struct load *load, struct conn *conn)
{
    load->free_requests[load->free_n++] = conn->request;
    conn->request = NULL;
    conn->next = load->idle;
    load->idle = conn;
}

static void
conn_broken(struct load *load, struct conn *conn)
{
    load->broken++;
    (void)close(conn->fd);
    if (conn->request != NULL)
        request_give(load, conn);
    conn_open(load, conn);
}

static void
conn_write(struct load *load, struct conn *conn)
{
    struct request *request = conn->request;
    ssize_t n = send(conn->fd, request->text + conn->sent, request->n - conn->sent,
                     MSG_NOSIGNAL);
    bool had_rest = conn->sent > 0;

    if (n < 0 && errno != EAGAIN) {
        conn_broken(load, conn);
        return;
    }
    conn->sent += n > 0 ? (size_t)n : 0;
    if (conn->sent < request->n || had_rest) {
        struct epoll_event event = {
            .events = conn->sent < request->n ? EPOLLIN | EPOLLOUT : EPOLLIN,
            .data.ptr = conn};

        (void)epoll_ctl(load->epoll_fd, EPOLL_CTL_MOD, conn->fd, &event);
    }
}

static void
request_start(struct load *load, int64_t due_us)
{
    struct conn *conn = load->idle;

    load->idle = conn->next;
    conn->request = load->free_requests[--load->free_n];
    conn->sent = 0;
    conn->since_us = due_us;
    request_patch(load, conn->request);
    load->sent_requests++;
    conn_write(load, conn);
}

static void
latency_add(struct load *load, int64_t us)
{
    int64_t bucket = us / BUCKET_US;

    load->buckets[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    if (us > load->latency_us_max)
        load->latency_us_max = us;
}

static uint64_t
number_after(const char *text, const char *name)
{
    const char *at = strstr(text, name);

    return at == NULL ? 0 : strtoull(at + strlen(name), NULL, 10);
}

/* Bytes of a whole answer at the begin of conn->answer, or 0. */
static size_t
answer_size(const struct conn *conn)
{
    const char *end = strstr(conn->answer, "\r\n\r\n");

    if (end == NULL)
        return 0;
    size_t head = (size_t)(end - conn->answer) + 4;
    size_t total = head + number_after(conn->answer, "Content-Length: ");
    return total <= conn->answer_n || total >= ANSWER_MAX ? total : 0;
}

static void
answer_take(struct load *load, struct conn *conn)
{
    unsigned status = (unsigned)strtoul(conn->answer + 9, NULL, 10);

    load->answers++;
    load->status[status < 600 ? status : 0]++;
    if (status == 202) {
        load->accepted += number_after(conn->answer, "\"accepted\":");
        load->rejected += number_after(conn->answer, "\"rejected\":");
        ids_write(load, conn->request);
    }
    latency_add(load, now_us(CLOCK_MONOTONIC) - conn->since_us);
    conn->answer_n = 0;
    request_give(load, conn);
}

static void
conn_read(struct load *load, struct conn *conn)
{
    ssize_t n = recv(conn->fd, conn->answer + conn->answer_n,
                     ANSWER_MAX - 1 - conn->answer_n, 0);

    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0 || conn->request == NULL) {
        conn_broken(load, conn);
        return;
    }
    conn->answer_n += (size_t)n;
    conn->answer[conn->answer_n] = 0;
    if (answer_size(conn) > conn->answer_n)
        conn_broken(load, conn); /* larger than we care to read */
    else if (answer_size(conn) > 0)
        answer_take(load, conn);
}

static void
run(struct load *load)
{
    int64_t begin = now_us(CLOCK_MONOTONIC), now = begin;
    int64_t end = begin + (int64_t)(load->opt.seconds * 1e6);
    double per_us = load->opt.rate / load->opt.batch / 1e6;
    struct epoll_event events[EVENTS];

    while (now < end || load->free_n < load->opt.requests) {
        uint64_t due = per_us > 0 ? (uint64_t)((double)(now - begin) * per_us) + 1
                                  : UINT64_MAX;

        time_render(load);
        while (now < end && load->sent_requests < due && load->idle != NULL &&
               load->free_n > 0)
            request_start(
                load, per_us > 0
                          ? begin + (int64_t)((double)load->sent_requests / per_us)
                          : now_us(CLOCK_MONOTONIC));
        int n = epoll_wait(load->epoll_fd, events, EVENTS, 1);

        for (int i = 0; i < n; i++) {
            struct conn *conn = events[i].data.ptr;

            if (events[i].events & EPOLLOUT && conn->request != NULL)
                conn_write(load, conn);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                conn_read(load, conn);
        }
        now = now_us(CLOCK_MONOTONIC);
        if (now > end + 5000000)
            break; /* whoever has no answer by now gets none */
    }
}

/* --- the report --- */

static double
percentile_ms(const struct load *load, double share)
{
    uint64_t want = (uint64_t)((double)load->answers * share), seen = 0;

    for (int i = 0; i < BUCKETS; i++) {
        seen += load->buckets[i];
        if (seen > want)
            return (i + 1) * BUCKET_US / 1000.0;
    }
    return (double)load->latency_us_max / 1000.0;
}

static void
report(const struct load *load, double seconds)
{
    struct rusage usage;
    uint64_t clicks = load->accepted + load->rejected;

    (void)getrusage(RUSAGE_SELF, &usage);
    double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    (void)printf(
        "{\"seconds\":%.3f,\"requests\":%" PRIu64 ",\"accepted\":%" PRIu64
        ",\"rejected\":%" PRIu64 ",\"clicks_per_s\":%.0f,\"requests_per_s\":%.0f,"
        "\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f,\"unanswered\":%d,"
        "\"broken\":%" PRIu64 ",\"cpu_ns_per_click\":%.0f,\"status\":{",
        seconds, load->answers, load->accepted, load->rejected,
        (double)load->accepted / seconds, (double)load->answers / seconds,
        percentile_ms(load, 0.5), percentile_ms(load, 0.99),
        (double)load->latency_us_max / 1000.0, load->opt.requests - load->free_n,
        load->broken, clicks == 0 ? 0 : cpu * 1e9 / (double)clicks);
    for (int i = 0, first = 1; i < 600; i++)
        if (load->status[i] > 0) {
            (void)printf("%s\"%d\":%" PRIu64, first ? "" : ",", i, load->status[i]);
            first = 0;
        }
    (void)printf("}}\n");
}

static const char *
value_of(int argc, char **argv, const char *name, const char *fallback)
{
    for (int i = 1; i + 1 < argc; i += 2)
        if (strcmp(argv[i], name) == 0)
            return argv[i + 1];
    return fallback;
}

static void
prepare(struct load *load)
{
    const struct options *opt = &load->opt;
    double *sums = zipf_sums(opt->campaigns);

    if (sums == NULL)
        die("memory");
    load->random = opt->seed;
    load->epoll_fd = epoll_create1(0);
    load->conns = calloc((size_t)opt->connections, sizeof(*load->conns));
    load->spare = calloc((size_t)opt->requests, sizeof(*load->spare));
    load->free_requests = calloc((size_t)opt->requests, sizeof(struct request *));
    load->buckets = calloc(BUCKETS, sizeof(*load->buckets));
    if (load->conns == NULL || load->spare == NULL || load->free_requests == NULL ||
        load->buckets == NULL)
        die("memory");
    for (int i = 0; i < opt->requests; i++) {
        request_render(load, &load->spare[i], sums);
        load->free_requests[load->free_n++] = &load->spare[i];
    }
    for (int i = 0; i < opt->connections; i++) {
        conn_open(load, &load->conns[i]);
        load->conns[i].next = load->idle;
        load->idle = &load->conns[i];
    }
    free(sums);
    if (opt->ids != NULL && (load->ids = fopen(opt->ids, "w")) == NULL)
        die(opt->ids);
}

int
main(int argc, char **argv)
{
    struct load load = {
        .opt = {
            .port = (int)strtol(value_of(argc, argv, "--port", "8080"), NULL, 10),
            .connections =
                (int)strtol(value_of(argc, argv, "--connections", "100"), NULL, 10),
            .batch = (int)strtol(value_of(argc, argv, "--batch", "100"), NULL, 10),
            .campaigns =
                (int)strtol(value_of(argc, argv, "--campaigns", "1000"), NULL, 10),
            .users =
                (int)strtol(value_of(argc, argv, "--users", "4000000"), NULL, 10),
            .requests =
                (int)strtol(value_of(argc, argv, "--requests", "0"), NULL, 10),
            .seconds = strtod(value_of(argc, argv, "--seconds", "5"), NULL),
            .rate = strtod(value_of(argc, argv, "--rate", "0"), NULL),
            .seed = strtoull(value_of(argc, argv, "--seed", "0"), NULL, 10),
            .key = value_of(argc, argv, "--key", ""),
            .path = value_of(argc, argv, "--path", "/v1/clicks"),
            .ids = value_of(argc, argv, "--ids", NULL),
        }};

    if (load.opt.connections < 1 || load.opt.connections > CONNECTIONS_MAX ||
        load.opt.batch < 1 || load.opt.campaigns < 1 || load.opt.users < 1 ||
        argc % 2 == 0) {
        (void)fprintf(stderr, "usage: load --port P --key K [--connections N] "
                              "[--batch N] [--seconds S] [--rate CLICKS_PER_S] "
                              "[--campaigns N] [--seed N] [--ids FILE]\n");
        return 2;
    }
    if (load.opt.requests < load.opt.connections)
        load.opt.requests = load.opt.connections; /* one each */
    if (load.opt.seed == 0)
        load.opt.seed = (uint64_t)now_us(CLOCK_REALTIME);
    prepare(&load);

    int64_t begin = now_us(CLOCK_MONOTONIC);
    run(&load);
    report(&load, (double)(now_us(CLOCK_MONOTONIC) - begin) / 1e6);
    if (load.ids != NULL)
        (void)fclose(load.ids);
    return load.answers == 0;
}

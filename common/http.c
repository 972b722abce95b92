#define _GNU_SOURCE /* accept4, pipe2 */
#include "common/http_impl.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

enum {
    BACKLOG = 4096,
    ACCEPT_MAX = 64, /* connections a pass */
    SWEEP_US_MIN = 20000,
    SWEEP_US_MAX = 1000000,
    NO_DESCRIPTORS_US = 100000, /* pause after EMFILE */
    DESCRIPTORS_ELSE = 512,     /* for logs, files and databases */
    STOP_QUIET_MS = 20,         /* without a request, before the sockets close */
};

static int64_t
sweep_period_us(const struct http_config *cfg)
{
    int64_t limit_us = cfg->request_us_max < cfg->idle_us_max ? cfg->request_us_max
                                                              : cfg->idle_us_max;
    int64_t period_us = limit_us / 4;

    if (period_us < SWEEP_US_MIN)
        return SWEEP_US_MIN;
    return period_us > SWEEP_US_MAX ? SWEEP_US_MAX : period_us;
}

static void
refuse_socket(int fd)
{
    static const char answer[] = "HTTP/1.1 503 Service Unavailable\r\n"
                                 "Content-Length: 0\r\nRetry-After: 1\r\n"
                                 "Connection: close\r\n\r\n";

    (void)send(fd, answer, sizeof(answer) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)close(fd);
}

static struct http_loop *
loop_least(struct http_server *server)
{
    struct http_loop *least = &server->loops[0];

    for (unsigned i = 1; i < server->loops_n; i++)
        if (atomic_load(&server->loops[i].connections) <
            atomic_load(&least->connections))
            least = &server->loops[i];
    return least;
}

/* Loop 0 accepts for all and hands each socket to the loop with the fewest, so that few
 * connections are spread evenly too (SO_REUSEPORT would leave that to a hash). */
static void
accept_some(struct http_server *server, int64_t now_us)
{
    for (int i = 0; i < ACCEPT_MAX; i++) {
        int listen_fd = atomic_load(&server->listen_fd);
        int fd = listen_fd < 0
                     ? -1
                     : accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        struct http_loop *loop;

        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
                server->accept_again_us = now_us + NO_DESCRIPTORS_US;
            return;
        }
        if (atomic_load(&server->connections) >= server->cfg.connections_max) {
            refuse_socket(fd);
            continue;
        }
        loop = loop_least(server);
        atomic_fetch_add(&server->connections, 1);
        atomic_fetch_add(&loop->connections, 1);
        if (write(loop->mail[1], &fd, sizeof(fd)) != sizeof(fd)) {
            refuse_socket(fd);
            atomic_fetch_sub(&server->connections, 1);
            atomic_fetch_sub(&loop->connections, 1);
        }
    }
}

static void
connection_add(struct http_loop *loop, int fd)
{
    struct sockaddr_storage ss = {0};
    socklen_t size = sizeof(ss);
    uint64_t opened = loop->opened;

    if (getpeername(fd, (struct sockaddr *)&ss, &size) != 0) { /* gone already */
        (void)close(fd);
        http_conn_uncount(loop);
        return;
    }
    /* On failure MHD closes fd; conn_close has counted it off if conn_open was called. */
    if (MHD_add_connection(loop->daemon, fd, (struct sockaddr *)&ss, size) !=
            MHD_YES &&
        loop->opened == opened)
        http_conn_uncount(loop);
}

static void
mail_take(struct http_loop *loop)
{
    int fds[ACCEPT_MAX];
    ssize_t n = read(loop->mail[0], fds, sizeof(fds));

    for (ssize_t i = 0; i < n / (ssize_t)sizeof(int); i++)
        connection_add(loop, fds[i]);
}

static int
loop_timeout_ms(const struct http_loop *loop, int64_t now_us)
{
    MHD_UNSIGNED_LONG_LONG mhd_ms;
    int64_t ms = (loop->sweep_us - now_us) / 1000 + 1;

    if (MHD_get_timeout(loop->daemon, &mhd_ms) == MHD_YES && (int64_t)mhd_ms < ms)
        ms = (int64_t)mhd_ms;
    return ms < 0 ? 0 : (int)ms;
}

static void
loop_turn(struct http_loop *loop, bool accepts)
{
    struct http_server *server = loop->server;
    int64_t now_us = clock_mono_us();
    bool listening = accepts && now_us >= server->accept_again_us;
    struct pollfd fds[] = {
        {.fd = loop->epoll_fd, .events = POLLIN},
        {.fd = loop->wake_fd, .events = POLLIN},
        {.fd = loop->mail[0], .events = POLLIN},
        {.fd = listening ? atomic_load(&server->listen_fd) : -1, .events = POLLIN},
    };
    uint64_t wakes;

    (void)poll(fds, 4, loop_timeout_ms(loop, now_us));
    if (fds[3].revents & POLLIN)
        accept_some(server, now_us);
    if (fds[2].revents & POLLIN)
        mail_take(loop);
    if (fds[1].revents & POLLIN && read(loop->wake_fd, &wakes, sizeof(wakes)) > 0)
        http_loop_resume(loop);
    (void)MHD_run(loop->daemon);
    if (now_us >= loop->sweep_us) {
        http_loop_sweep(loop, now_us);
        loop->sweep_us = now_us + sweep_period_us(&server->cfg);
    }
}

static void *
loop_main(void *arg)
{
    struct http_loop *loop = arg;
    bool accepts = loop == &loop->server->loops[0];

    loop->self = pthread_self();
    while (!atomic_load(&loop->server->ended))
        loop_turn(loop, accepts);
    return NULL;
}

void
http_loop_wake(struct http_loop *loop)
{
    uint64_t one = 1;
    ssize_t n = write(loop->wake_fd, &one, sizeof(one));

    (void)n; /* full: it is awake already */
}

/* getaddrinfo's first answer for a numeric address. */
static enum err
listen_on(struct http_server *server, struct why *why)
{
    const struct http_config *cfg = &server->cfg;
    struct addrinfo hints = {.ai_flags =
                                 AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                             .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    char port[8];
    int fd = -1, on = 1, off = 0, rc;

    (void)snprintf(port, sizeof(port), "%u", cfg->port);
    rc = getaddrinfo(cfg->address, port, &hints, &list);
    if (rc != 0)
        return err_set(why, ERR_INVALID, "http: address '%s': %s", cfg->address,
                       gai_strerror(rc));
    fd = socket(list->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        if (list->ai_family == AF_INET6)
            (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    }
    if (fd < 0 || bind(fd, list->ai_addr, list->ai_addrlen) != 0 ||
        listen(fd, BACKLOG) != 0) {
        enum err err = err_set(
            why, ERR_INVALID, "http: cannot listen on %s port %u: %s%s",
            cfg->address, cfg->port, strerror(errno),
            errno == EADDRINUSE ? "; stop what uses it, or choose another port"
                                : "");

        if (fd >= 0)
            (void)close(fd);
        freeaddrinfo(list);
        return err;
    }
    freeaddrinfo(list);
    atomic_store(&server->listen_fd, fd);
    return ERR_OK;
}

static uint16_t
port_of(int fd)
{
    struct sockaddr_storage ss = {0};
    socklen_t n = sizeof(ss);

    (void)getsockname(fd, (struct sockaddr *)&ss, &n);
    if (ss.ss_family == AF_INET) {
        struct sockaddr_in in;

        memcpy(&in, &ss, sizeof(in));
        return ntohs(in.sin_port);
    }
    struct sockaddr_in6 in6;
    memcpy(&in6, &ss, sizeof(in6));
    return ntohs(in6.sin6_port);
}

static enum err
loop_open(struct http_loop *loop, struct why *why)
{
    const unsigned flags = MHD_USE_EPOLL | MHD_USE_TURBO |
                           MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME;
    const union MHD_DaemonInfo *info;
    int rc;

    loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (loop->wake_fd < 0 || pipe2(loop->mail, O_NONBLOCK | O_CLOEXEC) != 0)
        return err_set(why, ERR_FATAL, "http: no descriptors: %s", strerror(errno));
    loop->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, http_request_serve, loop,
        MHD_OPTION_NOTIFY_CONNECTION, http_conn_notify, loop,
        MHD_OPTION_NOTIFY_COMPLETED, http_request_end, loop,
        MHD_OPTION_URI_LOG_CALLBACK, http_request_begin, loop,
        MHD_OPTION_CONNECTION_LIMIT, loop->server->cfg.connections_max,
        MHD_OPTION_CONNECTION_TIMEOUT, 0U, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)HTTP_POOL_BYTES, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    if (loop->daemon == NULL)
        return err_set(why, ERR_FATAL, "http: libmicrohttpd does not start: %s",
                       strerror(errno));
    info = MHD_get_daemon_info(loop->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (info == NULL || info->epoll_fd < 0)
        return err_set(why, ERR_FATAL,
                       "http: libmicrohttpd is built without epoll");
    loop->epoll_fd = info->epoll_fd;
    rc = pthread_create(&loop->thread, NULL, loop_main, loop);
    if (rc != 0)
        return err_set(why, ERR_FATAL, "http: no thread: %s", strerror(rc));
    loop->started = true;
    return ERR_OK;
}

static void
loop_close(struct http_loop *loop)
{
    if (loop->daemon != NULL)
        MHD_stop_daemon(loop->daemon);
    if (loop->last != NULL)
        MHD_destroy_response(loop->last);
    for (unsigned i = 0; i < loop->spare_n; i++)
        free(loop->spare[i].p);
    if (loop->wake_fd >= 0)
        (void)close(loop->wake_fd);
    for (int i = 0; i < 2; i++)
        if (loop->mail[i] >= 0)
            (void)close(loop->mail[i]);
}

/* Systems start processes with 1,024 descriptors; each connection needs one. */
static void
descriptors_raise(unsigned connections_max)
{
    struct rlimit limit;
    const rlim_t want = (rlim_t)connections_max + DESCRIPTORS_ELSE;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= want)
        return;
    limit.rlim_cur = want < limit.rlim_max ? want : limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < want)
        log_event(LOG_WARN, "http_few_descriptors",
                  LOG_NUMBER("allowed", limit.rlim_max),
                  LOG_NUMBER("wanted", want));
}

enum err
http_start(struct http_server **out, const struct http_config *cfg, struct why *why)
{
    struct http_server *server;
    enum err err;

    assert(out != NULL);
    assert(cfg != NULL && cfg->handle != NULL && cfg->threads > 0);
    *out = NULL;
    (void)signal(SIGPIPE, SIG_IGN);
    descriptors_raise(cfg->connections_max);
    server = calloc(1, sizeof(*server));
    if (server == NULL)
        return err_set(why, ERR_NOMEM, "http: no memory");
    server->cfg = *cfg;
    atomic_store(&server->listen_fd, -1);
    server->loops = calloc(cfg->threads, sizeof(*server->loops));
    err = server->loops == NULL ? err_set(why, ERR_NOMEM, "http: no memory")
                                : listen_on(server, why);
    if (err == ERR_OK)
        server->port = port_of(atomic_load(&server->listen_fd));
    for (unsigned i = 0; server->loops != NULL && i < cfg->threads; i++)
        server->loops[i] = (struct http_loop){
            .server = server, .epoll_fd = -1, .wake_fd = -1, .mail = {-1, -1}};
    server->loops_n = server->loops == NULL ? 0 : cfg->threads;
    /* Loop 0 accepts, so it is the last to start: the others are then ready. */
    for (unsigned i = server->loops_n; err == ERR_OK && i-- > 0;)
        err = loop_open(&server->loops[i], why);
    *out = server;
    if (err != ERR_OK)
        http_stop(out);
    return err;
}

uint16_t
http_port(const struct http_server *server)
{
    return server->port;
}

void
http_quiesce(struct http_server *server)
{
    int fd = atomic_exchange(&server->listen_fd, -1);

    if (fd < 0)
        return;
    /* Loop 0 may be in poll with it: shut first, so that nothing new can queue. */
    (void)shutdown(fd, SHUT_RDWR);
    http_loop_wake(&server->loops[0]);
    (void)close(fd);
}

void
http_stats_get(const struct http_server *server, struct http_stats *out)
{
    out->connections = atomic_load(&server->connections);
    out->requests = atomic_load(&server->active);
    out->in_flight_bytes = atomic_load(&server->in_flight);
}

/* New requests are refused from here on; waits until the last answer is out. */
static void
drain(struct http_server *server)
{
    int quiet_ms = 0;

    atomic_store(&server->stopping, true);
    while (quiet_ms < STOP_QUIET_MS) {
        quiet_ms = atomic_load(&server->active) == 0 ? quiet_ms + 1 : 0;
        clock_sleep_us(1000);
    }
}

void
http_stop(struct http_server **server)
{
    struct http_server *s;

    assert(server != NULL);
    s = *server;
    *server = NULL;
    if (s == NULL)
        return;
    if (s->loops_n > 0)
        http_quiesce(s);
    if (s->loops_n > 0 && s->loops[0].started)
        drain(s);
    atomic_store(&s->ended, true);
    for (unsigned i = 0; i < s->loops_n; i++) {
        if (!s->loops[i].started)
            continue;
        http_loop_wake(&s->loops[i]);
        (void)pthread_join(s->loops[i].thread, NULL);
    }
    for (unsigned i = 0; i < s->loops_n; i++)
        loop_close(&s->loops[i]);
    free(s->loops);
    free(s);
}

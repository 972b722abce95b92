/* tests/bench/raw_http.c - what libmicrohttpd alone can do: every body read and dropped,
 * every request answered 202 with the bytes that ingest sends. Two loops, as ingest has.
 *
 *   raw_http PORT      until SIGTERM
 */
#define _GNU_SOURCE /* accept4 */
#include <arpa/inet.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { LOOPS = 2, BACKLOG = 1024, POOL_BYTES = 32 * 1024 };

static char answer[] = "{\"accepted\":1,\"rejected\":0,\"errors\":[]}\n";

struct loop {
    struct MHD_Daemon *daemon;
    struct MHD_Response *response;
    int epoll_fd, listen_fd;
};

static enum MHD_Result
serve(void *cls, struct MHD_Connection *connection, const char *url,
      const char *method, const char *version, const char *data, size_t *data_n,
      void **state)
{
    struct loop *loop = cls;

    (void)url;
    (void)method;
    (void)version;
    (void)data;
    if (*state == NULL) {
        *state = loop;
        return MHD_YES;
    }
    if (*data_n > 0) {
        *data_n = 0;
        return MHD_YES;
    }
    return MHD_queue_response(connection, MHD_HTTP_ACCEPTED, loop->response);
}

/* Both loops accept from one socket; whoever wakes first takes the connection. */
static void *
loop_main(void *arg)
{
    struct loop *loop = arg;
    struct pollfd fds[2] = {{loop->epoll_fd, POLLIN, 0},
                            {loop->listen_fd, POLLIN, 0}};

    for (;;) {
        (void)poll(fds, 2, 1000);
        if (fds[1].revents & POLLIN) {
            struct sockaddr_in from;
            socklen_t from_n = sizeof(from);
            int fd = accept4(loop->listen_fd, (struct sockaddr *)&from, &from_n,
                             SOCK_NONBLOCK | SOCK_CLOEXEC);

            if (fd >= 0)
                (void)MHD_add_connection(loop->daemon, fd, (struct sockaddr *)&from,
                                         from_n);
        }
        (void)MHD_run(loop->daemon);
    }
    return NULL;
}

static void
loop_start(struct loop *loop, int listen_fd)
{
    pthread_t thread;

    loop->listen_fd = listen_fd;
    loop->response = MHD_create_response_from_buffer(strlen(answer), answer,
                                                     MHD_RESPMEM_PERSISTENT);
    if (loop->response == NULL ||
        MHD_add_response_header(loop->response, "Content-Type",
                                "application/json") != MHD_YES)
        exit(1);
    loop->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_TURBO | MHD_USE_NO_LISTEN_SOCKET, 0, NULL, NULL,
        serve, loop, MHD_OPTION_CONNECTION_LIMIT, 20000U,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)POOL_BYTES, MHD_OPTION_END);
    if (loop->daemon == NULL)
        exit(1);
    loop->epoll_fd =
        MHD_get_daemon_info(loop->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    if (pthread_create(&thread, NULL, loop_main, loop) != 0)
        exit(1);
}

int
main(int argc, char **argv)
{
    static struct loop loops[LOOPS];
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;

    if (argc != 2 || fd < 0)
        return 2;
    at.sin_port = htons((uint16_t)strtol(argv[1], NULL, 10));
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0 ||
        listen(fd, BACKLOG) != 0) {
        perror("raw_http");
        return 1;
    }
    for (int i = 0; i < LOOPS; i++)
        loop_start(&loops[i], fd);
    for (;;)
        (void)poll(NULL, 0, -1);
}

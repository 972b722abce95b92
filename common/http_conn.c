/* Connections: whose they are, how long they may take, and when they are cut off. */
#define _DEFAULT_SOURCE /* struct tcp_info */
#include "common/http_impl.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "common/clock.h"

void
http_conn_phase(struct http_conn *conn, enum http_phase phase)
{
    conn->phase = phase;
    conn->since_us = clock_mono_us();
}

static void
peer_set(struct http_conn *conn)
{
    static const uint8_t mapped[12] = {[10] = 0xFF, [11] = 0xFF};
    struct sockaddr_storage ss;
    socklen_t n = sizeof(ss);

    if (getpeername(conn->fd, (struct sockaddr *)&ss, &n) != 0)
        return;
    if (ss.ss_family == AF_INET) {
        struct sockaddr_in in;

        memcpy(&in, &ss, sizeof(in));
        memcpy(conn->peer, &in.sin_addr, 4);
        conn->peer_n = 4;
    } else if (ss.ss_family == AF_INET6) {
        struct sockaddr_in6 in6;
        bool is_v4;

        memcpy(&in6, &ss, sizeof(in6));
        is_v4 = memcmp(&in6.sin6_addr, mapped, sizeof(mapped)) == 0;
        conn->peer_n = is_v4 ? 4 : 16;
        memcpy(conn->peer, (uint8_t *)&in6.sin6_addr + (is_v4 ? 12 : 0),
               conn->peer_n);
    }
}

static void
conn_open(struct http_loop *loop, struct MHD_Connection *mhd, void **context)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct http_conn *conn = calloc(1, sizeof(*conn));

    *context = conn;
    loop->opened++;
    if (conn == NULL || info == NULL)
        return; /* http_request_begin then refuses its requests */
    conn->loop = loop;
    conn->fd = info->connect_fd;
    peer_set(conn);
    http_conn_phase(conn, HTTP_IDLE);
    conn->next = loop->conns;
    if (conn->next != NULL)
        conn->next->prev = conn;
    loop->conns = conn;
}

void
http_conn_uncount(struct http_loop *loop)
{
    atomic_fetch_sub(&loop->connections, 1);
    atomic_fetch_sub(&loop->server->connections, 1);
}

static void
conn_close(struct http_loop *loop, void **context)
{
    struct http_conn *conn = *context;

    *context = NULL;
    http_conn_uncount(loop);
    if (conn == NULL)
        return;
    if (conn->request != NULL)
        http_request_drop(conn->request);
    if (conn->prev != NULL)
        conn->prev->next = conn->next;
    else if (loop->conns == conn)
        loop->conns = conn->next;
    if (conn->next != NULL)
        conn->next->prev = conn->prev;
    free(conn);
}

void
http_conn_notify(void *cls, struct MHD_Connection *mhd, void **context,
                 enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        conn_open(cls, mhd, context);
    else
        conn_close(cls, context);
}

/* MHD says nothing before a request's line is whole, so a sender who dribbles the line is
 * found by asking the kernel when data last came: after the connection fell idle. */
static bool
line_begun(const struct http_conn *conn, int64_t now_us)
{
    struct tcp_info info;
    socklen_t n = sizeof(info);
    const int64_t slack_us = 20000; /* the kernel's figure is in ticks */

    if (getsockopt(conn->fd, IPPROTO_TCP, TCP_INFO, &info, &n) != 0)
        return false;
    return now_us - (int64_t)info.tcpi_last_data_recv * 1000 >
           conn->since_us + slack_us;
}

/* Our own deadlines: MHD's time-out starts anew with every byte. */
void
http_loop_sweep(struct http_loop *loop, int64_t now_us)
{
    const struct http_config *cfg = &loop->server->cfg;

    for (struct http_conn *conn = loop->conns; conn != NULL; conn = conn->next) {
        int64_t limit_us =
            conn->phase == HTTP_RECEIVING ? cfg->request_us_max : cfg->idle_us_max;

        if (conn->phase == HTTP_HANDLING || conn->cut)
            continue;
        if (now_us - conn->since_us > limit_us) {
            conn->cut = true;
            (void)shutdown(conn->fd, SHUT_RDWR);
        } else if (conn->phase == HTTP_IDLE && line_begun(conn, now_us)) {
            http_conn_phase(conn, HTTP_RECEIVING);
        }
    }
}

/* common/http_impl.h - what the http*.c share; nobody else includes it.
 *
 *   accept (loop 0) --pipe--> loop of fewest connections: MHD_add_connection
 *   poll(MHD's epoll fd, wake fd, pipe) -> MHD_run -> handler -> suspend
 *   any thread: http_respond -> loop's done stack, one wake -> resume -> answer
 *
 * http.c       sockets and loops
 * http_conn.c    connections and their deadlines
 * http_request.c a request's headers and body
 * http_answer.c  its answer
 *
 * Each loop thread has a libmicrohttpd daemon of its own and is the only one that runs
 * it; other threads touch only `done`, `wake_fd` and the atomics.
 */
#ifndef COMMON_HTTP_IMPL_H
#define COMMON_HTTP_IMPL_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "common/http.h"

enum {
    HTTP_POOL_BYTES = 32 * 1024, /* headers, and the read buffer of a connection */
    HTTP_BODY_SLACK = 64, /* zero bytes after a body, for parsers that read wide */
    HTTP_SPARE_MAX = 16,  /* body buffers a loop keeps */
    HTTP_SPARE_BYTES_MAX = 1 << 20,
    HTTP_SMALL_ANSWER = 192, /* bytes of an answer that need no allocation */
};

enum http_phase {
    HTTP_IDLE,      /* before a request's line: the idle limit */
    HTTP_RECEIVING, /* until the body is whole: the request limit */
    HTTP_HANDLING,  /* with the handler: no limit, we are the ones who are slow */
    HTTP_ANSWERING, /* until the peer has read it: the idle limit */
};

struct http_conn {
    struct http_conn *prev, *next; /* of its loop */
    struct http_loop *loop;
    struct http_request *request; /* or NULL */
    int fd;
    enum http_phase phase;
    int64_t since_us; /* monotone, start of phase */
    bool cut;         /* shut down by us */
    uint8_t peer[16];
    uint32_t peer_n;
};

struct http_spare {
    uint8_t *p;
    size_t cap;
};

struct http_loop {
    struct http_server *server;
    struct MHD_Daemon *daemon;
    int epoll_fd; /* MHD's */
    int wake_fd;
    int mail[2]; /* accepted sockets, one int each */
    pthread_t thread;
    pthread_t self; /* the same, set by the thread itself before it runs MHD */
    bool started;
    uint64_t opened;                     /* connections that MHD took */
    _Atomic(struct http_request *) done; /* answered by other threads */
    atomic_uint connections;
    struct http_conn *conns;
    struct http_request *handling; /* inside the handler just now */
    int64_t sweep_us;
    /* The last answer again: most are the same bytes. */
    struct MHD_Response *last;
    int last_status;
    char last_type[64];
    char last_body[HTTP_SMALL_ANSWER];
    uint32_t last_n;
    struct http_spare spare[HTTP_SPARE_MAX];
    unsigned spare_n;
};

struct http_server {
    struct http_config cfg;
    uint16_t port;
    atomic_int listen_fd; /* -1: quiesced */
    atomic_bool stopping; /* new requests are refused */
    atomic_bool ended;    /* loops return */
    atomic_uint connections;
    atomic_uint active;      /* requests from line to completion */
    atomic_size_t in_flight; /* body bytes reserved */
    int64_t accept_again_us; /* loop 0: no descriptors until then */
    struct http_loop *loops;
    unsigned loops_n;
};

struct http_request {
    struct http_request *next; /* in `done` */
    struct http_conn *conn;
    struct MHD_Connection *mhd;
    const char *method;
    const char *url;
    int64_t began_us;
    bool whole_headers; /* seen by the handler once */
    bool answered;      /* answer is set */
    bool discard;       /* refused already: the body is read and dropped */
    size_t body_n, body_cap, reserved, dropped;
    uint8_t *body;
    void *context;
    void (*context_drop)(void *);
    /* the answer */
    int status;
    int retry_after_s;
    bool close;
    uint32_t type_n, body_out_n, name_n, value_n; /* in this order in out */
    char *out;
    char small[HTTP_SMALL_ANSWER];
};

/* Callbacks for MHD; cls is the loop. */
void *http_request_begin(void *cls, const char *uri, struct MHD_Connection *mhd);
enum MHD_Result http_request_serve(void *cls, struct MHD_Connection *mhd,
                                   const char *url, const char *method,
                                   const char *version, const char *data,
                                   size_t *data_n, void **state);
void http_request_end(void *cls, struct MHD_Connection *mhd, void **state,
                      enum MHD_RequestTerminationCode why);
void http_request_drop(struct http_request *request);
/* Takes every answered request off the done stack and lets MHD go on with it. */
void http_loop_resume(struct http_loop *loop);
void http_loop_wake(struct http_loop *loop);
enum MHD_Result http_answer_queue(struct http_request *request);
void http_conn_notify(void *cls, struct MHD_Connection *mhd, void **context,
                      enum MHD_ConnectionNotificationCode code);
void http_conn_uncount(struct http_loop *loop);
/* Cuts off who is past its limit. */
void http_loop_sweep(struct http_loop *loop, int64_t now_us);
void http_conn_phase(struct http_conn *conn, enum http_phase phase);

#endif

/* common/http.h - an HTTP/1.1 server: the only user of libmicrohttpd.
 *
 * A request is read whole (body up to its limit, under a budget for all requests in
 * flight), then handed to the handler, which answers with http_respond at once or from
 * any thread later; until then the connection is suspended.
 *
 *   limits     body bytes a request, body bytes of all requests in flight (past it: 503),
 *              header bytes (431), connections, seconds to send a request whole (a slow
 *              sender is cut off), seconds idle
 *   refused    Transfer-Encoding together with Content-Length, several Content-Length,
 *              unknown method
 *   errors     RFC 9457 application/problem+json
 *
 * Units    Bytes, microseconds.
 * Threads  http_start makes its own; the handler is called on them.
 * Source   libmicrohttpd 0.9.75: its internal epoll threads stall at 128 ready
 *          connections, so our own loops drive its epoll descriptor; its time-out is for
 *          inactivity only, so our own deadlines; header bytes and malformed requests are
 *          refused by itself, with a page of its own.
 */
#ifndef COMMON_HTTP_H
#define COMMON_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/str.h"

struct http_server;
struct http_request;

struct http_config {
    const char *address; /* "127.0.0.1" or "::"; port 0 takes a free one */
    uint16_t port;
    unsigned threads;
    unsigned connections_max;
    size_t body_max;        /* a request: 413 */
    size_t in_flight_max;   /* bodies of all requests: 503, Retry-After: 1 */
    int64_t request_us_max; /* from its first byte to its last */
    int64_t idle_us_max;
    /* Called when a request is whole. Must lead to one http_respond. */
    void (*handle)(void *ctx, struct http_request *request);
    void *ctx;
};

enum err http_start(struct http_server **out, const struct http_config *cfg,
                    struct why *why);
/* The port it listens on. */
uint16_t http_port(const struct http_server *server);

struct http_stats {
    unsigned connections;
    unsigned requests; /* from their first line to the end of their answer */
    size_t in_flight_bytes;
};
void http_stats_get(const struct http_server *server, struct http_stats *out);
/* Accepts no new connection; requests in flight go on. */
void http_quiesce(struct http_server *server);
/* Quiesces, waits for every request's answer, closes. */
void http_stop(struct http_server **server);

struct str http_method(const struct http_request *request);
struct str http_path(const struct http_request *request); /* decoded, no query */
struct str http_body(const struct http_request *request);
/* {NULL, 0} if absent. Header names in any case. */
struct str http_header(const struct http_request *request, const char *name);
/* The same of a header that came several times: its last. */
struct str http_header_last(const struct http_request *request, const char *name);
struct str http_query(const struct http_request *request, const char *name);
/* The peer's address: 4 or 16 bytes. */
struct str http_peer(const struct http_request *request);
/* By clock_mono_us. */
int64_t http_began_us(const struct http_request *request);
/* A place for the handler's own data, and how to free it with the request. */
void http_context_set(struct http_request *request, void *data,
                      void (*drop)(void *));
void *http_context(const struct http_request *request);

struct http_answer {
    int status;
    const char *content_type;
    struct str body;        /* copied */
    int retry_after_s;      /* 0: none */
    const char *extra_name; /* one more header, or NULL */
    const char *extra_value;
};

/* Answers and forgets request. Any thread, exactly once. */
void http_respond(struct http_request *request, const struct http_answer *answer);
/* The same as problem+json: {"type","title","status","code","detail"}; extra may be NULL
 * or further members as JSON text such as "\"field\":\"x\"". */
void http_problem(struct http_request *request, int status, const char *code,
                  const char *detail, const char *extra_json, int retry_after_s);
/* 405 with the header Allow, as "GET, HEAD". */
void http_method_refuse(struct http_request *request, const char *allowed);

#endif

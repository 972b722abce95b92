/* tests/http_client.h - a blocking HTTP client for tests: one socket, one answer.
 *
 * Errors   Whatever the test did not expect ends it, by cmocka.
 */
#ifndef TESTS_HTTP_CLIENT_H
#define TESTS_HTTP_CLIENT_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { CLIENT_ANSWER_MAX = 1 << 20 };

struct client_answer {
    int status; /* 0: the connection ended without an answer */
    char *text; /* head and body, with a terminator */
    char *body; /* in text */
    size_t body_n;
};

static inline int
client_open(uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = 20};
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;

    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static inline bool
client_send(int fd, const void *data, size_t n)
{
    const char *p = data;

    while (n > 0) {
        ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);

        if (sent <= 0)
            return false;
        p += sent;
        n -= (size_t)sent;
    }
    return true;
}

/* The value of a header, or NULL; it ends at "\r". */
static inline const char *
client_header(const struct client_answer *answer, const char *name)
{
    size_t n = strlen(name);

    for (const char *line = answer->text; line != NULL && line < answer->body;
         line = strstr(line, "\r\n")) {
        line += line == answer->text ? 0 : 2;
        if (strncasecmp(line, name, n) == 0 && line[n] == ':')
            return line + n + 1 + strspn(line + n + 1, " ");
        if (line[0] == '\r')
            return NULL;
    }
    return NULL;
}

/* Reads one answer; the next one's bytes must not be under way yet. */
static inline struct client_answer
client_read(int fd)
{
    struct client_answer answer = {.text = calloc(1, CLIENT_ANSWER_MAX)};
    size_t n = 0, want = SIZE_MAX;

    answer.body = answer.text;
    while (answer.text != NULL && n < want && n < CLIENT_ANSWER_MAX - 1) {
        ssize_t got = recv(fd, answer.text + n, CLIENT_ANSWER_MAX - 1 - n, 0);
        char *end;

        if (got <= 0)
            break;
        n += (size_t)got;
        end = strstr(answer.text, "\r\n\r\n");
        if (end != NULL && want == SIZE_MAX) {
            const char *length;

            answer.body = end + 4;
            length = client_header(&answer, "Content-Length");
            want = (size_t)(answer.body - answer.text) +
                   (length == NULL ? 0 : strtoul(length, NULL, 10));
        }
    }
    if (want != SIZE_MAX && n >= want) {
        answer.status = (int)strtol(answer.text + 9, NULL, 10);
        answer.body_n = n - (size_t)(answer.body - answer.text);
    }
    return answer;
}

static inline void
client_free(struct client_answer *answer)
{
    free(answer->text);
    *answer = (struct client_answer){0};
}

/* headers are whole lines with \r\n; a Content-Length is added. */
static inline struct client_answer
client_ask_on(int fd, const char *method, const char *path, const char *headers,
              const void *body, size_t n)
{
    char head[8192];
    int head_n =
        snprintf(head, sizeof(head),
                 "%s %s HTTP/1.1\r\nHost: test\r\n%sContent-Length: %zu\r\n\r\n",
                 method, path, headers, n);

    if (client_send(fd, head, (size_t)head_n) && n > 0)
        (void)client_send(fd, body, n);
    return client_read(fd);
}

static inline struct client_answer
client_ask(uint16_t port, const char *method, const char *path, const char *headers,
           const void *body, size_t n)
{
    int fd = client_open(port);
    struct client_answer answer = client_ask_on(fd, method, path, headers, body, n);

    (void)close(fd);
    return answer;
}

#endif

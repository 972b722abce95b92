/* One connection to one server. */
#include "common/redis_impl.h"

#include <assert.h>
#include <errno.h>
#include <unistd.h>

enum {
    PATH_MAX_UNIX = 107,  /* sockaddr_un, without its terminator */
    LENGTH_TEXT_MAX = 24, /* '*' or '$', digits of a size_t, CR LF */
};

/* host:port, where host may be an IPv6 address in brackets. */
static bool
split_host(struct redis_link *link, const char *address)
{
    const char *colon = strrchr(address, ':');
    size_t n = colon == NULL ? 0 : (size_t)(colon - address);
    int port = 0;

    if (n > 2 && address[0] == '[' && address[n - 1] == ']') {
        address++;
        n -= 2;
    }
    if (n == 0 || n >= REDIS_HOST_MAX || colon[1] == '\0' || strlen(colon + 1) > 5)
        return false;
    for (const char *p = colon + 1; *p != '\0'; p++) {
        if (*p < '0' || *p > '9')
            return false;
        port = port * 10 + (*p - '0');
    }
    memcpy(link->host, address, n);
    link->host[n] = '\0';
    link->port = port;
    return port > 0 && port <= 65535;
}

static bool
split_address(struct redis_link *link, const char *address)
{
    static const char prefix[] = "unix:";
    size_t n = strlen(address);

    if (strncmp(address, prefix, sizeof(prefix) - 1) != 0)
        return split_host(link, address);
    n -= sizeof(prefix) - 1;
    if (n == 0 || n > PATH_MAX_UNIX)
        return false;
    memcpy(link->host, address + sizeof(prefix) - 1, n + 1);
    link->port = 0;
    return true;
}

bool
redis_link_init(struct redis_link *link, const char *address, int64_t timeout_us)
{
    assert(timeout_us > 0);
    *link = (struct redis_link){.timeout = {.tv_sec = timeout_us / 1000000,
                                            .tv_usec = timeout_us % 1000000},
                                .out = BUF_MAX(REDIS_COMMAND_BYTES_MAX)};
    return split_address(link, address);
}

void
redis_link_drop(struct redis_link *link)
{
    if (link->context != NULL)
        redisFree(link->context);
    link->context = NULL;
    link->replies_due = 0;
    if (!link->keeps) {
        buf_reset(&link->out);
        link->sent = 0;
    }
}

void
redis_link_free(struct redis_link *link)
{
    redis_link_drop(link);
    buf_free(&link->out);
}

static enum err
away(const struct redis_link *link, const char *reason, struct why *why)
{
    return link->port == 0
               ? err_set(why, ERR_AGAIN, "redis at %s: %s", link->host, reason)
               : err_set(why, ERR_AGAIN, "redis at %s:%d: %s", link->host,
                         link->port, reason);
}

static enum err
lost(struct redis_link *link, const char *reason, struct why *why)
{
    enum err err = away(link, reason, why);

    redis_link_drop(link);
    return err;
}

enum err
redis_link_connect(struct redis_link *link, struct why *why)
{
    redisContext *context;
    enum err err = ERR_OK;

    if (link->context != NULL)
        return ERR_OK;
    context = link->port == 0
                  ? redisConnectUnixWithTimeout(link->host, link->timeout)
                  : redisConnectWithTimeout(link->host, link->port, link->timeout);
    if (context == NULL)
        return away(link, "no memory", why);
    if (context->err != 0)
        err = away(link, context->errstr, why);
    else if (redisSetTimeout(context, link->timeout) != REDIS_OK)
        err = away(link, "its time-out cannot be set", why);
    if (err != ERR_OK)
        redisFree(context);
    else
        link->context = context;
    return err;
}

/* We write to the socket ourselves: hiredis would copy each command twice more on its way
 * through its own buffer. */
static enum err
bytes_write(struct redis_link *link, const uint8_t *p, size_t n, size_t *sent,
            struct why *why)
{
    assert(link->context != NULL);
    while (n > 0) {
        ssize_t some = write(link->context->fd, p, n);

        if (some < 0 && errno == EINTR)
            continue;
        if (some < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return lost(link, "time-out while sending", why);
        if (some < 0)
            return lost(link, strerror(errno), why);
        p += some;
        n -= (size_t)some;
        *sent += (size_t)some;
    }
    return ERR_OK;
}

enum err
redis_link_write(struct redis_link *link, const uint8_t *p, size_t n,
                 struct why *why)
{
    size_t sent = 0;

    assert(link->sent == link->out.n && link->replies_due == 0);
    return bytes_write(link, p, n, &sent, why);
}

enum err
redis_link_flush(struct redis_link *link, struct why *why)
{
    struct buf *out = &link->out;
    enum err err = bytes_write(link, out->p + link->sent, out->n - link->sent,
                               &link->sent, why);

    if (err != ERR_OK)
        return err;
    if (!link->keeps) {
        buf_reset(out);
        link->sent = 0;
    }
    return ERR_OK;
}

/* "*3\r\n" or "$12\r\n" at to. */
static uint8_t *
put_length(uint8_t *to, char mark, size_t n)
{
    char digits[LENGTH_TEXT_MAX];
    int i = 0;

    do {
        digits[i++] = (char)('0' + n % 10);
        n /= 10;
    } while (n > 0);
    *to++ = (uint8_t)mark;
    while (i > 0)
        *to++ = (uint8_t)digits[--i];
    *to++ = '\r';
    *to++ = '\n';
    return to;
}

static uint8_t *
put_words(uint8_t *to, const struct str *words, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        to = put_length(to, '$', words[i].n);
        if (words[i].n > 0)
            memcpy(to, words[i].p, words[i].n);
        to += words[i].n;
        *to++ = '\r';
        *to++ = '\n';
    }
    return to;
}

enum err
redis_words_put(struct buf *out, const struct redis_words *runs, size_t runs_n,
                struct why *why)
{
    size_t total = 0, room = LENGTH_TEXT_MAX;

    for (size_t i = 0; i < runs_n; i++) {
        total += runs[i].n;
        for (size_t j = 0; j < runs[i].n; j++)
            room += runs[i].p[j].n + LENGTH_TEXT_MAX + 2;
    }
    assert(total > 0);

    uint8_t *to = buf_room(out, room);
    if (to == NULL) {
        out->failed = false;
        return err_set(why,
                       room > REDIS_COMMAND_BYTES_MAX / 2 ? ERR_INVALID : ERR_NOMEM,
                       "redis: no room for a command of %zu bytes", room);
    }
    to = put_length(to, '*', total);
    for (size_t i = 0; i < runs_n; i++)
        to = put_words(to, runs[i].p, runs[i].n);
    out->n = (size_t)(to - out->p);
    return ERR_OK;
}

enum err
redis_link_queue(struct redis_link *link, const struct redis_words *runs,
                 size_t runs_n, struct why *why)
{
    enum err err = link->keeps ? ERR_OK : redis_link_connect(link, why);

    if (err == ERR_OK)
        err = redis_words_put(&link->out, runs, runs_n, why);
    if (err != ERR_OK)
        return err;
    link->replies_due++;
    return !link->keeps && link->out.n >= REDIS_FLUSH_BYTES
               ? redis_link_flush(link, why)
               : ERR_OK;
}

enum err
redis_link_read(struct redis_link *link, redisReply **raw, struct why *why)
{
    void *reply = NULL;
    enum err err = redis_link_flush(link, why);

    if (err != ERR_OK)
        return err;
    if (redisGetReply(link->context, &reply) != REDIS_OK) {
        bool late = link->context->err == REDIS_ERR_IO &&
                    (errno == EAGAIN || errno == EWOULDBLOCK);

        return lost(link, late ? "time-out" : link->context->errstr, why);
    }
    *raw = reply;
    if (link->replies_due > 0)
        link->replies_due--;
    return ERR_OK;
}

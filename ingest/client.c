#include "ingest/client.h"

#include <stdbool.h>

static struct str
trim(struct str s)
{
    while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t'))
        s.p++, s.n--;
    while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

/* Takes what stands behind the last comma off *list. */
static struct str
last_take(struct str *list)
{
    uint32_t from = list->n;
    struct str last;

    while (from > 0 && list->p[from - 1] != ',')
        from--;
    last = trim((struct str){list->p + from, list->n - from});
    list->n = from > 0 ? from - 1 : 0;
    return last;
}

enum err
client_proxies_parse(struct client_proxies *out, const char *list, struct why *why)
{
    struct str rest = trim(str_of(list));

    out->n = 0;
    while (rest.n > 0) {
        struct str text = last_take(&rest);
        struct client_address *address = &out->list[out->n];

        if (out->n == CLIENT_PROXIES_MAX)
            return err_set(why, ERR_INVALID, "ingest.trusted_proxies: more than %d",
                           CLIENT_PROXIES_MAX);
        if (!ip_parse(text, address->bytes, &address->n))
            return err_set(
                why, ERR_INVALID,
                "ingest.trusted_proxies: '%.*s' is no IPv4 or IPv6 address",
                (int)text.n, text.p);
        out->n++;
    }
    return ERR_OK;
}

static bool
is_trusted(const struct client_proxies *proxies,
           const struct client_address *address)
{
    for (unsigned i = 0; i < proxies->n; i++)
        if (proxies->list[i].n == address->n &&
            memcmp(proxies->list[i].bytes, address->bytes, address->n) == 0)
            return true;
    return false;
}

void
client_address_of(const struct client_proxies *proxies, struct str peer,
                  struct str forwarded, struct client_address *out)
{
    struct client_address next;

    *out = (struct client_address){.n = peer.n};
    if (peer.n > 0)
        memcpy(out->bytes, peer.p, peer.n);
    while (forwarded.n > 0 && is_trusted(proxies, out)) {
        struct str text = last_take(&forwarded);

        if (!ip_parse(text, next.bytes, &next.n))
            return; /* the last address known to be true */
        *out = next;
    }
}

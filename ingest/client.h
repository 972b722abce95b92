/* ingest/client.h - the client's address: the peer's, or what a trusted proxy says.
 *
 * X-Forwarded-For counts only if the peer is a trusted proxy; then the last address of
 * it that is not a trusted proxy itself, because what stands further left was written by
 * the sender.
 *
 * Threads  Read-only after client_open.
 */
#ifndef INGEST_CLIENT_H
#define INGEST_CLIENT_H

#include <stdint.h>

#include "common/err.h"
#include "common/str.h"
#include "schema/text.h"

enum { CLIENT_PROXIES_MAX = 64 };

struct client_address {
    uint8_t bytes[IP_SIZE_MAX];
    uint32_t n; /* 4 or 16 */
};

struct client_proxies {
    struct client_address list[CLIENT_PROXIES_MAX];
    unsigned n;
};

/* list is addresses by comma, as in ingest.trusted_proxies. ERR_INVALID names the bad
 * one. */
enum err client_proxies_parse(struct client_proxies *out, const char *list,
                              struct why *why);
void client_address_of(const struct client_proxies *proxies, struct str peer,
                       struct str forwarded, struct client_address *out);

#endif

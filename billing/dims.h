/* billing/dims.h - each combination of what sums are kept by, once, with a small number.
 *
 * Memory   An arena of at most DIMS_BYTES_MAX: when dims_full, the judge ends its batch.
 * Errors   ERR_NOMEM.
 * Threads  None.
 */
#ifndef BILLING_DIMS_H
#define BILLING_DIMS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "schema/click.h"

enum { DIMS_BYTES_MAX = 32 << 20, DIMS_NAME_MAX = 255, DIMS_AHEAD = 16 };

struct dims;

/* One combination; strings belong to the table. zone is the judge's number. */
struct dims_row {
    uint32_t account;
    int32_t day;
    uint16_t zone;
    uint8_t device;
    struct str campaign, ad, country, publisher;
};

enum err dims_open(struct dims **out, struct why *why);
void dims_close(struct dims **dims);
void dims_clear(struct dims *dims);
bool dims_full(const struct dims *dims);
/* *number is set by one of the next DIMS_AHEAD calls, or by dims_settle: a look costs two
 * cache misses, which the clicks in between hide. */
enum err dims_number(struct dims *dims, const struct click *click, int32_t day,
                     uint16_t zone, uint32_t *number, struct why *why);
enum err dims_settle(struct dims *dims, struct why *why);
void dims_get(const struct dims *dims, uint32_t number, struct dims_row *out);

#endif

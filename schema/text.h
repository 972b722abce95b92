/* schema/text.h - parsers of the click's small texts. Each has a fuzz target.
 *
 * Errors   false: not such a text, *out untouched.
 * Threads  Pure.
 * Source   RFC 9562, RFC 3339, RFC 4291 section 2.2, RFC 5952.
 */
#ifndef SCHEMA_TEXT_H
#define SCHEMA_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/str.h"

enum { UUID_TEXT_SIZE = 37, IP_TEXT_SIZE = 46, IP_SIZE_MAX = 16 };

/* 8-4-4-4-12 hex digits in either case; any version, not the nil UUID. */
bool uuid_parse(struct str text, uint8_t out[16]);
char *uuid_format(const uint8_t id[16], char text[UUID_TEXT_SIZE]);

/* out gets 4 or 16 bytes, *size tells which. No zone, no port, no leading zeros in v4;
 * v4-mapped v6 (::ffff:1.2.3.4) becomes v4. */
bool ip_parse(struct str text, uint8_t out[IP_SIZE_MAX], uint32_t *size);
char *ip_format(struct str ip, char text[IP_TEXT_SIZE]); /* RFC 5952 */

/* RFC 3339 date-time with zone; fractions beyond ms are cut; leap second :60 counts as
 * the next second; years 1970..2261. */
bool rfc3339_parse(struct str text, int64_t *out_ms);

/* "2026-11-21" to days since 1970-01-01 (proleptic Gregorian), and back. */
bool date_parse(struct str text, int32_t *out_day);
char *date_format(int32_t day, char text[12]);

bool country_known(struct str code); /* ISO 3166-1 alpha-2 */

#endif

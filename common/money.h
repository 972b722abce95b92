/* common/money.h - money is an integer: int64 micros (millionths of the currency
 * unit) for one click, 128 bits for sums, rounded once for an invoice line.
 *
 * Units    Micros of the currency; minor units (cents) only on invoice lines.
 * Errors   Checked: a sum that leaves its range is ERR_INVALID, never wrapped.
 * Threads  Values.
 * Source   ISO 4217 for minor units; half away from zero for rounding.
 */
#ifndef COMMON_MONEY_H
#define COMMON_MONEY_H

#include <stdint.h>

#include "common/err.h"
#include "common/str.h"

__extension__ typedef __int128 money_wide;

#define MONEY_MICROS INT64_C(1000000)

enum { MONEY_TEXT_SIZE = 48, MONEY_PLACES_MAX = 6 };

/* Decimal text ("0.25", "12", at most 6 places, no sign, no exponent, no blanks,
 * a digit on both sides of the point) to micros. ERR_INVALID leaves *out alone. */
enum err money_parse(struct str text, int64_t *out, struct why *why);

/* A sum as text, micros without a point ("-1250000"), as databases give it. ERR_CORRUPT if
 * it is none, or leaves 128 bits; *out is left alone. */
enum err money_wide_parse(struct str text, money_wide *out, struct why *why);

/* micros with places decimals (0..6), exact: asserts that no digit is cut off. */
char *money_format(money_wide micros, int places, char *text);

/* Micros to minor units of a currency with places decimals, half away from zero. */
money_wide money_round(money_wide micros, int places);

/* Minor units as decimal text: (12345, 2) -> "123.45". Returns text, which has
 * MONEY_TEXT_SIZE bytes. */
char *money_minor_format(money_wide minor, int places, char *text);

/* Decimals of an ISO 4217 code ("JPY" 0, "EUR" 2, "BHD" 3), or -1 if unknown. */
int money_currency_places(struct str code);

#endif

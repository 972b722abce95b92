/* schema/jsonscan.h - the first look at a JSON text: UTF-8, strings, and marks.
 *
 * This is the first stage of simdjson, about 4 bytes a nanosecond; schema/json.h walks its
 * marks.
 *
 * Memory   4 bytes of marks a byte of text, address space taken at open. The text is
 *          borrowed, needs no padding and is never written to.
 * Errors   enum json_fault.
 * Threads  A scanner belongs to one thread.
 * Source   RFC 8259; simdjson 3.0.1.
 */
#ifndef SCHEMA_JSONSCAN_H
#define SCHEMA_JSONSCAN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum json_fault {
    JSON_GOOD,
    JSON_EMPTY,       /* nothing but blanks */
    JSON_UTF8,        /* not UTF-8 */
    JSON_CONTROL,     /* a raw control character in a string */
    JSON_OPEN_STRING, /* a string does not end */
    JSON_TOO_LARGE,   /* more bytes than the scanner was opened for */
    JSON_NO_MEMORY,
};

struct json_scanner;

/* NULL without memory. */
struct json_scanner *json_scanner_open(size_t bytes_max);
void json_scanner_close(struct json_scanner **scanner);
/* marks (borrowed until the next scan) has *n entries and the length as one more. */
enum json_fault json_scan(struct json_scanner *scanner, const char *text,
                          size_t size, const uint32_t **marks, uint32_t *n);

#ifdef __cplusplus
}
#endif

#endif

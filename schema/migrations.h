/* schema/migrations.h - the numbered SQL files, as built into the binary by
 * schema/embed.cmake.
 *
 * Memory   Constant.
 */
#ifndef SCHEMA_MIGRATIONS_H
#define SCHEMA_MIGRATIONS_H

#include <stddef.h>

struct migration {
    int number;
    const char *name; /* 0001_init.sql */
    const char *sql;  /* terminated */
    size_t n;
};

extern const struct migration migrations[]; /* by number */
extern const int migrations_n;

#endif

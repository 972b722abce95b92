#ifndef COMMON_ERR_H
#define COMMON_ERR_H

#define ERR_MAP(X)                                                \
    X(OK, "ok")                                                   \
    X(INVALID, "invalid input or configuration")                  \
    X(NOMEM, "out of memory")                                     \
    X(AGAIN, "transient failure: retry")                          \
    X(FULL, "a limit is reached: free space or raise it")         \
    X(NOTFOUND, "no such thing")                                  \
    X(CONFLICT, "refused: it contradicts what is already stored") \
    X(CORRUPT, "stored data is damaged")                          \
    X(FATAL, "permanent failure: stop the process")

enum err {
#define X(name, text) ERR_##name,
    ERR_MAP(X)
#undef X
};

/* Why a call failed, in words an operator can act on. Owned by the caller. */
struct why {
    char text[256];
};

/* Formats into why (which may be NULL) and returns code, so that a failure is
 * one statement: return err_set(why, ERR_INVALID, "...", ...); */
enum err err_set(struct why *why, enum err code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

const char *err_name(enum err code);

#endif

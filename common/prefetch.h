/* common/prefetch.h - asks for memory that will be wanted soon.
 *
 * GCC takes a function that does nothing but __builtin_prefetch for one without any effect,
 * and drops its calls; the empty asm is the effect.
 *
 * Errors   None: any address will do.
 * Threads  Pure.
 */
#ifndef COMMON_PREFETCH_H
#define COMMON_PREFETCH_H

static inline void
prefetch(const void *p)
{
    __builtin_prefetch(p);
    __asm__ volatile("" : : "r"(p));
}

/* To be written. */
static inline void
prefetch_write(const void *p)
{
    __builtin_prefetch(p, 1);
    __asm__ volatile("" : : "r"(p));
}

#endif

#define _GNU_SOURCE /* MAP_ANONYMOUS, MADV_HUGEPAGE */

#include "fraud/line.h"

#include <assert.h>
#include <sys/mman.h>

enum err
line_map(void **out, uint64_t n, const char *name, struct why *why)
{
    assert(n >= LINES_MIN && n <= UINT32_MAX);
    void *p = mmap(NULL, n * LINE_SIZE, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    *out = NULL;
    if (p == MAP_FAILED)
        return err_set(why, ERR_NOMEM, "fraud: no memory for %llu bytes of %s",
                       (unsigned long long)n * LINE_SIZE, name);
    (void)madvise(p, n * LINE_SIZE, MADV_HUGEPAGE); /* only a wish */
    *out = p;
    return ERR_OK;
}

void
line_unmap(void *lines, uint64_t n)
{
    if (lines != NULL)
        (void)munmap(lines, n * LINE_SIZE);
}

/* aggregate/bench.h - the arrays that one batch is worked on with; one a worker. */
#ifndef AGGREGATE_BENCH_H
#define AGGREGATE_BENCH_H

#include "aggregate/part.h"

enum {
    BENCH_LOADS_MAX = 1000,             /* rows asked for in one round trip */
    BENCH_MIRROR_BYTES_MAX = 512 << 20, /* HyperLogLog mirrors, all partitions */
};

struct bench {
    struct click clicks[PART_BATCH];
    struct fraud_facts facts[PART_BATCH];
    struct verdict verdicts[PART_BATCH];
    struct window_click counted[PART_BATCH];
    uint64_t packed[PART_BATCH];
    bool drop[PART_BATCH];
};

#endif

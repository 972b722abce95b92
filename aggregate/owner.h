/* aggregate/owner.h - one partition's owner record in Redis: who counts it, how far, in
 * which generation.
 *
 *   claim   epoch = max(Redis's, the verdict log's highest) + 1, with Kafka at least the
 *           time in microseconds: whoever has a lower one finds its next flush refused, and
 *           its verdict blocks never count
 *   begin   a new generation is built from an offset; readers go on with the old one, whose
 *           own offset is emptied
 *   switch  the new generation is whole: readers turn to it
 *   flush   see flush.h
 *
 * A field beyond schema/rediskeys.h: seqs = INCARNATION:L,... (hex:decimal), the last seq
 * accepted of the newest incarnations.
 *
 * Units    Epochs are below 2^53, which Lua counts exactly.
 * Errors   ERR_CONFLICT: another epoch, offset or dirty than expected (why has Redis's).
 *          Others as common/redis.h.
 * Threads  None.
 */
#ifndef AGGREGATE_OWNER_H
#define AGGREGATE_OWNER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/redis.h"

/* Incarnations pile up where a log is sent again after restarts of ingest. */
enum { SEQS_MAX = 12, SEQS_TEXT_MAX = SEQS_MAX * (16 + 1 + 20 + 1) + 1 };

/* L per incarnation, newest last. */
struct seqs {
    struct {
        uint64_t incarnation, last;
    } of[SEQS_MAX];
    uint32_t n;
};

enum seq_answer {
    SEQ_NEXT,  /* accepted: the next one */
    SEQ_AGAIN, /* came before: drop it */
    SEQ_GAP,   /* something is missing before it */
};

/* The rule of each record: L + 1 is accepted, <= L dropped, else there is a gap. A new
 * incarnation begins at 0; baseline: where counting begins in the middle of a log, the
 * first seq seen of an incarnation is taken as it is. */
enum seq_answer seqs_take(struct seqs *seqs, uint64_t incarnation, uint64_t seq,
                          bool baseline);

/* The seq that comes next; 0 of an unknown incarnation. */
uint64_t seqs_expected(const struct seqs *seqs, uint64_t incarnation);
bool seqs_known(const struct seqs *seqs, uint64_t incarnation);

/* As the field has it; text has SEQS_TEXT_MAX bytes. Returns the length. */
uint32_t seqs_format(const struct seqs *seqs, char *text);

struct owner_state {
    uint64_t epoch; /* ours now */
    bool found;     /* there was a record, and it is whole */
    bool dirty;
    uint64_t log;                  /* spool id */
    uint32_t generation, building; /* 0: none */
    uint64_t offset, build_offset;
    int64_t updated_us, event_ms;
    struct seqs seqs;
};

/* Takes the partition with an epoch above epoch_min and Redis's. */
enum err owner_claim(struct redis *redis, uint32_t partition, uint64_t epoch_min,
                     int64_t now_us, struct owner_state *out, struct why *why);
/* Reads without claiming; out->epoch is Redis's. */
enum err owner_read(struct redis *redis, uint32_t partition,
                    struct owner_state *out, struct why *why);
/* Starts building a generation from offset; forgets all L. */
enum err owner_begin(struct redis *redis, uint32_t partition, uint64_t epoch,
                     uint32_t generation, uint64_t offset, uint64_t log,
                     int64_t now_us, struct why *why);
/* The generation built up to offset becomes the one that readers use. */
enum err owner_switch(struct redis *redis, uint32_t partition, uint64_t epoch,
                      uint64_t offset, int64_t now_us, struct why *why);

#endif

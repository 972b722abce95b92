/* fraud/ruleset_load.h - a rule set as loaded from its files, and its kept copies; for
 * fraud/ruleset*.c only.
 *
 * SHA-256 of a set: over, for each file in the order of RULESET_FILES, its name, a zero byte
 * and the SHA-256 of its bytes.
 *
 * Memory   Lists are read in pieces: no file is ever held whole but rules.json.
 * Errors   As fraud/ruleset.h.
 * Threads  None.
 */
#ifndef FRAUD_RULESET_LOAD_H
#define FRAUD_RULESET_LOAD_H

#include "common/hash.h"
#include "fraud/agents.h"
#include "fraud/blocklist.h"
#include "fraud/honeypots.h"
#include "fraud/ruleset.h"

#define RULESET_FILES(X)          \
    X(rules, "rules.json")        \
    X(bots, "bots.txt")           \
    X(addresses, "addresses.txt") \
    X(honeypots, "honeypots.txt")

enum ruleset_file {
#define X(id, name) RULESET_FILE_##id,
    RULESET_FILES(X)
#undef X
        RULESET_FILES_N
};

struct ruleset {
    struct ruleset *self; /* so that who holds it const can give it back */
    unsigned refs;        /* under the source's lock */
    uint16_t number;
    uint8_t sha256[HASH_SHA256_SIZE];
    struct ruleset_limits limits;
    struct agents *agents;
    struct blocklist *addresses;
    struct honeypots *honeypots;
};

const char *ruleset_file_name(enum ruleset_file file);

/* Feeds the bytes of dir's file, or the built-in's where it is absent (or dir is ""), to
 * visit in pieces. */
enum err ruleset_file_read(const char *dir, enum ruleset_file file,
                           enum err (*visit)(void *ctx, const char *p, size_t n,
                                             struct why *why),
                           void *ctx, struct why *why);
/* number is 0, refs 1. */
enum err ruleset_load(struct ruleset **out, const char *dir, struct why *why);
void ruleset_free(struct ruleset **set);
/* ERR_INVALID names the key. */
enum err ruleset_rules_parse(struct ruleset_limits *limits, const char *json,
                             struct why *why);
/* The number that a set has wherever it is kept: from its hash. */
uint16_t ruleset_number_of(const uint8_t sha256[HASH_SHA256_SIZE]);
/* Finds or makes data_dir/rulesets/N with dir's files; *number gets N. */
enum err ruleset_keep(const char *data_dir, const char *dir,
                      const uint8_t sha256[32], uint16_t *number, struct why *why);

#endif

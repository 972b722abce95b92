/* fraud/ruleset.h - the rules' thresholds and lists as one immutable, numbered set.
 *
 * A rule set is a directory: rules.json (thresholds, shadow switches), bots.txt (patterns of
 * bot agents), addresses.txt (known bad addresses, one a line), honeypots.txt (ad ids); any
 * may be absent: the built-in then serves. Its identity is one SHA-256 over the files'
 * names and bytes (the built-in's where absent); DATA/rulesets/NUMBER keeps a copy of each
 * that was ever live; the number comes from the SHA-256 (in every process the same; should
 * another set have it, the next free one), and such a copy is itself a rule set's directory. Lists are reloaded without a pause: a new set is built aside and
 * swapped in.
 *
 *   rules.json     {"double_click_ms": 10000, "repeat_click_ms": 3600000,
 *                   "address_minute_max": 100, "address_second_max": 10,
 *                   "shadow": ["known_bot_agent"]}; what is left out keeps this default.
 *                  Quarantine, duplicate and over_budget cannot be in shadow.
 *   bots.txt       a line is a substring in any case; /.../ a POSIX extended regular
 *                  expression in any case; !word: the word never counts ("!cubot")
 *   addresses.txt  v4 or v6 addresses; honeypots.txt: ad ids. Ad ids that start with
 *                  "honeypot" always count.
 *   Blank lines and lines that begin with # are passed over.
 *
 * Memory   Reference counted. The bloom filter (libbloom, 0.1 %) and the exact set behind
 *          it take about 1.8 + 4 (v4) or 1.8 + 16 (v6) bytes an address; twice the latter
 *          while it is sorted.
 * Errors   ERR_INVALID names file and line. The set in force stays when a new one is bad.
 *          ERR_AGAIN: a file changed while it was read; poll again.
 * Threads  ruleset_take/drop any; ruleset_poll one.
 */
#ifndef FRAUD_RULESET_H
#define FRAUD_RULESET_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/str.h"

enum {
    RULESET_ADDRESSES_MAX = 100000000,
    RULESET_HONEYPOTS_MAX = 1000000,
    RULESET_PATTERNS_MAX = 20000,
    RULESET_REGEXES_MAX = 256,
    RULESET_EXCEPTIONS_MAX = 64,
    RULESET_LINE_MAX = 512,         /* bytes of a line in any list */
    RULESET_JSON_MAX = 65536,       /* bytes of rules.json */
    RULESET_CLICK_MS_MAX = 3600000, /* the state reaches back 1 to 2 hours */
    RULESET_RATE_MAX = 4000,
    RULESET_NUMBER_MAX = 65535,
};

struct ruleset;
struct ruleset_source;

/* dir NULL or "": built-in rules only. data_dir holds rulesets/; NULL: sets are not
 * kept (tests, benchmarks). */
enum err ruleset_open(struct ruleset_source **out, const char *dir,
                      const char *data_dir, struct why *why);
void ruleset_close(struct ruleset_source **source);
/* Looks for changed files; *changed tells whether a new set was swapped in. */
enum err ruleset_poll(struct ruleset_source *source, bool *changed,
                      struct why *why);
const struct ruleset *ruleset_take(struct ruleset_source *source);
void ruleset_drop(struct ruleset_source *source, const struct ruleset *set);

uint16_t ruleset_number(const struct ruleset *set);
const uint8_t *ruleset_sha256(const struct ruleset *set); /* 32 bytes */

/* Rule thresholds in force. */
struct ruleset_limits {
    int64_t double_click_ms;     /* 10 000 */
    int64_t repeat_click_ms;     /* 3 600 000 */
    uint32_t address_minute_max; /* 100 */
    uint32_t address_second_max; /* 10 */
    uint32_t shadow; /* bits of reasons that are recorded, not applied */
};
const struct ruleset_limits *ruleset_limits(const struct ruleset *set);

bool ruleset_address_bad(const struct ruleset *set, struct str ip);
bool ruleset_honeypot(const struct ruleset *set, struct str ad_id);
/* REASON_none, REASON_empty_agent, REASON_non_browser_agent or REASON_known_bot_agent;
 * answers are cached by the agent's hash inside cache, one a thread. */
struct agent_cache;
enum { AGENT_CACHE_SLOTS = 65536 };
struct agent_cache *agent_cache_new(void);
void agent_cache_free(struct agent_cache **cache);
int ruleset_agent(const struct ruleset *set, struct agent_cache *cache,
                  struct str agent);

#endif

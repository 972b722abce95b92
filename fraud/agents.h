/* fraud/agents.h - many patterns against one user agent.
 *
 * Substrings stand in one Aho-Corasick automaton, so their number costs nothing; regular
 * expressions run one by one; exceptions are blanked out first, so that the word "cubot" (a
 * maker of phones) is not a "bot".
 *
 * Memory   16 bytes a byte of pattern that no other pattern begins with.
 * Errors   agents_add: ERR_INVALID (line too long, bad expression), ERR_FULL (over the
 *          limits of fraud/ruleset.h), ERR_NOMEM.
 * Threads  Building one; agents_match any, after agents_finish.
 * Source   Aho and Corasick, Efficient string matching, CACM 18 (1975).
 */
#ifndef FRAUD_AGENTS_H
#define FRAUD_AGENTS_H

#include <stdbool.h>

#include "common/err.h"
#include "common/str.h"

struct agents;

enum err agents_open(struct agents **out, struct why *why);
void agents_close(struct agents **agents);
/* One line of bots.txt: neither blank nor a comment. */
enum err agents_add(struct agents *agents, struct str line, struct why *why);
enum err agents_finish(struct agents *agents, struct why *why);
bool agents_match(const struct agents *agents, struct str agent);

#endif

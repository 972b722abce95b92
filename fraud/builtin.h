/* fraud/builtin.h - the built-in rule set, as the texts of its files.
 *
 * Threads  Constants.
 */
#ifndef FRAUD_BUILTIN_H
#define FRAUD_BUILTIN_H

/* NULL unless name is one of rules.json, bots.txt, addresses.txt, honeypots.txt. */
const char *builtin_text(const char *name);

#endif

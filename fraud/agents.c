#include "fraud/agents.h"

#include <assert.h>
#include <regex.h>
#include <stdlib.h>

#include "fraud/ruleset.h"

enum {
    AGENT_MAX = 1024, /* of CLICK_FIELDS; what is beyond is not looked at */
    NODES_FIRST = 4096,
    NODES_MAX = RULESET_PATTERNS_MAX * 64,
};

/* The root is node 0. Children are a list; the root's are also in a table. */
struct node {
    uint32_t child, sibling; /* 0: none */
    uint32_t fail;           /* the longest proper suffix that is a node */
    uint8_t byte;
    bool match; /* a pattern ends here or at a suffix */
};

struct agents {
    struct node *nodes;
    uint32_t nodes_n, nodes_cap;
    uint32_t root[256];
    uint32_t patterns_n;
    regex_t *regexes;
    uint32_t regexes_n;
    char *exceptions[RULESET_EXCEPTIONS_MAX]; /* lower case */
    uint32_t exceptions_n;
    bool finished;
};

static char
lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

static void
lower_copy(char *out, struct str text)
{
    for (uint32_t i = 0; i < text.n; i++)
        out[i] = lower(text.p[i]);
    out[text.n] = '\0';
}

enum err
agents_open(struct agents **out, struct why *why)
{
    struct agents *agents = calloc(1, sizeof(*agents));

    *out = NULL;
    if (agents == NULL)
        goto nomem;
    agents->nodes = calloc(NODES_FIRST, sizeof(*agents->nodes));
    agents->regexes = calloc(RULESET_REGEXES_MAX, sizeof(*agents->regexes));
    if (agents->nodes == NULL || agents->regexes == NULL)
        goto nomem;
    agents->nodes_cap = NODES_FIRST;
    agents->nodes_n = 1;
    *out = agents;
    return ERR_OK;

nomem:
    agents_close(&agents);
    return err_set(why, ERR_NOMEM, "no memory for agent patterns");
}

void
agents_close(struct agents **agents)
{
    if (*agents == NULL)
        return;
    for (uint32_t i = 0; i < (*agents)->regexes_n; i++)
        regfree(&(*agents)->regexes[i]);
    for (uint32_t i = 0; i < (*agents)->exceptions_n; i++)
        free((*agents)->exceptions[i]);
    free((*agents)->regexes);
    free((*agents)->nodes);
    free(*agents);
    *agents = NULL;
}

static uint32_t
node_step(const struct agents *agents, uint32_t node, uint8_t byte)
{
    if (node == 0)
        return agents->root[byte];
    uint32_t child = agents->nodes[node].child;

    while (child != 0 && agents->nodes[child].byte != byte)
        child = agents->nodes[child].sibling;
    return child;
}

static enum err
node_add(struct agents *agents, uint32_t parent, uint8_t byte, uint32_t *out,
         struct why *why)
{
    if (agents->nodes_n == NODES_MAX)
        return err_set(why, ERR_FULL, "patterns are too long together");
    if (agents->nodes_n == agents->nodes_cap) {
        uint32_t cap = 2 * agents->nodes_cap;
        struct node *grown = realloc(agents->nodes, cap * sizeof(*grown));

        if (grown == NULL)
            return err_set(why, ERR_NOMEM, "no memory for agent patterns");
        agents->nodes = grown;
        agents->nodes_cap = cap;
    }
    uint32_t node = agents->nodes_n++;

    agents->nodes[node] =
        (struct node){.sibling = agents->nodes[parent].child, .byte = byte};
    agents->nodes[parent].child = node;
    if (parent == 0)
        agents->root[byte] = node;
    *out = node;
    return ERR_OK;
}

static enum err
substring_add(struct agents *agents, struct str text, struct why *why)
{
    uint32_t node = 0;

    for (uint32_t i = 0; i < text.n; i++) {
        uint8_t byte = (uint8_t)lower(text.p[i]);
        uint32_t next = node_step(agents, node, byte);

        if (next == 0) {
            enum err err = node_add(agents, node, byte, &next, why);
            if (err != ERR_OK)
                return err;
        }
        node = next;
    }
    agents->nodes[node].match = true;
    return ERR_OK;
}

static enum err
regex_add(struct agents *agents, struct str text, struct why *why)
{
    char source[RULESET_LINE_MAX + 1], reason[128];

    if (agents->regexes_n == RULESET_REGEXES_MAX)
        return err_set(why, ERR_FULL, "more than %d regular expressions",
                       RULESET_REGEXES_MAX);
    memcpy(source, text.p, text.n);
    source[text.n] = '\0';
    regex_t *regex = &agents->regexes[agents->regexes_n];
    int failed = regcomp(regex, source, REG_EXTENDED | REG_ICASE | REG_NOSUB);

    if (failed != 0) {
        (void)regerror(failed, regex, reason, sizeof(reason));
        return err_set(why, ERR_INVALID, "not a regular expression: %s", reason);
    }
    agents->regexes_n++;
    return ERR_OK;
}

static enum err
exception_add(struct agents *agents, struct str text, struct why *why)
{
    if (agents->exceptions_n == RULESET_EXCEPTIONS_MAX)
        return err_set(why, ERR_FULL, "more than %d exceptions",
                       RULESET_EXCEPTIONS_MAX);
    char *copy = malloc(text.n + 1);

    if (copy == NULL)
        return err_set(why, ERR_NOMEM, "no memory for agent patterns");
    lower_copy(copy, text);
    agents->exceptions[agents->exceptions_n++] = copy;
    return ERR_OK;
}

enum err
agents_add(struct agents *agents, struct str line, struct why *why)
{
    assert(!agents->finished);
    if (line.n > RULESET_LINE_MAX)
        return err_set(why, ERR_INVALID, "longer than %d bytes", RULESET_LINE_MAX);
    if (line.n == 0 || memchr(line.p, 0, line.n) != NULL)
        return err_set(why, ERR_INVALID, "empty, or with a zero byte");
    if (++agents->patterns_n > RULESET_PATTERNS_MAX)
        return err_set(why, ERR_FULL, "more than %d patterns",
                       RULESET_PATTERNS_MAX);
    bool is_exception = line.p[0] == '!';
    bool is_regex = line.p[0] == '/' && line.p[line.n - 1] == '/' && line.n > 1;

    if (!is_exception && !is_regex)
        return substring_add(agents, line, why);
    struct str inner = {line.p + 1, line.n - (is_regex ? 2 : 1)};

    if (inner.n == 0)
        return err_set(why, ERR_INVALID, "%s without a pattern",
                       is_regex ? "//" : "!");
    return is_regex ? regex_add(agents, inner, why)
                    : exception_add(agents, inner, why);
}

/* The fail links, in order of depth: a node's is found from its parent's. */
enum err
agents_finish(struct agents *agents, struct why *why)
{
    uint32_t *queue = malloc(agents->nodes_n * sizeof(*queue));
    uint32_t head = 0, tail = 0;

    if (queue == NULL)
        return err_set(why, ERR_NOMEM, "no memory for agent patterns");
    queue[tail++] = 0;
    while (head < tail) {
        uint32_t parent = queue[head++];

        for (uint32_t node = agents->nodes[parent].child; node != 0;
             node = agents->nodes[node].sibling) {
            uint8_t byte = agents->nodes[node].byte;
            uint32_t fail = agents->nodes[parent].fail, next = 0;

            while (parent != 0 && (next = node_step(agents, fail, byte)) == 0 &&
                   fail != 0)
                fail = agents->nodes[fail].fail;
            agents->nodes[node].fail = next;
            if (agents->nodes[next].match)
                agents->nodes[node].match = true;
            queue[tail++] = node;
        }
    }
    assert(tail == agents->nodes_n);
    free(queue);
    agents->finished = true;
    return ERR_OK;
}

static bool
substrings_match(const struct agents *agents, const char *text, size_t n)
{
    uint32_t node = 0;

    for (size_t i = 0; i < n; i++) {
        uint8_t byte = (uint8_t)text[i];
        uint32_t next;

        while ((next = node_step(agents, node, byte)) == 0 && node != 0)
            node = agents->nodes[node].fail;
        node = next;
        if (agents->nodes[node].match)
            return true;
    }
    return false;
}

bool
agents_match(const struct agents *agents, struct str agent)
{
    assert(agents->finished);
    char text[AGENT_MAX + 1];
    struct str seen = {agent.p, agent.n < AGENT_MAX ? agent.n : AGENT_MAX};

    lower_copy(text, seen);
    for (uint32_t i = 0; i < agents->exceptions_n; i++) {
        const char *word = agents->exceptions[i];

        for (char *at = strstr(text, word); at != NULL; at = strstr(at, word))
            memset(at, '\x01', strlen(word));
    }
    if (substrings_match(agents, text, seen.n))
        return true;
    for (uint32_t i = 0; i < agents->regexes_n; i++)
        if (regexec(&agents->regexes[i], text, 0, NULL, 0) == 0)
            return true;
    return false;
}

/* rules.json. */

#include <cjson/cJSON.h>
#include <math.h>

#include "fraud/ruleset_load.h"
#include "fraud/verdict.h"

static enum err
number_take(const cJSON *item, int64_t min, int64_t max, int64_t *out,
            struct why *why)
{
    if (!cJSON_IsNumber(item) || item->valuedouble < (double)min ||
        item->valuedouble > (double)max ||
        floor(item->valuedouble) < item->valuedouble)
        return err_set(why, ERR_INVALID,
                       "rules.json: %s must be a whole number in %lld..%lld",
                       item->string, (long long)min, (long long)max);
    *out = (int64_t)item->valuedouble;
    return ERR_OK;
}

/* What keeps a click from being billed twice, or to nobody, is not up for trial. */
static bool
may_shadow(enum reason reason)
{
    enum verdict_kind kind = reason_info(reason)->verdict;

    return kind == VERDICT_INVALID || kind == VERDICT_SUSPICIOUS;
}

static enum err
shadow_take(const cJSON *list, uint32_t *out, struct why *why)
{
    const cJSON *item;

    if (!cJSON_IsArray(list))
        return err_set(why, ERR_INVALID,
                       "rules.json: shadow must be a list of rules' names");
    *out = 0;
    cJSON_ArrayForEach(item, list)
    {
        enum reason reason = cJSON_IsString(item)
                                 ? reason_find(str_of(item->valuestring))
                                 : REASONS_N;

        if (reason == REASONS_N)
            return err_set(why, ERR_INVALID, "rules.json: shadow: %.64s is no rule",
                           cJSON_IsString(item) ? item->valuestring
                                                : "what is not text");
        if (!may_shadow(reason))
            return err_set(why, ERR_INVALID,
                           "rules.json: shadow: %s cannot be in shadow",
                           item->valuestring);
        *out |= UINT32_C(1) << reason;
    }
    return ERR_OK;
}

static enum err
key_take(struct ruleset_limits *limits, const cJSON *item, struct why *why)
{
    int64_t number = 0;
    enum err err;

    if (strcmp(item->string, "shadow") == 0)
        return shadow_take(item, &limits->shadow, why);
    if (strcmp(item->string, "double_click_ms") == 0)
        return number_take(item, 0, RULESET_CLICK_MS_MAX, &limits->double_click_ms,
                           why);
    if (strcmp(item->string, "repeat_click_ms") == 0)
        return number_take(item, 0, RULESET_CLICK_MS_MAX, &limits->repeat_click_ms,
                           why);
    if (strcmp(item->string, "address_minute_max") == 0) {
        err = number_take(item, 1, RULESET_RATE_MAX, &number, why);
        limits->address_minute_max = (uint32_t)number;
        return err;
    }
    if (strcmp(item->string, "address_second_max") == 0) {
        err = number_take(item, 1, RULESET_RATE_MAX, &number, why);
        limits->address_second_max = (uint32_t)number;
        return err;
    }
    return err_set(why, ERR_INVALID, "rules.json: no such key: %.64s",
                   item->string);
}

static enum err
object_take(struct ruleset_limits *limits, const cJSON *root, struct why *why)
{
    const cJSON *item;

    if (!cJSON_IsObject(root))
        return err_set(why, ERR_INVALID, "rules.json: must be one JSON object");
    cJSON_ArrayForEach(item, root)
    {
        for (const cJSON *before = root->child; before != item;
             before = before->next)
            if (strcmp(before->string, item->string) == 0)
                return err_set(why, ERR_INVALID, "rules.json: %.64s is there twice",
                               item->string);
        enum err err = key_take(limits, item, why);
        if (err != ERR_OK)
            return err;
    }
    return ERR_OK;
}

enum err
ruleset_rules_parse(struct ruleset_limits *limits, const char *json,
                    struct why *why)
{
    const char *end = NULL;
    cJSON *root = cJSON_ParseWithOpts(json, &end, 1);
    enum err err;

    *limits = (struct ruleset_limits){.double_click_ms = 10000,
                                      .repeat_click_ms = 3600000,
                                      .address_minute_max = 100,
                                      .address_second_max = 10};
    if (root == NULL)
        return err_set(why, ERR_INVALID, "rules.json: not JSON at byte %td",
                       end - json);
    err = object_take(limits, root, why);
    cJSON_Delete(root);
    return err;
}

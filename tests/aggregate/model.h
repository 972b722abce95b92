/* tests/aggregate/model.h - every row computed anew from the log and the recorded verdicts,
 * and compared with what Redis has. */
#ifndef TESTS_AGGREGATE_MODEL_H
#define TESTS_AGGREGATE_MODEL_H

#include "rig.h"

struct cell_model {
    char key[REDISKEY_MAX];
    char field[80];
    int64_t numbers[6];
    unsigned n;
};

struct model {
    struct cell_model *cells;
    size_t n;
};

/* Adds up without looking for an equal one: sorted and folded at the end. */
static inline void
model_add(struct model *model, const char *key, const char *prefix,
          struct str value, const int64_t *numbers, unsigned n)
{
    struct cell_model *cell;

    if (value.n == 0 && prefix[0] != 't')
        return;
    if (model->n > 0 && model->n % CELLS_MAX == 0) {
        cell = realloc(model->cells, (model->n + CELLS_MAX) * sizeof(*cell));
        assert_non_null(cell);
        model->cells = cell;
    }
    cell = &model->cells[model->n++];
    (void)snprintf(cell->key, sizeof(cell->key), "%s", key);
    (void)snprintf(cell->field, sizeof(cell->field), "%s%.*s", prefix, (int)value.n,
                   value.n == 0 ? "" : value.p);
    memset(cell->numbers, 0, sizeof(cell->numbers));
    memcpy(cell->numbers, numbers, n * sizeof(*numbers));
    cell->n = n;
}

static inline int
model_order(const void *a, const void *b)
{
    const struct cell_model *x = a, *y = b;
    int order = strcmp(x->key, y->key);

    return order != 0 ? order : strcmp(x->field, y->field);
}

static inline void
model_fold(struct model *model)
{
    size_t kept = 0;

    qsort(model->cells, model->n, sizeof(*model->cells), model_order);
    for (size_t i = 0; i < model->n; i++) {
        if (kept > 0 && model_order(&model->cells[kept - 1], &model->cells[i]) == 0)
            for (unsigned k = 0; k < 6; k++)
                model->cells[kept - 1].numbers[k] += model->cells[i].numbers[k];
        else
            model->cells[kept++] = model->cells[i];
    }
    model->n = kept;
}

static inline void
model_click(struct model *model, struct rig *rig, const struct click *click,
            struct verdict v, uint32_t generation)
{
    const struct master *master = master_take(rig->master);
    const struct master_campaign *campaign =
        master_campaign_find(master, click->campaign_id);
    bool billable = verdict_is_billable((enum verdict_kind)v.kind);
    int64_t now_s = clock_now_us() / 1000000;

    for (unsigned w = 0; campaign != NULL && w < WINDOWS_N; w++) {
        int64_t start =
            window_start((enum window)w, campaign->zone, click->timestamp_ms);
        int64_t end = window_end((enum window)w, campaign->zone, start);
        int64_t price =
            master_price(campaign, click->timestamp_ms, click->price_micros);
        int64_t add[6] = {billable,
                          billable ? price : 0,
                          v.kind == VERDICT_SUSPICIOUS,
                          v.kind == VERDICT_INVALID,
                          v.kind == VERDICT_DUPLICATE,
                          v.kind == VERDICT_QUARANTINED};
        char key[REDISKEY_MAX + 1];

        if (window_expiry_s((enum window)w, end) <= now_s)
            continue;
        key[rediskey_row(key, click->partition, generation, (enum window)w,
                         click->campaign_id, start)] = '\0';
        model_add(model, key, "t", (struct str){0}, add, 6);
        if (!billable)
            model_add(model, key,
                      "r:", str_of(reason_info((enum reason)v.reason)->name),
                      (int64_t[]){1}, 1);
        if (!billable && v.kind != VERDICT_INVALID)
            continue;
        model_add(model, key, "a:", click->ad_id, add, 4);
        model_add(model, key, "g:", click->ad_group_id, add, 4);
        model_add(model, key, "n:", click->country, add, 4);
        model_add(model, key, "d:", str_of(click_device_name(click->device)), add,
                  4);
        model_add(model, key, "p:", click->publisher_id, add, 4);
        if (!billable)
            continue;
        /* The uniques, by a HyperLogLog that gets every id. */
        char all[REDISKEY_MAX + 8], user[160];
        (void)snprintf(all, sizeof(all), "all:%s", key);
        (void)snprintf(user, sizeof(user), "%.*s", (int)click->user_id.n,
                       click->user_id.p);
        tell(rig, "PFADD", all, user, NULL);
    }
    master_drop(rig->master, master);
}

static inline void
model_partition(struct model *model, struct rig *rig, uint32_t p)
{
    struct clicklog_reader *reader;
    struct clicklog_record record;
    struct why why = {""};
    uint64_t first, next, verdict;
    char generation[128];

    owner_field(rig, p, "generation", generation);
    must(clicklog_range(rig->log, p, &first, &next, &why), &why);
    must(clicklog_reader_open(&reader, rig->log, &why), &why);
    must(clicklog_seek(reader, p, first, &why), &why);
    while (clicklog_next(reader, &record, &why) == ERR_OK) {
        struct click click;
        struct verdict v;

        must(click_decode(&click, record.p, record.n, record.version, NULL, &why),
             &why);
        uint64_t at = rig->kafka ? rig->at[p][record.offset] : record.offset;

        must(verdictlog_read(rig->verdicts, p, at, 1, &verdict, &why), &why);
        assert_true(verdict != 0);
        v = verdict_unpack(verdict);
        if (v.reason != REASON_unknown_campaign)
            model_click(model, rig, &click, v,
                        (uint32_t)strtoul(generation, NULL, 10));
    }
    clicklog_reader_close(&reader);
}

static inline size_t
count_keys(struct rig *rig, uint32_t p)
{
    static const char *const names[] = WINDOW_NAMES;
    char generation[128], pattern[160];
    size_t n = 0;

    owner_field(rig, p, "generation", generation);
    for (unsigned w = 0; w < WINDOWS_N; w++) {
        struct redis_reply *reply;

        (void)snprintf(pattern, sizeof(pattern), "{p%u}:%s:%s:*", p, generation,
                       names[w]);
        reply = ask(rig, "KEYS", pattern, NULL, NULL);
        n += reply->count;
        redis_reply_free(&reply);
    }
    return n;
}

static inline void
expect_users(struct rig *rig, const char *key)
{
    char all[REDISKEY_MAX + 8], ours[REDISKEY_MAX + 8];
    const char *window = strchr(strchr(key, ':') + 1, ':') + 1;
    struct redis_reply *a, *b;

    (void)snprintf(all, sizeof(all), "all:%s", key);
    (void)snprintf(ours, sizeof(ours), "%.*shll:%s", (int)(window - key), key,
                   window);
    a = ask(rig, "PFCOUNT", all, NULL, NULL);
    b = ask(rig, "PFCOUNT", ours, NULL, NULL);
    if (a->integer != b->integer)
        fail_msg("%s: %lld users, want %lld", ours, (long long)b->integer,
                 (long long)a->integer);
    redis_reply_free(&a);
    redis_reply_free(&b);
}

/* One row: fields [from, to) of the model are all that Redis has, and equal. */
static inline void
expect_row(struct rig *rig, const struct cell_model *from,
           const struct cell_model *to)
{
    struct redis_reply *row = ask(rig, "HGETALL", from->key, NULL, NULL);

    if (row->count / 2 != (size_t)(to - from))
        fail_msg("%s: %zu fields, want %zu", from->key, row->count / 2,
                 (size_t)(to - from));
    for (size_t i = 0; i + 1 < row->count; i += 2) {
        const struct cell_model *cell = from;
        char want[160];
        uint32_t n;

        while (cell < to && !str_equal(row->items[i]->text, str_of(cell->field)))
            cell++;
        if (cell == to)
            fail_msg("%s: a field %.*s too many", from->key,
                     (int)row->items[i]->text.n, row->items[i]->text.p);
        n = numbers_format(want, cell->numbers, cell->n);
        if (!str_equal(row->items[i + 1]->text, (struct str){want, n}))
            fail_msg("%s %s is %.*s, want %.*s", cell->key, cell->field,
                     (int)row->items[i + 1]->text.n, row->items[i + 1]->text.p,
                     (int)n, want);
    }
    redis_reply_free(&row);
    row = ask(rig, "TTL", from->key, NULL, NULL);
    assert_true(row->integer > 0); /* nothing lives for ever */
    redis_reply_free(&row);
    expect_users(rig, from->key);
}

/* Redis has what the recorded verdicts say, all of it and nothing else. */
static inline void
rig_expect(struct rig *rig)
{
    struct model model = {.cells = calloc(CELLS_MAX, sizeof(struct cell_model))};
    size_t rows = 0, keys = 0, from = 0;

    rig_settle(rig);
    for (uint32_t p = 0; p < PARTITIONS; p++)
        model_partition(&model, rig, p);
    model_fold(&model);
    for (size_t i = 1; i <= model.n; i++) {
        if (i < model.n && strcmp(model.cells[i].key, model.cells[from].key) == 0)
            continue;
        expect_row(rig, &model.cells[from], &model.cells[i]);
        from = i;
        rows++;
    }
    for (uint32_t p = 0; p < PARTITIONS; p++)
        keys += count_keys(rig, p);
    assert_int_equal(keys, rows);
    tell(rig, "EVAL",
         "for _, k in ipairs(redis.call('KEYS', 'all:*')) do redis.call('DEL', k) "
         "end",
         "0", NULL);
    free(model.cells);
}

#endif

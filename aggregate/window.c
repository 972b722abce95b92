#include "aggregate/window.h"

#include <assert.h>
#include <stdlib.h>

#include "aggregate/window_impl.h"
#include "common/clock.h"
#include "common/hash.h"
#include "schema/zone.h"

enum { USER_BYTES_MAX = 1 << 30, CAMP_SEED = 101, ROW_SEED = 102 };

void
list_add(struct windows *windows, struct list *list, uint32_t item)
{
    if (list->n == list->cap && !list_size(windows, list, list->n + 1))
        return;
    list->p[list->n++] = item;
}

/* Room for n items. */
bool
list_size(struct windows *windows, struct list *list, uint32_t n)
{
    uint32_t cap = list->cap < 64 ? 64 : list->cap;
    uint32_t *p;

    while (cap < n)
        cap *= 2;
    if (cap == list->cap)
        return true;
    p = realloc(list->p, cap * sizeof(*p));
    if (p == NULL) {
        windows->failed = true;
        return false;
    }
    list->p = p;
    list->cap = cap;
    return true;
}

static void
list_free(struct list *list)
{
    free(list->p);
    *list = (struct list){0};
}

uint64_t
window_value_hash(const struct windows *windows, unsigned dimension,
                  struct str text)
{
    return hash64(text.p, text.n, windows->cfg.seed + dimension);
}

static void
hashes_fill(struct windows *w)
{
    static const struct str other = {"__other__", 9};

    for (unsigned i = 0; i < CLICK_DEVICES_N; i++)
        w->device_hash[i] =
            window_value_hash(w, DIMENSION_DEVICE, str_of(click_device_name(i)));
    for (unsigned i = 0; i < REASONS_N; i++)
        w->reason_hash[i] = window_value_hash(
            w, CELL_DIMENSION_REASON, str_of(reason_info((enum reason)i)->name));
    for (unsigned i = 0; i < DIMENSIONS_N; i++)
        w->other_hash[i] = window_value_hash(w, i, other);
}

enum err
windows_open(struct windows **out, const struct windows_config *cfg,
             struct why *why)
{
    struct windows *windows = calloc(1, sizeof(*windows));

    assert(cfg->values_max > 0);
    *out = windows;
    if (windows == NULL)
        return err_set(why, ERR_NOMEM, "aggregate: no memory for windows");
    windows->cfg = *cfg;
    windows->user_bytes = BUF_MAX(USER_BYTES_MAX);
    hashes_fill(windows);
    return ERR_OK;
}

void
windows_clear(struct windows *w)
{
    for (uint32_t i = 1; i < w->rows_n; i++)
        users_free(&w->rows[i].users, &w->users_bytes);
    for (uint32_t i = 1; i < w->camps_n; i++)
        free(w->camps[i].live);
    cells_close(&w->cells);
    index_free(&w->camp_index);
    index_free(&w->row_index);
    free(w->camps);
    free(w->rows);
    w->camps = NULL;
    w->rows = NULL;
    w->camps_n = w->camps_cap = w->rows_n = w->rows_cap = 0;
    for (unsigned i = 0; i < WINDOWS_N; i++) {
        list_free(&w->dirty_cells[i]);
        list_free(&w->dirty_rows[i]);
    }
    struct list *lists[] = {&w->camps_free,     &w->rows_free, &w->loads,
                            &w->dirty_lives,    &w->out_rows,  &w->out_cells,
                            &w->out_cells_from, &w->out_users, &w->out_users_from};
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        list_free(lists[i]);
    free(w->users);
    w->users = NULL;
    w->users_n = w->users_cap = 0;
    buf_free(&w->user_bytes);
    w->user_bytes = BUF_MAX(USER_BYTES_MAX);
    w->stats.rows = w->stats.campaigns = 0;
    w->failed = false;
    assert(w->users_bytes == 0);
}

void
windows_close(struct windows **windows)
{
    if (*windows == NULL)
        return;
    windows_clear(*windows);
    free(*windows);
    *windows = NULL;
}

bool
windows_failed(const struct windows *windows)
{
    return windows->failed;
}

void
windows_stats_get(const struct windows *windows, struct windows_stats *out)
{
    *out = windows->stats;
    out->cells = windows->cells.live;
    out->users_bytes = windows->users_bytes;
}

/* A place in an array of *n items of size bytes, from the free list or by growth; 0: no
 * memory. Place 0 is never given. */
static uint32_t
place_take(struct windows *w, struct list *freed, void **array, uint32_t *n,
           uint32_t *cap, size_t size)
{
    if (freed->n > 0)
        return freed->p[--freed->n];
    if (*n == 0)
        *n = 1;
    if (*n >= *cap) {
        uint32_t bigger = *cap < 32 ? 32 : *cap * 2;
        void *p = bigger >= LOAD_LIVE ? NULL : realloc(*array, bigger * size);

        if (p == NULL) {
            w->failed = true;
            return 0;
        }
        *array = p;
        *cap = bigger;
    }
    /* So that giving it back never fails. */
    if (!list_size(w, freed, *cap))
        return 0;
    return (*n)++;
}

static uint32_t
camp_make(struct windows *w, struct str id, uint64_t hash)
{
    void *array = w->camps;
    uint32_t i = place_take(w, &w->camps_free, &array, &w->camps_n, &w->camps_cap,
                            sizeof(struct camp));

    w->camps = array;
    if (i == 0)
        return 0;
    w->camps[i] = (struct camp){.hash = hash, .n = id.n};
    memcpy(w->camps[i].id, id.p, id.n);
    if (!index_put(&w->camp_index, hash, i)) {
        w->failed = true;
        w->camps_free.p[w->camps_free.n++] = i;
        return 0;
    }
    w->stats.campaigns++;
    return i;
}

static uint32_t
camp_of(struct windows *w, struct str id)
{
    uint64_t hash = hash64(id.p, id.n, w->cfg.seed + CAMP_SEED);
    uint32_t i = index_find(&w->camp_index, hash);

    assert(id.n <= CAMPAIGN_ID_MAX);
    if (i == 0)
        return camp_make(w, id, hash);
    assert(w->camps[i].n == id.n);
    return i;
}

static uint64_t
mix(uint64_t x)
{
    x ^= x >> 30;
    x *= UINT64_C(0xbf58476d1ce4e5b9);
    x ^= x >> 27;
    x *= UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint64_t
row_key(const struct windows *w, uint32_t camp, enum window window,
        int64_t start_ms)
{
    return mix(w->camps[camp].hash ^ mix((uint64_t)start_ms * WINDOWS_N + window));
}

static uint32_t
row_make(struct windows *w, uint32_t camp, enum window window, int64_t start_ms,
         uint64_t key)
{
    const struct zone *zone = w->camps[camp].zone;
    void *array = w->rows;
    uint32_t i = place_take(w, &w->rows_free, &array, &w->rows_n, &w->rows_cap,
                            sizeof(struct row));

    w->rows = array;
    if (i == 0)
        return 0;
    w->rows[i] = (struct row){
        .camp = camp,
        .window = (uint8_t)window,
        .start_ms = start_ms,
        .expiry_s = window_expiry_s(window, window_end(window, zone, start_ms)),
        .salt = mix(w->cfg.seed + ++w->salts),
        .key = key,
        .users_whole = true,
    };
    if (!index_put(&w->row_index, key, i)) {
        w->failed = true;
        w->rows_free.p[w->rows_free.n++] = i;
        w->rows[i].camp = 0;
        return 0;
    }
    w->camps[camp].rows++;
    w->stats.rows++;
    list_add(w, &w->loads, i);
    return i;
}

static uint32_t
row_of(struct windows *w, uint32_t camp, enum window window, int64_t start_ms)
{
    uint64_t key = row_key(w, camp, window, start_ms);
    uint32_t i = index_find(&w->row_index, key);

    if (i == 0)
        return row_make(w, camp, window, start_ms, key);
    assert(w->rows[i].camp == camp && w->rows[i].start_ms == start_ms);
    return i;
}

/* Gives a row its hour or day, up to the day. */
static void
row_attach(struct windows *w, uint32_t i)
{
    while (i != 0 && w->rows[i].window != WINDOW_1D && w->rows[i].parent == 0) {
        uint32_t camp = w->rows[i].camp;
        enum window up = (enum window)(w->rows[i].window + 1);
        uint32_t parent =
            row_of(w, camp, up,
                   window_start(up, w->camps[camp].zone, w->rows[i].start_ms));

        if (parent == 0)
            return;
        w->rows[i].parent = parent;
        w->rows[parent].children++;
        i = parent;
    }
}

/* A campaign's zone has changed: what was counted is derived by the old zone, what comes
 * goes by the new one. */
static void
camp_rezone(struct windows *w, uint32_t camp, const struct zone *zone)
{
    if (w->camps[camp].zone != NULL && w->camps[camp].rows > 0) {
        windows_derive(w);
        for (uint32_t i = 1; i < w->rows_n; i++) {
            if (w->rows[i].camp != camp || w->rows[i].parent == 0)
                continue;
            w->rows[w->rows[i].parent].children--;
            w->rows[i].parent = 0;
            /* Whom it knows, its new hour and day may not. */
            users_free(&w->rows[i].users, &w->users_bytes);
            w->rows[i].users_whole = false;
        }
    }
    w->camps[camp].zone = zone;
}

/* The finest row that still lives, or 0. */
static uint32_t
leaf_of(struct windows *w, uint32_t camp, int64_t event_ms, int64_t now_s)
{
    const struct zone *zone = w->camps[camp].zone;

    for (unsigned window = 0; window < WINDOWS_N; window++) {
        int64_t start_ms = window_start((enum window)window, zone, event_ms);
        int64_t end_ms = window_end((enum window)window, zone, start_ms);
        uint32_t i;

        if (window_expiry_s((enum window)window, end_ms) <= now_s)
            continue;
        i = row_of(w, camp, (enum window)window, start_ms);
        row_attach(w, i);
        return i;
    }
    return 0;
}

/* The same, for most clicks by one comparison. */
static uint32_t
leaf_find(struct windows *w, uint32_t camp, int64_t event_ms, int64_t now_s)
{
    int64_t start_ms = clock_floor(event_ms, 5 * CLOCK_MINUTE_MS);
    uint32_t *recent =
        &w->camps[camp].recent[start_ms / (5 * CLOCK_MINUTE_MS) % RECENT];
    const struct row *row = &w->rows[*recent];

    if (*recent != 0 && row->camp == camp && row->window == WINDOW_5M &&
        row->start_ms == start_ms && row->expiry_s > now_s && row->parent != 0)
        return *recent;

    uint32_t leaf = leaf_of(w, camp, event_ms, now_s);
    if (leaf != 0 && w->rows[leaf].window == WINDOW_5M)
        w->camps[camp].recent[start_ms / (5 * CLOCK_MINUTE_MS) % RECENT] = leaf;
    return leaf;
}

static void
live_make(struct windows *w, uint32_t camp)
{
    w->camps[camp].live = calloc(1, sizeof(struct live));
    if (w->camps[camp].live == NULL)
        w->failed = true;
    else
        list_add(w, &w->loads, camp | LOAD_LIVE);
}

void
windows_touch(struct windows *w, struct window_click *clicks, size_t n,
              int64_t now_us)
{
    int64_t now_s = now_us / CLOCK_SECOND_US;

    assert(n <= WINDOW_BATCH_MAX);
    for (size_t i = 0; i < n && !w->failed; i++) {
        const struct click *click = clicks[i].click;
        uint32_t camp = camp_of(w, click->campaign_id);

        clicks[i].leaf = 0;
        if (camp == 0)
            return;
        if (w->camps[camp].zone != clicks[i].zone)
            camp_rezone(w, camp, clicks[i].zone);
        clicks[i].leaf = leaf_find(w, camp, click->timestamp_ms, now_s);
        if (clicks[i].leaf == 0)
            w->stats.expired += !w->failed;
        else if (w->camps[camp].live == NULL &&
                 click->timestamp_ms / 1000 > now_s - LIVE_AGE_S_MAX)
            live_make(w, camp);
    }
}

uint32_t
windows_loads(const struct windows *windows)
{
    return windows->loads.n;
}

struct window_load
windows_load_get(const struct windows *w, uint32_t i)
{
    uint32_t item = w->loads.p[i];
    bool live = (item & LOAD_LIVE) != 0;
    uint32_t c = live ? item & ~LOAD_LIVE : w->rows[item].camp;

    return (struct window_load){
        .live = live,
        .window = live ? WINDOW_5M : (enum window)w->rows[item].window,
        .campaign = {w->camps[c].id, w->camps[c].n},
        .start_ms = live ? 0 : w->rows[item].start_ms,
    };
}

static bool
cell_load(struct windows *w, uint32_t row, struct str field, struct str value)
{
    static const char letters[] = DIMENSION_LETTERS "r";
    const char *letter = memchr(letters, field.p[0], sizeof(letters) - 1);
    int64_t numbers[WINDOW_CELL_N] = {0};
    struct str text = {field.p + 2, field.n - 2};
    unsigned dimension;
    uint32_t i;

    if (letter == NULL || field.p[1] != ':')
        return false;
    dimension = (unsigned)(letter - letters);
    if (!numbers_parse(value, numbers,
                       dimension == CELL_DIMENSION_REASON ? 1 : WINDOW_CELL_N))
        return false;
    i = window_cell_make(w, row, window_value_hash(w, dimension, text), dimension,
                         text);
    if (i == 0)
        return true; /* failed says it */
    struct cell *cell = cell_at(&w->cells, i);
    if (cell->extra) {
        /* A lower dimension_values_max than the row was written with: it keeps its
         * place all the same. */
        cell->extra = 0;
        cell->next = w->rows[row].cells;
        w->rows[row].cells = i;
    }
    cell->clicks = numbers[0];
    cell->cost = numbers[1];
    cell->flagged = numbers[2];
    cell->invalid = numbers[3];
    return true;
}

bool
windows_load_field(struct windows *w, uint32_t i, struct str field,
                   struct str value)
{
    uint32_t item = w->loads.p[i];

    if ((item & LOAD_LIVE) != 0)
        return live_load(w->camps[item & ~LOAD_LIVE].live, field, value);
    if (str_equal(field, STR("t")))
        return numbers_parse(value, w->rows[item].totals, WINDOW_TOTALS_N);
    return field.n > 2 && cell_load(w, item, field, value);
}

bool
windows_load_users(struct windows *w, uint32_t i, struct str text)
{
    struct row *row = &w->rows[w->loads.p[i]];
    enum user_answer answer =
        users_load(&row->users, text, &w->users_bytes, w->cfg.users_bytes_max);

    assert((w->loads.p[i] & LOAD_LIVE) == 0);
    if (answer == USER_UNSURE)
        row->users_whole = false;
    return answer != USER_DAMAGED;
}

void
windows_loads_done(struct windows *windows)
{
    windows->loads.n = 0;
}

static void
row_drop(struct windows *w, uint32_t i)
{
    struct row *row = &w->rows[i];
    struct camp *camp = &w->camps[row->camp];

    assert(row->children == 0 && !row->dirty);
    for (uint32_t c = row->cells, next; c != 0; c = next) {
        next = cell_at(&w->cells, c)->next;
        cell_free(&w->cells, row->salt, c);
    }
    users_free(&row->users, &w->users_bytes);
    index_remove(&w->row_index, row->key);
    if (row->parent != 0)
        w->rows[row->parent].children--;
    camp->rows--;
    if (camp->rows == 0 && !camp->live_listed) {
        free(camp->live);
        camp->live = NULL;
        index_remove(&w->camp_index, camp->hash);
        w->camps_free.p[w->camps_free.n++] = row->camp;
        w->stats.campaigns--;
    }
    *row = (struct row){0};
    w->rows_free.p[w->rows_free.n++] = i;
    w->stats.rows--;
}

void
windows_evict(struct windows *w, int64_t now_us, int64_t idle_us, uint64_t rows_max)
{
    assert(w->loads.n == 0);
    /* Finest first, so that parents lose their children before their own turn; and when
     * there are too many, by shorter and shorter idleness. */
    for (;; idle_us /= 4) {
        for (unsigned window = 0; window < WINDOWS_N; window++)
            for (uint32_t i = 1; i < w->rows_n; i++) {
                const struct row *row = &w->rows[i];

                if (row->camp != 0 && row->window == window && row->children == 0 &&
                    !row->dirty && now_us - row->touched_us >= idle_us)
                    row_drop(w, i);
            }
        if (w->stats.rows <= rows_max || idle_us == 0)
            return;
    }
}

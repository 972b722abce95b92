#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "billing/idrun_file.h"
#include "billing/judge_core.h"
#include "common/clock.h"
#include "schema/zone.h"

enum {
    RADIX_BITS = 11,
    RADIX = 1 << RADIX_BITS,
    PASSES = 3,
    FILTER_PER_CLICK = 16,
    LOOKS = 1024 /* hashes of a run looked at together */
};

bool
batch_full(const struct judge *judge)
{
    return judge->clicks_n == judge->clicks_cap || dims_full(judge->dims);
}

/* Keeps the slice's accounts sorted; most clicks are of one that is known. */
static enum err
account_note(struct judge *judge, uint32_t account, struct why *why)
{
    uint32_t low = 0, high = judge->accounts_n;

    while (low < high) {
        uint32_t middle = (low + high) / 2;

        if (judge->accounts[middle] < account)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < judge->accounts_n && judge->accounts[low] == account)
        return ERR_OK;
    if (judge->accounts_n == judge->accounts_cap) {
        uint32_t cap = judge->accounts_cap * 2 + 64;
        uint32_t *grown = realloc(judge->accounts, cap * sizeof(*grown));

        if (grown == NULL || cap > 2 * JUDGE_ACCOUNTS_MAX) {
            judge->accounts = grown == NULL ? judge->accounts : grown;
            return err_set(why, ERR_NOMEM, "judge: too many accounts in one batch");
        }
        judge->accounts = grown;
        judge->accounts_cap = cap;
    }
    memmove(judge->accounts + low + 1, judge->accounts + low,
            (judge->accounts_n - low) * sizeof(*judge->accounts));
    judge->accounts[low] = account;
    judge->accounts_n++;
    return ERR_OK;
}

enum err
batch_add(struct judge *judge, const struct stream_click *in, struct why *why)
{
    const struct judge_input *input = judge->in;
    const struct click *click = in->click;
    struct judged *out = &judge->clicks[judge->clicks_n];
    struct fraud_facts facts;
    enum err err;

    assert(judge->clicks_n < judge->clicks_cap);
    fraud_examine(input->rules, input->master, judge->agents, click, &facts);
    *out = (struct judged){
        .id_hash = facts.id_hash,
        .user_key = facts.user_key,
        .address_key = facts.address_key,
        .event_ms = facts.event_ms,
        .hour_us = clock_floor(click->received_us, CLOCK_HOUR_US),
        .list_micros = facts.price_micros,
        .seq = click->seq,
        .account = click->account,
        .payload = in->payload,
        .reasons = facts.reasons,
        .file = in->file,
        .row = in->row,
        .campaign = JUDGE_NO_CAMPAIGN,
        .day = (int32_t)(clock_floor(facts.event_ms, CLOCK_DAY_MS) / CLOCK_DAY_MS),
    };
    memcpy(out->event_id, click->event_id, sizeof(out->event_id));
    if (facts.campaign != NULL) {
        out->campaign = facts.campaign->index;
        out->zone = judge->zone_of[facts.campaign->index];
        out->day = zone_day(facts.campaign->zone, facts.event_ms);
    }
    err = dims_number(judge->dims, click, out->day, out->zone, &out->dims, why);
    if (err == ERR_OK)
        err = account_note(judge, click->account, why);
    if (err == ERR_OK)
        judge->clicks_n++;
    return err;
}

static uint32_t
digit(uint64_t hash, int pass)
{
    return (uint32_t)(hash >> (64 - RADIX_BITS * (PASSES - pass))) & (RADIX - 1);
}

/* The top 33 bits by three stable passes; what is still equal there is put right by
 * insertion, which hardly ever moves anything: the hashes are uniform. */
void
judge_sort(struct sorted *sorted, struct sorted *spare, uint64_t n)
{
    struct sorted *from = sorted, *to = spare;

    for (int pass = 0; pass < PASSES; pass++) {
        uint64_t counts[RADIX] = {0}, sum = 0;

        for (uint64_t i = 0; i < n; i++)
            counts[digit(from[i].hash, pass)]++;
        for (uint32_t d = 0; d < RADIX; d++) {
            uint64_t count = counts[d];

            counts[d] = sum;
            sum += count;
        }
        for (uint64_t i = 0; i < n; i++)
            to[counts[digit(from[i].hash, pass)]++] = from[i];
        struct sorted *swapped = from;
        from = to;
        to = swapped;
    }
    memcpy(sorted, spare, n * sizeof(*sorted)); /* after an odd number of passes */
    for (uint64_t i = 1; i < n; i++) {
        struct sorted moved = sorted[i];
        uint64_t at = i;

        for (; at > 0 && sorted[at - 1].hash > moved.hash; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = moved;
    }
}

static bool
same_id(const struct judged *a, uint32_t account, const uint8_t event_id[16])
{
    return a->account == account && memcmp(a->event_id, event_id, 16) == 0;
}

/* The click repeats one with this payload, unless an earlier one has been found. */
static void
mark(struct judged *click, uint32_t first_payload)
{
    if (click->reasons & REASON_BIT(duplicate))
        return;
    click->reasons |= REASON_BIT(duplicate);
    if (click->payload != first_payload)
        click->flags |= FINAL_CONFLICT;
}

/* Whether what was received in hour_us is still remembered when the click comes. */
static bool
remembered(const struct judge *judge, const struct judged *click, int64_t hour_us)
{
    return hour_us >= click->hour_us - judge->dedup_us;
}

/* Of equal hashes, each that has an equal id before it within the days kept. What one click
 * no longer remembers, none after it does. */
static void
group_mark(const struct judge *judge, uint64_t first, uint64_t end)
{
    for (uint64_t j = first + 1; j < end; j++) {
        struct judged *click = &judge->clicks[judge->sorted[j].at];

        for (uint64_t i = first; i < j; i++) {
            const struct judged *before = &judge->clicks[judge->sorted[i].at];

            if (!remembered(judge, click, before->hour_us)) {
                first += i == first;
            } else if (same_id(before, click->account, click->event_id)) {
                mark(click, before->payload);
                break;
            }
        }
    }
}

static void
inside_mark(const struct judge *judge)
{
    for (uint64_t i = 0, end; i < judge->clicks_n; i = end) {
        for (end = i + 1; end < judge->clicks_n &&
                          judge->sorted[end].hash == judge->sorted[i].hash;)
            end++;
        if (end - i > 1)
            group_mark(judge, i, end);
    }
}

/* One bit for the top of each hash of the batch: a run streams past it in order, so both
 * are read in order, and one in FILTER_PER_CLICK of the strangers is looked at. */
struct filter {
    uint64_t *bits;
    int shift;
};

static enum err
filter_open(struct filter *filter, const struct judge *judge, struct why *why)
{
    int log2 = 12;

    while ((UINT64_C(1) << log2) < judge->clicks_n * FILTER_PER_CLICK)
        log2++;
    filter->shift = 64 - log2;
    filter->bits = calloc((UINT64_C(1) << log2) / 64, sizeof(uint64_t));
    if (filter->bits == NULL)
        return err_set(why, ERR_NOMEM, "judge: no memory");
    for (uint64_t i = 0; i < judge->clicks_n; i++) {
        uint64_t at = judge->sorted[i].hash >> filter->shift;

        filter->bits[at / 64] |= UINT64_C(1) << (at % 64);
    }
    return ERR_OK;
}

/* A run's entry has the hash of sorted[*at] and maybe of those behind it. *at moves past those
 * that are known to repeat: an id that comes thousands of times on both sides costs no more
 * than one look each. */
static enum err
entry_compare(struct judge *judge, struct idrun *run, uint64_t index, uint64_t *at,
              struct why *why)
{
    struct idrun_detail detail;
    uint64_t hash = judge->sorted[*at].hash;
    enum err err = idrun_detail_read(run, index, &detail, why);

    if (err != ERR_OK)
        return err;
    for (uint64_t i = *at; i < judge->clicks_n && judge->sorted[i].hash == hash;
         i++) {
        struct judged *click = &judge->clicks[judge->sorted[i].at];

        if (!remembered(judge, click, idrun_file(run, detail.file)->hour_us))
            break; /* nor do those received later */
        if (same_id(click, detail.account, detail.event_id))
            mark(click, detail.payload);
        if (i == *at && (click->reasons & REASON_BIT(duplicate)))
            ++*at;
    }
    return ERR_OK;
}

/* Places of those of n hashes that the filter lets through; without a branch, since which
 * ones is chance. */
static uint32_t
filter_pass(const struct filter *filter, const uint64_t *hashes, uint32_t n,
            uint32_t out[LOOKS])
{
    const uint64_t *bits = filter->bits;
    uint32_t passed = 0;

    for (uint32_t i = 0; i < n; i++) {
        uint64_t bit = hashes[i] >> filter->shift;

        out[passed] = i;
        passed += (uint32_t)(bits[bit / 64] >> (bit % 64)) & 1;
    }
    return passed;
}

static enum err
chunk_compare(struct judge *judge, const struct filter *filter,
              const struct idrun_cursor *cursor, uint64_t *at, struct why *why)
{
    const struct sorted *sorted = judge->sorted;
    uint64_t here = *at, n = judge->clicks_n;
    uint32_t places[LOOKS];
    enum err err = ERR_OK;

    for (uint32_t first = 0; first < cursor->n && here < n; first += LOOKS) {
        uint32_t some = cursor->n - first < LOOKS ? cursor->n - first : LOOKS;
        uint32_t passed = filter_pass(filter, cursor->hashes + first, some, places);

        for (uint32_t k = 0; k < passed && here < n && err == ERR_OK; k++) {
            uint32_t i = first + places[k];

            while (here < n && sorted[here].hash < cursor->hashes[i])
                here++;
            if (here < n && sorted[here].hash == cursor->hashes[i])
                err =
                    entry_compare(judge, cursor->run, cursor->base + i, &here, why);
        }
        if (err != ERR_OK)
            return err;
    }
    *at = here;
    return ERR_OK;
}

static enum err
run_compare(struct judge *judge, const struct filter *filter, struct idrun *run,
            struct why *why)
{
    struct idrun_cursor cursor;
    uint64_t at = 0;
    enum err err = idrun_cursor_open(&cursor, run, false, why);

    while (err == ERR_OK && (err = idrun_cursor_chunk(&cursor, why)) == ERR_OK)
        err = chunk_compare(judge, filter, &cursor, &at, why);
    idrun_cursor_close(&cursor);
    return err == ERR_AGAIN ? ERR_OK : err;
}

enum err
batch_dedup(struct judge *judge, struct why *why)
{
    int64_t oldest_us = judge->clicks_n > 0 ? judge->clicks[0].hour_us : 0;
    struct filter filter = {0};
    enum err err = dims_settle(judge->dims, why);

    if (err != ERR_OK)
        return err;
    for (uint64_t i = 0; i < judge->clicks_n; i++)
        judge->sorted[i] = (struct sorted){judge->clicks[i].id_hash, i};
    judge_sort(judge->sorted, judge->spare, judge->clicks_n);
    err = filter_open(&filter, judge, why);
    for (uint32_t r = 0; r < judge->runs.n && err == ERR_OK; r++)
        if (idrun_to_us(judge->runs.runs[r]) > oldest_us - judge->dedup_us)
            err = run_compare(judge, &filter, judge->runs.runs[r], why);
    free(filter.bits);
    if (err == ERR_OK)
        inside_mark(judge);
    return err;
}

void
batch_split(struct judge *judge, const struct slice *slices, uint32_t n)
{
    uint64_t next[BATCH_SLICES_MAX];
    struct sorted *swapped = judge->sorted;

    if (n <= 1)
        return;
    for (uint32_t s = 0; s < n; s++)
        next[s] = slices[s].first;
    for (uint64_t i = 0; i < judge->clicks_n; i++) {
        uint64_t at = judge->sorted[i].at;
        uint32_t low = 0, high = n;

        while (high - low > 1) {
            uint32_t middle = (low + high) / 2;

            if (at < slices[middle].first)
                high = middle;
            else
                low = middle;
        }
        judge->spare[next[low]++] = judge->sorted[i];
    }
    judge->sorted = judge->spare;
    judge->spare = swapped;
}

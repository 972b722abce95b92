/* What one click costs: ns per parse (alone, and in an array of 100 with its split),
 * encode and decode. Prints one {name, value, unit} a line. */
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "schema/click.h"

enum { ROUNDS = 5, BATCH = 100, BATCHES = 2000, CLICK_BYTES_MAX = 32768 };

static const char sample[] =
    "{\"event_id\":\"0d9e3f6a-52c1-4b7e-9a40-6c1f2e8b7d55\","
    "\"timestamp\":\"2026-11-21T09:08:07.123Z\",\"campaign_id\":\"campaign-"
    "000123\","
    "\"ad_id\":\"ad-4567\",\"publisher_id\":\"publisher-89\","
    "\"user_id\":\"user-0123456789abcdef\",\"ip_address\":\"203.0.113.77\","
    "\"user_agent\":\"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 "
    "(KHTML, like Gecko) Chrome/119.0.0.0 Safari/537.36\","
    "\"referer\":\"https://news.example.com/world/article-12345.html\","
    "\"device_type\":\"desktop\",\"os\":\"Windows 10\",\"country\":\"DE\","
    "\"city\":\"Hamburg\",\"cost_per_click\":0.25,\"ad_group_id\":\"group-7\","
    "\"click_x\":120,\"click_y\":45,\"currency\":\"EUR\"}";

struct bench {
    struct click_parser *parser;
    struct click_limits limits;
    struct click click;
    uint64_t sum;
};

static bool
visit(void *ctx, unsigned index, struct str json)
{
    struct bench *bench = ctx;
    struct click_error error;
    unsigned unknown;

    (void)index;
    if (!click_parse(bench->parser, json, &bench->limits, &bench->click, &error,
                     &unknown)) {
        fprintf(stderr, "%s\n", error.message);
        exit(1);
    }
    bench->sum += bench->click.click_x;
    return true;
}

static void
run(struct bench *bench, const char *name, void (*work)(struct bench *bench))
{
    int64_t best = INT64_MAX;

    for (int i = 0; i < ROUNDS; i++) {
        int64_t began = clock_mono_us(), took;

        work(bench);
        took = clock_mono_us() - began;
        best = took < best ? took : best;
    }
    printf("{\"name\": \"%s\", \"value\": %.1f, \"unit\": \"ns\"}\n", name,
           (double)best * 1000 / (BATCH * BATCHES));
}

static void
parse_alone(struct bench *bench)
{
    for (int i = 0; i < BATCH * BATCHES; i++)
        (void)visit(bench, 0, STR(sample));
}

static char batch[BATCH * sizeof(sample) + 2];
static uint32_t batch_n;

static void
parse_batch(struct bench *bench)
{
    struct click_error error;

    for (int i = 0; i < BATCHES; i++)
        if (!click_split(bench->parser, (struct str){batch, batch_n}, 2000, visit,
                         bench, &error))
            exit(1);
}

static uint8_t record[CLICK_BODY_MAX + 64];
static size_t record_n;

static void
encode(struct bench *bench)
{
    for (int i = 0; i < BATCH * BATCHES; i++) {
        bench->click.seq = (uint64_t)i;
        bench->sum += click_encode_body(&bench->click, record);
        __asm__ volatile("" ::: "memory");
    }
}

static void
decode(struct bench *bench)
{
    struct click click;
    size_t used;

    for (int i = 0; i < BATCH * BATCHES; i++) {
        __asm__ volatile("" ::: "memory");
        if (click_decode(&click, record, record_n, CLICK_VERSION, &used, NULL) !=
            ERR_OK)
            exit(1);
        bench->sum += used;
    }
}

static void
batch_make(void)
{
    const uint32_t n = sizeof(sample) - 1;

    for (int i = 0; i < BATCH; i++) {
        batch[batch_n++] = i == 0 ? '[' : ',';
        memcpy(batch + batch_n, sample, n);
        batch_n += n;
    }
    batch[batch_n++] = ']';
}

int
main(void)
{
    struct bench bench = {.limits = {.future_ms_max = 1000, .past_ms_max = 1000}};

    bench.limits.now_ms = INT64_C(1795252087123);
    if (click_parser_open(&bench.parser, CLICK_BYTES_MAX, NULL) != ERR_OK)
        return 1;
    batch_make();
    run(&bench, "click_parse_ns", parse_alone);
    run(&bench, "click_split_and_parse_ns", parse_batch);
    run(&bench, "click_encode_ns", encode);
    record_n = click_encode_prefix(&bench.click, record);
    record_n += click_encode_body(&bench.click, record + record_n);
    run(&bench, "click_decode_ns", decode);
    fprintf(stderr, "json %zu bytes, record %zu bytes, checksum %llu\n",
            sizeof(sample) - 1, record_n, (unsigned long long)bench.sum);
    click_parser_close(&bench.parser);
    return 0;
}

#include "tests/billing/billing_fixture.h"

static struct manifest_file
some_file(uint64_t clicks)
{
    return (struct manifest_file){.path = "part-0-10-12.avro",
                                  .base = 10,
                                  .last = 10 + clicks - 1,
                                  .clicks = clicks};
}

static struct final_row
some_row(uint64_t i)
{
    return (struct final_row){
        .seq = UINT64_C(1) << (i % 60),
        .verdict = {.kind = (uint8_t)(1 + i % (VERDICT_KINDS_N - 1)),
                    .reason = (uint8_t)(i % REASONS_N),
                    .score = (uint16_t)(i % 10001),
                    .reasons = (uint32_t)(i * 2654435761u),
                    .ruleset = (uint16_t)(i * 7),
                    .master = (uint16_t)(i * 13)},
        .price_micros = (int64_t)(i * 999983),
        .flags = i % 3 == 0 ? FINAL_CONFLICT : 0,
    };
}

static bool
rows_equal(const struct final_row *a, const struct final_row *b)
{
    return a->seq == b->seq && a->verdict.kind == b->verdict.kind &&
           a->verdict.reason == b->verdict.reason &&
           a->verdict.score == b->verdict.score &&
           a->verdict.reasons == b->verdict.reasons &&
           a->verdict.ruleset == b->verdict.ruleset &&
           a->verdict.master == b->verdict.master &&
           a->price_micros == b->price_micros && a->flags == b->flags;
}

static void
test_what_is_written_is_read(const struct fixture *f)
{
    static const uint64_t sizes[] = {1, 2, 70000};

    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        struct manifest_file file = some_file(sizes[s]);
        struct final_row *rows = calloc(sizes[s], sizeof(*rows));
        struct final_writer *writer;

        CHECK(rows != NULL);
        MUST(final_create(&writer, f->archive, &file, why));
        for (uint64_t i = 0; i < sizes[s]; i++) {
            struct final_row row = some_row(i);

            MUST(final_add(writer, &row, why));
        }
        MUST(final_finish(&writer, NULL, why));
        CHECK(writer == NULL);
        MUST(final_read(f->archive, &file, rows, why));
        for (uint64_t i = 0; i < sizes[s]; i++) {
            struct final_row row = some_row(i);

            CHECK(rows_equal(&rows[i], &row));
        }
        free(rows);
    }
}

static void
test_a_file_not_judged_is_not_found(const struct fixture *f)
{
    struct manifest_file file = {.path = "part-9-0-0.avro", .clicks = 1};
    struct final_row row;

    CHECK(final_read(f->archive, &file, &row, NULL) == ERR_NOTFOUND);
}

static void
test_too_few_verdicts_make_no_file(const struct fixture *f)
{
    struct manifest_file file = {.path = "part-8-0-1.avro", .last = 1, .clicks = 2};
    struct final_row row = some_row(1);
    struct final_writer *writer;

    MUST(final_create(&writer, f->archive, &file, why));
    MUST(final_add(writer, &row, why));
    CHECK(final_finish(&writer, NULL, NULL) == ERR_CORRUPT);
    CHECK(final_read(f->archive, &file, &row, NULL) == ERR_NOTFOUND);
}

static void
test_another_number_of_rows_than_the_manifest_says_is_damage(
    const struct fixture *f)
{
    struct manifest_file file = some_file(70000);
    struct final_row *rows = calloc(70001, sizeof(*rows));

    CHECK(rows != NULL);
    file.clicks = 69999;
    CHECK(final_read(f->archive, &file, rows, NULL) == ERR_CORRUPT);
    file.clicks = 70001;
    CHECK(final_read(f->archive, &file, rows, NULL) == ERR_CORRUPT);
    free(rows);
}

static void
test_the_schema_names_every_reason_and_verdict(void)
{
    char word[64];

    for (int r = 0; r < REASONS_N; r++) {
        (void)snprintf(word, sizeof(word), "\"%s\"",
                       reason_info((enum reason)r)->name);
        CHECK(strstr(final_schema, word) != NULL);
    }
    for (int k = 1; k < VERDICT_KINDS_N; k++) {
        (void)snprintf(word, sizeof(word), "\"%s\"",
                       verdict_name((enum verdict_kind)k));
        CHECK(strstr(final_schema, word) != NULL);
    }
}

int
main(void)
{
    struct fixture f;

    fixture_open(&f);
    test_what_is_written_is_read(&f);
    test_a_file_not_judged_is_not_found(&f);
    test_too_few_verdicts_make_no_file(&f);
    test_another_number_of_rows_than_the_manifest_says_is_damage(&f);
    test_the_schema_names_every_reason_and_verdict();
    fixture_close(&f);
    return 0;
}

#include "billing/idrun.h"
#include "tests/billing/billing_fixture.h"

static const struct str zones[] = {{"UTC", 3}, {"Europe/Berlin", 13}};

/* Detail number i of a run. */
static struct idrun_detail
some_detail(uint64_t i)
{
    struct idrun_detail detail = {
        .account = (uint32_t)(i % 3),
        .payload = (uint32_t)i,
        .row = (uint32_t)i,
        .file = (uint32_t)(i % 2),
        .day = 100 + (int32_t)(i % 5),
        .zone = (uint16_t)(i % 2),
        .kind = i % 4 == 0 ? VERDICT_INVALID : VERDICT_BILLABLE,
    };

    memcpy(detail.event_id, &i, sizeof(i));
    return detail;
}

/* A run of hashes first, first + step, ...; numbers begin at number. */
static void
run_write(const struct fixture *f, int64_t from_us, int64_t to_us, uint64_t first,
          uint64_t step, uint64_t n, uint64_t number)
{
    static const char text[] = "f0\0f1";
    static const uint32_t accounts[] = {0, 1, 2};
    const struct idrun_file files[] = {
        {.hour_us = from_us, .slice_to_us = to_us, .base = 5, .path_at = 0},
        {.hour_us = from_us, .slice_to_us = to_us, .base = 6, .path_at = 3},
    };
    const struct idrun_tables tables = {files, 2, text,     sizeof(text),
                                        zones, 2, accounts, 3};
    struct idrun_writer *writer;
    char path[FILE_PATH_MAX];

    idrun_path(path, sizeof(path), f->judge, from_us, to_us);
    MUST(idrun_create(&writer, path, from_us, to_us, n, why));
    for (uint64_t i = 0; i < n; i++) {
        struct idrun_detail detail = some_detail(number + i);

        MUST(idrun_add(writer, first + i * step, &detail, why));
    }
    MUST(idrun_finish(&writer, &tables, NULL, why));
}

struct seen {
    uint64_t n, index;
};

static enum err
note(void *ctx, uint64_t index, struct why *why)
{
    struct seen *seen = ctx;

    (void)why;
    seen->n++;
    seen->index = index;
    return ERR_OK;
}

static void
test_each_hash_is_found_and_no_other(const struct fixture *f)
{
    const uint64_t n = 3 * IDRUN_CHUNK / 2;
    char path[FILE_PATH_MAX];
    struct idrun *run;

    run_write(f, 0, HOUR, 1000, 10, n, 0);
    idrun_path(path, sizeof(path), f->judge, 0, HOUR);
    MUST(idrun_open(&run, path, why));
    CHECK(idrun_count(run) == n && idrun_to_us(run) == HOUR);
    CHECK(str_equal(idrun_zone(run, 1), zones[1]) && idrun_zone(run, 2).n == 0);
    CHECK(strcmp(idrun_file_path(run, 1), "f1") == 0 && idrun_file(run, 2) == NULL);
    for (uint64_t i = 0; i < n; i += 997) {
        struct seen seen = {0}, none = {0};
        struct idrun_detail detail, want = some_detail(i);

        MUST(idrun_find(run, 1000 + i * 10, note, &seen, why));
        CHECK(seen.n == 1 && seen.index == i);
        MUST(idrun_detail_read(run, i, &detail, why));
        CHECK(memcmp(&detail, &want, sizeof(want)) == 0);
        MUST(idrun_find(run, 1001 + i * 10, note, &none, why));
        CHECK(none.n == 0);
    }
    idrun_close(&run);
}

struct billed {
    uint64_t n, last_hash, sum;
};

static bool
billed_note(void *ctx, const struct idrun_billed *billed)
{
    struct billed *b = ctx;

    CHECK(billed->hash >= b->last_hash);
    b->last_hash = billed->hash;
    b->sum += billed->hash;
    b->n++;
    return true;
}

static struct billed
billed_of(const struct fixture *f, int64_t after_us, int64_t until_us, int32_t day)
{
    const struct idrun_filter filter = {after_us, until_us, zones[1], day};
    struct billed billed = {0};

    MUST(idrun_billed_each(f->judge, &filter, billed_note, &billed, why));
    return billed;
}

static void
test_a_finished_day_becomes_one_run_with_the_same_content(const struct fixture *f)
{
    struct billed before, after;
    struct idruns runs;

    for (int h = 0; h < 24; h++)
        run_write(f, h * HOUR, (h + 1) * HOUR, (uint64_t)h, 24, 1000,
                  (uint64_t)h * 1000);
    run_write(f, 24 * HOUR, 25 * HOUR, 7, 24, 1000, 50000);
    before = billed_of(f, 3 * HOUR, 9 * HOUR, 101);
    CHECK(before.n > 500);
    MUST(idruns_tidy(f->judge, 0, 25 * HOUR, why));
    MUST(idruns_open(&runs, f->judge, 0, 25 * HOUR, why));
    CHECK(runs.n == 2 && idrun_count(runs.runs[0]) == 24000);
    idruns_close(&runs);
    after = billed_of(f, 3 * HOUR, 9 * HOUR, 101);
    CHECK(after.n == before.n && after.sum == before.sum);
    MUST(idruns_tidy(f->judge, 24 * HOUR, 25 * HOUR, why));
    MUST(idruns_open(&runs, f->judge, 0, 25 * HOUR, why));
    CHECK(runs.n == 1);
    idruns_close(&runs);
}

static void
test_what_a_merge_left_behind_is_passed_over_and_removed(const struct fixture *f)
{
    struct idruns runs;

    run_write(f, 0, 24 * HOUR, 1, 2, 100, 0);
    run_write(f, 3 * HOUR, 4 * HOUR, 1, 2, 10, 0);
    run_write(f, 24 * HOUR, 30 * HOUR, 1, 2, 10, 0);
    MUST(idruns_open(&runs, f->judge, 0, 24 * HOUR, why));
    CHECK(runs.n == 1 && idrun_count(runs.runs[0]) == 100);
    idruns_close(&runs);
    MUST(idruns_tidy(f->judge, 0, 24 * HOUR, why));
    MUST(idruns_open(&runs, f->judge, 0, INT64_MAX, why));
    CHECK(runs.n == 1);
    idruns_close(&runs);
}

static void
test_a_changed_byte_is_damage(const struct fixture *f)
{
    char path[FILE_PATH_MAX], merged[FILE_PATH_MAX];
    static const long places[] = {20, 128 + 8 * 50, 128 + 8 * 1000 + 40 * 50,
                                  128 + 48 * 1000 + 3};

    idrun_path(path, sizeof(path), f->judge, 0, HOUR);
    idrun_path(merged, sizeof(merged), f->judge, 0, 2 * HOUR);
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        struct idrun *run = NULL;
        enum err err;
        FILE *file;

        run_write(f, 0, HOUR, 1, 2, 1000, 0);
        file = fopen(path, "r+b");
        CHECK(file != NULL && fseek(file, places[i], SEEK_SET) == 0);
        CHECK(fputc(0xA5, file) != EOF && fclose(file) == 0);
        err = idrun_open(&run, path, NULL);
        if (err == ERR_OK)
            err = idrun_merge(&run, 1, merged, 0, 2 * HOUR, NULL);
        CHECK(err == ERR_CORRUPT);
        idrun_close(&run);
    }
}

int
main(void)
{
    static void (*const tests[])(const struct fixture *) = {
        test_each_hash_is_found_and_no_other,
        test_a_finished_day_becomes_one_run_with_the_same_content,
        test_what_a_merge_left_behind_is_passed_over_and_removed,
        test_a_changed_byte_is_damage,
    };

    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        struct fixture f;
        char ids[PATH_SIZE + 8];

        fixture_open(&f);
        (void)snprintf(ids, sizeof(ids), "%s/ids", f.judge);
        MUST(file_mkdirs(ids, why));
        tests[i](&f);
        fixture_close(&f);
    }
    return 0;
}

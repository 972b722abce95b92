/* Live against final verdicts: an archive with both beside it, one click a case. */
#include "billing/reconcile.h"

#include "common/buf.h"
#include "tests/billing/billing_fixture.h"

enum { CASES_MAX = 32 };

struct case_row {
    const char *difference; /* NULL: the same */
    enum verdict_kind live_kind;
    enum reason live_reason;
    uint8_t live_flags;
    uint16_t live_ruleset, live_master;
    enum verdict_kind kind;
    enum reason reason;
};

/* Rule set 3 and master 9 are the judge's. */
static const struct case_row cases[] = {
    {NULL, VERDICT_BILLABLE, REASON_none, 0, 3, 9, VERDICT_BILLABLE, REASON_none},
    {NULL, VERDICT_INVALID, REASON_honeypot, 0, 2, 8, VERDICT_INVALID,
     REASON_honeypot},
    {"duplicate_seen_later", VERDICT_BILLABLE, REASON_none, 0, 3, 9,
     VERDICT_DUPLICATE, REASON_duplicate},
    {"rate_across_campaigns", VERDICT_BILLABLE, REASON_none, 0, 3, 9,
     VERDICT_INVALID, REASON_address_minute_rate},
    {"rate_across_campaigns", VERDICT_INVALID, REASON_address_second_rate, 0, 3, 9,
     VERDICT_BILLABLE, REASON_none},
    {"ruleset_changed", VERDICT_BILLABLE, REASON_none, 0, 2, 9, VERDICT_INVALID,
     REASON_known_bot_agent},
    {"master_changed", VERDICT_QUARANTINED, REASON_unknown_campaign, 0, 3, 8,
     VERDICT_BILLABLE, REASON_none},
    {"live_warming", VERDICT_BILLABLE, REASON_none, VERDICT_WARMING, 3, 9,
     VERDICT_INVALID, REASON_double_click},
    {"over_budget", VERDICT_BILLABLE, REASON_none, 0, 3, 9, VERDICT_OVER_BUDGET,
     REASON_over_budget},
    {"earlier_click_differs", VERDICT_INVALID, REASON_repeat_click, 0, 3, 9,
     VERDICT_BILLABLE, REASON_none},
    {"live_missing", VERDICT_NONE, REASON_none, 0, 0, 0, VERDICT_BILLABLE,
     REASON_none},
    {"unexplained", VERDICT_BILLABLE, REASON_none, 0, 3, 9, VERDICT_INVALID,
     REASON_honeypot},
    {"unexplained", VERDICT_INVALID, REASON_honeypot, 0, 3, 9, VERDICT_BILLABLE,
     REASON_none},
    /* Master data that changed do not explain an agent. */
    {"unexplained", VERDICT_BILLABLE, REASON_none, 0, 3, 8, VERDICT_INVALID,
     REASON_empty_agent},
    {"unexplained", VERDICT_DUPLICATE, REASON_duplicate, 0, 3, 9, VERDICT_BILLABLE,
     REASON_none},
};
enum { CASES = sizeof(cases) / sizeof(cases[0]) };

static void
live_write(const struct fixture *f, const struct manifest_file *file,
           const uint64_t *verdicts)
{
    char beside[MANIFEST_PATH_MAX + 8], path[2 * PATH_SIZE],
        temp[2 * PATH_SIZE + 8];
    struct avrofile_writer *writer = NULL;
    uint8_t sha256[32];

    manifest_beside(file, "live", beside);
    (void)snprintf(path, sizeof(path), "%s/%s", f->archive, beside);
    (void)snprintf(temp, sizeof(temp), "%s.part", path);
    MUST(avrofile_create(&writer, temp, manifest_live_schema, AVROFILE_SNAPPY, NULL,
                         0, why));
    for (uint64_t i = 0; i < file->clicks; i++) {
        uint8_t bytes[10];
        size_t n = 0;
        /* zig-zag, then seven bits a byte */
        uint64_t left = verdicts[i] << 1 ^ (0 - (verdicts[i] >> 63));
        for (; left >= 128; left >>= 7)
            bytes[n++] = (uint8_t)(left | 128);
        bytes[n++] = (uint8_t)left;
        MUST(avrofile_add(writer, bytes, n, why));
    }
    MUST(avrofile_finish(&writer, path, sha256, why));
}

static void
final_write(const struct fixture *f, const struct manifest_file *file,
            const struct final_row *rows)
{
    struct final_writer *writer = NULL;

    MUST(final_create(&writer, f->archive, file, why));
    for (uint64_t i = 0; i < file->clicks; i++)
        MUST(final_add(writer, &rows[i], why));
    MUST(final_finish(&writer, NULL, why));
}

/* Click i is of case (first + i) % CASES; campaign by i; all of one local day everywhere. */
static void
archive_fill_from(const struct fixture *f, uint32_t first, uint32_t n, bool live)
{
    static const char *const campaigns[] = {"shoes", "books", "nobody"};
    struct archiver a;
    struct manifest manifest;
    uint64_t *which[FIXTURE_PARTITIONS];

    archiver_open(&a, f->archive);
    for (uint32_t p = 0; p < FIXTURE_PARTITIONS; p++) {
        which[p] = calloc(n + 1, sizeof(**which));
        CHECK(which[p] != NULL);
    }
    for (uint32_t i = 0; i < n; i++) {
        struct click click = fixture_click(i + 1, T0_US + i);
        click.campaign_id = str_of(campaigns[i / CASES % 3]);
        archiver_add(&a, &click);
        which[click.partition][click.seq] = (first + i) % CASES;
        if (i % 40 == 39)
            archiver_roll(&a, T0_US + i);
    }
    archiver_roll(&a, T0_US + HOUR);
    archiver_close(&a);
    MUST(manifest_read(&manifest, f->archive, 0, why));
    for (uint32_t i = 0; i < manifest.files_n; i++) {
        const struct manifest_file *file = &manifest.files[i];
        struct final_row rows[64] = {0};
        uint64_t verdicts[64] = {0};
        CHECK(file->clicks <= 64);
        for (uint64_t k = 0; k < file->clicks; k++) {
            const struct case_row *c =
                &cases[which[file->partition][file->base + k]];
            const struct verdict was = {.kind = (uint8_t)c->live_kind,
                                        .reason = (uint8_t)c->live_reason,
                                        .flags = c->live_flags,
                                        .ruleset = c->live_ruleset,
                                        .master = c->live_master};
            verdicts[k] = c->live_kind == VERDICT_NONE ? 0 : verdict_pack(&was);
            rows[k] =
                (struct final_row){.seq = file->base + k,
                                   .verdict = {.kind = (uint8_t)c->kind,
                                               .reason = (uint8_t)c->reason,
                                               .reasons = UINT32_C(1) << c->reason,
                                               .ruleset = 3,
                                               .master = 9}};
        }
        if (live)
            live_write(f, file, verdicts);
        final_write(f, file, rows);
    }
    manifest_free(&manifest);
    for (uint32_t p = 0; p < FIXTURE_PARTITIONS; p++)
        free(which[p]);
}

static void
archive_fill(const struct fixture *f, uint32_t n, bool live)
{
    archive_fill_from(f, 0, n, live);
}

static bool
contains(const struct buf *out, const char *text)
{
    return strstr((const char *)out->p, text) != NULL;
}

static void
reconciled(const struct fixture *f, int32_t day, bool json, struct buf *out,
           struct reconcile_result *r)
{
    buf_reset(out);
    MUST(reconcile_day(f->archive, f->master, day, json, out, r, why));
    buf_add(out, "", 1);
    CHECK(!out->failed);
}

static const int32_t the_day = (int32_t)(T0_US / CLOCK_DAY_US);

static void
test_each_difference_has_its_reason(void)
{
    struct fixture f;
    struct reconcile_result r;
    struct buf out = BUF_MAX(1 << 20);
    uint32_t same = 0, unexplained = 0, missing = 0;

    fixture_open(&f);
    archive_fill(&f, CASES * 3, true);
    for (int i = 0; i < CASES; i++) {
        same += cases[i].difference == NULL;
        if (cases[i].difference == NULL)
            continue;
        unexplained += strcmp(cases[i].difference, "unexplained") == 0;
        missing += strcmp(cases[i].difference, "live_missing") == 0;
    }
    reconciled(&f, the_day, true, &out, &r);
    CHECK(r.clicks == CASES * 3 && r.same == same * 3);
    CHECK(r.different == (CASES - same) * 3);
    CHECK(r.unexplained == unexplained * 3 && r.live_missing == missing * 3);
    for (int i = 0; i < CASES; i++) {
        char text[64];
        uint32_t times = 0;
        if (cases[i].difference == NULL)
            continue;
        for (int k = 0; k < CASES; k++)
            times += cases[k].difference != NULL &&
                     strcmp(cases[k].difference, cases[i].difference) == 0;
        (void)snprintf(text, sizeof(text), "\"%s\":%u", cases[i].difference, times);
        CHECK(contains(&out, text)); /* the same in each of the three campaigns */
    }
    CHECK(contains(&out, "\"campaign_id\":\"shoes\"") &&
          contains(&out, "\"campaign_id\":\"(unknown)\""));
    CHECK(contains(&out, "\"day\":\"2026-03-01\""));
    reconciled(&f, the_day, false, &out, &r);
#define X(name, text) CHECK(contains(&out, #name "=") && contains(&out, text));
    DIFFERENCE_MAP(X)
#undef X
    buf_free(&out);
    fixture_close(&f);
}

static void
test_another_day_has_none_of_it(void)
{
    struct fixture f;
    struct reconcile_result r;
    struct buf out = BUF_MAX(1 << 20);

    fixture_open(&f);
    archive_fill(&f, CASES, true);
    for (int32_t day = the_day - 2; day <= the_day + 2; day++) {
        reconciled(&f, day, true, &out, &r);
        CHECK((r.clicks == 0) == (day != the_day));
    }
    buf_free(&out);
    fixture_close(&f);
}

static void
test_without_live_verdicts_all_are_missing_and_none_unexplained(void)
{
    struct fixture f;
    struct reconcile_result r;
    struct buf out = BUF_MAX(1 << 20);

    fixture_open(&f);
    archive_fill(&f, CASES * 20, false);
    reconciled(&f, the_day, true, &out, &r);
    CHECK(r.clicks == CASES * 20 && r.live_missing == r.clicks);
    CHECK(r.unexplained == 0 && r.same == 0);
    buf_free(&out);
    fixture_close(&f);
}

/* A file that is not judged has nothing final to compare with; a damaged one is named. */
static void
test_unjudged_and_damaged_files(void)
{
    struct fixture f;
    struct reconcile_result r;
    struct buf out = BUF_MAX(1 << 20);
    struct manifest manifest;
    struct why told = {{0}};
    char beside[MANIFEST_PATH_MAX + 8], path[2 * PATH_SIZE];

    fixture_open(&f);
    archive_fill(&f, CASES * 3, true);
    MUST(manifest_read(&manifest, f.archive, 0, why));
    manifest_beside(&manifest.files[0], "final", beside);
    (void)snprintf(path, sizeof(path), "%s/%s", f.archive, beside);
    CHECK(unlink(path) == 0);
    reconciled(&f, the_day, true, &out, &r);
    CHECK(r.clicks == CASES * 3 - manifest.files[0].clicks);
    CHECK(file_write(path, "not avro", 8, NULL) == ERR_OK);
    CHECK(reconcile_day(f.archive, f.master, the_day, true, &out, &r, &told) ==
          ERR_CORRUPT);
    CHECK(strstr(told.text, ".final.avro") != NULL);
    manifest_free(&manifest);
    buf_free(&out);
    fixture_close(&f);
}

static void
test_a_user_rule_differs_only_where_a_repeat_was_seen_later(void)
{
    struct fixture f;
    struct reconcile_result r;
    struct buf out = BUF_MAX(1 << 20);
    uint32_t at = 0;

    while (strcmp(cases[at].difference != NULL ? cases[at].difference : "",
                  "earlier_click_differs") != 0)
        at++;
    fixture_open(&f);
    archive_fill_from(&f, at, 1, true); /* alone, without any duplicate */
    reconciled(&f, the_day, true, &out, &r);
    CHECK(r.clicks == 1 && r.different == 1 && r.unexplained == 1);
    buf_free(&out);
    fixture_close(&f);
}

int
main(void)
{
    test_a_user_rule_differs_only_where_a_repeat_was_seen_later();
    test_each_difference_has_its_reason();
    test_another_day_has_none_of_it();
    test_without_live_verdicts_all_are_missing_and_none_unexplained();
    test_unjudged_and_damaged_files();
    return 0;
}

/* The clicks of one archive file. */
#include "billing/click_file.h"
#include "tests/billing/billing_fixture.h"

enum { CLICKS = 3000 }; /* several blocks */

static void
archive_fill(struct fixture *f, struct manifest *manifest)
{
    struct archiver archiver;

    fixture_open(f);
    archiver_open(&archiver, f->archive);
    for (uint64_t i = 0; i < CLICKS; i++) {
        struct click click = fixture_click(i, T0_US + (int64_t)i);

        archiver_add(&archiver, &click);
    }
    archiver_roll(&archiver, T0_US + HOUR);
    archiver_close(&archiver);
    MUST(manifest_read(manifest, f->archive, 0, why));
    CHECK(manifest->files_n == 1 && manifest->files[0].clicks == CLICKS);
}

static enum err
all_read(const struct fixture *f, const struct manifest_file *file, uint64_t *n,
         struct why *why)
{
    struct click_file *in;
    struct click click;
    enum err err = click_file_open(&in, f->archive, file, why);

    for (*n = 0; err == ERR_OK; ++*n) {
        uint64_t number;

        err = click_file_next(in, &click, why);
        if (err != ERR_OK)
            break;
        memcpy(&number, click.event_id, sizeof(number));
        CHECK(number == *n && click.received_us == T0_US + (int64_t)number);
    }
    if (err == ERR_AGAIN) /* and stays there */
        CHECK(click_file_next(in, &click, why) == ERR_AGAIN);
    click_file_close(&in);
    click_file_close(&in);
    return err;
}

static void
test_all_clicks_come_in_their_order(void)
{
    struct fixture f;
    struct manifest manifest;
    uint64_t n;

    archive_fill(&f, &manifest);
    CHECK(all_read(&f, &manifest.files[0], &n, NULL) == ERR_AGAIN && n == CLICKS);
    manifest_free(&manifest);
    fixture_close(&f);
}

static void
test_a_list_that_says_another_number_is_damage(void)
{
    struct fixture f;
    struct manifest manifest;
    struct manifest_file file;
    struct why said;
    uint64_t n;

    archive_fill(&f, &manifest);
    file = manifest.files[0];
    file.clicks++;
    CHECK(all_read(&f, &file, &n, &said) == ERR_CORRUPT && n == CLICKS);
    CHECK(strstr(said.text, "fewer clicks than listed") != NULL);
    file.clicks = 1000;
    CHECK(all_read(&f, &file, &n, &said) == ERR_CORRUPT && n == 1000);
    CHECK(strstr(said.text, "more clicks than listed") != NULL);
    manifest_free(&manifest);
    fixture_close(&f);
}

static void
test_missing_and_damaged_files_are_named(void)
{
    struct fixture f;
    struct manifest manifest;
    struct manifest_file file;
    struct why said;
    char path[2 * PATH_SIZE];
    uint64_t n;

    archive_fill(&f, &manifest);
    file = manifest.files[0];
    (void)snprintf(path, sizeof(path), "%s/%s", f.archive, file.path);
    CHECK(truncate(path, 20000) == 0);
    CHECK(all_read(&f, &file, &n, &said) == ERR_CORRUPT && n < CLICKS);
    CHECK(strstr(said.text, file.path) != NULL);
    CHECK(unlink(path) == 0);
    CHECK(all_read(&f, &file, &n, &said) == ERR_NOTFOUND && n == 0);
    CHECK(strstr(said.text, file.path) != NULL);
    manifest_free(&manifest);
    fixture_close(&f);
}

int
main(void)
{
    test_all_clicks_come_in_their_order();
    test_a_list_that_says_another_number_is_damage();
    test_missing_and_damaged_files_are_named();
    return 0;
}

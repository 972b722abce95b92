/* The tables in the documents are those of the code. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/config.h"
#include "common/file.h"
#include "schema/click.h"

enum { PAGE_BYTES_MAX = 1 << 20 };

static void
page_holds(const char *path, void (*document)(struct buf *out), const char *command)
{
    struct buf table = BUF_MAX(PAGE_BYTES_MAX), page = BUF_MAX(PAGE_BYTES_MAX);
    struct why why = {""};

    document(&table);
    buf_add(&table, "", 1);
    if (file_read(path, &page, &why) != ERR_OK)
        fail_msg("%s", why.text);
    buf_add(&page, "", 1);
    assert_false(table.failed || page.failed);
    if (strstr((const char *)page.p, (const char *)table.p) == NULL)
        fail_msg("%s has another table: put what `clickledger %s` prints there",
                 path, command);
    buf_free(&table);
    buf_free(&page);
}

static void
the_clicks_fields_are_in_the_api_document(void **state)
{
    (void)state;
    page_holds("docs/api.md", click_document, "schema fields");
}

static void
the_keys_are_in_the_configuration_document(void **state)
{
    (void)state;
    page_holds("docs/configuration.md", config_document, "config document");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_clicks_fields_are_in_the_api_document),
        cmocka_unit_test(the_keys_are_in_the_configuration_document),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

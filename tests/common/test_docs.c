/* docs/configuration.md shows the configuration's keys as the code has them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/config.h"

#include <string.h>

#include "common/file.h"

#define DOCUMENT "docs/configuration.md"

static void
the_keys_in_the_document_are_those_of_the_table(void **state)
{
    struct buf table = BUF_MAX(1 << 20), page = BUF_MAX(1 << 20);
    struct why why = {""};

    (void)state;
    config_document(&table);
    buf_add(&table, "", 1);
    if (file_read(DOCUMENT, &page, &why) != ERR_OK)
        fail_msg("%s", why.text);
    buf_add(&page, "", 1);
    assert_false(table.failed || page.failed);
    if (strstr((const char *)page.p, (const char *)table.p) == NULL)
        fail_msg(DOCUMENT " has another table: put what `clickledger config "
                          "document` prints there");
    buf_free(&table);
    buf_free(&page);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_keys_in_the_document_are_those_of_the_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

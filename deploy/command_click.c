#include "deploy/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "billing/click_find.h"
#include "common/buf.h"
#include "deploy/session.h"
#include "schema/text.h"

enum { OUT_BYTES_MAX = 4 << 20 };

int
command_click(const struct command *c, struct config *config, struct args *args)
{
    bool json = args_flag(args, "--json");
    const char *verb = args_word(args), *id = args_word(args);
    struct buf out = BUF_MAX(OUT_BYTES_MAX);
    struct click_find what = {.json = json};
    struct session session;
    struct why why = {{0}};
    uint32_t found = 0;

    if (!args_done(args, c))
        return EXIT_USAGE;
    if (verb == NULL || strcmp(verb, "show") != 0 || id == NULL ||
        !uuid_parse(str_of(id), what.event_id)) {
        fprintf(stderr, "clickledger click: say show EVENT_ID, a UUID\n");
        return EXIT_USAGE;
    }
    enum err err = session_open(&session, config, &why);
    what.archive_dir = session.archive_dir;
    what.judge_dir = session.judge_dir;
    if (err == ERR_OK)
        err = click_find(&what, &out, &found, &why);
    session_close(&session);
    if (err == ERR_OK && found == 0)
        err = err_set(
            &why, ERR_NOTFOUND,
            "no click %s in the archive; a click of the last minutes gets there "
            "when its file is rolled (archive.roll_s)",
            id);
    if (err == ERR_OK)
        (void)fwrite(out.p, 1, out.n, stdout);
    buf_free(&out);
    return err == ERR_OK ? EXIT_GOOD : command_failed(c, err, &why);
}

#include "billing/click_file.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/file.h"
#include "schema/avrofile.h"

struct click_file {
    const struct manifest_file *file;
    struct avrofile_reader *reader;
    unsigned version;
    uint64_t row;
    struct str block; /* what is left of it */
    uint64_t left;    /* clicks in it */
};

enum err
click_file_open(struct click_file **out, const char *archive_dir,
                const struct manifest_file *file, struct why *why)
{
    struct click_file *in = calloc(1, sizeof(*in));
    char path[FILE_PATH_MAX];

    *out = NULL;
    if (in == NULL)
        return err_set(why, ERR_NOMEM, "%s: no memory", file->path);
    in->file = file;
    (void)snprintf(path, sizeof(path), "%s/%s", archive_dir, file->path);
    enum err err = avrofile_open(&in->reader, path, why);
    if (err != ERR_OK) {
        click_file_close(&in);
        return err;
    }
    in->version = click_schema_version(avrofile_schema(in->reader));
    *out = in;
    return ERR_OK;
}

/* Blocks may be empty. */
static enum err
block_next(struct click_file *in, struct why *why)
{
    enum err err = ERR_OK;

    while (in->left == 0 && err == ERR_OK)
        err = avrofile_block(in->reader, &in->block, &in->left, why);
    if (err == ERR_AGAIN && in->row != in->file->clicks)
        return err_set(why, ERR_CORRUPT, "%s: fewer clicks than listed",
                       in->file->path);
    return err;
}

enum err
click_file_next(struct click_file *in, struct click *click, struct why *why)
{
    size_t used;
    enum err err = block_next(in, why);

    if (err != ERR_OK)
        return err;
    if (in->row == in->file->clicks)
        return err_set(why, ERR_CORRUPT, "%s: more clicks than listed",
                       in->file->path);
    err = click_decode(click, (const uint8_t *)in->block.p, in->block.n,
                       in->version, &used, why);
    if (err != ERR_OK)
        return err;
    in->block.p += used;
    in->block.n -= (uint32_t)used;
    in->left--;
    in->row++;
    return ERR_OK;
}

void
click_file_close(struct click_file **in)
{
    if (*in == NULL)
        return;
    avrofile_close(&(*in)->reader);
    free(*in);
    *in = NULL;
}

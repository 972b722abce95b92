/* A configuration file of any bytes is taken or refused with a reason; what is taken
 * shows as a file that loads again. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *
write_file(const void *data, size_t size)
{
    static char path[64];
    int fd;

    (void)snprintf(path, sizeof(path), "/tmp/clickledger-fuzz-config-%d",
                   (int)getpid());
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    (void)close(fd);
    return path;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf shown = BUF_MAX(1 << 20);
    struct why why = {""};
    struct config config;
    const char *path = write_file(data, size);
    enum err err = config_load(&config, path, NULL, NULL, &why);

    if (err != ERR_OK && why.text[0] == '\0')
        abort();
    if (err == ERR_OK) {
        config_show(&config, &shown);
        config_free(&config);
        if (shown.failed)
            abort();
        path = write_file(shown.p, shown.n);
        if (config_load(&config, path, NULL, NULL, &why) != ERR_OK)
            abort();
        config_free(&config);
    }
    buf_free(&shown);
    (void)unlink(path);
    return 0;
}

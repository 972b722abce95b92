#include "aggregate/events.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/file.h"

struct events {
    pthread_mutex_t lock;
    char path[FILE_PATH_MAX], old[FILE_PATH_MAX];
    int fd;
};

enum err
events_open(struct events **out, const char *dir, struct why *why)
{
    struct events *events = calloc(1, sizeof(*events));
    enum err err = file_mkdirs(dir, why);
    int n;

    *out = NULL;
    if (events == NULL)
        return err_set(why, ERR_NOMEM, "aggregate: no memory");
    n = snprintf(events->old, sizeof(events->old), "%s/events.log.1", dir);
    if (err == ERR_OK && (n < 0 || (size_t)n >= sizeof(events->old)))
        err = err_set(why, ERR_INVALID, "data.dir: the path is too long");
    if (err != ERR_OK) {
        free(events);
        return err;
    }
    (void)snprintf(events->path, sizeof(events->path), "%s/events.log", dir);
    events->fd =
        open(events->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
    (void)pthread_mutex_init(&events->lock, NULL);
    *out = events;
    return ERR_OK;
}

void
events_close(struct events **events)
{
    if (*events == NULL)
        return;
    if ((*events)->fd >= 0)
        (void)close((*events)->fd);
    (void)pthread_mutex_destroy(&(*events)->lock);
    free(*events);
    *events = NULL;
}

static void
rotate_if_full(struct events *events)
{
    struct stat st;

    if (events->fd >= 0 && fstat(events->fd, &st) == 0 &&
        st.st_size < EVENTS_BYTES_MAX)
        return;
    if (events->fd >= 0) {
        (void)close(events->fd);
        (void)rename(events->path, events->old);
    }
    events->fd =
        open(events->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
}

void
events_add(struct events *events, enum log_level level, uint32_t partition,
           const char *what, const char *fmt, ...)
{
    char text[512], line[640], when[CLOCK_TEXT_SIZE];
    va_list ap;
    int n;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    log_event(level, "aggregate", LOG_NUMBER("partition", partition),
              LOG_TEXT("what", what), LOG_TEXT("why", text));
    for (char *p = text; *p != '\0'; p++)
        if (*p == '\n' || *p == '\r')
            *p = ' ';
    n = snprintf(line, sizeof(line), "%s p%u %s %s\n",
                 clock_format_ms(clock_now_us() / 1000, when), partition, what,
                 text);
    (void)pthread_mutex_lock(&events->lock);
    rotate_if_full(events);
    if (events->fd >= 0 && n > 0)
        (void)file_write_all(events->fd, line, (size_t)n, events->path, NULL);
    (void)pthread_mutex_unlock(&events->lock);
}

#define _GNU_SOURCE
#include "tests/powercut/undo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* System calls are made directly, so that the shim never sees itself. */

enum { PAGES_FIRST = 1024, NAME_MAX_ = 24 };

struct page {
    uint64_t number; /* plus 1; 0: free */
    uint32_t old_n;  /* bytes that were there */
    uint8_t *old;
};

struct file {
    struct file *next;
    dev_t dev;
    ino_t ino;
    int fd;            /* our own, for reading and reverting */
    off_t synced_size; /* valid while dirty */
    bool dirty;
    struct page *pages; /* hash table by number */
    uint64_t pages_n, pages_cap;
};

enum change_kind { CREATES, MAKES_FOLDER, UNLINKS, REMOVES_FOLDER, RENAMES };

struct change {
    enum change_kind kind;
    char *path, *to;
    char *grave; /* where what was there is kept, or NULL */
};

/* One shim a process, and signal handlers have no context: the one state it has. */
static struct {
    char dir[UNDO_PATH_MAX];
    char graves[UNDO_PATH_MAX + 64];
    size_t dir_n;
    uint64_t grave_next;
    struct file *files;
    struct change *changes;
    size_t changes_n, changes_cap;
} undo;

static _Noreturn void
untrue(const char *what, const char *path)
{
    fprintf(stderr, "powercut: %s: %s: %s\n", path, what, strerror(errno));
    abort();
}

static void *
must(void *p)
{
    if (p == NULL)
        untrue("no memory", "undo");
    return p;
}

static int
raw_open(const char *path, int flags)
{
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0600);
}

static void
graves_name(void)
{
    char *slash;

    (void)snprintf(undo.graves, sizeof(undo.graves), "%s", undo.dir);
    slash = strrchr(undo.graves, '/');
    (void)snprintf(slash, 64, "/powercut.%ld", (long)getpid());
}

bool
undo_start(const char *dir)
{
    if (dir == NULL || realpath(dir, undo.dir) == NULL)
        return false;
    undo.dir_n = strlen(undo.dir);
    graves_name();
    return undo.dir_n > 1;
}

bool
undo_tracks(const char *path)
{
    return undo.dir_n > 1 && strncmp(path, undo.dir, undo.dir_n) == 0 &&
           (path[undo.dir_n] == '/' || path[undo.dir_n] == '\0');
}

bool
undo_path_of_fd(int fd, char path[UNDO_PATH_MAX])
{
    char link[NAME_MAX_ + 16];
    ssize_t n;

    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, path, UNDO_PATH_MAX - 1);
    if (n <= 0)
        return false;
    path[n] = '\0';
    return undo_tracks(path);
}

bool
undo_path_of(int dirfd, const char *path, char out[UNDO_PATH_MAX])
{
    char full[UNDO_PATH_MAX * 2], folder[UNDO_PATH_MAX];
    size_t n = strlen(path);
    char *slash;

    if (n == 0 || n >= UNDO_PATH_MAX)
        return false;
    if (path[0] == '/' || dirfd == AT_FDCWD)
        (void)snprintf(full, sizeof(full), "%s%s", path[0] == '/' ? "" : "./",
                       path);
    else
        (void)snprintf(full, sizeof(full), "/proc/self/fd/%d/%s", dirfd, path);
    for (n = strlen(full); n > 1 && full[n - 1] == '/'; n--)
        full[n - 1] = '\0';
    slash = strrchr(full, '/');
    *slash = '\0';
    if (realpath(slash == full ? "/" : full, folder) == NULL)
        return false;
    return snprintf(out, UNDO_PATH_MAX, "%s/%s", folder, slash + 1) <
               UNDO_PATH_MAX &&
           undo_tracks(out);
}

static uint64_t
page_slot(const struct file *file, uint64_t number)
{
    uint64_t i =
        number * UINT64_C(0x9e3779b97f4a7c15) >> 20 & (file->pages_cap - 1);

    while (file->pages[i].number != 0 && file->pages[i].number != number + 1)
        i = (i + 1) & (file->pages_cap - 1);
    return i;
}

static void
pages_grow(struct file *file)
{
    struct page *old = file->pages;
    uint64_t cap = file->pages_cap;

    file->pages_cap = cap == 0 ? PAGES_FIRST : cap * 2;
    file->pages = must(calloc(file->pages_cap, sizeof(*file->pages)));
    for (uint64_t i = 0; i < cap; i++)
        if (old[i].number != 0)
            file->pages[page_slot(file, old[i].number - 1)] = old[i];
    free(old);
}

static void
pages_drop(struct file *file)
{
    for (uint64_t i = 0; i < file->pages_cap; i++)
        free(file->pages[i].old);
    free(file->pages);
    file->pages = NULL;
    file->pages_n = file->pages_cap = 0;
    file->dirty = false;
}

static struct file **
file_find(dev_t dev, ino_t ino)
{
    struct file **at = &undo.files;

    while (*at != NULL && ((*at)->dev != dev || (*at)->ino != ino))
        at = &(*at)->next;
    return at;
}

static void
file_drop(struct file **at)
{
    struct file *file = *at;

    *at = file->next;
    pages_drop(file);
    (void)syscall(SYS_close, file->fd);
    free(file);
}

void
undo_forget(void)
{
    while (undo.files != NULL)
        file_drop(&undo.files);
    for (size_t i = 0; i < undo.changes_n; i++) {
        free(undo.changes[i].path);
        free(undo.changes[i].to);
        free(undo.changes[i].grave);
    }
    undo.changes_n = 0;
    graves_name();
}

static struct file *
file_dirty(int fd, const struct stat *st)
{
    struct file **at = file_find(st->st_dev, st->st_ino), *file = *at;
    char link[NAME_MAX_ + 16];

    if (file == NULL) {
        file = must(calloc(1, sizeof(*file)));
        (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        file->fd = raw_open(link, O_RDWR);
        if (file->fd < 0)
            untrue("cannot open a second time", link);
        file->dev = st->st_dev;
        file->ino = st->st_ino;
        file->next = NULL;
        *at = file;
    }
    if (!file->dirty)
        file->synced_size = st->st_size;
    file->dirty = true;
    return file;
}

static void
page_keep(struct file *file, uint64_t number)
{
    uint64_t i;
    ssize_t n;

    if (file->pages_n * 2 >= file->pages_cap)
        pages_grow(file);
    i = page_slot(file, number);
    if (file->pages[i].number != 0)
        return;
    file->pages[i] = (struct page){number + 1, 0, must(calloc(1, UNDO_PAGE))};
    file->pages_n++;
    n = (ssize_t)syscall(SYS_pread64, file->fd, file->pages[i].old, UNDO_PAGE,
                         (off_t)number * UNDO_PAGE);
    if (n < 0)
        untrue("cannot read what will be overwritten", "pread");
    file->pages[i].old_n = (uint32_t)n;
}

void
undo_before_write(int fd, off_t at, uint64_t n)
{
    struct stat st;
    struct file *file;

    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        return;
    file = file_dirty(fd, &st);
    if (n == 0)
        return;
    for (uint64_t p = (uint64_t)at / UNDO_PAGE;
         p <= ((uint64_t)at + n - 1) / UNDO_PAGE; p++)
        page_keep(file, p);
}

void
undo_after_synced_write(int fd, off_t at, uint64_t n)
{
    struct stat st;
    struct file *file;

    if (n == 0 || fstat(fd, &st) != 0)
        return;
    file = *file_find(st.st_dev, st.st_ino);
    if (file == NULL)
        return;
    if (at + (off_t)n > file->synced_size)
        file->synced_size = at + (off_t)n;
    for (uint64_t p = (uint64_t)at / UNDO_PAGE;
         p <= ((uint64_t)at + n - 1) / UNDO_PAGE; p++) {
        uint64_t i = file->pages_cap == 0 ? 0 : page_slot(file, p);

        if (file->pages_cap == 0 || file->pages[i].number == 0)
            continue;
        /* Durable as it is now: what a revert would write is the page itself. */
        memset(file->pages[i].old, 0, UNDO_PAGE);
        ssize_t now = (ssize_t)syscall(SYS_pread64, file->fd, file->pages[i].old,
                                       UNDO_PAGE, (off_t)p * UNDO_PAGE);
        file->pages[i].old_n = now < 0 ? 0 : (uint32_t)now;
    }
}

static bool
folder_is(const char *path, const char *folder)
{
    const char *slash = strrchr(path, '/');
    size_t n = (size_t)(slash - path);

    return strlen(folder) == n && memcmp(path, folder, n) == 0;
}

static void
change_free(struct change *change)
{
    if (change->grave != NULL)
        (void)syscall(SYS_unlink, change->grave);
    free(change->path);
    free(change->to);
    free(change->grave);
}

/* A rename is durable with the folder that it went to. */
static void
folder_synced(const char *folder)
{
    size_t kept = 0;

    for (size_t i = 0; i < undo.changes_n; i++) {
        struct change *change = &undo.changes[i];

        if (folder_is(change->kind == RENAMES ? change->to : change->path, folder))
            change_free(change);
        else
            undo.changes[kept++] = *change;
    }
    undo.changes_n = kept;
}

void
undo_synced(int fd)
{
    char path[UNDO_PATH_MAX];
    struct file **at;
    struct stat st;

    if (fstat(fd, &st) != 0)
        return;
    if (S_ISDIR(st.st_mode)) {
        if (undo_path_of_fd(fd, path))
            folder_synced(path);
        return;
    }
    at = file_find(st.st_dev, st.st_ino);
    if (*at != NULL)
        file_drop(at);
}

void
undo_all_synced(void)
{
    while (undo.files != NULL)
        file_drop(&undo.files);
    for (size_t i = 0; i < undo.changes_n; i++)
        change_free(&undo.changes[i]);
    undo.changes_n = 0;
}

static struct change *
change_add(enum change_kind kind, const char *path, const char *to)
{
    struct change *change;

    if (undo.changes_n == undo.changes_cap) {
        undo.changes_cap = undo.changes_cap == 0 ? 64 : undo.changes_cap * 2;
        undo.changes =
            must(realloc(undo.changes, undo.changes_cap * sizeof(*undo.changes)));
    }
    change = &undo.changes[undo.changes_n++];
    *change = (struct change){kind, must(strdup(path)), NULL, NULL};
    if (to != NULL)
        change->to = must(strdup(to));
    return change;
}

/* Gives what is at path a second name, so that it can come back. */
static void
grave_dig(struct change *change, const char *path)
{
    char grave[UNDO_PATH_MAX + 128];
    struct stat st;

    if (lstat(path, &st) != 0 || S_ISDIR(st.st_mode))
        return;
    (void)syscall(SYS_mkdir, undo.graves, 0700);
    (void)snprintf(grave, sizeof(grave), "%s/%llu", undo.graves,
                   (unsigned long long)undo.grave_next++);
    if (syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, grave, 0) != 0)
        untrue("cannot keep what is removed", path);
    change->grave = must(strdup(grave));
}

void
undo_creates(const char *path)
{
    (void)change_add(CREATES, path, NULL);
}

void
undo_makes_folder(const char *path)
{
    (void)change_add(MAKES_FOLDER, path, NULL);
}

void
undo_unlinks(const char *path)
{
    grave_dig(change_add(UNLINKS, path, NULL), path);
}

void
undo_removes_folder(const char *path)
{
    (void)change_add(REMOVES_FOLDER, path, NULL);
}

void
undo_renames(const char *from, const char *to)
{
    grave_dig(change_add(RENAMES, from, to), to);
}

void
undo_cancel(void)
{
    change_free(&undo.changes[--undo.changes_n]);
}

/* Other threads may be frozen inside malloc: so no opendir here. */
struct entry {
    uint64_t ino;
    int64_t off;
    unsigned short size;
    unsigned char type;
    char name[];
};

static void
tree_remove(const char *path)
{
    char bytes[4096] __attribute__((aligned(8))), child[UNDO_PATH_MAX];
    int fd = raw_open(path, O_RDONLY | O_DIRECTORY);
    long n;

    while (fd >= 0 && (n = syscall(SYS_getdents64, fd, bytes, sizeof(bytes))) > 0)
        for (long at = 0; at < n;) {
            const struct entry *entry = (const void *)(bytes + at);

            at += entry->size;
            if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0 ||
                snprintf(child, sizeof(child), "%s/%s", path, entry->name) >=
                    (int)sizeof(child))
                continue;
            if (syscall(SYS_unlinkat, AT_FDCWD, child, 0) != 0)
                tree_remove(child);
        }
    if (fd >= 0)
        (void)syscall(SYS_close, fd);
    (void)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
}

static void
change_revert(const struct change *change)
{
    switch (change->kind) {
    case CREATES:
        (void)syscall(SYS_unlink, change->path);
        break;
    case MAKES_FOLDER: /* what is in it cannot be reached without it */
        tree_remove(change->path);
        break;
    case UNLINKS:
        break;
    case REMOVES_FOLDER:
        (void)syscall(SYS_mkdir, change->path, 0750);
        break;
    case RENAMES:
        (void)syscall(SYS_rename, change->to, change->path);
        break;
    }
    if (change->grave != NULL)
        (void)syscall(SYS_rename, change->grave,
                      change->kind == RENAMES ? change->to : change->path);
}

static uint64_t
coin(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed >> 11;
}

/* A page that is lost past the old end reads as zeros if a later one survives. */
static void
file_revert(struct file *file, uint64_t *seed, struct undo_result *out)
{
    off_t size = file->synced_size, kept_end = 0;
    struct stat st;

    out->files++;
    if (fstat(file->fd, &st) != 0)
        untrue("cannot look at a file", "fstat");
    if (*seed != 0 && coin(seed) % 2 == 0)
        size = st.st_size;
    for (uint64_t i = 0; i < file->pages_cap; i++) {
        const struct page *page = &file->pages[i];
        off_t at = (off_t)(page->number - 1) * UNDO_PAGE;

        if (page->number == 0)
            continue;
        out->pages++;
        if (*seed != 0 && coin(seed) % 2 == 0) {
            off_t end = at + UNDO_PAGE < st.st_size ? at + UNDO_PAGE : st.st_size;
            kept_end = end > kept_end ? end : kept_end;
            continue;
        }
        out->pages_lost++;
        if (syscall(SYS_pwrite64, file->fd, page->old, UNDO_PAGE, at) != UNDO_PAGE)
            untrue("cannot revert a page", "pwrite");
    }
    size = kept_end > size ? kept_end : size;
    if (syscall(SYS_ftruncate, file->fd, size) != 0)
        untrue("cannot revert a size", "ftruncate");
}

void
undo_revert(uint64_t seed, struct undo_result *out)
{
    size_t survive = 0;

    *out = (struct undo_result){.changes = undo.changes_n};
    for (struct file *file = undo.files; file != NULL; file = file->next)
        if (file->dirty)
            file_revert(file, &seed, out);
    if (seed != 0)
        survive = coin(&seed) % (undo.changes_n + 1);
    for (size_t i = undo.changes_n; i > survive; i--) {
        change_revert(&undo.changes[i - 1]);
        out->changes_lost++;
    }
    for (size_t i = 0; i < survive; i++)
        if (undo.changes[i].grave != NULL)
            (void)syscall(SYS_unlink, undo.changes[i].grave);
    (void)syscall(SYS_rmdir, undo.graves);
}

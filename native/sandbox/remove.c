/* Remove the files that jobs leave, whatever they are (`remove`). For a short command this is as
 * much work as everything else that the mirror does, so it is a process of its own, in C.
 *
 * No path is ever followed downwards. A directory is moved to the top before its turn comes, so a
 * tree may be deeper than any path. No link is followed either: another process may hold a
 * descriptor of the tree, and replace a directory by a link. Modes are changed by descriptor, never
 * by name.
 *
 * Messages are for the mirror's log. A file that cannot be removed costs space, and nothing
 * else. */
#include "sandbox.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOVED_NAME_BYTES = 64 };

/* Names of the directories to remove, relative to the scratch directory, with a NUL after each. */
static struct buffer waiting;
static unsigned long moved;

/* Log that `name` could not be removed, with the text of errno. */
static void say(const char *name)
{
    if (errno != ENOENT) /* no sandbox was made for this job */
        dprintf(STDERR_FILENO, "scratch-not-removed path=%s reason=%s\n", name, strerror(errno));
}

/* Give a directory the mode 0700. Return false, with errno, if that fails. The descriptor is one
 * without reading (O_PATH): a directory without read permission cannot be opened otherwise. */
static bool open_up(int directory, const char *name)
{
    char link[64];
    int fd = openat(directory, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return false;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    bool is_open = chmod(link, 0700) == 0;
    int failure = errno;
    close(fd);
    errno = failure;
    return is_open;
}

/* Move a directory to the top, and note it for removal. Return false, with errno, if that fails. */
static bool move_up(int directory, const char *name)
{
    char top[MOVED_NAME_BYTES];
    int length = snprintf(top, sizeof top, "discarded-%d-%lu", (int)getpid(), moved++);
    bool is_up = renameat(directory, name, AT_FDCWD, top) == 0;
    if (!is_up && errno == EACCES) /* a move changes the directory's "..", and so needs its write bit */
        is_up = open_up(directory, name) && renameat(directory, name, AT_FDCWD, top) == 0;
    if (is_up)
        buffer_add(&waiting, top, (size_t)length + 1);
    return is_up;
}

/* Return whether the entry was a directory when it was listed. */
static bool is_directory(int directory, const struct dirent *entry)
{
    struct stat st;
    if (entry->d_type != DT_UNKNOWN)
        return entry->d_type == DT_DIR;
    return fstatat(directory, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

/* Remove a file, or move a directory up. Return false, with errno, if that fails. A listed file may
 * have become a directory or be gone. */
static bool take_out(int directory, const struct dirent *entry)
{
    if (is_directory(directory, entry))
        return move_up(directory, entry->d_name) || errno == ENOENT;
    return unlinkat(directory, entry->d_name, 0) == 0 || errno == ENOENT ||
           (errno == EISDIR && move_up(directory, entry->d_name));
}

/* Take out everything that `directory` lists. Return the number of names, or -1 with errno. */
static long empty(DIR *directory)
{
    long count = 0;
    for (struct dirent *entry; (entry = readdir(directory)); count++) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            count--;
        else if (!take_out(dirfd(directory), entry))
            return -1;
    }
    return count;
}

/* Open a directory and give it the mode 0700. Return the descriptor, or -1 with errno. */
static int open_directory(const char *name)
{
    const int how = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    struct stat st;
    int fd = open(name, how);
    if (fd < 0 && errno == EACCES && open_up(AT_FDCWD, name))
        fd = open(name, how);
    if (fd >= 0 && fstat(fd, &st) == 0 && ((st.st_mode & 0700) == 0700 || fchmod(fd, 0700) == 0))
        return fd;
    int failure = errno;
    if (fd >= 0)
        close(fd);
    errno = failure;
    return -1;
}

/* Remove a directory whose subdirectories have been moved up, or will be. */
static void remove_directory(const char *name)
{
    int fd = open_directory(name);
    if (fd < 0 && (errno == ENOTDIR || errno == ELOOP)) { /* it is not a directory any more */
        if (unlink(name) != 0)
            say(name);
        return;
    }
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory) {
        say(name);
        return;
    }
    long count;
    while ((count = empty(directory)) > 0) /* a listing that changes meanwhile may leave names out */
        rewinddir(directory);
    closedir(directory);
    if (count < 0 || rmdir(name) != 0)
        say(name);
}

/* Remove all noted directories, and those that turn up in them. */
static void remove_waiting(void)
{
    while (waiting.length > 0) {
        size_t start = waiting.length - 1; /* the last one first: as few as possible wait */
        while (start > 0 && waiting.bytes[start - 1] != '\0')
            start--;
        char *name = strdup(waiting.bytes + start);
        waiting.length = start;
        if (name)
            remove_directory(name);
        free(name);
    }
}

int remove_listed(const char *scratch)
{
    if (chdir(scratch) != 0) {
        say(scratch);
        return EXIT_FAILED;
    }
    struct buffer names = {0};
    for (;;) {
        char *room = buffer_reserve(&names, 4096);
        ssize_t count = room ? read(STDIN_FILENO, room, 4096) : -1;
        if (count < 0 && room && errno == EINTR)
            continue;
        if (count <= 0)
            return count == 0 ? 0 : EXIT_FAILED;
        names.length += (size_t)count;
        char *end = memrchr(names.bytes, '\0', names.length);
        if (!end)
            continue;
        size_t whole = (size_t)(end - names.bytes) + 1;
        buffer_add(&waiting, names.bytes, whole);
        remove_waiting();
        names.length -= whole;
        memmove(names.bytes, names.bytes + whole, names.length);
    }
}

/* Read the mark of a tree, which says at which path the tree is built.
 *
 * The mark is the file `.termite-at` in the top directory of the tree, and has that path in its
 * only line. A directory that has the path itself is the right one: the private mount namespace of
 * such a build shows the tree there. In a directory like /tmp, a mark of another user does not
 * count. termite/cli/moved_trees/marks.py has the same rules. */
#include "../launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MARK "/.termite-at"

/* Return whether a mark was put by another user into a directory in which all users may write. It
 * would stop all builds below. `fd` is the open mark, or -1 if it is a symlink. */
static bool is_of_stranger(const char *top, const char *path, int fd)
{
    struct stat mark, directory;
    if (fd < 0 && lstat(path, &mark) != 0) /* it has just been removed */
        return true;
    if ((fd >= 0 && fstat(fd, &mark) != 0) || stat(*top ? top : "/", &directory) != 0)
        return false;
    bool is_trusted = mark.st_uid == geteuid() || mark.st_uid == 0 || mark.st_uid == directory.st_uid;
    return directory.st_mode & S_IWOTH && !is_trusted;
}

/* Read the mark in the directory `top`, which has no slash at its end. Return false if there is
 * none. A mark that cannot be read has no path, which is that of no tree. */
static bool read_mark(const char *top, char marked[PATH_MAX])
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s" MARK, top);
    if (length < 0 || (size_t)length >= sizeof path)
        return false;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && errno != ELOOP)
        return false;
    bool is_ignored = is_of_stranger(top, path, fd);
    ssize_t n = fd < 0 ? -1 : read(fd, marked, PATH_MAX - 1);
    if (fd >= 0)
        close(fd);
    marked[n < 0 ? 0 : n] = '\0';
    marked[strcspn(marked, "\n")] = '\0';
    return !is_ignored;
}

/* Replace what controls a terminal: an archive may have brought the tree and its mark. */
static void make_printable(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = '?';
}

void check_mark(const char *cwd)
{
    char marked[PATH_MAX], top[PATH_MAX];
    size_t length = strlen(cwd);
    if (length >= sizeof top)
        return;
    memcpy(top, cwd, length + 1);
    for (;;) {
        while (length > 0 && top[length - 1] == '/')
            top[--length] = '\0';
        if (read_mark(top, marked))
            break;
        if (length == 0)
            return;
        while (length > 0 && top[length - 1] != '/')
            top[--length] = '\0';
    }
    if (strcmp(marked, top) == 0)
        return;
    make_printable(marked);
    make_printable(top);
    dprintf(STDERR_FILENO, "termite: %s is built at %s, not at its own path; use --at %s\n", top,
            marked, marked);
    _exit(EXIT_MISPLACED);
}

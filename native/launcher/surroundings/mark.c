/* Read the mark of a tree, which says at which path the tree is built.
 *
 * The mark is the file `.termite-at` in the top directory of the tree, and has that path in its
 * only line. A directory that has the path itself is the right one: the private mount namespace of
 * such a build shows the tree there. termite/cli/canonical/marks.py has the same rules. */
#include "../launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MARK "/.termite-at"

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
    ssize_t n = fd < 0 ? -1 : read(fd, marked, PATH_MAX - 1);
    if (fd >= 0)
        close(fd);
    marked[n < 0 ? 0 : n] = '\0';
    marked[strcspn(marked, "\n")] = '\0';
    return true;
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

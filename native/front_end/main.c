/* Start a front end, which is written in Python: termite-make and its like.
 *
 * A build tool inherits ignored signals, as after `trap '' PIPE` in a shell. Python ignores SIGPIPE
 * and SIGXFSZ from its first moment, and forgets what it has inherited. This program looks before,
 * and tells it. */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FIRST_WORDS = 3 /* before those of the user */ };
static const char PROGRAM[] = "/termite-front-end"; /* beside this one */

/* Return the path of the program beside this one, or NULL with errno. */
static char *path_of_program(void)
{
    static char path[PATH_MAX + sizeof PROGRAM];
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - 1);
    char *slash = length > 0 ? memrchr(path, '/', (size_t)length) : NULL;
    if (!slash)
        return NULL;
    memcpy(slash, PROGRAM, sizeof PROGRAM);
    return path;
}

static bool is_ignored(int number)
{
    struct sigaction action;
    return sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

int main(int argc, char **argv)
{
    static char ignored[16], name[] = FRONT_END; /* make, ninja, cmake or build */
    char *path = path_of_program();
    char **words = calloc((size_t)argc + FIRST_WORDS, sizeof *words);
    if (path && words && argc > 0) {
        snprintf(ignored, sizeof ignored, "%d,%d", is_ignored(SIGPIPE) ? SIGPIPE : 0, is_ignored(SIGXFSZ) ? SIGXFSZ : 0);
        words[0] = path;
        words[1] = ignored;
        words[2] = name;
        memcpy(words + FIRST_WORDS, argv + 1, (size_t)argc * sizeof *argv); /* with the NULL at the end */
        execv(path, words);
    }
    fprintf(stderr, "termite: cannot start %s: %s\n", path ? path : "a front end", strerror(errno));
    return errno == ENOENT ? 127 : 126;
}

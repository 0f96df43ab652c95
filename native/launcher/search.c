/* execvp as the C library of the build tool has it: what would run without us must run with us, with the same errors.
 *
 * The launcher may be linked with another C library than the build tool (CMakeLists.txt says why), and they differ here:
 * in the PATH where there is none, in scripts without #!, and in which failure ends the search. This is what POSIX
 * leaves open as glibc decides it (its manual, "Executing a File"; execvp(3)); and its words for what can fail here. */
#include "launcher.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

static const char PATH_OF_NONE[] = "/bin:/usr/bin", SHELL[] = "/bin/sh";

/* A file that the kernel does not know how to execute is a script for the shell. */
static void execute_file(const char *path, char **argv)
{
    execve(path, argv, environ);
    if (errno != ENOEXEC)
        return;
    size_t count = 0;
    while (argv[count])
        count++;
    char *script[count + 2];
    script[0] = (char *)SHELL;
    script[1] = (char *)path;
    memcpy(script + 2, argv + 1, count * sizeof *argv); /* with the NULL at the end */
    execve(SHELL, script, environ);
}

/* Whether there may still be another of that name, further down in PATH. */
static bool goes_on_after(int failure)
{
    switch (failure) {
    case EACCES:
    case ENOENT:
    case ENOTDIR:
    case ENODEV:
    case ESTALE:
    case ETIMEDOUT:
        return true;
    default:
        return false;
    }
}

void search_and_execute(const char *file, char **argv)
{
    const char *list = getenv("PATH");
    if (strchr(file, '/')) {
        execute_file(file, argv);
        return;
    }
    errno = ENOENT;
    if (!*file)
        return;
    size_t length = strnlen(file, NAME_MAX + 1); /* one more than there can be: the kernel says what that means */
    bool was_denied = false;
    for (const char *start = list ? list : PATH_OF_NONE, *end;; start = end + 1) {
        end = strchrnul(start, ':');
        size_t directory = (size_t)(end - start);
        if (directory < PATH_MAX) {
            char path[PATH_MAX + NAME_MAX + 3];
            memcpy(path, start, directory);
            if (directory > 0)
                path[directory++] = '/'; /* an empty one is the current directory */
            memcpy(path + directory, file, length);
            path[directory + length] = '\0';
            execute_file(path, argv);
            if (!goes_on_after(errno))
                return;
            was_denied = was_denied || errno == EACCES;
        }
        if (!*end)
            break;
    }
    if (was_denied)
        errno = EACCES;
}

const char *failure_text(int failure)
{
    switch (failure) {
    case EIO:
        return "Input/output error";
    case ELIBBAD:
        return "Accessing a corrupted shared library";
    case ELOOP:
        return "Too many levels of symbolic links";
    case EMFILE:
        return "Too many open files";
    case ENAMETOOLONG:
        return "File name too long";
    case ENOMEM:
        return "Cannot allocate memory";
    default:
        return strerror(failure);
    }
}

/* Search for a program and execute it exactly as glibc's execvp does, and name errors as glibc
 * does.
 *
 * The launcher may be linked with another C library than the build tool; CMakeLists.txt says why. A
 * command must run, or fail, as it would without the launcher. The libraries differ in the default
 * of PATH, in scripts without "#!", and in which failure ends the search. POSIX leaves these open;
 * glibc's choices are in its manual ("Executing a File") and in execvp(3).
 *
 * One thing is as in a shell, in which a user writes `termite ./program` for `./program`: a broken
 * program is no script. execvp would give it to /bin/sh. */
#include "launcher.h"
#include "../shared/program_head.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

static const char PATH_OF_NONE[] = "/bin:/usr/bin", SHELL[] = "/bin/sh";
enum { MAX_SCRIPTS = 5 /* a script may be the interpreter of another one; see execve(2) */ };

/* Read the first bytes of a file. Return how many, or less than 1 if there are none. */
static ssize_t read_head(const char *path, char head[PROGRAM_HEAD_BYTES])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, head, PROGRAM_HEAD_BYTES);
    close(fd);
    return n;
}

/* Return whether a shell would refuse a file as binary, as dash and bash do: it begins like an ELF
 * program, or its first line has a NUL. */
static bool is_binary(const char *path)
{
    char head[PROGRAM_HEAD_BYTES];
    ssize_t n = read_head(path, head);
    if (n < SELFMAG)
        return false;
    const char *line_end = memchr(head, '\n', (size_t)n);
    size_t line = line_end ? (size_t)(line_end - head) : (size_t)n;
    return memcmp(head, ELFMAG, SELFMAG) == 0 || memchr(head, '\0', line);
}

/* Execute `path`. If the kernel does not know its format, and the file is a text, run it as a
 * script of /bin/sh. Return if that fails, with errno. */
static void execute_file(const char *path, char **argv)
{
    execve(path, argv, environ);
    if (errno != ENOEXEC)
        return;
    if (is_binary(path)) {
        errno = ENOEXEC;
        return;
    }
    size_t count = 0;
    while (argv[count])
        count++;
    char *script[count + 2];
    script[0] = (char *)SHELL;
    script[1] = (char *)path;
    memcpy(script + 2, argv + 1, count * sizeof *argv); /* including the NULL at the end */
    execve(SHELL, script, environ);
}

/* Return whether the search goes on in the next directory of PATH after this failure. */
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

/* Write the interpreter that a script names to `path`, which has the script's path. Return false
 * for any other file. */
static bool follow_script(char path[PATH_MAX])
{
    char head[PROGRAM_HEAD_BYTES];
    ssize_t n = read_head(path, head);
    size_t length;
    const char *interpreter = n > 0 ? script_interpreter(head, (size_t)n, &length) : NULL;
    if (!interpreter)
        return false;
    memcpy(path, interpreter, length);
    path[length] = '\0';
    return true;
}

/* Return whether `path` is a file that may be executed, and so may the interpreters that scripts
 * name. */
static bool is_program(const char *path)
{
    char next[PATH_MAX];
    for (int scripts = 0; scripts < MAX_SCRIPTS; scripts++) {
        struct stat st;
        if (stat(path, &st) != 0 || !S_ISREG(st.st_mode) || access(path, X_OK) != 0)
            return false;
        if (strlen(path) >= sizeof next)
            return false; /* stat takes no longer path */
        memmove(next, path, strlen(path) + 1);
        path = next;
        if (!follow_script(next))
            return true;
    }
    return true;
}

/* Try a file, as `search_and_execute` and `is_startable` need it: without `argv` only look whether
 * it is a program. Return whether it is. */
static bool try_file(const char *path, char **argv)
{
    if (argv)
        execute_file(path, argv);
    return !argv && is_program(path);
}

/* Try `file`, or each file of this name in PATH. Return whether a look has found a program. */
static bool try_all(const char *file, char **argv)
{
    const char *list = getenv("PATH");
    if (strchr(file, '/'))
        return try_file(file, argv);
    errno = ENOENT;
    if (!*file)
        return false;
    size_t length = strnlen(file, NAME_MAX + 1); /* one more than the limit: the kernel then reports the error */
    bool was_denied = false;
    for (const char *start = list ? list : PATH_OF_NONE, *end;; start = end + 1) {
        end = strchrnul(start, ':');
        size_t directory = (size_t)(end - start);
        if (directory < PATH_MAX) {
            char path[PATH_MAX + NAME_MAX + 3];
            memcpy(path, start, directory);
            if (directory > 0)
                path[directory++] = '/'; /* an empty one means the current directory */
            memcpy(path + directory, file, length);
            path[directory + length] = '\0';
            if (try_file(path, argv))
                return true;
            if (argv && !goes_on_after(errno))
                return false;
            was_denied = was_denied || errno == EACCES;
        }
        if (!*end)
            break;
    }
    if (was_denied)
        errno = EACCES;
    return false;
}

void search_and_execute(const char *file, char **argv)
{
    (void)try_all(file, argv);
}

bool is_startable(const char *file, bool search)
{
    return search ? try_all(file, NULL) : is_program(file);
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

/* Other system calls for a launcher: the N-th one ends the process, or fails.
 *
 * The launcher's sources are linked with this file and `-Wl,--wrap=NAME` for each call below. The
 * variable TERMITE_SWEEP orders what happens: `CALL N WHAT FILE`. WHAT is `kill`, `short`, or the
 * number of an error. FILE, with the name of the call, is made when the N-th one comes. If WHAT is
 * `count`, nothing happens, and FILE gets a line with the name of each call, whatever CALL is.
 *
 * A read of the master's socket counts as `read`, any other one as `take`. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { GO_ON, SHORTEN, REFUSE };

static int due(const char *name)
{
    static int count;
    char call[32], what[32], file[4096];
    int number;
    const char *order = getenv("TERMITE_SWEEP");
    if (!order || sscanf(order, "%31s %d %31s %4095s", call, &number, what, file) != 4)
        return GO_ON;
    bool only_counts = strcmp(what, "count") == 0;
    if (!only_counts && (strcmp(call, name) != 0 || ++count != number))
        return GO_ON;
    int reached = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    dprintf(reached, "%s%s", name, only_counts ? "\n" : "");
    close(reached);
    if (only_counts)
        return GO_ON;
    if (strcmp(what, "kill") == 0)
        kill(getpid(), SIGKILL);
    if (strcmp(what, "short") == 0)
        return SHORTEN;
    errno = atoi(what);
    return REFUSE;
}

/* Define the wrapper of a call, which transfers at most `most` of its `size` bytes. */
#define WRAP(type, name, counted_as, parameters, arguments, shorten)                                                   \
    type __real_##name parameters;                                                                                     \
    type __wrap_##name parameters                                                                                      \
    {                                                                                                                  \
        int verdict = due(counted_as);                                                                                 \
        if (verdict == REFUSE)                                                                                         \
            return -1;                                                                                                 \
        if (verdict == SHORTEN)                                                                                        \
            shorten;                                                                                                   \
        return __real_##name arguments;                                                                                \
    }

static int is_socket(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

WRAP(ssize_t, read, is_socket(fd) ? "read" : "take", (int fd, void *to, size_t size), (fd, to, size), size = 1)
WRAP(ssize_t, write, "write", (int fd, const void *from, size_t size), (fd, from, size), size = 1)
WRAP(ssize_t, send, "send", (int fd, const void *from, size_t size, int flags), (fd, from, size, flags), size = 1)
WRAP(ssize_t, tee, "tee", (int in, int out, size_t size, unsigned flags), (in, out, size, flags), size = 1)
WRAP(int, socket, "socket", (int domain, int type, int protocol), (domain, type, protocol), (void)0)
WRAP(int, connect, "connect", (int fd, const struct sockaddr *to, socklen_t size), (fd, to, size), (void)0)
WRAP(int, poll, "poll", (struct pollfd *fds, nfds_t count, int patience), (fds, count, patience), (void)0)
WRAP(ssize_t, getrandom, "getrandom", (void *to, size_t size, unsigned flags), (to, size, flags), size = 1)

struct dirent *__real_readdir(DIR *directory);
struct dirent *__wrap_readdir(DIR *directory)
{
    return due("readdir") == REFUSE ? NULL : __real_readdir(directory);
}

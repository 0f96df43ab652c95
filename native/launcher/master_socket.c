/* Find the socket of the master that serves a directory, connect to it, and send bytes.
 *
 * A socket that exists need not have a master: a killed one leaves its socket behind. */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

/* Return whether `path` is a socket of this user. The master of another user would get our
 * environment, and choose how our command runs. A symlink could lead to our master of another
 * tree. */
static bool is_our_socket(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_uid == geteuid();
}

/* Write the path of the nearest socket upwards from `directory` to `path`. Return false if there is
 * none. */
static bool find_socket(const char *directory, char path[PATH_MAX])
{
    size_t length = strlen(directory);
    if (length + sizeof "/" SOCKET_NAME > PATH_MAX)
        return false;
    memcpy(path, directory, length);
    for (;;) {
        while (length > 0 && path[length - 1] == '/')
            length--;
        memcpy(path + length, "/" SOCKET_NAME, sizeof "/" SOCKET_NAME);
        if (is_our_socket(path))
            return true;
        if (length == 0)
            return false;
        while (length > 0 && path[length - 1] != '/')
            length--;
    }
}

/* Fill the address of the socket at `path`. A path longer than sun_path goes through a descriptor
 * of its directory, which is put into *directory (-1: none). Return false if that is impossible. */
static bool fill_address(const char *path, struct sockaddr_un *address, int *directory)
{
    *directory = -1;
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) < sizeof address->sun_path) {
        strcpy(address->sun_path, path);
        return true;
    }
    const char *slash = strrchr(path, '/');
    char parent[PATH_MAX];
    if (!slash || (size_t)(slash - path) >= sizeof parent)
        return false;
    memcpy(parent, path, (size_t)(slash - path));
    parent[slash - path] = '\0';
    *directory = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*directory < 0)
        return false;
    int n = snprintf(address->sun_path, sizeof address->sun_path, "/proc/self/fd/%d%s", *directory, slash);
    return n > 0 && (size_t)n < sizeof address->sun_path;
}

/* Return `fd`, or a duplicate above 2 in its place: the command would take one below 3 for its
 * stdin, stdout or stderr. Return -1 for -1, and if there is no descriptor left. */
static int above_stdio(int fd)
{
    if (fd < 0 || fd > 2)
        return fd;
    int above = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    close(fd);
    return above;
}

/* A master that does not accept within this time counts as absent. */
enum { DEAF_S = 30 };

int connect_master(const char *path)
{
    struct sockaddr_un address;
    int directory;
    int fd = -1;
    if (fill_address(path, &address, &directory))
        fd = above_stdio(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (fd >= 0) {
        struct timeval patience = {.tv_sec = DEAF_S};
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
            if (errno == EAGAIN)
                dprintf(STDERR_FILENO, "termite: the master at %s has not accepted for %d s; TERMITE=off builds without it\n",
                        path, DEAF_S);
            close(fd);
            fd = -1;
        }
    }
    if (directory >= 0)
        close(directory);
    return fd;
}

const char *find_master(const char *cwd, char path[PATH_MAX])
{
    const char *named = getenv("TERMITE_SOCKET");
    if (named)
        return *named ? named : NULL;
    if (find_socket(cwd, path))
        return path;
    const char *of_build = getenv("TERMITE_BUILD_SOCKET");
    return of_build && is_our_socket(of_build) ? of_build : NULL;
}

bool send_whole(int master, const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length > 0) {
        ssize_t n = send(master, at, length, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            return false;
        if (n > 0) {
            at += n;
            length -= (size_t)n;
        }
    }
    return true;
}

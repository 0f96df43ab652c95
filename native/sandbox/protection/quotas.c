/* Leave others a part of what the kernel counts for each user, or does not count at all.
 *
 * The jobs of a lease have the user id of their worker, or one that root's worker has for them. The
 * kernel counts inotify instances, queued signals and messages for a user. One job could use up all
 * of them, so that no other program of the user gets any. Namespaces cost memory that belongs to no
 * process: 130 KB for each network. Both are limited in the user namespace of the mirror, for all
 * of its jobs together. Terminals are counted for the whole machine. */
#include "../sandbox.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

enum { NAMESPACES_MAX = 2048 }; /* of each kind: a job needs one, and a test of containers a few */

static const char *const SHARED[] = {"max_inotify_instances", "max_inotify_watches"};
static const char *const NAMESPACES[] = {"max_cgroup_namespaces", "max_ipc_namespaces", "max_mnt_namespaces",
                                         "max_net_namespaces",    "max_pid_namespaces", "max_time_namespaces",
                                         "max_user_namespaces",   "max_uts_namespaces"};
enum { SHARED_COUNT = sizeof SHARED / sizeof *SHARED, NAMESPACES_COUNT = sizeof NAMESPACES / sizeof *NAMESPACES };

static long long shared_limits[SHARED_COUNT]; /* of the user namespace around the mirror's; 0: not known */

/* Open the file of a limit below /proc/sys. Return -1 if this kernel has none. */
static int open_limit(const char *directory, const char *name, int flags)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/sys/%s/%s", directory, name);
    return open(path, flags | O_CLOEXEC);
}

static long long read_limit(const char *directory, const char *name)
{
    char text[32] = "";
    int fd = open_limit(directory, name, O_RDONLY);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    return length > 0 ? strtoll(text, NULL, 10) : 0;
}

static void write_limit(const char *name, long long most)
{
    char text[32];
    int length = snprintf(text, sizeof text, "%lld", most);
    int fd = open_limit("user", name, O_WRONLY);
    if (fd < 0)
        return; /* without the limit everything works */
    ssize_t written = write(fd, text, (size_t)length);
    (void)written;
    close(fd);
}

/* Halve a limit that holds for the user, whichever of his processes has reached it. */
static void halve(int resource)
{
    struct rlimit limit;
    if (getrlimit(resource, &limit) != 0 || limit.rlim_max == RLIM_INFINITY)
        return;
    limit.rlim_max /= 2;
    if (limit.rlim_cur > limit.rlim_max)
        limit.rlim_cur = limit.rlim_max;
    setrlimit(resource, &limit);
}

void halve_quotas(void)
{
    halve(RLIMIT_SIGPENDING);
    halve(RLIMIT_MSGQUEUE);
    for (int i = 0; i < SHARED_COUNT; i++)
        shared_limits[i] = read_limit("user", SHARED[i]) / 2;
}

void limit_namespace(void)
{
    for (int i = 0; i < SHARED_COUNT; i++)
        if (shared_limits[i] > 0)
            write_limit(SHARED[i], shared_limits[i]);
    for (int i = 0; i < NAMESPACES_COUNT; i++)
        write_limit(NAMESPACES[i], NAMESPACES_MAX);
}

long long most_terminals(void)
{
    long long most = read_limit("kernel/pty", "max") - read_limit("kernel/pty", "reserve");
    return most >= 4 ? most / 4 : 1;
}

/* Count, wait for and end the processes of a job, and count what they wrote, for its pid 1. */
#include "sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LOW_PROCESS_LIMIT = 8192, TRIED_PROCESSES = 4, MOST_TRIED = 16, TRIED_STACK_BYTES = 4096 };
enum { PART_NEAR_LIMIT = 64 }; /* so near to its limit of processes, a job has met it: some have ended since */
enum { GRACE_MS = 500, PAUSE_MAX_MS = 10 };

static int wait_to_be_killed(void *nothing)
{
    (void)nothing;
    while (pause() < 0)
        ;
    return 0;
}

/* Return whether the kernel refuses so many processes at once. They share our memory. Four take
 * 100 us. */
static bool are_refused(unsigned long long wanted)
{
    static char stacks[MOST_TRIED][TRIED_STACK_BYTES] __attribute__((aligned(16)));
    pid_t made[MOST_TRIED];
    unsigned long long count = 0;
    int reason = 0;
    while (count < wanted && !reason) {
        made[count] = clone(wait_to_be_killed, stacks[count] + TRIED_STACK_BYTES, CLONE_VM | SIGCHLD, NULL);
        if (made[count] < 0)
            reason = errno;
        else
            count++;
    }
    while (count > 0) { /* they are none of those that the command has left */
        kill(made[--count], SIGKILL);
        waitpid(made[count], NULL, 0);
    }
    return reason == EAGAIN;
}

/* Read the beginning of a file as a string. Return false if nothing can be read. */
static bool read_small(const char *path, char *text, size_t room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, room - 1);
    if (fd >= 0)
        close(fd);
    if (length <= 0)
        return false;
    text[length] = '\0';
    return true;
}

/* Read the number of tasks of the machine, and that of the newest process in this pid namespace.
 * Both are 0 if they are not known. */
static void read_load(unsigned long long *tasks, unsigned long long *newest)
{
    char text[128];
    *tasks = *newest = 0;
    if (!read_small("/proc/loadavg", text, sizeof text))
        return;
    const char *all = strchr(text, '/'), *last = strrchr(text, ' ');
    *tasks = all ? strtoull(all + 1, NULL, 10) : 0;
    *newest = last ? strtoull(last, NULL, 10) : 0;
}

unsigned long long newest_process(void)
{
    unsigned long long tasks, newest;
    read_load(&tasks, &newest);
    return newest;
}

/* The kernel counts no refusal. But a job has never had more processes than it has made, and its
 * user no more tasks than the machine. If both together stay below the limit, nothing was refused.
 * Otherwise we try to make as many at once as the job has made. Many are not tried, because other
 * jobs would meet the limit meanwhile: a job that has made half as many as the limit may have met
 * it. No build gets near a high limit, which is not looked at. */
bool may_be_refused(void)
{
    struct rlimit limit;
    unsigned long long tasks, newest;
    if (getrlimit(RLIMIT_NPROC, &limit) != 0 || limit.rlim_cur > LOW_PROCESS_LIMIT)
        return false;
    read_load(&tasks, &newest);
    if (tasks && tasks + newest + TRIED_PROCESSES < limit.rlim_cur)
        return false;
    if (newest > MOST_TRIED)
        return newest >= limit.rlim_cur / 2 || are_refused(MOST_TRIED);
    return are_refused(newest > TRIED_PROCESSES ? newest : TRIED_PROCESSES);
}

/* Return the number of processes and threads of the job. A directory with N threads has 2 + N
 * links. */
static unsigned long long count_processes(void)
{
    unsigned long long count = 0;
    DIR *all = opendir("/proc");
    for (struct dirent *entry; all && (entry = readdir(all));) {
        char path[64];
        struct stat st;
        if (entry->d_name[0] < '0' || entry->d_name[0] > '9' || strcmp(entry->d_name, "1") == 0)
            continue;
        snprintf(path, sizeof path, "/proc/%.32s/task", entry->d_name);
        if (stat(path, &st) == 0)
            count += st.st_nlink - 2;
    }
    if (all)
        closedir(all);
    return count;
}

/* No kernel makes a process in less than a microsecond, so a short job costs nothing here. */
unsigned long long made_processes(const struct job *job, long long lasted_ns, bool *is_full)
{
    if (!job->processes || (unsigned long long)lasted_ns / 1000 < job->processes)
        return 0;
    unsigned long long made = newest_process();
    if (made < job->processes)
        return 0;
    if (count_processes() + TRIED_PROCESSES + job->processes / PART_NEAR_LIMIT >= job->processes)
        *is_full = true;
    return made;
}

unsigned long long written_bytes(void)
{
    char text[512];
    if (!read_small("/proc/self/io", text, sizeof text))
        return 0;
    const char *written = strstr(text, "wchar: ");
    return written ? strtoull(written + strlen("wchar: "), NULL, 10) : 0;
}

/* At home these processes would live on, too. One that ends soon has time for that, such as one in
 * `<(...)` of a shell. */
bool are_processes_left(void)
{
    for (long waited_ms = 0, pause_ms = 1; waited_ms < GRACE_MS;) {
        pid_t pid = waitpid(-1, NULL, WNOHANG);
        if (pid < 0)
            return false;
        if (pid > 0)
            continue;
        nanosleep(&(struct timespec){.tv_nsec = pause_ms * 1000 * 1000}, NULL);
        waited_ms += pause_ms;
        pause_ms += pause_ms < PAUSE_MAX_MS;
    }
    return true;
}

void end_what_is_left(void)
{
    kill(-1, SIGKILL);
    while (waitpid(-1, NULL, 0) >= 0 || errno == EINTR)
        ;
}

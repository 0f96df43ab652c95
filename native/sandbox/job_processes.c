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

enum { LOW_PROCESS_LIMIT = 8192, TRIED_PROCESSES = 4, TRIED_STACK_BYTES = 4096 };
enum { PART_NEAR_LIMIT = 64 }; /* so near to its limit of processes, a job has met it: some have ended since */
enum { GRACE_MS = 500, PAUSE_MAX_MS = 10 };

static int wait_to_be_killed(void *nothing)
{
    (void)nothing;
    while (pause() < 0)
        ;
    return 0;
}

/* The rest of the job still fills the limit that its command ran into. A few places are free again,
 * because the command has ended, and perhaps its parent, so several are tried at once. They share
 * our memory. That costs 100 us. It is done only for a
 * command that failed, and only if the limit is low: no build gets near a high one. */
bool are_processes_refused(void)
{
    static char stacks[TRIED_PROCESSES][TRIED_STACK_BYTES] __attribute__((aligned(16)));
    struct rlimit limit;
    if (getrlimit(RLIMIT_NPROC, &limit) != 0 || limit.rlim_cur > LOW_PROCESS_LIMIT)
        return false;
    pid_t made[TRIED_PROCESSES];
    int count = 0, reason = 0;
    while (count < TRIED_PROCESSES && !reason) {
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

unsigned long long newest_process(void)
{
    char text[128];
    int fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    if (length <= 0)
        return 0;
    text[length] = '\0';
    const char *newest = strrchr(text, ' ');
    return newest ? strtoull(newest, NULL, 10) : 0;
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
    int fd = open("/proc/self/io", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    if (length <= 0)
        return 0;
    text[length] = '\0';
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

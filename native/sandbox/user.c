/* Give the job its identity: the submitter's ids in a user namespace of its own, without privilege.
 *
 * This is the second user namespace; the mirror's is the first. In the first one, an exec under a
 * non-zero uid would lose the capabilities that the mounts need. */
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { USUAL_OPEN_FILES = 1024, OPEN_FILES_OF_CONTAINERS = 1 << 20 };

/* Write `text` to an existing file. Return false, with errno, if that fails. */
static bool write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    int failure = errno;
    if (fd >= 0)
        close(fd);
    errno = failure;
    return written;
}

const char *map_user(long inner_uid, long outer_uid, long inner_gid, long outer_gid)
{
    char uid_map[64], gid_map[64];
    snprintf(uid_map, sizeof uid_map, "%ld %ld 1", inner_uid, outer_uid);
    snprintf(gid_map, sizeof gid_map, "%ld %ld 1", inner_gid, outer_gid);
    if (!write_file("/proc/self/setgroups", "deny")) /* the kernel demands this before a gid map without privilege */
        return "cannot deny setgroups";
    if (!write_file("/proc/self/uid_map", uid_map))
        return "cannot map the uid";
    if (!write_file("/proc/self/gid_map", gid_map))
        return "cannot map the gid";
    return NULL;
}

/* Return the capabilities that the job keeps. In a plain build, a submitter who is root can write
 * read-only files and change all modes, so the job keeps just that. The kernel demands the third
 * one of a process that makes a user namespace and maps root (Linux 5.12). */
static uint64_t kept_capabilities(const struct job *job)
{
    if (!job->keeps_root)
        return 0;
    return UINT64_C(1) << CAP_DAC_OVERRIDE | UINT64_C(1) << CAP_FOWNER | UINT64_C(1) << CAP_SETFCAP;
}

enum { MOST_CAPABILITIES = 64 }; /* a set of them has so many bits */

/* Drop all capabilities but `kept`, in the bounding set too: an exec as uid 0 gets everything in
 * it. Behind its last capability, the kernel says EINVAL. */
static void drop_capabilities(uint64_t kept)
{
    for (int capability = 0; capability < MOST_CAPABILITIES; capability++) {
        if (kept >> capability & 1 || prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0)
            continue;
        if (errno != EINVAL || capability <= CAP_SETFCAP)
            fail_errno("cannot drop capabilities", "");
        break;
    }
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2] = {0};
    for (int i = 0; i < 2; i++)
        sets[i].effective = sets[i].permitted = (uint32_t)(kept >> (32 * i));
    if (syscall(SYS_capset, &header, sets) != 0)
        fail_errno("cannot drop capabilities", "");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        fail_errno("cannot set no_new_privs", "");
}

static rlim_t lower(rlim_t one, rlim_t other)
{
    return one < other ? one : other;
}

/* Lower both limits of a resource to `most`, as far as they are higher. */
static void limit(int resource, unsigned long long most, const char *name)
{
    struct rlimit both;
    if (getrlimit(resource, &both) != 0)
        fail_errno("cannot limit", name);
    both.rlim_cur = lower(most, both.rlim_cur);
    both.rlim_max = lower(most, both.rlim_max);
    if (setrlimit(resource, &both) != 0)
        fail_errno("cannot limit", name);
}

#ifndef CORE_PATTERN /* a test compiles another one */
#define CORE_PATTERN "/proc/sys/kernel/core_pattern"
#endif

/* True if the kernel gives cores to a program of this machine, which runs as root. */
static bool is_core_for_program;

void look_at_core_pattern(void)
{
    char first = 0;
    int fd = open(CORE_PATTERN, O_RDONLY | O_CLOEXEC);
    is_core_for_program = fd < 0 || read(fd, &first, 1) != 1 || first == '|' || first == '@';
    if (fd >= 0)
        close(fd);
}

/* Have the command run on the submitter's machine if this one does not allow its limit.
 *
 * No limit at all is usual, and is no wish for more than a worker has. The stack is an exception:
 * with too small a one, a program crashes. In containers a million open files are usual, and
 * nobody wants so many. */
static void refuse_high_limit(int resource, unsigned long long soft, unsigned long long allowed)
{
    static const char *const words[RLIM_NLIMITS] = {
        [RLIMIT_STACK] = "limit-s", [RLIMIT_NOFILE] = "limit-n", [RLIMIT_AS] = "limit-v",  [RLIMIT_DATA] = "limit-d",
        [RLIMIT_FSIZE] = "limit-f", [RLIMIT_CPU] = "limit-t",    [RLIMIT_CORE] = "limit-c"};
    bool is_usual = (soft == RLIM_INFINITY && resource != RLIMIT_STACK) ||
                    (resource == RLIMIT_NOFILE && soft >= OPEN_FILES_OF_CONTAINERS);
    if (soft > allowed && !is_usual && words[resource])
        end_with("here", words[resource]);
}

/* Set a limit to what this machine allows of it. */
static void set_limit(int resource, unsigned long long soft, unsigned long long hard, bool is_submitters)
{
    struct rlimit here;
    if (getrlimit(resource, &here) != 0)
        return;
    if (resource == RLIMIT_CORE && is_core_for_program)
        soft = hard = 1; /* 0 would keep no core from the program (core(5)) */
    else if (is_submitters)
        refuse_high_limit(resource, soft, here.rlim_max);
    rlim_t most = lower(hard, here.rlim_max);
    struct rlimit both = {.rlim_cur = lower(soft, most), .rlim_max = most};
    bool is_same = both.rlim_cur == here.rlim_cur && both.rlim_max == here.rlim_max;
    if (!is_same && setrlimit(resource, &both) != 0)
        fail_errno("cannot limit", "a resource");
}

static void set_submitters_limit(int resource, unsigned long long soft, unsigned long long hard)
{
    set_limit(resource, soft, hard, true);
}

/* Let a job raise its number of open files, as in a plain build, but to half of the worker's only.
 * The kernel counts descriptors in flight for the user, and refuses them above the limit of the
 * sender. With the same limit, one job could keep the mirror from starting others. */
static void keep_half_of_open_files(rlim_t all)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0)
        return;
    limit(RLIMIT_NOFILE, files.rlim_cur > all / 2 ? files.rlim_cur : all / 2, "open files");
}

/* Apply the limits of the submitter, then those of the worker and of rules. Memory is limited as
 * what each process may write to (data), because sanitizers reserve a huge address space. Processes
 * are counted in the new user namespace, so only those of this job count.
 *
 * The worker has raised its own limit of open files. Some programs close every possible file one by
 * one, and select() cannot deal with more than 1024. */
static void apply_limits(const struct job *job)
{
    struct rlimit files = {0};
    (void)getrlimit(RLIMIT_NOFILE, &files);
    set_limit(RLIMIT_CORE, 0, RLIM_INFINITY, false);
    set_limit(RLIMIT_NOFILE, USUAL_OPEN_FILES, RLIM_INFINITY, false);
    for_each_limit(job->limits, set_submitters_limit);
    keep_half_of_open_files(files.rlim_max);
    if (job->processes)
        limit(RLIMIT_NPROC, job->processes, "processes");
    if (job->file_bytes)
        limit(RLIMIT_FSIZE, job->file_bytes, "file sizes");
    if (job->memory_bytes)
        limit(RLIMIT_DATA, job->memory_bytes, "memory");
    if (getpriority(PRIO_PROCESS, 0) < job->niceness)
        (void)setpriority(PRIO_PROCESS, 0, job->niceness); /* no process is forbidden to be nicer */
}

void become_job(const struct job *job)
{
    uid_t outer_uid = geteuid();
    gid_t outer_gid = getegid();
    if (unshare(CLONE_NEWUSER) != 0)
        fail_errno("cannot make the job's user namespace", "");
    const char *failure = map_user(job->uid, outer_uid, job->gid, outer_gid);
    if (failure)
        fail_errno(failure, "of the job");
    apply_limits(job);
    drop_capabilities(kept_capabilities(job));
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* the mirror reads what the job waits for; an exec sets this too */
    umask(job->mask);
    if (chdir(job->cwd) != 0)
        fail_errno("cannot enter", job->cwd);
    if (syscall(SYS_close_range, 3, UINT_MAX, CLOSE_RANGE_CLOEXEC) != 0)
        fail_errno("cannot close files", "");
}

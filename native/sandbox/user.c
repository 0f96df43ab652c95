/* Who the job is: the submitter's ids in a user namespace of its own, and no privilege.
 *
 * It is the second user namespace (the mirror's is the first): an exec under a non-zero uid in the first one would have
 * lost the capabilities that the mounts need. */
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

enum { USUAL_OPEN_FILES = 1024 };

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
    if (!write_file("/proc/self/setgroups", "deny")) /* the kernel's condition for a gid map without privilege */
        return "cannot deny setgroups";
    if (!write_file("/proc/self/uid_map", uid_map))
        return "cannot map the uid";
    if (!write_file("/proc/self/gid_map", gid_map))
        return "cannot map the gid";
    return NULL;
}

/* root at home writes its own read-only files and changes their modes; it keeps just that. */
static uint64_t kept_capabilities(const struct job *job)
{
    if (!job->keeps_root)
        return 0;
    return UINT64_C(1) << CAP_DAC_OVERRIDE | UINT64_C(1) << CAP_FOWNER;
}

/* The bounding set counts too: an exec as uid 0 gets all that is in it. */
static void drop_capabilities(uint64_t kept)
{
    for (int capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++)
        if (!(kept >> capability & 1) && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0)
            fail_errno("cannot drop capabilities", "");
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2] = {0};
    for (int i = 0; i < 2; i++)
        sets[i].effective = sets[i].permitted = (uint32_t)(kept >> (32 * i));
    if (syscall(SYS_capset, &header, sets) != 0)
        fail_errno("cannot drop capabilities", "");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        fail_errno("cannot set no_new_privs", "");
}

static void limit(int resource, unsigned long long most, const char *name)
{
    struct rlimit both = {.rlim_cur = most, .rlim_max = most};
    if (setrlimit(resource, &both) != 0)
        fail_errno("cannot limit", name);
}

/* The worker has raised its own limit; but some programs close, one by one, all files that they might have, and
 * select() knows no more than this. A job that wants more may raise it, as at home. */
static void limit_open_files(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur <= USUAL_OPEN_FILES)
        return;
    files.rlim_cur = USUAL_OPEN_FILES;
    if (setrlimit(RLIMIT_NOFILE, &files) != 0)
        fail_errno("cannot limit", "open files");
}

/* Memory is limited as what each process may write to (data): an address space may be reserved lavishly, as sanitizers
 * do. Processes are counted in the new user namespace, so they are this job's alone. */
static void apply_limits(const struct job *job)
{
    limit(RLIMIT_CORE, 0, "core dumps");
    limit_open_files();
    if (job->processes)
        limit(RLIMIT_NPROC, job->processes, "processes");
    if (job->file_bytes)
        limit(RLIMIT_FSIZE, job->file_bytes, "file sizes");
    if (job->memory_bytes)
        limit(RLIMIT_DATA, job->memory_bytes, "memory");
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
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* the mirror looks what it waits for; the next exec does the same */
    umask(job->mask);
    if (chdir(job->cwd) != 0)
        fail_errno("cannot enter", job->cwd);
    if (syscall(SYS_close_range, 3, UINT_MAX, CLOSE_RANGE_CLOEXEC) != 0)
        fail_errno("cannot close files", "");
}

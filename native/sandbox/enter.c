/* Start a mirror process as uid 0 and pid 1 of new namespaces (`enter`).
 *
 * The host never sees the mirror's mounts, and nothing of the mirror survives it. Messages are for
 * people: one line, with advice. */
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* A system's headers may be older than its kernel. The number is the same on all architectures. */
enum { SYS_MOUNT_SETATTR = 442, AT_RECURSIVE_MOUNTS = 0x8000 };

enum { OOM_SCORE = 500 }; /* proc(5): as if it had half of the memory more than it has */

struct entry {
    long uid, gid; /* ids outside of the namespaces; -1: the caller's */
    char *reached[REACH_MAX];
    size_t reached_count;
    char *group; /* the cgroup.procs of a control group to join; NULL: none */
    char **program;
};

/* Print what failed, the text of errno and the advice, and end this process. */
static _Noreturn void refuse(const char *what, const char *advice)
{
    dprintf(STDERR_FILENO, "termite-sandbox: %s: %s%s%s\n", what, strerror(errno), *advice ? ": " : "", advice);
    exit(EXIT_FAILED);
}

/* Return whether the file begins with the character `wanted`. */
static bool file_says(const char *path, char wanted)
{
    char byte = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool said = fd >= 0 && read(fd, &byte, 1) == 1 && byte == wanted;
    if (fd >= 0)
        close(fd);
    return said;
}

/* Return advice for a user who cannot make a user namespace. */
static const char *user_namespace_advice(int failure)
{
    if (file_says("/proc/sys/kernel/unprivileged_userns_clone", '0'))
        return "run: sysctl -w kernel.unprivileged_userns_clone=1";
    if (file_says("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", '1'))
        return "run: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0";
    if (failure == ENOSPC || file_says("/proc/sys/user/max_user_namespaces", '0'))
        return "run: sysctl -w user.max_user_namespaces=15000";
    if ((failure == EINVAL || failure == ENOSYS) && access("/proc/self/ns/user", F_OK) != 0)
        return "this kernel was built without them (CONFIG_USER_NS)";
    return "in a container, its seccomp or security profile must allow unshare and mount";
}

/* Print what failed, with advice, and end this process. */
static _Noreturn void refuse_namespaces(const char *what)
{
    int failure = errno;
    const char *advice = user_namespace_advice(failure);
    errno = failure;
    refuse(what, advice);
}

/* Let the kernel kill this process and its children before others, when it runs out of memory. Jobs
 * can take memory that no process maps (memfd_create, a tmpfs in a nested namespace), so that
 * nobody sees the largest one. The mirror and its jobs have the same number, because the mirror
 * judges by its own size which jobs the kernel may have killed.
 *
 * If root sets the number, jobs cannot lower it. */
static void die_before_others(void)
{
    static const char path[] = "/proc/self/oom_score_adj";
    char text[16] = "";
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t length = read(fd, text, sizeof text - 1);
    if (length > 0 && strtol(text, NULL, 10) < OOM_SCORE) {
        length = snprintf(text, sizeof text, "%d", OOM_SCORE);
        ssize_t written = pwrite(fd, text, (size_t)length, 0);
        (void)written; /* this is help in need, without which everything works */
    }
    close(fd);
}

/* -- root only ----------------------------------------------------------------------------------------------------- */

/* Give the namespace a device that every user may open, because the host's may have the mode 0600.
 * If this fails, whoever uses the device reports it. */
static void replace_device(const char *device)
{
    static const char place[] = "/tmp", node[] = "/tmp/device";
    struct stat st;
    if (stat(device, &st) != 0 || mount("tmpfs", place, "tmpfs", MS_NOSUID | MS_NOEXEC, "size=64k") != 0)
        return;
    if (mknod(node, S_IFCHR | 0666, st.st_rdev) == 0)
        (void)mount(node, device, NULL, MS_BIND, NULL);
    if (umount2(place, MNT_DETACH) != 0)
        refuse("cannot unmount a temporary file system", "");
}

/* Become the user that jobs run as, in a mount namespace in which that user reaches termite's
 * files. */
static void become(const struct entry *entry)
{
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        refuse("cannot make a mount namespace", "--uid is for root");
    die_before_others();
    mode_t mask = umask(0); /* the directories made here are for the other user */
    replace_device("/dev/fuse");    /* of the mirror */
    replace_device("/dev/net/tun"); /* of a private network */
    const char *unreachable = reach(entry->reached, entry->reached_count);
    if (unreachable)
        refuse(unreachable, "the user that jobs run as cannot reach this directory: install termite elsewhere (/opt)");
    umask(mask);
    uid_t uid = (uid_t)entry->uid;
    gid_t gid = (gid_t)entry->gid;
    if (setgroups(0, NULL) != 0 || setresgid(gid, gid, gid) != 0 || setresuid(uid, uid, uid) != 0)
        refuse("cannot change to another user", "--uid is for root");
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* otherwise /proc/self/uid_map belongs to root */
}

/* Mount everything nosuid: no file on the worker's disk, whoever has put it there, gives rights to
 * the user who executes it in this namespace. Before Linux 5.12 the kernel cannot do this for all
 * mounts at once. The overlays of jobs are nosuid even then. */
static void refuse_setuid(void)
{
    const struct {
        uint64_t set, clear, propagation, user_namespace;
    } nosuid = {.set = MS_NOSUID};
    (void)syscall(SYS_MOUNT_SETATTR, AT_FDCWD, "/", AT_RECURSIVE_MOUNTS, &nosuid, sizeof nosuid);
}

/* Enter new user, mount and pid namespaces, with the caller as uid 0. */
static void make_namespaces(void)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID) != 0)
        refuse_namespaces("cannot make a user namespace");
    const char *failure = map_user(0, uid, 0, gid);
    if (failure)
        refuse_namespaces(failure);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        refuse_namespaces("cannot make mounts private in a user namespace");
    refuse_setuid();
}

/* Let the kernel kill this process when its parent dies. The parent holds the other end of the pipe
 * `lifeline`. */
static void die_with_parent(int lifeline)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    fcntl(lifeline, F_SETFL, O_NONBLOCK);
    char byte;
    if (read(lifeline, &byte, 1) == 0) /* the parent was dead already */
        _exit(EXIT_FAILED);
    close(lifeline);
}

/* Become the program, as pid 1. */
static _Noreturn void become_program(char **argv, int lifeline, const sigset_t *mask)
{
    die_with_parent(lifeline);
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) != 0)
        refuse("cannot mount /proc in a user namespace", "in a container, /proc must be unmasked");
    limit_namespace();
    die_before_others();
    sigprocmask(SIG_SETMASK, mask, NULL);
    execvp(argv[0], argv);
    int code = errno == ENOENT ? 127 : 126;
    dprintf(STDERR_FILENO, "termite-sandbox: %s: %s\n", argv[0], strerror(errno));
    _exit(code);
}

/* End this process by the same signal as the program, or return its exit code. */
static int end_as(int status)
{
    if (!WIFSIGNALED(status))
        return WEXITSTATUS(status);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    signal(WTERMSIG(status), SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    kill(getpid(), WTERMSIG(status));
    return 128 + WTERMSIG(status);
}

/* Pass signals on until the program ends. */
static int accompany(pid_t program, const sigset_t *awaited)
{
    for (;;) {
        int signal = sigwaitinfo(awaited, NULL);
        int status;
        if (signal == SIGTERM || signal == SIGINT)
            kill(program, signal);
        else if (waitpid(program, &status, WNOHANG) == program)
            return end_as(status);
    }
}

/* Parse the option `name`N. Return false if `word` is another one, or N is no id. */
static bool parse_id(const char *word, const char *name, long *id)
{
    size_t length = strlen(name);
    if (strncmp(word, name, length) != 0)
        return false;
    unsigned long long number;
    bool is_id = parse_number(word + length, 10, UINT_MAX - 1, &number);
    *id = (long)number;
    return is_id;
}

static bool parse_option(char *word, struct entry *entry)
{
    if (strncmp(word, "--group=/", 9) == 0) {
        entry->group = word + 8;
        return true;
    }
    if (strncmp(word, "--reach=/", 9) != 0)
        return parse_id(word, "--uid=", &entry->uid) || parse_id(word, "--gid=", &entry->gid);
    if (entry->reached_count == REACH_MAX)
        return false;
    entry->reached[entry->reached_count++] = word + 8;
    return true;
}

static bool parse(char **argv, struct entry *entry)
{
    *entry = (struct entry){.uid = -1, .gid = -1};
    for (; *argv && strcmp(*argv, "--") != 0; argv++)
        if (!parse_option(*argv, entry)) {
            dprintf(STDERR_FILENO, "termite-sandbox: enter: bad argument: %s\n", *argv);
            return false;
        }
    if (!argv[0] || !argv[1] || (entry->uid < 0) != (entry->gid < 0)) {
        dprintf(STDERR_FILENO,
                "usage: termite-sandbox enter [--group=FILE] [--uid=N --gid=N [--reach=DIR]...] -- PROGRAM [ARGUMENT...]\n");
        return false;
    }
    entry->program = argv + 1;
    return true;
}

/* Join a control group, as its cgroup.procs `file` wants it: 0 is the process that writes. */
static void join_group(const char *file)
{
    int fd = open(file, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1)
        refuse("cannot join the control group of", file);
    close(fd);
}

/* Start the program as a child, and return its pid. */
static pid_t start(const struct entry *entry, const sigset_t *mask)
{
    int lifeline[2];
    if (pipe2(lifeline, O_CLOEXEC) != 0)
        refuse("cannot make a pipe", "");
    pid_t program = fork();
    if (program < 0)
        refuse("cannot fork", "");
    if (program == 0) {
        close(lifeline[1]);
        become_program(entry->program, lifeline[0], mask);
    }
    /* Close all other descriptors, because the program's sockets must close when the program closes
     * them. */
    for (int fd = 3; fd < lifeline[1]; fd++)
        close(fd);
    syscall(SYS_close_range, lifeline[1] + 1, UINT_MAX, 0);
    return program;
}

int enter(char **argv)
{
    struct entry entry;
    if (!parse(argv, &entry))
        return EXIT_FAILED;
    if (entry.group)
        join_group(entry.group);
    if (!leave_keys())
        refuse("cannot leave the session keyring", "see /proc/key-users: the user may have too many keys");
    if (entry.uid >= 0)
        become(&entry);
    halve_quotas();
    make_namespaces();
    protect_program();

    sigset_t awaited, before;
    sigemptyset(&awaited);
    sigaddset(&awaited, SIGCHLD);
    sigaddset(&awaited, SIGTERM);
    sigaddset(&awaited, SIGINT);
    sigprocmask(SIG_BLOCK, &awaited, &before);
    return accompany(start(&entry, &before), &awaited);
}

/* Judge the watched calls of jobs (call_filter.c), for the process that makes the sandboxes. If
 * a job is traced, its own pid 1 does this.
 *
 * A job has one user and one group. If its submitter could give a file to another one, or could
 * set an attribute that does not come back, the job cannot do so. Nothing is emulated: pid 1
 * ends the job, and the command runs on the submitter's machine. If the submitter could not do
 * it either, the error is the submitter's. In a user namespace that the job has made, the kernel
 * judges.
 *
 * An error of ours while we look at a caller (no descriptor, no memory) is no answer for a job.
 * This process ends, and so do its jobs, which then run elsewhere.
 *
 * The filter belongs to all jobs of the lease, so a job pays nothing for it. (That of a traced
 * job is its own.) A job that changes its arguments in memory meanwhile only decides about
 * itself. */
#include "../sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/nsfs.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NAME_BYTES = 256 /* of an attribute, with its NUL */, ANCESTORS_MAX = 10000, ROOM_BYTES = 1024 };
enum { SHORT_NONE = 0xffff /* no group, for a call with ids of 16 bits */ };
static const char USER[] = "user.", LISTS[] = "system.posix_acl_";

/* The signals by which pid 1 of a job is asked to end it, and the words for the job's report. */
static const struct {
    int signal;
    const char *word;
} SENT_HOME[] = {
    [CHANGES_IDS] = {SIGUSR1, "ids"},
    [CHANGES_OWNER] = {SIGUSR1, "ids"},
    [CHANGES_OWNER_AT] = {SIGUSR1, "ids"},
    [SETS_ATTRIBUTE] = {SIGUSR2, "attributes"},
    [SETS_ATTRIBUTE_AT] = {SIGUSR2, "attributes"},
    [LISTENS] = {SIGHUP, "listener"},
    [LINKS] = {SIGALRM, "links"},
    [LINKS_AT] = {SIGALRM, "links"},
    [ASKS_SPACE] = {SIGVTALRM, "space"},
    [ASKS_SPACE_BY_FILE] = {SIGVTALRM, "space"},
    [MAKES_DEVICE] = {SIGPROF, "device"},
};
enum { SENT_HOME_COUNT = sizeof SENT_HOME / sizeof *SENT_HOME };
#define TOLD_OF_LINK SIGRTMIN
/* Its value: LINK_STEP times the process that linked, or 0 if a program linked that may compare
 * the names itself. LINKED is always set, and BY_COMMAND if that was the command of the job. */
enum { LINKED = 1, BY_COMMAND = 2, LINK_STEP = 4 };

/* -- pid 1 of a job ------------------------------------------------------------------------------------------------ */

const char *sent_home_by(int signal)
{
    for (int i = NOT_WATCHED + 1; i < SENT_HOME_COUNT; i++)
        if (SENT_HOME[i].signal == signal)
            return SENT_HOME[i].word;
    return NULL;
}

static volatile sig_atomic_t first_link;

/* Note the first link. A job that sends this signal itself only decides about itself. */
static void note_link(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    if (!first_link)
        first_link = info->si_value.sival_int;
}

/* Return whether `name` is one of the `count` names. */
static bool is_among(const char *name, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

bool is_linked(void)
{
    return first_link != 0;
}

bool may_compare_links(unsigned long long newest, const char *last)
{
    static const char *const shells[] = {"sh", "dash", "bash", "ksh", "zsh"};
    unsigned long long then = (unsigned)first_link / LINK_STEP;
    bool is_by_command = first_link & BY_COMMAND;
    return newest > then || (!is_by_command && !is_among(last, shells, sizeof shells / sizeof *shells));
}

void take_home_signals(void (*act)(int number, siginfo_t *info, void *context))
{
    struct sigaction action = {.sa_sigaction = act, .sa_flags = SA_SIGINFO | SA_RESTART};
    for (int i = NOT_WATCHED + 1; i < SENT_HOME_COUNT; i++)
        sigaction(SENT_HOME[i].signal, &action, NULL);
    action = (struct sigaction){.sa_sigaction = note_link, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(TOLD_OF_LINK, &action, NULL);
}

/* -- serve --------------------------------------------------------------------------------------------------------- */

/* End this process, and with it all jobs whose calls it watches, if a look has failed because of a
 * shortage here. Other errors say that the caller is gone or hides something. */
static void end_if_short(const char *looked_at)
{
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
        fail_errno("cannot judge a system call: cannot look at", looked_at);
}

/* Open a file that tells of a caller. Return -1 if there is none. */
static int open_look(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        end_if_short(path);
    return fd;
}

/* Return the parent of a process, or 0 if it is not known. */
static pid_t parent_of(pid_t pid)
{
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open_look(path);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[length > 0 ? length : 0] = '\0';
    const char *name_end = strrchr(text, ')'); /* a name may contain any byte */
    return name_end && strlen(name_end) > 4 ? (pid_t)strtol(name_end + 4, NULL, 10) : 0;
}

/* Return pid 1 of the job to which a process belongs, or 0. It is our child. */
static pid_t init_of(pid_t pid)
{
    for (int i = 0; pid > 0 && i < ANCESTORS_MAX; i++) {
        pid_t parent = parent_of(pid);
        if (parent == getpid())
            return pid;
        pid = parent;
    }
    return 0;
}

/* Return whether a process is in a user namespace that its job has made. The job's own namespace is
 * a child of ours. */
static bool is_nested(pid_t pid)
{
    char path[64];
    struct stat ours, parents;
    snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
    int namespace = open_look(path);
    int parent = namespace < 0 ? -1 : ioctl(namespace, NS_GET_PARENT);
    if (namespace >= 0 && parent < 0)
        end_if_short(path);
    bool is_known = parent >= 0 && fstat(parent, &parents) == 0 && stat("/proc/self/ns/user", &ours) == 0;
    if (parent >= 0)
        close(parent);
    if (namespace >= 0)
        close(namespace);
    return is_known && parents.st_ino != ours.st_ino;
}

/* Read the text at an address of the caller. The rest of `text` is filled with NULs. */
static void read_text(const struct seccomp_notif *call, uint64_t address, char *text, size_t size)
{
    memset(text, 0, size);
    struct iovec ours = {text, size - 1};
    for (; ours.iov_len > 0; ours.iov_len /= 2) { /* the text may stand at the end of the memory */
        struct iovec theirs = {(void *)(uintptr_t)address, ours.iov_len};
        if (process_vm_readv((pid_t)call->pid, &ours, 1, &theirs, 1, 0) > 0)
            return;
        end_if_short("the memory of a job");
    }
}

/* Return whether git makes a clone by hard links. It compares the inode numbers of both names, and
 * overlayfs gives a file that it copies another one. New objects of git, "tmp_*", are linked too,
 * and are no copies. */
static bool is_clone(const struct seccomp_notif *call, enum watched what)
{
    static const char git[] = "git\n", new[] = "tmp_";
    char path[PATH_MAX], comm[32] = "";
    snprintf(path, sizeof path, "/proc/%u/comm", call->pid);
    int fd = open_look(path);
    bool is_git = fd >= 0 && read(fd, comm, sizeof comm - 1) > 0 && strcmp(comm, git) == 0;
    if (fd >= 0)
        close(fd);
    if (!is_git)
        return false;
    read_text(call, call->data.args[what == LINKS ? 0 : 1], path, sizeof path);
    const char *slash = strrchr(path, '/');
    return strncmp(slash ? slash + 1 : path, new, sizeof new - 1) != 0;
}

/* Return whether the submitter could set an attribute, and a job cannot set it or loses it. An
 * attribute "user.*" works in a job, and is found when the job has ended. */
static bool is_lost_attribute(const struct seccomp_notif *call, enum watched what, const struct ids *own)
{
    char name[NAME_BYTES];
    read_text(call, call->data.args[what == SETS_ATTRIBUTE ? 1 : 3], name, sizeof name);
    if (strncmp(name, USER, sizeof USER - 1) == 0 || *name == '\0')
        return false;
    return own->uid == 0 || strncmp(name, LISTS, sizeof LISTS - 1) == 0;
}

/* Return the number of a process in the pid namespace of its job, or 0 if it is not known. */
static int number_in_job(pid_t pid)
{
    static const char key[] = "\nNSpid:\t"; /* then the numbers, from our namespace to the innermost one */
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    int fd = open_look(path);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[length > 0 ? length : 0] = '\0';
    const char *numbers = strstr(text, key);
    const char *second = numbers ? strchr(numbers + sizeof key - 1, '\t') : NULL;
    return second ? (int)strtol(second, NULL, 10) : 0;
}

/* Write what a link below /proc/PID names to `text`, or "" if it is not known. */
static void read_link(pid_t pid, const char *link, char text[PATH_MAX])
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, link);
    ssize_t length = readlink(path, text, PATH_MAX - 1);
    if (length < 0)
        end_if_short(path);
    text[length > 0 ? length : 0] = '\0';
}

/* Return the name of a process's program, or "". `text` gets its path. */
static const char *program_of(pid_t pid, char text[PATH_MAX])
{
    read_link(pid, "exe", text);
    const char *slash = strrchr(text, '/');
    return slash ? slash + 1 : text;
}

/* Tell pid 1 of the job that a file gets another name; `is_init`: we are pid 1. Overlayfs then
 * shows another inode number of the file, unless the name was used before. Whoever compares the
 * numbers takes both names for two files. rustc links many files, and does not. */
static void note_linking(pid_t caller, bool is_init)
{
    static const char *const harmless[] = {"ln", "link", "cp"};
    char text[PATH_MAX];
    const char *name = program_of(caller, text);
    pid_t init = strcmp(name, "rustc") == 0 ? 0 : is_init ? getpid() : init_of(caller);
    if (!init)
        return;
    int value = LINKED;
    if (is_among(name, harmless, sizeof harmless / sizeof *harmless))
        value |= LINK_STEP * (is_init ? caller : number_in_job(caller)) | (parent_of(caller) == init ? BY_COMMAND : 0);
    if (!is_init && sigqueue(init, TOLD_OF_LINK, (union sigval){.sival_int = value}) != 0)
        (void)kill(init, SIGKILL); /* its queue of signals is full: the job runs elsewhere */
    else if (is_init && !first_link)
        first_link = value;
}

/* Return whether a path may lie on a disk. Each program with libselinux asks whether two
 * directories are those of SELinux. */
static bool may_be_on_disk(const char *path)
{
    static const char *const others[] = {"/sys", "/proc", "/dev", "/selinux", "/memfd"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        size_t length = strlen(others[i]);
        if (strncmp(path, others[i], length) == 0 && strchr("/:", path[length])) /* or the end */
            return false;
    }
    return *path != '\0';
}

/* Return whether a call asks for the space of a disk. */
static bool asks_for_disk(const struct seccomp_notif *call)
{
    char path[NAME_BYTES];
    read_text(call, call->data.args[0], path, sizeof path);
    return may_be_on_disk(path);
}

/* Return whether a call asks for the space of the disk of an open file. Programs that walk through
 * directories only ask for the kind of the file system, and so do `tail -f` and what mounts. */
static bool asks_for_disk_of_file(const struct seccomp_notif *call)
{
    static const char *const walkers[] = {"find",  "du",    "grep", "rm",   "mv",    "chown",  "chgrp",  "chmod",
                                          "chcon", "diff",  "tail", "mount", "umount", "unshare", "bwrap"};
    char link[32], text[PATH_MAX];
    snprintf(link, sizeof link, "fd/%d", (int)call->data.args[0]);
    read_link((pid_t)call->pid, link, text);
    if (*text != '/' || !may_be_on_disk(text)) /* a pipe or a socket */
        return false;
    return !is_among(program_of((pid_t)call->pid, text), walkers, sizeof walkers / sizeof *walkers);
}

/* Return whether an ordinary submitter could give a file to another group like this. */
static bool is_to_own_group(const struct seccomp_notif *call, enum watched what, const struct ids *own)
{
    size_t first = what == CHANGES_OWNER ? 1 : 2;
    uint32_t user = (uint32_t)call->data.args[first], group = (uint32_t)call->data.args[first + 1];
    if (user != own->uid && user != UINT32_MAX && user != SHORT_NONE)
        return false;
    for (size_t i = 0; i < own->group_count; i++)
        if (own->groups[i] == group)
            return true;
    return false;
}

/* Let the call go on, or end it with `error`. */
static void answer(int listener, const struct seccomp_notif *call, int error)
{
    struct seccomp_notif_resp response = {.id = call->id, .error = -error};
    if (!error)
        response.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    (void)ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response); /* it fails if the caller was killed */
}

/* Return whether the command has to run on the submitter's machine because of this call. */
static bool is_for_home(const struct seccomp_notif *call, enum watched what, bool is_ours, const struct ids *own)
{
    switch (what) {
    case LISTENS:
        return true;
    case LINKS:
    case LINKS_AT:
        return is_clone(call, what);
    case ASKS_SPACE:
        return asks_for_disk(call);
    case ASKS_SPACE_BY_FILE:
        return asks_for_disk_of_file(call);
    case CHANGES_OWNER:
    case CHANGES_OWNER_AT:
        return is_ours && (own->uid == 0 || is_to_own_group(call, what, own));
    case CHANGES_IDS:
    case MAKES_DEVICE:
        return is_ours && own->uid == 0;
    case SETS_ATTRIBUTE:
    case SETS_ATTRIBUTE_AT:
        return is_ours && is_lost_attribute(call, what, own);
    case NOT_WATCHED:
        break;
    }
    return false;
}

/* Have the job ended because of this call. Return false if that is not possible. */
static bool end_job_of(int listener, const struct seccomp_notif *call, enum watched what, void (*end_job)(int signal))
{
    pid_t init = end_job ? 0 : init_of((pid_t)call->pid);
    if ((!end_job && !init) || ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &call->id) != 0)
        return false;
    if (!end_job)
        return kill(init, SENT_HOME[what].signal) == 0;
    end_job(SENT_HOME[what].signal);
    return true;
}

void answer_watched_call(int listener, const struct seccomp_notif *call, const struct ids *own,
                         void (*end_job)(int signal))
{
    enum watched what = watched_call(call->data.arch, call->data.nr);
    pid_t caller = (pid_t)call->pid;
    bool is_ours = what != ASKS_SPACE && what != ASKS_SPACE_BY_FILE && !is_nested(caller);
    if (is_for_home(call, what, is_ours, own) && end_job_of(listener, call, what, end_job))
        return; /* the caller waits until it is killed */
    if (what == LINKS || what == LINKS_AT)
        note_linking(caller, end_job != NULL);
    bool is_refused = is_ours && (what == CHANGES_IDS || what == CHANGES_OWNER || what == CHANGES_OWNER_AT);
    answer(listener, call, is_refused ? EPERM : 0);
}

void take_watched_call(int listener, const struct ids *own)
{
    static union {
        struct seccomp_notif call;
        char room[ROOM_BYTES]; /* the kernel writes as many bytes as its own structure has */
    } received;
    memset(&received, 0, sizeof received);
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &received) == 0) /* else the caller was killed */
        answer_watched_call(listener, &received.call, own, NULL);
}

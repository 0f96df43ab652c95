/* Make the job's root: an overlay over the mirror's views, with /proc and /dev, and nothing else.
 *
 * Only the overlay has to wait for the job. One /dev is mounted for all jobs and copied with the
 * mount namespace. Each /proc is mounted as soon as its pid namespace exists. Both are later moved
 * into the root. */
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { HOST_NAME_BYTES = 64, OPTIONS_BYTES = 4096 /* mount(2) copies one page */ };

/* Write the path `directory`/`name` to `out`. */
static void join(char out[PATH_MAX], const char *directory, const char *name)
{
    if (snprintf(out, PATH_MAX, "%s/%s", directory, name) >= PATH_MAX)
        fail("the scratch directory's path is too long");
}

/* -- the overlay --------------------------------------------------------------------------------------------------- */

/* Escape a path for an option of overlay: a comma would end the option, and a backslash escapes. */
static void escape(char out[2 * PATH_MAX], const char *path)
{
    for (; *path; path++) {
        if (*path == ',' || *path == '\\')
            *out++ = '\\';
        *out++ = *path;
    }
    *out = '\0';
}

/* Report why overlay could not be mounted, from errno. */
static _Noreturn void explain_overlay(const char *upper)
{
    int failure = errno;
    if (failure == EINVAL && setxattr(upper, "user.termite", "", 0, 0) != 0 && errno == EOPNOTSUPP)
        fail("the scratch directory's file system has no user xattrs (a tmpfs needs Linux 6.6): use one on disk");
    if (failure == EINVAL || failure == ENODEV) {
        errno = failure;
        fail_errno("cannot mount overlay (it needs Linux 5.11 with overlayfs)", "");
    }
    errno = failure;
    fail_errno("cannot mount overlay", "");
}

/* Mount the overlay. The option `volatile` avoids that every unmount syncs the whole disk; the
 * scratch directory is thrown away anyway. */
static void mount_overlay(const struct job *job, const char *root)
{
    char options[OPTIONS_BYTES], upper[PATH_MAX], work[PATH_MAX];
    char escaped_upper[2 * PATH_MAX], escaped_work[2 * PATH_MAX];
    join(upper, job->scratch, "upper");
    join(work, job->scratch, "work");
    escape(escaped_upper, upper);
    escape(escaped_work, work);
    int length = snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s,userxattr,index=off,volatile",
                          job->lower, escaped_upper, escaped_work);
    if (length >= OPTIONS_BYTES)
        fail("too many layers: the options of the overlay do not fit into a page");
    if (mount("overlay", root, "overlay", MS_NOSUID | MS_NODEV, options) != 0)
        explain_overlay(upper);
}

/* -- parts that exist before the job ------------------------------------------------------------------------------- */

/* The places at which /dev, /sys and /proc are mounted until the root exists. */
static char common_dev[PATH_MAX], common_sys[PATH_MAX], own_proc[PATH_MAX];

/* Show a device of the machine in the current directory. */
static void bind_device(const char *name)
{
    char source[32];
    snprintf(source, sizeof source, "/dev/%s", name);
    int fd = open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
    if (fd < 0)
        fail_errno("cannot make", source);
    close(fd);
    if (mount(source, name, NULL, MS_BIND, NULL) == 0)
        return;
    if (errno != ENOENT || unlink(name) != 0) /* a container may have no tty */
        fail_errno("cannot bind", source);
}

/* Make the /dev that all jobs share. The mount is read-only, because the mode of its ptmx would
 * hold for all later jobs. Terminals can be opened, and those of other jobs seen, as in a plain
 * build. */
static void make_dev(void)
{
    static const char *const devices[] = {"null", "zero", "full", "random", "urandom", "tty"};
    static const char *const links[][2] = {{"/proc/self/fd", "fd"},
                                           {"/proc/self/fd/0", "stdin"},
                                           {"/proc/self/fd/1", "stdout"},
                                           {"/proc/self/fd/2", "stderr"},
                                           {"pts/ptmx", "ptmx"}};
    const unsigned long inert = MS_NOSUID | MS_NOEXEC;
    if (mount("tmpfs", common_dev, "tmpfs", inert, "mode=755,size=64k") != 0 || chdir(common_dev) != 0)
        fail_errno("cannot mount", common_dev);
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++)
        bind_device(devices[i]);
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if (symlink(links[i][0], links[i][1]) != 0)
            fail_errno("cannot make", links[i][1]);
    if (mkdir("pts", 0755) != 0 || mkdir("shm", 0755) != 0)
        fail_errno("cannot make directories in", common_dev);
    char options[64];
    snprintf(options, sizeof options, "newinstance,ptmxmode=0666,mode=620,max=%lld", most_terminals());
    if (mount("devpts", "pts", "devpts", inert, options) != 0)
        fail_errno("cannot mount", "devpts");
    if (mount(NULL, "pts", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | inert, NULL) != 0)
        fail_errno("cannot protect", "devpts");
    if (mount(NULL, common_dev, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | inert, NULL) != 0)
        fail_errno("cannot protect", common_dev);
    if (chdir("/") != 0)
        fail_errno("cannot enter", "/");
}

/* Make the directory `parent`/`name` unless it exists, and write its path to `path`. */
static void make_directory(char path[PATH_MAX], const char *parent, const char *name)
{
    join(path, parent, name);
    if (mkdir(path, 0755) != 0 && errno != EEXIST)
        fail_errno("cannot make", path);
}

/* Show the directory `source` read-only at `name` of the current directory. Return false if that is
 * not possible. */
static bool show(const char *source, const char *name)
{
    const unsigned long inert = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    return mkdir(name, 0755) == 0 && mount(source, name, NULL, MS_BIND, NULL) == 0 &&
           mount(NULL, name, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | inert, NULL) == 0;
}

/* Make the /sys that all jobs share: the processors and the memory of this machine, and the network
 * interfaces of the jobs' namespace. Builds read nothing else of it, and the rest describes the
 * machine to strangers. A container may hide its /sys; jobs then see less of it. */
static void make_sys(const char *parts)
{
    static const char *const ways[] = {"devices", "devices/virtual", "class"};
    const unsigned long inert = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    char own[PATH_MAX], class[PATH_MAX], devices[PATH_MAX];
    if (mount("tmpfs", common_sys, "tmpfs", inert, "mode=755,size=64k") != 0 || chdir(common_sys) != 0)
        fail_errno("cannot mount", common_sys);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (mkdir(ways[i], 0755) != 0)
            fail_errno("cannot make", ways[i]);
    (void)show("/sys/devices/system", "devices/system");
    make_directory(own, parts, "sys-own");
    if (mount("sysfs", own, "sysfs", inert | MS_RDONLY, NULL) == 0) {
        join(class, own, "class/net");
        join(devices, own, "devices/virtual/net");
        (void)(show(devices, "devices/virtual/net") && show(class, "class/net"));
        (void)umount2(own, MNT_DETACH);
    }
    if (mount(NULL, common_sys, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | inert, NULL) != 0)
        fail_errno("cannot protect", common_sys);
    if (chdir("/") != 0)
        fail_errno("cannot enter", "/");
}

void make_parts(const char *scratch)
{
    char parts[PATH_MAX];
    umask(0);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        fail_errno("cannot make mounts private", "");
    make_directory(parts, scratch, "parts");
    make_directory(common_dev, parts, "dev");
    make_directory(common_sys, parts, "sys");
    make_directory(own_proc, parts, "proc");
    make_dev();
    make_sys(parts);
}

void make_own_parts(void)
{
    if (mount("proc", own_proc, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) != 0)
        fail_errno("cannot mount", "proc");
}

/* -- the root ------------------------------------------------------------------------------------------------------ */

/* Move a mount to `directory`. The mirror shows an empty directory for it; if not, the job's own
 * layer gets one. */
static void move_to(const char *from, const char *directory)
{
    if (mount(from, directory, NULL, MS_MOVE, NULL) == 0)
        return;
    if (errno != ENOENT || mkdir(directory, 0755) != 0 || mount(from, directory, NULL, MS_MOVE, NULL) != 0)
        fail_errno("cannot mount", directory);
}

/* Give the job its own /dev/shm, in the space in which it writes. */
static void make_shm(const struct job *job)
{
    char path[PATH_MAX];
    join(path, job->scratch, "shm");
    if (mkdir(path, 01777) != 0 || mount(path, "dev/shm", NULL, MS_BIND, NULL) != 0 ||
        mount(NULL, "dev/shm", NULL, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV, NULL) != 0)
        fail_errno("cannot mount", "dev/shm");
}

/* Give the job a devpts of its own, so that no other job can open its terminals. */
static void make_terminals(void)
{
    if (mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620") != 0)
        fail_errno("cannot mount", "the job's devpts");
}

/* Set the host name of the UTS namespace, cut to the kernel's limit. A container's profile may
 * forbid this call. Hardly any command asks for the name, so the job then runs with that of the
 * worker. */
static void set_host_name(const char *name)
{
    size_t length = strlen(name);
    int result = sethostname(name, length < HOST_NAME_BYTES ? length : HOST_NAME_BYTES);
    (void)result;
}

/* Make the current directory the root, and leave the old one. */
static void change_root(void)
{
    if (syscall(SYS_pivot_root, ".", ".") != 0)
        fail_errno("cannot change the root", "");
    if (umount2(".", MNT_DETACH) != 0 || chdir("/") != 0)
        fail_errno("cannot leave the old root", "");
}

void make_root(const struct job *job)
{
    char root[PATH_MAX];
    join(root, job->scratch, "root");
    if (chdir(job->mount) != 0)
        fail_errno("cannot enter", job->mount);
    mount_overlay(job, root);
    if (chdir(root) != 0)
        fail_errno("cannot enter", root);
    move_to(own_proc, "proc");
    move_to(common_dev, "dev");
    move_to(common_sys, "sys");
    make_shm(job);
    if (job->terminals)
        make_terminals();
    if (job->hostname)
        set_host_name(job->hostname);
    change_root();
}

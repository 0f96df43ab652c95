/* The job's root: an overlay over the mirror's views, with /proc and /dev of its own, and nothing else to be seen.
 *
 * Everything is mounted with paths relative to the root-to-be, as the old root is still there: the sources of the
 * device nodes are found by absolute paths. */
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { HOST_NAME_BYTES = 64, OPTIONS_BYTES = 4096 /* what mount(2) copies: a page */ };

static void join(char out[PATH_MAX], const char *directory, const char *name)
{
    if (snprintf(out, PATH_MAX, "%s/%s", directory, name) >= PATH_MAX)
        fail("the scratch directory's path is too long");
}

/* -- the overlay --------------------------------------------------------------------------------------------------- */

/* A comma would end the option, and a backslash escapes. */
static void escape(char out[2 * PATH_MAX], const char *path)
{
    for (; *path; path++) {
        if (*path == ',' || *path == '\\')
            *out++ = '\\';
        *out++ = *path;
    }
    *out = '\0';
}

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

/* volatile: the scratch directory is thrown away, and without it every unmount would sync the whole disk. */
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

/* -- /proc, /dev --------------------------------------------------------------------------------------------------- */

/* The mirror shows an empty directory to mount on; where it does not, the job's own layer gets one. */
static void mount_on(const char *type, const char *directory, unsigned long flags, const char *options)
{
    if (mount(type, directory, type, flags, options) == 0)
        return;
    if (errno != ENOENT || mkdir(directory, 0755) != 0 || mount(type, directory, type, flags, options) != 0)
        fail_errno("cannot mount", directory);
}

static void bind_device(const char *name)
{
    char source[32], target[32];
    snprintf(source, sizeof source, "/dev/%s", name);
    snprintf(target, sizeof target, "dev/%s", name);
    int fd = open(target, O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
    if (fd < 0)
        fail_errno("cannot make", target);
    close(fd);
    if (mount(source, target, NULL, MS_BIND, NULL) == 0)
        return;
    if (errno != ENOENT || unlink(target) != 0) /* a container may have no tty */
        fail_errno("cannot bind", source);
}

static void make_dev(void)
{
    static const char *const devices[] = {"null", "zero", "full", "random", "urandom", "tty"};
    static const char *const links[][2] = {{"/proc/self/fd", "dev/fd"},
                                           {"/proc/self/fd/0", "dev/stdin"},
                                           {"/proc/self/fd/1", "dev/stdout"},
                                           {"/proc/self/fd/2", "dev/stderr"},
                                           {"pts/ptmx", "dev/ptmx"}};
    const unsigned long inert = MS_NOSUID | MS_NOEXEC;
    mount_on("tmpfs", "dev", inert, "mode=755,size=64k");
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++)
        bind_device(devices[i]);
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if (symlink(links[i][0], links[i][1]) != 0)
            fail_errno("cannot make", links[i][1]);
    if (mkdir("dev/pts", 0755) != 0 || mkdir("dev/shm", 0755) != 0)
        fail_errno("cannot make directories in", "dev");
    mount_on("devpts", "dev/pts", inert, "newinstance,ptmxmode=0666,mode=620");
    mount_on("tmpfs", "dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
    if (mount(NULL, "dev", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | inert, NULL) != 0)
        fail_errno("cannot protect", "dev");
}

/* -- network, names ------------------------------------------------------------------------------------------------ */

static void raise_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) != 0)
        fail_errno("cannot start the loopback interface", "");
    close(fd);
}

static void set_host_name(const char *name)
{
    size_t length = strlen(name);
    if (sethostname(name, length < HOST_NAME_BYTES ? length : HOST_NAME_BYTES) != 0)
        fail_errno("cannot set the host name", name);
}

/* -- */

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
    umask(0);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        fail_errno("cannot make mounts private", "");
    if (chdir(job->mount) != 0)
        fail_errno("cannot enter", job->mount);
    mount_overlay(job, root);
    if (chdir(root) != 0)
        fail_errno("cannot enter", root);
    mount_on("proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    make_dev();
    if (!job->network && job->network_namespace < 0)
        raise_loopback();
    if (job->hostname)
        set_host_name(job->hostname);
    change_root();
}

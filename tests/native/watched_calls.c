/* Make a watched call, or run a program below a listener of system calls.
 *
 * watched_calls set FILE NAME SIZE | make FILE MODE | link OLD NEW
 * watched_calls space PATH | space-by-file PATH
 * watched_calls listen | below-listener PROGRAM [ARGUMENT...]
 *
 * It prints the number of errno, 0 if the call succeeded. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

/* Install a filter that allows everything and has a listener. Return its descriptor or -1. Root
 * needs no no_new_privs, which would keep a program from changing its user. */
static int listen_to_calls(void)
{
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {.len = 1, .filter = &allow};
    if (geteuid() != 0)
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

/* Run a program below a listener. The listener lives as long as somebody has its descriptor, so
 * this process shares those of the child until the child's exec. */
static int run_below_listener(char **program)
{
    int status = 1 << 8;
    long child = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) {
        if (listen_to_calls() >= 0)
            execvp(program[0], program);
        _exit(127);
    }
    waitpid((pid_t)child, &status, 0);
    return WEXITSTATUS(status);
}

/* Set an attribute. A list of access rights has one entry for user 65534. */
static int set(const char *file, const char *name, size_t size)
{
    unsigned char value[256] = {2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 254, 255, 0, 0, 4, 0, 4, 0, 255,
                                255, 255, 255, 16, 0, 6, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255};
    return setxattr(file, name, value, size, 0);
}

/* Make a file of the kind that `mode` names. A device is /dev/null or the first loop device. */
static int make(const char *file, const char *mode)
{
    if (strcmp(mode, "S_IFCHR") == 0)
        return mknod(file, S_IFCHR | 0600, makedev(1, 3));
    if (strcmp(mode, "S_IFBLK") == 0)
        return mknod(file, S_IFBLK | 0600, makedev(7, 0));
    return mknod(file, (strcmp(mode, "S_IFIFO") == 0 ? S_IFIFO : S_IFREG) | 0600, 0);
}

static int pipe_end(void)
{
    int ends[2];
    return pipe(ends) == 0 ? ends[0] : -1;
}

int main(int argc, char **argv)
{
    int result = -1;
    if (argc == 5 && strcmp(argv[1], "set") == 0)
        result = set(argv[2], argv[3], strtoul(argv[4], NULL, 10));
    else if (argc == 4 && strcmp(argv[1], "make") == 0)
        result = make(argv[2], argv[3]);
    else if (argc == 4 && strcmp(argv[1], "link") == 0)
        result = link(argv[2], argv[3]);
    else if (argc == 3 && strcmp(argv[1], "space") == 0)
        result = statfs(argv[2], &(struct statfs){0});
    else if (argc == 3 && strcmp(argv[1], "space-by-file") == 0)
        result = fstatfs(strcmp(argv[2], "pipe") ? open(argv[2], O_RDONLY) : pipe_end(), &(struct statfs){0});
    else if (argc == 2 && strcmp(argv[1], "listen") == 0)
        result = listen_to_calls();
    else if (argc > 2 && strcmp(argv[1], "below-listener") == 0)
        return run_below_listener(argv + 2);
    printf("%d\n", result < 0 ? errno : 0);
    return 0;
}

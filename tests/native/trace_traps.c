/* Use paths in ways that are hard to trace: `trace_traps TRAP [ARGUMENT]` does one of them, and
 * says on stdout what it saw. It is linked statically and not position-independent, because
 * 32-bit system calls take addresses below 4 GiB. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void look(const char *path)
{
    (void)!access(path, F_OK);
}

/* -- signals and deaths -------------------------------------------------------------------------------------------- */

static void ignore(int number)
{
    (void)number;
}

/* Open a file 20,000 times under timers. Print how often a signal ended the call. */
static void signals(void)
{
    struct sigaction action = {.sa_handler = ignore}; /* without SA_RESTART */
    sigaction(SIGALRM, &action, NULL);
    struct itimerval often = {{0, 70}, {0, 70}}, never = {0};
    setitimer(ITIMER_REAL, &often, NULL);
    int ended = 0;
    for (int i = 0; i < 20000; i++) {
        int fd = open("signals-file", O_RDONLY);
        ended += fd < 0 && errno == EINTR;
        if (fd >= 0)
            close(fd);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    printf("%d\n", ended);
}

/* Kill 100 children while they use paths. */
static void deaths(void)
{
    for (int i = 0; i < 100; i++) {
        pid_t child = fork();
        for (; child == 0;)
            look("deaths-file");
        usleep((useconds_t)(i * 7));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    look("after-deaths");
}

/* Stop and continue a child that uses paths. */
static void stops(void)
{
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < 2000; i++)
            look("stops-file");
        _exit(0);
    }
    int status;
    while (waitpid(child, &status, WNOHANG) == 0) {
        kill(child, SIGSTOP);
        kill(child, SIGCONT);
        usleep(50);
    }
    printf("%d\n", status);
}

static void kill_all(void)
{
    look("before-kill");
    kill(-1, SIGKILL); /* all but this process and pid 1 */
    look("after-kill");
}

/* -- processes and threads ----------------------------------------------------------------------------------------- */

static void undumpable(void)
{
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    look("undumpable-file");
}

/* Use paths in children that are made in several ways. */
static void children(void)
{
    int status;
    if (vfork() == 0) {
        look("of-vfork");
        _exit(0);
    }
    if (syscall(SYS_clone3, &(struct { uint64_t words[11]; }){{[4] = SIGCHLD}}, 88) == 0) {
        look("of-clone3");
        _exit(0);
    }
    pid_t spawned;
    posix_spawn(&spawned, "/usr/bin/cat", NULL, NULL, (char *[]){"cat", "of-spawn", NULL}, environ);
    while (wait(&status) > 0)
        ;
    if (fork() == 0) { /* it outlives its parent for a moment */
        setsid();
        usleep(20000);
        look("of-orphan");
        _exit(0);
    }
}

static void *use_many(void *number)
{
    for (int i = 0; i < 100; i++) {
        char name[64];
        snprintf(name, sizeof name, "many-%ld-%d", (long)number, i);
        look(name);
    }
    return NULL;
}

static void threads(void)
{
    pthread_t all[50];
    for (long i = 0; i < 50; i++)
        pthread_create(&all[i], NULL, use_many, (void *)i);
    for (int i = 0; i < 50; i++)
        pthread_join(all[i], NULL);
}

static void *change_directory(void *nothing)
{
    (void)!chdir("below");
    return nothing;
}

/* One thread changes the directory of all; another one has its own. */
static void *use_own_directory(void *nothing)
{
    unshare(CLONE_FS);
    (void)!chdir("own");
    look("of-own");
    return nothing;
}

static void directories(void)
{
    pthread_t thread;
    mkdir("below", 0755);
    mkdir("below/own", 0755);
    pthread_create(&thread, NULL, change_directory, NULL);
    pthread_join(thread, NULL);
    pthread_create(&thread, NULL, use_own_directory, NULL);
    pthread_join(thread, NULL);
    look("of-below");
    look("../of-above");
    look("./own//./x/../y/");
}

/* -- names --------------------------------------------------------------------------------------------------------- */

static void removed(void)
{
    mkdir("gone", 0755);
    mkdir("kept (deleted)", 0755);
    (void)!chdir("gone");
    rmdir("../gone");
    look("in-gone");
    (void)!chdir("/home/me/kept (deleted)");
    look("in-kept");
}

/* Use a name at the end of the memory, a long one, a too long one, and none. */
static void memory(void)
{
    char *two = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(two + 4096, 4096);
    look(strcpy(two + 4096 - sizeof "at-the-end", "at-the-end"));
    char name[5000];
    for (int i = 0; i < 4090; i++)
        name[i] = i % 200 == 199 ? '/' : 'x';
    strcpy(name + 4080, "/end");
    look(name);
    memset(name, 'y', 4200);
    name[4200] = 0;
    look(name);
    printf("%ld %d\n", syscall(SYS_access, NULL, F_OK), errno);
    printf("%ld %d\n", syscall(SYS_access, 1L, F_OK), errno);
}

/* Begin names at descriptors that came in several ways. */
static void descriptors(void)
{
    mkdir("dir", 0755);
    mkdir("dir/sub", 0755);
    int path = open("dir", O_PATH | O_DIRECTORY), ends[2];
    (void)!faccessat(path, "of-path", F_OK, 0);
    socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    int sent = open("dir/sub", O_RDONLY | O_DIRECTORY), got = -1;
    char byte = 0, room[CMSG_SPACE(sizeof sent)] = {0};
    struct iovec text = {&byte, 1};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    *CMSG_FIRSTHDR(&message) = (struct cmsghdr){CMSG_LEN(sizeof sent), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), &sent, sizeof sent);
    sendmsg(ends[0], &message, 0);
    close(sent);
    recvmsg(ends[1], &message, 0);
    memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof got);
    (void)!faccessat(got, "of-sent", F_OK, 0);
    (void)!fchdir(got);
    look("of-fchdir");
    struct open_how how = {.flags = O_RDONLY, .resolve = RESOLVE_IN_ROOT};
    syscall(SYS_openat2, path, "/of-root", &how, sizeof how);
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d/of-proc", path);
    look(link);
    snprintf(link, sizeof link, "/dev/fd/%d/of-dev", path);
    look(link);
    look("/proc/self/cwd/of-cwd");
    snprintf(link, sizeof link, "/proc/%d/root/of-slash", getpid());
    look(link);
}

/* Execute a file in memory, and one by its descriptor. */
static void executed(void)
{
    int status, memory = memfd_create("program", 0), source = open("/usr/bin/true", O_RDONLY);
    char bytes[65536];
    for (ssize_t length; (length = read(source, bytes, sizeof bytes)) > 0;)
        (void)!write(memory, bytes, (size_t)length);
    int fds[] = {memory, open("/usr/bin/echo", O_PATH)};
    for (int i = 0; i < 2; i++) {
        if (fork() == 0)
            syscall(SYS_execveat, fds[i], "", (char *[]){"x", "executed", NULL}, environ, AT_EMPTY_PATH);
        wait(&status);
    }
    printf("%d\n", status);
}

static void sockets(void)
{
    struct sockaddr_un bound = {AF_UNIX, "socket-bound"}, tried = {AF_UNIX, "socket-tried"};
    int one = socket(AF_UNIX, SOCK_STREAM, 0), other = socket(AF_UNIX, SOCK_STREAM, 0);
    (void)!bind(one, (struct sockaddr *)&bound, sizeof bound);
    (void)!connect(other, (struct sockaddr *)&tried, sizeof tried);
    unlink("socket-bound");
}

/* Use files as each kind of access does. */
static void kinds(void)
{
    int fds[] = {open("k-read", O_RDONLY), open("k-create", O_WRONLY | O_CREAT | O_TRUNC, 0644),
                 open("k-excl", O_RDWR | O_CREAT | O_EXCL, 0644), open("k-append", O_WRONLY | O_APPEND),
                 open("k-path", O_PATH)};
    struct stat st;
    char text[16];
    (void)fds;
    look("k-check");
    (void)!stat("k-stat", &st);
    (void)!readlink("k-link", text, sizeof text);
    (void)!chmod("k-meta", 0644);
    (void)!mkdir("k-make", 0755);
    (void)!rename("k-create", "k-moved");
    (void)!unlink("k-excl");
    execl("k-exec", "k-exec", NULL);
}

#ifdef __x86_64__
/* Make a system call as a 32-bit program does. */
static int call_32(int number, const char *path, int flags)
{
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(path), "c"(flags) : "memory", "r8", "r9", "r10", "r11");
    return result;
}

static void narrow(void)
{
    printf("%d\n", call_32(5, "narrow-open", O_RDONLY));
    call_32(33, "narrow-access", F_OK);
    call_32(39, "narrow-mkdir", 0755);
}
#endif

/* -- what leaves a gap --------------------------------------------------------------------------------------------- */

static void filter(unsigned verdict)
{
    struct sock_filter steps[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                                  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_access, 0, 1),
                                  BPF_STMT(BPF_RET | BPF_K, verdict), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {4, steps};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    int result = prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
    errno = 0;
    look("filtered");
    printf("%d %d\n", result, errno);
}

static void namespaces(const char *what)
{
    int own = open("/proc/self/ns/uts", O_RDONLY);
    if (strcmp(what, "setns") == 0)
        (void)!setns(own, CLONE_NEWUTS);
    unshare(CLONE_NEWUSER | CLONE_NEWNS);
    if (strcmp(what, "mount") == 0)
        (void)!mount("none", "/tmp", "tmpfs", 0, NULL);
    if (strcmp(what, "umount") == 0)
        (void)!umount2("/tmp", MNT_DETACH);
    if (strcmp(what, "chroot") == 0)
        (void)!chroot("/usr");
    look("/bin");
}

static const struct {
    const char *name;
    void (*spring)(void);
} TRAPS[] = {
    {"signals", signals},       {"deaths", deaths},     {"stops", stops},       {"kill-all", kill_all},
    {"undumpable", undumpable}, {"children", children}, {"threads", threads},   {"directories", directories},
    {"removed", removed},       {"memory", memory},     {"executed", executed}, {"descriptors", descriptors},
    {"sockets", sockets},       {"kinds", kinds},
#ifdef __x86_64__
    {"narrow", narrow},
#endif
};

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "filter") == 0)
        return filter((unsigned)strtoul(argv[2], NULL, 0)), 0;
    if (argc == 3 && strcmp(argv[1], "namespace") == 0)
        return namespaces(argv[2]), 0;
    for (size_t i = 0; argc == 2 && i < sizeof TRAPS / sizeof *TRAPS; i++)
        if (strcmp(argv[1], TRAPS[i].name) == 0)
            return TRAPS[i].spring(), 0;
    return 2;
}

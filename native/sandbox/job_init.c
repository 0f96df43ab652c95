/* Be pid 1 of a job: wait for the order, make the root, start the command, reap orphans, report the
 * end.
 *
 * When the command has ended, everything left of the job is killed, and its files become read-only.
 * Only then is the end reported: the mirror then finds the files at rest and all output in the
 * pipes. The pipes stay open in this process until it has reported, so that the report alone wakes
 * the mirror. */
#include "sandbox.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

enum { REST_TRIES = 100, REST_PAUSE_NS = 1000 * 1000 };
enum { IGNORABLE_SIGNALS = 31 };
enum { MUCH_BYTES = 1 << 20 }; /* no scratch space of a worker in order is so small */

/* -- standard input, output, errors -------------------------------------------------------------------------------- */

/* Move `fd` to the descriptor `number`. */
static void place_fd(int fd, int number)
{
    if (fd < 0 || dup2(fd, number) < 0)
        fail_errno("cannot give the job its standard files", "");
    close(fd);
}

/* Open the job's stdin, which must be a regular file beneath the mount. This process still sees the
 * worker's disk, and the path is the submitter's. O_NONBLOCK keeps the open from waiting for the
 * writer of a FIFO; it is taken off again. */
static int open_beneath_mount(const struct job *job)
{
    struct open_how how = {.flags = O_RDONLY | O_NOCTTY | O_CLOEXEC | O_NONBLOCK,
                           .resolve =
                               RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV};
    struct stat st;
    int mount_fd = open(job->mount, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = mount_fd < 0 ? -1 : (int)syscall(SYS_openat2, mount_fd, job->standard_input, &how, sizeof how);
    if (fd < 0 || fstat(fd, &st) != 0 || fcntl(fd, F_SETFL, O_RDONLY) != 0)
        fail_errno("cannot open stdin", job->standard_input);
    if (!S_ISREG(st.st_mode))
        fail("stdin is not a regular file");
    close(mount_fd);
    return fd;
}

/* Open the job's stdin as fd 0, at the position in the order. Return another descriptor of the same
 * opening: when all of the job is dead, it shows how far the job has read. */
static int open_stdin(const struct job *job)
{
    int fd = open_beneath_mount(job);
    if (lseek(fd, job->stdin_offset, SEEK_SET) < 0 || dup2(fd, STDIN_FILENO) < 0)
        fail_errno("cannot open stdin", job->standard_input);
    return fd;
}

/* Give this process the job's standard files. Return a descriptor for the position of stdin, or -1
 * if stdin is not a file of the order. */
static int place_stdio(const struct job *job, const struct order *order)
{
    place_fd(order->fds[0], STDOUT_FILENO);
    place_fd(order->fds[1], STDERR_FILENO);
    if (job->standard_input)
        return open_stdin(job);
    place_fd(order->fd_count > 2 ? order->fds[2] : open("/dev/null", O_RDONLY | O_CLOEXEC), STDIN_FILENO);
    return -1;
}

/* Take the file of the trace from the order, whose last descriptor it is. Return -1 if the job is
 * not traced. A sandbox is made for one kind of trace. */
static int take_trace_file(const struct job *job, struct order *order, enum trace_mode made_for)
{
    if (job->trace != made_for)
        fail("the sandbox is made for another kind of trace");
    if (made_for == UNTRACED)
        return -1;
    if (order->fd_count < 3)
        fail("the order has no file for the trace");
    return order->fds[--order->fd_count];
}

/* -- the command --------------------------------------------------------------------------------------------------- */

/* Reset all signals to their default, while this process waits for its order. An exec resets those
 * that have handlers, but not those that are ignored. */
static void default_signals(void)
{
    for (int signal = 1; signal <= SIGRTMAX; signal++)
        sigaction(signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL); /* some fail */
}

/* Ignore the signals that the submitter ignores (nohup), and unblock all. */
static void ignore_signals(unsigned long long ignored)
{
    for (int signal = 1; signal <= IGNORABLE_SIGNALS; signal++)
        if (ignored >> (signal - 1) & 1)
            sigaction(signal, &(struct sigaction){.sa_handler = SIG_IGN}, NULL); /* some fail */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Become the command. If it cannot be executed, report the number of errno as `exec`. */
static _Noreturn void run_command(const struct job *job)
{
    if (job->terminals & IS_TYPED_AT)
        take_terminal(job, STDIN_FILENO);
    become_job(job);
    ignore_signals(job->ignored);
    if (job->no_stdin)
        close(STDIN_FILENO); /* so the first file that it opens is fd 0, as in a plain build */
    environ = job->env;
    if (job->search)
        execvp(job->exe, job->argv);
    else
        execve(job->exe, job->argv, job->env);
    char text[16];
    snprintf(text, sizeof text, "%d", errno);
    end_with("exec", text);
}

/* -- how it ends --------------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t stopped, sent_home;

/* Kill the job, at SIGTERM from outside of its pid namespace. A sender in the job's own namespace
 * has a pid here. The kernel does not let it claim SI_USER with another pid. */
static void kill_all(int number, siginfo_t *info, void *context)
{
    if (info->si_pid != 0 || info->si_code != SI_USER)
        return;
    stopped = 1;
    kill(-1, SIGKILL);
}

/* Kill the job because it made a call that only the submitter's machine can carry out. */
static void end_for_home(int number)
{
    sent_home = number;
    kill(-1, SIGKILL);
}

/* Do so at a signal of `serve`. */
static void send_home(int number, siginfo_t *info, void *context)
{
    if (info->si_pid == 0 && info->si_code == SI_USER)
        end_for_home(number);
}

/* Let SIGTERM kill the job, and the signals of `serve`. */
static void be_stoppable(void)
{
    struct sigaction action = {.sa_sigaction = kill_all, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGTERM, &action, NULL);
    take_home_signals(send_home);
}

enum { COMM_BYTES = 32 };

/* Write the name of the program that a process was at its end to `last`, before it is reaped. */
static void look_at_end(pid_t command, char last[COMM_BYTES])
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/comm", command);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, last, COMM_BYTES - 1);
    if (fd >= 0)
        close(fd);
    last[length > 0 ? length - 1 : 0] = '\0'; /* without the newline */
}

/* Reap children until the command ends. Return its wait status. If the job has linked files, write
 * the name of the program that the command was at its end to `last`. That is asked when the command
 * has ended: only then it is certain that no other link is made. */
static int reap_until(pid_t command, char last[COMM_BYTES])
{
    for (;;) {
        siginfo_t ended;
        if (waitid(P_ALL, 0, &ended, WEXITED | WNOWAIT) != 0) {
            if (errno != EINTR)
                fail_errno("cannot wait for the command", "");
            continue;
        }
        if (ended.si_pid == command && is_linked())
            look_at_end(command, last);
        int status;
        if (waitpid(ended.si_pid, &status, 0) == command)
            return status;
    }
}

/* Have the kernel free descriptors that lie in sockets which nobody has open any more. It looks for
 * such sockets only when a unix socket is closed. */
static void collect_lost_sockets(void)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return;
    close(pair[0]);
    close(pair[1]);
}

/* Make the job's overlay read-only, and return whether that was possible.
 *
 * The job is dead, but a process of another job may hold a descriptor of its root. The kernel
 * refuses to make a file system read-only (EBUSY) as long as a file is open for writing. Closing
 * the files of a dead process may take a moment (io_uring, sockets in sockets), so this function
 * retries for 100 ms. */
static bool are_files_at_rest(void)
{
    for (int tries = 0; tries < REST_TRIES; tries++) {
        if (mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) == 0)
            return true;
        if (errno != EBUSY)
            fail_errno("cannot make the job's files read-only", "");
        collect_lost_sockets();
        nanosleep(&(struct timespec){.tv_nsec = REST_PAUSE_NS}, NULL);
    }
    return false;
}

/* Return CLOCK_REALTIME in nanoseconds. */
static long long realtime_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static long long microseconds(struct timeval time)
{
    return time.tv_sec * 1000000LL + time.tv_usec;
}

/* Add the fields of a command that has ended. */
static void add_end(struct buffer *said, int status, long long started_ns, long long ended_ns)
{
    struct rusage usage;
    getrusage(RUSAGE_CHILDREN, &usage);
    field_add_number(said, "started_ns", started_ns);
    field_add_number(said, "ended_ns", ended_ns);
    field_add_number(said, "user_us", microseconds(usage.ru_utime));
    field_add_number(said, "system_us", microseconds(usage.ru_stime));
    field_add_number(said, "maxrss_kb", usage.ru_maxrss);
    field_add_number(said, "status", status);
}

/* All that the command's process gets. */
struct start {
    const struct job *job;
    int failures;
};

static void begin_command(const void *argument)
{
    const struct start *start = argument;
    report_fd = start->failures;
    run_command(start->job);
}

/* Start the command, which writes to `failures` if it cannot be executed. Return its pid, or -1 if
 * the job has been stopped before. */
static pid_t start_command(const struct job *job, int failures)
{
    sigset_t stop, before;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigprocmask(SIG_BLOCK, &stop, &before);
    const struct start start = {job, failures};
    pid_t command = stopped ? -1 : fork_command(begin_command, &start);
    if (command < 0 && !stopped)
        fail_errno("cannot fork", "");
    sigprocmask(SIG_SETMASK, &before, NULL);
    return command;
}

/* The descriptors of pid 1: the channel to the mirror, the report of a command that could not be
 * started, that of open_stdin, and the file of the trace. The last two may be -1. */
struct ends {
    int channel, failures, input, trace;
};

/* Report the end of `job`. `last` is that of reap_until. */
static _Noreturn void say_end(const struct job *job, const struct ends *ends, int status, const char *last,
                              long long started_ns)
{
    long long ended_ns = realtime_ns();
    bool may_compare = is_linked() && may_compare_links(newest_process(), last); /* before we make processes */
    bool is_full = may_be_refused();
    unsigned long long made = made_processes(job, ended_ns - started_ns, &is_full);
    bool are_left = !is_full && are_processes_left();
    end_what_is_left();
    struct buffer said = {0};
    if (!read_whole(ends->failures, &said))
        fail_errno("cannot read from a pipe", "");
    if (said.length == 0 && !stopped) {
        add_end(&said, status, started_ns, ended_ns);
        if (is_full)
            field_add(&said, "full", "1");
        if (made)
            field_add_number(&said, "made", (long long)made);
        if (may_compare)
            field_add(&said, "linked", "1");
        if (are_left)
            field_add(&said, "left", "1");
        unsigned long long written = written_bytes();
        if (written >= MUCH_BYTES)
            field_add_number(&said, "written", (long long)written);
    }
    if (ends->input >= 0)
        field_add_number(&said, "stdin_offset", lseek(ends->input, 0, SEEK_CUR));
    if (said.length == 0)
        field_add(&said, "stopped", "1");
    end_tracer(ends->trace, &said);
    if (sent_home)
        field_add(&said, "here", sent_home_by(sent_home));
    if (!are_files_at_rest())
        field_add(&said, "busy", "1");
    _exit(!said.failed && write_whole(ends->channel, said.bytes, said.length) ? 0 : EXIT_FAILED);
}

_Noreturn void be_init(int channel, enum trace_mode trace, const struct ids *own)
{
    report_fd = channel;
    default_signals();
    be_stoppable();
    setsid(); /* leave the worker's terminal */
    make_own_parts();
    if (trace != UNTRACED)
        start_tracer(own, end_for_home);
    struct order order;
    receive_order(channel, &order);
    struct job job = parse_job(&order.config);
    struct ends ends = {.channel = channel, .trace = take_trace_file(&job, &order, trace)};
    ends.input = place_stdio(&job, &order);
    make_root(&job);
    if (job.terminals)
        give_terminals(&job, channel);
    int failures[2]; /* the command reports here if it cannot be executed */
    if (pipe2(failures, O_CLOEXEC) != 0)
        fail_errno("cannot make a pipe", "");
    long long started_ns = realtime_ns();
    pid_t command = start_command(&job, failures[1]);
    close(failures[1]);
    close(STDIN_FILENO);
    ends.failures = failures[0];
    char last[COMM_BYTES] = "";
    int status = command > 0 ? reap_until(command, last) : 0;
    say_end(&job, &ends, status, last, started_ns);
}

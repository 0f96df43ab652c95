/* Pid 1 of a job: waits for it, makes its root, starts its command, reaps orphans. When the command has ended it kills
 * whatever is left, waits until that is gone, makes the job's files read-only, and only then says how it ended: so whoever
 * reads them after that finds them at rest, and all that it has said in its pipes. They stay open here: whoever reads them is woken by
 * the report alone, not by their ends first. */
#include "sandbox.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

enum { REST_TRIES = 100, REST_PAUSE_NS = 1000 * 1000 };

/* -- standard input, output, errors -------------------------------------------------------------------------------- */

static void place_fd(int fd, int number)
{
    if (fd < 0 || dup2(fd, number) < 0)
        fail_errno("cannot give the job its standard files", "");
    close(fd);
}

/* Nothing but a regular file beneath the mount can be opened, whatever the path says: what this process sees is the
 * worker's disk. O_NONBLOCK is for the moment of opening only, which must not wait for a FIFO's writer. */
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

/* As fd 0, at the place where whoever started the job is in it. Returns another descriptor of the same opening: when
 * all of the job is dead, it tells how far the job has come. */
static int open_stdin(const struct job *job)
{
    int fd = open_beneath_mount(job);
    if (lseek(fd, job->stdin_offset, SEEK_SET) < 0 || dup2(fd, STDIN_FILENO) < 0)
        fail_errno("cannot open stdin", job->standard_input);
    return fd;
}

static int place_stdio(const struct job *job, const struct order *order)
{
    place_fd(order->fds[0], STDOUT_FILENO);
    place_fd(order->fds[1], STDERR_FILENO);
    if (job->standard_input)
        return open_stdin(job);
    place_fd(order->fd_count > 2 ? order->fds[2] : open("/dev/null", O_RDONLY | O_CLOEXEC), STDIN_FILENO);
    return -1;
}

/* -- the command --------------------------------------------------------------------------------------------------- */

static void default_signals(void)
{
    for (int signal = 1; signal <= SIGRTMAX; signal++)
        sigaction(signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL); /* not those that cannot be changed */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* With PATH and errors as the job would have them at home. */
static _Noreturn void run_command(const struct job *job)
{
    become_job(job);
    default_signals();
    if (job->no_stdin)
        close(STDIN_FILENO); /* so the first file that it opens is fd 0, as at home */
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

static volatile sig_atomic_t stopped;

/* From outside only: a sender in the job's own pid namespace has a pid here, and cannot say SI_USER where it lies. */
static void kill_all(int number, siginfo_t *info, void *context)
{
    if (info->si_pid != 0 || info->si_code != SI_USER)
        return;
    stopped = 1;
    kill(-1, SIGKILL);
}

static void be_stoppable(void)
{
    struct sigaction action = {.sa_sigaction = kill_all, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGTERM, &action, NULL);
}

/* Waits for the command, and for whatever it has left behind meanwhile. */
static int reap_until(pid_t command)
{
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, 0);
        if (pid == command)
            return status;
        if (pid < 0 && errno != EINTR)
            fail_errno("cannot wait for the command", "");
    }
}

static void end_what_is_left(void)
{
    kill(-1, SIGKILL);
    while (waitpid(-1, NULL, 0) >= 0 || errno == EINTR)
        ;
}

/* All of the job is dead, but a descriptor of its root may have gone to a process of another job. The overlay becomes
 * read-only for whoever holds one, which the kernel refuses (EBUSY) as long as a file is open for writing. What a dead
 * process had open may take the kernel a moment to close (io_uring, sockets in sockets), so it is asked for a while. */
static bool are_files_at_rest(void)
{
    for (int tries = 0; tries < REST_TRIES; tries++) {
        if (mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) == 0)
            return true;
        if (errno != EBUSY)
            fail_errno("cannot make the job's files read-only", "");
        nanosleep(&(struct timespec){.tv_nsec = REST_PAUSE_NS}, NULL);
    }
    return false;
}

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

static void add_end(struct buffer *said, int status, long long started_ns, long long ended_ns)
{
    struct rusage usage;
    getrusage(RUSAGE_CHILDREN, &usage);
    record_add_number(said, "started_ns", started_ns);
    record_add_number(said, "ended_ns", ended_ns);
    record_add_number(said, "user_us", microseconds(usage.ru_utime));
    record_add_number(said, "system_us", microseconds(usage.ru_stime));
    record_add_number(said, "maxrss_kb", usage.ru_maxrss);
    record_add_number(said, "status", status);
}

/* -- */

static pid_t start_command(const struct job *job, int failures)
{
    sigset_t stop, before;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigprocmask(SIG_BLOCK, &stop, &before);
    pid_t command = stopped ? -1 : fork();
    if (command == 0) {
        report_fd = failures;
        run_command(job);
    }
    if (command < 0 && !stopped)
        fail_errno("cannot fork", "");
    sigprocmask(SIG_SETMASK, &before, NULL);
    return command;
}

/* How it ended, as records. `failures` has what the command said if it could not be started; `input`: see open_stdin. */
static _Noreturn void say_end(int channel, int failures, int input, int status, long long started_ns)
{
    long long ended_ns = realtime_ns();
    end_what_is_left();
    struct buffer said = {0};
    if (!read_whole(failures, &said))
        fail_errno("cannot read from a pipe", "");
    if (said.length == 0 && !stopped)
        add_end(&said, status, started_ns, ended_ns);
    if (input >= 0)
        record_add_number(&said, "stdin_offset", lseek(input, 0, SEEK_CUR));
    if (said.length == 0)
        record_add(&said, "stopped", "1");
    if (!are_files_at_rest())
        record_add(&said, "busy", "1");
    _exit(!said.failed && write_whole(channel, said.bytes, said.length) ? 0 : EXIT_FAILED);
}

_Noreturn void be_init(int channel)
{
    report_fd = channel;
    signal(SIGCHLD, SIG_DFL);
    be_stoppable();
    setsid(); /* the worker's terminal is none of the job's business */
    make_own_parts();
    struct order order;
    receive_order(channel, &order);
    struct job job = parse_job(&order.config);
    int input = place_stdio(&job, &order);
    make_root(&job);
    int failures[2]; /* the command says here why it could not be started */
    if (pipe2(failures, O_CLOEXEC) != 0)
        fail_errno("cannot make a pipe", "");
    long long started_ns = realtime_ns();
    pid_t command = start_command(&job, failures[1]);
    close(failures[1]);
    close(STDIN_FILENO);
    int status = command > 0 ? reap_until(command) : 0;
    say_end(channel, failures[0], input, status, started_ns);
}

/* termite-sandbox: `run` makes one job's sandbox and runs its command; `enter` starts a mirror process.
 *
 * run is three processes. The first stays outside, waits until everything of the job is dead and only then says how it
 * ended; so whoever reads the job's files after that finds them at rest. Below it, pid 1 of the job's pid namespace
 * makes the root and reaps orphans; below that, the command. All of them write their records to one pipe, the report,
 * which the first one passes on. Protocol: docs/protocol.md, "Sandbox". */
#include "sandbox.h"
#include "records.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static const char USAGE[] =
    "usage: termite-sandbox run CONFIG_FD STATUS_FD\n"
    "       termite-sandbox enter [--uid=N --gid=N] -- PROGRAM [ARGUMENT...]\n"
    "\n"
    "For termite's own use: run makes one job's sandbox, enter the namespaces of a mirror process.\n";

/* -- saying what happened ------------------------------------------------------------------------------------------ */

static int report = -1;
static int failed = -1; /* in the process that is to become the command: tells pid 1 that it did not */

static _Noreturn void end_with(const char *key, const char *text)
{
    struct buffer buffer = {0};
    record_add(&buffer, key, text);
    if (!buffer.failed)
        (void)write_whole(report, buffer.bytes, buffer.length);
    if (failed >= 0)
        (void)write_whole(failed, "x", 1);
    _exit(EXIT_FAILED);
}

_Noreturn void fail(const char *text)
{
    end_with("error", text);
}

_Noreturn void fail_errno(const char *what, const char *subject)
{
    int failure = errno;
    char text[PATH_MAX + 256];
    snprintf(text, sizeof text, "%s%s%s: %s", what, *subject ? " " : "", subject, strerror(failure));
    fail(text);
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

static void report_end(int status, long long started_ns)
{
    struct buffer buffer = {0};
    struct rusage usage;
    record_add_number(&buffer, "started_ns", started_ns);
    record_add_number(&buffer, "ended_ns", realtime_ns());
    getrusage(RUSAGE_CHILDREN, &usage);
    record_add_number(&buffer, "user_us", microseconds(usage.ru_utime));
    record_add_number(&buffer, "system_us", microseconds(usage.ru_stime));
    record_add_number(&buffer, "maxrss_kb", usage.ru_maxrss);
    record_add_number(&buffer, "status", status);
    if (buffer.failed || !write_whole(report, buffer.bytes, buffer.length))
        _exit(EXIT_FAILED);
}

/* -- the configuration --------------------------------------------------------------------------------------------- */

static unsigned long long number(const char *text, int base)
{
    char *stop;
    errno = 0;
    unsigned long long value = strtoull(text, &stop, base);
    if (errno || *stop || stop == text || *text == '-')
        fail("the configuration has a bad number");
    return value;
}

static void set_field(struct job *job, const char *key, char *value)
{
    const struct {
        const char *key;
        char **field;
    } texts[] = {
        {"mount", &job->mount}, {"lower", &job->lower}, {"scratch", &job->scratch}, {"stdin", &job->standard_input},
        {"cwd", &job->cwd},     {"exe", &job->exe},     {"hostname", &job->hostname},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strcmp(key, texts[i].key) == 0)
            *texts[i].field = value;
    if (strcmp(key, "uid") == 0)
        job->uid = (long)number(value, 10);
    else if (strcmp(key, "gid") == 0)
        job->gid = (long)number(value, 10);
    else if (strcmp(key, "umask") == 0)
        job->mask = (mode_t)number(value, 8);
    else if (strcmp(key, "root") == 0)
        job->keeps_root = number(value, 10);
    else if (strcmp(key, "search") == 0)
        job->search = number(value, 10);
    else if (strcmp(key, "stdin_offset") == 0)
        job->stdin_offset = (long long)number(value, 10);
    else if (strcmp(key, "stdin_closed") == 0)
        job->no_stdin = number(value, 10);
    else if (strcmp(key, "network") == 0)
        job->network = number(value, 10);
    else if (strcmp(key, "netns") == 0)
        job->network_namespace = (int)number(value, 10);
    else if (strcmp(key, "nproc") == 0)
        job->processes = number(value, 10);
    else if (strcmp(key, "fsize") == 0)
        job->file_bytes = number(value, 10);
    else if (strcmp(key, "memory") == 0)
        job->memory_bytes = number(value, 10);
}

/* Every word of argv and env is at least a record, so this many pointers are enough for each. */
static size_t count_records(const struct buffer *config)
{
    size_t count = 0;
    for (size_t i = 0; i < config->length; i++)
        count += config->bytes[i] == '\0';
    return count;
}

static struct job read_job(int fd)
{
    struct buffer config = {0};
    if (!read_whole(fd, &config))
        fail_errno("cannot read the configuration", "");
    close(fd);
    size_t most = count_records(&config) + 1, words = 0, entries = 0;
    struct job job = {.uid = -1, .gid = -1, .mask = 022, .network_namespace = -1};
    job.argv = calloc(most, sizeof *job.argv);
    job.env = calloc(most, sizeof *job.env);
    if (!job.argv || !job.env)
        fail_errno("cannot read the configuration", "");
    char *cursor = config.bytes, *end = config.bytes + config.length, *key, *value;
    bool malformed = false;
    while (record_next(&cursor, end, &key, &value, &malformed)) {
        if (strcmp(key, "arg") == 0)
            job.argv[words++] = value;
        else if (strcmp(key, "env") == 0)
            job.env[entries++] = value;
        else
            set_field(&job, key, value);
    }
    if (malformed || !job.mount || !job.lower || !job.scratch || !job.cwd || !job.exe || words == 0 || job.uid < 0 ||
        job.gid < 0)
        fail("the configuration is incomplete");
    return job;
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

/* Waits for the command, and for whatever it has left behind meanwhile. */
static int reap_until(pid_t command)
{
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, 0);
        if (pid == command)
            return status;
        if (pid < 0 && errno != EINTR)
            _exit(EXIT_FAILED);
    }
}

/* -- pid 1 --------------------------------------------------------------------------------------------------------- */

void die_with_parent(int lifeline)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    fcntl(lifeline, F_SETFL, O_NONBLOCK);
    char byte;
    if (read(lifeline, &byte, 1) == 0) /* it had died before */
        _exit(EXIT_FAILED);
    close(lifeline);
}

static void close_stdio(void)
{
    for (int fd = 0; fd < 3; fd++)
        close(fd);
}

static _Noreturn void run_init(const struct job *job, int lifeline)
{
    die_with_parent(lifeline);
    setsid(); /* the worker's terminal is none of the job's business */
    int network = job->network || job->network_namespace >= 0 ? 0 : CLONE_NEWNET;
    if (unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | network) != 0)
        fail_errno("cannot make namespaces", "");
    if (!job->network && job->network_namespace >= 0 && setns(job->network_namespace, CLONE_NEWNET) != 0)
        fail_errno("cannot enter the network namespace", "");
    make_root(job);
    int started[2];
    if (pipe2(started, O_CLOEXEC) != 0)
        fail_errno("cannot make a pipe", "");
    long long started_ns = realtime_ns();
    pid_t command = fork();
    if (command < 0)
        fail_errno("cannot fork", "");
    if (command == 0) {
        failed = started[1];
        run_command(job);
    }
    close(started[1]);
    close_stdio();
    int status = reap_until(command);
    char byte;
    if (read(started[0], &byte, 1) == 0)
        report_end(status, started_ns);
    _exit(0);
}

/* -- standard input ------------------------------------------------------------------------------------------------ */

/* As fd 0, at the place where whoever started the job is in it. Returns another descriptor of the same opening: when
 * all of the job is dead, it tells how far the job has come. */
static int open_stdin(const struct job *job)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", job->mount, job->standard_input) >= PATH_MAX)
        fail("the mount point's path is too long");
    int fd = open(path, O_RDONLY | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || lseek(fd, job->stdin_offset, SEEK_SET) < 0)
        fail_errno("cannot open stdin", job->standard_input);
    int kept = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (kept < 0 || (fd != STDIN_FILENO && dup2(fd, STDIN_FILENO) < 0))
        fail_errno("cannot open stdin", job->standard_input);
    if (fd == STDIN_FILENO)
        fcntl(fd, F_SETFD, 0);
    else
        close(fd);
    return kept;
}

static void report_stdin(int kept, struct buffer *said)
{
    off_t offset = lseek(kept, 0, SEEK_CUR);
    if (offset >= 0)
        record_add_number(said, "stdin_offset", offset);
    close(kept);
}

/* -- outside ------------------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t init_pid;

static void kill_job(int signal)
{
    if (init_pid > 0)
        kill(init_pid, SIGKILL);
}

/* When told to stop, the job goes first: once this process is gone, so is every other. */
static void kill_job_on_signals(void)
{
    const int stops[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};
    struct sigaction action = {.sa_handler = kill_job, .sa_flags = SA_RESTART};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        sigaction(stops[i], &action, NULL);
        sigaddset(&set, stops[i]);
    }
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static pid_t start_init(const struct job *job)
{
    int lifeline[2];
    if (pipe2(lifeline, O_CLOEXEC) != 0)
        fail_errno("cannot make a pipe", "");
    if (unshare(CLONE_NEWPID) != 0)
        fail_errno("cannot make a pid namespace", "");
    pid_t pid = fork();
    if (pid < 0)
        fail_errno("cannot fork", "");
    if (pid == 0) {
        close(lifeline[1]);
        run_init(job, lifeline[0]);
    }
    close(lifeline[0]); /* the other end stays open as long as this process lives */
    return pid;
}

static int run(int config_fd, int status_fd)
{
    report = status_fd;
    fcntl(config_fd, F_SETFD, FD_CLOEXEC);
    fcntl(status_fd, F_SETFD, FD_CLOEXEC);
    struct job job = read_job(config_fd);
    int input = job.standard_input ? open_stdin(&job) : -1;
    int reports[2];
    if (pipe2(reports, O_CLOEXEC) != 0)
        fail_errno("cannot make a pipe", "");
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    report = reports[1];
    init_pid = start_init(&job);
    kill_job_on_signals();
    report = status_fd;
    close(reports[1]);
    close_stdio(); /* else the job's output would seem open until this process has ended */

    struct buffer said = {0};
    bool heard = read_whole(reports[0], &said);
    int status;
    while (waitpid(init_pid, &status, 0) < 0 && errno == EINTR)
        ;
    bool known = heard && said.length > 0; /* not if it was killed: how the command ended will never be known */
    if (input >= 0)
        report_stdin(input, &said);
    return !said.failed && write_whole(status_fd, said.bytes, said.length) && known ? 0 : EXIT_FAILED;
}

static bool parse_fd(const char *text, int *fd)
{
    char *stop;
    long value = strtol(text, &stop, 10);
    *fd = (int)value;
    return *text && !*stop && value >= 0 && value <= INT_MAX && fcntl(*fd, F_GETFD) >= 0;
}

int main(int argc, char **argv)
{
    int config_fd, status_fd;
    signal(SIGCHLD, SIG_DFL); /* ignored, it would reap our children for us */
    if (argc == 4 && strcmp(argv[1], "run") == 0 && parse_fd(argv[2], &config_fd) && parse_fd(argv[3], &status_fd))
        return run(config_fd, status_fd);
    if (argc > 2 && strcmp(argv[1], "enter") == 0)
        return enter(argv + 2);
    bool help = argc == 2 && strcmp(argv[1], "--help") == 0;
    (void)write_whole(help ? STDOUT_FILENO : STDERR_FILENO, USAGE, sizeof USAGE - 1);
    return help ? 0 : EXIT_FAILED;
}
